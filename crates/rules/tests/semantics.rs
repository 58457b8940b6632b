//! What conditions mean, function by function.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use hypovisor_event::record::CallerMode;
use hypovisor_verdict::{Moment, RuleIndex};
use support::{Made, file, judge, load, says, words};

const EXCHANGE: &str = "memory_op/XENMEM_exchange";

/// `XENMEM_exchange` of one frame; the new frame's number is to go to `out`.
fn exchange(out: u64, nr_exchanged: u64) -> Made {
    let reservation = |list: u64| [list, 1, 0, 0x7ff0];
    let mut bytes = words(&reservation(0x5000));
    bytes.extend(words(&reservation(out)));
    bytes.extend(words(&[nr_exchanged]));
    let mut after = bytes.clone();
    after[64] = 9;
    Made::new(12, &[11, 0x4000]).changing(0x4000, &bytes, &after).memory(0x5000, &words(&[0x1234]))
}

#[test]
fn facts_of_a_call() {
    let call = exchange(0x6000, 0);
    for (when, expected) in [
        ("domain == 3 && vcpu == 1 && pcpu == 2 && cpl == 3", true),
        ("privileged == false", true),
        ("kind == 'pv' && mode == 'pv64'", true),
        ("kind in ['hvm', 'pvh']", false),
        ("hypercall == 'memory_op' && number == 12", true),
        ("sub_op == 'XENMEM_exchange' && sub_op_number == 11", true),
        ("rip == 0xffffffff810013aa && rsp == 0x1000 && cs == 0xe033", true),
        ("raw_args[1] == 0x4000 && raw_args[5] == 0", true),
        ("inner || continuation || cut", false),
        ("domain == 'DOMID_SELF'", false),
    ] {
        assert_eq!(judge(EXCHANGE, when, &call), Some(expected), "{when}");
    }
}

#[test]
fn results_are_known_at_return() {
    let failed = exchange(0x6000, 0).result(-14);
    for (when, expected) in [
        ("errno == 'EFAULT' && result == -14", Some(true)),
        ("errno != 'EPERM'", Some(true)),
        ("outcome == 'returned'", Some(true)),
        ("duration_ns > 1000", Some(true)),
    ] {
        let rules = load(&file(EXCHANGE, when, ""));
        assert_eq!(rules.get(RuleIndex(0)).unwrap().moment, Moment::Return);
        assert_eq!(says(&rules, &failed), expected, "{when}");
    }
    assert_eq!(judge(EXCHANGE, "errno == ''", &failed.clone().result(7)), Some(true));
    let preempted = Made { result: None, ..failed };
    assert_eq!(judge(EXCHANGE, "result == 0", &preempted), None);
    assert_eq!(judge(EXCHANGE, "outcome == 'preempted'", &preempted), Some(true));
}

#[test]
fn paths_go_through_structs_and_pointers() {
    let call = exchange(0x6000, 2);
    for (when, expected) in [
        ("args.cmd == 'XENMEM_exchange'", Some(true)),
        ("args.arg == 0x4000", Some(true)),
        ("args.arg.in.extent_start == 0x5000", Some(true)),
        ("args.arg.in.extent_start[0] == 0x1234", Some(true)),
        ("args.arg.in.extent_start[1] == 0x1234", None),
        ("args.arg.out.extent_start == 0x6000 && args.arg.out.domid == 'DOMID_SELF'", Some(true)),
        ("args.arg.nr_exchanged == 2", Some(true)),
        ("after(args.arg.nr_exchanged) == 9", Some(true)),
        ("changed(args.arg.nr_exchanged) && !changed(args.arg.in)", Some(true)),
        ("has(args.arg.in.extent_start[0]) && !has(args.arg.in.extent_start[1])", Some(true)),
        ("size(args.arg.in.extent_start) == 1", Some(true)),
        ("args.arg.in.extent_start.exists(gfn, gfn == 0x1234)", Some(true)),
        ("args.arg.in.extent_start.all(gfn, gfn == 0x1234)", Some(true)),
        ("unreadable(args.arg.in.extent_start)", Some(false)),
    ] {
        assert_eq!(judge(EXCHANGE, when, &call), expected, "{when}");
    }
}

