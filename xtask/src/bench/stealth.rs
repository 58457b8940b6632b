//! Can L1 tell that it is watched? The arsenal's `detector` and `time_calls` look, in machines that are watched and machines that
//! are not, and the two are compared. The method stands in `docs/stealth.md`.
//!
//! ```text
//!     round 1:  unwatched (A)  watched  unwatched (B)
//!     round 2:  unwatched (A)  watched  unwatched (B)
//!     ...
//! ```
//!
//! Boots of the same machine differ, so A is compared with B as well: no test that tells those two apart tells anything.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::process::{Command, Stdio};

use anyhow::{Context as _, ensure};
use serde_json::{Map, Value, json};

use super::lab::{Bench, Way};

mod auc;
use auc::Comparison;

/// Boots of each of the three groups.
const ROUNDS: usize = 3;
/// With a hardware-virtualised guest, whose control block is looked at too.
const SCRIPT: &str = "set -e
xl create /lab/files/hold-pvh.cfg >&2
sleep 3
sh /lab/files/look.sh
";
/// Its console keeps all trials.
const XEN_OPTIONS: [&str; 2] = ["--xen-option", "conring_size=256k"];
/// Trials of a timed test, as the detector makes them.
const TRIALS: usize = 1000;

/// What was found on one machine.
#[derive(Debug, Default, PartialEq, Eq)]
struct Looked {
    /// The trials of each timed test.
    timed: BTreeMap<String, Vec<u64>>,
    /// What was seen without a clock.
    seen: BTreeMap<String, String>,
}

impl Looked {
    /// From the lines of `SCRIPT`.
    fn read(said: &str) -> anyhow::Result<Self> {
        let mut looked = Self::default();
        for line in said.lines() {
            if let Some((_, rest)) = line.split_once("trials: ") {
                let mut words = rest.split_whitespace();
                let trials = looked.timed.entry(words.next().unwrap_or_default().to_owned()).or_default();
                for word in words {
                    trials.push(u64::from_str_radix(word, 16).context("a trial is no number")?);
                }
            } else if let Some((name, value)) =
                line.split_once("detector: saw ").and_then(|(_, rest)| rest.split_once(' '))
            {
                looked.seen.insert(name.to_owned(), value.to_owned());
            }
        }
        let complete = looked.timed.values().all(|trials| trials.len() == TRIALS);
        ensure!(
            complete && !looked.timed.is_empty() && !looked.seen.is_empty(),
            "the detector did not finish: {said}"
        );
        Ok(looked)
    }
}

/// Boots, looks, compares.
pub(super) fn measure(bench: &Bench) -> anyhow::Result<Value> {
    let mut arsenal = Command::new(bench.hypovisor());
    crate::build::run(arsenal.args(["lab", "arsenal"]).arg(bench.files()).stdout(Stdio::null()))?;
    let [mut first, mut watched, mut second] = [Vec::new(), Vec::new(), Vec::new()];
    for _ in 0..ROUNDS {
        first.push(look(bench, Way::Unmonitored)?);
        watched.push(look(bench, Way::Everything)?);
        second.push(look(bench, Way::Unmonitored)?);
    }
    let timed = timed(&first, &watched, &second)?;
    let unwatched: Vec<&Looked> = first.iter().chain(&second).collect();
    Ok(json!({ "boots_of_each_group": ROUNDS, "timed": timed, "seen": seen(&unwatched, &watched) }))
}

fn look(bench: &Bench, way: Way) -> anyhow::Result<Looked> {
    let output = bench.lab_run(way, SCRIPT)?.args(XEN_OPTIONS).output()?;
    let looked = Looked::read(&String::from_utf8_lossy(&output.stdout))?;
    let mut hypercall = looked.timed.get("hypercall").cloned().unwrap_or_default();
    writeln!(
        std::io::stderr(),
        "looked, {way:?}: a hypercall takes {} ticks",
        super::median(&mut hypercall)
    )?;
    Ok(looked)
}

