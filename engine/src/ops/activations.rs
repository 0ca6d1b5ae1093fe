//! Encoded activations as tensors: u8 `[.., row_bytes]`, each row encoded for the
//! products that read it (see [`crate::kernels::encoding`]).

use tract_onnx::tract_core::internal::*;

use super::pool::{Buffer, Pool};
use super::window::Window;
use crate::kernels::encoding::{Encoded, Encoding};

/// What an operator gives to the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// f32 `[.., columns]`.
    Float,
    /// Encoded for products: u8 `[.., row_bytes]`.
    Encoded(Encoding),
}

impl Form {
    fn datum_type(self) -> DatumType {
        match self {
            Form::Float => f32::datum_type(),
            Form::Encoded(_) => u8::datum_type(),
        }
    }

    /// The last dimension of rows of `columns` activations.
    fn width(self, columns: usize) -> usize {
        match self {
            Form::Float => columns,
            Form::Encoded(encoding) => encoding.row_bytes(),
        }
    }

    /// What is known of rows of `columns` in this form, of the shape `like`
    /// but for the last dimension.
    pub(super) fn fact(self, like: &ShapeFact, columns: usize) -> TractResult<TypedFact> {
        let mut shape = like.clone();
        let last = shape.rank().checked_sub(1).context("rows are a scalar")?;
        shape.set(last, self.width(columns).to_dim());
        Ok(self.datum_type().fact(shape))
    }

    /// Rows of `columns` to fill, of the shape `like` but for the last dimension.
    pub(super) fn take<'a>(
        self,
        pool: &'a Pool,
        like: &[usize],
        columns: usize,
    ) -> TractResult<Buffer<'a>> {
        let mut shape: TVec<usize> = like.into();
        *shape.last_mut().context("rows are a scalar")? = self.width(columns);
        pool.take(self.datum_type(), &shape)
    }
}

/// Refuses an input that is not of rows of `width` elements of a type.
pub(super) fn check_rows(fact: &TypedFact, datum_type: DatumType, width: usize) -> TractResult<()> {
    ensure!(
        fact.datum_type == datum_type && fact.shape.last() == Some(&width.to_dim()),
        "input {fact:?} where {datum_type:?} [.., {width}] is due"
    );
    Ok(())
}

/// The encoded rows in a tensor.
pub(super) fn encoded(encoding: Encoding, tensor: &Tensor) -> TractResult<Encoded<'_>> {
    let bytes = tensor.try_as_plain_ram()?.as_slice::<u8>()?;
    Encoded::new(encoding, bytes)
        .filter(|_| tensor.shape().last() == Some(&encoding.row_bytes()))
        .with_context(|| format!("{tensor:?} holds no activations for {encoding:?}"))
}

/// Rows under construction that threads encode parts of.
#[derive(Clone, Copy)]
pub(super) struct EncodedRows<'a> {
    encoding: Encoding,
    rows: usize,
    bytes: Window<'a, u8>,
}

impl<'a> EncodedRows<'a> {
    /// `bytes` are whole rows, from [`Form::take`].
    pub(super) fn new(encoding: Encoding, bytes: &'a mut [u8]) -> TractResult<Self> {
        // Checks what every call of `encode` relies on.
        let rows = Encoded::new(encoding, bytes)
            .context("misaligned activations")?
            .rows();
        Ok(Self {
            encoding,
            rows,
            bytes: Window::new(bytes),
        })
    }

    /// Encodes `x`, whole blocks, from block `first` of row `row` on.
    ///
    /// # Safety
    /// No other thread encodes the same blocks meanwhile.
    pub(super) unsafe fn encode(&self, x: &[f32], row: usize, first: usize) {
        // SAFETY: the rows are whole, and aligned by the check in `new`; the blocks
        // are this thread's by the contract.
        unsafe {
            self.encoding
                .encode(x, first, row, self.rows, self.bytes.address())
        };
    }
}
