//! The calls of the guest `known`, which its source and the tests read from one table.

use super::GuestKind;

/// The table, `guests/known.calls`; `known.c` includes it.
pub(super) const TABLE: &str = include_str!("../../guests/known.calls");

/// The number of `multicall`.
const MULTICALL_NUMBER: u64 = 13;

/// A row of the table of calls that `known` makes between its marks, `guests/known.calls`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KnownCall {
    /// Its position among the rows, which `known` names it by when it complains.
    pub row: usize,
    /// How many times it is made in a row.
    pub repeat: u32,
    /// Whether only PV domains make it, or only the others, if not all do.
    pub only_pv: Option<bool>,
    /// Whether it is an entry of the multicall above it.
    pub is_inner: bool,
    /// The hypercall's number.
    pub number: u64,
    /// Its first four arguments. A fifth is never given.
    pub arguments: [KnownArgument; 4],
    /// What Xen answers.
    pub expected: Expected,
}

/// An argument of a known call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KnownArgument {
    /// Exactly this.
    Number(u64),
    /// The address of a thing of this name in `known.c`.
    Address(&'static str),
}

/// What Xen answers to a known call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// This.
    Exactly(i64),
    /// This or more.
    AtLeast(i64),
}

impl Expected {
    /// Whether a result is as expected.
    pub fn holds(self, result: i64) -> bool {
        match self {
            Self::Exactly(value) => result == value,
            Self::AtLeast(value) => result >= value,
        }
    }
}

/// A line of the table of known calls is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("known.calls has a row that cannot be read: {line}")]
pub struct TableError {
    /// The line.
    pub line: String,
}

/// All rows of the table of known calls.
///
/// # Errors
///
/// When the table that was compiled in is not one; the tests see to it that it is.
pub fn known_calls() -> Result<Vec<KnownCall>, TableError> {
    let lines = TABLE.lines().filter(|line| line.starts_with("CALL("));
    lines.enumerate().map(|(row, line)| parse_row(row, line)).collect()
}

/// The calls that `known` makes in this kind of domain, in order, repetitions written out: between its marks, and without
/// them. The entries of a multicall follow it.
///
/// # Errors
///
/// As [`known_calls`].
pub fn known_sequence(kind: GuestKind) -> Result<Vec<KnownCall>, TableError> {
    let mut calls = known_calls()?;
    calls.retain(|call| call.only_pv.is_none_or(|only| only == (kind == GuestKind::Pv)));
    Ok(calls.into_iter().flat_map(|call| std::iter::repeat_n(call, call.repeat as usize)).collect())
}

/// A sequence of calls is not what `known` makes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KnownError {
    /// The table is unreadable.
    #[error(transparent)]
    Table(#[from] TableError),
    /// It differs from the table.
    #[error("call {position} after the mark is {observed:?}, where known.calls has its row {row}")]
    Differs {
        /// Its position in the sequence.
        position: usize,
        /// The row that should be there, counted from 0.
        row: usize,
        /// Number of the call that is there, and whether it is an entry of a multicall; nothing at the end.
        observed: Option<(u64, bool)>,
    },
}

/// Checks that a sequence of calls, given as number and whether each is an entry of a multicall, begins with all that
/// `known` makes after its mark, and returns how many calls of the sequence those are.
///
/// They are more than the table's by one for each time that Xen interrupted the multicall between two entries: the guest
/// then issues it again for the rest. It is seldom for PV, frequent for PVH guests under TCG, which are slow.
///
/// # Errors
///
/// When the sequence differs.
pub fn match_known(kind: GuestKind, observed: &[(u64, bool)]) -> Result<usize, KnownError> {
    let mut position = 0;
    for expected in known_sequence(kind)? {
        while expected.is_inner && observed.get(position) == Some(&(MULTICALL_NUMBER, false)) {
            position += 1;
        }
        let observed = observed.get(position).copied();
        if observed != Some((expected.number, expected.is_inner)) {
            return Err(KnownError::Differs { position, row: expected.row, observed });
        }
        position += 1;
    }
    Ok(position)
}

