//! The daemon as one future.

use std::future::Future;
use std::io;
use std::pin::pin;
use std::time::{Duration, Instant};

use thiserror::Error;
use tokio::time::{sleep_until, timeout};
use tracing::{info, warn};

use crate::channel::SendError;
use crate::config::{Config, ConfigError};
use crate::inference::{Description, Event, Inference, LoadError, Loader, load_engine};
use crate::mqtt::{ContentType, Link, LinkEvent, LinkSettings, Message, Request, Subscription};
use crate::service::Service;
use crate::wire::{Info, LimitsInfo, STATUS_OFFLINE, STATUS_ONLINE};

/// How long the last messages may take to reach the broker.
const GOODBYE_PATIENCE: Duration = Duration::from_secs(5);

/// Why the daemon ended.
#[derive(Debug, Error)]
pub enum DaemonError {
    /// The broker's password cannot be read.
    #[error("broker.password-file")]
    Password(#[source] ConfigError),
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
                event = self.inference.next_event(), if self.link.outbox.has_room() => {
                    self.on_inference_event(event)?;
                }
                () = &mut shutdown => return Ok(()),
            }
        }
    }

    /// Everything that can go on without waiting.
    fn step(&mut self) -> Result<(), DaemonError> {
        if let Some(job) = self.service.next_job(Instant::now()) {
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

    fn on_link_event(&mut self, event: LinkEvent) -> Result<(), DaemonError> {
        match event {
            LinkEvent::Up => self.link.outbox.push_presence(self.presence.online()),
            // A message taken makes room in the outbox, which the next step fills.
            LinkEvent::Down | LinkEvent::Taken | LinkEvent::Delivered { .. } => {}
            LinkEvent::Request(request) => self.on_request(&request),
            LinkEvent::Ended => return Err(DaemonError::ConnectionTaskLost),
        }
        Ok(())
    }

    fn on_request(&mut self, request: &Request) {
        if let Some(reply) = self.service.on_request(request, Instant::now()) {
            self.link.outbox.push(reply);
        }
        // Until the service does it, when the reply is delivered.
        if let Some(receipt) = request.receipt {
            self.link.ack(receipt);
        }
    }

    fn on_inference_event(&mut self, event: Option<Event>) -> Result<(), DaemonError> {
        let reply = match event {
            Some(Event::Piece { key, text }) => self.service.on_piece(key, text),
            Some(Event::Finished(finished)) => self.service.on_finished(*finished),
            Some(Event::Ready(_) | Event::LoadFailed(_)) => None,
            None => return Err(self.inference_lost()),
        };
        if let Some(reply) = reply {
            self.link.outbox.push(reply);
        }
        Ok(())
    }

    /// Refuses what waits and ends what runs, within a time.
    async fn drain(&mut self) {
        for reply in self.service.stop() {
            self.link.outbox.push(reply);
        }
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

    /// Publishes `offline` after everything else and disconnects. Where there is no
    /// connection, the broker has published our last will already.
    async fn say_goodbye(mut self) {
        for reply in self.service.stop() {
            self.link.outbox.push(reply);
        }
        self.link.outbox.push(self.presence.offline());
        let flushed = async {
            while self.link.is_connected() && !self.link.outbox.is_empty() {
                self.link.pump();
                match self.link.next_event().await {
                    LinkEvent::Request(request) => self.on_request(&request),
                    LinkEvent::Up | LinkEvent::Taken | LinkEvent::Delivered { .. } => {}
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
        if let Some(reply) = self.service.on_inference_lost() {
            self.link.outbox.push(reply);
        }
        lost(&mut self.inference)
    }
}

fn lost(inference: &mut Inference) -> DaemonError {
    let reason = inference.join().err();
    DaemonError::InferenceLost(reason.unwrap_or_else(|| "no reason given".to_owned()))
}

/// The retained messages about this node.
struct Presence {
    status_topic: String,
    info_topic: String,
    info: Vec<u8>,
}

impl Presence {
    fn new(config: &Config, description: Description) -> Self {
        let info = Info {
            node: config.node.name.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            model: description.model,
            context_length: description.context_length,
            backend: description.backend,
            threads: description.threads,
            load_seconds: description.load_seconds,
            limits: LimitsInfo {
                queue_depth: config.limits.queue_depth,
                max_payload_bytes: config.limits.max_payload_bytes,
                max_prompt_bytes: config.limits.max_prompt_bytes,
                max_tokens: config.limits.max_tokens,
            },
        };
        let topics = config.topics();
        Self {
            status_topic: topics.status(),
            info_topic: topics.info(),
            // Strings and numbers alone: this cannot fail.
            info: serde_json::to_vec(&info).unwrap_or_default(),
        }
    }

    fn online(&self) -> impl DoubleEndedIterator<Item = Message> + use<> {
        [
            Message::retained(
                self.info_topic.clone(),
                self.info.clone(),
                ContentType::Json,
            ),
            Message::retained(self.status_topic.clone(), STATUS_ONLINE, ContentType::Text),
        ]
        .into_iter()
    }

    fn offline(&self) -> Message {
        Message::retained(self.status_topic.clone(), STATUS_OFFLINE, ContentType::Text)
    }
}

fn link_settings(config: &Config) -> Result<LinkSettings, DaemonError> {
    let password = config.broker_password().map_err(DaemonError::Password)?;
    let topics = config.topics();
    Ok(LinkSettings {
        host: config.broker.host.clone(),
        port: config.broker.port,
        client_id: config.client_id(),
        credentials: config.broker.username.clone().map(|username| {
            let password = password.unwrap_or_else(|| crate::config::Secret::new(""));
            (username, password)
        }),
        keep_alive: config.broker.keep_alive,
        session_expiry: config.broker.session_expiry,
        // The running request and those that wait: the broker holds the rest back.
        receive_maximum: u16::try_from(config.limits.queue_depth + 1).unwrap_or(u16::MAX),
        max_payload_bytes: config.limits.max_payload_bytes,
        last_will: Message::retained(topics.status(), STATUS_OFFLINE, ContentType::Text),
        topics: [topics.ask(), topics.chat()]
            .map(|filter| Subscription { filter, qos: 1 })
            .into(),
    })
}
