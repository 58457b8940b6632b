//! What the sensor asks: where its hooks go, and how L1's structures are laid out.

use std::os::fd::AsFd;

use hypovisor_event::control::{
    self, FrameLayout, Hook, HookKind, MAX_WATCHED_RUNS, Message, SystemChange, SystemRegister,
};
use hypovisor_l1::{Image, Layout, Profile, VmEntryKind};
use hypovisor_machine::{Gpa, Gva, VirtualMemory};
use rustix::event::{PollFd, PollFlags, Timespec};

use super::{Session, SessionError};

/// How often the sensor is let ask again. In a machine that was restored, a guest of Xen may run first, or Xen outside its
/// image; where something else than Xen boots, this many looks find that out.
const MAX_LOOKS_FOR_XEN: u32 = 100;

/// Pages written to that are kept until somebody asks for them: L1 has some hundreds that are watched, each told once.
const MAX_WRITTEN: usize = 4096;
/// Changes of system registers that are kept until somebody asks for them.
const MAX_SYSTEM_CHANGES: usize = 256;

impl Session {
    /// Answers all that has been asked.
    pub(super) fn answer(&mut self) -> Result<(), SessionError> {
        while !self.closed && self.readable() {
            match control::receive(&self.socket) {
                Ok((Message::OwnRam(ranges), _)) => self.use_own_ram(ranges)?,
                Ok((Message::NeedHooks { cr3, rip, .. }, _)) => self.answer_hooks(cr3, rip)?,
                Ok((Message::NeedLayout { cr3, frame, .. }, _)) => self.answer_layout(cr3, frame)?,
                Ok((Message::SystemChange(change), _)) => self.note_system_change(change),
                Ok((Message::Written(page), _)) => self.note_written(page),
                Ok((Message::Reset, _)) => self.was_reset = true,
                Ok(_) => {}
                Err(_) => self.closed = true,
            }
        }
        Ok(())
    }

    fn note_system_change(&mut self, change: SystemChange) {
        if self.system_changes.len() < MAX_SYSTEM_CHANGES {
            self.system_changes.push(change);
        } else {
            self.untold += 1;
        }
    }

    /// What L1 set otherwise than it did while it booted, since the last time.
    pub fn take_system_changes(&mut self) -> Vec<SystemChange> {
        let mut changes = std::mem::take(&mut self.system_changes);
        let now = std::mem::take(&mut self.untold);
        if now > 0 {
            changes.push(SystemChange { register: SystemRegister::Untold, before: 0, now, rip: Gva(0) });
        }
        changes
    }

    fn note_written(&mut self, page: Gpa) {
        if self.written.len() < MAX_WRITTEN {
            self.written.push(page);
        }
    }

    /// Has writes to these pages told, once for each page, or what is executed of them and was changed: whichever the sensor can.
    ///
    /// # Errors
    /// [`SessionError`] when the sensor is gone.
    pub fn watch_writes(&self, runs: &[(Gpa, u64)]) -> Result<(), SessionError> {
        for part in runs.chunks(MAX_WATCHED_RUNS) {
            control::send(&self.socket, &Message::WatchWrites(part.to_vec()), &[])?;
        }
        Ok(())
    }

    /// Pages that were written to since the last time.
    pub fn take_written(&mut self) -> Vec<Gpa> {
        std::mem::take(&mut self.written)
    }

    /// Whether L1 has begun anew since the last time.
    pub const fn take_reset(&mut self) -> bool {
        std::mem::replace(&mut self.was_reset, false)
    }

    fn readable(&self) -> bool {
        let mut fds = [PollFd::from_borrowed_fd(self.socket.as_fd(), PollFlags::IN)];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        matches!(rustix::event::poll(&mut fds, Some(&now)), Ok(ready) if ready > 0)
    }

