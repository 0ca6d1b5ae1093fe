//! Zeroed memory straight from the system.
//!
//! The allocator's would do until something of this size was freed once: glibc's then
//! takes it from its heap, where it must be cleared, and so be there, from end to end.

use std::io;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};

use bytemuck::Pod;
use memmap2::MmapMut;

/// Elements that take memory from when they are first touched, and give it back when
/// this is dropped.
pub(crate) struct Pages<E> {
    map: MmapMut,
    elements: PhantomData<E>,
}

impl<E: Pod> Pages<E> {
    /// So many elements, all zero; the system may have no room for them.
    pub(crate) fn zeroed(len: usize) -> io::Result<Self> {
        let bytes = len.checked_mul(size_of::<E>());
        let map = MmapMut::map_anon(bytes.ok_or(io::ErrorKind::OutOfMemory)?)?;
        Ok(Self {
            map,
            elements: PhantomData,
        })
    }
}

impl<E: Pod> Deref for Pages<E> {
    type Target = [E];
    fn deref(&self) -> &[E] {
        bytemuck::cast_slice(&self.map)
    }
}

impl<E: Pod> DerefMut for Pages<E> {
    fn deref_mut(&mut self) -> &mut [E] {
        bytemuck::cast_slice_mut(&mut self.map)
    }
}

impl<E: Pod> Clone for Pages<E> {
    /// tract wants states that can be copied, and copies none.
    fn clone(&self) -> Self {
        let mut copy = Self::zeroed(self.len()).expect("memory for a copy");
        copy.copy_from_slice(self);
        copy
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeros_of_any_length_that_can_be_written() {
        for len in [0, 1, 5000] {
            let mut pages = Pages::<u16>::zeroed(len).unwrap();
            assert_eq!(&*pages, vec![0; len]);
            pages.fill(7);
            assert_eq!(&*pages, vec![7; len]);
        }
    }

    #[test]
    fn more_than_there_is_room_for_is_an_error() {
        assert!(Pages::<f32>::zeroed(usize::MAX / 2).is_err());
        assert!(Pages::<f32>::zeroed(usize::MAX / 8).is_err());
    }
}