#[test]
fn the_rule_of_the_specification() {
    let text = file(
        EXCHANGE,
        "privileged == false && !continuation && in_xen(target)",
        "let:\n  target: args.arg.out.extent_start + 8 * args.arg.nr_exchanged\n",
    );
    let rules = load(&text);
    assert_eq!(says(&rules, &exchange(0xffff_82d0_8000_0000, 1)), Some(true));
    assert_eq!(says(&rules, &exchange(0x6000, 1)), Some(false));
    // Just below Xen, and in it by what has been exchanged.
    assert_eq!(says(&rules, &exchange(0xffff_7fff_ffff_fff8, 0)), Some(false));
    assert_eq!(says(&rules, &exchange(0xffff_7fff_ffff_fff8, 1)), Some(true));
    // The sum does not wrap into user space.
    assert_eq!(says(&rules, &exchange(0xffff_82d0_8000_0000, 1 << 62)), Some(false));
    let hvm = exchange(0xffff_82d0_8000_0000, 1).mode(CallerMode::Hvm64);
    assert_eq!(says(&rules, &hvm), Some(false));
}

#[test]
fn absent_values_are_absorbed_or_undecided() {
    // Nothing is mapped behind the argument.
    let call = Made::new(12, &[11, 0x4000]);
    for (when, expected) in [
        ("args.arg.nr_exchanged == 0", None),
        ("!(args.arg.nr_exchanged == 0)", None),
        ("domain == 9 && args.arg.nr_exchanged == 0", Some(false)),
        ("args.arg.nr_exchanged == 0 && domain == 9", Some(false)),
        ("domain == 3 || args.arg.nr_exchanged == 0", Some(true)),
        ("args.arg.nr_exchanged == 0 || domain == 3", Some(true)),
        ("has(args.arg.nr_exchanged)", Some(false)),
        ("has(args.arg.in)", Some(false)),
        ("unreadable(args.arg)", Some(true)),
        ("args.arg.nr_exchanged == 0 ? true : true", None),
        ("domain == 3 ? true : args.arg.nr_exchanged == 0", Some(true)),
        ("1 / (domain - 3) == 0", None),
        ("handles_in_xen()", Some(false)),
    ] {
        assert_eq!(judge(EXCHANGE, when, &call), expected, "{when}");
    }
}

#[test]
fn arithmetic_is_exact() {
    let call = Made::new(12, &[11, u64::MAX]);
    for (when, expected) in [
        ("raw_args[1] + 1 == 18446744073709551616u - 0", None::<bool>),
        ("raw_args[1] + raw_args[1] > raw_args[1]", Some(true)),
        ("raw_args[1] * raw_args[1] / raw_args[1] == raw_args[1]", None),
        ("0 - raw_args[1] < 0", Some(true)),
        ("-raw_args[1] == 0 - 0xffffffffffffffff", Some(true)),
        ("math.bitAnd(raw_args[1], 0xff) == 255", Some(true)),
        ("math.bitOr(1, 6) == 7 && math.bitXor(5, 1) == 4", Some(true)),
        ("math.bitShiftLeft(raw_args[1], 12) / 4096 == raw_args[1]", Some(true)),
        ("math.bitShiftRight(raw_args[1], 60) == 15", Some(true)),
        ("math.bitShiftLeft(1, 200) == 0", None),
        ("math.least(3, 1, 2) == 1 && max(3, 1) == 3 && math.greatest(1, 2, 5) == 5", Some(true)),
        ("7 % 3 == 1 && -7 / 2 == -3", Some(true)),
        ("canonical(raw_args[1]) && !canonical(0x800000000000)", Some(true)),
    ] {
        let text = file(EXCHANGE, when, "");
        match support::rules(&text) {
            Ok(rules) => assert_eq!(says(&rules, &call), expected, "{when}"),
            // A literal that no C integer holds is no condition.
            Err(error) => assert!(when.contains("18446744073709551616u"), "{error}"),
        }
    }
}

