//! Hostile containers: whatever the header says, one error and no large allocation.

use super::*;
use crate::source::testing::{GgufBuilder, gguf_string};

fn small() -> GgufBuilder {
    let mut gguf = GgufBuilder::new();
    gguf.text("general.architecture", "llama")
        .texts("list", &["ab", "", "c"])
        .integers("numbers", &[1, -2])
        .flag("flag", true)
        .f32s("one", &[2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
        .f32s("two", &[4], &[7.0; 4]);
    gguf
}

fn open(bytes: &[u8]) -> Result<File> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    std::fs::write(&path, bytes).unwrap();
    File::open(&path)
}

fn refused(bytes: &[u8]) -> String {
    match open(bytes) {
        Ok(_) => panic!("was not refused"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn both_versions_are_read() {
    for version in [2, 3] {
        let mut gguf = small();
        gguf.version = version;
        let file = open(&gguf.build()).unwrap();
        assert_eq!(file.text("general.architecture").unwrap(), Some("llama"));
        assert_eq!(file.texts("list").unwrap().unwrap(), ["ab", "", "c"]);
        assert_eq!(file.integers("numbers").unwrap().unwrap(), [1, -2]);
        assert_eq!(file.flag("flag").unwrap(), Some(true));
        assert_eq!(file.count("absent").unwrap(), None);
        assert!(file.count("flag").is_err() && file.floats("numbers").is_err());
        assert_eq!(file.tensors["one"].shape, [2, 3]);
        assert_eq!(file.tensors["two"].stored.range().len(), 16);
    }
}

#[test]
fn every_truncation_is_refused() {
    let whole = small().build();
    for length in 0..whole.len() {
        let message = refused(&whole[..length]);
        assert!(
            message.contains("damaged or malformed") || length < 8,
            "{length}: {message}"
        );
    }
}

#[test]
fn every_flipped_byte_ends_in_a_result() {
    let whole = small().build();
    for place in 0..whole.len() {
        for value in [0x00, 0x01, 0x7f, 0x80, 0xff] {
            let mut spoilt = whole.clone();
            spoilt[place] = value;
            // Either is right, as long as it is told and not a panic or a huge allocation.
            drop(open(&spoilt));
        }
    }
}

#[test]
fn huge_counts_are_refused_at_once() {
    for count in [1000u64, u64::from(u32::MAX), u64::MAX / 24 + 1, u64::MAX] {
        for place in [8, 16] {
            let mut spoilt = small().build();
            spoilt[place..place + 8].copy_from_slice(&count.to_le_bytes());
            let message = refused(&spoilt);
            assert!(message.contains("room for"), "{message}");
        }
        let mut long_key = small().build();
        long_key[24..32].copy_from_slice(&count.to_le_bytes());
        assert!(refused(&long_key).contains("truncated"));
    }
}

#[test]
fn magic_and_version() {
    let mut gguf = small();
    gguf.version = 1;
    assert!(refused(&gguf.build()).contains("version 1"));
    gguf.version = 4;
    assert!(refused(&gguf.build()).contains("version 4"));
    gguf.version = 3u32.swap_bytes();
    assert!(refused(&gguf.build()).contains("big-endian"));
    assert!(refused(b"GGML and more").contains("does not start with GGUF"));
}

#[test]
fn names_come_once_and_are_utf8() {
    let mut gguf = small();
    gguf.f32s("one", &[1], &[1.0]);
    assert!(refused(&gguf.build()).contains("tensor one comes twice"));
    let mut gguf = small();
    gguf.metadata.push(("flag".into(), vec![7, 0, 0, 0, 1]));
    assert!(refused(&gguf.build()).contains("key flag comes twice"));
    let mut bytes = small().build();
    bytes[32] = 0xff;
    assert!(refused(&bytes).contains("not UTF-8"));
    let mut gguf = small();
    gguf.raw("text", 8, &gguf_string(&[0xc3]));
    let file = open(&gguf.build()).unwrap();
    assert!(
        file.text("text")
            .unwrap_err()
            .to_string()
            .contains("text is not UTF-8")
    );
}

#[test]
fn tensors_lie_apart_and_within_the_file() {
    let spoilt = |change: fn(&mut GgufBuilder)| {
        let mut gguf = small();
        change(&mut gguf);
        refused(&gguf.build())
    };
    let within = "does not lie within the file";
    assert!(spoilt(|g| g.tensors[1].1 = vec![400]).contains(within));
    assert!(spoilt(|g| g.tensors[1].1 = vec![u64::MAX, u64::MAX]).contains(within));
    assert!(spoilt(|g| g.tensors[1].1 = vec![4, u64::MAX, 2]).contains(within));
    assert!(spoilt(|g| g.tensors[0].1 = vec![9]).contains("overlap"));
    assert!(spoilt(|g| g.tensors[0].1 = vec![]).contains("0 dimensions"));
    assert!(spoilt(|g| g.tensors[0].1 = vec![1; 5]).contains("5 dimensions"));
    assert!(spoilt(|g| g.tensors[0].2 = 10).contains("Q2_K"));
    assert!(spoilt(|g| g.tensors[0].2 = 4).contains("unknown type 4"));
    // Three columns are no whole block of Q8_0.
    assert!(spoilt(|g| g.tensors[0].2 = 8).contains(within));
    let mut misplaced = small().build();
    let name = misplaced.windows(3).rposition(|w| w == b"two").unwrap();
    let offset = name + 3 + 4 + 8 + 4;
    misplaced[offset..offset + 8].copy_from_slice(&33u64.to_le_bytes());
    assert!(refused(&misplaced).contains("no multiple of 32"));
    misplaced[offset..offset + 8].copy_from_slice(&(u64::MAX - 31).to_le_bytes());
    assert!(refused(&misplaced).contains(within));
}

#[test]
fn alignment_is_plausible() {
    for alignment in [0, 7, 33, 1 << 30] {
        let mut gguf = small();
        gguf.count("general.alignment", alignment);
        assert!(refused(&gguf.build()).contains("general.alignment"));
    }
    let mut gguf = small();
    gguf.count("general.alignment", 32);
    open(&gguf.build()).unwrap();
}
