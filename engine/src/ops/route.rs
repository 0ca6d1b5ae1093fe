//! From product to product: where a thread goes on reading weights.

use tract_onnx::prelude::*;

use super::attributes::BlockWeights;
use super::runtime::Runtime;
use super::{Gated, Linear};
use crate::kernels::linear::Then;
use crate::threads::share;

/// How an operator's matrices are dealt out: in items of so many rows, through
/// all matrices one after the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stage {
    pub(super) matrices: TVec<BlockWeights>,
    pub(super) rows_per_item: usize,
}

impl Stage {
    /// Where a member of the team begins.
    pub(super) fn start<'a>(&self, runtime: &'a Runtime, member: usize) -> Option<Then<'a>> {
        let items = |w: &BlockWeights| w.rows.div_ceil(self.rows_per_item);
        let total = self.matrices.iter().map(items).sum();
        let parts = runtime.team.parts(total);
        let mut item = share(total, parts, runtime.team.first_part(member, parts)).start;
        for w in &self.matrices {
            if item < items(w) {
                let w = w.view(&runtime.mapping).ok()?;
                return Some((w, item * self.rows_per_item));
            }
            item -= items(w);
        }
        None
    }
}

/// Tells every product which one comes after it; after the last one a token's
/// first.
pub(crate) fn route(model: &mut TypedModel) -> TractResult<()> {
    let order = model.eval_order()?;
    let stage = |model: &TypedModel, node: usize| {
        let node = model.node(node);
        let linear = node.op_as::<Linear>().map(Linear::stage);
        linear.or_else(|| node.op_as::<Gated>().map(Gated::stage))
    };
    let products: Vec<(usize, Stage)> = order
        .into_iter()
        .filter_map(|node| Some((node, stage(model, node)?)))
        .collect();
    let next = products.iter().cycle().skip(1).map(|(_, stage)| stage);
    for ((node, _), next) in products.iter().zip(next) {
        let node = &mut model.nodes[*node];
        if let Some(op) = node.op_as_mut::<Linear>() {
            op.go_on_with(next.clone());
        } else if let Some(op) = node.op_as_mut::<Gated>() {
            op.go_on_with(next.clone());
        }
    }
    Ok(())
}
