//! The guarded rewriting of the ONNX graph before tract sees it.

use std::collections::{HashMap, HashSet};

use tract_onnx::pb::attribute_proto::AttributeType;
use tract_onnx::pb::tensor_shape_proto::{Dimension, dimension};
use tract_onnx::pb::type_proto::Value;
use tract_onnx::pb::{AttributeProto, GraphProto, ModelProto, NodeProto};
use tract_onnx::tract_core::internal::*;

use super::external::{Initialisers, external_range};
use crate::ops::{COS, LAST, QUANTS, SCALES, SIN, ZERO_POINTS};

/// The operators of the folder's graph once it is rewritten, with the inputs that
/// each then has. Nothing else is handed to tract: a parser that meets what it was
/// not written for may panic.
const OPERATORS: [(&str, usize); 7] = [
    ("Add", 2),
    ("GatherBlockQuantized", 1),
    ("GroupQueryAttention", 3),
    ("MatMulNBits", 1),
    ("Mul", 2),
    ("Sigmoid", 1),
    ("SimplifiedLayerNormalization", 2),
];

const IDS: &str = "input_ids";
const LOGITS: &str = "logits";

/// Rewrites the folder's graph to the one that our operators and tract run:
/// `input_ids` `[1, S]` in, `logits` `[1, N, vocab_size]` of the last N positions
/// out, nothing else.
pub(super) fn rewrite(mut proto: ModelProto) -> TractResult<ModelProto> {
    let graph = proto.graph.as_mut().context("no graph inside")?;
    let initialisers = graph.clone();
    let initialisers = Initialisers::of(&initialisers);
    for node in &mut graph.node {
        take_weights(node, &initialisers).with_context(|| format!("node {:?}", node.name))?;
    }
    prune(graph)?;
    check_operators(graph)?;
    last_positions_only(graph)?;
    for tensor in &graph.initializer {
        external_range(tensor)?;
    }
    fix_inputs(graph)?;
    graph.value_info.clear();
    Ok(proto)
}

/// Turns the weight inputs of our operators into attributes that say where they
/// lie, so that tract never copies them.
fn take_weights(node: &mut NodeProto, initialisers: &Initialisers<'_>) -> TractResult<()> {
    let input = |index: usize| node.input.get(index).filter(|name| !name.is_empty());
    let required = |index: usize| input(index).with_context(|| format!("input {index} is missing"));
    let mut attributes = vec![];
    let mut take = |name: &str, index: usize| -> TractResult<()> {
        attributes.push(ints(name, &initialisers.place(required(index)?)?));
        Ok(())
    };
    let kept = match &*node.op_type {
        "MatMulNBits" => {
            take(QUANTS, 1)?;
            take(SCALES, 2)?;
            if input(3).is_some() {
                take(ZERO_POINTS, 3)?;
            }
            let rest = (4..node.input.len()).find(|&i| input(i).is_some());
            ensure!(
                rest.is_none(),
                "MatMulNBits with input {rest:?} does not run"
            );
            0..1
        }
        "GatherBlockQuantized" => {
            take(QUANTS, 0)?;
            take(SCALES, 2)?;
            if input(3).is_some() {
                take(ZERO_POINTS, 3)?;
            }
            let &[rows, packed] = initialisers.dims(required(0)?)? else {
                bail!("the table is not a matrix");
            };
            let bits = node
                .attribute
                .iter()
                .find(|a| a.name == "bits")
                .map_or(4, |a| a.i);
            let in_a_byte = if bits == 8 { 1 } else { 2 };
            let columns = packed
                .checked_mul(in_a_byte)
                .context("the table is too wide")?;
            attributes.push(int("chaski_rows", rows));
            attributes.push(int("chaski_columns", columns));
            1..2
        }
        "GroupQueryAttention" => {
            take(COS, 7)?;
            take(SIN, 8)?;
            let &[_, half] = initialisers.dims(required(7)?)? else {
                bail!("the RoPE table is not a matrix");
            };
            attributes.push(int("chaski_columns", half));
            let rest = (9..node.input.len()).find(|&i| input(i).is_some());
            ensure!(
                rest.is_none(),
                "GroupQueryAttention with input {rest:?} does not run"
            );
            // The cache lives in our operator: no past in, no present out.
            node.output.truncate(1);
            0..3
        }
        _ => return Ok(()),
    };
    ensure!(
        node.input.len() >= kept.end,
        "{} inputs are too few",
        node.input.len()
    );
    node.input = node.input.drain(kept).collect();
    node.attribute.append(&mut attributes);
    Ok(())
}

