//! `chaski perplexity`: how well a model folder foretells a text, to compare
//! formats and precisions by one number.
//!
//! Counted as llama.cpp's `llama-perplexity` counts it, so that figures can be
//! laid side by side.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use chaski_engine::{LoadOptions, Session};
use serde::Serialize;

use crate::model_options::{ModelOptions, at_least_one};

/// With fewer tokens a window has no half of context and half of counted tokens.
const LEAST_WINDOW: usize = 4;

const HOW: &str = "\
How it is counted: the text is tokenised whole and cut into windows of N tokens; the
rest at the end is dropped. Each window starts with an empty KV cache; where the
tokenizer begins texts with a token of its own (BOS), that takes the place of the
window's first. The first N/2 tokens and the one after them are context, the
N - N/2 - 1 that follow are counted. The perplexity is e to the mean of -ln p(token)
over them; the standard error is that of the mean, times the perplexity.

llama.cpp's `llama-perplexity -c N` counts in the same way; it takes special tokens
that are written in the text for plain text, which is not done here.";

/// Arguments of `chaski perplexity`.
#[derive(Debug, clap::Args)]
#[command(after_help = HOW)]
pub struct Args {
    #[command(flatten)]
    model: ModelOptions,
    /// The text, UTF-8
    #[arg(long, value_name = "FILE")]
    text: PathBuf,
    /// Tokens of a window
    #[arg(long, value_name = "N", default_value_t = 512, value_parser = window)]
    window: usize,
    /// Take no more than the first N windows [default: all]
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    windows: Option<usize>,
    /// Print one line of JSON
    #[arg(long)]
    json: bool,
}

/// The JSON line; tests read it.
#[derive(Debug, Serialize)]
struct Report {
    perplexity: f64,
    standard_error: f64,
    tokens_counted: u64,
    windows: usize,
    window: usize,
    text_tokens: usize,
    seconds: f64,
}

/// Runs `chaski perplexity`.
pub fn run(args: &Args) -> Result<()> {
    let text = read(&args.text)?;
    let model = options(args)?.load()?;
    let ids = model.encode(&text, true).context("cannot tokenise")?;
    let begin = model.encode("", true).context("cannot tokenise")?;
    let chunk = args
        .model
        .prefill_chunk
        .unwrap_or(LoadOptions::default().prefill_chunk);
    let windows = windows(&ids, begin.first().copied(), args.window, args.windows)
        .with_context(|| format!("cannot count {}", args.text.display()))?;
    let mut session = model.session().context("cannot make a session")?;
    let mut sum = Sum::default();
    let start = Instant::now();
    for (number, window) in (1..).zip(&windows) {
        count(&mut session, window, chunk, &mut sum)
            .with_context(|| format!("window {number} failed"))?;
        eprintln!(
            "window {number} of {}: {:.4} so far",
            windows.len(),
            sum.perplexity()
        );
    }
    let report = Report {
        perplexity: sum.perplexity(),
        standard_error: sum.standard_error(),
        tokens_counted: sum.count,
        windows: windows.len(),
        window: args.window,
        text_tokens: ids.len(),
        seconds: start.elapsed().as_secs_f64(),
    };
    let mut out = io::stdout().lock();
    if args.json {
        writeln!(out, "{}", serde_json::to_string(&report)?)?;
    } else {
        writeln!(
            out,
            "perplexity {:.4} ± {:.4}: {} tokens counted, in {} windows of {}, of the text's {}; {:.1} s",
            report.perplexity,
            report.standard_error,
            report.tokens_counted,
            report.windows,
            report.window,
            report.text_tokens,
            report.seconds
        )?;
    }
    Ok(())
}

fn read(path: &Path) -> Result<String> {
    let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    String::from_utf8(bytes).with_context(|| {
        format!(
            "{} is not UTF-8 text: convert it, as `iconv -t UTF-8` does",
            path.display()
        )
    })
}

/// The model's options, with a context that holds a window and no more.
fn options(args: &Args) -> Result<ModelOptions> {
    let mut options = args.model.clone();
    let context = *options.context_length.get_or_insert(args.window);
    if context < args.window {
        bail!(
            "a window of {} tokens does not fit the context of {context}: \
             leave out --context-length, or give a smaller --window",
            args.window
        );
    }
    Ok(options)
}

fn window(text: &str) -> Result<usize, String> {
    match at_least_one(text)? {
        tokens if tokens < LEAST_WINDOW => Err(format!("must be at least {LEAST_WINDOW}")),
        tokens => Ok(tokens),
    }
}

/// The whole windows of a text, each begun by `begin` if there is such a token.
fn windows(
    ids: &[u32],
    begin: Option<u32>,
    window: usize,
    most: Option<usize>,
) -> Result<Vec<Vec<u32>>> {
    let windows: Vec<Vec<u32>> = ids
        .chunks_exact(window)
        .take(most.unwrap_or(usize::MAX))
        .map(|ids| match begin {
            Some(begin) => [&[begin], ids.get(1..).unwrap_or_default()].concat(),
            None => ids.to_vec(),
        })
        .collect();
    if windows.is_empty() {
        bail!(
            "the text has {} tokens and a window {window}: give a longer text, or --window {} or less",
            ids.len(),
            ids.len().max(LEAST_WINDOW)
        );
    }
    Ok(windows)
}

