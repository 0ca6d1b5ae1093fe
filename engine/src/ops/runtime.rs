//! What all operators of a loaded model share.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tract_onnx::tract_core::internal::*;

use super::pool::Pool;
use crate::folder::Mapping;
use crate::generate::GenerateOptions;
use crate::kernels::{Backend, KvFormat, Precision};
use crate::model::Threads;
use crate::threads::Team;

/// The mapped weights, the threads and the kernels of one loaded model.
pub(crate) struct Runtime {
    pub(crate) mapping: Mapping,
    pub(crate) team: Team,
    /// How many of the team compute.
    pub(crate) widths: Widths,
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

/// How many threads compute, which may change between two steps.
pub(crate) struct Widths {
    prefill: AtomicUsize,
    decode: AtomicUsize,
}

impl Widths {
    pub(crate) fn new(threads: Threads) -> Self {
        Self {
            prefill: AtomicUsize::new(threads.prefill),
            decode: AtomicUsize::new(threads.decode),
        }
    }

    pub(crate) fn get(&self) -> Threads {
        Threads {
            prefill: self.prefill.load(Ordering::Relaxed),
            decode: self.decode.load(Ordering::Relaxed),
        }
    }

    pub(crate) fn set(&self, threads: Threads) {
        self.prefill.store(threads.prefill, Ordering::Relaxed);
        self.decode.store(threads.decode, Ordering::Relaxed);
    }
}

impl Runtime {
    /// A step of so many positions begins: those take part who are to.
    pub(crate) fn begin(&self, positions: usize) {
        let threads = self.widths.get();
        // A token with its draft is decoded; what is bound by memory is bound by it still.
        let decode = positions <= 1 + GenerateOptions::MOST_DRAFTED;
        self.team.set_width(match decode {
            true => threads.decode,
            false => threads.prefill,
        });
    }
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
