//! What a policy is made of, how it is read, and what it refuses.

use hypovisor_abi::Width;
use hypovisor_abi::capture::Registers;
use hypovisor_abi::xen::XEN;
use hypovisor_event::record::CallerMode;
use serde::Deserialize;

use super::*;
use crate::alert::{AlertError, Alerter, Detection, Report};
use crate::call::{Call, CallId, CallSink as _, Outcome};
use crate::domains::Domains;
use crate::profile::CallerKind;
use crate::testing::call;

#[derive(Deserialize)]
struct Capture {
    number: u64,
    args: [u64; 6],
    bits: u32,
    entry: String,
}

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len() / 2).map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).unwrap()).collect()
}

/// Captured calls of a real Xen, as those of domain 3.
struct Captured(Vec<(Registers, Vec<u8>)>);

impl Captured {
    fn read() -> Self {
        let lines = include_str!("../../testdata/captures.jsonl").lines();
        let one = |line: &str| {
            let Capture { number, args, bits, entry } = serde_json::from_str(line).unwrap();
            let width = if bits == 64 { Width::Bits64 } else { Width::Bits32 };
            (Registers { number, args, width }, bytes(&entry))
        };
        Self(lines.map(one).collect())
    }

    fn calls(&self) -> impl Iterator<Item = Call<'_>> {
        self.0.iter().enumerate().map(|(sequence, (registers, entry_segments))| {
            let mut one = call(registers.number, registers.args, Outcome::Unfinished);
            one.caller.mode =
                if registers.width == Width::Bits64 { CallerMode::Pv64 } else { CallerMode::Pv32 };
            let (id, time_ns) = (CallId { pcpu: 0, sequence: sequence as u64 }, sequence as i64 * 10_000_000);
            Call { id, time_ns, registers: *registers, entry_segments, ..one }
        })
    }
}

fn learned(by_name: bool) -> Policy {
    let mut learner = PolicyLearner::by_name(by_name);
    learner.begin([]);
    Captured::read().calls().for_each(|call| learner.entered(&call).unwrap());
    learner.finish()
}

/// The rules that the captured calls break.
fn broken(policy: &Policy) -> Vec<String> {
    let mut domains = Domains::default();
    domains.name(3, "dom3");
    let rules = policy.to_rules(&domains, true).unwrap();
    let detection = Detection::default().with_rules(rules.into());
    let mut alerter = Alerter::replaying(detection, Vec::<Report>::new());
    Captured::read()
        .calls()
        .try_for_each(|call| alerter.entered(&call))
        .unwrap_or_else(|error: AlertError| panic!("{error}"));
    alerter.totals().iter().map(|total| total.rule.id.clone()).collect()
}

/// Without the counts, which a file has in comments only.
fn bare(mut policy: Policy) -> Policy {
    for entry in &mut policy.entries {
        (entry.domains, entry.calls) = (0, 0);
        entry.allowed.values_mut().for_each(|limits| limits.calls = 0);
    }
    policy
}

#[test]
fn a_policy_lists_calls_sizes_and_flags_and_is_read_back() {
    let policy = learned(false);
    let entry = &policy.entries[0];
    assert_eq!((&entry.matcher, entry.domains), (&Matcher::Kind(CallerKind::Pv), 1));
    let map = &entry.allowed["grant_table_op/GNTTABOP_map_grant_ref"];
    assert_eq!(map.max.keys().collect::<Vec<_>>(), ["count"]);
    assert!(map.flags["uop[].flags"].contains(&"GNTMAP_host_map".to_owned()), "{map:?}");
    let populate = &entry.allowed["memory_op/XENMEM_populate_physmap"];
    assert_eq!(populate.max.keys().collect::<Vec<_>>(), ["arg.extent_order", "arg.nr_extents"]);
    let text = policy.to_yaml();
    assert!(text.contains("# Never used, could be switched off"), "{text}");
    assert!(text.contains("      # memory_op: "), "{text}");
    assert_eq!(Policy::from_yaml(&text).unwrap(), bare(policy));
}

