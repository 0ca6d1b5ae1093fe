//! The first half of the MLP: gate, up and SiLU in one job for the threads.

use tract_onnx::tract_core::internal::*;

use super::activations::{EncodedRows, Form, check_rows, encoded};
use super::attributes::BlockWeights;
use super::route::Stage;
use super::runtime::Link;
use super::scratch::with_scratch;
use super::window::Window;
use crate::kernels::blocks::BLOCK;
use crate::kernels::encoding::Encoding;
use crate::kernels::linear::{Output, linear};
use crate::kernels::silu::silu_mul;
use crate::threads::share;

/// f32 of gate and up that are computed before SiLU puts them together: they stay
/// in a core's second cache.
const SCRATCH: usize = 1 << 16;

/// `silu(x gateᵀ) * (x upᵀ)`: encoded `[.., K]` to rows of N.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Gated {
    encoding: Encoding,
    gate: BlockWeights,
    up: BlockWeights,
    form: Form,
    /// The product after this one.
    next: Option<Stage>,
    runtime: Link,
}

impl Gated {
    /// Two matrices of one shape, of whole blocks of rows.
    pub(super) fn new(
        encoding: Encoding,
        [gate, up]: [BlockWeights; 2],
        runtime: Link,
    ) -> Option<Self> {
        let fits =
            (gate.rows, gate.columns) == (up.rows, up.columns) && gate.rows.is_multiple_of(BLOCK);
        fits.then_some(Self {
            encoding,
            gate,
            up,
            form: Form::Float,
            next: None,
            runtime,
        })
    }

    /// Of the gate: each part begins with it.
    pub(super) fn stage(&self) -> Stage {
        Stage {
            matrices: tvec![self.gate.clone()],
            rows_per_item: BLOCK,
        }
    }

    pub(super) fn go_on_with(&mut self, next: Stage) {
        self.next = Some(next);
    }

    /// The same, giving its rows in a form, if it does not already.
    pub(crate) fn in_form(&self, form: Form) -> Option<Self> {
        (self.form == Form::Float).then(|| Self {
            form,
            ..self.clone()
        })
    }
}

impl Op for Gated {
    fn name(&self) -> StaticName {
        "ChaskiGated".into()
    }

    fn info(&self) -> TractResult<Vec<String>> {
        let BlockWeights { rows, columns, .. } = &self.gate;
        Ok(vec![format!(
            "weights 2 x {rows} x {columns}, {:?}",
            self.form
        )])
    }

    op_as_typed_op!();
}

impl EvalOp for Gated {
    op_out_of_plan!();

    fn eval(&self, _: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let x = args_1!(inputs);
        let runtime = self.runtime.get()?;
        let activations = encoded(self.encoding, &x)?;
        let (gate, up) = (
            self.gate.view(&runtime.mapping)?,
            self.up.view(&runtime.mapping)?,
        );
        let (rows, columns) = (activations.rows(), gate.rows());
        let mut out = self.form.take(&runtime.pool, x.shape(), columns)?;
        {
            let mut plain = out.plain()?;
            let (floats, to) = match self.form {
                Form::Float => (Some(Window::new(plain.as_slice_mut::<f32>()?)), None),
                Form::Encoded(e) => {
                    let rows = EncodedRows::new(e, plain.as_slice_mut::<u8>()?)?;
                    (None, Some(rows))
                }
            };
            let blocks = columns / BLOCK;
            let parts = runtime.team.parts(blocks);
            // Blocks of columns at a time, so that the scratch is bounded.
            let step = (SCRATCH / (2 * rows * BLOCK)).max(1);
            runtime.team.run(parts, &|part| {
                let all = share(blocks, parts, part);
                let next = || {
                    let member = runtime.team.ends_run(part, parts)?;
                    self.next.as_ref()?.start(runtime, member)
                };
                for first in all.clone().step_by(step) {
                    let range = first * BLOCK..(first + step).min(all.end) * BLOCK;
                    let width = range.len();
                    with_scratch(2 * rows * width, |scratch| {
                        let (g, u) = scratch.split_at_mut(rows * width);
                        let last = range.end == all.end * BLOCK;
                        let after = if last { next() } else { None };
                        let after = after.or(Some((gate, range.end)));
                        let products = [
                            (&gate, &mut *g, Some((up, range.start))),
                            (&up, &mut *u, after),
                        ];
                        for (w, y, then) in products {
                            let y = Output::new(y, width, range.start);
                            // SAFETY: `y` has these rows and columns, this thread's.
                            unsafe { linear(w, &activations, range.clone(), y, then) };
                        }
                        silu_mul(runtime.backend, g, u);
                        for (row, values) in g.chunks_exact(width).enumerate() {
                            // SAFETY: parts have columns of their own.
                            unsafe {
                                if let Some(to) = &to {
                                    to.encode(values, row, first);
                                } else if let Some(to) = &floats {
                                    let at = row * columns;
                                    to.part(at + range.start..at + range.end)
                                        .copy_from_slice(values);
                                }
                            }
                        }
                    });
                }
            });
        }
        Ok(tvec![out.into_value()])
    }
}

impl TypedOp for Gated {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        ensure!(inputs.len() == 1, "{} inputs, not 1", inputs.len());
        check_rows(inputs[0], u8::datum_type(), self.encoding.row_bytes())?;
        Ok(tvec![self.form.fact(&inputs[0].shape, self.gate.rows)?])
    }

    as_op!();
}
