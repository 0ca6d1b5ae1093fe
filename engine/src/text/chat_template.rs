//! Chat templates: Jinja as Hugging Face's `apply_chat_template` runs it.
//!
//! A template is the model's, but what it is given comes from the network. Its
//! work and memory are therefore bounded by `minijinja`'s fuel.

use std::collections::BTreeMap;
use std::error::Error as _;

use jiff::ZonedDateTime;
use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{AutoEscape, Environment, ErrorKind, Value};

use super::chat_input::ChatInput;
use super::configs::ChatTemplates;
use super::error::TextError;
use super::python::{self, Clock, Raised};

/// Steps of work: about as many instructions, or 64 times as many bytes. A
/// message costs some tens, so this is far beyond what fits a context.
const FUEL: u64 = 1_000_000;

const DEFAULT: &str = "default";
const TOOL_USE: &str = "tool_use";

/// A model's templates, compiled.
#[derive(Debug)]
pub(crate) struct ChatTemplate {
    env: Environment<'static>,
    special_tokens: BTreeMap<&'static str, String>,
}

impl ChatTemplate {
    /// Compiles the templates of a `tokenizer_config.json`; the error is the reason alone.
    pub(super) fn new(
        templates: &ChatTemplates,
        special_tokens: BTreeMap<&'static str, String>,
    ) -> Result<Self, String> {
        Self::with_clock(templates, special_tokens, ZonedDateTime::now)
    }

    fn with_clock(
        templates: &ChatTemplates,
        special_tokens: BTreeMap<&'static str, String>,
        clock: Clock,
    ) -> Result<Self, String> {
        let mut env = environment(clock)?;
        let mut add = |name: &str, source: &str| {
            env.add_template_owned(name.to_owned(), without_generation_blocks(source))
                .map_err(|e| format!("chat template {name:?}: {e}"))
        };
        match templates {
            ChatTemplates::One(source) => add(DEFAULT, source)?,
            ChatTemplates::Named(list) => {
                for named in list {
                    add(&named.name, &named.template)?;
                }
                if !list.iter().any(|named| named.name == DEFAULT) {
                    return Err("chat_template is a list without one named \"default\"".to_owned());
                }
            }
        }
        Ok(Self {
            env,
            special_tokens,
        })
    }

    /// The prompt of a conversation.
    pub(crate) fn render(&self, chat: &ChatInput) -> Result<String, TextError> {
        let messages = chat.prepared_messages()?;
        let tools = chat.prepared_tools()?;
        let name = if tools.is_some() && self.env.get_template(TOOL_USE).is_ok() {
            TOOL_USE
        } else {
            DEFAULT
        };
        // None and not undefined, as `transformers` has them.
        let tools = tools.map_or(Value::from(()), |tools| Value::from(Serde(tools)));
        let variables = [
            ("messages", Value::from(Serde(&messages))),
            ("tools", tools),
            ("documents", Value::from(())),
            (
                "add_generation_prompt",
                Value::from(chat.add_generation_prompt),
            ),
        ];
        let tokens = self
            .special_tokens
            .iter()
            .map(|(&name, token)| (name, Value::from(token.as_str())));
        let context = Value::from_pairs(tokens.chain(variables));
        self.env
            .get_template(name)
            .and_then(|template| template.render(context))
            .map_err(|error| explain(&error))
    }
}

fn environment(clock: Clock) -> Result<Environment<'static>, String> {
    let mut env = Environment::new();
    let syntax = SyntaxConfig::builder()
        .trim_blocks(true)
        .lstrip_blocks(true)
        .build()
        .map_err(|e| e.to_string())?;
    env.set_syntax(syntax);
    env.set_auto_escape_callback(|_| AutoEscape::None);
    env.set_fuel(Some(FUEL));
    python::extend(&mut env, clock);
    Ok(env)
}

/// Tells the template's own refusal from a fault in applying it.
fn explain(error: &minijinja::Error) -> TextError {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(current) = cause {
        if let Some(Raised(message)) = current.downcast_ref() {
            return TextError::Raised(message.clone());
        }
        if let Some(inner) = current.downcast_ref::<minijinja::Error>()
            && inner.kind() == ErrorKind::OutOfFuel
        {
            return TextError::TemplateBudget;
        }
        cause = current.source();
    }
    // The cause is part of the reason: "cannot render (undefined value in …)".
    let reason = match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    };
    TextError::Template(reason)
}

/// `{% generation %}` marks the assistant's words for training and prints its
/// body as it is. A `with` block without variables does the same, has the same
/// scope and takes the same whitespace control.
fn without_generation_blocks(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(at) = rest.find("{%") {
        let (before, tag) = rest.split_at(at + 2);
        out.push_str(before);
        rest = tag;
        let Some(end) = tag.find("%}") else {
            break;
        };
        let (inside, after) = tag.split_at(end);
        let name = inside.trim_matches(|c: char| c.is_whitespace() || c == '-' || c == '+');
        let replacement = match name {
            "generation" => "with",
            "endgeneration" => "endwith",
            _ => continue,
        };
        out.push_str(&inside.replacen(name, replacement, 1));
        rest = after;
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
#[path = "chat_template_tests.rs"]
mod tests;
