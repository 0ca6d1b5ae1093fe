//! `[board]`: which board this is, for those who know better than the device tree.

use std::path::Path;

use chaski_boards::{Profile, by_name, is_path};
use serde::Deserialize;

use super::Problem;
use super::check::Problems;

const PROFILE: &str = "board.profile";

/// `[board]`
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Board {
    /// Name of a profile, or path of a file with one; `None`: the one of the board.
    pub profile: Option<String>,
}

impl Board {
    /// Makes a path start at the folder of the configuration.
    pub(super) fn resolve(&mut self, folder: &Path) {
        if let Some(wish) = self.profile.as_mut().filter(|wish| is_path(wish)) {
            // A folder with other letters than Unicode's stays to be found from here.
            if let Ok(path) = folder.join(&*wish).into_os_string().into_string() {
                *wish = path;
            }
        }
    }

    pub(super) fn check(&self, found: &mut Problems) {
        let name = self.profile.as_ref().filter(|wish| !is_path(wish));
        if let Some(Err(e)) = name.map(|name| by_name(name)) {
            found.add(PROFILE, e);
        }
    }

    /// What is wrong with the file, if it is one.
    pub(super) fn problem(&self) -> Option<Problem> {
        let path = self.profile.as_ref().filter(|wish| is_path(wish))?;
        let problem = Profile::read(Path::new(path)).err()?;
        Some(Problem {
            key: PROFILE,
            message: problem.to_string(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn names_are_checked_and_paths_start_at_the_file() {
        let mut config = Config::for_model("m");
        config.board.profile = Some("raspberry-pi-6".to_owned());
        let problems = config.problems();
        assert_eq!(problems.len(), 1);
        assert_eq!(problems[0].key, PROFILE);
        assert!(
            problems[0].message.contains("raspberry-pi-5"),
            "{}",
            problems[0]
        );

        let mut board = Board {
            profile: Some("raspberry-pi-5".to_owned()),
        };
        board.resolve(Path::new("/etc/chaski"));
        assert_eq!(board.profile.as_deref(), Some("raspberry-pi-5"));
        board.profile = Some("mine.toml".to_owned());
        board.resolve(Path::new("/etc/chaski"));
        assert_eq!(board.profile.as_deref(), Some("/etc/chaski/mine.toml"));
        let problem = board.problem().unwrap();
        assert!(
            problem.message.contains("/etc/chaski/mine.toml"),
            "{problem}"
        );
    }
}
