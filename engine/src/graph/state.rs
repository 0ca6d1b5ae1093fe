//! One run of the plan after the other, without what tract allocates around them.
//!
//! tract's own `run` forgets the symbols' values and clears every value of the
//! turn. Here the symbols are set before a run, which then resolves none; the
//! plan drops values after their last use anyway; and the ids go into the tensor
//! of an earlier step.

use std::sync::Arc;

use tract_onnx::prelude::*;
use tract_onnx::tract_core::internal::*;

use super::Plan;
use crate::generate::GenerateOptions;
use crate::ops::{AttentionState, Last, LastState};

/// A plan's values and operator states: one KV cache.
pub(crate) struct State {
    tract: TypedSimpleState,
    /// Of the plan's symbols, how many positions go in,
    positions: Symbol,
    /// and how many the logits are wanted of.
    kept: Symbol,
    /// The node that keeps them.
    last: usize,
    /// The node that makes the logits.
    logits: usize,
    vocab_size: usize,
    /// `[1, S]` at S, once it has occurred, for S up to [`KEPT_INPUTS`].
    inputs: Vec<Option<Arc<Tensor>>>,
}

/// The largest S whose input tensor is kept for the next step of that S: of a
/// decoded token with the longest draft.
const KEPT_INPUTS: usize = 1 + GenerateOptions::MOST_DRAFTED;

impl State {
    /// An empty KV cache.
    pub(crate) fn new(plan: &Plan, vocab_size: usize) -> TractResult<Self> {
        let model = plan.model();
        let [TDim::Val(1), TDim::Sym(positions)] = &*model.input_fact(0)?.shape else {
            bail!("the input is {:?}, not [1, S]", model.input_fact(0)?);
        };
        let last = model
            .nodes
            .iter()
            .find_map(|n| n.op_as::<Last>().map(|op| (n.id, op.kept().clone())));
        let (last, kept) = last.context("nothing keeps the last positions")?;
        Ok(Self {
            positions: positions.clone(),
            kept,
            last,
            logits: model.output_outlets()?[0].node,
            vocab_size,
            inputs: vec![None; KEPT_INPUTS + 1],
            tract: plan.spawn()?,
        })
    }

    /// Appends `ids`, and computes the logits after the last `keep` of them: at
    /// least one, at most all.
    ///
    /// After an error the layers may hold different positions: see
    /// [`Self::truncate`].
    pub(crate) fn run(&mut self, ids: &[u32], keep: usize) -> TractResult<()> {
        let result = self.try_run(ids, keep);
        if result.is_err() {
            // tract fills the table again when it is empty.
            self.tract.turn_state.values.clear();
        }
        result
    }

    fn try_run(&mut self, ids: &[u32], keep: usize) -> TractResult<()> {
        let input = self.input(ids)?;
        // The logits of the step before: their memory may serve this one.
        if let Some(value) = self.tract.turn_state.values.get_mut(self.logits) {
            *value = None;
        }
        let state = self.tract.op_states[self.last].as_mut();
        let state = state.and_then(|s| s.downcast_mut::<LastState>());
        state
            .context("the last positions have no state")?
            .keep(keep);
        let symbols = &mut self.tract.turn_state.resolved_symbols;
        symbols.set(&self.positions, ids.len() as i64);
        symbols.set(&self.kept, keep as i64);
        self.tract.set_input(0, input)?;
        self.tract.exec()?;
        let found = self.tract.output(0)?;
        ensure!(
            found.shape() == [1, keep, self.vocab_size] && found.datum_type() == f32::datum_type(),
            "logits {found:?} where f32 [1, {keep}, {}] is due",
            self.vocab_size
        );
        Ok(())
    }

    /// The ids as tract takes them.
    fn input(&mut self, ids: &[u32]) -> TractResult<TValue> {
        let mut once = None;
        let kept = self.inputs.get_mut(ids.len()).unwrap_or(&mut once);
        // Nobody else holds a tensor of an earlier step, unless it failed.
        if kept.as_mut().is_none_or(|old| Arc::get_mut(old).is_none()) {
            *kept = Some(Arc::new(Tensor::zero::<i64>(&[1, ids.len()])?));
        }
        let kept = kept.as_mut().context("no input")?;
        let tensor = Arc::get_mut(kept).context("a new tensor is shared")?;
        let mut plain = tensor.try_as_plain_ram_mut()?;
        for (slot, &id) in plain.as_slice_mut::<i64>()?.iter_mut().zip(ids) {
            *slot = i64::from(id);
        }
        Ok(Arc::clone(kept).into_tvalue())
    }

    /// The logits of the last run, `[keep, vocab_size]`; nothing before the
    /// first and after an error.
    pub(crate) fn logits(&self) -> &[f32] {
        let value = self.tract.output(0).ok();
        let plain = value.and_then(|value| value.try_as_plain_ram().ok());
        plain
            .and_then(|plain| plain.as_slice::<f32>().ok())
            .unwrap_or(&[])
    }

    /// Forgets all positions of the KV cache from `len` on.
    pub(crate) fn truncate(&mut self, len: usize) {
        for state in self.tract.op_states.iter_mut().flatten() {
            if let Some(cache) = state.downcast_mut::<AttentionState>() {
                cache.truncate(len);
            }
        }
    }
}
