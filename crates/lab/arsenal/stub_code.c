/*
 * Puts code where Xen has a page that may be executed and is not part of its image: the one with the stubs by which SYSCALL enters, of which
 * most is unused. It is written through the direct map, in which that page is; neither CR0 nor a page table is touched. As proof the
 * code is called.
 */
#include "paging.h"

/* endbr64, for a Xen with CET; mov $ANSWER, %eax; ret */
#define ANSWER 0x59
static const u8 code[] = { 0xf3, 0x0f, 0x1e, 0xfa, 0xb8, ANSWER, 0, 0, 0, 0xc3 };

/* The end of the page: the stubs of the first CPUs are at its start. */
#define PLACE (PAGE_BYTES - 16)

static volatile u8 *written;
static u8 genuine[sizeof(code)];

static void write(const u8 *bytes)
{
    for (size_t i = 0; i < sizeof(code); i++)
        written[i] = bytes[i];
}

static void apply(void *payload)
{
    (void)payload;
    u64 executed = (read_msr(MSR_LSTAR) & ~(PAGE_BYTES - 1)) + PLACE, machine = machine_address((void *)executed);
    if (!machine) {
        SAY("SYSCALL enters at %lx, which is not mapped, nothing done", read_msr(MSR_LSTAR));
        return;
    }
    written = direct(machine);
    for (size_t i = 0; i < sizeof(code); i++)
        genuine[i] = written[i];
    write(code);
    SAY("wrote %zu bytes at %p, which are executed at %lx", sizeof(code), written, executed);
    SAY("they return %x", ((unsigned int (*)(void))executed)());
}
AFTER_APPLY(apply);

static int revert(void *payload)
{
    (void)payload;
    if (written) {
        write(genuine);
        SAY("page restored");
    }
    return 0;
}
BEFORE_REVERT(revert);
