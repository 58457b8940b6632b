//! The sensor's side of the control socket, and what all vCPUs share.
//!
//! A thread of its own listens, serves one engine at a time and keeps what engines tell. vCPU threads only read
//! what is settled ([`Control::ram`], [`Control::layout`]: written once, then never again), except for the two
//! questions at the start of monitoring, where they wait here.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use hypovisor_event::Rings;
use hypovisor_event::control::{
    self, FrameLayout, Hello, Hook, Message, PROTOCOL, SensorState, SystemChange, SystemRegister,
};
use hypovisor_machine::{Gpa, Gva, RamLayout, RamRange};
use hypovisor_mapping::{Access, Mapping, MappingError, Ram};
use hypovisor_verdict::RuleSet;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use crate::injections::Injections;
use crate::system::SystemWatch;
use crate::verdicts::{InForce, Verdicts};
use crate::written::WrittenPages;

/// The most bytes a compiled rule set may have.
const MAX_RULES_BYTES: u64 = 16 << 20;
/// How long a vCPU waits for the engine's answer. Reading the DWARF of a debug build takes seconds on a slow machine.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a vCPU waits while no engine is connected at all.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Why a sensor cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The control socket cannot be listened on.
    #[error("cannot listen on {path}: {source}")]
    Listen {
        /// The socket's path.
        path: PathBuf,
        /// Why.
        source: rustix::io::Errno,
    },
    /// The rings cannot be created.
    #[error(transparent)]
    Rings(#[from] MappingError),
    /// A thread cannot be started.
    #[error("cannot start the control thread: {0}")]
    Thread(std::io::Error),
}

/// What an adapter knows when it starts.
#[derive(Debug)]
pub struct ControlOptions {
    /// Where to listen.
    pub socket: PathBuf,
    /// The rings, one per vCPU.
    pub rings: Rings,
    /// Level of QEMU's plugin API, 0 for the KVM adapter.
    pub plugin_api: u64,
    /// Descriptors that may be L1's RAM, or lead to it: see [`Message::Hello`]. Found when an engine asks: QEMU creates
    /// them after its plugins.
    pub ram_candidates: fn() -> Vec<OwnedFd>,
    /// Maps that many bytes of the descriptor that is L1's RAM, in the way that costs the vCPUs least.
    pub map_ram: fn(BorrowedFd<'_>, usize) -> Result<Mapping, MappingError>,
    /// Called on the control thread once RAM is mapped.
    pub on_armed: fn(),
    /// Called on the control thread: tell of writes to these pages ([`Control::page_written`]) from now on, or, where those cannot
    /// be seen, of code in them that is executed and not what stands there now ([`SystemRegister::Code`]).
    pub watch_writes: fn(&[(Gpa, u64)]),
}

/// What to hook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// This.
    Hooks(Vec<Hook>),
    /// That vCPU does not run L1's hypervisor yet.
    AskAgain,
    /// Nothing: leave L1 alone.
    None,
}

/// Shared by all vCPUs of a QEMU process, for its whole life.
pub struct Control {
    options: ControlOptions,
    ram: OnceLock<Ram>,
    layout: OnceLock<FrameLayout>,
    attached: AtomicBool,
    /// Calls of [`Control::ask_hooks`] that found no answer: L1 runs unmonitored.
    idle: AtomicBool,
    unanswered: AtomicU64,
    injections: Injections,
    verdicts: Verdicts,
    system: SystemWatch,
    written: WrittenPages,
    resets: AtomicU64,
    conversation: Mutex<Conversation>,
    answered: Condvar,
}

/// What only the control thread and a waiting vCPU touch.
#[derive(Default)]
struct Conversation {
    engine: Option<OwnedFd>,
    /// How many engines there were: a later one may have the descriptor's number of an earlier one.
    engines: u64,
    hooks: Option<Vec<Hook>>,
    refused: bool,
    ask_again: bool,
    note: Vec<u8>,
    /// What an engine has to be told before it is asked anything, if the adapter itself found L1's RAM.
    own_ram: Option<Vec<RamRange>>,
    /// The engine does not know yet that L1 began anew.
    untold_reset: bool,
}

