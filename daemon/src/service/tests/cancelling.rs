//! Requests that are given up.

use serde_json::json;

use super::*;

/// A cancel without a response topic: nobody wants to know.
fn cancel(payload: &'static str) -> Request {
    Request {
        topic: "chaski/n/cancel".into(),
        payload: payload.into(),
        ..Request::default()
    }
}

fn answered_at(topic: &str, request: Request) -> Request {
    Request {
        response_topic: Some(topic.into()),
        correlation: Some("mine".into()),
        ..request
    }
}

#[test]
fn one_that_waits_is_answered_at_once_and_leaves_the_running_one_alone() {
    let mut node = node(2);
    node.accept(&chat("a", false));
    let a = node.start();
    node.accept(&chat("b", false));
    node.wait(2);
    let reply = message(node.request(&cancel("b")));
    assert_eq!(reply.topic, "chaski/n/reply/b");
    assert_eq!(property(&reply, "status"), Some("cancelled"));
    let body = parsed(&reply);
    assert_eq!(body["choices"][0]["finish_reason"], "cancelled");
    assert_eq!(body["choices"][0]["message"]["content"], "");
    assert_eq!(body["usage"]["total_tokens"], 0);
    assert_eq!(body["timings"]["queue_seconds"], 2.0);
    assert!(!a.cancel.is_set());
    assert_eq!(node.service.counts().cancelled, 1);
    assert_eq!(node.finish(a.key, "hello").error, None);
    assert!(node.next_job().is_none());
}

#[test]
fn the_running_one_ends_and_those_that_wait_stay() {
    let mut node = node(2);
    node.accept(&chat("a", true));
    let a = node.start();
    node.accept(&chat("b", false));
    assert_eq!(node.request(&cancel(r#"{"id": "a"}"#)), []);
    assert!(a.cancel.is_set() && node.service.is_cancelling());
    let reply = message(node.finished(ended(a.key, "hel", FinishReason::Cancelled)));
    assert_eq!(parsed(&reply)["choices"][0]["finish_reason"], "cancelled");
    assert_eq!(property(&reply, "finish-reason"), Some("cancelled"));
    assert!(!node.service.is_cancelling());
    assert!(!node.start().cancel.is_set());
}

#[test]
fn one_that_was_just_done_is_cancelled_all_the_same() {
    let mut node = node(1);
    node.accept(&chat("a", false));
    let key = node.start().key;
    node.request(&cancel("a"));
    let reply = parsed(&node.finish(key, "hello"));
    assert_eq!(reply["choices"][0]["finish_reason"], "cancelled");
    assert_eq!(reply["choices"][0]["message"]["content"], "hello");
}

#[test]
fn a_prompt_is_cancelled_by_its_correlation_data() {
    let mut node = node(1);
    node.accept(&answered_at("me", ask("hi")));
    let key = node.start().key;
    let confirmed = message(node.request(&answered_at("me", cancel(""))));
    assert_eq!(confirmed.topic, "me");
    assert_eq!(confirmed.correlation.as_deref(), Some(&b"mine"[..]));
    assert_eq!(parsed(&confirmed), json!({"cancelled": 1}));
    let reply = message(node.finished(ended(key, "hel", FinishReason::Cancelled)));
    assert_eq!(&reply.payload[..], b"hel");
    assert_eq!(property(&reply, "finish-reason"), Some("cancelled"));
    assert_eq!(reply.error, None);
}

#[test]
fn a_response_topic_protects_the_requests_of_others() {
    let mut node = node(2);
    node.accept(&answered_at("you", chat("a", false)));
    let you = node.start();
    node.accept(&answered_at("me", chat("a", false)));
    let outputs = node.request(&answered_at("me", cancel("a")));
    let [
        Output::Final { message: reply, .. },
        Output::Publish(confirmed),
    ] = &outputs[..]
    else {
        panic!("{outputs:?}")
    };
    assert_eq!(reply.topic, "me");
    assert_eq!(parsed(confirmed), json!({"id": "a", "cancelled": 1}));
    assert!(!you.cancel.is_set());
}

#[test]
fn a_cancel_that_finds_nothing_says_so_and_meets_the_request_later() {
    let mut node = node(2);
    let refused = message(node.request(&answered_at("me", cancel("a"))));
    assert_eq!(refused.error, Some(ErrorCode::NotFound));
    assert_eq!(parsed(&refused)["id"], "a");
    assert!(refused.droppable);
    let reply = message(node.request(&answered_at("me", chat("a", false))));
    assert_eq!(property(&reply, "status"), Some("cancelled"));
    // Once: the next one is another.
    node.accept(&answered_at("me", chat("a", true)));
}

#[test]
fn a_cancel_that_comes_too_late_does_not_meet_the_next_request() {
    let mut node = node(1);
    node.accept(&chat("a", false));
    let key = node.start().key;
    let finished = node.finished(finished(key, "hello"));
    assert_eq!(node.request(&cancel("a")), []);
    node.delivered(final_of(finished).0.unwrap(), Outcome::Taken);
    assert_eq!(node.request(&cancel("a")), []);
    node.accept(&chat("a", true));
}

#[test]
fn cancels_that_name_nothing_are_told_so() {
    let mut node = node(1);
    let refused = message(node.request(&cancel("")));
    assert_eq!(refused.topic, "chaski/n/reply/unknown");
    assert_eq!(refused.error, Some(ErrorCode::InvalidRequest));
    let refused = message(node.request(&answered_at("a/#", cancel("a"))));
    assert_eq!(refused.error, Some(ErrorCode::InvalidResponseTopic));
}

#[test]
fn a_cancel_is_acknowledged_at_once() {
    let mut node = node(1);
    let ack = Output::Ack(Receipt::new(1, 9));
    assert_eq!(node.request(&kept(cancel("a"), 9)), [ack]);
}
