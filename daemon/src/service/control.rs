//! Commands for the node itself, by those who may publish on its topic `control`.
//!
//! Each must be enabled in the configuration. `drain` and `resume` are done here; what
//! needs a file or a model is asked of our surroundings.

use std::time::Instant;

use tracing::{info, warn};

use super::route::Route;
use super::{Output, Service};
use crate::config::Control;
use crate::mqtt::Request;
use crate::refusal::Refusal;
use crate::wire::{
    ControlReply, ControlRequest, ErrorCode, STATUS_DRAINING, STATUS_ONLINE, check_node_name,
    to_json,
};

/// More is no command.
const MAX_BYTES: usize = 1024;

/// What our surroundings are to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Read the configuration file again.
    Reload,
    /// Load the model of this name, which is one level of a path.
    Model(String),
}

/// One who gave a command and waits for its outcome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asker {
    command: &'static str,
    route: Option<Route>,
}

/// What came of a command.
#[derive(Clone, Debug, PartialEq)]
pub enum Done {
    /// The configuration was read; these sections need a restart.
    Reloaded(Vec<&'static str>),
    /// The model is loaded.
    Loaded {
        /// Its name.
        name: String,
        /// How long it took.
        seconds: f64,
    },
}

/// A command as it was given.
#[derive(Debug, PartialEq, Eq)]
enum Given {
    Drain,
    Resume,
    Asked(Command),
}

impl Service {
    /// Whether it ends what it has and takes nothing new.
    pub fn is_draining(&self) -> bool {
        self.draining
    }

    /// Takes a message on the topic `control`.
    pub(super) fn on_control(&mut self, request: &Request, out: &mut Vec<Output>) {
        let given = parse(request).and_then(|given| allowed(given, &self.control));
        let route = match Route::for_cancel(request, &self.topics, &self.limits, None) {
            Ok(route) => route,
            Err(refused) => {
                let (route, refusal) = *refused;
                out.push(Output::Publish(route.error(&refusal)));
                return;
            }
        };
        let given = match given {
            Ok(given) => given,
            Err(refusal) => {
                warn!(code = refusal.code.as_str(), "a command is refused");
                out.push(Output::Publish(route.error(&refusal)));
                return;
            }
        };
        let asker = |command| Asker {
            command,
            route: request.response_topic.is_some().then(|| route.clone()),
        };
        match given {
            Given::Drain => self.set_draining(true, &asker("drain"), out),
            Given::Resume => self.set_draining(false, &asker("resume"), out),
            Given::Asked(command) => {
                let asker = asker(match command {
                    Command::Reload => "reload",
                    Command::Model(_) => "model",
                });
                out.push(Output::Control { command, asker });
            }
        }
    }

    fn set_draining(&mut self, draining: bool, asker: &Asker, out: &mut Vec<Output>) {
        if self.draining != draining {
            info!(draining, waiting = self.backlog.len(), "told so over MQTT");
        }
        self.draining = draining;
        self.confirm(asker, self.control_reply(asker.command), out);
    }

    /// What came of an [`Output::Control`].
    pub fn on_done(&mut self, asker: &Asker, done: Result<Done, Refusal>, out: &mut Vec<Output>) {
        let reply = self.control_reply(asker.command);
        let reply = match done {
            Ok(Done::Reloaded(sections)) => ControlReply {
                restart_needed: Some(sections.into_iter().map(str::to_owned).collect()),
                ..reply
            },
            Ok(Done::Loaded { name, seconds }) => ControlReply {
                model: Some(name),
                load_seconds: Some(seconds),
                ..reply
            },
            Err(refusal) => {
                if let Some(route) = &asker.route {
                    out.push(Output::Publish(route.error(&refusal)));
                }
                return;
            }
        };
        self.confirm(asker, reply, out);
    }

    fn control_reply(&self, command: &str) -> ControlReply {
        ControlReply {
            command: command.to_owned(),
            node: self.topics.node().to_owned(),
            state: match self.draining {
                true => STATUS_DRAINING.to_owned(),
                false => STATUS_ONLINE.to_owned(),
            },
            restart_needed: None,
            model: None,
            load_seconds: None,
        }
    }

    fn confirm(&self, asker: &Asker, reply: ControlReply, out: &mut Vec<Output>) {
        if let Some(route) = &asker.route {
            out.push(Output::Publish(route.confirmation(to_json(&reply))));
        }
    }

