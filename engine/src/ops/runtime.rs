//! What all operators of a loaded model share.

use std::sync::Arc;

use tract_onnx::tract_core::internal::*;

use super::pool::Pool;
use crate::folder::Mapping;
use crate::kernels::{Backend, KvFormat, Precision};
use crate::threads::Team;

/// The mapped weights, the threads and the kernels of one loaded model.
pub(crate) struct Runtime {
    pub(crate) mapping: Mapping,
    pub(crate) team: Team,
    pub(crate) backend: Backend,
    /// What activations are computed with.
    pub(crate) precision: Precision,
    /// What keys and values are kept in.
    pub(crate) kv_format: KvFormat,
    /// Positions that a KV cache holds.
    pub(crate) context_length: usize,
    /// The memory of what operators give to each other.
    pub(crate) pool: Pool,
}

/// An operator's hold on the [`Runtime`]: empty from parsing to binding.
#[derive(Clone, Default)]
pub(crate) struct Link(Option<Arc<Runtime>>);

impl Link {
    pub(crate) fn bind(&mut self, runtime: &Arc<Runtime>) {
        self.0 = Some(Arc::clone(runtime));
    }

    pub(crate) fn get(&self) -> TractResult<&Arc<Runtime>> {
        self.0
            .as_ref()
            .context("the operator is not bound to a data file")
    }
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.0.is_some() { "bound" } else { "unbound" })
    }
}

/// Two operators are the same when they run on the same runtime.
impl PartialEq for Link {
    fn eq(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (Some(a), Some(b)) => Arc::ptr_eq(a, b),
            (None, None) => true,
            _ => false,
        }
    }
}

impl Eq for Link {}