fn parse_row(row: usize, line: &'static str) -> Result<KnownCall, TableError> {
    try_parse_row(row, line).ok_or_else(|| TableError { line: line.to_owned() })
}

fn try_parse_row(row: usize, line: &'static str) -> Option<KnownCall> {
    let inside = line.strip_prefix("CALL(")?.strip_suffix(')')?;
    let fields: Vec<&'static str> = inside.split(',').map(str::trim).collect();
    let [repeat, only, level, number, first, second, third, fourth, expected, value] = fields[..] else {
        return None;
    };
    let value = number_of(value)?;
    Some(KnownCall {
        row,
        repeat: repeat.parse().ok()?,
        only_pv: match only {
            "PV" => Some(true),
            "PVH" => Some(false),
            "BOTH" => None,
            _ => return None,
        },
        is_inner: match level {
            "INNER" => true,
            "OUTER" => false,
            _ => return None,
        },
        number: u64::try_from(number_of(number)?).ok()?,
        arguments: [argument(first)?, argument(second)?, argument(third)?, argument(fourth)?],
        expected: match expected {
            "EXACTLY" => Expected::Exactly(value),
            "AT_LEAST" => Expected::AtLeast(value),
            _ => return None,
        },
    })
}

fn argument(text: &'static str) -> Option<KnownArgument> {
    match text.strip_prefix('&') {
        Some(name) => Some(KnownArgument::Address(name)),
        None => Some(KnownArgument::Number(number_of(text)?.cast_unsigned())),
    }
}

fn number_of(text: &str) -> Option<i64> {
    match text.strip_prefix("0x") {
        Some(digits) => i64::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_known_calls_is_read_whole() {
        let calls = known_calls().unwrap();
        assert_eq!(calls.len(), TABLE.matches("\nCALL(").count());
        assert_eq!((calls[0].repeat, calls[0].number), (1000, 17));
        assert_eq!(calls[0].expected, Expected::AtLeast(0x40000));
        assert_eq!(calls[1].arguments[1], KnownArgument::Address("page"));
        for kind in GuestKind::ALL {
            let sequence = known_sequence(kind).unwrap();
            let multicall = sequence.iter().position(|call| call.number == 13).unwrap();
            let inner = sequence.iter().filter(|call| call.is_inner).count();
            assert_eq!(sequence[multicall].arguments[1], KnownArgument::Number(inner as u64));
            assert!(sequence[multicall + 1..=multicall + inner].iter().all(|call| call.is_inner));
        }
    }

    #[test]
    fn an_interrupted_multicall_is_no_difference() {
        let sequence = known_sequence(GuestKind::Pvh).unwrap();
        let mut observed: Vec<_> = sequence.iter().map(|call| (call.number, call.is_inner)).collect();
        let length = observed.len();
        assert_eq!(match_known(GuestKind::Pvh, &observed), Ok(length));
        let inner = observed.iter().position(|call| call.1).unwrap();
        observed.insert(inner + 2, (13, false));
        observed.push((29, false));
        assert_eq!(match_known(GuestKind::Pvh, &observed), Ok(length + 1));
        observed.remove(inner);
        let differs = match_known(GuestKind::Pvh, &observed);
        assert!(matches!(differs, Err(KnownError::Differs { .. })), "{differs:?}");
        assert!(match_known(GuestKind::Pv, &[]).is_err());
    }

    #[test]
    fn odd_rows_are_refused() {
        for line in [
            "CALL()",
            "CALL(1, PV, OUTER, 1, 2, 3, 4, 5, EXACTLY)",
            "CALL(1, HVM, OUTER, 1, 2, 3, 4, 5, EXACTLY, 0)",
        ] {
            assert!(parse_row(0, line).is_err(), "{line}");
        }
    }
}
