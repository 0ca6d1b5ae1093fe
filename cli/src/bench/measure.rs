//! The rows of one configuration.

use std::ops::ControlFlow;
use std::time::Instant;

use anyhow::{Context, Result};
use chaski_engine::{GenerateOptions, Model, Piece, Session};

use super::Args;
use super::memory::{AnonymousPeak, Memory};
use super::report::{Run, Test};
use super::table::Measured;

/// Measures all rows with a loaded model.
pub fn measure(args: &Args, model: &Model, mut peak: AnonymousPeak) -> Result<Run> {
    let mut session = model.session().context("cannot make a session")?;
    // Each row takes its beginning.
    let ids = pseudo_random_ids(
        args.needed_context(),
        model.manifest().architecture.vocab_size,
    );
    let repetitions = args.repetitions;
    let mut tests = Vec::new();
    let (mut filled, mut positions) = (0, 0);
    for &depth in &args.depth {
        // What the depth before left, as far as it goes.
        session.truncate(filled.min(depth));
        let missing = part(&ids, session.position(), depth);
        if !missing.is_empty() {
            eprintln!("filling the KV cache to {depth} tokens");
            session
                .prefill(missing)
                .with_context(|| format!("cannot fill the KV cache to {depth} tokens"))?;
        }
        filled = depth;
        for &tokens in &args.prompt {
            let name = name("pp", tokens, depth);
            eprintln!("{name} with {} threads", model.threads());
            let ids = part(&ids, 0, depth + tokens);
            let test = prompt_test(name, &mut session, ids, depth, repetitions, &mut peak)?;
            tests.push(test);
            positions = positions.max(session.position());
        }
        for &tokens in &args.generate {
            let name = name("tg", tokens, depth);
            eprintln!("{name} with {} threads", model.threads());
            // One goes before, which is not measured.
            let ids = part(&ids, depth, depth + tokens + 1);
            let mut test = generate_test(name, &mut session, ids, depth, repetitions, &mut peak)?;
            positions = positions.max(session.position());
            let bytes = model.weight_bytes_per_token() as f64;
            test.weight_bytes_per_second = Some(bytes * test.tokens_per_second.mean);
            tests.push(test);
        }
    }
    peak.look();
    Ok(Run {
        threads: model.threads(),
        context_length: session.context_length(),
        load_seconds: model.load_time().as_secs_f64(),
        // While the session still holds its KV cache.
        memory: Memory::now(),
        peak_anonymous_bytes: peak.bytes(),
        kv_cache_bytes: (positions * model.kv_bytes_per_token()) as u64,
        read_bytes_per_second: None,
        tests,
    })
}

/// As llama-bench names its rows.
fn name(kind: &str, tokens: usize, depth: usize) -> String {
    match depth {
        0 => format!("{kind}{tokens}"),
        _ => format!("{kind}{tokens} @ d{depth}"),
    }
}

fn part(ids: &[u32], from: usize, to: usize) -> &[u32] {
    ids.get(from..to).unwrap_or_default()
}

/// What a run measures, of each repetition; before them a run to warm up, in which
/// alone memory is watched, as that takes time.
fn timed<T>(
    repetitions: usize,
    peak: &mut AnonymousPeak,
    mut run: impl FnMut() -> Result<T>,
) -> Result<Vec<T>> {
    peak.during(&mut run)?;
    (0..repetitions).map(|_| run()).collect()
}

/// Computes the prompt `ids`, of which the first `depth` are in the cache.
fn prompt_test(
    name: String,
    session: &mut Session,
    ids: &[u32],
    depth: usize,
    repetitions: usize,
    peak: &mut AnonymousPeak,
) -> Result<Test> {
    let options = GenerateOptions {
        max_tokens: Some(1),
        ignore_eos: true,
        ..GenerateOptions::default()
    };
    let runs = timed(repetitions, peak, || {
        session.truncate(depth);
        let start = Instant::now();
        let mut first = None;
        let generated = session.generate(ids, &options, &mut |_: Piece<'_>| {
            first.get_or_insert_with(|| start.elapsed());
            ControlFlow::Continue(())
        })?;
        let seconds = generated.timings.prefill.as_secs_f64();
        let first = first.unwrap_or_else(|| start.elapsed());
        Ok((
            generated.timings.prefill_tokens as f64 / seconds,
            first.as_secs_f64(),
        ))
    })
    .with_context(|| format!("{name} failed"))?;
    let (speeds, first_tokens) = runs.into_iter().unzip();
    Ok(Test {
        name,
        depth,
        tokens: ids.len().saturating_sub(depth),
        tokens_per_second: Measured::of(speeds),
        first_token_seconds: Some(Measured::of(first_tokens)),
        weight_bytes_per_second: None,
        read_bandwidth_percent: None,
    })
}

/// Puts `ids` after the first `depth` tokens in the cache, one by one.
fn generate_test(
    name: String,
    session: &mut Session,
    ids: &[u32],
    depth: usize,
    repetitions: usize,
    peak: &mut AnonymousPeak,
) -> Result<Test> {
    let (first, rest) = ids.split_first().context("nothing to generate")?;
    let speeds = timed(repetitions, peak, || {
        session.truncate(depth);
        session.prefill(&[*first])?;
        let start = Instant::now();
        for &id in rest {
            session.decode(id)?;
        }
        Ok(rest.len() as f64 / start.elapsed().as_secs_f64())
    })
    .with_context(|| format!("{name} failed"))?;
    Ok(Test {
        name,
        depth,
        tokens: rest.len(),
        tokens_per_second: Measured::of(speeds),
        first_token_seconds: None,
        weight_bytes_per_second: None,
        read_bandwidth_percent: None,
    })
}

/// The same ids in every run (a linear congruential generator, Numerical Recipes' figures).
fn pseudo_random_ids(count: usize, vocabulary: usize) -> Vec<u32> {
    let vocabulary = u32::try_from(vocabulary).unwrap_or(u32::MAX).max(1);
    let mut state = 1u32;
    (0..count)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 4) % vocabulary
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_named_as_by_llama_bench() {
        assert_eq!(name("tg", 64, 0), "tg64");
        assert_eq!(name("pp", 128, 4096), "pp128 @ d4096");
    }

    #[test]
    fn ids_are_in_the_vocabulary_and_the_same_each_time() {
        let ids = pseudo_random_ids(1000, 77);
        assert!(ids.iter().all(|&id| id < 77));
        assert_eq!(ids, pseudo_random_ids(1000, 77));
        assert!(ids.iter().collect::<std::collections::BTreeSet<_>>().len() > 50);
        assert_eq!(pseudo_random_ids(2, 0), [0, 0]);
    }
}
