/*
 * What every payload of the arsenal has: the sections by which Xen takes it as a live patch, and the processor's instructions.
 *
 *     .livepatch.depends, .livepatch.xen_depends   notes with the build id of the Xen that it is for (XEN_BUILD_ID)
 *     .note.gnu.build-id                           its own, from the linker
 *     .livepatch.hooks.load, .unload               run on one CPU, all others wait with interrupts off
 *     .livepatch.hooks.preapply                    runs in the hypercall of whoever applies, before anything stops
 *     .livepatch.hooks.postapply, .prerevert       run when all CPUs are free: other CPUs can be asked to do something
 *     .livepatch.funcs                             functions to replace
 *
 * From Xen docs/misc/livepatch.pandoc and public/sysctl.h. Load hooks run between two changes that Xen itself makes to the
 * protection of its text in the page tables, and the second undoes what was done to it. What should stay is done after that, in a
 * post-apply hook.
 *
 * Undefined symbols are looked up by Xen in its own table when the payload is uploaded. They have to be hidden: Xen's
 * loader knows R_X86_64_64, PC32 and PLT32, and no table of offsets.
 */
#ifndef HYPOVISOR_PAYLOAD_H
#define HYPOVISOR_PAYLOAD_H

#include <stddef.h>
#include <stdint.h>

#pragma GCC visibility push(hidden)

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;

#define PAGE_BYTES 4096ul
#define KEPT __attribute__((used))

/* ---- Of Xen ---- */

extern void printk(const char *format, ...) __attribute__((format(printf, 1, 2)));
extern void on_selected_cpus(const void *mask, void (*function)(void *), void *argument, int wait);
extern int64_t get_s_time(void);
extern u8 cpu_online_map[], _stext[], _etext[];

/* The lines that `xl dmesg` shows, as errors (XENLOG_ERR): the lab's Xen under KVM keeps nothing less. PAYLOAD is defined by the builder. */
#define LOUDEST "<0>"
#define SAY(format, ...) printk(LOUDEST "arsenal: " PAYLOAD ": " format "\n", ##__VA_ARGS__)

/* ---- The notes ---- */

struct build_id_note {
    u32 name_bytes, description_bytes, type;
    char name[4];
    u8 id[20];
};
#define DEPENDS(section_name, variable)                                                                                        \
    static const struct build_id_note variable KEPT __attribute__((section(section_name), aligned(4))) = {                     \
        4, 20, 3 /* NT_GNU_BUILD_ID */, "GNU", { XEN_BUILD_ID } }
DEPENDS(".livepatch.depends", depends);
DEPENDS(".livepatch.xen_depends", xen_depends);

/* ---- The hooks ---- */

#define HOOK(type, name, function)                                                                                             \
    static type hook_##function KEPT __attribute__((section(".livepatch.hooks." name))) = function
typedef void (*plain_hook)(void);
typedef int (*veto_hook)(void *payload);
typedef void (*after_hook)(void *payload);
#define ON_LOAD(function) HOOK(plain_hook, "load", function)
#define ON_UNLOAD(function) HOOK(plain_hook, "unload", function)
#define BEFORE_APPLY(function) HOOK(veto_hook, "preapply", function)
#define AFTER_APPLY(function) HOOK(after_hook, "postapply", function)
#define BEFORE_REVERT(function) HOOK(veto_hook, "prerevert", function)

/* public/sysctl.h, payload version 2. */
struct livepatch_func {
    const char *name;
    const void *new_address, *old_address;
    u32 new_bytes, old_bytes;
    u8 version, opaque[39];
    u8 expectation[32];
};

/* ---- The processor ---- */

#define MSR_LSTAR 0xc0000082u
#define MSR_EFER 0xc0000080u
#define CR0_WP (1ul << 16)
#define CR4_PGE (1ul << 7)

#define CONTROL_REGISTER(n)                                                                                                    \
    static inline u64 read_cr##n(void)                                                                                         \
    {                                                                                                                          \
        u64 value;                                                                                                             \
        __asm__ volatile("mov %%cr" #n ", %0" : "=r"(value));                                                                  \
        return value;                                                                                                          \
    }                                                                                                                          \
    static inline void write_cr##n(u64 value) { __asm__ volatile("mov %0, %%cr" #n : : "r"(value) : "memory"); }
CONTROL_REGISTER(0)
CONTROL_REGISTER(3)
CONTROL_REGISTER(4)

static inline u64 read_msr(u32 number)
{
    u32 low, high;
    __asm__ volatile("rdmsr" : "=a"(low), "=d"(high) : "c"(number));
    return (u64)high << 32 | low;
}

static inline void write_msr(u32 number, u64 value)
{
    __asm__ volatile("wrmsr" : : "c"(number), "a"((u32)value), "d"((u32)(value >> 32)) : "memory");
}

static inline u64 interrupts_off(void)
{
    u64 flags;
    __asm__ volatile("pushfq; pop %0; cli" : "=r"(flags) : : "memory");
    return flags;
}

static inline void interrupts_back(u64 flags) { __asm__ volatile("push %0; popfq" : : "r"(flags) : "memory", "cc"); }

static inline u64 ticks(void)
{
    u32 low, high;
    __asm__ volatile("lfence; rdtsc; lfence" : "=a"(low), "=d"(high) : : "memory");
    return (u64)high << 32 | low;
}

static inline void on_all_cpus(void (*function)(void *)) { on_selected_cpus(cpu_online_map, function, NULL, 1); }

/* Global pages too. */
static inline void forget_translations(void *unused)
{
    (void)unused;
    u64 cr4 = read_cr4();
    write_cr4(cr4 & ~CR4_PGE);
    write_cr3(read_cr3());
    write_cr4(cr4);
}

/* ---- Writing what is read-only ---- */

/* What code in ring 0 does when it wants to write to text: the processor is told to look away. */
static inline void write_protected(void *to, const void *from, size_t bytes)
{
    u64 flags = interrupts_off(), cr0 = read_cr0();
    write_cr0(cr0 & ~CR0_WP);
    for (size_t i = 0; i < bytes; i++)
        ((volatile u8 *)to)[i] = ((const u8 *)from)[i];
    write_cr0(cr0);
    interrupts_back(flags);
}

/*
 * The functions of Xen that return one string (xen_changeset() and its like) are `lea distance(%rip), %rax` and a return.
 * A new distance makes one return another string; `xl info` shows it.
 */
#define LEA_BYTES 7
#define LEA_DISTANCE 3

static inline int is_string_function(const u8 *function)
{
    return function[0] == 0x48 && function[1] == 0x8d && function[2] == 0x05;
}

static inline u32 distance_to(const u8 *function, const char *string)
{
    return (u32)((u64)string - ((u64)function + LEA_BYTES));
}

#endif
