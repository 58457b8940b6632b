//! Bytes under construction, and the plain values that become bytes.

use serde_json::Value;

use super::{EncodeError, wrong};

/// Bytes under construction.
#[derive(Default)]
pub(super) struct Piece {
    pub(super) bytes: Vec<u8>,
    /// Offsets of pointers, and what they point to in memory.
    pub(super) pointers: Vec<(usize, u32)>,
    /// Paths of integers, their offsets and sizes.
    pub(super) fields: Vec<(String, usize, usize)>,
}

impl Piece {
    pub(super) fn zero(len: usize) -> Self {
        Self { bytes: vec![0; len], ..Self::default() }
    }

    /// Puts `other` at `at`; it fits, because both come of the same tables.
    pub(super) fn put(&mut self, at: usize, other: Self) {
        let end = at + other.bytes.len();
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
        }
        self.bytes[at..end].copy_from_slice(&other.bytes);
        self.pointers.extend(other.pointers.into_iter().map(|(offset, target)| (at + offset, target)));
        self.fields.extend(other.fields.into_iter().map(|(path, offset, bytes)| (path, at + offset, bytes)));
    }
}

/// What a handle was given.
pub(super) enum Pointed {
    /// This very pointer.
    Raw(u64),
    /// So many elements, at this offset in memory.
    Memory { target: u32, elements: u64 },
}

/// An integer may be given signed or unsigned, whatever its C type: attacks do not care.
pub(super) fn check_range(number: i128, bytes: usize, path: &str) -> Result<(), EncodeError> {
    let bits = 8 * bytes as u32;
    let fits = number >= -(1_i128 << (bits - 1)) && number < 1_i128 << bits;
    if fits { Ok(()) } else { wrong(path, format!("{number} does not fit into {bits} bits")) }
}

/// Text or bytes, filled up with zeros.
pub(super) fn text(value: &Value, size: usize, path: &str) -> Result<Piece, EncodeError> {
    let mut bytes = match value {
        Value::String(text) => text.clone().into_bytes(),
        Value::Object(map) if map.is_empty() => Vec::new(),
        _ => hex(value, path)?,
    };
    if bytes.len() > size {
        return wrong(path, format!("{} bytes where {size} have room", bytes.len()));
    }
    bytes.resize(size, 0);
    Ok(Piece { bytes, ..Piece::default() })
}

/// Bytes as `{hex: "00ff"}`.
pub(super) fn hex(value: &Value, path: &str) -> Result<Vec<u8>, EncodeError> {
    let digits = value.get("hex").and_then(Value::as_str);
    let digits = digits.filter(|digits| digits.is_ascii() && digits.len().is_multiple_of(2));
    let pairs =
        digits.map(|digits| digits.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).unwrap_or("")));
    let bytes = pairs.and_then(|pairs| pairs.map(|pair| u8::from_str_radix(pair, 16).ok()).collect());
    bytes.map_or_else(|| wrong(path, "bytes are wanted, as {hex: \"00ff\"}"), Ok)
}
