//! The plugin's life: installation, translation, hook hits.
#![expect(unsafe_code, reason = "takes QEMU's arguments, and gives each vCPU's thread its own state")]

use core::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::cell::UnsafeCell;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use hypovisor_event::control::{Hook, HookKind};
use hypovisor_event::{RingGeometry, Rings};
use hypovisor_machine::{Gva, KERNEL_HALF};
use hypovisor_mapping::{Access, Mapping, MappingError};
use hypovisor_sensor::{Answer, Control, ControlOptions, Register, Vcpu as _, VcpuSensor};

use self::bypass::Bypass;
use self::changed_code::ChangedCode;
use self::foreign_code::ForeignCode;
use self::guest_runs::RunningGuests;
use crate::stacks::Stacks;
use crate::sys::{self, Block, Info, RegisterBuffer, RegisterHandle};
use crate::vcpu::{REGISTER_NAMES, REGISTERS, ReadRegister, Registers, TcgVcpu};

mod bypass;
mod changed_code;
mod foreign_code;
mod guest_runs;
mod reset;
mod system_registers;

/// A translated block spans at most two pages.
const BLOCK_BYTES: u64 = 2 * 4096;
/// The privilege level of all but L1's kernel.
const USER: u64 = 3;
/// `userdata` of the probe callback; hook kinds start at 1.
const PROBE: usize = 0;
/// `userdata` of the callback behind L1's VMRUN, where a guest has left.
const BEHIND_VMRUN: usize = 0x80;
/// Length of VMRUN.
const VMRUN_BYTES: u64 = 3;
/// Ring size unless the command line says otherwise, in bytes.
const DEFAULT_RING_BYTES: u64 = 32 << 20;

/// What an API level does its own way.
pub struct Callbacks {
    pub(crate) register: Box<dyn Fn()>,
    pub(crate) find_registers: fn([&CStr; REGISTERS]) -> [Option<RegisterHandle>; REGISTERS],
    pub(crate) read_register: ReadRegister,
}

/// State of one vCPU, used by its own thread only.
struct VcpuSlot(UnsafeCell<Option<TcgVcpu>>);

// SAFETY: a slot is used only from callbacks that QEMU makes for that vCPU on the vCPU's own thread.
unsafe impl Sync for VcpuSlot {}
// SAFETY: as above; it is moved only while it is still empty.
unsafe impl Send for VcpuSlot {}

/// The hooks, with their lowest and highest address for a quick test.
struct Hooks {
    hooks: Vec<Hook>,
    low: u64,
    high: u64,
}

struct Plugin {
    control: &'static Control,
    vcpus: Box<[VcpuSlot]>,
    find_registers: fn([&CStr; REGISTERS]) -> [Option<RegisterHandle>; REGISTERS],
    read_register: ReadRegister,
    /// RAM is mapped, or the machine was reset: watch out for the first code in the kernel half.
    probing: AtomicBool,
    /// The same after each reset: the engine refuses another L1.
    hooks: OnceLock<Hooks>,
    /// Tells vCPUs apart where QEMU does not.
    stacks: Stacks,
    /// Host address less virtual address of L1's text; 0 until the first hook is translated.
    text_distance: AtomicU64,
    /// Guest-physical address of the first hook, as L1 has it at its first hypercall; 0 until then.
    l1_code: AtomicU64,
    /// Where guests run.
    guests: RunningGuests,
    /// L1's code as it was when the engine wanted it watched.
    changed_code: ChangedCode,
    /// Code of L1's that is elsewhere.
    foreign_code: ForeignCode,
    /// Counts calls that pass no hook.
    bypass: Option<Bypass>,
    /// Answers QEMU's wrong reports of CR reads (see [`Plugin::mend_vmcb`]).
    mend_cr_reads: bool,
    /// Does nothing at a hook: the floor of what a hook costs, for the benchmark.
    only_hooks: bool,
    /// A callback panicked: leave L1 alone from now on.
    dead: AtomicBool,
}

static PLUGIN: OnceLock<Plugin> = OnceLock::new();

/// What stands behind `-plugin file=…,`.
struct Arguments {
    socket: PathBuf,
    ring_bytes: u64,
    mend_cr_reads: bool,
    only_hooks: bool,
}

