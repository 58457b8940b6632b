//! Calls that a rule denies or pauses never reach their handler, and nothing else notices.

use std::ffi::OsStr;
use std::path::Path;
use std::time::{Duration, Instant};

use hypovisor_campaign::{CallSpec, Context};
use hypovisor_engine::recording::Recording;
use hypovisor_engine::remote::{Ended, Engine, InjectionRequest, Request, Status};
use hypovisor_event::verdict::Verdict;
use serde_json::{Value, json};

use crate::support::{LabRun, is_kvm, one_machine};

/// A PV guest that looks after itself, and a call of dom0's own that a rule pauses.
const SCRIPT: &str = "set -e
xl create /lab/files/intact-pv.cfg extra=\\\"calls=CALLS\\\" >&2
echo ready $(xl domid intact-pv)
tries=0
while xl domid intact-pv >/dev/null 2>&1; do
    tries=$((tries + 1)); [ $tries -lt 1200 ]; sleep 0.1
done
cat /var/log/xen/console/guest-intact-pv.log
/lab/files/hcall 17 2 @00 >&2
echo paused call returned
";
/// How long L1 may take to be stopped, by far.
const PATIENCE: Duration = Duration::from_secs(600);
/// `XENVER_version` of Xen 4.20.
const VERSION: i64 = 0x4_0014;
const EPERM: i64 = -1;
const EACCES: i64 = -13;
const EBUSY: i64 = -16;
const EDOM: i64 = -33;

/// Denies by the sub-op alone and by a field behind a pointer, and pauses.
fn rules(dir: &Path, errno: &str) {
    let rule = |id: &str, on: &str, when: &str, action: &str| {
        let text = format!(
            "id: {id}\ntitle: A test\ndescription: A test.\nblind_spots: All else.\nreferences: [none]\nseverity: low\n\
             tags: [test]\non: {on}\nwhen: {when}\n{action}\n"
        );
        std::fs::write(dir.join(format!("{id}.yaml")), text).unwrap();
    };
    let deny = format!("action: deny\nerrno: {errno}");
    rule("TEST-capabilities", "xen_version/XENVER_capabilities", "domain != 0", &deny);
    let deny = "action: deny\nerrno: EBUSY";
    rule("TEST-status", "event_channel_op/EVTCHNOP_status", "args.arg.port == 7", deny);
    rule("TEST-pause", "xen_version/XENVER_compile_info", "domain == 0", "action: pause");
}

fn call(name: &str, args: Value) -> CallSpec {
    CallSpec::named(name, args).unwrap()
}

fn inject(engine: &mut Engine, domain: u16, call: &CallSpec) -> Ended {
    let plan = call.encode(hypovisor_abi::Width::Bits64, &Context::default()).unwrap();
    let (mut registers_to, mut memory_to) = (Vec::new(), Vec::new());
    for relocation in &plan.relocations {
        match relocation.place {
            hypovisor_campaign::Place::Register(register) => registers_to.push((register, relocation.target)),
            hypovisor_campaign::Place::Memory(offset) => memory_to.push((offset, relocation.target)),
        }
    }
    let (number, registers, memory) = (plan.number, plan.registers, plan.memory);
    let request = InjectionRequest {
        id: 1,
        domain,
        vcpu: None,
        is_64_bit: true,
        number,
        registers,
        memory,
        registers_to,
        memory_to,
    };
    let ended = engine.inject(request).unwrap();
    assert_eq!(ended.status, Status::Done);
    ended
}

#[test]
fn a_denied_call_does_nothing_and_a_paused_one_waits() {
    let _machine = one_machine();
    let dir = tempfile::tempdir().unwrap();
    let (rules_dir, recording, alerts) =
        (dir.path().join("rules"), dir.path().join("recording"), dir.path().join("alerts.json"));
    std::fs::create_dir(&rules_dir).unwrap();
    rules(&rules_dir, "EACCES");
    let args: [&OsStr; 8] = [
        "--rules".as_ref(),
        rules_dir.as_os_str(),
        "--enforce".as_ref(),
        "deny".as_ref(),
        "--alerts".as_ref(),
        alerts.as_os_str(),
        "--record".as_ref(),
        recording.as_os_str(),
    ];
    // Under emulated KVM each call takes long.
    let calls = if is_kvm() { "600000" } else { "3000000" };
    let mut run = LabRun::start(dir.path(), &SCRIPT.replace("CALLS", calls), &args);
    let domain = run.next_line("ready ").trim_start_matches("ready ").parse().unwrap();
    let mut engine = run.engine();
    assert_denied(&mut engine, domain);
    assert_reloaded(&mut engine, domain, &rules_dir);
    assert_switched_off_and_on(&run, &mut engine, domain);
    assert_inner_pause_is_refused(&mut engine);
    assert!(run.next_line("intact: calls=").contains("differences=0 "));
    // dom0's own call waits, and L1 with it, until somebody lets it go.
    resume(&mut engine);
    run.next_line("paused call returned");
    assert!(run.wait().success());
    assert_recorded(&recording, &alerts);
}

