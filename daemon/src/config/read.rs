//! Reading the file, and the files it names.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

use thiserror::Error;

use super::{Broker, Config, Problem};

/// A configuration is a page or two; more is a wrong file.
const MAX_FILE_BYTES: u64 = 1024 * 1024;
/// The first part of a path to a credential that systemd hands to a service, and
/// behind the `$` the variable with the folder it is in.
const CREDENTIALS_DIRECTORY: &str = "$CREDENTIALS_DIRECTORY";

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
        let credentials = env::var_os(&CREDENTIALS_DIRECTORY[1..]).map(PathBuf::from);
        Self::read_with(path, credentials.as_deref())
    }

    /// Like [`Self::read`]; `credentials` is the folder that systemd made for the service,
    /// for those who are not that service.
    pub fn read_with(path: &Path, credentials: Option<&Path>) -> Result<Self, ConfigError> {
        let mut config = Self::parse(&read_text(path)?).map_err(|message| ConfigError::Parse {
            path: path.to_owned(),
            message,
        })?;
        let folder = path.parent().unwrap_or(Path::new(""));
        config.resolve_paths(folder, credentials);
        let state = state_directory(env::var_os("STATE_DIRECTORY").as_deref());
        config.delivery.settle(state.as_deref());
        config.model.settle(state.as_deref());
        let problems = config.problems();
        if problems.is_empty() {
            return Ok(config);
        }
        Err(ConfigError::Invalid {
            path: path.to_owned(),
            problems,
        })
    }

    /// Reads TOML text; the values are not checked.
    fn parse(text: &str) -> Result<Self, String> {
        // The error of `toml` prints the place, the line and the keys it would take. The
        // line may be that of a password, though.
        toml::from_str(text).map_err(|e| {
            let line = line_of(text, &e);
            let shown = text.lines().nth(line - 1).unwrap_or_default();
            if shown.replace("password-file", "").contains("password") {
                format!("line {line}: give the password as a string, in quotation marks")
            } else {
                e.to_string()
            }
        })
    }

    /// Makes paths absolute, or relative to where the daemon runs. `credentials` is the
    /// folder systemd made for this service; where it did not (one before 247 does not, nor
    /// is there one for who looks at the configuration by hand), credentials are files beside
    /// the configuration.
    fn resolve_paths(&mut self, folder: &Path, credentials: Option<&Path>) {
        // An empty one stays for the check to find.
        let resolve = |path: &mut PathBuf| {
            if !path.as_os_str().is_empty() {
                *path = folder.join(&*path);
            }
        };
        resolve(&mut self.model.folder);
        resolve(&mut self.metrics.system_root);
        self.board.resolve(folder);
        self.control.models_folder.iter_mut().for_each(resolve);
        self.delivery.answers_file.iter_mut().for_each(resolve);
        self.model.last_good_file.iter_mut().for_each(resolve);
        for file in self.broker.files_mut() {
            *file = match file.strip_prefix(CREDENTIALS_DIRECTORY) {
                Err(_) => folder.join(&*file),
                Ok(name) => credentials.unwrap_or(folder).join(name),
            };
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
        problems.extend(self.broker.credentials().err());
        problems.extend(self.board.problem());
        if let Some(models) = &self.control.models_folder
            && !models.is_dir()
        {
            problems.push(Problem {
                key: "control.models-folder",
                message: format!("{} is no folder", models.display()),
            });
        }
        let written = [
            ("delivery.answers-file", &self.delivery.answers_file),
            ("model.last-good-file", &self.model.last_good_file),
        ];
        for (key, file) in written {
            if let Some(folder) = file.as_deref().and_then(Path::parent)
                && !folder.as_os_str().is_empty()
                && !folder.is_dir()
            {
                problems.push(Problem {
                    key,
                    message: format!("its folder, {}, is not there", folder.display()),
                });
            }
        }
        problems
    }
}

/// The first one of a list as `STATE_DIRECTORY` of systemd has it.
fn state_directory(list: Option<&OsStr>) -> Option<PathBuf> {
    env::split_paths(list?).next()
}

impl Broker {
    fn files_mut(&mut self) -> impl Iterator<Item = &mut PathBuf> {
        [
            &mut self.password_file,
            &mut self.credentials_file,
            &mut self.ca_file,
            &mut self.client_cert_file,
            &mut self.client_key_file,
        ]
        .into_iter()
        .flatten()
    }
}

