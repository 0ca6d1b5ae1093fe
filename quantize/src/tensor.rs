//! Converts one tensor: reads it rows by rows, writes its ranges of the data file.

use half::f16;

use chaski_manifest::BLOCK_SIZE;
use chaski_manifest::Scheme;

use crate::convert::Options;
use crate::error::{Error, Result};
use crate::folder::DataWriter;
use crate::onnx::weights::{BlockMatrix, StoredTensor, ZeroPoints};
use crate::plan::{Kind, PlannedTensor, Storage};
use crate::quantise::{
    Bits, ErrorSums, Form, FractionalZeroPoints, Importance, MAX_F16_DEVIATION, check_finite,
    import_rows, quantise_rows, rows_per_task,
};
use crate::source::{Encoding, Source, TensorInfo};
use crate::summary::Totals;

/// Parallel tasks between two looks at the interrupt flag: some megabytes.
const TASKS_PER_CHUNK: usize = 32;

/// Writes tensors of a source to a data file and remembers what is notable.
pub struct TensorWriter<'a> {
    source: &'a dyn Source,
    options: &'a Options,
    data: &'a mut DataWriter,
    imported: Imported,
    notes: Vec<String>,
}

/// How a tensor's blocks come about.
enum Way {
    /// They are there already, with so many bits.
    Import(Bits),
    /// They are made of the weights.
    Quantise(Form),
}

/// Over all tensors that were taken over from Q4_0, Q4_1 and Q8_0.
#[derive(Debug, Default)]
struct Imported {
    exact_q4: usize,
    exact_q8: usize,
    fractional: usize,
    in_f32: Vec<String>,
    deviation: f64,
}

impl<'a> TensorWriter<'a> {
    /// Reads from `source`, writes to `data`.
    pub fn new(source: &'a dyn Source, options: &'a Options, data: &'a mut DataWriter) -> Self {
        Self {
            source,
            options,
            data,
            imported: Imported::default(),
            notes: Vec::new(),
        }
    }

    /// Converts a tensor, telling of the bytes of the source that are done.
    pub fn write(
        &mut self,
        tensor: &PlannedTensor,
        advance: &mut dyn FnMut(u64),
    ) -> Result<(StoredTensor, Totals)> {
        let name = tensor.name.as_str();
        let info = self
            .source
            .tensor(name)
            .ok_or_else(|| Error::read(name, "the source does not have it"))?;
        if (info.rows, info.columns) != (tensor.rows, tensor.columns) {
            return Err(Error::read(
                name,
                format!(
                    "the source has {} × {} values, the model {} × {}",
                    info.rows, info.columns, tensor.rows, tensor.columns
                ),
            ));
        }
        let mut pace = Pace::new(&info, advance);
        let (stored, bytes_after, error) = match tensor.storage {
            Storage::Float => self.vector(tensor, &mut pace)?,
            Storage::Blocks {
                integer_zero_points,
            } => self.blocks(tensor, &info, integer_zero_points, &mut pace)?,
        };
        let totals = Totals {
            tensors: 1,
            weights: (tensor.rows as u64).saturating_mul(tensor.columns as u64),
            bytes_before: info.bytes,
            bytes_after,
            error,
        };
        Ok((stored, totals))
    }

    /// What is notable, after the last tensor.
    pub fn into_notes(self) -> Vec<String> {
        let mut notes = self.notes;
        let imported = self.imported;
        for (encoding, count) in [("Q4_0", imported.exact_q4), ("Q8_0", imported.exact_q8)] {
            if count > 0 {
                notes.push(format!(
                    "tensors taken over unchanged from {encoding}: {count}"
                ));
            }
        }
        if imported.fractional > 0 {
            notes.push(format!(
                "tensors taken over from Q4_1 with their quants and scales: {}; storing the zero \
                 points moves no weight by more than 1/{:.0} of a quantisation step (bound: 1/{:.0})",
                imported.fractional,
                1.0 / imported.deviation.max(1e-9),
                1.0 / MAX_F16_DEVIATION
            ));
        }
        if !imported.in_f32.is_empty() {
            notes.push(format!(
                "zero points stored as f32, since f16 would have moved weights further: {}",
                imported.in_f32.join(", ")
            ));
        }
        notes
    }

