//! The element-wise arithmetic between our operators: residuals, biases, and SiLU as the graph
//! spells it.
//!
//! Most of it is fused away ([`crate::graph`]); what stays is that of models with biases.

use std::sync::Arc;

use tract_onnx::model::ParsingContext;
use tract_onnx::pb::NodeProto;
use tract_onnx::tract_core::internal::*;

use super::activations::Form;
use super::parse::{Parsed, parsed};
use super::runtime::{Link, Runtime};
use crate::kernels::silu::silu_mul;

/// What is computed of each element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Function {
    /// `a + b`.
    Add,
    /// `a * b`.
    Mul,
    /// `1 / (1 + e^-a)`.
    Sigmoid,
    /// `a * sigmoid(a) * b`.
    SiluMul,
}

/// f32 `a` and `b` to the function's values in the shape of the larger one; the smaller one, with
/// the larger one's last dimensions, is repeated, as a bias for all rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Elementwise {
    function: Function,
    runtime: Link,
}

pub(super) fn parse_add(_: &ParsingContext<'_>, _: &NodeProto) -> Parsed {
    binary(Function::Add)
}

pub(super) fn parse_mul(_: &ParsingContext<'_>, _: &NodeProto) -> Parsed {
    binary(Function::Mul)
}

pub(super) fn parse_sigmoid(_: &ParsingContext<'_>, _: &NodeProto) -> Parsed {
    parsed(
        Elementwise::new(Function::Sigmoid),
        |_, s, inputs, outputs| {
            s.equals(&outputs[0].datum_type, &inputs[0].datum_type)?;
            s.equals(&outputs[0].shape, &inputs[0].shape)
        },
    )
}

fn binary(function: Function) -> Parsed {
    // The shape is known with the types.
    parsed(Elementwise::new(function), |_, s, inputs, outputs| {
        s.equals(&outputs[0].datum_type, &inputs[0].datum_type)
    })
}

impl Elementwise {
    /// Not bound to a runtime yet.
    pub(crate) fn new(function: Function) -> Self {
        Self {
            function,
            runtime: Link::default(),
        }
    }

    pub(super) fn bind(&mut self, runtime: &Arc<Runtime>) -> TractResult<()> {
        self.runtime.bind(runtime);
        Ok(())
    }

    pub(crate) fn function(&self) -> Function {
        self.function
    }

    /// Another function, run on the same.
    pub(crate) fn with(&self, function: Function) -> Self {
        Self {
            function,
            ..self.clone()
        }
    }

    /// The function's values of `a` and `b`, which is repeated; `out` has the length of `a`.
    fn compute(&self, a: &[f32], b: &[f32], out: &mut [f32]) -> TractResult<()> {
        let rows = a.chunks_exact(b.len()).zip(out.chunks_exact_mut(b.len()));
        for (a, out) in rows {
            let values = a.iter().zip(b);
            match self.function {
                Function::Add => out
                    .iter_mut()
                    .zip(values)
                    .for_each(|(o, (a, b))| *o = a + b),
                Function::Mul => out
                    .iter_mut()
                    .zip(values)
                    .for_each(|(o, (a, b))| *o = a * b),
                Function::Sigmoid => {
                    for (out, a) in out.iter_mut().zip(a) {
                        *out = 1.0 / (1.0 + (-a).exp());
                    }
                }
                Function::SiluMul => {
                    out.copy_from_slice(a);
                    silu_mul(self.runtime.get()?.backend, out, b);
                }
            }
        }
        Ok(())
    }

    /// The larger and the smaller input, in the order of the inputs where they are alike or where
    /// the order matters.
    fn ordered<T>(&self, inputs: &[T], rank: impl Fn(&T) -> usize) -> TractResult<[usize; 2]> {
        match (self.function, inputs) {
            (Function::Sigmoid, [_]) => Ok([0, 0]),
            (Function::SiluMul, [_, _]) => Ok([0, 1]),
            (Function::Add | Function::Mul, [a, b]) if rank(a) < rank(b) => Ok([1, 0]),
            (Function::Add | Function::Mul, [_, _]) => Ok([0, 1]),
            _ => bail!("{:?} of {} inputs", self.function, inputs.len()),
        }
    }
}

impl Op for Elementwise {
    fn name(&self) -> StaticName {
        "ChaskiElementwise".into()
    }

