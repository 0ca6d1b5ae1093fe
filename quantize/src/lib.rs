//! Turns a Llama (Hugging Face folder or GGUF file) into a model folder of 4-bit
//! weights.
//!
//! The input side is [`source`]: every format answers through one trait, mapped
//! and read row by row, so that memory does not grow with the model.
//! [`convert::quantise`] goes through the tensors of [`plan`], turns rows into
//! blocks by the module [`quantise`](mod@quantise), streams them into the data file by [`folder`],
//! and describes them in a graph built by [`onnx`].

#![deny(unsafe_code)]

pub mod convert;
pub mod error;
pub mod folder;
pub mod onnx;
pub mod plan;
pub mod progress;
pub mod quantise;
pub mod rope;
pub mod source;
pub mod summary;
mod tensor;
#[cfg(test)]
mod testing;

pub use chaski_manifest as manifest;
pub use chaski_manifest::Scheme;
pub use convert::{Options, RandomOptions, quantise, quantise_random};
pub use error::{Error, Result};
pub use quantise::Bits;
