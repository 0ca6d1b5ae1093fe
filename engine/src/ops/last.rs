//! The last positions of a sequence: those whose logits are wanted.
//!
//! Of a prompt that is one, and the head is the largest matrix of a small model;
//! of a draft that is verified it is all of them. How many is no property of the
//! graph but of a step, so it is this operator's state.

use tract_onnx::model::ParsingContext;
use tract_onnx::pb::NodeProto;
use tract_onnx::tract_core::internal::*;

use super::parse::{Parsed, parsed};

/// The operator's name in the rewritten graph.
pub(crate) const LAST: &str = "ChaskiLast";

/// f32 `[1, S, K]` to f32 `[1, N, K]`, its last N positions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Last {
    /// N.
    kept: Symbol,
}

pub(super) fn parse(context: &ParsingContext<'_>, _: &NodeProto) -> Parsed {
    let op = Last {
        kept: context.template.symbols.new_with_prefix("kept"),
    };
    parsed(op, |_, s, inputs, outputs| {
        s.equals(&outputs[0].datum_type, &inputs[0].datum_type)?;
        s.equals(&outputs[0].rank, &inputs[0].rank)
    })
}

impl Last {
    /// The symbol of N, which whoever runs the graph may resolve beforehand.
    pub(crate) fn kept(&self) -> &Symbol {
        &self.kept
    }
}

impl Op for Last {
    fn name(&self) -> StaticName {
        LAST.into()
    }

    fn mints_runtime_symbols(&self) -> bool {
        true
    }

    op_as_typed_op!();
}

impl EvalOp for Last {
    not_out_of_plan!();

    fn state(&self, _: &EvalContext) -> TractResult<Option<Box<dyn OpState>>> {
        Ok(Some(Box::new(LastState { keep: 1 })))
    }
}

impl TypedOp for Last {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        ensure!(inputs.len() == 1, "{} inputs, not 1", inputs.len());
        let fact = inputs[0];
        ensure!(
            fact.datum_type == f32::datum_type() && fact.rank() == 3 && fact.shape[0] == 1.to_dim(),
            "input {fact:?} where f32 [1, S, K] is due"
        );
        let mut shape = fact.shape.clone();
        shape.set(1, self.kept.to_dim());
        Ok(tvec![f32::fact(shape)])
    }

    as_op!();
}

/// How many positions the coming steps keep.
#[derive(Clone, Debug)]
pub(crate) struct LastState {
    keep: usize,
}

impl LastState {
    /// Keeps `keep` positions from now on, or as many as there are.
    pub(crate) fn keep(&mut self, keep: usize) {
        self.keep = keep;
    }
}

impl OpState for LastState {
    fn eval(
        &mut self,
        _: &EvalContext,
        _: &dyn Op,
        inputs: TVec<TValue>,
    ) -> TractResult<TVec<TValue>> {
        let &[1, positions, _] = inputs[0].shape() else {
            bail!("input {:?} where [1, S, K] is due", inputs[0].shape());
        };
        if self.keep >= positions {
            // Every decoded token: the value is handed on as it is.
            return Ok(inputs);
        }
        let kept = inputs[0].slice(1, positions - self.keep, positions)?;
        Ok(tvec![kept.into_tvalue()])
    }

    fn reset_lanes(&mut self, _: &[LaneId]) -> TractResult<()> {
        bail!("the steps of a session have one lane: use a session per conversation")
    }
}
