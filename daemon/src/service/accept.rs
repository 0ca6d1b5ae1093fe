//! From a payload to a checked request.

use serde_json::{Map, Value};

use super::json_values::most_json_values;
use super::route::{Refused, Route};
use crate::config::Limits;
use crate::inference::{Prompt, SamplingOverrides};
use crate::mqtt::Request;
use crate::refusal::Refusal;
use crate::wire::{ChatRequest, ErrorCode, Message, PRIORITY_PROPERTY, Priority, Topics, check_id};

const MAX_STOPS: usize = 16;
const MAX_STOP_BYTES: usize = 256;

/// A request that can be computed, and where its answer goes.
#[derive(Debug)]
pub(super) struct Accepted {
    pub(super) route: Route,
    pub(super) priority: Priority,
    pub(super) prompt: Checked,
}

/// The content of a request.
#[derive(Debug, PartialEq)]
pub(super) struct Checked {
    pub(super) prompt: Prompt,
    pub(super) sampling: SamplingOverrides,
    pub(super) max_tokens: usize,
    pub(super) stop: Vec<String>,
    pub(super) stream: bool,
    pub(super) include_text: bool,
}

/// A plain text prompt.
pub(super) fn ask(
    request: &Request,
    topics: &Topics,
    limits: &Limits,
    system: Option<&str>,
) -> Result<Accepted, Refused> {
    let route = Route::for_ask(request, topics, limits)?;
    let checked = || {
        let priority = priority_of(request)?;
        let text = text_of(request, limits)?;
        check_prompt_bytes(text.len(), limits)?;
        if text.trim().is_empty() {
            return Err(Refusal::new(
                ErrorCode::EmptyPrompt,
                "the prompt is empty: send a question as plain text",
            ));
        }
        let checked = Checked {
            prompt: Prompt::Text {
                text: text.to_owned(),
                system: system.map(str::to_owned),
            },
            sampling: SamplingOverrides::default(),
            max_tokens: limits.max_tokens,
            stop: Vec::new(),
            stream: false,
            include_text: false,
        };
        Ok((priority, checked))
    };
    match checked() {
        Ok((priority, prompt)) => Ok(Accepted {
            route,
            priority,
            prompt,
        }),
        Err(refusal) => Err(Box::new((route, refusal))),
    }
}

/// A JSON chat request.
pub(super) fn chat(
    request: &Request,
    topics: &Topics,
    limits: &Limits,
) -> Result<Accepted, Refused> {
    let unreadable = |refusal| Box::new((Route::for_unreadable(request, topics, limits), refusal));
    let text = text_of(request, limits).map_err(unreadable)?;
    check_json_values(text, limits).map_err(unreadable)?;
    let value: Value = serde_json::from_str(text).map_err(|e| {
        // serde_json's own limit on depth ends here as well.
        unreadable(Refusal::new(
            ErrorCode::InvalidJson,
            format!("not JSON: {e}"),
        ))
    })?;
    let id = usable_id(&value).map_err(unreadable)?;
    let route = Route::for_chat(request, topics, limits, id)?;
    let checked = serde_path_to_error::deserialize(value)
        .map_err(|e| Refusal::invalid(at(&e.path().to_string(), &e.inner().to_string())))
        .and_then(|chat: ChatRequest| {
            let priority = chat.priority.unwrap_or_default();
            Ok((priority, check(chat, limits)?))
        });
    match checked {
        Ok((priority, prompt)) => Ok(Accepted {
            route,
            priority,
            prompt,
        }),
        Err(refusal) => Err(Box::new((route, refusal))),
    }
}

fn text_of<'a>(request: &'a Request, limits: &Limits) -> Result<&'a str, Refusal> {
    let payload = &request.payload;
    if payload.len() > limits.max_payload_bytes {
        return Err(Refusal::new(
            ErrorCode::PayloadTooLarge,
            format!(
                "the payload has {} bytes, at most {} are allowed",
                payload.len(),
                limits.max_payload_bytes
            ),
        ));
    }
    std::str::from_utf8(payload).map_err(|e| {
        Refusal::new(
            ErrorCode::InvalidUtf8,
            format!("the payload is not UTF-8 after byte {}", e.valid_up_to()),
        )
    })
}