/// Where an error of `toml` is, counted from 1.
pub(super) fn line_of(text: &str, error: &toml::de::Error) -> usize {
    let before = error.span().and_then(|span| text.get(..span.start));
    before.unwrap_or_default().matches('\n').count() + 1
}

pub(super) fn read_text(path: &Path) -> Result<String, ConfigError> {
    String::from_utf8(read_bytes(path)?).map_err(|_| ConfigError::Read {
        path: path.to_owned(),
        source: io::Error::other("it is not UTF-8"),
    })
}

pub(crate) fn read_bytes(path: &Path) -> Result<Vec<u8>, ConfigError> {
    let read = || {
        let bytes = fs::metadata(path)?.len();
        if bytes > MAX_FILE_BYTES {
            return Err(io::Error::other(format!(
                "{bytes} bytes are too many for such a file"
            )));
        }
        fs::read(path)
    };
    read().map_err(|source| ConfigError::Read {
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Secret;

    const EXAMPLE: &str = include_str!("../../chaskid.example.toml");

    #[test]
    fn the_first_state_directory_is_ours() {
        let of = |list| state_directory(Some(OsStr::new(list)));
        assert_eq!(
            of("/var/lib/chaski:/var/lib/other"),
            Some("/var/lib/chaski".into())
        );
        assert_eq!(state_directory(None), None);
    }

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
            .filter(|line| {
                !line.starts_with("password-file") && !line.starts_with("credentials-file")
            })
            .map(|line| {
                if line == "tls = false" {
                    "tls = true"
                } else {
                    line
                }
            })
            .fold(String::new(), |text, line| text + line + "\n");
        let config = Config::parse(&uncommented).unwrap();
        assert_eq!(config.problems(), vec![]);
        assert!(config.broker.username.is_some() && config.broker.password.is_some());
        assert!(config.broker.port.is_some() && config.broker.ca_file.is_some());
        assert!(config.broker.client_id.is_some() && config.model.threads.is_some());
        assert_eq!(config.model.cores, Some(vec![2, 3]));
        assert!(config.model.backend.is_some());
        assert!(config.model.kv_cache.is_some() && config.model.prefill_chunk.is_some());
        assert!(config.board.profile.is_some());
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
    fn the_line_of_a_password_is_not_shown() {
        for line in [
            "password = hunter2",
            "password = \"hunter2",
            "password = 4711",
            "passwords = \"hunter2\"",
        ] {
            let text = format!("[model]\nfolder = \"m\"\n[broker]\n{line}\n");
            let e = Config::parse(&text).unwrap_err();
            assert!(e.starts_with("line 4: give the password"), "{e}");
        }
        let e = Config::parse("[model]\nfolder = \"m\"\n[broker]\npassword-file = 3\n");
        assert!(e.unwrap_err().contains("password-file = 3"));
    }

    #[test]
    fn relative_paths_start_at_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("c.toml");
        fs::write(
            &file,
            "[model]\nfolder = \"m\"\n[broker]\nusername = \"u\"\npassword-file = \"pw\"\n\
             tls = true\nca-file = \"sub/ca\"\n",
        )
        .unwrap();
        let missing =
            |config: &Config| -> Vec<_> { config.missing_files().iter().map(|p| p.key).collect() };
        let config = Config::read(&file).unwrap();
        assert_eq!(missing(&config), ["model.folder", "broker.password-file"]);
        fs::write(folder.path().join("pw"), "hunter2\r\n").unwrap();
        assert_eq!(config.model.folder, folder.path().join("m"));
        assert_eq!(config.broker.ca_file, Some(folder.path().join("sub/ca")));
        assert_eq!(
            config.broker.credentials().unwrap(),
            Some(("u".to_owned(), Secret::new("hunter2")))
        );
        assert_eq!(missing(&config), ["model.folder"]);
    }

    #[test]
    fn systemd_credentials_are_in_a_folder_of_their_own() {
        let text = "[model]\nfolder = \"m\"\n[broker]\n\
            credentials-file = \"$CREDENTIALS_DIRECTORY/broker\"\n";
        let mut config = Config::parse(text).unwrap();
        let run = Path::new("/run/credentials/chaskid");
        config.resolve_paths(Path::new("etc"), Some(run));
        assert_eq!(config.broker.credentials_file, Some(run.join("broker")));
        // Or beside the configuration.
        let mut config = Config::parse(text).unwrap();
        config.resolve_paths(Path::new("etc"), None);
        assert_eq!(config.broker.credentials_file, Some("etc/broker".into()));
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
