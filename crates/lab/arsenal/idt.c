/*
 * Swaps one gate of the interrupt descriptor table of every CPU: VECTOR, 3 (the breakpoint) if nothing else was said, goes to
 * an entry of ours, which counts and goes on to the genuine one. The program int3 in dom0 makes it run.
 */
#include "gates.h"

#ifndef VECTOR
#define VECTOR 3
#endif

KEPT static u64 genuine, count;
extern u8 entry[];

__asm__(".text\n.balign 16\nentry:\n"
        "endbr64\n"
        "lock incq count(%rip)\n"
        "jmp *genuine(%rip)\n");

static struct gate *gate(void) { return &read_idtr().table[VECTOR]; }

static void point_to(u64 address)
{
    struct gate changed = gate_to(*gate(), address);
    write_protected(gate(), &changed, sizeof(changed));
}

static void swap(void *unused)
{
    (void)unused;
    if (gate_target(gate()) == genuine)
        point_to((u64)entry);
}

static void swap_back(void *unused)
{
    (void)unused;
    if (gate_target(gate()) == (u64)entry)
        point_to(genuine);
}

static void apply(void *payload)
{
    (void)payload;
    genuine = gate_target(gate());
    on_all_cpus(swap);
    SAY("vector %d went to %lx, goes to %p", VECTOR, genuine, entry);
}
AFTER_APPLY(apply);

static int revert(void *payload)
{
    (void)payload;
    on_all_cpus(swap_back);
    SAY("vector %d restored, it came %lu times", VECTOR, count);
    return 0;
}
BEFORE_REVERT(revert);