    fn info(&self) -> TractResult<Vec<String>> {
        Ok(vec![format!("{:?}", self.function)])
    }

    op_as_typed_op!();
}

impl EvalOp for Elementwise {
    op_out_of_plan!();

    fn eval(&self, _: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let [a, b] = self.ordered(&inputs, |tensor| tensor.rank())?;
        let (a, b) = (&inputs[a], &inputs[b]);
        let columns = *a.shape().last().context("rows are a scalar")?;
        let mut out = Form::Float.take(&self.runtime.get()?.pool, a.shape(), columns)?;
        {
            let (a, b) = (a.try_as_plain_ram()?, b.try_as_plain_ram()?);
            let (a, b) = (a.as_slice::<f32>()?, b.as_slice::<f32>()?);
            let mut plain = out.plain()?;
            let out = plain.as_slice_mut::<f32>()?;
            ensure!(
                !b.is_empty() && a.len() == out.len() && a.len().is_multiple_of(b.len()),
                "inputs {inputs:?} do not fit each other"
            );
            self.compute(a, b, out)?;
        }
        Ok(tvec![out.into_value()])
    }
}

impl TypedOp for Elementwise {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        let [a, b] = self.ordered(inputs, |fact| fact.rank())?;
        let (a, b) = (inputs[a], inputs[b]);
        for fact in [a, b] {
            ensure!(
                fact.datum_type == f32::datum_type() && fact.rank() > 0,
                "{:?} of {fact:?}: only rows of f32 run",
                self.function
            );
        }
        ensure!(
            a.rank() >= b.rank() && a.shape[a.rank() - b.rank()..] == b.shape[..],
            "{:?} of {a:?} and {b:?}: their last dimensions differ",
            self.function
        );
        Ok(tvec![f32::fact(a.shape.clone())])
    }

    as_op!();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(function: Function, shapes: &[&[usize]]) -> TractResult<TVec<TypedFact>> {
        let facts: Vec<_> = shapes.iter().map(|shape| f32::fact(*shape)).collect();
        Elementwise::new(function).output_facts(&facts.iter().collect::<Vec<_>>())
    }

    #[test]
    fn a_bias_is_added_to_all_rows() {
        let add = Elementwise::new(Function::Add);
        let mut out = [0.0; 4];
        add.compute(&[1.0, 2.0, 3.0, 4.0], &[10.0, 20.0], &mut out)
            .unwrap();
        assert_eq!(out, [11.0, 22.0, 13.0, 24.0]);
        for shapes in [[&[1, 2, 3][..], &[3]], [&[3], &[1, 2, 3]]] {
            let facts = facts(Function::Add, &shapes).unwrap();
            assert_eq!(facts[0], f32::fact([1, 2, 3]));
        }
    }

    #[test]
    fn functions_are_what_their_names_say() {
        let (a, b) = ([-2.0, 0.0, 3.0_f32], [5.0, 7.0, 0.5]);
        let of = |function| {
            let mut out = [0.0; 3];
            Elementwise::new(function)
                .compute(&a, &b, &mut out)
                .unwrap();
            out
        };
        assert_eq!(of(Function::Mul), [-10.0, 0.0, 1.5]);
        for (sigmoid, a) in of(Function::Sigmoid).into_iter().zip(a) {
            assert!((sigmoid - 1.0 / (1.0 + (-a).exp())).abs() < 1e-6);
        }
    }

    #[test]
    fn other_shapes_are_refused() {
        let cases: [(Function, &[&[usize]], &str); 6] = [
            (Function::Add, &[&[1, 2, 3], &[2]], "last dimensions differ"),
            (
                Function::Add,
                &[&[1, 2, 3], &[1, 2, 1]],
                "last dimensions differ",
            ),
            (Function::Mul, &[&[1, 2, 3], &[]], "only rows"),
            (Function::Mul, &[&[3]], "of 1 inputs"),
            (Function::Sigmoid, &[&[3], &[3]], "of 2 inputs"),
            (
                Function::SiluMul,
                &[&[3], &[1, 3]],
                "last dimensions differ",
            ),
        ];
        for (function, shapes, expected) in cases {
            let error = format!("{:#}", facts(function, shapes).unwrap_err());
            assert!(error.contains(expected), "{expected}: {error}");
        }
    }
}