#[test]
fn every_limited_field_is_found_again_by_its_path() {
    for (name, limits) in &learned(false).entries[0].allowed {
        let operation = crate::profile::Operation::parse(name).unwrap();
        for path in limits.max.keys().chain(limits.flags.keys()) {
            assert!(fields::find(operation, path).is_some(), "{name}: {path}");
        }
    }
}

#[test]
fn what_was_learned_breaks_nothing_and_what_is_taken_out_does() {
    let policy = learned(false);
    assert_eq!(broken(&policy), [""; 0]);
    let without = |change: &dyn Fn(&mut Entry)| {
        let mut policy = policy.clone();
        change(&mut policy.entries[0]);
        broken(&policy)
    };
    assert_eq!(without(&|entry| drop(entry.allowed.remove("multicall"))), ["policy.pv.calls"]);
    let sub_op = "grant_table_op/GNTTABOP_map_grant_ref";
    assert_eq!(without(&|entry| drop(entry.allowed.remove(sub_op))), ["policy.pv.grant_table_op.sub-ops"]);
    let limits = ["policy.pv.GNTTABOP_map_grant_ref"];
    assert_eq!(
        without(&|entry| entry.allowed.get_mut(sub_op).unwrap().flags.values_mut().for_each(Vec::clear)),
        limits
    );
    let limits = ["policy.pv.XENMEM_populate_physmap"];
    let populate = "memory_op/XENMEM_populate_physmap";
    assert_eq!(
        without(&|entry| entry.allowed.get_mut(populate).unwrap().max.values_mut().for_each(|max| *max = 0)),
        limits
    );
    // Another kind of domain is another entry's business.
    assert_eq!(
        without(&|entry| {
            entry.matcher = Matcher::Kind(CallerKind::Hvm);
            entry.allowed.clear();
        }),
        [""; 0]
    );
}

#[test]
fn any_call_makes_rules_whatever_its_name() {
    let mut text = "version: 1\nentries:\n  - kind: privileged\n    calls:\n".to_owned();
    for call in XEN.calls.iter().flatten() {
        let names =
            call.sub_ops.iter().flat_map(|ops| ops.ops).map(|op| format!("{}/{}", call.name, op.name));
        let names: Vec<String> =
            if call.sub_ops.is_some() { names.collect() } else { vec![call.name.to_owned()] };
        names.iter().for_each(|name| text.push_str(&format!("      {name}: {{}}\n")));
    }
    let mut policy = Policy::from_yaml(&text).unwrap();
    // A limit for every field that could have one, as a learner would note it.
    for (name, limits) in &mut policy.entries[0].allowed {
        let operation = crate::profile::Operation::parse(name).unwrap();
        limits.max.extend(fields::limited_paths(operation).into_iter().map(|path| (path, 0)));
    }
    let rules = policy.to_rules(&Domains::default(), true).unwrap();
    assert!(rules.iter().filter(|rule| rule.title.ends_with("than the policy allows")).count() > 100);
}

#[test]
fn a_sub_op_that_could_not_be_read_breaks_nothing() {
    let text = "version: 1\nentries: [{kind: pv, calls: {domctl/XEN_DOMCTL_pausedomain: {}, sched_op/SCHEDOP_yield: {}}}]";
    let rules = Policy::from_yaml(text).unwrap().to_rules(&Domains::default(), false).unwrap();
    let mut alerter = Alerter::replaying(Detection::default().with_rules(rules.into()), Vec::<Report>::new());
    alerter.entered(&call(36, [0x1000, 0, 0, 0, 0, 0], Outcome::Unfinished)).unwrap();
    assert!(alerter.totals().is_empty());
    alerter.entered(&call(29, [77, 0, 0, 0, 0, 0], Outcome::Unfinished)).unwrap();
    assert_eq!(alerter.totals()[0].rule.id, "policy.pv.sched_op.unknown");
}

#[test]
fn an_entry_for_a_name_needs_the_domain() {
    let policy = learned(true);
    assert_eq!(policy.entries[0].matcher, Matcher::Name("dom3".to_owned()));
    assert_eq!(broken(&policy), [""; 0]);
    let error = policy.to_rules(&Domains::default(), false).unwrap_err();
    assert_eq!(error.to_string(), "the policy names domain \"dom3\", and no domain of that name is known");
}

