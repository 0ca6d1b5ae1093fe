//! GGUF's names and row order of a Llama's tensors.

use chaski_manifest::Architecture;

/// The GGUF name of a tensor by its Hugging Face name.
pub(super) fn gguf_name(name: &str) -> Option<String> {
    match name {
        "model.embed_tokens.weight" => return Some("token_embd.weight".into()),
        "model.norm.weight" => return Some("output_norm.weight".into()),
        "lm_head.weight" => return Some("output.weight".into()),
        _ => {}
    }
    let (layer, rest) = name.strip_prefix("model.layers.")?.split_once('.')?;
    let (part, suffix) = rest.rsplit_once('.')?;
    let part = match part {
        "input_layernorm" => "attn_norm",
        "post_attention_layernorm" => "ffn_norm",
        "self_attn.q_proj" => "attn_q",
        "self_attn.k_proj" => "attn_k",
        "self_attn.v_proj" => "attn_v",
        "self_attn.o_proj" => "attn_output",
        "mlp.gate_proj" => "ffn_gate",
        "mlp.up_proj" => "ffn_up",
        "mlp.down_proj" => "ffn_down",
        _ => return None,
    };
    Some(format!("blk.{layer}.{part}.{suffix}"))
}

/// How llama.cpp's converter reorders the rows (or bias values) of Q and K: within each
/// head it interleaves the two halves that Hugging Face rotates against each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RowOrder {
    /// `None`: as they are.
    head_dim: Option<usize>,
}

impl RowOrder {
    /// The order of a tensor, by its Hugging Face name.
    pub(super) fn of(name: &str, architecture: &Architecture) -> Self {
        let permuted = [".self_attn.q_proj.", ".self_attn.k_proj."]
            .iter()
            .any(|part| name.contains(part));
        Self {
            head_dim: permuted.then_some(architecture.head_dim),
        }
    }

    /// Whether rows lie in the file as they are asked for.
    pub(super) fn is_plain(self) -> bool {
        self.head_dim.is_none()
    }

    /// Where in the file the row of Hugging Face's order lies.
    pub(super) fn stored_at(self, row: usize) -> usize {
        let Some(head_dim) = self.head_dim else {
            return row;
        };
        let (head, place) = (row / head_dim, row % head_dim);
        let half = head_dim / 2;
        head * head_dim + 2 * (place % half) + place / half
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::testing::tiny_architecture;

    #[test]
    fn names() {
        let name = |name| gguf_name(name).unwrap();
        assert_eq!(name("model.embed_tokens.weight"), "token_embd.weight");
        assert_eq!(
            name("model.layers.12.self_attn.o_proj.weight"),
            "blk.12.attn_output.weight"
        );
        assert_eq!(
            name("model.layers.0.mlp.down_proj.bias"),
            "blk.0.ffn_down.bias"
        );
        assert_eq!(gguf_name("model.layers.0.mlp.experts.weight"), None);
    }

    /// `reshape(heads, 2, head_dim / 2).swapaxes(1, 2)`, the converter's own way.
    #[test]
    fn the_converters_permutation_is_undone() {
        let a = Architecture {
            head_dim: 6,
            ..tiny_architecture()
        };
        let order = RowOrder::of("model.layers.0.self_attn.k_proj.weight", &a);
        let mut stored = Vec::new();
        for head in 0..2 {
            for i in 0..3 {
                for half in 0..2 {
                    stored.push(head * 6 + half * 3 + i);
                }
            }
        }
        assert_eq!(stored[..6], [0, 3, 1, 4, 2, 5]);
        for row in 0..12 {
            assert_eq!(stored[order.stored_at(row)], row);
        }
        let plain = RowOrder::of("model.layers.0.self_attn.v_proj.weight", &a);
        assert!(plain.is_plain() && plain.stored_at(5) == 5);
    }
}
