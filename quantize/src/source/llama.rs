//! The tensors a Llama consists of, by their Hugging Face names.

use chaski_manifest::Architecture;

/// A tensor that the architecture calls for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Expected {
    /// Hugging Face name.
    pub(crate) name: String,
    /// Rows; a vector has one.
    pub(crate) rows: usize,
    /// Columns.
    pub(crate) columns: usize,
    /// A norm's weight or a bias.
    pub(crate) vector: bool,
}

impl Expected {
    /// Its shape, outermost dimension first.
    pub(crate) fn shape(&self) -> Vec<u64> {
        if self.vector {
            vec![self.columns as u64]
        } else {
            vec![self.rows as u64, self.columns as u64]
        }
    }
}

/// One linear layer of a decoder layer.
struct Linear {
    name: &'static str,
    rows: usize,
    columns: usize,
    bias: bool,
}

/// Every tensor of the model, embedding first.
pub(crate) fn expected_tensors(a: &Architecture) -> impl Iterator<Item = Expected> {
    let linears = [
        (
            "self_attn.q_proj",
            a.query_size(),
            a.hidden_size,
            a.attention_bias,
        ),
        (
            "self_attn.k_proj",
            a.kv_size(),
            a.hidden_size,
            a.attention_bias,
        ),
        (
            "self_attn.v_proj",
            a.kv_size(),
            a.hidden_size,
            a.attention_bias,
        ),
        (
            "self_attn.o_proj",
            a.hidden_size,
            a.query_size(),
            a.attention_bias,
        ),
        (
            "mlp.gate_proj",
            a.intermediate_size,
            a.hidden_size,
            a.mlp_bias,
        ),
        (
            "mlp.up_proj",
            a.intermediate_size,
            a.hidden_size,
            a.mlp_bias,
        ),
        (
            "mlp.down_proj",
            a.hidden_size,
            a.intermediate_size,
            a.mlp_bias,
        ),
    ]
    .map(|(name, rows, columns, bias)| Linear {
        name,
        rows,
        columns,
        bias,
    });
    let (hidden, vocabulary) = (a.hidden_size, a.vocab_size);
    let head = (!a.tied_embeddings).then(|| matrix("lm_head.weight".into(), vocabulary, hidden));
    let embedding = matrix("model.embed_tokens.weight".into(), vocabulary, hidden);
    // Lazily, layer by layer: a hostile number of layers ends at the first one missing.
    let layers = (0..a.layers).flat_map(move |layer| layer_tensors(layer, hidden, &linears));
    std::iter::once(embedding)
        .chain(layers)
        .chain([vector("model.norm.weight".into(), hidden)])
        .chain(head)
}

fn layer_tensors(layer: usize, hidden: usize, linears: &[Linear]) -> Vec<Expected> {
    let prefix = format!("model.layers.{layer}");
    let mut tensors = vec![
        vector(format!("{prefix}.input_layernorm.weight"), hidden),
        vector(format!("{prefix}.post_attention_layernorm.weight"), hidden),
    ];
    for linear in linears {
        let name = format!("{prefix}.{}", linear.name);
        if linear.bias {
            tensors.push(vector(format!("{name}.bias"), linear.rows));
        }
        tensors.push(matrix(
            format!("{name}.weight"),
            linear.rows,
            linear.columns,
        ));
    }
    tensors
}

fn matrix(name: String, rows: usize, columns: usize) -> Expected {
    Expected {
        name,
        rows,
        columns,
        vector: false,
    }
}

fn vector(name: String, columns: usize) -> Expected {
    Expected {
        name,
        rows: 1,
        columns,
        vector: true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::testing::tiny_architecture;

    #[test]
    fn shapes_follow_the_figures() {
        let a = Architecture {
            head_dim: 32,
            attention_bias: true,
            ..tiny_architecture()
        };
        let tensors: Vec<_> = expected_tensors(&a).collect();
        assert_eq!(tensors.len(), 1 + 2 * (2 + 7 + 4) + 1);
        let find = |name: &str| tensors.iter().find(|t| t.name == name).unwrap().shape();
        assert_eq!(find("model.embed_tokens.weight"), [40, 64]);
        assert_eq!(find("model.layers.1.self_attn.q_proj.weight"), [128, 64]);
        assert_eq!(find("model.layers.1.self_attn.o_proj.weight"), [64, 128]);
        assert_eq!(find("model.layers.0.self_attn.k_proj.bias"), [64]);
        assert_eq!(find("model.layers.0.mlp.down_proj.weight"), [64, 96]);
    }

    #[test]
    fn an_untied_head_comes_last() {
        let a = Architecture {
            tied_embeddings: false,
            ..tiny_architecture()
        };
        assert_eq!(expected_tensors(&a).last().unwrap().name, "lm_head.weight");
    }
}
