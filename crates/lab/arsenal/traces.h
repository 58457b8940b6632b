/*
 * What can be seen of a watcher without a clock. Each finding is a line, the same on every boot of the same machine:
 *
 *     saw NAME VALUE
 *
 * What belongs to a CPU is read on the first one, because the hook may run on any. Nothing is left changed.
 */
#ifndef HYPOVISOR_TRACES_H
#define HYPOVISOR_TRACES_H

#include "gates.h"

#define FNV_BASIS 0xcbf29ce484222325ul
#define FNV_PRIME 0x100000001b3ul
#define BREAKPOINT 0xcc
#define VECTOR_DB 1
#define GATES 256
#define DR7_NONE 0x400ul /* the bit that is always set */
#define DR7_FIRST 2ul    /* DR0 stops the execution of the instruction that it points to */
#define CPUS_MAX 4096

extern u8 _srodata[], _erodata[];

static void saw(const char *what, u64 value) { SAY("saw %s %lx", what, value); }

/* ---- Memory ---- */

static inline u64 checksum(const u8 *start, const u8 *end)
{
    u64 sum = FNV_BASIS;
    for (const u8 *byte = start; byte < end; byte++)
        sum = (sum ^ *byte) * FNV_PRIME;
    return sum;
}

static inline void breakpoint_instructions(void)
{
    u64 count = 0;
    for (const u8 *byte = _stext; byte < _etext; byte++)
        count += *byte == BREAKPOINT;
    saw("bytes_cc_in_text", count);
}

/* ---- Debug registers ---- */

