//! The JSON Schema of a chat request, for programs that check or build one.

use schemars::{Schema, SchemaGenerator, generate::SchemaSettings, json_schema};
use serde_json::Value;

use super::ChatRequest;

/// The schema of a [`ChatRequest`], JSON Schema 2020-12.
pub fn chat_request_schema() -> Value {
    SchemaSettings::draft2020_12()
        .into_generator()
        .into_root_schema_for::<ChatRequest>()
        .into()
}

/// `content`: a text, or parts that are texts, or nothing.
pub(super) fn content(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "description": "A text, or a list of parts of the type `text`, or nothing.",
        "anyOf": [
            {"type": ["string", "null"]},
            {"type": "array", "items": {
                "type": "object",
                "properties": {"type": {"const": "text"}, "text": {"type": "string"}},
                "required": ["type", "text"],
            }},
        ],
    })
}

/// `role`
pub(super) fn role(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"enum": ["system", "developer", "user", "assistant", "tool"]})
}

/// `tool_choice`
pub(super) fn tool_choice(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"description": "`none` leaves the tools out.", "enum": ["none", "auto", null]})
}

/// `n`
pub(super) fn one(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"description": "Only one answer is given.", "enum": [1, null]})
}

/// `logprobs`
pub(super) fn not_true(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"description": "Not supported.", "enum": [false, null]})
}

/// `logit_bias`
pub(super) fn no_entries(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "description": "Not supported.",
        "type": ["object", "null"],
        "maxProperties": 0,
    })
}

/// `functions`
pub(super) fn nothing(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"description": "Not supported: use `tools`.", "type": "null"})
}

/// `presence_penalty`, `frequency_penalty`
pub(super) fn zero(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"description": "Not supported.", "enum": [0, null]})
}

/// `response_format`
pub(super) fn text_format(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "description": "Only text.",
        "anyOf": [
            {"type": "null"},
            {"type": "object", "properties": {"type": {"const": "text"}}, "required": ["type"]},
        ],
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_field_is_described_and_only_messages_are_required() {
        let schema = chat_request_schema();
        let properties = schema["properties"].as_object().unwrap();
        for (name, property) in properties {
            assert!(property.get("description").is_some(), "{name}: {property}");
        }
        assert_eq!(schema["required"], json!(["messages"]));
        assert!(schema["$schema"].as_str().unwrap().contains("2020-12"));
        // Fields that are not known are ignored.
        assert_ne!(schema.get("additionalProperties"), Some(&json!(false)));
        assert_eq!(properties["temperature"]["maximum"], json!(2.0));
    }
}
