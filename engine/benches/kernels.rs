//! How fast each kernel is on this machine, with every backend that it has.
//!
//! ```sh
//! cargo bench --workspace --bench kernels                    # all, some minutes
//! cargo bench --workspace --bench kernels -- decode::int8    # a regular expression
//! cargo test --release --workspace --bench kernels           # each once: does it run?
//! ```
//!
//! (`--workspace`, as another set of packages would compile tract anew.)
//!
//! One thread computes, except where `read` says how many. The figures under the
//! times:
//!
//! - **bytes/s**: of products, weights read (quants, scales, zero points); of
//!   attention, keys and values; of the others, all that is read and written.
//!   Decode cannot be faster than `read` with one thread, which reads memory and
//!   does nothing else.
//! - **items/s**: multiplications and additions, two for each weight and row of
//!   activations: 100 Gitem/s are 100 GOP/s. Of attention two for each element
//!   of a key or value and query.
//!
//! Matrices of decode take turns, [`COLD`] bytes of them: each has left the caches
//! when it is read again, as a model's do. Where the last cache is larger
//! (`lscpu`), the figures are the cache's.

use std::fmt;

use chaski_engine::bench::{Attention, Elementwise, Encode, Product, Weights};
use chaski_engine::{Backend, KvFormat, Precision};
use divan::counter::{BytesCount, ItemsCount};
use divan::{Bencher, black_box};

/// Bytes that no cache of a board holds.
const COLD: usize = 128 << 20;
/// Matrices `[rows, columns]`: an MLP's of SmolLM2-135M and of Llama 3.2 1B.
const SHAPES: [[usize; 2]; 2] = [[1536, 576], [8192, 2048]];
/// Rows of activations in prefill.
const PREFILL: [usize; 2] = [16, 128];
/// Heads of keys and values, queries of each, numbers in each: Llama 3.2 3B's.
const HEADS: [usize; 3] = [8, 3, 128];
const POSITIONS: [usize; 3] = [128, 1024, 8192];

fn main() {
    divan::main();
}

/// Cargo gives `--bench` when it measures; else each bench runs once, and needs no
/// memory full of matrices.
fn measuring() -> bool {
    std::env::args().any(|argument| argument == "--bench")
}

/// A backend and what it computes on.
#[derive(Clone, Copy)]
struct Case<T>(Backend, T);

impl<T> Case<T> {
    fn all(of: impl IntoIterator<Item = T> + Clone) -> Vec<Self> {
        let backends = Backend::available().into_iter();
        backends
            .flat_map(|backend| of.clone().into_iter().map(move |one| Self(backend, one)))
            .collect()
    }
}

#[derive(Clone, Copy)]
struct Shape {
    matrix: [usize; 2],
    x_rows: usize,
}

impl fmt::Display for Case<Shape> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(backend, shape) = self;
        let [rows, columns] = shape.matrix;
        write!(f, "{} {rows}x{columns}", backend.name())?;
        match shape.x_rows {
            1 => Ok(()),
            x_rows => write!(f, " {x_rows} rows"),
        }
    }
}

impl fmt::Display for Case<usize> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.0.name(), self.1)
    }
}

fn decode() -> Vec<Case<Shape>> {
    Case::all(SHAPES.map(|matrix| Shape { matrix, x_rows: 1 }))
}

fn prefill() -> Vec<Case<Shape>> {
    let rows = |matrix| PREFILL.map(|x_rows| Shape { matrix, x_rows });
    Case::all(SHAPES.into_iter().flat_map(rows))
}

fn product(bencher: Bencher<'_, '_>, precision: Precision, weights: Weights, case: Case<Shape>) {
    let Case(backend, Shape { matrix, x_rows }) = case;
    let least = if measuring() && x_rows == 1 { COLD } else { 0 };
    let mut product = Product::new(backend, precision, weights, matrix, x_rows, least);
    bencher
        .counter(BytesCount::new(product.bytes()))
        .counter(ItemsCount::new(product.operations()))
        .bench_local(|| {
            product.run();
            black_box(product.output());
        });
}

/// `decode` (one row of activations) and `prefill` of each kind of weights.
macro_rules! products {
    ($($name:ident: $precision:ident $weights:ident),* $(,)?) => {
        mod decode {
            use super::*;
            $(
                #[divan::bench(args = super::decode())]
                fn $name(bencher: Bencher<'_, '_>, case: Case<Shape>) {
                    product(bencher, Precision::$precision, Weights::$weights, case);
                }
            )*
        }
        mod prefill {
            use super::*;
            $(
                #[divan::bench(args = super::prefill(), sample_count = 20)]
                fn $name(bencher: Bencher<'_, '_>, case: Case<Shape>) {
                    product(bencher, Precision::$precision, Weights::$weights, case);
                }
            )*
        }
    };
}