/// Installs the plugin; 0, or -1 after a line that says what is wrong.
///
/// # Safety
/// The arguments are those of `qemu_plugin_install`.
pub unsafe fn install(
    level: u64,
    callbacks: &Callbacks,
    info: *const Info,
    argc: c_int,
    argv: *const *const c_char,
) -> c_int {
    // SAFETY: QEMU passes a valid pointer for the duration of the call.
    let info = unsafe { &*info };
    let argc = usize::try_from(argc).unwrap_or(0);
    // SAFETY: QEMU passes `argc` pointers that live through the call.
    let pointers = if argc == 0 { &[] } else { unsafe { std::slice::from_raw_parts(argv, argc) } };
    let arguments = pointers.iter().map(|argument| {
        // SAFETY: each points to a NUL-terminated string that lives through the call.
        unsafe { CStr::from_ptr(*argument) }.to_string_lossy().into_owned()
    });
    match start(level, callbacks, info, arguments) {
        Ok(()) => 0,
        Err(message) => {
            sys::log(&message);
            -1
        }
    }
}

fn parse_arguments(arguments: impl Iterator<Item = String>) -> Result<Arguments, String> {
    let mut socket = None;
    let mut parsed = Arguments {
        socket: PathBuf::new(),
        ring_bytes: DEFAULT_RING_BYTES,
        mend_cr_reads: true,
        only_hooks: false,
    };
    for argument in arguments {
        match argument.split_once('=') {
            Some(("socket", path)) => socket = Some(PathBuf::from(path)),
            Some(("ring-bytes", bytes)) => {
                parsed.ring_bytes = bytes.parse().map_err(|_| format!("ring-bytes={bytes} is no number"))?;
            }
            Some(("mend-cr-reads", value)) => parsed.mend_cr_reads = value != "off",
            Some(("only-hooks", value)) => parsed.only_hooks = value == "on",
            _ => return Err(format!("unknown plugin argument {argument}")),
        }
    }
    parsed.socket = socket.ok_or("the plugin needs socket=PATH")?;
    Ok(parsed)
}

fn start(
    level: u64,
    callbacks: &Callbacks,
    info: &Info,
    arguments: impl Iterator<Item = String>,
) -> Result<(), String> {
    let arguments = parse_arguments(arguments)?;
    if !info.is_system() || info.target() != c"x86_64" {
        return Err("only qemu-system-x86_64 can be watched".into());
    }
    let geometry = RingGeometry::new(info.max_vcpus(), arguments.ring_bytes);
    let rings = Rings::create(geometry).map_err(|error| error.to_string())?;
    let control = Control::start(ControlOptions {
        socket: arguments.socket,
        rings,
        plugin_api: level,
        ram_candidates,
        map_ram,
        on_armed: || {
            if let Some(plugin) = PLUGIN.get() {
                plugin.probing.store(true, Ordering::Release);
            }
        },
        watch_writes: |runs| {
            if let Some(plugin) = PLUGIN.get() {
                plugin.watch_code(runs);
            }
        },
    })
    .map_err(|error| error.to_string())?;
    let plugin = Plugin {
        control,
        vcpus: (0..geometry.rings).map(|_| VcpuSlot(UnsafeCell::new(None))).collect(),
        find_registers: callbacks.find_registers,
        read_register: callbacks.read_register,
        probing: AtomicBool::new(false),
        hooks: OnceLock::new(),
        stacks: Stacks::new(),
        text_distance: AtomicU64::new(0),
        l1_code: AtomicU64::new(0),
        guests: RunningGuests::new(geometry.rings as usize),
        changed_code: ChangedCode::default(),
        foreign_code: ForeignCode::new(),
        bypass: Bypass::new(info),
        mend_cr_reads: arguments.mend_cr_reads,
        only_hooks: arguments.only_hooks,
        dead: AtomicBool::new(false),
    };
    PLUGIN.set(plugin).map_err(|_| "the plugin is loaded twice".to_owned())?;
    (callbacks.register)();
    Ok(())
}

/// This process's memfds but for the rings, in the order of their inodes: what may be L1's RAM.
fn ram_candidates() -> Vec<OwnedFd> {
    let Ok(entries) = std::fs::read_dir("/proc/self/fd") else { return Vec::new() };
    let mut found: Vec<(u64, OwnedFd)> = entries
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            let target = std::fs::read_link(&path).ok()?;
            let name = target.to_str()?.strip_prefix("/memfd:")?.to_owned();
            if name.starts_with("hypovisor-") {
                return None;
            }
            let file = std::fs::File::options().read(true).write(true).open(&path).ok()?;
            let inode = std::os::unix::fs::MetadataExt::ino(&file.metadata().ok()?);
            Some((inode, OwnedFd::from(file)))
        })
        .collect();
    found.sort_by_key(|(inode, _)| *inode);
    found.dedup_by_key(|(inode, _)| *inode);
    found.into_iter().map(|(_, fd)| fd).collect()
}