    /// The model cannot be had: all that wait for it are told why.
    pub fn on_model_unavailable(&mut self, problem: &str, now: Instant, out: &mut Vec<Output>) {
        let message = format!("the model cannot be loaded: {problem}");
        let refusal = Refusal::new(ErrorCode::ModelUnavailable, message);
        for waiting in self.backlog.take_if(|_| true) {
            self.refuse(waiting.job.key, &waiting.route, &refusal, out);
        }
        self.take_overflow(now, out);
    }
}

/// Reads `{"command": "model", "model": "x"}` or `model x`.
fn parse(request: &Request) -> Result<Given, Refusal> {
    if request.payload.len() > MAX_BYTES {
        return Err(Refusal::new(
            ErrorCode::PayloadTooLarge,
            format!("a command has at most {MAX_BYTES} bytes"),
        ));
    }
    let text = std::str::from_utf8(&request.payload)
        .map_err(|_| Refusal::new(ErrorCode::InvalidUtf8, "the payload is not UTF-8"))?
        .trim();
    let wanted = if text.starts_with('{') {
        serde_json::from_str(text).map_err(|e| {
            Refusal::invalid(format!("not of the form {{\"command\": \"drain\"}}: {e}"))
        })?
    } else {
        let (command, model) = match text.split_once(char::is_whitespace) {
            Some((command, model)) => (command, Some(model.trim().to_owned())),
            None => (text, None),
        };
        ControlRequest {
            command: command.to_owned(),
            model,
        }
    };
    match (wanted.command.as_str(), wanted.model) {
        ("drain", None) => Ok(Given::Drain),
        ("resume", None) => Ok(Given::Resume),
        ("reload", None) => Ok(Given::Asked(Command::Reload)),
        ("model", Some(name)) => {
            // One level of a path, and none that means another folder.
            check_node_name(&name).map_err(|e| Refusal::invalid(format!("model: {e}")))?;
            if name.starts_with('.') || name.contains('\\') {
                return Err(Refusal::invalid(
                    "model: give the name of a folder alone, without path",
                ));
            }
            Ok(Given::Asked(Command::Model(name)))
        }
        ("model", None) => Err(Refusal::invalid("model: give the name of its folder")),
        ("drain" | "resume" | "reload", Some(_)) => {
            Err(Refusal::invalid("only the command `model` takes a name"))
        }
        _ => Err(Refusal::invalid(
            "command: give drain, resume, reload or model",
        )),
    }
}

fn allowed(given: Given, control: &Control) -> Result<Given, Refusal> {
    let (enabled, key) = match given {
        Given::Drain | Given::Resume => (control.drain, "drain = true"),
        Given::Asked(Command::Reload) => (control.reload, "reload = true"),
        Given::Asked(Command::Model(_)) => (control.models_folder.is_some(), "models-folder"),
    };
    if enabled {
        return Ok(given);
    }
    Err(Refusal::new(
        ErrorCode::Unsupported,
        format!(
            "this node does not take that command: set {key} in [control] of its configuration"
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(payload: &str) -> Result<Given, Refusal> {
        parse(&Request {
            payload: payload.to_owned().into(),
            ..Request::default()
        })
    }

    #[test]
    fn commands_as_text_and_as_json() {
        for (text, json, wanted) in [
            ("drain\n", r#"{"command": "drain"}"#, Given::Drain),
            ("resume", r#"{"command": "resume"}"#, Given::Resume),
            (
                "reload",
                r#"{"command": "reload"}"#,
                Given::Asked(Command::Reload),
            ),
            (
                "model llama",
                r#"{"command": "model", "model": "llama"}"#,
                Given::Asked(Command::Model("llama".into())),
            ),
        ] {
            assert_eq!(given(text), Ok(wanted));
            assert_eq!(given(text), given(json));
        }
    }

    #[test]
    fn what_is_no_command_is_refused() {
        for bad in [
            "",
            "stop",
            "drain now",
            "model",
            "model ../x",
            "model a/b",
            "model ..",
            "model .hidden",
            r#"{"command": "drain", "force": true}"#,
            r#"{"command": 1}"#,
        ] {
            let refusal = given(bad).expect_err(bad);
            assert_eq!(refusal.code, ErrorCode::InvalidRequest, "{bad}");
        }
        assert_eq!(
            given(&"x".repeat(MAX_BYTES + 1)).map_err(|e| e.code),
            Err(ErrorCode::PayloadTooLarge)
        );
    }

    #[test]
    fn each_command_has_a_key() {
        let all = || {
            [
                Given::Drain,
                Given::Resume,
                Given::Asked(Command::Reload),
                Given::Asked(Command::Model("m".into())),
            ]
        };
        for command in all() {
            let refusal = allowed(command, &Control::default()).unwrap_err();
            assert_eq!(refusal.code, ErrorCode::Unsupported);
            assert!(refusal.message.contains("[control]"), "{refusal}");
        }
        let control = Control {
            drain: true,
            reload: true,
            models_folder: Some("models".into()),
        };
        for command in all() {
            assert!(allowed(command, &control).is_ok());
        }
    }
}
