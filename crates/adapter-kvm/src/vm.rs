//! The virtual machine of this process: what all its vCPUs share.
#![expect(unsafe_code, reason = "takes L1's RAM in QEMU's memory")]

use core::ffi::c_int;
use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use hypovisor_event::control::{SystemChange, SystemRegister};
use hypovisor_event::{RingGeometry, Rings};
use hypovisor_machine::{Gpa, Gva, RamLayout, RamRange, VirtualMemory};
use hypovisor_mapping::{Mapping, Ram};
use hypovisor_sensor::{Answer, Control, ControlOptions, VcpuSensor};
use kvm_bindings::{KVM_CAP_SYNC_REGS, kvm_userspace_memory_region};
use rustix::io::Errno;

use crate::breakpoints::Hooks;
use crate::kvm;
use crate::msrs;
use crate::options::Options;
use crate::run_page::SYNCED;
use crate::slots::Slots;
use crate::vcpu::KvmVcpu;
use crate::writes::Writes;

/// How long the other vCPUs may take to have their breakpoints set.
const ARM_TIMEOUT: Duration = Duration::from_secs(2);
/// The signal that QEMU itself ends KVM_RUN with (`SIG_IPI`, include/system/cpus.h).
const KICK: c_int = libc::SIGUSR1;

/// The virtual machine.
pub(crate) struct Vm {
    /// Its descriptor.
    fd: c_int,
    control: &'static Control,
    /// Bytes of the page that each vCPU shares with KVM.
    page_bytes: usize,
    only_hooks: bool,
    slots: Mutex<Slots>,
    /// In the order in which QEMU made them.
    vcpus: Mutex<Vec<&'static KvmVcpu>>,
    asked: Mutex<Asked>,
    watching: AtomicBool,
    /// Something went wrong: leave L1 alone from now on.
    dead: AtomicBool,
    unknown_return: AtomicBool,
    /// L1's WRMSRs are handed over, or nobody has seen to it yet, or they cannot be.
    msr_filter: Mutex<Option<bool>>,
    /// Guest-physical address of the first hook, as L1 has it at its first hypercall; 0 until then.
    l1_code: AtomicU64,
    /// Tells of writes to pages, once an engine wants to know.
    writes: OnceLock<Option<Writes>>,
    /// Somebody looks for what L1's guests do unseen.
    watches_guests: AtomicBool,
}

/// What to hook.
#[derive(Clone, Debug, Default)]
enum Asked {
    /// L1's kernel has not run yet.
    #[default]
    NotYet,
    /// Nobody answered, or with a refusal.
    Nothing,
    /// This.
    Hooks(Arc<Hooks>),
}

/// The one of this process.
pub(crate) static VM: OnceLock<Vm> = OnceLock::new();

/// One line to QEMU's standard error.
pub(crate) fn log(text: &str) {
    let _ = writeln!(std::io::stderr(), "hypovisor: {text}");
}

fn tell(asked: &Asked) {
    match asked {
        Asked::Hooks(hooks) if hooks.left_out > 0 => {
            log(&format!("{} kinds of calls have no breakpoint left and pass unseen", hooks.left_out));
        }
        Asked::Nothing => log("no answer from an engine, or no RAM; L1 runs unmonitored"),
        Asked::Hooks(_) | Asked::NotYet => {}
    }
}

/// What may lead to L1's RAM: this process's own memory, for reading.
fn own_memory() -> Vec<OwnedFd> {
    std::fs::File::open("/proc/self/mem").map(OwnedFd::from).into_iter().collect()
}

