//! The lab machine that an evaluation runs in, watched by a process of its own.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, ChildStdout, Command, Stdio};

use anyhow::{Context as _, bail};
use hypovisor_campaign::Target;
use hypovisor_engine::remote::{Engine, Request};

use super::score::{Benign, Cost, Workload};
use super::{EvalArgs, now_ns, say};
use crate::cli::{QemuArg, XenArg};

/// What runs in dom0.
const SCRIPT: &str = concat!(include_str!("workloads.sh"), include_str!("evaluation.sh"));

/// A lab machine that is watched by another process.
pub(super) struct LabRun {
    child: Child,
    lines: std::io::Lines<BufReader<ChildStdout>>,
    runtime: tempfile::TempDir,
    _files: tempfile::TempDir,
    /// Ids of domains by name.
    domains: BTreeMap<String, u16>,
}

impl LabRun {
    pub(super) fn start(args: &EvalArgs) -> anyhow::Result<Self> {
        let (runtime, files) = (tempfile::tempdir()?, tempfile::tempdir()?);
        hypovisor_lab::guests::build(&files.path().join("files"))?;
        let script = files.path().join("script");
        let text = format!("quick={}\n{SCRIPT}", if args.quick { "yes" } else { "" });
        std::fs::write(&script, text)?;
        let xen = if args.parts.xen == XenArg::V4_17 { "4.17" } else { "4.20" };
        let qemu = if args.parts.qemu == QemuArg::V11_1 { "11.1" } else { "10.0" };
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["lab", "run", "--xen", xen, "--qemu", qemu, "--timeout", "3000"]);
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
    pub(super) fn follow_workloads(&mut self, started: i64) -> anyhow::Result<Benign> {
        let mut benign = Benign { from_ns: started, ..Benign::default() };
        loop {
            let Some(line) = self.lines.next() else {
                bail!("the lab ended before the campaigns; see above")
            };
            let line = line?;
            let (word, rest) = line.split_once(' ').unwrap_or((&line, ""));
            match word {
                "begin" => {
                    say(&format!("benign: {rest}"));
                    benign.workloads.push(Workload::begun(rest, now_ns()));
                }
                "end" => {
                    if let Some(workload) = benign.workloads.last_mut() {
                        workload.end(rest, now_ns());
                    }
                }
                "cost" => self.prepare_cost(rest == "with", &mut benign.cost)?,
                "ticks" => {
                    let (median, least) = rest.split_once(' ').context("ticks of the null hypercall")?;
                    benign.cost.add(median.parse()?, least.parse()?);
                }
                "domain" => self.note_domain(rest)?,
                "campaigns" => {
                    benign.to_ns = now_ns();
                    return Ok(benign);
                }
                _ => {}
            }
        }
    }

    /// Puts the rules in force, or out of it, for the next timing.
    fn prepare_cost(&self, with_rules: bool, cost: &mut Cost) -> anyhow::Result<()> {
        say(if with_rules { "cost: with rules" } else { "cost: without rules" });
        let mut engine = self.engine()?;
        let request = if with_rules { Request::ReloadRules {} } else { Request::UnloadRules {} };
        engine.ask(&request)?;
        engine.answer()?;
        cost.with_rules = with_rules;
        Ok(())
    }

    fn note_domain(&mut self, line: &str) -> anyhow::Result<()> {
        let (id, name) = line.split_once(' ').unwrap_or((line, ""));
        self.domains.insert(name.trim().to_owned(), id.parse().context("a domain's id")?);
        Ok(())
    }

    pub(super) fn engine(&self) -> anyhow::Result<Engine> {
        let session =
            std::fs::read_dir(self.runtime.path())?.next().context("the lab's engine is gone")??;
        Ok(Engine::connect(&session.path().join("engine"))?)
    }

    /// The domain that a campaign is made in, if there is one.
    pub(super) fn target(&self, target: Target) -> Option<u16> {
        match target {
            Target::Dom0 => Some(0),
            Target::Pv | Target::Any => self.domains.get("pv").copied(),
            Target::Pvh => self.domains.get("pvh").copied(),
            Target::Hvm => self.domains.get("hold-hvm").copied(),
        }
    }

    /// Ends the machine in order, so that everything is written.
    pub(super) fn stop(mut self) -> anyhow::Result<()> {
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
