//! `com.microsoft.GroupQueryAttention` with its KV cache inside.
//!
//! The cache is the operator's tract state: preallocated to the context, filled
//! in place, truncated without a copy. One graph serves prefill in chunks and
//! decode, since any number of tokens may be appended to a cache of any length.

use std::sync::Arc;

use tract_onnx::model::ParsingContext;
use tract_onnx::pb::NodeProto;
use tract_onnx::tract_core::internal::*;

use super::activations::{EncodedRows, Form};
use super::attributes::{COS, Place, SIN};
use super::parse::{Parsed, check_attributes, parsed};
use super::runtime::{Link, Runtime};
use super::scratch::with_scratch;
use super::window::Window;
use crate::kernels::attention::{SPAN, Seen, attend_span, finish, merge, partial_len, rotate};
use crate::kernels::kv_cache::KvCache;

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
    form: Form,
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
        form: Form::Float,
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

impl Attention {
    /// The same, giving its rows in a form, if it does not already.
    pub(crate) fn in_form(&self, form: Form) -> Option<Self> {
        (self.form == Form::Float).then(|| Self {
            form,
            ..self.clone()
        })
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
        let (heads, context) = (self.kv_heads, runtime.context_length);
        // What decode needs at most, so that it never grows.
        let queries = SPLIT_POSITIONS * self.heads;
        Ok(Some(Box::new(AttentionState {
            cache: KvCache::new(
                runtime.backend,
                runtime.kv_format,
                heads,
                self.head_dim,
                context,
            )
            .with_context(|| format!("no memory for a KV cache of {context} tokens"))?,
            queries: vec![0.0; queries * self.head_dim],
            partials: vec![0.0; queries * context.div_ceil(SPAN) * partial_len(self.head_dim)],
        })))
    }
}

impl TypedOp for Attention {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        let widths = [self.heads, self.kv_heads, self.kv_heads];
        ensure!(
            inputs.len() == widths.len(),
            "{} inputs, not {}",
            inputs.len(),
            widths.len()
        );
        for (fact, heads) in inputs.iter().zip(widths) {
            let width = heads * self.head_dim;
            ensure!(
                fact.datum_type == f32::datum_type()
                    && fact.rank() == 3
                    && fact.shape[0] == 1.to_dim()
                    && fact.shape[1] == inputs[0].shape[1]
                    && fact.shape[2] == width.to_dim(),
                "input {fact:?} where f32 [1, S, {width}] is due"
            );
        }
        let columns = self.heads * self.head_dim;
        Ok(tvec![self.form.fact(&inputs[0].shape, columns)?])
    }

    as_op!();
}

/// Steps of up to so many positions cut the cache into spans for the threads;
/// steps of more cut the positions.
pub(crate) const SPLIT_POSITIONS: usize = 2;
/// Positions of a part of a longer step.
const TILE_POSITIONS: usize = 8;
/// Products below which a step is not worth handing to other threads.
const LEAST_PRODUCTS: usize = 100_000;

/// The KV cache of one layer of one session, and scratch.
#[derive(Clone)]
pub(crate) struct AttentionState {
    cache: KvCache,
    /// Of a short step, rotated and scaled: `[kv_heads, positions, heads / kv_heads,
    /// head_dim]`.
    queries: Vec<f32>,
    /// Of the queries, for each span.
    partials: Vec<f32>,
}

impl std::fmt::Debug for AttentionState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "AttentionState({} positions)", self.cache.len())
    }
}

/// Rows of heads inside a tensor.
#[derive(Clone, Copy)]
struct Heads<'a> {
    values: &'a [f32],
    /// Heads in a row.
    heads: usize,
    head_dim: usize,
}

impl<'a> Heads<'a> {
    fn get(&self, row: usize, head: usize) -> &'a [f32] {
        let at = (row * self.heads + head) * self.head_dim;
        &self.values[at..at + self.head_dim]
    }
}

/// What a step works on.
struct Step<'a> {
    op: &'a Attention,
    runtime: &'a Runtime,
    cos: &'a [f32],
    sin: &'a [f32],
    /// Positions in the cache before it.
    before: usize,
    /// Its own.
    positions: usize,
    q: Heads<'a>,
}

