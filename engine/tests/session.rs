//! Sessions on a small random Llama: the KV cache, chunks, limits, the
//! generation loop. (That the numbers are right is for the parity tests.)

mod support;

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};

use chaski_engine::{
    Backend, ChatInput, EngineError, FinishReason, GenerateOptions, LoadOptions, Model, Piece,
    Precision, Sink, Threads,
};
use support::{CONTEXT, EOS, Folder, VOCAB_SIZE};

fn load(folder: &Folder, change: impl FnOnce(&mut LoadOptions)) -> Model {
    let mut options = LoadOptions {
        threads: Some(2),
        ..LoadOptions::default()
    };
    change(&mut options);
    Model::load(&folder.path(), &options).expect("the folder loads")
}

fn prompt(len: usize) -> Vec<u32> {
    (0..len as u32).map(|i| 2 + i * 37 % 256).collect()
}

fn close(a: &[f32], b: &[f32]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-3)
}

fn quiet(_: Piece<'_>) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

fn greedy(max_tokens: usize) -> GenerateOptions {
    GenerateOptions {
        max_tokens: Some(max_tokens),
        ignore_eos: true,
        ..GenerateOptions::default()
    }
}

#[test]
fn chunks_threads_and_backends_do_not_change_the_logits() {
    let folder = Folder::random(0);
    let ids = prompt(40);
    let whole = load(&folder, |o| o.prefill_chunk = 64);
    let expected = whole.session().unwrap().prefill(&ids).unwrap().to_vec();
    assert_eq!(expected.len(), VOCAB_SIZE);
    assert!(
        expected.iter().any(|&l| l != expected[0]),
        "all logits are one"
    );
    for chunk in [1, 7, 39, 40] {
        for threads in [1, 3] {
            let model = load(&folder, |o| {
                o.prefill_chunk = chunk;
                o.threads = Some(threads);
            });
            let logits = model.session().unwrap().prefill(&ids).unwrap().to_vec();
            assert!(
                close(&logits, &expected),
                "chunks of {chunk}, {threads} threads"
            );
        }
    }
}

#[test]
fn fewer_threads_compute_the_same_tokens() {
    let folder = Folder::random(0);
    let ids = prompt(30);
    let all = Threads {
        prefill: 4,
        decode: 4,
    };
    for precision in [Precision::Int8, Precision::Float] {
        let model = load(&folder, |o| {
            o.threads = Some(4);
            o.precision = precision;
        });
        assert_eq!(model.threads_in_use(), all);
        let answer = || {
            let mut session = model.session().unwrap();
            let mut logits = session.prefill(&ids).unwrap().to_vec();
            logits.extend_from_slice(session.decode(5).unwrap());
            session.truncate(0);
            let done = session.generate(&ids, &greedy(20), &mut quiet).unwrap();
            (done.tokens, logits)
        };
        let expected = answer();
        for prefill in 1..=4 {
            for decode in 1..=4 {
                let threads = Threads { prefill, decode };
                model.set_threads(threads);
                assert_eq!(model.threads_in_use(), threads);
                assert_eq!(answer(), expected, "{precision:?} {threads:?}");
            }
        }
    }
}

#[test]
fn the_number_of_threads_may_change_while_an_answer_is_generated() {
    let folder = Folder::random(0);
    let model = load(&folder, |o| o.threads = Some(4));
    let ids = prompt(30);
    let options = greedy(30);
    let generate = || {
        let mut session = model.session().unwrap();
        session.generate(&ids, &options, &mut quiet).unwrap().tokens
    };
    let expected = generate();
    let other = model.clone();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for n in (1..=4).cycle() {
                other.set_threads(Threads {
                    prefill: n,
                    decode: 5 - n,
                });
                if stop.load(Ordering::Relaxed) {
                    break;
                }
            }
        });
        for _ in 0..20 {
            assert_eq!(generate(), expected);
        }
        stop.store(true, Ordering::Relaxed);
    });
    // What there is not cannot be asked for.
    model.set_threads(Threads {
        prefill: 0,
        decode: 99,
    });
    let most = Threads {
        prefill: 1,
        decode: 4,
    };
    assert_eq!(model.threads_in_use(), most);
    assert_eq!(generate(), expected);
}

#[test]
fn those_who_decode_are_some_of_the_threads() {
    let folder = Folder::random(0);
    let model = load(&folder, |o| {
        o.threads = Some(3);
        o.decode_threads = Some(2);
    });
    let threads = Threads {
        prefill: 3,
        decode: 2,
    };
    assert_eq!((model.threads(), model.threads_in_use()), (3, threads));
    for wrong in [0, 3] {
        let options = LoadOptions {
            threads: Some(2),
            decode_threads: Some(wrong),
            ..LoadOptions::default()
        };
        let error = Model::load(&folder.path(), &options).unwrap_err();
        assert!(error.to_string().contains("give 1 to 2"), "{error}");
    }
}

