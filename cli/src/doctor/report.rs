//! What was found, for people and as JSON.

use std::fmt::{self, Display};
use std::io::{self, IsTerminal, Write};

use chaski_boards::{Basis, nominal_mib};
use chaski_daemon::Board;
use chaski_daemon::config::{Config, Model};
use chaski_engine::Backend;
use serde::Serialize;

use crate::bench::human;
use crate::terminal;

/// How a check went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Verdict {
    /// As it should be.
    Ok,
    /// It works, but not as well as it could.
    Warning,
    /// A node would not work, or not for long.
    Problem,
}

impl Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Problem => "problem",
        })
    }
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Check {
    pub(super) name: &'static str,
    pub(super) verdict: Verdict,
    /// What is so.
    pub(super) finding: String,
    /// What to change.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) remedy: String,
}

impl Check {
    pub(super) fn ok(name: &'static str, finding: impl Display) -> Self {
        Self::new(name, Verdict::Ok, finding, "")
    }

    pub(super) fn warning(name: &'static str, finding: impl Display, remedy: impl Display) -> Self {
        Self::new(name, Verdict::Warning, finding, remedy)
    }

    pub(super) fn problem(name: &'static str, finding: impl Display, remedy: impl Display) -> Self {
        Self::new(name, Verdict::Problem, finding, remedy)
    }

    pub(super) fn new(
        name: &'static str,
        verdict: Verdict,
        finding: impl Display,
        remedy: impl Display,
    ) -> Self {
        Self {
            name,
            verdict,
            finding: finding.to_string(),
            remedy: remedy.to_string(),
        }
    }
}

/// Where a setting is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Origin {
    /// The user's file.
    Configuration,
    /// The board's profile.
    Profile,
    /// Neither says a word.
    Default,
}

/// A setting of `[model]` that a profile has a say in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Setting {
    key: &'static str,
    value: String,
    from: Origin,
    /// What the profile has, where the user has something else.
    #[serde(skip_serializing_if = "Option::is_none")]
    profile: Option<String>,
}

#[derive(Debug, Serialize)]
struct BoardReport {
    profile: String,
    title: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<String>,
    recognised_by: String,
}

#[derive(Debug, Serialize)]
struct MachineReport {
    #[serde(skip_serializing_if = "Option::is_none")]
    memory_bytes: Option<u64>,
    reserve_bytes: u64,
    cores: Vec<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    processor: Option<String>,
    kernels: Vec<String>,
}

#[derive(Debug, Serialize)]
struct ModelReport {
    model: String,
    context_length: usize,
    decode_tokens_per_second: f64,
    basis: Basis,
    source: String,
}

/// All of it.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    chaski_version: &'static str,
    board: BoardReport,
    machine: MachineReport,
    settings: Vec<Setting>,
    /// What the profile knows to fit.
    models: Vec<ModelReport>,
    checks: Vec<Check>,
    pub(super) problems: usize,
    warnings: usize,
}

impl Report {
    pub(super) fn new(
        board: &Board,
        config: &Config,
        filled: &Model,
        here: bool,
        checks: Vec<Check>,
    ) -> Self {
        let detected = board.detected();
        let (profile, facts) = (&detected.profile, &detected.facts);
        let kernels = match here {
            true => Backend::available()
                .iter()
                .map(|b| b.name().to_owned())
                .collect(),
            false => facts.kernels.map(str::to_owned).into_iter().collect(),
        };
        let size = facts.memory_bytes.map(nominal_mib);
        let fits = |model: &&chaski_boards::Model| size.is_some_and(|mib| model.ram_mib <= mib);
        let models = profile.models.iter().filter(fits).map(|model| ModelReport {
            model: model.model.clone(),
            context_length: model.context_length,
            decode_tokens_per_second: model.decode,
            basis: model.basis,
            source: model.source.clone(),
        });
        let count = |verdict| {
            checks
                .iter()
                .filter(|check| check.verdict == verdict)
                .count()
        };
        let reserve = profile.memory.reserve_mib.unwrap_or(0);
        Self {
            chaski_version: env!("CARGO_PKG_VERSION"),
            board: BoardReport {
                profile: profile.name.clone(),
                title: profile.title.clone(),
                model: detected.model.clone(),
                recognised_by: detected.by.to_string(),
            },
            machine: MachineReport {
                memory_bytes: facts.memory_bytes,
                reserve_bytes: reserve.saturating_mul(chaski_boards::MIB),
                cores: facts.cores.clone(),
                processor: profile.processor.name.clone(),
                kernels,
            },
            settings: settings(board, &config.model, filled),
            models: models.collect(),
            problems: count(Verdict::Problem),
            warnings: count(Verdict::Warning),
            checks,
        }
    }

