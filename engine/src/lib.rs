//! Chaski's engine: a model folder in, tokens out.
//!
//! The API is synchronous. It knows nothing of MQTT and reads no configuration
//! file; see `docs/model-folder.md` for the folder it loads.
//!
//! ```no_run
//! use chaski_engine::{GenerateOptions, LoadOptions, Model, Piece};
//! use std::ops::ControlFlow;
//!
//! let model = Model::load("models/smollm2".as_ref(), &LoadOptions::default())?;
//! let mut session = model.session()?;
//! let prompt = model.encode("The capital of Peru is", true)?;
//! let mut print = |piece: Piece<'_>| {
//!     print!("{}", piece.text);
//!     ControlFlow::Continue(())
//! };
//! session.generate(&prompt, &GenerateOptions::default(), &mut print)?;
//! # Ok::<(), chaski_engine::EngineError>(())
//! ```

#![deny(unsafe_code)]

mod cores;
mod error;
mod folder;
mod generate;
mod graph;
// On other processors there is the scalar backend alone, which leaves what the rest share unused.
#[allow(unsafe_code)]
#[cfg_attr(
    not(any(target_arch = "x86_64", target_arch = "aarch64")),
    allow(dead_code, unused_macros, unused_mut, unused_unsafe)
)]
mod kernels;
mod memory;
mod model;
mod ops;
mod sampling;
mod session;
mod text;
#[allow(unsafe_code)]
mod threads;

pub use chaski_manifest::{
    Architecture, FileEntry, MANIFEST, Manifest, Quantisation, RopeScaling, Scheme, SourceEntry,
};
pub use error::EngineError;
pub use folder::verify;
pub use generate::{FinishReason, GenerateOptions, Generated, Piece, Sink, Timings};
pub use kernels::{Backend, KvFormat, Precision};
pub use memory::MemoryNeeded;
pub use model::{LoadOptions, Model, Threads};
pub use sampling::{SamplingError, SamplingOptions};
pub use session::Session;
pub use text::ChatInput;

/// For `benches/kernels.rs` and `chaski bench` alone.
#[doc(hidden)]
pub mod bench {
    pub use crate::kernels::bench::*;
}
