//! `hypovisor inject`: calls made in the name of a running domain.

use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::Args;
use hypovisor_abi::{Show, Width, text};
use hypovisor_campaign::{CallSpec, Campaign, Context, Place, Plan, hazard};
use hypovisor_engine::remote::{Ended, Engine, InjectionRequest, Status};
use hypovisor_engine::runtime;
use serde_json::{Value, json};

use crate::FINDINGS;

pub(crate) mod campaign;

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    hypovisor inject --domain 1 xen_version/XENVER_version\n  \
    hypovisor inject --domain 1 event_channel_op/EVTCHNOP_status arg.dom=DOMID_SELF arg.port=1\n  \
    hypovisor inject --domain 0 xen_version/XENVER_extraversion 'arg={}'\n  \
    hypovisor inject --domain 1 --campaign attacks/arguments/xsa-212-resumed-exchange.yaml\n  \
    hypovisor inject --check --campaign attacks\n\
    Exit codes: 0 the calls were made (and, in a campaign, did as expected); 1 some were not; 2 an error.")]
pub(crate) struct InjectArgs {
    /// The domain in whose name the calls are made; a vCPU of it is borrowed at one of its own hypercalls
    #[arg(long, value_name = "N", required_unless_present = "check")]
    pub(crate) domain: Option<u16>,
    /// The vCPU to borrow; without it, whichever comes first
    #[arg(long, value_name = "M")]
    pub(crate) vcpu: Option<u16>,
    /// Lay the call out for a 32-bit caller
    #[arg(long)]
    pub(crate) bits32: bool,
    /// Also make calls whose effect on the domain cannot be undone
    #[arg(long)]
    pub(crate) force: bool,
    /// A campaign instead of one call: YAML (docs/injection.md) or a scenario of hInjector (.xml)
    #[arg(long, value_name = "FILE", conflicts_with = "call")]
    pub(crate) campaign: Option<PathBuf>,
    /// Make no call: say what is wrong with the campaign, or with those in a directory
    #[arg(long, requires = "campaign")]
    pub(crate) check: bool,
    /// The socket of the running engine, if there are several
    #[arg(long, value_name = "SOCKET")]
    pub(crate) engine: Option<PathBuf>,
    /// The outcome as JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// The call: hypercall or hypercall/sub-op, by name or number
    #[arg(value_name = "NAME", required_unless_present = "campaign")]
    pub(crate) call: Option<String>,
    /// Its arguments: field=value pairs by the names that `hypovisor trace` shows, or plain register values
    #[arg(value_name = "ARG", trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) args: Vec<String>,
}

pub(crate) fn inject(args: &InjectArgs) -> anyhow::Result<u8> {
    match (&args.campaign, args.domain) {
        (Some(path), _) if args.check => campaign::check(path, width(args.bits32)),
        (Some(file), Some(domain)) => run_campaign(args, file, domain),
        (None, Some(domain)) => one_call(args, domain),
        (_, None) => bail!("which domain? Name it with --domain"),
    }
}

fn one_call(args: &InjectArgs, domain: u16) -> anyhow::Result<u8> {
    let spec = CallSpec::parse(args.call.as_deref().unwrap_or_default(), &args.args)?;
    if let Some(why) = hazard(&spec).filter(|_| !args.force) {
        bail!("{} is not injected: {why}; --force does it all the same", spec.name());
    }
    let width = width(args.bits32);
    let plan = spec.encode(width, &Context::default()).with_context(|| spec.name())?;
    let ended = connect(args.engine.as_deref())?.inject(request(&plan, 0, domain, args.vcpu, width))?;
    show(args, &spec, &ended)?;
    Ok(if ended.status == Status::Done { 0 } else { FINDINGS })
}

