//! The arithmetic: 4-bit linear layers and attention.
//!
//! Each algorithm is written once over the small [`vector::Vector`] trait and
//! entered through one function per backend that carries the target features
//! ([`backend`]). The scalar backend is the reference: the tests beside each
//! kernel run every backend of the machine against it.

pub(crate) mod activations;
pub(crate) mod attention;
pub(crate) mod backend;
pub(crate) mod f16;
pub(crate) mod linear;
pub(crate) mod q4;
mod vector;

pub use backend::Backend;
