//! Our operators inside tract's graph.
//!
//! They replace the `com.microsoft` operators of the model folder's graph where
//! tract's own parsers copy weights or caches. Their parsers are registered by
//! [`onnx`]; the weights are attributes that [`crate::graph`] writes into
//! the nodes (places in the data file), and [`bind`] gives every operator the
//! mapped file and the threads before the model runs.

#[allow(unsafe_code)]
mod activations;
#[allow(unsafe_code)]
mod attention;
mod attributes;
mod elementwise;
mod embedding;
#[allow(unsafe_code)]
mod encode;
#[allow(unsafe_code)]
mod gated;
mod last;
#[allow(unsafe_code)]
mod linear;
mod matmul;
#[allow(unsafe_code)]
mod norm;
mod parse;
mod pool;
mod route;
mod runtime;
mod scratch;
#[allow(unsafe_code)]
mod window;

use tract_onnx::Onnx;
use tract_onnx::prelude::*;
use tract_onnx::tract_core::internal::*;

pub(crate) use activations::Form;
pub(crate) use attention::Attention;
pub(crate) use attention::{AttentionState, SPLIT_POSITIONS};
pub(crate) use attributes::{COS, QUANTS, SCALES, SIN, ZERO_POINTS};
pub(crate) use elementwise::{Elementwise, Function};
pub(crate) use encode::Encode;
pub(crate) use gated::Gated;
pub(crate) use last::{LAST, Last, LastState};
pub(crate) use linear::Linear;
pub(crate) use matmul::MatMul;
pub(crate) use norm::Norm;
pub(crate) use pool::Pool;
pub(crate) use route::route;
pub(crate) use runtime::{Runtime, Widths};
pub(crate) use scratch::prepare as prepare_thread;

/// An ONNX parser of the operators that a rewritten graph has (see [`crate::graph`]). All of them
/// are ours: none of tract's arithmetic runs, and the programs do without its kernels.
pub(crate) fn onnx() -> Onnx {
    let mut onnx = Onnx::default();
    let register = &mut onnx.op_register;
    register.insert("Add", elementwise::parse_add);
    register.insert("Mul", elementwise::parse_mul);
    register.insert("Sigmoid", elementwise::parse_sigmoid);
    register.insert("MatMulNBits", matmul::parse);
    register.insert("SimplifiedLayerNormalization", norm::parse);
    register.insert("GatherBlockQuantized", embedding::parse);
    register.insert("GroupQueryAttention", attention::parse);
    register.insert(LAST, last::parse);
    onnx
}

/// Gives every operator of ours what it runs on, and checks that its weights
/// are in the file. Returns the bytes of those that a token reads, all matrices.
pub(crate) fn bind(model: &mut TypedModel, runtime: &std::sync::Arc<Runtime>) -> TractResult<u64> {
    let mut bytes = 0;
    for node in &mut model.nodes {
        let bound = if let Some(op) = node.op_as_mut::<MatMul>() {
            bytes = u64::saturating_add(bytes, op.weight_bytes());
            op.bind(runtime)
        } else if let Some(op) = node.op_as_mut::<embedding::Embedding>() {
            op.bind(runtime)
        } else if let Some(op) = node.op_as_mut::<Attention>() {
            op.bind(runtime)
        } else if let Some(op) = node.op_as_mut::<Norm>() {
            op.bind(runtime)
        } else if let Some(op) = node.op_as_mut::<Elementwise>() {
            op.bind(runtime)
        } else {
            Ok(())
        };
        bound.with_context(|| format!("node {}", node.name))?;
    }
    Ok(bytes)
}
