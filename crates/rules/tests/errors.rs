//! What is wrong with a rule file is said with file, line, column, field, and what was probably meant.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use hypovisor_rules::Rules;
use support::{file, rules};

/// All problems of a file, one a line, without its name.
#[track_caller]
fn problems(text: &str) -> String {
    let error = rules(text).err().unwrap_or_else(|| panic!("no problem in\n{text}"));
    error.to_string().replace("t.yaml:", "")
}

/// The only problem of a condition.
#[track_caller]
fn misuse(on: &str, when: &str) -> String {
    let all = problems(&file(on, when, ""));
    assert_eq!(all.lines().count(), 1, "{all}");
    all.split_once("when: ").map_or(all.clone(), |(_, message)| message.to_owned())
}

#[test]
fn all_that_is_wrong_is_said_at_once() {
    let text = "\
id: not good
title: T
severty: high
severity: hihg
on: [memory_op/XENMEM_exchang, memoryop]
let:
  target: args.arg.out.extent_stat
  later: earlier
  earlier: 1
when: privileged == fals && target > 1
action: dney
exceptions:
  - when: domain = 3
";
    assert_eq!(
        problems(text),
        "\
1:1: blind_spots: is missing
1:1: description: is missing
1:5: id: has up to 64 letters, digits, `.`, `_` and `-`
3:1: unknown field `severty`; did you mean `severity`?
4:11: severity: is one of informational, low, medium, high, critical; did you mean `high`?
5:6: on[0]: `memory_op` has no sub-op `XENMEM_exchang`; did you mean `XENMEM_exchange`?
5:32: on[1]: there is no hypercall `memoryop`; did you mean `memory_op`?
11:9: action: is one of alert, deny, pause; did you mean `deny`?
13:5: exceptions[0].reason: is missing
13:18: exceptions[0].when: not a condition: token recognition error at: '= '; equality is `==`"
    );
}

#[test]
fn names_in_conditions() {
    let exchange = "memory_op/XENMEM_exchange";
    for (on, when, message) in [
        (exchange, "priviliged", "unknown name `priviliged`; did you mean `privileged`?"),
        (
            exchange,
            "domain == 3 && args.argg == 1",
            "memory_op/XENMEM_exchange has no argument `argg`; did you mean `arg`?",
        ),
        (
            exchange,
            "args.arg.in.nr_extent == 1",
            "struct xen_memory_reservation has no field `nr_extent`; did you mean `nr_extents`?",
        ),
        (
            exchange,
            "args.arg.in",
            "this is a struct; name a field: extent_start, nr_extents, extent_order, mem_flags, domid",
        ),
        (exchange, "args.cmd.x == 1", "a number has no field `x`"),
        (exchange, "args == 1", "`args` alone is no value; name an argument"),
        (
            exchange,
            "args.arg.in.domid == 'DOMID_SLEF'",
            "there is no value 'DOMID_SLEF' here; did you mean `DOMID_SELF`?",
        ),
        (
            exchange,
            "args.arg.in.mem_flags == 'XENMEMF_vnode'",
            "these are flags of XENMEMF_*: how to allocate; use `has_flag(x, 'XENMEMF_vnode')`",
        ),
        (
            exchange,
            "has_flag(args.arg.in.mem_flags, 'XENMEMF_vnod')",
            "there is no flag 'XENMEMF_vnod' in XENMEMF_*: how to allocate; did you mean `XENMEMF_vnode`?",
        ),
        (exchange, "has_flag(domain, 'X')", "this number is not made of flags with names"),
        (exchange, "kind == 'pvhh'", "there is no value 'pvhh' here; did you mean `pvh`?"),
        (exchange, "domain", "a truth value is needed here, this is a number"),
        (exchange, "privileged + 1 == 2", "a number is needed here, this is a truth value"),
        (exchange, "privileged == 1", "a number cannot be compared with a truth value"),
        (exchange, "in_xn(rip)", "unknown function `in_xn`; did you mean `in_xen`?"),
        (exchange, "in_xen(rip, rsp)", "`in_xen` does not take 2 arguments this way; it is `in_xen(x)`"),
        (
            exchange,
            "math.bitand(1, 2) == 0",
            "unknown function `math.bitand`; did you mean `math.bitAnd`?".split("; ").next().unwrap(),
        ),
        (exchange, "raw_args[6] == 0", "there is no register 6; there are 0 to 5"),
        (exchange, "args.arg.exists(x, x == 1)", "this is no list or array, so it has no elements"),
        (exchange, "after(args.cmd) == 1", "an argument register has no value after the call"),
        (
            exchange,
            "after(args.arg.in.extent_start[0]) == 1",
            "Xen does not write there, so there is no value after the call",
        ),
        (exchange, "domain in 3", "`in` needs a list of numbers or names: `x in [1, 2]`"),
        (exchange, "'a' == 'b'", "'b' can only be compared with a value that has names"),
        ("'*'", "args.cmd == 1", "only calls named in `on` have arguments with names; use `raw_args[i]`"),
        ("mmuext_op", "args.uops.arg1 == 1", "this is a union; name a member: mfn, linear_addr"),
        ("mmu_update", "args.ureqs.exists(domain, true)", "`domain` has a meaning already; use another name"),
        (
            "domctl/XEN_DOMCTL_pausedomain",
            "args.u_domctl.max_mem.max_memkb == 1",
            "`max_mem` belongs to other sub-ops of struct xen_domctl",
        ),
    ] {
        let said = misuse(on, when);
        assert!(said.starts_with(message), "{when}\n  said  {said}\n  meant {message}");
    }
}

