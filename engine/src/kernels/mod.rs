//! The arithmetic: linear layers of 4- and 8-bit weights and attention.
//!
//! Each algorithm is written once over the small [`vector::Vector`] trait and
//! entered through one function per backend that carries the target features
//! ([`backend`]). The scalar backend is the reference: the tests beside each
//! kernel run every backend of the machine against it.

pub(crate) mod attention;
pub(crate) mod backend;
pub(crate) mod bench;
pub(crate) mod blocks;
mod dense;
pub(crate) mod encoding;
pub(crate) mod f16;
mod float;
mod int8;
pub(crate) mod kv_cache;
pub(crate) mod linear;
pub(crate) mod norm;
mod pages;
pub(crate) mod silu;
mod vector;

pub use backend::Backend;
pub(crate) use encoding::EXACT_ROWS;
pub use encoding::Precision;
pub use kv_cache::KvFormat;
