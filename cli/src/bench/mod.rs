//! `chaski bench`: how fast a model folder runs on this machine.
//!
//! In the manner of llama-bench: `pp` rows compute a prompt of that many tokens,
//! `tg` rows produce that many; the tokens are pseudo-random, as only their
//! number counts. Each row is measured several times after one warm-up.

mod machine;
mod memory;
mod table;

use std::io::{self, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result};
use chaski_engine::{
    Backend, GenerateOptions, KvFormat, LoadOptions, Model, Piece, Precision, Session,
};
use serde::Serialize;

use self::machine::Machine;
use self::memory::{AnonymousPeak, Memory, human};
use self::table::{Measured, Table};
use crate::model_options::{at_least_one, backend, kv_format, precision};

/// Arguments of `chaski bench`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The model folder
    #[arg(long, value_name = "FOLDER")]
    model: PathBuf,
    /// Prompt lengths to compute, in tokens
    #[arg(long, value_name = "N,..", value_delimiter = ',', default_value = "16,128,512", value_parser = at_least_one)]
    prompt: Vec<usize>,
    /// Numbers of tokens to produce
    #[arg(long, value_name = "N,..", value_delimiter = ',', default_value = "64,128", value_parser = at_least_one)]
    generate: Vec<usize>,
    /// Numbers of threads to try [default: as many as the machine has cores]
    #[arg(long, value_name = "N,..", value_delimiter = ',', value_parser = at_least_one)]
    threads: Vec<usize>,
    /// Measurements of each row
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = at_least_one)]
    repetitions: usize,
    /// Prompt tokens computed at once [default: 128]
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    prefill_chunk: Option<usize>,
    /// Kernels to compute with [default: the fastest that this processor has]
    #[arg(long, value_name = "NAME", value_parser = backend)]
    backend: Option<Backend>,
    /// What activations are computed with, int8 or f32 [default: int8]
    #[arg(long, value_name = "TYPE", value_parser = precision)]
    activations: Option<Precision>,
    /// What the KV cache is kept in, f16, int8 or f32 [default: f16]
    #[arg(long, value_name = "TYPE", value_parser = kv_format)]
    kv_cache: Option<KvFormat>,
    /// Write the report as JSON to this file; `-`: to standard output, in the table's place
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

#[derive(Debug, Serialize)]
struct Report {
    chaski_version: &'static str,
    model: ModelFigures,
    machine: Machine,
    kernel_backend: String,
    runs: Vec<Run>,
}

#[derive(Debug, Serialize)]
struct ModelFigures {
    name: String,
    family: String,
    layers: usize,
    hidden_size: usize,
    heads: usize,
    kv_heads: usize,
    vocab_size: usize,
    folder_bytes: u64,
}

/// One configuration: a number of threads.
#[derive(Debug, Serialize)]
struct Run {
    threads: usize,
    context_length: usize,
    load_seconds: f64,
    memory: Option<Memory>,
    /// The most anonymous memory during the load and the warm-ups, KV cache included.
    peak_anonymous_bytes: u64,
    /// Of the KV cache, as far as the longest test filled it.
    kv_cache_bytes: u64,
    tests: Vec<Test>,
}

#[derive(Debug, Serialize)]
struct Test {
    name: String,
    tokens: usize,
    tokens_per_second: Measured,
    /// From the start to the first token of the answer; of `pp` rows.
    first_token_seconds: Option<Measured>,
}

/// Runs `chaski bench`.
pub fn run(args: &Args) -> Result<()> {
    let counts = if args.threads.is_empty() {
        vec![None]
    } else {
        args.threads.iter().copied().map(Some).collect()
    };
    let mut figures = None;
    let mut backend = String::new();
    let mut runs = Vec::new();
    for threads in counts {
        memory::reset_peak();
        let mut peak = AnonymousPeak::default();
        let model = peak.during(|| load(args, threads))?;
        backend = model.kernel_backend().to_owned();
        figures.get_or_insert_with(|| model_figures(&args.model, &model));
        runs.push(measure(args, &model, peak)?);
    }
    let report = Report {
        chaski_version: env!("CARGO_PKG_VERSION"),
        model: figures.context("nothing was measured")?,
        machine: Machine::here(),
        kernel_backend: backend,
        runs,
    };
    write(args.json.as_deref(), &report)
}

