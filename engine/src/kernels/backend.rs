//! Which instructions the kernels use: found once, overridable for tests.

use std::fmt;

/// A set of kernels for one instruction set. A value exists only where the
/// processor has it: that is what makes the kernels' entries safe to call.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Backend(Kind);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    Scalar,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(target_arch = "aarch64")]
    Neon,
}

impl Backend {
    /// The plain Rust reference, on every machine.
    pub const SCALAR: Backend = Backend(Kind::Scalar);

    /// The fastest backend this processor has.
    pub fn detect() -> Backend {
        Self::available().last().copied().unwrap_or(Self::SCALAR)
    }

    /// All backends this processor has, the slowest first.
    pub fn available() -> Vec<Backend> {
        let mut found = vec![Self::SCALAR];
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                found.push(Backend(Kind::Avx2));
                if is_x86_feature_detected!("avx512f") {
                    found.push(Backend(Kind::Avx512));
                }
            }
        }
        #[cfg(target_arch = "aarch64")]
        found.push(Backend(Kind::Neon));
        found
    }

    /// The backend of that name, if this processor has it.
    pub fn by_name(name: &str) -> Option<Backend> {
        Self::available().into_iter().find(|b| b.name() == name)
    }

    /// `scalar`, `avx2`, `avx512` or `neon`.
    pub fn name(self) -> &'static str {
        match self.0 {
            Kind::Scalar => "scalar",
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => "avx2",
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512 => "avx512",
            #[cfg(target_arch = "aarch64")]
            Kind::Neon => "neon",
        }
    }

    pub(crate) fn kind(self) -> Kind {
        self.0
    }
}

impl fmt::Debug for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Declares the safe entry of a kernel: one function per backend that carries
/// the target features, and the choice among them.
///
/// `body` is generic over [`super::vector::Vector`] (and the layout, where one is
/// named), `#[inline(always)]`, and unsafe only because it runs the vector's
/// instructions.
macro_rules! kernel_entry {
    ($(#[$doc:meta])* fn $name:ident($($arg:ident: $ty:ty),* $(,)?) = $body:ident $(<$layout:ty>)?) => {
        $(#[$doc])*
        #[allow(clippy::too_many_arguments)]
        pub(crate) fn $name(backend: $crate::kernels::Backend, $($arg: $ty),*) {
            use $crate::kernels::backend::Kind;

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma")]
            #[allow(clippy::too_many_arguments)]
            fn avx2($($arg: $ty),*) {
                // SAFETY: this function has the features of the vector.
                unsafe { $body::<std::arch::x86_64::__m256 $(, $layout)?>($($arg),*) }
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx2,fma")]
            #[allow(clippy::too_many_arguments)]
            fn avx512($($arg: $ty),*) {
                // SAFETY: this function has the features of the vector.
                unsafe { $body::<std::arch::x86_64::__m512 $(, $layout)?>($($arg),*) }
            }

            match backend.kind() {
                // SAFETY: the scalar vector needs no feature.
                Kind::Scalar => unsafe { $body::<f32 $(, $layout)?>($($arg),*) },
                // SAFETY: a Backend of this kind exists only where avx2 and fma do.
                #[cfg(target_arch = "x86_64")]
                Kind::Avx2 => unsafe { avx2($($arg),*) },
                // SAFETY: a Backend of this kind exists only where avx512f does.
                #[cfg(target_arch = "x86_64")]
                Kind::Avx512 => unsafe { avx512($($arg),*) },
                // SAFETY: NEON is part of the aarch64 baseline.
                #[cfg(target_arch = "aarch64")]
                Kind::Neon => unsafe { $body::<std::arch::aarch64::float32x4_t $(, $layout)?>($($arg),*) },
            }
        }
    };
}
pub(crate) use kernel_entry;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_backends_that_the_test_run_demands_are_here() {
        let names: Vec<_> = Backend::available().iter().map(|b| b.name()).collect();
        println!("backends: {names:?}");
        assert_eq!(names[0], "scalar");
        // Set by the test script, so that a machine without an instruction set
        // cannot pass by testing less.
        let demanded = std::env::var("CHASKI_DEMAND_BACKENDS").unwrap_or_default();
        for name in demanded.split(',').filter(|n| !n.is_empty()) {
            assert!(
                names.contains(&name),
                "{name} is demanded, this machine has {names:?}"
            );
        }
        for name in names {
            assert_eq!(Backend::by_name(name).map(Backend::name), Some(name));
        }
        assert_eq!(Backend::by_name("abacus"), None);
    }
}
