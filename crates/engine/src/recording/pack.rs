//! Parquet's small integers: variable-length ones, and rows of equal width without gaps.

/// Appends an unsigned LEB128 integer.
pub(super) fn write_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends a signed integer in zigzag form.
pub(super) fn write_zigzag(out: &mut Vec<u8>, value: i64) {
    write_varint(out, ((value << 1) ^ (value >> 63)) as u64);
}

/// Appends `values`, each `width` bits (1 to 64) wide, the first lowest, padded with zeros to a byte. No value
/// is wider than that.
#[inline]
pub(super) fn pack(out: &mut Vec<u8>, values: impl Iterator<Item = u64>, width: u32) {
    let mut word = 0_u64;
    let mut filled = 0;
    for value in values {
        word |= value << filled;
        filled += width;
        if filled >= u64::BITS {
            out.extend_from_slice(&word.to_le_bytes());
            filled -= u64::BITS;
            word = if filled == 0 { 0 } else { value >> (width - filled) };
        }
    }
    let rest = filled.div_ceil(8) as usize;
    out.extend(word.to_le_bytes().iter().take(rest));
}
