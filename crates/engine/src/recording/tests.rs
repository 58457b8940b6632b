//! Round trips, and what is left behind when things go wrong.

use std::fs;
use std::path::Path;
use std::time::Duration;

use hypovisor_abi::Width;
use hypovisor_abi::capture::Registers;
use hypovisor_event::record::{Caller, CallerMode};
use hypovisor_event::verdict::{Intervention, Verdict};
use proptest::prelude::*;

use super::*;
use crate::call::{Call, CallId, CallSink as _, Loss, Outcome};

#[derive(Clone, Debug)]
struct OwnedCall {
    id: CallId,
    time_ns: i64,
    duration_ns: Option<u64>,
    caller: Caller,
    parent: Option<u64>,
    continues: Option<CallId>,
    number: u64,
    args: [u64; 6],
    memory: (Vec<u8>, Vec<u8>),
    cut: bool,
    intervention: Intervention,
    outcome: Outcome,
}

impl OwnedCall {
    fn call(&self) -> Call<'_> {
        let width = if self.caller.mode.is_64_bit() { Width::Bits64 } else { Width::Bits32 };
        Call {
            id: self.id,
            time_ns: self.time_ns,
            duration_ns: self.duration_ns,
            caller: self.caller,
            parent: self.parent.map(|sequence| CallId { pcpu: self.id.pcpu, sequence }),
            continues: self.continues,
            registers: Registers { number: self.number, args: self.args, width },
            entry_segments: &self.memory.0,
            exit_segments: &self.memory.1,
            cut: self.cut,
            intervention: self.intervention,
            outcome: self.outcome,
        }
    }
}

fn register() -> impl Strategy<Value = u64> {
    prop_oneof![3 => Just(0), 3 => 0..64_u64, 1 => any::<u64>(), 1 => Just(u64::MAX)]
}

fn memory() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![3 => Just(Vec::new()), 1 => prop::collection::vec(any::<u8>(), 1..300)]
}

fn outcome() -> impl Strategy<Value = Outcome> {
    let result = prop_oneof![Just(0), -4200..10_i64, any::<i64>()];
    prop_oneof![6 => result.prop_map(Outcome::Returned), 1 => Just(Outcome::Preempted), 1 => Just(Outcome::Unfinished)]
}

fn intervention() -> impl Strategy<Value = Intervention> {
    let verdict = prop::option::of(prop::sample::select(Verdict::ALL.to_vec()));
    (any::<bool>(), verdict).prop_map(|(injected, verdict)| Intervention { injected, verdict, rule: None })
}

prop_compose! {
    fn caller()(
        domain in any::<u16>(), vcpu in 0..300_u16, cpl in 0..4_u8, cs in any::<u16>(), rip in register(), rsp in register(),
        mode in prop::sample::select(vec![CallerMode::Pv64, CallerMode::Pv32, CallerMode::Hvm64, CallerMode::Hvm32]),
    ) -> Caller {
        Caller { domain, vcpu, mode, cpl, cs, rip, rsp }
    }
}

fn call_id() -> impl Strategy<Value = CallId> {
    (prop_oneof![0..4_u32, any::<u16>().prop_map(u32::from)], register())
        .prop_map(|(pcpu, sequence)| CallId { pcpu, sequence })
}

prop_compose! {
    fn owned_call()(
        id in call_id(), time_ns in any::<i64>(), duration_ns in prop::option::of(0..u64::MAX / 2), caller in caller(),
        parent in prop::option::of(register()), continues in prop::option::of(call_id()),
        number in prop_oneof![4 => 0..60_u64, 1 => any::<u64>()], args in prop::array::uniform6(register()),
        memory in (memory(), memory()), cut in any::<bool>(), outcome in outcome(), intervention in intervention(),
    ) -> OwnedCall {
        OwnedCall { id, time_ns, duration_ns, caller, parent, continues, number, args, memory, cut, intervention, outcome }
    }
}

fn plain_call(sequence: u64) -> OwnedCall {
    let caller =
        Caller { domain: 1, vcpu: 0, mode: CallerMode::Pv64, cpl: 3, cs: 0xe033, rip: 0x1000, rsp: 0x2000 };
    OwnedCall {
        id: CallId { pcpu: 0, sequence },
        time_ns: 1_000 + sequence as i64,
        duration_ns: Some(500),
        caller,
        parent: None,
        continues: None,
        number: 12,
        args: [7, 0, 0, 0, 0, 0],
        memory: (vec![7; 40], Vec::new()),
        cut: false,
        intervention: Intervention::default(),
        outcome: Outcome::Returned(-1),
    }
}

fn small_segments(calls: usize) -> RecorderOptions {
    RecorderOptions { segment_calls: calls, ..RecorderOptions::default() }
}

fn record(dir: &Path, calls: &[OwnedCall], options: RecorderOptions) -> Manifest {
    let mut recorder = Recorder::create(dir, Manifest::default(), options).unwrap();
    for call in calls {
        recorder.call(&call.call()).unwrap();
    }
    recorder.finish().unwrap()
}

