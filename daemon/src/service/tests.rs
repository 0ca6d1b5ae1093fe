mod cancelling;
mod controlling;
mod delivering;
mod keeping;
mod limiting;
mod node;
mod overflowing;

use bytes::Bytes;
use chaski_engine::FinishReason;
use serde_json::{Value, json};

use super::*;
use crate::inference::{Finished, Prompt};
use crate::mqtt::Receipt;
use crate::wire::Reply;
use node::*;

#[test]
fn a_prompt_in_and_text_out() {
    let mut node = node(1);
    node.accept(&ask("hi"));
    let job = node.start();
    assert_eq!(
        job.prompt,
        Prompt::Text {
            text: "hi".into(),
            system: None
        }
    );
    assert_eq!(
        (job.max_tokens, job.sampling.temperature, job.stream),
        (512, Some(0.5), false)
    );
    let reply = node.finish(job.key, "hello");
    assert_eq!(
        (reply.topic.as_str(), &reply.payload[..]),
        ("chaski/n/answer", &b"hello"[..])
    );
    assert_eq!((reply.retain, reply.error), (false, None));
    assert_eq!(
        reply.user,
        [
            ("node", "n".to_owned()),
            ("status", "done".to_owned()),
            ("finish-reason", "stop".to_owned())
        ]
    );
    assert!(node.service.is_idle());
}

#[test]
fn response_topic_and_correlation_data_are_honoured() {
    let mut node = node(1);
    let correlation = Some(Bytes::from_static(b"\x00\xffc"));
    for request in [ask("hi"), chat("x", false)] {
        let request = Request {
            response_topic: Some("me/inbox".into()),
            correlation: correlation.clone(),
            ..request
        };
        node.accept(&request);
        let key = node.start().key;
        let reply = node.finish(key, "hello");
        assert_eq!(
            (reply.topic.as_str(), &reply.correlation),
            ("me/inbox", &correlation)
        );
    }
}

#[test]
fn a_chat_completion() {
    let mut node = node(1);
    node.accept(&chat("q1", false));
    node.wait(3);
    let job = node.start();
    let reply = node.finish(job.key, "hello");
    assert_eq!(reply.topic, "chaski/n/reply/q1");
    let Reply::Completion(completion) = Reply::parse(&reply.payload).unwrap() else {
        panic!("not a completion")
    };
    assert_eq!(
        (completion.id.as_str(), completion.model.as_str()),
        ("q1", "tiny")
    );
    assert_eq!(completion.choices[0].message.content, "hello");
    assert_eq!(completion.choices[0].finish_reason, "stop");
    assert_eq!(completion.usage.total_tokens, 7);
    let timings = completion.timings;
    assert_eq!(
        (
            timings.prefill_tokens_per_second,
            timings.decode_tokens_per_second
        ),
        (2.0, 2.0)
    );
    assert!(timings.queue_seconds > 2.9);
}

#[test]
fn a_stream_is_numbered_and_ends_with_usage() {
    let mut node = node(1);
    node.accept(&chat("q1", true));
    let job = node.start();
    assert!(job.stream);
    let default = crate::config::Stream::default();
    assert_eq!(job.chunking, Chunking::from(&default));
    let first = parsed(&message(node.piece(job.key, "he")));
    let second = parsed(&message(node.piece(job.key, "llo")));
    let last = parsed(&node.finish(job.key, "hello"));
    assert_eq!(
        [&first["sequence"], &second["sequence"], &last["sequence"]],
        [0, 1, 2]
    );
    assert_eq!(
        first["choices"][0]["delta"],
        json!({"role": "assistant", "content": "he"})
    );
    assert_eq!(second["choices"][0]["delta"], json!({"content": "llo"}));
    assert_eq!(second["choices"][0]["finish_reason"], Value::Null);
    assert!(second.get("usage").is_none());
    assert_eq!(
        last["choices"][0],
        json!({"index": 0, "delta": {}, "finish_reason": "stop"})
    );
    assert_eq!(last["usage"]["completion_tokens"], 2);
    assert_eq!(last["timings"]["decode_tokens"], 3);
}

#[test]
fn the_last_chunk_brings_the_whole_text_if_asked_to() {
    let mut node = node(1);
    let payload = json!({
        "id": "q1", "messages": [{"role": "user", "content": "hi"}], "stream": true,
        "stream_options": {"include_text": true}
    });
    let request = Request {
        topic: "chaski/n/chat".into(),
        payload: payload.to_string().into(),
        ..Request::default()
    };
    node.accept(&request);
    let key = node.start().key;
    let first = parsed(&message(node.piece(key, "he")));
    assert!(first["choices"][0].get("message").is_none());
    let last = node.finish(key, "hello");
    assert_eq!(
        parsed(&last)["choices"][0],
        json!({
            "index": 0, "delta": {}, "message": {"role": "assistant", "content": "hello"},
            "finish_reason": "stop"
        })
    );
    assert_eq!(parsed(&last)["usage"]["completion_tokens"], 2);
}

