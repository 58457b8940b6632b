//! What the sensor is told so that it can judge calls, and what becomes of a call that it pauses.

use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use hypovisor_event::control::{self, Message};
use hypovisor_mapping::{Access, Mapping, create_memfd};

use super::{Session, SessionError};
use crate::alert::guest_kind;
use crate::call::CallId;
use crate::qmp::Qmp;

impl Session {
    /// Has the sensor judge calls by these compiled rules (`hypovisor_verdict::RuleSet::to_bytes`) from now on; by none
    /// if there are none. Unless `enforce` is set, what would have been refused is only noted.
    ///
    /// # Errors
    /// When the sensor is gone or memory is short.
    pub fn set_rules(&mut self, compiled: Option<&[u8]>, enforce: bool) -> Result<(), SessionError> {
        self.told = compiled.map(|_| BTreeMap::new());
        let bytes = compiled.map_or(0, |compiled| compiled.len() as u64);
        let message = Message::Rules { enforce, bytes };
        let Some(compiled) = compiled else { return Ok(control::send(&self.socket, &message, &[])?) };
        let memory = create_memfd("hypovisor-rules", compiled.len())?;
        let mapping = Mapping::new(&memory, 0, compiled.len(), Access::ReadWrite)?;
        let _ = mapping.copy_in(0, compiled);
        Ok(control::send(&self.socket, &message, &[memory.as_fd()])?)
    }

    /// Tells the sensor what kinds of guests the domains are, as it becomes known: before they run, for those that are
    /// created while this engine watches.
    pub(super) fn tell_kinds(&mut self) {
        let Some(told) = &mut self.told else { return };
        for domain in self.note.domains.iter() {
            if told.get(&domain.id) != Some(&domain.kind) {
                told.insert(domain.id, domain.kind);
                let message = Message::DomainKind { domain: domain.id, kind: guest_kind(domain.kind) as u8 };
                // If the sensor is gone, the next answer that is awaited from it says so.
                let _ = control::send(&self.socket, &message, &[]);
            }
        }
    }

    /// Tells the sensor which domains are gone.
    pub(super) fn tell_ended(&self, domains: &[u16]) {
        for domain in domains {
            // As above.
            let _ = control::send(&self.socket, &Message::DomainEnded { domain: *domain }, &[]);
        }
    }

    /// Where QEMU's monitor listens: needed for rules that pause L1.
    pub fn use_monitor(&mut self, socket: PathBuf) {
        self.monitor = Some(socket);
    }

    /// Where QEMU's monitor listens, if that is known.
    #[must_use]
    pub fn monitor(&self) -> Option<&Path> {
        self.monitor.as_deref()
    }

    /// The call that L1 has been stopped for, once.
    pub const fn take_paused(&mut self) -> Option<CallId> {
        self.paused.take()
    }

    /// Stops L1, until somebody has it go on.
    ///
    /// # Errors
    /// When QEMU's monitor does not help.
    pub fn stop(&self) -> Result<(), SessionError> {
        match &self.monitor {
            Some(monitor) => Ok(Qmp::connect(monitor)?.stop()?),
            None => Err(SessionError::NoMonitor),
        }
    }

    /// Lets a stopped L1 go on; whether it was stopped.
    ///
    /// # Errors
    /// When QEMU's monitor does not help.
    pub fn resume(&mut self) -> Result<bool, SessionError> {
        let mut monitor = Qmp::connect(self.monitor.as_ref().ok_or(SessionError::NoMonitor)?)?;
        let stopped = !monitor.is_running()?;
        if stopped {
            monitor.cont()?;
        }
        Ok(stopped)
    }

    /// Stops L1 for a call that waits in the sensor meanwhile.
    #[cold]
    pub(super) fn pause(&mut self, call: CallId) -> Result<(), SessionError> {
        let Some(monitor) = &self.monitor else { return Err(SessionError::NoMonitor) };
        Qmp::connect(monitor)?.stop()?;
        self.paused = Some(call);
        Ok(control::send(&self.socket, &Message::Release, &[])?)
    }
}
