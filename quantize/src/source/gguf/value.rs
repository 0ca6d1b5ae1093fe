//! Metadata values of a GGUF file; strings and arrays stay where they are.

use std::ops::Range;

use super::reader::Reader;
use crate::error::Result;

/// The type codes of the format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    F32,
    Bool,
    String,
    Array,
    U64,
    I64,
    F64,
}

impl Kind {
    fn read(reader: &mut Reader<'_>, what: &str) -> Result<Self> {
        Ok(match reader.u32(what)? {
            0 => Self::U8,
            1 => Self::I8,
            2 => Self::U16,
            3 => Self::I16,
            4 => Self::U32,
            5 => Self::I32,
            6 => Self::F32,
            7 => Self::Bool,
            8 => Self::String,
            9 => Self::Array,
            10 => Self::U64,
            11 => Self::I64,
            12 => Self::F64,
            other => return Err(reader.malformed(format!("unknown value type {other}"))),
        })
    }

    /// Bytes of a value, or the fewest a string can take.
    const fn bytes(self) -> usize {
        match self {
            Self::U8 | Self::I8 | Self::Bool => 1,
            Self::U16 | Self::I16 => 2,
            Self::U32 | Self::I32 | Self::F32 => 4,
            Self::U64 | Self::I64 | Self::F64 | Self::String | Self::Array => 8,
        }
    }
}

/// A value, or where in the file it lies.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    Bool(bool),
    String(Range<usize>),
    /// Element type, number of elements, and their bytes.
    Array(Kind, usize, Range<usize>),
}

impl Value {
    /// Reads a type code and the value after it.
    pub(super) fn read(reader: &mut Reader<'_>, key: &str) -> Result<Self> {
        let kind = Kind::read(reader, key)?;
        Self::read_as(reader, kind, key)
    }

    fn read_as(reader: &mut Reader<'_>, kind: Kind, key: &str) -> Result<Self> {
        Ok(match kind {
            Kind::U8 => Self::Unsigned(reader.u8(key)?.into()),
            Kind::U16 => Self::Unsigned(reader.u16(key)?.into()),
            Kind::U32 => Self::Unsigned(reader.u32(key)?.into()),
            Kind::U64 => Self::Unsigned(reader.u64(key)?),
            Kind::I8 => Self::Signed(reader.u8(key)?.cast_signed().into()),
            Kind::I16 => Self::Signed(reader.u16(key)?.cast_signed().into()),
            Kind::I32 => Self::Signed(reader.u32(key)?.cast_signed().into()),
            Kind::I64 => Self::Signed(reader.u64(key)?.cast_signed()),
            Kind::F32 => Self::Float(shortest(f32::from_bits(reader.u32(key)?))),
            Kind::F64 => Self::Float(f64::from_bits(reader.u64(key)?)),
            Kind::Bool => Self::Bool(reader.u8(key)? != 0),
            Kind::String => Self::String(reader.string_range(key)?),
            Kind::Array => {
                let element = Kind::read(reader, key)?;
                if element == Kind::Array {
                    return Err(reader.malformed(format!("{key} is an array of arrays")));
                }
                let count = reader.count(element.bytes(), key)?;
                let start = reader.position();
                if element == Kind::String {
                    for _ in 0..count {
                        reader.string_range(key)?;
                    }
                } else {
                    // No overflow: `count` times this size is within the file.
                    reader.skip(count * element.bytes() as u64, key)?;
                }
                Self::Array(element, count as usize, start..reader.position())
            }
        })
    }
}

/// The f64 that prints as the f32 does: 1e-5 and not 9.99999974737875e-06.
fn shortest(value: f32) -> f64 {
    value.to_string().parse().unwrap_or_else(|_| value.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn read(bytes: &[u8]) -> Result<Value> {
        Value::read(&mut Reader::new(Path::new("f"), bytes), "key")
    }

    #[test]
    fn scalars() {
        assert_eq!(read(&[1, 0, 0, 0, 0xff]).unwrap(), Value::Signed(-1));
        assert_eq!(
            read(&[4, 0, 0, 0, 1, 2, 0, 0]).unwrap(),
            Value::Unsigned(513)
        );
        let mut epsilon = vec![6, 0, 0, 0];
        epsilon.extend(1e-5f32.to_le_bytes());
        assert_eq!(read(&epsilon).unwrap(), Value::Float(1e-5));
        assert!(
            read(&[13, 0, 0, 0, 0])
                .unwrap_err()
                .to_string()
                .contains("type 13")
        );
    }

    #[test]
    fn counts_beyond_the_file_are_refused() {
        for element in [0u32, 4, 8, 10] {
            for count in [3u64, 1 << 40, u64::MAX / 4 + 1, u64::MAX] {
                let mut bytes = vec![9, 0, 0, 0];
                bytes.extend(element.to_le_bytes());
                bytes.extend(count.to_le_bytes());
                bytes.extend([0, 0]);
                let message = read(&bytes).unwrap_err().to_string();
                assert!(message.contains("room for"), "{message}");
            }
        }
        let nested = [9, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        assert!(
            read(&nested)
                .unwrap_err()
                .to_string()
                .contains("array of arrays")
        );
    }
}
