/*
 * Flips one bit in Xen's page tables. Without PTE_EXECUTABLE: a page of text (that of do_get_pm_info) becomes writable, and as proof a byte of
 * it is written, with the same value and CR0.WP set. With it: a page of data becomes executable, and as proof
 * a `ret` is put there and called. In post-apply, because Xen sets the text's protection anew when it has applied a patch.
 */
#include "paging.h"

/* What dom0 is told of the screen when it is built. */
extern u8 vga_console_info[];
extern u8 do_get_pm_info[];

#ifdef PTE_EXECUTABLE
#define PAGE vga_console_info
#define BIT PTE_NO_EXECUTE
#else
#define PAGE do_get_pm_info
#define BIT PTE_WRITABLE
#endif

static volatile u64 *flipped;

#ifdef PTE_EXECUTABLE
#define CR4_CET (1ul << 23)
#define RETURN 0xc3

/* Under CET a call has to land on ENDBR64. */
static void prove(void)
{
    if (read_cr4() & CR4_CET)
        return;
    u8 was = vga_console_info[0];
    *(volatile u8 *)vga_console_info = RETURN;
    ((void (*)(void))vga_console_info)();
    vga_console_info[0] = was;
    SAY("executed a byte of data at %p", vga_console_info);
}
#else
static void prove(void)
{
    volatile u8 *byte = PAGE;
    *byte = *byte;
    SAY("wrote a byte of text at %p, CR0 %lx", byte, read_cr0());
}
#endif

static void apply(void *payload)
{
    (void)payload;
    unsigned int low_bits = 0;
    flipped = leaf_entry((u64)PAGE, &low_bits);
    if (!flipped) {
        SAY("not mapped, nothing done");
        return;
    }
    u64 before = *flipped;
    *flipped = before ^ BIT;
    on_all_cpus(forget_translations);
    SAY("entry for %lu bytes at %p: %lx, now %lx", 1ul << low_bits, PAGE, before, *flipped);
    if (BIT == PTE_NO_EXECUTE ? !(*flipped & BIT) : !!(*flipped & BIT))
        prove();
}
AFTER_APPLY(apply);

static int revert(void *payload)
{
    (void)payload;
    if (flipped) {
        *flipped ^= BIT;
        on_all_cpus(forget_translations);
        SAY("entry restored: %lx", *flipped);
    }
    return 0;
}
BEFORE_REVERT(revert);
