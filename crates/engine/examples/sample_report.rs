//! Makes up a recording of 200,000 calls and renders its report, to look at: `sample_report DIRECTORY`.

use std::path::PathBuf;

use hypovisor_abi::Width;
use hypovisor_abi::capture::Registers;
use hypovisor_engine::call::{Call, CallId, CallSink as _, Loss, Outcome};
use hypovisor_engine::domains::{Domain, DomainKind};
use hypovisor_engine::recording::{Manifest, Recorder, RecorderOptions, Recording};
use hypovisor_engine::report;
use hypovisor_engine::stats::{Stats, table};
use hypovisor_event::record::{Caller, CallerMode};
use hypovisor_event::verdict::Intervention;

const EVENTS: u64 = 200_000;
const START_NS: i64 = 1_795_000_000_000_000_000;
const SPAN_NS: f64 = 74e9;

/// Number, sub-op in the first argument, weight, typical nanoseconds, failures in 1000, errno.
type Kind = (u64, u64, u64, f64, u64, i64);

const KINDS: [Kind; 14] = [
    (29, 1, 300, 1900.0, 0, 0),
    (32, 4, 280, 1400.0, 2, -22),
    (13, 0, 140, 6500.0, 0, 0),
    (1, 0x7fff_0000_1000, 90, 4200.0, 1, -14),
    (26, 0x7fff_0000_2000, 60, 2600.0, 0, 0),
    (24, 7, 60, 1100.0, 0, 0),
    (14, 0x7fff_8000, 40, 900.0, 0, 0),
    (3, 0xffff_8000, 35, 700.0, 0, 0),
    (12, 7, 30, 23_000.0, 40, -1),
    (20, 5, 25, 38_000.0, 9, -3),
    (17, 0, 20, 600.0, 0, 0),
    (18, 0, 12, 15_000.0, 0, 0),
    (33, 15, 4, 5100.0, 300, -38),
    (4711, 0, 2, 450.0, 1000, -38),
];

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn share(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Normally distributed, about.
    fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.share()).sum::<f64>() - 6.0
    }

    fn pick<'a, T>(&mut self, of: &'a [T], weight: impl Fn(&T) -> f64) -> &'a T {
        let mut left = self.share() * of.iter().map(&weight).sum::<f64>();
        let found = of.iter().find(|item| {
            left -= weight(item);
            left <= 0.0
        });
        found.unwrap_or(&of[0])
    }
}

fn domains() -> Vec<Domain> {
    let names = [
        ("Domain-0", DomainKind::Pv),
        ("web-frontend", DomainKind::Pvh),
        ("postgres-primary", DomainKind::Pv),
        ("windows-build-agent-with-a-long-name", DomainKind::Hvm),
        ("<b>evil</b> & \"co\"", DomainKind::Pv),
        ("cache", DomainKind::Pvh),
        ("mail", DomainKind::Pvh),
        ("dom7", DomainKind::Unknown),
    ];
    let domain = |(id, (name, kind)): (usize, (&str, DomainKind))| Domain {
        id: id as u16,
        name: name.to_owned(),
        kind,
    };
    names.into_iter().enumerate().map(domain).collect()
}

/// How busy a domain is at a point of the recording.
fn load(domain: u16, at: f64) -> f64 {
    match domain {
        0 => 3.0 + (at * 20.0).sin(),
        1 => 2.0 * (at * 6.0).sin().abs(),
        2 => {
            if (0.3..0.6).contains(&at) {
                6.0
            } else {
                0.8
            }
        }
        3 => {
            if at > 0.5 {
                1.5
            } else {
                0.0
            }
        }
        4 => {
            if (0.8..0.83).contains(&at) {
                9.0
            } else {
                0.05
            }
        }
        5 => 0.4,
        6 => 0.2,
        _ => 0.02,
    }
}

fn record(recorder: &mut Recorder, random: &mut Random) -> Result<(), Box<dyn std::error::Error>> {
    let ids: Vec<u16> = (0..8).collect();
    for sequence in 0..EVENTS {
        let at = sequence as f64 / EVENTS as f64;
        let time = at + 0.05 * (at * 31.0).sin() * at * (1.0 - at);
        let domain = *random.pick(&ids, |id| load(*id, at));
        let &(number, first, _, typical, failing, errno) = random.pick(&KINDS, |kind| kind.2 as f64);
        let slow = if random.share() < 0.02 { 12.0 } else { 1.0 };
        let duration = typical * slow * (random.normal() * 0.35).exp();
        let failed = random.next() % 1000 < failing;
        let call = Call {
            id: CallId { pcpu: (sequence % 4) as u32, sequence: sequence / 4 },
            time_ns: START_NS + (time * SPAN_NS) as i64,
            duration_ns: Some(duration as u64),
            caller: Caller {
                domain,
                vcpu: 0,
                mode: CallerMode::Pv64,
                cpl: 3,
                cs: 0xe033,
                rip: 0xffff_ffff_8100_13aa,
                rsp: 0,
            },
            parent: None,
            continues: None,
            registers: Registers {
                number,
                args: [first, 0x7ffe_1000, 2, 0x7ff0, 0, 0],
                width: Width::Bits64,
            },
            entry_segments: &[],
            exit_segments: &[],
            cut: false,
            intervention: Intervention::default(),
            outcome: Outcome::Returned(if failed { errno } else { 0 }),
        };
        recorder.call(&call)?;
    }
    Ok(recorder.loss(&Loss { pcpu: 2, time_ns: START_NS, first_sequence: 5, calls: 37, results: 2 })?)
}

#[allow(clippy::print_stdout, reason = "an example's output")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = PathBuf::from(std::env::args().nth(1).ok_or("usage: sample_report DIRECTORY")?);
    let manifest = Manifest {
        xen_version: "4.17.5".to_owned(),
        profile_source: "symbols of xen-syms-4.17-amd64.map, checked against memory".to_owned(),
        qemu_command: ["qemu-system-x86_64", "-machine", "q35", "-cpu", "EPYC", "-smp", "4", "-m", "4G"]
            .map(str::to_owned)
            .into(),
        plugin_api: 4,
        vcpus: 4,
        domains: domains(),
        ..Manifest::default()
    };
    let mut recorder = Recorder::create(&dir, manifest, RecorderOptions::default())?;
    record(&mut recorder, &mut Random(88_172_645_463_325_252))?;
    let finished = recorder.finish()?;
    // The made-up times, instead of the moment it took to make them up.
    let manifest = Manifest { start_time_ns: START_NS, end_time_ns: START_NS + SPAN_NS as i64, ..finished };
    let stats = Stats::from_calls(Recording::open(&dir)?.calls()?)?;
    print!("{}", table(&stats.summary(&manifest)));
    std::fs::write(dir.join("report.html"), report::html(&manifest, &stats))?;
    println!("\n{}", dir.join("report.html").display());
    Ok(())
}
