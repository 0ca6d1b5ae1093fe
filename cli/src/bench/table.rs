//! Means, spreads and Markdown tables.

use std::fmt;

use serde::Serialize;

/// Several measurements of one thing.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Measured {
    /// Arithmetic mean.
    pub mean: f64,
    /// Sample standard deviation; 0 with a single sample.
    pub deviation: f64,
    /// The measurements, in order.
    pub samples: Vec<f64>,
}

impl Measured {
    /// Sums up `samples`; all zero where there are none.
    pub fn of(samples: Vec<f64>) -> Self {
        let count = samples.len() as f64;
        if samples.is_empty() {
            return Self {
                mean: 0.0,
                deviation: 0.0,
                samples,
            };
        }
        let mean = samples.iter().sum::<f64>() / count;
        let squares: f64 = samples.iter().map(|sample| (sample - mean).powi(2)).sum();
        let deviation = if samples.len() > 1 {
            (squares / (count - 1.0)).sqrt()
        } else {
            0.0
        };
        Self {
            mean,
            deviation,
            samples,
        }
    }
}

impl fmt::Display for Measured {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:.2} ± {:.2}", self.mean, self.deviation)
    }
}

/// A Markdown table, aligned so that it reads well as plain text too. The first
/// column is text, the others are figures and keep to the right.
#[derive(Debug)]
pub struct Table {
    headers: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table without rows.
    pub fn new<const N: usize>(headers: [&str; N]) -> Self {
        Self {
            headers: headers.map(str::to_owned).to_vec(),
            rows: Vec::new(),
        }
    }

    /// Adds a row, made as wide as the table.
    pub fn row<const N: usize>(&mut self, cells: [String; N]) {
        let mut cells = cells.to_vec();
        cells.resize(self.headers.len(), String::new());
        self.rows.push(cells);
    }
}

impl fmt::Display for Table {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let widths: Vec<usize> = self
            .headers
            .iter()
            .enumerate()
            .map(|(column, header)| {
                self.rows
                    .iter()
                    .filter_map(|row| row.get(column))
                    .chain([header])
                    .map(|cell| cell.chars().count())
                    .max()
                    .unwrap_or(0)
                    .max(3)
            })
            .collect();
        line(formatter, &self.headers, &widths)?;
        for (column, width) in widths.iter().enumerate() {
            let dashes = "-".repeat(*width);
            if column == 0 {
                write!(formatter, "| {dashes} ")?;
            } else {
                write!(formatter, "| {}: ", dashes.get(1..).unwrap_or_default())?;
            }
        }
        writeln!(formatter, "|")?;
        for row in &self.rows {
            line(formatter, row, &widths)?;
        }
        Ok(())
    }
}

fn line(formatter: &mut fmt::Formatter<'_>, cells: &[String], widths: &[usize]) -> fmt::Result {
    for (column, (cell, width)) in cells.iter().zip(widths).enumerate() {
        if column == 0 {
            write!(formatter, "| {cell:<width$} ")?;
        } else {
            write!(formatter, "| {cell:>width$} ")?;
        }
    }
    writeln!(formatter, "|")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mean_and_sample_deviation() {
        let measured = Measured::of(vec![2.0, 4.0, 6.0]);
        assert_eq!(measured.mean, 4.0);
        assert_eq!(measured.deviation, 2.0);
        assert_eq!(measured.to_string(), "4.00 ± 2.00");
    }

    #[test]
    fn one_sample_has_no_spread_and_none_is_zero() {
        assert_eq!(Measured::of(vec![3.5]).deviation, 0.0);
        assert_eq!(Measured::of(Vec::new()).mean, 0.0);
    }

    #[test]
    fn markdown_is_aligned() {
        let mut table = Table::new(["test", "tok/s"]);
        table.row(["pp512".to_owned(), "120.50 ± 0.10".to_owned()]);
        table.row(["tg64".to_owned(), "9.00 ± 0.10".to_owned()]);
        assert_eq!(
            table.to_string(),
            "| test  |         tok/s |\n\
             | ----- | ------------: |\n\
             | pp512 | 120.50 ± 0.10 |\n\
             | tg64  |   9.00 ± 0.10 |\n"
        );
    }

    #[test]
    fn a_narrow_column_still_is_valid_markdown() {
        let table = Table::new(["a", "b"]);
        assert_eq!(table.to_string(), "| a   |   b |\n| --- | --: |\n");
    }
}
