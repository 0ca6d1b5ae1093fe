//! What strangers may send and when, as a fuzzer makes it up from bytes.

use arbitrary::{Arbitrary, Unstructured};
use serde_json::{Map, Value};

/// Most steps of a script.
const MAX_STEPS: usize = 400;

/// A node's configuration, and what happens to it.
#[derive(Debug)]
pub struct Script {
    pub queue_depth: u8,
    pub slow_rate: bool,
    pub own_prefix: bool,
    pub has_session: bool,
    pub dedup_entries: u8,
    pub steps: Vec<Step>,
}

impl<'a> Arbitrary<'a> for Script {
    fn arbitrary(u: &mut Unstructured<'a>) -> arbitrary::Result<Self> {
        let mut script = Self {
            queue_depth: u.arbitrary()?,
            slow_rate: u.arbitrary()?,
            own_prefix: u.arbitrary()?,
            has_session: u.arbitrary()?,
            dedup_entries: u.arbitrary()?,
            steps: Vec::new(),
        };
        // A derived list ends by the toss of a coin: after two steps, mostly.
        while !u.is_empty() && script.steps.len() < MAX_STEPS {
            script.steps.push(u.arbitrary()?);
        }
        Ok(script)
    }
}

#[derive(Arbitrary, Debug)]
pub enum Step {
    Message(Envelope),
    /// The same message once more, as the broker or its client sends it.
    Again {
        which: u8,
        redelivered: bool,
    },
    Wait {
        seconds: u16,
    },
    Start,
    Piece(String),
    Finish {
        text: String,
        failed: bool,
    },
    Delivered {
        which: u8,
        outcome: Fate,
    },
    ConnectionLost,
    Stop,
}

#[derive(Arbitrary, Debug)]
pub enum Fate {
    Taken,
    Refused,
    TooLarge,
}

#[derive(Arbitrary, Debug)]
pub struct Envelope {
    pub topic: Topic,
    pub payload: Payload,
    pub response_topic: Option<ResponseTopic>,
    pub correlation: Option<Vec<u8>>,
    pub user: Vec<(Name, String)>,
    pub expires_seconds: Option<u32>,
    pub redelivered: bool,
    pub kept: bool,
}

#[derive(Arbitrary, Clone, Copy, Debug)]
pub enum Topic {
    Ask,
    Chat,
    Cancel,
    Control,
    GroupAsk,
    GroupChat,
    Other,
}

#[derive(Arbitrary, Debug)]
pub enum ResponseTopic {
    Own(u8),
    Any(String),
    Bad(u8),
}

impl ResponseTopic {
    pub fn text(&self) -> String {
        const BAD: [&str; 9] = [
            "",
            "$SYS/x",
            "a/+/b",
            "a/#",
            "a\0b",
            "chaski/n/ask",
            "chaski/n/chat",
            "chaski/n/cancel",
            "chaski/other/status",
        ];
        match self {
            Self::Own(client) => format!("me/{}", client % 4),
            Self::Any(text) => text.clone(),
            Self::Bad(index) => BAD[usize::from(*index) % BAD.len()].to_owned(),
        }
    }
}

#[derive(Arbitrary, Debug)]
pub enum Payload {
    Bytes(Vec<u8>),
    /// Any JSON.
    Json(Json),
    /// A request as it should be, but for what the fields after it make of it.
    Request {
        id: u8,
        text: String,
        stream: bool,
        fields: Vec<(Name, Json)>,
    },
    /// The id of such a request.
    Id(u8),
    /// For the node itself.
    Command(u8),
}

impl Payload {
    pub fn bytes(&self) -> Vec<u8> {
        match self {
            Self::Bytes(bytes) => bytes.clone(),
            Self::Json(json) => json.value().to_string().into_bytes(),
            Self::Request {
                id,
                text,
                stream,
                fields,
            } => {
                let mut request = serde_json::json!({
                    "id": format!("q{}", id % 4),
                    "stream": stream,
                    "messages": [{"role": "user", "content": text}],
                });
                for (name, value) in fields {
                    request[name.text()] = value.value();
                }
                request.to_string().into_bytes()
            }
            Self::Id(id) => format!("q{}", id % 4).into_bytes(),
            Self::Command(index) => COMMANDS[usize::from(*index) % COMMANDS.len()]
                .as_bytes()
                .to_vec(),
        }
    }
}

const COMMANDS: [&str; 7] = [
    "drain",
    "resume",
    "reload",
    "model other",
    "model ../other",
    "{\"command\": \"resume\"}",
    "stop",
];

/// A name, mostly one with a meaning.
#[derive(Arbitrary, Debug)]
pub enum Name {
    Known(u8),
    Any(String),
}

impl Name {
    fn text(&self) -> &str {
        match self {
            Self::Known(index) => FIELDS[usize::from(*index) % FIELDS.len()],
            Self::Any(text) => text,
        }
    }

    pub fn into_text(self) -> String {
        self.text().to_owned()
    }
}

const FIELDS: [&str; 34] = [
    "id",
    "user",
    "priority",
    "messages",
    "max_tokens",
    "max_completion_tokens",
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "repetition_penalty",
    "seed",
    "stop",
    "stream",
    "stream_options",
    "include_text",
    "tools",
    "tool_choice",
    "role",
    "content",
    "type",
    "text",
    "n",
    "logprobs",
    "logit_bias",
    "presence_penalty",
    "frequency_penalty",
    "response_format",
    "functions",
    "model",
    "name",
    "tool_calls",
    "tool_call_id",
    "system",
];

#[derive(Arbitrary, Debug)]
pub enum Json {
    Null,
    Bool(bool),
    Integer(i64),
    Large(u64),
    Float(f64),
    Text(String),
    Word(u8),
    List(Vec<Json>),
    Object(Vec<(Name, Json)>),
}

impl Json {
    fn value(&self) -> Value {
        const WORDS: [&str; 10] = [
            "user",
            "assistant",
            "system",
            "tool",
            "text",
            "low",
            "high",
            "auto",
            "none",
            "function",
        ];
        match self {
            Self::Null => Value::Null,
            Self::Bool(b) => (*b).into(),
            Self::Integer(i) => (*i).into(),
            Self::Large(u) => (*u).into(),
            Self::Float(f) => (*f).into(),
            Self::Text(text) => text.as_str().into(),
            Self::Word(index) => WORDS[usize::from(*index) % WORDS.len()].into(),
            Self::List(list) => list.iter().map(Self::value).collect(),
            Self::Object(fields) => fields
                .iter()
                .map(|(name, value)| (name.text().to_owned(), value.value()))
                .collect::<Map<_, _>>()
                .into(),
        }
    }
}
