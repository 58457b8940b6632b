//! Interrupt and termination: asked for once, they end things in order.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context as _;

/// Set when the user wants to stop.
#[derive(Clone, Debug)]
pub(crate) struct StopRequest(Arc<AtomicBool>);

impl StopRequest {
    /// Takes over SIGINT, SIGTERM and SIGHUP. A second SIGINT ends the process at once.
    pub(crate) fn install() -> anyhow::Result<Self> {
        let asked = Arc::new(AtomicBool::new(false));
        for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM, signal_hook::consts::SIGHUP]
        {
            signal_hook::flag::register_conditional_shutdown(signal, 2, Arc::clone(&asked))
                .context("cannot take over signals")?;
            signal_hook::flag::register(signal, Arc::clone(&asked)).context("cannot take over signals")?;
        }
        Ok(Self(asked))
    }

    pub(crate) fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
