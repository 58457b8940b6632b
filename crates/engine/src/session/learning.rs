//! What the session itself takes from the calls that it hands on.

use hypovisor_event::injection::Injected;
use hypovisor_event::verdict::Verdict;

use crate::call::{Call, CallId, CallSink, Loss};
use crate::clock::Clock;
use crate::domains::Domains;
use crate::remote::Remote;

/// Learns domains from the calls on their way to the sink, and has the ends of injections told to who wanted them.
pub(super) struct Learning<'a, S> {
    domains: &'a mut Domains,
    remote: &'a mut Option<Remote>,
    clock: &'a Clock,
    /// A call that L1 is to be stopped for.
    pub(super) paused: Option<CallId>,
    /// Domains that were destroyed.
    pub(super) ended: Vec<u16>,
    sink: &'a mut S,
}

impl<'a, S> Learning<'a, S> {
    pub(super) const fn new(
        domains: &'a mut Domains,
        remote: &'a mut Option<Remote>,
        clock: &'a Clock,
        sink: &'a mut S,
    ) -> Self {
        Self { domains, remote, clock, paused: None, ended: Vec::new(), sink }
    }
}

impl<S: CallSink> CallSink for Learning<'_, S> {
    type Error = S::Error;

    fn entered(&mut self, call: &Call<'_>) -> Result<(), S::Error> {
        self.domains.learn(call);
        self.sink.entered(call)
    }

    fn call(&mut self, call: &Call<'_>) -> Result<(), S::Error> {
        self.ended.extend(self.domains.learn(call));
        if call.intervention.verdict == Some(Verdict::Paused) {
            self.paused = Some(call.id);
        }
        self.sink.call(call)
    }

    fn injected(&mut self, pcpu: u32, injected: &Injected, memory: &[u8]) -> Result<(), S::Error> {
        if let Some(remote) = self.remote {
            remote.ended(pcpu, injected, self.clock.duration_ns(injected.duration_ticks), memory);
        }
        self.sink.injected(pcpu, injected, memory)
    }

    fn loss(&mut self, loss: &Loss) -> Result<(), S::Error> {
        self.sink.loss(loss)
    }
}
