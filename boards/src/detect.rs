//! Which board this is.

use std::borrow::Cow;
use std::fmt;
use std::path::Path;

use crate::builtin::{by_name, for_compatible, generic};
use crate::facts::{Facts, read};
use crate::profile::{Profile, ProfileError};

const COMPATIBLE: &str = "proc/device-tree/compatible";
const MODEL: &str = "proc/device-tree/model";
/// Real ones have less than 200 bytes.
const MAX_BYTES: u64 = 4096;
/// Of a model's name that is shown.
const MAX_MODEL_CHARS: usize = 128;

/// A board that was recognised, or at least a profile for it.
#[derive(Clone, Debug, PartialEq)]
pub struct Detected {
    /// Its profile.
    pub profile: Cow<'static, Profile>,
    /// How it was found.
    pub by: Recognised,
    /// What the machine calls itself.
    pub model: Option<String>,
    /// What else it says of itself.
    pub facts: Facts,
}

/// How a profile was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recognised {
    /// By this string of the device tree.
    DeviceTree(String),
    /// Nothing says which board it is; by the kind of its processor.
    Architecture,
    /// The user named it.
    Named,
    /// The user gave a file.
    File,
}

impl fmt::Display for Recognised {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DeviceTree(name) => write!(f, "{name} in the device tree"),
            Self::Architecture => f.write_str("the kind of processor alone"),
            Self::Named => f.write_str("name"),
            Self::File => f.write_str("file"),
        }
    }
}

/// Recognises the machine whose `proc` and `sys` are in `root`. Whatever is in there, there
/// is a profile: at worst one that leaves all as it is.
pub fn detect(root: &Path) -> Detected {
    let facts = Facts::read(root);
    let names = read(&root.join(COMPATIBLE), MAX_BYTES).map(|bytes| strings(&bytes));
    let names = names.unwrap_or_default();
    let found = names
        .into_iter()
        .find_map(|name| Some((for_compatible(&name)?, Recognised::DeviceTree(name))));
    let arm = facts.arm.unwrap_or(!cfg!(target_arch = "x86_64"));
    let (profile, by) = found.unwrap_or((generic(arm), Recognised::Architecture));
    Detected {
        profile: Cow::Borrowed(profile),
        by,
        model: model(root),
        facts,
    }
}

impl Detected {
    /// Takes the profile that a user wants, by name or from a file, in place of the
    /// machine's own.
    ///
    /// # Errors
    /// No such name, or a file that is no profile.
    pub fn with_profile(mut self, wish: &str) -> Result<Self, ProfileError> {
        if is_path(wish) {
            self.profile = Cow::Owned(Profile::read(Path::new(wish))?);
            self.by = Recognised::File;
        } else {
            self.profile = Cow::Borrowed(by_name(wish)?);
            self.by = Recognised::Named;
        }
        Ok(self)
    }
}

/// Whether a wish for a profile is a path and no name.
pub fn is_path(wish: &str) -> bool {
    wish.contains('/') || wish.ends_with(".toml")
}

/// A list of strings, each with a NUL behind it.
fn strings(bytes: &[u8]) -> Vec<String> {
    let texts = bytes.split(|byte| *byte == 0).map(String::from_utf8_lossy);
    let names = texts.filter(|text| !text.is_empty() && text.chars().all(|c| c.is_ascii_graphic()));
    names.map(Cow::into_owned).collect()
}

