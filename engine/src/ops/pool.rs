//! Memory of the operators' outputs, used again from step to step.
//!
//! A decoded token needs the same tensors as the one before. So an output's
//! memory is kept here while the graph reads it, and given out again once nobody
//! else holds it: after the first token no operator of ours allocates.

use std::sync::{Arc, Mutex, MutexGuard};

use tract_onnx::tract_core::internal::*;

use crate::kernels::encoding::ALIGNMENT;

/// The tensors of one number of positions, whoever holds them.
#[derive(Default)]
pub(crate) struct Pool(Mutex<Tensors>);

#[derive(Default)]
struct Tensors {
    /// Positions of the step that they were made for.
    positions: usize,
    all: Vec<Arc<Tensor>>,
}

impl Pool {
    /// A step of so many positions begins. Tensors of another number are let go:
    /// those of a long prompt do not stay while its answer is decoded.
    pub(super) fn begin(&self, positions: usize) {
        let mut tensors = self.lock();
        if tensors.positions != positions {
            tensors.positions = positions;
            tensors.all.clear();
        }
    }

    /// A tensor to fill, aligned for encoded rows. What is in it is of no
    /// meaning.
    pub(super) fn take(&self, datum_type: DatumType, shape: &[usize]) -> TractResult<Buffer<'_>> {
        let fits = |tensor: &mut Arc<Tensor>| {
            tensor.datum_type() == datum_type
                && tensor.shape() == shape
                && Arc::get_mut(tensor).is_some()
        };
        let mut tensors = self.lock();
        // The last one is the likeliest to be in the processor's caches.
        let found = tensors.all.iter_mut().rposition(fits);
        let tensor = match found {
            Some(index) => tensors.all.remove(index),
            None => {
                drop(tensors);
                Arc::new(Tensor::zero_aligned_dt(datum_type, shape, ALIGNMENT)?)
            }
        };
        Ok(Buffer { tensor, pool: self })
    }

    fn lock(&self) -> MutexGuard<'_, Tensors> {
        // Nothing panics while it is held.
        self.0.lock().unwrap_or_else(|e| e.into_inner())
    }
}

/// A tensor that nobody else holds; it goes back to the pool with the value.
pub(super) struct Buffer<'a> {
    tensor: Arc<Tensor>,
    pool: &'a Pool,
}

impl Buffer<'_> {
    /// The tensor to write to.
    pub(super) fn plain(&mut self) -> TractResult<PlainViewMut<'_>> {
        let tensor = Arc::get_mut(&mut self.tensor).context("a buffer is shared")?;
        tensor.try_as_plain_ram_mut()
    }

    /// The filled tensor, for the graph.
    pub(super) fn into_value(self) -> TValue {
        Arc::clone(&self.tensor).into_tvalue()
    }
}

impl Drop for Buffer<'_> {
    fn drop(&mut self) {
        self.pool.lock().all.push(Arc::clone(&self.tensor));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(pool: &Pool, shape: &[usize]) -> (TValue, *const f32) {
        let mut buffer = pool.take(f32::datum_type(), shape).unwrap();
        let start = buffer.plain().unwrap().as_ptr::<f32>().unwrap();
        assert!(start.addr().is_multiple_of(ALIGNMENT));
        (buffer.into_value(), start)
    }

    #[test]
    fn a_tensor_serves_again_once_nobody_holds_it() {
        let pool = Pool::default();
        let (first, a) = take(&pool, &[1, 1, 64]);
        let (second, b) = take(&pool, &[1, 1, 64]);
        assert_ne!(a, b, "the first is still held");
        let copy = first.clone();
        drop(first);
        assert_ne!(take(&pool, &[1, 1, 64]).1, a, "a copy is held");
        drop(copy);
        drop(second);
        let mut again = [take(&pool, &[1, 1, 64]), take(&pool, &[1, 1, 64])].map(|(_, p)| p);
        again.sort();
        assert!(again.contains(&a) || again.contains(&b));
        assert_eq!(pool.lock().all.len(), 3, "two held at once and one between");
    }

    #[test]
    fn kinds_do_not_mix() {
        let pool = Pool::default();
        let (value, _) = take(&pool, &[1, 1, 64]);
        drop(value);
        let bytes = pool.take(u8::datum_type(), &[1, 1, 64]).unwrap();
        assert!(bytes.tensor.datum_type() == u8::datum_type());
        let wide = pool.take(f32::datum_type(), &[1, 1, 128]).unwrap();
        assert_eq!(wide.tensor.shape(), [1, 1, 128]);
        drop((bytes, wide));
        assert_eq!(pool.lock().all.len(), 3);
    }

    #[test]
    fn another_number_of_positions_lets_go_of_what_was() {
        let pool = Pool::default();
        pool.begin(128);
        let (held, _) = take(&pool, &[1, 128, 64]);
        drop(take(&pool, &[1, 128, 32]));
        pool.begin(128);
        assert_eq!(pool.lock().all.len(), 2);
        pool.begin(1);
        assert_eq!(pool.lock().all.len(), 0);
        assert_eq!(held.shape(), [1, 128, 64], "whoever holds it keeps it");
    }

    #[test]
    fn an_operator_that_fails_gives_its_buffer_back() {
        let pool = Pool::default();
        drop(pool.take(f32::datum_type(), &[8]).unwrap());
        assert_eq!(pool.lock().all.len(), 1);
        assert_eq!(take(&pool, &[8]).0.shape(), [8]);
        assert_eq!(pool.lock().all.len(), 1);
    }
}
