//! Guarded rewrites of the typed graph: one operator in the place of several.
//!
//! tract's loop, the memory between operators and, most of all, each hand-over
//! to the threads cost as much as the arithmetic of a small layer. So what
//! follows one another without need of it is put together. Each rewrite is a file
//! and looks for one form; where anything differs (another reader of a value in
//! between, other shapes or bits) nodes stay as they are and compute the same.

mod encode;
mod encoded;
mod gated;
mod residual;
mod silu;
mod together;

use tract_onnx::tract_core::internal::*;
use tract_onnx::tract_core::model::Rewriter;

use crate::ops::{Elementwise, Function};

/// Rewrites the graph of the folder's operators, all bound to their runtime.
pub(super) fn fuse(model: &mut TypedModel) -> TractResult<()> {
    let before = model.nodes.len();
    let passes: [(&str, Rewriter<()>); 6] = [
        ("encode", encode::rules()),
        ("together", together::rules()),
        ("gated", gated::rules()),
        ("silu", silu::rules()),
        ("residual", residual::rules()),
        ("encoded", encoded::rules()),
    ];
    for (pass, rules) in passes {
        rules.rewrite(&(), model)?;
        tracing::debug!(pass, nodes = model.nodes.len(), before, "graph rewritten");
    }
    Ok(())
}

/// Whether exactly `readers` inputs of nodes read a value, and nobody outside
/// the graph does.
fn read_by(model: &TypedModel, value: OutletId, readers: usize) -> bool {
    model.outlet_successors(value).len() == readers && !model.outputs.contains(&value)
}

/// Whether a node is the element-wise operator of a function.
fn computes(node: &TypedNode, function: Function) -> bool {
    node.op_as::<Elementwise>()
        .is_some_and(|op| op.function() == function)
}