#[test]
fn callers_of_32_bits_have_their_own_layout() {
    let word = |value: u32| value.to_le_bytes();
    let mut bytes = Vec::new();
    for list in [0x5000_u32, 0xf590_0000] {
        for value in [list, 1, 0, 0, 0x7ff0] {
            bytes.extend(word(value));
        }
    }
    bytes.extend(word(4));
    let call = Made::new(12, &[11, 0xdead_0000_0000_4000]).mode(CallerMode::Pv32).memory(0x4000, &bytes);
    for (when, expected) in [
        ("args.arg == 0x4000 && args.arg.nr_exchanged == 4", Some(true)),
        ("in_xen(args.arg.out.extent_start)", Some(true)),
        ("in_xen(args.arg.in.extent_start)", Some(false)),
        ("handles_in_xen()", Some(true)),
        ("canonical(0x100000000)", Some(false)),
    ] {
        assert_eq!(judge(EXCHANGE, when, &call), expected, "{when}");
    }
    // 64 bits in two registers.
    let call = Made::new(14, &[0x1000, 0x2000, 0x3, 0x1]).mode(CallerMode::Pv32);
    assert_eq!(judge("update_va_mapping", "args.val == 0x300002000 && args.flags == 1", &call), Some(true));
}

#[test]
fn lists_are_searched_to_the_end_of_the_capture() {
    let updates = |count: u64| words(&(0..count).flat_map(|n| [0x1000 * n + (n & 1), n]).collect::<Vec<_>>());
    let call = Made::new(1, &[0x4000, 8, 0, 0x7ff0]).memory(0x4000, &updates(8));
    for (when, expected) in [
        ("args.ureqs.exists(u, has_flag(u.ptr, 'MMU_MACHPHYS_UPDATE') && u.val == 7)", Some(true)),
        ("args.ureqs.exists(u, has_flag(u.ptr, 'MMU_MACHPHYS_UPDATE') && u.val == 6)", Some(false)),
        ("args.ureqs.all(u, u.val < 8)", Some(true)),
        ("args.ureqs.all(u, u.val < 7)", Some(false)),
        ("size(args.ureqs) == 8 && args.ureqs[7].val == 7", Some(true)),
        ("args.ureqs.exists(u, args.ureqs.exists(v, v.val == u.val + 7))", Some(true)),
        ("args.ureqs.exists(u, args.ureqs.exists(v, v.val == u.val + 8))", Some(false)),
    ] {
        assert_eq!(judge("mmu_update", when, &call), expected, "{when}");
    }
    // Two of ten are not mapped: what was not captured may be what is looked for.
    let call = Made { args: [0x4000, 10, 0, 0x7ff0, 0, 0], ..call };
    assert_eq!(judge("mmu_update", "args.ureqs.exists(u, u.val == 9)", &call), None);
    assert_eq!(judge("mmu_update", "args.ureqs.exists(u, u.val == 2)", &call), Some(true));
    assert_eq!(judge("mmu_update", "args.ureqs.all(u, u.val < 8)", &call), None);
    assert_eq!(judge("mmu_update", "unreadable(args.ureqs)", &call), Some(true));
    // No list at all.
    let call = Made::new(1, &[0, 0, 0, 0x7ff0]);
    assert_eq!(judge("mmu_update", "args.ureqs.exists(u, u.val == 9)", &call), None);
}

#[test]
fn a_union_has_the_member_that_its_tag_selects() {
    // MMUEXT_INVLPG_LOCAL has `linear_addr`, MMUEXT_PIN_L1_TABLE has `mfn`.
    let op =
        |cmd: u64, arg: u64| Made::new(26, &[0x4000, 1, 0, 0x7ff0]).memory(0x4000, &words(&[cmd, arg, 0]));
    let pin = op(0, 0x77);
    let invalidate = op(7, 0x77);
    for (when, on_pin, on_invalidate) in [
        ("args.uops[0].mfn == 0x77", Some(true), None),
        (
            "args.uops.exists(o, o.cmd == 'MMUEXT_INVLPG_LOCAL' && o.linear_addr == 0x77)",
            Some(false),
            Some(true),
        ),
        ("has(args.uops.arg1.mfn)", Some(true), Some(false)),
        ("args.uops.exists(o, has(o.linear_addr))", Some(false), Some(true)),
    ] {
        assert_eq!(judge("mmuext_op", when, &pin), on_pin, "{when}");
        assert_eq!(judge("mmuext_op", when, &invalidate), on_invalidate, "{when}");
    }
}

