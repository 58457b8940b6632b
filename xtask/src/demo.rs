//! demo
pub(crate) fn demo() -> anyhow::Result<()> { Ok(()) }
