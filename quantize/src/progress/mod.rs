//! Tells how far a conversion is, to whoever wants to know.

mod terminal;

pub use terminal::ProgressDisplay;

/// The stages of a conversion that take their time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The source's files are hashed.
    Hashing,
    /// Tensors are read, quantised and written.
    Quantising,
}

impl Stage {
    /// As it is shown.
    pub fn name(self) -> &'static str {
        match self {
            Self::Hashing => "hashing the source",
            Self::Quantising => "quantising",
        }
    }
}

/// Listens to a conversion.
pub trait Progress {
    /// A stage begins that will go through `total` bytes of the source.
    fn begin(&mut self, stage: Stage, total: u64);
    /// A tensor or file is begun.
    fn item(&mut self, name: &str);
    /// So many bytes more are done.
    fn advance(&mut self, bytes: u64);
    /// The stage is over.
    fn end(&mut self);
}

/// Listens to nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Progress for Silent {
    fn begin(&mut self, _: Stage, _: u64) {}
    fn item(&mut self, _: &str) {}
    fn advance(&mut self, _: u64) {}
    fn end(&mut self) {}
}
