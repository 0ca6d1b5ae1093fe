//! Where the rows of a tensor lie in a mapped file.

use std::ops::Range;

use super::map::Mapping;
use super::{Encoding, TensorInfo, blocks};
use crate::error::{Error, Result};

/// A matrix or vector in a mapped file, its bounds checked.
#[derive(Clone, Debug)]
pub(crate) struct StoredRows {
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    pub(crate) encoding: Encoding,
    /// First byte in the file.
    start: usize,
    row_bytes: usize,
}

impl StoredRows {
    /// `None` if the rows are no whole blocks, overflow, or end after the file.
    pub(crate) fn new(
        rows: usize,
        columns: usize,
        encoding: Encoding,
        start: usize,
        file_bytes: usize,
    ) -> Option<Self> {
        let row_bytes = encoding.row_bytes(columns)?;
        let end = start.checked_add(row_bytes.checked_mul(rows)?)?;
        (end <= file_bytes).then_some(Self {
            rows,
            columns,
            encoding,
            start,
            row_bytes,
        })
    }

    /// The bytes it takes in the file.
    pub(crate) fn range(&self) -> Range<usize> {
        self.start..self.start + self.row_bytes * self.rows
    }

    pub(crate) fn info(&self, name: &str) -> TensorInfo {
        TensorInfo {
            name: name.to_owned(),
            rows: self.rows,
            columns: self.columns,
            encoding: self.encoding,
            bytes: (self.row_bytes * self.rows) as u64,
        }
    }

    /// The bytes of one row.
    pub(crate) fn row<'a>(&self, name: &str, map: &'a Mapping, row: usize) -> Result<&'a [u8]> {
        row.checked_mul(self.row_bytes)
            .and_then(|offset| self.start.checked_add(offset))
            .and_then(|start| map.bytes().get(start..start.checked_add(self.row_bytes)?))
            .filter(|_| row < self.rows)
            .ok_or_else(|| Error::read(name, format!("no row {row} of {}", self.rows)))
    }

    /// Dequantises rows; `stored_at` tells at which row of the file one of them lies.
    pub(crate) fn read(
        &self,
        name: &str,
        map: &Mapping,
        rows: Range<usize>,
        stored_at: impl Fn(usize) -> usize,
        out: &mut [f32],
    ) -> Result<()> {
        self.check(name, &rows)?;
        if out.len() != rows.len() * self.columns {
            return Err(Error::read(
                name,
                format!(
                    "{} values asked for {} rows of {}",
                    out.len(),
                    rows.len(),
                    self.columns
                ),
            ));
        }
        let bytes = rows.len() * self.row_bytes;
        for (row, out) in rows.zip(out.chunks_exact_mut(self.columns.max(1))) {
            blocks::dequantise(self.encoding, self.row(name, map, stored_at(row))?, out);
        }
        map.done_with(bytes);
        Ok(())
    }

    /// Refuses rows that the tensor has not.
    pub(crate) fn check(&self, name: &str, rows: &Range<usize>) -> Result<()> {
        if rows.start > rows.end || rows.end > self.rows {
            return Err(Error::read(
                name,
                format!("no rows {rows:?}: it has {}", self.rows),
            ));
        }
        Ok(())
    }

    /// Bytes of one row.
    pub(crate) fn row_bytes(&self) -> usize {
        self.row_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_checked() {
        assert!(StoredRows::new(2, 3, Encoding::F32, 8, 32).is_some());
        assert!(StoredRows::new(2, 3, Encoding::F32, 9, 32).is_none());
        assert!(StoredRows::new(usize::MAX, 32, Encoding::Q8_0, 0, 32).is_none());
        assert!(StoredRows::new(1, 32, Encoding::Q8_0, usize::MAX, 32).is_none());
        assert!(StoredRows::new(1, 31, Encoding::Q8_0, 0, 100).is_none());
    }

    #[test]
    fn reads_only_what_is_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f");
        let bytes: Vec<u8> = (0..6u8).flat_map(|v| f32::from(v).to_le_bytes()).collect();
        std::fs::write(&path, bytes).unwrap();
        let map = Mapping::open(&path).unwrap();
        let stored = StoredRows::new(3, 2, Encoding::F32, 0, 24).unwrap();
        let mut out = [0.0; 4];
        stored.read("t", &map, 1..3, |row| row, &mut out).unwrap();
        assert_eq!(out, [2.0, 3.0, 4.0, 5.0]);
        stored
            .read("t", &map, 0..2, |row| 2 - row, &mut out)
            .unwrap();
        assert_eq!(out, [4.0, 5.0, 2.0, 3.0]);
        assert!(stored.read("t", &map, 2..4, |row| row, &mut out).is_err());
        assert!(stored.read("t", &map, 0..1, |row| row, &mut out).is_err());
    }
}
