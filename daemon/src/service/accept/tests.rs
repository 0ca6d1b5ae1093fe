use bytes::Bytes;
use serde_json::json;

use super::*;

fn limits() -> Limits {
    Limits {
        max_tokens: 100,
        max_prompt_bytes: 40,
        max_payload_bytes: 2000,
        max_messages: 3,
        ..Limits::default()
    }
}

fn request(payload: impl Into<Bytes>) -> Request {
    Request {
        payload: payload.into(),
        ..Request::default()
    }
}

fn chat_of(value: &Value) -> Result<Checked, Refusal> {
    let request = request(value.to_string());
    match chat(&request, &Topics::new("n"), &limits()) {
        Ok(accepted) => Ok(accepted.prompt),
        Err(refused) => Err(refused.1),
    }
}

fn with(fields: Value) -> Value {
    let mut value = json!({"id": "i", "messages": [{"role": "user", "content": "hi"}]});
    let map = fields.as_object().unwrap().clone();
    value.as_object_mut().unwrap().extend(map);
    value
}

fn refused(fields: Value) -> (ErrorCode, String) {
    let refusal = chat_of(&with(fields)).unwrap_err();
    (refusal.code, refusal.message)
}

#[test]
fn a_full_request() {
    let checked = chat_of(&json!({
        "id": "i", "model": "whatever", "user": "me", "unknown_field": [1],
        "messages": [
            {"role": "developer", "content": "be brief"},
            {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}], "name": "x"}
        ],
        "max_tokens": 7, "temperature": 0.5, "top_p": 0.25, "top_k": 3, "min_p": 0.125,
        "repetition_penalty": 1.5, "seed": -1, "stop": ["x", "y"], "stream": true,
        "stream_options": {"include_text": true, "include_usage": true},
        "tools": [{"type": "function"}], "n": 1, "logprobs": false, "presence_penalty": 0
    }))
    .unwrap();
    assert_eq!(
        checked,
        Checked {
            prompt: Prompt::Chat {
                messages: json!([
                    {"role": "system", "content": "be brief"},
                    {"role": "user", "content": "a\nb", "name": "x"}
                ]),
                tools: Some(json!([{"type": "function"}])),
            },
            sampling: SamplingOverrides {
                temperature: Some(0.5),
                top_k: Some(3),
                top_p: Some(0.25),
                min_p: Some(0.125),
                repetition_penalty: Some(1.5),
                seed: Some(u64::MAX),
            },
            max_tokens: 7,
            stop: vec!["x".into(), "y".into()],
            stream: true,
            include_text: true,
        }
    );
}

#[test]
fn defaults_and_nulls() {
    let nulls = with(json!({
        "max_tokens": null, "temperature": null, "stop": null, "stream": null,
        "stream_options": null, "tools": null,
        "logprobs": null, "response_format": null, "functions": null, "seed": null
    }));
    for value in [with(json!({})), nulls] {
        let checked = chat_of(&value).unwrap();
        assert_eq!(checked.max_tokens, 100);
        assert_eq!(checked.sampling, SamplingOverrides::default());
        assert!(!checked.stream && !checked.include_text && checked.stop.is_empty());
        assert!(matches!(checked.prompt, Prompt::Chat { tools: None, .. }));
    }
}

#[test]
fn max_tokens_has_two_names_and_a_ceiling() {
    let of = |fields| chat_of(&with(fields)).unwrap().max_tokens;
    assert_eq!(of(json!({"max_tokens": 5, "max_completion_tokens": 6})), 6);
    assert_eq!(of(json!({"max_tokens": u64::MAX})), 100);
    assert_eq!(
        refused(json!({"max_tokens": 0})).0,
        ErrorCode::InvalidRequest
    );
}

#[test]
fn tool_choice_none_drops_the_tools() {
    let checked = chat_of(&with(json!({"tools": [{}], "tool_choice": "none"}))).unwrap();
    assert!(matches!(checked.prompt, Prompt::Chat { tools: None, .. }));
}

#[test]
fn what_would_change_the_answer_is_refused() {
    for fields in [
        json!({"n": 2}),
        json!({"logprobs": true}),
        json!({"logit_bias": {"5": 1}}),
        json!({"presence_penalty": 0.1}),
        json!({"frequency_penalty": -1}),
        json!({"response_format": {"type": "json_object"}}),
        json!({"tool_choice": "required"}),
        json!({"functions": []}),
    ] {
        let name = fields.as_object().unwrap().keys().next().unwrap().clone();
        let (code, message) = refused(fields);
        assert_eq!(code, ErrorCode::Unsupported, "{name}");
        assert!(message.contains(&name), "{message}");
    }
}

#[test]
fn values_out_of_range_name_their_field() {
    for (name, value) in [
        ("temperature", json!(2.1)),
        ("temperature", json!(-0.1)),
        ("temperature", json!("hot")),
        ("temperature", json!(1e300)),
        ("top_p", json!(1.5)),
        ("min_p", json!(1)),
        ("repetition_penalty", json!(0)),
        ("top_k", json!(-1)),
        ("seed", json!(1.5)),
        ("stop", json!("")),
        ("stop", json!([1])),
        ("stop", json!(vec!["x"; 17])),
        ("stream", json!("yes")),
        ("messages", json!([])),
        ("messages", json!("hi")),
        (
            "messages",
            json!(vec![json!({"role": "user", "content": "x"}); 4]),
        ),
        ("user", json!(7)),
        ("priority", json!("urgent")),
        (
            "messages[0].role",
            json!([{"role": "robot", "content": "x"}]),
        ),
        ("messages[0].content", json!([{"role": "user"}])),
        (
            "messages[0].content",
            json!([{"role": "user", "content": 3}]),
        ),
        (
            "messages[0].content",
            json!([{"role": "user", "content": [{"type": "image_url"}]}]),
        ),
    ] {
        let field = name.split('[').next().unwrap();
        let (code, message) = refused(json!({field: value}));
        assert_eq!(code, ErrorCode::InvalidRequest, "{name} {value}");
        assert!(message.starts_with(name), "{name} {value}: {message}");
    }
}