/// Puts our operator for the last positions before the output head: of a prompt,
/// only one position's logits are wanted, and the head is the largest matrix of
/// a small model.
fn last_positions_only(graph: &mut GraphProto) -> TractResult<()> {
    let head = graph
        .node
        .iter()
        .position(|n| n.output.first().is_some_and(|o| o == LOGITS))
        .with_context(|| format!("no node makes {LOGITS:?}"))?;
    ensure!(
        graph.node[head].op_type == "MatMulNBits",
        "{LOGITS:?} comes from {}, not from MatMulNBits",
        graph.node[head].op_type
    );
    let name = "chaski.last";
    let hidden = std::mem::replace(&mut graph.node[head].input[0], name.into());
    let last = NodeProto {
        name: name.into(),
        op_type: LAST.into(),
        input: vec![hidden],
        output: vec![name.into()],
        ..Default::default()
    };
    graph.node.insert(head, last);
    Ok(())
}

/// Keeps what `logits` needs.
fn prune(graph: &mut GraphProto) -> TractResult<()> {
    let makers: HashMap<String, usize> = graph
        .node
        .iter()
        .enumerate()
        .flat_map(|(i, n)| n.output.iter().map(move |o| (o.clone(), i)))
        .collect();
    let mut needed: HashSet<String> = HashSet::new();
    let mut open = vec![LOGITS.to_string()];
    let mut kept = vec![false; graph.node.len()];
    while let Some(name) = open.pop() {
        if let Some(&i) = makers.get(&name) {
            kept[i] = true;
            let inputs = graph.node[i].input.iter().filter(|n| !n.is_empty());
            open.extend(inputs.filter(|n| !needed.contains(*n)).cloned());
        }
        needed.insert(name);
    }
    let mut kept = kept.into_iter();
    graph.node.retain(|_| kept.next() == Some(true));
    graph.initializer.retain(|t| needed.contains(&t.name));
    graph.input.retain(|v| needed.contains(&v.name));
    graph.output.retain(|v| v.name == LOGITS);
    ensure!(
        graph.output.len() == 1,
        "the graph has no output {LOGITS:?}"
    );
    Ok(())
}

/// Refuses nodes that are not of the folder's contract.
fn check_operators(graph: &GraphProto) -> TractResult<()> {
    for node in &graph.node {
        let known = OPERATORS.iter().find(|(name, _)| *name == node.op_type);
        let (_, inputs) = known.with_context(|| {
            format!(
                "node {:?} is a {:?}: it does not run",
                node.name, node.op_type
            )
        })?;
        let given = node.input.iter().filter(|name| !name.is_empty()).count();
        ensure!(
            given == *inputs && node.input.len() == given && node.output.len() == 1,
            "node {:?}, a {}, has {given} inputs and {} outputs, not {inputs} and 1",
            node.name,
            node.op_type,
            node.output.len()
        );
    }
    Ok(())
}

/// One input, `input_ids`, of one sequence.
fn fix_inputs(graph: &mut GraphProto) -> TractResult<()> {
    let [input] = &mut graph.input[..] else {
        let names: Vec<_> = graph.input.iter().map(|v| &v.name).collect();
        bail!("logits need the inputs {names:?}: only {IDS:?} is known");
    };
    ensure!(
        input.name == IDS,
        "logits need {:?}, not {IDS:?}",
        input.name
    );
    let fact = input.r#type.as_mut().and_then(|t| t.value.as_mut());
    let Some(Value::TensorType(fact)) = fact else {
        bail!("{IDS:?} is not a tensor");
    };
    let shape = fact
        .shape
        .as_mut()
        .with_context(|| format!("{IDS:?} has no shape"))?;
    let dimension = |value| Dimension {
        value: Some(value),
        ..Default::default()
    };
    shape.dim = vec![
        dimension(dimension::Value::DimValue(1)),
        dimension(dimension::Value::DimParam("S".into())),
    ];
    Ok(())
}

fn int(name: &str, value: i64) -> AttributeProto {
    AttributeProto {
        name: name.into(),
        r#type: AttributeType::Int as i32,
        i: value,
        ..Default::default()
    }
}

