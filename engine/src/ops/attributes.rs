//! Places of weights in the data file, as attributes of a node: how the graph's
//! rewriting tells our parsers where an initialiser lies.

use tract_onnx::pb::NodeProto;
use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::tract_core::internal::*;

use crate::folder::{Mapping, Span};
use crate::kernels::blocks::{Bits, BlockMatrix, Floats, ZeroPoints};

/// Attribute of the quants.
pub(crate) const QUANTS: &str = "chaski_quants";
/// Attribute of the scales.
pub(crate) const SCALES: &str = "chaski_scales";
/// Attribute of the zero points, where there are any.
pub(crate) const ZERO_POINTS: &str = "chaski_zero_points";
/// Attribute of RoPE's cosines.
pub(crate) const COS: &str = "chaski_cos";
/// Attribute of RoPE's sines.
pub(crate) const SIN: &str = "chaski_sin";

/// An initialiser of the data file: its ONNX data type and place, written as
/// the integers `[data type, offset, bytes]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    data_type: i32,
    span: Span,
}

impl Place {
    pub(super) fn read(node: &NodeProto, name: &str) -> TractResult<Option<Self>> {
        let Some(attribute) = node.attribute.iter().find(|a| a.name == name) else {
            return Ok(None);
        };
        let &[data_type, offset, bytes] = &attribute.ints[..] else {
            bail!(
                "attribute {name} has {} numbers, not 3",
                attribute.ints.len()
            );
        };
        Ok(Some(Self {
            data_type: data_type.try_into()?,
            span: Span {
                offset: offset.try_into()?,
                bytes: bytes.try_into()?,
            },
        }))
    }

    pub(super) fn required(node: &NodeProto, name: &str) -> TractResult<Self> {
        Self::read(node, name)?.with_context(|| format!("attribute {name} is missing"))
    }

    pub(super) fn bytes<'a>(&self, mapping: &'a Mapping) -> TractResult<&'a [u8]> {
        ensure!(
            self.data_type == DataType::Uint8 as i32,
            "{self:?} is not u8"
        );
        mapping
            .bytes(self.span)
            .with_context(|| format!("{self:?} is outside the data file"))
    }

    pub(super) fn floats<'a>(&self, mapping: &'a Mapping) -> TractResult<Floats<'a>> {
        let found = if self.data_type == DataType::Float16 as i32 {
            mapping.u16s(self.span).map(Floats::F16)
        } else if self.data_type == DataType::Float as i32 {
            mapping.f32s(self.span).map(Floats::F32)
        } else {
            bail!("{self:?} is neither f16 nor f32")
        };
        found.with_context(|| format!("{self:?} is outside the data file or misaligned"))
    }

    pub(super) fn f32s<'a>(&self, mapping: &'a Mapping) -> TractResult<&'a [f32]> {
        match self.floats(mapping)? {
            Floats::F32(v) => Ok(v),
            Floats::F16(_) => bail!("{self:?} is not f32"),
        }
    }
}

/// A quantised matrix of the data file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct BlockWeights {
    pub(super) rows: usize,
    pub(super) columns: usize,
    pub(super) bits: Bits,
    quants: Place,
    scales: Place,
    zero_points: Option<Place>,
}

impl BlockWeights {
    pub(super) fn read(node: &NodeProto, rows: usize, columns: usize) -> TractResult<Self> {
        let bits = node.get_attr_opt::<i64>("bits")?.unwrap_or(4);
        let bits = Bits::new(bits)
            .with_context(|| format!("{} of {bits} bits: only 4 and 8 run", node.op_type))?;
        Ok(Self {
            rows,
            columns,
            bits,
            quants: Place::required(node, QUANTS)?,
            scales: Place::required(node, SCALES)?,
            zero_points: Place::read(node, ZERO_POINTS)?,
        })
    }

    /// Bytes of quants, scales and zero points.
    pub(super) fn bytes(&self) -> u64 {
        let places = [Some(self.quants), Some(self.scales), self.zero_points];
        let bytes = |place: Place| place.span.bytes as u64;
        // Checked against the file only by `view`: the numbers may be any.
        let sizes = places.into_iter().flatten().map(bytes);
        sizes.fold(0, u64::saturating_add)
    }

    /// The weights in the mapped file.
    pub(super) fn view<'a>(&self, mapping: &'a Mapping) -> TractResult<BlockMatrix<'a>> {
        let zero_points = match self.zero_points {
            None => ZeroPoints::Symmetric,
            Some(place) if place.data_type == DataType::Uint8 as i32 => {
                ZeroPoints::Packed(place.bytes(mapping)?)
            }
            Some(place) => ZeroPoints::Fractional(place.floats(mapping)?),
        };
        let (rows, columns) = (self.rows, self.columns);
        let quants = self.quants.bytes(mapping)?;
        BlockMatrix::new(
            rows,
            columns,
            self.bits,
            quants,
            self.scales.floats(mapping)?,
            zero_points,
        )
        .with_context(|| format!("{self:?}: lengths do not fit the shape"))
    }
}
