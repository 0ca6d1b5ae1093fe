//! Products that read one encoded input become one job for the threads: Q, K and
//! V; gate and up.

use tract_onnx::tract_core::internal::*;
use tract_onnx::tract_core::model::Rewriter;

use crate::ops::{Encode, Linear, Norm};

pub(super) fn rules() -> Rewriter<()> {
    Rewriter::default()
        .with_rule_for("together", |_, model, node, _, _: &Encode| {
            together(model, node, 0)
        })
        .with_rule_for("together", |_, model, node, _, norm: &Norm| {
            together(model, node, usize::from(norm.residual()))
        })
}

fn together(
    model: &TypedModel,
    node: &TypedNode,
    slot: usize,
) -> TractResult<Option<TypedModelPatch>> {
    let input = OutletId::new(node.id, slot);
    let readers: Vec<usize> = model
        .outlet_successors(input)
        .iter()
        .map(|inlet| inlet.node)
        .filter(|&id| model.node(id).op_is::<Linear>())
        .collect();
    if readers.len() < 2 {
        return Ok(None);
    }
    let products: Option<Vec<&Linear>> = readers
        .iter()
        .map(|&id| model.node(id).op_as::<Linear>())
        .collect();
    let Some(linear) = products.as_deref().and_then(Linear::together) else {
        return Ok(None);
    };
    let mut patch = TypedModelPatch::new("together");
    let x = patch.tap_model(model, input)?;
    let name = format!("{}.products", node.name);
    let outputs = patch.wire_node(name, linear, &[x])?;
    let mut outputs = outputs.into_iter();
    for &id in &readers {
        for slot in 0..model.node(id).outputs.len() {
            let output = outputs.next().context("a product is missing")?;
            patch.shunt_outside(model, OutletId::new(id, slot), output)?;
        }
    }
    Ok(Some(patch))
}
