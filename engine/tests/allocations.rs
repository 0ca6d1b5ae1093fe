//! The decode loop allocates nothing after the first token: counted by an
//! allocator of our own, on the calling thread and on the engine's.

mod support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::backtrace::Backtrace;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::ThreadId;

use chaski_engine::{GenerateOptions, Generated, LoadOptions, Model, Piece, Session, Threads};
use support::Folder;

struct Counting;

#[global_allocator]
static COUNTING: Counting = Counting;

/// Whether allocations are noted.
static ARMED: AtomicBool = AtomicBool::new(false);
/// One measurement at a time.
static TURN: Mutex<()> = Mutex::new(());
static NOTED: Mutex<Noted> = Mutex::new(Noted {
    measured: None,
    allocations: Vec::new(),
});

struct Noted {
    /// The thread that is measured, beside those of the engine.
    measured: Option<ThreadId>,
    allocations: Vec<(String, Backtrace)>,
}

thread_local! {
    /// Set while an allocation is noted, which allocates.
    static NOTING: Cell<bool> = const { Cell::new(false) };
}

/// Notes an allocation of the measured thread or of one of the engine's.
fn note() {
    if !ARMED.load(Ordering::Relaxed) || NOTING.replace(true) {
        return;
    }
    let thread = std::thread::current();
    let name = thread.name().unwrap_or_default();
    let mut noted = NOTED.lock().unwrap_or_else(PoisonError::into_inner);
    if noted.measured == Some(thread.id()) || name.starts_with("chaski-") {
        let place = Backtrace::force_capture();
        noted.allocations.push((name.to_owned(), place));
    }
    drop(noted);
    NOTING.set(false);
}

// SAFETY: all is handed to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note();
        // SAFETY: by the caller's contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        note();
        // SAFETY: by the caller's contract.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        note();
        // SAFETY: by the caller's contract.
        unsafe { System.realloc(memory, layout, size) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: by the caller's contract.
        unsafe { System.dealloc(memory, layout) }
    }
}

/// A measurement of the thread that makes it.
struct Measurement {
    _turn: MutexGuard<'static, ()>,
}

/// Places of allocations, with how often each occurred.
type Places = BTreeMap<String, usize>;

#[derive(Debug, Default)]
struct Counted {
    /// Inside the plan: tract's loop and our operators.
    plan: Places,
    /// On the way to it and back: session, sampler, text.
    rest: Places,
}

impl Measurement {
    /// Waits for those of other tests; make it before the model.
    fn new() -> Self {
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let mut noted = NOTED.lock().unwrap_or_else(PoisonError::into_inner);
        noted.measured = Some(std::thread::current().id());
        Self { _turn: turn }
    }

    fn go_on(&self) {
        ARMED.store(true, Ordering::Relaxed);
    }

    fn pause(&self) {
        ARMED.store(false, Ordering::Relaxed);
    }

    /// What was noted since the last call.
    fn take(&self) -> Counted {
        self.pause();
        let mut noted = NOTED.lock().unwrap_or_else(PoisonError::into_inner);
        let allocations = std::mem::take(&mut noted.allocations);
        drop(noted);
        let mut counted = Counted::default();
        for (thread, place) in &allocations {
            let frames = place.to_string();
            let frames: Vec<&str> = frames
                .lines()
                .filter_map(|line| line.trim_start().split_once(": ").map(|(_, name)| name))
                .collect();
            let in_plan =
                thread.starts_with("chaski-") || frames.iter().any(|f| f.contains("exec_plan"));
            let ours = |frame: &&&str| frame.contains("chaski_engine") || frame.contains("tract");
            let place: Vec<&str> = frames.iter().filter(ours).take(3).copied().collect();
            let places = match in_plan {
                true => &mut counted.plan,
                false => &mut counted.rest,
            };
            *places.entry(place.join(" < ")).or_default() += 1;
        }
        counted
    }
}

fn load(folder: &Folder, threads: usize) -> Model {
    let options = LoadOptions {
        threads: Some(threads),
        ..LoadOptions::default()
    };
    Model::load(&folder.path(), &options).expect("the folder loads")
}

