//! What a bench found, as JSON and as tables.

use std::io::{self, Write};
use std::path::Path;

use anyhow::{Context, Result};
use chaski_engine::Model;
use serde::Serialize;

use super::bandwidth::Buffer;
use super::machine::Machine;
use super::memory::{Memory, human};
use super::table::{Measured, Table};

/// What a bench found.
#[derive(Debug, Serialize)]
pub struct Report {
    pub chaski_version: &'static str,
    pub model: ModelFigures,
    pub machine: Machine,
    pub kernel_backend: String,
    /// Cores that the threads were pinned to.
    pub cores: Option<Vec<usize>>,
    /// What the read bandwidth was measured with.
    pub read_buffer: Option<Buffer>,
    pub runs: Vec<Run>,
}

/// The model that ran.
#[derive(Debug, Serialize)]
pub struct ModelFigures {
    pub name: String,
    pub family: String,
    pub layers: usize,
    pub hidden_size: usize,
    pub heads: usize,
    pub kv_heads: usize,
    pub vocab_size: usize,
    pub folder_bytes: u64,
    /// Bytes of matrices that a decoded token reads.
    pub weight_bytes_per_token: u64,
}

/// One configuration: a number of threads.
#[derive(Debug, Serialize)]
pub struct Run {
    pub threads: usize,
    pub context_length: usize,
    pub load_seconds: f64,
    pub memory: Option<Memory>,
    /// The most anonymous memory during the load and the warm-ups, KV cache included.
    pub peak_anonymous_bytes: u64,
    /// Of the KV cache, as far as the longest test filled it.
    pub kv_cache_bytes: u64,
    /// What so many threads read that do nothing else.
    pub read_bytes_per_second: Option<f64>,
    pub tests: Vec<Test>,
}

/// A row.
#[derive(Debug, Serialize)]
pub struct Test {
    pub name: String,
    /// Tokens in the KV cache before.
    pub depth: usize,
    pub tokens: usize,
    pub tokens_per_second: Measured,
    /// From the start to the first token of the answer; of `pp` rows.
    pub first_token_seconds: Option<Measured>,
    /// Of weights; of `tg` rows.
    pub weight_bytes_per_second: Option<f64>,
    /// Their share of the run's `read_bytes_per_second`.
    pub read_bandwidth_percent: Option<f64>,
}

impl Report {
    /// Puts the read bandwidth of each run's number of threads to it, and how much of
    /// it the weights took.
    pub fn compare_with(&mut self, buffer: Buffer, speeds: &[f64]) {
        self.read_buffer = Some(buffer);
        for (run, &speed) in self.runs.iter_mut().zip(speeds) {
            run.read_bytes_per_second = Some(speed);
            for test in &mut run.tests {
                test.read_bandwidth_percent = test
                    .weight_bytes_per_second
                    .map(|weights| 100.0 * weights / speed);
            }
        }
    }
}

impl ModelFigures {
    /// Of a model that was loaded from this folder.
    pub fn of(folder: &Path, model: &Model) -> Self {
        let manifest = model.manifest();
        let architecture = &manifest.architecture;
        let name = folder
            .canonicalize()
            .unwrap_or_else(|_| folder.to_owned())
            .file_name()
            .map_or_else(String::new, |name| name.to_string_lossy().into_owned());
        Self {
            name,
            family: architecture.family.clone(),
            layers: architecture.layers,
            hidden_size: architecture.hidden_size,
            heads: architecture.heads,
            kv_heads: architecture.kv_heads,
            vocab_size: architecture.vocab_size,
            folder_bytes: manifest
                .files
                .values()
                .fold(0, |sum: u64, file| sum.saturating_add(file.bytes)),
            weight_bytes_per_token: model.weight_bytes_per_token(),
        }
    }
}

/// Writes the report to `json` and as a table to standard output; `-` is in its place.
pub fn write(json: Option<&Path>, report: &Report) -> Result<()> {
    let mut out = io::stdout().lock();
    let text = serde_json::to_string_pretty(report).context("cannot write the report as JSON")?;
    match json {
        Some(path) if path == Path::new("-") => {
            writeln!(out, "{text}")?;
            return Ok(());
        }
        Some(path) => std::fs::write(path, text + "\n")
            .with_context(|| format!("cannot write {}", path.display()))?,
        None => {}
    }
    write!(out, "{}", markdown(report))?;
    Ok(())
}

fn markdown(report: &Report) -> String {
    let model = &report.model;
    let machine = &report.machine;
    let mut text = format!(
        "{}: {} family, {} layers of {}, {} heads ({} KV), {} tokens, {} on disk\n\
         {} ({}, {} cores{}), kernels: {}, chaski {}\n\n",
        model.name,
        model.family,
        model.layers,
        model.hidden_size,
        model.heads,
        model.kv_heads,
        model.vocab_size,
        human(model.folder_bytes),
        machine.processor,
        machine.architecture,
        machine.cores,
        pinned(report.cores.as_deref()),
        report.kernel_backend,
        report.chaski_version,
    );
    let mut speeds = Table::new([
        "test",
        "threads",
        "tokens/s",
        "first token (s)",
        "weights (GB/s)",
        "of reading",
    ]);
    let mut loads = Table::new([
        "threads",
        "load (s)",
        "peak memory",
        "own memory",
        "own, peak",
        "of it KV cache",
        "mapped file",
        "reading (GB/s)",
    ]);
    for run in &report.runs {
        for test in &run.tests {
            speeds.row([
                test.name.clone(),
                run.threads.to_string(),
                test.tokens_per_second.to_string(),
                test.first_token_seconds
                    .as_ref()
                    .map_or_else(String::new, Measured::to_string),
                gigabytes(test.weight_bytes_per_second),
                test.read_bandwidth_percent
                    .map_or_else(String::new, |percent| format!("{percent:.0} %")),
            ]);
        }
        let bytes = |pick: fn(Memory) -> u64| {
            run.memory
                .map_or_else(|| "?".to_owned(), |memory| human(pick(memory)))
        };
        loads.row([
            run.threads.to_string(),
            format!("{:.2}", run.load_seconds),
            bytes(|memory| memory.peak_resident_bytes),
            bytes(|memory| memory.anonymous_bytes),
            human(run.peak_anonymous_bytes),
            human(run.kv_cache_bytes),
            bytes(|memory| memory.file_bytes),
            gigabytes(run.read_bytes_per_second),
        ]);
    }
    text.push_str(&speeds.to_string());
    text.push('\n');
    text.push_str(&loads.to_string());
    text.push_str(&report.read_buffer.map_or_else(String::new, |buffer| {
        caches(buffer, model.weight_bytes_per_token)
    }));
    text
}

