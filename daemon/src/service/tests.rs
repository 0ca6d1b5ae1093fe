use bytes::Bytes;
use chaski_engine::{FinishReason, Generated, Timings};
use serde_json::{Value, json};

use super::*;
use crate::inference::{Completed, Prompt};
use crate::wire::Reply;

fn service(queue_depth: usize) -> Service {
    let mut config = Config::for_model("m");
    config.node.name = "n".into();
    config.limits.queue_depth = queue_depth;
    config.generation.temperature = Some(0.5);
    Service::new(&config, "tiny".into())
}

fn chat(id: &str, stream: bool) -> Request {
    let payload =
        json!({"id": id, "stream": stream, "messages": [{"role": "user", "content": "hi"}]});
    Request {
        topic: "chaski/n/chat".into(),
        payload: payload.to_string().into(),
        ..Request::default()
    }
}

fn ask(prompt: &'static str) -> Request {
    Request {
        topic: "chaski/n/ask".into(),
        payload: prompt.into(),
        ..Request::default()
    }
}

fn finished(key: u64, text: &str) -> Finished {
    Finished {
        key,
        result: Ok(Completed {
            prompt_tokens: 5,
            generated: Generated {
                text: text.into(),
                tokens: vec![1, 2],
                finish_reason: FinishReason::Stop,
                timings: Timings {
                    prefill_tokens: 4,
                    cached_tokens: 1,
                    prefill: Duration::from_secs(2),
                    decode_tokens: 3,
                    decode: Duration::from_secs(1),
                    ..Timings::default()
                },
            },
        }),
    }
}

fn accept(service: &mut Service, request: &Request) {
    assert_eq!(service.on_request(request, Instant::now()), None);
}

fn start(service: &mut Service) -> Job {
    service.next_job(Instant::now()).unwrap()
}

fn parsed(message: &Message) -> Value {
    serde_json::from_slice(&message.payload).unwrap()
}

#[test]
fn a_prompt_in_and_text_out() {
    let mut service = service(1);
    accept(&mut service, &ask("hi"));
    let job = start(&mut service);
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
    let reply = service.on_finished(finished(job.key, "hello")).unwrap();
    assert_eq!(
        (reply.topic.as_str(), &reply.payload[..]),
        ("chaski/n/answer", &b"hello"[..])
    );
    assert_eq!((reply.retain, reply.error), (false, None));
    assert!(service.is_idle());
}

#[test]
fn response_topic_and_correlation_data_are_honoured() {
    let mut service = service(1);
    let correlation = Some(Bytes::from_static(b"\x00\xffc"));
    for request in [ask("hi"), chat("x", false)] {
        let request = Request {
            response_topic: Some("me/inbox".into()),
            correlation: correlation.clone(),
            ..request
        };
        accept(&mut service, &request);
        let key = start(&mut service).key;
        let reply = service.on_finished(finished(key, "hello")).unwrap();
        assert_eq!(
            (reply.topic.as_str(), &reply.correlation),
            ("me/inbox", &correlation)
        );
    }
}

#[test]
fn a_chat_completion() {
    let mut service = service(1);
    accept(&mut service, &chat("q1", false));
    let job = service
        .next_job(Instant::now() + Duration::from_secs(3))
        .unwrap();
    let reply = service.on_finished(finished(job.key, "hello")).unwrap();
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
    let mut service = service(1);
    accept(&mut service, &chat("q1", true));
    let job = start(&mut service);
    assert!(job.stream);
    assert_eq!(
        job.chunking,
        Chunking::from(&crate::config::Stream::default())
    );
    let first = parsed(&service.on_piece(job.key, "he".into()).unwrap());
    let second = parsed(&service.on_piece(job.key, "llo".into()).unwrap());
    let last = parsed(&service.on_finished(finished(job.key, "hello")).unwrap());
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
    let mut service = service(1);
    let payload = json!({
        "id": "q1", "messages": [{"role": "user", "content": "hi"}], "stream": true,
        "stream_options": {"include_text": true}
    });
    let request = Request {
        topic: "chaski/n/chat".into(),
        payload: payload.to_string().into(),
        ..Request::default()
    };
    accept(&mut service, &request);
    let job = start(&mut service);
    let first = parsed(&service.on_piece(job.key, "he".into()).unwrap());
    assert!(first["choices"][0].get("message").is_none());
    let last = parsed(&service.on_finished(finished(job.key, "hello")).unwrap());
    assert_eq!(
        last["choices"][0],
        json!({
            "index": 0, "delta": {}, "message": {"role": "assistant", "content": "hello"},
            "finish_reason": "stop"
        })
    );
    assert_eq!(last["usage"]["completion_tokens"], 2);
}

