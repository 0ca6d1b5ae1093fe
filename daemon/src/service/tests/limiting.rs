//! Requests that find no room, come too often, or wait too long.

use super::*;
use crate::mqtt::Message;
use crate::wire::HeatLevel;

fn of(topic: &str, request: Request) -> Request {
    Request {
        response_topic: Some(topic.into()),
        ..request
    }
}

fn code(outputs: Vec<Output>) -> Option<ErrorCode> {
    message(outputs).error
}

#[test]
fn busy_tells_how_long_it_will_take() {
    let mut node = node(1);
    node.accept(&chat("a", false));
    let a = node.start().key;
    node.wait(10);
    node.finish(a, "");
    node.accept(&chat("b", false));
    node.start();
    node.accept(&chat("c", false));
    node.wait(4);
    let busy = message(node.request(&chat("d", false)));
    assert_eq!(busy.error, Some(ErrorCode::Busy));
    // The rest of the one that runs, and the one that waits.
    assert_eq!(
        parsed(&busy),
        json!({"id": "d", "node": "n", "error": {
            "code": "busy", "type": "overloaded_error", "retry_after_seconds": 16.0,
            "message": "the queue of 1 is full: try again in about 16 s"
        }})
    );
    assert_eq!(property(&busy, "retry-after"), Some("16"));
    assert_eq!(property(&busy, "status"), Some("error"));
    assert_eq!(node.service.counts().busy, 1);
}

#[test]
fn with_a_full_queue_json_is_not_read() {
    let mut node = node(1);
    node.accept(&chat("a", false));
    let broken = Request {
        payload: r#"{"id": "b", "messages": 7}"#.into(),
        ..chat("b", false)
    };
    assert_eq!(
        code(node.request(&of("me", broken.clone()))),
        Some(ErrorCode::Busy)
    );
    let busy = message(node.request(&broken));
    assert_eq!(busy.topic, "chaski/n/reply/b");
    // A place for the error must be found all the same.
    let bad = of("a/#", broken);
    assert_eq!(
        code(node.request(&bad)),
        Some(ErrorCode::InvalidResponseTopic)
    );
}

#[test]
fn one_client_leaves_room_for_others_and_they_take_turns() {
    let mut config = config(4);
    config.limits.per_client_depth = None;
    let mut node = Node::new(&config);
    node.accept(&of("a", chat("a1", false)));
    let first = node.start().key;
    node.accept(&of("a", chat("a2", false)));
    node.accept(&of("a", chat("a3", false)));
    let busy = message(node.request(&of("a", chat("a4", false))));
    let text = String::from_utf8_lossy(&busy.payload).into_owned();
    assert!(
        text.contains("its share of the queue, 2 requests"),
        "{text}"
    );
    node.accept(&of("b", chat("b1", false)));
    node.finish(first, "");
    let second = node.start().key;
    assert_eq!(node.finish(second, "").topic, "b");
}

#[test]
fn the_json_user_is_a_client_too() {
    let mut node = node(4);
    let by = |user: &str, id: &str, priority: &str| Request {
        topic: "chaski/n/chat".into(),
        payload: json!({"id": id, "user": user, "priority": priority,
                        "messages": [{"role": "user", "content": "hi"}]})
        .to_string()
        .into(),
        ..Request::default()
    };
    node.accept(&by("x", "x1", "normal"));
    node.accept(&by("x", "x2", "normal"));
    node.accept(&by("y", "y1", "normal"));
    node.accept(&by("x", "x3", "high"));
    let mut order = Vec::new();
    while let Some(job) = node.next_job() {
        order.push(node.finish(job.key, "").topic);
    }
    let ids = order.iter().map(|t| t.rsplit('/').next().unwrap());
    assert_eq!(ids.collect::<Vec<_>>(), ["x3", "y1", "x1", "x2"]);
}

#[test]
fn too_many_a_minute() {
    let mut config = config(4);
    (config.limits.rate_per_minute, config.limits.rate_burst) = (60, 2);
    let mut node = Node::new(&config);
    let empty = |topic: &str| of(topic, ask(""));
    assert_eq!(
        code(node.request(&empty("a"))),
        Some(ErrorCode::EmptyPrompt)
    );
    assert_eq!(
        code(node.request(&empty("a"))),
        Some(ErrorCode::EmptyPrompt)
    );
    let refused = message(node.request(&empty("a")));
    assert_eq!(refused.error, Some(ErrorCode::RateLimited));
    assert_eq!(property(&refused, "retry-after"), Some("1"));
    assert!(refused.payload.ends_with(b"try again in about 1 s"));
    assert_eq!(
        code(node.request(&empty("b"))),
        Some(ErrorCode::EmptyPrompt)
    );
    // The broker's second try is not the client's.
    let again = Request {
        redelivered: true,
        ..empty("a")
    };
    assert_eq!(code(node.request(&again)), Some(ErrorCode::EmptyPrompt));
    node.wait(1);
    assert_eq!(
        code(node.request(&empty("a"))),
        Some(ErrorCode::EmptyPrompt)
    );
}

