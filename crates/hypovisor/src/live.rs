//! The live line: how a session goes, on standard error, for whoever watches it run.

use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use hypovisor_engine::session::Session;

/// How often the line is drawn anew on a terminal, and how often a line is written to anything else.
const ON_TERMINAL: Duration = Duration::from_millis(250);
const ELSEWHERE: Duration = Duration::from_secs(5);

/// Draws the live line.
#[derive(Debug)]
pub(crate) struct Live {
    started: Instant,
    drawn: Instant,
    events: u64,
    terminal: bool,
    enabled: bool,
}

impl Live {
    /// Draws if `enabled`: not when something else uses the terminal.
    pub(crate) fn new(enabled: bool) -> Self {
        let now = Instant::now();
        Self { started: now, drawn: now, events: 0, terminal: std::io::stderr().is_terminal(), enabled }
    }

    /// To be called often; draws when it is time to.
    pub(crate) fn tick(&mut self, session: &Session, events: u64) {
        let interval = if self.terminal { ON_TERMINAL } else { ELSEWHERE };
        let since = self.drawn.elapsed();
        if !self.enabled || since < interval {
            return;
        }
        let rate = (events - self.events) as f64 / since.as_secs_f64();
        let lost: u64 = session.counters().map(|counters| counters.lost_calls).sum();
        let domains = session.note().domains.iter().count();
        let noun = if domains == 1 { "domain" } else { "domains" };
        let line = format!(
            "{:6.1} s  {:>9} hypercalls  {:>8.0}/s  {domains} {noun} so far  {lost} dropped",
            self.started.elapsed().as_secs_f64(),
            events,
            rate,
        );
        let mut out = std::io::stderr().lock();
        // A closed standard error is no reason to stop watching.
        let _ = if self.terminal { write!(out, "\r\x1b[2K{line}") } else { writeln!(out, "{line}") };
        let _ = out.flush();
        self.drawn = Instant::now();
        self.events = events;
    }

    /// Wipes the line off a terminal, so that other output can follow.
    pub(crate) fn clear(&self) {
        if self.enabled && self.terminal {
            let _ = write!(std::io::stderr(), "\r\x1b[2K");
        }
    }
}