/// QEMU's own mapping of the RAM it gave L1, which translated code has just written through when a hook is hit; if QEMU
/// has it in pieces, one of our own.
fn map_ram(fd: BorrowedFd<'_>, len: usize) -> Result<Mapping, MappingError> {
    // SAFETY: QEMU keeps a machine's RAM mapped in one place until the process ends.
    let own = unsafe { Mapping::of_this_process(fd, len) };
    own.map_or_else(|| Mapping::new(fd, 0, len, Access::ReadWrite), Ok)
}

/// Runs a callback's body; a panic ends the watching, not QEMU.
fn guarded(body: impl FnOnce(&'static Plugin)) {
    let Some(plugin) = PLUGIN.get() else { return };
    if plugin.dead.load(Ordering::Relaxed) {
        return;
    }
    if catch_unwind(AssertUnwindSafe(|| body(plugin))).is_err() {
        plugin.dead.store(true, Ordering::Relaxed);
        sys::log("internal error in the sensor; L1 runs on unmonitored");
    }
}

/// A vCPU comes up, on its own thread.
pub(crate) fn on_vcpu(index: c_uint) {
    guarded(|plugin| {
        let Some(slot) = plugin.vcpus.get(index as usize) else { return };
        plugin.stacks.note_thread();
        let Ok(producer) = plugin.control.rings().producer(index) else { return };
        let vcpu = TcgVcpu {
            registers: Registers {
                handles: (plugin.find_registers)(REGISTER_NAMES),
                buffer: RegisterBuffer::new(),
                read: plugin.read_register,
            },
            mended: false,
            lost_exits: 0,
            exit_told: None,
            resets: 0,
            sensor: VcpuSensor::new(u64::from(index), plugin.control, producer),
        };
        plugin.guests.add(index, plugin.stacks.is_one_thread());
        if let Some(bypass) = &plugin.bypass {
            bypass.add(vcpu.sensor.entries());
        }
        // SAFETY: this is the vCPU's own thread, before it runs any code.
        unsafe { *slot.0.get() = Some(vcpu) };
    });
}

/// A block of guest code is translated.
pub(crate) fn on_translate(block: Block) {
    guarded(|plugin| plugin.translate(block));
}

extern "C" fn on_hook(vcpu: c_uint, userdata: *mut c_void) {
    guarded(|plugin| plugin.hit(vcpu, userdata.addr()));
}

impl Plugin {
    fn translate(&self, block: Block) {
        let address = block.address();
        Self::watch_reset(block);
        if let Some(hooks) = self.hooks.get() {
            if address <= hooks.high && address.saturating_add(BLOCK_BYTES) > hooks.low {
                self.place_hooks(hooks, block);
            }
            if !self.only_hooks {
                self.look_at_code(block);
                self.watch_instructions(hooks, block);
            }
        }
        if address >= KERNEL_HALF
            && self.probing.load(Ordering::Acquire)
            && let Some(first) = block.instructions().next()
        {
            first.on_execute(on_hook, PROBE);
        }
    }

    fn watch_instructions(&self, hooks: &Hooks, block: Block) {
        if block.address() >= KERNEL_HALF {
            block.instructions().for_each(|instruction| self.watch_system_instruction(hooks, instruction));
        } else if let Some(bypass) = &self.bypass {
            bypass.watch_block(block);
        }
    }

    fn place_hooks(&self, hooks: &Hooks, block: Block) {
        for instruction in block.instructions() {
            let address = instruction.address();
            for hook in hooks.hooks.iter().filter(|hook| hook.gva.0 == address) {
                if self.is_l1_text(address, instruction.host_address()) {
                    instruction.on_execute(on_hook, hook.kind as usize);
                }
            }
            let is_behind = |hook: &Hook| hook.kind == HookKind::Vmrun && hook.gva.0 + VMRUN_BYTES == address;
            if hooks.hooks.iter().any(is_behind) && self.is_l1_text(address, instruction.host_address()) {
                instruction.on_execute(on_hook, BEHIND_VMRUN);
            }
        }
    }

    /// Whether code at this virtual address stands where L1's own text does. The first hook ever translated tells
    /// where that is: L1 runs it before any of its guests exists.
    fn is_l1_text(&self, virtual_address: u64, host_address: u64) -> bool {
        let distance = host_address.wrapping_sub(virtual_address);
        let learned = self.text_distance.compare_exchange(0, distance, Ordering::AcqRel, Ordering::Acquire);
        host_address != 0 && learned.map_or_else(|known| known == distance, |_| true)
    }

    fn hit(&'static self, index: c_uint, userdata: usize) {
        if self.only_hooks && userdata != PROBE {
            return;
        }
        if userdata == PROBE {
            return self.probe(index);
        }
        let Some(vcpu) = self.true_vcpu(index) else { return };
        self.note_resets(vcpu);
        if userdata == BEHIND_VMRUN {
            return self.guest_has_left(vcpu);
        }
        let Some(kind) = HOOK_KINDS.get(userdata - 1).copied() else { return };
        if self.l1_code.load(Ordering::Relaxed) == 0 {
            self.l1_code.store(self.code_address(&mut vcpu.registers), Ordering::Release);
        }
        vcpu.sensor.on_hook(kind, &mut vcpu.registers);
        if kind == HookKind::Vmrun {
            self.guest_runs(vcpu);
        }
    }

    /// The vCPU that L1 runs on now. With one thread for all vCPUs, QEMU (10.0 to 11.1 at least) passes the one that the
    /// code was translated for, whichever runs it; the stack it runs on tells which it is.
    #[expect(clippy::mut_from_ref, reason = "callbacks of one vCPU do not nest")]
    fn true_vcpu(&self, index: c_uint) -> Option<&mut TcgVcpu> {
        let mut index = index as usize;
        if self.stacks.is_one_thread() {
            // Its reference ends before another is made.
            let any = self.any_vcpu(0)?;
            index = self.stacks.find(&mut any.registers, self.control).unwrap_or(index);
        }
        // SAFETY: QEMU calls on the vCPU's own thread, of which there may be one for all, and callbacks do not nest.
        unsafe { &mut *self.vcpus.get(index)?.0.get() }.as_mut()
    }

    /// The first code in the kernel half: time to ask what to hook.
    #[cold]
    fn probe(&'static self, index: c_uint) {
        if !self.probing.load(Ordering::Acquire) {
            return;
        }
        let Some(vcpu) = self.any_vcpu(index) else { return };
        let registers = &mut vcpu.registers;
        let cr3 = registers.read_register(Register::Cr3);
        let rip = registers.read_register(Register::Rip);
        let (Some(cr3), Some(rip)) = (cr3, rip) else { return };
        if registers.privilege_level() == Some(USER) {
            // In a machine that was restored, the kernel of a PV guest may be the first to run.
            return;
        }
        let answer = self.control.ask_hooks(index.into(), cr3, Gva(rip));
        if answer == Answer::AskAgain {
            return;
        }
        self.probing.store(false, Ordering::Release);
        let Answer::Hooks(hooks) = answer else {
            return sys::log("no answer from an engine; L1 runs unmonitored");
        };
        self.set_hooks(hooks);
    }

    /// What to hook, for the first time or once more after a reset.
    fn set_hooks(&'static self, hooks: Vec<Hook>) {
        if let Some(known) = self.hooks.get() {
            if known.hooks != hooks {
                self.dead.store(true, Ordering::Relaxed);
                sys::log("another hypervisor than before the reset; it runs unmonitored");
            }
            return;
        }
        let addresses = || hooks.iter().map(|hook| hook.gva.0);
        let low = addresses().min().unwrap_or(0);
        let high = addresses().max().unwrap_or(0).saturating_add(VMRUN_BYTES);
        let _ = self.hooks.set(Hooks { low, high, hooks });
        if !self.only_hooks {
            self.account_for_calls();
        }
    }
}

/// Kinds in the order of their numbers, which start at 1.
const HOOK_KINDS: [HookKind; 7] = [
    HookKind::PvEntry,
    HookKind::PvExit,
    HookKind::HvmEntry,
    HookKind::HvmExit,
    HookKind::InnerEntry,
    HookKind::InnerExit,
    HookKind::Vmrun,
];
