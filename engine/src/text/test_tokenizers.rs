//! Small tokenizers of the kinds there are, for tests.

use serde_json::{Map, Value, json};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;

use super::codec::Codec;

fn vocabulary<S: Into<String>>(tokens: impl IntoIterator<Item = S>) -> Map<String, Value> {
    let mut vocab = Map::new();
    for token in tokens {
        let id = vocab.len();
        vocab.entry(token.into()).or_insert_with(|| json!(id));
    }
    vocab
}

fn special(id: u64, content: &str) -> Value {
    json!({
        "id": id, "content": content, "special": true, "single_word": false,
        "lstrip": false, "rstrip": false, "normalized": false,
    })
}

/// Writes the three files into a folder and loads them as the engine does.
fn load(tokenizer: &Value, config: &Value, generation: &Value) -> Codec {
    let folder = tempfile::tempdir().unwrap();
    for (name, value) in [
        ("tokenizer.json", tokenizer),
        ("tokenizer_config.json", config),
        ("generation_config.json", generation),
    ] {
        std::fs::write(folder.path().join(name), value.to_string()).unwrap();
    }
    Codec::load(folder.path()).unwrap()
}

/// Byte-level BPE with merges that cut characters in the middle.
pub(super) fn byte_level_json() -> Value {
    let mut alphabet: Vec<char> = ByteLevel::alphabet().into_iter().collect();
    alphabet.sort_unstable();
    let mut tokens: Vec<String> = vec!["<|im_start|>".into(), "<|im_end|>".into()];
    tokens.extend(alphabet.iter().map(char::to_string));
    // "he", " he", the first two bytes of U+1F600 and the last byte of it with a newline.
    let merges = [["h", "e"], ["Ġ", "he"], ["ð", "Ł"], ["Ģ", "Ċ"]];
    tokens.extend(merges.iter().map(|pair| pair.concat()));
    json!({
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": [special(0, "<|im_start|>"), special(1, "<|im_end|>")],
        "normalizer": null,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false,
                          "trim_offsets": true, "use_regex": true},
        "post_processor": null,
        "decoder": {"type": "ByteLevel", "add_prefix_space": true,
                    "trim_offsets": true, "use_regex": true},
        "model": {"type": "BPE", "dropout": null, "unk_token": null,
                  "continuing_subword_prefix": null, "end_of_word_suffix": null,
                  "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
                  "vocab": vocabulary(tokens), "merges": merges},
    })
}

pub(super) fn byte_level() -> Codec {
    load(
        &byte_level_json(),
        &json!({"bos_token": "<|im_start|>", "eos_token": "<|im_end|>"}),
        &json!({"eos_token_id": 1}),
    )
}

/// SentencePiece BPE with byte fallback, as Llama 2's.
pub(super) fn byte_fallback_json() -> Value {
    let mut tokens: Vec<String> = vec!["<unk>".into(), "<s>".into(), "</s>".into()];
    tokens.extend((0..=255u8).map(|b| format!("<0x{b:02X}>")));
    let pieces = [
        "▁", "H", "e", "l", "o", "a", "é", "中", "He", "ll", "Hell", "Hello", "▁Hello", "▁a", "▁▁",
    ];
    tokens.extend(pieces.map(String::from));
    let merges = [
        ["H", "e"],
        ["l", "l"],
        ["He", "ll"],
        ["Hell", "o"],
        ["▁", "Hello"],
        ["▁", "a"],
        ["▁", "▁"],
    ];
    json!({
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": [special(0, "<unk>"), special(1, "<s>"), special(2, "</s>")],
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": "▁"},
            {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]},
        "pre_tokenizer": null,
        "post_processor": {"type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}},
                       {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}},
                     {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}}},
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
            {"type": "ByteFallback"}, {"type": "Fuse"},
            {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
        "model": {"type": "BPE", "dropout": null, "unk_token": "<unk>",
                  "continuing_subword_prefix": null, "end_of_word_suffix": null,
                  "fuse_unk": true, "byte_fallback": true, "ignore_merges": false,
                  "vocab": vocabulary(tokens), "merges": merges},
    })
}

pub(super) fn byte_fallback() -> Codec {
    load(
        &byte_fallback_json(),
        &json!({"bos_token": {"content": "<s>"}, "eos_token": "</s>", "unk_token": "<unk>"}),
        &json!({}),
    )
}

/// A decoder that is neither.
pub(super) fn word_piece() -> Codec {
    let tokens = ["[UNK]", "[CLS]", "play", "##ing", "##ed", "work", "中"];
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": [special(0, "[UNK]"), special(1, "[CLS]")],
        "normalizer": null, "pre_tokenizer": {"type": "Whitespace"}, "post_processor": null,
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": false},
        "model": {"type": "WordPiece", "unk_token": "[UNK]",
                  "continuing_subword_prefix": "##", "max_input_chars_per_word": 100,
                  "vocab": vocabulary(tokens)},
    });
    load(&tokenizer, &json!({"eos_token": "[CLS]"}), &json!({}))
}
