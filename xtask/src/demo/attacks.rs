//! The demo's second act: a dozen attacks are rehearsed on a running PV guest, and one is refused.

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, bail};
use serde_json::{Value, json};

use crate::build;

/// What is rehearsed: campaigns below `attacks/`, of different kinds.
const CAMPAIGNS: [&str; 12] = [
    "generic/handle-in-xen",
    "generic/control-calls",
    "generic/unknown-calls",
    "generic/not-canonical",
    "generic/reserved-bits",
    "generic/things-of-another",
    "generic/probing-refused",
    "generic/port-guessing",
    "sequences/xsa-13-pirq-exhaustion",
    "sequences/xsa-134-swap",
    "sequences/xsa-221-poll",
    "sequences/xsa-240-refused-updates",
];
/// The rule that is told to deny, for the demo.
const DENYING: &str = "generic/GEN-handle-in-xen.yaml";
const DENIED: &str = "GEN-handle-in-xen";

/// A PV guest stays up; the script waits until the demo has done its work.
const SCRIPT: &str = "echo ready $(xl domid pv)\nwhile :; do sleep 1; done\n";

/// Boots, rehearses, and gives what came of it.
pub(super) fn rehearse(hypovisor: &Path, dir: &Path) -> anyhow::Result<Value> {
    let scratch = tempfile::tempdir()?;
    let rules = with_one_denying(scratch.path())?;
    let alerts = dir.join("alerts.json");
    let mut lab = Lab::start(hypovisor, scratch.path(), &rules, &alerts)?;
    let domain = lab.wait_until_ready()?;
    let campaigns = build::root().join("attacks");
    let made: Vec<Value> = CAMPAIGNS
        .iter()
        .map(|name| lab.inject(hypovisor, &domain, &campaigns.join(format!("{name}.yaml"))))
        .collect::<anyhow::Result<_>>()?;
    lab.stop()?;
    Ok(summary(&made, &read_alerts(&alerts)?))
}

/// The rules that ship, one of them with another action.
fn with_one_denying(scratch: &Path) -> anyhow::Result<PathBuf> {
    let copy = scratch.join("rules");
    build::run(Command::new("cp").arg("-r").arg(build::root().join("rules/xen")).arg(&copy))?;
    let path = copy.join(DENYING);
    let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let text: String =
        text.lines().filter(|line| !line.starts_with("action:")).map(|line| format!("{line}\n")).collect();
    std::fs::write(&path, text + "action: deny\nerrno: EPERM\n")?;
    Ok(copy)
}

struct Lab {
    child: Child,
    runtime: PathBuf,
}

impl Lab {
    fn start(hypovisor: &Path, scratch: &Path, rules: &Path, alerts: &Path) -> anyhow::Result<Self> {
        let (runtime, script) = (scratch.join("runtime"), scratch.join("script"));
        std::fs::create_dir(&runtime)?;
        std::fs::write(&script, SCRIPT)?;
        let mut command = Command::new(hypovisor);
        command.args(["lab", "run", "--domu", "pv", "--enforce", "deny", "--script"]).arg(&script);
        command.arg("--rules").arg(rules).arg("--alerts").arg(alerts);
        let child = command.env("XDG_RUNTIME_DIR", &runtime).stdout(Stdio::piped()).spawn()?;
        Ok(Self { child, runtime })
    }

    fn wait_until_ready(&mut self) -> anyhow::Result<String> {
        let stdout = self.child.stdout.take().context("the lab has no output")?;
        for line in BufReader::new(stdout).lines() {
            if let Some(domain) = line?.strip_prefix("ready ") {
                return Ok(domain.to_owned());
            }
        }
        bail!("the lab ended before the guest was up")
    }

    fn inject(&self, hypovisor: &Path, domain: &str, campaign: &Path) -> anyhow::Result<Value> {
        let mut command = Command::new(hypovisor);
        command.args(["inject", "--json", "--domain", domain, "--campaign"]).arg(campaign);
        super::json_of(command.env("XDG_RUNTIME_DIR", &self.runtime))
    }

    /// The engine ends QEMU in order when it is asked to end.
    fn stop(mut self) -> anyhow::Result<()> {
        build::run(Command::new("kill").arg(self.child.id().to_string()))?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        // In order, so that QEMU ends too; it may have ended already.
        let _ = Command::new("kill").arg(self.child.id().to_string()).stderr(Stdio::null()).status();
        let _ = self.child.wait();
    }
}

fn read_alerts(path: &Path) -> anyhow::Result<Vec<Value>> {
    let text = std::fs::read_to_string(path)?;
    text.lines().map(|line| serde_json::from_str(line).context("alerts.json")).collect()
}

fn summary(made: &[Value], alerts: &[Value]) -> Value {
    let alerts: Vec<&Value> = alerts.iter().filter(|alert| alert["type"] == "alert").collect();
    let denied = alerts.iter().filter(|alert| alert["taken"] == "denied").count();
    let mut latencies: Vec<i64> = alerts
        .iter()
        .filter_map(|alert| Some(alert["reported_ns"].as_i64()? - alert["time_ns"].as_i64()?))
        .collect();
    latencies.sort_unstable();
    let mut rules: Vec<&str> = alerts.iter().filter_map(|alert| alert["rule"]["id"].as_str()).collect();
    rules.sort_unstable();
    rules.dedup();
    json!({
        "campaigns": made,
        "alerts": alerts.len(),
        "rules": rules,
        "denied": denied,
        "denied_by": DENIED,
        "median_alert_ns": latencies.get(latencies.len() / 2),
    })
}

/// Attacks were seen, and the one that was to be refused was.
pub(super) fn succeeded(attacks: &Value) -> bool {
    attacks["denied"].as_u64().unwrap_or(0) > 0
        && attacks["rules"].as_array().is_some_and(|rules| rules.len() >= CAMPAIGNS.len() / 2)
}

/// A section for the report.
pub(super) fn section(attacks: &Value) -> String {
    let mut out = String::from(
        "<h2>Rehearsed attacks</h2>\n<table><tr><th>Campaign</th><th>Calls and results</th></tr>\n",
    );
    for campaign in attacks["campaigns"].as_array().into_iter().flatten() {
        let steps = campaign["steps"].as_array().into_iter().flatten().map(|step| {
            let results = step["results"].as_object().into_iter().flatten();
            let results: Vec<String> = results.map(|(result, count)| format!("{result} × {count}")).collect();
            format!("{} = {}", step["call"].as_str().unwrap_or(""), results.join(", "))
        });
        let steps: Vec<String> = steps.collect();
        let name = campaign["campaign"].as_str().unwrap_or("");
        let _ = writeln!(out, "<tr><td>{}</td><td>{}</td></tr>", escape(name), escape(&steps.join("; ")));
    }
    let rules: Vec<&str> =
        attacks["rules"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let _ = writeln!(
        out,
        "</table>\n<p>{} alerts of {} rules: {}. {} calls were denied by {DENIED} before Xen ran them.</p>",
        attacks["alerts"],
        rules.len(),
        escape(&rules.join(", ")),
        attacks["denied"]
    );
    out
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
