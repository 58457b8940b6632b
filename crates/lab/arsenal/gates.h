/*
 * Gates of an interrupt descriptor table: AMD APM vol. 2 §8.9.3, in long mode.
 */
#ifndef HYPOVISOR_GATES_H
#define HYPOVISOR_GATES_H

#include "payload.h"

struct gate {
    u16 offset_low, selector, attributes, offset_middle;
    u32 offset_high, reserved;
};
struct __attribute__((packed)) table_register {
    u16 limit;
    struct gate *table;
};

static inline struct table_register read_idtr(void)
{
    struct table_register idtr;
    __asm__ volatile("sidt %0" : "=m"(idtr));
    return idtr;
}

static inline u64 gate_target(const struct gate *gate)
{
    return (u64)gate->offset_high << 32 | (u64)gate->offset_middle << 16 | gate->offset_low;
}

/* The same gate, to another entry. */
static inline struct gate gate_to(struct gate gate, u64 address)
{
    gate.offset_low = (u16)address;
    gate.offset_middle = (u16)(address >> 16);
    gate.offset_high = (u32)(address >> 32);
    return gate;
}

#endif
