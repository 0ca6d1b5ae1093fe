//! Prompt lookup decoding gives the answer that plain decoding gives: its tokens,
//! pieces, end and cache, on small random Llamas.

mod support;

use std::ops::ControlFlow;

use chaski_engine::{
    Backend, EngineError, FinishReason, GenerateOptions, Generated, LoadOptions, Model, Piece,
    Session,
};
use support::{CONTEXT, EOS, Folder};

/// Rows of the largest verifying step.
const MOST_ROWS: usize = 1 + GenerateOptions::MOST_DRAFTED;

fn load(seed: u64) -> (Folder, Model) {
    let folder = Folder::random(seed);
    let options = LoadOptions {
        threads: Some(1),
        ..LoadOptions::default()
    };
    let model = Model::load(&folder.path(), &options).expect("the folder loads");
    (folder, model)
}

/// Everything that a caller sees of a generation, and the cache after it.
#[derive(Debug, PartialEq)]
struct Seen {
    tokens: Vec<u32>,
    text: String,
    pieces: Vec<(u32, String)>,
    finish_reason: FinishReason,
    decode_tokens: usize,
    cached_tokens: usize,
    position: usize,
}

/// Generates, and ends it from the sink after `cancel_after` pieces.
fn generate(
    session: &mut Session,
    prompt: &[u32],
    options: &GenerateOptions,
    cancel_after: usize,
) -> (Seen, Generated) {
    let mut pieces = vec![];
    let mut sink = |piece: Piece<'_>| {
        pieces.push((piece.token, piece.text.to_owned()));
        if pieces.len() == cancel_after {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    };
    let done = session.generate(prompt, options, &mut sink).unwrap();
    let seen = Seen {
        tokens: done.tokens.clone(),
        text: done.text.clone(),
        pieces,
        finish_reason: done.finish_reason,
        decode_tokens: done.timings.decode_tokens,
        cached_tokens: done.timings.cached_tokens,
        position: session.position(),
    };
    (seen, done)
}

#[derive(Debug, Default)]
struct Drafts {
    accepted: usize,
    rejected: usize,
}

/// Plain and with drafts of every length, on one session each, so that a fault in
/// the cache shows in the next turn too.
struct Pair {
    plain: Session,
    drafting: Vec<(usize, Session)>,
    drafts: Drafts,
}

impl Pair {
    fn new(model: &Model) -> Self {
        let drafting = [1, 2, 5, GenerateOptions::MOST_DRAFTED];
        Self {
            plain: model.session().unwrap(),
            drafting: drafting.map(|n| (n, model.session().unwrap())).into(),
            drafts: Drafts::default(),
        }
    }

    fn compare(&mut self, prompt: &[u32], options: &GenerateOptions, cancel_after: usize) -> Seen {
        let (expected, done) = generate(&mut self.plain, prompt, options, cancel_after);
        assert_eq!(
            (done.timings.drafted_tokens, done.timings.accepted_tokens),
            (0, 0)
        );
        for (most, session) in &mut self.drafting {
            let options = GenerateOptions {
                prompt_lookup: *most,
                ..options.clone()
            };
            let (seen, done) = generate(session, prompt, &options, cancel_after);
            assert_eq!(seen, expected, "{options:?}, prompt {prompt:?}");
            let timings = done.timings;
            assert!(timings.accepted_tokens <= timings.drafted_tokens);
            self.drafts.accepted += timings.accepted_tokens;
            self.drafts.rejected += timings.drafted_tokens - timings.accepted_tokens;
        }
        expected
    }
}

fn options(temperature: f32, seed: u64) -> GenerateOptions {
    let mut options = GenerateOptions {
        ignore_eos: true,
        ..GenerateOptions::default()
    };
    options.sampling.temperature = temperature;
    options.sampling.seed = Some(seed);
    options
}

/// A prompt that repeats itself, so that there is something to look up.
fn prompt(seed: u64) -> Vec<u32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 33) as u32
    };
    let run: Vec<u32> = (0..2 + next() % 5).map(|_| 2 + next() % 256).collect();
    let mut prompt: Vec<u32> = run.repeat(1 + (next() % 3) as usize);
    prompt.push(2 + next() % 256);
    prompt.extend(&run[..run.len() / 2]);
    prompt
}

#[test]
fn a_step_of_several_rows_is_that_of_one_to_the_bit() {
    let folder = Folder::random(3);
    for backend in Backend::available() {
        let options = LoadOptions {
            threads: Some(2),
            backend: Some(backend),
            ..LoadOptions::default()
        };
        let model = Model::load(&folder.path(), &options).expect("the folder loads");
        let ids: Vec<u32> = (0..60).map(|i| 2 + i * 91 % 256).collect();
        let mut single = model.session().unwrap();
        let mut expected = vec![];
        for &id in &ids {
            let logits = single.decode(id).unwrap();
            expected.extend(logits.iter().map(|logit| logit.to_bits()));
        }
        for rows in [1, 2, 3, 4, 5, 7, 8, 9, 12, MOST_ROWS] {
            let mut session = model.session().unwrap();
            let mut found = vec![];
            for ids in ids.chunks(rows) {
                // A draft that is rejected comes between, where it fits.
                let position = session.position();
                if position + MOST_ROWS <= CONTEXT {
                    session.score(&[9; MOST_ROWS]).unwrap();
                    session.truncate(position);
                }
                let logits = session.score(ids).unwrap();
                found.extend(logits.iter().map(|logit| logit.to_bits()));
            }
            assert_eq!(found, expected, "{} rows, {backend:?}", rows);
        }
    }
}

