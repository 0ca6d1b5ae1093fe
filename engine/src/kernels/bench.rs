//! The kernels as `benches/kernels.rs` runs them: over random weights and
//! activations that it owns, on one thread. And the read that they are compared
//! with, there and in `chaski bench`. No part of the API.

use super::attention::{SPAN, Seen, attend_span, finish, merge, partial_len};
use super::backend::kernel_entry;
use super::blocks::{BLOCK, Bits, BlockMatrix, Floats, ZeroPoints};
use super::encoding::{ALIGNMENT, Encoded, Encoding};
use super::kv_cache::KvCache;
use super::linear::{Output, linear};
use super::vector::Vector;
use super::{Backend, KvFormat, Precision, norm, silu};

/// A kind of weights that the quantiser writes.
#[derive(Clone, Copy, Debug)]
pub enum Weights {
    /// 4 bits, zero point 8.
    Four,
    /// 4 bits, a zero point of 4 bits for each block.
    FourPacked,
    /// 8 bits, zero point 128.
    Eight,
}

impl Weights {
    fn bits(self) -> Bits {
        match self {
            Self::Four | Self::FourPacked => Bits::Four,
            Self::Eight => Bits::Eight,
        }
    }
}

/// An xorshift generator (Marsaglia 2003): the benches need spread, not quality.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        for chunk in bytes.chunks_mut(8) {
            chunk.copy_from_slice(&self.next().to_le_bytes()[..chunk.len()]);
        }
        bytes
    }

    /// Numbers in -1 to 1.
    fn units(&mut self, count: usize) -> Vec<f32> {
        (0..count)
            .map(|_| (self.next() >> 40) as f32 / (1u32 << 23) as f32 - 1.0)
            .collect()
    }
}

/// A matrix of weights in memory of its own.
#[derive(Clone)]
struct Matrix {
    rows: usize,
    columns: usize,
    bits: Bits,
    quants: Vec<u8>,
    scales: Vec<u16>,
    zero_points: Option<Vec<u8>>,
}

impl Matrix {
    fn random(weights: Weights, rows: usize, columns: usize) -> Self {
        let mut random = Random(0x9e37_79b9_7f4a_7c15);
        let (bits, blocks) = (weights.bits(), columns / BLOCK);
        let scales = random.units(rows * blocks).into_iter();
        let packed = matches!(weights, Weights::FourPacked);
        Self {
            rows,
            columns,
            bits,
            quants: random.bytes(rows * blocks * bits.block_bytes()),
            scales: scales.map(|s| half::f16::from_f32(s).to_bits()).collect(),
            zero_points: packed.then(|| random.bytes(rows * bits.zero_point_bytes(blocks))),
        }
    }

    /// Quants, scales and zero points.
    fn bytes(&self) -> usize {
        let zero_points = self.zero_points.as_ref().map_or(0, Vec::len);
        self.quants.len() + 2 * self.scales.len() + zero_points
    }

    fn view(&self) -> Option<BlockMatrix<'_>> {
        let zero_points = self.zero_points.as_deref();
        BlockMatrix::new(
            self.rows,
            self.columns,
            self.bits,
            &self.quants,
            Floats::F16(&self.scales),
            zero_points.map_or(ZeroPoints::Symmetric, ZeroPoints::Packed),
        )
    }
}

/// A cache line, so that rows made of them are aligned.
#[derive(Clone, Copy)]
#[repr(align(64))]
struct Line(#[expect(dead_code, reason = "memory to be pointed to")] [u8; ALIGNMENT]);

/// Activations and what they are encoded to.
pub struct Encode {
    encoding: Encoding,
    x: Vec<f32>,
    lines: Vec<Line>,
}

impl Encode {
    /// `x_rows` random rows for weights of `columns` columns (whole blocks of 32).
    pub fn new(
        backend: Backend,
        precision: Precision,
        weights: Weights,
        columns: usize,
        x_rows: usize,
    ) -> Self {
        let encoding = Encoding::new(backend, precision, weights.bits(), columns);
        let lines = x_rows * encoding.row_bytes() / ALIGNMENT;
        Self {
            encoding,
            x: Random(1).units(x_rows * columns),
            lines: vec![Line([0; ALIGNMENT]); lines],
        }
    }

    /// Bytes that are read and written.
    pub fn bytes(&self) -> usize {
        size_of_val(&self.x[..]) + size_of_val(&self.lines[..])
    }

    /// Encodes all rows.
    pub fn run(&mut self) {
        let columns = self.encoding.columns();
        let rows = self.x.len() / columns;
        let to: *mut u8 = self.lines.as_mut_ptr().cast();
        for (row, x) in self.x.chunks_exact(columns).enumerate() {
            // SAFETY: `lines` are `rows` encoded rows, aligned and ours alone.
            unsafe { self.encoding.encode(x, 0, row, rows, to) };
        }
    }

    fn view(&self) -> Option<Encoded<'_>> {
        let bytes = size_of_val(&self.lines[..]);
        // SAFETY: `lines` are that many initialised bytes.
        let bytes = unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast(), bytes) };
        Encoded::new(self.encoding, bytes)
    }
}