/// Counts the second half of one window.
fn count(session: &mut Session, window: &[u32], chunk: usize, sum: &mut Sum) -> Result<()> {
    let (context, scored) = window.split_at(window.len() / 2);
    session.truncate(0);
    session.prefill(context)?;
    // The last token has none after it to foretell.
    let steps = scored.split_last().map_or(&[][..], |(_, before)| before);
    let mut targets = scored.iter().skip(1);
    for step in steps.chunks(chunk.max(1)) {
        // [step.len(), vocab_size] of f32 is the memory that the chunk bounds.
        let logits = session.score(step)?;
        for row in logits.chunks_exact(logits.len() / step.len()) {
            let &target = targets.next().context("more logits than tokens")?;
            sum.add(surprise(row, target)?);
        }
    }
    Ok(())
}

/// -ln of the probability that softmax gives to the target.
fn surprise(logits: &[f32], target: u32) -> Result<f64> {
    let of_target = logits
        .get(target as usize)
        .with_context(|| format!("there is no logit of token {target}"))?;
    let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let total: f64 = logits
        .iter()
        .map(|logit| f64::from(logit - most).exp())
        .sum();
    let surprise = total.ln() + f64::from(most) - f64::from(*of_target);
    if !surprise.is_finite() {
        bail!("the logits are not finite: `chaski verify` tells whether the folder is whole");
    }
    Ok(surprise)
}

/// What the mean and its error need of the tokens counted.
#[derive(Debug, Default)]
struct Sum {
    count: u64,
    of_values: f64,
    of_squares: f64,
}

impl Sum {
    fn add(&mut self, value: f64) {
        self.count = self.count.saturating_add(1);
        self.of_values += value;
        self.of_squares += value * value;
    }

    fn mean(&self) -> f64 {
        self.of_values / self.count as f64
    }

    fn perplexity(&self) -> f64 {
        self.mean().exp()
    }

    /// By the rule for a function of the mean: its derivative, which is the
    /// perplexity again, times the mean's own error. Of one token, 0.
    fn standard_error(&self) -> f64 {
        if self.count < 2 {
            return 0.0;
        }
        let variance = self.of_squares / self.count as f64 - self.mean() * self.mean();
        let of_mean = (variance.max(0.0) / (self.count - 1) as f64).sqrt();
        of_mean * self.perplexity()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn even_logits_surprise_by_the_logarithm_of_their_number() {
        let surprise = surprise(&[3.0; 8], 5).expect("finite");
        assert!((surprise - 8f64.ln()).abs() < 1e-12);
    }

    #[test]
    fn large_logits_do_not_overflow() {
        assert_eq!(surprise(&[1e30, -1e30], 0).expect("finite"), 0.0);
        assert!((surprise(&[5000.0, 4999.0], 1).expect("finite") - 1.313_261_687).abs() < 1e-8);
    }

    #[test]
    fn what_is_no_probability_is_an_error() {
        assert!(surprise(&[f32::NAN, 0.0], 1).is_err());
        assert!(surprise(&[f32::NEG_INFINITY, 0.0], 0).is_err());
        assert!(surprise(&[0.0, 0.0], 2).is_err());
    }

    #[test]
    fn the_perplexity_of_known_surprises() {
        let mut sum = Sum::default();
        for value in [1.0, 2.0, 3.0] {
            sum.add(value);
        }
        assert!((sum.perplexity() - 2f64.exp()).abs() < 1e-12);
        // llama.cpp's formula: sqrt((mean of squares - square of mean) / (count - 1)).
        let expected = (2.0 / 3.0 / 2.0f64).sqrt() * 2f64.exp();
        assert!((sum.standard_error() - expected).abs() < 1e-12);
    }

    #[test]
    fn one_token_has_no_error() {
        let mut sum = Sum::default();
        sum.add(1.0);
        assert_eq!(sum.standard_error(), 0.0);
    }

    #[test]
    fn windows_are_whole_and_begin_as_texts_do() {
        let ids: Vec<u32> = (10..20).collect();
        let plain = windows(&ids, None, 4, None).expect("two");
        assert_eq!(plain, [[10, 11, 12, 13], [14, 15, 16, 17]]);
        let begun = windows(&ids, Some(1), 4, Some(1)).expect("one");
        assert_eq!(begun, [[1, 11, 12, 13]]);
    }

    #[test]
    fn a_short_text_says_how_long_it_is_and_what_helps() {
        let error = windows(&[1; 7], None, 512, None).expect_err("too short");
        let error = error.to_string();
        for word in ["7 tokens", "512", "--window 7"] {
            assert!(error.contains(word), "{error}");
        }
    }

    #[test]
    fn windows_too_small_to_halve_are_refused() {
        assert_eq!(window("4"), Ok(4));
        assert!(window("3").is_err());
        assert!(window("0").is_err());
        assert!(window("x").is_err());
    }
}
