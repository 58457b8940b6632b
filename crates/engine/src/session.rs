//! One engine's session with one sensor: from connecting to the last record.
//!
//! A single thread does everything, in steps of about a millisecond: answer the sensor, empty the rings. The
//! sensor asks for hooks, when L1 runs its first code in the kernel half (again after a reset), and once for the layout of
//! L1's structures, at the first hypercall.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use hypovisor_event::control::{self, Hello, Message, PROTOCOL, SensorState, SystemChange};
use hypovisor_event::ring::{RingCounters, median_cost_ticks};
use hypovisor_event::{RingGeometry, Rings};
use hypovisor_machine::{Gpa, PhysicalMemory, RamLayout};
use hypovisor_mapping::{Access, Ram};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use crate::call::{CallId, CallSink};
use crate::clock::Clock;
use crate::domains::{DomainKind, Domains};
use crate::drain::Drain;
pub use crate::note::Note;
use crate::qmp::RamMap;
use crate::remote::Remote;

mod answers;
mod error;
mod learning;
mod own_ram;
mod verdicts;

pub use self::error::{SessionError, StepError};
use self::learning::Learning;

/// Pause between two looks at the rings: short enough that an event is seen within milliseconds, long enough that
/// the engine does not compete with the vCPUs.
const STEP: Duration = Duration::from_millis(1);
/// The longest pause, where a look itself takes long: on an emulated processor a change of processes is dear.
const LONGEST_STEP: Duration = Duration::from_millis(8);
/// A pause is so many times as long as the look before it, within these bounds: the engine takes a tenth of one CPU then.
const PAUSE_PER_LOOK: u32 = 9;
/// A look that hands on more records than this was worth its time, and the next one follows soon.
const FEW_RECORDS: u64 = 64;

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
    ram: Option<Box<dyn PhysicalMemory + Send>>,
    symbols: Option<PathBuf>,
    note: Note,
    note_cut: bool,
    /// How often no Xen was found yet.
    looks_for_xen: u32,
    /// Domains that were there when L1 was reset.
    ended_by_reset: Vec<u16>,
    remote: Option<Remote>,
    /// QEMU's monitor, to stop L1 with.
    monitor: Option<PathBuf>,
    paused: Option<CallId>,
    /// The kinds of domains that the sensor has been told, once it judges by rules.
    told: Option<BTreeMap<u16, DomainKind>>,
    system_changes: Vec<SystemChange>,
    /// Those that there was no room for.
    untold: u64,
    written: Vec<Gpa>,
    was_reset: bool,
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
            looks_for_xen: 0,
            ended_by_reset: Vec::new(),
            remote: None,
            monitor: None,
            paused: None,
            told: None,
            system_changes: Vec::new(),
            untold: 0,
            written: Vec::new(),
            was_reset: false,
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
        self.ram = Some(Box::new(Ram::map(&self.candidates[backend], layout, Access::ReadOnly)?));
        let message = Message::RamLayout { backend: backend as u64, ranges: map.ranges.clone() };
        control::send(&self.socket, &message, &[])?;
        Ok(())
    }

    /// Answers the sensor and hands on what the rings hold, then waits for a millisecond or a few unless there is more.
    ///
    /// # Errors
    /// [`SessionError`] if L1 cannot be watched; the sensor then leaves it alone. `S::Error` is passed through.
    pub fn step<S: CallSink>(&mut self, sink: &mut S) -> Result<Step, StepError<S::Error>> {
        let start = Instant::now();
        self.answer().map_err(StepError::Session)?;
        self.clock.tick();
        self.serve();
        let clock = &self.clock;
        let domains = &mut self.note.domains;
        let mut learning = Learning::new(domains, &mut self.remote, clock, sink);
        let round = self.drain.round(clock, &mut learning).map_err(StepError::Sink)?;
        let (paused, mut ended) = (learning.paused, learning.ended);
        ended.append(&mut self.ended_by_reset);
        self.tell_kinds();
        self.tell_ended(&ended);
        for domain in ended {
            if let Some(remote) = &mut self.remote {
                remote.domain_ended(domain);
            }
        }
        if let Some(call) = paused {
            self.pause(call).map_err(StepError::Session)?;
        }
        if self.closed && round.records == 0 {
            return Ok(Step::Ended);
        }
        if !round.more {
            let longest = if round.records > FEW_RECORDS { STEP } else { LONGEST_STEP };
            std::thread::sleep((start.elapsed() * PAUSE_PER_LOOK).clamp(STEP, longest));
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
}

fn connect(path: &Path) -> rustix::io::Result<OwnedFd> {
    let socket =
        rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(socket)
}

/// How long a QEMU may take from its start to listening.
pub const START_TIMEOUT: Duration = Duration::from_secs(30);

/// A deadline for [`Session::connect`] and the like.
pub fn until(timeout: Duration) -> impl FnMut() -> bool {
    let start = Instant::now();
    move || start.elapsed() < timeout
}
