//! The conversation: questions in, answers and their timings out.

use std::io::{self, IsTerminal, Write};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use chaski_daemon::wire::{ChatRequest, Message, Reply, ReplyTimings};
use tokio::sync::mpsc;

use crate::client::{Client, ClientError};
use crate::terminal;

/// Most messages kept; the node takes a few more.
const MAX_MESSAGES: usize = 128;
/// A slow board may take so long for one token.
const PATIENCE: Duration = Duration::from_secs(600);
/// Longest answer.
const MAX_TOKENS: u64 = 256;

/// What was said so far.
#[derive(Debug, Default)]
pub struct Conversation {
    messages: Vec<Message>,
}

impl Conversation {
    /// Asks, prints the answer as it comes, and keeps both.
    pub async fn ask(&mut self, client: &mut Client, question: &str) -> Result<()> {
        self.messages.push(Message::new("user", question));
        while self.messages.len() > MAX_MESSAGES {
            self.forget_oldest();
        }
        loop {
            match self.answer(client).await {
                Ok((text, timings)) => {
                    self.messages.push(Message::new("assistant", &text));
                    let mut out = io::stdout().lock();
                    writeln!(out, "\n\n{}", figures(&timings))?;
                    out.flush()?;
                    return Ok(());
                }
                Err(error) if is_too_long(&error) && self.forget_oldest() => {
                    eprintln!("(the conversation is too long: its oldest part is forgotten)");
                }
                Err(error) => {
                    // The question that failed is not part of what follows.
                    self.messages.pop();
                    return Err(error);
                }
            }
        }
    }

    async fn answer(&self, client: &mut Client) -> Result<(String, ReplyTimings)> {
        client.send(&self.request()).await?;
        let mut text = String::new();
        loop {
            match client.reply(PATIENCE).await? {
                Reply::Chunk(chunk) => {
                    let choice = chunk.choices.first();
                    if let Some(piece) = choice.and_then(|choice| choice.delta.content.as_deref()) {
                        print(piece)?;
                        text.push_str(piece);
                    }
                    if choice.is_none_or(|choice| choice.finish_reason.is_some()) {
                        return Ok((text, chunk.timings.unwrap_or_default()));
                    }
                }
                Reply::Completion(completion) => {
                    let whole = completion.choices.first();
                    let whole = whole.map_or("", |choice| choice.message.content.as_str());
                    print(whole)?;
                    return Ok((whole.to_owned(), completion.timings));
                }
                Reply::Error(error) => anyhow::bail!("{}", error.error.message),
            }
        }
    }

    fn request(&self) -> ChatRequest {
        ChatRequest {
            messages: self.messages.clone(),
            stream: Some(true),
            max_tokens: Some(MAX_TOKENS),
            ..ChatRequest::default()
        }
    }

    /// Drops the first question and its answer; false when only the last question is left.
    fn forget_oldest(&mut self) -> bool {
        if self.messages.len() < 3 {
            return false;
        }
        self.messages.drain(..2);
        true
    }
}

fn is_too_long(error: &anyhow::Error) -> bool {
    matches!(
        error.downcast_ref(),
        Some(ClientError::Refusal { error, .. })
            if matches!(
                error.code.as_str(),
                "context_length_exceeded" | "prompt_too_large" | "payload_too_large"
            )
    )
}

/// One line of figures under an answer.
fn figures(timings: &ReplyTimings) -> String {
    let cached = match timings.cached_tokens {
        0 => String::new(),
        count => format!(", {count} more from the KV cache"),
    };
    format!(
        "[prefill: {} tokens in {:.2} s, {:.1} tok/s{cached}; decode: {} tokens in {:.2} s, {:.1} tok/s]",
        timings.prefill_tokens,
        timings.prefill_seconds,
        timings.prefill_tokens_per_second,
        timings.decode_tokens,
        timings.decode_seconds,
        timings.decode_tokens_per_second,
    )
}

fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    let text = terminal::safe(text, out.is_terminal());
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// The lines of standard input, read on a thread of their own: it cannot be
/// interrupted while it waits for the keyboard, and need not be.
pub fn lines() -> Result<mpsc::Receiver<io::Result<String>>> {
    let (sender, receiver) = mpsc::channel(1);
    thread::Builder::new()
        .name("keyboard".to_owned())
        .spawn(move || {
            for line in io::stdin().lines() {
                if sender.blocking_send(line).is_err() {
                    return;
                }
            }
        })
        .context("cannot start a thread to read the keyboard")?;
    Ok(receiver)
}

#[cfg(test)]
mod tests {
    use chaski_daemon::wire::{ErrorCode, ErrorReply};

    use super::*;

    fn conversation(messages: usize) -> Conversation {
        let message = |number: usize| Message::new("user", &number.to_string());
        Conversation {
            messages: (0..messages).map(message).collect(),
        }
    }

    #[test]
    fn the_oldest_exchange_is_forgotten_but_never_the_question() {
        let mut conversation = conversation(5);
        assert!(conversation.forget_oldest());
        assert_eq!(conversation.messages.len(), 3);
        assert_eq!(conversation.messages[0].content, "2");
        assert!(conversation.forget_oldest());
        assert!(!conversation.forget_oldest());
        assert_eq!(conversation.messages[0].content, "4");
    }

    #[test]
    fn only_length_makes_it_forget() {
        let refusal = |code| {
            anyhow::Error::new(ClientError::Refusal {
                node: "pi".to_owned(),
                error: ErrorReply::new(None, code, "x").error,
            })
        };
        assert!(is_too_long(&refusal(ErrorCode::ContextLengthExceeded)));
        assert!(is_too_long(&refusal(ErrorCode::PromptTooLarge)));
        assert!(is_too_long(&refusal(ErrorCode::PayloadTooLarge)));
        assert!(!is_too_long(&refusal(ErrorCode::Internal)));
        assert!(!is_too_long(&anyhow::anyhow!("x")));
    }

    #[test]
    fn the_figures_name_both_speeds() {
        let timings = ReplyTimings {
            prefill_tokens: 30,
            cached_tokens: 12,
            prefill_seconds: 0.5,
            prefill_tokens_per_second: 60.0,
            decode_tokens: 8,
            decode_seconds: 0.25,
            decode_tokens_per_second: 32.0,
            ..ReplyTimings::default()
        };
        assert_eq!(
            figures(&timings),
            "[prefill: 30 tokens in 0.50 s, 60.0 tok/s, 12 more from the KV cache; \
             decode: 8 tokens in 0.25 s, 32.0 tok/s]"
        );
    }
}
