//! What is learned from a recording: nothing in it deviates, and in the next machine what is new is told and refused.

use std::ffi::OsStr;
use std::path::Path;

use hypovisor_engine::policy::{Matcher, Policy};
use hypovisor_engine::profile::CallerKind;
use hypovisor_engine::remote::{Engine, Status};
use serde_json::Value;

use crate::support::{LabRun, hypovisor, injection, one_machine, run, text};

/// A PV guest's life, and the toolstack's part in it.
const LEARNED: &str = "set -e
xl create /lab/files/known-pv.cfg >&2
while xl domid known-pv >/dev/null 2>&1; do sleep 0.1; done
xl list >&2
";
/// Another guest, which makes calls that the first made too.
const WATCHED: &str = "set -e
xl create /lab/files/intact-pv.cfg >&2
echo ready $(xl domid intact-pv)
while xl domid intact-pv >/dev/null 2>&1; do sleep 0.1; done
cat /var/log/xen/console/guest-intact-pv.log
";
/// `xen_version` and `vcpu_op`.
const NUMBERS: [u64; 2] = [17, 24];
/// `XENVER_version` and `XENVER_capabilities`, which were learned; `XENVER_build_id`, which was not.
const VERSION: u64 = 0;
const CAPABILITIES: u64 = 3;
const BUILD_ID: u64 = 10;
/// `VCPUOP_stop_singleshot_timer`: of a learned hypercall, and not learned.
const STOP_TIMER: u64 = 9;
const EPERM: i64 = -1;
const EINVAL: i64 = -22;

#[test]
fn what_was_learned_is_usual_and_what_is_new_is_refused() {
    let _machine = one_machine();
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let mut first = LabRun::start(&path("first"), LEARNED, &["--record".as_ref(), path("rec").as_ref()]);
    assert!(first.wait().success());
    for (command, file) in [("learn", "profile"), ("policy", "policy.yaml")] {
        run(hypovisor().arg(command).arg(path("rec")).arg("-o").arg(path(file)), 0);
        let option = format!("--{}", if command == "learn" { "profile" } else { command });
        let output = run(hypovisor().arg("trace").arg(path("rec")).arg(option).arg(path(file)), 0);
        assert_eq!(text(&output.stdout), "", "nothing in what was learned from is new");
    }
    keep_pv(&path("policy.yaml"));
    std::fs::create_dir(path("rules")).unwrap();
    std::fs::write(path("rules/deny.yaml"), DENY_CAPABILITIES).unwrap();
    let files = ["policy.yaml", "rules", "profile", "alerts"].map(path);
    let [policy, rules, profile, alerts] = files.each_ref().map(|path| path.as_os_str());
    let args = ["--policy", "--rules", "--profile", "--alerts", "--enforce"].map(OsStr::new);
    let values = [policy, rules, profile, alerts, OsStr::new("deny")];
    let args: Vec<&OsStr> = args.into_iter().zip(values).flat_map(<[&OsStr; 2]>::from).collect();
    let mut second = LabRun::start(&path("second"), WATCHED, &args);
    let domain = second.next_line("ready ").trim_start_matches("ready ").parse().unwrap();
    assert_refused(&mut second.engine(), domain);
    assert!(second.next_line("intact: calls=").contains("differences=0 "));
    assert!(second.wait().success());
    assert_told(&path("alerts"), domain);
}

/// A rule beside the policy: both are enforced.
const DENY_CAPABILITIES: &str = "id: TEST-capabilities
title: A test
description: A test.
blind_spots: All else.
references: []
severity: low
tags: []
on: xen_version/XENVER_capabilities
when: domain != 0
action: deny
errno: EINVAL
";

/// dom0 is left alone: what it does differs a little from boot to boot.
fn keep_pv(file: &Path) {
    let mut policy = Policy::load(file).unwrap();
    policy.entries.retain(|entry| entry.matcher == Matcher::Kind(CallerKind::Pv));
    assert_eq!(policy.entries.len(), 1);
    std::fs::write(file, policy.to_yaml()).unwrap();
}

fn assert_refused(engine: &mut Engine, domain: u16) {
    let mut result = |number, sub_op| {
        let ended = engine.inject(injection(domain, number, [sub_op, 0])).unwrap();
        assert_eq!(ended.status, Status::Done);
        ended.result.unwrap()
    };
    assert!(result(NUMBERS[0], VERSION) > 0, "it was learned");
    assert_eq!(result(NUMBERS[0], BUILD_ID), EPERM, "by the policy; Xen would say EINVAL or more than 0");
    assert_eq!(result(NUMBERS[1], STOP_TIMER), EPERM, "by the policy; Xen would say 0");
    assert_eq!(result(NUMBERS[0], CAPABILITIES), EINVAL, "by the rule");
}

/// By policy, rule and profile, each under its name; and nothing about what the guest does itself.
fn assert_told(file: &Path, domain: u16) {
    let told = std::fs::read_to_string(file).unwrap();
    let told: Vec<Value> = told.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of = |source: &str| {
        let alerts = told.iter().filter(|alert| alert["rule"]["source"] == source);
        alerts.filter(|alert| alert["domain"] == domain).collect::<Vec<_>>()
    };
    let policy = of("policy");
    assert!(policy.len() >= 2 && policy.iter().all(|alert| alert["taken"] == "denied"), "{policy:?}");
    assert_eq!(of("rule").len(), 1);
    let operations = of("profile").iter().filter(|alert| alert["rule"]["id"] == "profile/call").count();
    assert!(operations >= 2, "{told:?}");
    assert!(policy.iter().chain(&of("rule")).all(|alert| alert["event"]["injected"] == true));
}
