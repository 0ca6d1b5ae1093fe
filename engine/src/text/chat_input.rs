//! A conversation as a caller gives it, made ready for a chat template.

use serde_json::{Value, json};

use super::error::TextError;

/// A conversation in the field names of the OpenAI chat completions API.
#[derive(Clone, Debug, PartialEq)]
pub struct ChatInput {
    /// An array of messages: `{"role", "content", …}`.
    pub messages: Value,
    /// JSON schemas of the functions the model may call, as Hugging Face's templates take them.
    pub tools: Option<Value>,
    /// End the prompt with the beginning of the assistant's turn.
    pub add_generation_prompt: bool,
}

impl Default for ChatInput {
    fn default() -> Self {
        Self {
            messages: json!([]),
            tools: None,
            add_generation_prompt: true,
        }
    }
}

impl ChatInput {
    /// The messages as templates expect them: `content` a string instead of a
    /// list of text parts, arguments of tool calls an object instead of its JSON.
    pub(super) fn prepared_messages(&self) -> Result<Value, TextError> {
        let messages = self
            .messages
            .as_array()
            .ok_or_else(|| refuse("messages must be an array of objects with role and content"))?;
        if messages.is_empty() {
            return Err(refuse("messages is empty: give at least one message"));
        }
        messages
            .iter()
            .enumerate()
            .map(|(index, message)| prepare(index, message))
            .collect::<Result<Vec<_>, _>>()
            .map(Value::Array)
    }

    /// The tools, if there are any.
    pub(super) fn prepared_tools(&self) -> Result<Option<&Value>, TextError> {
        match &self.tools {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Array(tools)) if tools.is_empty() => Ok(None),
            Some(tools @ Value::Array(items)) => {
                match items.iter().position(|tool| !tool.is_object()) {
                    None => Ok(Some(tools)),
                    Some(index) => Err(refuse(&format!("tools[{index}] must be an object"))),
                }
            }
            Some(_) => Err(refuse("tools must be an array of objects")),
        }
    }
}

fn refuse(reason: &str) -> TextError {
    TextError::Chat(reason.to_owned())
}

fn prepare(index: usize, message: &Value) -> Result<Value, TextError> {
    let mut message = message
        .as_object()
        .cloned()
        .ok_or_else(|| refuse(&format!("messages[{index}] must be an object")))?;
    if !message.get("role").is_some_and(Value::is_string) {
        return Err(refuse(&format!("messages[{index}].role must be a string")));
    }
    match message.get_mut("content") {
        None | Some(Value::Null | Value::String(_)) => {}
        Some(content) => {
            let text = flatten(index, content)?;
            *content = Value::String(text);
        }
    }
    if let Some(Value::Array(calls)) = message.get_mut("tool_calls") {
        for call in calls {
            parse_arguments(call);
        }
    }
    Ok(Value::Object(message))
}

/// Puts a list of text parts together, one to a line.
fn flatten(index: usize, content: &Value) -> Result<String, TextError> {
    let wrong = || {
        refuse(&format!(
            "messages[{index}].content must be a string or an array of parts of type text: \
             this model reads text only"
        ))
    };
    let texts = content
        .as_array()
        .ok_or_else(wrong)?
        .iter()
        .map(|part| {
            (part.get("type").and_then(Value::as_str) == Some("text"))
                .then(|| part.get("text").and_then(Value::as_str))
                .flatten()
                .ok_or_else(wrong)
        })
        .collect::<Result<Vec<_>, _>>()?;
    Ok(texts.join("\n"))
}

/// OpenAI's API has the arguments of a call as a string of JSON; templates take
/// the object, and would quote the string a second time.
fn parse_arguments(call: &mut Value) {
    if let Some(arguments) = call.pointer_mut("/function/arguments")
        && let Some(parsed @ Value::Object(_)) = arguments
            .as_str()
            .and_then(|text| serde_json::from_str(text).ok())
    {
        *arguments = parsed;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chat(messages: Value) -> ChatInput {
        ChatInput {
            messages,
            ..ChatInput::default()
        }
    }

    #[test]
    fn text_parts_become_one_string() {
        let messages = chat(json!([
            {"role": "user", "content": [
                {"type": "text", "text": "one"}, {"type": "text", "text": "two"}]},
            {"role": "assistant", "content": "three", "name": "kept"},
        ]))
        .prepared_messages()
        .unwrap();
        assert_eq!(
            messages,
            json!([
                {"role": "user", "content": "one\ntwo"},
                {"role": "assistant", "content": "three", "name": "kept"},
            ])
        );
    }

    #[test]
    fn arguments_of_tool_calls_become_objects() {
        let messages = chat(
            json!([{"role": "assistant", "content": null, "tool_calls": [
                {"type": "function", "function": {"name": "f", "arguments": "{\"x\": 1}"}},
                {"type": "function", "function": {"name": "g", "arguments": "not JSON"}},
                {"type": "function", "function": {"name": "h", "arguments": {"y": 2}}},
            ]}]),
        )
        .prepared_messages()
        .unwrap();
        let argument = |i: usize| &messages[0]["tool_calls"][i]["function"]["arguments"];
        assert_eq!(*argument(0), json!({"x": 1}));
        assert_eq!(*argument(1), json!("not JSON"));
        assert_eq!(*argument(2), json!({"y": 2}));
        assert_eq!(messages[0]["content"], Value::Null);
    }

    #[test]
    fn refusals_say_which_message() {
        let refused = [
            (json!("hello"), "messages must be an array"),
            (json!([]), "messages is empty"),
            (json!([{"role": "user"}, "hi"]), "messages[1] must be"),
            (json!([{"content": "hi"}]), "messages[0].role"),
            (
                json!([{"role": "user", "content": 3}]),
                "messages[0].content",
            ),
            (
                json!([{"role": "user", "content": [
                    {"type": "image_url", "image_url": {"url": "data:"}}]}]),
                "reads text only",
            ),
        ];
        for (messages, expected) in refused {
            let error = chat(messages).prepared_messages().unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn tools_are_objects_or_absent() {
        let tools = |tools| ChatInput {
            tools: Some(tools),
            ..ChatInput::default()
        };
        assert_eq!(tools(json!(null)).prepared_tools().unwrap(), None);
        assert_eq!(tools(json!([])).prepared_tools().unwrap(), None);
        assert!(tools(json!([{}])).prepared_tools().unwrap().is_some());
        assert!(tools(json!({})).prepared_tools().is_err());
        assert!(tools(json!(["f"])).prepared_tools().is_err());
    }
}
