use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use chaski_engine::{FinishReason, Generated, Timings};

use super::*;
use crate::inference::{Cancel, Chunking, Prompt, SamplingOverrides, ThreadSetter};
use crate::wire::{LoadedInfo, ModelInfo};

/// Each piece by itself.
const PIECES: Chunking = Chunking {
    interval: Duration::ZERO,
    bytes: 1,
};
/// Nothing is due before the end but the first piece.
const ALL: Chunking = Chunking {
    interval: Duration::MAX,
    bytes: usize::MAX,
};

/// Says `word` again and again until it has said `max_tokens`, or panics on "panic".
struct Parrot {
    emitted: Arc<AtomicUsize>,
    released: Arc<AtomicUsize>,
    /// Time it takes for each.
    pause: Duration,
}

impl Generator for Parrot {
    fn description(&self) -> Description {
        Description {
            model: ModelInfo {
                name: "parrot".into(),
                family: "bird".into(),
                layers: 1,
                hidden_size: 1,
                heads: 1,
                kv_heads: 1,
                vocab_size: 1,
                context_length: 1,
                file_bytes: 1,
                created_by: "test".into(),
            },
            loaded: LoadedInfo {
                context_length: 1,
                backend: "none".into(),
                threads: 1,
                load_seconds: 0.0,
            },
        }
    }

    fn generate(
        &mut self,
        job: &Job,
        emit: &mut dyn FnMut(&str) -> ControlFlow<()>,
    ) -> Result<Completed, Refusal> {
        let Prompt::Text { text, .. } = &job.prompt else {
            return Err(Refusal::invalid("only text"));
        };
        assert_ne!(text, "panic", "as asked");
        let mut said = String::new();
        let mut finish_reason = FinishReason::Length;
        for _ in 0..job.max_tokens {
            std::thread::sleep(self.pause);
            said += text;
            if emit(text).is_break() {
                finish_reason = FinishReason::Cancelled;
                break;
            }
            self.emitted.fetch_add(1, Ordering::Relaxed);
        }
        Ok(Completed {
            prompt_tokens: 1,
            generated: Generated {
                text: said,
                tokens: vec![],
                finish_reason,
                timings: Timings::default(),
            },
        })
    }

    fn thread_setter(&self) -> ThreadSetter {
        let all = Threads {
            prefill: 4,
            decode: 4,
        };
        Box::new(move |effort| effort.of(all))
    }

    fn release(&mut self) {
        self.released.fetch_add(1, Ordering::Relaxed);
    }
}

fn job(key: u64, text: &str, max_tokens: usize, stream: bool) -> Job {
    Job {
        key,
        prompt: Prompt::Text {
            text: text.into(),
            system: None,
        },
        sampling: SamplingOverrides::default(),
        max_tokens,
        stop: vec![],
        stream,
        chunking: PIECES,
        include_text: false,
        cancel: Cancel::default(),
    }
}

fn start() -> (Inference, Arc<AtomicUsize>) {
    start_with(Duration::ZERO)
}

fn start_with(pause: Duration) -> (Inference, Arc<AtomicUsize>) {
    let parrot = Parrot {
        emitted: Arc::default(),
        released: Arc::default(),
        pause,
    };
    let emitted = Arc::clone(&parrot.emitted);
    (start_parrot(parrot), emitted)
}

fn start_parrot(parrot: Parrot) -> Inference {
    let inference = Inference::start(Box::new(move || Ok(Box::new(parrot)))).unwrap();
    assert!(matches!(next(&inference), Some(Event::Ready(d)) if d.model.name == "parrot"));
    inference
}

fn next(inference: &Inference) -> Option<Event> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    runtime.block_on(inference.next_event())
}

fn next_finished(inference: &Inference) -> Finished {
    loop {
        match next(inference) {
            Some(Event::Finished(finished)) => return *finished,
            Some(_) => {}
            None => panic!("the thread is gone"),
        }
    }
}

#[test]
fn pieces_come_only_when_asked_for() {
    let (inference, _) = start();
    inference.submit(job(1, "la", 3, false)).unwrap();
    let Some(Event::Finished(finished)) = next(&inference) else {
        panic!("a piece came")
    };
    assert_eq!(
        (
            finished.key,
            finished.result.unwrap().generated.text.as_str()
        ),
        (1, "lalala")
    );

    inference.submit(job(2, "la", 2, true)).unwrap();
    for _ in 0..2 {
        assert!(matches!(next(&inference), Some(Event::Piece { key: 2, text }) if text == "la"));
    }
    assert_eq!(next_finished(&inference).key, 2);
}

