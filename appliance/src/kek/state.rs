//! Where a KEK stands in its life.

/// Where a KEK stands in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KekState {
    /// It is made, or about to be; it wraps nothing yet.
    Made,
    /// What is sealed from now on is wrapped by it.
    Current,
    /// Another one is current; it still opens what was not re-wrapped.
    Retired,
    /// Gone from the HSM, or about to be; final.
    Destroyed,
}

impl KekState {
    /// The word that stands in leaves.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Made => "made",
            Self::Current => "current",
            Self::Retired => "retired",
            Self::Destroyed => "destroyed",
        }
    }
}