fn check_json_values(text: &str, limits: &Limits) -> Result<(), Refusal> {
    let values = most_json_values(text);
    if values <= limits.max_json_values {
        return Ok(());
    }
    Err(Refusal::invalid(format!(
        "the JSON has up to {values} values, at most {} are allowed",
        limits.max_json_values
    )))
}

/// Of a prompt as plain text, which has no other place for it.
fn priority_of(request: &Request) -> Result<Priority, Refusal> {
    let mut given = request.user.iter();
    let Some((_, value)) = given.find(|(name, _)| name == PRIORITY_PROPERTY) else {
        return Ok(Priority::default());
    };
    Priority::parse(value)
        .ok_or_else(|| Refusal::invalid("the user property `priority`: give low, normal or high"))
}

fn check_prompt_bytes(bytes: usize, limits: &Limits) -> Result<(), Refusal> {
    if bytes <= limits.max_prompt_bytes {
        return Ok(());
    }
    Err(Refusal::new(
        ErrorCode::PromptTooLarge,
        format!(
            "the prompt has {bytes} bytes, at most {} are allowed",
            limits.max_prompt_bytes
        ),
    ))
}

/// The id is looked for before anything else is checked, so that an error about
/// the rest finds its way.
fn usable_id(request: &Value) -> Result<Option<String>, Refusal> {
    match request.get("id") {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(id)) => match check_id(id) {
            Ok(()) => Ok(Some(id.clone())),
            Err(e) => Err(Refusal::invalid(format!("id: {e}"))),
        },
        Some(_) => Err(Refusal::invalid("id: must be a string")),
    }
}

/// `serde_path_to_error` calls the whole `.`.
fn at(path: &str, problem: &str) -> String {
    if path == "." {
        problem.to_owned()
    } else {
        format!("{path}: {problem}")
    }
}

fn check(chat: ChatRequest, limits: &Limits) -> Result<Checked, Refusal> {
    refuse_unsupported(&chat)?;
    let sampling = sampling(&chat)?;
    let max_tokens = match chat.max_completion_tokens.or(chat.max_tokens) {
        Some(0) => return Err(Refusal::invalid("max_tokens: must be at least 1")),
        Some(n) => usize::try_from(n).map_or(limits.max_tokens, |n| n.min(limits.max_tokens)),
        None => limits.max_tokens,
    };
    let stop = chat.stop.map(|s| s.into_vec()).unwrap_or_default();
    if stop.len() > MAX_STOPS
        || stop
            .iter()
            .any(|s| s.is_empty() || s.len() > MAX_STOP_BYTES)
    {
        return Err(Refusal::invalid(format!(
            "stop: give at most {MAX_STOPS} strings of 1 to {MAX_STOP_BYTES} bytes"
        )));
    }
    let without_tools = chat.tool_choice.as_ref().and_then(Value::as_str) == Some("none");
    let tools = chat
        .tools
        .filter(|tools| !tools.is_empty() && !without_tools);
    Ok(Checked {
        prompt: Prompt::Chat {
            messages: messages(chat.messages, limits)?,
            tools: tools.map(Value::Array),
        },
        sampling,
        max_tokens,
        stop,
        stream: chat.stream.unwrap_or(false),
        include_text: (chat.stream_options)
            .and_then(|options| options.include_text)
            .unwrap_or(false),
    })
}

/// Fields that would change the answer. Those of no effect here are ignored.
fn refuse_unsupported(chat: &ChatRequest) -> Result<(), Refusal> {
    let is_set = |value: &Option<Value>, harmless: &dyn Fn(&Value) -> bool| {
        value.as_ref().is_some_and(|v| !v.is_null() && !harmless(v))
    };
    let zero = |value: Option<f64>| value.is_none_or(|x| x == 0.0);
    let text_format = |v: &Value| v.get("type").and_then(Value::as_str) == Some("text");
    let tool_choice = |v: &Value| matches!(v.as_str(), Some("none" | "auto"));
    let complaint = if chat.n.is_some_and(|n| n != 1) {
        "n: only 1 answer per request"
    } else if is_set(&chat.logprobs, &|v| v == &Value::Bool(false)) {
        "logprobs: not supported"
    } else if is_set(&chat.logit_bias, &|v| {
        v.as_object().is_some_and(Map::is_empty)
    }) {
        "logit_bias: not supported"
    } else if !zero(chat.presence_penalty) || !zero(chat.frequency_penalty) {
        "presence_penalty and frequency_penalty: not supported; use repetition_penalty"
    } else if is_set(&chat.response_format, &text_format) {
        "response_format: only {\"type\": \"text\"}"
    } else if is_set(&chat.tool_choice, &tool_choice) {
        "tool_choice: only \"none\" or \"auto\""
    } else if is_set(&chat.functions, &|_| false) {
        "functions: not supported; use tools"
    } else {
        return Ok(());
    };
    Err(Refusal::new(ErrorCode::Unsupported, complaint))
}

