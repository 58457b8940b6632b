//! Instructions that compute.

use super::{ABSENT, Machine};
use crate::op::Op;

/// Xen's part of a 64-bit PV guest's address space (Xen public/arch-x86/xen-x86_64.h, `HYPERVISOR_VIRT_START`).
const XEN_64: std::ops::RangeInclusive<i128> = 0xffff_8000_0000_0000..=0xffff_87ff_ffff_ffff;
/// Xen's part of a 32-bit PV guest's (Xen public/arch-x86/xen-x86_32.h, `__HYPERVISOR_VIRT_START_PAE`).
const XEN_32: std::ops::RangeInclusive<i128> = 0xf580_0000..=0xffff_ffff;

impl Machine<'_, '_> {
    /// Instructions on values alone.
    pub(super) fn compute(&mut self, op: Op) {
        let right = self.pop();
        let value = match op {
            Op::Present {} => i128::from(right != ABSENT),
            Op::OrFalse {} => right.max(0),
            _ if is_unary(op) => {
                if right == ABSENT {
                    ABSENT
                } else {
                    self.unary(op, right)
                }
            }
            _ => {
                let left = self.pop();
                if left == ABSENT || right == ABSENT {
                    ABSENT
                } else {
                    binary(op, left, right).unwrap_or(ABSENT)
                }
            }
        };
        self.push(value);
    }

    fn unary(&mut self, op: Op, value: i128) -> i128 {
        match op {
            Op::Not {} => i128::from(value == 0),
            Op::Negate {} => -value,
            Op::InXen {} => i128::from(self.in_xen(value)),
            Op::Canonical {} => i128::from(self.canonical(value)),
            Op::InSet { start, len } => {
                self.steps += len / 8;
                i128::from(self.constants(start, len).contains(&value))
            }
            _ => i128::from(value != 0),
        }
    }

    fn in_xen(&self, address: i128) -> bool {
        let mode = self.facts.caller.mode;
        mode.is_pv() && if mode.is_64_bit() { XEN_64.contains(&address) } else { XEN_32.contains(&address) }
    }

    fn canonical(&self, address: i128) -> bool {
        if self.facts.call.registers.width.word_bytes() == 4 {
            return (0..1 << 32).contains(&address);
        }
        (0..1 << 47).contains(&address) || (0xffff_8000_0000_0000..1 << 64).contains(&address)
    }
}

const fn is_unary(op: Op) -> bool {
    matches!(
        op,
        Op::Truth {} | Op::Not {} | Op::Negate {} | Op::InXen {} | Op::Canonical {} | Op::InSet { .. }
    )
}

fn binary(op: Op, left: i128, right: i128) -> Option<i128> {
    Some(match op {
        Op::Add {} => left.checked_add(right)?,
        Op::Subtract {} => left.checked_sub(right)?,
        Op::Multiply {} => left.checked_mul(right)?,
        Op::Divide {} => left.checked_div(right)?,
        Op::Remainder {} => left.checked_rem(right)?,
        Op::BitAnd {} => left & right,
        Op::BitOr {} => left | right,
        Op::BitXor {} => left ^ right,
        Op::ShiftLeft {} => shift_left(left, right)?,
        Op::ShiftRight {} => left >> u32::try_from(right).ok()?.min(127),
        Op::Least {} => left.min(right),
        Op::Greatest {} => left.max(right),
        _ => return None,
    })
}

fn shift_left(value: i128, by: i128) -> Option<i128> {
    let by = u32::try_from(by).ok().filter(|by| *by < 127)?;
    value.checked_mul(1_i128.checked_shl(by)?)
}
