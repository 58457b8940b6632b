//! Where a session's calls go: into a recording, or onto standard output.

use std::io::{BufWriter, Write as _};
use std::path::Path;
use std::time::Duration;

use hypovisor_abi::text::Detail;
use hypovisor_engine::call::{Call, CallSink, Loss};
use hypovisor_engine::recording::{Manifest, Recorder, RecorderOptions};
use hypovisor_engine::session::Session;
use hypovisor_engine::{event_json, event_line};
use hypovisor_l1::SymbolSource;

use crate::live::Live;
use crate::standstill::Standstill;

/// Segments are encoded on a thread of their own: the rings are emptied meanwhile.
const OPTIONS: RecorderOptions = RecorderOptions {
    flush_after: Duration::from_millis(500),
    segment_calls: 262_144,
    segment_memory_bytes: 64 << 20,
    own_thread: true,
};

/// Told once a session. Nothing is lost as long as this engine lives.
const NOTE_WAS_CUT: &str =
    "too much is known of this Xen and its domains to keep all of it for `hypovisor attach`";

/// What is done with calls.
enum Target {
    Recording(Box<Recorder>),
    Text(BufWriter<std::io::Stdout>),
    Json(BufWriter<std::io::Stdout>),
    Nothing,
}

/// Takes a session's calls.
pub(crate) struct Output {
    target: Target,
    live: Live,
    events: u64,
    line: String,
    warned: bool,
    standstill: Standstill,
}

impl Output {
    /// Records into `dir`, a new directory.
    pub(crate) fn record(dir: &Path, manifest: Manifest, live: bool) -> anyhow::Result<Self> {
        let recorder = Recorder::create(dir, manifest, OPTIONS)?;
        Ok(Self::new(Target::Recording(Box::new(recorder)), live))
    }

    /// Goes on with the recording in `dir`.
    pub(crate) fn resume(dir: &Path, live: bool) -> anyhow::Result<Self> {
        let recorder = Recorder::resume(dir, OPTIONS)?;
        Ok(Self::new(Target::Recording(Box::new(recorder)), live))
    }

    /// Prints calls as they come.
    pub(crate) fn print(json: bool) -> Self {
        let out = BufWriter::new(std::io::stdout());
        Self::new(if json { Target::Json(out) } else { Target::Text(out) }, false)
    }

    /// Only counts.
    pub(crate) fn nothing(live: bool) -> Self {
        Self::new(Target::Nothing, live)
    }

    fn new(target: Target, live: bool) -> Self {
        let (line, standstill) = (String::new(), Standstill::new());
        Self { target, live: Live::new(live), events: 0, line, warned: false, standstill }
    }

    /// To be called a few times a second at least: draws, flushes, keeps the manifest up to date.
    pub(crate) fn tick(&mut self, session: &Session) -> anyhow::Result<()> {
        if session.note_was_cut() && !self.warned {
            self.warned = true;
            self.warn(NOTE_WAS_CUT);
        }
        if let Some(message) = self.standstill.tick(session, self.events) {
            self.warn(&message);
        }
        self.live.tick(session, self.events);
        match &mut self.target {
            Target::Recording(recorder) => {
                describe(session, recorder.manifest_mut());
                recorder.tick()?;
            }
            Target::Text(out) | Target::Json(out) => out.flush()?,
            Target::Nothing => {}
        }
        Ok(())
    }

    fn warn(&self, message: &str) {
        self.live.clear();
        // A closed standard error is no reason to stop watching.
        let _ = writeln!(std::io::stderr(), "hypovisor: warning: {message}");
    }

    /// Writes what is left. A recording is complete then.
    pub(crate) fn finish(self) -> anyhow::Result<Option<Manifest>> {
        self.live.clear();
        match self.target {
            Target::Recording(recorder) => Ok(Some(recorder.finish()?)),
            Target::Text(mut out) | Target::Json(mut out) => {
                out.flush()?;
                Ok(None)
            }
            Target::Nothing => Ok(None),
        }
    }
}

impl CallSink for Output {
    type Error = anyhow::Error;

    fn call(&mut self, call: &Call<'_>) -> anyhow::Result<()> {
        self.events += 1;
        match &mut self.target {
            Target::Recording(recorder) => recorder.call(call)?,
            Target::Text(out) => {
                self.line.clear();
                event_line::write_line(&mut self.line, call, Detail::Line);
                self.line.push('\n');
                out.write_all(self.line.as_bytes())?;
            }
            Target::Json(out) => {
                self.line.clear();
                event_json::write_line(&mut self.line, call, None);
                self.line.push('\n');
                out.write_all(self.line.as_bytes())?;
            }
            Target::Nothing => {}
        }
        Ok(())
    }

    fn loss(&mut self, loss: &Loss) -> anyhow::Result<()> {
        if let Target::Recording(recorder) = &mut self.target {
            recorder.loss(loss)?;
        }
        Ok(())
    }
}

/// Copies what the session knows into the manifest.
fn describe(session: &Session, manifest: &mut Manifest) {
    let note = session.note();
    if let Some(profile) = &note.profile
        && manifest.xen_version.is_empty()
    {
        manifest.xen_version = profile.version.clone().unwrap_or_default();
        manifest.profile_source = match &profile.symbols {
            SymbolSource::File(path) => path.clone(),
            SymbolSource::Embedded => "the image's own symbol table".to_owned(),
        };
    }
    manifest.hit_cost_ns = session.hit_cost_ns();
    manifest.domains = note.domains.iter().cloned().collect();
    for (pcpu, counters) in session.counters().enumerate() {
        let shown = manifest.pcpu_mut(pcpu as u32);
        (shown.lost_calls, shown.lost_results) = (counters.lost_calls, counters.lost_results);
        shown.waits = counters.waits;
    }
}
