//! Reading the file, and the files it names.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{fs, io};

use thiserror::Error;

use super::{Config, Problem, Secret};

/// A configuration is a page or two; more is a wrong file.
const MAX_FILE_BYTES: u64 = 1024 * 1024;

/// Why there is no configuration.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// A file that cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Not TOML, an unknown key, or a value of a wrong type.
    #[error("{}: {message}", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// Place and reason, with the line itself.
        message: String,
    },
    /// Values that cannot be used.
    #[error("{}{}", path.display(), list(problems))]
    Invalid {
        /// The file.
        path: PathBuf,
        /// All of them.
        problems: Vec<Problem>,
    },
}

fn list(problems: &[Problem]) -> String {
    problems.iter().fold(":".to_owned(), |mut text, problem| {
        // Writing to a string cannot fail.
        let _ = write!(text, "\n  {problem}");
        text
    })
}

impl Config {
    /// Reads and checks a file. Relative paths in it start at its own folder.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let mut config = Self::parse(&read_text(path)?).map_err(|message| ConfigError::Parse {
            path: path.to_owned(),
            message,
        })?;
        config.resolve_paths(path.parent().unwrap_or(Path::new("")));
        match config.problems() {
            problems if problems.is_empty() => Ok(config),
            problems => Err(ConfigError::Invalid {
                path: path.to_owned(),
                problems,
            }),
        }
    }

    /// Reads TOML text; the values are not checked.
    fn parse(text: &str) -> Result<Self, String> {
        // The error of `toml` prints the place, the line and the keys it would take.
        toml::from_str(text).map_err(|e| e.to_string())
    }

    fn resolve_paths(&mut self, folder: &Path) {
        if !self.model.folder.as_os_str().is_empty() {
            self.model.folder = folder.join(&self.model.folder);
        }
        if let Some(file) = &mut self.broker.password_file {
            *file = folder.join(&*file);
        }
    }

    /// Files this configuration names that are not there.
    pub fn missing_files(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        let manifest = self.model.folder.join("chaski.json");
        if !manifest.is_file() {
            problems.push(Problem {
                key: "model.folder",
                message: format!(
                    "{} is not there; write the folder with chaski-quantize",
                    manifest.display()
                ),
            });
        }
        if let Err(e) = self.broker_password() {
            problems.push(Problem {
                key: "broker.password-file",
                message: e.to_string(),
            });
        }
        problems
    }

    /// The broker's password, from wherever it is kept.
    pub fn broker_password(&self) -> Result<Option<Secret>, ConfigError> {
        match &self.broker.password_file {
            None => Ok(self.broker.password.clone()),
            Some(path) => {
                let text = read_text(path)?;
                Ok(Some(Secret::new(text.trim_end_matches(['\r', '\n']))))
            }
        }
    }
}

fn read_text(path: &Path) -> Result<String, ConfigError> {
    let read = || {
        let bytes = fs::metadata(path)?.len();
        if bytes > MAX_FILE_BYTES {
            return Err(io::Error::other(format!(
                "{bytes} bytes are too many for such a file"
            )));
        }
        fs::read_to_string(path)
    };
    read().map_err(|source| ConfigError::Read {
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = include_str!("../../chaskid.example.toml");

    #[test]
    fn the_example_is_valid_and_shows_the_defaults() {
        let config = Config::parse(EXAMPLE).unwrap();
        assert_eq!(config.problems(), vec![]);
        assert_eq!(config, Config::for_model("model"));
    }

    /// Every optional key is in the example as a comment; this takes the comments off.
    #[test]
    fn the_commented_keys_of_the_example_are_valid() {
        let uncommented: String = EXAMPLE
            .lines()
            .map(|line| match line.strip_prefix('#') {
                Some(key) if key.starts_with(|c: char| c.is_ascii_lowercase()) => key,
                _ => line,
            })
            .filter(|line| !line.starts_with("password-file"))
            .fold(String::new(), |text, line| text + line + "\n");
        let config = Config::parse(&uncommented).unwrap();
        assert_eq!(config.problems(), vec![]);
        assert!(config.broker.username.is_some() && config.broker.password.is_some());
        assert!(config.broker.client_id.is_some() && config.model.threads.is_some());
        assert_eq!(config.model.cores, Some(vec![2, 3]));
        assert!(config.model.backend.is_some());
        let generation = &config.generation;
        assert!(generation.temperature.is_some() && generation.system_prompt.is_some());
    }

    #[test]
    fn unknown_keys_and_wrong_types_are_named() {
        let e = Config::parse("[model]\nfolder = \"m\"\n[broker]\nprot = 1\n").unwrap_err();
        assert!(
            e.contains("line 4") && e.contains("prot") && e.contains("port"),
            "{e}"
        );
        let e = Config::parse("[model]\nfolder = 3\n").unwrap_err();
        assert!(e.contains("line 2"), "{e}");
        let e = Config::parse("[model]\nfolder = \"m\"\nkv-cache = \"q8\"\n").unwrap_err();
        assert!(e.contains("line 3") && e.contains("int8"), "{e}");
        let e = Config::parse("[node]\nname = \"x\"\n").unwrap_err();
        assert!(e.contains("model"), "{e}");
    }

    #[test]
    fn relative_paths_start_at_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("c.toml");
        fs::write(
            &file,
            "[model]\nfolder = \"m\"\n[broker]\nusername = \"u\"\npassword-file = \"pw\"\n",
        )
        .unwrap();
        fs::write(folder.path().join("pw"), "hunter2\r\n").unwrap();
        let config = Config::read(&file).unwrap();
        assert_eq!(config.model.folder, folder.path().join("m"));
        assert_eq!(
            config.broker_password().unwrap(),
            Some(Secret::new("hunter2"))
        );
        let missing: Vec<_> = config.missing_files().iter().map(|p| p.key).collect();
        assert_eq!(missing, ["model.folder"]);
    }

    #[test]
    fn problems_are_listed_under_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("c.toml");
        fs::write(
            &file,
            "[model]\nfolder = \"m\"\n[broker]\nport = 0\nkeep-alive = 1\n",
        )
        .unwrap();
        let text = Config::read(&file).unwrap_err().to_string();
        assert!(text.starts_with(&file.display().to_string()), "{text}");
        assert!(
            text.contains("\n  broker.port: ") && text.contains("\n  broker.keep-alive: "),
            "{text}"
        );
    }

    #[test]
    fn a_missing_file_is_named() {
        let e = Config::read(Path::new("no/such.toml"))
            .unwrap_err()
            .to_string();
        assert!(e.starts_with("cannot read no/such.toml"), "{e}");
    }
}