#[test]
fn in_order_and_busy_beyond_the_depth() {
    let mut service = service(2);
    accept(&mut service, &chat("a", false));
    let a = start(&mut service);
    accept(&mut service, &chat("b", false));
    accept(&mut service, &chat("c", false));
    let busy = service
        .on_request(&chat("d", false), Instant::now())
        .unwrap();
    assert_eq!(
        (busy.topic.as_str(), busy.error),
        ("chaski/n/reply/d", Some(ErrorCode::Busy))
    );
    assert_eq!(parsed(&busy)["error"]["code"], "busy");
    assert!(service.next_job(Instant::now()).is_none(), "one at a time");
    service.on_finished(finished(a.key, "")).unwrap();
    let b = start(&mut service);
    accept(&mut service, &chat("d", false));
    assert_eq!(
        service.on_finished(finished(b.key, "")).unwrap().topic,
        "chaski/n/reply/b"
    );
}

#[test]
fn a_request_without_id_gets_one() {
    let mut service = service(2);
    for _ in 0..2 {
        let request = Request {
            topic: "chaski/n/chat".into(),
            payload: json!({"messages": [{"role": "user", "content": "hi"}]})
                .to_string()
                .into(),
            response_topic: Some("me".into()),
            ..Request::default()
        };
        accept(&mut service, &request);
    }
    let mut ids = Vec::new();
    for _ in 0..2 {
        let key = start(&mut service).key;
        let reply = parsed(&service.on_finished(finished(key, "")).unwrap());
        ids.push(reply["id"].as_str().unwrap().to_owned());
    }
    assert!(
        ids[0].starts_with("chatcmpl-") && ids[0] != ids[1],
        "{ids:?}"
    );
}

#[test]
fn errors_to_ask_are_plain_text() {
    let mut service = service(1);
    let reply = service.on_request(&ask(""), Instant::now()).unwrap();
    assert!(reply.payload.starts_with(b"error: "), "{:?}", reply.payload);
    assert_eq!(reply.error, Some(ErrorCode::EmptyPrompt));
    assert_eq!(reply.topic, "chaski/n/answer");
}

#[test]
fn an_error_of_the_generator_reaches_the_client() {
    let mut service = service(1);
    accept(&mut service, &chat("a", true));
    let key = start(&mut service).key;
    let refusal = Refusal::new(ErrorCode::ContextLengthExceeded, "too long");
    let reply = service
        .on_finished(Finished {
            key,
            result: Err(refusal),
        })
        .unwrap();
    assert_eq!(
        parsed(&reply),
        json!({"id": "a", "error": {
            "code": "context_length_exceeded", "message": "too long", "type": "invalid_request_error"
        }})
    );
}

#[test]
fn stopping_refuses_what_waits_and_cancels_what_runs() {
    let mut service = service(2);
    accept(&mut service, &chat("a", false));
    accept(&mut service, &chat("b", false));
    let a = start(&mut service);
    let refused = service.stop();
    assert_eq!(refused.len(), 1);
    assert_eq!(
        (refused[0].topic.as_str(), refused[0].error),
        ("chaski/n/reply/b", Some(ErrorCode::ShuttingDown))
    );
    assert!(a.cancel.is_set());
    let late = service
        .on_request(&chat("c", false), Instant::now())
        .unwrap();
    assert_eq!(late.error, Some(ErrorCode::ShuttingDown));
    let reply = service.on_finished(finished(a.key, "par")).unwrap();
    assert_eq!(reply.error, Some(ErrorCode::ShuttingDown));
    assert!(service.is_idle() && service.next_job(Instant::now()).is_none());
}

#[test]
fn events_of_another_job_are_ignored() {
    let mut service = service(1);
    accept(&mut service, &chat("a", true));
    let key = start(&mut service).key;
    assert_eq!(service.on_piece(key + 1, "x".into()), None);
    assert_eq!(service.on_finished(finished(key + 1, "x")), None);
    assert!(!service.is_idle());
}

#[test]
fn a_fault_is_told_to_the_one_who_waits() {
    let mut service = service(1);
    accept(&mut service, &ask("hi"));
    start(&mut service);
    let reply = service.on_inference_lost().unwrap();
    assert_eq!(reply.error, Some(ErrorCode::Internal));
    assert!(service.on_inference_lost().is_none());
}

#[test]
fn other_topics_are_left_alone() {
    let mut service = service(1);
    let request = Request {
        topic: "chaski/n/status".into(),
        ..Request::default()
    };
    assert_eq!(service.on_request(&request, Instant::now()), None);
    assert!(service.next_job(Instant::now()).is_none());
}
