//! Whatever strangers send, in whatever order: the service stays right. The fuzz targets
//! in `fuzz/` run the same with a fuzzer's patience; here a fixed number of random
//! scripts, the same on every machine.

mod node;
mod script;

use std::collections::BTreeMap;

use arbitrary::{Arbitrary, Unstructured};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use script::Script;

const DOCS: &str = include_str!("../../../docs/mqtt.md");

#[test]
fn scripts_of_strangers() {
    let mut rng = ChaCha8Rng::seed_from_u64(20_261_125);
    let (mut replies, mut errors) = (0, BTreeMap::new());
    for _ in 0..20_000 {
        let mut bytes = vec![0; rng.next_u32() as usize % 4000];
        rng.fill_bytes(&mut bytes);
        // Small values are as likely as large ones: long texts and lists are then rare.
        let mask = 0xff >> (rng.next_u32() % 8);
        bytes.iter_mut().step_by(2).for_each(|b| *b &= mask);
        let script = Script::arbitrary(&mut Unstructured::new(&bytes));
        let node = node::run(script.expect("bytes that run out are zeros"));
        replies += node.replies;
        for (code, count) in node.errors {
            *errors.entry(code).or_insert(0) += count;
        }
    }
    println!("{replies} replies, errors among them: {errors:#?}");
    // The scripts reach what they are meant to.
    for code in [
        "busy",
        "rate_limited",
        "expired",
        "invalid_json",
        "invalid_request",
        "invalid_utf8",
        "invalid_response_topic",
        "no_reply_address",
        "reply_too_large",
        "unsupported",
        "internal_error",
        "draining",
        "model_unavailable",
    ] {
        assert!(errors.contains_key(code), "never seen: {code}");
    }
}

#[test]
fn payloads_that_were_requests() {
    let mut rng = ChaCha8Rng::seed_from_u64(20_261_126);
    let examples: Vec<&[u8]> = DOCS
        .split(['`', '\''])
        .filter(|block| block.contains("\"messages\""))
        .map(str::as_bytes)
        .collect();
    assert!(examples.len() >= 2, "the documentation has examples");
    let mut answered = 0;
    for _ in 0..40_000 {
        let mut payload = examples[rng.next_u32() as usize % examples.len()].to_vec();
        for _ in 0..rng.next_u32() % 4 {
            mutate(&mut payload, &mut rng);
        }
        answered += usize::from(node::run_chat(&payload).errors.is_empty());
    }
    // Some survive, and most do not.
    assert!((1000..30_000).contains(&answered), "{answered}");
}

fn mutate(bytes: &mut Vec<u8>, rng: &mut ChaCha8Rng) {
    const TOKENS: [&str; 14] = [
        "null",
        "1e999",
        "-0",
        "\"\"",
        "[",
        "]",
        "{",
        "}",
        "\"\\ud800\"",
        "\\u0000",
        "99999999999999999999",
        ":",
        ",",
        "\u{202e}",
    ];
    let at = rng.next_u32() as usize % (bytes.len() + 1);
    match rng.next_u32() % 5 {
        0 if at < bytes.len() => bytes[at] ^= 1 << (rng.next_u32() % 8),
        1 => bytes.truncate(at),
        2 => {
            let token = TOKENS[rng.next_u32() as usize % TOKENS.len()];
            bytes.splice(at..at, token.bytes());
        }
        3 => {
            let end = (at + rng.next_u32() as usize % 20).min(bytes.len());
            let copy = bytes[at..end].to_vec();
            bytes.splice(at..at, copy);
        }
        _ => {
            let end = (at + rng.next_u32() as usize % 8).min(bytes.len());
            bytes.drain(at..end);
        }
    }
}