impl Step<'_> {
    fn rotate(&self, x: &mut [f32], row: usize) {
        let half = self.op.head_dim / 2;
        let angle = (self.before + row) * half..(self.before + row + 1) * half;
        rotate(x, &self.cos[angle.clone()], &self.sin[angle]);
    }

    /// Heads that share a KV head.
    fn group(&self) -> usize {
        self.op.heads / self.op.kv_heads
    }

    /// Writes the queries of some positions of a KV head's group, rotated and
    /// scaled.
    fn queries(&self, kv_head: usize, rows: std::ops::Range<usize>, to: &mut [f32]) {
        let scale = 1.0 / (self.op.head_dim as f32).sqrt();
        let mut to = to.chunks_exact_mut(self.op.head_dim);
        for row in rows {
            for i in 0..self.group() {
                let Some(to) = to.next() else { return };
                let q = self.q.get(row, kv_head * self.group() + i);
                for (to, q) in to.iter_mut().zip(q) {
                    *to = q * scale;
                }
                self.rotate(to, row);
            }
        }
    }

    /// Writes the heads of all its positions, `[positions, heads, head_dim]`.
    fn attend(&self, state: &mut AttentionState, out: &mut [f32]) {
        if self.positions <= SPLIT_POSITIONS {
            self.by_spans(state, out);
        } else {
            self.by_positions(state, out);
        }
    }

    /// A few positions: every part is a KV head's span of the cache.
    fn by_spans(&self, state: &mut AttentionState, out: &mut [f32]) {
        let (op, n) = (self.op, self.op.head_dim);
        let seen = Seen {
            first: self.before + 1,
            group: self.group(),
        };
        let of_head = self.positions * self.group();
        let spans = (self.before + self.positions).div_ceil(SPAN);
        let partial = of_head * partial_len(n);
        let queries = &mut state.queries[..op.kv_heads * of_head * n];
        for (head, queries) in queries.chunks_exact_mut(of_head * n).enumerate() {
            self.queries(head, 0..self.positions, queries);
        }
        let queries = &*queries;
        let partials = &mut state.partials[..op.kv_heads * spans * partial];
        let window = Window::new(partials);
        let cache = &state.cache;
        let work = |part: usize| {
            let (head, span) = (part / spans, part % spans);
            // SAFETY: parts have partial results of their own.
            let partials = unsafe { window.part(part * partial..(part + 1) * partial) };
            let q = &queries[head * of_head * n..][..of_head * n];
            let view = cache.view(head);
            attend_span(self.runtime.backend, &view, span, q, seen, partials);
        };
        let parts = op.kv_heads * spans;
        let products = (self.before + self.positions) * op.heads * n;
        if products < LEAST_PRODUCTS {
            (0..parts).for_each(work);
        } else {
            self.runtime.team.run(parts, &work);
        }
        for (head, partials) in partials.chunks_exact_mut(spans * partial).enumerate() {
            let (total, rest) = partials.split_at_mut(partial);
            for partial in rest.chunks_exact(partial) {
                merge(n, total, partial);
            }
            self.write(head, 0, total, &Window::new(out));
        }
    }

    /// Many positions: every part is some of them for a KV head's group.
    fn by_positions(&self, state: &AttentionState, out: &mut [f32]) {
        let (op, n) = (self.op, self.op.head_dim);
        let of_tile = TILE_POSITIONS * self.group();
        let tiles = self.positions.div_ceil(TILE_POSITIONS);
        let parts = op.kv_heads * tiles;
        let partial = of_tile * partial_len(n);
        let (out, cache) = (Window::new(out), &state.cache);
        self.runtime.team.run(parts, &|part| {
            // The last tiles see the most: they come first.
            let (head, tile) = (part % op.kv_heads, tiles - 1 - part / op.kv_heads);
            let first = tile * TILE_POSITIONS;
            let rows = first..(first + TILE_POSITIONS).min(self.positions);
            let count = rows.len() * self.group();
            let view = cache.view(head);
            let seen = Seen {
                first: self.before + first + 1,
                group: self.group(),
            };
            let backend = self.runtime.backend;
            // A thread's own and small, where memory of the layer for all parts
            // would stay with every layer after a long prompt.
            with_scratch(of_tile * n + 2 * partial, |scratch| {
                let (q, partials) = scratch.split_at_mut(of_tile * n);
                let (total, more) = partials.split_at_mut(partial);
                let (q, len) = (&mut q[..count * n], count * partial_len(n));
                let (total, more) = (&mut total[..len], &mut more[..len]);
                self.queries(head, rows.clone(), q);
                attend_span(backend, &view, 0, q, seen, total);
                for span in 1..(self.before + rows.end).div_ceil(SPAN) {
                    attend_span(backend, &view, span, q, seen, more);
                    merge(n, total, more);
                }
                self.write(head, first, total, &out);
            });
        });
    }

    /// Writes a KV head's group's attention from position `first` on.
    fn write(&self, kv_head: usize, first: usize, totals: &[f32], out: &Window<'_, f32>) {
        let (op, group) = (self.op, self.group());
        for (i, total) in totals.chunks_exact(partial_len(op.head_dim)).enumerate() {
            let row = first + i / group;
            let at = (row * op.heads + kv_head * group + i % group) * op.head_dim;
            // SAFETY: each head of each row is written by one part.
            finish(total, unsafe { out.part(at..at + op.head_dim) });
        }
    }
}

