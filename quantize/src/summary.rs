//! What a conversion did, per kind of tensor.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use comfy_table::{Cell, CellAlignment, Table, presets};
use indicatif::HumanBytes;

use crate::plan::Kind;
use crate::quantise::ErrorSums;

/// The tensors of a kind, together.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Totals {
    /// How many.
    pub tensors: usize,
    /// Their elements.
    pub weights: u64,
    /// Bytes in the source.
    pub bytes_before: u64,
    /// Bytes in the data file, without padding.
    pub bytes_after: u64,
    /// Difference of the quantised weights from the source's.
    pub error: ErrorSums,
}

impl Totals {
    /// Adds other totals.
    pub fn add(&mut self, other: &Self) {
        self.tensors += other.tensors;
        self.weights += other.weights;
        self.bytes_before += other.bytes_before;
        self.bytes_after += other.bytes_after;
        self.error.add(other.error);
    }

    /// Bits of the data file for each weight, scales and zero points included.
    pub fn bits_per_weight(&self) -> f64 {
        self.bytes_after as f64 * 8.0 / self.weights.max(1) as f64
    }
}

/// The outcome of a conversion.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// Where the model folder is.
    pub output: PathBuf,
    /// Totals per kind of tensor.
    pub kinds: BTreeMap<Kind, Totals>,
    /// Size of the source's files.
    pub source_bytes: u64,
    /// Size of the model folder's files.
    pub folder_bytes: u64,
    /// The output head is the embedding.
    pub tied_embeddings: bool,
    /// What a reader should know besides.
    pub notes: Vec<String>,
    /// How long it took.
    pub elapsed: Duration,
}

impl Summary {
    /// Totals over all tensors that the source has.
    pub fn total(&self) -> Totals {
        let mut total = Totals::default();
        for (kind, totals) in &self.kinds {
            if *kind != Kind::Rotary {
                total.add(totals);
            }
        }
        total
    }

    fn table(&self) -> Table {
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        table.set_header([
            "kind",
            "tensors",
            "weights",
            "bits/weight",
            "before",
            "after",
            "RMS error",
        ]);
        for (kind, totals) in &self.kinds {
            table.add_row(row(kind.name(), totals));
        }
        if self.tied_embeddings {
            table.add_row([Kind::Head.name(), "", "shared with the embedding"]);
        }
        table.add_row(row("total", &self.total()));
        for column in table.column_iter_mut().skip(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        table
    }
}

fn row(name: &str, totals: &Totals) -> [Cell; 7] {
    let error = if totals.error.squared_error > 0.0 {
        format!("{:.3} %", totals.error.relative() * 100.0)
    } else {
        "none".to_owned()
    };
    let before = match totals.bytes_before {
        0 => "computed".to_owned(),
        bytes => HumanBytes(bytes).to_string(),
    };
    [
        Cell::new(name),
        Cell::new(totals.tensors),
        Cell::new(totals.weights),
        Cell::new(format!("{:.2}", totals.bits_per_weight())),
        Cell::new(before),
        Cell::new(HumanBytes(totals.bytes_after)),
        Cell::new(error),
    ]
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.table().trim_fmt())?;
        for note in &self.notes {
            writeln!(f, "note: {note}")?;
        }
        write!(
            f,
            "{}: {} from {} in {:.1} s",
            self.output.display(),
            HumanBytes(self.folder_bytes),
            HumanBytes(self.source_bytes),
            self.elapsed.as_secs_f64()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_a_line_per_kind_and_a_total() {
        let mut summary = Summary {
            tied_embeddings: true,
            notes: vec!["one".into()],
            ..Summary::default()
        };
        let totals = Totals {
            tensors: 7,
            weights: 64,
            bytes_before: 128,
            bytes_after: 36,
            error: ErrorSums {
                squared_error: 0.01,
                squared_weights: 1.0,
            },
        };
        summary.kinds.insert(Kind::Attention, totals);
        summary.kinds.insert(
            Kind::Rotary,
            Totals {
                weights: 9,
                ..Totals::default()
            },
        );
        let text = summary.to_string();
        let line = |start: &str| {
            let line = text
                .lines()
                .find(|line| line.trim_start().starts_with(start));
            line.unwrap_or_else(|| panic!("{start} in {text}"))
                .to_owned()
        };
        for part in ["7", "64", "4.50", "128 B", "36 B", "10.000 %"] {
            assert!(line("attention").contains(part), "{text}");
            assert!(line("total").contains(part), "{text}");
        }
        assert!(line("rotary").contains("computed"), "{text}");
        assert!(line("head").contains("shared"), "{text}");
        assert!(line("note").contains("one"), "{text}");
    }
}
