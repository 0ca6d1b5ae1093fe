//! Initialisers that lie in the data file.

use std::collections::HashMap;

use tract_onnx::pb::tensor_proto::{DataLocation, DataType};
use tract_onnx::pb::{GraphProto, TensorProto};
use tract_onnx::tract_core::internal::*;

use crate::folder::DATA;

/// The initialisers of a graph, found by the names under which nodes read them:
/// their own, or that of a `Cast` behind them.
pub(super) struct Initialisers<'a> {
    by_name: HashMap<&'a str, &'a TensorProto>,
}

/// Where an initialiser lies: `[data type, offset, bytes]`.
pub(super) type Place = [i64; 3];

impl<'a> Initialisers<'a> {
    pub(super) fn of(graph: &'a GraphProto) -> Self {
        let mut by_name: HashMap<_, _> = graph.initializer.iter().map(|t| (&*t.name, t)).collect();
        // An f16 initialiser and its Cast to f32 are how the folder stores
        // scales; the kernels read the f16 in place.
        for node in graph.node.iter().filter(|n| n.op_type == "Cast") {
            if let ([input], [output]) = (&node.input[..], &node.output[..])
                && let Some(tensor) = by_name.get(&**input).copied()
            {
                by_name.insert(output, tensor);
            }
        }
        Self { by_name }
    }

    pub(super) fn dims(&self, name: &str) -> TractResult<&'a [i64]> {
        Ok(&self.get(name)?.dims)
    }

    fn get(&self, name: &str) -> TractResult<&'a TensorProto> {
        let found = self.by_name.get(name).copied();
        found.with_context(|| format!("{name:?} is not an initialiser"))
    }

    /// The place of an initialiser in the data file.
    pub(super) fn place(&self, name: &str) -> TractResult<Place> {
        let tensor = self.get(name)?;
        let [offset, bytes] = external_range(tensor)?
            .with_context(|| format!("initialiser {name:?} is not in {DATA}"))?;
        let size = match DataType::try_from(tensor.data_type) {
            Ok(DataType::Uint8) => 1,
            Ok(DataType::Float16) => 2,
            Ok(DataType::Float) => 4,
            other => bail!("initialiser {name:?} has the data type {other:?}"),
        };
        let due = tensor
            .dims
            .iter()
            .try_fold(size, |n: i64, &d| n.checked_mul(d));
        ensure!(
            due == Some(bytes),
            "initialiser {name:?}: {bytes} bytes for the shape {:?}",
            tensor.dims
        );
        Ok([i64::from(tensor.data_type), offset, bytes])
    }
}

/// Offset and length of an external tensor; `None` for one inside the graph.
/// Any other file than the data file is refused: tract would open it.
pub(super) fn external_range(tensor: &TensorProto) -> TractResult<Option<[i64; 2]>> {
    if tensor.data_location != Some(DataLocation::External as i32) {
        return Ok(None);
    }
    let entry = |key: &str| {
        let found = tensor.external_data.iter().find(|e| e.key == key);
        found
            .map(|e| &*e.value)
            .with_context(|| format!("initialiser {:?} has no {key}", tensor.name))
    };
    let location = entry("location")?;
    ensure!(
        location == DATA,
        "initialiser {:?} lies in {location:?}, not in {DATA}",
        tensor.name
    );
    let number = |key: &str| -> TractResult<i64> {
        let value: i64 = entry(key)?.parse()?;
        ensure!(
            value >= 0,
            "initialiser {:?} has the {key} {value}",
            tensor.name
        );
        Ok(value)
    };
    Ok(Some([number("offset")?, number("length")?]))
}
