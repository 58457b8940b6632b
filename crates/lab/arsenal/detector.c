/*
 * Looks for whoever watches Xen from below, the way hostile code inside Xen would: a checksum of the text, the debug registers, breakpoint
 * instructions where hypercalls enter, and the time that CPUID, a function and a hypercall take. What it finds goes to `xl dmesg`;
 * compare with a machine that nobody watches. It changes nothing and has nothing to revert. A load hook says besides how Xen itself makes
 * its text writable while it applies a patch, which a watcher has to know from an attack.
 *
 * It runs in the hypercall of whoever applies it (pre-apply), because a hypercall of its own needs a guest's vCPU. Its frame lies
 * elsewhere than a guest's would.
 */
#include "paging.h"

#define FNV_BASIS 0xcbf29ce484222325ul
#define FNV_PRIME 0x100000001b3ul
#define BREAKPOINT 0xcc
#define ROUNDS 5000
#define HYPERVISOR_XEN_VERSION 17 /* public/xen.h; sub-op 0 needs no memory */

/* public/arch-x86/xen-x86_64.h, with Xen's own fields for four segments behind it */
struct frame {
    u64 r15_to_r8[10], rax, rcx, rdx, rsi, rdi, entry, rip, cs, rflags, rsp, ss, segments[4];
};

extern u8 pv_hypercall[], hvm_hypercall[], arch_do_multicall_call[], lstar_enter[], do_xen_version[], do_domctl[], do_sysctl[],
    xen_extra_version[];

static void checksum_text(void)
{
    u64 sum = FNV_BASIS, start = ticks();
    for (const u8 *byte = _stext; byte < _etext; byte++)
        sum = (sum ^ *byte) * FNV_PRIME;
    SAY("text %p to %p: checksum %016lx, %lu ticks", _stext, _etext, sum, ticks() - start);
}

static void debug_registers(void)
{
    u64 dr0, dr1, dr2, dr3, dr6, dr7;
    __asm__ volatile("mov %%dr0, %0; mov %%dr1, %1; mov %%dr2, %2; mov %%dr3, %3" : "=r"(dr0), "=r"(dr1), "=r"(dr2), "=r"(dr3));
    __asm__ volatile("mov %%dr6, %0; mov %%dr7, %1" : "=r"(dr6), "=r"(dr7));
    SAY("DR0 %lx DR1 %lx DR2 %lx DR3 %lx DR6 %lx DR7 %lx", dr0, dr1, dr2, dr3, dr6, dr7);
}

static void look_at(const char *name, const u8 *entry)
{
    SAY("%s at %p begins with %02x%s", name, entry, *entry, *entry == BREAKPOINT ? ", a breakpoint" : "");
}

static void entries(void)
{
    look_at("lstar_enter", lstar_enter);
    look_at("pv_hypercall", pv_hypercall);
    look_at("hvm_hypercall", hvm_hypercall);
    look_at("arch_do_multicall_call", arch_do_multicall_call);
    look_at("do_xen_version", do_xen_version);
    look_at("do_domctl", do_domctl);
    look_at("do_sysctl", do_sysctl);
}

static void ask_cpuid(void)
{
    u32 a = 0, b, c = 0, d;
    __asm__ volatile("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
}

static void call_function(void) { ((const char *(*)(void))xen_extra_version)(); }

static void make_hypercall(void)
{
    struct frame frame = { .rax = HYPERVISOR_XEN_VERSION };
    ((void (*)(struct frame *))pv_hypercall)(&frame);
}

static void time_it(const char *name, void (*action)(void))
{
    u64 least = ~0ul, sum = 0;
    for (unsigned int i = 0; i < ROUNDS; i++) {
        u64 start = ticks();
        action();
        u64 took = ticks() - start;
        least = took < least ? took : least;
        sum += took;
    }
    SAY("%s: %lu ticks at least, %lu on average", name, least, sum / ROUNDS);
}

static void while_applying(void)
{
    unsigned int low_bits = 0;
    volatile u64 *entry = leaf_entry((u64)xen_extra_version, &low_bits);
    SAY("while a patch is applied: CR0 %lx, entry of text %lx", read_cr0(), entry ? *entry : 0);
}
ON_LOAD(while_applying);

static int look(void *payload)
{
    (void)payload;
    checksum_text();
    debug_registers();
    entries();
    time_it("CPUID", ask_cpuid);
    time_it("xen_extra_version()", call_function);
    time_it("pv_hypercall(xen_version)", make_hypercall);
    return 0;
}
BEFORE_APPLY(look);
