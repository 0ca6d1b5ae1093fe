//! From a source to a model folder, tensor by tensor and rows by rows.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use chaski_manifest::{
    Architecture, BLOCK_SIZE, FORMAT, FORMAT_VERSION, FileEntry, Manifest, Quantisation, Scheme,
    SourceEntry,
};
use prost::Message;

use crate::error::{Error, Result};
use crate::folder::{self, DataWriter, Staging, check_output, genai_config, hash_file};
use crate::onnx::llama::{self, COS_CACHE, SIN_CACHE};
use crate::onnx::weights::{StoredTensor, StoredTensors};
use crate::plan::{self, Kind};
use crate::progress::{Progress, Stage};
use crate::quantise::Bits;
use crate::rope;
use crate::source::{self, Random, Source};
use crate::summary::{Summary, Totals};
use crate::tensor::TensorWriter;

/// Settings of a conversion.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// How zero points are chosen.
    pub scheme: Scheme,
    /// Bits of the embedding and the output head. With 8 a Q8_0 tensor is taken
    /// over as it is, whatever the scheme. Worth it for models under about a
    /// billion weights, which suffer visibly from an embedding in 4 bits.
    pub embedding_bits: Bits,
    /// Caps the context length; the model's own without.
    pub context_length: Option<usize>,
    /// Replaces a model folder that is there already.
    pub force: bool,
    /// Ends the conversion with [`Error::Interrupted`] once it is true.
    pub interrupt: Option<Arc<AtomicBool>>,
}

impl Options {
    /// An error once the conversion should end.
    pub fn check_interrupt(&self) -> Result<()> {
        match &self.interrupt {
            Some(flag) if flag.load(Ordering::Relaxed) => Err(Error::Interrupted),
            _ => Ok(()),
        }
    }
}

/// Reads the model at `input` and writes the model folder `output`, whole or
/// not at all.
pub fn quantise(
    input: &Path,
    output: &Path,
    options: &Options,
    progress: &mut dyn Progress,
) -> Result<Summary> {
    check_output(output, input, options.force)?;
    let source = source::open(input)?;
    quantise_source(source.as_ref(), output, options, progress)
}

/// What a random model is made of, beside its shape.
#[derive(Clone, Debug, Default)]
pub struct RandomOptions {
    /// The same seed makes the same files.
    pub seed: u64,
    /// The folder whose tokenizer files it gets; without one its tokens are bytes.
    pub tokenizer: Option<PathBuf>,
}

/// Writes a model folder of random weights, symmetric whatever `options` say,
/// of the shape that the Hugging Face `config.json` at `config` tells.
pub fn quantise_random(
    config: &Path,
    output: &Path,
    random: &RandomOptions,
    options: &Options,
    progress: &mut dyn Progress,
) -> Result<Summary> {
    let tokenizer = random.tokenizer.as_deref();
    for input in [Some(config), tokenizer].into_iter().flatten() {
        check_output(output, input, options.force)?;
    }
    let source = Random::open(config, tokenizer, options.embedding_bits, random.seed)?;
    let options = Options {
        scheme: Scheme::Symmetric,
        ..options.clone()
    };
    let mut summary = quantise_source(&source, output, &options, progress)?;
    summary.notes.insert(
        0,
        format!("the weights are random, of seed {}", random.seed),
    );
    Ok(summary)
}

/// Like [`quantise`], from a source that is open already. The caller answers
/// for what `output` replaces.
pub fn quantise_source(
    source: &dyn Source,
    output: &Path,
    options: &Options,
    progress: &mut dyn Progress,
) -> Result<Summary> {
    let begun = Instant::now();
    let mut summary = Summary {
        output: output.to_path_buf(),
        ..Summary::default()
    };
    let architecture = capped(source.architecture(), options, &mut summary)?;
    // Texts first: a broken tokenizer should show before minutes of work.
    let texts = source.text_files()?;
    let source_files = hash_source(source, options, progress)?;
    let mut staging = Staging::create(output)?;

    let (tensors, data) = write_data(
        source,
        &architecture,
        &staging.path(folder::MODEL_DATA),
        options,
        progress,
        &mut summary,
    )?;
    let model = llama::model(&architecture, &tensors, folder::MODEL_DATA)?;
    staging.write(folder::MODEL, &model.encode_to_vec())?;
    staging.note(folder::MODEL_DATA, data);
    staging.write(folder::TOKENIZER, &texts.tokenizer)?;
    staging.write_json(folder::TOKENIZER_CONFIG, &texts.tokenizer_config)?;
    staging.write_json(folder::GENERATION_CONFIG, &texts.generation_config)?;
    let genai = genai_config(&architecture, &texts.generation_config);
    staging.write_json(folder::GENAI_CONFIG, &genai)?;

    summary.tied_embeddings = architecture.tied_embeddings;
    summary.source_bytes = source_files.values().map(|file| file.bytes).sum();
    let manifest = Manifest {
        format: FORMAT.to_owned(),
        format_version: FORMAT_VERSION,
        created_by: concat!(env!("CARGO_PKG_NAME"), " ", env!("CARGO_PKG_VERSION")).to_owned(),
        architecture,
        quantisation: Quantisation {
            bits: Bits::Four.count(),
            embedding_bits: options.embedding_bits.count(),
            block_size: BLOCK_SIZE,
            scheme: options.scheme,
        },
        files: staging.entries().clone(),
        source: SourceEntry {
            kind: source.kind().to_owned(),
            files: source_files,
        },
    };
    // What the engine would refuse is not written.
    manifest.check()?;
    staging.write_json(folder::MANIFEST, &manifest)?;
    summary.folder_bytes = staging.entries().values().map(|file| file.bytes).sum();
    options.check_interrupt()?;
    staging.publish()?;
    summary.elapsed = begun.elapsed();
    Ok(summary)
}

