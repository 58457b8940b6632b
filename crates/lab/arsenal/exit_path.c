/*
 * Redirects where CPUs go on when a guest leaves. VMRUN saves the host's state in memory, in a page that each CPU has for it (VM_HSAVE_PA),
 * and the processor goes on by what stands there when the guest leaves (AMD APM vol. 2, section 15.30.4). While a guest runs on another CPU,
 * this writes an entry of ours there, which counts and goes on behind VMRUN. Each time holds for one exit: the next VMRUN saves anew.
 *
 * How the page is laid out is the processor's business: QEMU's has RIP where a VMCB has it. KVM keeps the state to itself, so that
 * nothing is found there and nothing done. Needs a busy PVH or HVM guest on another CPU. Over when it is applied.
 */
#include "paging.h"

#define MSR_VM_HSAVE_PA 0xc0010117u
/* AMD APM vol. 2, table B-2: the state save area, and RIP in it. */
#define SAVED_RIP 0x578
#define VMRUN_BYTES 3
#define AREAS 16
#define WANTED 20
#define PATIENCE_NS 5000000000l

static u64 areas[AREAS];
static unsigned int known;
KEPT static u64 behind_vmrun, taken;
extern u8 way_out[];

__asm__(".text\n.balign 16\nway_out:\n"
        "endbr64\n"
        "lock incq taken(%rip)\n"
        "jmp *behind_vmrun(%rip)\n");

static void note_area(void *unused)
{
    (void)unused;
    unsigned int place = __atomic_fetch_add(&known, 1, __ATOMIC_SEQ_CST);
    if (place < AREAS)
        areas[place] = read_msr(MSR_VM_HSAVE_PA);
}

static int is_behind_vmrun(u64 rip)
{
    const u8 *before = (const u8 *)rip - VMRUN_BYTES;
    int is_text = rip >= (u64)_stext + VMRUN_BYTES && rip < (u64)_etext;
    return is_text && before[0] == 0x0f && before[1] == 0x01 && before[2] == 0xd8;
}

static volatile u64 *saved_rip(unsigned int place) { return areas[place] ? direct(areas[place] + SAVED_RIP) : NULL; }

static void redirect(unsigned int place)
{
    volatile u64 *saved = saved_rip(place);
    if (saved && is_behind_vmrun(*saved)) {
        behind_vmrun = *saved;
        *saved = (u64)way_out;
    }
}

static void put_back(unsigned int place)
{
    volatile u64 *saved = saved_rip(place);
    if (saved && *saved == (u64)way_out)
        *saved = behind_vmrun;
}

static void apply(void *payload)
{
    (void)payload;
    on_all_cpus(note_area);
    unsigned int count = known < AREAS ? known : AREAS;
    int64_t end_ns = get_s_time() + PATIENCE_NS;
    while (taken < WANTED && get_s_time() < end_ns) {
        for (unsigned int place = 0; place < count; place++)
            redirect(place);
        __builtin_ia32_pause();
    }
    for (unsigned int place = 0; place < count; place++)
        put_back(place);
    SAY("%lu exits of guests went another way than behind VMRUN (%lx)", taken, behind_vmrun);
}
AFTER_APPLY(apply);
