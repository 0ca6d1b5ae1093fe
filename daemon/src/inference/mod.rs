//! The inference thread: one job at a time, apart from the async side.

mod brake;
mod chunks;
mod engine;
mod job;
mod thread;

use std::error::Error;
use std::ops::ControlFlow;

use chaski_engine::{Generated, Threads};

pub use brake::{Effort, ThreadSetter};
pub use engine::Engine;
pub use job::{Cancel, Chunking, Job, Prompt, SamplingOverrides};
pub use thread::{Event, Finished, Inference};

use crate::config;
use crate::refusal::Refusal;
use crate::wire::{LoadedInfo, ModelInfo};

/// What the daemon needs of a model; the engine has it, and so have the tests' fakes.
///
/// It is made on the inference thread and stays there.
pub trait Generator {
    /// What to tell about it.
    fn description(&self) -> Description;

    /// Computes something, to find out whether it can.
    fn try_out(&mut self) -> Result<(), LoadError> {
        Ok(())
    }

    /// Computes a job. `emit` takes the text as it comes, and an empty one now and
    /// then during prefill; when it breaks, the generation ends as cancelled. All text
    /// it was given, the last one too, is the answer.
    fn generate(
        &mut self,
        job: &Job,
        emit: &mut dyn FnMut(&str) -> ControlFlow<()>,
    ) -> Result<Completed, Refusal>;

    /// Sets how many threads compute, also while it generates.
    fn thread_setter(&self) -> ThreadSetter {
        Box::new(|_| Threads {
            prefill: 1,
            decode: 1,
        })
    }

    /// Gives back memory that the next job may do without.
    fn release(&mut self) {}
}

/// Where models come from; the tests have another.
pub trait Models: Send + Sync {
    /// What a model says of itself before it is loaded, and whether it can be at all.
    fn look(&self, settings: &config::Model) -> Result<ModelInfo, LoadError>;

    /// Loads it when called.
    fn loader(&self, settings: &config::Model) -> Loader;
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
    /// What it says of itself.
    pub model: ModelInfo,
    /// What it is here.
    pub loaded: LoadedInfo,
}
