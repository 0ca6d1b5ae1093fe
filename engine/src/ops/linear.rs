//! Products of encoded activations with weights in the mapped data file.

use tract_onnx::tract_core::internal::*;

use super::activations::{Form, check_rows, encoded};
use super::attributes::BlockWeights;
use super::gated::Gated;
use super::pool::Buffer;
use super::route::Stage;
use super::runtime::Link;
use crate::kernels::blocks::BlockMatrix;
use crate::kernels::encoding::Encoding;
use crate::kernels::linear::{Output, linear};
use crate::threads::share;

/// Rows of W that are worth handing to another thread, and whole for every
/// kernel.
const LEAST_ROWS: usize = 16;
/// Matrices that are multiplied in one go, at most: as many as tract's lists of
/// values hold without allocating.
pub(crate) const MOST_MATRICES: usize = 4;

/// `y = x Wᵀ` for each of a few matrices: encoded `[.., K]` to f32 `[.., N]`, W of
/// 4 or 8 bits `[N, K]`. All of them are one job for the threads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Linear {
    encoding: Encoding,
    matrices: TVec<BlockWeights>,
    /// The product after this one.
    next: Option<Stage>,
    runtime: Link,
}

impl Linear {
    pub(super) fn new(encoding: Encoding, matrix: BlockWeights, runtime: Link) -> Self {
        Self {
            encoding,
            matrices: tvec![matrix],
            next: None,
            runtime,
        }
    }

    /// The products of one input with the matrices of all, if they can be one job.
    pub(crate) fn together(products: &[&Linear]) -> Option<Self> {
        let first = products.first()?;
        let matrices: TVec<_> = products.iter().flat_map(|p| p.matrices.clone()).collect();
        let fits = products.iter().all(|p| p.encoding == first.encoding)
            && matrices.len() <= MOST_MATRICES;
        fits.then(|| Self {
            matrices,
            ..(*first).clone()
        })
    }

    /// The product with SiLU of two matrices' products, if it has two: `gate` says
    /// which of them is the gate.
    pub(crate) fn gated(&self, gate: usize) -> Option<Gated> {
        let [first, second] = &self.matrices[..] else {
            return None;
        };
        let pair = match gate {
            0 => [first, second],
            _ => [second, first],
        };
        Gated::new(self.encoding, pair.map(Clone::clone), self.runtime.clone())
    }

    pub(super) fn stage(&self) -> Stage {
        Stage {
            matrices: self.matrices.clone(),
            rows_per_item: LEAST_ROWS,
        }
    }

    pub(super) fn go_on_with(&mut self, next: Stage) {
        self.next = Some(next);
    }

    /// Matrices that it multiplies with.
    pub(crate) fn matrices(&self) -> usize {
        self.matrices.len()
    }

    /// The shapes `[N, K]` of the matrices.
    fn shapes(&self) -> String {
        let shape = |w: &BlockWeights| format!("{} x {}", w.rows, w.columns);
        let shapes: Vec<_> = self.matrices.iter().map(shape).collect();
        shapes.join(", ")
    }
}

impl Op for Linear {
    fn name(&self) -> StaticName {
        "ChaskiLinear".into()
    }

    fn info(&self) -> TractResult<Vec<String>> {
        let bits = self.encoding.bits();
        Ok(vec![format!("weights {}, {bits:?} bits", self.shapes())])
    }

    op_as_typed_op!();
}

impl EvalOp for Linear {
    op_out_of_plan!();

    fn eval(&self, _: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let x = args_1!(inputs);
        let runtime = self.runtime.get()?;
        let activations = encoded(self.encoding, &x)?;
        let mut buffers: TVec<Buffer<'_>> = tvec![];
        let mut products: TVec<(BlockMatrix<'_>, Output)> = tvec![];
        for weights in &self.matrices {
            let w = weights.view(&runtime.mapping)?;
            let mut y = Form::Float.take(&runtime.pool, x.shape(), w.rows())?;
            let mut plain = y.plain()?;
            // The tensor stays where it is when its buffer moves.
            products.push((w, Output::new(plain.as_slice_mut::<f32>()?, w.rows(), 0)));
            buffers.push(y);
        }
        let chunks = |w: &BlockMatrix<'_>| w.rows().div_ceil(LEAST_ROWS);
        let total = products.iter().map(|(w, _)| chunks(w)).sum();
        let parts = runtime.team.parts(total);
        runtime.team.run(parts, &|part| {
            let mut range = share(total, parts, part);
            let next = || {
                let member = runtime.team.ends_run(part, parts)?;
                self.next.as_ref()?.start(runtime, member)
            };
            let mut following = products.iter().skip(1).map(|(w, _)| (*w, 0));
            for (w, y) in &products {
                let here = range.start.min(chunks(w))..range.end.min(chunks(w));
                range = range.start - here.start..range.end - here.end;
                let rows = here.start * LEAST_ROWS..(here.end * LEAST_ROWS).min(w.rows());
                let following = following.next();
                let then = if range.is_empty() { next() } else { following };
                if !rows.is_empty() {
                    // SAFETY: `y` is `[activations.rows(), w.rows()]`, outlives
                    // `run` in `buffers`, and the shares are disjoint.
                    unsafe { linear(w, &activations, rows, *y, then) };
                }
            }
        });
        Ok(buffers.into_iter().map(Buffer::into_value).collect())
    }
}

impl TypedOp for Linear {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        ensure!(inputs.len() == 1, "{} inputs, not 1", inputs.len());
        check_rows(inputs[0], u8::datum_type(), self.encoding.row_bytes())?;
        self.matrices
            .iter()
            .map(|w| Form::Float.fact(&inputs[0].shape, w.rows))
            .collect()
    }

    as_op!();
}
