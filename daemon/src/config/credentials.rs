//! Who we are to the broker: username and password, from wherever they are kept.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde::Deserialize;

use super::check::Problems;
use super::read::{line_of, read_text};
use super::{Broker, Problem, Secret};

const CREDENTIALS_FILE: &str = "broker.credentials-file";
const PASSWORD_FILE: &str = "broker.password-file";

/// The credentials file.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Credentials {
    username: String,
    password: Secret,
}

impl Broker {
    /// Username and password, if there are any.
    pub fn credentials(&self) -> Result<Option<(String, Secret)>, Problem> {
        if let Some(path) = &self.credentials_file {
            let text = read(CREDENTIALS_FILE, path)?;
            let Credentials { username, password } = parse(path, &text)?;
            return Ok(Some((username, password)));
        }
        let password = match &self.password_file {
            None => self.password.clone(),
            Some(path) => {
                let text = read(PASSWORD_FILE, path)?;
                Some(Secret::new(text.trim_end_matches(['\r', '\n'])))
            }
        };
        let password = password.unwrap_or_else(|| Secret::new(""));
        Ok(self.username.clone().map(|username| (username, password)))
    }

    pub(super) fn check_credentials(&self, found: &mut Problems) {
        if self.password.is_some() && self.password_file.is_some() {
            found.add(
                PASSWORD_FILE,
                "give either password or password-file, not both",
            );
        }
        let password = self.password.is_some() || self.password_file.is_some();
        if self.credentials_file.is_some() {
            if self.username.is_some() || password {
                found.add(
                    CREDENTIALS_FILE,
                    "holds username and password; remove those given elsewhere",
                );
            }
        } else if self.username.is_none() && password {
            found.add("broker.username", "is missing, but there is a password");
        }
    }

    /// Files with a secret that every user of this machine can read.
    pub fn exposed_files(&self) -> Vec<Problem> {
        let files = [
            (PASSWORD_FILE, &self.password_file),
            (CREDENTIALS_FILE, &self.credentials_file),
            ("broker.client-key-file", &self.client_key_file),
        ];
        let exposed = |path: &Path| {
            // One that is not there is somebody else's complaint.
            fs::metadata(path).is_ok_and(|file| file.permissions().mode() & 0o004 != 0)
        };
        files
            .into_iter()
            .filter_map(|(key, path)| Some((key, path.as_deref().filter(|path| exposed(path))?)))
            .map(|(key, path)| Problem {
                key,
                message: format!(
                    "every user of this machine can read {path}; take that away with chmod o= {path}",
                    path = path.display()
                ),
            })
            .collect()
    }
}

fn read(key: &'static str, path: &Path) -> Result<String, Problem> {
    read_text(path).map_err(|e| Problem {
        key,
        message: e.to_string(),
    })
}

/// Errors do not quote the text: it has the password in it.
fn parse(path: &Path, text: &str) -> Result<Credentials, Problem> {
    toml::from_str(text).map_err(|e| {
        let line = line_of(text, &e);
        Problem {
            key: CREDENTIALS_FILE,
            message: format!(
                "{}, line {line}: give two lines, username = \"…\" and password = \"…\", in \
                 quotation marks as in TOML",
                path.display()
            ),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn keys(broker: &Broker) -> Vec<&'static str> {
        let config = Config {
            broker: broker.clone(),
            ..Config::for_model("m")
        };
        config.problems().iter().map(|p| p.key).collect()
    }

    fn broker_with(credentials: &str) -> (tempfile::TempDir, Broker) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("credentials");
        fs::write(&path, credentials).unwrap();
        let broker = Broker {
            credentials_file: Some(path),
            ..Broker::default()
        };
        (folder, broker)
    }

    #[test]
    fn passwords_need_a_user_and_one_source() {
        let mut broker = Broker {
            password: Some(Secret::new("x")),
            ..Broker::default()
        };
        assert_eq!(keys(&broker), ["broker.username"]);
        broker.username = Some("u".into());
        assert_eq!(keys(&broker), [""; 0]);
        broker.password_file = Some("f".into());
        assert_eq!(keys(&broker), ["broker.password-file"]);
    }

    #[test]
    fn a_credentials_file_is_the_only_source() {
        let mut broker = Broker {
            credentials_file: Some("f".into()),
            ..Broker::default()
        };
        assert_eq!(keys(&broker), [""; 0]);
        broker.password_file = Some("p".into());
        assert_eq!(keys(&broker), ["broker.credentials-file"]);
        broker.password_file = None;
        broker.username = Some("u".into());
        assert_eq!(keys(&broker), ["broker.credentials-file"]);
    }

    #[test]
    fn both_come_from_the_file() {
        let (_folder, broker) = broker_with("username = \"u\"\npassword = 'hunter\"2'\n");
        assert_eq!(
            broker.credentials().unwrap(),
            Some(("u".to_owned(), Secret::new("hunter\"2")))
        );
    }

    #[test]
    fn a_username_alone_has_an_empty_password() {
        assert_eq!(Broker::default().credentials().unwrap(), None);
        let broker = Broker {
            username: Some("u".into()),
            ..Broker::default()
        };
        let credentials = broker.credentials().unwrap();
        assert_eq!(credentials, Some(("u".to_owned(), Secret::new(""))));
    }

    #[test]
    fn an_unreadable_file_is_told_without_what_is_in_it() {
        for (text, line) in [
            ("username = \"u\"\npassword = hunter2\n", "line 2: "),
            ("username = \"u\"\npassword = 4711\n", "line 2: "),
            ("username = \"u\"\nhunter2\n", "line 2: "),
            (
                "username = \"u\"\npassword = \"a\"\nhunter2 = 4711\n",
                "line 3: ",
            ),
            ("password = \"hunter2\"\n", "line 1: "),
        ] {
            let (_folder, broker) = broker_with(text);
            let error = broker.credentials().unwrap_err();
            let (short, long) = (error.to_string(), format!("{error:?}"));
            assert!(short.contains(&format!("{line}give two lines")), "{short}");
            for secret in ["hunter2", "4711"] {
                assert!(!short.contains(secret) && !long.contains(secret), "{long}");
            }
        }
    }

    #[test]
    fn files_that_all_may_read_are_named() {
        let (_folder, mut broker) = broker_with("");
        let path = broker.credentials_file.clone().unwrap();
        let set = |mode| fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        set(0o640);
        assert_eq!(broker.exposed_files(), []);
        set(0o644);
        broker.client_key_file = Some("no/such/file".into());
        let exposed = broker.exposed_files();
        assert_eq!(exposed.len(), 1);
        assert_eq!(exposed[0].key, "broker.credentials-file");
        assert!(exposed[0].message.contains("chmod o="), "{}", exposed[0]);
    }
}
