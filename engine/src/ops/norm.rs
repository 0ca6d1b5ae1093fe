//! `SimplifiedLayerNormalization`: RMSNorm, on its own or fused with the residual
//! before it and the encoding behind it.

use std::sync::Arc;

use tract_onnx::model::ParsingContext;
use tract_onnx::pb::NodeProto;
use tract_onnx::tract_core::internal::*;

use super::activations::{EncodedRows, Form, check_rows};
use super::parse::{Parsed, check_attributes, parsed};
use super::runtime::{Link, Runtime};
use super::scratch::with_scratch;
use super::window::Window;
use crate::kernels::norm::{add_rms_norm, rms_norm};
use crate::threads::share;

/// Rows that are worth handing to another thread.
const LEAST_ROWS: usize = 16;

/// f32 `x [.., K]` and the weight `[K]` to the normed rows; as `residual`, f32 `x`
/// and `delta` and the weight to `x + delta` and its normed rows.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Norm {
    epsilon: f32,
    residual: bool,
    form: Form,
    runtime: Link,
}

impl Eq for Norm {}

pub(super) fn parse(_: &ParsingContext<'_>, node: &NodeProto) -> Parsed {
    check_attributes(node, &[("axis", -1, -1), ("stash_type", 1, 1)])?;
    let epsilon = node.get_attr_opt::<f32>("epsilon")?.unwrap_or(1e-5);
    ensure!(
        epsilon.is_finite() && epsilon >= 0.0,
        "SimplifiedLayerNormalization with epsilon {epsilon}"
    );
    let op = Norm {
        epsilon,
        residual: false,
        form: Form::Float,
        runtime: Link::default(),
    };
    parsed(op, |_, s, inputs, outputs| {
        s.equals(&outputs[0].datum_type, &inputs[0].datum_type)?;
        s.equals(&outputs[0].shape, &inputs[0].shape)
    })
}

impl Norm {
    pub(super) fn bind(&mut self, runtime: &Arc<Runtime>) -> TractResult<()> {
        self.runtime.bind(runtime);
        Ok(())
    }

    /// Whether the residual is added.
    pub(crate) fn residual(&self) -> bool {
        self.residual
    }

    /// The norm of a sum that it computes itself.
    pub(crate) fn with_residual(&self) -> Self {
        Self {
            residual: true,
            ..self.clone()
        }
    }

    /// The norm that gives its rows in a form, if it does not already.
    pub(crate) fn in_form(&self, form: Form) -> Option<Self> {
        (self.form == Form::Float).then(|| Self {
            form,
            ..self.clone()
        })
    }
}

impl Op for Norm {
    fn name(&self) -> StaticName {
        "ChaskiNorm".into()
    }

    fn info(&self) -> TractResult<Vec<String>> {
        Ok(vec![format!(
            "residual: {}, {:?}",
            self.residual, self.form
        )])
    }

    op_as_typed_op!();
}

impl EvalOp for Norm {
    op_out_of_plan!();

    fn eval(&self, _: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let runtime = self.runtime.get()?;
        let (Some(x), Some(weight)) = (inputs.first(), inputs.last()) else {
            bail!("no inputs");
        };
        let (shape, weight) = (x.shape(), weight.try_as_plain_ram()?.as_slice::<f32>()?);
        let (x, k) = (x.try_as_plain_ram()?.as_slice::<f32>()?, weight.len());
        let delta = match &inputs[..] {
            [_, delta, _] => Some(delta.try_as_plain_ram()?.as_slice::<f32>()?),
            _ => None,
        };
        ensure!(
            k > 0 && shape.last() == Some(&k) && delta.is_none_or(|d| d.len() == x.len()),
            "inputs {inputs:?} do not fit each other"
        );
        let mut sums = match delta {
            Some(_) => Some(Form::Float.take(&runtime.pool, shape, k)?),
            None => None,
        };
        let mut out = self.form.take(&runtime.pool, shape, k)?;
        {
            let mut sums_plain = match &mut sums {
                Some(sums) => Some(sums.plain()?),
                None => None,
            };
            let sums: Window<'_, f32> = Window::new(match &mut sums_plain {
                Some(plain) => plain.as_slice_mut::<f32>()?,
                None => &mut [],
            });
            let mut plain = out.plain()?;
            let to = match self.form {
                Form::Float => To::Floats(Window::new(plain.as_slice_mut::<f32>()?)),
                Form::Encoded(e) => To::Encoded(EncodedRows::new(e, plain.as_slice_mut::<u8>()?)?),
            };
            let rows = x.len() / k;
            let parts = runtime.team.parts(rows.div_ceil(LEAST_ROWS));
            let work = |part: usize| {
                for row in share(rows, parts, part) {
                    let place = row * k..(row + 1) * k;
                    let norm = |out: &mut [f32]| {
                        let x = &x[place.clone()];
                        match delta {
                            Some(delta) => {
                                let delta = &delta[place.clone()];
                                // SAFETY: parts have rows of their own.
                                let sum = unsafe { sums.part(place.clone()) };
                                let epsilon = self.epsilon;
                                add_rms_norm(runtime.backend, x, delta, weight, epsilon, sum, out);
                            }
                            None => rms_norm(runtime.backend, x, weight, self.epsilon, out),
                        }
                    };
                    match &to {
                        // SAFETY: as above.
                        To::Floats(to) => norm(unsafe { to.part(place.clone()) }),
                        To::Encoded(to) => with_scratch(k, |normed| {
                            norm(normed);
                            // SAFETY: as above.
                            unsafe { to.encode(normed, row, 0) };
                        }),
                    }
                }
            };
            if rows < LEAST_ROWS {
                (0..parts).for_each(work);
            } else {
                runtime.team.run(parts, &work);
            }
        }
        Ok(sums
            .into_iter()
            .chain([out])
            .map(|buffer| buffer.into_value())
            .collect())
    }
}

/// Where normed rows go.
enum To<'a> {
    Floats(Window<'a, f32>),
    Encoded(EncodedRows<'a>),
}

impl TypedOp for Norm {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        let due = if self.residual { 3 } else { 2 };
        ensure!(inputs.len() == due, "{} inputs, not {due}", inputs.len());
        let weight = inputs[due - 1];
        ensure!(
            weight.rank() == 1 && weight.datum_type == f32::datum_type(),
            "the weight is {weight:?}"
        );
        let columns = weight.shape[0].to_usize()?;
        for fact in &inputs[..due - 1] {
            check_rows(fact, f32::datum_type(), columns)?;
            ensure!(
                fact.shape == inputs[0].shape,
                "the residual is {fact:?}, not {:?}",
                inputs[0]
            );
        }
        let mut facts = tvec![self.form.fact(&inputs[0].shape, columns)?];
        if self.residual {
            facts.insert(0, f32::fact(inputs[0].shape.clone()));
        }
        Ok(facts)
    }

    as_op!();
}