impl Vm {
    /// Begins to watch the virtual machine with this descriptor; `system` is that of KVM itself.
    pub(crate) fn start(system: c_int, fd: c_int, options: Options) -> Result<(), String> {
        let synced = kvm::ioctl_number(fd, kvm::CHECK_EXTENSION, KVM_CAP_SYNC_REGS as usize);
        if u32::try_from(synced).unwrap_or(0) & SYNCED != SYNCED {
            return Err("this kernel's KVM does not share registers (KVM_CAP_SYNC_REGS; Linux 4.17)".into());
        }
        let page_bytes = kvm::ioctl_number(system, kvm::GET_VCPU_MMAP_SIZE, 0);
        let page_bytes =
            usize::try_from(page_bytes).map_err(|_| "KVM does not tell the size of its pages")?;
        let rings = Rings::create(RingGeometry::new(options.vcpus, options.ring_bytes));
        let control = Control::start(ControlOptions {
            socket: options.socket,
            rings: rings.map_err(|error| error.to_string())?,
            plugin_api: 0,
            ram_candidates: own_memory,
            map_ram: |fd, len| Mapping::new(fd, 0, len, hypovisor_mapping::Access::ReadWrite),
            on_armed: || {},
            watch_writes: |runs| {
                if let Some(vm) = VM.get() {
                    vm.watch_writes(runs);
                }
            },
        })
        .map_err(|error| error.to_string())?;
        let vm = Self {
            fd,
            control,
            page_bytes,
            only_hooks: options.only_hooks,
            slots: Mutex::default(),
            vcpus: Mutex::default(),
            asked: Mutex::default(),
            watching: AtomicBool::new(false),
            dead: AtomicBool::new(false),
            unknown_return: AtomicBool::new(false),
            msr_filter: Mutex::default(),
            l1_code: AtomicU64::new(0),
            writes: OnceLock::new(),
            watches_guests: AtomicBool::new(false),
        };
        VM.set(vm).map_err(|_| "QEMU makes a second virtual machine".to_owned())
    }

    /// Whether the descriptor is the machine's.
    pub(crate) const fn is_behind(&self, fd: c_int) -> bool {
        self.fd == fd
    }

    /// Whether QEMU's filter of model-specific registers has ours in it.
    pub(crate) fn note_msr_filter(&self, is_ours: bool) {
        *self.msr_filter() = Some(is_ours);
        if !is_ours {
            log(
                "this kernel's KVM does not hand L1's WRMSR over: --integrity does not see it set where guests enter",
            );
        }
    }

    fn msr_filter(&self) -> MutexGuard<'_, Option<bool>> {
        // A flag.
        self.msr_filter.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// QEMU has made a vCPU.
    pub(crate) fn add(&self, fd: c_int) {
        if self.msr_filter().is_none() {
            self.note_msr_filter(msrs::set_filter(self.fd));
        }
        let mut vcpus = self.vcpus();
        let index = vcpus.len() as u32;
        let Ok(producer) = self.control.rings().producer(index) else {
            return log(&format!("no ring for vCPU {index}: its hypercalls pass unseen"));
        };
        let sensor = VcpuSensor::new(u64::from(index), self.control, producer);
        match KvmVcpu::new(fd, index, self.page_bytes, sensor) {
            Some(vcpu) => vcpus.push(Box::leak(Box::new(vcpu))),
            None => log(&format!("the page of vCPU {index} cannot be mapped: its hypercalls pass unseen")),
        }
    }