fn run_campaign(args: &InjectArgs, file: &Path, domain: u16) -> anyhow::Result<u8> {
    let campaign = Campaign::load(file)?;
    let mut engine = connect(args.engine.as_deref())?;
    let at = campaign::At { domain, vcpu: args.vcpu, width: width(args.bits32), force: args.force };
    let outcome = campaign::run(&mut engine, &campaign, &at, &mut |made| progress(&campaign, made))?;
    if std::io::stderr().is_terminal() {
        let _ = write!(std::io::stderr(), "\r\x1b[2K");
    }
    if args.json {
        writeln!(std::io::stdout(), "{}", outcome.to_json(&campaign))?;
    } else {
        outcome.print(&campaign)?;
    }
    Ok(if outcome.as_expected() { 0 } else { FINDINGS })
}

fn progress(campaign: &Campaign, made: u64) {
    let total: u64 = campaign.steps.iter().map(|step| step.repeat).sum();
    if std::io::stderr().is_terminal() {
        let _ = write!(std::io::stderr(), "\r{}: {made} of {total} calls", campaign.id);
    }
}

pub(crate) const fn width(bits32: bool) -> Width {
    if bits32 { Width::Bits32 } else { Width::Bits64 }
}

/// The engine to ask: the one named, or the only one that runs.
pub(crate) fn connect(socket: Option<&Path>) -> anyhow::Result<Engine> {
    if let Some(socket) = socket {
        return Engine::connect(socket).with_context(|| socket.display().to_string());
    }
    match &runtime::engines()[..] {
        [] => bail!("no engine of yours runs; start one with `hypovisor run` or `hypovisor lab run`"),
        [one] => Ok(Engine::connect(one)?),
        several => {
            let list: Vec<String> = several.iter().map(|path| path.display().to_string()).collect();
            bail!("several engines run; choose one with --engine: {}", list.join(", "))
        }
    }
}

/// A plan as the engine takes it.
pub(crate) fn request(
    plan: &Plan,
    id: u64,
    domain: u16,
    vcpu: Option<u16>,
    width: Width,
) -> InjectionRequest {
    let (mut registers_to, mut memory_to) = (Vec::new(), Vec::new());
    for relocation in &plan.relocations {
        match relocation.place {
            Place::Register(register) => registers_to.push((register, relocation.target)),
            Place::Memory(offset) => memory_to.push((offset, relocation.target)),
        }
    }
    InjectionRequest {
        id,
        domain,
        vcpu,
        is_64_bit: width == Width::Bits64,
        number: plan.number,
        registers: plan.registers,
        memory: plan.memory.clone(),
        registers_to,
        memory_to,
    }
}

/// Why an injection was not made, for people.
pub(crate) const fn why_not(status: Status) -> &'static str {
    match status {
        Status::Done => "it was made",
        Status::Lost => "Xen preempted it, and the guest never came back to it",
        Status::Dropped => "it was dropped before a vCPU was borrowed",
        Status::NoRoom => "the guest's stack never had room for its structures",
        Status::TimedOut => "the domain makes no hypercalls, or there is none of that id and width",
        Status::DomainGone => "the domain was destroyed",
    }
}

fn show(args: &InjectArgs, spec: &CallSpec, ended: &Ended) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    if args.json {
        writeln!(out, "{}", to_json(spec, ended))?;
        return Ok(());
    }
    let Some(result) = ended.result else {
        bail!("{} was not made: {}", spec.name(), why_not(ended.status));
    };
    let returns = spec.sub_op().map(|op| op.returns).or_else(|| spec.hypercall().map(|call| call.returns));
    let mut shown = String::new();
    text::write_returned(&mut shown, returns.unwrap_or(Show::Errno), result);
    writeln!(out, "{} = {shown} <{:.1}us>", spec.name(), ended.duration_ns as f64 / 1e3)?;
    if !ended.memory.is_empty() {
        writeln!(out, "memory: {}", hex(&ended.memory))?;
    }
    Ok(())
}

fn to_json(spec: &CallSpec, ended: &Ended) -> Value {
    let errno = ended.result.filter(|result| hypovisor_abi::errno::is_error(*result));
    json!({
        "call": spec.name(),
        "status": ended.status,
        "result": ended.result,
        "errno": errno.and_then(|errno| hypovisor_abi::errno::name(-errno)),
        "duration_ns": ended.duration_ns,
        "event": { "pcpu": ended.pcpu, "sequence": ended.sequence },
        "memory": hex(&ended.memory),
    })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
