//! `(gate * sigmoid(gate)) * up`, of two products computed together.

use tract_onnx::tract_core::internal::*;
use tract_onnx::tract_core::model::Rewriter;

use super::read_by;
use super::silu::product;
use crate::ops::Linear;

pub(super) fn rules() -> Rewriter<()> {
    Rewriter::default().with_rule_for("gated", gated)
}

fn gated(
    _: &(),
    model: &TypedModel,
    node: &TypedNode,
    _: &str,
    linear: &Linear,
) -> TractResult<Option<TypedModelPatch>> {
    if linear.matrices() != 2 {
        return Ok(None);
    }
    for slot in 0..2 {
        let (gate, up) = (
            OutletId::new(node.id, slot),
            OutletId::new(node.id, 1 - slot),
        );
        let Some((product, _)) = product(model, gate).filter(|&(_, other)| other == up) else {
            continue;
        };
        let Some(gated) = linear.gated(slot).filter(|_| read_by(model, up, 1)) else {
            continue;
        };
        let mut patch = TypedModelPatch::new("gated");
        let x = patch.tap_model(model, node.inputs[0])?;
        let name = format!("{}.gated", node.name);
        let output = patch.wire_node(name, gated, &[x])?;
        patch.shunt_outside(model, product.id.into(), output[0])?;
        return Ok(Some(patch));
    }
    Ok(None)
}
