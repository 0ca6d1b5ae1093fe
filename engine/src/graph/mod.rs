//! From `model.onnx` to a tract plan.
//!
//! The protobuf is rewritten first ([`rewrite`]): large initialisers become
//! places in the data file, which our operators ([`crate::ops`]) read in a map;
//! the KV cache moves into the attention operator; the head computes the last
//! positions only. tract then parses, types and optimises what remains, and a
//! session runs it ([`State`]).

mod external;
mod fuse;
mod rewrite;
mod state;

use std::path::Path;
use std::sync::Arc;

use prost::Message as _;
use tract_onnx::pb::ModelProto;
use tract_onnx::prelude::*;
use tract_onnx::tract_core::internal::*;

use crate::error::EngineError;
use crate::folder::{DATA, Folder, GRAPH};
use crate::ops::{self, Runtime};

pub(crate) use state::State;

/// The model as tract runs it: token ids `[1, S]` i64 in, the logits of the
/// last N positions `[1, N, vocab_size]` f32 out.
pub(crate) type Plan = Arc<TypedSimplePlan>;

/// A graph without its weights has some hundred kilobytes.
const MOST_BYTES: u64 = 256 << 20;

/// Loads the folder's graph onto `runtime`; also gives the bytes of weights that a
/// token reads.
pub(crate) fn load(folder: &Folder, runtime: &Arc<Runtime>) -> Result<(Plan, u64), EngineError> {
    let path = folder.file(GRAPH);
    let fail = |problem: String| EngineError::Graph {
        path: path.clone(),
        problem,
    };
    let size = std::fs::metadata(&path)
        .map_err(EngineError::io(&path))?
        .len();
    if size > MOST_BYTES {
        return Err(fail(format!(
            "{size} bytes: the weights belong into {DATA}"
        )));
    }
    let bytes = std::fs::read(&path).map_err(EngineError::io(&path))?;
    let proto = ModelProto::decode(&bytes[..]).map_err(|e| fail(format!("not ONNX: {e}")))?;
    let proto = rewrite::rewrite(proto).map_err(|e| fail(format!("{e:#}")))?;
    plan(&proto, folder.path(), runtime).map_err(|e| fail(format!("{e:#}")))
}

fn plan(proto: &ModelProto, folder: &Path, runtime: &Arc<Runtime>) -> TractResult<(Plan, u64)> {
    let onnx = ops::onnx();
    let folder = folder.to_str().context("the folder's name is not UTF-8")?;
    let parsed = onnx.parse(proto, Some(folder))?;
    let mut model = parsed.model.into_typed()?;
    let weight_bytes = ops::bind(&mut model, runtime)?;
    fuse::fuse(&mut model)?;
    // What the rewrites left unused goes. tract's own optimiser has nothing to do here: all
    // operators are ours.
    model.compact()?;
    ops::route(&mut model)?;
    tracing::debug!(nodes = model.nodes.len(), "graph compacted");
    Ok((model.into_runnable()?, weight_bytes))
}
