//! What the node is told while it runs: to read its configuration again, to load another
//! model.

use std::path::PathBuf;
use std::time::Instant;

use tokio::sync::mpsc;
use tracing::{error, info, warn};

use super::{Daemon, DaemonError};
use crate::config::{Config, Model};
use crate::inference::{Description, LoadError};
use crate::refusal::Refusal;
use crate::service::{Asker, Command, Done};
use crate::wire::{ErrorCode, Event};

/// How a configuration can be read again.
#[derive(Debug)]
pub struct Reload {
    /// The file.
    pub file: PathBuf,
    /// A message whenever it is to be read: SIGHUP.
    pub asked: mpsc::Receiver<()>,
}

/// Another model is to be loaded.
#[derive(Debug)]
pub(super) struct Switch {
    asker: Asker,
    name: String,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    /// Once nothing is computed.
    Planned(Box<Model>),
    /// The settings to go back to.
    Loading(Box<Model>),
}

impl Daemon {
    pub(super) fn on_command(&mut self, command: Command, asker: Asker) {
        match command {
            Command::Reload => {
                let done = self.reload();
                self.done(&asker, done);
            }
            Command::Model(name) => match self.plan_switch(&name) {
                Ok(settings) => {
                    info!(name, "another model is to be loaded");
                    let stage = Stage::Planned(Box::new(settings));
                    self.switch = Some(Switch { asker, name, stage });
                }
                Err(refusal) => self.done(&asker, Err(refusal)),
            },
        }
    }

    fn done(&mut self, asker: &Asker, done: Result<Done, Refusal>) {
        let mut outputs = Vec::new();
        self.service.on_done(asker, done, &mut outputs);
        self.carry_out(outputs);
    }

    /// Reads the configuration again. One with a problem changes nothing.
    pub(super) fn reload(&mut self) -> Result<Done, Refusal> {
        let Some(reload) = &self.reload else {
            let problem = "this node was not started from a configuration file";
            return Err(Refusal::new(ErrorCode::Unsupported, problem));
        };
        let config = Config::read(&reload.file).map_err(|e| {
            error!("the configuration stays as it is: {e}");
            Refusal::new(ErrorCode::InvalidConfig, format!("nothing is changed: {e}"))
        })?;
        let restart = self.config.take_over(self.board.fill(&config));
        self.service.configure(&self.config);
        self.presence.configure(&self.config);
        self.configure_governor();
        self.pace.set(self.config.metrics.interval());
        self.publish_presence();
        if restart.is_empty() {
            info!("the configuration was read again");
        } else {
            warn!(sections = ?restart, "the configuration was read again; these need a restart");
        }
        Ok(Done::Reloaded(restart))
    }

    fn plan_switch(&self, name: &str) -> Result<Model, Refusal> {
        if self.switch.is_some() || !(self.host.is_ready() || self.host.is_empty()) {
            let problem = "a model is being loaded: try again when it is there";
            return Err(Refusal::new(ErrorCode::Busy, problem));
        }
        let Some(folder) = &self.config.control.models_folder else {
            let problem = "set models-folder in [control] of the configuration";
            return Err(Refusal::new(ErrorCode::Unsupported, problem));
        };
        self.host
            .with_folder(&folder.join(name))
            .map_err(|e| unavailable(&e))
    }

    /// Begins with the switch that is planned, if nothing is computed.
    pub(super) fn begin_switch(&mut self) -> Result<(), DaemonError> {
        let idle = self.service.is_idle();
        if let Some(Switch { stage, .. }) = &mut self.switch
            && let Stage::Planned(settings) = stage
            && idle
        {
            let before = self.host.set((**settings).clone());
            *stage = Stage::Loading(Box::new(before));
            self.presence.unloaded();
            self.host.load()?;
            self.publish_presence();
        }
        Ok(())
    }

    pub(super) fn on_loaded(&mut self, description: Description) {
        let (name, seconds) = (&description.model.name, description.loaded.load_seconds);
        info!(name, seconds, "the model is loaded");
        self.tell(Event::ModelLoaded {
            model: name.clone(),
            load_seconds: seconds,
        });
        self.host.set_ready();
        self.service.set_model(name.clone());
        self.presence.loaded(description, self.host.instead_of());
        self.publish_presence();
        if let Some(Switch { asker, name, .. }) = self.switch.take() {
            self.done(&asker, Ok(Done::Loaded { name, seconds }));
        }
    }

    /// Goes back to the model before, if there was one, or to the last good one. Otherwise
    /// all that wait are told, and the next request tries again.
    pub(super) fn on_load_failed(&mut self, problem: LoadError) -> Result<(), DaemonError> {
        error!(%problem, "the model cannot be loaded");
        self.tell(Event::ModelUnavailable);
        self.host.clear();
        if let Some(Switch { asker, stage, .. }) = self.switch.take() {
            if let Stage::Loading(before) = stage {
                self.host.set(*before);
            }
            let refusal = unavailable(&problem);
            self.done(&asker, Err(refusal));
            return self.host.load();
        }
        let problem = match self.host.choose_other(problem) {
            Ok(_) => return self.host.load(),
            Err(problem) => problem,
        };
        let mut outputs = Vec::new();
        self.service
            .on_model_unavailable(&problem.to_string(), Instant::now(), &mut outputs);
        self.carry_out(outputs);
        Ok(())
    }
}

fn unavailable(problem: &LoadError) -> Refusal {
    Refusal::new(ErrorCode::ModelUnavailable, problem.to_string())
}
