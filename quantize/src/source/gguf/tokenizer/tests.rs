//! Small vocabularies through the tokenizers crate. Real ones are held against
//! llama.cpp in tests/test_tokenizer.py.

use tokenizers::Tokenizer;

use super::*;
use crate::source::Source;
use crate::source::gguf::{Gguf, testing};
use crate::source::testing::{GgufBuilder, tiny_architecture};

/// Makes something right wrong.
type Spoil = fn(&mut GgufBuilder);

/// A byte-level vocabulary: three special tokens, letters, and what joins them.
const BYTE_LEVEL: [&str; 14] = [
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "a",
    "b",
    "c",
    "Ġ",
    "1",
    "ab",
    "Ġa",
    "Ġab",
    "",
    "[x]",
    "Ċ",
];

/// A SentencePiece vocabulary: bytes only for the snowman.
const PIECES: [(&str, f32, i32); 12] = [
    ("<unk>", 0.0, 2),
    ("<s>", 0.0, 3),
    ("</s>", 0.0, 3),
    ("<0xE2>", 0.0, 6),
    ("<0x98>", 0.0, 6),
    ("<0x83>", 0.0, 6),
    ("▁", -3.0, 1),
    ("a", -4.0, 1),
    ("b", -5.0, 1),
    ("ab", -2.0, 1),
    ("▁a", -1.0, 1),
    ("▁▁", -6.0, 1),
];

fn model(vocab_size: usize) -> GgufBuilder {
    testing::model(&Architecture {
        vocab_size,
        ..tiny_architecture()
    })
}

fn byte_level() -> GgufBuilder {
    let mut gguf = model(BYTE_LEVEL.len());
    let mut kinds = [1; BYTE_LEVEL.len()];
    kinds[..3].fill(3);
    kinds[12] = 4;
    gguf.texts("tokenizer.ggml.tokens", &BYTE_LEVEL)
        .integers("tokenizer.ggml.token_type", &kinds)
        .texts("tokenizer.ggml.merges", &["a b", "Ġ a", "Ġ ab", "a b"])
        .text("tokenizer.chat_template", "{{ messages }}");
    gguf
}

fn sentence_piece() -> GgufBuilder {
    let mut gguf = model(PIECES.len());
    gguf.text("tokenizer.ggml.model", "llama")
        .texts("tokenizer.ggml.tokens", &PIECES.map(|(text, ..)| text))
        .floats("tokenizer.ggml.scores", &PIECES.map(|(_, score, _)| score))
        .integers("tokenizer.ggml.token_type", &PIECES.map(|(.., kind)| kind))
        .remove("tokenizer.ggml.eos_token_id");
    gguf
}

fn texts(gguf: &GgufBuilder) -> Result<TextFiles> {
    let (_folder, path) = gguf.write();
    Gguf::open(&path)?.text_files()
}

fn ids(files: &TextFiles, text: &str) -> Vec<u32> {
    let tokenizer = Tokenizer::from_bytes(&files.tokenizer).unwrap();
    tokenizer.encode(text, true).unwrap().get_ids().to_vec()
}

fn refused(gguf: &GgufBuilder) -> String {
    texts(gguf).unwrap_err().to_string()
}

#[test]
fn byte_level_merges_and_special_tokens() {
    let files = texts(&byte_level()).unwrap();
    assert_eq!(ids(&files, "ab ab a"), [8, 10, 9]);
    assert_eq!(
        ids(&files, "<|im_start|>ab\n<|im_end|>[x]"),
        [1, 8, 13, 2, 12]
    );
    assert_eq!(ids(&files, ""), [0u32; 0]);
    let tokenizer = Tokenizer::from_bytes(&files.tokenizer).unwrap();
    assert_eq!(tokenizer.token_to_id("[EMPTY_11]"), Some(11));
    assert_eq!(
        tokenizer.decode(&[1, 8, 10, 12, 2], true).unwrap(),
        "ab ab[x]"
    );
    assert_eq!(files.tokenizer_config["chat_template"], "{{ messages }}");
    assert_eq!(files.tokenizer_config["eos_token"], "<|im_end|>");
    assert_eq!(
        files.generation_config,
        json!({"bos_token_id": null, "eos_token_id": [2, 0]})
    );
}

