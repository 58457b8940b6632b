//! `hypovisor check` and `hypovisor ls`: is this hypervisor still itself, and which domains are there, by L0's own look.

use std::io::{IsTerminal as _, Write};

use anyhow::{Context as _, bail};
use hypovisor_integrity::domains::{self, SeenDomain};
use hypovisor_integrity::{Finding, Judgement, Reference, Report, Structures, Target};
use hypovisor_l1::SymbolFile;
use hypovisor_machine::PhysicalMemory;
use serde_json::json;

use crate::FINDINGS;
use crate::check::source::Source;
use crate::cli::{CheckArgs, LookArgs};

mod source;

/// Whether anything was tampered with.
pub(crate) fn check(args: &CheckArgs) -> anyhow::Result<u8> {
    let report = look(&args.look, |target, structures, runs| {
        Ok(hypovisor_integrity::check(target, structures, runs))
    })?;
    let mut out = std::io::stdout().lock();
    if args.look.json {
        let told = json!({ "tampered": report.is_tampered(), "report": report });
        writeln!(out, "{told}")?;
    } else {
        Printer::new().report(&mut out, &report)?;
    }
    Ok(if report.is_tampered() { FINDINGS } else { 0 })
}

/// The domains, by L1's list and by what lies in its memory.
pub(crate) fn ls(args: &LookArgs) -> anyhow::Result<u8> {
    let found = look(args, |target, structures, runs| Ok(domains::find(target, structures, runs)?))?;
    let mut out = std::io::stdout().lock();
    if args.json {
        writeln!(out, "{}", serde_json::to_string(&found)?)?;
    } else {
        print_domains(&mut out, &found)?;
    }
    Ok(if found.iter().any(SeenDomain::is_hidden) { FINDINGS } else { 0 })
}

type Memory<'a> = &'a (dyn PhysicalMemory + 'a);

fn look<T>(
    args: &LookArgs,
    work: impl FnOnce(&Target<'_, Memory<'_>>, &Structures, &[(hypovisor_machine::Gpa, u64)]) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let source = Source::open(args)?;
    let path = source.symbols(args.symbols.as_deref())?;
    let contents =
        std::fs::read(&path).with_context(|| format!("cannot read symbol file {}", path.display()))?;
    let named = || format!("symbol file {}", path.display());
    let file = SymbolFile::parse(&contents).with_context(named)?;
    let structures = Structures::read(&file).with_context(named)?;
    let reference = Reference::new(&file).with_context(named)?;
    let runs = source.runs();
    source.while_stopped(args.stop, |source| {
        let cpus = source.registers()?;
        let Some(target) = Target::find(source.memory(), &reference, &cpus, source.page_tables()) else {
            bail!("no Xen of {} is in this memory: another build, or no Xen at all", path.display());
        };
        work(&target, &structures, &runs)
    })
}

/// Writes a report for people.
struct Printer {
    colour: bool,
}

impl Printer {
    fn new() -> Self {
        Self { colour: std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none() }
    }

    fn report(&self, out: &mut impl Write, report: &Report) -> std::io::Result<()> {
        for verified in &report.verified {
            writeln!(out, "checked      {:<16} {}", verified.item.name(), verified.what)?;
        }
        for skipped in &report.skipped {
            writeln!(out, "not checked  {:<16} {}", skipped.item.name(), skipped.what)?;
        }
        for finding in &report.findings {
            self.finding(out, finding)?;
        }
        let tampering = report.findings.iter().filter(|finding| finding.is_tampering()).count();
        match tampering {
            0 => writeln!(out, "no tampering was found"),
            1 => writeln!(out, "1 sign of tampering"),
            many => writeln!(out, "{many} signs of tampering"),
        }
    }

    fn finding(&self, out: &mut impl Write, finding: &Finding) -> std::io::Result<()> {
        let (on, off) = match finding.judgement {
            Judgement::Tampering if self.colour => ("\x1b[1;31m", "\x1b[0m"),
            _ => ("", ""),
        };
        let word = match &finding.judgement {
            Judgement::Tampering => "TAMPERED".to_owned(),
            Judgement::LivePatch { name } => format!("live patch {}", name.escape_debug()),
            Judgement::Unknown { .. } => "unknown".to_owned(),
        };
        let at = finding.address.map_or_else(String::new, |at| format!(" ({at:#x})"));
        writeln!(out, "{on}{word:<12}{off} {:<16} {}{at}", finding.item.name(), finding.message)?;
        for (title, lines) in [("expected", &finding.expected), ("found", &finding.found)] {
            for (index, line) in lines.iter().enumerate() {
                let title = if index == 0 { title } else { "" };
                writeln!(out, "    {title:<9} {line}")?;
            }
        }
        if let Judgement::Unknown { settle } = &finding.judgement {
            writeln!(out, "    what would settle it: {settle}")?;
        }
        Ok(())
    }
}

fn print_domains(out: &mut impl Write, found: &[SeenDomain]) -> std::io::Result<()> {
    writeln!(
        out,
        "{:>5}  {:<4}  {:<6}  {:<5}  {:<18}  vCPUs (physical CPU, * running, VMCB)",
        "id", "kind", "listed", "index", "structure"
    )?;
    for domain in found.iter().filter(|domain| domain.is_guest()) {
        let yes = |is: bool| if is { "yes" } else { "NO" };
        let kind = if domain.is_hvm { "HVM" } else { "PV" };
        let vcpus = domain.vcpus.iter().map(|vcpu| {
            let running = if vcpu.is_running { "*" } else { "" };
            let vmcb = vcpu.vmcb.map_or_else(String::new, |at| format!(" {at:#x}"));
            format!("{}:{}{running}{vmcb}", vcpu.id, vcpu.processor)
        });
        let state = match (domain.is_hidden(), domain.is_dying) {
            (true, _) => "  HIDDEN",
            (_, true) => "  being destroyed",
            _ => "",
        };
        writeln!(
            out,
            "{:>5}  {kind:<4}  {:<6}  {:<5}  {:#018x}  {}{state}",
            domain.id,
            yes(domain.is_listed),
            yes(domain.is_indexed),
            domain.address,
            vcpus.collect::<Vec<_>>().join(", "),
        )?;
    }
    Ok(())
}
