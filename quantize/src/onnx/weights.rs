//! Where each weight lies in the external data file, and the initialisers
//! that name it there.

use std::collections::BTreeMap;

use super::builder::Initializer;
use super::proto::DataType;
use crate::quantise::Bits;
use chaski_manifest::BLOCK_SIZE;

/// A range of bytes of the external data file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placement {
    /// First byte.
    pub offset: u64,
    /// Number of bytes.
    pub length: u64,
}

/// How the zero points of a tensor are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ZeroPoints {
    /// Not at all: 8 for every block of 4 bits, 128 for those of 8.
    Implied,
    /// Integers, two to a byte.
    Packed(Placement),
    /// Fractional, as f16.
    F16(Placement),
    /// Fractional, as f32.
    F32(Placement),
}

/// A matrix in blocks along its columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockMatrix {
    /// Output features.
    pub rows: usize,
    /// Input features.
    pub columns: usize,
    /// Bits of a weight.
    pub bits: Bits,
    /// 16 or 32 bytes a block.
    pub quants: Placement,
    /// An f16 a block.
    pub scales: Placement,
    /// One a block, if at all.
    pub zero_points: ZeroPoints,
}

/// A tensor as it lies in the data file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoredTensor {
    /// A matrix in blocks.
    Blocks(BlockMatrix),
    /// A vector of f32.
    Vector {
        /// Number of elements.
        elements: usize,
        /// Its bytes.
        data: Placement,
    },
    /// A matrix of f32.
    Table {
        /// Rows.
        rows: usize,
        /// Columns.
        columns: usize,
        /// Its bytes.
        data: Placement,
    },
}

/// All tensors of a folder by their Hugging Face names.
pub type StoredTensors = BTreeMap<String, StoredTensor>;

/// The operator that reads a block matrix; the two want its bytes under
/// different shapes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reader {
    /// `MatMulNBits`: `[N, K/32, 16]`, or 32 for 8 bits.
    MatMul,
    /// `GatherBlockQuantized`: `[vocabulary, K/2]`, or K for 8 bits.
    Gather,
}

impl BlockMatrix {
    /// Blocks in a row.
    pub fn row_blocks(&self) -> usize {
        self.columns / BLOCK_SIZE
    }

    /// The initialiser of the quantised values.
    pub fn quants(&self, tensor: &str, reader: Reader) -> Initializer {
        let (blocks, block_bytes) = (self.row_blocks(), self.bits.block_bytes());
        let dims = match reader {
            Reader::MatMul => vec![self.rows, blocks, block_bytes],
            Reader::Gather => vec![self.rows, blocks * block_bytes],
        };
        initializer(tensor, "quants", DataType::Uint8, dims, self.quants)
    }

    /// The initialiser of the scales.
    pub fn scales(&self, tensor: &str) -> Initializer {
        let dims = vec![self.rows, self.row_blocks()];
        initializer(tensor, "scales", DataType::Float16, dims, self.scales)
    }

    /// The initialiser of the zero points, unless they are implied.
    pub fn zero_points(&self, tensor: &str) -> Option<Initializer> {
        let blocks = self.row_blocks();
        let (data_type, row, placement) = match self.zero_points {
            ZeroPoints::Implied => return None,
            ZeroPoints::Packed(placement) => (DataType::Uint8, blocks.div_ceil(2), placement),
            ZeroPoints::F16(placement) => (DataType::Float16, blocks, placement),
            ZeroPoints::F32(placement) => (DataType::Float, blocks, placement),
        };
        let dims = vec![self.rows, row];
        Some(initializer(
            tensor,
            "zero_points",
            data_type,
            dims,
            placement,
        ))
    }
}

fn initializer(
    tensor: &str,
    part: &str,
    data_type: DataType,
    dims: Vec<usize>,
    placement: Placement,
) -> Initializer {
    Initializer {
        name: format!("{tensor}.{part}"),
        data_type,
        dims,
        offset: placement.offset,
        length: placement.length,
    }
}

/// The initialiser of an f32 tensor, under the tensor's own name.
pub fn float_initializer(tensor: &str, dims: Vec<usize>, placement: Placement) -> Initializer {
    Initializer {
        name: tensor.to_owned(),
        data_type: DataType::Float,
        dims,
        offset: placement.offset,
        length: placement.length,
    }
}
