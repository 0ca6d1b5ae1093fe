//! Conversions of a Llama in memory.

use std::fs;
use std::path::PathBuf;

use tempfile::TempDir;

use super::*;
use crate::folder::{MANIFEST, MODEL, MODEL_DATA};
use crate::onnx::proto::{GraphProto, ModelProto};
use crate::progress::Silent;
use crate::testing::{Memory, tiny};

fn home() -> (TempDir, PathBuf) {
    let home = tempfile::tempdir().unwrap();
    let output = home.path().join("model");
    (home, output)
}

fn is_empty(folder: &TempDir) -> bool {
    fs::read_dir(folder.path()).unwrap().next().is_none()
}

fn graph(output: &Path) -> GraphProto {
    let bytes = fs::read(output.join(MODEL)).unwrap();
    ModelProto::decode(bytes.as_slice()).unwrap().graph.unwrap()
}

fn inputs_of(graph: &GraphProto, node: &str) -> Vec<String> {
    let node = graph.node.iter().find(|n| n.name == node);
    node.unwrap_or_else(|| panic!("{:?}", graph.node))
        .input
        .clone()
}

fn convert(source: &Memory, options: &Options) -> (TempDir, PathBuf, Summary) {
    let (home, output) = home();
    let summary = quantise_source(source, &output, options, &mut Silent).unwrap();
    (home, output, summary)
}

#[test]
fn the_folder_agrees_with_its_manifest() {
    let source = tiny();
    let (home, output, summary) = convert(&source, &Options::default());
    let text = fs::read(output.join(MANIFEST)).unwrap();
    let manifest: Manifest = serde_json::from_slice(&text).unwrap();
    assert_eq!(manifest.architecture, source.architecture);
    let mut names: Vec<_> = fs::read_dir(&output)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name != MANIFEST)
        .collect();
    names.sort();
    assert_eq!(names, manifest.files.keys().cloned().collect::<Vec<_>>());
    for (name, entry) in &manifest.files {
        assert_eq!(hash_file(&output.join(name), |_| Ok(())).unwrap(), *entry);
    }
    let genai = fs::read(output.join("genai_config.json")).unwrap();
    let genai: serde_json::Value = serde_json::from_slice(&genai).unwrap();
    assert_eq!(genai["model"]["eos_token_id"], serde_json::json!([2, 3]));
    assert_eq!(genai["model"]["pad_token_id"], 2);
    // Nothing but the folder is left beside it.
    assert_eq!(fs::read_dir(home.path()).unwrap().count(), 1);
    assert_eq!(summary.kinds[&Kind::Norm].tensors, 3);
    assert_eq!(summary.kinds[&Kind::Attention].tensors, 8);
    assert!(summary.total().error.relative() < 0.15);
}

#[test]
fn initialisers_lie_on_pages_and_nodes_in_order() {
    let (_home, output, _) = convert(&tiny(), &Options::default());
    let graph = graph(&output);
    let data = fs::metadata(output.join(MODEL_DATA)).unwrap().len();
    let mut known: Vec<&str> = graph.input.iter().map(|i| i.name.as_str()).collect();
    let mut places = BTreeMap::new();
    for initializer in &graph.initializer {
        known.push(&initializer.name);
        if initializer.raw_data.is_some() {
            continue;
        }
        let entry = |key: &str| {
            let found = initializer.external_data.iter().find(|e| e.key == key);
            found.unwrap().value.clone()
        };
        assert_eq!(entry("location"), MODEL_DATA);
        let offset: u64 = entry("offset").parse().unwrap();
        let length: u64 = entry("length").parse().unwrap();
        assert_eq!(offset % folder::ALIGNMENT, 0, "{}", initializer.name);
        assert!(offset + length <= data);
        let size = match initializer.data_type {
            1 => 4,
            10 => 2,
            _ => 1,
        };
        let elements: i64 = initializer.dims.iter().product();
        assert_eq!(length, elements as u64 * size, "{}", initializer.name);
        places.insert(initializer.name.as_str(), offset);
    }
    // Tied: one range, two names.
    assert_eq!(
        places["lm_head.weight.quants"],
        places["model.embed_tokens.weight.quants"]
    );
    for node in &graph.node {
        for input in &node.input {
            assert!(
                known.contains(&input.as_str()),
                "{} of {}",
                input,
                node.name
            );
        }
        known.extend(node.output.iter().map(String::as_str));
    }
    for output in &graph.output {
        assert!(known.contains(&output.name.as_str()), "{}", output.name);
    }
    // Attention has biases here, the MLP has none.
    let added = inputs_of(&graph, "/model/layers.0/attn/q_proj/Add");
    assert_eq!(added[1], "model.layers.0.self_attn.q_proj.bias");
    assert!(
        !graph
            .node
            .iter()
            .any(|n| n.name.contains("mlp/up_proj/Add"))
    );
}

