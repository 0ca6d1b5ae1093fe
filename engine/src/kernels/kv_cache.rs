//! The KV cache of one layer.
//!
//! Keys lie in tiles of 16 positions, `[tile][head_dim][16]`, so that a vector
//! holds an element of several positions and no product has to be summed across
//! lanes; values lie `[position][head_dim]`, each head by itself.

use std::io;

use bytemuck::Pod;

use super::backend::Backend;
use super::f16;
#[cfg(test)]
use super::f16::finite_f16;
use super::pages::Pages;
use super::vector::{MAGIC, Vector};

/// Positions in a tile of keys: a multiple of every vector's lanes.
pub(crate) const TILE: usize = 16;

/// What keys and values are kept in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum KvFormat {
    /// f32: the reference.
    F32,
    /// f16: half the memory and the time to read it, without visible loss.
    #[default]
    F16,
    /// int8 with a scale for each head and position: a quarter.
    Int8,
}

impl KvFormat {
    /// Bytes of the keys and values of one position of one layer.
    pub(crate) fn position_bytes(self, heads: usize, head_dim: usize) -> usize {
        let head = match self {
            Self::F32 => head_dim * size_of::<f32>(),
            Self::F16 => head_dim * size_of::<u16>(),
            Self::Int8 => head_dim + size_of::<f32>(),
        };
        2 * heads * head
    }
}

/// An element of a cache.
pub(crate) trait Element: Pod + Default {
    /// Stands for a number only with the scale of its position.
    const SCALED: bool;

    /// Reads `N` vectors of elements, one behind the other.
    ///
    /// # Safety
    /// The vector's target features; so many elements are there.
    unsafe fn load_each<V: Vector, const N: usize>(from: *const Self) -> [V; N];
    /// From numbers times the inverse of their scale, which is 1 where elements are not
    /// scaled; both of one length.
    fn narrow(backend: Backend, x: &[f32], inverse: f32, out: &mut [Self]);
    /// To a number, not scaled yet.
    #[cfg(test)]
    fn to_f32(self) -> f32;
}

impl Element for f32 {
    const SCALED: bool = false;
    #[inline(always)]
    unsafe fn load_each<V: Vector, const N: usize>(from: *const Self) -> [V; N] {
        // SAFETY: by the contract.
        std::array::from_fn(|i| unsafe { V::load(from.add(i * V::LANES)) })
    }
    fn narrow(_: Backend, x: &[f32], _: f32, out: &mut [Self]) {
        out.copy_from_slice(x);
    }
    #[cfg(test)]
    fn to_f32(self) -> f32 {
        self
    }
}

impl Element for u16 {
    const SCALED: bool = false;
    #[inline(always)]
    unsafe fn load_each<V: Vector, const N: usize>(from: *const Self) -> [V; N] {
        // SAFETY: by the contract.
        unsafe { V::halves_each(from) }
    }
    fn narrow(backend: Backend, x: &[f32], _: f32, out: &mut [Self]) {
        // Keys and values beyond f16 do not occur in a Llama that works; kept
        // finite, they spoil less.
        f16::narrow(backend, x, out);
    }
    #[cfg(test)]
    fn to_f32(self) -> f32 {
        finite_f16(self)
    }
}

impl Element for i8 {
    const SCALED: bool = true;
    #[inline(always)]
    unsafe fn load_each<V: Vector, const N: usize>(from: *const Self) -> [V; N] {
        // SAFETY: by the contract.
        unsafe { V::signed_each(from) }
    }
    fn narrow(_: Backend, x: &[f32], inverse: f32, out: &mut [Self]) {
        for (to, x) in out.iter_mut().zip(x) {
            // Rounded to the nearest, which the lowest bits then are.
            *to = (x * inverse + MAGIC).to_bits() as i8;
        }
    }
    #[cfg(test)]
    fn to_f32(self) -> f32 {
        f32::from(self)
    }
}

/// The cache of one head of one layer.
pub(crate) struct HeadView<'a, E> {
    /// `[tiles, head_dim, 16]`, rotated.
    pub(crate) keys: &'a [E],
    /// `[positions, head_dim]`.
    pub(crate) values: &'a [E],
    /// One a position, where elements are scaled.
    pub(crate) key_scales: &'a [f32],
    /// One a position, where elements are scaled.
    pub(crate) value_scales: &'a [f32],
    pub(crate) head_dim: usize,
}

