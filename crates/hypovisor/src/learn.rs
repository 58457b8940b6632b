//! `learn` and `policy`: what recordings show to be usual.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;
use hypovisor_engine::alert::replay;
use hypovisor_engine::policy::PolicyLearner;
use hypovisor_engine::profile::{Learner, Profile};
use hypovisor_engine::recording::Recording;

use crate::FINDINGS;

const LEARN_HELP: &str = "\
Learned are, for privileged, PV, PVH and HVM domains each: which calls and sub-ops they make, what follows upon what on
a vCPU (three calls in a row), how many of each they make within a second, and how those fail. With `--profile FILE`,
`trace`, `run` and `lab run` raise an alert on what is new, with the reason in words. Learn from recordings in which
nobody attacks, and from enough of them: what was not recorded is a deviation.

Exit codes: 0 done; 1 done, but the recordings have gaps; 2 an error.";

const POLICY_HELP: &str = "\
The file lists, for each kind of domain or with --by-name for each domain, the calls and sub-ops it made, the flags it
set and the largest sizes, counts and orders it used; comments say how often, and which parts of Xen's interface were
never used and could be switched off. Edit it, then give it to `trace`, `run` or `lab run` as `--policy FILE`: whatever
it does not list raises an alert, and is refused with `--enforce deny`.

Exit codes: 0 done; 1 done, but the recordings have gaps; 2 an error.";

#[derive(Debug, Args)]
#[command(after_help = LEARN_HELP)]
pub(crate) struct LearnArgs {
    /// The recordings
    #[arg(value_name = "RECORDING", required = true)]
    pub(crate) recordings: Vec<PathBuf>,
    /// The profile to write
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: PathBuf,
}

#[derive(Debug, Args)]
#[command(after_help = POLICY_HELP)]
pub(crate) struct PolicyArgs {
    /// The recordings
    #[arg(value_name = "RECORDING", required = true)]
    pub(crate) recordings: Vec<PathBuf>,
    /// The policy to write; without it, it is printed
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// An entry for each domain by its name, rather than for each kind of domain
    #[arg(long)]
    pub(crate) by_name: bool,
}

pub(crate) fn learn(args: &LearnArgs) -> anyhow::Result<u8> {
    let (mut learner, mut lost) = (Learner::default(), 0);
    for path in &args.recordings {
        let recording = Recording::open(path)?;
        lost += recording.manifest().lost_calls();
        learner.begin();
        replay(recording.calls()?, &mut learner).with_context(|| path.display().to_string())?;
    }
    let profile = learner.finish();
    profile.save(&args.output)?;
    write!(std::io::stdout(), "{}", summary(&profile))?;
    gaps(lost)
}

/// What was learned, a line for each kind of domain.
fn summary(profile: &Profile) -> String {
    let lines = profile.kinds.iter().map(|(kind, learned)| {
        let sequences: usize = learned.sequences.values().flat_map(|then| then.values()).map(Vec::len).sum();
        let (domains, calls, operations) = (learned.domains, learned.calls, learned.operations.len());
        let cut = if learned.cut { ", more than is kept: not all of it" } else { "" };
        let name = kind.name();
        format!("{name:<10} {domains} domains, {calls} calls, {operations} different ones, {sequences} sequences{cut}\n")
    });
    lines.collect()
}

pub(crate) fn policy(args: &PolicyArgs) -> anyhow::Result<u8> {
    let (mut learner, mut lost) = (PolicyLearner::by_name(args.by_name), 0);
    for path in &args.recordings {
        let recording = Recording::open(path)?;
        lost += recording.manifest().lost_calls();
        learner.begin(&recording.manifest().domains);
        replay(recording.calls()?, &mut learner).with_context(|| path.display().to_string())?;
    }
    let text = learner.finish().to_yaml();
    match &args.output {
        Some(path) => write(path, &text)?,
        None => std::io::stdout().write_all(text.as_bytes())?,
    }
    gaps(lost)
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

fn gaps(lost: u64) -> anyhow::Result<u8> {
    if lost == 0 {
        return Ok(0);
    }
    writeln!(
        std::io::stderr(),
        "hypovisor: warning: the recordings lack {lost} calls, which were not learned from"
    )?;
    Ok(FINDINGS)
}