fn read_back(dir: &Path) -> Vec<RecordedCall> {
    Recording::open(dir).unwrap().calls().unwrap().collect::<Result<_, _>>().unwrap()
}

fn same(recorded: &RecordedCall, original: &OwnedCall) -> bool {
    format!("{:?}", recorded.as_call()) == format!("{:?}", original.call())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn what_is_recorded_is_read(calls in prop::collection::vec(owned_call(), 0..600), own_thread: bool) {
        let dir = tempfile::tempdir().unwrap();
        let manifest = record(dir.path(), &calls, RecorderOptions { own_thread, ..small_segments(250) });
        prop_assert_eq!(manifest.events, calls.len() as u64);
        let read = read_back(dir.path());
        prop_assert_eq!(read.len(), calls.len());
        for (recorded, original) in read.iter().zip(&calls) {
            prop_assert!(same(recorded, original), "{:?}\nis not\n{:?}", recorded, original);
        }
    }
}

#[test]
fn names_are_those_of_the_tables() {
    let dir = tempfile::tempdir().unwrap();
    let unknown = OwnedCall { number: 4711, outcome: Outcome::Returned(-3999), ..plain_call(1) };
    record(dir.path(), &[plain_call(0), unknown], RecorderOptions::default());
    let read = read_back(dir.path());
    assert_eq!(
        (&*read[0].hypercall, read[0].sub_op.as_deref()),
        ("memory_op", Some("XENMEM_add_to_physmap"))
    );
    assert_eq!((read[0].sub_op_number, read[0].errno()), (Some(7), Some(1)));
    assert_eq!((&*read[1].hypercall, read[1].sub_op_number), ("hypercall_4711", None));
}

#[test]
fn a_second_engine_goes_on_behind_the_first() {
    let dir = tempfile::tempdir().unwrap();
    record(dir.path(), &[plain_call(0), plain_call(1)], small_segments(1));
    fs::write(dir.path().join(".calls-000003.parquet.tmp"), b"half").unwrap();
    let mut recorder = Recorder::resume(dir.path(), RecorderOptions::default()).unwrap();
    assert!(!dir.path().join(".calls-000003.parquet.tmp").exists());
    recorder.call(&plain_call(2).call()).unwrap();
    let manifest = recorder.finish().unwrap();
    assert_eq!((manifest.segments, manifest.events, manifest.pcpus[0].calls), (3, 3, 3));
    assert_eq!(read_back(dir.path()).iter().map(|call| call.id.sequence).collect::<Vec<_>>(), [0, 1, 2]);
}

#[test]
fn a_recording_is_not_overwritten_nor_shared() {
    let dir = tempfile::tempdir().unwrap();
    record(dir.path(), &[plain_call(0)], RecorderOptions::default());
    let again = Recorder::create(dir.path(), Manifest::default(), RecorderOptions::default());
    assert!(matches!(again, Err(RecordingError::Exists { .. })));
    let other = Manifest { engine_pid: std::os::unix::process::parent_id(), ..Manifest::default() };
    other.write(dir.path()).unwrap();
    let resumed = Recorder::resume(dir.path(), RecorderOptions::default());
    assert!(matches!(resumed, Err(RecordingError::InUse { .. })));
}

#[test]
fn a_call_is_flushed_when_its_time_has_come() {
    let dir = tempfile::tempdir().unwrap();
    let options = RecorderOptions { flush_after: Duration::ZERO, ..RecorderOptions::default() };
    let mut recorder = Recorder::create(dir.path(), Manifest::default(), options).unwrap();
    recorder.call(&plain_call(0).call()).unwrap();
    recorder.tick().unwrap();
    recorder.call(&plain_call(1).call()).unwrap();
    drop(recorder);
    // As after a kill: what was flushed is there, what was not is lost, and the manifest says `running`.
    assert_eq!(read_back(dir.path()).len(), 1);
    assert_eq!(Recording::open(dir.path()).unwrap().manifest().state, State::Running);
}

#[test]
fn a_hostile_number_of_names_only_ends_segments_early() {
    let dir = tempfile::tempdir().unwrap();
    let calls: Vec<_> = (0..70_000).map(|n| OwnedCall { number: 1000 + n, ..plain_call(n) }).collect();
    assert_eq!(record(dir.path(), &calls, RecorderOptions::default()).segments, 2);
    let read = read_back(dir.path());
    assert_eq!(read.len(), 70_000);
    assert_eq!(&*read[69_999].hypercall, "hypercall_70999");
}

