//! The chat request.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::schema;

/// A request on `chaski/<node>/chat`.
///
/// Fields that are not known are ignored, as other servers of this API do. Known
/// fields that would change the answer and are not supported are kept here, so
/// that they can be refused.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema, PartialEq)]
#[schemars(title = "Chaski chat request")]
pub struct ChatRequest {
    /// Names the request; a reply without a response topic goes to `reply/<id>`.
    #[schemars(length(min = 1, max = 64))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The conversation.
    #[schemars(length(min = 1))]
    pub messages: Vec<Message>,
    /// Whose request it is, where there is no response topic to tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Which requests it may overtake.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<Priority>,
    /// Most tokens of the answer (older name).
    #[schemars(range(min = 1))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_tokens: Option<u64>,
    /// Most tokens of the answer.
    #[schemars(range(min = 1))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_completion_tokens: Option<u64>,
    /// 0 is greedy.
    #[schemars(range(min = 0.0, max = 2.0))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f64>,
    /// Nucleus sampling.
    #[schemars(range(min = 0.0, max = 1.0))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub top_p: Option<f64>,
    /// Keep the k most probable tokens; 0 keeps all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub top_k: Option<u64>,
    /// Drop tokens below this share of the most probable.
    #[schemars(extend("minimum" = 0.0, "exclusiveMaximum" = 1.0))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_p: Option<f64>,
    /// 1 is off.
    #[schemars(range(min = 0.01, max = 10.0))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repetition_penalty: Option<f64>,
    /// Makes sampling repeatable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<i64>,
    /// The answer ends before any of these.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop: Option<Stop>,
    /// One message per piece of the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream: Option<bool>,
    /// What a streamed answer brings besides its pieces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream_options: Option<StreamOptions>,
    /// Handed to the chat template.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tools: Option<Vec<Value>>,
    /// `none` or `auto`.
    #[schemars(schema_with = "schema::tool_choice")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool_choice: Option<Value>,
    /// Only 1.
    #[schemars(schema_with = "schema::one")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub n: Option<u64>,
    /// Only `false`.
    #[schemars(schema_with = "schema::not_true")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logprobs: Option<Value>,
    /// Only empty.
    #[schemars(schema_with = "schema::no_entries")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logit_bias: Option<Value>,
    /// Only 0.
    #[schemars(schema_with = "schema::zero")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub presence_penalty: Option<f64>,
    /// Only 0.
    #[schemars(schema_with = "schema::zero")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub frequency_penalty: Option<f64>,
    /// Only `{"type": "text"}`.
    #[schemars(schema_with = "schema::text_format")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response_format: Option<Value>,
    /// Not supported: use `tools`.
    #[schemars(schema_with = "schema::nothing")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub functions: Option<Value>,
}

/// `stream_options`
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, JsonSchema, PartialEq, Eq)]
pub struct StreamOptions {
    /// The last message brings the whole text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub include_text: Option<bool>,
}

/// How urgent a request is, the least first.
#[derive(
    Clone, Copy, Debug, Default, Serialize, Deserialize, JsonSchema, PartialEq, Eq, PartialOrd, Ord,
)]
#[serde(rename_all = "lowercase")]
pub enum Priority {
    /// After all others.
    Low,
    /// For a request that does not say.
    #[default]
    Normal,
    /// Before all others.
    High,
}

impl Priority {
    /// Reads its name, as in JSON.
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "low" => Some(Self::Low),
            "normal" => Some(Self::Normal),
            "high" => Some(Self::High),
            _ => None,
        }
    }
}

/// One message of a conversation.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, PartialEq)]
pub struct Message {
    /// `system`, `developer`, `user`, `assistant` or `tool`.
    #[schemars(schema_with = "schema::role")]
    pub role: String,
    /// A string, or a list of text parts, or null.
    #[schemars(schema_with = "schema::content")]
    #[serde(default)]
    pub content: Value,
    /// Other fields (`name`, `tool_calls`, …) go to the chat template as they are.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

impl Message {
    /// A message of plain text.
    pub fn new(role: &str, content: &str) -> Self {
        Self {
            role: role.to_owned(),
            content: Value::String(content.to_owned()),
            rest: Map::new(),
        }
    }
}

/// One stop string or several.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(untagged, expecting = "a string or a list of strings")]
pub enum Stop {
    /// One.
    One(#[schemars(length(min = 1, max = 256))] String),
    /// Several.
    Many(#[schemars(length(max = 16), inner(length(min = 1, max = 256)))] Vec<String>),
}

impl Stop {
    /// All of them.
    pub fn into_vec(self) -> Vec<String> {
        match self {
            Self::One(s) => vec![s],
            Self::Many(all) => all,
        }
    }
}
