//! `(gate * sigmoid(gate)) * up`, of two products computed together.

use tract_onnx::tract_core::internal::*;
use tract_onnx::tract_core::model::Rewriter;
use tract_onnx::tract_core::ops::binary::TypedBinOp;
use tract_onnx::tract_core::ops::element_wise::ElementWiseOp;
use tract_onnx::tract_core::ops::math::Mul;
use tract_onnx::tract_core::ops::nn::Sigmoid;

use super::read_by;
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
        let Some(product) = product(model, gate, up) else {
            continue;
        };
        let Some(gated) = linear.gated(slot) else {
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

/// The node that multiplies `gate * sigmoid(gate)` with `up`, where nobody else
/// reads anything in between.
fn product(model: &TypedModel, gate: OutletId, up: OutletId) -> Option<&TypedNode> {
    if !read_by(model, gate, 2) || !read_by(model, up, 1) {
        return None;
    }
    let sigmoid = readers(model, gate).find(|n| {
        n.op_as::<ElementWiseOp>()
            .is_some_and(|op| op.0.is::<Sigmoid>())
    })?;
    let silu = multiplication(model, gate, sigmoid.id.into())?;
    if !read_by(model, sigmoid.id.into(), 1) || !read_by(model, silu.id.into(), 1) {
        return None;
    }
    multiplication(model, silu.id.into(), up)
}

/// The node that multiplies two values, in either order.
fn multiplication(model: &TypedModel, a: OutletId, b: OutletId) -> Option<&TypedNode> {
    readers(model, a).find(|n| {
        (n.inputs[..] == [a, b] || n.inputs[..] == [b, a])
            && n.op_as::<TypedBinOp>().is_some_and(|op| op.0.is::<Mul>())
    })
}

fn readers(model: &TypedModel, value: OutletId) -> impl Iterator<Item = &TypedNode> {
    model
        .outlet_successors(value)
        .iter()
        .map(|inlet| model.node(inlet.node))
}
