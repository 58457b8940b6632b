//! What values are called: enumerations, flags, and the words of the language itself.

use hypovisor_abi::types::{Scalar, Show};
use hypovisor_abi::xen::XEN;
use hypovisor_abi::{Enumeration, FlagSet, SubOp, Width};
use hypovisor_event::record::CallerMode;
use hypovisor_verdict::{GuestKind, Outcome};

use crate::suggest::{did_you_mean, some_of};

/// Reserved domain ids (Xen public/xen.h).
const DOMAINS: &[(&str, i128)] = &[
    ("DOMID_SELF", 0x7ff0),
    ("DOMID_IO", 0x7ff1),
    ("DOMID_XEN", 0x7ff2),
    ("DOMID_COW", 0x7ff3),
    ("DOMID_INVALID", 0x7ff4),
    ("DOMID_IDLE", 0x7fff),
];
/// No errno of Xen's is larger (public/errno.h).
const LAST_ERRNO: i64 = 200;

/// The names that an integer's values have.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Names {
    Plain,
    /// A list of names, and the C type's bits if that is signed: tables have the bits without a sign.
    Enumeration(&'static Enumeration, Option<u32>),
    Flags(&'static FlagSet),
    Domain,
    SubOps(&'static [SubOp]),
    /// A positive errno.
    Errno,
    /// Zero or a negative errno.
    Result,
    Kind,
    Mode,
    Outcome,
    Hypercall,
}

impl Names {
    pub(crate) const fn of(scalar: &Scalar, width: Width) -> Self {
        match scalar.show {
            Show::Enum(names) if scalar.int.is_signed() => {
                Self::Enumeration(names, Some(8 * scalar.int.bytes(width)))
            }
            Show::Enum(names) => Self::Enumeration(names, None),
            Show::Flags(set) => Self::Flags(set),
            Show::Domain => Self::Domain,
            Show::Errno => Self::Result,
            _ => Self::Plain,
        }
    }

    fn all(self) -> Vec<(&'static str, i128)> {
        let errnos = |sign: i128| {
            let named = move |number| Some((hypovisor_abi::errno::name(number)?, sign * i128::from(number)));
            (1..=LAST_ERRNO).filter_map(named).collect()
        };
        match self {
            Self::Plain | Self::Flags(_) => Vec::new(),
            Self::Enumeration(names, bits) => {
                names.values.iter().map(|(value, name)| (*name, with_sign(*value, bits))).collect()
            }
            Self::Domain => DOMAINS.to_vec(),
            Self::SubOps(ops) => ops.iter().map(|op| (op.name, i128::from(op.number))).collect(),
            Self::Errno => errnos(1),
            Self::Result => errnos(-1),
            Self::Kind => GuestKind::ALL.map(|kind| (kind.name(), kind as i128)).to_vec(),
            Self::Mode => MODES.map(|(name, mode)| (name, mode as i128)).to_vec(),
            Self::Outcome => Outcome::ALL.map(|outcome| (outcome.name(), outcome as i128)).to_vec(),
            Self::Hypercall => {
                XEN.calls.iter().flatten().map(|call| (call.name, i128::from(call.number))).collect()
            }
        }
    }

    /// The value of this name.
    pub(crate) fn value(self, name: &str) -> Result<i128, String> {
        match self {
            Self::Plain => {
                return Err(format!("this number has no names; compare it with a number, not with '{name}'"));
            }
            Self::Flags(set) => {
                return Err(format!("these are flags of {}; use `has_flag(x, '{name}')`", set.name));
            }
            _ => {}
        }
        let all = self.all();
        let bare = if matches!(self, Self::Result) { name.trim_start_matches('-') } else { name };
        if matches!(self, Self::Errno) && name.is_empty() {
            return Ok(0);
        }
        if let Some((_, value)) = all.iter().find(|(known, _)| *known == bare) {
            return Ok(*value);
        }
        let known = || all.iter().map(|(known, _)| *known);
        let suggestion = did_you_mean(name, known());
        let suggestion =
            if suggestion.is_empty() { format!("; there are {}", some_of(known())) } else { suggestion };
        Err(format!("there is no value '{name}' here{suggestion}"))
    }

    /// Mask and value of a flag.
    pub(crate) fn flag(self, name: &str) -> Result<(i128, i128), String> {
        let Self::Flags(set) = self else { return Err("this number is not made of flags with names".into()) };
        if let Some((mask, value, _)) = set.bits.iter().find(|(.., known)| *known == name) {
            return Ok((i128::from(*mask), i128::from(*value)));
        }
        let known = || set.bits.iter().map(|(.., known)| *known);
        let suggestion = did_you_mean(name, known());
        let suggestion =
            if suggestion.is_empty() { format!("; there are {}", some_of(known())) } else { suggestion };
        Err(format!("there is no flag '{name}' in {}{suggestion}", set.name))
    }
}

/// A table's value as a C integer of so many bits has it, if that is signed.
fn with_sign(value: u64, signed_bits: Option<u32>) -> i128 {
    match signed_bits {
        Some(bits) if (1..64).contains(&bits) => {
            i128::from((value << (64 - bits)).cast_signed() >> (64 - bits))
        }
        Some(_) => i128::from(value.cast_signed()),
        None => i128::from(value),
    }
}

/// Modes of callers by name, as events have them.
pub(crate) const MODES: [(&str, CallerMode); 4] = [
    ("pv64", CallerMode::Pv64),
    ("pv32", CallerMode::Pv32),
    ("hvm64", CallerMode::Hvm64),
    ("hvm32", CallerMode::Hvm32),
];
