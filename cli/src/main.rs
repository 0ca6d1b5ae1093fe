//! `chaski`: ask a node, try the whole on one machine, measure it.

#![forbid(unsafe_code)]

mod ask;
mod bench;
mod client;
mod demo;
mod digest;
mod doctor;
mod generate;
mod logits;
mod model_options;
mod models;
mod perplexity;
mod status;
mod terminal;
mod tokenize;
mod verify;

use std::io;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use tracing_subscriber::EnvFilter;

#[derive(Debug, Parser)]
#[command(
    name = "chaski",
    version,
    about = "Ask a Chaski node over MQTT, try it out, measure it"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Ask a node a question over MQTT
    Ask(ask::Args),
    /// Say whether this board's node is online at its broker
    Status(status::Args),
    /// Try it: a small model, a broker, a node and a question in one process
    Demo(demo::Args),
    /// Look at this machine, its configuration, model and broker: is it fit to be a node?
    Doctor(doctor::Args),
    /// Measure how fast a model folder runs here
    Bench(bench::Args),
    /// Show, add and choose the models of this board
    Models(models::Args),
    /// Compare a model folder with the checksums in its manifest
    Verify(verify::Args),
    /// Produce text from a model folder, without MQTT
    Generate(generate::Args),
    /// Write the logits of a prompt's last position to a file
    Logits(logits::Args),
    /// Measure how well a model folder foretells a text
    Perplexity(perplexity::Args),
    /// Turn lines of text into token ids
    Tokenize(tokenize::Args),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    tracing_subscriber::fmt()
        .with_writer(io::stderr)
        .with_env_filter(log_filter(std::env::var("CHASKI_LOG").ok().as_deref()))
        .init();
    match run(cli.command) {
        Ok(code) => code,
        // Whoever read our output has had enough, as `head` does.
        Err(error) if is_broken_pipe(&error) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("chaski: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::Doctor(args) => return runtime()?.block_on(doctor::run(&args)),
        Command::Ask(args) => runtime()?.block_on(ask::run(&args)),
        Command::Status(args) => runtime()?.block_on(status::run(&args)),
        Command::Demo(args) => demo::run(args),
        Command::Bench(args) => bench::run(&args),
        Command::Models(args) => models::run(&args),
        Command::Verify(args) => verify::run(&args),
        Command::Generate(args) => generate::run(args),
        Command::Logits(args) => logits::run(&args),
        Command::Perplexity(args) => perplexity::run(&args),
        Command::Tokenize(args) => tokenize::run(&args),
    }?;
    Ok(ExitCode::SUCCESS)
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the asynchronous runtime")
}

/// Warnings of our own only, unless told otherwise: the embedded broker reports
/// every disconnect as an error.
fn log_filter(wish: Option<&str>) -> EnvFilter {
    const QUIET: &str = "warn,rumqttd=off,rumqttc=off";
    wish.and_then(|wish| EnvFilter::try_new(wish).ok())
        .unwrap_or_else(|| EnvFilter::new(QUIET))
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause
            .downcast_ref::<io::Error>()
            .is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
    })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_manual_is_what_the_program_says() {
        chaski_manual::check(Cli::command(), "1");
    }

    #[test]
    fn developer_commands_take_what_the_tests_give() {
        for line in [
            "chaski generate --model m --ids 1,2,3 --max-tokens 5 --json",
            "chaski generate --model m --prompt x --temperature 0.5 --top-k 3 --top-p 0.9 --min-p 0.1 --repetition-penalty 1.1 --seed 1 --stop a --stop b",
            "chaski generate --model m --batch --threads 1 --context-length 64 --prefill-chunk 16 --ignore-eos",
            "chaski logits --model m --ids 1,2,3 --split 2 --output f",
            "chaski perplexity --model m --text t --window 256 --windows 2 --kv-cache int8 --json",
            "chaski tokenize --model m --no-special --json",
            "chaski verify m",
            "chaski status --config c --wait 60",
            "chaski models list",
            "chaski models install m --name n --store s --no-restart",
            "chaski models --store s use n",
            "chaski models update --patience 5",
            "chaski doctor",
            "chaski doctor --config c --model m --root r --json",
            "chaski bench --model m --prompt 16,128 --generate 64 --threads 1,2 --repetitions 1 --json -",
            "chaski bench --model m --depth 0,4096 --cores 0,2",
            "chaski generate --model m --prompt x --cores 1",
            "chaski demo --gguf f --question x --threads 1 --cache c",
        ] {
            assert!(Cli::try_parse_from(line.split(' ')).is_ok(), "{line}");
        }
        for line in [
            "chaski",
            "chaski generate --model m",
            "chaski generate --model m --ids 1 --batch",
            "chaski generate --ids 1",
            "chaski generate --model m --ids 1,x",
            "chaski perplexity --model m",
            "chaski perplexity --model m --text t --window 3",
            "chaski bench --model m --threads 0",
            "chaski bench --model m --cores x",
            "chaski bench --model m --depth -1",
            "chaski demo --gguf f --model m",
        ] {
            assert!(Cli::try_parse_from(line.split(' ')).is_err(), "{line}");
        }
    }

    #[test]
    fn a_closed_reader_is_known() {
        let error = anyhow::Error::new(io::Error::from(io::ErrorKind::BrokenPipe)).context("x");
        assert!(is_broken_pipe(&error));
        assert!(!is_broken_pipe(&anyhow::anyhow!("x")));
    }
}
