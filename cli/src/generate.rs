//! `chaski generate`: text or tokens from a model folder, without MQTT.

use std::io::{self, BufRead, Write};
use std::ops::ControlFlow;

use anyhow::{Context, Result, bail};
use chaski_engine::{
    ChatInput, FinishReason, GenerateOptions, Generated, Model, Piece, SamplingOptions, Session,
};
use serde::{Deserialize, Serialize};

use crate::model_options::ModelOptions;

/// Arguments of `chaski generate`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    model: ModelOptions,
    #[command(flatten)]
    input: InputArgs,
    #[command(flatten)]
    sampling: SamplingArgs,
    /// Most tokens to produce
    #[arg(long, value_name = "N", default_value_t = 256)]
    max_tokens: usize,
    /// End before this string (may be given several times)
    #[arg(long, value_name = "TEXT")]
    stop: Vec<String>,
    /// Go on past end-of-sequence tokens
    #[arg(long)]
    ignore_eos: bool,
    /// Draft up to N tokens from the text so far and verify them in one step: the same answer, faster where it repeats; 0 is off
    #[arg(long, value_name = "N", default_value_t = 0)]
    prompt_lookup: usize,
    /// Print one JSON line with tokens, text and timings
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct InputArgs {
    /// The prompt as token ids
    #[arg(long, value_name = "ID,..", value_delimiter = ',')]
    ids: Vec<u32>,
    /// The prompt as plain text, to be continued
    #[arg(long, value_name = "TEXT")]
    prompt: Option<String>,
    /// A user's message, put through the model's chat template
    #[arg(long, value_name = "TEXT")]
    chat: Option<String>,
    /// JSON lines on standard input, {"ids":[..]}, {"prompt":".."} or {"chat":".."}; one JSON line out for each
    #[arg(long)]
    batch: bool,
}

/// How tokens are chosen; greedy unless told otherwise.
#[derive(Debug, Default, clap::Args)]
struct SamplingArgs {
    /// Divides the logits; 0 takes the most probable token
    #[arg(long, value_name = "X")]
    temperature: Option<f32>,
    /// Keep the K most probable tokens; 0 keeps all
    #[arg(long, value_name = "K")]
    top_k: Option<usize>,
    /// Keep the smallest set whose probability reaches P
    #[arg(long, value_name = "P")]
    top_p: Option<f32>,
    /// Drop tokens less probable than P times the most probable
    #[arg(long, value_name = "P")]
    min_p: Option<f32>,
    /// Make tokens seen before less probable; 1 is off
    #[arg(long, value_name = "X")]
    repetition_penalty: Option<f32>,
    /// Seed of the random choice
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
}

impl SamplingArgs {
    fn options(&self) -> SamplingOptions {
        let greedy = SamplingOptions::default();
        SamplingOptions {
            temperature: self.temperature.unwrap_or(greedy.temperature),
            top_k: self.top_k.unwrap_or(greedy.top_k),
            top_p: self.top_p.unwrap_or(greedy.top_p),
            min_p: self.min_p.unwrap_or(greedy.min_p),
            repetition_penalty: self.repetition_penalty.unwrap_or(greedy.repetition_penalty),
            seed: self.seed.or(greedy.seed),
        }
    }
}

/// A prompt, in the form in which it was given.
#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Prompt {
    Ids(Vec<u32>),
    #[serde(rename = "prompt")]
    Text(String),
    Chat(String),
}

impl Prompt {
    fn tokens(self, model: &Model) -> Result<Vec<u32>> {
        Ok(match self {
            Self::Ids(ids) => ids,
            Self::Text(text) => model.encode(&text, true)?,
            Self::Chat(text) => {
                let prompt = model.chat_prompt(&ChatInput {
                    messages: serde_json::json!([{ "role": "user", "content": text }]),
                    tools: None,
                    add_generation_prompt: true,
                })?;
                model.encode(&prompt, false)?
            }
        })
    }
}

/// The JSON line; tests read it.
#[derive(Debug, Serialize)]
struct Line<'a> {
    prompt_tokens: &'a [u32],
    tokens: &'a [u32],
    text: &'a str,
    finish_reason: &'static str,
    timings: LineTimings,
}

#[derive(Debug, Serialize)]
struct LineTimings {
    prefill_tokens: usize,
    cached_tokens: usize,
    prefill_seconds: f64,
    decode_tokens: usize,
    decode_seconds: f64,
    drafted_tokens: usize,
    accepted_tokens: usize,
}

impl<'a> Line<'a> {
    fn new(prompt_tokens: &'a [u32], generated: &'a Generated) -> Self {
        let timings = &generated.timings;
        Self {
            prompt_tokens,
            tokens: &generated.tokens,
            text: &generated.text,
            finish_reason: match generated.finish_reason {
                FinishReason::Stop => "stop",
                FinishReason::Length => "length",
                FinishReason::Cancelled => "cancelled",
            },
            timings: LineTimings {
                prefill_tokens: timings.prefill_tokens,
                cached_tokens: timings.cached_tokens,
                prefill_seconds: timings.prefill.as_secs_f64(),
                decode_tokens: timings.decode_tokens,
                decode_seconds: timings.decode.as_secs_f64(),
                drafted_tokens: timings.drafted_tokens,
                accepted_tokens: timings.accepted_tokens,
            },
        }
    }
}

