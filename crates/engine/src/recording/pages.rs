//! Buffers that hold a column in the form of its Parquet page, so that a flush has nothing left to encode.
//!
//! - *Plain* values are little-endian words, or length-prefixed bytes, one after another.
//! - *Bits* are booleans, and the definition levels of a nullable column: eight in a byte, the first lowest.
//! - *Ids* point into a dictionary. They are 16 bits wide, which makes Parquet's bit packing the identity.

/// Parquet's name for a value that is present, in a column that is nullable but not nested.
const BIT_WIDTH_OF_LEVELS: u8 = 1;

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
            out.push(u8::from(self.ones > 0) * BIT_WIDTH_OF_LEVELS);
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

/// Values in plain encoding.
#[derive(Debug, Default)]
pub(super) struct Plain {
    bytes: Vec<u8>,
}

impl Plain {
    #[inline]
    pub(super) fn push_i64(&mut self, value: i64) {
        self.bytes.extend_from_slice(&value.to_le_bytes());
    }

    #[inline]
    pub(super) fn push_u64(&mut self, value: u64) {
        self.bytes.extend_from_slice(&value.to_le_bytes());
    }

    #[inline]
    pub(super) fn push_u32(&mut self, value: u32) {
        self.bytes.extend_from_slice(&value.to_le_bytes());
    }

    /// Bytes up to 4 GiB.
    #[inline]
    pub(super) fn push_bytes(&mut self, value: &[u8]) {
        self.push_u32(value.len() as u32);
        self.bytes.extend_from_slice(value);
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(super) fn clear(&mut self) {
        self.bytes.clear();
    }
}

/// Values of a nullable column.
#[derive(Debug, Default)]
pub(super) struct Nullable<V> {
    pub(super) present: Bits,
    pub(super) values: V,
}

impl Nullable<Plain> {
    #[inline]
    pub(super) fn push_i64(&mut self, value: Option<i64>) {
        self.present.push(value.is_some());
        if let Some(value) = value {
            self.values.push_i64(value);
        }
    }

    /// Bytes; none become null.
    #[inline]
    pub(super) fn push_bytes(&mut self, value: &[u8]) {
        self.present.push(!value.is_empty());
        if !value.is_empty() {
            self.values.push_bytes(value);
        }
    }

    pub(super) fn clear(&mut self) {
        self.present.clear();
        self.values.clear();
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

    pub(super) fn clear(&mut self) {
        self.present.clear();
        self.values.clear();
    }
}

/// Ids of dictionary entries.
#[derive(Debug, Default)]
pub(super) struct Ids {
    bytes: Vec<u8>,
}

impl Ids {
    #[inline]
    pub(super) fn push(&mut self, id: u16) {
        self.bytes.extend_from_slice(&id.to_le_bytes());
    }

    pub(super) fn clear(&mut self) {
        self.bytes.clear();
    }

    /// Appends them as the values of a data page: bit width, then one bit-packed run.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        const GROUP_BYTES: usize = 8 * size_of::<u16>();
        let groups = self.bytes.len().div_ceil(GROUP_BYTES);
        out.push(u16::BITS as u8);
        write_varint(out, (groups as u64) << 1 | 1);
        out.extend_from_slice(&self.bytes);
        out.resize(out.len() + groups * GROUP_BYTES - self.bytes.len(), 0);
    }
}

/// The distinct strings of a column.
#[derive(Debug, Default)]
pub(super) struct Dictionary {
    entries: Plain,
    len: u16,
}

impl Dictionary {
    /// The most entries that one can hold.
    pub(super) const CAPACITY: u16 = u16::MAX;

    /// Adds an entry and returns its id. The owner flushes before there are too many.
    pub(super) fn add(&mut self, text: &str) -> u16 {
        let id = self.len;
        self.entries.push_bytes(text.as_bytes());
        self.len = self.len.saturating_add(1);
        id
    }

    pub(super) const fn len(&self) -> u16 {
        self.len
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        self.entries.as_bytes()
    }

    pub(super) fn clear(&mut self) {
        self.entries.clear();
        self.len = 0;
    }
}

fn write_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}
