//! Answers that survive a restart.

use super::*;
use crate::mqtt::Message;
use crate::service::Kept;

fn keeping() -> Node {
    let mut config = config(4);
    config.delivery.answers_file = Some("answers".into());
    Node::new(&config)
}

/// Has a request answered: what is to be written down first, and the reply.
fn answered(node: &mut Node, request: &Request) -> (Option<Kept>, Option<u64>, Message) {
    node.accept(request);
    let key = node.start().key;
    let mut outputs = node.finished(finished(key, "hello"));
    let kept = match &outputs[0] {
        Output::Keep(kept) => Some((**kept).clone()),
        _ => None,
    };
    outputs.retain(|output| !matches!(output, Output::Keep(_)));
    let (key, message) = final_of(outputs);
    (kept, key, message)
}

/// Through a file and back.
fn written(kept: &Kept) -> Kept {
    serde_json::from_slice(&serde_json::to_vec(kept).unwrap()).unwrap()
}

#[test]
fn the_next_run_gives_the_same_answer_again() {
    for request in [
        chat("a", false),
        Request {
            correlation: Some(Bytes::from_static(b"\x00\xff")),
            response_topic: Some("me".into()),
            ..ask("hi")
        },
        kept(ask("hi"), 3),
    ] {
        let (kept, _, reply) = answered(&mut keeping(), &request);
        let mut next = keeping();
        next.service.restore([written(&kept.unwrap())], next.now);
        let again = Request {
            redelivered: true,
            receipt: Some(Receipt::new(1, 9)),
            ..request
        };
        let (_, message) = final_of(next.request(&again));
        assert_eq!(message, reply);
        assert!(next.next_job().is_none());
    }
}

#[test]
fn of_a_stream_the_whole_text() {
    let (kept, _, last) = answered(&mut keeping(), &chat("a", true));
    assert!(parsed(&last)["choices"][0].get("message").is_none());
    let mut next = keeping();
    next.service.restore([written(&kept.unwrap())], next.now);
    let again = parsed(&final_of(next.request(&chat("a", true))).1);
    assert_eq!(again["choices"][0]["message"]["content"], "hello");
    assert_eq!(again["created"], parsed(&last)["created"]);
}

#[test]
fn only_what_may_come_again_is_written_down() {
    let mut node = keeping();
    assert!(answered(&mut node, &ask("hi")).0.is_none());
    assert!(answered(&mut node, &chat("a", false)).0.is_some());
    let mut without = super::node(4);
    assert!(answered(&mut without, &chat("a", false)).0.is_none());
}

#[test]
fn all_that_is_kept_and_all_on_its_way() {
    let mut node = keeping();
    let (first, key, _) = answered(&mut node, &chat("a", false));
    node.delivered(key.unwrap(), Outcome::Taken);
    let (second, ..) = answered(&mut node, &chat("b", false));
    let all: Vec<_> = node.service.kept(node.now).collect();
    assert_eq!(all, [first.unwrap(), second.unwrap()]);
}

#[test]
fn one_that_is_too_old_is_forgotten() {
    let (kept, ..) = answered(&mut keeping(), &chat("a", false));
    let mut old = serde_json::to_value(kept.unwrap()).unwrap();
    for (seconds, known) in [(590, true), (601, false)] {
        old["at"] = (unix_time() - seconds).into();
        let mut next = keeping();
        next.service
            .restore([serde_json::from_value(old.clone()).unwrap()], next.now);
        let outputs = next.request(&chat("a", false));
        assert_eq!(!outputs.is_empty(), known, "{seconds} s");
    }
}

#[test]
fn chunks_of_another_run_have_another_time() {
    let mut node = node(1);
    node.accept(&chat("a", true));
    let key = node.start().key;
    let chunk = parsed(&message(node.piece(key, "he")));
    assert!(chunk["created"].as_u64().unwrap() > node.service.started);
}
