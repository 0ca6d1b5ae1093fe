//! The daemon as one future.

mod control;
mod error;
mod govern;
mod host;
mod link_settings;
mod report;
mod systemd;

use std::future::Future;
use std::pin::pin;
use std::time::{Duration, Instant};

use tokio::time::{sleep_until, timeout};
use tracing::{error, info, warn};

pub use control::Reload;
pub use error::DaemonError;

use crate::answers_file::AnswersFile;
use crate::board::Board;
use crate::channel::SendError;
use crate::config::{Config, Load};
use crate::govern::Governor;
use crate::inference::{Engine, Event, Models};
use crate::mqtt::{Delivered, Link, LinkEvent, Request};
use crate::presence::Presence;
use crate::service::{Outcome, Output, Service};
use control::Switch;
use host::Host;
use link_settings::link_settings;
use report::Pace;
use systemd::Systemd;

/// How long the last messages may take to reach the broker.
const GOODBYE_PATIENCE: Duration = Duration::from_secs(5);

/// Loads the model, connects, and answers until `shutdown` completes.
///
/// The broker may be away at any time; the daemon tries again for ever. Nothing
/// is set up for the process: no signals, no logging.
pub async fn run(
    config: Config,
    reload: Option<Reload>,
    shutdown: impl Future<Output = ()>,
) -> Result<(), DaemonError> {
    run_with(
        config,
        |config| Box::new(Engine::new(config)),
        reload,
        shutdown,
    )
    .await
}

/// Like [`run()`], with models from elsewhere. `models` is given the configuration with what
/// the board sets in it.
pub async fn run_with(
    user: Config,
    models: impl FnOnce(&Config) -> Box<dyn Models>,
    reload: Option<Reload>,
    shutdown: impl Future<Output = ()>,
) -> Result<(), DaemonError> {
    let mut shutdown = pin!(shutdown);
    let settings = link_settings(&user)?;
    let board = Board::find(&user)?;
    let config = board.fill(&user);
    board.log(&user, &config);
    let mut host = Host::new(config.model.clone(), models(&config));
    let model = host.choose().map_err(DaemonError::Load)?;
    let mut service = Service::new(&config, model.name.clone());
    let mut presence = Presence::new(&config, &board, model);
    let answers = AnswersFile::take_up(&config.delivery, &mut service)?;
    let mut systemd = Systemd::new();
    let governor = Governor::new(&config, Instant::now());
    if config.model.load == Load::Start {
        systemd.status("loading the model".to_owned());
        loop {
            host.load()?;
            let event = tokio::select! {
                event = host.next_event() => event,
                () = &mut shutdown => {
                    // The thread ends by itself once it has loaded and finds nobody there.
                    host.stopped();
                    return Ok(());
                }
            };
            match event {
                Some(Event::Ready(description)) => {
                    host.set_ready();
                    service.set_model(description.model.name.clone());
                    presence.loaded(*description, host.instead_of());
                    break;
                }
                Some(Event::LoadFailed(e)) => {
                    error!(problem = %e, "the model cannot be loaded");
                    host.choose_other(e).map_err(DaemonError::Load)?;
                }
                _ => return Err(host.lost()),
            }
        }
    }
    let mut daemon = Daemon {
        pace: Pace::new(config.metrics.interval()),
        service,
        presence,
        link: Link::start(&settings),
        host,
        board,
        config,
        reload,
        switch: None,
        answers,
        systemd,
        governor,
        takes_shared: true,
    };
    daemon.tell_status();
    let served = daemon.serve(shutdown.as_mut()).await;
    if served.is_ok() {
        info!("going down");
        daemon.systemd.stopping();
        daemon.drain().await;
    }
    daemon.say_goodbye().await;
    served
}

