//! Which instructions the kernels use: found once, overridable for tests.

#[cfg(target_arch = "aarch64")]
use std::arch::is_aarch64_feature_detected;
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
    /// AVX-512 with its dot products of bytes.
    #[cfg(target_arch = "x86_64")]
    Avx512Vnni,
    #[cfg(target_arch = "aarch64")]
    Neon,
    /// NEON with `sdot`.
    #[cfg(target_arch = "aarch64")]
    NeonDotprod,
    /// NEON with `sdot` and `smmla`.
    #[cfg(target_arch = "aarch64")]
    NeonI8mm,
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
            let avx2 = is_x86_feature_detected!("avx2")
                && is_x86_feature_detected!("fma")
                && is_x86_feature_detected!("f16c");
            let avx512 = avx2 && is_x86_feature_detected!("avx512f");
            let vnni = avx512
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512vnni");
            found.extend(avx2.then_some(Backend(Kind::Avx2)));
            found.extend(avx512.then_some(Backend(Kind::Avx512)));
            found.extend(vnni.then_some(Backend(Kind::Avx512Vnni)));
        }
        #[cfg(target_arch = "aarch64")]
        {
            let dotprod = is_aarch64_feature_detected!("dotprod");
            let i8mm = dotprod && is_aarch64_feature_detected!("i8mm");
            found.push(Backend(Kind::Neon));
            found.extend(dotprod.then_some(Backend(Kind::NeonDotprod)));
            found.extend(i8mm.then_some(Backend(Kind::NeonI8mm)));
        }
        found
    }

    /// The backend of that name, if this processor has it.
    pub fn by_name(name: &str) -> Option<Backend> {
        Self::available().into_iter().find(|b| b.name() == name)
    }

    /// `scalar`, `avx2`, `avx512`, `avx512-vnni`, `neon`, `neon-dotprod` or `neon-i8mm`.
    pub fn name(self) -> &'static str {
        match self.0 {
            Kind::Scalar => "scalar",
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => "avx2",
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512 => "avx512",
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512Vnni => "avx512-vnni",
            #[cfg(target_arch = "aarch64")]
            Kind::Neon => "neon",
            #[cfg(target_arch = "aarch64")]
            Kind::NeonDotprod => "neon-dotprod",
            #[cfg(target_arch = "aarch64")]
            Kind::NeonI8mm => "neon-i8mm",
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
            #[target_feature(enable = "avx2,fma,f16c")]
            #[allow(clippy::too_many_arguments)]
            fn avx2($($arg: $ty),*) {
                // SAFETY: this function has the features of the vector.
                unsafe { $body::<std::arch::x86_64::__m256 $(, $layout)?>($($arg),*) }
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx2,fma,f16c")]
            #[allow(clippy::too_many_arguments)]
            fn avx512($($arg: $ty),*) {
                // SAFETY: this function has the features of the vector.
                unsafe { $body::<std::arch::x86_64::__m512 $(, $layout)?>($($arg),*) }
            }

            match backend.kind() {
                // SAFETY: the scalar vector needs no feature.
                Kind::Scalar => unsafe { $body::<f32 $(, $layout)?>($($arg),*) },
                // SAFETY: a Backend of this kind exists only where avx2, fma and f16c do.
                #[cfg(target_arch = "x86_64")]
                Kind::Avx2 => unsafe { avx2($($arg),*) },
                // SAFETY: Backends of these kinds exist only where avx512f, avx2, fma and
                // f16c do.
                #[cfg(target_arch = "x86_64")]
                Kind::Avx512 | Kind::Avx512Vnni => unsafe { avx512($($arg),*) },
                // SAFETY: NEON is part of the aarch64 baseline.
                #[cfg(target_arch = "aarch64")]
                Kind::Neon | Kind::NeonDotprod | Kind::NeonI8mm => unsafe { $body::<std::arch::aarch64::float32x4_t $(, $layout)?>($($arg),*) },
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
