//! `chaski status`: is the node of this board online, as others see it at the broker?

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use chaski_daemon::config::Config;
use tokio::time::timeout;

use crate::client::{BrokerAddress, Client};
use crate::doctor::CONFIG;

/// Arguments of `chaski status`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The daemon's configuration: its broker, its account there, the node's name
    #[arg(long, value_name = "FILE", default_value = CONFIG)]
    config: PathBuf,
    /// Wait so many seconds for the node to come online
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    wait: Option<u64>,
}

/// Runs `chaski status`.
pub async fn run(args: &Args) -> Result<()> {
    let config = Config::read(&args.config)?;
    let broker =
        BrokerAddress::configured(&config.broker).map_err(|problem| anyhow!("{problem}"))?;
    let node = &config.node.name;
    let mut client = Client::connect(&broker, node).await?;
    let online = match args.wait {
        None => client.require_online().await,
        Some(seconds) => timeout(Duration::from_secs(seconds), client.wait_online())
            .await
            .with_context(|| format!("{node} did not come online in {seconds} s"))?,
    };
    client.close().await;
    online?;
    writeln!(
        io::stdout().lock(),
        "{node} is online at {}",
        broker.label()
    )?;
    Ok(())
}
