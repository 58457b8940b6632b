//! `hypovisor eval`: how good is the detection? Benign workloads and rehearsed attacks on a real Xen, and a table.
//!
//! ```text
//!   lab run (a process of its own) ── rules, alerts, recording
//!     dom0: evaluation.sh ─ boot, xl, ballooning, … ──▶ alerts here are false
//!     hypovisor eval ── every campaign, one after the other ──▶ its rules must alert, a look-alike's must not
//! ```

use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, bail};
use clap::Args;
use hypovisor_abi::Width;
use hypovisor_campaign::Campaign;
use hypovisor_engine::remote::Request;
use hypovisor_rules::Rules;

use crate::FINDINGS;
use crate::cli::FetchArgs;
use crate::inject::campaign::{self, At};
use crate::lab;

mod machine;
mod page;
mod score;
mod silent;

use self::machine::LabRun;
use self::score::{Made, Skipped};
use self::silent::NotRehearsed;

/// Between two campaigns, so that alerts belong to one of them.
const BETWEEN: Duration = Duration::from_millis(200);

#[derive(Debug, Args)]
#[command(
    after_help = "Writes eval.json (everything), eval.html (to look at), alerts.json and the recording into the \
    directory. The same rules, campaigns, versions and seeds give the same table.\n\nExit codes: 0 every campaign was \
    detected and nothing benign raised an alert; 1 otherwise; 2 an error."
)]
pub(crate) struct EvalArgs {
    /// The rules to evaluate
    #[arg(long, value_name = "DIR", default_value = "rules/xen")]
    pub(crate) rules: PathBuf,
    /// The campaigns to rehearse
    #[arg(long, value_name = "DIR", default_value = "attacks")]
    pub(crate) campaigns: PathBuf,
    /// Where to write; a new directory
    #[arg(short, long, value_name = "DIR")]
    pub(crate) output: PathBuf,
    #[command(flatten)]
    pub(crate) parts: FetchArgs,
    /// Leave out the benign workloads and the cost: only the boot and the campaigns
    #[arg(long)]
    pub(crate) quick: bool,
}

pub(crate) fn eval(args: &EvalArgs) -> anyhow::Result<u8> {
    let rules = Rules::load(&args.rules)?;
    let campaigns = Campaign::load_all(&args.campaigns)?;
    check_names(&rules, &campaigns)?;
    let not_rehearsed = NotRehearsed::load(&args.campaigns, &rules, &campaigns)?;
    if args.output.join("eval.json").exists() {
        bail!("{} already holds an evaluation; choose another directory", args.output.display());
    }
    std::fs::create_dir_all(&args.output)
        .with_context(|| format!("cannot write to {}", args.output.display()))?;
    let prepared = lab::prepare(&args.parts)?;
    let started = now_ns();
    let mut lab = LabRun::start(args)?;
    let benign = lab.follow_workloads(started)?;
    let (made, skipped) = rehearse(&mut lab, &campaigns)?;
    lab.stop()?;
    let mut score = score::score(&args.output, &rules, &campaigns, &benign, &made, &skipped)?;
    score["not_rehearsed"] = not_rehearsed.to_json();
    score["versions"] = versions(&prepared);
    std::fs::write(args.output.join("eval.json"), serde_json::to_string_pretty(&score)? + "\n")?;
    std::fs::write(args.output.join("eval.html"), page::html(&score))?;
    page::print(&score)?;
    Ok(if score["passed"] == true { 0 } else { FINDINGS })
}

/// Of all that the figures depend on.
fn versions(prepared: &hypovisor_lab::Prepared) -> serde_json::Value {
    serde_json::json!({
        "hypovisor": env!("CARGO_PKG_VERSION"),
        "xen": prepared.xen.to_string(),
        "qemu": prepared.qemu.to_string(),
        "xen_packages": prepared.xen_manifest.packages,
        "qemu_packages": prepared.qemu_manifest.packages,
    })
}

/// A campaign that names a rule which is not there would count as missed.
fn check_names(rules: &Rules, campaigns: &[Campaign]) -> anyhow::Result<()> {
    for campaign in campaigns {
        if let Some(unknown) = campaign.rules.iter().find(|id| rules.index_of(id).is_none()) {
            bail!("campaign {} names rule {unknown}, which is not among the rules", campaign.id);
        }
    }
    Ok(())
}

/// Every campaign; also those that have no domain to be made in.
fn rehearse(lab: &mut LabRun, campaigns: &[Campaign]) -> anyhow::Result<(Vec<Made>, Vec<Skipped>)> {
    let mut engine = lab.engine()?;
    let (mut made, mut skipped) = (Vec::new(), Vec::new());
    for (index, campaign) in campaigns.iter().enumerate() {
        let Some(domain) = lab.target(campaign.target) else {
            let why = "the lab has no such guest that makes hypercalls";
            skipped.push(Skipped { campaign: campaign.id.clone(), why });
            continue;
        };
        say(&format!("campaign {} of {}: {}", index + 1, campaigns.len(), campaign.id));
        let at = At { domain, vcpu: None, width: Width::Bits64, force: false };
        // Rates and sequences begin anew: what an earlier campaign did must not count for this one.
        engine.ask(&Request::ReloadRules {})?;
        engine.answer()?;
        let from_ns = now_ns();
        let outcome = campaign::run(&mut engine, campaign, &at, &mut |_| {})?;
        std::thread::sleep(BETWEEN);
        made.push(Made { campaign: index, domain, from_ns, to_ns: now_ns(), outcome });
    }
    Ok((made, skipped))
}

fn say(what: &str) {
    let mut out = std::io::stderr().lock();
    // A closed standard error is no reason to stop.
    let _ = if out.is_terminal() { write!(out, "\r\x1b[2K{what}") } else { writeln!(out, "{what}") };
    let _ = out.flush();
}

fn now_ns() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

/// The alerts of a run, from its file.
pub(crate) fn alerts(path: &Path) -> anyhow::Result<Vec<serde_json::Value>> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).context("alerts.json")).collect()
}
