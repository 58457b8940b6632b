/*
 * Points MSR LSTAR of every CPU to an entry of ours, which counts and goes on to the genuine one. Xen has a stub for each
 * CPU, so that each gets an entry of its own. An entry has no stack and no register to spare: RSP is the guest's.
 *
 * On AMD the register alone does not last: Xen loads a PV guest's segments with VMLOAD from a VMCB that each CPU has for itself
 * (svm_load_segs), and with them LSTAR. So the copy there is changed too. With MSR_ONLY it is not, and the change is over
 * at the next switch to a PV vCPU, which is soon. Reverting counts how many CPUs still had it.
 *
 * With ANSWERED, the entries answer one hypercall by themselves, so that nothing of Xen sees it: the one that the lab's
 * programs make as a mark, sched_op with this first argument.
 */
#include "paging.h"

#define ENTRIES 16
#define ENTRY_BYTES 64

KEPT static u64 genuine[ENTRIES], counts[ENTRIES];
static u64 ours[ENTRIES];
extern u8 entries[];

#define HYPERVISOR_SCHED_OP 29 /* public/xen.h */
#define TEXT(number) TEXT_(number)
#define TEXT_(number) #number
#ifdef ANSWERED
#define ANSWER                                         \
    "cmpl $" TEXT(HYPERVISOR_SCHED_OP) ", %eax\n"      \
    "jne 2f\n"                                         \
    "cmpl $" TEXT(ANSWERED) ", %edi\n"                 \
    "jne 2f\n"                                         \
    "xorl %eax, %eax\n"                                \
    "sysretq\n"
#else
#define ANSWER
#endif

__asm__(".text\n.balign 64\nentries:\n"
        ".set .Lentry, 0\n"
        ".rept 16\n"
        "endbr64\n"
        ANSWER
        "2: lock incq counts + 8 * .Lentry(%rip)\n"
        "jmp *genuine + 8 * .Lentry(%rip)\n"
        ".balign 64\n"
        ".set .Lentry, .Lentry + 1\n"
        ".endr\n");

static unsigned int taken, given_back;

#ifndef MSR_ONLY
/* The machine address of the CPU's own VMCB, 0 without SVM. A variable local to a file has the file in its name. */
extern u8 host_vmcb[] __asm__("\"arch/x86/hvm/svm/svm.c#per_cpu__host_vmcb\"");
extern u64 __per_cpu_offset[];

/* AMD APM vol. 2, table B-2 */
#define VMCB_LSTAR 0x608

/* Of the first 64 CPUs. */
static void change_saved(const u64 *from, const u64 *to)
{
    for (unsigned int cpu = 0; cpu < 64; cpu++) {
        if (!(*(u64 *)cpu_online_map >> cpu & 1))
            continue;
        u64 vmcb = *(u64 *)(host_vmcb + __per_cpu_offset[cpu]);
        volatile u64 *saved = vmcb ? direct(vmcb + VMCB_LSTAR) : NULL;
        for (unsigned int i = 0; saved && i < taken && i < ENTRIES; i++)
            if (*saved == from[i]) {
                *saved = to[i];
                break;
            }
    }
}
#else
static void change_saved(const u64 *from, const u64 *to) { (void)from, (void)to; }
#endif

static void take(void *unused)
{
    (void)unused;
    unsigned int entry = __atomic_fetch_add(&taken, 1, __ATOMIC_SEQ_CST);
    if (entry >= ENTRIES)
        return;
    genuine[entry] = read_msr(MSR_LSTAR);
    ours[entry] = (u64)entries + entry * ENTRY_BYTES;
    write_msr(MSR_LSTAR, ours[entry]);
}

static void give_back(void *unused)
{
    (void)unused;
    u64 entry = (read_msr(MSR_LSTAR) - (u64)entries) / ENTRY_BYTES;
    if (entry >= ENTRIES)
        return;
    write_msr(MSR_LSTAR, genuine[entry]);
    __atomic_fetch_add(&given_back, 1, __ATOMIC_SEQ_CST);
}

static void apply(void *payload)
{
    (void)payload;
    on_all_cpus(take);
    change_saved(genuine, ours);
    for (unsigned int i = 0; i < taken && i < ENTRIES; i++)
        SAY("LSTAR %lx is now %lx", genuine[i], ours[i]);
}
AFTER_APPLY(apply);

static int revert(void *payload)
{
    (void)payload;
    change_saved(ours, genuine);
    on_all_cpus(give_back);
    for (unsigned int i = 0; i < taken && i < ENTRIES; i++)
        SAY("entry %u saw %lu system calls", i, counts[i]);
    SAY("%u of %u CPUs still had it, LSTAR restored", given_back, taken);
    return 0;
}
BEFORE_REVERT(revert);