fn ints(name: &str, values: &[i64]) -> AttributeProto {
    AttributeProto {
        name: name.into(),
        r#type: AttributeType::Ints as i32,
        ints: values.to_vec(),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tract_onnx::pb::tensor_proto::{DataLocation, DataType};
    use tract_onnx::pb::{StringStringEntryProto, TensorProto, ValueInfoProto};

    fn external(name: &str, data_type: DataType, dims: &[i64], bytes: i64) -> TensorProto {
        let entry = |key: &str, value: String| StringStringEntryProto {
            key: key.into(),
            value,
        };
        TensorProto {
            name: name.into(),
            dims: dims.to_vec(),
            data_type: data_type as i32,
            data_location: Some(DataLocation::External as i32),
            external_data: vec![
                entry("location", crate::folder::DATA.into()),
                entry("offset", "4096".into()),
                entry("length", bytes.to_string()),
            ],
            ..Default::default()
        }
    }

    fn node(op_type: &str, input: &[&str], output: &[&str]) -> NodeProto {
        NodeProto {
            name: output[0].into(),
            op_type: op_type.into(),
            input: input.iter().map(|s| s.to_string()).collect(),
            output: output.iter().map(|s| s.to_string()).collect(),
            ..Default::default()
        }
    }

    /// A table, an attention, a head: one node of each kind that is rewritten.
    fn model() -> ModelProto {
        let value = |name: &str| ValueInfoProto {
            name: name.into(),
            r#type: Some(tract_onnx::pb::TypeProto {
                value: Some(Value::TensorType(tract_onnx::pb::type_proto::Tensor {
                    elem_type: DataType::Int64 as i32,
                    shape: Some(Default::default()),
                })),
                ..Default::default()
            }),
            ..Default::default()
        };
        let attention = [
            "x", "x", "x", "past.k", "past.v", "seq", "mask", "cos", "sin",
        ];
        ModelProto {
            graph: Some(GraphProto {
                node: vec![
                    node("Cast", &["scale16"], &["scale"]),
                    node("GatherBlockQuantized", &["table", IDS, "scale"], &["x"]),
                    node("ReduceSum", &["mask"], &["seq"]),
                    node("GroupQueryAttention", &attention, &["y", "now.k", "now.v"]),
                    node("MatMulNBits", &["y", "q", "scale"], &[LOGITS]),
                ],
                initializer: vec![
                    external("table", DataType::Uint8, &[4, 16], 64),
                    external("q", DataType::Uint8, &[4, 1, 16], 64),
                    external("scale16", DataType::Float16, &[4, 1], 8),
                    external("cos", DataType::Float, &[8, 16], 512),
                    external("sin", DataType::Float, &[8, 16], 512),
                ],
                input: [IDS, "mask", "past.k", "past.v"].map(value).into(),
                output: [LOGITS, "now.k", "now.v"].map(value).into(),
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    #[test]
    fn weights_become_places_and_the_rest_is_pruned() {
        let graph = rewrite(model()).unwrap().graph.unwrap();
        let kinds: Vec<_> = graph.node.iter().map(|n| &*n.op_type).collect();
        let expected = [
            "GatherBlockQuantized",
            "GroupQueryAttention",
            LAST,
            "MatMulNBits",
        ];
        assert_eq!(kinds, expected);
        let names: Vec<_> = graph.input.iter().map(|v| &*v.name).collect();
        assert_eq!(names, [IDS]);
        assert_eq!(graph.node[0].input, [IDS]);
        assert_eq!(graph.node[1].input, ["x", "x", "x"]);
        assert_eq!(graph.node[1].output, ["y"]);
        assert_eq!(graph.node[3].input, ["chaski.last"]);
        let scales = graph.node[3]
            .attribute
            .iter()
            .find(|a| a.name == SCALES)
            .unwrap();
        assert_eq!(scales.ints, [DataType::Float16 as i64, 4096, 8]);
        assert!(graph.initializer.is_empty());
    }

    #[test]
    fn hostile_graphs_are_refused_by_name() {
        type Spoil = fn(&mut GraphProto);
        let cases: [(&str, Spoil); 11] = [
            ("it does not run", |g| g.node[1].op_type = "Loop".into()),
            ("has 2 inputs", |g| {
                g.node.insert(4, node("Sigmoid", &["y", "x"], &["z"]));
                g.node[5].input[0] = "z".into();
            }),
            ("no node makes \"logits\"", |g| g.node.truncate(4)),
            ("\"q\" is not an initialiser", |g| {
                g.initializer.remove(1);
            }),
            ("64 bytes for the shape [4, 9, 16]", |g| {
                g.initializer[1].dims[1] = 9
            }),
            ("for the shape [9223372036854775807, 2, 16]", |g| {
                g.initializer[1].dims = vec![i64::MAX, 2, 16];
            }),
            ("\"/etc/passwd\"", |g| {
                g.initializer[1].external_data[0].value = "/etc/passwd".into();
            }),
            ("offset -1", |g| {
                g.initializer[1].external_data[1].value = "-1".into()
            }),
            ("from Sigmoid", |g| {
                g.node[4].op_type = "Sigmoid".into();
                g.node[4].input.truncate(1);
            }),
            // Ours alone: a folder cannot bring it.
            ("\"ChaskiLast\": it does not run", |g| {
                g.node.insert(4, node(LAST, &["y"], &["z"]));
                g.node[5].input[0] = "z".into();
            }),
            ("only \"input_ids\" is known", |g| {
                g.node[3].input[0] = "past.k".into()
            }),
        ];
        for (expected, spoil) in cases {
            let mut model = model();
            spoil(model.graph.as_mut().unwrap());
            let error = format!("{:#}", rewrite(model).unwrap_err());
            // A Display of the attribute is enough to find the place.
            let found = error.replace("the offset -1", "offset -1");
            assert!(found.contains(expected), "{expected}: {error}");
        }
        assert!(rewrite(ModelProto::default()).is_err());
    }
}