#[test]
fn problems_stand_where_they_are() {
    for (when, place) in [
        ("when: domain == 3 && priviliged", "7:22: when:"),
        ("when: 'domain == 3 && priviliged'", "7:23: when:"),
        ("when: |\n  domain == 3\n  && priviliged", "9:6: when:"),
        ("when: >\n  domain == 3\n  && priviliged", "8:3: when:"),
        ("let: {unused: domainn}\nwhen: domain == 1", "7:15: let.unused:"),
        ("let: {a: domain}\nwhen: a == 3 && args.arg.in.nr == 1", "8:28: when:"),
        ("let: {a: 'domain + nothing'}\nwhen: a == 3", "7:20: let.a:"),
    ] {
        let text = format!("{}{when}\n", file("memory_op/XENMEM_exchange", "", ""));
        let said = problems(&text);
        assert!(said.starts_with(place), "{when}\n{said}");
    }
}

#[test]
fn what_cannot_be_blocked_is_refused() {
    let deny = "action: deny\n";
    for (on, when, more, message) in [
        (
            "memory_op",
            "result == 0",
            deny,
            "action: the rule uses result, which is known only when the call has returned",
        ),
        (
            "event_channel_op/EVTCHNOP_alloc_unbound",
            "args.arg.port == 1",
            "action: pause\n",
            "action: the rule uses a field that Xen writes",
        ),
        (
            "memory_op",
            "",
            "exceptions: [{when: result == 0, reason: r}]\naction: deny\n",
            "action: the rule uses result",
        ),
        ("iret", "", deny, "on: `iret` never returns to its caller"),
        ("'*'", "", deny, "on: `*` includes `iret`, which never returns to its caller"),
        ("memory_op", "", "action: deny\nrate: {count: 10, within: 1s}\n", "rate: counts over several calls"),
        ("memory_op", "", "errno: EPERM\n", "errno: is only used with `action: deny`"),
        (
            "memory_op",
            "",
            "action: deny\nerrno: EPREM\n",
            "errno: Xen has no error `EPREM`; did you mean `EPERM`?",
        ),
    ] {
        let said = problems(&file(on, when, more));
        assert!(said.contains(message), "{said}");
    }
}

