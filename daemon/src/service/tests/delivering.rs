//! Receipts, requests that come again, and replies that do not get through.

use super::*;

/// As the broker sends it by connection `generation`, where it was sent before.
fn again(request: &Request, generation: u64, packet_id: u16) -> Request {
    Request {
        redelivered: true,
        receipt: Some(Receipt::new(generation, packet_id)),
        ..request.clone()
    }
}

fn ack(generation: u64, packet_id: u16) -> Output {
    Output::Ack(Receipt::new(generation, packet_id))
}

#[test]
fn acknowledged_once_the_broker_has_the_answer() {
    let mut node = node(2);
    node.accept(&kept(chat("a", false), 7));
    let job = node.start();
    let (key, reply) = final_of(node.finished(finished(job.key, "hello")));
    assert!(!reply.droppable);
    let key = key.unwrap();
    assert_eq!(node.delivered(key, Outcome::Taken), [ack(1, 7)]);
    assert_eq!(node.delivered(key, Outcome::Taken), []);
}

#[test]
fn errors_are_as_sure_as_their_requests() {
    let mut node = node(1);
    let refused = message(node.request(&ask("")));
    assert!(refused.droppable);
    let (key, refused) = final_of(node.request(&kept(ask(""), 3)));
    assert!(!refused.droppable);
    assert_eq!(node.delivered(key.unwrap(), Outcome::Taken), [ack(1, 3)]);
}

#[test]
fn a_request_that_comes_again_is_computed_once() {
    let mut node = node(2);
    let request = chat("a", false);
    node.accept(&kept(request.clone(), 1));
    // While it waits, while it runs, while its answer is on its way.
    node.service.on_connection_lost();
    node.accept(&again(&request, 2, 1));
    let job = node.start();
    node.accept(&again(&request, 2, 2));
    let (key, first) = final_of(node.finished(finished(job.key, "hello")));
    node.accept(&again(&request, 2, 3));
    assert_eq!(
        node.delivered(key.unwrap(), Outcome::Taken),
        [ack(2, 1), ack(2, 2), ack(2, 3)]
    );
    assert_eq!(node.service.counts().repeated, 3);
    assert!(node.next_job().is_none());
    // When it is answered, as often as it comes.
    for packet_id in 4..6 {
        let (key, reply) = final_of(node.request(&again(&request, 2, packet_id)));
        assert_eq!(reply, first);
        assert_eq!(
            node.delivered(key.unwrap(), Outcome::Taken),
            [ack(2, packet_id)]
        );
    }
    assert_eq!(node.service.counts().answered, 1);
}

#[test]
fn the_same_id_with_another_question_is_another_request() {
    let mut node = node(2);
    node.accept(&chat("a", false));
    let job = node.start();
    let (key, _) = final_of(node.finished(finished(job.key, "hello")));
    node.delivered(key.unwrap(), Outcome::Taken);
    node.accept(&chat("a", true));
    assert!(node.next_job().is_some());
}

#[test]
fn an_error_is_not_kept() {
    let mut config = config(2);
    config.limits.per_client_depth = Some(1);
    let mut node = Node::new(&config);
    node.accept(&chat("a", false));
    let waits = kept(chat("b", false), 1);
    let (key, busy) = final_of(node.request(&waits));
    assert_eq!(busy.error, Some(ErrorCode::Busy));
    node.delivered(key.unwrap(), Outcome::Taken);
    node.start();
    node.accept(&waits);
}

#[test]
fn a_streamed_answer_is_sent_again_in_one_message() {
    let mut node = node(1);
    let request = chat("a", true);
    node.accept(&kept(request.clone(), 1));
    let key = node.start().key;
    node.piece(key, "he");
    node.piece(key, "llo");
    let (key, last) = final_of(node.finished(finished(key, "hello")));
    assert!(parsed(&last)["choices"][0].get("message").is_none());
    node.delivered(key.unwrap(), Outcome::Taken);
    let (_, whole) = final_of(node.request(&again(&request, 1, 2)));
    let mut expected = parsed(&last);
    expected["choices"][0]["message"] = json!({"role": "assistant", "content": "hello"});
    assert_eq!(parsed(&whole), expected);
    assert_eq!((whole.topic, whole.user), (last.topic, last.user));
}

#[test]
fn requests_without_a_name_are_told_apart_by_the_broker_alone() {
    let mut node = node(4);
    let request = ask("hi");
    node.accept(&kept(request.clone(), 1));
    node.accept(&kept(request.clone(), 2));
    assert_eq!(node.service.waiting(), 2);
    node.service.on_connection_lost();
    // Each is counted for one of them; a third is new.
    for packet_id in 1..=3 {
        node.accept(&again(&request, 2, packet_id));
    }
    assert_eq!(node.service.waiting(), 3);
    for packet_id in 1..=3 {
        let key = node.start().key;
        let (key, _) = final_of(node.finished(finished(key, "hello")));
        assert_eq!(
            node.delivered(key.unwrap(), Outcome::Taken),
            [ack(2, packet_id)]
        );
    }
    // One that was answered, but not acknowledged in time.
    let (key, _) = final_of(node.request(&again(&request, 3, 1)));
    assert_eq!(node.delivered(key.unwrap(), Outcome::Taken), [ack(3, 1)]);
    // The same question once more.
    node.accept(&kept(request, 2));
}

