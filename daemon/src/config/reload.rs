//! What of a new configuration can be taken over by a daemon that runs.

use super::{Config, Delivery};

impl Config {
    /// Takes over what can change now: limits, delivery, generation, stream, control,
    /// metrics, heat and log. Gives the names of the other sections that differ: they need a
    /// restart, and stay as they are; so does the file of answers.
    pub fn take_over(&mut self, new: Self) -> Vec<&'static str> {
        let mut restart = Vec::new();
        if self.node != new.node {
            restart.push("node");
        }
        if self.broker != new.broker {
            restart.push("broker");
        }
        if self.board != new.board {
            restart.push("board");
        }
        if self.model != new.model {
            restart.push("model");
        }
        // What a model may take was decided when it was loaded.
        if self.memory != new.memory {
            restart.push("memory");
        }
        let answers_file = self.delivery.answers_file.clone();
        if answers_file != new.delivery.answers_file {
            restart.push("delivery");
        }
        // It is told by the broker when Home Assistant starts.
        if self.home_assistant != new.home_assistant {
            restart.push("home-assistant");
        }
        // The broker was told what we listen to.
        if self.control.is_enabled() != new.control.is_enabled() {
            restart.push("control");
        }
        *self = Self {
            node: self.node.clone(),
            broker: self.broker.clone(),
            board: self.board.clone(),
            model: self.model.clone(),
            memory: self.memory.clone(),
            home_assistant: self.home_assistant.clone(),
            delivery: Delivery {
                answers_file,
                ..new.delivery
            },
            ..new
        };
        restart
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_change_is_named_and_stays() {
        let mut config = Config::for_model("m");
        let mut new = config.clone();
        new.limits.max_tokens = 7;
        new.generation.temperature = Some(0.0);
        new.log.prompts = true;
        assert_eq!(config.take_over(new.clone()), [""; 0]);
        assert_eq!(config, new);

        new.node.name = "other".to_owned();
        new.broker.port = Some(1);
        new.board.profile = Some("jetson-nano".to_owned());
        new.model.threads = Some(3);
        new.memory.budget_mib = Some(300);
        new.heat.ease_off = Some(60.0);
        new.control.drain = true;
        new.home_assistant.discovery = false;
        new.delivery.answers_file = Some("answers".into());
        new.delivery.dedup_entries = 3;
        new.limits.max_tokens = 8;
        new.metrics.interval_seconds = 9;
        let sections = config.take_over(new);
        let expected = [
            "node",
            "broker",
            "board",
            "model",
            "memory",
            "delivery",
            "home-assistant",
            "control",
        ];
        assert_eq!(sections, expected);
        assert_eq!(config.metrics.interval_seconds, 9);
        assert!(config.home_assistant.discovery);
        assert_eq!(config.delivery.answers_file, None);
        assert_eq!(config.delivery.dedup_entries, 3);
        assert_eq!(config.limits.max_tokens, 8);
        assert_eq!(config.node.name, "board");
        assert_eq!(config.board.profile, None);
        assert_eq!(config.model.threads, None);
        assert_eq!(config.memory.budget_mib, None);
        assert_eq!(config.heat.ease_off, Some(60.0));
        // What is forbidden from now on is forbidden at once, and what is allowed allowed.
        assert!(config.control.drain);
    }
}
