//! `com.microsoft.GroupQueryAttention` with its KV cache inside.
//!
//! The cache is the operator's tract state: preallocated to the context, filled
//! in place, truncated without a copy. One graph serves prefill in chunks and
//! decode, since any number of tokens may be appended to a cache of any length.

use std::sync::{Arc, Mutex};

use tract_onnx::model::ParsingContext;
use tract_onnx::pb::NodeProto;
use tract_onnx::tract_core::internal::*;

use super::attributes::{COS, Place, SIN};
use super::parse::{Parsed, check_attributes, parsed};
use super::runtime::{Link, Runtime};
use crate::kernels::attention::{attend, rotate};

/// Most heads, and most pairs in a head: far above any Llama, and no product of
/// them with a context overflows.
const MOST: usize = 1 << 12;

/// Causal attention with RoPE: f32 Q `[1, S, heads * head_dim]`, K and V
/// `[1, S, kv_heads * head_dim]` to f32 `[1, S, heads * head_dim]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Attention {
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    /// `[positions, head_dim / 2]`, RoPE scaling included.
    cos: Place,
    sin: Place,
    runtime: Link,
}

pub(super) fn parse(_: &ParsingContext<'_>, node: &NodeProto) -> Parsed {
    let due = [
        ("do_rotary", 0, 1),
        ("rotary_interleaved", 0, 0),
        ("local_window_size", -1, -1),
    ];
    check_attributes(node, &due)?;
    for name in ["scale", "softcap"] {
        let value = node.get_attr_opt::<f32>(name)?.unwrap_or(0.0);
        ensure!(
            value == 0.0,
            "GroupQueryAttention with {name} {value}: only the default runs"
        );
    }
    let (heads, kv_heads): (usize, usize) =
        (node.get_attr("num_heads")?, node.get_attr("kv_num_heads")?);
    ensure!(
        (1..=MOST).contains(&heads) && kv_heads > 0 && heads.is_multiple_of(kv_heads),
        "{heads} heads cannot share {kv_heads} KV heads"
    );
    let half: usize = node.get_attr("chaski_columns")?;
    ensure!((1..=MOST).contains(&half), "RoPE tables of {half} columns");
    let op = Attention {
        heads,
        kv_heads,
        head_dim: 2 * half,
        cos: Place::required(node, COS)?,
        sin: Place::required(node, SIN)?,
        runtime: Link::default(),
    };
    parsed(op, |_, s, inputs, outputs| {
        s.equals(&outputs[0].datum_type, &inputs[0].datum_type)?;
        s.equals(&outputs[0].shape, &inputs[0].shape)
    })
}

impl Attention {
    pub(super) fn bind(&mut self, runtime: &Arc<Runtime>) -> TractResult<()> {
        let needed = runtime.context_length * self.head_dim / 2;
        for table in [self.cos, self.sin] {
            let found = table.f32s(&runtime.mapping)?.len();
            ensure!(
                found >= needed,
                "RoPE table of {found} values, the context needs {needed}"
            );
        }
        self.runtime.bind(runtime);
        Ok(())
    }
}

impl Op for Attention {
    fn name(&self) -> StaticName {
        "ChaskiAttention".into()
    }

    fn info(&self) -> TractResult<Vec<String>> {
        let Self {
            heads,
            kv_heads,
            head_dim,
            ..
        } = self;
        Ok(vec![format!(
            "{heads} heads on {kv_heads} KV heads of {head_dim}"
        )])
    }

    op_as_typed_op!();
}

impl EvalOp for Attention {
    not_out_of_plan!();

    fn state(&self, _: &EvalContext) -> TractResult<Option<Box<dyn OpState>>> {
        let runtime = self.runtime.get()?;
        let size = runtime.context_length * self.kv_heads * self.head_dim;
        Ok(Some(Box::new(AttentionState {
            // Zeroed pages come from the kernel when they are first touched: a
            // short conversation does not pay for the whole context.
            keys: vec![0.0; size],
            values: vec![0.0; size],
            len: 0,
        })))
    }
}

impl TypedOp for Attention {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        ensure!(inputs.len() == 3, "{} inputs, not Q, K and V", inputs.len());
        let widths = [self.heads, self.kv_heads, self.kv_heads].map(|h| h * self.head_dim);
        for (fact, width) in inputs.iter().zip(widths) {
            ensure!(
                fact.datum_type == f32::datum_type()
                    && fact.rank() == 3
                    && fact.shape[0] == 1.to_dim()
                    && fact.shape[1] == inputs[0].shape[1]
                    && fact.shape[2] == width.to_dim(),
                "input {fact:?} where f32 [1, S, {width}] is due"
            );
        }
        Ok(tvec![f32::fact(inputs[0].shape.clone())])
    }

    as_op!();
}

/// The heads of queries that a part computes: `query * heads + head`, and where
/// the result goes.
type Hand<'a> = Mutex<Vec<(usize, &'a mut [f32])>>;

