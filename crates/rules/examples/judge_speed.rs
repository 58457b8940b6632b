//! How long judging takes: `cargo run --release -p hypovisor-rules --example judge_speed`.
//!
//! The figures depend on the machine; nothing is asserted. Each is the least of several rounds.

#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a command")]

use std::hint::black_box;
use std::time::Instant;

use hypovisor_abi::Width;
use hypovisor_abi::capture::{Phase, Registers, Segments, capture};
use hypovisor_abi::decode::Call;
use hypovisor_abi::fuzzing::Copier;
use hypovisor_abi::xen::XEN;
use hypovisor_event::record::{Caller, CallerMode};
use hypovisor_rules::Rules;
use hypovisor_verdict::{Facts, GuestKind, Moment};

const ROUNDS: u32 = 20;
/// Steps that a round takes, about.
const STEPS: u32 = 1_000_000;

fn rule(id: usize, on: &str, when: &str) -> (std::path::PathBuf, String) {
    let fixed = "title: T\ndescription: D\nblind_spots: B\nseverity: low";
    (format!("{id}.yaml").into(), format!("id: R{id}\n{fixed}\non: {on}\nwhen: \"{when}\"\n"))
}

fn measure(name: &str, sources: Vec<(std::path::PathBuf, String)>, number: u64, args: [u64; 6]) {
    let rules = Rules::from_texts(sources).unwrap();
    let set = rules.compiled();
    let registers = Registers { number, args, width: Width::Bits64 };
    let mut copier = Copier::new(|gva: u64| (gva < 0x10000).then_some(u8::from(gva.is_multiple_of(8))));
    capture(&XEN, &registers, Phase::Entry, &mut copier);
    let call = Call { registers, entry: Segments(&copier.out), exit: Segments(&[]) };
    let mode = CallerMode::Pv64;
    let caller = Caller { domain: 3, vcpu: 0, mode, cpl: 3, cs: 0xe033, rip: 0, rsp: 0 };
    let facts = Facts {
        call: &call,
        caller,
        pcpu: 0,
        kind: GuestKind::Pv,
        privileged: false,
        inner: false,
        continuation: false,
        cut: false,
        end: None,
    };
    let judged = set.judge(&facts, Moment::Entry, &mut |_| {});
    let calls = STEPS / judged.steps.max(10);
    let round = || {
        let start = Instant::now();
        for _ in 0..calls {
            let facts = black_box(&facts);
            if set.interested(facts.call.registers.number) {
                black_box(set.judge(facts, Moment::Entry, &mut |rule| {
                    black_box(rule);
                }));
            }
        }
        start.elapsed().as_nanos() as f64 / f64::from(calls)
    };
    let least = (0..ROUNDS).map(|_| round()).fold(f64::INFINITY, f64::min);
    println!("{least:9.1} ns  {name} ({} steps, {} undecided)", judged.steps, judged.undecided);
}

fn main() {
    let exchange = [11, 0x4000, 0, 0, 0, 0];
    let simple = "privileged == false && domain != 0 && kind == 'pv'";
    let fields = "privileged == false && args.arg.nr_exchanged < 5 && in_xen(args.arg.out.extent_start)";
    let on = "memory_op/XENMEM_exchange";
    measure("one rule of three comparisons of facts", vec![rule(0, on, simple)], 12, exchange);
    measure("one rule of three comparisons, two behind pointers", vec![rule(0, on, fields)], 12, exchange);
    let every = |on: &str| (0..500).map(|id| rule(id, on, fields)).collect::<Vec<_>>();
    measure("500 rules of another sub-op", every("memory_op/XENMEM_exchange"), 12, [3, 0x4000, 0, 0, 0, 0]);
    measure("500 rules of another hypercall", every("memory_op/XENMEM_exchange"), 29, exchange);
    measure("500 rules of this call", every("memory_op/XENMEM_exchange"), 12, exchange);
    measure("handles_in_xen()", vec![rule(0, on, "handles_in_xen()")], 12, exchange);
    let list = "args.ureqs.exists(u, has_flag(u.ptr, 'MMU_MACHPHYS_UPDATE') && u.val == 7)";
    measure(
        "a list of 128, searched in vain",
        vec![rule(0, "mmu_update", list)],
        1,
        [0x4000, 128, 0, 0x7ff0, 0, 0],
    );
    let square = "args.ureqs.exists(u, args.ureqs.all(v, u.val + v.val < 77))";
    let worst = "args.ureqs.all(u, args.ureqs.all(v, u.val + v.val < 0x1000000))";
    measure(
        "a list of 128, each with all others",
        vec![rule(0, "mmu_update", square)],
        1,
        [0x4000, 128, 0, 0x7ff0, 0, 0],
    );
    measure(
        "one rule over its budget",
        vec![rule(0, "mmu_update", worst)],
        1,
        [0x4000, 128, 0, 0x7ff0, 0, 0],
    );
    let many = (0..100).map(|id| rule(id, "mmu_update", worst)).collect();
    measure("a call over its budget", many, 1, [0x4000, 128, 0, 0x7ff0, 0, 0]);
}