#[test]
fn backends_agree() {
    let folder = Folder::random(0);
    let ids = prompt(40);
    // Where a sum differs in its last bit an activation may round to the next int8:
    // a step of 1/127 of its block's largest.
    for (precision, most) in [(Precision::Float, 1e-4), (Precision::Int8, 0.03)] {
        let logits = |backend: Backend| {
            let model = load(&folder, |o| {
                o.backend = Some(backend);
                o.precision = precision;
            });
            assert_eq!(model.kernel_backend(), backend.name());
            model.session().unwrap().prefill(&ids).unwrap().to_vec()
        };
        let expected = logits(Backend::SCALAR);
        let length = |x: &[f32]| x.iter().map(|x| x * x).sum::<f32>().sqrt();
        for backend in Backend::available() {
            let got = logits(backend);
            let error: Vec<f32> = got.iter().zip(&expected).map(|(a, b)| a - b).collect();
            let error = length(&error) / length(&expected);
            assert!(error < most, "{backend:?} {precision:?}: {error}");
        }
    }
}

#[test]
fn truncation_forgets_what_came_after() {
    let folder = Folder::random(0);
    let model = load(&folder, |_| {});
    let ids = prompt(12);
    let mut session = model.session().unwrap();
    session.prefill(&ids[..6]).unwrap();
    let expected = session.decode(9).unwrap().to_vec();
    assert_eq!(session.position(), 7);
    session.prefill(&ids[6..]).unwrap();
    session.truncate(6);
    assert_eq!(session.position(), 6);
    assert!(close(session.decode(9).unwrap(), &expected));
    // Another session on the same model has a cache of its own.
    let mut other = model.session().unwrap();
    other.prefill(&prompt(3)).unwrap();
    session.truncate(6);
    assert!(close(session.decode(9).unwrap(), &expected));
}

#[test]
fn scores_are_the_logits_of_single_steps() {
    let folder = Folder::random(0);
    let model = load(&folder, |_| {});
    let ids = prompt(40);
    let mut single = model.session().unwrap();
    let expected: Vec<Vec<f32>> = ids
        .iter()
        .map(|&id| single.decode(id).unwrap().to_vec())
        .collect();
    let mut session = model.session().unwrap();
    // The number of positions changes from step to step, and other kinds of
    // steps come between.
    let mut at = 0;
    for count in [1, 4, 2, 2, 9, 1, 1, 7, 3] {
        let logits = session.score(&ids[at..at + count]).unwrap();
        assert_eq!(logits.len(), count * VOCAB_SIZE);
        for (i, row) in logits.chunks_exact(VOCAB_SIZE).enumerate() {
            assert!(close(row, &expected[at + i]), "{i} of {count} at {at}");
        }
        at += count;
        // What was rejected leaves no trace.
        session.score(&prompt(5)).unwrap();
        session.truncate(at);
        assert!(close(session.decode(ids[at]).unwrap(), &expected[at]));
        at += 1;
    }
    assert_eq!(session.position(), at);
    let logits = session.prefill(&prompt(10)).unwrap();
    assert_eq!(logits.len(), VOCAB_SIZE, "a prefill gives one position's");
    let error = session.score(&prompt(20)).unwrap_err();
    assert!(matches!(error, EngineError::ContextOverflow { .. }));
    assert!(matches!(session.score(&[]), Err(EngineError::EmptyPrompt)));
}

#[test]
fn a_prompt_that_goes_on_costs_only_its_new_tokens() {
    let folder = Folder::random(0);
    let model = load(&folder, |_| {});
    let mut session = model.session().unwrap();
    let first = session
        .generate(&prompt(10), &greedy(5), &mut quiet)
        .unwrap();
    assert_eq!(
        (first.timings.cached_tokens, first.timings.prefill_tokens),
        (0, 10)
    );
    assert_eq!((first.timings.decode_tokens, first.tokens.len()), (5, 5));

    let mut next = prompt(10);
    next.extend(&first.tokens);
    next.extend([7, 8]);
    let reused = session.generate(&next, &greedy(5), &mut quiet).unwrap();
    // The last sampled token was never computed.
    assert_eq!(
        (reused.timings.cached_tokens, reused.timings.prefill_tokens),
        (14, 3)
    );
    let fresh = model
        .session()
        .unwrap()
        .generate(&next, &greedy(5), &mut quiet)
        .unwrap();
    assert_eq!(reused.tokens, fresh.tokens);

    // The same prompt again: its last token is computed for its logits.
    let again = session
        .generate(&prompt(10), &greedy(5), &mut quiet)
        .unwrap();
    assert_eq!(
        (again.timings.cached_tokens, again.timings.prefill_tokens),
        (9, 1)
    );
    assert_eq!(again.tokens, first.tokens);
}