/// The model's figures with the context length that was asked for.
fn capped(model: &Architecture, options: &Options, summary: &mut Summary) -> Result<Architecture> {
    let mut architecture = model.clone();
    match options.context_length {
        None => {}
        Some(0) => return Err(Error::Options("a context length of 0 holds nothing".into())),
        Some(length) if length > model.context_length => summary.notes.push(format!(
            "the model's context length of {} is kept: {length} is beyond what it was made for",
            model.context_length
        )),
        Some(length) => architecture.context_length = length,
    }
    architecture.check()?;
    Ok(architecture)
}

fn hash_source(
    source: &dyn Source,
    options: &Options,
    progress: &mut dyn Progress,
) -> Result<BTreeMap<String, FileEntry>> {
    let files = source.files();
    let mut total = 0u64;
    for path in &files {
        let metadata = std::fs::metadata(path).map_err(Error::io("look at", path))?;
        total = total.saturating_add(metadata.len());
    }
    progress.begin(Stage::Hashing, total);
    let mut entries = BTreeMap::new();
    for path in &files {
        let name = path
            .file_name()
            .unwrap_or(path.as_os_str())
            .to_string_lossy();
        progress.item(&name);
        let entry = hash_file(path, |bytes| {
            progress.advance(bytes);
            options.check_interrupt()
        })?;
        entries.insert(name.into_owned(), entry);
    }
    progress.end();
    Ok(entries)
}

/// Writes the external data file and tells where each tensor is.
fn write_data(
    source: &dyn Source,
    architecture: &Architecture,
    path: &Path,
    options: &Options,
    progress: &mut dyn Progress,
    summary: &mut Summary,
) -> Result<(StoredTensors, FileEntry)> {
    let planned = plan::tensors(architecture);
    let total = planned
        .iter()
        .filter_map(|tensor| source.tensor(&tensor.name))
        .fold(0u64, |sum, info| sum.saturating_add(info.bytes));
    progress.begin(Stage::Quantising, total);
    let mut tensors = StoredTensors::new();
    let mut data = DataWriter::create(path)?;
    rotary_tables(architecture, &mut data, &mut tensors, summary, options)?;
    let mut writer = TensorWriter::new(source, options, &mut data);
    for tensor in &planned {
        progress.item(&tensor.name);
        let (stored, totals) = writer.write(tensor, &mut |bytes| progress.advance(bytes))?;
        tensors.insert(tensor.name.clone(), stored);
        summary.kinds.entry(tensor.kind).or_default().add(&totals);
    }
    summary.notes.extend(writer.into_notes());
    summary.notes.extend(unused(source, &tensors));
    let entry = data.finish()?;
    progress.end();
    Ok((tensors, entry))
}

/// Positions whose angles are computed at a time.
const ROTARY_CHUNK: usize = 4096;

fn rotary_tables(
    architecture: &Architecture,
    data: &mut DataWriter,
    tensors: &mut StoredTensors,
    summary: &mut Summary,
    options: &Options,
) -> Result<()> {
    let frequencies = rope::inverse_frequencies(architecture);
    let (rows, columns) = (architecture.context_length, frequencies.len());
    for name in [COS_CACHE, SIN_CACHE] {
        let function = if name == COS_CACHE {
            f64::cos
        } else {
            f64::sin
        };
        data.begin()?;
        for first in (0..rows).step_by(ROTARY_CHUNK) {
            options.check_interrupt()?;
            let count = ROTARY_CHUNK.min(rows - first);
            data.write_f32(&rope::table(&frequencies, first, count, function))?;
        }
        let placement = data.end();
        summary.kinds.entry(Kind::Rotary).or_default().add(&Totals {
            tensors: 1,
            weights: (rows * columns) as u64,
            bytes_after: placement.length,
            ..Totals::default()
        });
        tensors.insert(
            name.to_owned(),
            StoredTensor::Table {
                rows,
                columns,
                data: placement,
            },
        );
    }
    Ok(())
}

/// A note on tensors of the source that have no place in the model.
fn unused(source: &dyn Source, tensors: &StoredTensors) -> Option<String> {
    const SHOWN: usize = 3;
    let names: Vec<_> = source
        .tensor_names()
        .into_iter()
        .filter(|name| !tensors.contains_key(name))
        .collect();
    if names.is_empty() {
        return None;
    }
    let shown = names
        .iter()
        .take(SHOWN)
        .cloned()
        .collect::<Vec<_>>()
        .join(", ");
    let dots = if names.len() > SHOWN { ", …" } else { "" };
    Some(format!(
        "tensors of the source that are not used: {}: {shown}{dots}",
        names.len()
    ))
}

#[cfg(test)]
mod tests;
