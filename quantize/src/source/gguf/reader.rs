//! A cursor over a GGUF header that never reads, or believes, beyond the file.

use std::ops::Range;
use std::path::Path;

use crate::error::{Error, Result};

/// Little-endian reads with the file's path for errors.
pub(super) struct Reader<'a> {
    path: &'a Path,
    bytes: &'a [u8],
    position: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(path: &'a Path, bytes: &'a [u8]) -> Self {
        Self {
            path,
            bytes,
            position: 0,
        }
    }

    pub(super) fn position(&self) -> usize {
        self.position
    }

    fn remaining(&self) -> usize {
        self.bytes.len() - self.position
    }

    /// An error at the present place.
    pub(super) fn malformed(&self, reason: impl AsRef<str>) -> Error {
        Error::malformed(
            self.path,
            format!("at byte {}: {}", self.position, reason.as_ref()),
        )
    }

    /// The place of the next `length` bytes, which are passed over.
    pub(super) fn skip(&mut self, length: u64, what: &str) -> Result<Range<usize>> {
        let end = usize::try_from(length)
            .ok()
            .and_then(|length| self.position.checked_add(length))
            .filter(|&end| end <= self.bytes.len())
            .ok_or_else(|| {
                self.malformed(format!(
                    "truncated: {what} of {length} bytes, {} are left",
                    self.remaining()
                ))
            })?;
        let range = self.position..end;
        self.position = end;
        Ok(range)
    }

    fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N]> {
        let range = self.skip(N as u64, what)?;
        self.bytes
            .get(range)
            .and_then(|bytes| bytes.first_chunk())
            .copied()
            .ok_or_else(|| self.malformed(what))
    }

    pub(super) fn u8(&mut self, what: &str) -> Result<u8> {
        self.array::<1>(what).map(u8::from_le_bytes)
    }

    pub(super) fn u16(&mut self, what: &str) -> Result<u16> {
        self.array(what).map(u16::from_le_bytes)
    }

    pub(super) fn u32(&mut self, what: &str) -> Result<u32> {
        self.array(what).map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self, what: &str) -> Result<u64> {
        self.array(what).map(u64::from_le_bytes)
    }

    /// A count of things of at least `least` bytes each, for which the rest of the file
    /// must have room: a huge count is refused before anything is made of it.
    pub(super) fn count(&mut self, least: usize, what: &str) -> Result<u64> {
        let count = self.u64(what)?;
        let room = self.remaining() / least.max(1);
        if count > room as u64 {
            return Err(self.malformed(format!(
                "{what} of {count}, but the file has room for {room} at most"
            )));
        }
        Ok(count)
    }

    /// The place of a string, its length read and checked.
    pub(super) fn string_range(&mut self, what: &str) -> Result<Range<usize>> {
        let length = self.u64(what)?;
        self.skip(length, what)
    }

    /// A string.
    pub(super) fn string(&mut self, what: &str) -> Result<&'a str> {
        let range = self.string_range(what)?;
        let bytes = self.bytes.get(range).unwrap_or_default();
        std::str::from_utf8(bytes).map_err(|_| self.malformed(format!("{what} is not UTF-8")))
    }
}
