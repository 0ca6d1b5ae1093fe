//! The same tokens as the `tokenizers` library makes.

use serde_json::{Value, json};
use tokenizers::{Model as _, ModelWrapper};

use super::super::test_tokenizers::{byte_fallback_json, byte_level_json};
use super::super::tokenizer::TokenModel;

/// The models of our test tokenizers, and of some with other settings.
fn models() -> Vec<Value> {
    let mut models = vec![
        byte_level_json()["model"].clone(),
        byte_fallback_json()["model"].clone(),
    ];
    let letters = json!({
        "type": "BPE", "unk_token": "?", "fuse_unk": true, "ignore_merges": true,
        "vocab": {"?": 4, "a": 9, "b": 0, "ab": 7, "aba": 1, "abab": 3, "bb": 2, "baab": 8},
        "merges": ["#version: 0.2", "a b", "ab a", "b b", "ab ab", "a b"],
    });
    models.push(letters.clone());
    for (name, value) in [
        ("fuse_unk", json!(false)),
        ("ignore_merges", json!(null)),
        ("unk_token", json!(null)),
        ("unk_token", json!("missing")),
        ("end_of_word_suffix", json!("")),
    ] {
        let mut model = letters.clone();
        model[name] = value;
        models.push(model);
    }
    models
}

/// Words of a model's own characters and some that it does not have.
fn words(model: &Value) -> Vec<String> {
    let mut alphabet: Vec<char> = model["vocab"]
        .as_object()
        .unwrap()
        .keys()
        .flat_map(|token| token.chars())
        .collect();
    alphabet.sort_unstable();
    alphabet.dedup();
    alphabet.extend(['中', 'é', '\u{1F600}', ' ']);
    let mut state = 1u32;
    let mut next = |below: usize| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as usize % below
    };
    let mut words: Vec<String> = (0..2000)
        .map(|i| {
            (0..i % 23)
                .map(|_| alphabet[next(alphabet.len())])
                .collect()
        })
        .collect();
    words.extend(["Hello", "▁Hello", "▁▁▁a", "Ġhe", "abab", "baab"].map(String::from));
    words
}

#[test]
fn words_become_the_librarys_tokens() {
    for json in models() {
        let text = json.to_string();
        let ours: TokenModel = serde_json::from_str(&text).unwrap();
        assert!(matches!(ours, TokenModel::Bpe(_)), "{text}");
        let library: ModelWrapper = serde_json::from_str(&text).unwrap();
        let mut several = 0;
        for word in words(&json) {
            match (ours.tokenize(&word), library.tokenize(&word)) {
                (Ok(ours), Ok(library)) => {
                    assert_eq!(ours, library, "{word:?} with {text}");
                    several += usize::from(ours.len() > 1);
                }
                (ours, library) => assert!(ours.is_err() && library.is_err(), "{word:?}"),
            }
        }
        assert!(several > 100 || json["unk_token"] == "missing");
        assert_eq!(ours.get_vocab(), library.get_vocab());
        assert_eq!(ours.get_vocab_size(), library.get_vocab_size());
        for id in 0..400 {
            assert_eq!(ours.id_to_token(id), library.id_to_token(id));
        }
    }
}

#[test]
fn merges_may_come_first_and_as_pairs() {
    let text = r#"{"merges": [["a", "b"]], "vocab": {"a": 0, "b": 1, "ab": 2}}"#;
    let model: TokenModel = serde_json::from_str(text).unwrap();
    assert!(matches!(model, TokenModel::Bpe(_)));
    assert_eq!(model.tokenize("ab").unwrap()[0].id, 2);
}

#[test]
fn other_models_are_the_librarys() {
    let tokens = json!({"[UNK]": 0, "a": 1, "b": 2, "ab": 3, "##b": 4, "a##b": 5});
    let bpe = |name: &str, value: Value| {
        let mut model = json!({"type": "BPE", "vocab": tokens, "merges": [["a", "b"]]});
        model[name] = value;
        model
    };
    for model in [
        bpe("dropout", json!(0.5)),
        bpe("end_of_word_suffix", json!("##b")),
        json!({"type": "WordLevel", "vocab": tokens, "unk_token": "[UNK]"}),
        json!({"type": "Unigram", "vocab": [["a", -1.0], ["b", -2.0]], "unk_id": 0}),
    ] {
        let found: TokenModel = serde_json::from_value(model.clone()).unwrap();
        assert!(matches!(found, TokenModel::Library(_)), "{model}");
        assert!(found.token_to_id("a").is_some());
    }
}

#[test]
fn what_is_wrong_is_named() {
    let error = |text: &str| {
        serde_json::from_str::<TokenModel>(text)
            .unwrap_err()
            .to_string()
    };
    for (merges, expected) in [
        (r#"["a b c"]"#, r#""a b c" is not two tokens"#),
        (r#"["ab"]"#, r#""ab" is not two tokens"#),
        (r#"[["a"]]"#, "not two tokens"),
        (r#"["a c"]"#, r#""c" is not in the vocabulary"#),
        (r#"["b a"]"#, r#""ba" is not in the vocabulary"#),
        ("[1]", "a merge: two tokens"),
        ("3", "a list of merges"),
    ] {
        let text = format!(r#"{{"type": "BPE", "vocab": {{"a": 0, "b": 1}}, "merges": {merges}}}"#);
        let error = error(&text);
        assert!(error.contains(expected), "{error}");
    }
    assert!(error("3").contains("a tokenizer's model"));
    assert!(error(r#"{"vocab": {"a": -1}}"#).contains("-1"));
    error(r#"{"type": "BPE", "vocab": {"a": 0}}"#);
}
