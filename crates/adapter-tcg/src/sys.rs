//! QEMU's plugin interface, as far as it is used: declarations only, and a thin safe layer over each.
//!
//! Source: QEMU include/plugins/qemu-plugin.h, levels 4 (QEMU 10.0) and 7 (QEMU 11.1). Level 7 gives every
//! callback a user-data pointer, drops the plugin's id from them, reports register reads as a truth value, and
//! adds a word to the register descriptor.
#![expect(unsafe_code, reason = "calls QEMU's C functions")]

use core::ffi::{CStr, c_char, c_int, c_uint, c_void};

use crate::plugin::Callbacks;

/// `qemu_info_t`: what QEMU tells when it loads a plugin.
#[repr(C)]
#[derive(Debug)]
pub struct Info {
    target_name: *const c_char,
    version_min: c_int,
    version_cur: c_int,
    system_emulation: bool,
    smp_vcpus: c_int,
    max_vcpus: c_int,
}

impl Info {
    /// The architecture QEMU emulates, e.g. `x86_64`.
    #[must_use]
    pub fn target(&self) -> &CStr {
        // SAFETY: QEMU passes a static NUL-terminated string.
        unsafe { CStr::from_ptr(self.target_name) }
    }

    /// Whether QEMU emulates a whole machine.
    #[must_use]
    pub const fn is_system(&self) -> bool {
        self.system_emulation
    }

    /// Whether vCPUs may be added while the machine runs.
    #[must_use]
    pub const fn can_grow(&self) -> bool {
        self.max_vcpus > self.smp_vcpus
    }

    /// The most vCPUs the machine may come to have.
    #[must_use]
    pub fn max_vcpus(&self) -> u32 {
        u32::try_from(self.max_vcpus.max(self.smp_vcpus)).unwrap_or(1)
    }
}

/// A block of guest code under translation.
#[repr(C)]
pub struct RawBlock {
    _opaque: [u8; 0],
}

/// An instruction of such a block.
#[repr(C)]
struct RawInstruction {
    _opaque: [u8; 0],
}

/// GLib's `GArray` and `GByteArray` share this beginning.
#[repr(C)]
struct GArray {
    data: *mut u8,
    len: c_uint,
}

/// `qemu_plugin_reg_descriptor` of level 4.
#[repr(C)]
#[derive(Clone, Copy)]
struct Descriptor4 {
    handle: *mut c_void,
    name: *const c_char,
    feature: *const c_char,
}

/// `qemu_plugin_reg_descriptor` of level 7.
#[repr(C)]
#[derive(Clone, Copy)]
struct Descriptor7 {
    common: Descriptor4,
    is_readonly: bool,
}

/// `qemu_plugin_u64`: a counter of each vCPU, in a table of QEMU's.
#[repr(C)]
#[derive(Clone, Copy)]
struct RawCounter {
    table: *mut c_void,
    offset: usize,
}

/// `enum qemu_plugin_op`: what is done without a call.
#[repr(C)]
enum Operation {
    Add = 0,
}

/// `enum qemu_plugin_cond`: when a callback is called, by its counter and a number.
#[repr(C)]
enum Condition {
    Equal = 2,
    NotEqual = 3,
}

/// `enum qemu_plugin_cb_flags`: what a callback may do with registers.
#[repr(C)]
enum CallbackFlags {
    ReadRegisters = 1,
}

type ExecCallback = extern "C" fn(c_uint, *mut c_void);

