//! Puts a graph together node by node, by the names of values.

use super::proto::{
    AttributeProto, AttributeType, DataLocation, DataType, DimensionProto, DimensionValue,
    GraphProto, ModelProto, NodeProto, OperatorSetIdProto, StringStringEntryProto, TensorProto,
    TensorShapeProto, TensorTypeProto, TypeProto, TypeValue, ValueInfoProto,
};

/// Domain of ONNX Runtime's own operators.
pub const MICROSOFT: &str = "com.microsoft";
const IR_VERSION: i64 = 10;
const ONNX_OPSET: i64 = 18;
const MICROSOFT_OPSET: i64 = 1;

/// An initialiser whose values lie in the external data file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Initializer {
    /// Name of the value.
    pub name: String,
    /// Type of an element.
    pub data_type: DataType,
    /// Shape.
    pub dims: Vec<usize>,
    /// First byte in the data file.
    pub offset: u64,
    /// Bytes in the data file.
    pub length: u64,
}

/// Extent of a dimension of an input or output.
#[derive(Clone, Copy, Debug)]
pub enum Dimension<'a> {
    /// Known.
    Fixed(usize),
    /// Told by the input.
    Named(&'a str),
}

/// An operator and its set.
#[derive(Clone, Copy, Debug)]
pub enum Operator<'a> {
    /// Of `ai.onnx`, or known to ONNX Runtime by no domain.
    Onnx(&'a str),
    /// Of `com.microsoft`.
    Microsoft(&'a str),
}

/// Value of an attribute.
#[derive(Clone, Copy, Debug)]
pub enum Attribute {
    /// `INT`.
    Int(i64),
    /// `FLOAT`.
    Float(f32),
}

/// A graph under construction.
#[derive(Debug, Default)]
pub struct GraphBuilder {
    graph: GraphProto,
    data_file: String,
}

impl GraphBuilder {
    /// An empty graph whose external initialisers lie in `data_file`, a file
    /// name relative to the model's folder.
    pub fn new(name: &str, data_file: &str) -> Self {
        Self {
            graph: GraphProto {
                name: name.to_owned(),
                ..GraphProto::default()
            },
            data_file: data_file.to_owned(),
        }
    }

    /// Declares an input.
    pub fn input(&mut self, name: &str, data_type: DataType, shape: &[Dimension<'_>]) {
        self.graph.input.push(value_info(name, data_type, shape));
    }

    /// Declares an output.
    pub fn output(&mut self, name: &str, data_type: DataType, shape: &[Dimension<'_>]) {
        self.graph.output.push(value_info(name, data_type, shape));
    }

    /// Adds an initialiser with external data and returns its name.
    pub fn external(&mut self, initializer: &Initializer) -> String {
        let entry = |key: &str, value: String| StringStringEntryProto {
            key: key.to_owned(),
            value,
        };
        self.graph.initializer.push(TensorProto {
            dims: initializer.dims.iter().map(|&d| d as i64).collect(),
            data_type: initializer.data_type.into(),
            name: initializer.name.clone(),
            external_data: vec![
                entry("location", self.data_file.clone()),
                entry("offset", initializer.offset.to_string()),
                entry("length", initializer.length.to_string()),
            ],
            data_location: DataLocation::External.into(),
            raw_data: None,
        });
        initializer.name.clone()
    }

    /// Adds a small constant of 64-bit integers inside the graph: a scalar
    /// without `dims`.
    pub fn int64(&mut self, name: &str, dims: &[usize], values: &[i64]) -> String {
        self.graph.initializer.push(TensorProto {
            dims: dims.iter().map(|&d| d as i64).collect(),
            data_type: DataType::Int64.into(),
            name: name.to_owned(),
            raw_data: Some(values.iter().flat_map(|v| v.to_le_bytes()).collect()),
            ..TensorProto::default()
        });
        name.to_owned()
    }

    /// Adds a node.
    pub fn node(
        &mut self,
        operator: Operator<'_>,
        name: &str,
        inputs: &[&str],
        outputs: &[&str],
        attributes: &[(&str, Attribute)],
    ) {
        let strings = |names: &[&str]| names.iter().map(|&n| n.to_owned()).collect();
        let (domain, op_type) = match operator {
            Operator::Onnx(op_type) => ("", op_type),
            Operator::Microsoft(op_type) => (MICROSOFT, op_type),
        };
        self.graph.node.push(NodeProto {
            input: strings(inputs),
            output: strings(outputs),
            name: name.to_owned(),
            op_type: op_type.to_owned(),
            attribute: attributes.iter().map(attribute).collect(),
            domain: domain.to_owned(),
        });
    }

    /// Adds a node whose one output is named after it, and returns that name.
    pub fn single(
        &mut self,
        operator: Operator<'_>,
        name: &str,
        inputs: &[&str],
        attributes: &[(&str, Attribute)],
    ) -> String {
        let output = format!("{name}/output_0");
        self.node(operator, name, inputs, &[&output], attributes);
        output
    }

    /// The model of this graph.
    pub fn finish(self) -> ModelProto {
        ModelProto {
            ir_version: IR_VERSION,
            producer_name: env!("CARGO_PKG_NAME").to_owned(),
            producer_version: env!("CARGO_PKG_VERSION").to_owned(),
            graph: Some(self.graph),
            opset_import: vec![
                OperatorSetIdProto {
                    domain: String::new(),
                    version: ONNX_OPSET,
                },
                OperatorSetIdProto {
                    domain: MICROSOFT.to_owned(),
                    version: MICROSOFT_OPSET,
                },
            ],
        }
    }
}

fn attribute((name, value): &(&str, Attribute)) -> AttributeProto {
    let (r#type, f, i) = match *value {
        Attribute::Int(value) => (AttributeType::Int, None, Some(value)),
        Attribute::Float(value) => (AttributeType::Float, Some(value), None),
    };
    AttributeProto {
        name: (*name).to_owned(),
        f,
        i,
        r#type: r#type.into(),
    }
}

fn value_info(name: &str, data_type: DataType, shape: &[Dimension<'_>]) -> ValueInfoProto {
    let dim = shape
        .iter()
        .map(|dimension| DimensionProto {
            value: Some(match *dimension {
                Dimension::Fixed(extent) => DimensionValue::DimValue(extent as i64),
                Dimension::Named(name) => DimensionValue::DimParam(name.to_owned()),
            }),
        })
        .collect();
    ValueInfoProto {
        name: name.to_owned(),
        r#type: Some(TypeProto {
            value: Some(TypeValue::TensorType(TensorTypeProto {
                elem_type: data_type.into(),
                shape: Some(TensorShapeProto { dim }),
            })),
        }),
    }
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;

    #[test]
    fn a_model_decodes_to_itself() {
        let mut builder = GraphBuilder::new("g", "m.data");
        builder.input(
            "x",
            DataType::Float,
            &[Dimension::Named("n"), Dimension::Fixed(4)],
        );
        builder.external(&Initializer {
            name: "w".into(),
            data_type: DataType::Float16,
            dims: vec![4, 2],
            offset: 4096,
            length: 16,
        });
        builder.int64("zero", &[], &[0]);
        builder.node(
            Operator::Onnx("Gather"),
            "gather",
            &["x", "zero"],
            &["y"],
            &[
                ("axis", Attribute::Int(0)),
                ("epsilon", Attribute::Float(0.0)),
            ],
        );
        builder.output("y", DataType::Float, &[Dimension::Fixed(4)]);
        let model = builder.finish();

        let decoded = ModelProto::decode(model.encode_to_vec().as_slice()).unwrap();
        assert_eq!(decoded, model);
        let graph = decoded.graph.unwrap();
        // A zero attribute is present, not defaulted away.
        assert_eq!(graph.node[0].attribute[0].i, Some(0));
        assert_eq!(graph.node[0].attribute[1].f, Some(0.0));
        assert_eq!(graph.initializer[0].external_data[1].value, "4096");
        assert_eq!(graph.initializer[0].raw_data, None);
        assert_eq!(graph.initializer[1].dims, Vec::<i64>::new());
    }

    #[test]
    fn fields_have_the_numbers_of_the_specification() {
        // Tag 20 (`type`) of AttributeProto as a varint: (20 << 3) = 160, 0x01.
        let attribute = AttributeProto {
            r#type: AttributeType::Int.into(),
            ..AttributeProto::default()
        };
        assert_eq!(attribute.encode_to_vec(), [0xa0, 0x01, 2]);
        let tensor = TensorProto {
            data_location: DataLocation::External.into(),
            ..TensorProto::default()
        };
        assert_eq!(tensor.encode_to_vec(), [14 << 3, 1]);
    }
}
