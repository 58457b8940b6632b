/*
 * Swaps one gate of the interrupt descriptor table of every CPU: VECTOR, 3 (the breakpoint) if nothing else was said, goes to
 * an entry of ours, which counts and goes on to the genuine one. The program int3 in dom0 makes it run.
 */
#include "payload.h"

#ifndef VECTOR
#define VECTOR 3
#endif

/* AMD APM vol. 2 §8.9.3, a gate in long mode. */
struct gate {
    u16 offset_low, selector, attributes, offset_middle;
    u32 offset_high, reserved;
};
struct __attribute__((packed)) table_register {
    u16 limit;
    struct gate *table;
};

KEPT static u64 genuine, count;
extern u8 entry[];

__asm__(".text\n.balign 16\nentry:\n"
        "endbr64\n"
        "lock incq count(%rip)\n"
        "jmp *genuine(%rip)\n");

static struct gate *gate(void)
{
    struct table_register idtr;
    __asm__ volatile("sidt %0" : "=m"(idtr));
    return &idtr.table[VECTOR];
}

static u64 target(const struct gate *gate)
{
    return (u64)gate->offset_high << 32 | (u64)gate->offset_middle << 16 | gate->offset_low;
}

static void point_to(u64 address)
{
    struct gate changed = *gate();
    changed.offset_low = (u16)address;
    changed.offset_middle = (u16)(address >> 16);
    changed.offset_high = (u32)(address >> 32);
    write_protected(gate(), &changed, sizeof(changed));
}

static void swap(void *unused)
{
    (void)unused;
    if (target(gate()) == genuine)
        point_to((u64)entry);
}

static void swap_back(void *unused)
{
    (void)unused;
    if (target(gate()) == (u64)entry)
        point_to(genuine);
}

static void apply(void *payload)
{
    (void)payload;
    genuine = target(gate());
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