unsafe extern "C" {
    fn qemu_plugin_tb_n_insns(block: *const RawBlock) -> usize;
    fn qemu_plugin_tb_vaddr(block: *const RawBlock) -> u64;
    fn qemu_plugin_tb_get_insn(block: *const RawBlock, index: usize) -> *mut RawInstruction;
    fn qemu_plugin_insn_vaddr(instruction: *const RawInstruction) -> u64;
    fn qemu_plugin_insn_data(instruction: *const RawInstruction, into: *mut c_void, len: usize) -> usize;
    fn qemu_plugin_insn_haddr(instruction: *const RawInstruction) -> *mut c_void;
    fn qemu_plugin_register_vcpu_insn_exec_cb(
        instruction: *mut RawInstruction,
        callback: ExecCallback,
        flags: CallbackFlags,
        userdata: *mut c_void,
    );
    fn qemu_plugin_register_vcpu_insn_exec_cond_cb(
        instruction: *mut RawInstruction,
        callback: ExecCallback,
        flags: CallbackFlags,
        condition: Condition,
        counter: RawCounter,
        number: u64,
        userdata: *mut c_void,
    );
    fn qemu_plugin_register_vcpu_insn_exec_inline_per_vcpu(
        instruction: *mut RawInstruction,
        operation: Operation,
        counter: RawCounter,
        operand: u64,
    );
    fn qemu_plugin_scoreboard_new(element_bytes: usize) -> *mut c_void;
    fn qemu_plugin_u64_sum(counter: RawCounter) -> u64;
    fn qemu_plugin_u64_set(counter: RawCounter, vcpu: c_uint, value: u64);
    fn qemu_plugin_num_vcpus() -> c_int;
    fn qemu_plugin_get_registers() -> *mut GArray;
    fn qemu_plugin_outs(text: *const c_char);

    // GLib, which every QEMU has loaded.
    fn g_array_free(array: *mut GArray, free_segment: c_int) -> *mut c_char;
    fn g_byte_array_new() -> *mut GArray;
    fn g_byte_array_set_size(array: *mut GArray, length: c_uint) -> *mut GArray;
}

/// A block of guest code, during the translation callback only.
#[derive(Clone, Copy)]
pub struct Block(*mut RawBlock);

/// An instruction of a [`Block`].
#[derive(Clone, Copy)]
pub struct Instruction(*mut RawInstruction);

impl Block {
    /// Wraps what QEMU passes to a translation callback.
    ///
    /// # Safety
    /// `raw` is the callback's argument, and the result is used during that callback only.
    #[must_use]
    pub const unsafe fn new(raw: *mut RawBlock) -> Self {
        Self(raw)
    }

    /// Virtual address of its first instruction.
    #[must_use]
    pub fn address(self) -> u64 {
        // SAFETY: the block is live for the whole callback (see `new`).
        unsafe { qemu_plugin_tb_vaddr(self.0) }
    }

    /// Its instructions in order.
    pub fn instructions(self) -> impl Iterator<Item = Instruction> {
        // SAFETY: the block is live for the whole callback (see `new`).
        let count = unsafe { qemu_plugin_tb_n_insns(self.0) };
        (0..count).map(move |index| {
            // SAFETY: as above, and `index` is below the count QEMU gave.
            Instruction(unsafe { qemu_plugin_tb_get_insn(self.0, index) })
        })
    }
}

impl Instruction {
    /// Its virtual address.
    #[must_use]
    pub fn address(self) -> u64 {
        // SAFETY: QEMU's pointer, live for the whole callback.
        unsafe { qemu_plugin_insn_vaddr(self.0) }
    }

    /// Its bytes, as many as there is room for.
    pub fn bytes(self, into: &mut [u8]) -> &[u8] {
        // SAFETY: QEMU's pointer, live for the whole callback; it writes no more than `len` bytes.
        let len = unsafe { qemu_plugin_insn_data(self.0, into.as_mut_ptr().cast(), into.len()) };
        into.get(..len).unwrap_or_default()
    }

    /// Where its bytes stand in this process: a number, never followed. 0 if they are not in RAM.
    #[must_use]
    pub fn host_address(self) -> u64 {
        // SAFETY: QEMU's pointer, live for the whole callback.
        unsafe { qemu_plugin_insn_haddr(self.0) as u64 }
    }

