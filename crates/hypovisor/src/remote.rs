//! `hypovisor resume`, `reload` and `status`: asking the engine that runs.

use std::io::Write as _;
use std::path::PathBuf;

use clap::Args;
use hypovisor_engine::remote::Request;
use serde_json::Value;

use crate::inject::connect;

/// Which engine is asked.
#[derive(Debug, Args)]
pub(crate) struct AskArgs {
    /// The socket of the engine to ask, if several run
    #[arg(long, value_name = "SOCKET")]
    engine: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct ReloadArgs {
    #[command(flatten)]
    ask: AskArgs,
    /// Take all rules out of force, until the next reload
    #[arg(long)]
    off: bool,
}

#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    #[command(flatten)]
    ask: AskArgs,
    /// As one JSON object
    #[arg(long)]
    json: bool,
}

pub(crate) fn resume(args: &AskArgs) -> anyhow::Result<u8> {
    let answer = ask(args, &Request::Resume {})?;
    if answer["resumed"] == true {
        return Ok(0);
    }
    writeln!(std::io::stderr(), "hypovisor: the machine was not stopped; nothing to resume")?;
    Ok(1)
}

pub(crate) fn reload(args: &ReloadArgs) -> anyhow::Result<u8> {
    let request = if args.off { Request::UnloadRules {} } else { Request::ReloadRules {} };
    let answer = ask(&args.ask, &request)?;
    writeln!(std::io::stdout(), "{} rules in force", answer["rules"])?;
    Ok(0)
}

pub(crate) fn status(args: &StatusArgs) -> anyhow::Result<u8> {
    let status = ask(&args.ask, &Request::Status {})?;
    let mut out = std::io::stdout().lock();
    if args.json {
        writeln!(out, "{status}")?;
        return Ok(0);
    }
    writeln!(out, "{} rules in force", status["rules"])?;
    for domain in status["domains"].as_array().into_iter().flatten() {
        let text = |key: &str| domain[key].as_str().unwrap_or_default().escape_debug().to_string();
        writeln!(out, "domain {:>5}  {:<7}  {}", domain["id"], text("type"), text("name"))?;
    }
    for (rule, alerts) in status["alerts"].as_object().into_iter().flatten() {
        writeln!(out, "{alerts:>12} alerts  {rule}")?;
    }
    Ok(0)
}

fn ask(args: &AskArgs, request: &Request) -> anyhow::Result<Value> {
    let mut engine = connect(args.engine.as_deref())?;
    engine.ask(request)?;
    Ok(engine.answer()?)
}