#[test]
fn one_that_expired_is_answered_when_it_does() {
    let mut node = node(4);
    let expiring = |id: &str, seconds| Request {
        expires: Some(Duration::from_secs(seconds)),
        ..chat(id, false)
    };
    node.accept(&chat("a", false));
    let a = node.start().key;
    assert_eq!(node.service.next_timer(), None);
    node.accept(&expiring("b", 20));
    node.accept(&expiring("c", 10));
    assert_eq!(
        node.service.next_timer(),
        Some(node.now + Duration::from_secs(10))
    );
    assert_eq!(node.timer(), []);
    node.wait(10);
    let expired = message(node.timer());
    assert_eq!(expired.topic, "chaski/n/reply/c");
    assert_eq!(expired.error, Some(ErrorCode::Expired));
    assert_eq!(node.service.counts().expired, 1);
    // It is in time if its turn comes before.
    node.finish(a, "");
    let b = node.start().key;
    node.wait(60);
    assert_eq!(node.service.next_timer(), None);
    assert_eq!(node.finish(b, "late").error, None);
}

#[test]
fn one_that_expired_unnoticed_is_not_computed() {
    let mut node = node(4);
    node.accept(&Request {
        expires: Some(Duration::from_secs(1)),
        ..chat("a", false)
    });
    node.wait(1);
    let mut out = Vec::new();
    assert_eq!(node.service.next_job(node.now, &mut out), None);
    assert_eq!(code(out), Some(ErrorCode::Expired));
}

fn refusing(node: &Node, code: ErrorCode, seconds: u64) -> Strain {
    Strain {
        heat: HeatLevel::Normal,
        refusing: Some(Refusing {
            code,
            until: node.now + Duration::from_secs(seconds),
        }),
    }
}

#[test]
fn too_hot_for_new_requests_but_not_for_those_that_are_there() {
    let mut node = node(4);
    node.accept(&chat("a", false));
    let a = node.start().key;
    node.accept(&chat("b", false));
    let strain = refusing(&node, ErrorCode::Overheated, 40);
    node.service.set_strain(Strain {
        heat: HeatLevel::Refusing,
        ..strain
    });
    assert!(node.service.is_refusing());
    node.wait(10);
    let hot = message(node.request(&chat("c", false)));
    assert_eq!(
        parsed(&hot),
        json!({"id": "c", "node": "n", "error": {
            "code": "overheated", "type": "overloaded_error", "retry_after_seconds": 30.0,
            "message": "this node is too hot to take anything new: try again in about 30 s"
        }})
    );
    assert_eq!(property(&hot, "retry-after"), Some("30"));
    // One that the broker sends again was here before.
    let again = Request {
        redelivered: true,
        ..kept(chat("d", false), 1)
    };
    node.accept(&again);
    node.finish(a, "");
    for _ in 0..2 {
        let key = node.start().key;
        node.finish(key, "");
    }
    // The estimate has gone by, and it is as hot as before.
    node.wait(100);
    let hot = message(node.request(&chat("e", false)));
    assert_eq!(property(&hot, "retry-after"), Some("1"));
    assert_eq!(node.service.counts().refused, 2);
    node.service.set_strain(Strain::default());
    node.accept(&chat("f", false));
}

#[test]
fn too_little_memory_is_an_error_of_its_own() {
    let mut node = node(4);
    let strain = refusing(&node, ErrorCode::LowMemory, 20);
    node.service.set_strain(strain);
    let low = message(node.request(&ask("hi")));
    assert_eq!(low.error, Some(ErrorCode::LowMemory));
    let text = String::from_utf8_lossy(&low.payload).into_owned();
    assert!(text.contains("too little memory"), "{text}");
    // It has nothing to do with what can be cancelled, or is wrong anyway.
    assert_eq!(node.next_job(), None);
}

#[test]
fn a_reply_says_that_it_was_slowed_down() {
    let mut node = node(4);
    let slowed = |reply: &Message| parsed(reply)["timings"].get("slowed").cloned();
    let at = |heat| Strain {
        heat,
        refusing: None,
    };
    node.service.set_strain(at(HeatLevel::FewerThreads));
    node.accept(&chat("a", false));
    let a = node.start().key;
    node.service.set_strain(at(HeatLevel::Pauses));
    node.service.set_strain(at(HeatLevel::Normal));
    assert_eq!(slowed(&node.finish(a, "")), Some(json!("pauses")));
    node.accept(&chat("b", false));
    let b = node.start().key;
    assert_eq!(slowed(&node.finish(b, "")), None);
}
