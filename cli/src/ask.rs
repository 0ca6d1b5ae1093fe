//! `chaski ask`: one question to one node.

use std::fs;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use chaski_daemon::config::Broker;
use chaski_daemon::mqtt::Tls;
use chaski_daemon::wire::{ChatRequest, Message, Reply};

use crate::client::{BrokerAddress, Client};
use crate::model_options::at_least_one;
use crate::terminal;

/// Arguments of `chaski ask`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The question
    question: String,
    /// Name of the node to ask
    #[arg(long, default_value = "board")]
    node: String,
    /// Ask whichever node of this group takes the question
    #[arg(long, value_name = "NAME", conflicts_with = "node")]
    group: Option<String>,
    /// The broker's name or address
    #[arg(long, default_value = "localhost")]
    host: String,
    /// The broker's TCP port [default: 1883, with --tls 8883]
    #[arg(long)]
    port: Option<u16>,
    /// Account at the broker
    #[arg(long, value_name = "NAME", requires = "password_file")]
    username: Option<String>,
    /// File that holds the account's password alone
    #[arg(long, value_name = "FILE", requires = "username")]
    password_file: Option<PathBuf>,
    /// Encrypt, and check that it is the broker
    #[arg(long)]
    tls: bool,
    /// Certificates of those who may have signed the broker's [default: the system's]
    #[arg(long, value_name = "FILE", requires = "tls")]
    ca_file: Option<PathBuf>,
    /// A certificate of our own for the broker
    #[arg(long, value_name = "FILE", requires_all = ["tls", "client_key_file"])]
    client_cert_file: Option<PathBuf>,
    /// The key of that certificate
    #[arg(long, value_name = "FILE", requires_all = ["tls", "client_cert_file"])]
    client_key_file: Option<PathBuf>,
    /// Print the answer as it comes [default on a terminal]
    #[arg(long)]
    stream: bool,
    /// Most tokens of the answer [default: the node's limit]
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    max_tokens: Option<usize>,
    /// 0 takes the most probable token each time [default: the node's]
    #[arg(long, value_name = "X")]
    temperature: Option<f64>,
    /// Seed of the random choice
    #[arg(long, value_name = "N")]
    seed: Option<i64>,
    /// A system message to put before the question
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,
    /// Give up when nothing comes for so many seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 120, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    timeout: u64,
    /// Print the node's JSON: one line, or with --stream one per part
    #[arg(long)]
    json: bool,
}

/// Runs `chaski ask`.
pub async fn run(args: &Args) -> Result<()> {
    if args.question.trim().is_empty() {
        bail!("the question is empty");
    }
    let settings = settings(args);
    let broker = BrokerAddress {
        host: settings.host.clone(),
        port: settings.port(),
        credentials: credentials(args.username.as_deref(), args.password_file.as_deref())?,
        tls: Tls::load(&settings).map_err(|problem| {
            let option = problem.key.trim_start_matches("broker.");
            anyhow!("--{option} {}", problem.message)
        })?,
    };
    let name = args.group.as_ref().unwrap_or(&args.node);
    let mut client = Client::connect(&broker, name).await?;
    let result = converse(&mut client, args).await;
    client.close().await;
    result
}

/// The broker as a daemon's configuration would have it.
fn settings(args: &Args) -> Broker {
    Broker {
        host: args.host.clone(),
        port: args.port,
        tls: args.tls,
        ca_file: args.ca_file.clone(),
        client_cert_file: args.client_cert_file.clone(),
        client_key_file: args.client_key_file.clone(),
        ..Broker::default()
    }
}

async fn converse(client: &mut Client, args: &Args) -> Result<()> {
    // A group has no status of its own.
    if args.group.is_none() {
        client.require_online().await?;
    }
    let stream = args.stream || (!args.json && io::stdout().is_terminal());
    client.send(&request(args, stream)).await?;
    let patience = Duration::from_secs(args.timeout);
    loop {
        let reply = client.reply(patience).await?;
        if print(&reply, args.json)? {
            return Ok(());
        }
    }
}

fn request(args: &Args, stream: bool) -> ChatRequest {
    let mut messages = Vec::new();
    if let Some(system) = &args.system {
        messages.push(Message::new("system", system));
    }
    messages.push(Message::new("user", &args.question));
    ChatRequest {
        messages,
        stream: Some(stream),
        max_tokens: args.max_tokens.and_then(|tokens| tokens.try_into().ok()),
        temperature: args.temperature,
        seed: args.seed,
        ..ChatRequest::default()
    }
}

