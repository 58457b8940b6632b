//! `hypovisor eval`: how good is the detection? Benign workloads and rehearsed attacks on a real Xen, and a table.
//!
//! ```text
//!   lab run (a process of its own) ── rules, alerts, recording
//!     dom0: workloads.sh ── boot, xl, ballooning, … ──▶ alerts here are false
//!     hypovisor eval ── every campaign, one after the other ──▶ its rules must alert, a look-alike's must not
//! ```

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, bail};
use clap::Args;
use hypovisor_abi::Width;
use hypovisor_campaign::{Campaign, Target};
use hypovisor_engine::remote::{Engine, Request};
use hypovisor_rules::Rules;

use crate::FINDINGS;
use crate::cli::XenArg;
use crate::inject::campaign::{self, At};

mod page;
mod score;

use self::score::{Benign, Made, Skipped, Workload};

/// What runs in dom0.
const WORKLOADS: &str = include_str!("eval/workloads.sh");
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
    /// Which Xen
    #[arg(long, value_enum, default_value = "4.20")]
    pub(crate) xen: XenArg,
    /// Leave the benign workloads out: only the boot and the campaigns
    #[arg(long)]
    pub(crate) quick: bool,
}

pub(crate) fn eval(args: &EvalArgs) -> anyhow::Result<u8> {
    let rules = Rules::load(&args.rules)?;
    let campaigns = Campaign::load_all(&args.campaigns)?;
    check_names(&rules, &campaigns)?;
    if args.output.join("eval.json").exists() {
        bail!("{} already holds an evaluation; choose another directory", args.output.display());
    }
    std::fs::create_dir_all(&args.output)
        .with_context(|| format!("cannot write to {}", args.output.display()))?;
    let started = now_ns();
    let mut lab = LabRun::start(args)?;
    let benign = lab.follow_workloads(started)?;
    let (made, skipped) = rehearse(&mut lab, &campaigns)?;
    lab.stop()?;
    let score = score::score(&args.output, &rules, &campaigns, &benign, &made, &skipped)?;
    std::fs::write(args.output.join("eval.json"), serde_json::to_string_pretty(&score)? + "\n")?;
    std::fs::write(args.output.join("eval.html"), page::html(&score))?;
    page::print(&score)?;
    Ok(if score["passed"] == true { 0 } else { FINDINGS })
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

/// A lab machine that is watched by another process.
struct LabRun {
    child: Child,
    lines: std::io::Lines<BufReader<ChildStdout>>,
    runtime: tempfile::TempDir,
    _files: tempfile::TempDir,
    /// Ids of domains by name.
    domains: BTreeMap<String, u16>,
}

impl LabRun {
    fn start(args: &EvalArgs) -> anyhow::Result<Self> {
        let (runtime, files) = (tempfile::tempdir()?, tempfile::tempdir()?);
        hypovisor_lab::guests::build(&files.path().join("files"))?;
        let script = files.path().join("script");
        let text = format!("quick={}\n{WORKLOADS}", if args.quick { "yes" } else { "" });
        std::fs::write(&script, text)?;
        let xen = if args.xen == XenArg::V4_17 { "4.17" } else { "4.20" };
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["lab", "run", "--xen", xen, "--timeout", "3000"]);
        command.arg("--files").arg(files.path().join("files")).arg("--script").arg(&script);
        command.arg("--rules").arg(&args.rules).arg("--alerts").arg(args.output.join("alerts.json"));
        command.arg("--record").arg(args.output.join("recording"));
        command.env("XDG_RUNTIME_DIR", runtime.path()).stdout(Stdio::piped());
        let mut child = command.spawn().context("cannot start the lab")?;
        let stdout = child.stdout.take().context("the lab has no output")?;
        let lines = BufReader::new(stdout).lines();
        Ok(Self { child, lines, runtime, _files: files, domains: BTreeMap::new() })
    }

    /// Until the script says that campaigns may begin.
    fn follow_workloads(&mut self, started: i64) -> anyhow::Result<Benign> {
        let mut benign = Benign { from_ns: started, ..Benign::default() };
        loop {
            let Some(line) = self.lines.next() else {
                bail!("the lab ended before the campaigns; see above")
            };
            let line = line?;
            let now = now_ns();
            if let Some(name) = line.strip_prefix("begin ") {
                say(&format!("benign: {name}"));
                benign.workloads.push(Workload {
                    name: name.to_owned(),
                    from_ns: now,
                    to_ns: now,
                    problem: None,
                });
            } else if let Some(outcome) = line.strip_prefix("end ") {
                if let Some(workload) = benign.workloads.last_mut() {
                    workload.to_ns = now;
                    workload.problem = outcome.strip_prefix("failed: ").map(str::to_owned);
                }
            } else if let Some(domain) = line.strip_prefix("domain ") {
                let (id, name) = domain.split_once(' ').unwrap_or((domain, ""));
                self.domains.insert(name.trim().to_owned(), id.parse().context("a domain's id")?);
            } else if line == "campaigns" {
                benign.to_ns = now;
                return Ok(benign);
            }
        }
    }

    fn engine(&self) -> anyhow::Result<Engine> {
        let session =
            std::fs::read_dir(self.runtime.path())?.next().context("the lab's engine is gone")??;
        Ok(Engine::connect(&session.path().join("engine"))?)
    }

    /// The domain that a campaign is made in, if there is one.
    fn target(&self, target: Target) -> Option<u16> {
        match target {
            Target::Dom0 => Some(0),
            Target::Pv | Target::Any => self.domains.get("pv").copied(),
            Target::Pvh => self.domains.get("pvh").copied(),
            Target::Hvm => None,
        }
    }

    /// Ends the machine in order, so that everything is written.
    fn stop(mut self) -> anyhow::Result<()> {
        let pid = i32::try_from(self.child.id()).ok().and_then(rustix::process::Pid::from_raw);
        if let Some(pid) = pid {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for LabRun {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
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