fn load(args: &Args, threads: Option<usize>) -> Result<Model> {
    // The default context length is part of what is measured; it is only
    // exceeded where a row would not fit.
    let needed = args
        .prompt
        .iter()
        .chain(&args.generate)
        .copied()
        .max()
        .unwrap_or(0)
        .saturating_add(1);
    let defaults = LoadOptions::default();
    let options = LoadOptions {
        threads,
        context_length: (needed > 4096).then_some(needed),
        prefill_chunk: args.prefill_chunk.unwrap_or(defaults.prefill_chunk),
        backend: args.backend,
        precision: args.activations.unwrap_or(defaults.precision),
        kv_cache: args.kv_cache.unwrap_or(defaults.kv_cache),
    };
    Model::load(&args.model, &options)
        .with_context(|| format!("cannot load the model in {}", args.model.display()))
}

fn measure(args: &Args, model: &Model, mut peak: AnonymousPeak) -> Result<Run> {
    let mut session = model.session().context("cannot make a session")?;
    let vocabulary = model.manifest().architecture.vocab_size;
    let (mut tests, mut positions) = (Vec::new(), 0);
    for &tokens in &args.prompt {
        let name = format!("pp{tokens}");
        eprintln!("{name} with {} threads", model.threads());
        let ids = pseudo_random_ids(tokens, vocabulary);
        tests.push(prompt_test(
            name,
            &mut session,
            &ids,
            args.repetitions,
            &mut peak,
        )?);
        positions = positions.max(session.position());
    }
    for &tokens in &args.generate {
        let name = format!("tg{tokens}");
        eprintln!("{name} with {} threads", model.threads());
        let ids = pseudo_random_ids(tokens.saturating_add(1), vocabulary);
        tests.push(generate_test(
            name,
            &mut session,
            &ids,
            args.repetitions,
            &mut peak,
        )?);
        positions = positions.max(session.position());
    }
    peak.look();
    Ok(Run {
        threads: model.threads(),
        context_length: session.context_length(),
        load_seconds: model.load_time().as_secs_f64(),
        // While the session still holds its KV cache.
        memory: Memory::now(),
        peak_anonymous_bytes: peak.bytes(),
        kv_cache_bytes: (positions * model.kv_bytes_per_token()) as u64,
        tests,
    })
}

fn prompt_test(
    name: String,
    session: &mut Session,
    ids: &[u32],
    repetitions: usize,
    peak: &mut AnonymousPeak,
) -> Result<Test> {
    let options = GenerateOptions {
        max_tokens: Some(1),
        ignore_eos: true,
        ..GenerateOptions::default()
    };
    let mut speeds = Vec::with_capacity(repetitions);
    let mut first_tokens = Vec::with_capacity(repetitions);
    for repetition in 0..=repetitions {
        session.truncate(0);
        let start = Instant::now();
        let mut first = None;
        let mut work = || {
            session.generate(ids, &options, &mut |_: Piece<'_>| {
                first.get_or_insert_with(|| start.elapsed());
                ControlFlow::Continue(())
            })
        };
        // Memory is watched in the warm-up only: it takes time.
        let generated = match repetition {
            0 => peak.during(work),
            _ => work(),
        }
        .with_context(|| format!("{name} failed"))?;
        if repetition > 0 {
            let seconds = generated.timings.prefill.as_secs_f64();
            speeds.push(generated.timings.prefill_tokens as f64 / seconds);
            first_tokens.push(first.unwrap_or_else(|| start.elapsed()).as_secs_f64());
        }
    }
    Ok(Test {
        name,
        tokens: ids.len(),
        tokens_per_second: Measured::of(speeds),
        first_token_seconds: Some(Measured::of(first_tokens)),
    })
}