#[test]
fn bos_and_eos_are_added_where_told() {
    let mut gguf = byte_level();
    gguf.count("tokenizer.ggml.bos_token_id", 1)
        .flag("tokenizer.ggml.add_bos_token", true)
        .flag("tokenizer.ggml.add_eos_token", true);
    assert_eq!(ids(&texts(&gguf).unwrap(), "ab"), [1, 8, 2]);
    gguf.remove("tokenizer.ggml.add_eos_token");
    assert_eq!(ids(&texts(&gguf).unwrap(), "ab"), [1, 8]);
    gguf.remove("tokenizer.ggml.bos_token_id");
    assert!(refused(&gguf).contains("bos_token_id is missing"));
    // Llama 3's way to split implies it.
    let mut llama3 = byte_level();
    llama3
        .text("tokenizer.ggml.pre", "llama-bpe")
        .count("tokenizer.ggml.bos_token_id", 1);
    assert_eq!(ids(&texts(&llama3).unwrap(), "ab"), [1, 8]);
}

#[test]
fn eot_ends_an_answer_too() {
    let mut gguf = byte_level();
    gguf.count("tokenizer.ggml.eot_token_id", 5);
    let files = texts(&gguf).unwrap();
    assert_eq!(files.generation_config["eos_token_id"], json!([2, 0, 5]));
}

#[test]
fn sentence_piece_scores_prefix_and_bytes() {
    let files = texts(&sentence_piece()).unwrap();
    // ▁a (-1) wins over ab (-2); the snowman has no piece.
    assert_eq!(ids(&files, "ab"), [1, 10, 8]);
    assert_eq!(ids(&files, "bab"), [1, 6, 8, 9]);
    assert_eq!(ids(&files, "☃"), [1, 6, 3, 4, 5]);
    assert_eq!(ids(&files, "a</s>a"), [1, 10, 2, 10]);
    assert_eq!(ids(&files, ""), [1]);
    let tokenizer = Tokenizer::from_bytes(&files.tokenizer).unwrap();
    assert_eq!(
        tokenizer.decode(&ids(&files, "ab ☃"), true).unwrap(),
        "ab ☃"
    );
    assert_eq!(
        files.generation_config,
        json!({"bos_token_id": 1, "eos_token_id": 2})
    );
    assert_eq!(files.tokenizer_config["unk_token"], "<unk>");
    let mut plain = sentence_piece();
    plain.flag("tokenizer.ggml.add_space_prefix", false);
    assert_eq!(ids(&texts(&plain).unwrap(), "ab"), [1, 9]);
}

#[test]
fn bad_tokenizers_are_named() {
    let cases: [(Spoil, &str); 9] = [
        (
            |g| _ = g.text("tokenizer.ggml.pre", "martian"),
            "pre martian is not known",
        ),
        (
            |g| _ = g.text("tokenizer.ggml.model", "t5"),
            "tokenizer model t5",
        ),
        (
            |g| _ = g.remove("tokenizer.ggml.model"),
            "tokenizer.ggml.model is missing",
        ),
        (
            |g| _ = g.remove("tokenizer.ggml.merges"),
            "tokenizer.ggml.merges is missing",
        ),
        (
            |g| _ = g.texts("tokenizer.ggml.merges", &["a  b"]),
            "needs a token",
        ),
        (
            |g| _ = g.texts("tokenizer.ggml.merges", &["ab"]),
            "is no pair",
        ),
        (
            |g| _ = g.integers("tokenizer.ggml.token_type", &[1]),
            "1 entries for 14 tokens",
        ),
        (
            |g| _ = g.count("tokenizer.ggml.eos_token_id", 14),
            "there are 14 tokens",
        ),
        (
            |g| _ = g.texts("tokenizer.ggml.tokens", &["a"; 14]),
            "tokens 0 and 1 are both",
        ),
    ];
    for (change, wanted) in cases {
        let mut gguf = byte_level();
        change(&mut gguf);
        let message = refused(&gguf);
        assert!(message.contains(wanted), "{wanted}: {message}");
    }
    let mut scores = sentence_piece();
    scores.floats("tokenizer.ggml.scores", &[f32::NAN; 12]);
    assert!(refused(&scores).contains("NaN"));
    scores.remove("tokenizer.ggml.scores");
    assert!(refused(&scores).contains("scores is missing"));
    let mut long = byte_level();
    let mut tokens = BYTE_LEVEL;
    let text = "x".repeat(5000);
    tokens[3] = &text;
    long.texts("tokenizer.ggml.tokens", &tokens);
    assert!(refused(&long).contains("token 3 has 5000 bytes"));
}
