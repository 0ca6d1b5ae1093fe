//! Activations to the form that products read: once for all of them.

use tract_onnx::tract_core::internal::*;

use super::activations::{EncodedRows, Form, check_rows};
use super::runtime::Link;
use crate::kernels::encoding::Encoding;
use crate::threads::share;

/// Rows that are worth handing to another thread.
const LEAST_ROWS: usize = 16;

/// f32 `[.., K]` to encoded rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Encode {
    encoding: Encoding,
    runtime: Link,
}

impl Encode {
    pub(super) fn new(encoding: Encoding, runtime: Link) -> Self {
        Self { encoding, runtime }
    }

    /// What it encodes for.
    pub(crate) fn encoding(&self) -> Encoding {
        self.encoding
    }
}

impl Op for Encode {
    fn name(&self) -> StaticName {
        "ChaskiEncode".into()
    }

    op_as_typed_op!();
}

impl EvalOp for Encode {
    op_out_of_plan!();

    fn eval(&self, _: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let x = args_1!(inputs);
        let runtime = self.runtime.get()?;
        let columns = self.encoding.columns();
        let mut out = Form::Encoded(self.encoding).take(&runtime.pool, x.shape(), columns)?;
        {
            let x = x.try_as_plain_ram()?.as_slice::<f32>()?;
            let mut plain = out.plain()?;
            let to = EncodedRows::new(self.encoding, plain.as_slice_mut::<u8>()?)?;
            let rows = x.len() / columns;
            let parts = runtime.team.parts(rows.div_ceil(LEAST_ROWS));
            runtime.team.run(parts, &|part| {
                for row in share(rows, parts, part) {
                    // SAFETY: parts have rows of their own.
                    unsafe { to.encode(&x[row * columns..][..columns], row, 0) };
                }
            });
        }
        Ok(tvec![out.into_value()])
    }
}

impl TypedOp for Encode {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        ensure!(inputs.len() == 1, "{} inputs, not 1", inputs.len());
        let columns = self.encoding.columns();
        check_rows(inputs[0], f32::datum_type(), columns)?;
        let fact = Form::Encoded(self.encoding).fact(&inputs[0].shape, columns)?;
        Ok(tvec![fact])
    }

    as_op!();
}
