//! `MatMul` to `Encode` and `Linear`, with one `Encode` for all products that
//! read a value and want it in the same form.
//!
//! This is the one rewrite that always applies: `MatMul` does not run.

use tract_onnx::tract_core::internal::*;
use tract_onnx::tract_core::model::Rewriter;

use crate::ops::MatMul;

pub(super) fn rules() -> Rewriter<()> {
    Rewriter::default().with_rule_for("encode", encode)
}

fn encode(
    _: &(),
    model: &TypedModel,
    node: &TypedNode,
    name: &str,
    matmul: &MatMul,
) -> TractResult<Option<TypedModelPatch>> {
    let input = node.inputs[0];
    let encoding = matmul.encoding()?;
    let mut patch = TypedModelPatch::new("encode");
    let x = patch.tap_model(model, input)?;
    let x = patch.wire_node(format!("{name}.encode"), matmul.encode()?, &[x])?;
    for reader in model.outlet_successors(input) {
        let reader = model.node(reader.node);
        if let Some(matmul) = reader.op_as::<MatMul>()
            && matmul.encoding()? == encoding
        {
            let y = patch.wire_node(&reader.name, matmul.linear()?, &x)?;
            patch.shunt_outside(model, reader.id.into(), y[0])?;
        }
    }
    Ok(Some(patch))
}
