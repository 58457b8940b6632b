//! No file, set or call makes loading or judging panic, or go beyond its bounds. Replays the fuzz targets' seeds as well.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::fs;
use std::path::{Path, PathBuf};

use hypovisor_rules::fuzzing::{judge, rule_file, rule_set};
use proptest::prelude::*;
use support::{file, rules};

/// Pieces that conditions are made of.
const PIECES: &[&str] = &[
    "args",
    ".",
    "arg",
    "in",
    "extent_start",
    "[0]",
    "[",
    "]",
    "(",
    ")",
    "==",
    "!=",
    "<",
    "+",
    "-",
    "*",
    "/",
    "%",
    "&&",
    "||",
    "!",
    "?",
    ":",
    "domain",
    "privileged",
    "result",
    "target",
    "1",
    "0xffffffffffffffff",
    "'DOMID_SELF'",
    "'",
    "\"",
    "has",
    "after",
    "changed",
    "size",
    "in_xen",
    "handles_in_xen()",
    ".exists(x,",
    ".all(x,",
    "x",
    "math.bitAnd(",
    ",",
    " ",
    "true",
    "null",
    "1.5",
    "{",
    "}",
    "`",
    "b'x'",
    "r'",
    "\n",
    "//",
    "has(",
    "unreadable(",
    "nr_exchanged",
    "raw_args[1]",
    "kind in ['pv']",
    "args.arg.in.extent_start",
    "args.arg.nr_exchanged",
    "-1",
    "max(",
];

/// Whole conditions, to judge by.
const CONDITIONS: &[(&str, &str)] = &[
    ("memory_op/XENMEM_exchange", "in_xen(args.arg.out.extent_start + 8 * args.arg.nr_exchanged)"),
    ("memory_op/XENMEM_exchange", "args.arg.in.extent_start.exists(g, g > raw_args[2]) || handles_in_xen()"),
    ("mmu_update", "args.ureqs.exists(u, args.ureqs.all(v, u.val != v.ptr))"),
    ("mmuext_op", "args.uops.exists(o, has(o.mfn) ? o.mfn > 5 : o.linear_addr < 7) && handles_in_xen()"),
    ("domctl", "changed(args.u_domctl) || result * domain / number > 3"),
    ("'*'", "math.bitShiftLeft(raw_args[0], raw_args[1]) % raw_args[2] == 1 || errno == 'EPERM'"),
];

proptest! {
    #[test]
    fn any_bytes_are_a_rule_or_problems(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
        let _ = rule_file(&bytes);
    }

    #[test]
    fn any_condition_compiles_or_is_refused(
        pieces in prop::collection::vec(prop::sample::select(PIECES), 0..24),
        on in prop::sample::select(&["memory_op/XENMEM_exchange", "'*'", "mmu_update"][..]),
    ) {
        let condition = pieces.concat().replace('\n', "\n  ");
        let _ = rule_file(file(on, &condition, "").as_bytes());
    }

    #[test]
    fn any_call_can_be_judged(
        which in 0..CONDITIONS.len(),
        number in any::<bool>(),
        mut call in prop::collection::vec(any::<u8>(), 64..600),
        pointer in prop::sample::select(&[0_u64, 0x4000, 0xffff_8300_0000_0000][..]),
    ) {
        let (on, when) = CONDITIONS[which];
        let rules = rules(&file(on, when, "")).unwrap();
        if number {
            call[1] = rules.iter().next().unwrap().on[0].number.unwrap_or(0) as u8;
        }
        // The arguments lead to what was captured.
        for arg in 1..3 {
            call[8 * arg..8 * arg + 8].copy_from_slice(&pointer.to_le_bytes());
        }
        if call.len() > 96 {
            call[64..72].copy_from_slice(&pointer.to_le_bytes());
            call[72..80].copy_from_slice(&[0, 1, 0, 0, 24, 0, 0, 0]);
        }
        let _ = judge(rules.compiled(), &call);
    }

    #[test]
    fn any_bytes_are_a_set_or_malformed(bytes in prop::collection::vec(any::<u8>(), 0..256)) {
        let _ = rule_set(&bytes, &[]);
        let _ = rule_set(&[&b"HVRULES1"[..], &bytes].concat(), &[]);
    }

    #[test]
    fn a_damaged_set_is_malformed_or_keeps_its_bounds(
        which in 0..CONDITIONS.len(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        call in prop::collection::vec(any::<u8>(), 64..300),
    ) {
        let (on, when) = CONDITIONS[which];
        let mut bytes = rules(&file(on, when, "")).unwrap().compiled().to_bytes();
        for (at, value) in damage {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        let _ = rule_set(&bytes, &call);
    }
}

fn corpus(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target)
}

/// Set `HYPOVISOR_RENEW` to write them anew.
#[test]
fn seeds_are_read() {
    for (index, (on, when)) in CONDITIONS.iter().enumerate() {
        let text = file(on, when, "let: {unused: args}\n").replace("let: {unused: args}\n", "");
        let set = rules(&text).unwrap().compiled().to_bytes();
        let mut input = (set.len() as u32).to_le_bytes().to_vec();
        input.extend(set);
        for (target, bytes) in [("rule_file", text.into_bytes()), ("rule_set", input)] {
            let path = corpus(target).join(format!("condition_{index}"));
            if std::env::var_os("HYPOVISOR_RENEW").is_some() {
                fs::create_dir_all(corpus(target)).unwrap();
                fs::write(&path, &bytes).unwrap();
            }
            assert!(path.exists(), "no seed {}: set HYPOVISOR_RENEW", path.display());
        }
    }
    for entry in fs::read_dir(corpus("rule_file")).unwrap() {
        let _ = rule_file(&fs::read(entry.unwrap().path()).unwrap());
    }
    for entry in fs::read_dir(corpus("rule_set")).unwrap() {
        let _ = hypovisor_rules::fuzzing::rule_set_input(&fs::read(entry.unwrap().path()).unwrap());
    }
}
