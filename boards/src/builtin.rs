//! The profiles that are compiled in.

use std::sync::LazyLock;

use crate::profile::{Profile, ProfileError};

const GENERIC_ARM64: &str = "generic-arm64";
const GENERIC_X86_64: &str = "generic-x86-64";

/// Name and text of a file of `board-configs/`.
macro_rules! files {
    ($($name:literal),* $(,)?) => {
        &[$(($name, include_str!(concat!("../../board-configs/", $name, ".toml")))),*]
    };
}

pub(crate) const FILES: &[(&str, &str)] = files![
    "raspberry-pi-zero-2-w",
    "raspberry-pi-3b-plus",
    "raspberry-pi-4b",
    "raspberry-pi-cm4",
    "raspberry-pi-5",
    "raspberry-pi-cm5",
    "jetson-nano",
    "jetson-xavier-nx",
    "jetson-orin-nano",
    "jetson-orin-nx",
    "jetson-agx-orin",
    "generic-arm64",
    "generic-x86-64",
];

// A test reads each of them, so none is left out here.
static PROFILES: LazyLock<Vec<Profile>> = LazyLock::new(|| {
    let parsed = FILES.iter().map(|(_, text)| Profile::parse(text));
    parsed.filter_map(Result::ok).collect()
});

/// One that says nothing, where the generic ones are missing: they are not.
static NOTHING: LazyLock<Profile> = LazyLock::new(|| Profile {
    name: "generic".to_owned(),
    title: "Any machine".to_owned(),
    compatible: Vec::new(),
    processor: Default::default(),
    memory: Default::default(),
    by_memory: Vec::new(),
    heat: None,
    models: Vec::new(),
});

/// All of them.
pub fn profiles() -> &'static [Profile] {
    &PROFILES
}

/// The one of that name.
///
/// # Errors
/// There is none; says which there are.
pub fn by_name(name: &str) -> Result<&'static Profile, ProfileError> {
    let found = PROFILES.iter().find(|profile| profile.name == name);
    found.ok_or_else(|| {
        let known: Vec<_> = PROFILES.iter().map(|p| p.name.as_str()).collect();
        ProfileError::Unknown {
            name: name.to_owned(),
            known: known.join(", "),
        }
    })
}

/// The one for a string of the device tree.
pub(crate) fn for_compatible(name: &str) -> Option<&'static Profile> {
    let is_for = |profile: &&Profile| profile.compatible.iter().any(|own| own == name);
    PROFILES.iter().find(is_for)
}

/// The one that changes nothing.
pub(crate) fn generic(arm: bool) -> &'static Profile {
    let name = if arm { GENERIC_ARM64 } else { GENERIC_X86_64 };
    by_name(name).unwrap_or(&NOTHING)
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeSet, HashMap};
    use std::fs;

    use super::*;
    use crate::facts::Facts;
    use crate::settings::Settings;

    /// A string of the device tree that two profiles claim, and these.
    fn claimed_twice(profiles: &[Profile]) -> Option<(&str, [&str; 2])> {
        let mut owners: HashMap<&str, &str> = HashMap::new();
        for profile in profiles {
            for name in &profile.compatible {
                if let Some(other) = owners.insert(name, &profile.name) {
                    return Some((name, [other, &profile.name]));
                }
            }
        }
        None
    }

    #[test]
    fn every_file_is_compiled_in_and_has_no_problem() {
        for (name, text) in FILES {
            let profile = Profile::parse(text).unwrap_or_else(|e| panic!("{name}: {e}"));
            assert_eq!(profile.name, *name);
            assert_eq!(profile.problems(), [], "{name}");
        }
        assert_eq!(profiles().len(), FILES.len());
        assert_eq!(claimed_twice(profiles()), None);
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../board-configs");
        let there = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name());
        let there: BTreeSet<_> = there.map(|name| name.into_string().unwrap()).collect();
        let known: BTreeSet<_> = FILES
            .iter()
            .map(|(name, _)| format!("{name}.toml"))
            .collect();
        assert_eq!(there, known);
    }

    #[test]
    fn a_board_that_two_claim_is_seen() {
        let profile = |name: &str| {
            let text = format!("name = {name:?}\ntitle = \"T\"\ncompatible = [\"me,mine\"]\n");
            Profile::parse(&text).unwrap()
        };
        let both = [profile("one"), profile("other")];
        assert_eq!(claimed_twice(&both), Some(("me,mine", ["one", "other"])));
        assert_eq!(claimed_twice(&both[..1]), None);
    }

    #[test]
    fn generic_profiles_change_nothing() {
        let facts = Facts::read(std::path::Path::new("/"));
        for arm in [true, false] {
            assert_eq!(generic(arm).settings(&facts), Settings::default());
            assert_eq!(generic(arm).compatible, [""; 0]);
            assert!(generic(arm).name.starts_with("generic-"));
        }
    }
}
