//! bench
pub(crate) fn bench(_: &[Measurement]) -> anyhow::Result<()> { Ok(()) }
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub(crate) enum Measurement { Null }
