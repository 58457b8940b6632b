/*
 * Writes to Xen's text through another mapping of the same memory: an entry of a page table that led to a page of this payload
 * leads to the text's page, writable. Neither CR0 nor the entry of the text is touched. Xen's direct map leaves its own image out, so that it
 * takes an entry. xen_compiler() returns another string, `xl info` shows it as cc_compiler. The mapping stays until reverted.
 */
#include "paging.h"

extern u8 xen_compiler[];

static const char forged[] = "alias was here";
static u8 window[PAGE_BYTES] __attribute__((aligned(4096)));
static volatile u64 *window_entry;
static u64 genuine_entry;
static u32 genuine;

/* Both bytes that change lie in one page; if not, nothing is done. */
static volatile u32 *seen_through_window(void)
{
    return (volatile u32 *)(window + ((u64)(xen_compiler + LEA_DISTANCE) & (PAGE_BYTES - 1)));
}

static void apply(void *payload)
{
    (void)payload;
    u64 distance_at = (u64)(xen_compiler + LEA_DISTANCE), text = machine_address(xen_compiler) & PTE_ADDRESS;
    unsigned int low_bits = 0;
    volatile u64 *entry = leaf_entry((u64)window, &low_bits);
    if (!is_string_function(xen_compiler) || !text || !entry || low_bits != 12 ||
        distance_at % PAGE_BYTES > PAGE_BYTES - sizeof(genuine)) {
        SAY("cannot map %p a second time, nothing done", xen_compiler);
        return;
    }
    window_entry = entry;
    genuine_entry = *entry;
    *entry = (genuine_entry & ~PTE_ADDRESS) | text;
    on_all_cpus(forget_translations);
    genuine = *seen_through_window();
    *seen_through_window() = distance_to(xen_compiler, forged);
    SAY("wrote text at %lx through %p (entry %lx), CR0 %lx", distance_at, seen_through_window(), *entry, read_cr0());
}
AFTER_APPLY(apply);

static int revert(void *payload)
{
    (void)payload;
    if (!window_entry)
        return 0;
    *seen_through_window() = genuine;
    *window_entry = genuine_entry;
    on_all_cpus(forget_translations);
    SAY("text and entry restored");
    return 0;
}
BEFORE_REVERT(revert);