/// The product of encoded activations with one matrix after the other.
pub struct Product {
    matrices: Vec<Matrix>,
    turn: usize,
    x: Encode,
    y: Vec<f32>,
}

impl Product {
    /// `x_rows` rows times as many matrices `[rows, columns]` as make up
    /// `least_bytes` together, one of them at least: when they do not fit a cache,
    /// each is read from the memory in its turn.
    pub fn new(
        backend: Backend,
        precision: Precision,
        weights: Weights,
        [rows, columns]: [usize; 2],
        x_rows: usize,
        least_bytes: usize,
    ) -> Self {
        let matrix = Matrix::random(weights, rows, columns);
        let count = least_bytes.div_ceil(matrix.bytes()).max(1);
        let mut x = Encode::new(backend, precision, weights, columns, x_rows);
        x.run();
        Self {
            matrices: vec![matrix; count],
            turn: 0,
            x,
            y: vec![0.0; x_rows * rows],
        }
    }

    /// Bytes of weights that a run reads.
    pub fn bytes(&self) -> usize {
        self.matrices.first().map_or(0, Matrix::bytes)
    }

    /// Multiplications and additions of a run: two for each weight and row.
    pub fn operations(&self) -> usize {
        let weights = |w: &Matrix| w.rows * w.columns;
        let x_rows = self.x.x.len() / self.x.encoding.columns();
        2 * x_rows * self.matrices.first().map_or(0, weights)
    }

    /// Multiplies with the matrix whose turn it is.
    pub fn run(&mut self) {
        self.turn = (self.turn + 1) % self.matrices.len();
        let matrix = &self.matrices[self.turn];
        // The lengths fit by construction.
        let (Some(w), Some(x)) = (matrix.view(), self.x.view()) else {
            return;
        };
        let next = self.matrices[(self.turn + 1) % self.matrices.len()].view();
        let y = Output::new(&mut self.y, matrix.rows, 0);
        // SAFETY: `y` is `[x.rows(), w.rows()]` and this thread's alone.
        unsafe { linear(&w, &x, 0..w.rows(), y, next.map(|next| (next, 0))) };
    }

    /// What the last run computed.
    pub fn output(&self) -> &[f32] {
        &self.y
    }
}

/// Attention of a decoded token over the full KV cache of a layer.
pub struct Attention {
    backend: Backend,
    cache: KvCache,
    heads: usize,
    head_dim: usize,
    positions: usize,
    q: Vec<f32>,
    total: Vec<f32>,
    partial: Vec<f32>,
    out: Vec<f32>,
    bytes: usize,
}

impl Attention {
    /// `heads` heads of keys and values, each with `group` queries.
    pub fn new(
        backend: Backend,
        format: KvFormat,
        [heads, group, head_dim]: [usize; 3],
        positions: usize,
    ) -> Self {
        let mut random = Random(3);
        let mut cache = KvCache::new(Backend::detect(), format, heads, head_dim, positions)
            .expect("memory for a layer's KV cache");
        let numbers = random.units(head_dim * 129);
        for position in 0..positions {
            for head in 0..heads {
                // Any two of them, as the values do not matter to the time.
                let at = |i: usize| &numbers[(position * heads + head + i) % 128 * head_dim..];
                cache.write(head, position, &at(0)[..head_dim], &at(1)[..head_dim]);
            }
            cache.grow(1);
        }
        let of_vector = match format {
            KvFormat::F32 => 4 * head_dim,
            KvFormat::F16 => 2 * head_dim,
            KvFormat::Int8 => head_dim + size_of::<f32>(),
        };
        let partials = vec![0.0; group * partial_len(head_dim)];
        Self {
            backend,
            cache,
            heads,
            head_dim,
            positions,
            q: random.units(group * head_dim),
            total: partials.clone(),
            partial: partials,
            out: vec![0.0; heads * group * head_dim],
            bytes: 2 * heads * positions * of_vector,
        }
    }

    /// Bytes of keys, values and their scales that a run reads.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Multiplications and additions of a run: two for each element of a key or
    /// value and query.
    pub fn operations(&self) -> usize {
        4 * self.positions * self.heads * self.q.len()
    }

    /// Attends once with the queries of all heads.
    pub fn run(&mut self) {
        let (n, backend, q) = (self.head_dim, self.backend, &self.q);
        let seen = Seen {
            first: self.positions,
            group: q.len() / n,
        };
        for (head, out) in self.out.chunks_exact_mut(q.len()).enumerate() {
            let view = self.cache.view(head);
            attend_span(backend, &view, 0, q, seen, &mut self.total);
            for span in 1..self.positions.div_ceil(SPAN) {
                attend_span(backend, &view, span, q, seen, &mut self.partial);
                merge(n, &mut self.total, &self.partial);
            }
            let partials = self.total.chunks_exact(partial_len(n));
            for (partial, out) in partials.zip(out.chunks_exact_mut(n)) {
                finish(partial, out);
            }
        }
    }

    /// What the last run computed.
    pub fn output(&self) -> &[f32] {
        &self.out
    }
}

