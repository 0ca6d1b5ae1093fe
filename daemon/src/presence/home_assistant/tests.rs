use std::collections::BTreeSet;

use super::*;
use crate::wire::ModelInfo;

fn info(node: &str) -> Info {
    Info {
        node: node.to_owned(),
        group: None,
        version: "1.2.3".to_owned(),
        board: None,
        model: ModelInfo {
            name: "tiny".to_owned(),
            family: "llama".to_owned(),
            layers: 1,
            hidden_size: 32,
            heads: 1,
            kv_heads: 1,
            vocab_size: 32,
            context_length: 32,
            file_bytes: 1,
            created_by: "test".to_owned(),
        },
        loaded: None,
        instead_of: None,
        limits: crate::presence::limits(&Config::for_model("m")),
        capabilities: Vec::new(),
        topics: None,
    }
}

fn described(config: &Config) -> (Message, Value) {
    let home_assistant = HomeAssistant::new(config);
    let message = home_assistant.discovery(&info(&config.node.name));
    let value = serde_json::from_slice(&message.payload).unwrap();
    (message, value)
}

fn config(node: &str) -> Config {
    let mut config = Config::for_model("m");
    config.node.name = node.to_owned();
    config
}

#[test]
fn a_device_with_its_entities() {
    let (message, device) = described(&config("kitchen"));
    assert_eq!(message.topic, "homeassistant/device/chaski_kitchen/config");
    assert!(message.retain && !message.droppable);
    assert_eq!(device["device"]["name"], "Chaski kitchen");
    assert_eq!(device["device"]["model"], "tiny");
    assert_eq!(device["availability"][0]["topic"], "chaski/kitchen/status");
    let entities = device["components"].as_object().unwrap();
    assert_eq!(entities["ask"]["command_topic"], "chaski/kitchen/ask");
    assert_eq!(
        entities["temperature"]["default_entity_id"],
        "sensor.chaski_kitchen_temperature"
    );
    assert_eq!(
        entities["temperature"]["unique_id"],
        "chaski_kitchen_temperature"
    );
    let platforms: BTreeSet<_> = (entities.values())
        .map(|entity| entity["platform"].as_str().unwrap())
        .collect();
    let expected = [
        "binary_sensor",
        "button",
        "event",
        "notify",
        "sensor",
        "text",
    ];
    assert_eq!(platforms, BTreeSet::from(expected));
    // Home Assistant refuses a device with the same entity twice.
    let all = HomeAssistant::new(&config("kitchen")).entities();
    assert_eq!(all.len(), entities.len());
    for entity in all {
        assert_eq!(slug(entity.name).to_lowercase(), entity.key);
    }
}

#[test]
fn what_the_node_does_not_have_is_taken_away() {
    let keys = |config: &Config| -> BTreeSet<String> {
        let (_, device) = described(config);
        let entities = device["components"].as_object().unwrap().clone();
        let gone = entities.into_iter().filter(|(_, entity)| {
            let options = entity.as_object().unwrap();
            options.len() == 1 && options.contains_key("platform")
        });
        gone.map(|(key, _)| key).collect()
    };
    let set = |keys: &[&str]| {
        keys.iter()
            .map(|k| (*k).to_owned())
            .collect::<BTreeSet<_>>()
    };
    let mut config = config("n");
    assert_eq!(keys(&config), set(&["drain", "resume", "reload"]));
    config.control.drain = true;
    config.control.reload = true;
    assert_eq!(keys(&config), set(&[]));
    config.metrics.interval_seconds = 0;
    let gone = keys(&config);
    assert!(gone.contains("temperature") && gone.contains("throttled"));
    assert!(!gone.contains("last_answer") && !gone.contains("status"));
}

#[test]
fn one_that_is_not_to_be_known_is_taken_back() {
    let mut config = config("n");
    config.home_assistant.discovery = false;
    config.home_assistant.prefix = "ha".to_owned();
    assert_eq!(birth_topic(&config), None);
    let message = HomeAssistant::new(&config).discovery(&info("n"));
    assert_eq!(message.topic, "ha/device/chaski_n/config");
    assert!(message.retain && message.payload.is_empty() && message.droppable);
}

#[test]
fn its_birth_is_heard() {
    let config = config("n");
    let home_assistant = HomeAssistant::new(&config);
    let says = |topic: &str, payload: &'static str| {
        home_assistant.is_birth(&Request {
            topic: topic.to_owned(),
            payload: payload.into(),
            ..Request::default()
        })
    };
    assert_eq!(
        birth_topic(&config).as_deref(),
        Some("homeassistant/status")
    );
    assert!(says("homeassistant/status", "online"));
    assert!(!says("homeassistant/status", "offline"));
    assert!(!says("chaski/n/ask", "online"));
}

#[test]
fn every_name_of_a_node_has_a_topic_of_its_own() {
    let names = ["pi", "Pi", "pi_4", "pi.4", "pi-4", "pi:4", "küche", "k_che"];
    let ids: BTreeSet<_> = names.iter().map(|name| object_id(name)).collect();
    assert_eq!(ids.len(), names.len());
    for id in ids {
        let allowed = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        assert!(id.chars().all(allowed), "{id}");
    }
    let (_, device) = described(&config("Küche.2"));
    let entity = &device["components"]["status"]["default_entity_id"];
    assert_eq!(entity, "sensor.chaski_k_che_2_status");
}
