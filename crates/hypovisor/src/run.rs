//! `hypovisor run`: a QEMU command line of the user's own.

use std::process::ExitStatus;

use anyhow::{Context as _, bail};
use hypovisor_engine::command::{CommandError, QemuCommand};
use hypovisor_engine::recording::Manifest;
use hypovisor_engine::session::Session;
use hypovisor_engine::watch::{Watch, WatchError, WatchOptions, Wish};

use crate::FINDINGS;
use crate::cli::RunArgs;
use crate::detect::{Detecting, Watched};
use crate::output::Output;
use crate::signals::StopRequest;

pub(crate) fn run(args: &RunArgs) -> anyhow::Result<u8> {
    let command = QemuCommand::from_line(&args.command)?;
    check_symbols(args)?;
    if let Some(dir) = &args.record {
        refuse_used(dir)?;
    }
    let mut detecting = Detecting::load(&args.detect)?;
    let stop = StopRequest::install()?;
    let options = WatchOptions {
        symbols: args.symbols.clone(),
        ring_bytes: Some(args.ring_mib << 20),
        only_hooks: false,
    };
    let mut watch = Watch::start(&command, &options)?;
    detecting.arm(watch.session())?;
    let output = match &args.record {
        Some(dir) => Output::record(dir, manifest(&command, &mut watch), false)?,
        None => Output::print(args.json),
    };
    let mut watched = detecting.before(output)?;
    let status = follow(&mut watch, &mut detecting, &mut watched, |_| Ok(stop.is_set()))?;
    let lost: u64 =
        watch.session().counters().map(|counters| counters.lost_calls + counters.lost_results).sum();
    finish(watched)?;
    if !status.success() && !stop.is_set() {
        bail!("QEMU ended with {status}");
    }
    Ok(if lost > 0 { FINDINGS } else { 0 })
}

/// Watches until QEMU ends. `tick` is asked after each step whether to end it now.
pub(crate) fn follow(
    watch: &mut Watch,
    detecting: &mut Detecting,
    watched: &mut Watched,
    mut tick: impl FnMut(&mut Session) -> anyhow::Result<bool>,
) -> anyhow::Result<ExitStatus> {
    watch.run(watched, |session, watched: &mut Watched| {
        watched.inner.tick(session)?;
        detecting.tick(session, watched)?;
        Ok::<_, anyhow::Error>(if tick(session)? { Wish::End } else { Wish::GoOn })
    })
}

/// Tells and writes what is left.
pub(crate) fn finish(mut watched: Watched) -> anyhow::Result<()> {
    if let Some(alerter) = &mut watched.alerter {
        alerter.finish()?;
    }
    watched.inner.finish()?;
    Ok(())
}

/// A new recording's manifest, as far as it is known at the start.
pub(crate) fn manifest(command: &QemuCommand, watch: &mut Watch) -> Manifest {
    let words = std::iter::once(command.program.as_os_str()).chain(command.args.iter().map(AsRef::as_ref));
    let hello = *watch.session().hello();
    Manifest {
        qemu_command: words.map(|word| word.to_string_lossy().into_owned()).collect(),
        qemu_pid: watch.qemu_pid(),
        control_socket: watch.control_socket().display().to_string(),
        plugin_api: hello.plugin_api as u32,
        vcpus: hello.vcpus as u32,
        ..Manifest::default()
    }
}

/// Refuses a directory with a recording in it before anything is started.
pub(crate) fn refuse_used(dir: &std::path::Path) -> anyhow::Result<()> {
    if dir.join("recording.json").exists() {
        bail!("{} already holds a recording; choose another directory", dir.display());
    }
    std::fs::create_dir_all(dir).with_context(|| format!("cannot record into {}", dir.display()))
}

fn check_symbols(args: &RunArgs) -> anyhow::Result<()> {
    if let Some(path) = &args.symbols {
        std::fs::File::open(path).with_context(|| format!("cannot read symbol file {}", path.display()))?;
    }
    match args.command.first() {
        None => Err(WatchError::from(CommandError::Empty).into()),
        Some(_) => Ok(()),
    }
}
