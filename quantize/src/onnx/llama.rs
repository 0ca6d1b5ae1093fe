//! The graph of a Llama decoder, as docs/model-folder.md lays it down.

use super::builder::Attribute::{Float, Int};
use super::builder::Dimension::{Fixed, Named};
use super::builder::GraphBuilder;
use super::builder::Operator::{Microsoft, Onnx};
use super::proto::{DataType, ModelProto};
use super::weights::{BlockMatrix, Reader, StoredTensor, StoredTensors, float_initializer};
use crate::error::{Error, Result};
use crate::plan::{EMBEDDING, FINAL_NORM, HEAD, INPUT_NORM, Kind, POST_ATTENTION_NORM, has_bias};
use chaski_manifest::{Architecture, BLOCK_SIZE};

/// Name of the table of cosines.
pub const COS_CACHE: &str = "cos_cache";
/// Name of the table of sines.
pub const SIN_CACHE: &str = "sin_cache";

/// Builds the model whose weights lie in `data_file` at the places of `tensors`.
pub fn model(a: &Architecture, tensors: &StoredTensors, data_file: &str) -> Result<ModelProto> {
    let mut llama = Llama {
        a,
        tensors,
        graph: GraphBuilder::new("llama", data_file),
    };
    llama.inputs_and_outputs();
    let mut hidden = llama.embedding()?;
    let cache = llama.cache_lengths()?;
    for layer in 0..a.layers {
        hidden = llama.layer(layer, &hidden, &cache)?;
    }
    let normed = llama.norm(FINAL_NORM, "/model/norm", &hidden)?;
    llama.head(&normed)?;
    Ok(llama.graph.finish())
}

struct Llama<'a> {
    a: &'a Architecture,
    tensors: &'a StoredTensors,
    graph: GraphBuilder,
}

/// Names of values that every attention shares.
struct CacheValues {
    seqlens_k: String,
    total_sequence_length: String,
}

