//! Chaski's daemon: the engine behind an MQTT broker.
//!
//! Three parts, apart: the connection to the broker ([`mqtt`]), the inference
//! thread ([`inference`]), and between them the [`service`], which decides and does
//! no I/O. [`run()`] ties them together.

#![forbid(unsafe_code)]

mod answers_file;
mod board;
pub mod channel;
pub mod config;
mod govern;
pub mod inference;
mod last_good;
pub mod mqtt;
mod presence;
pub mod queue;
pub mod refusal;
mod replace;
mod run;
pub mod service;
pub mod wire;

pub use board::Board;
pub use govern::{Fit, Machine, human};
pub use run::{DaemonError, Reload, run, run_with};