/// Lets the machine go on, once it is stopped.
fn resume(engine: &mut Engine) {
    let start = Instant::now();
    loop {
        engine.ask(&Request::Resume {}).unwrap();
        if engine.answer().unwrap() == json!({ "resumed": true }) {
            return;
        }
        assert!(start.elapsed() < PATIENCE, "nothing has stopped the machine");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// L1 is stopped for an inner call too, which cannot wait for that, and leaves nothing behind that a later pause would trip over.
fn assert_inner_pause_is_refused(engine: &mut Engine) {
    let paused = call("xen_version/XENVER_compile_info", json!({ "arg": {} }));
    let ended = inject(engine, 0, &CallSpec::multicall(vec![paused]));
    assert_eq!(i64::from_le_bytes(ended.memory[8..16].try_into().unwrap()), EPERM);
    resume(engine);
}

fn assert_denied(engine: &mut Engine, domain: u16) {
    let capabilities = call("xen_version/XENVER_capabilities", json!({ "arg": {} }));
    let ended = inject(engine, domain, &capabilities);
    assert_eq!(ended.result, Some(EACCES));
    assert!(ended.memory.iter().all(|byte| *byte == 0), "its handler would have written");
    let status = |port: u64| {
        call("event_channel_op/EVTCHNOP_status", json!({ "arg": { "dom": "DOMID_SELF", "port": port } }))
    };
    assert_eq!(inject(engine, domain, &status(7)).result, Some(EBUSY));
    assert_eq!(inject(engine, domain, &status(1)).result, Some(0));

    let version = call("xen_version/XENVER_version", Value::Null);
    let multicall = CallSpec::multicall(vec![version.clone(), capabilities, version]);
    let ended = inject(engine, domain, &multicall);
    let result = |index: usize| {
        let at = 64 * index + 8;
        i64::from_le_bytes(ended.memory[at..at + 8].try_into().unwrap())
    };
    assert_eq!((result(0), result(1), result(2)), (VERSION, EACCES, VERSION), "only the offending one fails");
}

fn assert_reloaded(engine: &mut Engine, domain: u16, rules_dir: &Path) {
    rules(rules_dir, "EDOM");
    engine.ask(&Request::ReloadRules {}).unwrap();
    assert_eq!(engine.answer().unwrap(), json!({ "rules": 3 }));
    let capabilities = call("xen_version/XENVER_capabilities", json!({ "arg": {} }));
    assert_eq!(inject(engine, domain, &capabilities).result, Some(EDOM));
    // Rules that are wrong leave those in force that are.
    std::fs::write(rules_dir.join("TEST-wrong.yaml"), "id: [").unwrap();
    engine.ask(&Request::ReloadRules {}).unwrap();
    assert!(engine.answer().unwrap_err().to_string().contains("TEST-wrong.yaml"));
    assert_eq!(inject(engine, domain, &capabilities).result, Some(EDOM));
    std::fs::remove_file(rules_dir.join("TEST-wrong.yaml")).unwrap();
}

/// As an operator would, with the program.
fn assert_switched_off_and_on(run: &LabRun, engine: &mut Engine, domain: u16) {
    let capabilities = call("xen_version/XENVER_capabilities", json!({ "arg": {} }));
    assert_eq!(run.ask(&["reload", "--off"]), "0 rules in force\n");
    assert_eq!(inject(engine, domain, &capabilities).result, Some(0));
    assert_eq!(run.ask(&["reload"]), "3 rules in force\n");
    assert_eq!(inject(engine, domain, &capabilities).result, Some(EDOM));
    let status: Value = serde_json::from_str(&run.ask(&["status", "--json"])).unwrap();
    assert_eq!((&status["rules"], &status["alerts"]["TEST-capabilities"]), (&json!(3), &json!(5)));
    assert!(status["domains"].as_array().unwrap().iter().any(|known| known["id"] == domain));
}

/// The recording says what was done, and every denial has its alert.
fn assert_recorded(recording: &Path, alerts: &Path) {
    let calls = Recording::open(recording).unwrap().calls().unwrap();
    let verdicts: Vec<Verdict> =
        calls.map(Result::unwrap).filter_map(|call| call.intervention.verdict).collect();
    let count = |wanted| verdicts.iter().filter(|verdict| **verdict == wanted).count();
    assert_eq!((count(Verdict::Denied), count(Verdict::Paused)), (6, 2));
    let text = std::fs::read_to_string(alerts).unwrap();
    let alerts: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let taken = |what: &str| alerts.iter().filter(|alert| alert["taken"] == what).count();
    assert_eq!((taken("denied"), taken("paused")), (6, 2), "{text}");
    for alert in alerts.iter().filter(|alert| alert["taken"] == "denied") {
        assert!(
            alert["event"]["injected"] == true && alert["rule"]["id"].as_str().unwrap().starts_with("TEST-")
        );
    }
}