/// What is to be said of the figures where caches have a part in them.
fn caches(buffer: Buffer, weights: u64) -> String {
    let Some(cache) = buffer.cache_bytes else {
        return String::new();
    };
    let (cache_size, mut text) = (human(cache), String::new());
    if buffer.fits_cache() {
        let bytes = human(buffer.bytes);
        text.push_str(&format!(
            "\nThe machine's cache of {cache_size} holds much of the {bytes} that were read: \
             memory alone is slower.\n"
        ));
    }
    if weights <= cache {
        let weights = human(weights);
        text.push_str(&format!(
            "\nA token reads {weights} of weights, which a cache of {cache_size} can hold: more \
             than 100 % of reading is possible.\n"
        ));
    }
    text
}

/// Which cores the threads were pinned to.
fn pinned(cores: Option<&[usize]>) -> String {
    let numbers: Vec<_> = cores
        .unwrap_or_default()
        .iter()
        .map(usize::to_string)
        .collect();
    match numbers.is_empty() {
        true => String::new(),
        false => format!(", pinned to {}", numbers.join(", ")),
    }
}

/// Bytes per second in GB/s; nothing if there are none.
fn gigabytes(speed: Option<f64>) -> String {
    speed.map_or_else(String::new, |speed| format!("{:.1}", speed / 1e9))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        Report {
            chaski_version: "0.0.0",
            model: ModelFigures {
                name: "small".to_owned(),
                family: "llama".to_owned(),
                layers: 30,
                hidden_size: 576,
                heads: 9,
                kv_heads: 3,
                vocab_size: 49152,
                folder_bytes: 93_100_000,
                weight_bytes_per_token: 100_000_000,
            },
            machine: Machine {
                processor: "Some CPU".to_owned(),
                architecture: "aarch64",
                cores: 4,
            },
            kernel_backend: "neon".to_owned(),
            cores: None,
            read_buffer: None,
            runs: vec![Run {
                threads: 4,
                context_length: 4096,
                load_seconds: 0.5,
                memory: None,
                peak_anonymous_bytes: 45_700_000,
                kv_cache_bytes: 16_800_000,
                read_bytes_per_second: None,
                tests: vec![
                    Test {
                        name: "pp16".to_owned(),
                        depth: 0,
                        tokens: 16,
                        tokens_per_second: Measured::of(vec![10.0, 12.0]),
                        first_token_seconds: Some(Measured::of(vec![1.5])),
                        weight_bytes_per_second: None,
                        read_bandwidth_percent: None,
                    },
                    Test {
                        name: "tg64 @ d4096".to_owned(),
                        depth: 4096,
                        tokens: 64,
                        tokens_per_second: Measured::of(vec![20.0]),
                        first_token_seconds: None,
                        weight_bytes_per_second: Some(2e9),
                        read_bandwidth_percent: None,
                    },
                ],
            }],
        }
    }

    #[test]
    fn the_table_names_model_machine_and_figures() {
        let text = markdown(&report());
        assert!(text.starts_with("small: llama family, 30 layers of 576, 9 heads (3 KV)"));
        assert!(text.contains("Some CPU (aarch64, 4 cores), kernels: neon"));
        assert!(
            text.contains("| pp16         |       4 | 11.00 ± 1.41 |     1.50 ± 0.00 |"),
            "{text}"
        );
        assert!(text.contains("0.50 |"), "{text}");
    }

    #[test]
    fn the_json_holds_the_samples() {
        let json = serde_json::to_value(report()).expect("a report is JSON");
        assert_eq!(
            json.pointer("/runs/0/tests/0/tokens_per_second/samples"),
            Some(&serde_json::json!([10.0, 12.0]))
        );
    }

    #[test]
    fn weights_are_compared_with_reading() {
        let mut report = report();
        report.cores = Some(vec![0, 2]);
        let cache_bytes = Some(2_000_000);
        let bytes = 1_000_000_000;
        report.compare_with(Buffer { bytes, cache_bytes }, &[8e9]);
        let text = markdown(&report);
        let row = text.lines().find(|line| line.contains("tg64 @ d4096"));
        let cells: Vec<_> = row.unwrap_or_default().split('|').map(str::trim).collect();
        assert!(text.contains("4 cores, pinned to 0, 2)"), "{text}");
        assert_eq!(cells[5..7], ["2.0", "25 %"], "{text}");
        assert!(
            text.contains(" 8.0 |") && !text.contains("a cache of"),
            "{text}"
        );
        assert!(!text.contains("memory alone is slower"), "{text}");
        report.compare_with(
            Buffer {
                bytes: 1_000_000,
                cache_bytes,
            },
            &[8e9],
        );
        assert!(markdown(&report).contains("memory alone is slower"));
    }
}
