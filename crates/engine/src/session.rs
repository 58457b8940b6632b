//! One engine's session with one sensor: from connecting to the last record.
//!
//! A single thread does everything, in steps of about a millisecond: answer the sensor, empty the rings. The
//! sensor asks twice at most: for hooks, when L1 runs its first code in the kernel half, and for the layout of
//! L1's structures, at the first hypercall.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use hypovisor_event::control::{
    self, ControlError, FrameLayout, Hello, Hook, HookKind, Message, PROTOCOL, SensorState,
};
use hypovisor_event::injection::Injected;
use hypovisor_event::ring::{RingCounters, median_cost_ticks};
use hypovisor_event::verdict::Verdict;
use hypovisor_event::{RingGeometry, Rings};
use hypovisor_l1::{DiscoverError, Image, ImageError, Layout, Profile, ProfileError, VmEntryKind};
use hypovisor_machine::{Gva, RamLayout, VirtualMemory};
use hypovisor_mapping::{Access, Mapping, MappingError, Ram, create_memfd};
use hypovisor_verdict::GuestKind;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use crate::call::{CallId, CallSink};
use crate::clock::Clock;
use crate::domains::{DomainKind, Domains};
use crate::drain::Drain;
pub use crate::note::Note;
use crate::qmp::{Qmp, QmpError, RamMap};
use crate::remote::Remote;

/// Pause between two looks at the rings: short enough that an event is seen within milliseconds, long enough that
/// the engine does not compete with the vCPUs.
const STEP: Duration = Duration::from_millis(1);