#[test]
fn pieces_make_up_the_text() {
    let folder = Folder::random(0);
    let model = load(&folder, |_| {});
    let mut text = String::new();
    let mut collect = |piece: Piece<'_>| {
        text.push_str(piece.text);
        ControlFlow::Continue(())
    };
    let mut options = greedy(40);
    options.sampling.temperature = 1.0;
    options.sampling.seed = Some(5);
    let done = model
        .session()
        .unwrap()
        .generate(&prompt(4), &options, &mut collect)
        .unwrap();
    assert_eq!(done.finish_reason, FinishReason::Length);
    assert_eq!(text, done.text);
    assert_eq!(done.text, model.decode(&done.tokens, true).unwrap());
    let again = model
        .session()
        .unwrap()
        .generate(&prompt(4), &options, &mut quiet)
        .unwrap();
    assert_eq!(again.tokens, done.tokens, "the same seed");

    // A stop string out of the middle: the text ends before it.
    let middle: String = done.text.chars().skip(9).take(3).collect();
    let before = &done.text[..done.text.find(&middle).unwrap()];
    options.stop = vec![middle];
    let stopped = model
        .session()
        .unwrap()
        .generate(&prompt(4), &options, &mut quiet)
        .unwrap();
    assert_eq!(stopped.finish_reason, FinishReason::Stop);
    assert_eq!(stopped.text, before);
}

#[test]
fn the_end_of_sequence_token_ends_and_is_not_text() {
    let folder = Folder::random(0);
    let model = load(&folder, |_| {});
    // Random weights: some seed draws the token soon.
    let ended = (0..200).find_map(|seed| {
        let mut options = greedy(40);
        options.ignore_eos = false;
        options.sampling.temperature = 3.0;
        options.sampling.seed = Some(seed);
        let mut session = model.session().unwrap();
        let done = session.generate(&prompt(3), &options, &mut quiet).unwrap();
        (done.finish_reason == FinishReason::Stop).then_some(done)
    });
    let done = ended.expect("one of 200 generations draws the token");
    assert!(!done.tokens.contains(&EOS));
    assert_eq!(done.timings.decode_tokens, done.tokens.len() + 1);
}

#[test]
fn a_sink_can_end_it_at_any_time() {
    struct StopsInPrefill(usize);
    impl Sink for StopsInPrefill {
        fn piece(&mut self, _: Piece<'_>) -> ControlFlow<()> {
            panic!("no token is due")
        }
        fn prefill_progress(&mut self, done: usize, total: usize) -> ControlFlow<()> {
            assert_eq!(total, 30);
            self.0 = done;
            ControlFlow::Break(())
        }
    }
    let folder = Folder::random(0);
    let model = load(&folder, |o| o.prefill_chunk = 8);
    let mut session = model.session().unwrap();
    let mut sink = StopsInPrefill(0);
    let done = session
        .generate(&prompt(30), &greedy(5), &mut sink)
        .unwrap();
    assert_eq!((sink.0, done.finish_reason), (8, FinishReason::Cancelled));
    assert!(done.tokens.is_empty());

    let mut pieces = 0;
    let mut third = |_: Piece<'_>| {
        pieces += 1;
        if pieces == 3 {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    };
    let done = session
        .generate(&prompt(30), &greedy(9), &mut third)
        .unwrap();
    assert_eq!(
        (done.tokens.len(), done.finish_reason),
        (3, FinishReason::Cancelled)
    );
    // What the cancelled prefill computed was still there.
    assert_eq!(done.timings.cached_tokens, 8);
}

#[test]
fn the_context_is_a_limit_and_not_a_fault() {
    let folder = Folder::random(0);
    let model = load(&folder, |o| o.context_length = Some(16));
    let mut session = model.session().unwrap();
    let done = session
        .generate(&prompt(10), &greedy(100), &mut quiet)
        .unwrap();
    assert_eq!(
        (done.tokens.len(), done.finish_reason),
        (6, FinishReason::Length)
    );
    let error = session
        .generate(&prompt(16), &greedy(1), &mut quiet)
        .unwrap_err();
    assert!(matches!(
        error,
        EngineError::ContextOverflow {
            needed: 17,
            context_length: 16
        }
    ));
    session.truncate(0);
    session.prefill(&prompt(16)).unwrap();
    assert!(matches!(
        session.decode(3),
        Err(EngineError::ContextOverflow { .. })
    ));
    assert_eq!(session.position(), 16);
}

