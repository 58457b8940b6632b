//! Measures the recorder alone: `record_speed [EVENTS] [DIRECTORY] [own-thread] [write-only]`.
//!
//! The events are made up but shaped like a busy host's: three domains on four CPUs, a few call sites, 60 % of the
//! calls without memory, 40 % with 16 to 200 bytes of it. They are prepared beforehand, so that what is measured
//! is the recorder.

use std::path::PathBuf;
use std::time::Instant;

use hypovisor_abi::Width;
use hypovisor_abi::capture::Registers;
use hypovisor_engine::call::{Call, CallId, CallSink as _, Outcome};
use hypovisor_engine::recording::{Manifest, Recorder, RecorderOptions, Recording};
use hypovisor_event::record::{Caller, CallerMode};
use hypovisor_event::verdict::Intervention;

/// Distinct calls that go round.
const SAMPLES: usize = 4096;
/// Ticks come this often, in calls.
const TICK_CALLS: u64 = 4096;

/// A small generator of random numbers (xorshift64*).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, end: u64) -> u64 {
        (self.next() >> 33) % end
    }
}

struct Sample {
    caller: Caller,
    registers: Registers,
    memory: Vec<u8>,
    outcome: Outcome,
    duration_ns: u64,
}

fn sample(random: &mut Random) -> Sample {
    const CALLS: [u64; 8] = [1, 3, 12, 13, 17, 29, 32, 41];
    let domain = random.below(3) as u16;
    let address = 0xffff_8880_0000_0000 + random.below(1 << 30);
    let rip = 0xffff_ffff_8100_0000 + random.below(24) * 32;
    let number = CALLS[random.below(8) as usize];
    let failed = random.below(50) == 0;
    Sample {
        caller: Caller {
            domain,
            vcpu: 0,
            mode: CallerMode::Pv64,
            cpl: 3,
            cs: 0xe033,
            rip,
            rsp: address & !7,
        },
        registers: Registers {
            number,
            args: [random.below(10), address, random.below(4), 0x7ff0, 0, random.next()],
            width: Width::Bits64,
        },
        memory: memory(random, address),
        outcome: Outcome::Returned(if failed { -22 } else { 0 }),
        duration_ns: 300 + random.below(4000),
    }
}

fn memory(random: &mut Random, gva: u64) -> Vec<u8> {
    if random.below(10) < 6 {
        return Vec::new();
    }
    let len = (16 + random.below(185)) as usize;
    let mut segment = Vec::new();
    segment.extend_from_slice(&gva.to_le_bytes());
    segment.extend_from_slice(&(len as u32).to_le_bytes());
    segment.extend_from_slice(&(len as u32).to_le_bytes());
    // Structs in a guest's memory are numbers, most of them small.
    let words = (0..len.div_ceil(8)).map(|_| random.below(5000));
    words.for_each(|word| segment.extend_from_slice(&word.to_le_bytes()));
    segment
}

fn record(
    recorder: &mut Recorder,
    samples: &[Sample],
    events: u64,
) -> Result<(), Box<dyn std::error::Error>> {
    for event in 0..events {
        let sample = &samples[(event.wrapping_mul(2654435761) >> 7) as usize % samples.len()];
        let call = Call {
            id: CallId { pcpu: (event & 3) as u32, sequence: event >> 2 },
            time_ns: 1_700_000_000_000_000_000 + (event * 483) as i64,
            duration_ns: Some(sample.duration_ns),
            caller: sample.caller,
            parent: None,
            continues: None,
            registers: sample.registers,
            entry_segments: &sample.memory,
            exit_segments: &[],
            cut: false,
            intervention: Intervention::default(),
            outcome: sample.outcome,
        };
        recorder.call(&call)?;
        if event % TICK_CALLS == 0 {
            recorder.tick()?;
        }
    }
    Ok(())
}

fn peak_rss() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmHWM"));
    line.unwrap_or("VmHWM: unknown").split_whitespace().skip(1).collect::<Vec<_>>().join(" ")
}

/// Seconds that the calling thread has run.
fn thread_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanoseconds = stat.split_whitespace().next().and_then(|word| word.parse::<f64>().ok());
    nanoseconds.unwrap_or(0.0) / 1e9
}

#[allow(clippy::print_stdout, reason = "an example's output")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let events: u64 = arguments.next().map_or(Ok(10_000_000), |count| count.parse())?;
    let dir = arguments.next().map_or_else(|| PathBuf::from("/tmp/hypovisor-record-speed"), PathBuf::from);
    let options: Vec<String> = arguments.collect();
    let chosen = |word: &str| options.iter().any(|option| option == word);
    let own_thread = chosen("own-thread");
    if dir.join("recording.json").exists() {
        std::fs::remove_dir_all(&dir)?;
    }
    let mut random = Random(88_172_645_463_325_252);
    let samples: Vec<Sample> = (0..SAMPLES).map(|_| sample(&mut random)).collect();
    println!("peak RSS before:  {}", peak_rss());

    let recorder_options = RecorderOptions { own_thread, ..RecorderOptions::default() };
    let (started, ran) = (Instant::now(), thread_seconds());
    let mut recorder = Recorder::create(&dir, Manifest::default(), recorder_options)?;
    record(&mut recorder, &samples, events)?;
    let fed = started.elapsed();
    let manifest = recorder.finish()?;
    let ran = thread_seconds() - ran;
    let whole = started.elapsed();
    let recording = Recording::open(&dir)?;
    let bytes: u64 =
        recording.segments()?.iter().filter_map(|path| path.metadata().ok()).map(|data| data.len()).sum();
    println!("recorded:         {} calls in {} segments", manifest.events, manifest.segments);
    println!("feeding:          {:.2} M calls/s", events as f64 / fed.as_secs_f64() / 1e6);
    println!("until finished:   {:.2} M calls/s", events as f64 / whole.as_secs_f64() / 1e6);
    println!(
        "thread's own time: {:.2} M calls/s, {:.0} ns a call",
        events as f64 / ran / 1e6,
        ran * 1e9 / events as f64
    );
    println!("on disk:          {:.1} bytes a call", bytes as f64 / events as f64);
    println!("peak RSS writing: {}", peak_rss());
    if chosen("write-only") {
        return Ok(());
    }
    let started = Instant::now();
    let read = recording.calls()?.try_fold(0_u64, |count, call| call.map(|_| count + 1))?;
    println!(
        "read back:        {read} calls, {:.2} M calls/s",
        read as f64 / started.elapsed().as_secs_f64() / 1e6
    );
    println!("peak RSS in all:  {}", peak_rss());
    Ok(())
}