impl Conversation {
    /// Asks the engine, after what it has to know before.
    fn put(&mut self, question: &Message) {
        let Some(engine) = &self.engine else { return };
        if let Some(ranges) = &self.own_ram {
            let _ = control::send(engine, &Message::OwnRam(ranges.clone()), &[]);
        }
        if std::mem::take(&mut self.untold_reset) {
            let _ = control::send(engine, &Message::Reset, &[]);
        }
        let _ = control::send(engine, question, &[]);
    }
}

impl Control {
    /// Listens on the socket and starts the control thread. The result lives as long as the process.
    ///
    /// # Errors
    /// [`StartError`]; nothing is left running then.
    pub fn start(options: ControlOptions) -> Result<&'static Self, StartError> {
        let listener = listen(&options.socket)
            .map_err(|source| StartError::Listen { path: options.socket.clone(), source })?;
        let control: &'static Self = Box::leak(Box::new(Self {
            options,
            ram: OnceLock::new(),
            layout: OnceLock::new(),
            attached: AtomicBool::new(false),
            idle: AtomicBool::new(false),
            unanswered: AtomicU64::new(0),
            injections: Injections::new(),
            verdicts: Verdicts::new(),
            system: SystemWatch::new(),
            written: WrittenPages::default(),
            resets: AtomicU64::new(0),
            conversation: Mutex::default(),
            answered: Condvar::new(),
        }));
        std::thread::Builder::new()
            .name("hypovisor".into())
            .spawn(move || control.serve(&listener))
            .map_err(StartError::Thread)?;
        Ok(control)
    }

    /// L1's RAM, once an engine has told where it is.
    #[must_use]
    pub fn ram(&self) -> Option<&Ram> {
        self.ram.get()
    }

    /// The adapter has found L1's RAM by itself: `ram` for the sensor, and where it stands in this process's address space
    /// for engines, which read it there.
    pub fn provide_ram(&self, ram: Ram, ranges: Vec<RamRange>) {
        if self.ram.set(ram).is_ok() {
            self.lock().own_ram = Some(ranges);
        }
    }

    /// Where L1 keeps what the sensor reads, once known.
    #[must_use]
    pub fn layout(&self) -> Option<&FrameLayout> {
        self.layout.get()
    }

    /// The rings.
    #[must_use]
    pub const fn rings(&self) -> &Rings {
        &self.options.rings
    }

    /// Calls to be made in the name of guests.
    pub(crate) const fn injections(&self) -> &Injections {
        &self.injections
    }

    /// The rules to judge calls by.
    pub(crate) const fn verdicts(&self) -> &Verdicts {
        &self.verdicts
    }

    /// Whether an engine is there to empty the rings.
    #[must_use]
    pub fn engine_attached(&self) -> bool {
        self.attached.load(Ordering::Relaxed)
    }

    /// Whether L1 runs unmonitored for good.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.idle.load(Ordering::Relaxed)
    }

    /// A vCPU of L1 is about to run its first code in the kernel half: asks the engine what to hook and waits for
    /// the answer.
    #[must_use]
    pub fn ask_hooks(&self, vcpu: u64, cr3: u64, rip: Gva) -> Answer {
        let question = Message::NeedHooks { vcpu, cr3, rip };
        let answer = self.ask(&question, |conversation| match &conversation.hooks {
            Some(hooks) => Some(Answer::Hooks(hooks.clone())),
            None => std::mem::take(&mut conversation.ask_again).then_some(Answer::AskAgain),
        });
        if answer.is_none() {
            self.idle.store(true, Ordering::Relaxed);
        }
        answer.unwrap_or(Answer::None)
    }

    /// L1 is about to set a system register, or to run a guest otherwise than by its own VMRUN; the adapter has made sure that it is
    /// L1, and not a guest of it.
    pub fn l1_sets(&self, register: SystemRegister, value: u64, rip: Gva) {
        if register == SystemRegister::Vmcb {
            // L1's own VMRUN is a hook.
            self.l1_does(SystemChange { register, before: 0, now: value, rip });
        } else if !self.system.is_settled() {
            self.system.learn(register, value);
        } else if self.system.see(register, value, rip) {
            self.tell_system_changes();
        }
    }

    /// The first of the values that L1 gave a register while it booted for which `find` finds something.
    pub fn find_set<T>(&self, register: SystemRegister, find: impl FnMut(u64) -> Option<T>) -> Option<T> {
        self.system.find(register, find)
    }

    /// L1 has booted: a guest of it makes its first call.
    pub(crate) fn guests_run(&self) {
        self.system.settle();
    }

    /// L1 is about to do something that is wrong in itself.
    pub fn l1_does(&self, change: SystemChange) {
        if self.system.tell(change) {
            self.tell_system_changes();
        }
    }

    /// Somebody is about to write to a page that is watched. Never waits: what cannot be told now is told by
    /// [`Control::tell_written`].
    pub fn page_written(&self, page: Gpa) {
        if self.engine_attached() {
            self.written.note(page);
            self.tell_written();
        }
    }

    /// Tells of pages that could not be told before, if there are any; never waits.
    pub fn tell_written(&self) {
        let Ok(conversation) = self.conversation.try_lock() else { return };
        let Some(engine) = &conversation.engine else { return };
        self.written.flush(|page| control::try_send(engine, &Message::Written(page)));
    }

    /// Tells what could not be told before, if there is anything; never waits.
    pub(crate) fn tell_waiting(&self) {
        if self.system.is_waiting() {
            self.tell_system_changes();
        }
    }

    #[cold]
    fn tell_system_changes(&self) {
        let Ok(conversation) = self.conversation.try_lock() else { return };
        let Some(engine) = &conversation.engine else { return };
        self.system.flush(|change| control::try_send(engine, &Message::SystemChange(change)));
    }

    /// L1 begins anew: what to hook is to be asked again, if there is somebody to ask. Else the old answer stays.
    pub fn l1_was_reset(&self) {
        self.resets.fetch_add(1, Ordering::Release);
        self.system.forget();
        self.verdicts.forget_calls();
        let mut conversation = self.lock();
        if let Some(engine) = &conversation.engine {
            let told = control::try_send(engine, &Message::Reset);
            conversation.hooks = None;
            conversation.untold_reset = !told;
        }
    }

    /// How often L1 has begun anew.
    #[must_use]
    pub fn resets(&self) -> u64 {
        self.resets.load(Ordering::Acquire)
    }

    /// A vCPU stands at the first hypercall and the layout is unknown: asks the engine and waits for the answer.
    #[must_use]
    pub fn ask_layout(&self, vcpu: u64, cr3: u64, frame: Gva) -> Option<FrameLayout> {
        self.ask(&Message::NeedLayout { vcpu, cr3, frame }, |_| self.layout.get().copied())
    }

    fn lock(&self) -> MutexGuard<'_, Conversation> {
        // The state is whole between any two statements, so a panic elsewhere does not spoil it.
        self.conversation.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ask<T>(&self, question: &Message, answer: impl Fn(&mut Conversation) -> Option<T>) -> Option<T> {
        if self.unanswered.load(Ordering::Relaxed) > 0 {
            return None;
        }
        let start = Instant::now();
        let mut conversation = self.lock();
        let mut asked = 0;
        loop {
            if let Some(answer) = answer(&mut conversation) {
                return Some(answer);
            }
            let engine = conversation.engine.as_ref();
            let limit = if engine.is_some() { ANSWER_TIMEOUT } else { CONNECT_TIMEOUT };
            if conversation.refused || start.elapsed() > limit {
                self.unanswered.fetch_add(1, Ordering::Relaxed);
                return None;
            }
            if engine.is_some() && asked != conversation.engines {
                asked = conversation.engines;
                conversation.put(question);
            }
            let wait = self.answered.wait_timeout(conversation, Duration::from_millis(100));
            conversation = wait.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn serve(&self, listener: &OwnedFd) {
        loop {
            let Ok(engine) = rustix::net::accept_with(listener, SocketFlags::CLOEXEC) else {
                std::thread::sleep(Duration::from_millis(100));
                continue;
            };
            if self.greet(&engine).is_ok() {
                self.attached.store(true, Ordering::Relaxed);
                while let Ok((message, fds)) = control::receive(&engine) {
                    self.on_message(message, &fds);
                }
                self.attached.store(false, Ordering::Relaxed);
                self.injections.drop_waiting();
                // The next engine looks at everything when it comes.
                self.written.forget();
                self.lock().engine = None;
            }
        }
    }

    fn greet(&self, engine: &OwnedFd) -> Result<(), control::ControlError> {
        let geometry = self.options.rings.geometry();
        let hello = Hello {
            protocol: PROTOCOL,
            pid: u64::from(std::process::id()),
            plugin_api: self.options.plugin_api,
            vcpus: u64::from(geometry.rings),
            ring_bytes: geometry.ring_bytes,
            state: self.state(),
        };
        let candidates = (self.options.ram_candidates)();
        let fds: Vec<BorrowedFd<'_>> =
            std::iter::once(self.options.rings.fd()).chain(candidates.iter().map(AsFd::as_fd)).collect();
        let mut conversation = self.lock();
        control::send(engine, &Message::Hello(hello, conversation.note.clone()), &fds)?;
        conversation.engine = engine.try_clone().ok();
        conversation.engines += 1;
        self.answered.notify_all();
        Ok(())
    }

    fn state(&self) -> SensorState {
        if self.is_idle() {
            SensorState::Idle
        } else if self.layout.get().is_some() {
            SensorState::Watching
        } else if self.ram.get().is_some() {
            SensorState::Armed
        } else {
            SensorState::Fresh
        }
    }

    fn on_message(&self, message: Message, fds: &[OwnedFd]) {
        match message {
            Message::RamLayout { backend, ranges } => self.map_ram(backend, RamLayout::new(ranges)),
            Message::Hooks(hooks, layout) => {
                if let Some(layout) = layout {
                    let _ = self.layout.set(layout);
                }
                self.lock().hooks = Some(hooks);
            }
            Message::Layout(layout) => {
                let _ = self.layout.set(layout);
            }
            Message::AskAgain => self.lock().ask_again = true,
            Message::Refuse => self.lock().refused = true,
            Message::Note(note) => self.lock().note = note,
            Message::Inject(injection) => {
                // The engine knows how many may wait; one too many never begins.
                let _ = self.injections.push(injection);
            }
            Message::CancelInjection { id } => self.injections.cancel(id),
            Message::Rules { enforce, bytes } => self.set_rules(enforce, bytes, fds.first()),
            Message::Release => self.verdicts.release(),
            Message::DomainKind { domain, kind } => self.verdicts.set_kind(domain, kind),
            Message::WatchWrites(runs) => (self.options.watch_writes)(&runs),
            Message::DomainEnded { domain } => {
                self.injections.domain_ended(domain);
                self.verdicts.domain_ended(domain);
            }
            // A sensor's own questions; an engine that sends them is confused, and they change nothing.
            Message::Hello(..)
            | Message::OwnRam(_)
            | Message::SystemChange(_)
            | Message::Written(_)
            | Message::Reset
            | Message::NeedHooks { .. }
            | Message::NeedLayout { .. } => {}
        }
        self.answered.notify_all();
    }

    /// Rules that make no sense leave those in force that are.
    fn set_rules(&self, enforce: bool, bytes: u64, fd: Option<&OwnedFd>) {
        let Some(fd) = fd else { return self.verdicts.set(None) };
        let Ok(len) = usize::try_from(bytes.min(MAX_RULES_BYTES)) else { return };
        let mut wire = vec![0; len];
        let read =
            Mapping::new(fd, 0, len, Access::ReadOnly).is_ok_and(|mapping| mapping.copy_out(0, &mut wire));
        if let Some(set) = read.then(|| RuleSet::from_bytes(&wire).ok()).flatten() {
            self.verdicts.set(Some(InForce { set, enforce }));
        }
    }

    fn map_ram(&self, backend: u64, layout: RamLayout) {
        let candidates = (self.options.ram_candidates)();
        let backend = usize::try_from(backend).ok().and_then(|index| candidates.get(index));
        let mapping =
            backend.and_then(|fd| (self.options.map_ram)(fd.as_fd(), Ram::backend_bytes(&layout)).ok());
        if let Some(ram) = mapping.and_then(|mapping| Ram::over(mapping, layout).ok())
            && self.ram.set(ram).is_ok()
        {
            (self.options.on_armed)();
        }
    }
}

fn listen(path: &Path) -> rustix::io::Result<OwnedFd> {
    let socket =
        rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
    rustix::net::listen(&socket, 1)?;
    Ok(socket)
}
