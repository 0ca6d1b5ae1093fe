//! `chaski bench`: how fast a model folder runs on this machine.
//!
//! In the manner of llama-bench: `pp` rows compute a prompt of that many tokens,
//! `tg` rows produce that many; the tokens are pseudo-random, as only their
//! number counts. With a depth so many tokens are in the KV cache before. Each row is
//! measured several times after one warm-up.

mod bandwidth;
mod machine;
mod measure;
mod memory;
mod report;
mod table;

pub use memory::human;

use std::panic::resume_unwind;
use std::path::PathBuf;
use std::thread;

use anyhow::{Context, Result};
use chaski_engine::{Backend, KvFormat, LoadOptions, Model, Precision};

use self::machine::Machine;
use self::memory::AnonymousPeak;
use self::report::{ModelFigures, Report, Run};
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
    /// Tokens in the KV cache before each of these
    #[arg(long, value_name = "N,..", value_delimiter = ',', default_value = "0")]
    depth: Vec<usize>,
    /// Numbers of threads to try [default: as many as the machine has cores]
    #[arg(long, value_name = "N,..", value_delimiter = ',', value_parser = at_least_one)]
    threads: Vec<usize>,
    /// Threads to decode with, at most as many [default: all of them]
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    decode_threads: Option<usize>,
    /// Cores to pin the threads to, by number [default: where the system puts them]
    #[arg(long, value_name = "N,..", value_delimiter = ',')]
    cores: Option<Vec<usize>>,
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

/// Runs `chaski bench`.
pub fn run(args: &Args) -> Result<()> {
    let counts = if args.threads.is_empty() {
        vec![None]
    } else {
        args.threads.iter().copied().map(Some).collect()
    };
    let mut model = None;
    let mut kernel_backend = String::new();
    let mut runs = Vec::new();
    for threads in counts {
        // The thread that loads a model may be pinned for good, so it is not this one.
        let done = thread::scope(|scope| scope.spawn(|| one(args, threads)).join());
        let (figures, backend, run) = done.unwrap_or_else(|panic| resume_unwind(panic))?;
        model.get_or_insert(figures);
        kernel_backend = backend;
        runs.push(run);
    }
    let mut report = Report {
        chaski_version: env!("CARGO_PKG_VERSION"),
        model: model.context("nothing was measured")?,
        machine: Machine::here(),
        kernel_backend,
        cores: args.cores.clone(),
        read_buffer: None,
        runs,
    };
    // Last, when no model is measured any more that would share the memory.
    let threads: Vec<_> = report.runs.iter().map(|run| run.threads).collect();
    eprintln!("reading memory with {threads:?} threads");
    if let Some((buffer, speeds)) =
        bandwidth::measure(&threads, args.cores.as_deref().unwrap_or_default())
    {
        report.compare_with(buffer, &speeds);
    }
    report::write(args.json.as_deref(), &report)
}

/// Loads the model and measures everything with one number of threads.
fn one(args: &Args, threads: Option<usize>) -> Result<(ModelFigures, String, Run)> {
    memory::reset_peak();
    let mut peak = AnonymousPeak::default();
    let model = peak.during(|| load(args, threads))?;
    let figures = ModelFigures::of(&args.model, &model);
    let backend = model.kernel_backend().to_owned();
    Ok((figures, backend, measure::measure(args, &model, peak)?))
}

fn load(args: &Args, threads: Option<usize>) -> Result<Model> {
    let needed = args.needed_context();
    let defaults = LoadOptions::default();
    let options = LoadOptions {
        threads,
        decode_threads: args.decode_threads,
        cores: args.cores.clone(),
        // The default context length is part of what is measured; it is only
        // exceeded where a row would not fit.
        context_length: (needed > 4096).then_some(needed),
        prefill_chunk: args.prefill_chunk.unwrap_or(defaults.prefill_chunk),
        backend: args.backend,
        precision: args.activations.unwrap_or(defaults.precision),
        kv_cache: args.kv_cache.unwrap_or(defaults.kv_cache),
    };
    Model::load(&args.model, &options)
        .with_context(|| format!("cannot load the model in {}", args.model.display()))
}

impl Args {
    /// Tokens of the longest row: its depth, its own, and one that goes before or
    /// comes after.
    fn needed_context(&self) -> usize {
        let own = self.prompt.iter().chain(&self.generate).max();
        let depth = self.depth.iter().max();
        own.map_or(0, |&own| own.saturating_add(1))
            .saturating_add(depth.copied().unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn args(line: &str) -> Args {
        Line::try_parse_from(line.split(' '))
            .expect("a line that is understood")
            .args
    }

    #[test]
    fn the_context_holds_the_longest_row() {
        assert_eq!(args("bench --model m").needed_context(), 513);
        let deep = args("bench --model m --depth 0,4096,100 --prompt 16 --generate 64");
        assert_eq!(deep.depth, [0, 4096, 100]);
        assert_eq!(deep.needed_context(), 4096 + 65);
    }
}
