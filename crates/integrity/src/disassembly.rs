//! Code as lines, for people who look at what was changed.

use hypovisor_machine::Gva;
use iced_x86::{Code, Decoder, DecoderOptions, Formatter as _, IntelFormatter};

/// The most instructions shown.
const MAX_LINES: usize = 8;

/// The first instructions of these bytes, which stand at `at`.
pub(crate) fn lines(at: Gva, bytes: &[u8]) -> Vec<String> {
    let mut decoder = Decoder::with_ip(64, bytes, at.0, DecoderOptions::NONE);
    let mut formatter = IntelFormatter::new();
    let mut lines = Vec::new();
    while decoder.can_decode() && lines.len() < MAX_LINES {
        let instruction = decoder.decode();
        let from = (instruction.ip() - at.0) as usize;
        let code = bytes.get(from..from + instruction.len()).unwrap_or_default();
        let hex: String = code.iter().map(|byte| format!("{byte:02x}")).collect();
        let mut text = String::new();
        formatter.format(&instruction, &mut text);
        lines.push(format!("{:#x}  {hex:<16} {text}", instruction.ip()));
    }
    lines
}

/// Where the code jumps, if it begins with a near jump.
pub(crate) fn jump_target(at: Gva, code: &[u8]) -> Option<Gva> {
    let instruction = Decoder::with_ip(64, code, at.0, DecoderOptions::NONE).decode();
    (instruction.code() == Code::Jmp_rel32_64).then(|| Gva(instruction.near_branch_target()))
}

/// Where the instruction begins that `at` lies in, if the code begins at `start` with a whole one.
pub(crate) fn border_before(start: Gva, code: &[u8], at: Gva) -> Gva {
    let mut decoder = Decoder::with_ip(64, code, start.0, DecoderOptions::NONE);
    let mut border = start;
    while decoder.can_decode() && decoder.ip() <= at.0 {
        border = Gva(decoder.decode().ip());
    }
    border
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_and_what_is_none() {
        let found = lines(Gva(0xffff_82d0_4020_0000), &[0x48, 0x89, 0xe0, 0xc3, 0x06]);
        assert_eq!(found.len(), 3);
        assert!(found[0].ends_with("mov rax,rsp"), "{found:?}");
        assert!(found[1].ends_with("ret") && found[2].ends_with("(bad)"), "{found:?}");
        assert!(lines(Gva(0), &[]).is_empty());
        assert_eq!(border_before(Gva(0x10), &[0x48, 0x89, 0xe0, 0xc3], Gva(0x12)), Gva(0x10));
        assert_eq!(border_before(Gva(0x10), &[0x48, 0x89, 0xe0, 0xc3], Gva(0x13)), Gva(0x13));
    }
}
