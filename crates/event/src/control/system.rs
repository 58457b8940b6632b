//! Registers of L1's processors that decide where guests enter and what protects L1.

use hypovisor_machine::Gva;

/// What is set. The numbers are those of messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u64)]
pub enum SystemRegister {
    /// CR0: WP, PG and PE (AMD APM vol. 2, §3.1.1).
    Cr0 = 1,
    /// CR4: UMIP, SMEP, SMAP and CET (§3.1.3).
    Cr4 = 2,
    /// EFER: SCE, LME, NXE and SVME (§3.1.7).
    Efer = 3,
    /// Selectors of SYSCALL (§6.1.1).
    Star = 4,
    /// Where SYSCALL enters from 64-bit code.
    Lstar = 5,
    /// Where SYSCALL enters from 32-bit code.
    Cstar = 6,
    /// The flags that SYSCALL clears.
    Sfmask = 7,
    /// The selectors of SYSENTER (§6.1.2).
    SysenterCs = 8,
    /// Its stack.
    SysenterEsp = 9,
    /// Where it enters.
    SysenterEip = 10,
    /// Where VMRUN saves the host's state (§15.30.4).
    VmHsavePa = 11,
    /// Not a register: the control block of a VMRUN (§15.5).
    Vmcb = 12,
    /// Not a register: where a handler of hypercalls is told that the guest's registers stand.
    GuestFrame = 13,
    /// Not a register: SYSCALLs of guests' kernels that reached no hook.
    Syscalls = 14,
    /// Not a register: VMMCALLs (or under KVM on an Intel processor VMCALLs) of hardware-virtualised guests that reached no hook.
    Vmmcalls = 15,
    /// Not a register: the control block of a VMRUN of L1's own, where the sensor does not know whose it is.
    UsedVmcb = 16,
    /// Not a register: an instruction of L1's that is executed, and is not what stood there when L1 had booted.
    Code = 17,
    /// Not a register: a VMRUN of L1's own on a processor whose guest before has not left to the instruction behind it.
    GuestExit = 18,
    /// Not a register: code that L1 executes in its own part of the address space, and not in the pages that are watched.
    ForeignCode = 19,
    /// Not a register: where guests' registers stand on a processor that had them elsewhere, without L1 having begun anew.
    GuestStack = 20,
    /// Not a register: changes that were noticed and not told, because there were too many.
    Untold = 21,
    /// Not a register: writes to what is watched are no longer told as they are done.
    WritesUnseen = 22,
}

impl SystemRegister {
    /// All of them.
    pub const ALL: [Self; 22] = [
        Self::Cr0,
        Self::Cr4,
        Self::Efer,
        Self::Star,
        Self::Lstar,
        Self::Cstar,
        Self::Sfmask,
        Self::SysenterCs,
        Self::SysenterEsp,
        Self::SysenterEip,
        Self::VmHsavePa,
        Self::Vmcb,
        Self::GuestFrame,
        Self::Syscalls,
        Self::Vmmcalls,
        Self::UsedVmcb,
        Self::Code,
        Self::GuestExit,
        Self::ForeignCode,
        Self::GuestStack,
        Self::Untold,
        Self::WritesUnseen,
    ];

    /// Its name in the manuals.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cr0 => "CR0",
            Self::Cr4 => "CR4",
            Self::Efer => "EFER",
            Self::Star => "STAR",
            Self::Lstar => "LSTAR",
            Self::Cstar => "CSTAR",
            Self::Sfmask => "SFMASK",
            Self::SysenterCs => "SYSENTER_CS",
            Self::SysenterEsp => "SYSENTER_ESP",
            Self::SysenterEip => "SYSENTER_EIP",
            Self::VmHsavePa => "VM_HSAVE_PA",
            Self::Vmcb | Self::UsedVmcb => "VMCB",
            Self::GuestFrame => "guest frame",
            Self::Syscalls => "SYSCALL",
            Self::Vmmcalls => "VMMCALL",
            Self::Code | Self::ForeignCode => "code",
            Self::GuestExit => "guest exit",
            Self::GuestStack => "guest stack",
            Self::Untold => "changes",
            Self::WritesUnseen => "writes",
        }
    }

    pub(super) fn from_word(word: u64) -> Option<Self> {
        Self::ALL.into_iter().find(|register| *register as u64 == word)
    }
}

/// L1 sets a register otherwise than it did while it booted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SystemChange {
    /// What is set.
    pub register: SystemRegister,
    /// What it was set to last while L1 booted; of a VMRUN, the control block of the vCPU that runs by L1's own account, or 0
    /// where L1 has no VMRUN; of a guest's frame, where those of guests stand on that physical CPU; of code, the eight bytes that stood
    /// there, the first lowest; of a guest's exit, where it went, or 0 if that is not known.
    pub before: u64,
    /// What it is set to; of calls that reached no hook, how many; of code, the eight bytes that stand there now; of guests that did not leave
    /// as they should, how many in a row; of changes that were not told, how many.
    pub now: u64,
    /// The instruction that does, or of a call that no guest made where it returns to; 0 if that was not seen.
    pub rip: Gva,
}