struct Daemon {
    service: Service,
    presence: Presence,
    link: Link,
    host: Host,
    board: Board,
    /// With what the board sets.
    config: Config,
    reload: Option<Reload>,
    switch: Option<Switch>,
    pace: Pace,
    answers: Option<AnswersFile>,
    systemd: Systemd,
    governor: Governor,
    /// Whether it takes questions of its group.
    takes_shared: bool,
}

impl Daemon {
    /// Answers until `shutdown` completes or a part of the daemon is gone.
    async fn serve(
        &mut self,
        mut shutdown: impl Future<Output = ()> + Unpin,
    ) -> Result<(), DaemonError> {
        loop {
            self.step()?;
            let govern_due = self.govern_due();
            tokio::select! {
                event = self.link.next_event() => self.on_link_event(event)?,
                // A job that is to end is heard even if its text finds no room: it may be
                // waiting to be rid of it.
                event = self.host.next_event(),
                    if self.link.outbox.has_room() || self.service.is_cancelling() => {
                    self.on_inference_event(event)?;
                }
                () = hangup(&mut self.reload) => {
                    self.systemd.reloading();
                    // The log has all that is to be said.
                    let _ = self.reload();
                    self.systemd.ready();
                }
                () = wait_until(self.service.next_timer()) => {
                    let mut outputs = Vec::new();
                    self.service.on_timer(Instant::now(), &mut outputs);
                    self.carry_out(outputs);
                }
                () = wait_until(self.pace.due()) => self.report(),
                () = wait_until(self.systemd.due()) => self.give_sign(),
                () = wait_until(govern_due) => self.govern(),
                () = &mut shutdown => return Ok(()),
            }
        }
    }

    /// Everything that can go on without waiting.
    fn step(&mut self) -> Result<(), DaemonError> {
        self.begin_switch()?;
        if self.host.is_empty() && self.service.waiting() > 0 {
            info!("loading the model for the first request");
            self.host.load()?;
        }
        let mut outputs = Vec::new();
        let job = match self.host.is_ready() && self.switch.is_none() {
            true => self.service.next_job(Instant::now(), &mut outputs),
            false => None,
        };
        self.carry_out(outputs);
        if let Some(job) = job {
            match self.host.submit(job) {
                Ok(()) => {}
                // The service hands out one job at a time, so there is room unless
                // the thread is gone.
                Err(SendError::Full(()) | SendError::Closed(())) => {
                    return Err(self.inference_lost());
                }
            }
        }
        if self.presence.set_draining(self.service.is_draining()) {
            self.publish_presence();
        }
        // What it would refuse, others of the group may answer.
        let takes_shared = !self.service.is_draining() && !self.service.is_refusing();
        if takes_shared != self.takes_shared {
            self.takes_shared = takes_shared;
            self.link.pause_shared(!takes_shared);
        }
        self.tell_events();
        self.link.pump();
        Ok(())
    }

    /// Says what has changed. Without a connection it is said on the next one.
    fn publish_presence(&mut self) {
        if self.link.is_up() {
            self.link.outbox.push_presence(self.presence.now());
        }
    }

    /// Does what the service asks for.
    fn carry_out(&mut self, outputs: Vec<Output>) {
        for output in outputs {
            match output {
                Output::Publish(message) => self.link.outbox.push(message),
                Output::Final { key, message } => self.link.outbox.push_final(key, message),
                Output::Keep(kept) => {
                    if let Some(file) = &mut self.answers {
                        file.append(&kept, &self.service);
                    }
                }
                Output::Ack(receipt) => self.link.ack(receipt),
                Output::Control { command, asker } => self.on_command(command, asker),
            }
        }
    }

    fn on_delivered(&mut self, key: u64, outcome: Delivered) {
        let outcome = match outcome {
            Delivered::Taken => Outcome::Taken,
            Delivered::Refused(reason) => Outcome::Refused(reason),
            Delivered::TooLarge { size, max } => Outcome::TooLarge { size, max },
        };
        let mut outputs = Vec::new();
        self.service
            .on_delivered(key, outcome, Instant::now(), &mut outputs);
        self.carry_out(outputs);
    }

