//! The inference thread: one job at a time, apart from the async side.

mod chunks;
mod engine;
mod job;
mod thread;

use std::error::Error;
use std::ops::ControlFlow;

use chaski_engine::Generated;

pub use engine::load_engine;
pub use job::{Cancel, Chunking, Job, Prompt, SamplingOverrides};
pub use thread::{Event, Finished, Inference};

use crate::refusal::Refusal;
use crate::wire::ModelInfo;

/// What the daemon needs of a model; the engine has it, and so have the tests' fakes.
///
/// It is made on the inference thread and stays there.
pub trait Generator {
    /// What to tell about it.
    fn description(&self) -> Description;

    /// Computes a job. `emit` takes the text as it comes, and an empty one now and
    /// then during prefill; when it breaks, the generation ends as cancelled. All text
    /// it was given, the last one too, is the answer.
    fn generate(
        &mut self,
        job: &Job,
        emit: &mut dyn FnMut(&str) -> ControlFlow<()>,
    ) -> Result<Completed, Refusal>;
}

/// Makes a generator on the inference thread.
pub type Loader = Box<dyn FnOnce() -> Result<Box<dyn Generator>, LoadError> + Send>;

/// Why there is no generator.
pub type LoadError = Box<dyn Error + Send + Sync>;

/// A computed job.
#[derive(Clone, Debug, PartialEq)]
pub struct Completed {
    /// Tokens of the rendered prompt.
    pub prompt_tokens: usize,
    /// The answer.
    pub generated: Generated,
}

/// The loaded model, as `info` shows it.
#[derive(Clone, Debug, PartialEq)]
pub struct Description {
    /// Its figures.
    pub model: ModelInfo,
    /// Tokens of prompt and answer together.
    pub context_length: usize,
    /// Kernels in use.
    pub backend: String,
    /// Threads that compute.
    pub threads: usize,
    /// Seconds it took to load.
    pub load_seconds: f64,
}
