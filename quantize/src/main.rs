//! `chaski-quantize`: from a Llama's weights, or none, to a 4-bit model folder.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::Context;
use chaski_quantize::progress::{Progress, ProgressDisplay, Silent};
use chaski_quantize::{Bits, Options, RandomOptions, Scheme, quantise, quantise_random};
use clap::{Parser, ValueEnum};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

/// Turn a Llama into a model folder of 4-bit weights for chaskid and ONNX Runtime.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// A Hugging Face folder, one of its .safetensors files, or a .gguf file.
    #[arg(required_unless_present = "random", conflicts_with = "random")]
    input: Option<PathBuf>,

    /// In place of an input: random weights in the shape of this Hugging Face
    /// config.json, symmetric, for measurements.
    #[arg(long, value_name = "CONFIG_JSON", conflicts_with = "scheme")]
    random: Option<PathBuf>,

    /// The same seed makes the same random weights.
    #[arg(long, value_name = "N", default_value_t = 0, requires = "random")]
    seed: u64,

    /// Give the random model the tokenizer files of this folder (default: a
    /// token for each byte, and padding).
    #[arg(long, value_name = "FOLDER", requires = "random")]
    tokenizer: Option<PathBuf>,

    /// The model folder to write: whole, or not at all.
    #[arg(short, long, value_name = "FOLDER")]
    output: PathBuf,

    /// How zero points are chosen.
    #[arg(long, value_enum, default_value_t = SchemeArgument::Auto)]
    scheme: SchemeArgument,

    /// Bits of the token embedding and the output head. 8 is worth its size for
    /// models under about a billion weights: they suffer visibly from 4 bits
    /// there, and up to a fifth of them is the embedding.
    #[arg(long, value_enum, value_name = "BITS", default_value_t = BitsArgument::Four)]
    embedding_bits: BitsArgument,

    /// Cap the context length to so many tokens (default: the model's own).
    #[arg(long, value_name = "TOKENS")]
    context: Option<usize>,

    /// Threads that quantise (default: one per processor).
    #[arg(long, value_name = "N")]
    threads: Option<usize>,

    /// Replace a model folder that is there already.
    #[arg(long)]
    force: bool,

    /// Show neither progress nor summary.
    #[arg(short, long)]
    quiet: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum SchemeArgument {
    /// Take over Q4_0 and Q4_1 tensors as they are; of the others, embedding
    /// and head asymmetric, the rest symmetric.
    Auto,
    /// Zero point 8 everywhere: the smallest and fastest.
    Symmetric,
    /// An integer zero point per block: 3 % larger, closer to the source.
    Asymmetric,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum BitsArgument {
    /// As the layers have.
    #[value(name = "4")]
    Four,
    /// Nearly exact, and exact where the source is Q8_0.
    #[value(name = "8")]
    Eight,
}

impl From<BitsArgument> for Bits {
    fn from(argument: BitsArgument) -> Self {
        match argument {
            BitsArgument::Four => Self::Four,
            BitsArgument::Eight => Self::Eight,
        }
    }
}

impl From<SchemeArgument> for Scheme {
    fn from(argument: SchemeArgument) -> Self {
        match argument {
            SchemeArgument::Auto => Self::Auto,
            SchemeArgument::Symmetric => Self::Symmetric,
            SchemeArgument::Asymmetric => Self::Asymmetric,
        }
    }
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("chaski-quantize: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let interrupt = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(&interrupt))
            .context("cannot listen for signals")?;
    }
    if let Some(threads) = arguments.threads {
        rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build_global()
            .context("cannot start threads")?;
    }
    let options = Options {
        scheme: arguments.scheme.into(),
        embedding_bits: arguments.embedding_bits.into(),
        context_length: arguments.context,
        force: arguments.force,
        interrupt: Some(interrupt),
    };
    let mut progress: Box<dyn Progress> = if arguments.quiet {
        Box::new(Silent)
    } else {
        Box::new(ProgressDisplay::new())
    };
    let output = &arguments.output;
    let summary = match (&arguments.input, &arguments.random) {
        (_, Some(config)) => {
            let random = RandomOptions {
                seed: arguments.seed,
                tokenizer: arguments.tokenizer.clone(),
            };
            quantise_random(config, output, &random, &options, progress.as_mut())?
        }
        (Some(input), None) => quantise(input, output, &options, progress.as_mut())?,
        (None, None) => anyhow::bail!("give an input, or a config.json with --random"),
    };
    if !arguments.quiet {
        println!("{summary}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_manual_is_what_the_program_says() {
        chaski_manual::check(Arguments::command(), "1");
    }
}