    /// The vCPU behind a descriptor.
    pub(crate) fn find(&self, fd: c_int) -> Option<&'static KvmVcpu> {
        self.vcpus().iter().copied().find(|vcpu| vcpu.fd() == fd)
    }

    /// What all vCPUs share of the conversation with the engine.
    pub(crate) const fn control(&self) -> &'static Control {
        self.control
    }

    /// Whether an engine wants to know what L1 does to itself.
    pub(crate) fn watches_l1(&self) -> bool {
        self.writes.get().is_some()
    }

    pub(crate) fn vcpus(&self) -> MutexGuard<'_, Vec<&'static KvmVcpu>> {
        // Whole between any two statements, so a panic elsewhere does not spoil it.
        self.vcpus.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn slots(&self) -> MutexGuard<'_, Slots> {
        // As above.
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// QEMU has set a memory slot.
    pub(crate) fn set_slot(&self, region: kvm_userspace_memory_region) {
        self.slots().set(region);
    }

    /// L1's RAM, once known.
    pub(crate) fn ram(&self) -> Option<&Ram> {
        self.control.ram()
    }

    /// What to hook, once known.
    pub(crate) fn hooks(&self) -> Option<Arc<Hooks>> {
        match &*self.asked() {
            Asked::Hooks(hooks) => Some(Arc::clone(hooks)),
            Asked::NotYet | Asked::Nothing => None,
        }
    }

    fn asked(&self) -> MutexGuard<'_, Asked> {
        // As above.
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// L1 begins anew: what to hook is asked again when its kernel runs. All vCPUs stand still meanwhile.
    pub(crate) fn forget_hooks(&self) {
        let mut asked = self.asked();
        if matches!(*asked, Asked::Hooks(_)) {
            *asked = Asked::NotYet;
            self.watching.store(false, Ordering::SeqCst);
            self.l1_code.store(0, Ordering::Relaxed);
            self.control.l1_was_reset();
            log("L1 was reset; it is watched again as soon as its hypervisor runs");
        }
    }

    /// Protects these pages, and tells of writes to them.
    fn watch_writes(&'static self, runs: &[(Gpa, u64)]) {
        let Some(writes) = self.writes.get_or_init(|| self.start_writes()) else { return };
        let addresses: Vec<_> = {
            let slots = self.slots();
            runs.iter().flat_map(|(start, len)| slots.addresses(*start, *len)).collect()
        };
        for (start, len) in addresses {
            if let Err(error) = writes.protect(start, len) {
                return log(&format!("L1's code cannot be write-protected ({error}): it is only looked at"));
            }
        }
    }

    fn start_writes(&'static self) -> Option<Writes> {
        match Writes::open() {
            Ok(writes) => {
                let thread = std::thread::Builder::new().name("hypovisor-writes".into());
                thread.spawn(|| self.tell_writes()).is_ok().then_some(writes)
            }
            Err(error) => {
                log(&format!(
                    "userfaultfd is not to be had ({error}): L1's code is only looked at, ten times a second"
                ));
                None
            }
        }
    }

    /// Who writes waits until this thread has let it; it does nothing that could wait for a vCPU before.
    fn tell_writes(&self) {
        let Some(writes) = self.writes.wait() else { return };
        loop {
            match writes.next() {
                Ok(page) => {
                    let gpa = page.and_then(|page| self.slots().gpa_of(page));
                    gpa.into_iter().for_each(|gpa| self.control.page_written(gpa));
                }
                Err(Errno::INTR) => {}
                Err(error) => {
                    writes.give_up();
                    let register = SystemRegister::WritesUnseen;
                    self.control.l1_does(SystemChange { register, before: 0, now: 0, rip: Gva(0) });
                    return log(&format!("writes to L1's code are no longer told: {error}"));
                }
            }
        }
    }

    /// L1 sets a register. `rip` is where; 0 if that was not seen.
    #[cold]
    pub(crate) fn l1_sets(&self, register: SystemRegister, value: u64, rip: Gva) {
        self.control.l1_sets(register, value, rip);
    }

    /// A vCPU with these page tables is at a hook: it runs L1.
    pub(crate) fn learn_l1(&self, cr3: u64) {
        if self.l1_code.load(Ordering::Relaxed) == 0 {
            self.l1_code.store(self.code_by(cr3), Ordering::Relaxed);
        }
    }

    /// Whether these page tables are L1's, and not those of a guest of it: they have its code where that was at the first
    /// hypercall.
    pub(crate) fn is_l1(&self, cr3: u64) -> bool {
        let known = self.l1_code.load(Ordering::Relaxed);
        known == 0 || known == self.code_by(cr3)
    }

    /// The physical address of the first hook by these page tables; 0 if there is none.
    fn code_by(&self, cr3: u64) -> u64 {
        let (Some(ram), Some(hook)) = (self.ram(), self.hooks().and_then(|hooks| hooks.first())) else {
            return 0;
        };
        VirtualMemory::new(ram, cr3).translate(hook).map_or(0, |gpa| gpa.0)
    }

    /// Whether it has been settled what to hook.
    pub(crate) fn is_watching(&self) -> bool {
        self.watching.load(Ordering::SeqCst)
    }

    /// Whether L1 is to be left alone.
    pub(crate) fn is_dead(&self) -> bool {
        self.dead.load(Ordering::Relaxed)
    }

    /// Whether nothing is to be done at a hook.
    pub(crate) const fn only_hooks(&self) -> bool {
        self.only_hooks
    }

    /// Leaves L1 alone from now on, without a word.
    pub(crate) fn leave_alone(&self) {
        self.dead.store(true, Ordering::Relaxed);
    }

    /// Leaves L1 alone from now on.
    #[cold]
    pub(crate) fn give_up(&self, why: &str) {
        if !self.dead.swap(true, Ordering::Relaxed) {
            log(&format!("{why}; L1 runs on unmonitored"));
        }
    }

    /// A call came from where the engine found no call.
    #[cold]
    pub(crate) fn note_unknown_return(&self) {
        if !self.unknown_return.swap(true, Ordering::Relaxed) {
            log("a hypercall returns to an unknown place in L1; such calls are left alone");
        }
    }

    /// A vCPU has run its first code in L1's kernel half: asks the engine what to hook, once for all vCPUs, and sees to it
    /// that none of them gets past the hooks unseen.
    #[cold]
    pub(crate) fn ask(&'static self, vcpu: u32, cr3: u64, rip: Gva) {
        let mut asked = self.asked();
        if matches!(*asked, Asked::NotYet) {
            let answer = self.find_ram().map(|()| self.control.ask_hooks(u64::from(vcpu), cr3, rip));
            *asked = match answer {
                Some(Answer::Hooks(hooks)) => Asked::Hooks(Arc::new(Hooks::new(&hooks))),
                Some(Answer::AskAgain) => return,
                Some(Answer::None) | None => Asked::Nothing,
            };
            tell(&asked);
        }
        let hooked = matches!(*asked, Asked::Hooks(_));
        drop(asked);
        self.watching.store(true, Ordering::SeqCst);
        self.arm_others();
        if hooked && !self.watches_guests.swap(true, Ordering::Relaxed) {
            self.watch_guests();
        }
    }

    fn find_ram(&self) -> Option<()> {
        let own = self.slots().own_ram()?;
        let (base, len) = (usize::try_from(own.base).ok()?, usize::try_from(own.len).ok()?);
        // SAFETY: QEMU keeps a machine's RAM where it is until the process ends; only what the slots named as RAM is
        // reached for.
        let mapping = unsafe { Mapping::of_addresses(base, len) }?;
        let inside = |range: &RamRange| RamRange { file_offset: range.file_offset - own.base, ..*range };
        let layout = RamLayout::new(own.ranges.iter().map(inside));
        self.control.provide_ram(Ram::over(mapping, layout).ok()?, own.ranges);
        Some(())
    }

    /// A vCPU that runs L1 right now does not look at the hooks before its next exit, which may be long after its first
    /// hypercall. It is made to exit, as QEMU would.
    fn arm_others(&self) {
        if !kvm::handles_signal(KICK) {
            return log("QEMU's vCPUs cannot be interrupted: the first hypercalls may pass unseen");
        }
        let others = self.vcpus().clone();
        let start = Instant::now();
        while start.elapsed() < ARM_TIMEOUT {
            let unarmed: Vec<i32> = others.iter().filter_map(|vcpu| vcpu.runs_unarmed()).collect();
            if unarmed.is_empty() {
                return;
            }
            for thread in unarmed {
                kvm::signal_thread(thread, KICK);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        log("a vCPU did not stop to have its breakpoints set: its first hypercalls may pass unseen");
    }
}