    pub(super) fn print(&self, json: bool) -> anyhow::Result<()> {
        let mut out = io::stdout().lock();
        let text = match json {
            true => serde_json::to_string_pretty(self)? + "\n",
            false => self.to_string(),
        };
        out.write_all(terminal::safe(&text, out.is_terminal()).as_bytes())?;
        Ok(out.flush()?)
    }
}

/// What applies, and who says so.
fn settings(board: &Board, user: &Model, filled: &Model) -> Vec<Setting> {
    let own = board.settings();
    let number = |n: Option<usize>| n.map(|n| n.to_string());
    let list = |cores: &Option<Vec<usize>>| cores.as_ref().map(|cores| format!("{cores:?}"));
    let kv_cache = own.kv_cache.map(|format| format.name().to_owned());
    let named = |format: chaski_daemon::config::KvCache| format.name().to_owned();
    [
        (
            "threads",
            number(user.threads),
            number(filled.threads),
            number(own.threads),
            "one per core",
        ),
        (
            "decode-threads",
            number(user.decode_threads),
            number(filled.decode_threads),
            number(own.decode_threads),
            "as threads",
        ),
        (
            "cores",
            list(&user.cores),
            list(&filled.cores),
            list(&own.cores),
            "any",
        ),
        (
            "kv-cache",
            user.kv_cache.map(named),
            filled.kv_cache.map(named),
            kv_cache,
            "f16",
        ),
        (
            "context-length",
            number(user.context_length),
            // Without a model that is all that is known.
            number(filled.context_length.or(filled.context_wish)),
            number(own.context_length),
            "the model's, at most 4096",
        ),
        (
            "prefill-chunk",
            number(user.prefill_chunk),
            number(filled.prefill_chunk),
            number(own.prefill_chunk),
            "128",
        ),
    ]
    .into_iter()
    .map(|(key, user, filled, own, default)| {
        let from = match (&user, &filled) {
            (Some(_), _) => Origin::Configuration,
            (None, Some(_)) => Origin::Profile,
            (None, None) => Origin::Default,
        };
        let value = filled.unwrap_or_else(|| default.to_owned());
        let profile = own.filter(|own| from == Origin::Configuration && *own != value);
        Setting {
            key,
            value,
            from,
            profile,
        }
    })
    .collect()
}

impl Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { board, machine, .. } = self;
        let model = board.model.as_ref().unwrap_or(&board.title);
        writeln!(f, "{model}")?;
        let mut line = |name: &str, text: String| writeln!(f, "  {name:<15} {text}");
        line(
            "profile",
            format!("{}, by {}", board.profile, board.recognised_by),
        )?;
        if let Some(bytes) = machine.memory_bytes {
            let reserve = machine.reserve_bytes;
            let left = match reserve {
                0 => String::new(),
                _ => format!(", of which {} are left to the system", human(reserve)),
            };
            line("memory", format!("{}{left}", human(bytes)))?;
        }
        let cores = several(machine.cores.len(), "core");
        let name = machine.processor.as_ref().map(|name| format!(", {name}"));
        line("processor", cores + &name.unwrap_or_default())?;
        line("kernels", machine.kernels.join(", "))?;
        for setting in &self.settings {
            let from = match setting.from {
                Origin::Configuration => "configuration",
                Origin::Profile => "profile",
                Origin::Default => "default",
            };
            let profile = setting.profile.as_ref();
            let profile = profile.map(|own| format!("; the profile has {own}"));
            let text = format!("{} ({from}{})", setting.value, profile.unwrap_or_default());
            line(setting.key, text)?;
        }
        for (index, model) in self.models.iter().enumerate() {
            let name = if index == 0 { "models that fit" } else { "" };
            let basis = match model.basis {
                Basis::Estimate => "estimated",
                Basis::Measured => "measured",
            };
            let ModelReport {
                model,
                context_length,
                decode_tokens_per_second,
                ..
            } = model;
            let text = format!(
                "{model}, context {context_length}: {decode_tokens_per_second} tok/s ({basis})"
            );
            line(name, text)?;
        }
        writeln!(f)?;
        for Check {
            name,
            verdict,
            finding,
            remedy,
        } in &self.checks
        {
            writeln!(f, "{verdict:<8} {name:<14} {}", indented(finding))?;
            if !remedy.is_empty() {
                writeln!(f, "{:<23} {}", "", indented(remedy))?;
            }
        }
        let (problems, warnings) = (self.problems, self.warnings);
        writeln!(
            f,
            "\n{}, {}",
            several(problems, "problem"),
            several(warnings, "warning")
        )
    }
}

/// Lines after the first begin where it does.
fn indented(text: &str) -> String {
    text.trim_end().replace('\n', &format!("\n{:24}", ""))
}

fn several(n: usize, what: &str) -> String {
    match n {
        1 => format!("1 {what}"),
        n => format!("{n} {what}s"),
    }
}
