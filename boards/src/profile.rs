//! A profile as its file has it. What the types cannot say is in `check.rs`.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::check::Problem;

/// A profile is a page; more is a wrong file.
const MAX_FILE_BYTES: u64 = 64 * 1024;

/// What is known of a board.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Profile {
    /// Its name here, as in `[board] profile`.
    pub name: String,
    /// Its name for people.
    pub title: String,
    /// Strings of `/proc/device-tree/compatible` that it is for. None: only by name, or for
    /// machines that nothing else is for.
    #[serde(default)]
    pub compatible: Vec<String>,
    /// What computes.
    #[serde(default)]
    pub processor: Processor,
    /// What there is to keep the model in.
    #[serde(default)]
    pub memory: Memory,
    /// What depends on how much of that there is, the least first.
    #[serde(default)]
    pub by_memory: Vec<ByMemory>,
    /// How warm it may get.
    #[serde(default)]
    pub heat: Option<Heat>,
    /// Models that fit.
    #[serde(default)]
    pub models: Vec<Model>,
}

/// `[processor]`
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Processor {
    /// Its cores by name, for people.
    pub name: Option<String>,
    /// How many cores the board has at most; fewer may be on.
    pub count: Option<usize>,
    /// Cores to pin the threads to; `None`: the system puts them where it likes.
    pub cores: Option<Vec<usize>>,
    /// Threads to compute prompts with, which takes all that computes.
    pub prefill_threads: Option<usize>,
    /// Threads to compute tokens with, which takes no more than the memory can feed.
    pub decode_threads: Option<usize>,
    /// The fastest kernels that it has, by the engine's name.
    pub kernels: Option<String>,
}

/// `[memory]`
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Memory {
    /// What to leave to the system and other programs.
    pub reserve_mib: Option<u64>,
    /// The sizes the board comes with.
    #[serde(default)]
    pub sizes_mib: Vec<u64>,
    /// The share of its size that Linux shows at least; firmware and kernel have the rest.
    pub visible_percent: Option<u64>,
    /// How fast the cores read it.
    pub bandwidth: Option<Bandwidth>,
}

/// `[memory.bandwidth]`
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Bandwidth {
    /// In 10⁹ bytes a second.
    pub gb_per_second: f64,
    /// Whether that was measured.
    pub basis: Basis,
    /// Where it is from.
    pub source: String,
}

/// Where a figure is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Basis {
    /// Computed from others.
    Estimate,
    /// Measured with Chaski on such a board.
    Measured,
}

/// `[[by-memory]]`: for boards with so much memory or more, until the next one.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct ByMemory {
    /// The size of the memory as the board is sold with.
    pub ram_mib: u64,
    /// What the KV cache is kept in.
    pub kv_cache: Option<KvCache>,
    /// Tokens of prompt and answer together, if the model leaves room for so many.
    pub context_length: Option<usize>,
    /// Prompt tokens computed at a time.
    pub prefill_chunk: Option<usize>,
}

/// What a KV cache is kept in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum KvCache {
    /// f16.
    F16,
    /// int8 with scales.
    Int8,
    /// f32.
    F32,
}

impl KvCache {
    /// As it is written in a profile.
    pub fn name(self) -> &'static str {
        match self {
            Self::F16 => "f16",
            Self::Int8 => "int8",
            Self::F32 => "f32",
        }
    }
}

/// `[heat]`
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Heat {
    /// Types of the thermal zones that tell how warm the processor is.
    pub zones: Vec<String>,
    /// From here on it should go slower, in °C.
    pub ease_off: f64,
    /// From here on it should begin with nothing new, in °C.
    pub refuse: f64,
}

/// `[[models]]`: a model that fits boards with so much memory or more.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Model {
    /// Its name among the crate's shapes.
    pub model: String,
    /// The least size of memory that it fits.
    pub ram_mib: u64,
    /// With this context at least.
    pub context_length: usize,
    /// How fast answers come, in tokens per second, after a short prompt.
    pub decode: f64,
    /// Whether that was measured.
    pub basis: Basis,
    /// Where it is from.
    pub source: String,
}