/// Prints part of an answer; true when it was the last.
fn print(reply: &Reply, json: bool) -> Result<bool> {
    let mut out = io::stdout().lock();
    let (text, done) = match reply {
        Reply::Chunk(chunk) => {
            let choice = chunk.choices.first();
            let text = choice.and_then(|choice| choice.delta.content.as_deref());
            let done = choice.is_none_or(|choice| choice.finish_reason.is_some());
            (text.unwrap_or_default(), done)
        }
        Reply::Completion(completion) => {
            let choice = completion.choices.first();
            (
                choice.map_or("", |choice| choice.message.content.as_str()),
                true,
            )
        }
        // The client makes these an error of its own.
        Reply::Error(error) => bail!("{}", error.error.message),
    };
    if json {
        let line = match reply {
            Reply::Chunk(chunk) => serde_json::to_string(chunk)?,
            Reply::Completion(completion) => serde_json::to_string(completion)?,
            Reply::Error(error) => serde_json::to_string(error)?,
        };
        writeln!(out, "{line}")?;
    } else {
        out.write_all(terminal::safe(text, out.is_terminal()).as_bytes())?;
        if done {
            out.write_all(b"\n")?;
        }
    }
    out.flush()?;
    Ok(done)
}

fn credentials(
    username: Option<&str>,
    password_file: Option<&Path>,
) -> Result<Option<(String, String)>> {
    let (Some(username), Some(path)) = (username, password_file) else {
        return Ok(None);
    };
    let text = fs::read_to_string(path)
        .with_context(|| format!("cannot read the password file {}", path.display()))?;
    let password = text.strip_suffix('\n').map_or(text.as_str(), |line| {
        line.strip_suffix('\r').unwrap_or(line)
    });
    Ok(Some((username.to_owned(), password.to_owned())))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Command {
        #[command(flatten)]
        args: Args,
    }

    fn parse(line: &[&str]) -> Result<Args, clap::Error> {
        Command::try_parse_from([&["ask"], line].concat()).map(|command| command.args)
    }

    #[test]
    fn defaults_are_those_of_the_daemon() {
        let args = parse(&["Hello?"]).expect("a question is enough");
        let config = chaski_daemon::config::Config::for_model("m");
        assert_eq!(args.node, config.node.name);
        assert_eq!(args.host, config.broker.host);
        assert_eq!(settings(&args).port(), config.broker.port());
        let args = parse(&["Hello?", "--tls"]).expect("the system's certificates do");
        assert_eq!(settings(&args).port(), 8883);
        assert!(!args.stream);
    }

    #[test]
    fn the_request_carries_what_was_asked() {
        let line = [
            "Hello?",
            "--max-tokens",
            "5",
            "--temperature",
            "0",
            "--system",
            "Be brief.",
        ];
        let request = request(&parse(&line).expect("valid"), true);
        assert_eq!(request.max_tokens, Some(5));
        assert_eq!(request.temperature, Some(0.0));
        assert_eq!(request.stream, Some(true));
        let roles: Vec<_> = request.messages.iter().map(|m| m.role.as_str()).collect();
        assert_eq!(roles, ["system", "user"]);
    }

    #[test]
    fn wrong_arguments_are_refused() {
        for line in [
            &[][..],
            &["x", "--max-tokens", "0"],
            &["x", "--timeout", "0"],
            &["x", "--port", "70000"],
            &["x", "--node", "a", "--group", "b"],
            &["x", "--username", "me"],
            &["x", "--password-file", "f"],
            &["x", "--ca-file", "f"],
            &["x", "--tls", "--client-key-file", "f"],
        ] {
            assert!(parse(line).is_err(), "{line:?}");
        }
    }

    #[test]
    fn the_password_is_the_line_without_its_end() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("password");
        for (text, password) in [("secret\n", "secret"), ("s e \r\n", "s e "), ("x", "x")] {
            fs::write(&path, text).expect("write");
            assert_eq!(
                credentials(Some("me"), Some(&path)).expect("read"),
                Some(("me".to_owned(), password.to_owned()))
            );
        }
        assert!(credentials(Some("me"), Some(&folder.path().join("none"))).is_err());
        assert_eq!(credentials(None, None).expect("none"), None);
    }
}
