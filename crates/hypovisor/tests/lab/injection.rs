//! Calls injected into running guests return what they should, and the guests are as if nothing had been.

use std::time::Duration;

use hypovisor_engine::remote::{Ended, Engine, InjectionRequest, Request, Status};

use crate::support::{Driven, LabRun, is_kvm, one_machine, run};

/// Runs these guests, which look at themselves after every call of their own, with `more` in their configuration, and shows
/// what they found.
fn script(guests: &str, more: &str) -> String {
    format!(
        "set -e
for guest in {guests}; do
    xl create /lab/files/$guest.cfg {more} >&2
    echo ready $(xl domid $guest)
    tries=0
    while xl domid $guest >/dev/null 2>&1; do
        tries=$((tries + 1)); [ $tries -lt 1200 ]; sleep 0.1
    done
    cat /var/log/xen/console/guest-$guest.log
done
"
    )
}
/// Destroys a guest amid what is injected into it, and runs another one to its end.
const DEATH: &str = "set -e
for calls in 1000000000 2000000; do
    xl create /lab/files/intact-pv.cfg extra=\\\"calls=$calls\\\" >&2
    echo ready $(xl domid intact-pv)
    [ $calls = 2000000 ] || { sleep 4; xl destroy intact-pv; }
done
while xl domid intact-pv >/dev/null 2>&1; do sleep 0.1; done
cat /var/log/xen/console/guest-intact-pv.log
";
/// `XENVER_version` of Xen 4.20.
const VERSION: i64 = 0x4_0014;
/// Injections that are sent before the first has to have ended.
const PIPELINE: u64 = 100;

/// A call, and what it returns in an unprivileged guest.
struct Sample {
    number: u64,
    registers: [u64; 6],
    memory: Vec<u8>,
    /// The register that points to `memory`.
    pointer: Option<u8>,
    result: i64,
}

impl Sample {
    fn plain(number: u64, first: u64, result: i64) -> Self {
        Self { number, registers: [first, 0, 0, 0, 0, 0], memory: Vec::new(), pointer: None, result }
    }

    fn request(&self, id: u64, domain: u16) -> InjectionRequest {
        InjectionRequest {
            id,
            domain,
            vcpu: None,
            is_64_bit: true,
            number: self.number,
            registers: self.registers,
            memory: self.memory.clone(),
            registers_to: self.pointer.into_iter().map(|register| (register, 0)).collect(),
            memory_to: Vec::new(),
        }
    }
}

/// Without memory, with memory that Xen writes, refused, unknown, and long enough to be preempted now and then.
fn samples() -> [Sample; 5] {
    let version = [17, 0, 0, 0, 0, 0, 0, 0_u64];
    let multicall = std::iter::repeat_n(version, 16).flatten().flat_map(u64::to_le_bytes).collect();
    [
        Sample::plain(17, 0, VERSION),
        Sample { memory: vec![0; 16], pointer: Some(1), ..Sample::plain(17, 1, 0) },
        Sample::plain(36, 0, -14),
        Sample::plain(55, 1, -38),
        Sample { number: 13, registers: [0, 16, 0, 0, 0, 0], memory: multicall, pointer: Some(0), result: 0 },
    ]
}

/// So many calls, the samples in turn; every one has to end with the right result.
fn inject(engine: &mut Engine, domain: u16, count: u64) {
    let samples = samples();
    let sample = |id: u64| &samples[(id % samples.len() as u64) as usize];
    let send = |engine: &mut Engine, id| {
        if id < count {
            engine.ask(&Request::Inject(sample(id).request(id, domain))).unwrap();
        }
    };
    (0..PIPELINE).for_each(|id| send(engine, id));
    for ended in 0..count {
        send(engine, ended + PIPELINE);
        let ended: Ended = serde_json::from_value(engine.answer().unwrap()).unwrap();
        assert_eq!((ended.status, ended.result), (Status::Done, Some(sample(ended.id).result)), "{ended:?}");
    }
}

