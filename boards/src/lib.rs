//! What is known of the boards that Chaski runs on.
//!
//! A *profile* is a TOML file of `board-configs/`: which strings of the device tree it is
//! for, how many threads and which KV cache suit it, how warm it may get, and which models
//! fit. All of them are compiled in, so that a program needs no data files on a board.
//! [`detect`] finds the one of this machine.
//!
//! No profile is trusted with more than defaults: what a user configures always wins.

#![forbid(unsafe_code)]

mod builtin;
mod check;
mod detect;
mod facts;
mod models;
mod profile;
mod settings;

pub use builtin::{by_name, profiles};
pub use check::Problem;
pub use detect::{Detected, Recognised, detect, is_path};
pub use facts::{Facts, kernels, read_text};
pub use models::{Needs, Shape, shape, shapes};
pub use profile::{
    Bandwidth, Basis, ByMemory, Heat, KvCache, Memory, Model, Processor, Profile, ProfileError,
};
pub use settings::{Settings, nominal_mib};

/// Bytes of a MiB.
pub const MIB: u64 = 1 << 20;
