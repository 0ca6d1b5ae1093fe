//! Which tensors a Llama consists of, in the order in which they are written.

use chaski_manifest::Architecture;

/// Name of the embedding table.
pub const EMBEDDING: &str = "model.embed_tokens.weight";
/// Name of the last norm's weight.
pub const FINAL_NORM: &str = "model.norm.weight";
/// Name within a layer of the norm before attention.
pub const INPUT_NORM: &str = "input_layernorm";
/// Name within a layer of the norm before the MLP.
pub const POST_ATTENTION_NORM: &str = "post_attention_layernorm";
/// Name of the output head, where it is not the embedding.
pub const HEAD: &str = "lm_head.weight";

/// What a tensor is for; the summary has a line for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// The token embedding.
    Embedding,
    /// Q, K, V and O projections and their biases.
    Attention,
    /// Gate, up and down projections and their biases.
    Mlp,
    /// RMS norms.
    Norm,
    /// The output head.
    Head,
    /// Cosines and sines of the rotary embedding: computed, not in the source.
    Rotary,
}

impl Kind {
    /// As it is called in the summary.
    pub fn name(self) -> &'static str {
        match self {
            Self::Embedding => "embedding",
            Self::Attention => "attention",
            Self::Mlp => "mlp",
            Self::Norm => "norm",
            Self::Head => "head",
            Self::Rotary => "rotary",
        }
    }
}

/// How a tensor is stored in the folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Storage {
    /// In blocks of 4 bits, or of 8 where the options say so. `integer_zero_points` where the operator that reads it
    /// takes no fractional ones.
    Blocks {
        /// See above.
        integer_zero_points: bool,
    },
    /// As f32.
    Float,
}

/// One tensor to be read, converted and written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedTensor {
    /// Hugging Face name.
    pub name: String,
    /// What it is for.
    pub kind: Kind,
    /// Rows: the output features of a weight matrix, 1 for a vector.
    pub rows: usize,
    /// Columns.
    pub columns: usize,
    /// How it is stored.
    pub storage: Storage,
    /// Of the output head: the norm whose output it multiplies, which tells
    /// the columns that meet large activations. Measured on SmolLM2-135M this
    /// brings the head closer to its source, and the layers not.
    pub input_norm: Option<String>,
}

/// The projections of a layer: name within the layer, kind, and whether the
/// model may have a bias there.
pub const PROJECTIONS: [(&str, Kind); 7] = [
    ("self_attn.q_proj", Kind::Attention),
    ("self_attn.k_proj", Kind::Attention),
    ("self_attn.v_proj", Kind::Attention),
    ("self_attn.o_proj", Kind::Attention),
    ("mlp.gate_proj", Kind::Mlp),
    ("mlp.up_proj", Kind::Mlp),
    ("mlp.down_proj", Kind::Mlp),
];

/// Rows and columns of a projection.
pub fn projection_shape(a: &Architecture, projection: &str) -> (usize, usize) {
    match projection {
        "self_attn.q_proj" => (a.query_size(), a.hidden_size),
        "self_attn.k_proj" | "self_attn.v_proj" => (a.kv_size(), a.hidden_size),
        "self_attn.o_proj" => (a.hidden_size, a.query_size()),
        "mlp.down_proj" => (a.hidden_size, a.intermediate_size),
        _ => (a.intermediate_size, a.hidden_size),
    }
}

/// Whether the model has biases on projections of that kind.
pub fn has_bias(a: &Architecture, kind: Kind) -> bool {
    match kind {
        Kind::Attention => a.attention_bias,
        Kind::Mlp => a.mlp_bias,
        _ => false,
    }
}

/// Every tensor of the model, in the order in which inference touches them.
pub fn tensors(a: &Architecture) -> Vec<PlannedTensor> {
    let blocks = |name: String, kind, (rows, columns), input_norm| PlannedTensor {
        name,
        kind,
        rows,
        columns,
        storage: Storage::Blocks {
            integer_zero_points: kind == Kind::Embedding,
        },
        input_norm,
    };
    let vector = |name: String, kind, columns| PlannedTensor {
        name,
        kind,
        rows: 1,
        columns,
        storage: Storage::Float,
        input_norm: None,
    };

    let table = (a.vocab_size, a.hidden_size);
    let final_norm = || Some(FINAL_NORM.to_owned());
    // A lookup weighs all columns alike; as the head it is more sensitive.
    let norm = if a.tied_embeddings {
        final_norm()
    } else {
        None
    };
    let mut plan = vec![blocks(EMBEDDING.to_owned(), Kind::Embedding, table, norm)];
    for layer in 0..a.layers {
        let prefix = format!("model.layers.{layer}");
        for norm in [INPUT_NORM, POST_ATTENTION_NORM] {
            let name = format!("{prefix}.{norm}.weight");
            plan.push(vector(name, Kind::Norm, a.hidden_size));
        }
        for (projection, kind) in PROJECTIONS {
            let shape = projection_shape(a, projection);
            let name = format!("{prefix}.{projection}.weight");
            plan.push(blocks(name, kind, shape, None));
            if has_bias(a, kind) {
                plan.push(vector(format!("{prefix}.{projection}.bias"), kind, shape.0));
            }
        }
    }
    plan.push(vector(FINAL_NORM.to_owned(), Kind::Norm, a.hidden_size));
    if !a.tied_embeddings {
        plan.push(blocks(HEAD.to_owned(), Kind::Head, table, final_norm()));
    }
    plan
}
