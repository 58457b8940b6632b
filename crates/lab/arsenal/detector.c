/*
 * Looks for whoever watches Xen from below, the way hostile code inside Xen would: for what it can see without a clock (traces.h), and at
 * how long things take (timing.h). What it finds goes to `xl dmesg`; compare with a machine that nobody watches. It changes nothing that
 * it does not put back, and has nothing to revert. A load hook says besides how Xen itself makes its text writable while it applies a
 * patch, which a watcher has to know from an attack.
 *
 * It runs in the hypercall of whoever applies it (pre-apply), because a hypercall of its own needs a guest's vCPU. Its frame lies
 * elsewhere than a guest's would.
 */
#include "timing.h"
#include "traces.h"
#include "vmcb.h"

#define HYPERVISOR_XEN_VERSION 17 /* public/xen.h; sub-op 0 needs no memory */
/* The PM timer ticks every 279 ns, a hypercall may take less. */
#define HYPERCALLS_FOR_PM_TIMER 50

/* public/arch-x86/xen-x86_64.h, with Xen's own fields for four segments behind it */
struct frame {
    u64 r15_to_r8[10], rax, rcx, rdx, rsi, rdi, entry, rip, cs, rflags, rsp, ss, segments[4];
};

extern u8 pv_hypercall[], hvm_hypercall[], arch_do_multicall_call[], lstar_enter[], do_xen_version[], do_domctl[], do_sysctl[],
    xen_extra_version[];

/* ---- Without a clock ---- */

/* Where hypercalls enter: the places for a breakpoint. */
static void first_bytes(void)
{
    saw("first_byte_of_lstar_enter", *lstar_enter);
    saw("first_byte_of_pv_hypercall", *pv_hypercall);
    saw("first_byte_of_hvm_hypercall", *hvm_hypercall);
    saw("first_byte_of_arch_do_multicall_call", *arch_do_multicall_call);
    saw("first_byte_of_do_xen_version", *do_xen_version);
    saw("first_byte_of_do_domctl", *do_domctl);
    saw("first_byte_of_do_sysctl", *do_sysctl);
}

/* ---- What is timed ---- */

static u64 vmcb_address;

static void do_nothing(void) {}

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

static void write_lstar(void) { write_msr(MSR_LSTAR, read_msr(MSR_LSTAR)); }

static void move_to_cr4(void) { write_cr4(read_cr4()); }

static void read_debug_register(void) { (void)read_dr7(); }

/* To its first instruction and out again. */
static void run_guest(void)
{
    set64(VMCB_RIP, (u64)guest);
    enter_guest(vmcb_address);
}

/* The one for which SVM has to be enabled is the last. */
static struct timed timed[] = {
    { "nothing", do_nothing, &tsc, 1, 0, 0 },
    { "cpuid", ask_cpuid, &tsc, 1, 0, 0 },
    { "function", call_function, &tsc, 1, 0, 0 },
    { "hypercall", make_hypercall, &tsc, 1, 0, 0 },
    { "hypercalls_by_pm_timer", make_hypercall, &pm, HYPERCALLS_FOR_PM_TIMER, 0, 0 },
    { "wrmsr_lstar", write_lstar, &tsc, 1, 0, 0 },
    { "mov_to_cr4", move_to_cr4, &tsc, 1, 0, 0 },
    { "mov_from_dr7", read_debug_register, &tsc, 1, 0, 0 },
    { "vmrun", run_guest, &tsc, 1, 0, 0 },
};
#define TIMED (sizeof(timed) / sizeof(*timed))

static void time_all(void)
{
    vmcb_address = make_guest();
    unsigned int count = vmcb_address ? TIMED : TIMED - 1;
    for (unsigned int i = 0; i < count; i++)
        time_it(&timed[i]);
    for (unsigned int i = 0; i < count; i++)
        say_times(&timed[i]);
}

/* ---- The hooks ---- */

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
    u64 text = checksum(_stext, _etext), constants = checksum(_srodata, _erodata);
    time_all();
    saw("text", text);
    saw("text_a_while_later", checksum(_stext, _etext));
    saw("constants", constants);
    saw("constants_a_while_later", checksum(_srodata, _erodata));
    breakpoint_instructions();
    first_bytes();
    look_at_first_cpu();
    return 0;
}
BEFORE_APPLY(look);
