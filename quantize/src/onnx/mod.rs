//! The graph of a model folder, as ONNX protobuf.

pub mod builder;
pub mod llama;
pub mod proto;
pub mod weights;