#[test]
fn a_request_with_a_name_has_the_same_seed_in_every_run() {
    let seed = |request: &Request| {
        let mut node = node(1);
        node.accept(request);
        node.start().sampling.seed
    };
    let named = chat("a", false);
    assert!(seed(&named).is_some());
    assert_eq!(seed(&named), seed(&named));
    assert_ne!(seed(&named), seed(&chat("b", false)));
    assert_eq!(seed(&ask("hi")), None);
    let given = json!({"id": "a", "seed": 5, "messages": [{"role": "user", "content": "hi"}]});
    let given = Request {
        payload: given.to_string().into(),
        ..named
    };
    assert_eq!(seed(&given), Some(5));
}

#[test]
fn an_id_made_up_for_correlation_data_is_the_same_in_every_run() {
    let id = || {
        let mut node = node(1);
        node.accept(&Request {
            topic: "chaski/n/chat".into(),
            payload: r#"{"messages": [{"role": "user", "content": "hi"}]}"#.into(),
            response_topic: Some("me".into()),
            correlation: Some("1".into()),
            ..Request::default()
        });
        let key = node.start().key;
        parsed(&node.finish(key, "hello"))["id"].clone()
    };
    assert_eq!(id(), id());
}

#[test]
fn what_the_broker_refuses_is_counted_and_not_tried_again() {
    let mut node = node(1);
    let request = chat("a", false);
    node.accept(&kept(request.clone(), 1));
    let key = node.start().key;
    let (key, _) = final_of(node.finished(finished(key, "hello")));
    let refused = Outcome::Refused("NotAuthorized".into());
    assert_eq!(node.delivered(key.unwrap(), refused), [ack(1, 1)]);
    assert_eq!(node.service.counts().undelivered, 1);
    // A client that asks again is heard: it may have been given the right meanwhile.
    node.accept(&request);
}

#[test]
fn an_answer_too_large_for_the_broker_becomes_an_error() {
    let mut node = node(1);
    node.accept(&kept(chat("a", false), 1));
    let key = node.start().key;
    let (key, _) = final_of(node.finished(finished(key, "hello")));
    let too_large = || Outcome::TooLarge {
        size: 2000,
        max: 1000,
    };
    let (key, error) = final_of(node.delivered(key.unwrap(), too_large()));
    assert_eq!(error.error, Some(ErrorCode::ReplyTooLarge));
    assert_eq!(error.topic, "chaski/n/reply/a");
    let text = String::from_utf8_lossy(&error.payload).into_owned();
    assert!(
        text.contains("2000 bytes") && text.contains("1000"),
        "{text}"
    );
    // If not even that gets through, the broker shall not send the request for ever.
    assert_eq!(node.delivered(key.unwrap(), too_large()), [ack(1, 1)]);
    assert_eq!(node.service.counts().undelivered, 1);
}

#[test]
fn a_node_that_goes_down_leaves_to_the_broker_what_that_keeps() {
    let mut node = node(4);
    node.accept(&kept(chat("runs", false), 1));
    let runs = node.start();
    node.accept(&kept(chat("waits", false), 2));
    node.accept(&chat("nobody keeps", false));
    let refused = message(node.stop());
    assert_eq!(refused.topic, "chaski/n/reply/nobody keeps");
    assert_eq!(refused.error, Some(ErrorCode::ShuttingDown));
    assert!(runs.cancel.is_set());
    assert_eq!(
        node.finished(ended(runs.key, "par", FinishReason::Cancelled)),
        []
    );
    assert_eq!(node.request(&kept(chat("late", false), 3)), []);
    assert!(node.service.is_idle());
}

#[test]
fn without_a_session_nothing_is_left_to_the_broker() {
    let mut config = config(2);
    config.broker.session_expiry = 0;
    let mut node = Node::new(&config);
    node.accept(&kept(chat("a", false), 1));
    let refused = message(node.stop());
    assert_eq!(refused.error, Some(ErrorCode::ShuttingDown));
    let late = message(node.request(&kept(chat("late", false), 2)));
    assert_eq!(late.error, Some(ErrorCode::ShuttingDown));
}

#[test]
fn a_fault_is_not_met_again_at_the_next_start() {
    let mut node = node(1);
    node.accept(&kept(chat("a", false), 1));
    node.start();
    let mut out = Vec::new();
    node.service.on_inference_lost(&mut out);
    let (key, error) = final_of(out);
    assert_eq!(error.error, Some(ErrorCode::Internal));
    assert_eq!(node.delivered(key.unwrap(), Outcome::Taken), [ack(1, 1)]);
}