/// The KV cache of one layer of one session.
#[derive(Clone)]
pub(crate) struct AttentionState {
    /// `[kv_heads, context_length, head_dim]`, rotated.
    keys: Vec<f32>,
    /// `[kv_heads, context_length, head_dim]`.
    values: Vec<f32>,
    /// Positions filled.
    len: usize,
}

impl std::fmt::Debug for AttentionState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "AttentionState({} positions)", self.len)
    }
}

impl AttentionState {
    /// Forgets all positions from `len` on.
    pub(crate) fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    fn append(
        &mut self,
        op: &Attention,
        runtime: &Runtime,
        k: &[f32],
        v: &[f32],
    ) -> TractResult<()> {
        let (half, context) = (op.head_dim / 2, runtime.context_length);
        let (cos, sin) = (
            op.cos.f32s(&runtime.mapping)?,
            op.sin.f32s(&runtime.mapping)?,
        );
        let width = op.kv_heads * op.head_dim;
        for (s, (k, v)) in k.chunks_exact(width).zip(v.chunks_exact(width)).enumerate() {
            let position = self.len + s;
            let angle = position * half..(position + 1) * half;
            let heads = k.chunks_exact(op.head_dim).zip(v.chunks_exact(op.head_dim));
            for (head, (k, v)) in heads.enumerate() {
                let at = (head * context + position) * op.head_dim;
                let key = &mut self.keys[at..at + op.head_dim];
                key.copy_from_slice(k);
                rotate(key, &cos[angle.clone()], &sin[angle.clone()]);
                self.values[at..at + op.head_dim].copy_from_slice(v);
            }
        }
        self.len += k.len() / width;
        Ok(())
    }

    /// Attention of queries that stand at the end of the cache.
    fn attend(
        &self,
        op: &Attention,
        runtime: &Runtime,
        q: &[f32],
        out: &mut [f32],
    ) -> TractResult<()> {
        let (half, context) = (op.head_dim / 2, runtime.context_length);
        let (cos, sin) = (
            op.cos.f32s(&runtime.mapping)?,
            op.sin.f32s(&runtime.mapping)?,
        );
        let queries = q.len() / (op.heads * op.head_dim);
        let first = self.len - queries;
        let scale = 1.0 / (op.head_dim as f32).sqrt();
        let team = &runtime.team;
        // Later queries see more positions: dealing them round gives every part
        // the same work.
        let parts = team.parts(queries * op.heads);
        let deal: Vec<Hand<'_>> = (0..parts).map(|_| Default::default()).collect();
        for (i, out) in out.chunks_exact_mut(op.head_dim).enumerate() {
            // A poisoned lock is impossible: nothing panics while it is held.
            if let Ok(mut hand) = deal[i % parts].lock() {
                hand.push((i, out));
            }
        }
        team.run(parts, &|part| {
            let Ok(mut hand) = deal[part].lock() else {
                return;
            };
            let mut scores = vec![0.0; self.len];
            let mut query = vec![0.0; op.head_dim];
            for (i, out) in hand.iter_mut() {
                let (s, head) = (*i / op.heads, *i % op.heads);
                let position = first + s;
                let angle = position * half..(position + 1) * half;
                query.copy_from_slice(&q[*i * op.head_dim..][..op.head_dim]);
                rotate(&mut query, &cos[angle.clone()], &sin[angle]);
                let kv_head = head * op.kv_heads / op.heads;
                let start = kv_head * context * op.head_dim;
                let cache = start..start + (position + 1) * op.head_dim;
                attend(
                    runtime.backend,
                    &query,
                    &self.keys[cache.clone()],
                    &self.values[cache],
                    scale,
                    &mut scores[..=position],
                    out,
                );
            }
        });
        Ok(())
    }
}

impl OpState for AttentionState {
    fn eval(
        &mut self,
        _: &EvalContext,
        op: &dyn Op,
        inputs: TVec<TValue>,
    ) -> TractResult<TVec<TValue>> {
        let op = op
            .downcast_ref::<Attention>()
            .context("state of another operator")?;
        let runtime = op.runtime.get()?;
        let (q, k, v) = args_3!(inputs);
        let new = q.shape().get(1).copied().unwrap_or(0);
        ensure!(
            self.len + new <= runtime.context_length,
            "{} positions do not fit a KV cache of {}",
            self.len + new,
            runtime.context_length
        );
        let (k, v) = (k.try_as_plain_ram()?, v.try_as_plain_ram()?);
        self.append(op, runtime, k.as_slice::<f32>()?, v.as_slice::<f32>()?)?;
        let mut out = Tensor::zero::<f32>(q.shape())?;
        {
            let mut plain = out.try_as_plain_ram_mut()?;
            let q = q.try_as_plain_ram()?;
            self.attend(
                op,
                runtime,
                q.as_slice::<f32>()?,
                plain.as_slice_mut::<f32>()?,
            )?;
        }
        Ok(tvec![out.into_tvalue()])
    }

    fn reset_lanes(&mut self, _: &[LaneId]) -> TractResult<()> {
        bail!("the KV cache has one lane: use a session per conversation")
    }
}