/// Why a session cannot begin or go on.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// The sensor cannot be reached.
    #[error("cannot reach the sensor at {path}: {source}")]
    Connect {
        /// The control socket.
        path: PathBuf,
        /// Why.
        source: rustix::io::Errno,
    },
    /// The conversation failed.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// Sensor and engine are of different versions.
    #[error(
        "the sensor in QEMU speaks protocol {sensor}, this engine {PROTOCOL}: use the same hypovisor for both"
    )]
    Protocol {
        /// The sensor's.
        sensor: u64,
    },
    /// The first message was not the sensor's greeting.
    #[error("what listens at the control socket is not a sensor")]
    NotASensor,
    /// Shared memory cannot be mapped.
    #[error(transparent)]
    Mapping(#[from] MappingError),
    /// L1's RAM is not backed by something that can be shared.
    #[error(
        "QEMU's RAM ({bytes} bytes, backend {backend}) is not shared; leave memory-backend out, or use \
         memory-backend-memfd with share=on"
    )]
    RamNotShared {
        /// QEMU's backend.
        backend: String,
        /// Its size.
        bytes: u64,
    },
    /// The file with L1's symbols cannot be read.
    #[error("cannot read symbol file {path}: {source}")]
    Symbols {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// What runs in the kernel half is not a hypervisor that can be watched.
    #[error("the guest is not a Xen hypervisor: {0}")]
    Image(#[from] ImageError),
    /// As before, or the symbols are not its own.
    #[error(transparent)]
    Profile(#[from] ProfileError),
    /// Xen's structures are not where they were expected.
    #[error("cannot make out this Xen's structures: {0}")]
    Layout(#[from] DiscoverError),
    /// QEMU's monitor.
    #[error(transparent)]
    Qmp(#[from] QmpError),
    /// L1 is to be stopped or let go, and nobody said where QEMU's monitor is.
    #[error("L1 cannot be stopped or let go without QEMU's monitor")]
    NoMonitor,
    /// Where the inner calls of a multicall stand is not known.
    #[error("cannot make out where this Xen keeps the inner calls of a multicall")]
    Multicall,
}

/// What a step found out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Things go on; so many records were handed on.
    Running {
        /// Records handed on in this step.
        records: u64,
    },
    /// QEMU is gone.
    Ended,
}

/// A session.
pub struct Session {
    socket: OwnedFd,
    hello: Hello,
    candidates: Vec<OwnedFd>,
    ram: Option<Ram>,
    symbols: Option<PathBuf>,
    note: Note,
    note_cut: bool,
    remote: Option<Remote>,
    /// QEMU's monitor, to stop L1 with.
    monitor: Option<PathBuf>,
    paused: Option<CallId>,
    /// The kinds of domains that the sensor has been told, once it judges by rules.
    told: Option<BTreeMap<u16, DomainKind>>,
    drain: Drain,
    clock: Clock,
    closed: bool,
}

impl Session {
    /// Connects to the sensor that listens at `path`; tries again while `keep_trying` says so.
    ///
    /// # Errors
    /// [`SessionError`] when there is no sensor or it is of another version.
    pub fn connect(path: &Path, mut keep_trying: impl FnMut() -> bool) -> Result<Self, SessionError> {
        let socket = loop {
            match connect(path) {
                Ok(socket) => break socket,
                Err(_) if keep_trying() => std::thread::sleep(Duration::from_millis(5)),
                Err(source) => return Err(SessionError::Connect { path: path.to_owned(), source }),
            }
        };
        let (message, mut fds) = control::receive(&socket)?;
        let Message::Hello(hello, note) = message else { return Err(SessionError::NotASensor) };
        if hello.protocol != PROTOCOL {
            return Err(SessionError::Protocol { sensor: hello.protocol });
        }
        if fds.is_empty() {
            return Err(SessionError::NotASensor);
        }
        let rings_fd = fds.remove(0);
        let vcpus = u32::try_from(hello.vcpus).unwrap_or(u32::MAX);
        let rings = Rings::open(rings_fd, RingGeometry::new(vcpus, hello.ring_bytes))?;
        let consumers: Result<_, _> = (0..rings.geometry().rings).map(|ring| rings.consumer(ring)).collect();
        Ok(Self {
            socket,
            hello,
            candidates: fds,
            ram: None,
            symbols: None,
            note: Note::from_bytes(&note),
            note_cut: false,
            remote: None,
            monitor: None,
            paused: None,
            told: None,
            drain: Drain::new(consumers?),
            clock: Clock::measure(),
            closed: false,
        })
    }

    /// What the sensor told of itself.
    #[must_use]
    pub const fn hello(&self) -> &Hello {
        &self.hello
    }

    /// Whether the sensor was already watching, for an earlier engine.
    #[must_use]
    pub fn resumed(&self) -> bool {
        self.hello.state == SensorState::Watching
    }

    /// What is known of L1 and its domains.
    #[must_use]
    pub const fn note(&self) -> &Note {
        &self.note
    }

    /// As [`Session::note`], to add to.
    pub const fn domains_mut(&mut self) -> &mut Domains {
        &mut self.note.domains
    }

    /// Listens for other processes that want something of this engine.
    ///
    /// # Errors
    /// When the socket cannot be made.
    pub fn listen(&mut self, path: &Path) -> std::io::Result<()> {
        self.remote = Some(Remote::listen(path)?);
        Ok(())
    }

    /// Who may ask something of this engine, if anybody.
    pub const fn remote(&mut self) -> Option<&mut Remote> {
        self.remote.as_mut()
    }

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
    fn tell_kinds(&mut self) {
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

    fn tell_ended(&self, domains: &[u16]) {
        for domain in domains {
            // As above.
            let _ = control::send(&self.socket, &Message::DomainEnded { domain: *domain }, &[]);
        }
    }

    /// Where QEMU's monitor listens: needed for rules that pause L1.
    pub fn use_monitor(&mut self, socket: PathBuf) {
        self.monitor = Some(socket);
    }

    /// The call that L1 has been stopped for, once.
    pub const fn take_paused(&mut self) -> Option<CallId> {
        self.paused.take()
    }

    /// Lets a stopped L1 go on.
    ///
    /// # Errors
    /// When QEMU's monitor does not help.
    pub fn resume(&mut self) -> Result<(), SessionError> {
        match &self.monitor {
            Some(monitor) => Ok(Qmp::connect(monitor)?.cont()?),
            None => Err(SessionError::NoMonitor),
        }
    }

    /// Stops L1 for a call that waits in the sensor meanwhile.
    #[cold]
    fn pause(&mut self, call: CallId) -> Result<(), SessionError> {
        let Some(monitor) = &self.monitor else { return Err(SessionError::NoMonitor) };
        Qmp::connect(monitor)?.stop()?;
        self.paused = Some(call);
        Ok(control::send(&self.socket, &Message::Release, &[])?)
    }

    fn serve(&mut self) {
        if let Some(remote) = &mut self.remote {
            let socket = &self.socket;
            // If the sensor is gone, the next answer that is awaited from it says so.
            remote.turn(|message| drop(control::send(socket, &message, &[])));
        }
    }

    /// Reads L1's symbols from this file rather than from the running image.
    pub fn use_symbols(&mut self, file: PathBuf) {
        self.symbols = Some(file);
    }

    /// The sensor's counters, per physical CPU.
    pub fn counters(&self) -> impl Iterator<Item = RingCounters> + '_ {
        self.drain.counters()
    }

    /// What the sensor takes for one hook hit, in nanoseconds: the median of one hit in 64.
    #[must_use]
    pub fn hit_cost_ns(&self) -> Option<u64> {
        median_cost_ticks(&self.drain.cost_counts()).map(|ticks| self.clock.duration_ns(ticks))
    }

    /// Tells the sensor where L1's RAM is, and maps it here.
    ///
    /// # Errors
    /// [`SessionError::RamNotShared`] if none of QEMU's shared memory is the RAM.
    pub fn describe_ram(&mut self, map: &RamMap) -> Result<(), SessionError> {
        let bytes = map.backend_bytes();
        let size = |fd: &OwnedFd| rustix::fs::fstat(fd).map_or(0, |stat| stat.st_size as u64);
        let not_shared = || SessionError::RamNotShared { backend: map.backend.clone(), bytes };
        let backend = self.candidates.iter().position(|fd| size(fd) == bytes).ok_or_else(not_shared)?;
        let layout = RamLayout::new(map.ranges.iter().copied());
        self.ram = Some(Ram::map(&self.candidates[backend], layout, Access::ReadOnly)?);
        let message = Message::RamLayout { backend: backend as u64, ranges: map.ranges.clone() };
        control::send(&self.socket, &message, &[])?;
        Ok(())
    }

    /// Answers the sensor and hands on what the rings hold, then waits about a millisecond unless there is more.
    ///
    /// # Errors
    /// [`SessionError`] if L1 cannot be watched; the sensor then leaves it alone. `S::Error` is passed through.
    pub fn step<S: CallSink>(&mut self, sink: &mut S) -> Result<Step, StepError<S::Error>> {
        self.answer().map_err(StepError::Session)?;
        self.clock.tick();
        self.serve();
        let clock = &self.clock;
        let domains = &mut self.note.domains;
        let mut learning = Learning::new(domains, &mut self.remote, clock, sink);
        let round = self.drain.round(clock, &mut learning).map_err(StepError::Sink)?;
        let (paused, ended) = (learning.paused, learning.ended);
        self.tell_kinds();
        self.tell_ended(&ended);
        if let Some(call) = paused {
            self.pause(call).map_err(StepError::Session)?;
        }
        if self.closed && round.records == 0 {
            return Ok(Step::Ended);
        }
        if !round.more {
            std::thread::sleep(STEP);
        }
        Ok(Step::Running { records: round.records })
    }

    /// Hands on all that is left, calls in flight included. To be called once QEMU is gone.
    ///
    /// # Errors
    /// What the sink returns.
    pub fn finish<S: CallSink>(&mut self, sink: &mut S) -> Result<(), S::Error> {
        let clock = &self.clock;
        let domains = &mut self.note.domains;
        let mut learning = Learning::new(domains, &mut self.remote, clock, sink);
        self.drain.finish(clock, &mut learning)
    }

    /// Leaves what is known with the sensor, for an engine that may come after this one; what does not fit into a
    /// message is left out, see [`Session::note_was_cut`].
    ///
    /// # Errors
    /// When the sensor is gone.
    pub fn leave_note(&mut self) -> Result<(), SessionError> {
        let (bytes, whole) = self.note.to_bytes();
        self.note_cut |= !whole;
        control::send(&self.socket, &Message::Note(bytes), &[])?;
        Ok(())
    }

    /// Whether an engine that comes after this one would not learn all that is known.
    #[must_use]
    pub const fn note_was_cut(&self) -> bool {
        self.note_cut
    }

    fn answer(&mut self) -> Result<(), SessionError> {
        while !self.closed && self.readable() {
            match control::receive(&self.socket) {
                Ok((Message::NeedHooks { cr3, rip, .. }, _)) => self.answer_hooks(cr3, rip)?,
                Ok((Message::NeedLayout { cr3, frame, .. }, _)) => self.answer_layout(cr3, frame)?,
                Ok(_) => {}
                Err(_) => self.closed = true,
            }
        }
        Ok(())
    }

    fn readable(&self) -> bool {
        let mut fds = [PollFd::from_borrowed_fd(self.socket.as_fd(), PollFlags::IN)];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        matches!(rustix::event::poll(&mut fds, Some(&now)), Ok(ready) if ready > 0)
    }

    fn answer_hooks(&mut self, cr3: u64, rip: Gva) -> Result<(), SessionError> {
        let profile = match self.profile(cr3, rip) {
            Ok(profile) => profile,
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

    fn profile(&self, cr3: u64, rip: Gva) -> Result<Profile, SessionError> {
        let Some(ram) = &self.ram else { return Err(SessionError::NotASensor) };
        let image = Image::from_memory(&VirtualMemory::new(ram, cr3), rip)?;
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
        let settled = profile.settle_layout(&VirtualMemory::new(ram, cr3), frame);
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

/// Why a step failed: the session, or the sink that calls go to.
#[derive(Debug, thiserror::Error)]
pub enum StepError<E> {
    /// The session.
    #[error(transparent)]
    Session(SessionError),
    /// The sink.
    #[error(transparent)]
    Sink(E),
}

/// Learns domains from the calls on their way to the sink, and has the ends of injections told to who wanted them.
struct Learning<'a, S> {
    domains: &'a mut Domains,
    remote: &'a mut Option<Remote>,
    clock: &'a Clock,
    /// A call that L1 is to be stopped for.
    paused: Option<CallId>,
    /// Domains that were destroyed.
    ended: Vec<u16>,
    sink: &'a mut S,
}

impl<'a, S> Learning<'a, S> {
    const fn new(
        domains: &'a mut Domains,
        remote: &'a mut Option<Remote>,
        clock: &'a Clock,
        sink: &'a mut S,
    ) -> Self {
        Self { domains, remote, clock, paused: None, ended: Vec::new(), sink }
    }
}

impl<S: CallSink> CallSink for Learning<'_, S> {
    type Error = S::Error;

    fn entered(&mut self, call: &crate::call::Call<'_>) -> Result<(), S::Error> {
        self.domains.learn(call);
        self.sink.entered(call)
    }

    fn call(&mut self, call: &crate::call::Call<'_>) -> Result<(), S::Error> {
        self.ended.extend(self.domains.learn(call));
        if call.intervention.verdict == Some(Verdict::Paused) {
            self.paused = Some(call.id);
        }
        self.sink.call(call)
    }

    fn injected(&mut self, pcpu: u32, injected: &Injected, memory: &[u8]) -> Result<(), S::Error> {
        if let Some(remote) = self.remote {
            remote.ended(pcpu, injected, self.clock.duration_ns(injected.duration_ticks), memory);
        }
        self.sink.injected(pcpu, injected, memory)
    }

    fn loss(&mut self, loss: &crate::call::Loss) -> Result<(), S::Error> {
        self.sink.loss(loss)
    }
}

/// A domain's kind, as rules have it.
pub(crate) const fn guest_kind(kind: DomainKind) -> GuestKind {
    match kind {
        DomainKind::Pv => GuestKind::Pv,
        DomainKind::Pvh => GuestKind::Pvh,
        DomainKind::Hvm => GuestKind::Hvm,
        DomainKind::Unknown => GuestKind::Unknown,
    }
}

fn connect(path: &Path) -> rustix::io::Result<OwnedFd> {
    let socket =
        rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(socket)
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
    })
}

/// How long a QEMU may take from its start to listening.
pub const START_TIMEOUT: Duration = Duration::from_secs(30);

/// A deadline for [`Session::connect`] and the like.
pub fn until(timeout: Duration) -> impl FnMut() -> bool {
    let start = Instant::now();
    move || start.elapsed() < timeout
}
