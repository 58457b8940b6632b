//! How long work is shown: a sequence of named steps, each with an amount done and, mostly, a known total.

/// What the amounts of a step count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Bytes.
    Bytes,
    /// Packages, files or the like.
    Items,
}

/// Receives the progress of fetching and building. Every method has an empty default.
pub trait Progress {
    /// A step begins; the one before it is over. `total` is `None` where it is not known ahead.
    fn step(&mut self, _name: &str, _unit: Unit, _total: Option<u64>) {}
    /// So much of the current step is done, counted from its beginning.
    fn done(&mut self, _amount: u64) {}
    /// The last step is over.
    fn finish(&mut self) {}
}

/// Progress that nobody looks at.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Progress for Silent {}