/// Runs `chaski generate`.
pub fn run(args: Args) -> Result<()> {
    let model = args.model.load()?;
    let mut session = model.session().context("cannot make a session")?;
    let options = GenerateOptions {
        max_tokens: Some(args.max_tokens),
        sampling: args.sampling.options(),
        stop: args.stop,
        ignore_eos: args.ignore_eos,
        prompt_lookup: args.prompt_lookup,
    };
    let prompt = match (args.input.prompt, args.input.chat) {
        _ if args.input.batch => return batch(&model, &mut session, &options),
        (Some(text), _) => Prompt::Text(text),
        (_, Some(text)) => Prompt::Chat(text),
        _ => Prompt::Ids(args.input.ids),
    };
    if args.json {
        let line = generate_line(&model, &mut session, prompt, &options)?;
        writeln!(io::stdout().lock(), "{line}")?;
        return Ok(());
    }
    stream(&model, &mut session, prompt, &options)
}

fn stream(
    model: &Model,
    session: &mut Session,
    prompt: Prompt,
    options: &GenerateOptions,
) -> Result<()> {
    let tokens = prompt.tokens(model)?;
    let mut out = io::stdout().lock();
    let mut failure = None;
    let generated = session.generate(&tokens, options, &mut |piece: Piece<'_>| {
        let written = out
            .write_all(piece.text.as_bytes())
            .and_then(|()| out.flush());
        match written {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => {
                failure = Some(error);
                ControlFlow::Break(())
            }
        }
    })?;
    if let Some(error) = failure {
        return Err(error).context("cannot write the text");
    }
    writeln!(out)?;
    let timings = &generated.timings;
    eprintln!(
        "prefill: {} tokens in {:.2} s; decode: {} tokens in {:.2} s",
        timings.prefill_tokens,
        timings.prefill.as_secs_f64(),
        timings.decode_tokens,
        timings.decode.as_secs_f64(),
    );
    if options.prompt_lookup > 0 {
        eprintln!(
            "prompt lookup: {} tokens drafted, {} of them accepted",
            timings.drafted_tokens, timings.accepted_tokens
        );
    }
    Ok(())
}

/// One line in, one line out; a line that fails gives `{"error": ".."}` and the
/// rest still run.
fn batch(model: &Model, session: &mut Session, options: &GenerateOptions) -> Result<()> {
    let mut failed = 0usize;
    let mut out = io::stdout().lock();
    for line in io::stdin().lock().lines() {
        let line = line.context("cannot read standard input")?;
        if line.trim().is_empty() {
            continue;
        }
        // Each line stands alone: nothing of the one before is left to re-use.
        session.truncate(0);
        let answer = serde_json::from_str(&line)
            .context(
                "not a line of the form {\"ids\":[..]}, {\"prompt\":\"..\"} or {\"chat\":\"..\"}",
            )
            .and_then(|prompt| generate_line(model, session, prompt, options))
            .unwrap_or_else(|error| {
                failed = failed.saturating_add(1);
                serde_json::json!({ "error": format!("{error:#}") }).to_string()
            });
        writeln!(out, "{answer}")?;
        out.flush()?;
    }
    if failed > 0 {
        bail!("{failed} lines failed");
    }
    Ok(())
}

fn generate_line(
    model: &Model,
    session: &mut Session,
    prompt: Prompt,
    options: &GenerateOptions,
) -> Result<String> {
    let tokens = prompt.tokens(model)?;
    let generated = session.generate(&tokens, options, &mut |_: Piece<'_>| {
        ControlFlow::Continue(())
    })?;
    serde_json::to_string(&Line::new(&tokens, &generated)).context("cannot write JSON")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prompts_come_in_three_forms() {
        let parse = |text| serde_json::from_str::<Prompt>(text);
        assert_eq!(
            parse(r#"{"ids":[1,2]}"#).ok(),
            Some(Prompt::Ids(vec![1, 2]))
        );
        assert_eq!(
            parse(r#"{"chat":"hello"}"#).ok(),
            Some(Prompt::Chat("hello".to_owned()))
        );
        assert_eq!(
            parse(r#"{"prompt":"once"}"#).ok(),
            Some(Prompt::Text("once".to_owned()))
        );
        assert!(parse(r#"{"ids":[-1]}"#).is_err());
        assert!(parse(r#"{"ids":[1],"chat":"x"}"#).is_err());
        assert!(parse(r#"{"text":"x"}"#).is_err());
    }

    #[test]
    fn sampling_is_greedy_unless_told_otherwise() {
        assert_eq!(
            SamplingArgs::default().options(),
            SamplingOptions::default()
        );
        let args = SamplingArgs {
            temperature: Some(0.5),
            seed: Some(7),
            ..SamplingArgs::default()
        };
        assert_eq!(args.options().temperature, 0.5);
        assert_eq!(args.options().seed, Some(7));
        assert_eq!(args.options().top_p, 1.0);
    }

    #[test]
    fn the_json_line_has_the_fields_tests_read() {
        let generated = Generated {
            text: "hi".to_owned(),
            tokens: vec![5],
            finish_reason: FinishReason::Length,
            timings: Default::default(),
        };
        let line = serde_json::to_value(Line::new(&[1, 2], &generated)).expect("JSON");
        assert_eq!(line["prompt_tokens"], serde_json::json!([1, 2]));
        assert_eq!(line["finish_reason"], "length");
        assert_eq!(line["timings"]["decode_seconds"], 0.0);
    }
}