fn generate_test(
    name: String,
    session: &mut Session,
    ids: &[u32],
    repetitions: usize,
    peak: &mut AnonymousPeak,
) -> Result<Test> {
    let (first, rest) = ids.split_first().context("nothing to generate")?;
    let mut speeds = Vec::with_capacity(repetitions);
    for repetition in 0..=repetitions {
        session.truncate(0);
        session
            .prefill(&[*first])
            .with_context(|| format!("{name} failed"))?;
        let start = Instant::now();
        let mut work = || {
            rest.iter()
                .try_for_each(|&id| session.decode(id).map(|_| ()))
        };
        match repetition {
            0 => peak.during(work),
            _ => work(),
        }
        .with_context(|| format!("{name} failed"))?;
        if repetition > 0 {
            speeds.push(rest.len() as f64 / start.elapsed().as_secs_f64());
        }
    }
    Ok(Test {
        name,
        tokens: rest.len(),
        tokens_per_second: Measured::of(speeds),
        first_token_seconds: None,
    })
}

/// The same ids in every run (a linear congruential generator, Numerical Recipes' figures).
fn pseudo_random_ids(count: usize, vocabulary: usize) -> Vec<u32> {
    let vocabulary = u32::try_from(vocabulary).unwrap_or(u32::MAX).max(1);
    let mut state = 1u32;
    (0..count)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 4) % vocabulary
        })
        .collect()
}

fn model_figures(folder: &Path, model: &Model) -> ModelFigures {
    let manifest = model.manifest();
    let architecture = &manifest.architecture;
    let name = folder
        .canonicalize()
        .unwrap_or_else(|_| folder.to_owned())
        .file_name()
        .map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    ModelFigures {
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
    }
}

fn write(json: Option<&Path>, report: &Report) -> Result<()> {
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
         {} ({}, {} cores), kernels: {}, chaski {}\n\n",
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
        report.kernel_backend,
        report.chaski_version,
    );
    let mut speeds = Table::new(["test", "threads", "tokens/s", "first token (s)"]);
    let mut loads = Table::new([
        "threads",
        "load (s)",
        "peak memory",
        "own memory",
        "own, peak",
        "of it KV cache",
        "mapped file",
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
        ]);
    }
    text.push_str(&speeds.to_string());
    text.push('\n');
    text.push_str(&loads.to_string());
    text
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
            },
            machine: Machine {
                processor: "Some CPU".to_owned(),
                architecture: "aarch64",
                cores: 4,
            },
            kernel_backend: "neon".to_owned(),
            runs: vec![Run {
                threads: 4,
                context_length: 4096,
                load_seconds: 0.5,
                memory: None,
                peak_anonymous_bytes: 45_700_000,
                kv_cache_bytes: 16_800_000,
                tests: vec![Test {
                    name: "pp16".to_owned(),
                    tokens: 16,
                    tokens_per_second: Measured::of(vec![10.0, 12.0]),
                    first_token_seconds: Some(Measured::of(vec![1.5])),
                }],
            }],
        }
    }

    #[test]
    fn the_table_names_model_machine_and_figures() {
        let text = markdown(&report());
        assert!(text.starts_with("small: llama family, 30 layers of 576, 9 heads (3 KV)"));
        assert!(text.contains("Some CPU (aarch64, 4 cores), kernels: neon"));
        assert!(
            text.contains("| pp16 |       4 | 11.00 ± 1.41 |     1.50 ± 0.00 |"),
            "{text}"
        );
        assert!(text.contains("0.50 |"), "{text}");
        let row = text.lines().last().unwrap_or_default();
        assert!(row.contains("45.7 MB") && row.contains("16.8 MB"), "{text}");
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
    fn ids_are_in_the_vocabulary_and_the_same_each_time() {
        let ids = pseudo_random_ids(1000, 77);
        assert!(ids.iter().all(|&id| id < 77));
        assert_eq!(ids, pseudo_random_ids(1000, 77));
        assert!(ids.iter().collect::<std::collections::BTreeSet<_>>().len() > 50);
        assert_eq!(pseudo_random_ids(2, 0), [0, 0]);
    }
}
