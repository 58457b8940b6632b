/*
 * Xen's page tables, seen from inside. They lie in Xen's direct map (public/arch-x86/xen-x86_64.h leaves its place to Xen;
 * asm/config.h of 4.17 and 4.20 has it at this address), as long as Xen does not compress frame numbers, which it does only on
 * machines with holes of terabytes.
 */
#ifndef HYPOVISOR_PAGING_H
#define HYPOVISOR_PAGING_H

#include "payload.h"

#define DIRECT_MAP 0xffff830000000000ul
#define PTE_PRESENT (1ul << 0)
#define PTE_WRITABLE (1ul << 1)
#define PTE_LARGE (1ul << 7)
#define PTE_NO_EXECUTE (1ul << 63)
#define PTE_ADDRESS 0x000ffffffffff000ul

static inline void *direct(u64 machine_address) { return (void *)(DIRECT_MAP + machine_address); }

/* The last entry on the way to an address, and how many address bits lie below it: 12, 21 or 30. NULL: not mapped. */
static inline volatile u64 *leaf_entry(u64 address, unsigned int *low_bits)
{
    u64 table = read_cr3() & PTE_ADDRESS;
    for (unsigned int shift = 39;; shift -= 9) {
        volatile u64 *entry = (volatile u64 *)direct(table) + (address >> shift & 511);
        if (!(*entry & PTE_PRESENT))
            return NULL;
        if (shift == 12 || (shift < 39 && *entry & PTE_LARGE)) {
            *low_bits = shift;
            return entry;
        }
        table = *entry & PTE_ADDRESS;
    }
}

/* 0: not mapped. */
static inline u64 machine_address(const void *address)
{
    unsigned int low_bits = 0;
    volatile u64 *entry = leaf_entry((u64)address, &low_bits);
    u64 below = (1ul << low_bits) - 1;
    return entry ? (*entry & PTE_ADDRESS & ~below) | ((u64)address & below) : 0;
}

#endif
