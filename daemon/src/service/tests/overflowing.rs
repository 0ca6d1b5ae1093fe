//! More requests than the broker was asked for.

use super::*;

/// A node of this depth with one request that runs, and the queue full.
fn full(depth: usize) -> (Node, u64) {
    let mut node = node(depth);
    node.accept(&kept(chat("runs", false), 1));
    let running = node.start().key;
    for n in 0..depth {
        node.accept(&kept(chat(&format!("w{n}"), false), n as u16 + 2));
    }
    (node, running)
}

/// The id that the next job's answer has.
fn next_id(node: &mut Node, running: u64) -> (String, u64) {
    node.finished(finished(running, ""));
    let key = node.start().key;
    let reply = node.finish(key, "");
    (parsed(&reply)["id"].as_str().unwrap().to_owned(), key)
}

#[test]
fn they_wait_in_their_order_and_are_answered() {
    let (mut node, running) = full(2);
    for n in 0..20 {
        node.accept(&kept(chat(&format!("o{n}"), false), 10 + n));
    }
    assert_eq!(node.service.waiting(), 2);
    node.finish(running, "");
    let mut ids = Vec::new();
    while let Some(job) = node.next_job() {
        let reply = node.finish(job.key, "");
        ids.push(parsed(&reply)["id"].as_str().unwrap().to_owned());
    }
    let waited = (0..2).map(|n| format!("w{n}"));
    let expected: Vec<_> = waited.chain((0..20).map(|n| format!("o{n}"))).collect();
    assert_eq!(ids, expected);
}

#[test]
fn one_that_the_broker_does_not_keep_is_refused() {
    let (mut node, _) = full(1);
    node.accept(&kept(chat("o", false), 9));
    let busy = message(node.request(&chat("lost", false)));
    assert_eq!(busy.error, Some(ErrorCode::Busy));
    let mut without = config(1);
    without.broker.session_expiry = 0;
    let mut node = Node::new(&without);
    node.accept(&kept(chat("a", false), 1));
    let (_, busy) = final_of(node.request(&kept(chat("b", false), 2)));
    assert_eq!(busy.error, Some(ErrorCode::Busy));
}

#[test]
fn bounded_in_bytes() {
    let (mut node, _) = full(1);
    let large = |n: u16| Request {
        payload: vec![b'x'; 1 << 20].into(),
        ..kept(chat("o", false), n)
    };
    for n in 0..3 {
        node.accept(&large(10 + n));
    }
    let (_, refused) = final_of(node.request(&large(20)));
    assert!(refused.error.is_some());
}

#[test]
fn a_lost_connection_takes_them_and_brings_them_again() {
    let (mut node, running) = full(1);
    node.accept(&kept(chat("o", false), 9));
    node.service.on_connection_lost();
    node.accept(&kept(chat("o", false), 3));
    assert_eq!(next_id(&mut node, running).0, "w0");
    let job = node.start();
    assert_eq!(parsed(&node.finish(job.key, ""))["id"], "o");
    assert!(node.next_job().is_none());
}

#[test]
fn what_expires_meanwhile_is_told() {
    let (mut node, running) = full(1);
    node.accept(&Request {
        expires: Some(Duration::from_secs(5)),
        ..kept(chat("o", false), 9)
    });
    node.wait(6);
    node.finish(running, "");
    node.start();
    let (_, expired) = final_of(node.timer());
    assert_eq!(expired.error, Some(ErrorCode::Expired));
}

#[test]
fn they_take_the_place_of_one_that_is_not_computed() {
    let (mut node, running) = full(1);
    node.accept(&kept(chat("o", false), 9));
    let cancel = Request {
        topic: "chaski/n/cancel".into(),
        payload: "w0".into(),
        ..Request::default()
    };
    final_of(node.request(&cancel));
    assert_eq!(node.service.waiting(), 1);
    // The one behind it comes in when it is computed.
    node.accept(&kept(chat("p", false), 10));
    assert_eq!(next_id(&mut node, running).0, "o");
    let job = node.start();
    assert_eq!(parsed(&node.finish(job.key, ""))["id"], "p");
}

#[test]
fn the_same_request_again_does_not_wait_here() {
    let (mut node, running) = full(1);
    let again = Request {
        redelivered: true,
        ..kept(chat("w0", false), 9)
    };
    node.accept(&again);
    assert_eq!(next_id(&mut node, running).0, "w0");
    assert!(node.next_job().is_none());
}

#[test]
fn a_node_that_drains_answers_what_it_has() {
    let (mut node, running) = full(1);
    node.accept(&kept(chat("o", false), 9));
    node.service.draining = true;
    let (_, refused) = final_of(node.request(&kept(chat("late", false), 10)));
    assert_eq!(refused.error, Some(ErrorCode::Draining));
    assert_eq!(next_id(&mut node, running).0, "w0");
    let job = node.start();
    assert_eq!(parsed(&node.finish(job.key, ""))["id"], "o");
}