fn model(root: &Path) -> Option<String> {
    let bytes = read(&root.join(MODEL), MAX_BYTES)?;
    let text = bytes
        .split(|byte| *byte == 0)
        .next()
        .map(String::from_utf8_lossy)?;
    let shown: String = text
        .chars()
        .filter(|c| !c.is_control())
        .take(MAX_MODEL_CHARS)
        .collect();
    let shown = shown.trim().to_owned();
    (!shown.is_empty()).then_some(shown)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn machine(compatible: &[u8]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("proc/device-tree")).unwrap();
        fs::write(root.path().join(COMPATIBLE), compatible).unwrap();
        root
    }

    fn name(compatible: &[u8]) -> String {
        detect(machine(compatible).path()).profile.name.clone()
    }

    #[test]
    fn the_first_string_that_is_known_wins() {
        assert_eq!(
            name(b"raspberrypi,5-model-b\0brcm,bcm2712\0"),
            "raspberry-pi-5"
        );
        // Carriers of others, and builds of others, come before the module.
        let module = b"seeed,carrier\0nvidia,p3767-0000\0nvidia,tegra234\0";
        assert_eq!(name(module), "jetson-orin-nx");
        let build = b"oe4t,p3768-0000+p3767-0005+x\0nvidia,p3768-0000+p3767-0005-super\0\
            nvidia,p3767-0005\0nvidia,tegra234\0";
        assert_eq!(name(build), "jetson-orin-nano");
        // A board of another maker with the same processor.
        assert_eq!(name(b"maker,board\0brcm,bcm2711\0"), "raspberry-pi-4b");
        // Without the NUL at the end, as a copy by hand may be.
        assert_eq!(name(b"raspberrypi,4-model-b"), "raspberry-pi-4b");
    }

    #[test]
    fn garbage_is_a_machine_like_any_other() {
        let generic = match cfg!(target_arch = "x86_64") {
            true => "generic-x86-64",
            false => "generic-arm64",
        };
        for bytes in [
            &b""[..],
            b"\0\0\0\0",
            b"\xff\xfe\0\x80\x00",
            b"raspberrypi,5-model-b\x01\0",
            b"raspberrypi,5-model-bb\0",
            b"\nraspberrypi,5-model-b\n",
            &[b'a'; 1 << 20],
            &[0xee; 100_000],
        ] {
            assert_eq!(name(bytes), generic, "{:?}", &bytes[..bytes.len().min(20)]);
        }
        // What is known, but so far behind that no board has it there.
        let mut late = vec![b'x'; 1 << 16];
        late.extend(b"\0raspberrypi,5-model-b\0");
        assert_eq!(name(&late), generic);
        // A folder in place of the file, and nothing at all.
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join(COMPATIBLE)).unwrap();
        assert_eq!(detect(root.path()).by, Recognised::Architecture);
        assert_eq!(
            detect(Path::new("no/such/root")).by,
            Recognised::Architecture
        );
    }

    #[test]
    fn the_name_of_the_model_is_fit_to_be_shown() {
        let root = machine(b"");
        let of = |bytes: &[u8]| {
            fs::write(root.path().join(MODEL), bytes).unwrap();
            detect(root.path()).model
        };
        let pi = of(b"Raspberry Pi 5 Model B Rev 1.0\0");
        assert_eq!(pi.as_deref(), Some("Raspberry Pi 5 Model B Rev 1.0"));
        assert_eq!(of(b"a\x1b[31mb\0c").as_deref(), Some("a[31mb"));
        assert_eq!(of(b"\0"), None);
        assert_eq!(of(&[b'm'; 99_999]).unwrap().len(), MAX_MODEL_CHARS);
    }

    #[test]
    fn a_user_may_know_better() {
        let root = machine(b"raspberrypi,5-model-b\0");
        let detected = detect(root.path());
        let named = detected.clone().with_profile("generic-arm64").unwrap();
        assert_eq!(
            (named.profile.name.as_str(), named.by),
            ("generic-arm64", Recognised::Named)
        );
        let error = detected.clone().with_profile("raspberry-pi-6").unwrap_err();
        let error = error.to_string();
        assert!(
            error.contains("raspberry-pi-6") && error.contains("raspberry-pi-5"),
            "{error}"
        );
        let file = root.path().join("mine.toml");
        fs::write(&file, "name = \"mine\"\ntitle = \"Mine\"\n").unwrap();
        let own = detected.with_profile(file.to_str().unwrap()).unwrap();
        assert_eq!(
            (own.profile.name.as_str(), own.by),
            ("mine", Recognised::File)
        );
    }
}
