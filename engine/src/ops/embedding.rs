//! `com.microsoft.GatherBlockQuantized` over a table in the mapped data file.

use std::sync::Arc;

use tract_onnx::model::ParsingContext;
use tract_onnx::pb::NodeProto;
use tract_onnx::tract_core::internal::*;
use tract_onnx::tract_hir::internal::*;

use super::attributes::BlockWeights;
use super::parse::{Parsed, check_attributes, parsed};
use super::runtime::{Link, Runtime};

/// Looks up rows: i64 `[..]` to f32 `[.., hidden_size]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Embedding {
    table: BlockWeights,
    runtime: Link,
}

pub(super) fn parse(_: &ParsingContext<'_>, node: &NodeProto) -> Parsed {
    // The defaults are ONNX Runtime's.
    let due = [
        ("block_size", 128, 32),
        ("gather_axis", 0, 0),
        ("quantize_axis", 1, 1),
    ];
    check_attributes(node, &due)?;
    let (rows, columns) = (
        node.get_attr("chaski_rows")?,
        node.get_attr("chaski_columns")?,
    );
    let op = Embedding {
        table: BlockWeights::read(node, rows, columns)?,
        runtime: Link::default(),
    };
    parsed(op, |_, s, inputs, outputs| {
        s.equals(&outputs[0].datum_type, f32::datum_type())?;
        s.equals(&outputs[0].rank, inputs[0].rank.bex() + 1)
    })
}

impl Embedding {
    pub(super) fn bind(&mut self, runtime: &Arc<Runtime>) -> TractResult<()> {
        self.table.view(&runtime.mapping)?;
        self.runtime.bind(runtime);
        Ok(())
    }
}

impl Op for Embedding {
    fn name(&self) -> StaticName {
        "ChaskiEmbedding".into()
    }

    op_as_typed_op!();
}

impl EvalOp for Embedding {
    op_out_of_plan!();

    fn eval(&self, _: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let ids = args_1!(inputs);
        let runtime = self.runtime.get()?;
        let table = self.table.view(&runtime.mapping)?;
        let mut shape: TVec<usize> = ids.shape().into();
        shape.push(table.columns());
        // The first operator of a step.
        runtime.pool.begin(ids.len());
        let mut out = runtime.pool.take(f32::datum_type(), &shape)?;
        {
            let mut plain = out.plain()?;
            let rows = plain
                .as_slice_mut::<f32>()?
                .chunks_exact_mut(table.columns());
            for (&id, out) in ids.try_as_plain_ram()?.as_slice::<i64>()?.iter().zip(rows) {
                let row = usize::try_from(id).ok().filter(|&row| row < table.rows());
                let row = row.with_context(|| format!("token {id} of {}", table.rows()))?;
                table.dequantise_row(row, out);
            }
        }
        Ok(tvec![out.into_value()])
    }
}

impl TypedOp for Embedding {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        ensure!(inputs.len() == 1, "{} inputs, not 1", inputs.len());
        ensure!(
            inputs[0].datum_type == i64::datum_type(),
            "token ids are not i64"
        );
        let mut shape: TVec<TDim> = inputs[0].shape.to_tvec();
        shape.push(self.table.columns.to_dim());
        Ok(tvec![f32::fact(shape)])
    }

    as_op!();
}
