/*
 * Leaves Xen's text as it is and has other text used: the page table entry for the page of xen_compile_time() leads to a copy of that page,
 * in which the function returns another string. As proof the function is called; Xen itself hardly does. Where the
 * entry is one of 2 MiB, a table of the payload's own takes its place.
 */
#include "paging.h"

#define ENTRIES 512
#define SMALL 12
#define LARGE 21
/* Present, writable, accessed, dirty: the rights are those of the entries below. */
#define PTE_TABLE 0x63ul

extern u8 xen_compile_time[];

static const char forged[] = "remap was here";
static u8 copy[PAGE_BYTES] __attribute__((aligned(4096)));
static u64 table[ENTRIES] __attribute__((aligned(4096)));
static volatile u64 *changed_entry;
static u64 genuine_entry;

static u64 page_of(const void *address) { return (u64)address & ~(PAGE_BYTES - 1); }

static u64 leading_to_copy(u64 entry) { return (entry & ~PTE_ADDRESS) | machine_address(copy); }

/* The entries of a table in place of one for 2 MiB, all the same but for the page of this address. */
static void fill_table(u64 large, u64 address)
{
    for (u64 i = 0; i < ENTRIES; i++)
        table[i] = (large & ~PTE_LARGE) + i * PAGE_BYTES;
    u64 *entry = &table[address >> SMALL & (ENTRIES - 1)];
    *entry = leading_to_copy(*entry);
}

static const char *call(void)
{
    const char *(*function)(void) = (const char *(*)(void))(u64)xen_compile_time;
    __asm__("" : "+r"(function));
    return function();
}

static void apply(void *payload)
{
    (void)payload;
    u64 page = page_of(xen_compile_time), distance_at = (u64)xen_compile_time + LEA_DISTANCE - page;
    u32 distance = distance_to(xen_compile_time, forged);
    unsigned int low_bits = 0;
    volatile u64 *entry = leaf_entry(page, &low_bits);
    if (!is_string_function(xen_compile_time) || !entry || low_bits > LARGE || distance_at > PAGE_BYTES - sizeof(distance)) {
        SAY("cannot have %p lead elsewhere, nothing done", xen_compile_time);
        return;
    }
    __builtin_memcpy(copy, (const void *)page, PAGE_BYTES);
    __builtin_memcpy(copy + distance_at, &distance, sizeof(distance));
    genuine_entry = *entry;
    changed_entry = entry;
    if (low_bits == LARGE) {
        fill_table(genuine_entry, page);
        *entry = machine_address(table) | PTE_TABLE;
    } else {
        *entry = leading_to_copy(genuine_entry);
    }
    on_all_cpus(forget_translations);
    SAY("entry for %lu bytes at %lx: %lx, now %lx", 1ul << low_bits, page, genuine_entry, *entry);
    SAY("xen_compile_time() returns %s", call());
}
AFTER_APPLY(apply);

static int revert(void *payload)
{
    (void)payload;
    if (changed_entry) {
        *changed_entry = genuine_entry;
        on_all_cpus(forget_translations);
        SAY("entry restored, xen_compile_time() returns %s", call());
    }
    return 0;
}
BEFORE_REVERT(revert);
