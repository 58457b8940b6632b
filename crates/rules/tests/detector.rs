//! Rates and sequences over time.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::sync::Arc;

use hypovisor_rules::{Detector, Finding, Seen};
use hypovisor_verdict::Moment;
use support::{Made, file, load};

const MS: i64 = 1_000_000;

/// Feeds calls to a detector, one millisecond number each.
struct Feed {
    detector: Detector,
    sequence: u64,
}

impl Feed {
    fn new(text: &str) -> Self {
        Self { detector: Detector::new(Arc::new(load(text))), sequence: 0 }
    }

    fn call(&mut self, at_ms: i64, call: &Made) -> Vec<Finding> {
        self.sequence += 1;
        let seen = Seen { time_ns: at_ms * MS, pcpu: 0, sequence: self.sequence };
        let mut found = Vec::new();
        for moment in [Moment::Entry, Moment::Return] {
            call.at(moment, |facts| {
                self.detector.observe(seen, facts, moment, &mut |finding| found.push(finding));
            });
        }
        found
    }

    fn fires(&mut self, at_ms: i64, call: &Made) -> bool {
        !self.call(at_ms, call).is_empty()
    }
}

fn of_domain(domain: u16, number: u64) -> Made {
    Made { domain, ..Made::new(number, &[0]) }
}

#[test]
fn a_rate_fires_once_per_window_and_domain() {
    let mut feed = Feed::new(&file("sched_op", "", "rate: {count: 5, within: 1s}\n"));
    let (one, other) = (of_domain(1, 29), of_domain(2, 29));
    for at in 0..4 {
        assert!(!feed.fires(at, &one));
        assert!(!feed.fires(at, &other));
    }
    assert!(feed.fires(4, &one));
    assert!(feed.fires(4, &other));
    for at in 5..1000 {
        assert!(!feed.fires(at, &one), "{at}");
    }
    assert!(feed.fires(1010, &one), "it goes on");
}

#[test]
fn a_rate_that_is_not_reached_never_fires() {
    let mut feed = Feed::new(&file("sched_op", "", "rate: {count: 5, within: 1s}\n"));
    // Four a second for a minute.
    for at in 0..240 {
        assert!(!feed.fires(at * 251, &of_domain(1, 29)), "{at}");
    }
    // Five in less than fifteen sixteenths of a second, wherever the slices begin.
    for start in 0..80 {
        let from = 100_000 + start * 5013;
        assert!((0..4).all(|n| !feed.fires(from + n * 220, &of_domain(1, 29))));
        assert!(feed.fires(from + 4 * 220, &of_domain(1, 29)), "{start}");
    }
}

#[test]
fn calls_can_be_the_window() {
    let mut feed = Feed::new(&file("sched_op", "", "rate: {count: 3, within_calls: 10}\n"));
    let (counted, other) = (of_domain(1, 29), of_domain(1, 30));
    for _ in 0..20 {
        assert!(!feed.fires(0, &counted));
        (0..9).for_each(|_| assert!(!feed.fires(0, &other)));
    }
    assert!(!feed.fires(0, &counted));
    assert!(!feed.fires(0, &counted) && feed.fires(0, &counted));
}

const SEQUENCE: &str = "\
id: S
title: T
description: D
blind_spots: B
severity: low
sequence:
  within: 1s
  steps:
    - {on: memory_op}
    - {on: sched_op, when: result == 0}
    - {on: iret}
";

#[test]
fn a_sequence_takes_its_steps_in_order_and_in_time() {
    let mut feed = Feed::new(SEQUENCE);
    let (first, second, third) = (of_domain(1, 12), of_domain(1, 29), of_domain(1, 23));
    let failed = second.clone().result(-1);
    assert!(!feed.fires(0, &second) && !feed.fires(1, &third));
    // Too late from the first to the last.
    assert!(!feed.fires(10, &first) && !feed.fires(500, &second) && !feed.fires(1011, &third));
    // A step that failed, or was another domain's, is none.
    assert!(!feed.fires(2000, &first) && !feed.fires(2001, &failed) && !feed.fires(2002, &third));
    assert!(!feed.fires(2003, &of_domain(2, 29)) && !feed.fires(2004, &third));
    // Others in between do not matter.
    assert!(!feed.fires(2005, &second) && !feed.fires(2006, &of_domain(1, 1)));
    let found = feed.call(2007, &third);
    let calls: Vec<u64> = found[0].earlier.iter().map(|seen| seen.sequence).collect();
    assert_eq!(calls, [6, 11]);
    // It begins anew.
    assert!(!feed.fires(2008, &third));
}

#[test]
fn one_call_takes_one_step() {
    let text = SEQUENCE.replace("sched_op, when: result == 0", "memory_op").replace("iret", "memory_op");
    let mut feed = Feed::new(&text);
    let call = of_domain(1, 12);
    assert!(!feed.fires(0, &call) && !feed.fires(1, &call) && feed.fires(2, &call));
    assert!(!feed.fires(3, &call));
}

#[test]
fn state_is_bounded_and_losses_are_counted() {
    let mut feed = Feed::new(&file("sched_op", "", "rate: {count: 2, within_calls: 100}\n"));
    for domain in 0..40_000 {
        assert!(!feed.fires(0, &of_domain(domain, 29)));
    }
    assert!(feed.detector.counters().forgotten > 0);
    assert!(feed.fires(0, &of_domain(39_999, 29)), "the youngest are kept");
}

#[test]
fn times_that_go_back_do_no_harm() {
    let mut feed = Feed::new(&file("sched_op", "", "rate: {count: 3, within: 1s}\n"));
    let call = of_domain(1, 29);
    assert!(!feed.fires(5000, &call) && !feed.fires(-3, &call) && feed.fires(i64::MIN / MS, &call));
}

#[test]
fn what_is_undecided_is_counted() {
    let mut feed = Feed::new(&file("memory_op/XENMEM_exchange", "args.arg.nr_exchanged == 1", ""));
    assert!(!feed.fires(0, &Made::new(12, &[11, 0x4000])));
    assert_eq!(feed.detector.counters().undecided, [1]);
}
