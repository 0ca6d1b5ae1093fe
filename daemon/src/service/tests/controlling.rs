//! Groups, and commands for the node.

use super::*;
use crate::service::{Command, Done};
use crate::wire::ControlReply;

fn node_of_group() -> Node {
    let mut config = config(4);
    config.node.group = Some("g".into());
    config.control.drain = true;
    config.control.models_folder = Some("models".into());
    Node::new(&config)
}

fn command(text: &'static str, response_topic: Option<&str>) -> Request {
    Request {
        topic: "chaski/n/control".into(),
        payload: text.into(),
        response_topic: response_topic.map(str::to_owned),
        ..Request::default()
    }
}

fn of_group(request: Request) -> Request {
    Request {
        topic: request.topic.replace("/n/", "/g/"),
        ..request
    }
}

#[test]
fn questions_to_the_group_are_answered_below_it_and_name_the_node() {
    let mut node = node_of_group();
    node.accept(&of_group(chat("a", false)));
    let key = node.start().key;
    let reply = node.finish(key, "yes");
    assert_eq!(reply.topic, "chaski/g/reply/a");
    assert_eq!(property(&reply, "node"), Some("n"));
    assert_eq!(parsed(&reply)["node"], "n");
    node.accept(&of_group(ask("hi")));
    let key = node.start().key;
    assert_eq!(node.finish(key, "yes").topic, "chaski/g/answer");
    // The same question to the node itself is another one.
    node.accept(&chat("a", false));
}

#[test]
fn without_a_group_its_topics_are_nothing_to_us() {
    let mut node = node(1);
    node.accept(&of_group(chat("a", false)));
    assert!(node.next_job().is_none());
}

#[test]
fn a_node_that_drains_answers_what_it_has_and_what_the_group_gave_it() {
    let mut node = node_of_group();
    node.accept(&chat("a", false));
    node.accept(&chat("b", false));
    let a = node.start().key;
    let done = message(node.request(&command("drain", Some("me"))));
    assert_eq!(done.topic, "me");
    let reply: ControlReply = serde_json::from_slice(&done.payload).unwrap();
    assert_eq!(
        (reply.command.as_str(), reply.state.as_str()),
        ("drain", "draining")
    );
    assert!(node.service.is_draining());

    let refused = message(node.request(&chat("c", false)));
    assert_eq!(refused.error, Some(ErrorCode::Draining));
    node.accept(&of_group(chat("d", false)));
    node.finish(a, "a");
    for id in ["b", "d"] {
        let key = node.start().key;
        assert_eq!(parsed(&node.finish(key, "x"))["id"], id);
    }
    // Nobody asked for an answer.
    node.accept(&command("resume", None));
    assert!(!node.service.is_draining());
    node.accept(&chat("c", false));
}

#[test]
fn a_command_that_is_not_enabled_is_refused() {
    let mut node = node_of_group();
    let refused = message(node.request(&command("reload", Some("me"))));
    assert_eq!(refused.error, Some(ErrorCode::Unsupported));
    // Told even to one who wants no answer.
    let refused = message(node.request(&command("stop", None)));
    assert_eq!(refused.topic, "chaski/n/reply/unknown");
    assert_eq!(refused.error, Some(ErrorCode::InvalidRequest));
}

#[test]
fn what_came_of_a_command_is_told_once() {
    let mut node = node_of_group();
    let out = node.request(&command("model other", Some("me")));
    let [
        Output::Control {
            command: Command::Model(name),
            asker,
        },
    ] = &out[..]
    else {
        panic!("no command: {out:?}")
    };
    assert_eq!(name, "other");
    let mut out = Vec::new();
    let done = Done::Loaded {
        name: name.clone(),
        seconds: 1.5,
    };
    node.service.on_done(asker, Ok(done), &mut out);
    let reply = parsed(&message(out));
    assert_eq!(
        (&reply["model"], &reply["load_seconds"]),
        (&json!("other"), &json!(1.5))
    );
}

#[test]
fn without_a_model_all_that_wait_are_told_why() {
    let mut node = node_of_group();
    node.accept(&chat("a", false));
    node.accept(&kept(chat("b", false), 1));
    let mut out = Vec::new();
    node.service
        .on_model_unavailable("no such file", node.now, &mut out);
    let [Output::Publish(a), Output::Final { message: b, .. }] = &out[..] else {
        panic!("not two errors: {out:?}")
    };
    for message in [a, b] {
        assert_eq!(message.error, Some(ErrorCode::ModelUnavailable));
        let text = String::from_utf8_lossy(&message.payload);
        assert!(text.contains("no such file"), "{text}");
    }
}

#[test]
fn another_configuration_counts_from_now_on() {
    let mut node = node(4);
    let mut config = config(1);
    config.limits.max_tokens = 9;
    node.service.configure(&config);
    node.accept(&chat("a", false));
    let busy = message(node.request(&chat("b", false)));
    assert_eq!(busy.error, Some(ErrorCode::Busy));
    assert_eq!(node.start().max_tokens, 9);
}