#[test]
fn the_scheme_and_the_source_decide_on_zero_points() {
    let up = "model.layers.0.mlp.up_proj.weight";
    let node = "/model/layers.0/mlp/up_proj/MatMulNBits";
    let zero_points = |source: &Memory, scheme| {
        let options = Options {
            scheme,
            ..Options::default()
        };
        let (_home, output, summary) = convert(source, &options);
        let graph = graph(&output);
        let inputs = inputs_of(&graph, node);
        let data_type = inputs.get(3).map(|name| {
            let name = name
                .trim_start_matches('/')
                .trim_end_matches("/Cast/output_0");
            let found = graph.initializer.iter().find(|i| i.name == name);
            found.unwrap().data_type
        });
        (data_type, summary.notes.join("\n"))
    };
    let (float, uint8, float16) = (Some(1), Some(2), Some(10));
    let mut source = tiny();
    assert_eq!(zero_points(&source, Scheme::Auto).0, None);
    assert_eq!(zero_points(&source, Scheme::Asymmetric).0, uint8);
    source.hold_q4(up, false);
    let (found, notes) = zero_points(&source, Scheme::Auto);
    assert_eq!(found, None);
    assert!(notes.contains("unchanged from Q4_0: 1"), "{notes}");
    let (found, notes) = zero_points(&source, Scheme::Symmetric);
    assert_eq!(found, None);
    assert!(notes.contains("unchanged from Q4_0: 1"), "{notes}");
    source.hold_q4(up, true);
    let (found, notes) = zero_points(&source, Scheme::Auto);
    assert_eq!(found, float16);
    assert!(notes.contains("more than 1/25"), "{notes}");
    assert_eq!(zero_points(&source, Scheme::Symmetric).0, None);
    source.hold_q4(up, true).scales[0] = half::f16::from_f32(1e-4);
    let (found, notes) = zero_points(&source, Scheme::Auto);
    assert_eq!(found, float);
    assert!(
        notes.contains("stored as f32") && notes.contains(up),
        "{notes}"
    );
    source.hold_q4(plan::EMBEDDING, true);
    let (_, notes) = zero_points(&source, Scheme::Auto);
    assert!(notes.contains("embed_tokens.weight is Q4_1"), "{notes}");
}

#[test]
fn tables_in_8_bits_are_shared_and_the_rest_keeps_4() {
    let mut source = tiny();
    source.hold_q8(plan::EMBEDDING);
    for scheme in [Scheme::Auto, Scheme::Symmetric, Scheme::Asymmetric] {
        let options = Options {
            scheme,
            embedding_bits: Bits::Eight,
            ..Options::default()
        };
        let (_home, output, summary) = convert(&source, &options);
        let graph = graph(&output);
        let part = |name: &str| {
            let found = graph.initializer.iter().find(|i| i.name == name);
            found.unwrap_or_else(|| panic!("{name}"))
        };
        let table = part("model.embed_tokens.weight.quants");
        let head = part("lm_head.weight.quants");
        assert_eq!(
            (&table.dims[..], &head.dims[..]),
            (&[40, 64][..], &[40, 2, 32][..])
        );
        assert_eq!(table.external_data, head.external_data);
        assert_eq!(
            part("model.embed_tokens.weight.scales").external_data,
            part("lm_head.weight.scales").external_data
        );
        for node in &graph.node {
            let bits = node.attribute.iter().find(|a| a.name == "bits");
            let Some(bits) = bits.and_then(|a| a.i) else {
                continue;
            };
            let of_table = node.op_type == "GatherBlockQuantized" || node.name.contains("lm_head");
            assert_eq!(bits, if of_table { 8 } else { 4 }, "{}", node.name);
            // Data or activations, the other of them, scales: no zero points.
            assert!(!of_table || node.input.len() == 3, "{}", node.name);
        }
        let embedding = summary.kinds[&Kind::Embedding];
        assert_eq!(embedding.bytes_after, 40 * 64 + 40 * 2 * 2);
        assert_eq!(embedding.bits_per_weight(), 8.5);
        assert_eq!(embedding.error.squared_error, 0.0);
        assert!(summary.notes.concat().contains("unchanged from Q8_0: 1"));
        let text = fs::read(output.join(MANIFEST)).unwrap();
        let manifest: Manifest = serde_json::from_slice(&text).unwrap();
        let quantisation = manifest.quantisation;
        assert_eq!((quantisation.bits, quantisation.embedding_bits), (4, 8));
    }
}