#[test]
fn what_xen_writes_is_read_after_the_call() {
    // EVTCHNOP_alloc_unbound { dom, remote_dom, port (out) }
    let before = [0xf0, 0x7f, 2, 0, 0xee, 0xee, 0xee, 0xee];
    let after = [0xf0, 0x7f, 2, 0, 5, 0, 0, 0];
    let call = Made::new(32, &[6, 0x4000]).changing(0x4000, &before, &after);
    let on = "event_channel_op/EVTCHNOP_alloc_unbound";
    assert_eq!(judge(on, "args.arg.remote_dom == 2 && args.arg.port == 5", &call), Some(true));
    assert_eq!(judge(on, "after(args.arg.port) == 5", &call), Some(true));
    let rules = load(&file(on, "args.arg.port == 5", ""));
    assert_eq!(rules.get(RuleIndex(0)).unwrap().moment, Moment::Return);
}

#[test]
fn negative_statuses_have_their_names() {
    // gnttab_query_size: dom, nr_frames, max_nr_frames, status (-1)
    let mut after = vec![0xf0, 0x7f, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 0xff, 0xff, 0, 0];
    let before = vec![0; 16];
    let call = Made::new(20, &[6, 0x4000, 1]).changing(0x4000, &before, &after);
    let on = "grant_table_op/GNTTABOP_query_size";
    assert_eq!(judge(on, "args.uop.status == 'GNTST_general_error'", &call), Some(true));
    assert_eq!(judge(on, "args.uop.status == -1", &call), Some(true));
    assert_eq!(judge(on, "args.uop.exists(e, after(e.status) == 'GNTST_general_error')", &call), Some(true));
    after[12] = 0;
    after[13] = 0;
    let call = Made::new(20, &[6, 0x4000, 1]).changing(0x4000, &before, &after);
    assert_eq!(judge(on, "args.uop.status == 'GNTST_okay'", &call), Some(true));
}

#[test]
fn handles_in_xen_looks_behind_pointers_and_into_lists() {
    assert_eq!(judge(EXCHANGE, "handles_in_xen()", &exchange(0x6000, 0)), Some(false));
    assert_eq!(judge(EXCHANGE, "handles_in_xen()", &exchange(0xffff_8300_0000_0000, 0)), Some(true));
    assert_eq!(judge(EXCHANGE, "any_handle(in_xen)", &exchange(0xffff_8300_0000_0000, 0)), Some(true));
    assert_eq!(judge(EXCHANGE, "handles_not_canonical()", &exchange(1 << 50, 0)), Some(true));
    let in_register = Made::new(12, &[11, 0xffff_8300_0000_0000]);
    assert_eq!(judge(EXCHANGE, "handles_in_xen()", &in_register), Some(true));
    // The mask of MMUEXT_TLB_FLUSH_MULTI, in the second operation.
    let ops = words(&[6, 0, 0, 8, 0, 0xffff_8300_0000_0000]);
    let call = Made::new(26, &[0x4000, 2, 0, 0x7ff0]).memory(0x4000, &ops);
    assert_eq!(judge("mmuext_op", "handles_in_xen()", &call), Some(true));
    let ops = words(&[6, 0, 0, 6, 0, 0xffff_8300_0000_0000]);
    let call = Made::new(26, &[0x4000, 2, 0, 0x7ff0]).memory(0x4000, &ops);
    assert_eq!(judge("mmuext_op", "handles_in_xen()", &call), Some(false));
}

#[test]
fn handles_are_looked_for_in_every_call_that_a_target_covers() {
    let in_xen = 0xffff_8300_0000_0000;
    for on in ["'*'", "[memory_op, mmu_update, sched_op]"] {
        for (call, expected) in [
            (exchange(in_xen, 0), true),
            (exchange(0x6000, 0), false),
            (Made::new(12, &[7, in_xen]), true),
            (Made::new(12, &[50, in_xen]), false),
            (Made::new(1, &[in_xen, 1, 0, 0]), true),
            (Made::new(55, &[in_xen]), false),
        ] {
            assert_eq!(judge(on, "handles_in_xen()", &call), Some(expected), "{on} {:x?}", call.args);
        }
        let either = "handles_in_xen() || (raw_args[0] == 50 && number == 12)";
        let rules = load(&file(on, either, ""));
        for (args, expected) in [([50, 0], true), ([7, in_xen], true), ([7, 0], false)] {
            let mut matches = 0;
            Made::new(12, &args).at(Moment::Entry, |facts| {
                rules.compiled().judge(facts, Moment::Entry, &mut |_| matches += 1);
            });
            assert_eq!(matches, u32::from(expected), "{on} {args:x?}");
        }
    }
    assert_eq!(judge("'*'", "handles_in_xen() || number == 99", &Made::new(99, &[])), Some(true));
}