    fn vector(&mut self, tensor: &PlannedTensor, pace: &mut Pace<'_>) -> Result<Converted> {
        let mut values = vec![0.0f32; tensor.columns];
        self.source.read_rows(&tensor.name, 0..1, &mut values)?;
        check_finite(&tensor.name, 0, tensor.columns, &values)?;
        let data = self.data.range_f32(&values)?;
        pace.rows(1);
        let stored = StoredTensor::Vector {
            elements: tensor.columns,
            data,
        };
        let error = ErrorSums {
            squared_error: 0.0,
            squared_weights: values.iter().map(|&v| f64::from(v) * f64::from(v)).sum(),
        };
        Ok((stored, data.length, error))
    }

    fn blocks(
        &mut self,
        tensor: &PlannedTensor,
        info: &TensorInfo,
        integer_zero_points: bool,
        pace: &mut Pace<'_>,
    ) -> Result<Converted> {
        if !tensor.columns.is_multiple_of(BLOCK_SIZE) {
            let reason = format!("its {} columns are no whole blocks", tensor.columns);
            return Err(Error::read(&tensor.name, reason));
        }
        match self.way(tensor, info.encoding, integer_zero_points) {
            Way::Import(bits) => self.import(tensor, bits, pace),
            Way::Quantise(form) => self.requantise(tensor, form, pace),
        }
    }

    fn way(
        &mut self,
        tensor: &PlannedTensor,
        encoding: Encoding,
        integer_zero_points: bool,
    ) -> Way {
        let name = &tensor.name;
        let table = matches!(tensor.kind, Kind::Embedding | Kind::Head);
        if table && self.options.embedding_bits == Bits::Eight {
            return match encoding {
                Encoding::Q8_0 => Way::Import(Bits::Eight),
                Encoding::Q4_0 => {
                    self.notes.push(format!(
                        "{name} is Q4_0: its 4 bits could be had unchanged, in half the bytes"
                    ));
                    Way::Quantise(Form::Symmetric8)
                }
                _ => Way::Quantise(Form::Symmetric8),
            };
        }
        match (self.options.scheme, encoding) {
            (Scheme::Auto, Encoding::Q4_1) if integer_zero_points => {
                self.notes.push(format!(
                    "{name} is Q4_1, but its operator takes integer zero points only: quantised again"
                ));
                Way::Quantise(Form::Asymmetric4)
            }
            (Scheme::Auto | Scheme::Symmetric, Encoding::Q4_0) | (Scheme::Auto, Encoding::Q4_1) => {
                Way::Import(Bits::Four)
            }
            (Scheme::Auto, _) if table => Way::Quantise(Form::Asymmetric4),
            (Scheme::Auto | Scheme::Symmetric, _) => Way::Quantise(Form::Symmetric4),
            (Scheme::Asymmetric, _) => Way::Quantise(Form::Asymmetric4),
        }
    }

    fn requantise(
        &mut self,
        tensor: &PlannedTensor,
        form: Form,
        pace: &mut Pace<'_>,
    ) -> Result<Converted> {
        let (mut scales, mut zero_points) = (Vec::<f16>::new(), Vec::new());
        let mut error = ErrorSums::default();
        let importance = self.importance(tensor)?;
        self.data.begin()?;
        for rows in chunks(tensor) {
            self.options.check_interrupt()?;
            let count = rows.len();
            let part = quantise_rows(self.source, &tensor.name, rows, form, &importance)?;
            self.data.write(&part.quants)?;
            scales.extend(part.scales);
            zero_points.extend(part.zero_points);
            error.add(part.error);
            pace.rows(count);
        }
        let quants = self.data.end();
        let scales = self.data.range_f16(&scales)?;
        let zero_points = if form.has_zero_points() {
            ZeroPoints::Packed(self.data.range(&zero_points)?)
        } else {
            ZeroPoints::Implied
        };
        let matrix = BlockMatrix {
            rows: tensor.rows,
            columns: tensor.columns,
            bits: form.bits(),
            quants,
            scales,
            zero_points,
        };
        Ok(converted(matrix, error))
    }

    /// How much the columns matter, by the norm before them.
    fn importance(&self, tensor: &PlannedTensor) -> Result<Importance> {
        let Some(norm) = &tensor.input_norm else {
            return Ok(Importance::alike(tensor.columns));
        };
        let mut weights = vec![0.0f32; tensor.columns];
        self.source.read_rows(norm, 0..1, &mut weights)?;
        check_finite(norm, 0, tensor.columns, &weights)?;
        Ok(Importance::of_norm(&weights))
    }