#[test]
fn any_source_can_have_tables_in_8_bits() {
    let eight = Options {
        embedding_bits: Bits::Eight,
        ..Options::default()
    };
    let mut source = tiny();
    source.architecture.tied_embeddings = false;
    let values = crate::testing::weights(40 * 64, 77);
    source.tensors.insert(
        plan::HEAD.into(),
        (40, 64, crate::testing::Held::Plain(values)),
    );
    source.hold_q4(plan::EMBEDDING, false);
    let (_home, output, summary) = convert(&source, &eight);
    for kind in [Kind::Embedding, Kind::Head] {
        let totals = summary.kinds[&kind];
        assert_eq!(totals.bits_per_weight(), 8.5);
        let error = totals.error.relative();
        assert!(error > 0.0 && error < 0.01, "{kind:?} {error}");
    }
    assert!(
        summary
            .notes
            .concat()
            .contains("embed_tokens.weight is Q4_0")
    );
    let head = inputs_of(&graph(&output), "/lm_head/MatMulNBits");
    assert_eq!(head[1], "lm_head.weight.quants");

    source.plain(plan::HEAD)[65] = f32::NAN;
    let (home, output) = home();
    let error = quantise_source(&source, &output, &eight, &mut Silent).unwrap_err();
    assert!(
        error.to_string().contains("row 1, column 1 is NaN"),
        "{error}"
    );
    assert!(is_empty(&home));
}

#[test]
fn the_context_can_be_capped() {
    let capped = |length| {
        let options = Options {
            context_length: Some(length),
            ..Options::default()
        };
        let (_home, output, summary) = convert(&tiny(), &options);
        let graph = graph(&output);
        let cos = graph.initializer.iter().find(|i| i.name == COS_CACHE);
        (cos.unwrap().dims.clone(), summary.notes)
    };
    assert_eq!(capped(100), (vec![100, 8], Vec::new()));
    let (dims, notes) = capped(1000);
    assert_eq!(dims, [128, 8]);
    assert!(notes[0].contains("128 is kept"), "{notes:?}");
    let options = Options {
        context_length: Some(0),
        ..Options::default()
    };
    let (_home, output) = home();
    assert!(quantise_source(&tiny(), &output, &options, &mut Silent).is_err());
}

/// Sets the flag when the tensor is begun, as a signal would.
struct StopAt(&'static str, Arc<AtomicBool>);

impl Progress for StopAt {
    fn begin(&mut self, _: Stage, _: u64) {}
    fn item(&mut self, name: &str) {
        if name == self.0 {
            self.1.store(true, Ordering::Relaxed);
        }
    }
    fn advance(&mut self, _: u64) {}
    fn end(&mut self) {}
}

#[test]
fn an_interrupted_run_leaves_nothing() {
    // The last tensor is a norm: the flag is seen before the folder is moved.
    for tensor in ["model.layers.0.mlp.down_proj.weight", plan::FINAL_NORM] {
        let flag = Arc::new(AtomicBool::new(false));
        let options = Options {
            interrupt: Some(flag.clone()),
            ..Options::default()
        };
        let (home, output) = home();
        let mut progress = StopAt(tensor, flag);
        let error = quantise_source(&tiny(), &output, &options, &mut progress).unwrap_err();
        assert!(matches!(error, Error::Interrupted), "{error}");
        assert!(is_empty(&home));
    }
}

#[test]
fn bad_tensors_leave_nothing_and_are_named() {
    type Spoil = fn(&mut Memory);
    let spoiled: [(Spoil, &str); 4] = [
        (
            |s| s.plain(plan::FINAL_NORM)[9] = f32::NAN,
            "column 9 is NaN",
        ),
        (
            |s| s.plain("model.layers.0.mlp.down_proj.weight")[97] = f32::INFINITY,
            "row 1, column 1 is inf",
        ),
        (
            |s| drop(s.tensors.remove(plan::FINAL_NORM)),
            "tensor model.norm.weight:",
        ),
        (
            |s| s.tensors.get_mut(plan::EMBEDDING).unwrap().0 = 39,
            "39 × 64 values, the model 40 × 64",
        ),
    ];
    for (spoil, wanted) in spoiled {
        let mut source = tiny();
        spoil(&mut source);
        let (home, output) = home();
        let error = quantise_source(&source, &output, &Options::default(), &mut Silent);
        let message = error.unwrap_err().to_string();
        assert!(message.contains(wanted), "{message}");
        assert!(is_empty(&home));
    }
}

#[test]
fn unused_tensors_are_told() {
    let mut source = tiny();
    source.plain("model.norm.weight");
    source.tensors.insert(
        "extra.weight".into(),
        (1, 1, crate::testing::Held::Plain(vec![0.0])),
    );
    let (_home, _, summary) = convert(&source, &Options::default());
    assert!(summary.notes[0].contains("not used: 1: extra.weight"));
}
