//! From logits to the next token.
//!
//! The order is that of Hugging Face's `generate`: repetition penalty,
//! temperature, top-k, top-p, min-p, and then one draw. Each step sees only what
//! the one before it left, so top-p's mass is that of the top-k survivors.

mod filters;
mod options;
mod penalty;
mod sampler;

pub use options::{SamplingError, SamplingOptions};
pub(crate) use sampler::Sampler;
