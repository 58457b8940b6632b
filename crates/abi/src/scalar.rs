//! Text forms of single values, shared by the sinks.

use std::fmt::Write as _;

use crate::call::SubOp;
use crate::errno;
use crate::flags::FlagSet;
use crate::types::{Int, Scalar, Show};

/// Reserved domain ids (Xen public/xen.h).
const RESERVED_DOMAINS: &[(u64, &str)] = &[
    (0x7ff0, "DOMID_SELF"),
    (0x7ff1, "DOMID_IO"),
    (0x7ff2, "DOMID_XEN"),
    (0x7ff3, "DOMID_COW"),
    (0x7ff4, "DOMID_INVALID"),
    (0x7fff, "DOMID_IDLE"),
];

/// Appends `value` as its meaning has it. Never writes a character that JSON would have to escape.
pub(crate) fn write(out: &mut String, scalar: &Scalar, value: u64) {
    let _ = match scalar.show {
        Show::Dec | Show::Vcpu | Show::Port | Show::GrantRef => {
            write_decimal(out, scalar.int, value);
            Ok(())
        }
        Show::Hex | Show::Address | Show::Frame => write!(out, "{value:#x}"),
        Show::Domain => match RESERVED_DOMAINS.iter().find(|(id, _)| *id == value) {
            Some((_, name)) => write!(out, "{name}"),
            None => write!(out, "{value}"),
        },
        Show::Bool => write!(out, "{}", value != 0),
        Show::Nanoseconds => {
            write_decimal(out, scalar.int, value);
            write!(out, "ns")
        }
        Show::Errno => {
            write_result(out, Show::Dec, sign_extend(scalar.int, value));
            Ok(())
        }
        Show::Enum(names) => match names.name_of(value) {
            Some(name) => write!(out, "{name}"),
            None => {
                write_decimal(out, scalar.int, value);
                Ok(())
            }
        },
        Show::Flags(set) => {
            write_flags(out, set, value);
            Ok(())
        }
    };
}

/// Appends an integer in decimal, signed if its C type is.
pub(crate) fn write_decimal(out: &mut String, int: Int, value: u64) {
    let _ = if int.is_signed() { write!(out, "{}", sign_extend(int, value)) } else { write!(out, "{value}") };
}

/// Widens a two's complement value of the C type's 64-bit size.
fn sign_extend(int: Int, value: u64) -> i64 {
    match int {
        Int::S8 | Int::U8 => i64::from(value as i8),
        Int::S16 | Int::U16 => i64::from(value as i16),
        Int::S32 | Int::U32 => i64::from(value as i32),
        Int::S64 | Int::U64 | Int::U64Aligned | Int::U64Packed | Int::Slong | Int::Ulong => value as i64,
    }
}

fn write_flags(out: &mut String, set: &FlagSet, word: u64) {
    let (names, parts, rest) = set.split(word);
    let start = out.len();
    let separate = |out: &mut String| {
        if out.len() > start {
            out.push('|');
        }
    };
    for name in names {
        separate(out);
        out.push_str(name);
    }
    for (name, value) in parts {
        separate(out);
        let _ = if name.is_empty() { write!(out, "{value}") } else { write!(out, "{name}:{value}") };
    }
    if rest != 0 || out.len() == start {
        separate(out);
        let _ = if rest == 0 { write!(out, "0") } else { write!(out, "{rest:#x}") };
    }
}

/// Appends a sub-op by name, or by number if it has none.
pub(crate) fn write_sub_op(out: &mut String, number: u64, op: Option<&'static SubOp>) {
    let _ = match op {
        Some(op) => write!(out, "{}", op.name),
        None => write!(out, "{number} (unknown)"),
    };
}

/// Appends a result: errno by name if it is one, else as `returns` has it.
pub(crate) fn write_result(out: &mut String, returns: Show, result: i64) {
    if errno::is_error(result) {
        let _ = match errno::name(-result) {
            Some(name) => write!(out, "-{name}"),
            None => write!(out, "{result}"),
        };
        return;
    }
    match returns {
        Show::Errno | Show::Dec => {
            let _ = write!(out, "{result}");
        }
        other => write(out, &Scalar { int: Int::S64, show: other }, result as u64),
    }
}

/// Appends bytes as hex digits, without separators.
pub(crate) fn write_hex_bytes(out: &mut String, bytes: &[u8]) {
    for byte in bytes {
        let _ = write!(out, "{byte:02x}");
    }
}
