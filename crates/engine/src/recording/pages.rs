//! Buffers of column values, and how each becomes a Parquet page.
//!
//! - [`Longs`] are 64-bit integers, written as bit-packed differences ([`super::delta`]);
//! - [`Blobs`] are bytes, kept in plain encoding: a length of 4 bytes before each;
//! - [`Ids`] point into a [`Dictionary`], as few bits each as the dictionary's size needs;
//! - [`Bits`] are booleans, and the definition levels of a nullable column: eight in a byte, the first lowest.

use super::pack::{pack, write_varint};

/// A row of bits.
#[derive(Debug, Default)]
pub(super) struct Bits {
    bytes: Vec<u8>,
    word: u64,
    len: usize,
    ones: usize,
}

impl Bits {
    #[inline]
    pub(super) fn push(&mut self, bit: bool) {
        self.word |= u64::from(bit) << (self.len & 63);
        self.len += 1;
        self.ones += usize::from(bit);
        if self.len & 63 == 0 {
            self.bytes.extend_from_slice(&self.word.to_le_bytes());
            self.word = 0;
        }
    }

    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.word = 0;
        self.len = 0;
        self.ones = 0;
    }

    /// Appends the bits, padded with zeros to a byte.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.bytes);
        let rest = (self.len & 63).div_ceil(8);
        out.extend(self.word.to_le_bytes().iter().take(rest));
    }

    /// Appends them as the definition levels of a version 1 data page: length, then one run.
    pub(super) fn write_levels(&self, out: &mut Vec<u8>) {
        let at = out.len();
        out.extend_from_slice(&[0; 4]);
        if self.ones == 0 || self.ones == self.len {
            write_varint(out, (self.len as u64) << 1);
            out.push(u8::from(self.ones > 0));
        } else {
            write_varint(out, (self.len.div_ceil(8) as u64) << 1 | 1);
            self.write(out);
        }
        let bytes = (out.len() - at - 4) as u32;
        if let Some(length) = out.get_mut(at..at + 4) {
            length.copy_from_slice(&bytes.to_le_bytes());
        }
    }
}

/// 64-bit integers.
#[derive(Debug, Default)]
pub(super) struct Longs(pub(super) Vec<i64>);

impl Longs {
    #[inline]
    pub(super) fn push(&mut self, value: i64) {
        self.0.push(value);
    }
}

/// Byte strings.
#[derive(Debug, Default)]
pub(super) struct Blobs(pub(super) Vec<u8>);

impl Blobs {
    /// Bytes up to 4 GiB.
    #[inline]
    pub(super) fn push(&mut self, value: &[u8]) {
        self.0.extend_from_slice(&(value.len() as u32).to_le_bytes());
        self.0.extend_from_slice(value);
    }
}

/// Ids of dictionary entries.
#[derive(Debug, Default)]
pub(super) struct Ids(Vec<u16>);

impl Ids {
    #[inline]
    pub(super) fn push(&mut self, id: u16) {
        self.0.push(id);
    }

    /// Appends them as the values of a data page: bit width, then one run.
    pub(super) fn write(&self, dictionary: &Dictionary, out: &mut Vec<u8>) {
        let highest = dictionary.len().saturating_sub(1);
        let width = (u16::BITS - highest.leading_zeros()).max(1);
        out.push(width as u8);
        if highest == 0 {
            write_varint(out, (self.0.len() as u64) << 1);
            out.push(0);
            return;
        }
        let groups = self.0.len().div_ceil(8);
        write_varint(out, (groups as u64) << 1 | 1);
        let end = out.len() + groups * width as usize;
        pack(out, self.0.iter().map(|id| u64::from(*id)), width);
        out.resize(end, 0);
    }
}

/// The distinct values of a column, in plain encoding.
#[derive(Debug, Default)]
pub(super) struct Dictionary {
    bytes: Vec<u8>,
    len: u16,
}

impl Dictionary {
    /// The most entries that one can hold.
    pub(super) const CAPACITY: u16 = u16::MAX;

    /// Adds an entry and returns its id. The owner flushes before there are too many.
    pub(super) fn add(&mut self, plain: &[u8]) -> u16 {
        let id = self.len;
        self.bytes.extend_from_slice(plain);
        self.len = self.len.saturating_add(1);
        id
    }

    /// As [`Dictionary::add`], for a string.
    pub(super) fn add_text(&mut self, text: &str) -> u16 {
        self.bytes.extend_from_slice(&(text.len() as u32).to_le_bytes());
        self.add(text.as_bytes())
    }

    pub(super) const fn len(&self) -> u16 {
        self.len
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.len = 0;
    }
}

/// What the buffers of values have in common.
pub(super) trait Buffer {
    /// Empties it; it keeps its memory.
    fn clear(&mut self);
}

impl Buffer for Longs {
    fn clear(&mut self) {
        self.0.clear();
    }
}

impl Buffer for Blobs {
    fn clear(&mut self) {
        self.0.clear();
    }
}

impl Buffer for Ids {
    fn clear(&mut self) {
        self.0.clear();
    }
}

/// Values of a nullable column.
#[derive(Debug, Default)]
pub(super) struct Nullable<V> {
    pub(super) present: Bits,
    pub(super) values: V,
}

impl<V: Buffer> Buffer for Nullable<V> {
    fn clear(&mut self) {
        self.present.clear();
        self.values.clear();
    }
}

impl Nullable<Longs> {
    #[inline]
    pub(super) fn push(&mut self, value: Option<i64>) {
        self.present.push(value.is_some());
        if let Some(value) = value {
            self.values.push(value);
        }
    }
}

impl Nullable<Blobs> {
    /// Bytes; none become null.
    #[inline]
    pub(super) fn push(&mut self, value: &[u8]) {
        self.present.push(!value.is_empty());
        if !value.is_empty() {
            self.values.push(value);
        }
    }
}

impl Nullable<Ids> {
    #[inline]
    pub(super) fn push(&mut self, id: Option<u16>) {
        self.present.push(id.is_some());
        if let Some(id) = id {
            self.values.push(id);
        }
    }
}
