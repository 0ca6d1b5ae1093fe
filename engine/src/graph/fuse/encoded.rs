//! What makes activations encodes them itself, where nothing else reads them.

use tract_onnx::tract_core::internal::*;
use tract_onnx::tract_core::model::Rewriter;

use super::read_by;
use crate::ops::{Attention, Encode, Form, Gated, Norm};

pub(super) fn rules() -> Rewriter<()> {
    Rewriter::default().with_rule_for("encoded", encoded)
}

fn encoded(
    _: &(),
    model: &TypedModel,
    node: &TypedNode,
    _: &str,
    encode: &Encode,
) -> TractResult<Option<TypedModelPatch>> {
    let value = node.inputs[0];
    let maker = model.node(value.node);
    let form = Form::Encoded(encode.encoding());
    let op: Option<Box<dyn TypedOp>> = if let Some(op) = maker.op_as::<Norm>() {
        // Slot 0 of a residual norm is the sum.
        (value.slot == usize::from(op.residual()))
            .then(|| op.in_form(form))
            .flatten()
            .map(|op| Box::new(op) as _)
    } else if let Some(op) = maker.op_as::<Gated>() {
        op.in_form(form).map(|op| Box::new(op) as _)
    } else if let Some(op) = maker.op_as::<Attention>() {
        op.in_form(form).map(|op| Box::new(op) as _)
    } else {
        None
    };
    let Some(op) = op.filter(|_| read_by(model, value, 1)) else {
        return Ok(None);
    };
    let mut patch = TypedModelPatch::new("encoded");
    let inputs = patch.taps(model, &maker.inputs)?;
    let outputs = patch.wire_node(&maker.name, op, &inputs)?;
    for (slot, output) in outputs.into_iter().enumerate() {
        let old = OutletId::new(maker.id, slot);
        if old == value {
            patch.shunt_outside(model, node.id.into(), output)?;
        } else {
            patch.shunt_outside(model, old, output)?;
        }
    }
    Ok(Some(patch))
}