/// The samples in turn, until one is not made or the engine is gone: how many were, and how it ended. Those that were made
/// have to have the right result.
fn inject_until_the_end(engine: &mut Engine, domain: u16) -> (u64, Option<Status>) {
    let samples = samples();
    let sample = |id: u64| &samples[(id % samples.len() as u64) as usize];
    let mut made = 0;
    for id in 0.. {
        if engine.ask(&Request::Inject(sample(id).request(id, domain))).is_err() {
            break;
        }
        if id < PIPELINE {
            continue;
        }
        let Ok(answer) = engine.answer() else { break };
        let ended: Ended = serde_json::from_value(answer).unwrap();
        if ended.status != Status::Done {
            return (made, Some(ended.status));
        }
        assert_eq!(ended.result, Some(sample(ended.id).result), "{ended:?}");
        made += 1;
    }
    (made, None)
}

#[test]
fn a_domain_may_die_amid_injections() {
    let _machine = one_machine();
    let dir = tempfile::tempdir().unwrap();
    let mut run = LabRun::start(dir.path(), DEATH, &[]);
    let domain = |ready: String| ready.trim_start_matches("ready ").parse().unwrap();
    let dies = domain(run.next_line("ready "));
    let (made, end) = inject_until_the_end(&mut run.engine(), dies);
    assert_eq!(end, Some(Status::DomainGone));
    assert!(made > 1000, "only {made} were made before the domain died");
    let lives = domain(run.next_line("ready "));
    inject(&mut run.engine(), lives, 1000);
    let found = run.next_line("intact: calls=");
    assert!(found.contains("differences=0 "), "{found}");
    assert!(run.wait().success());
}

#[test]
fn an_engine_killed_amid_injections_leaves_its_vcpu_to_the_guest() {
    let _machine = one_machine();
    let dir = tempfile::tempdir().unwrap();
    let recording = dir.path().join("recording");
    let machine = Driven::new(dir.path(), &script("intact-pv", ""));
    std::thread::scope(|scope| {
        let mut engine = machine.start(&recording);
        let driven = scope.spawn(|| machine.drive());
        let domain = machine.wait_for("ready ").parse().unwrap();
        let mut client = machine.engine();
        let injector = scope.spawn(move || inject_until_the_end(&mut client, domain));
        std::thread::sleep(Duration::from_secs(2));
        engine.kill().unwrap();
        engine.wait().unwrap();
        let (made, end) = injector.join().unwrap();
        assert_eq!(end, None);
        assert!(made > 500, "only {made} were made before the engine was killed");
        let second = scope.spawn(|| run(machine.attach().arg(&recording), 0));
        inject(&mut machine.engine(), domain, 500);
        let found = machine.wait_for("intact: calls=");
        assert!(found.contains("differences=0 "), "{found}");
        driven.join().unwrap().expect("the machine came to its own end");
        second.join().unwrap();
    });
}

#[test]
fn a_guest_is_as_before_through_a_hundred_thousand_injections() {
    let _machine = one_machine();
    let dir = tempfile::tempdir().unwrap();
    // Under emulated KVM each call takes long, and an HVM guest's device model longer than anybody waits.
    let (guests, more, counts): (_, _, &[_]) = if is_kvm() {
        ("intact-pv intact-pvh", "extra=\\\"calls=300000\\\"", &[("PV", 10_000), ("PVH", 500)])
    } else {
        ("intact-pv intact-pvh intact-hvm", "", &[("PV", 100_000), ("PVH", 2_000), ("HVM", 2_000)])
    };
    let mut run = LabRun::start(dir.path(), &script(guests, more), &[]);
    let mut nobody = None;
    for (guest, count) in counts {
        let ready = run.next_line("ready ");
        let domain = ready.trim_start_matches("ready ").parse().unwrap();
        let mut engine = run.engine();
        // One that nobody can make is waited for meanwhile; the machine may end sooner than that once the last guest has.
        nobody.get_or_insert_with(|| {
            let mut other = run.engine();
            std::thread::spawn(move || other.inject(samples()[0].request(0, 4711)).unwrap())
        });
        inject(&mut engine, domain, *count);
        let found = run.next_line("intact: calls=");
        assert!(found.contains("differences=0 "), "{guest}: {found}");
    }
    let nobody = nobody.unwrap().join().unwrap();
    assert_eq!((nobody.status, nobody.result), (Status::TimedOut, None));
    assert!(run.wait().success());
}
