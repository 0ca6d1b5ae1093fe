//! `com.microsoft.MatMulNBits` as it stands in the graph. It does not run: the
//! rewriting ([`crate::graph`]) puts [`Encode`] and [`Linear`] in its place.

use std::sync::Arc;

use tract_onnx::model::ParsingContext;
use tract_onnx::pb::NodeProto;
use tract_onnx::tract_core::internal::*;

use super::activations::check_rows;
use super::attributes::BlockWeights;
use super::encode::Encode;
use super::linear::Linear;
use super::parse::{Parsed, check_attributes, parsed};
use super::runtime::{Link, Runtime};
use crate::kernels::encoding::Encoding;

/// `y = x Wᵀ`: f32 `[.., K]` to f32 `[.., N]`, W of 4 or 8 bits `[N, K]` in the
/// mapped data file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MatMul {
    weights: BlockWeights,
    runtime: Link,
}

pub(super) fn parse(_: &ParsingContext<'_>, node: &NodeProto) -> Parsed {
    check_attributes(node, &[("block_size", 0, 32)])?;
    let (rows, columns) = (node.get_attr("N")?, node.get_attr("K")?);
    let op = MatMul {
        weights: BlockWeights::read(node, rows, columns)?,
        runtime: Link::default(),
    };
    parsed(op, |_, s, inputs, outputs| {
        s.equals(&outputs[0].datum_type, &inputs[0].datum_type)?;
        s.equals(&outputs[0].rank, &inputs[0].rank)
    })
}

impl MatMul {
    pub(super) fn bind(&mut self, runtime: &Arc<Runtime>) -> TractResult<()> {
        self.weights.view(&runtime.mapping)?;
        self.runtime.bind(runtime);
        Ok(())
    }

    /// Bytes of its weights, with scales and zero points.
    pub(super) fn weight_bytes(&self) -> u64 {
        self.weights.bytes()
    }

    /// How its input is encoded.
    pub(crate) fn encoding(&self) -> TractResult<Encoding> {
        let runtime = self.runtime.get()?;
        let BlockWeights { bits, columns, .. } = self.weights;
        Ok(Encoding::new(
            runtime.backend,
            runtime.precision,
            bits,
            columns,
        ))
    }

    /// The operator that encodes its input.
    pub(crate) fn encode(&self) -> TractResult<Encode> {
        Ok(Encode::new(self.encoding()?, self.runtime.clone()))
    }

    /// The product of the encoded input.
    pub(crate) fn linear(&self) -> TractResult<Linear> {
        let encoding = self.encoding()?;
        Ok(Linear::new(
            encoding,
            self.weights.clone(),
            self.runtime.clone(),
        ))
    }
}

impl Op for MatMul {
    fn name(&self) -> StaticName {
        "ChaskiMatMul".into()
    }

    op_as_typed_op!();
}

impl EvalOp for MatMul {
    not_out_of_plan!();
}

impl TypedOp for MatMul {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        ensure!(inputs.len() == 1, "{} inputs, not 1", inputs.len());
        check_rows(inputs[0], f32::datum_type(), self.weights.columns)?;
        let mut shape = inputs[0].shape.clone();
        shape.set(shape.rank() - 1, self.weights.rows.to_dim());
        Ok(tvec![f32::fact(shape)])
    }

    as_op!();
}