#[test]
fn rates_sequences_and_targets_are_checked() {
    for (on, more, message) in [
        ("memory_op", "rate: {count: 1, within: 1s}\n", "rate.count: is a number from 2 to 1000000"),
        ("memory_op", "rate: {count: 5}\n", "rate: needs `within` or `within_calls`"),
        (
            "memory_op",
            "rate: {count: 5, within: 1s, within_calls: 4}\n",
            "rate: has `within` or `within_calls`, not both",
        ),
        ("memory_op", "rate: {count: 5, within: 1d}\n", "rate.within: is a duration such as `250ms`"),
        (
            "memory_op",
            "sequence: {within: 1s, steps: [{on: memory_op}, {on: sched_op}]}\n",
            "on: a rule with a sequence has it in each step instead",
        ),
        ("[memory_op, memory_op/XENMEM_exchange]", "", "on[1]: overlaps with `memory_op`"),
        ("XENMEM_exchange", "", "on: `XENMEM_exchange` is a sub-op; write `memory_op/XENMEM_exchange`"),
        ("iret/3", "", "on: `iret` has no sub-operations"),
        ("memory_op/99", "", "on: `memory_op` has room for sub-op numbers to 63 only"),
        ("300", "", "on: numbers go to 255; for a larger one use `'*'` and `number == 300`"),
        ("[]", "", "on: is empty"),
    ] {
        let said = problems(&file(on, "", more));
        assert!(said.contains(message), "{said}\n{message}");
    }
}

#[test]
fn yaml_that_is_none_or_too_clever() {
    for (text, message) in [
        ("", "the file is empty"),
        ("- a\n- b\n", "a rule is a map of fields, this is a list"),
        ("id: [\n", "not valid YAML"),
        ("id: a\nid: b\n", "`id` is there twice"),
        ("id: &a x\ntitle: *a\n", "aliases and anchors"),
        ("on: *\n", "write `*` for every call in quotes"),
        ("when: !continuation && true\n", "put a condition that begins with `!` in quotes"),
        ("when: !continuation\n", "put a condition that begins with `!` in quotes"),
        ("id: a\n---\nid: b\n", "a file holds one rule"),
        ("? [a]\n: b\n", "a key has to be a single word"),
    ] {
        let said = problems(text);
        assert!(said.contains(message), "{text:?}: {said}");
    }
    let deep = format!("id: {}{}\n", "[".repeat(100), "]".repeat(100));
    assert!(problems(&deep).contains("levels of nesting"));
    let wide = format!("tags: [{}]\n", "a, ".repeat(5000));
    assert!(problems(&wide).contains("more than 4096 values"));
    let long = format!("description: {}\n", "x".repeat(70_000));
    assert!(problems(&long).contains("more than 65536"));
}

#[test]
fn files_of_a_directory_are_told_apart() {
    let directory = tempfile::tempdir().unwrap();
    let empty = Rules::load(directory.path()).unwrap_err();
    assert!(empty.to_string().contains("there is no rule file"), "{empty}");
    std::fs::create_dir(directory.path().join("area")).unwrap();
    let good = file("memory_op", "", "");
    std::fs::write(directory.path().join("area/a.yaml"), &good).unwrap();
    std::fs::write(directory.path().join("notes.txt"), "no rule").unwrap();
    assert_eq!(Rules::load(directory.path()).unwrap().len(), 1);
    std::fs::write(directory.path().join("b.yaml"), &good).unwrap();
    std::fs::write(directory.path().join("c.yaml"), [0xff, 0xfe]).unwrap();
    let error = Rules::load(directory.path()).unwrap_err();
    let said = error.to_string();
    assert!(said.contains("b.yaml:1:5: id: `T` is also the id of"), "{said}");
    assert!(said.contains("c.yaml: is no UTF-8 text"), "{said}");
    assert!(
        Rules::load(&directory.path().join("missing")).unwrap_err().to_string().contains("cannot be read")
    );
}
