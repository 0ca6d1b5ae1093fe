//! `com.microsoft.MatMulNBits` over weights in the mapped data file.

use std::sync::Arc;

use tract_onnx::model::ParsingContext;
use tract_onnx::pb::NodeProto;
use tract_onnx::tract_core::internal::*;

use super::attributes::BlockWeights;
use super::parse::{Parsed, check_attributes, parsed};
use super::runtime::{Link, Runtime};
use crate::kernels::encoding::{ALIGNMENT, Encoded, Encoding};
use crate::kernels::linear::{Output, linear};
use crate::threads::share;

/// Rows of W that are worth handing to another thread.
const LEAST_ROWS: usize = 16;

/// `y = x Wᵀ`: f32 `[.., K]` to f32 `[.., N]`, W of 4 or 8 bits `[N, K]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Linear {
    weights: BlockWeights,
    runtime: Link,
}

pub(super) fn parse(_: &ParsingContext<'_>, node: &NodeProto) -> Parsed {
    check_attributes(node, &[("block_size", 0, 32)])?;
    let (rows, columns) = (node.get_attr("N")?, node.get_attr("K")?);
    let op = Linear {
        weights: BlockWeights::read(node, rows, columns)?,
        runtime: Link::default(),
    };
    parsed(op, |_, s, inputs, outputs| {
        s.equals(&outputs[0].datum_type, &inputs[0].datum_type)?;
        s.equals(&outputs[0].rank, &inputs[0].rank)
    })
}

impl Linear {
    pub(super) fn bind(&mut self, runtime: &Arc<Runtime>) -> TractResult<()> {
        self.weights.view(&runtime.mapping)?;
        self.runtime.bind(runtime);
        Ok(())
    }
}

impl Op for Linear {
    fn name(&self) -> StaticName {
        "ChaskiLinear".into()
    }

    fn info(&self) -> TractResult<Vec<String>> {
        let BlockWeights {
            rows,
            columns,
            bits,
            ..
        } = &self.weights;
        Ok(vec![format!("weights {rows} x {columns}, {bits:?} bits")])
    }

    op_as_typed_op!();
}

impl EvalOp for Linear {
    op_out_of_plan!();

    fn eval(&self, _: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let x = args_1!(inputs);
        let runtime = self.runtime.get()?;
        let weights = self.weights.view(&runtime.mapping)?;
        let (n, k) = (weights.rows(), weights.columns());
        let mut shape: TVec<usize> = x.shape().into();
        ensure!(
            shape.last() == Some(&k),
            "input {shape:?} where [.., {k}] is due"
        );
        if let Some(last) = shape.last_mut() {
            *last = n;
        }
        let encoding = Encoding::new(runtime.backend, runtime.precision, weights.bits(), k);
        let x = x.try_as_plain_ram()?;
        let x = x.as_slice::<f32>()?;
        let row_bytes = encoding.row_bytes();
        let mut bytes =
            Tensor::zero_aligned_dt(u8::datum_type(), &[x.len() / k, row_bytes], ALIGNMENT)?;
        let mut plain = bytes.try_as_plain_ram_mut()?;
        let bytes = plain.as_slice_mut::<u8>()?;
        let rows = x.len() / k;
        for (row, x) in x.chunks_exact(k).enumerate() {
            // SAFETY: `bytes` are so many aligned rows of ours.
            unsafe { encoding.encode(x, 0, row, rows, bytes.as_mut_ptr()) };
        }
        let activations = Encoded::new(encoding, bytes).context("misaligned activations")?;
        let mut y = Tensor::zero::<f32>(&shape)?;
        {
            let mut plain = y.try_as_plain_ram_mut()?;
            let y = plain.as_slice_mut::<f32>()?;
            let output = Output::new(y, n, 0);
            let team = &runtime.team;
            let parts = team.parts(n.div_ceil(LEAST_ROWS));
            team.run(parts, &|part| {
                let rows = share(n, parts, part);
                // SAFETY: `y` is `[activations.rows(), n]`, outlives `run`, and
                // the shares are disjoint.
                unsafe { linear(&weights, &activations, rows, output) };
            });
        }
        Ok(tvec![y.into_tvalue()])
    }
}

impl TypedOp for Linear {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        ensure!(inputs.len() == 1, "{} inputs, not 1", inputs.len());
        ensure!(
            inputs[0].datum_type == f32::datum_type(),
            "input is not f32"
        );
        let mut shape = inputs[0].shape.clone();
        let last = inputs[0]
            .rank()
            .checked_sub(1)
            .context("input is a scalar")?;
        ensure!(
            shape[last] == self.weights.columns.to_dim(),
            "input {shape:?} where [.., {}] is due",
            self.weights.columns
        );
        shape.set(last, self.weights.rows.to_dim());
        Ok(tvec![f32::fact(shape)])
    }

    as_op!();
}
