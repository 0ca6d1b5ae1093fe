//! The daemon as one future.

use std::future::Future;
use std::io;
use std::pin::pin;
use std::time::{Duration, Instant};

use thiserror::Error;
use tokio::time::{sleep_until, timeout};
use tracing::{info, warn};

use crate::channel::SendError;
use crate::config::{Config, Problem};
use crate::inference::{Event, Inference, LoadError, Loader, load_engine};
use crate::mqtt::{
    ContentType, Delivered, Link, LinkEvent, LinkSettings, Message, Request, Subscription, Tls,
};
use crate::presence::Presence;
use crate::service::{Outcome, Output, Service};
use crate::wire::STATUS_OFFLINE;

/// How long the last messages may take to reach the broker.
const GOODBYE_PATIENCE: Duration = Duration::from_secs(5);

/// Why the daemon ended.
#[derive(Debug, Error)]
pub enum DaemonError {
    /// A file that is needed to connect cannot be used.
    #[error("cannot connect to the broker")]
    Broker(#[source] Problem),
    /// The system gives us no thread.
    #[error("cannot start the inference thread")]
    Thread(#[source] io::Error),
    /// The model cannot be used.
    #[error("cannot load the model")]
    Load(#[source] LoadError),
    /// A fault in the engine or in ours.
    #[error("the inference thread ended by a fault: {0}")]
    InferenceLost(String),
    /// A fault in the MQTT library or in ours.
    #[error("the task that serves the MQTT connection ended by a fault")]
    ConnectionTaskLost,
}

/// Loads the model, connects, and answers until `shutdown` completes.
///
/// The broker may be away at any time; the daemon tries again for ever. Nothing
/// is set up for the process: no signals, no logging.
pub async fn run(config: Config, shutdown: impl Future<Output = ()>) -> Result<(), DaemonError> {
    let loader = load_engine(&config.model);
    run_with(config, loader, shutdown).await
}

/// Like [`run()`], with another way to get a generator.
pub async fn run_with(
    config: Config,
    loader: Loader,
    shutdown: impl Future<Output = ()>,
) -> Result<(), DaemonError> {
    let mut shutdown = pin!(shutdown);
    let settings = link_settings(&config)?;
    info!(folder = %config.model.folder.display(), "loading the model");
    let mut inference = Inference::start(loader).map_err(DaemonError::Thread)?;
    let event = tokio::select! {
        event = inference.next_event() => event,
        // The thread ends by itself once it has loaded and finds nobody there.
        () = &mut shutdown => return Ok(()),
    };
    let description = match event {
        Some(Event::Ready(description)) => *description,
        Some(Event::LoadFailed(e)) => return Err(DaemonError::Load(e)),
        _ => return Err(lost(&mut inference)),
    };
    let mut daemon = Daemon {
        service: Service::new(&config, description.model.name.clone()),
        presence: Presence::new(&config, description),
        link: Link::start(&settings),
        inference,
    };
    let served = daemon.serve(shutdown.as_mut()).await;
    if served.is_ok() {
        info!("going down");
        daemon.drain().await;
    }
    daemon.say_goodbye().await;
    served
}

struct Daemon {
    service: Service,
    presence: Presence,
    link: Link,
    inference: Inference,
}

impl Daemon {
    /// Answers until `shutdown` completes or a part of the daemon is gone.
    async fn serve(
        &mut self,
        mut shutdown: impl Future<Output = ()> + Unpin,
    ) -> Result<(), DaemonError> {
        loop {
            self.step()?;
            tokio::select! {
                event = self.link.next_event() => self.on_link_event(event)?,
                // A job that is to end is heard even if its text finds no room: it may be
                // waiting to be rid of it.
                event = self.inference.next_event(),
                    if self.link.outbox.has_room() || self.service.is_cancelling() => {
                    self.on_inference_event(event)?;
                }
                () = wait_until(self.service.next_timer()) => {
                    let mut outputs = Vec::new();
                    self.service.on_timer(Instant::now(), &mut outputs);
                    self.carry_out(outputs);
                }
                () = &mut shutdown => return Ok(()),
            }
        }
    }

    /// Everything that can go on without waiting.
    fn step(&mut self) -> Result<(), DaemonError> {
        let mut outputs = Vec::new();
        let job = self.service.next_job(Instant::now(), &mut outputs);
        self.carry_out(outputs);
        if let Some(job) = job {
            match self.inference.submit(job) {
                Ok(()) => {}
                // The service hands out one job at a time, so there is room unless
                // the thread is gone.
                Err(SendError::Full(()) | SendError::Closed(())) => {
                    return Err(self.inference_lost());
                }
            }
        }
        self.link.pump();
        Ok(())
    }

    /// Does what the service asks for.
    fn carry_out(&mut self, outputs: Vec<Output>) {
        for output in outputs {
            match output {
                Output::Publish(message) => self.link.outbox.push(message),
                Output::Final { key, message } => self.link.outbox.push_final(key, message),
                Output::Ack(receipt) => self.link.ack(receipt),
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
        let mut outputs = Vec::new();
        self.service
            .on_request(request, Instant::now(), &mut outputs);
        self.carry_out(outputs);
    }

    fn on_link_event(&mut self, event: LinkEvent) -> Result<(), DaemonError> {
        match event {
            LinkEvent::Up => self.link.outbox.push_presence(self.presence.online()),
            // A message taken makes room in the outbox, which the next step fills.
            LinkEvent::Taken => {}
            LinkEvent::Delivered { key, outcome } => self.on_delivered(key, outcome),
            LinkEvent::Down => self.service.on_connection_lost(),
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
            Some(Event::Ready(_) | Event::LoadFailed(_)) => {}
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
                event = self.inference.next_event() => self.on_inference_event(event),
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
        lost(&mut self.inference)
    }
}

async fn wait_until(timer: Option<Instant>) {
    match timer {
        Some(at) => sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

fn lost(inference: &mut Inference) -> DaemonError {
    let reason = inference.join().err();
    DaemonError::InferenceLost(reason.unwrap_or_else(|| "no reason given".to_owned()))
}

fn link_settings(config: &Config) -> Result<LinkSettings, DaemonError> {
    let topics = config.topics();
    Ok(LinkSettings {
        host: config.broker.host.clone(),
        port: config.broker.port(),
        client_id: config.client_id(),
        credentials: config.broker.credentials().map_err(DaemonError::Broker)?,
        tls: Tls::load(&config.broker).map_err(DaemonError::Broker)?,
        keep_alive: config.broker.keep_alive,
        session_expiry: config.broker.session_expiry,
        // The running request and those that wait: the broker holds the rest back.
        receive_maximum: u16::try_from(config.limits.queue_depth + 1).unwrap_or(u16::MAX),
        max_payload_bytes: config.limits.max_payload_bytes,
        last_will: Message::retained(topics.status(), STATUS_OFFLINE, ContentType::Text),
        topics: [(topics.ask(), 1), (topics.chat(), 1), (topics.cancel(), 0)]
            .map(|(filter, qos)| Subscription { filter, qos })
            .into(),
    })
}