products! {
    int8_4bit: Int8 Four,
    int8_4bit_zero_points: Int8 FourPacked,
    int8_8bit: Int8 Eight,
    f32_4bit: Float Four,
    f32_4bit_zero_points: Float FourPacked,
    f32_8bit: Float Eight,
}

/// A token over the KV cache of a layer.
mod attention {
    use super::*;

    fn attend(bencher: Bencher<'_, '_>, format: KvFormat, Case(backend, positions): Case<usize>) {
        let mut attention = Attention::new(backend, format, HEADS, positions);
        bencher
            .counter(BytesCount::new(attention.bytes()))
            .counter(ItemsCount::new(attention.operations()))
            .bench_local(|| {
                attention.run();
                black_box(attention.output());
            });
    }

    #[divan::bench(args = Case::all(POSITIONS))]
    fn kv_f16(bencher: Bencher<'_, '_>, case: Case<usize>) {
        attend(bencher, KvFormat::F16, case);
    }

    #[divan::bench(args = Case::all(POSITIONS))]
    fn kv_int8(bencher: Bencher<'_, '_>, case: Case<usize>) {
        attend(bencher, KvFormat::Int8, case);
    }
}

/// One row of as many numbers.
mod rows {
    use super::*;

    const LENGTHS: [usize; 2] = [576, 8192];

    fn each(bencher: Bencher<'_, '_>, case: Case<usize>, run: fn(&mut Elementwise)) {
        let mut rows = Elementwise::new(case.0, case.1);
        bencher
            .counter(BytesCount::new(rows.bytes()))
            .bench_local(|| {
                run(&mut rows);
                black_box(rows.output());
            });
    }

    #[divan::bench(args = Case::all(LENGTHS))]
    fn rms_norm(bencher: Bencher<'_, '_>, case: Case<usize>) {
        each(bencher, case, Elementwise::rms_norm);
    }

    #[divan::bench(args = Case::all(LENGTHS))]
    fn add_rms_norm(bencher: Bencher<'_, '_>, case: Case<usize>) {
        each(bencher, case, Elementwise::add_rms_norm);
    }

    #[divan::bench(args = Case::all(LENGTHS))]
    fn silu_mul(bencher: Bencher<'_, '_>, case: Case<usize>) {
        each(bencher, case, Elementwise::silu_mul);
    }

    #[divan::bench(args = Case::all(LENGTHS))]
    fn encode_int8_4bit(bencher: Bencher<'_, '_>, case: Case<usize>) {
        encode(bencher, Precision::Int8, Weights::Four, case);
    }

    #[divan::bench(args = Case::all(LENGTHS))]
    fn encode_int8_8bit(bencher: Bencher<'_, '_>, case: Case<usize>) {
        encode(bencher, Precision::Int8, Weights::Eight, case);
    }

    #[divan::bench(args = Case::all(LENGTHS))]
    fn encode_f32_4bit(bencher: Bencher<'_, '_>, case: Case<usize>) {
        encode(bencher, Precision::Float, Weights::Four, case);
    }

    fn encode(
        bencher: Bencher<'_, '_>,
        precision: Precision,
        weights: Weights,
        Case(backend, columns): Case<usize>,
    ) {
        let mut encode = Encode::new(backend, precision, weights, columns, 1);
        bencher
            .counter(BytesCount::new(encode.bytes()))
            .bench_local(|| {
                encode.run();
                black_box(&mut encode);
            });
    }
}

/// Threads from 1 to all cores, doubling.
fn threads() -> Vec<usize> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let mut counts: Vec<usize> = std::iter::successors(Some(1), |n| Some(n * 2))
        .take_while(|&n| n < cores)
        .collect();
    counts.push(cores);
    counts
}

/// What the memory gives to so many threads that do nothing but read.
#[divan::bench(args = threads(), sample_count = 20)]
fn read(bencher: Bencher<'_, '_>, threads: usize) {
    let bytes = if measuring() { 2 * COLD } else { 1 << 20 };
    let memory: Vec<f32> = (0..bytes / 4).map(|i| i as f32).collect();
    let share = memory.len().div_ceil(threads);
    bencher.counter(BytesCount::new(bytes)).bench_local(|| {
        std::thread::scope(|scope| {
            for part in memory.chunks(share) {
                scope.spawn(move || black_box(chaski_engine::bench::read(part)));
            }
        });
    });
}