#[test]
fn tokens_are_those_of_plain_decoding() {
    let mut drafts = Drafts::default();
    for seed in 0..6 {
        let (_folder, model) = load(seed);
        let mut pair = Pair::new(&model);
        for round in 0..12 {
            // 0 is greedy, the low ones repeat themselves, 0.8 hardly does.
            for temperature in [0.0, 0.1, 0.3, 0.8] {
                let mut options = options(temperature, round);
                options.max_tokens = Some(1 + (7 * round + seed) as usize % 45);
                options.sampling.repetition_penalty = [1.0, 1.0, 1.1][round as usize % 3];
                let prompt = prompt(seed * 100 + round);
                let first = pair.compare(&prompt, &options, 0);
                // The next turn of the conversation uses what the cache holds.
                let mut next = prompt.clone();
                next.extend(&first.tokens);
                next.truncate(CONTEXT - 8);
                next.extend([7, 8]);
                options.max_tokens = None;
                pair.compare(&next, &options, 0);
            }
        }
        drafts.accepted += pair.drafts.accepted;
        drafts.rejected += pair.drafts.rejected;
    }
    println!("{drafts:?}");
    assert!(drafts.accepted > 400 && drafts.rejected > 400, "{drafts:?}");
}

/// A generation of which drafts make up the most: it runs in a circle.
fn circle(model: &Model) -> (Vec<u32>, GenerateOptions) {
    let found = (0..50).find_map(|seed| {
        let prompt = prompt(seed);
        let mut options = options(0.0, 0);
        options.max_tokens = Some(40);
        options.prompt_lookup = 8;
        let mut session = model.session().unwrap();
        let (_, done) = generate(&mut session, &prompt, &options, 0);
        let mut different = done.tokens.clone();
        different.sort_unstable();
        different.dedup();
        options.prompt_lookup = 0;
        (done.timings.accepted_tokens > 20 && different.len() > 3).then_some((prompt, options))
    });
    found.expect("one of 50 generations repeats itself")
}

#[test]
fn a_sink_ends_it_inside_an_accepted_draft() {
    let (_folder, model) = load(1);
    let (prompt, options) = circle(&model);
    let mut pair = Pair::new(&model);
    for after in 1..40 {
        let seen = pair.compare(&prompt, &options, after);
        assert_eq!(
            (seen.tokens.len(), seen.finish_reason),
            (after, FinishReason::Cancelled)
        );
    }
    assert!(pair.drafts.accepted > 1000, "{:?}", pair.drafts);
}

#[test]
fn max_tokens_and_the_context_end_it() {
    let (_folder, model) = load(1);
    let (prompt, mut options) = circle(&model);
    let mut pair = Pair::new(&model);
    for most in 0..=CONTEXT - prompt.len() + 1 {
        options.max_tokens = Some(most);
        let seen = pair.compare(&prompt, &options, 0);
        assert_eq!(seen.finish_reason, FinishReason::Length);
        assert_eq!(seen.tokens.len(), most.min(CONTEXT - prompt.len()));
    }
    options.max_tokens = None;
    let seen = pair.compare(&prompt, &options, 0);
    assert_eq!(seen.tokens.len(), CONTEXT - prompt.len());
    assert!(pair.drafts.accepted > 1000, "{:?}", pair.drafts);
}

#[test]
fn stop_strings_end_it_inside_an_accepted_draft() {
    let (_folder, model) = load(1);
    let (prompt, mut options) = circle(&model);
    let mut pair = Pair::new(&model);
    let whole = pair.compare(&prompt, &options, 0);
    let mut ends = std::collections::BTreeSet::new();
    let characters: Vec<(usize, char)> = whole.text.char_indices().collect();
    for (i, &(start, _)) in characters.iter().enumerate() {
        for length in 1..12 {
            let Some(&(end, _)) = characters.get(i + length) else {
                break;
            };
            options.stop = vec![whole.text[start..end].to_owned()];
            let seen = pair.compare(&prompt, &options, 0);
            assert_eq!(seen.finish_reason, FinishReason::Stop);
            assert!(!seen.text.contains(&options.stop[0]));
            ends.insert(seen.tokens.len());
        }
    }
    assert!(ends.len() > 10, "ends after {ends:?}");
    assert!(pair.drafts.accepted > 1000, "{:?}", pair.drafts);
}

#[test]
fn the_end_of_sequence_token_ends_it() {
    let (_folder, model) = load(2);
    let mut pair = Pair::new(&model);
    let (mut ended, mut accepted_and_ended) = (0, 0);
    for seed in 0..900 {
        let mut options = options(0.3, seed);
        options.ignore_eos = false;
        options.max_tokens = Some(40);
        let before = pair.drafts.accepted;
        // The token stands in the prompt too, as in a chat template: no draft
        // goes on after it.
        let mut prompt = prompt(seed % 97);
        prompt.insert(3, EOS);
        let seen = pair.compare(&prompt, &options, 0);
        if seen.finish_reason == FinishReason::Stop {
            assert!(!seen.tokens.contains(&EOS));
            ended += 1;
            accepted_and_ended += usize::from(pair.drafts.accepted > before);
        }
    }
    println!("{ended} ended, {accepted_and_ended} of them after accepted drafts");
    assert!(accepted_and_ended > 2, "{accepted_and_ended} of {ended}");
}

#[test]
fn drafts_beyond_the_limit_are_refused() {
    let (_folder, model) = load(0);
    let mut session = model.session().unwrap();
    let options = GenerateOptions {
        prompt_lookup: GenerateOptions::MOST_DRAFTED + 1,
        ..GenerateOptions::default()
    };
    let error = session
        .generate(
            &[2],
            &options,
            &mut |_: Piece<'_>| ControlFlow::Continue(()),
        )
        .unwrap_err();
    assert!(matches!(error, EngineError::Option(_)), "{error:?}");
    assert!(
        error.to_string().contains("15 tokens: give at most 14"),
        "{error}"
    );
}
