//! Which model there is, and the thread that has it.

use std::path::{Path, PathBuf};

use tracing::error;

use crate::channel::SendError;
use crate::config::Model;
use crate::inference::{Effort, Event, Inference, Job, LoadError, Loader, Models};
use crate::last_good::{InsteadOf, LastGood};
use crate::wire::{ModelInfo, ThreadMetrics};

use super::DaemonError;

/// The inference thread, and how to have another.
pub(super) struct Host {
    models: Box<dyn Models>,
    settings: Model,
    /// What the configuration names.
    configured: PathBuf,
    /// `None` where nothing is written down, and while a model runs that was asked for by a
    /// command.
    last_good: Option<LastGood>,
    inference: Option<Inference>,
    ready: bool,
    effort: Effort,
}

impl Host {
    /// No model yet.
    pub(super) fn new(settings: Model, models: Box<dyn Models>) -> Self {
        Self {
            models,
            configured: settings.folder.clone(),
            settings,
            last_good: None,
            inference: None,
            ready: false,
            effort: Effort::default(),
        }
    }

    /// Chooses the model to load, and gives what it says of itself: the configured one, or
    /// one that came up before if that is known not to.
    pub(super) fn choose(&mut self) -> Result<ModelInfo, LoadError> {
        self.settings.folder.clone_from(&self.configured);
        let file = self.settings.last_good_file.as_deref();
        self.last_good = file.map(|file| LastGood::take_up(file, &self.configured));
        self.choose_next(None)
    }

    /// Chooses another one after this one could not be loaded; the first problem if there is
    /// none.
    pub(super) fn choose_other(&mut self, problem: LoadError) -> Result<ModelInfo, LoadError> {
        let Some(last_good) = &mut self.last_good else {
            return Err(problem);
        };
        last_good.failed(&problem.to_string());
        self.choose_next(Some(problem))
    }

    fn choose_next(&mut self, mut problem: Option<LoadError>) -> Result<ModelInfo, LoadError> {
        let Some(last_good) = &mut self.last_good else {
            return self.models.look(&self.settings);
        };
        while let Some(folder) = last_good.next() {
            self.settings.folder = folder;
            match self.models.look(&self.settings) {
                Ok(info) => return Ok(info),
                Err(e) => {
                    error!(folder = %self.settings.folder.display(), %e, "no model that can be loaded");
                    last_good.failed(&e.to_string());
                    problem.get_or_insert(e);
                }
            }
        }
        self.settings.folder.clone_from(&self.configured);
        match problem {
            Some(problem) => Err(problem),
            // There was nothing to try.
            None => self.models.look(&self.settings),
        }
    }

    /// The configured model, where another one was chosen.
    pub(super) fn instead_of(&self) -> Option<InsteadOf> {
        self.last_good.as_ref()?.instead_of(&self.configured)
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
        if let Some(last_good) = &mut self.last_good {
            last_good.starting();
        }
        let load = self.models.loader(&self.settings);
        let is_new = self.last_good.as_ref().is_some_and(LastGood::is_new);
        let loader: Loader = Box::new(move || {
            let mut generator = load()?;
            if is_new {
                generator.try_out()?;
            }
            Ok(generator)
        });
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

    /// Other settings for the next [`Self::load`], by a command; gives those until now.
    pub(super) fn set(&mut self, settings: Model) -> Model {
        self.last_good = None;
        std::mem::replace(&mut self.settings, settings)
    }

    /// [`Event::Ready`] came.
    pub(super) fn set_ready(&mut self) {
        self.ready = true;
        if let Some(last_good) = &mut self.last_good {
            last_good.came_up();
        }
    }

    /// The daemon was told to stop while the model was being loaded.
    pub(super) fn stopped(&mut self) {
        if let Some(last_good) = &mut self.last_good {
            last_good.stopped();
        }
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