/// Each timed test: how well it tells watched machines from others, and how well it tells those from each other.
fn timed(first: &[Looked], watched: &[Looked], second: &[Looked]) -> anyhow::Result<Value> {
    let names: BTreeSet<&String> = first.iter().flat_map(|looked| looked.timed.keys()).collect();
    let mut tests = Map::new();
    writeln!(std::io::stderr(), "{HEAD}")?;
    for name in names {
        let of = |group: &[Looked]| -> Vec<Vec<u64>> {
            group.iter().filter_map(|looked| looked.timed.get(name).cloned()).collect()
        };
        let (first, watched, second) = (of(first), of(watched), of(second));
        let noise = Comparison::new(&first, &second);
        let unwatched: Vec<Vec<u64>> = first.into_iter().chain(second).collect();
        let watched = Comparison::new(&unwatched, &watched);
        writeln!(std::io::stderr(), "{}", line(name, &watched, &noise))?;
        tests.insert(name.clone(), json!({ "watched": watched.figures(), "noise": noise.figures() }));
    }
    Ok(tests.into())
}

const HEAD: &str = "| test | median unwatched | watched | AUC | 95 % | pairs of boots | error | AUC of the noise | pairs of boots |
| --- | ---: | ---: | ---: | --- | --- | ---: | ---: | --- |";

/// A row of a table.
fn line(name: &str, watched: &Comparison, noise: &Comparison) -> String {
    format!(
        "| {name} | {} | {} | {:.3} | {:.3} to {:.3} | {:.2} to {:.2} | {:.3} | {:.3} | {:.2} to {:.2} |",
        watched.median_of_first,
        watched.median_of_second,
        watched.auc,
        watched.confidence[0],
        watched.confidence[1],
        watched.between_boots[0],
        watched.between_boots[1],
        watched.error,
        noise.auc,
        noise.between_boots[0],
        noise.between_boots[1],
    )
}

/// What is seen without a clock: how much is the same on all machines; what is not, with the values of both kinds.
fn seen(unwatched: &[&Looked], watched: &[Looked]) -> Value {
    let names: BTreeSet<&String> =
        unwatched.iter().copied().chain(watched).flat_map(|looked| looked.seen.keys()).collect();
    let values = |looked: &mut dyn Iterator<Item = &Looked>, name: &String| -> BTreeSet<Option<String>> {
        looked.map(|looked| looked.seen.get(name).cloned()).collect()
    };
    let (mut same, mut different) = (0, Map::new());
    for name in names {
        let without = values(&mut unwatched.iter().copied(), name);
        let with = values(&mut watched.iter(), name);
        if without.len() == 1 && without == with {
            same += 1;
        } else {
            different.insert(name.clone(), json!({ "unwatched": without, "watched": with }));
        }
    }
    json!({ "same_on_all": same, "different": different })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(values: &str) -> String {
        let trials = format!("(XEN) trials: nothing{}\n", " 1f".repeat(TRIALS / 2));
        format!("{trials}{trials}(XEN) arsenal: detector: saw text {values}\n")
    }

    #[test]
    fn the_detector_is_read() {
        let looked = Looked::read(&said("2b")).unwrap();
        assert_eq!(looked.timed["nothing"], vec![0x1f; TRIALS]);
        assert_eq!(looked.seen["text"], "2b");
        assert!(Looked::read("(XEN) trials: nothing 1f\n(XEN) detector: saw text 1\n").is_err());
    }

    #[test]
    fn what_is_seen_on_one_kind_only_is_told() {
        let [one, other] = ["1", "2"].map(|value| Looked::read(&said(value)).unwrap());
        assert_eq!(seen(&[&one], std::slice::from_ref(&one)), json!({ "same_on_all": 1, "different": {} }));
        assert_eq!(
            seen(&[&one], &[other])["different"],
            json!({ "text": { "unwatched": ["1"], "watched": ["2"] } })
        );
    }
}
