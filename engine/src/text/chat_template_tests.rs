//! Chat templates against what `transformers` makes of the same input.

use serde::Deserialize;
use serde_json::{Value as Json, json};

use super::super::configs;
use super::*;

/// Cases recorded by `tests/tools/chat_template_fixtures.py`.
const FIXTURES: &str = include_str!("../../tests/fixtures/chat_templates.json");

/// The time the fixtures were rendered at.
fn fixed_clock() -> ZonedDateTime {
    "2025-03-04T15:06:07[UTC]".parse().expect("a time")
}

#[derive(Deserialize)]
struct Fixtures {
    templates: BTreeMap<String, Json>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    template: String,
    special_tokens: BTreeMap<String, String>,
    messages: Json,
    tools: Option<Json>,
    add_generation_prompt: bool,
    #[serde(default)]
    expected: Option<String>,
    #[serde(default)]
    raised: Option<String>,
}

fn template(source: Json, tokens: Json) -> ChatTemplate {
    let mut config = tokens;
    config["chat_template"] = source;
    let config: configs::TokenizerConfig = configs::parse(config);
    let templates = config.chat_template.as_ref().expect("a template");
    ChatTemplate::with_clock(templates, config.special_tokens(), fixed_clock).unwrap()
}

fn user(source: &str, content: &str) -> Result<String, TextError> {
    template(json!(source), json!({})).render(&ChatInput {
        messages: json!([{"role": "user", "content": content}]),
        ..ChatInput::default()
    })
}

#[test]
fn every_fixture_renders_as_transformers_does() {
    let fixtures: Fixtures = serde_json::from_str(FIXTURES).unwrap();
    assert!(fixtures.cases.len() >= 30, "{}", fixtures.cases.len());
    for case in fixtures.cases {
        let source = fixtures.templates[&case.template].clone();
        let result = template(source, json!(case.special_tokens)).render(&ChatInput {
            messages: case.messages,
            tools: case.tools,
            add_generation_prompt: case.add_generation_prompt,
        });
        match (result, case.expected, case.raised) {
            (Ok(text), Some(expected), None) => assert_eq!(text, expected, "{}", case.name),
            (Err(TextError::Raised(message)), None, Some(raised)) => {
                assert_eq!(message, raised, "{}", case.name);
            }
            (result, expected, raised) => {
                panic!("{}: {result:?}, not {expected:?} {raised:?}", case.name)
            }
        }
    }
}

#[test]
fn a_raised_error_is_the_templates_own_message() {
    let error = user(
        "{% macro no() %}{{ raise_exception('No users here') }}{% endmacro %}{{ no() }}",
        "hi",
    )
    .unwrap_err();
    assert_eq!(error.to_string(), "No users here");
}

#[test]
fn a_fault_names_the_template() {
    let error = user("{{ messages[0].missing.deeper }}", "hi").unwrap_err();
    assert!(matches!(error, TextError::Template(_)), "{error:?}");
    assert!(error.to_string().contains("chat template"), "{error}");
}

#[test]
fn endless_work_ends() {
    for source in [
        "{% for i in range(99999) %}{% for j in range(99999) %}x{% endfor %}{% endfor %}",
        "{% set ns = namespace(t=messages[0].content) %}{% for i in range(60) %}\
         {% set ns.t = ns.t + ns.t %}{% endfor %}{{ ns.t }}",
        "{{ messages[0].content * 999999999 }}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    ] {
        let error = user(source, "some words of a message").unwrap_err();
        assert!(
            matches!(error, TextError::TemplateBudget | TextError::Template(_)),
            "{error:?}"
        );
    }
}

#[test]
fn a_long_conversation_is_within_the_budget() {
    let fixtures: Fixtures = serde_json::from_str(FIXTURES).unwrap();
    let messages: Vec<Json> = (0..2000)
        .map(|i| {
            let role = if i % 2 == 0 { "user" } else { "assistant" };
            json!({"role": role, "content": "word ".repeat(100)})
        })
        .collect();
    for source in fixtures.templates.into_values() {
        let result =
            template(source, json!({"bos_token": "<s>", "eos_token": "</s>"})).render(&ChatInput {
                messages: json!(messages),
                ..ChatInput::default()
            });
        assert!(
            !matches!(result, Err(TextError::TemplateBudget)),
            "{result:?}"
        );
    }
}

#[test]
fn html_is_not_escaped_and_text_is_not_a_template() {
    let text = "<b> & {{ bos_token }} {% if %}";
    assert_eq!(user("{{ messages[0].content }}", text).unwrap(), text);
}

#[test]
fn a_list_needs_a_default() {
    let templates = ChatTemplates::Named(vec![configs::NamedTemplate {
        name: "rag".to_owned(),
        template: String::new(),
    }]);
    let error = ChatTemplate::new(&templates, BTreeMap::new()).unwrap_err();
    assert!(error.contains("default"), "{error}");
}

#[test]
fn generation_blocks_keep_their_whitespace_control() {
    assert_eq!(
        without_generation_blocks("a{%- generation -%} b {%+ endgeneration %}c{% if x %}"),
        "a{%- with -%} b {%+ endwith %}c{% if x %}"
    );
    assert_eq!(
        without_generation_blocks("{%set generation = 1%}{%generation%}{% open"),
        "{%set generation = 1%}{%with%}{% open"
    );
}
