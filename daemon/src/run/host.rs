//! Which model there is, and the thread that has it.

use std::path::Path;

use crate::channel::SendError;
use crate::config::Model;
use crate::inference::{Effort, Event, Inference, Job, LoadError, Models};
use crate::wire::{ModelInfo, ThreadMetrics};

use super::DaemonError;

/// The inference thread, and how to have another.
pub(super) struct Host {
    models: Box<dyn Models>,
    settings: Model,
    inference: Option<Inference>,
    ready: bool,
    effort: Effort,
}

impl Host {
    /// No model yet.
    pub(super) fn new(settings: Model, models: Box<dyn Models>) -> Self {
        Self {
            models,
            settings,
            inference: None,
            ready: false,
            effort: Effort::default(),
        }
    }

    /// What the model says of itself, loaded or not.
    pub(super) fn look(&self) -> Result<ModelInfo, LoadError> {
        self.models.look(&self.settings)
    }

    /// Whether nothing is loaded and nothing is on its way.
    pub(super) fn is_empty(&self) -> bool {
        self.inference.is_none()
    }

    /// Whether jobs can be given to it.
    pub(super) fn is_ready(&self) -> bool {
        self.ready
    }

    /// Starts to load the model, once the one before is gone. [`Event::Ready`] or
    /// [`Event::LoadFailed`] comes next.
    pub(super) fn load(&mut self) -> Result<(), DaemonError> {
        self.ready = false;
        let loader = self.models.loader(&self.settings);
        let before = self.inference.take();
        let inference = Inference::start_after(before, loader).map_err(DaemonError::Thread)?;
        inference.set_effort(self.effort);
        self.inference = Some(inference);
        Ok(())
    }

    /// The settings with another folder, if there is a model that could be loaded in it.
    pub(super) fn with_folder(&self, folder: &Path) -> Result<Model, LoadError> {
        let settings = Model {
            folder: folder.to_owned(),
            ..self.settings.clone()
        };
        self.models.look(&settings)?;
        Ok(settings)
    }

    /// Other settings for the next [`Self::load`]; gives those until now.
    pub(super) fn set(&mut self, settings: Model) -> Model {
        std::mem::replace(&mut self.settings, settings)
    }

    /// [`Event::Ready`] came.
    pub(super) fn set_ready(&mut self) {
        self.ready = true;
    }

    /// [`Event::LoadFailed`] came.
    pub(super) fn clear(&mut self) {
        self.ready = false;
        self.inference = None;
    }

    /// Grows while a job is computed; `None` where there is no thread that could.
    pub(super) fn pulse(&self) -> Option<u64> {
        self.inference
            .as_ref()
            .filter(|_| self.ready)
            .map(Inference::pulse)
    }

    /// How hard the thread may work, and those that come after it.
    pub(super) fn set_effort(&mut self, effort: Effort) {
        self.effort = effort;
        if let Some(inference) = &self.inference {
            inference.set_effort(effort);
        }
    }

    /// Has the thread give back memory.
    pub(super) fn release(&self) {
        if let Some(inference) = self.inference.as_ref().filter(|_| self.ready) {
            inference.release();
        }
    }

    /// Threads that compute; `None` before the model is loaded.
    pub(super) fn threads(&self) -> Option<ThreadMetrics> {
        let inference = self.inference.as_ref().filter(|_| self.ready)?;
        let threads = inference.threads()?;
        Some(ThreadMetrics {
            prefill: threads.prefill,
            decode: threads.decode,
        })
    }

    /// What comes of the thread; for ever nothing where there is none.
    pub(super) async fn next_event(&self) -> Option<Event> {
        match &self.inference {
            Some(inference) => inference.next_event().await,
            None => std::future::pending().await,
        }
    }

    /// Hands over a job.
    pub(super) fn submit(&self, job: Job) -> Result<(), SendError<()>> {
        match &self.inference {
            Some(inference) => inference.submit(job),
            None => Err(SendError::Closed(())),
        }
    }

    /// Why the thread is gone.
    pub(super) fn lost(&mut self) -> DaemonError {
        let reason = self.inference.as_mut().and_then(|i| i.join().err());
        DaemonError::InferenceLost(reason.unwrap_or_else(|| "no reason given".to_owned()))
    }
}
