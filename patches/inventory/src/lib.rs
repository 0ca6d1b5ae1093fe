//! Stands in for the crate `inventory`, by `[patch.crates-io]`: a registry that stays empty.
//!
//! tract's crates register their kernels, model transforms and knobs by constructors in
//! `.init_array`. No linker drops those, nor anything that they lead to: a third of a program that
//! runs none of it, as all operators of the engine are its own (`engine/src/ops/`). So what is
//! submitted here is not compiled, and every look-up finds nothing. One that a future tract makes
//! on our way fails when a model is loaded or run, which every test of a model does.
//!
//! The interface is that of version 0.3, as far as tract uses it.

#![no_std]
#![forbid(unsafe_code)]

use core::marker::PhantomData;
use core::ops::Deref;

pub use list::*;

/// What [`collect!`] marks.
pub trait Collect: Sync + Sized + 'static {}

#[doc(hidden)]
pub enum Never {}

mod list {
    use super::{Never, PhantomData};

    /// All that was submitted of a type, which is nothing: a type, a value and a function, as
    /// `inventory`'s is.
    #[allow(non_camel_case_types)]
    pub enum iter<T> {
        #[doc(hidden)]
        Never(Never, PhantomData<T>),
        iter,
    }

    // By `*`, since the value's name is the type's as well.
    #[doc(hidden)]
    pub use super::value::*;
}

mod value {
    pub use super::list::iter::iter;
}

/// What there is to go through.
pub type Iter<T> = core::iter::Empty<&'static T>;

impl<T: Collect> IntoIterator for iter<T> {
    type Item = &'static T;
    type IntoIter = Iter<T>;

    fn into_iter(self) -> Iter<T> {
        core::iter::empty()
    }
}

impl<T: Collect> Deref for iter<T> {
    type Target = fn() -> Iter<T>;

    fn deref(&self) -> &Self::Target {
        &(core::iter::empty as fn() -> Iter<T>)
    }
}

/// Makes a type one that can be submitted.
#[macro_export]
macro_rules! collect {
    ($ty:ty) => {
        impl $crate::Collect for $ty {}
    };
}

/// Drops a value.
#[macro_export]
macro_rules! submit {
    ($($value:tt)*) => {};
}

#[cfg(test)]
mod tests {
    struct Kernel;

    crate::collect!(Kernel);
    crate::submit! { Kernel }

    #[test]
    fn nothing_is_in_it() {
        assert_eq!(crate::iter::<Kernel>().count(), 0);
        assert_eq!(crate::iter::<Kernel>.into_iter().count(), 0);
    }
}