    /// Counts every execution of the instruction in this block.
    pub fn count(self, counter: &Counter) {
        // SAFETY: QEMU's pointer, live for the whole callback; the table lives as long as the process.
        unsafe { qemu_plugin_register_vcpu_insn_exec_inline_per_vcpu(self.0, Operation::Add, counter.0, 1) };
    }

    /// As [`Instruction::on_execute`], but only while the flag is as it is to be, which costs a comparison.
    pub fn on_execute_if(
        self,
        flag: Flag,
        is_set: bool,
        callback: extern "C" fn(c_uint, *mut c_void),
        userdata: usize,
    ) {
        let userdata = std::ptr::without_provenance_mut(userdata);
        let condition = if is_set { Condition::NotEqual } else { Condition::Equal };
        // SAFETY: QEMU's pointer, live for the whole callback; the table lives as long as the process; `userdata` is a number that
        // nobody follows.
        unsafe {
            qemu_plugin_register_vcpu_insn_exec_cond_cb(
                self.0,
                callback,
                CallbackFlags::ReadRegisters,
                condition,
                flag.0,
                0,
                userdata,
            );
        }
    }

    /// Has `callback` called with `userdata` in front of every execution of the instruction in this block.
    pub fn on_execute(self, callback: extern "C" fn(c_uint, *mut c_void), userdata: usize) {
        let userdata = std::ptr::without_provenance_mut(userdata);
        // SAFETY: QEMU's pointer, live for the whole callback; `userdata` is a number that nobody follows.
        unsafe {
            qemu_plugin_register_vcpu_insn_exec_cb(self.0, callback, CallbackFlags::ReadRegisters, userdata);
        }
    }
}

/// How often instructions were executed, counted by the code that QEMU translates them to.
pub struct Counter(RawCounter);

// SAFETY: QEMU's table lives as long as the process; each vCPU adds to its own word, and anybody may read them.
unsafe impl Send for Counter {}
// SAFETY: as above.
unsafe impl Sync for Counter {}

impl Counter {
    /// A counter that nothing counts with yet.
    #[must_use]
    pub fn new() -> Self {
        // SAFETY: no preconditions; QEMU makes the table, with a zero for each vCPU.
        let table = unsafe { qemu_plugin_scoreboard_new(size_of::<u64>()) };
        Self(RawCounter { table, offset: 0 })
    }

    /// Of all vCPUs together. Not while QEMU may add vCPUs beyond those that its table has room for.
    #[must_use]
    pub fn sum(&self) -> u64 {
        // SAFETY: the table is live; who adds a vCPU and so moves it is excluded by the caller.
        unsafe { qemu_plugin_u64_sum(self.0) }
    }
}

impl Default for Counter {
    fn default() -> Self {
        Self::new()
    }
}

/// A flag of each vCPU, which translated code looks at.
#[derive(Clone, Copy)]
pub struct Flag(RawCounter);

/// So many flags of each vCPU, none of them set.
pub struct Flags {
    table: *mut c_void,
    count: usize,
}

// SAFETY: QEMU's table lives as long as the process; its words are written and read whole.
unsafe impl Send for Flags {}
// SAFETY: as above.
unsafe impl Sync for Flags {}

impl Flags {
    /// As many as that.
    #[must_use]
    pub fn new(count: usize) -> Self {
        // SAFETY: no preconditions; QEMU makes the table, with so many zero words for each vCPU.
        let table = unsafe { qemu_plugin_scoreboard_new(count * size_of::<u64>()) };
        Self { table, count }
    }

    /// One of them; `None` if there are fewer.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<Flag> {
        let offset = index * size_of::<u64>();
        (index < self.count).then_some(Flag(RawCounter { table: self.table, offset }))
    }
}

impl Flag {
    /// Sets it, or takes it back, for one vCPU.
    pub fn set(self, vcpu: c_uint, value: bool) {
        if vcpu < vcpus() {
            // SAFETY: the table is live and has a word for each vCPU that there is.
            unsafe { qemu_plugin_u64_set(self.0, vcpu, value.into()) };
        }
    }

