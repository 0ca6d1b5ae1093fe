//! The entities of the device.

use serde_json::{Value, json};

use super::HomeAssistant;
use crate::wire::{Event, HeatLevel, MemoryLevel, STATUS_DRAINING, STATUS_ONLINE};

/// Longest state that Home Assistant keeps, and longest text that its user can write.
const MAX_STATE: usize = 255;

/// One of them.
#[derive(Debug)]
pub(super) struct Entity {
    /// Unique in the device. As its name would make it: earlier versions of Home Assistant
    /// name entities by that.
    pub(super) key: &'static str,
    /// Kind of entity.
    pub(super) platform: &'static str,
    /// As shown.
    pub(super) name: &'static str,
    /// All else; `None` for one that this node does not have.
    pub(super) options: Option<Value>,
}

impl Entity {
    fn new(platform: &'static str, key: &'static str, name: &'static str, options: Value) -> Self {
        Self {
            key,
            platform,
            name,
            options: Some(options),
        }
    }

    fn only_if(mut self, there: bool) -> Self {
        self.options = self.options.filter(|_| there);
        self
    }
}

impl HomeAssistant {
    pub(super) fn entities(&self) -> Vec<Entity> {
        let mut all = self.questions();
        all.extend(self.figures());
        all.extend(self.problems());
        all.extend(self.buttons());
        all
    }

    /// To ask, and what comes of it.
    fn questions(&self) -> Vec<Entity> {
        let topics = &self.topics;
        vec![
            Entity::new(
                "text",
                "ask",
                "Ask",
                json!({
                    "command_topic": topics.ask(),
                    "min": 1,
                    "max": MAX_STATE,
                    "icon": "mdi:chat-question",
                }),
            ),
            // Of any length, and without a state.
            Entity::new(
                "notify",
                "question",
                "Question",
                json!({"command_topic": topics.ask()}),
            ),
            Entity::new(
                "sensor",
                "last_answer",
                "Last answer",
                json!({
                    "state_topic": topics.answer(),
                    "value_template": format!("{{{{ value[:{MAX_STATE}] }}}}"),
                    "json_attributes_topic": topics.answer(),
                    "json_attributes_template": "{{ {'text': value} | tojson }}",
                    "icon": "mdi:chat",
                }),
            ),
            Entity::new(
                "event",
                "request",
                "Request",
                json!({"state_topic": topics.event(), "event_types": Event::TYPES}),
            ),
            Entity::new(
                "sensor",
                "status",
                "Status",
                json!({
                    "state_topic": topics.status(),
                    "value_template": format!(
                        "{{{{ value if value == '{STATUS_DRAINING}' else '{STATUS_ONLINE}' }}}}"
                    ),
                    "device_class": "enum",
                    "options": [STATUS_ONLINE, STATUS_DRAINING],
                    "entity_category": "diagnostic",
                }),
            ),
        ]
    }

