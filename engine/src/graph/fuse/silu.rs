//! `(gate * sigmoid(gate)) * up`: how it is found in the graph, and one operator in the place of its
//! three where the values are not fresh from their products, as these have biases.

use tract_onnx::tract_core::internal::*;
use tract_onnx::tract_core::model::Rewriter;

use super::{computes, read_by};
use crate::ops::{Elementwise, Function};

pub(super) fn rules() -> Rewriter<()> {
    Rewriter::default().with_rule_for("silu", silu)
}

fn silu(
    _: &(),
    model: &TypedModel,
    node: &TypedNode,
    name: &str,
    sigmoid: &Elementwise,
) -> TractResult<Option<TypedModelPatch>> {
    if sigmoid.function() != Function::Sigmoid {
        return Ok(None);
    }
    let gate = node.inputs[0];
    let Some((product, up)) = product(model, gate) else {
        return Ok(None);
    };
    if model.outlet_fact(gate)?.shape != model.outlet_fact(up)?.shape {
        return Ok(None);
    }
    let mut patch = TypedModelPatch::new("silu");
    let inputs = patch.taps(model, &[gate, up])?;
    let output = patch.wire_node(name, sigmoid.with(Function::SiluMul), &inputs)?;
    patch.shunt_outside(model, product.id.into(), output[0])?;
    Ok(Some(patch))
}

/// The node that multiplies `gate * sigmoid(gate)` with something, and that something, where nobody
/// else reads anything in between.
pub(super) fn product(model: &TypedModel, gate: OutletId) -> Option<(&TypedNode, OutletId)> {
    if !read_by(model, gate, 2) {
        return None;
    }
    let sigmoid = readers(model, gate).find(|n| computes(n, Function::Sigmoid))?;
    let (silu, other) = multiplication(model, sigmoid.id.into())?;
    if other != gate {
        return None;
    }
    multiplication(model, silu.id.into())
}

/// The node that multiplies a value that only it reads, and with what.
fn multiplication(model: &TypedModel, value: OutletId) -> Option<(&TypedNode, OutletId)> {
    let node = readers(model, value).next()?;
    if !read_by(model, value, 1) || !computes(node, Function::Mul) {
        return None;
    }
    let other = node.inputs.iter().find(|&&input| input != value)?;
    Some((node, *other))
}

fn readers(model: &TypedModel, value: OutletId) -> impl Iterator<Item = &TypedNode> {
    model
        .outlet_successors(value)
        .iter()
        .map(|inlet| model.node(inlet.node))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `gate * sigmoid(gate) * up`, each product with its factors in the given order, and what
    /// computes it once it is rewritten.
    fn rewritten(swapped: [bool; 2], also_read: bool) -> Vec<Function> {
        let mut model = TypedModel::default();
        let mut source = |name: &str| model.add_source(name, f32::fact([1, 2, 4])).unwrap();
        let (gate, up) = (source("gate"), source("up"));
        let mut wire = |function, inputs: &[OutletId], swapped| {
            let mut inputs = inputs.to_vec();
            if swapped {
                inputs.reverse();
            }
            let name = format!("{function:?}.{}", model.nodes().len());
            model
                .wire_node(name, Elementwise::new(function), &inputs)
                .unwrap()[0]
        };
        let sigmoid = wire(Function::Sigmoid, &[gate], false);
        let silu = wire(Function::Mul, &[gate, sigmoid], swapped[0]);
        let product = wire(Function::Mul, &[silu, up], swapped[1]);
        let outputs = if also_read {
            vec![product, silu]
        } else {
            vec![product]
        };
        model.select_output_outlets(&outputs).unwrap();
        rules().rewrite(&(), &mut model).unwrap();
        model.compact().unwrap();
        let functions = model.nodes().iter();
        let functions = functions.filter_map(|node| node.op_as::<Elementwise>());
        functions.map(Elementwise::function).collect()
    }

    #[test]
    fn silu_is_found_in_any_order_of_its_factors() {
        for swapped in [[false, false], [true, false], [false, true], [true, true]] {
            assert_eq!(
                rewritten(swapped, false),
                [Function::SiluMul],
                "{swapped:?}"
            );
        }
    }

    #[test]
    fn what_others_read_stays() {
        let kept = [Function::Sigmoid, Function::Mul, Function::Mul];
        assert_eq!(rewritten([false, false], true), kept);
    }
}