impl Llama<'_> {
    fn inputs_and_outputs(&mut self) {
        let a = self.a;
        let (batch, total) = (Named("batch_size"), Named("total_sequence_length"));
        let tokens = [batch, Named("sequence_length")];
        let cache = |length| [batch, Fixed(a.kv_heads), Named(length), Fixed(a.head_dim)];
        self.graph.input("input_ids", DataType::Int64, &tokens);
        self.graph
            .input("attention_mask", DataType::Int64, &[batch, total]);
        let logits = [batch, Named("sequence_length"), Fixed(a.vocab_size)];
        self.graph.output("logits", DataType::Float, &logits);
        for layer in 0..a.layers {
            for part in ["key", "value"] {
                let past = format!("past_key_values.{layer}.{part}");
                let shape = cache("past_sequence_length");
                self.graph.input(&past, DataType::Float, &shape);
                let present = format!("present.{layer}.{part}");
                let shape = cache("total_sequence_length");
                self.graph.output(&present, DataType::Float, &shape);
            }
        }
    }

    fn embedding(&mut self) -> Result<String> {
        let matrix = self.blocks(EMBEDDING)?;
        let quants = self
            .graph
            .external(&matrix.quants(EMBEDDING, Reader::Gather));
        let (scales, zero_points) = self.scales_and_zero_points(EMBEDDING, &matrix);
        let mut inputs = vec![quants.as_str(), "input_ids", scales.as_str()];
        inputs.extend(zero_points.as_deref());
        Ok(self.graph.single(
            Microsoft("GatherBlockQuantized"),
            "/model/embed_tokens/GatherBlockQuantized",
            &inputs,
            &[
                ("bits", Int(matrix.bits.count().into())),
                ("block_size", Int(BLOCK_SIZE as i64)),
                ("gather_axis", Int(0)),
                ("quantize_axis", Int(1)),
            ],
        ))
    }

    /// From the mask: the position of each sequence's last token, and the
    /// length of all after this step.
    fn cache_lengths(&mut self) -> Result<CacheValues> {
        let graph = &mut self.graph;
        let axis = graph.int64("/model/constants/axis_1", &[1], &[1]);
        let one = graph.int64("/model/constants/index_1", &[], &[1]);
        let mask = "attention_mask";
        let node = |part: &str| format!("/model/attention_mask/{part}");
        let sum = graph.single(
            Onnx("ReduceSum"),
            &node("ReduceSum"),
            &[mask, &axis],
            &[("keepdims", Int(0))],
        );
        let last = graph.single(Onnx("Sub"), &node("Sub"), &[&sum, &one], &[]);
        let to_int32 = [("to", Int(DataType::Int32 as i64))];
        let seqlens_k = graph.single(Onnx("Cast"), &node("seqlens_k/Cast"), &[&last], &to_int32);
        let shape = graph.single(Onnx("Shape"), &node("Shape"), &[mask], &[]);
        let total = graph.single(
            Onnx("Gather"),
            &node("Gather"),
            &[&shape, &one],
            &[("axis", Int(0))],
        );
        let total_sequence_length =
            graph.single(Onnx("Cast"), &node("total/Cast"), &[&total], &to_int32);
        for name in [COS_CACHE, SIN_CACHE] {
            let Some(&StoredTensor::Table {
                rows,
                columns,
                data,
            }) = self.tensors.get(name)
            else {
                return Err(missing(name));
            };
            self.graph
                .external(&float_initializer(name, vec![rows, columns], data));
        }
        Ok(CacheValues {
            seqlens_k,
            total_sequence_length,
        })
    }

    fn layer(&mut self, layer: usize, hidden: &str, cache: &CacheValues) -> Result<String> {
        let weights = format!("model.layers.{layer}");
        let node = format!("/model/layers.{layer}");
        let normed = self.norm(
            &format!("{weights}.{INPUT_NORM}.weight"),
            &format!("{node}/{INPUT_NORM}"),
            hidden,
        )?;
        let attention = self.attention(layer, &normed, cache)?;
        let hidden = self.add(&format!("{node}/attn/Add"), hidden, &attention);
        let normed = self.norm(
            &format!("{weights}.{POST_ATTENTION_NORM}.weight"),
            &format!("{node}/{POST_ATTENTION_NORM}"),
            &hidden,
        )?;
        let mlp = self.mlp(layer, &normed)?;
        Ok(self.add(&format!("{node}/mlp/Add"), &hidden, &mlp))
    }

    fn attention(&mut self, layer: usize, input: &str, cache: &CacheValues) -> Result<String> {
        let query = self.projection(layer, "self_attn.q_proj", Kind::Attention, input)?;
        let key = self.projection(layer, "self_attn.k_proj", Kind::Attention, input)?;
        let value = self.projection(layer, "self_attn.v_proj", Kind::Attention, input)?;
        let name = format!("/model/layers.{layer}/attn/GroupQueryAttention");
        let output = format!("{name}/output_0");
        self.graph.node(
            Microsoft("GroupQueryAttention"),
            &name,
            &[
                &query,
                &key,
                &value,
                &format!("past_key_values.{layer}.key"),
                &format!("past_key_values.{layer}.value"),
                &cache.seqlens_k,
                &cache.total_sequence_length,
                COS_CACHE,
                SIN_CACHE,
            ],
            &[
                &output,
                &format!("present.{layer}.key"),
                &format!("present.{layer}.value"),
            ],
            &[
                ("num_heads", Int(self.a.heads as i64)),
                ("kv_num_heads", Int(self.a.kv_heads as i64)),
                ("do_rotary", Int(1)),
                ("rotary_interleaved", Int(0)),
            ],
        );
        self.projection(layer, "self_attn.o_proj", Kind::Attention, &output)
    }

    fn mlp(&mut self, layer: usize, input: &str) -> Result<String> {
        let gate = self.projection(layer, "mlp.gate_proj", Kind::Mlp, input)?;
        let up = self.projection(layer, "mlp.up_proj", Kind::Mlp, input)?;
        let node = |part: &str| format!("/model/layers.{layer}/mlp/{part}");
        let graph = &mut self.graph;
        let sigmoid = graph.single(Onnx("Sigmoid"), &node("act/Sigmoid"), &[&gate], &[]);
        let silu = graph.single(Onnx("Mul"), &node("act/Mul"), &[&gate, &sigmoid], &[]);
        let gated = graph.single(Onnx("Mul"), &node("Mul"), &[&silu, &up], &[]);
        self.projection(layer, "mlp.down_proj", Kind::Mlp, &gated)
    }

    fn projection(
        &mut self,
        layer: usize,
        projection: &str,
        kind: Kind,
        input: &str,
    ) -> Result<String> {
        let tensor = format!("model.layers.{layer}.{projection}");
        let node = format!(
            "/model/layers.{layer}/{}",
            projection.replace('.', "/").replace("self_attn", "attn")
        );
        let weight = format!("{tensor}.weight");
        let matrix = self.blocks(&weight)?;
        let output = format!("{node}/MatMulNBits/output_0");
        self.matmul(
            &weight,
            &matrix,
            &format!("{node}/MatMulNBits"),
            input,
            &output,
        );
        if !has_bias(self.a, kind) {
            return Ok(output);
        }
        let bias = self.vector(&format!("{tensor}.bias"))?;
        Ok(self.add(&format!("{node}/Add"), &output, &bias))
    }

    fn head(&mut self, input: &str) -> Result<()> {
        let tensor = if self.a.tied_embeddings {
            EMBEDDING
        } else {
            HEAD
        };
        // With tied embeddings the initialisers of the head have the head's
        // names and the embedding's bytes.
        let matrix = self.blocks(tensor)?;
        self.matmul(HEAD, &matrix, "/lm_head/MatMulNBits", input, "logits");
        Ok(())
    }

    fn matmul(
        &mut self,
        tensor: &str,
        matrix: &BlockMatrix,
        node: &str,
        input: &str,
        output: &str,
    ) {
        let quants = self.graph.external(&matrix.quants(tensor, Reader::MatMul));
        let (scales, zero_points) = self.scales_and_zero_points(tensor, matrix);
        let mut inputs = vec![input, quants.as_str(), scales.as_str()];
        inputs.extend(zero_points.as_deref());
        self.graph.node(
            Microsoft("MatMulNBits"),
            node,
            &inputs,
            &[output],
            &[
                ("K", Int(matrix.columns as i64)),
                ("N", Int(matrix.rows as i64)),
                ("bits", Int(matrix.bits.count().into())),
                ("block_size", Int(BLOCK_SIZE as i64)),
            ],
        );
    }

    /// The names under which an operator takes them: f32 through a `Cast`
    /// where they are stored as f16.
    fn scales_and_zero_points(
        &mut self,
        tensor: &str,
        matrix: &BlockMatrix,
    ) -> (String, Option<String>) {
        let mut as_operand = |initializer| {
            let name = self.graph.external(&initializer);
            if initializer.data_type != DataType::Float16 {
                return name;
            }
            let to_float = [("to", Int(DataType::Float as i64))];
            self.graph
                .single(Onnx("Cast"), &format!("/{name}/Cast"), &[&name], &to_float)
        };
        let scales = as_operand(matrix.scales(tensor));
        let zero_points = matrix.zero_points(tensor).map(as_operand);
        (scales, zero_points)
    }

    fn norm(&mut self, weight: &str, node: &str, input: &str) -> Result<String> {
        let weight = self.vector(weight)?;
        // ONNX Runtime knows this operator by no domain, unlike its others.
        Ok(self.graph.single(
            Onnx("SimplifiedLayerNormalization"),
            &format!("{node}/SimplifiedLayerNormalization"),
            &[input, &weight],
            &[
                ("axis", Int(-1)),
                ("epsilon", Float(self.a.rms_norm_eps as f32)),
            ],
        ))
    }

    fn add(&mut self, node: &str, left: &str, right: &str) -> String {
        self.graph.single(Onnx("Add"), node, &[left, right], &[])
    }

    fn blocks(&self, tensor: &str) -> Result<BlockMatrix> {
        match self.tensors.get(tensor) {
            Some(StoredTensor::Blocks(matrix)) => Ok(*matrix),
            _ => Err(missing(tensor)),
        }
    }

    fn vector(&mut self, tensor: &str) -> Result<String> {
        match self.tensors.get(tensor) {
            Some(&StoredTensor::Vector { elements, data }) => {
                let initializer = float_initializer(tensor, vec![elements], data);
                Ok(self.graph.external(&initializer))
            }
            _ => Err(missing(tensor)),
        }
    }
}

fn missing(tensor: &str) -> Error {
    Error::read(tensor, "it was not written to the data file")
}
