//! Integers as differences: Parquet's `DELTA_BINARY_PACKED` encoding.
//!
//! ```text
//!  block size │ miniblocks │ count │ first value │ block │ block …
//!                                                  ├ lowest difference │ widths of 4 miniblocks │ miniblocks
//!                                                  └ 32 differences less the lowest, packed, in each
//! ```
//!
//! Registers and times are made for it: zeros and constants cost next to nothing, neighbouring times and sequence
//! numbers a byte or three, and a register full of noise its 8 bytes. It is also several times as fast as LZ4.

use super::pack::{pack, write_varint, write_zigzag};

const BLOCK: usize = 128;
const MINIBLOCKS: usize = 4;
const MINIBLOCK: usize = BLOCK / MINIBLOCKS;

/// Appends the whole page of `values`.
pub(super) fn write(values: &[i64], out: &mut Vec<u8>) {
    write_varint(out, BLOCK as u64);
    write_varint(out, MINIBLOCKS as u64);
    write_varint(out, values.len() as u64);
    let Some((first, rest)) = values.split_first() else {
        return write_zigzag(out, 0);
    };
    write_zigzag(out, *first);
    let mut previous = *first;
    let mut differences = [0_i64; BLOCK];
    for block in rest.chunks(BLOCK) {
        // Values and the ones before them, side by side, so that the compiler can take several at a time.
        differences[0] = block[0].wrapping_sub(previous);
        for (slot, pair) in differences[1..].iter_mut().zip(block.windows(2)) {
            *slot = pair[1].wrapping_sub(pair[0]);
        }
        previous = block[block.len() - 1];
        write_block(&differences[..block.len()], out);
    }
}

fn write_block(differences: &[i64], out: &mut Vec<u8>) {
    let lowest = differences.iter().copied().min().unwrap_or(0);
    write_zigzag(out, lowest);
    let widths_at = out.len();
    out.extend_from_slice(&[0; MINIBLOCKS]);
    for (index, miniblock) in differences.chunks(MINIBLOCK).enumerate() {
        let all = miniblock.iter().fold(0, |all, difference| all | difference.wrapping_sub(lowest) as u64);
        let width = u64::BITS - all.leading_zeros();
        out[widths_at + index] = width as u8;
        if width > 0 {
            let end = out.len() + MINIBLOCK * width as usize / 8;
            pack(out, miniblock.iter().map(|difference| difference.wrapping_sub(lowest) as u64), width);
            out.resize(end, 0);
        }
    }
}