/// The kernels that go through a row element by element.
pub struct Elementwise {
    backend: Backend,
    x: Vec<f32>,
    other: Vec<f32>,
    sum: Vec<f32>,
    out: Vec<f32>,
}

impl Elementwise {
    /// On rows of `len` numbers.
    pub fn new(backend: Backend, len: usize) -> Self {
        Self {
            backend,
            x: Random(5).units(len),
            other: Random(7).units(len),
            sum: vec![0.0; len],
            out: vec![0.0; len],
        }
    }

    /// Bytes that a run of any of them reads and writes, at least.
    pub fn bytes(&self) -> usize {
        3 * size_of_val(&self.x[..])
    }

    /// RMSNorm.
    pub fn rms_norm(&mut self) {
        norm::rms_norm(self.backend, &self.x, &self.other, 1e-5, &mut self.out);
    }

    /// The residual, added on the way to RMSNorm.
    pub fn add_rms_norm(&mut self) {
        let (x, other) = (&self.x, &self.other);
        norm::add_rms_norm(
            self.backend,
            x,
            other,
            other,
            1e-5,
            &mut self.sum,
            &mut self.out,
        );
    }

    /// SiLU of a gate times the other half. It computes in place, so each run begins
    /// with a copy: a gate that shrank from run to run would end in subnormals.
    pub fn silu_mul(&mut self) {
        self.out.copy_from_slice(&self.x);
        silu::silu_mul(self.backend, &mut self.out, &self.other);
    }

    /// What the last run computed.
    pub fn output(&self) -> &[f32] {
        &self.out
    }
}

/// Reads memory as fast as this processor's widest vectors do, and finds the largest
/// value in it: the least that can be done with all of it.
pub fn read(memory: &[f32]) -> f32 {
    let mut largest = f32::NEG_INFINITY;
    find_largest(Backend::detect(), memory, &mut largest);
    largest
}

kernel_entry! {
    /// Raises `largest` to the largest value.
    fn find_largest(memory: &[f32], largest: &mut f32) = find_largest_body
}

/// # Safety
/// The vector's target features.
#[inline(always)]
unsafe fn find_largest_body<V: Vector>(memory: &[f32], largest: &mut f32) {
    // A KB at a time in lanes of their own, so that no read waits for another.
    const AT_ONCE: usize = 256;
    let (whole, rest) = memory.as_chunks::<AT_ONCE>();
    // SAFETY: features by the contract; the lanes divide a chunk and a quarter of it.
    unsafe {
        let mut lanes = [V::splat(*largest); 4];
        for chunk in whole {
            for i in (0..AT_ONCE).step_by(4 * V::LANES) {
                for (j, lanes) in lanes.iter_mut().enumerate() {
                    *lanes = lanes.max(V::load(chunk.as_ptr().add(i + j * V::LANES)));
                }
            }
        }
        let [a, b, c, d] = lanes;
        let mut values = [f32::NEG_INFINITY; 16];
        a.max(b).max(c.max(d)).store(values.as_mut_ptr());
        *largest = values.iter().chain(rest).fold(*largest, |l, v| l.max(*v));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_is_read() {
        for len in [1, 63, 255, 256, 257, 600] {
            for at in 0..len {
                let mut memory = vec![-1.0; len];
                memory[at] = 2.0;
                for backend in Backend::available() {
                    let mut largest = f32::NEG_INFINITY;
                    find_largest(backend, &memory, &mut largest);
                    assert_eq!(largest, 2.0, "{backend:?}: {at} of {len}");
                }
            }
        }
    }

    #[test]
    fn each_bench_computes_something() {
        let some = |y: &[f32]| y.iter().all(|v| v.is_finite()) && y.iter().any(|&v| v != 0.0);
        for backend in Backend::available() {
            for weights in [Weights::Four, Weights::FourPacked, Weights::Eight] {
                for precision in [Precision::Float, Precision::Int8] {
                    let mut product = Product::new(backend, precision, weights, [48, 64], 2, 5000);
                    assert!(product.matrices.len() > 1);
                    product.run();
                    assert!(some(product.output()), "{backend:?} {weights:?}");
                    assert_eq!(product.operations(), 2 * 2 * 48 * 64);
                }
            }
            for format in [KvFormat::F16, KvFormat::Int8] {
                let mut attention = Attention::new(backend, format, [2, 3, 16], 600);
                attention.run();
                assert!(some(attention.output()), "{backend:?} {format:?}");
            }
            let mut rows = Elementwise::new(backend, 100);
            for run in [
                Elementwise::rms_norm,
                Elementwise::add_rms_norm,
                Elementwise::silu_mul,
            ] {
                rows.out.fill(0.0);
                run(&mut rows);
                assert!(some(rows.output()), "{backend:?}");
            }
        }
        let product =
            |weights| Product::new(Backend::SCALAR, Precision::Int8, weights, [2, 64], 1, 0);
        // Per block of 32: 16 or 32 bytes of quants and an f16, and half a byte.
        assert_eq!(product(Weights::Four).bytes(), 4 * 18);
        assert_eq!(product(Weights::FourPacked).bytes(), 4 * 18 + 2);
        assert_eq!(product(Weights::Eight).bytes(), 4 * 34);
    }
}
