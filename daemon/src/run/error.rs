//! Why the daemon ended.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use crate::config::Problem;
use crate::inference::LoadError;

/// Why the daemon ended.
#[derive(Debug, Error)]
pub enum DaemonError {
    /// A file that is needed to connect cannot be used.
    #[error("cannot connect to the broker")]
    Broker(#[source] Problem),
    /// The configuration names a board profile that cannot be used.
    #[error("cannot use board.profile of the configuration")]
    Board(#[from] chaski_boards::ProfileError),
    /// The system gives us no thread.
    #[error("cannot start the inference thread")]
    Thread(#[source] io::Error),
    /// The model cannot be used.
    #[error("cannot load the model")]
    Load(#[source] LoadError),
    /// The file of answers cannot be used.
    #[error("cannot use {}, the delivery.answers-file of the configuration", path.display())]
    Answers {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A fault in the engine or in ours.
    #[error("the inference thread ended by a fault: {0}")]
    InferenceLost(String),
    /// A fault in the MQTT library or in ours.
    #[error("the task that serves the MQTT connection ended by a fault")]
    ConnectionTaskLost,
}