#[test]
fn whole_calls_and_unknown_sub_ops_can_be_allowed() {
    let text = "version: 1\nentries: [{kind: pv, calls: {memory_op: {}, sched_op/77: {}, hypercall_70: {}}}]";
    let policy = Policy::from_yaml(text).unwrap();
    let rules = policy.to_rules(&Domains::default(), false).unwrap();
    let ids: Vec<&str> = rules.iter().map(|rule| rule.id.as_str()).collect();
    let expected = [
        "policy.pv.calls",
        "policy.pv.unknown-calls",
        "policy.pv.sched_op.sub-ops",
        "policy.pv.sched_op.unknown",
    ];
    assert_eq!(ids, expected);
}

#[test]
fn mistakes_are_told_with_their_line() {
    let wrong = |calls: &str| {
        Policy::from_yaml(&format!("version: 1\nentries:\n  - kind: pv\n    calls:\n{calls}")).unwrap_err()
    };
    assert!(
        wrong("      memory_op/XENMEM_exchang: {}").starts_with("line 5: no hypercall or sub-op is called")
    );
    let populate = "      memory_op/XENMEM_populate_physmap:\n";
    assert_eq!(
        wrong(&format!("{populate}        max: {{arg.nr: 1}}")),
        "line 6: memory_op/XENMEM_populate_physmap has no argument \"arg.nr\" that is a number"
    );
    assert!(
        wrong(&format!("{populate}        max: {{arg.nr_extents: -1}}")).ends_with("\"-1\" is no number")
    );
    assert!(
        wrong(&format!("{populate}        flags: {{arg.mem_flags: [XENMEMF_no]}}"))
            .contains("\"XENMEMF_no\" is no flag of")
    );
    assert!(wrong(&format!("{populate}        least: 1")).ends_with("\"least\" is none of max, flags"));
    for (text, error) in [
        ("", "line 1: the file is empty"),
        ("entries: []", "line 1: `version: 1` is needed"),
        ("version: 1\nentries:\n  - {}", "line 3: an entry needs `kind` or `name`"),
        ("version: 1\nentries:\n  - kind: xv", "line 3: \"xv\" is none of privileged, pv, pvh, hvm, unknown"),
        ("version: 1\nversion: 1", "line 2: \"version\" is there twice"),
        ("a: &x 1\nb: *x", "line 1: anchors (`&…`) and tags (`!…`) are not used here"),
    ] {
        assert_eq!(Policy::from_yaml(text).unwrap_err(), error);
    }
}

proptest::proptest! {
    #[test]
    fn any_text_is_survived(pieces in proptest::collection::vec(piece(), 0..40)) {
        if let Ok(policy) = Policy::from_yaml(&pieces.concat()) {
            let _ = policy.to_rules(&Domains::default(), true);
            let _ = Policy::from_yaml(&policy.to_yaml()).unwrap();
        }
    }
}

/// What policies consist of, and what they do not.
fn piece() -> impl proptest::strategy::Strategy<Value = String> {
    const PIECES: [&str; 24] = [
        "version: 1\n",
        "entries:\n",
        "  - kind: pv\n",
        "  - name: \"a\\n\"\n",
        "    calls:\n",
        "      memory_op: {}\n",
        "      memory_op/XENMEM_exchange:\n",
        "        max: {arg.in.nr_extents: 5}\n",
        "        flags: {arg.in.mem_flags: []}\n",
        "      hypercall_70: {}\n",
        "      sched_op/99: {}\n",
        "{",
        "}",
        "[",
        "]",
        ": ",
        "- ",
        "&a ",
        "*a",
        "!x ",
        "\"",
        "'",
        "\t",
        "|\n",
    ];
    use proptest::prelude::*;
    prop_oneof![4 => (0..PIECES.len()).prop_map(|at| PIECES[at].to_owned()), 1 => any::<String>()]
}