#[test]
fn a_full_disk_is_an_error_and_leaves_no_half_segment() {
    for own_thread in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let options = RecorderOptions { own_thread, ..small_segments(1) };
        let mut recorder = Recorder::create(dir.path(), Manifest::default(), options).unwrap();
        std::os::unix::fs::symlink("/dev/full", dir.path().join(".calls-000001.parquet.tmp")).unwrap();
        let failed = (0..50).find_map(|n| {
            std::thread::sleep(Duration::from_millis(1));
            recorder.call(&plain_call(n).call()).err()
        });
        let error = failed.unwrap();
        assert!(
            matches!(&error, RecordingError::Write { path, source }
            if path.ends_with(".calls-000001.parquet.tmp") && source.kind() == std::io::ErrorKind::StorageFull),
            "{error}"
        );
        assert!(matches!(recorder.tick(), Err(RecordingError::Ended { .. })));
        drop(recorder);
        assert!(!dir.path().join(".calls-000001.parquet.tmp").exists());
        assert!(!dir.path().join("calls-000001.parquet").exists());
    }
}

#[test]
fn an_unwritable_place_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, b"").unwrap();
    let error = Recorder::create(&file.join("recording"), Manifest::default(), RecorderOptions::default());
    assert!(matches!(error, Err(RecordingError::Write { path, .. }) if path.starts_with(&file)));
}

#[test]
fn losses_are_kept_and_counted() {
    let dir = tempfile::tempdir().unwrap();
    let mut recorder = Recorder::create(dir.path(), Manifest::default(), RecorderOptions::default()).unwrap();
    let loss = Loss { pcpu: 2, time_ns: 5, first_sequence: 9, calls: 3, results: 1 };
    recorder.loss(&loss).unwrap();
    recorder.loss(&loss).unwrap();
    assert_eq!(recorder.finish().unwrap().pcpus[2].lost_calls, 6);
    let losses = Recording::open(dir.path()).unwrap().losses().unwrap();
    assert_eq!(losses, [RecordedLoss::from(&loss); 2]);
}

#[test]
fn followers_see_later_segments_and_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let mut recorder = Recorder::create(dir.path(), Manifest::default(), small_segments(1)).unwrap();
    recorder.call(&plain_call(0).call()).unwrap();
    let follower = Recording::open(dir.path()).unwrap().follow().unwrap();
    let reading =
        std::thread::spawn(move || follower.map(|call| call.unwrap().id.sequence).collect::<Vec<_>>());
    for sequence in 1..5 {
        std::thread::sleep(Duration::from_millis(60));
        recorder.call(&plain_call(sequence).call()).unwrap();
    }
    recorder.finish().unwrap();
    assert_eq!(reading.join().unwrap(), [0, 1, 2, 3, 4]);
}

#[test]
fn followers_end_with_a_killed_engine() {
    let dir = tempfile::tempdir().unwrap();
    record(dir.path(), &[plain_call(0)], RecorderOptions::default());
    let mut gone = std::process::Command::new("true").spawn().unwrap();
    gone.wait().unwrap();
    Manifest { engine_pid: gone.id(), ..Manifest::default() }.write(dir.path()).unwrap();
    assert_eq!(Recording::open(dir.path()).unwrap().follow().unwrap().count(), 1);
}

#[test]
fn manifests_of_others_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let open = |text: &str| {
        fs::write(dir.path().join(MANIFEST), text).unwrap();
        Recording::open(dir.path()).map(|recording| recording.manifest().clone())
    };
    assert!(matches!(Recording::open(Path::new("/nonexistent")), Err(RecordingError::Read { .. })));
    assert!(matches!(Recording::open(dir.path()), Err(RecordingError::NotARecording { .. })));
    assert!(matches!(open("{"), Err(RecordingError::Manifest { .. })));
    assert!(matches!(open(r#"{"format":"other","version":1}"#), Err(RecordingError::Manifest { .. })));
    let later = open(r#"{"format":"hypovisor-recording","version":9}"#);
    assert!(matches!(later, Err(RecordingError::Version { found: 9, known: 1, .. })));
    let sparse =
        open(r#"{"format":"hypovisor-recording","version":1,"domains":[{"id":1,"type":"later"}],"new":0}"#);
    assert_eq!(sparse.unwrap().domains[0].kind, crate::domains::DomainKind::Unknown);
}

#[test]
fn damaged_segments_are_errors_that_name_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let calls: Vec<_> = (0..300).map(plain_call).collect();
    record(dir.path(), &calls, RecorderOptions::default());
    let path = dir.path().join("calls-000001.parquet");
    let whole = fs::read(&path).unwrap();
    let read = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        Recording::open(dir.path()).unwrap().calls().unwrap().collect::<Result<Vec<_>, _>>()
    };
    for end in (0..whole.len()).step_by(29) {
        let error = read(&whole[..end]).unwrap_err();
        assert!(
            matches!(&error, RecordingError::Segment { path: named, .. } if *named == path),
            "{end}: {error}"
        );
    }
    // A flipped bit may change a value without a trace, but nothing worse may come of it.
    for at in (0..whole.len()).step_by(11) {
        let mut damaged = whole.clone();
        damaged[at] ^= 1 << (at % 8);
        if let Err(error) = read(&damaged) {
            assert!(matches!(error, RecordingError::Segment { .. }), "{at}: {error}");
        }
    }
    assert!(matches!(read(b"not a parquet file at all"), Err(RecordingError::Segment { .. })));
    assert_eq!(read(&whole).unwrap().len(), 300);
}