impl AttentionState {
    /// Forgets all positions from `len` on.
    pub(crate) fn truncate(&mut self, len: usize) {
        self.cache.truncate(len);
    }

    /// Rotates the keys and puts them and the values into the cache.
    fn append(&mut self, step: &Step<'_>, k: Heads<'_>, v: Heads<'_>) {
        // Scratch: the queries are not there yet.
        let mut key = std::mem::take(&mut self.queries);
        for row in 0..step.positions {
            for head in 0..step.op.kv_heads {
                let key = &mut key[..step.op.head_dim];
                key.copy_from_slice(k.get(row, head));
                step.rotate(key, row);
                self.cache
                    .write(head, step.before + row, key, v.get(row, head));
            }
        }
        self.queries = key;
        self.cache.grow(step.positions);
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
        let first = inputs.first().context("no input")?;
        let (positions, before) = (first.shape().get(1).copied().unwrap_or(0), self.cache.len());
        ensure!(
            before + positions <= runtime.context_length,
            "{} positions do not fit a KV cache of {}",
            before + positions,
            runtime.context_length
        );
        let (n, head_dim) = (op.heads, op.head_dim);
        let heads = |input: usize, heads: usize| -> TractResult<Heads<'_>> {
            let tensor = inputs.get(input).context("an input is missing")?;
            ensure!(
                tensor.shape() == [1, positions, heads * head_dim],
                "input {tensor:?} where [1, {positions}, {}] is due",
                heads * head_dim
            );
            Ok(Heads {
                values: tensor.try_as_plain_ram()?.as_slice::<f32>()?,
                heads,
                head_dim,
            })
        };
        let (q, k, v) = (heads(0, n)?, heads(1, op.kv_heads)?, heads(2, op.kv_heads)?);
        let step = Step {
            op,
            runtime,
            cos: op.cos.f32s(&runtime.mapping)?,
            sin: op.sin.f32s(&runtime.mapping)?,
            before,
            positions,
            q,
        };
        self.append(&step, k, v);
        let shape = [1, positions, n * head_dim];
        let mut out = op.form.take(&runtime.pool, &shape, n * head_dim)?;
        match op.form {
            Form::Float => {
                let mut plain = out.plain()?;
                step.attend(self, plain.as_slice_mut::<f32>()?);
            }
            Form::Encoded(encoding) => {
                let mut plain = out.plain()?;
                let to = EncodedRows::new(encoding, plain.as_slice_mut::<u8>()?)?;
                let len = positions * n * head_dim;
                with_scratch(len, |rows| {
                    step.attend(self, rows);
                    let encode = |row: usize| {
                        let values = &rows[row * n * head_dim..][..n * head_dim];
                        // SAFETY: every row is written by one part.
                        unsafe { to.encode(values, row, 0) };
                    };
                    if positions <= SPLIT_POSITIONS {
                        (0..positions).for_each(encode);
                    } else {
                        runtime.team.run(positions, &encode);
                    }
                });
            }
        }
        Ok(tvec![out.into_value()])
    }

    fn reset_lanes(&mut self, _: &[LaneId]) -> TractResult<()> {
        bail!("the KV cache has one lane: use a session per conversation")
    }
}
