//! What a link listens to, as the daemon and the task that polls both know it.

use std::sync::{Arc, Mutex, PoisonError};

/// Something to listen to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscription {
    /// A topic, or a filter of topics.
    pub filter: String,
    /// Most that messages come with: 0 or 1.
    pub qos: u8,
    /// Whether others listen to it in turn with us, so that we may leave it to them.
    pub shared: bool,
    /// Whether we are of use without it, should the broker not allow it.
    pub optional: bool,
}

impl Subscription {
    /// A topic that is ours alone.
    pub fn own(topic: String, qos: u8) -> Self {
        Self {
            filter: topic,
            qos,
            shared: false,
            optional: false,
        }
    }

    /// A topic of somebody else's that we can do without.
    pub fn optional(topic: String) -> Self {
        Self {
            optional: true,
            ..Self::own(topic, 0)
        }
    }

    /// A topic whose messages each go to one of a group. \[MQTT 5, 4.8.2\]
    pub fn shared(group: &str, topic: &str, qos: u8) -> Self {
        Self {
            filter: format!("$share/{group}/{topic}"),
            qos,
            shared: true,
            optional: false,
        }
    }
}

/// All of them, those left to others included.
#[derive(Clone, Debug)]
pub(super) struct Topics(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    all: Vec<Subscription>,
    /// Whether the shared ones are left to others.
    paused: bool,
}

impl Topics {
    pub(super) fn new(all: Vec<Subscription>) -> Self {
        Self(Arc::new(Mutex::new(State { all, paused: false })))
    }

    /// Those to listen to now, and those not to.
    pub(super) fn now(&self) -> (Vec<Subscription>, Vec<Subscription>) {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let all = state.all.iter().cloned();
        all.partition(|topic| !(topic.shared && state.paused))
    }

    /// Leaves the shared ones to others, or not any more. What comes back is to be
    /// changed at the broker.
    pub(super) fn pause_shared(&self, paused: bool) -> Vec<Subscription> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.paused == paused {
            return Vec::new();
        }
        state.paused = paused;
        state.all.iter().filter(|t| t.shared).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_shared_ones_are_left_to_others() {
        let own = Subscription::own("a".to_owned(), 0);
        let shared = Subscription::shared("house", "b", 1);
        assert_eq!(shared.filter, "$share/house/b");
        let topics = Topics::new(vec![own.clone(), shared.clone()]);
        assert_eq!(topics.now(), (vec![own.clone(), shared.clone()], vec![]));
        assert_eq!(
            topics.pause_shared(true).as_slice(),
            std::slice::from_ref(&shared)
        );
        assert_eq!(topics.pause_shared(true), []);
        assert_eq!(topics.now(), (vec![own], vec![shared.clone()]));
        assert_eq!(topics.pause_shared(false), [shared]);
    }
}
