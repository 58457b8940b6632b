//! L1 is attacked, and each attack has to be told by its name; as long as nobody does, nothing may be told.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use hypovisor_engine::qmp::Qmp;
use hypovisor_engine::remote::Request;
use hypovisor_machine::Gva;
use serde_json::{Value, json};

use crate::attacker::Attacker;
use crate::support::{LabRun, hypovisor, is_kvm, one_machine, run, text};

/// Leaves time for attacks, and says when a domain runs that can be hidden.
const SCRIPT: &str = "set -e
xl create /lab/files/hold-pv.cfg >&2
xl list >&2
echo ready $(xl domid hold-pv)
sleep 600
";
/// How long an attack may go unseen, by far.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A handler that nobody in the lab calls: under KVM Xen would run into what is written there. No guest is hardware-virtualised
/// either, and none is 32-bit code that enters by the second stub.
pub(crate) const HANDLER: &str = "do_xenpmu_op";
/// Where a task segment has the stack that double faults are handled on: nobody needs it here.
const IST1: u64 = 36;
/// How far behind the first stub, for 64-bit code, the second one stands.
const CSTAR_STUB: u64 = 32;

const WRITABLE: u64 = 1 << 1;
const NO_EXECUTE: u64 = 1 << 63;

/// What was told so far.
pub(crate) fn alerts(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// A watched machine, an attacker, and the alerts.
pub(crate) struct Scene {
    pub(crate) run: LabRun,
    pub(crate) attacker: Attacker,
    /// QEMU's monitor, and the file that Xen was made with.
    pub(crate) monitor: PathBuf,
    pub(crate) symbols: PathBuf,
    alerts: PathBuf,
    recording: PathBuf,
}

impl Scene {
    /// A machine in which dom0 runs this script, once that has said `ready`.
    pub(crate) fn new(dir: &Path, script: &str) -> Self {
        Self::with(dir, script, &[])
    }

    fn with(dir: &Path, script: &str, more: &[&str]) -> Self {
        let (alerts, recording) = (dir.join("alerts.json"), dir.join("recording"));
        let args: Vec<&OsStr> = [
            "--integrity".as_ref(),
            "--alerts".as_ref(),
            alerts.as_os_str(),
            "--record".as_ref(),
            recording.as_os_str(),
        ]
        .into_iter()
        .chain(more.iter().map(OsStr::new))
        .collect();
        let mut run = LabRun::start(dir, script, &args);
        run.next_line("ready");
        let manifest: Value =
            serde_json::from_slice(&std::fs::read(recording.join("recording.json")).unwrap()).unwrap();
        let path = |key: &str| PathBuf::from(manifest[key].as_str().unwrap());
        let (monitor, symbols) = (path("control_socket").with_file_name("qmp"), path("profile_source"));
        let attacker = Attacker::new(&monitor, &symbols);
        Self { run, attacker, monitor, symbols, alerts, recording }
    }

    pub(crate) fn alerts(&self) -> Vec<Value> {
        alerts(&self.alerts)
    }

    /// Waits until an alert of this kind tells of this place, after those that were there already.
    pub(crate) fn told(&self, before: usize, rule: &str, message: &str) -> Duration {
        let start = Instant::now();
        let is_it = |alert: &Value| {
            alert["rule"]["id"] == rule && alert["finding"]["message"].as_str().unwrap().contains(message)
        };
        while !self.alerts().iter().skip(before).any(is_it) {
            let new = &self.alerts()[before..];
            assert!(start.elapsed() < PATIENCE, "no {rule} with {message:?} was told, but {new:#?}");
            std::thread::sleep(Duration::from_millis(10));
        }
        start.elapsed()
    }

    /// Writes these bytes, waits for the alert, and puts the old ones back.
    fn overwrite(&self, at: Gva, bytes: &[u8], rule: &str, message: &str) {
        let (before, old) = (self.alerts().len(), self.attacker.read(at, bytes.len()));
        self.attacker.write(at, bytes);
        self.told(before, rule, message);
        self.attacker.write(at, &old);
        self.settle();
    }

    fn flip(&self, at: Gva, bits: u64, message: &str) {
        let before = self.alerts().len();
        self.attacker.flip_entry(at, bits);
        self.told(before, "integrity/page_tables", message);
        self.attacker.flip_entry(at, bits);
        self.settle();
    }

    /// Until whatever is put right again was seen to be.
    pub(crate) fn settle(&self) {
        std::thread::sleep(Duration::from_millis(if is_kvm() { 8000 } else { 2500 }));
    }

    fn check(&self, expected_code: i32) -> String {
        let args = ["check".as_ref(), "--stop".as_ref(), "--attach".as_ref(), self.recording.as_os_str()];
        text(&run(hypovisor().args(args), expected_code).stdout)
    }
}

#[test]
fn what_is_changed_in_xen_is_told_by_its_name() {
    let _machine = one_machine();
    let dir = tempfile::tempdir().unwrap();
    let scene = Scene::new(dir.path(), SCRIPT);
    let at = |name: &str| scene.attacker.address_of(name);
    assert!(scene.check(0).contains("no tampering was found"));
    assert_eq!(scene.alerts(), Vec::<Value>::new(), "nobody did anything yet");

    let handler = at(HANDLER).offset(16);
    scene.overwrite(handler, &[0xcc], "integrity/text", "1 byte at do_xenpmu_op+0x10");
    scene.overwrite(at("hvm_hypercall").offset(64), &[0x90], "integrity/text", "hvm_hypercall+0x40");
    scene.overwrite(at("__ro_after_init_end").offset(0x3000), &[0x5a], "integrity/constants", "changed");
    let wrong = at("do_console_io").offset(5).0.to_le_bytes();
    scene.overwrite(at("hvm_funcs").offset(0x108), &wrong, "integrity/pointers", "hvm_funcs");
    let gate = scene.attacker.cpu.idt.base.offset(16 * 3);
    scene.overwrite(gate, &[0x34, 0x12], "integrity/idt", "changed");
    let segment = scene.attacker.cpu.task.base;
    scene.overwrite(segment.offset(IST1), &wrong, "integrity/tss", "IST1 in the task segment");
    let stub = Gva(scene.attacker.pointer(at("per_cpu__stubs")));
    scene.overwrite(stub.offset(CSTAR_STUB + 2), &[0xff], "integrity/registers", "changed");
    scene.flip(at(HANDLER), WRITABLE, "code may be written");
    scene.flip(at("domain_list"), NO_EXECUTE, "data may be executed");

    scene.attacker.write(handler, &[0xcc]);
    let report = scene.check(1);
    assert!(report.contains("TAMPERED     text") && report.contains("do_xenpmu_op+0x10"), "{report}");
    assert!(report.contains("int3"), "what stands there now is shown: {report}");
    drop(scene.run);
}

#[test]
fn tampering_stops_the_machine_until_somebody_lets_it_go_on() {
    let _machine = one_machine();
    let dir = tempfile::tempdir().unwrap();
    let scene = Scene::with(dir.path(), SCRIPT, &["--on-tamper", "pause"]);
    let runs = || Qmp::connect(&scene.monitor).unwrap().is_running().unwrap();
    assert!(runs());
    let at = scene.attacker.address_of(HANDLER).offset(16);
    let genuine = scene.attacker.read(at, 1);
    scene.attacker.write(at, &[0xcc]);
    scene.told(0, "integrity/text", "do_xenpmu_op+0x10");
    assert!(!runs(), "nothing is done by what was changed");
    assert_eq!(scene.alerts()[0]["taken"], "paused");
    scene.attacker.write(at, &genuine);
    let mut engine = scene.run.engine();
    engine.ask(&Request::Resume {}).unwrap();
    assert_eq!(engine.answer().unwrap(), json!({ "resumed": true }));
    scene.settle();
    assert!(runs());
    drop(scene.run);
}

#[test]
fn a_domain_that_is_hidden_is_found() {
    let _machine = one_machine();
    let dir = tempfile::tempdir().unwrap();
    let scene = Scene::new(dir.path(), SCRIPT);
    let list = ["ls".as_ref(), "--attach".as_ref(), scene.recording.as_os_str()];
    assert!(!text(&run(hypovisor().args(list), 0).stdout).contains("HIDDEN"));
    // The list is in the order of numbers: dom0's link leads to the domain.
    let dom0 = Gva(scene.attacker.pointer(scene.attacker.address_of("domain_list")));
    let link = link_to_next(&scene, dom0);
    let before = scene.alerts().len();
    let next = scene.attacker.read(link, 8);
    scene.attacker.write(link, &[0; 8]);
    scene.told(before, "integrity/domains", "L1's list does not have it");
    assert!(text(&run(hypovisor().args(list), 1).stdout).contains("HIDDEN"));
    scene.attacker.write(link, &next);
    scene.settle();
    assert!(!text(&run(hypovisor().args(list), 0).stdout).contains("HIDDEN"));
    drop(scene.run);
}

/// Where `struct domain` has its link, by the symbols file.
fn link_to_next(scene: &Scene, domain: Gva) -> Gva {
    domain.offset(scene.attacker.offset("domain", "next_in_list"))
}
