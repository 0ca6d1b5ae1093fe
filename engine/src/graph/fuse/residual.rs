//! The residual's addition and the norm of the sum: one pass over the rows.

use tract_onnx::tract_core::internal::*;
use tract_onnx::tract_core::model::Rewriter;

use super::computes;
use crate::ops::{Function, Norm};

pub(super) fn rules() -> Rewriter<()> {
    Rewriter::default().with_rule_for("residual", residual)
}

fn residual(
    _: &(),
    model: &TypedModel,
    node: &TypedNode,
    name: &str,
    norm: &Norm,
) -> TractResult<Option<TypedModelPatch>> {
    let sum = node.inputs[0];
    let add = model.node(sum.node);
    // Rows are added to rows: nothing is repeated to fit.
    let fact = |outlet| model.outlet_fact(outlet);
    if !computes(add, Function::Add)
        || norm.residual()
        || fact(add.inputs[0])?.shape != fact(add.inputs[1])?.shape
        || model.outputs.contains(&sum)
    {
        return Ok(None);
    }
    let mut patch = TypedModelPatch::new("residual");
    let inputs = [add.inputs[0], add.inputs[1], node.inputs[1]]
        .into_iter()
        .map(|outlet| patch.tap_model(model, outlet))
        .collect::<TractResult<TVec<_>>>()?;
    let outputs = patch.wire_node(name, norm.with_residual(), &inputs)?;
    patch.shunt_outside(model, sum, outputs[0])?;
    patch.shunt_outside(model, node.id.into(), outputs[1])?;
    Ok(Some(patch))
}
