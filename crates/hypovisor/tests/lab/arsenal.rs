//! Attacks that run inside Xen, as code that dom0 had it load: each has to be told by its name, and a genuine live patch by its.

use std::path::Path;

use hypovisor_lab::arsenal::{ANSWERED, Arsenal, BuildId, Options};
use hypovisor_lab::{Lab, QemuVersion, Silent, XenVersion};
use serde_json::Value;

use crate::integrity::alerts;
use crate::support::{LabRun, is_kvm, one_machine};

/// How many hypercalls the bypass answers by itself.
const BYPASSED: u64 = 1000;
/// As many calls may be counted with them that were under way: one on each CPU.
const UNDER_WAY: u64 = 2;

/// Applies each payload, leaves it for a while, and takes it back. One needs a guest that leaves again and again.
const SCRIPT: &str = "set -e
xl vcpu-pin 0 all 0 >&2
xl create /lab/files/hold-pv.cfg >&2
sleep 3
for name in PAYLOADS; do
    echo begin $name
    if [ $name = exit_path ]; then xl create /lab/files/null-pvh.cfg 'extra=\"rounds=1000 calls=100000 marks=0\"' >&2; sleep 2; fi
    xen-livepatch load /lab/files/$name.livepatch >&2
    if [ $name = bypass ]; then /lab/files/hcall --loop BYPASSED 29 ANSWERED; fi
    sleep SECONDS
    echo end $name
    xen-livepatch revert $name >&2
    xen-livepatch unload $name >&2
    if [ $name = exit_path ]; then xl destroy null-pvh; fi
    sleep 3
done
echo over
";

/// What each payload has to be told as: one of these alerts, with these words.
const EXPECTED: [(&str, &[(&str, &str)]); 18] = [
    (
        "benign",
        &[
            ("integrity/text/live_patch", "xen_extra_version"),
            ("integrity/page_tables/live_patch", "live patch"),
        ],
    ),
    ("text_patch", &[("integrity/text", "xen_changeset")]),
    ("alias", &[("integrity/page_tables", "may be written through"), ("integrity/text", "xen_compiler")]),
    ("remap", &[("integrity/page_tables", "page tables show other memory at")]),
    ("stub_code", &[("integrity/registers", "changed")]),
    ("pte", &[("integrity/page_tables", "code may be written")]),
    ("pte_exec", &[("integrity/page_tables", "data may be executed")]),
    ("cr0_wp", &[("integrity/registers", "CR0.WP is off")]),
    ("lstar", &[("integrity/registers", "SYSCALL on CPU 0 will enter at")]),
    ("bypass", &[("integrity/registers", "SYSCALL on CPU 0 will enter at")]),
    ("idt", &[("integrity/idt", "vector 0x03")]),
    ("fn_pointer", &[("integrity/pointers", "hvm_funcs")]),
    ("hide_domain", &[("integrity/domains", "L1's list does not have it")]),
    ("rogue_vmrun", &[]),
    ("flicker", &[]),
    ("flicker_run", &[]),
    ("exit_path", &[]),
    ("detector", &[("integrity/hypercalls", "was called by the code before")]),
];
/// What L0 is told of as it is done: payload, whether TCG and KVM tell, and the alert.
const AT_ONCE: [(&str, [bool; 2], &str, &str); 11] = [
    ("cr0_wp", [true, true], "integrity/registers", "CR0 was set to"),
    ("lstar", [true, true], "integrity/registers", "LSTAR was set to"),
    ("bypass", [true, false], "integrity/hypercalls/unknown", "times, SYSCALL of a guest reached no hook"),
    ("rogue_vmrun", [true, true], "integrity/vmrun", "VMRUN at"),
    ("flicker", [false, true], "integrity/text", "holds again what it held"),
    ("flicker_run", [false, true], "integrity/text", "holds again what it held"),
    ("flicker_run", [true, false], "integrity/text", "xen_compile_date"),
    ("exit_path", [true, false], "integrity/vmrun", "not to the instruction behind its VMRUN"),
    ("pte_exec", [true, false], "integrity/text", "code was executed at vga_console_info"),
    ("remap", [true, false], "integrity/text", "code was executed at xen_compile_time"),
    ("stub_code", [true, false], "integrity/text", "that is not L1's"),
];

pub(crate) fn build(files: &Path) {
    let prepared = Lab::open().unwrap().prepare(XenVersion::V4_20, QemuVersion::V10_0, &mut Silent).unwrap();
    let xen = BuildId::read(&prepared.xen_symbols()).unwrap();
    Arsenal::build(files, &xen, &Options::default()).unwrap();
}

fn tells(alerts: &[Value], rule: &str, words: &str) -> bool {
    let is_it = |alert: &Value| {
        alert["rule"]["id"] == rule && alert["finding"]["message"].as_str().unwrap().contains(words)
    };
    alerts.iter().any(is_it)
}

/// How many hypercalls are said to have reached no hook.
fn missed_calls(alerts: &[Value]) -> u64 {
    let messages = alerts.iter().filter_map(|alert| alert["finding"]["message"].as_str());
    let counts =
        messages.filter_map(|message| message.split_once(" times, SYSCALL of a guest reached no hook"));
    counts.map(|(count, _)| count.parse::<u64>().unwrap()).sum()
}

#[test]
fn what_runs_inside_xen_is_told_by_its_name() {
    let _machine = one_machine();
    let dir = tempfile::tempdir().unwrap();
    let (files, path) = (dir.path().join("files"), dir.path().join("alerts.json"));
    build(&files);
    let names: Vec<&str> = EXPECTED.iter().map(|(name, _)| *name).collect();
    let script = SCRIPT
        .replace("PAYLOADS", &names.join(" "))
        .replace("SECONDS", if is_kvm() { "8" } else { "4" })
        .replace("ANSWERED", &ANSWERED.to_string())
        .replace("BYPASSED", &BYPASSED.to_string());
    let args = ["--integrity".as_ref(), "--alerts".as_ref(), path.as_os_str()];
    let mut run = LabRun::start(dir.path(), &script, &args);
    for (name, expected) in EXPECTED {
        run.next_line(&format!("begin {name}"));
        let before = alerts(&path).len();
        run.next_line(&format!("end {name}"));
        let told = &alerts(&path)[before..];
        let at_once =
            AT_ONCE.iter().filter(|(payload, told, ..)| *payload == name && told[usize::from(is_kvm())]);
        for (rule, words) in expected.iter().copied().chain(at_once.map(|(.., rule, words)| (*rule, *words)))
        {
            assert!(tells(told, rule, words), "{name}: no {rule} with {words:?} was told, but {told:#?}");
        }
        if name == "benign" {
            let tampering = told.iter().find(|alert| alert["rule"]["severity"] == "critical");
            assert!(tampering.is_none(), "a live patch is no tampering: {tampering:#?}");
        }
    }
    run.next_line("over");
    assert!(run.wait().success());
    if !is_kvm() {
        let missed = missed_calls(&alerts(&path));
        assert!((BYPASSED..=BYPASSED + UNDER_WAY).contains(&missed), "{missed} of {BYPASSED} were missed");
    }
}