#[test]
fn an_assistant_may_only_call_tools() {
    let checked = chat_of(&with(json!({"messages": [
        {"role": "assistant", "content": null, "tool_calls": [{"id": "c"}]},
        {"role": "tool", "content": "4", "tool_call_id": "c"}
    ]})));
    let Prompt::Chat { messages, .. } = checked.unwrap().prompt else {
        panic!("not a chat")
    };
    assert_eq!(messages[0]["content"], "");
    assert_eq!(messages[0]["tool_calls"][0]["id"], "c");
}

#[test]
fn prompts_are_bounded_over_all_messages() {
    let message = json!({"role": "user", "content": "x".repeat(20)});
    assert!(chat_of(&with(json!({"messages": [message, message]}))).is_ok());
    let longer = json!({"role": "user", "content": "x".repeat(21)});
    assert_eq!(
        refused(json!({"messages": [message, longer]})).0,
        ErrorCode::PromptTooLarge
    );
}

#[test]
fn payloads_that_are_no_request() {
    let of = |payload: Bytes| {
        let refused = *chat(&request(payload), &Topics::new("n"), &limits()).unwrap_err();
        (refused.1.code, refused.0.topic().to_owned())
    };
    let unknown = || "chaski/n/reply/unknown".to_owned();
    assert_eq!(of("{".into()), (ErrorCode::InvalidJson, unknown()));
    assert_eq!(
        of("[".repeat(1000).into()),
        (ErrorCode::InvalidJson, unknown())
    );
    assert_eq!(
        of(Bytes::from_static(b"{\"a\":\"\xff\"}")),
        (ErrorCode::InvalidUtf8, unknown())
    );
    assert_eq!(
        of(vec![b' '; 2001].into()),
        (ErrorCode::PayloadTooLarge, unknown())
    );
    // No response topic and no id: nowhere to send an answer to.
    assert_eq!(of("[]".into()), (ErrorCode::NoReplyAddress, unknown()));
    assert_eq!(of("{}".into()), (ErrorCode::NoReplyAddress, unknown()));
    assert_eq!(
        of(r#"{"id":"a/b"}"#.into()),
        (ErrorCode::InvalidRequest, unknown())
    );
    assert_eq!(
        of(r#"{"id":7}"#.into()),
        (ErrorCode::InvalidRequest, unknown())
    );
    assert_eq!(
        of(r#"{"id":"q"}"#.into()),
        (ErrorCode::InvalidRequest, "chaski/n/reply/q".to_owned())
    );
}

#[test]
fn a_bad_response_topic_is_told_by_id() {
    let request = Request {
        response_topic: Some("a/#".into()),
        payload: with(json!({})).to_string().into(),
        ..Request::default()
    };
    let refused = *chat(&request, &Topics::new("n"), &limits()).unwrap_err();
    assert_eq!(refused.1.code, ErrorCode::InvalidResponseTopic);
    assert_eq!(refused.0.topic(), "chaski/n/reply/i");
}

#[test]
fn prompts_on_ask() {
    let of = |payload: Bytes| match ask(&request(payload), &Topics::new("n"), &limits(), Some("s"))
    {
        Ok(accepted) => Ok(accepted.prompt.prompt),
        Err(refused) => Err(refused.1.code),
    };
    let expected = Prompt::Text {
        text: " hi\n".into(),
        system: Some("s".into()),
    };
    assert_eq!(of(" hi\n".into()), Ok(expected));
    assert_eq!(of("".into()), Err(ErrorCode::EmptyPrompt));
    assert_eq!(of(" \n".into()), Err(ErrorCode::EmptyPrompt));
    assert_eq!(of("x".repeat(41).into()), Err(ErrorCode::PromptTooLarge));
    assert_eq!(of(vec![0xff].into()), Err(ErrorCode::InvalidUtf8));
}

#[test]
fn priorities_of_both_kinds() {
    let of_chat = |fields| {
        let request = request(with(fields).to_string());
        chat(&request, &Topics::new("n"), &limits())
            .unwrap()
            .priority
    };
    assert_eq!(of_chat(json!({})), Priority::Normal);
    assert_eq!(of_chat(json!({"priority": null})), Priority::Normal);
    assert_eq!(of_chat(json!({"priority": "high"})), Priority::High);
    let of_ask = |value: &str| {
        let request = Request {
            user: vec![("priority".into(), value.into())],
            ..request("hi")
        };
        let accepted = ask(&request, &Topics::new("n"), &limits(), None);
        accepted
            .map(|a| a.priority)
            .map_err(|refused| refused.1.code)
    };
    assert_eq!(of_ask("low"), Ok(Priority::Low));
    assert_eq!(of_ask("urgent"), Err(ErrorCode::InvalidRequest));
}

#[test]
fn json_with_too_many_values_is_not_read() {
    let limits = Limits {
        max_json_values: 10,
        ..limits()
    };
    let of = |values: usize| {
        let fields = json!({"x": vec![0; values]});
        let refused = chat(
            &request(with(fields).to_string()),
            &Topics::new("n"),
            &limits,
        );
        refused.map(|_| ()).map_err(|refused| refused.1)
    };
    // The object, the id, the list of messages, the message with two values, the list.
    assert_eq!(of(3), Ok(()));
    let refusal = of(4).unwrap_err();
    assert_eq!(refusal.code, ErrorCode::InvalidRequest);
    assert!(refusal.message.contains("at most 10"), "{refusal}");
}