    /// Of the metrics.
    fn figures(&self) -> Vec<Entity> {
        let sensor = |key, name, template: &str, options: Value| {
            let mut all = json!({
                "state_topic": self.topics.metrics(),
                "value_template": format!("{{{{ {template} }}}}"),
                "state_class": "measurement",
            });
            if let (Value::Object(all), Value::Object(options)) = (&mut all, options) {
                all.extend(options);
            }
            Entity::new("sensor", key, name, all).only_if(self.has_metrics)
        };
        // What is done against something.
        let levels = |key, name, template: &str, names: &[&str]| {
            let options = json!({
                "state_topic": self.topics.metrics(),
                "value_template": format!("{{{{ {template} }}}}"),
                "device_class": "enum",
                "options": names,
                "entity_category": "diagnostic",
            });
            Entity::new("sensor", key, name, options).only_if(self.has_metrics)
        };
        let speed = json!({"unit_of_measurement": "tokens/s", "suggested_display_precision": 1});
        let total = json!({"state_class": "total_increasing"});
        let bytes = json!({
            "device_class": "data_size",
            "unit_of_measurement": "B",
            "suggested_unit_of_measurement": "MB",
            "suggested_display_precision": 0,
            "entity_category": "diagnostic",
        });
        vec![
            sensor(
                "decode_speed",
                "Decode speed",
                "(value_json.speed | default({})).decode_tokens_per_second | default('')",
                speed.clone(),
            ),
            sensor(
                "prefill_speed",
                "Prefill speed",
                "(value_json.speed | default({})).prefill_tokens_per_second | default('')",
                speed,
            ),
            sensor(
                "waiting_requests",
                "Waiting requests",
                "value_json.queue.waiting",
                json!({}),
            ),
            sensor(
                "answered_requests",
                "Answered requests",
                "value_json.requests.answered",
                total.clone(),
            ),
            sensor(
                "refused_requests",
                "Refused requests",
                "value_json.requests.refused",
                total,
            ),
            sensor(
                "prompt_from_cache",
                "Prompt from cache",
                "(100 * value_json.tokens.cached / value_json.tokens.prompt) | round(1) \
                 if value_json.tokens.prompt else ''",
                json!({"unit_of_measurement": "%", "entity_category": "diagnostic"}),
            ),
            sensor(
                "memory",
                "Memory",
                "value_json.memory.resident_bytes | default('')",
                bytes.clone(),
            ),
            sensor(
                "available_memory",
                "Available memory",
                "value_json.memory.available_bytes | default('')",
                bytes,
            ),
            sensor(
                "temperature",
                "Temperature",
                "value_json.temperature_celsius | default('')",
                json!({
                    "device_class": "temperature",
                    "unit_of_measurement": "°C",
                    "suggested_display_precision": 1,
                    "entity_category": "diagnostic",
                }),
            ),
            levels(
                "heat",
                "Heat",
                "(value_json.strain | default({})).heat | default('normal')",
                &HeatLevel::ALL.map(HeatLevel::as_str),
            ),
            levels(
                "memory_pressure",
                "Memory pressure",
                "(value_json.strain | default({})).memory | default('normal')",
                &MemoryLevel::ALL.map(MemoryLevel::as_str),
            ),
            sensor(
                "uptime",
                "Uptime",
                "value_json.uptime_seconds",
                json!({
                    "device_class": "duration",
                    "unit_of_measurement": "s",
                    "entity_category": "diagnostic",
                }),
            ),
        ]
    }

    /// What somebody should see to. Unknown where the machine does not say.
    fn problems(&self) -> Vec<Entity> {
        let problem = |key, name, template: &str| {
            let shown = "{{ it if it is none else 'ON' if it else 'OFF' }}";
            let options = json!({
                "state_topic": self.topics.metrics(),
                "value_template": format!("{{% set it = {template} %}}{shown}"),
                "device_class": "problem",
                "entity_category": "diagnostic",
            });
            Entity::new("binary_sensor", key, name, options).only_if(self.has_metrics)
        };
        vec![
            problem(
                "throttled",
                "Throttled",
                "(value_json.throttling | default({})).throttled | default(none)",
            ),
            problem(
                "under_voltage",
                "Under-voltage",
                "(value_json.throttling | default({})).under_voltage | default(none)",
            ),
            problem(
                "queue_full",
                "Queue full",
                "value_json.queue.waiting >= value_json.queue.depth",
            ),
        ]
    }

    /// Commands, where they are allowed.
    fn buttons(&self) -> Vec<Entity> {
        let button = |command, name, allowed| {
            let options = json!({
                "command_topic": self.topics.control(),
                "payload_press": command,
                "entity_category": "config",
            });
            Entity::new("button", command, name, options).only_if(allowed)
        };
        vec![
            button("drain", "Drain", self.control.drain),
            button("resume", "Resume", self.control.drain),
            button("reload", "Reload", self.control.reload),
        ]
    }
}