#[test]
fn bad_input_is_an_error() {
    let folder = Folder::random(0);
    let model = load(&folder, |_| {});
    let mut session = model.session().unwrap();
    assert!(matches!(
        session.prefill(&[]),
        Err(EngineError::EmptyPrompt)
    ));
    let unknown = VOCAB_SIZE as u32;
    let error = session.prefill(&[3, unknown]).unwrap_err();
    assert!(matches!(error, EngineError::UnknownToken { id, .. } if id == unknown));
    let mut options = greedy(1);
    options.sampling.top_p = 7.0;
    let error = session
        .generate(&prompt(2), &options, &mut quiet)
        .unwrap_err();
    assert!(error.to_string().contains("top_p"), "{error}");
    assert!(session.prefill(&prompt(2)).is_ok(), "the session goes on");

    for (change, expected) in [
        (
            LoadOptions {
                context_length: Some(CONTEXT + 1),
                ..Default::default()
            },
            "1 to 64",
        ),
        (
            LoadOptions {
                threads: Some(0),
                ..Default::default()
            },
            "0 threads",
        ),
        (
            LoadOptions {
                cores: Some(vec![0, 7777]),
                ..Default::default()
            },
            "core 7777",
        ),
        (
            LoadOptions {
                cores: Some(vec![]),
                ..Default::default()
            },
            "at least one",
        ),
        (
            LoadOptions {
                prefill_chunk: 0,
                ..Default::default()
            },
            "prefill chunk",
        ),
    ] {
        let error = Model::load(&folder.path(), &change)
            .unwrap_err()
            .to_string();
        assert!(error.contains(expected), "{error}");
    }
    let prompt = model.chat_prompt(&ChatInput {
        messages: serde_json::json!([{"role": "user", "content": "hi"}]),
        ..ChatInput::default()
    });
    assert_eq!(prompt.unwrap(), "user:hi;");
}

/// On a thread of its own, as it stays pinned.
#[test]
fn pinned_threads_compute_the_same() {
    let folder = Folder::random(0);
    let logits = |cores: Option<Vec<usize>>, threads| {
        let model = load(&folder, |o| (o.cores, o.threads) = (cores, threads));
        let logits = model
            .session()
            .unwrap()
            .prefill(&prompt(5))
            .unwrap()
            .to_vec();
        (model.threads(), logits)
    };
    let (_, expected) = logits(None, Some(1));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            assert_eq!(logits(Some(vec![0]), None), (1, expected.clone()));
            assert_eq!(logits(Some(vec![0]), Some(2)), (2, expected));
        });
    });
}

#[test]
fn a_token_reads_each_matrix_once() {
    let model = load(&Folder::random(0), |_| ());
    let a = &model.manifest().architecture;
    let attention = a.hidden_size * (2 * a.heads + 2 * a.kv_heads) * a.head_dim;
    let weights = a.layers * (attention + 3 * a.hidden_size * a.intermediate_size);
    let head = a.vocab_size * a.hidden_size;
    let zero_points = a.vocab_size * (a.hidden_size / 32).div_ceil(2);
    // 4 bits and an f16 for each 32; the embedding is the head and has zero points.
    let bytes = (weights + head) / 32 * 18 + zero_points;
    assert_eq!(model.weight_bytes_per_token(), bytes as u64);
}

#[test]
fn a_damaged_folder_names_the_file() {
    type Spoil = fn(Vec<u8>) -> Vec<u8>;
    let spoil: [(&str, Spoil); 4] = [
        ("model.onnx.data", |b| b[..b.len() - 1].to_vec()),
        ("model.onnx", |b| b[..b.len() / 2].to_vec()),
        ("tokenizer.json", |_| b"{}".to_vec()),
        ("chaski.json", |_| b"[]".to_vec()),
    ];
    for (name, spoil) in spoil {
        let folder = Folder::random(0);
        let file = folder.path().join(name);
        let bytes = std::fs::read(&file).unwrap();
        std::fs::write(&file, spoil(bytes)).unwrap();
        let error = Model::load(&folder.path(), &LoadOptions::default()).unwrap_err();
        assert!(error.to_string().contains(name), "{name}: {error}");
        assert!(chaski_engine::verify(&folder.path()).is_err(), "{name}");
    }
    let folder = Folder::random(0);
    chaski_engine::verify(&folder.path()).unwrap();
    let file = folder.path().join("model.onnx.data");
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[5000] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    let error = chaski_engine::verify(&folder.path())
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("model.onnx.data") && error.contains("SHA-256"),
        "{error}"
    );
}