    /// The same for all vCPUs.
    pub fn set_for_all(self, value: bool) {
        (0..vcpus()).for_each(|vcpu| self.set(vcpu, value));
    }
}

/// How many vCPUs there are.
fn vcpus() -> c_uint {
    // SAFETY: no preconditions.
    c_uint::try_from(unsafe { qemu_plugin_num_vcpus() }).unwrap_or(0)
}

/// Prints a line to QEMU's log (standard error unless the user moved it with `-D`).
pub fn log(line: &str) {
    let Ok(text) = std::ffi::CString::new(format!("hypovisor: {line}\n")) else { return };
    // SAFETY: a NUL-terminated string that lives through the call.
    unsafe { qemu_plugin_outs(text.as_ptr()) };
}

/// QEMU's name for a register of a vCPU, valid on that vCPU.
#[derive(Clone, Copy, Debug)]
pub struct RegisterHandle(*mut c_void);

/// A GLib byte array that register values are read into.
pub struct RegisterBuffer(*mut GArray);

impl RegisterBuffer {
    /// An empty buffer. It lives as long as its vCPU, so as long as the process.
    #[must_use]
    pub fn new() -> Self {
        // SAFETY: no preconditions; GLib aborts rather than return null.
        Self(unsafe { g_byte_array_new() })
    }

    fn as_u64(&self) -> Option<u64> {
        // SAFETY: `self.0` came from GLib and is never freed.
        let array = unsafe { &*self.0 };
        match array.len {
            0..4 => None,
            // Segment selectors.
            // SAFETY: GLib's array has `len` bytes at `data`, which was just found to be at least 4.
            4..8 => Some(unsafe { array.data.cast::<u32>().read_unaligned() }.into()),
            // SAFETY: as above, at least 8.
            _ => Some(unsafe { array.data.cast::<u64>().read_unaligned() }),
        }
    }

    fn clear(&mut self) {
        // SAFETY: `self.0` came from GLib and is never freed.
        unsafe { g_byte_array_set_size(self.0, 0) };
    }
}

impl Default for RegisterBuffer {
    fn default() -> Self {
        Self::new()
    }
}

/// Finds `names` among the current vCPU's registers. Called in a vCPU-init callback.
fn find_registers<D: Copy, const N: usize>(
    names: [&CStr; N],
    common: impl Fn(&D) -> Descriptor4,
) -> [Option<RegisterHandle>; N] {
    // SAFETY: called on a vCPU's thread, as QEMU demands.
    let list = unsafe { qemu_plugin_get_registers() };
    if list.is_null() {
        return [None; N];
    }
    // SAFETY: QEMU gives an array that is ours until we free it.
    let array = unsafe { &*list };
    // SAFETY: its elements are descriptors of this API level, `len` of them.
    let descriptors = unsafe { std::slice::from_raw_parts(array.data.cast::<D>(), array.len as usize) };
    let find = |wanted: &CStr| {
        let matching = descriptors.iter().map(&common).find(|descriptor| {
            // SAFETY: names are interned NUL-terminated strings.
            let name = unsafe { CStr::from_ptr(descriptor.name) };
            name == wanted
        });
        matching.map(|descriptor| RegisterHandle(descriptor.handle))
    };
    let found = names.map(find);
    // SAFETY: the array is ours, and nothing refers to it any more.
    unsafe { g_array_free(list, 1) };
    found
}

/// Level 4: QEMU 10.0 to 11.0.
pub mod v4 {
    use super::{Block, CStr, Callbacks, Descriptor4, GArray, RawBlock, RegisterBuffer, RegisterHandle};
    use core::ffi::{c_int, c_uint, c_void};

    unsafe extern "C" {
        fn qemu_plugin_register_vcpu_tb_trans_cb(id: u64, callback: extern "C" fn(u64, *mut RawBlock));
        fn qemu_plugin_register_vcpu_init_cb(id: u64, callback: extern "C" fn(u64, c_uint));
        fn qemu_plugin_read_register(handle: *mut c_void, buffer: *mut GArray) -> c_int;
    }

