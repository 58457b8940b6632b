//! Instructions by which a hypervisor sets system registers or runs a guest, and those by which guests call it, told by their bytes as they
//! are translated.
//!
//! Encodings: AMD APM vol. 3, WRMSR, MOV CRn, VMRUN, SYSCALL, VMMCALL.

/// The longest instruction.
pub(crate) const MAX_BYTES: usize = 15;
/// Where numbers for [`SystemInstruction`] begin among those that go with a callback.
const FIRST_NUMBER: usize = 0x100;

/// Legacy prefixes (AMD APM vol. 3, §1.2.1). Xen has one that does nothing before WRMSR, where WRMSRNS may stand instead.
const PREFIXES: [u8; 11] = [0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65, 0x66, 0x67, 0xf0, 0xf2, 0xf3];

/// What follows an instruction's prefixes, and the REX prefix if there is one, else 0.
fn without_prefixes(bytes: &[u8]) -> (&[u8], u8) {
    let prefixes = bytes.iter().take_while(|byte| PREFIXES.contains(byte)).count();
    match bytes.get(prefixes..).unwrap_or_default() {
        [rex @ 0x40..=0x4f, rest @ ..] => (rest, *rex),
        rest => (rest, 0),
    }
}

/// An instruction that makes a hypercall, where guests have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CallInstruction {
    /// Of PV guests.
    Syscall,
    /// Of guests with hardware virtualisation. (Intel's VMCALL is an invalid opcode on the processors that TCG emulates.)
    Vmmcall,
}

impl CallInstruction {
    /// Reads an instruction; `None` if it is another one.
    pub(crate) fn read(bytes: &[u8]) -> Option<Self> {
        match without_prefixes(bytes).0 {
            [0x0f, 0x05, ..] => Some(Self::Syscall),
            [0x0f, 0x01, 0xd9, ..] => Some(Self::Vmmcall),
            _ => None,
        }
    }
}

/// An instruction by which a hypervisor sets system registers, or runs a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SystemInstruction {
    /// Sets the MSR of number ECX to EDX:EAX; WRMSRNS too.
    Wrmsr,
    /// Runs the guest whose control block RAX tells.
    Vmrun,
    /// Sets CR0 to this general register, by the number that instructions have for it.
    SetCr0(u8),
    /// The same for CR4.
    SetCr4(u8),
}

impl SystemInstruction {
    /// Reads an instruction; `None` if it is another one.
    pub(crate) fn read(bytes: &[u8]) -> Option<Self> {
        let (bytes, extension) = without_prefixes(bytes);
        match bytes {
            [0x0f, 0x30, ..] | [0x0f, 0x01, 0xc6, ..] => Some(Self::Wrmsr),
            [0x0f, 0x01, 0xd8, ..] => Some(Self::Vmrun),
            [0x0f, 0x22, operands, ..] => {
                let control = operands >> 3 & 7 | (extension & 4) << 1;
                let general = operands & 7 | (extension & 1) << 3;
                match control {
                    0 => Some(Self::SetCr0(general)),
                    4 => Some(Self::SetCr4(general)),
                    _ => None,
                }
            }
            _ => None,
        }
    }

    /// The number that goes with a callback.
    pub(crate) const fn number(self) -> usize {
        FIRST_NUMBER
            + match self {
                Self::Wrmsr => 0,
                Self::Vmrun => 1,
                Self::SetCr0(general) => 0x10 + general as usize,
                Self::SetCr4(general) => 0x20 + general as usize,
            }
    }

    /// The instruction that has this number.
    pub(crate) fn from_number(number: usize) -> Option<Self> {
        let general = (number & 0xf) as u8;
        match number.checked_sub(FIRST_NUMBER)? {
            0 => Some(Self::Wrmsr),
            1 => Some(Self::Vmrun),
            0x10..=0x1f => Some(Self::SetCr0(general)),
            0x20..=0x2f => Some(Self::SetCr4(general)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_instructions_are_told_apart() {
        let cases: [(&[u8], Option<SystemInstruction>); 11] = [
            (&[0x0f, 0x30], Some(SystemInstruction::Wrmsr)),
            (&[0x2e, 0x0f, 0x30], Some(SystemInstruction::Wrmsr)),
            (&[0x0f, 0x01, 0xc6], Some(SystemInstruction::Wrmsr)),
            (&[0x0f, 0x01, 0xd8], Some(SystemInstruction::Vmrun)),
            (&[0x0f, 0x22, 0xc0], Some(SystemInstruction::SetCr0(0))),
            (&[0x41, 0x0f, 0x22, 0xe4], Some(SystemInstruction::SetCr4(12))),
            (&[0x44, 0x0f, 0x22, 0xc0], None),
            (&[0x0f, 0x22, 0xd8], None),
            (&[0x0f, 0x32], None),
            (&[0x66, 0x48], None),
            (&[], None),
        ];
        for (bytes, wanted) in cases {
            assert_eq!(SystemInstruction::read(bytes), wanted, "{bytes:x?}");
        }
    }

    #[test]
    fn calls_are_told_from_the_rest() {
        assert_eq!(CallInstruction::read(&[0x0f, 0x05]), Some(CallInstruction::Syscall));
        assert_eq!(CallInstruction::read(&[0x0f, 0x01, 0xd9]), Some(CallInstruction::Vmmcall));
        assert_eq!(CallInstruction::read(&[0x3e, 0x48, 0x0f, 0x01, 0xd9]), Some(CallInstruction::Vmmcall));
        assert_eq!(CallInstruction::read(&[0x0f, 0x01, 0xc1]), None, "VMCALL");
        assert_eq!(CallInstruction::read(&[0x0f, 0x01, 0xd8]), None, "VMRUN");
    }

    #[test]
    fn numbers_lead_back() {
        use SystemInstruction::{SetCr0, SetCr4, Vmrun, Wrmsr};
        for instruction in [Wrmsr, Vmrun, SetCr0(15), SetCr4(0)] {
            assert_eq!(SystemInstruction::from_number(instruction.number()), Some(instruction));
        }
        assert_eq!(SystemInstruction::from_number(1), None);
    }
}
