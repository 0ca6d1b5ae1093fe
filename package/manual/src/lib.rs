//! The manual pages and shell completions in `package/`, made from the programs' own
//! descriptions of their arguments. Each program has a test that calls [`check`]: it fails
//! where a page is not what the program says, and writes it where `CHASKI_WRITE_MANUAL` is set:
//!
//! ```sh
//! CHASKI_WRITE_MANUAL=1 cargo test --release --workspace manual
//! ```

#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use clap::Command;
use clap_complete::Shell;
use clap_mangen::Man;

/// Set to write the files in place of comparing them.
const WRITE: &str = "CHASKI_WRITE_MANUAL";

/// Compares the pages of a program (in `section` of the manual) and its completions with
/// those in `package/`, or writes them.
///
/// # Panics
/// A file is not what it should be.
pub fn check(command: Command, section: &str) {
    let package = Path::new(env!("CARGO_MANIFEST_DIR")).parent();
    let package = package.expect("the crate is in package/");
    for (path, text) in files(command, section) {
        let path = package.join(path);
        if env::var_os(WRITE).is_some() {
            fs::write(&path, text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
            continue;
        }
        let there = fs::read_to_string(&path).unwrap_or_default();
        let path = path.display();
        assert!(
            there == text,
            "{path} is not what the program says of itself: write it again by \
             `{WRITE}=1 cargo test --release --workspace manual`"
        );
    }
}

/// All files, by their paths in `package/`.
fn files(mut command: Command, section: &str) -> BTreeMap<PathBuf, String> {
    // With the version in it, every page would change with it.
    command = command.version("").disable_help_subcommand(true);
    command.build();
    let mut files = BTreeMap::new();
    pages(&command, section, command.get_name(), &mut files);
    let name = command.get_name().to_owned();
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        let mut text = Vec::new();
        clap_complete::generate(shell, &mut command, &name, &mut text);
        let path = match shell {
            Shell::Bash => format!("bash/{name}"),
            Shell::Zsh => format!("zsh/_{name}"),
            _ => format!("fish/{name}.fish"),
        };
        files.insert(Path::new("completions").join(path), utf8(text));
    }
    files
}

/// The page of a command, and of those below it that somebody should know.
fn pages(command: &Command, section: &str, name: &str, files: &mut BTreeMap<PathBuf, String>) {
    let page = Man::new(command.clone())
        .section(section)
        .date("")
        .source("Chaski");
    let mut text = Vec::new();
    page.render(&mut text).expect("memory can be written to");
    let path = format!("man/{name}.{section}");
    files.insert(PathBuf::from(path), utf8(text));
    for below in command.get_subcommands() {
        pages(
            below,
            section,
            &format!("{name}-{}", below.get_name()),
            files,
        );
    }
}

fn utf8(text: Vec<u8>) -> String {
    String::from_utf8(text).expect("pages are text")
}
