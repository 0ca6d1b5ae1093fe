//! Every profile against the machine it is for, as that machine shows itself, and against
//! machines that mean no good: `tests/data/boards/`.

use std::fs;
use std::path::{Path, PathBuf};

use chaski_boards::{MIB, Recognised, detect, nominal_mib, profiles};

fn boards() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data/boards")
}

#[test]
fn every_profile_is_found_on_its_board_and_suits_it() {
    for profile in profiles() {
        let root = boards().join(&profile.name);
        assert!(root.is_dir(), "{} has no fixture", profile.name);
        let found = detect(&root);
        assert_eq!(found.profile.name, profile.name);
        let generic = profile.name.starts_with("generic-");
        assert_eq!(found.by == Recognised::Architecture, generic);
        let facts = &found.facts;
        if generic {
            assert_eq!(found.profile.settings(facts), Default::default());
            continue;
        }
        // What the board is is what its profile says.
        assert_eq!(
            facts.kernels,
            profile.processor.kernels.as_deref(),
            "{}",
            profile.name
        );
        assert!(
            facts.cores.len() <= profile.processor.count.unwrap(),
            "{}",
            profile.name
        );
        let memory = facts.memory_bytes.unwrap();
        let size = nominal_mib(memory);
        assert!(
            profile.memory.sizes_mib.contains(&size),
            "{}: {size}",
            profile.name
        );
        let visible = profile.memory.visible_percent.unwrap() * size / 100;
        assert!(memory >= visible * MIB, "{}: {memory}", profile.name);
        let model = found.model.clone().unwrap();
        assert!(
            model.starts_with("Raspberry Pi") || model.starts_with("NVIDIA Jetson"),
            "{model}"
        );
        // One of its zones is there.
        let heat = profile.heat.as_ref().unwrap();
        let zones = fs::read_dir(root.join("sys/class/thermal")).unwrap();
        let mut types =
            zones.filter_map(|zone| fs::read_to_string(zone.unwrap().path().join("type")).ok());
        let known = |kind: String| heat.zones.iter().any(|zone| zone == kind.trim());
        assert!(types.any(known), "{}", profile.name);
        let settings = profile.settings(facts);
        let threads = settings.threads.unwrap();
        assert!(
            (1..=facts.cores.len()).contains(&threads),
            "{}",
            profile.name
        );
        // There is a model for each size that the board comes with.
        for size in &profile.memory.sizes_mib {
            let fits = |model: &chaski_boards::Model| model.ram_mib <= *size;
            assert!(profile.models.iter().any(fits), "{}: {size}", profile.name);
        }
    }
}

#[test]
fn cores_that_are_off_are_not_counted() {
    let found = detect(&boards().join("jetson-agx-orin"));
    assert_eq!(found.facts.cores.len(), 8);
    assert_eq!(found.profile.settings(&found.facts).threads, Some(8));
}

#[test]
fn hostile_machines_are_machines_of_no_kind() {
    for name in ["empty", "garbage", "huge", "unknown-board"] {
        let found = detect(&boards().join(format!("hostile-{name}")));
        assert_eq!(found.by, Recognised::Architecture, "{name}");
        assert!(found.profile.name.starts_with("generic-"), "{name}");
        let model = found.model.clone().unwrap_or_default();
        assert!(
            model.len() <= 512 && !model.contains(char::is_control),
            "{name}: {model:?}"
        );
        assert!(found.facts.cores.len() <= 1024, "{name}");
        assert_eq!(
            found.profile.settings(&found.facts),
            Default::default(),
            "{name}"
        );
    }
    let unknown = detect(&boards().join("hostile-unknown-board"));
    assert_eq!(unknown.profile.name, "generic-arm64");
}
