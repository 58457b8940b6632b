//! The memory slots that QEMU registers with KVM: which of its own memory stands behind which guest-physical addresses.

use hypovisor_machine::{Gpa, MAX_RAM_RANGES, RamRange};
use kvm_bindings::{KVM_MEM_READONLY, kvm_userspace_memory_region};

/// The slots in use. A slot's number names it; setting it again moves or (with size 0) removes it.
#[derive(Debug, Default)]
pub(crate) struct Slots(Vec<kvm_userspace_memory_region>);

/// L1's RAM in this process's address space.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OwnRam {
    /// Where the lowest of it stands.
    pub(crate) base: u64,
    /// From there to the end of the highest, in bytes.
    pub(crate) len: u64,
    /// The runs of addresses; their offsets are addresses in this process.
    pub(crate) ranges: Vec<RamRange>,
}

impl Slots {
    /// QEMU has set a slot.
    pub(crate) fn set(&mut self, region: kvm_userspace_memory_region) {
        self.0.retain(|known| known.slot != region.slot);
        let end = region.userspace_addr.checked_add(region.memory_size);
        if region.memory_size > 0
            && end.is_some()
            && region.guest_phys_addr.checked_add(region.memory_size).is_some()
        {
            self.0.push(region);
        }
    }

    /// Where guest-physical memory stands in this process: its parts that stand together, as address and bytes.
    pub(crate) fn addresses(&self, start: Gpa, len: u64) -> impl Iterator<Item = (u64, u64)> + '_ {
        let end = start.0.saturating_add(len);
        self.0.iter().filter_map(move |slot| {
            let first = start.0.max(slot.guest_phys_addr);
            let last = end.min(slot.guest_phys_addr + slot.memory_size);
            (first < last).then(|| (slot.userspace_addr + (first - slot.guest_phys_addr), last - first))
        })
    }

    /// What stands at an address of this process.
    pub(crate) fn gpa_of(&self, address: u64) -> Option<Gpa> {
        let offset_in = |slot: &kvm_userspace_memory_region| {
            address.checked_sub(slot.userspace_addr).filter(|offset| *offset < slot.memory_size)
        };
        self.0.iter().find_map(|slot| offset_in(slot).map(|offset| Gpa(slot.guest_phys_addr + offset)))
    }

    /// RAM, the largest runs first if there are more than fit. What the guest may not write is no RAM; video memory is,
    /// and does no harm. `None` if there is none.
    pub(crate) fn own_ram(&self) -> Option<OwnRam> {
        let mut ram: Vec<_> = self.0.iter().filter(|slot| slot.flags & KVM_MEM_READONLY == 0).collect();
        ram.sort_by_key(|slot| (std::cmp::Reverse(slot.memory_size), slot.guest_phys_addr));
        ram.truncate(MAX_RAM_RANGES);
        let base = ram.iter().map(|slot| slot.userspace_addr).min()?;
        let end = ram.iter().map(|slot| slot.userspace_addr + slot.memory_size).max()?;
        let range = |slot: &&kvm_userspace_memory_region| RamRange {
            gpa: Gpa(slot.guest_phys_addr),
            len: slot.memory_size,
            file_offset: slot.userspace_addr,
        };
        Some(OwnRam { base, len: end - base, ranges: ram.iter().map(range).collect() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn region(slot: u32, gpa: u64, size: u64, at: u64) -> kvm_userspace_memory_region {
        kvm_userspace_memory_region {
            slot,
            flags: 0,
            guest_phys_addr: gpa,
            memory_size: size,
            userspace_addr: at,
        }
    }

    #[test]
    fn the_last_word_on_a_slot_counts() {
        let mut slots = Slots::default();
        assert_eq!(slots.own_ram(), None);
        slots.set(region(0, 0, 0x1000, 0x7000));
        slots.set(region(1, 0x10_0000, 0x10_0000, 0x10_7000));
        slots.set(region(0, 0, 0x2000, 0x6000));
        slots.set(kvm_userspace_memory_region {
            flags: KVM_MEM_READONLY,
            ..region(2, 0xf000, 0x1000, 0x1000)
        });
        let ram = slots.own_ram().unwrap();
        assert_eq!((ram.base, ram.len), (0x6000, 0x20_1000));
        let seen: Vec<_> =
            ram.ranges.iter().map(|range| (range.gpa.0, range.len, range.file_offset)).collect();
        assert_eq!(seen, [(0x10_0000, 0x10_0000, 0x10_7000), (0, 0x2000, 0x6000)]);
        slots.set(region(1, 0, 0, 0));
        assert_eq!(slots.own_ram().unwrap().ranges.len(), 1);
    }

    #[test]
    fn guest_physical_memory_is_found_and_led_back() {
        let mut slots = Slots::default();
        slots.set(region(0, 0, 0x2000, 0x7000));
        slots.set(region(1, 0x2000, 0x1000, 0x1000));
        let found: Vec<_> = slots.addresses(Gpa(0x1000), 0x5000).collect();
        assert_eq!(found, [(0x8000, 0x1000), (0x1000, 0x1000)]);
        assert_eq!(slots.gpa_of(0x8fff), Some(Gpa(0x1fff)));
        assert_eq!(slots.gpa_of(0x9000), None);
    }

    #[test]
    fn addresses_that_wrap_are_no_ram() {
        let mut slots = Slots::default();
        slots.set(region(0, u64::MAX - 0xfff, 0x2000, 0x7000));
        slots.set(region(1, 0, 0x2000, u64::MAX - 0xfff));
        assert_eq!(slots.own_ram(), None);
    }
}