#[test]
fn in_order_and_busy_beyond_the_depth() {
    let mut node = node(2);
    node.accept(&chat("a", false));
    let a = node.start();
    node.accept(&chat("b", false));
    node.accept(&chat("c", false));
    let busy = message(node.request(&chat("d", false)));
    assert_eq!(
        (busy.topic.as_str(), busy.error),
        ("chaski/n/reply/d", Some(ErrorCode::Busy))
    );
    assert_eq!(parsed(&busy)["error"]["code"], "busy");
    assert!(node.next_job().is_none(), "one at a time");
    node.finish(a.key, "");
    let b = node.start();
    node.accept(&chat("d", false));
    assert_eq!(node.finish(b.key, "").topic, "chaski/n/reply/b");
}

#[test]
fn a_request_without_id_gets_one() {
    let mut node = node(2);
    for _ in 0..2 {
        let request = Request {
            topic: "chaski/n/chat".into(),
            payload: json!({"messages": [{"role": "user", "content": "hi"}]})
                .to_string()
                .into(),
            response_topic: Some("me".into()),
            ..Request::default()
        };
        node.accept(&request);
    }
    let mut ids = Vec::new();
    for _ in 0..2 {
        let key = node.start().key;
        let reply = parsed(&node.finish(key, ""));
        ids.push(reply["id"].as_str().unwrap().to_owned());
    }
    assert!(
        ids[0].starts_with("chatcmpl-") && ids[0] != ids[1],
        "{ids:?}"
    );
}

#[test]
fn errors_to_ask_are_plain_text() {
    let mut node = node(1);
    let reply = message(node.request(&ask("")));
    assert!(reply.payload.starts_with(b"error: "), "{:?}", reply.payload);
    assert_eq!(reply.error, Some(ErrorCode::EmptyPrompt));
    assert_eq!(reply.topic, "chaski/n/answer");
}

#[test]
fn an_error_of_the_generator_reaches_the_client() {
    let mut node = node(1);
    node.accept(&chat("a", true));
    let key = node.start().key;
    let refusal = Refusal::new(ErrorCode::ContextLengthExceeded, "too long");
    let reply = message(node.finished(Finished {
        key,
        result: Err(refusal),
    }));
    assert_eq!(
        parsed(&reply),
        json!({"id": "a", "node": "n", "error": {
            "code": "context_length_exceeded", "message": "too long", "type": "invalid_request_error"
        }})
    );
}

#[test]
fn stopping_refuses_what_waits_and_cancels_what_runs() {
    let mut node = node(2);
    node.accept(&chat("a", false));
    node.accept(&chat("b", false));
    let a = node.start();
    let refused = message(node.stop());
    assert_eq!(
        (refused.topic.as_str(), refused.error),
        ("chaski/n/reply/b", Some(ErrorCode::ShuttingDown))
    );
    assert!(a.cancel.is_set());
    let late = message(node.request(&chat("c", false)));
    assert_eq!(late.error, Some(ErrorCode::ShuttingDown));
    let reply = message(node.finished(ended(a.key, "par", FinishReason::Cancelled)));
    assert_eq!(reply.error, Some(ErrorCode::ShuttingDown));
    assert!(node.service.is_idle() && node.next_job().is_none());
}

#[test]
fn an_answer_that_was_whole_when_the_node_stopped_is_sent() {
    let mut node = node(2);
    node.accept(&chat("a", false));
    let key = node.start().key;
    node.stop();
    assert_eq!(node.finish(key, "hello").error, None);
}

#[test]
fn events_of_another_job_are_ignored() {
    let mut node = node(1);
    node.accept(&chat("a", true));
    let key = node.start().key;
    assert_eq!(node.piece(key + 1, "x"), []);
    assert_eq!(node.finished(finished(key + 1, "x")), []);
    assert!(!node.service.is_idle());
}

#[test]
fn a_fault_is_told_to_the_one_who_waits() {
    let mut node = node(1);
    node.accept(&ask("hi"));
    node.start();
    let mut out = Vec::new();
    node.service.on_inference_lost(&mut out);
    assert_eq!(message(out).error, Some(ErrorCode::Internal));
    let mut out = Vec::new();
    node.service.on_inference_lost(&mut out);
    assert_eq!(out, []);
}

#[test]
fn other_topics_are_left_alone() {
    let mut node = node(1);
    let request = Request {
        topic: "chaski/n/status".into(),
        ..Request::default()
    };
    assert_eq!(node.request(&request), []);
    // The broker need not keep what is none of ours.
    assert_eq!(
        node.request(&kept(request, 1)),
        [Output::Ack(Receipt::new(1, 1))]
    );
    assert!(node.next_job().is_none());
}