/// Generates, noting from the second piece, when the first token has been
/// decoded, to the last but one; returns the tokens in between, too.
fn generate(
    measurement: &Measurement,
    session: &mut Session,
    options: &GenerateOptions,
) -> (Generated, usize) {
    let most = options.max_tokens.expect("a number of tokens");
    let mut pieces = 0;
    let mut sink = |_: Piece<'_>| {
        pieces += 1;
        match pieces {
            2 => measurement.go_on(),
            n if n == most - 1 => measurement.pause(),
            _ => {}
        }
        ControlFlow::Continue(())
    };
    let prompt = [7, 8, 9, 7, 8, 9, 7, 8];
    session.truncate(0);
    let done = session.generate(&prompt, options, &mut sink).unwrap();
    measurement.pause();
    assert_eq!(done.tokens.len(), most, "it ended early");
    (done, most - 3)
}

fn options(change: impl FnOnce(&mut GenerateOptions)) -> GenerateOptions {
    let mut options = GenerateOptions {
        max_tokens: Some(40),
        ignore_eos: true,
        ..GenerateOptions::default()
    };
    options.sampling.seed = Some(3);
    change(&mut options);
    options
}

#[test]
fn a_measurement_sees_what_is_allocated() {
    let measurement = Measurement::new();
    measurement.go_on();
    std::hint::black_box(vec![1u8; 100]);
    let mut text = std::hint::black_box(String::with_capacity(1));
    text.push_str("longer than one");
    measurement.pause();
    std::hint::black_box(vec![1u8; 100]);
    let counted = measurement.take();
    assert_eq!(counted.rest.values().sum::<usize>(), 3, "{counted:?}");
    assert_eq!(counted.plan.values().sum::<usize>(), 0, "{counted:?}");
}

#[test]
fn sampling_and_text_allocate_nothing() {
    let measurement = Measurement::new();
    let folder = Folder::random(1);
    let ways: [(&str, GenerateOptions); 6] = [
        ("greedy", options(|_| {})),
        ("drawn", options(|o| o.sampling.temperature = 1.0)),
        (
            "filtered",
            options(|o| {
                o.sampling.temperature = 0.8;
                o.sampling.top_k = 40;
                o.sampling.top_p = 0.9;
                o.sampling.min_p = 0.01;
            }),
        ),
        (
            "penalised",
            options(|o| o.sampling.repetition_penalty = 1.2),
        ),
        (
            "stop strings",
            options(|o| o.stop = vec!["never said".into(), "\u{1}\u{2}\u{3}".into()]),
        ),
        ("prompt lookup", options(|o| o.prompt_lookup = 8)),
    ];
    for threads in [1, 2] {
        let model = load(&folder, threads);
        for (way, options) in &ways {
            let mut session = model.session().unwrap();
            if options.prompt_lookup > 0 {
                // Once, so that steps of each length have occurred.
                let (done, _) = generate(&measurement, &mut session, options);
                assert!(done.timings.accepted_tokens > 5, "{:?}", done.timings);
                measurement.take();
            }
            generate(&measurement, &mut session, options);
            let counted = measurement.take();
            assert!(
                counted.rest.is_empty(),
                "{way}, {threads} threads: {:#?}",
                counted.rest
            );
        }
    }
}

#[test]
fn the_plan_allocates_nothing() {
    let measurement = Measurement::new();
    let folder = Folder::random(1);
    for threads in [1, 2] {
        let model = load(&folder, threads);
        let mut session = model.session().unwrap();
        generate(&measurement, &mut session, &options(|_| {}));
        let counted = measurement.take();
        assert!(
            counted.plan.is_empty(),
            "{threads} threads: {:#?}",
            counted.plan
        );
    }
}

#[test]
fn another_number_of_threads_allocates_nothing() {
    let measurement = Measurement::new();
    let folder = Folder::random(1);
    let model = load(&folder, 4);
    let mut session = model.session().unwrap();
    let mut step = |id: u32| {
        let n = 1 + id as usize % 4;
        model.set_threads(Threads {
            prefill: n,
            decode: n,
        });
        session.decode(id).unwrap();
    };
    (10..13).for_each(&mut step);
    measurement.go_on();
    (10..50).for_each(&mut step);
    let counted = measurement.take();
    assert!(counted.rest.is_empty(), "{:#?}", counted.rest);
    assert!(counted.plan.is_empty(), "{:#?}", counted.plan);
}

#[test]
fn single_steps_allocate_nothing_around_the_plan() {
    let measurement = Measurement::new();
    let folder = Folder::random(1);
    let model = load(&folder, 2);
    let mut session = model.session().unwrap();
    for id in 10..13 {
        session.decode(id).unwrap();
    }
    measurement.go_on();
    for id in 10..40 {
        session.decode(id).unwrap();
    }
    let counted = measurement.take();
    assert!(counted.rest.is_empty(), "{:#?}", counted.rest);
}