    fn import(
        &mut self,
        tensor: &PlannedTensor,
        bits: Bits,
        pace: &mut Pace<'_>,
    ) -> Result<Converted> {
        let name = tensor.name.as_str();
        let mut scales = Vec::<f16>::new();
        let mut points: Option<FractionalZeroPoints> = None;
        let mut squared_weights = 0.0;
        self.data.begin()?;
        for rows in chunks(tensor) {
            self.options.check_interrupt()?;
            let count = rows.len();
            let part = import_rows(self.source, name, rows, tensor.columns, bits)?
                .ok_or_else(|| Error::read(name, "not the blocks that it said it had"))?;
            self.data.write(&part.quants)?;
            scales.extend(part.scales);
            squared_weights += part.squared_weights;
            match (&mut points, part.zero_points) {
                (Some(points), Some(more)) => points.append(more),
                (points, more) => *points = more,
            }
            pace.rows(count);
        }
        let quants = self.data.end();
        let scales = self.data.range_f16(&scales)?;
        let mut error = ErrorSums {
            squared_error: 0.0,
            squared_weights,
        };
        let zero_points = match points {
            None => {
                match bits {
                    Bits::Four => self.imported.exact_q4 += 1,
                    Bits::Eight => self.imported.exact_q8 += 1,
                }
                ZeroPoints::Implied
            }
            Some(points) => {
                self.imported.fractional += 1;
                error.squared_error = points.squared_error();
                self.fractional(name, &points)?
            }
        };
        let matrix = BlockMatrix {
            rows: tensor.rows,
            columns: tensor.columns,
            bits,
            quants,
            scales,
            zero_points,
        };
        Ok(converted(matrix, error))
    }

    fn fractional(&mut self, name: &str, points: &FractionalZeroPoints) -> Result<ZeroPoints> {
        let imported = &mut self.imported;
        if points.fit_f16() {
            imported.deviation = imported.deviation.max(points.f16_deviation);
            let values: Vec<f16> = points.values.iter().map(|&v| f16::from_f32(v)).collect();
            return Ok(ZeroPoints::F16(self.data.range_f16(&values)?));
        }
        imported.deviation = imported.deviation.max(points.f32_deviation);
        imported.in_f32.push(name.to_owned());
        Ok(ZeroPoints::F32(self.data.range_f32(&points.values)?))
    }
}

type Converted = (StoredTensor, u64, ErrorSums);

fn converted(matrix: BlockMatrix, error: ErrorSums) -> Converted {
    let zero_point_bytes = match matrix.zero_points {
        ZeroPoints::Implied => 0,
        ZeroPoints::Packed(p) | ZeroPoints::F16(p) | ZeroPoints::F32(p) => p.length,
    };
    let bytes = matrix.quants.length + matrix.scales.length + zero_point_bytes;
    (StoredTensor::Blocks(matrix), bytes, error)
}

/// The rows of a tensor in the portions that are held in memory at a time.
fn chunks(tensor: &PlannedTensor) -> impl Iterator<Item = std::ops::Range<usize>> + use<> {
    let rows = tensor.rows;
    let step = rows_per_task(tensor.columns).saturating_mul(TASKS_PER_CHUNK);
    (0..rows)
        .step_by(step)
        .map(move |first| first..rows.min(first.saturating_add(step)))
}

/// Tells of a tensor's bytes as its rows are done: all of them in the end.
struct Pace<'a> {
    rows: u64,
    bytes: u64,
    rows_done: u64,
    bytes_told: u64,
    advance: &'a mut dyn FnMut(u64),
}

impl<'a> Pace<'a> {
    fn new(info: &TensorInfo, advance: &'a mut dyn FnMut(u64)) -> Self {
        Self {
            rows: info.rows.max(1) as u64,
            bytes: info.bytes,
            rows_done: 0,
            bytes_told: 0,
            advance,
        }
    }

    fn rows(&mut self, count: usize) {
        self.rows_done += count as u64;
        let done = u128::from(self.bytes) * u128::from(self.rows_done) / u128::from(self.rows);
        let done = u64::try_from(done).unwrap_or(self.bytes);
        (self.advance)(done.saturating_sub(self.bytes_told));
        self.bytes_told = done;
    }
}