impl<E> HeadView<'_, E> {
    /// Positions there is room for.
    pub(crate) fn positions(&self) -> usize {
        self.values.len() / self.head_dim
    }
}

/// The cache of one head, in any format.
pub(crate) enum View<'a> {
    F32(HeadView<'a, f32>),
    F16(HeadView<'a, u16>),
    Int8(HeadView<'a, i8>),
}

/// Keys and values of all heads, one behind the other.
#[derive(Clone)]
struct Store<E: Element> {
    keys: Pages<E>,
    values: Pages<E>,
    key_scales: Pages<f32>,
    value_scales: Pages<f32>,
}

impl<E: Element> Store<E> {
    fn new(heads: usize, head_dim: usize, positions: usize) -> io::Result<Self> {
        // There when they are first touched: a short conversation does not pay for
        // the whole context.
        let elements = heads * positions * head_dim;
        let scales = if E::SCALED { heads * positions } else { 0 };
        Ok(Self {
            keys: Pages::zeroed(elements)?,
            values: Pages::zeroed(elements)?,
            key_scales: Pages::zeroed(scales)?,
            value_scales: Pages::zeroed(scales)?,
        })
    }

    fn view(&self, head: usize, head_dim: usize, positions: usize) -> HeadView<'_, E> {
        let size = positions * head_dim;
        let scales = |v| -> &[f32] {
            let v: &Pages<f32> = v;
            if E::SCALED {
                &v[head * positions..][..positions]
            } else {
                &[]
            }
        };
        HeadView {
            keys: &self.keys[head * size..][..size],
            values: &self.values[head * size..][..size],
            key_scales: scales(&self.key_scales),
            value_scales: scales(&self.value_scales),
            head_dim,
        }
    }

    /// Writes a key and a value at a position of a head, of which there are
    /// `positions`.
    fn write(
        &mut self,
        backend: Backend,
        [head, position, positions]: [usize; 3],
        k: &[f32],
        v: &[f32],
    ) {
        let head_dim = k.len();
        let (mut k_inverse, mut v_inverse) = (1.0, 1.0);
        if E::SCALED {
            let at = head * positions + position;
            (self.key_scales[at], k_inverse) = scale(k);
            (self.value_scales[at], v_inverse) = scale(v);
        }
        let start = head * positions * head_dim;
        let tile = start + position / TILE * TILE * head_dim + position % TILE;
        let mut keys = self.keys[tile..].iter_mut().step_by(TILE);
        for k in k.chunks(TILE) {
            let mut narrow = [E::default(); TILE];
            E::narrow(backend, k, k_inverse, &mut narrow[..k.len()]);
            for (narrow, to) in narrow[..k.len()].iter().zip(&mut keys) {
                *to = *narrow;
            }
        }
        let values = &mut self.values[start + position * head_dim..][..head_dim];
        E::narrow(backend, v, v_inverse, values);
    }
}

/// The scale of a vector in int8, and its inverse.
fn scale(x: &[f32]) -> (f32, f32) {
    let largest = x.iter().fold(0.0f32, |m, v| m.max(v.abs()));
    let inverse = if largest > 0.0 { 127.0 / largest } else { 0.0 };
    (largest / 127.0, inverse)
}

#[derive(Clone)]
enum Stores {
    F32(Store<f32>),
    F16(Store<u16>),
    Int8(Store<i8>),
}

/// The keys and values of one layer of one conversation.
#[derive(Clone)]
pub(crate) struct KvCache {
    backend: Backend,
    stores: Stores,
    head_dim: usize,
    /// Positions there is room for, whole tiles.
    positions: usize,
    len: usize,
}

impl KvCache {
    /// An empty cache for `context` positions, if the system has room for it.
    pub(crate) fn new(
        backend: Backend,
        format: KvFormat,
        heads: usize,
        head_dim: usize,
        context: usize,
    ) -> io::Result<Self> {
        let positions = context.next_multiple_of(TILE);
        Ok(Self {
            backend,
            stores: match format {
                KvFormat::F32 => Stores::F32(Store::new(heads, head_dim, positions)?),
                KvFormat::F16 => Stores::F16(Store::new(heads, head_dim, positions)?),
                KvFormat::Int8 => Stores::Int8(Store::new(heads, head_dim, positions)?),
            },
            head_dim,
            positions,
            len: 0,
        })
    }

    /// Positions filled.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Forgets all positions from `len` on.
    pub(crate) fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    /// Says that `count` more positions were written.
    pub(crate) fn grow(&mut self, count: usize) {
        self.len += count;
    }

    /// Writes a head's key (rotated) and value at a position.
    pub(crate) fn write(&mut self, head: usize, position: usize, k: &[f32], v: &[f32]) {
        let (backend, at) = (self.backend, [head, position, self.positions]);
        match &mut self.stores {
            Stores::F32(store) => store.write(backend, at, k, v),
            Stores::F16(store) => store.write(backend, at, k, v),
            Stores::Int8(store) => store.write(backend, at, k, v),
        }
    }

    /// The cache of a head.
    pub(crate) fn view(&self, head: usize) -> View<'_> {
        let (n, positions) = (self.head_dim, self.positions);
        match &self.stores {
            Stores::F32(store) => View::F32(store.view(head, n, positions)),
            Stores::F16(store) => View::F16(store.view(head, n, positions)),
            Stores::Int8(store) => View::Int8(store.view(head, n, positions)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl KvCache {
        /// What a head's keys and values stand for, `[len, head_dim]` both.
        pub(crate) fn read(&self, head: usize) -> (Vec<f32>, Vec<f32>) {
            fn read<E: Element>(view: &HeadView<'_, E>, len: usize) -> (Vec<f32>, Vec<f32>) {
                let n = view.head_dim;
                let scale = |scales: &[f32], p: usize| if E::SCALED { scales[p] } else { 1.0 };
                let each = |f: &dyn Fn(usize, usize) -> f32| {
                    (0..len)
                        .flat_map(|p| (0..n).map(move |d| (p, d)))
                        .map(|(p, d)| f(p, d))
                        .collect()
                };
                (
                    each(&|p, d| {
                        let at = p / TILE * TILE * n + d * TILE + p % TILE;
                        view.keys[at].to_f32() * scale(view.key_scales, p)
                    }),
                    each(&|p, d| view.values[p * n + d].to_f32() * scale(view.value_scales, p)),
                )
            }
            match self.view(head) {
                View::F32(view) => read(&view, self.len),
                View::F16(view) => read(&view, self.len),
                View::Int8(view) => read(&view, self.len),
            }
        }
    }

    #[test]
    fn what_is_written_is_read_within_the_format() {
        let bounds = [
            (KvFormat::F32, 0.0),
            (KvFormat::F16, 5e-4),
            (KvFormat::Int8, 4.1e-3),
        ];
        for (format, bound) in bounds {
            let mut cache = KvCache::new(Backend::detect(), format, 2, 6, 20).unwrap();
            let x = |p: usize, h: usize, d: usize| ((p * 7 + h * 3 + d) as f32).sin();
            for p in 0..20 {
                for h in 0..2 {
                    let k: Vec<f32> = (0..6).map(|d| x(p, h, d)).collect();
                    let v: Vec<f32> = k.iter().map(|k| -k).collect();
                    cache.write(h, p, &k, &v);
                }
                cache.grow(1);
            }
            for h in 0..2 {
                let (keys, values) = cache.read(h);
                for (i, (k, v)) in keys.iter().zip(&values).enumerate() {
                    let want = x(i / 6, h, i % 6);
                    assert!((k - want).abs() <= bound && (v + want).abs() <= bound);
                }
            }
        }
    }

    #[test]
    fn a_position_takes_what_its_format_says() {
        // Llama 3.2 1B: 32 KB a token in its 16 layers.
        assert_eq!(KvFormat::F16.position_bytes(8, 64) * 16, 32 << 10);
        assert_eq!(KvFormat::F32.position_bytes(8, 64) * 16, 64 << 10);
        assert_eq!(KvFormat::Int8.position_bytes(8, 64), 2 * 8 * (64 + 4));
    }

    #[test]
    fn a_position_written_again_holds_nothing_of_before() {
        let mut cache = KvCache::new(Backend::detect(), KvFormat::Int8, 1, 4, 4).unwrap();
        cache.write(0, 0, &[1e6; 4], &[1e6; 4]);
        cache.grow(1);
        cache.truncate(0);
        assert_eq!(cache.len(), 0);
        cache.write(0, 0, &[0.5; 4], &[-0.5; 4]);
        cache.grow(1);
        let (keys, values) = cache.read(0);
        assert!(keys.iter().all(|k| (k - 0.5).abs() < 1e-6));
        assert!(values.iter().all(|v| (v + 0.5).abs() < 1e-6));
    }
}