#[test]
fn a_rule_concerns_the_calls_it_names() {
    let several = "[memory_op/XENMEM_exchange, memory_op/50, sched_op, 55]";
    for (number, sub_op, expected) in [
        (12, 11, true),
        (12, 50, true),
        (12, 7, false),
        (29, 0, true),
        (55, 0, true),
        (54, 0, false),
        (1 << 40, 0, false),
    ] {
        let rules = load(&file(several, "", ""));
        assert_eq!(says(&rules, &Made::new(number, &[sub_op])), Some(expected), "{number}/{sub_op}");
        assert_eq!(rules.compiled().interested(number), [12, 29, 55].contains(&number));
    }
    let every = load(&file("'*'", "number > 55", ""));
    assert_eq!(says(&every, &Made::new(1 << 40, &[])), Some(true));
    assert!(every.compiled().interested(u64::MAX));
}

#[test]
fn exceptions_apply_only_when_they_are_decided() {
    let more =
        "exceptions: [{when: domain == 4, reason: R}, {when: args.arg.nr_exchanged == 5, reason: R}]\n";
    let rules = load(&file(EXCHANGE, "args.cmd == 11", more));
    assert_eq!(says(&rules, &exchange(0x6000, 1)), Some(true));
    assert_eq!(says(&rules, &exchange(0x6000, 5)), Some(false));
    assert_eq!(says(&rules, &Made { domain: 4, ..exchange(0x6000, 1) }), Some(false));
    assert_eq!(says(&rules, &Made::new(12, &[11, 0x4000])), Some(true), "nothing is mapped there");
}

#[test]
fn the_sensor_gets_the_rules_that_block() {
    use hypovisor_rules::Enforce;
    use hypovisor_verdict::{Action, RuleSet};
    let deny = file(EXCHANGE, "in_xen(args.arg)", "action: deny\nerrno: EFAULT\n");
    let alert = file("sched_op", "", "").replace("id: T", "id: A");
    let rules = hypovisor_rules::Rules::from_texts(vec![("a".into(), alert), ("t".into(), deny)]).unwrap();
    assert!(rules.for_sensor(Enforce::Observe).unwrap().is_empty());
    let set = rules.for_sensor(Enforce::Deny).unwrap();
    assert!(set.interested(12) && !set.interested(29));
    let concerns = |number, cmd| {
        let args = [cmd, 0, 0, 0, 0, 0];
        set.concerns(&hypovisor_abi::capture::Registers { number, args, width: hypovisor_abi::Width::Bits64 })
    };
    assert!(concerns(12, 11) && concerns(12, 11 | 5 << 6), "the upper bits are a continuation's");
    assert!(!concerns(12, 7) && !concerns(29, 11));
    let set = RuleSet::from_bytes(&set.to_bytes()).unwrap();
    let call = Made::new(12, &[11, 0xffff_8300_0000_0000]);
    let mut matched = Vec::new();
    call.at(Moment::Entry, |facts| set.judge(facts, Moment::Entry, &mut |rule| matched.push(rule)));
    assert_eq!(matched, [rules.index_of("T").unwrap()]);
    assert_eq!(set.action(matched[0]), Action::Deny { errno: 14 });
    set.switch_off(matched[0]);
    matched.clear();
    call.at(Moment::Entry, |facts| set.judge(facts, Moment::Entry, &mut |rule| matched.push(rule)));
    assert!(matched.is_empty());
}

#[test]
fn too_many_steps_are_reported() {
    let updates = words(&(0..1024).map(|n| n & !3).collect::<Vec<u64>>());
    let call = Made::new(1, &[0x4000, 512, 0, 0x7ff0]).memory(0x4000, &updates);
    let when = "args.ureqs.all(u, args.ureqs.all(v, u.val + v.val < 0x1000000))";
    let rules = load(&file("mmu_update", when, ""));
    let judged = call.at(Moment::Entry, |facts| rules.compiled().judge(facts, Moment::Entry, &mut |_| {}));
    assert_eq!(judged.over_budget, Some(RuleIndex(0)));
    assert!(judged.steps <= hypovisor_verdict::MAX_STEPS_PER_RULE + 64, "{judged:?}");
}