    extern "C" fn on_translate(_id: u64, block: *mut RawBlock) {
        // SAFETY: the callback's own argument, used during it only.
        crate::plugin::on_translate(unsafe { Block::new(block) });
    }

    extern "C" fn on_vcpu(_id: u64, index: c_uint) {
        crate::plugin::on_vcpu(index);
    }

    fn registers<const N: usize>(names: [&CStr; N]) -> [Option<RegisterHandle>; N] {
        super::find_registers(names, |descriptor: &Descriptor4| *descriptor)
    }

    fn read(handle: RegisterHandle, buffer: &mut RegisterBuffer) -> Option<u64> {
        buffer.clear();
        // SAFETY: QEMU's own handle, on its vCPU's thread, in a callback that asked for registers.
        let bytes = unsafe { qemu_plugin_read_register(handle.0, buffer.0) };
        (bytes > 0).then(|| buffer.as_u64()).flatten()
    }

    /// What this level does its own way.
    #[must_use]
    pub fn callbacks(id: u64) -> Callbacks {
        Callbacks {
            register: Box::new(move || {
                // SAFETY: `id` is the plugin's own, and the callbacks have this level's signatures.
                unsafe { qemu_plugin_register_vcpu_init_cb(id, on_vcpu) };
                // SAFETY: as above.
                unsafe { qemu_plugin_register_vcpu_tb_trans_cb(id, on_translate) };
            }),
            find_registers: registers,
            read_register: read,
        }
    }
}

/// Level 7: QEMU 11.1 and later.
#[expect(clashing_extern_declarations, reason = "the same symbols have other signatures at this level")]
pub mod v7 {
    use super::{Block, CStr, Callbacks, Descriptor7, GArray, RawBlock, RegisterBuffer, RegisterHandle};
    use core::ffi::{c_uint, c_void};

    unsafe extern "C" {
        fn qemu_plugin_register_vcpu_tb_trans_cb(
            id: u64,
            callback: extern "C" fn(*mut RawBlock, *mut c_void),
            userdata: *mut c_void,
        );
        fn qemu_plugin_register_vcpu_init_cb(
            id: u64,
            callback: extern "C" fn(c_uint, *mut c_void),
            userdata: *mut c_void,
        );
        fn qemu_plugin_read_register(handle: *mut c_void, buffer: *mut GArray) -> bool;
    }

    extern "C" fn on_translate(block: *mut RawBlock, _userdata: *mut c_void) {
        // SAFETY: the callback's own argument, used during it only.
        crate::plugin::on_translate(unsafe { Block::new(block) });
    }

    extern "C" fn on_vcpu(index: c_uint, _userdata: *mut c_void) {
        crate::plugin::on_vcpu(index);
    }

    fn registers<const N: usize>(names: [&CStr; N]) -> [Option<RegisterHandle>; N] {
        super::find_registers(names, |descriptor: &Descriptor7| descriptor.common)
    }

    fn read(handle: RegisterHandle, buffer: &mut RegisterBuffer) -> Option<u64> {
        buffer.clear();
        // SAFETY: QEMU's own handle, on its vCPU's thread, in a callback that asked for registers.
        let known = unsafe { qemu_plugin_read_register(handle.0, buffer.0) };
        known.then(|| buffer.as_u64()).flatten()
    }

    /// What this level does its own way.
    #[must_use]
    pub fn callbacks(id: u64) -> Callbacks {
        let none = std::ptr::null_mut();
        Callbacks {
            register: Box::new(move || {
                // SAFETY: `id` is the plugin's own, and the callbacks have this level's signatures.
                unsafe { qemu_plugin_register_vcpu_init_cb(id, on_vcpu, none) };
                // SAFETY: as above.
                unsafe { qemu_plugin_register_vcpu_tb_trans_cb(id, on_translate, none) };
            }),
            find_registers: registers,
            read_register: read,
        }
    }
}