    fn answer_hooks(&mut self, cr3: u64, rip: Gva) -> Result<(), SessionError> {
        let profile = match self.profile(cr3, rip).and_then(|profile| self.after_reset(profile)) {
            Ok(profile) => profile,
            Err(error) if error.is_no_xen() && self.looks_for_xen < MAX_LOOKS_FOR_XEN => {
                self.looks_for_xen += 1;
                return Ok(control::send(&self.socket, &Message::AskAgain, &[])?);
            }
            Err(error) => {
                control::send(&self.socket, &Message::Refuse, &[])?;
                return Err(error);
            }
        };
        // The layout is settled at the first hypercall only, where it can be checked against live structures.
        control::send(&self.socket, &Message::Hooks(hooks(&profile), None), &[])?;
        self.note.profile = Some(profile);
        self.leave_note()
    }

    /// What is known of L1 if it was known before it was reset: the sensor goes on with what it has learned of it.
    fn after_reset(&mut self, profile: Profile) -> Result<Profile, SessionError> {
        let Some(known) = &self.note.profile else { return Ok(profile) };
        if !known.is_same_xen(&profile) {
            let version = |profile: &Profile| profile.version.clone().unwrap_or_else(|| "unknown".to_owned());
            return Err(SessionError::AnotherXen { before: version(known), now: version(&profile) });
        }
        self.ended_by_reset.extend(self.note.domains.iter().map(|domain| domain.id));
        Ok(known.clone())
    }

    fn profile(&self, cr3: u64, rip: Gva) -> Result<Profile, SessionError> {
        let Some(ram) = &self.ram else { return Err(SessionError::NotASensor) };
        let image = Image::from_memory(&VirtualMemory::new(ram.as_ref(), cr3), rip)?;
        let Some(path) = &self.symbols else {
            return Ok(Profile::build(&image, None)?.0);
        };
        let contents =
            std::fs::read(path).map_err(|source| SessionError::Symbols { path: path.clone(), source })?;
        let name = path.display().to_string();
        Ok(Profile::build(&image, Some((&name, &contents)))?.0)
    }

    fn answer_layout(&mut self, cr3: u64, frame: Gva) -> Result<(), SessionError> {
        let (Some(ram), Some(profile)) = (&self.ram, &mut self.note.profile) else {
            return Err(SessionError::NotASensor);
        };
        let settled = profile.settle_layout(&VirtualMemory::new(ram.as_ref(), cr3), frame);
        let layout = profile.layout.as_ref().and_then(frame_layout).ok_or(SessionError::Multicall);
        match settled.map_err(SessionError::from).and(layout) {
            Ok(layout) => control::send(&self.socket, &Message::Layout(layout), &[])?,
            Err(error) => {
                control::send(&self.socket, &Message::Refuse, &[])?;
                return Err(error);
            }
        }
        self.leave_note()
    }
}

fn hooks(profile: &Profile) -> Vec<Hook> {
    let found = &profile.hooks;
    let pairs = [
        (HookKind::PvEntry, HookKind::PvExit, found.pv.iter().collect::<Vec<_>>()),
        (HookKind::HvmEntry, HookKind::HvmExit, found.hvm.iter().collect()),
        (HookKind::InnerEntry, HookKind::InnerExit, found.multicall.iter().collect()),
    ];
    let mut hooks = Vec::new();
    for (entry, exit, calls) in pairs {
        for call in calls {
            hooks.push(Hook { kind: entry, gva: call.entry.address });
            hooks.extend(call.results.iter().map(|site| Hook { kind: exit, gva: site.address }));
        }
    }
    let vmruns = found.vm_entries.iter().filter(|entry| entry.kind == VmEntryKind::Vmrun);
    hooks.extend(vmruns.map(|entry| Hook { kind: HookKind::Vmrun, gva: entry.instruction.address }));
    hooks
}

fn frame_layout(layout: &Layout) -> Option<FrameLayout> {
    Some(FrameLayout {
        processor_id: layout.processor_id,
        current_vcpu: layout.current_vcpu,
        vcpu_id: layout.vcpu.vcpu_id,
        vcpu_domain: layout.vcpu.domain,
        domain_id: layout.domain.domain_id,
        multicall_call: layout.multicall_call?,
        vcpu_vmcb: layout.vcpu.vmcb_pa.unwrap_or(0),
    })
}