#define DEBUG_REGISTER(n)                                                                                                      \
    static inline u64 read_dr##n(void)                                                                                         \
    {                                                                                                                          \
        u64 value;                                                                                                             \
        __asm__ volatile("mov %%dr" #n ", %0" : "=r"(value));                                                                  \
        return value;                                                                                                          \
    }                                                                                                                          \
    static inline void write_dr##n(u64 value) { __asm__ volatile("mov %0, %%dr" #n : : "r"(value) : "memory"); }
DEBUG_REGISTER(0)
DEBUG_REGISTER(1)
DEBUG_REGISTER(2)
DEBUG_REGISTER(3)
DEBUG_REGISTER(6)
DEBUG_REGISTER(7)

static u64 debug_registers[6];

static inline void read_debug_registers(void)
{
    u64 now[] = { read_dr0(), read_dr1(), read_dr2(), read_dr3(), read_dr6(), read_dr7() };
    for (unsigned int i = 0; i < 6; i++)
        debug_registers[i] = now[i];
}

/* A breakpoint of its own. Xen's handler would take one in Xen's code for fatal, so this CPU has another table of gates meanwhile. */

KEPT static volatile u64 stops;
static struct gate gates[GATES];
static u64 own_dr0_kept, own_dr7_kept;
extern u8 on_debug[];
extern void stop_here(void);

__asm__(".text\n.balign 16\n"
        "on_debug:\n"
        "endbr64\n"
        "push %rax\n"
        "mov $0x400, %eax\n"
        "mov %rax, %dr7\n"
        "pop %rax\n"
        "incq stops(%rip)\n"
        "iretq\n"
        ".balign 16\n"
        "stop_here:\n"
        "ret\n");

static inline void stop_once(void)
{
    u64 dr0 = read_dr0(), dr6 = read_dr6(), dr7 = read_dr7();
    write_dr0((u64)stop_here);
    write_dr7(DR7_NONE | DR7_FIRST);
    own_dr0_kept = read_dr0() == (u64)stop_here;
    own_dr7_kept = read_dr7() == (DR7_NONE | DR7_FIRST);
    stop_here();
    write_dr7(dr7);
    write_dr6(dr6);
    write_dr0(dr0);
}

/* With interrupts off. */
static inline void own_breakpoint(void)
{
    struct table_register xens = read_idtr(), ours = { sizeof(gates) - 1, gates };
    for (unsigned int i = 0; i < GATES && (i + 1) * sizeof(*gates) - 1 <= xens.limit; i++)
        gates[i] = xens.table[i];
    gates[VECTOR_DB] = gate_to(gates[VECTOR_DB], (u64)on_debug);
    __asm__ volatile("lidt %0" : : "m"(ours), "m"(gates));
    stop_once();
    __asm__ volatile("lidt %0" : : "m"(xens));
}

/* ---- What the processor says of itself ---- */

/* All leaves of a range with four sub-leaves each. Leaf 0xd tells what the guest that ran last had switched on. */
#define LEAF_XSAVE 0xd
#define SUB_LEAVES 4

static inline u64 hash_leaves(u64 hash, u32 first, u32 last)
{
    for (u32 leaf = first; leaf <= last; leaf++) {
        for (u32 sub_leaf = 0; leaf != LEAF_XSAVE && sub_leaf < SUB_LEAVES; sub_leaf++) {
            u32 a = leaf, b, c = sub_leaf, d;
            __asm__ volatile("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
            hash = ((((hash ^ a) * FNV_PRIME ^ b) * FNV_PRIME ^ c) * FNV_PRIME ^ d) * FNV_PRIME;
        }
    }
    return hash;
}

static u64 cpuid_basic, cpuid_hypervisor, cpuid_extended;

static inline void hash_cpuid(void)
{
    cpuid_basic = hash_leaves(FNV_BASIS, 0, 0x1f);
    cpuid_hypervisor = hash_leaves(FNV_BASIS, 0x40000000, 0x40000010);
    cpuid_extended = hash_leaves(FNV_BASIS, 0x80000000, 0x80000021);
}

/* That every processor with SVM has: one that is not there would be a fault, which nobody catches here. */
static struct {
    const char *name;
    u32 number;
    u64 value;
} msrs[] = {
    { "msr_efer", MSR_EFER, 0 },           { "msr_star", 0xc0000081, 0 },         { "msr_lstar", MSR_LSTAR, 0 },
    { "msr_cstar", 0xc0000083, 0 },        { "msr_sfmask", 0xc0000084, 0 },       { "msr_sysenter_cs", 0x174, 0 },
    { "msr_sysenter_esp", 0x175, 0 },      { "msr_sysenter_eip", 0x176, 0 },      { "msr_pat", 0x277, 0 },
    { "msr_debugctl", 0x1d9, 0 },          { "msr_vm_cr", 0xc0010114, 0 },        { "msr_vm_hsave_pa", 0xc0010117, 0 },
};
#define MSRS (sizeof(msrs) / sizeof(*msrs))

/* ---- All of it ---- */

static inline void look_at_this_cpu(void *unused)
{
    (void)unused;
    read_debug_registers();
    own_breakpoint();
    hash_cpuid();
    for (unsigned int i = 0; i < MSRS; i++)
        msrs[i].value = read_msr(msrs[i].number);
}

static inline void say_debug_registers(void)
{
    static const char *const names[] = { "dr0", "dr1", "dr2", "dr3", "dr6", "dr7" };
    for (unsigned int i = 0; i < 6; i++)
        saw(names[i], debug_registers[i]);
    saw("own_dr0_kept", own_dr0_kept);
    saw("own_dr7_kept", own_dr7_kept);
    saw("own_breakpoint", stops);
}

static inline void look_at_first_cpu(void)
{
    static const u64 first[CPUS_MAX / 64] = { 1 };
    on_selected_cpus(first, look_at_this_cpu, NULL, 1);
    say_debug_registers();
    saw("cpuid_basic", cpuid_basic);
    saw("cpuid_hypervisor", cpuid_hypervisor);
    saw("cpuid_extended", cpuid_extended);
    for (unsigned int i = 0; i < MSRS; i++)
        saw(msrs[i].name, msrs[i].value);
}

#endif
