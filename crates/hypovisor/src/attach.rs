//! `hypovisor attach`: a new engine for a QEMU whose engine is gone.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail};
use hypovisor_engine::recording::Recording;
use hypovisor_engine::runtime;
use hypovisor_engine::session::{Session, Step, StepError, until};

use crate::FINDINGS;
use crate::cli::AttachArgs;
use crate::detect::{Detecting, Watched};
use crate::output::Output;
use crate::run::finish;
use crate::signals::StopRequest;

/// How long the sensor may take to notice that the last engine is gone.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

pub(crate) fn attach(args: &AttachArgs) -> anyhow::Result<u8> {
    let dir = &args.recording;
    let manifest = Recording::open(dir)?.manifest().clone();
    if manifest.is_being_written() {
        bail!("{} is being recorded by process {}", dir.display(), manifest.engine_pid);
    }
    let socket = PathBuf::from(&manifest.control_socket);
    runtime::sweep();
    let mut detecting = Detecting::load(&args.detect)?;
    let stop = StopRequest::install()?;
    let mut session = Session::connect(&socket, until(CONNECT_TIMEOUT)).with_context(|| {
        format!("QEMU (process {}) of this recording is not there to attach to", manifest.qemu_pid)
    })?;
    if !session.resumed() {
        bail!("the sensor in QEMU (process {}) was not watching yet; start QEMU again", manifest.qemu_pid);
    }
    for domain in &manifest.domains {
        session.domains_mut().name(domain.id, &domain.name);
    }
    session.use_monitor(runtime::qmp_beside(&socket));
    session.listen(&runtime::engine_beside(&socket)).context("cannot listen for other processes")?;
    if detecting.has_rules() {
        detecting.arm(&mut session)?;
    }
    let mut watched = detecting.before(Output::resume(dir, true)?)?;
    if let Some(alerter) = &mut watched.alerter {
        alerter.know(&session.note().domains);
    }
    let ended = follow(&mut session, &mut detecting, &mut watched, &stop)?;
    let lost: u64 = session.counters().map(|counters| counters.lost_calls + counters.lost_results).sum();
    finish(watched)?;
    if ended {
        // The engine that started QEMU would have.
        runtime::remove(&socket);
    }
    Ok(if lost > 0 { FINDINGS } else { 0 })
}

/// Records until QEMU ends (true) or the user asks to stop (false).
pub(crate) fn follow(
    session: &mut Session,
    detecting: &mut Detecting,
    watched: &mut Watched,
    stop: &StopRequest,
) -> anyhow::Result<bool> {
    while !stop.is_set() {
        let step = session.step(watched).map_err(|error| match error {
            StepError::Session(error) => error.into(),
            StepError::Sink(error) => error,
        })?;
        watched.inner.tick(session)?;
        detecting.tick(session, watched)?;
        if step == Step::Ended {
            session.finish(watched)?;
            watched.inner.tick(session)?;
            return Ok(true);
        }
    }
    session.leave_note()?;
    watched.inner.tick(session)?;
    Ok(false)
}
