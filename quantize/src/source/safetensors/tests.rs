//! Whole folders: what is read back, and what is refused.

use std::fs;

use serde_json::json;

use super::*;
use crate::source::Encoding;
use crate::source::testing::{TestTensor, config_json, safetensors, tensors, tiny_architecture};

/// A folder with `config.json` and the given files.
fn folder(a: &Architecture, files: &[(&str, Vec<u8>)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(
        folder.path().join("config.json"),
        config_json(a).to_string(),
    )
    .unwrap();
    for (name, bytes) in files {
        fs::write(folder.path().join(name), bytes).unwrap();
    }
    folder
}

fn whole(a: &Architecture) -> Vec<u8> {
    safetensors(&tensors(a).iter().collect::<Vec<_>>())
}

fn refused(folder: &tempfile::TempDir) -> String {
    match HuggingFace::open(folder.path()) {
        Ok(_) => panic!("was not refused"),
        Err(error) => error.to_string(),
    }
}

fn assert_reads(source: &HuggingFace, a: &Architecture) {
    assert_eq!(*source.architecture(), *a);
    for tensor in tensors(a) {
        let info = source.tensor(&tensor.name).unwrap();
        assert_eq!(info.encoding, Encoding::F32);
        let mut values = vec![0.0; tensor.values.len()];
        source
            .read_rows(&tensor.name, 0..info.rows, &mut values)
            .unwrap();
        assert_eq!(values, tensor.values, "{}", tensor.name);
    }
}

/// The model in two files with an index.
fn sharded(a: &Architecture) -> tempfile::TempDir {
    let all = tensors(a);
    let (first, second): (Vec<&TestTensor>, Vec<&TestTensor>) = all
        .iter()
        .partition(|tensor| tensor.name.contains("layers.0"));
    let mut weight_map = serde_json::Map::new();
    for (tensors, name) in [(&first, "a.safetensors"), (&second, "b.safetensors")] {
        for tensor in tensors {
            weight_map.insert(tensor.name.clone(), name.into());
        }
    }
    let index = json!({"metadata": {"total_size": 1}, "weight_map": weight_map}).to_string();
    folder(
        a,
        &[
            ("a.safetensors", safetensors(&first)),
            ("b.safetensors", safetensors(&second)),
            ("model.safetensors.index.json", index.into_bytes()),
        ],
    )
}

#[test]
fn one_file() {
    let a = Architecture {
        head_dim: 32,
        attention_bias: true,
        tied_embeddings: false,
        ..tiny_architecture()
    };
    let folder = folder(&a, &[("model.safetensors", whole(&a))]);
    let source = HuggingFace::open(folder.path()).unwrap();
    assert_reads(&source, &a);
    assert!(
        !source
            .read_q4_rows("model.norm.weight", 0..1, &mut Q4Blocks::default())
            .unwrap()
    );
    assert!(source.read_rows("model.norm.bias", 0..1, &mut []).is_err());
    // The same by the name of the file.
    let file = folder.path().join("model.safetensors");
    assert_reads(&HuggingFace::open(&file).unwrap(), &a);
    let names: Vec<_> = source
        .files()
        .iter()
        .map(|p| p.file_name().unwrap().to_owned())
        .collect();
    assert_eq!(names, ["model.safetensors", "config.json"]);
}

#[test]
fn shards() {
    let a = tiny_architecture();
    let folder = sharded(&a);
    let source = HuggingFace::open(folder.path()).unwrap();
    assert_reads(&source, &a);
    assert_eq!(source.files().len(), 4);
    // A shard stands for the model it is of.
    let shard = folder.path().join("b.safetensors");
    assert_reads(&HuggingFace::open(&shard).unwrap(), &a);
    fs::remove_file(folder.path().join("a.safetensors")).unwrap();
    assert!(refused(&folder).contains("shard a.safetensors is missing"));
}

#[test]
fn bad_indices() {
    let a = tiny_architecture();
    let folder = sharded(&a);
    let index = folder.path().join("model.safetensors.index.json");
    let write = |text: &str| fs::write(&index, text).unwrap();
    write(r#"{"weight_map": {"model.norm.weight": "../a.safetensors"}}"#);
    assert!(refused(&folder).contains("not a plain file name"));
    write(r#"{"weight_map": {"model.norm.weight": "/a.safetensors"}}"#);
    assert!(refused(&folder).contains("not a plain file name"));
    write(r#"{"weight_map": {"model.norm.weight": "b.safetensors"}}"#);
    assert!(refused(&folder).contains("model.embed_tokens.weight is missing"));
    write(r#"{"weight_map": {"model.embed_tokens.weight": "a.safetensors"}}"#);
    let message = refused(&folder);
    assert!(message.contains("a.safetensors: tensor model.embed_tokens.weight is missing"));
    write(r#"{"weight_map": 7}"#);
    assert!(refused(&folder).contains("JSON"));
    write("{");
    assert!(refused(&folder).contains("JSON"));
}

#[test]
fn what_is_not_a_model_is_told_apart() {
    let a = tiny_architecture();
    assert!(refused(&folder(&a, &[])).contains("no .safetensors file"));
    assert!(refused(&folder(&a, &[("pytorch_model.bin", vec![])])).contains("pickles"));
    let two = folder(&a, &[("a.safetensors", vec![]), ("b.safetensors", vec![])]);
    assert!(refused(&two).contains("several"));
    let alone = tempfile::tempdir().unwrap();
    fs::write(alone.path().join("model.safetensors"), whole(&a)).unwrap();
    assert!(refused(&alone).contains("no config.json"));
    fs::write(alone.path().join("config.json"), "nonsense").unwrap();
    assert!(refused(&alone).contains("config.json") && refused(&alone).contains("JSON"));
}

#[test]
fn wrong_shapes_and_types() {
    let a = tiny_architecture();
    let open = |tensors: &[TestTensor]| {
        let bytes = safetensors(&tensors.iter().collect::<Vec<_>>());
        refused(&folder(&a, &[("model.safetensors", bytes)]))
    };
    let mut all = tensors(&a);
    all[0].shape = vec![64, 40];
    assert!(open(&all).contains("shape [64, 40], expected [40, 64]"));
    all[0].shape = vec![40, 8, 8];
    assert!(open(&all).contains("[40, 8, 8]"));
    all.remove(0);
    assert!(open(&all).contains("model.embed_tokens.weight is missing"));
    let mut integers = whole(&a);
    let place = integers.windows(3).position(|w| w == b"F32").unwrap();
    integers[place..place + 3].copy_from_slice(b"I32");
    let message = refused(&folder(&a, &[("model.safetensors", integers)]));
    assert!(message.contains("I32"), "{message}");
}

/// A file of the given header and as many bytes of data.
fn file_of(header: &str, data: usize) -> Vec<u8> {
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.as_bytes());
    file.resize(file.len() + data, 0);
    file
}

#[test]
fn hostile_headers() {
    let a = tiny_architecture();
    let open = |bytes: Vec<u8>| refused(&folder(&a, &[("model.safetensors", bytes)]));
    let malformed = |bytes: Vec<u8>| {
        let message = open(bytes);
        assert!(message.contains("damaged or malformed"), "{message}");
        message
    };
    malformed(vec![]);
    malformed(vec![0; 7]);
    malformed(u64::MAX.to_le_bytes().to_vec());
    assert!(malformed((100u64 << 20).to_le_bytes().to_vec()).contains("header's length"));
    malformed(file_of("{\"a\"", 0));
    malformed(file_of("[]", 0));
    malformed(file_of("{\"\\uD800\": 1}", 0));
    let info = r#"{"dtype":"F32","shape":[1],"data_offsets":[0,4]}"#;
    assert!(
        malformed(file_of(&format!("{{\"a\":{info},\"a\":{info}}}"), 4)).contains("a comes twice")
    );
    // More, fewer, overlapping, overflowing data.
    malformed(file_of(&format!("{{\"a\":{info}}}"), 5));
    malformed(file_of(&format!("{{\"a\":{info}}}"), 3));
    malformed(file_of(&format!("{{\"a\":{info},\"b\":{info}}}"), 4));
    let huge = r#"{"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,4]}}"#;
    malformed(file_of(huge, 4));
    let far = r#"{"a":{"dtype":"U8","shape":[18446744073709551607],"data_offsets":[0,18446744073709551607]}}"#;
    malformed(file_of(far, 0));
    let mut not_utf8 = file_of(&format!("{{\"a\":{info}}}"), 4);
    not_utf8[10] = 0xff;
    malformed(not_utf8);
}

#[test]
fn every_truncation_is_refused() {
    let a = tiny_architecture();
    let bytes = whole(&a);
    let header = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let lengths = (0..header)
        .step_by(13)
        .chain([header, header + 1, bytes.len() - 1]);
    let folder = folder(&a, &[]);
    for length in lengths {
        fs::write(folder.path().join("model.safetensors"), &bytes[..length]).unwrap();
        let message = refused(&folder);
        assert!(
            message.contains("damaged or malformed"),
            "{length}: {message}"
        );
    }
}