fn sampling(chat: &ChatRequest) -> Result<SamplingOverrides, Refusal> {
    let number = |name: &str, value: Option<f64>, wanted: &str, ok: fn(f64) -> bool| match value {
        Some(x) if !ok(x) => Err(Refusal::invalid(format!("{name}: is {x}; give {wanted}"))),
        value => Ok(value.map(|x| x as f32)),
    };
    Ok(SamplingOverrides {
        temperature: number("temperature", chat.temperature, "0 to 2", |x| {
            (0.0..=2.0).contains(&x)
        })?,
        top_p: number("top_p", chat.top_p, "0 to 1", |x| (0.0..=1.0).contains(&x))?,
        min_p: number("min_p", chat.min_p, "0 to below 1", |x| {
            (0.0..1.0).contains(&x)
        })?,
        repetition_penalty: number(
            "repetition_penalty",
            chat.repetition_penalty,
            "0.01 to 10",
            |x| (0.01..=10.0).contains(&x),
        )?,
        // A k above every vocabulary keeps all, as 0 does.
        top_k: chat.top_k.map(|k| usize::try_from(k).unwrap_or(0)),
        // A negative seed is a seed like any other.
        seed: chat.seed.map(i64::cast_unsigned),
    })
}

fn messages(messages: Vec<Message>, limits: &Limits) -> Result<Value, Refusal> {
    if messages.is_empty() {
        return Err(Refusal::invalid("messages: give at least one"));
    }
    if messages.len() > limits.max_messages {
        return Err(Refusal::invalid(format!(
            "messages: there are {}, at most {} are allowed",
            messages.len(),
            limits.max_messages
        )));
    }
    let mut bytes = 0_usize;
    let mut checked = Vec::with_capacity(messages.len());
    for (i, message) in messages.into_iter().enumerate() {
        let (message, text_bytes) = checked_message(message)
            .map_err(|problem| Refusal::invalid(format!("messages[{i}].{problem}")))?;
        bytes = bytes.saturating_add(text_bytes);
        checked.push(message);
    }
    check_prompt_bytes(bytes, limits)?;
    Ok(Value::Array(checked))
}

/// The message as templates expect it, and the size of its text.
fn checked_message(message: Message) -> Result<(Value, usize), String> {
    let role = match message.role.as_str() {
        // The newer name of the same role; templates know the older one.
        "developer" => "system",
        role @ ("system" | "user" | "assistant" | "tool") => role,
        _ => return Err("role: must be system, developer, user, assistant or tool".to_owned()),
    };
    let text = match message.content {
        Value::String(text) => text,
        Value::Array(parts) => joined(&parts)?,
        // An assistant that only calls tools has no text.
        Value::Null if role == "assistant" => String::new(),
        Value::Null => return Err("content: is missing".to_owned()),
        _ => return Err("content: must be a string or a list of text parts".to_owned()),
    };
    let bytes = text.len();
    let mut object = Map::with_capacity(2 + message.rest.len());
    object.insert("role".to_owned(), role.into());
    object.insert("content".to_owned(), text.into());
    object.extend(message.rest);
    Ok((Value::Object(object), bytes))
}

fn joined(parts: &[Value]) -> Result<String, String> {
    let text = |part: &Value| {
        let is_text = part.get("type").and_then(Value::as_str) == Some("text");
        part.get("text")
            .and_then(Value::as_str)
            .filter(|_| is_text)
            .map(str::to_owned)
    };
    let all: Option<Vec<String>> = parts.iter().map(text).collect();
    Ok(all
        .ok_or("content: only parts of type \"text\" are supported")?
        .join("\n"))
}

#[cfg(test)]
mod tests;
