//! The security levels that the engine can run at.

use cggmp21::security_level::SecurityLevel;
pub use cggmp21::security_level::SecurityLevel128;

mod sealed {
    pub trait Sealed {}
}

/// A security level of this engine. Sealed: a release build has [`SecurityLevel128`] and nothing else.
pub trait Level: SecurityLevel + sealed::Sealed {
    /// Bits of a Paillier prime.
    const PRIME_BITS: u32 = 4 * Self::SECURITY_BITS;
    /// Bits of a Paillier modulus made of two such primes, at most.
    const MODULUS_BITS: u32 = 8 * Self::SECURITY_BITS;
}

impl sealed::Sealed for SecurityLevel128 {}
impl Level for SecurityLevel128 {}

#[cfg(any(test, feature = "test-levels"))]
pub use reduced::ReducedLevel;

#[cfg(any(test, feature = "test-levels"))]
mod reduced {
    use cggmp21::rug::Integer;
    use cggmp21::security_level::define_security_level;

    /// A level for the tamper suites: the same code path with 384-bit primes, about forty times faster. Worthless as
    /// protection.
    #[derive(Clone)]
    pub struct ReducedLevel;

    define_security_level!(ReducedLevel{
        security_bits = 96,
        epsilon = 96,
        ell = 256,
        ell_prime = 600,
        m = 128,
        q = Integer::ONE.clone() << 64_u32,
    });

    impl super::sealed::Sealed for ReducedLevel {}
    impl super::Level for ReducedLevel {}
}