#[test]
fn generation_waits_for_those_who_take_the_pieces() {
    let (inference, emitted) = start();
    inference.submit(job(1, "la", 100_000, true)).unwrap();
    for _ in 0..10 {
        assert!(matches!(next(&inference), Some(Event::Piece { .. })));
    }
    assert!(emitted.load(Ordering::Relaxed) <= 10 + EVENT_CAPACITY);
}

/// All text that comes before the end, and the end.
fn streamed(inference: &Inference) -> (Vec<String>, Finished) {
    let mut texts = Vec::new();
    loop {
        match next(inference) {
            Some(Event::Piece { text, .. }) => texts.push(text),
            Some(Event::Finished(finished)) => return (texts, *finished),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_fast_generator_fills_its_chunks() {
    let (inference, _) = start();
    let chunking = Chunking { bytes: 6, ..ALL };
    let fast = Job {
        chunking,
        ..job(1, "la", 9, true)
    };
    inference.submit(fast).unwrap();
    let (texts, finished) = streamed(&inference);
    assert_eq!(texts, ["la", "lalala", "lalala", "lala"]);
    assert_eq!(finished.result.unwrap().generated.text, texts.concat());
}

#[test]
fn a_slow_generator_has_each_piece_sent() {
    // Sleeping never takes less than the time asked for.
    let interval = Duration::from_millis(1);
    let (inference, _) = start_with(interval);
    let chunking = Chunking { interval, ..ALL };
    let slow = Job {
        chunking,
        ..job(1, "la", 4, true)
    };
    inference.submit(slow).unwrap();
    assert_eq!(streamed(&inference).0, ["la"; 4]);
}

#[test]
fn the_chunks_of_a_cancelled_job_are_all_of_its_text() {
    let (inference, emitted) = start();
    let chunking = Chunking { bytes: 1000, ..ALL };
    let long = Job {
        chunking,
        ..job(1, "la", usize::MAX, true)
    };
    let cancel = long.cancel.clone();
    inference.submit(long).unwrap();
    let Some(Event::Piece { text, .. }) = next(&inference) else {
        panic!("no piece")
    };
    cancel.set();
    let (texts, finished) = streamed(&inference);
    let generated = finished.result.unwrap().generated;
    assert_eq!(generated.finish_reason, FinishReason::Cancelled);
    assert_eq!(generated.text, text + &texts.concat());
    // The token at which it was seen is the only one after the cancel.
    assert_eq!(
        generated.text.len() / 2,
        emitted.load(Ordering::Relaxed) + 1
    );
}

#[test]
fn a_job_cancelled_before_it_began_computes_nothing() {
    let (inference, emitted) = start();
    let cancelled = job(1, "panic", 3, true);
    cancelled.cancel.set();
    inference.submit(cancelled).unwrap();
    let (texts, finished) = streamed(&inference);
    let completed = finished.result.unwrap();
    assert!(texts.is_empty() && completed.generated.text.is_empty());
    assert_eq!(completed.generated.finish_reason, FinishReason::Cancelled);
    assert_eq!(completed.prompt_tokens, 0);
    assert_eq!(emitted.load(Ordering::Relaxed), 0);
}

#[test]
fn a_cancelled_job_ends_and_the_next_one_runs() {
    let (inference, _) = start();
    let long = job(1, "la", usize::MAX, false);
    let cancel = long.cancel.clone();
    inference.submit(long).unwrap();
    cancel.set();
    let finished = next_finished(&inference);
    assert_eq!(
        finished.result.unwrap().generated.finish_reason,
        FinishReason::Cancelled
    );
    inference.submit(job(2, "la", 1, false)).unwrap();
    assert_eq!(next_finished(&inference).key, 2);
}

#[test]
fn a_panic_is_seen_and_told() {
    let (mut inference, _) = start();
    inference.submit(job(1, "panic", 1, false)).unwrap();
    assert!(next(&inference).is_none());
    assert!(inference.join().unwrap_err().contains("as asked"));
    assert_eq!(
        inference.submit(job(2, "la", 1, false)),
        Err(SendError::Closed(()))
    );
}

#[test]
fn a_model_that_does_not_load_is_told() {
    let mut inference = Inference::start(Box::new(|| Err("no such folder".into()))).unwrap();
    assert!(
        matches!(next(&inference), Some(Event::LoadFailed(e)) if e.to_string() == "no such folder")
    );
    assert!(next(&inference).is_none());
    assert_eq!(inference.join(), Ok(()));
}

#[test]
fn dropping_the_handle_ends_the_thread_even_in_the_middle() {
    let (done, ended) = mpsc::channel::<()>();
    let parrot = Parrot {
        emitted: Arc::default(),
        released: Arc::default(),
        pause: Duration::ZERO,
    };
    let loader: Loader = Box::new(move || {
        // Dropped with the thread's generator.
        struct Guarded(Parrot, #[allow(dead_code)] mpsc::Sender<()>);
        impl Generator for Guarded {
            fn description(&self) -> Description {
                self.0.description()
            }
            fn generate(
                &mut self,
                job: &Job,
                emit: &mut dyn FnMut(&str) -> ControlFlow<()>,
            ) -> Result<Completed, Refusal> {
                self.0.generate(job, emit)
            }
        }
        Ok(Box::new(Guarded(parrot, done)))
    });
    let inference = Inference::start(loader).unwrap();
    inference.submit(job(1, "la", usize::MAX, true)).unwrap();
    drop(inference);
    assert_eq!(ended.recv(), Err(mpsc::RecvError));
}

/// After each step a pause of ten seconds, as long as one can be.
const LONG_PAUSES: Effort = Effort {
    halvings: 1,
    pause_percent: u32::MAX,
    keeps_cache: true,
};

#[test]
fn a_cancel_is_heard_in_a_pause_and_who_pauses_is_alive() {
    let (inference, emitted) = start_with(Duration::from_millis(5));
    inference.set_effort(LONG_PAUSES);
    let slow = job(1, "la", 100, false);
    let cancel = slow.cancel.clone();
    let begun = Instant::now();
    inference.submit(slow).unwrap();
    while emitted.load(Ordering::Relaxed) == 0 && inference.pulse() < 5 {
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(emitted.load(Ordering::Relaxed), 0, "it does not pause");
    cancel.set();
    let generated = next_finished(&inference).result.unwrap().generated;
    assert_eq!(generated.finish_reason, FinishReason::Cancelled);
    assert_eq!(generated.text, "la");
    assert!(
        begun.elapsed() < Duration::from_secs(10),
        "it was slept out"
    );
}

#[test]
fn a_pause_ends_with_the_effort_that_it_is_for() {
    let (inference, _) = start_with(Duration::from_millis(5));
    inference.set_effort(LONG_PAUSES);
    let begun = Instant::now();
    inference.submit(job(1, "la", 3, false)).unwrap();
    while inference.pulse() < 5 {
        std::thread::sleep(Duration::from_millis(1));
    }
    let threads = |n| {
        Some(Threads {
            prefill: n,
            decode: n,
        })
    };
    assert_eq!(inference.threads(), threads(2));
    inference.set_effort(Effort::default());
    let generated = next_finished(&inference).result.unwrap().generated;
    assert_eq!(generated.text, "lalala");
    assert_eq!(inference.threads(), threads(4));
    assert!(
        begun.elapsed() < Duration::from_secs(10),
        "it was slept out"
    );
}

#[test]
fn dropping_the_handle_ends_a_pause() {
    let (inference, _) = start_with(Duration::from_millis(5));
    inference.set_effort(LONG_PAUSES);
    let begun = Instant::now();
    inference.submit(job(1, "la", 100, false)).unwrap();
    while inference.pulse() < 5 {
        std::thread::sleep(Duration::from_millis(1));
    }
    inference.end();
    assert!(
        begun.elapsed() < Duration::from_secs(10),
        "it was slept out"
    );
}

#[test]
fn memory_is_given_back_when_told_and_after_each_job_if_it_is_not_to_be_kept() {
    let parrot = Parrot {
        emitted: Arc::default(),
        released: Arc::default(),
        pause: Duration::ZERO,
    };
    let released = Arc::clone(&parrot.released);
    let released = || released.load(Ordering::Relaxed);
    let inference = start_parrot(parrot);
    inference.submit(job(1, "la", 1, false)).unwrap();
    next_finished(&inference);
    assert_eq!(released(), 0);
    // However often, and a job finds its place all the same.
    for round in 1..=20 {
        (0..10).for_each(|_| inference.release());
        inference.submit(job(2, "la", 1, false)).unwrap();
        next_finished(&inference);
        assert!((round..=10 * round).contains(&released()), "{}", released());
    }
    let before = released();
    inference.set_effort(Effort {
        keeps_cache: false,
        ..Effort::default()
    });
    inference.submit(job(3, "la", 1, false)).unwrap();
    next_finished(&inference);
    assert!(released() > before);
}