/// Why there is no profile.
#[derive(Debug, Error)]
pub enum ProfileError {
    /// No such name.
    #[error("there is no profile {name:?}: give one of {known}, or the path of a TOML file")]
    Unknown {
        /// The name.
        name: String,
        /// The names there are.
        known: String,
    },
    /// A file that cannot be read.
    #[error("cannot read the board profile {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Not TOML, an unknown key, or a value of a wrong type.
    #[error("the board profile {}: {message}", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// Place and reason, with the line itself.
        message: String,
    },
    /// Values that cannot be.
    #[error("the board profile {}:{}", path.display(), list(problems))]
    Invalid {
        /// The file.
        path: PathBuf,
        /// All of them.
        problems: Vec<Problem>,
    },
}

fn list(problems: &[Problem]) -> String {
    problems.iter().map(|p| format!("\n  {p}")).collect()
}

impl Profile {
    /// Reads TOML text; the values are not checked.
    pub fn parse(text: &str) -> Result<Self, String> {
        toml::from_str(text).map_err(|e| e.to_string())
    }

    /// Reads and checks a file.
    pub fn read(path: &Path) -> Result<Self, ProfileError> {
        let text = read_text(path).map_err(|source| ProfileError::Read {
            path: path.to_owned(),
            source,
        })?;
        let profile = Self::parse(&text).map_err(|message| ProfileError::Parse {
            path: path.to_owned(),
            message,
        })?;
        let problems = profile.problems();
        if problems.is_empty() {
            return Ok(profile);
        }
        Err(ProfileError::Invalid {
            path: path.to_owned(),
            problems,
        })
    }
}

fn read_text(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    let mut file = File::open(path)?.take(MAX_FILE_BYTES + 1);
    file.read_to_string(&mut text)?;
    if text.len() as u64 > MAX_FILE_BYTES {
        return Err(io::Error::other(format!(
            "more than {MAX_FILE_BYTES} bytes are too many for a profile"
        )));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_says_only_what_it_wants_to() {
        let profile = Profile::parse("name = \"mine\"\ntitle = \"Mine\"\n").unwrap();
        assert_eq!(profile.processor, Processor::default());
        assert_eq!(profile.heat, None);
        assert_eq!(profile.problems(), []);
    }

    #[test]
    fn errors_name_file_line_and_key() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("mine.toml");
        let error = |text: &str| {
            std::fs::write(&file, text).unwrap();
            Profile::read(&file).unwrap_err().to_string()
        };
        let head = "name = \"mine\"\ntitle = \"Mine\"\n";
        let unknown = error(&format!("{head}[processor]\nthreads = 3\n"));
        for part in ["mine.toml", "line 4", "threads", "prefill-threads"] {
            assert!(unknown.contains(part), "{unknown}");
        }
        let section = error(&format!("{head}[heating]\n"));
        assert!(
            section.contains("heating") && section.contains("heat"),
            "{section}"
        );
        let kind = error(&format!(
            "{head}[heat]\nzones = 3\nease-off = 1\nrefuse = 2\n"
        ));
        assert!(kind.contains("line 4"), "{kind}");
        let value = error(&format!("{head}[processor]\ncount = 0\n"));
        assert!(
            value.contains("mine.toml") && value.contains("\n  processor.count: "),
            "{value}"
        );
        assert!(error(&"# ".repeat(40_000)).contains("too many"));
        std::fs::write(&file, [0xff, 0xfe]).unwrap();
        let binary = Profile::read(&file).unwrap_err().to_string();
        assert!(
            binary.starts_with("cannot read the board profile "),
            "{binary}"
        );
        let missing = Profile::read(Path::new("no/such.toml")).unwrap_err();
        assert!(missing.to_string().contains("no/such.toml"));
    }
}
