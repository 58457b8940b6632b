//! How fast the engine is, on real calls: `engine_speed RECORDING CALLS [RULES]`.
//!
//! Replays a recording's calls through a real ring, again and again until so many have passed, and does with each
//! what the engine does (drain, pair, learn, record) and decodes every field of it besides; with rules, it is judged by
//! them. All on one thread; filling the ring is not counted. Prints one JSON object.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use hypovisor_abi::decode::{Group, Missing, Sink, Value, decode};
use hypovisor_abi::xen::XEN;
use hypovisor_abi::{Scalar, SubOp};
use hypovisor_engine::alert::{AlertError, AlertSink, Alerter, Detection, Report};
use hypovisor_engine::call::{Call, CallSink, Loss};
use hypovisor_engine::clock::Clock;
use hypovisor_engine::domains::Domains;
use hypovisor_engine::drain::Drain;
use hypovisor_engine::recording::{
    Manifest, RecordedCall, Recorder, RecorderOptions, Recording, RecordingError,
};
use hypovisor_event::record::{self, ENTRY_BYTES, Entry, Exit, Kind, PREEMPTED_BYTES};
use hypovisor_event::ring::Producer;
use hypovisor_event::verdict::Intervention;
use hypovisor_event::{RingGeometry, Rings};
use hypovisor_machine::clock::now_ticks;
use hypovisor_rules::Rules;

/// Calls taken from the recording.
const SAMPLE: usize = 200_000;
/// Ring size: that of the plugin.
const RING_BYTES: u64 = 64 << 20;
/// Calls put into the ring before it is drained.
const FILL: usize = 20_000;

type AnyError = Box<dyn std::error::Error>;

fn main() -> Result<(), AnyError> {
    let mut arguments = std::env::args().skip(1);
    let usage = "usage: engine_speed RECORDING CALLS [RULES]";
    let recording = PathBuf::from(arguments.next().ok_or(usage)?);
    let wanted: u64 = arguments.next().ok_or(usage)?.parse()?;
    let rules = arguments.next().map(|dir| Rules::load(Path::new(&dir))).transpose()?;
    let sample: Vec<RecordedCall> =
        Recording::open(&recording)?.calls()?.take(SAMPLE).collect::<Result<_, _>>()?;
    let rings = Rings::create(RingGeometry::new(1, RING_BYTES))?;
    let scratch = tempfile::tempdir()?;
    let alerter =
        rules.map(|rules| Alerter::replaying(Detection::default().with_rules(rules.into()), Vec::new()));
    let (spent, passed, fields) = replay(&rings, &sample, wanted, scratch.path(), alerter)?;
    let report = serde_json::json!({
        "events": passed,
        "events_per_s": passed as f64 / spent.as_secs_f64(),
        "fields_decoded": fields,
        "peak_rss_bytes": peak_rss_bytes().unwrap_or(0),
    });
    use std::io::Write as _;
    writeln!(std::io::stdout(), "{report}")?;
    Ok(())
}

fn replay(
    rings: &Rings,
    sample: &[RecordedCall],
    wanted: u64,
    scratch: &Path,
    alerter: Option<Alerter<Vec<Report>>>,
) -> Result<(Duration, u64, u64), AnyError> {
    let mut producer = rings.producer(0)?;
    let mut drain = Drain::new(vec![rings.consumer(0)?]);
    let clock = Clock::measure();
    let recorder = Recorder::create(&scratch.join("r"), Manifest::default(), RecorderOptions::default())?;
    let inner = Engine { recorder, domains: Domains::default(), calls: 0, fields: Fields(0) };
    let mut sink = AlertSink { inner, alerter };
    let (mut spent, mut sequence) = (Duration::ZERO, 0);
    let mut source = sample.iter().cycle();
    while sink.inner.calls < wanted {
        for call in source.by_ref().take(FILL) {
            put(&mut producer, call, sequence);
            sequence += 1;
        }
        let start = Instant::now();
        drain.finish(&clock, &mut sink)?;
        sink.inner.recorder.tick()?;
        spent += start.elapsed();
        remove_old_segments(&scratch.join("r"))?;
    }
    let start = Instant::now();
    sink.inner.recorder.finish()?;
    Ok((spent + start.elapsed(), sink.inner.calls, sink.inner.fields.0))
}

/// Ten million calls would fill the disk: what is written is written, and then removed.
fn remove_old_segments(dir: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "parquet") {
            std::fs::remove_file(path)?;
        }
    }
    Ok(())
}

/// Writes a call as the sensor would: its entry, then its exit.
fn put(producer: &mut Producer, call: &RecordedCall, sequence: u64) {
    let caller = call.caller;
    let time_ticks = now_ticks();
    let (number, args) = (call.registers.number, call.registers.args);
    let entry = Entry {
        sequence,
        time_ticks,
        caller,
        parent: None,
        number,
        args,
        intervention: Intervention::default(),
    };
    let len = ENTRY_BYTES + call.entry_memory.len();
    let Some(buf) = producer.reserve(len) else { return };
    if let Some((fixed, rest)) = buf.split_first_chunk_mut() {
        record::write_entry(fixed, &entry);
        rest.copy_from_slice(&call.entry_memory);
    }
    record::finish(buf, record::head(len, Kind::Entry, 0, caller.mode, caller.cpl));
    producer.publish(len);

    let Some(buf) = producer.reserve(PREEMPTED_BYTES + call.exit_memory.len()) else { return };
    let exit = Exit { sequence, time_ticks, result: call.outcome.result().unwrap_or(0), reissue: None };
    let fixed = buf.first_chunk_mut().map_or(0, |fixed| record::write_exit(fixed, &exit));
    let len = fixed + call.exit_memory.len();
    buf[fixed..len].copy_from_slice(&call.exit_memory);
    record::finish(buf, record::head(len, Kind::Exit, 0, caller.mode, 0));
    producer.publish(len);
}

/// What may go wrong with a call.
#[derive(Debug, thiserror::Error)]
enum Failed {
    #[error(transparent)]
    Recording(#[from] RecordingError),
    #[error(transparent)]
    Alert(#[from] AlertError),
}

/// What is done with each call.
struct Engine {
    recorder: Recorder,
    domains: Domains,
    calls: u64,
    fields: Fields,
}

impl CallSink for Engine {
    type Error = Failed;

    fn call(&mut self, call: &Call<'_>) -> Result<(), Failed> {
        self.calls += 1;
        self.domains.learn(call);
        decode(&XEN, &call.captured(), &mut self.fields);
        Ok(self.recorder.call(call)?)
    }

    fn loss(&mut self, loss: &Loss) -> Result<(), Failed> {
        Ok(self.recorder.loss(loss)?)
    }
}

/// Counts fields, so that decoding them has a use.
struct Fields(u64);

impl Sink for Fields {
    fn scalar(&mut self, _: &'static str, _: &Scalar, value: Value) {
        self.0 += 1 + u64::from(value.before == value.after);
    }
    fn sub_op(&mut self, _: &'static str, _: u64, _: Option<&'static SubOp>) {
        self.0 += 1;
    }
    fn text(&mut self, _: &'static str, bytes: &[u8]) {
        self.0 += u64::from(!bytes.is_empty());
    }
    fn bytes(&mut self, _: &'static str, _: &[u8], _: u64) {
        self.0 += 1;
    }
    fn pointer(&mut self, _: &'static str, _: u64, _: Missing) {
        self.0 += 1;
    }
    fn open(&mut self, _: &'static str, _: Group) {}
    fn close(&mut self, _: Group) {}
    fn elided(&mut self, _: u64) {}
}

fn peak_rss_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
}