    fn on_request(&mut self, request: &Request) {
        if self.presence.is_birth(request) {
            info!("Home Assistant has started");
            self.publish_presence();
            self.report();
            return;
        }
        let mut outputs = Vec::new();
        self.service
            .on_request(request, Instant::now(), &mut outputs);
        self.carry_out(outputs);
    }

    fn on_link_event(&mut self, event: LinkEvent) -> Result<(), DaemonError> {
        match event {
            LinkEvent::Up => {
                self.publish_presence();
                self.report();
                self.systemd.ready();
                self.tell_status();
            }
            // A message taken makes room in the outbox, which the next step fills.
            LinkEvent::Taken => {}
            LinkEvent::Delivered { key, outcome } => self.on_delivered(key, outcome),
            LinkEvent::Down => {
                self.service.on_connection_lost();
                self.tell_status();
            }
            LinkEvent::Request(request) => self.on_request(&request),
            LinkEvent::Ended => return Err(DaemonError::ConnectionTaskLost),
        }
        Ok(())
    }

    fn on_inference_event(&mut self, event: Option<Event>) -> Result<(), DaemonError> {
        let mut outputs = Vec::new();
        match event {
            Some(Event::Piece { key, text }) => self.service.on_piece(key, text, &mut outputs),
            Some(Event::Finished(finished)) => {
                self.service
                    .on_finished(*finished, Instant::now(), &mut outputs);
            }
            Some(Event::Ready(description)) => self.on_loaded(*description),
            Some(Event::LoadFailed(problem)) => self.on_load_failed(problem)?,
            None => return Err(self.inference_lost()),
        }
        self.carry_out(outputs);
        Ok(())
    }

    /// Lets nothing wait and ends what runs, within a time.
    async fn drain(&mut self) {
        self.stop();
        let deadline = tokio::time::Instant::now() + GOODBYE_PATIENCE;
        while !self.service.is_idle() {
            self.link.pump();
            let handled = tokio::select! {
                event = self.link.next_event() => self.on_link_event(event),
                event = self.host.next_event() => self.on_inference_event(event),
                () = sleep_until(deadline) => {
                    warn!("the running request did not end in time");
                    return;
                }
            };
            if let Err(e) = handled {
                warn!(%e, "while going down");
                return;
            }
        }
    }

    fn stop(&mut self) {
        let mut outputs = Vec::new();
        self.service.stop(&mut outputs);
        self.carry_out(outputs);
    }

    /// Publishes `offline` after everything else and disconnects. Where there is no
    /// connection, the broker has published our last will already.
    async fn say_goodbye(mut self) {
        self.stop();
        self.link.outbox.push(self.presence.offline());
        let flushed = async {
            while self.link.is_connected() && !self.link.outbox.is_empty() {
                self.link.pump();
                match self.link.next_event().await {
                    LinkEvent::Request(request) => self.on_request(&request),
                    LinkEvent::Delivered { key, outcome } => self.on_delivered(key, outcome),
                    LinkEvent::Up | LinkEvent::Taken => {}
                    LinkEvent::Down | LinkEvent::Ended => return,
                }
            }
        };
        if timeout(GOODBYE_PATIENCE, flushed).await.is_err() {
            warn!("the broker did not take the last messages in time");
        }
        self.link.disconnect().await;
    }

    fn inference_lost(&mut self) -> DaemonError {
        let mut outputs = Vec::new();
        self.service.on_inference_lost(&mut outputs);
        self.carry_out(outputs);
        self.host.lost()
    }
}

async fn wait_until(timer: Option<Instant>) {
    match timer {
        Some(at) => sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

/// Waits for the wish that the configuration be read again.
async fn hangup(reload: &mut Option<Reload>) {
    if let Some(reload) = reload
        && reload.asked.recv().await.is_some()
    {
        return;
    }
    std::future::pending().await
}
