//! A bar with rate and time left on a terminal, plain lines elsewhere.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{HumanBytes, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

use super::{Progress, Stage};

/// Between two plain lines.
const LINE_INTERVAL: Duration = Duration::from_secs(5);

/// Shows progress on standard error.
#[derive(Debug)]
pub struct ProgressDisplay {
    terminal: bool,
    bar: Option<ProgressBar>,
    stage: Stage,
    item: String,
    total: u64,
    done: u64,
    begun: Instant,
    next_line: Instant,
}

impl Default for ProgressDisplay {
    fn default() -> Self {
        Self::new()
    }
}

impl ProgressDisplay {
    /// Looks whether standard error is a terminal.
    pub fn new() -> Self {
        let now = Instant::now();
        Self {
            terminal: std::io::stderr().is_terminal(),
            bar: None,
            stage: Stage::Hashing,
            item: String::new(),
            total: 0,
            done: 0,
            begun: now,
            next_line: now,
        }
    }

    fn bar(total: u64) -> ProgressBar {
        let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
        let template = "{prefix:>18} [{bar:30}] {bytes}/{total_bytes} {binary_bytes_per_sec} \
                        {left} {wide_msg}";
        // The template is a constant and tested: only a typing error could fail.
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("=> ").with_key(
                "left",
                |state: &ProgressState, writer: &mut dyn std::fmt::Write| {
                    let _ = write!(writer, "{}s left", state.eta().as_secs());
                },
            ));
        }
        bar
    }

    fn line(&self) -> String {
        plain_line(
            self.stage,
            self.done,
            self.total,
            self.begun.elapsed(),
            &self.item,
        )
    }
}

fn plain_line(stage: Stage, done: u64, total: u64, elapsed: Duration, item: &str) -> String {
    let percent = (done as f64 / total.max(1) as f64 * 100.0).min(100.0);
    let rate = done as f64 / elapsed.as_secs_f64().max(1e-3);
    let left = total.saturating_sub(done) as f64 / rate.max(1.0);
    format!(
        "{}: {percent:.0}% of {}, {}/s, {left:.0}s left: {item}",
        stage.name(),
        HumanBytes(total),
        HumanBytes(rate as u64),
    )
}

impl Progress for ProgressDisplay {
    fn begin(&mut self, stage: Stage, total: u64) {
        self.end();
        (self.stage, self.total, self.done) = (stage, total, 0);
        self.begun = Instant::now();
        self.next_line = self.begun + LINE_INTERVAL;
        if self.terminal {
            let bar = Self::bar(total);
            bar.set_prefix(stage.name());
            self.bar = Some(bar);
        } else {
            eprintln!("{}: {}", stage.name(), HumanBytes(total));
        }
    }

    fn item(&mut self, name: &str) {
        name.clone_into(&mut self.item);
        if let Some(bar) = &self.bar {
            bar.set_message(name.to_owned());
        }
    }

    fn advance(&mut self, bytes: u64) {
        self.done = self.done.saturating_add(bytes);
        if let Some(bar) = &self.bar {
            bar.inc(bytes);
        } else if Instant::now() >= self.next_line {
            self.next_line = Instant::now() + LINE_INTERVAL;
            eprintln!("{}", self.line());
        }
    }

    fn end(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

impl Drop for ProgressDisplay {
    fn drop(&mut self) {
        self.end();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_line_tells_rate_and_time_left() {
        let line = plain_line(
            Stage::Quantising,
            25 << 20,
            100 << 20,
            Duration::from_secs(5),
            "model.norm.weight",
        );
        assert_eq!(
            line,
            "quantising: 25% of 100.00 MiB, 5.00 MiB/s, 15s left: model.norm.weight"
        );
    }

    #[test]
    fn the_template_of_the_bar_is_valid() {
        let bar = ProgressDisplay::bar(10);
        bar.inc(10);
        bar.finish_and_clear();
        assert_eq!(bar.position(), 10);
    }
}
