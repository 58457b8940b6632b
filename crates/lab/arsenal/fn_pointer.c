/*
 * Changes one function pointer of Xen to a function of ours, which counts and goes on to the genuine one. Two kinds:
 *
 * Without IDLE_POINTER: the first pointer into text in hvm_funcs, which is read-only once Xen is up. Xen 4.17 and 4.20 have
 * made direct calls of most calls through this table when they booted, so that it is changed but hardly ever taken.
 * With IDLE_POINTER: pm_idle, an ordinary variable, taken whenever a CPU has nothing to do.
 */
#include "payload.h"

KEPT static u64 genuine, count;
extern u8 replacement[];

__asm__(".text\n.balign 16\nreplacement:\n"
        "endbr64\n"
        "lock incq count(%rip)\n"
        "jmp *genuine(%rip)\n");

static u64 *changed;

#ifdef IDLE_POINTER
extern u64 pm_idle;

static u64 *find_pointer(void) { return &pm_idle; }
#else
extern u64 hvm_funcs[];
#define WORDS_MAX 128

static u64 *find_pointer(void)
{
    for (unsigned int i = 0; i < WORDS_MAX; i++)
        if (hvm_funcs[i] >= (u64)_stext && hvm_funcs[i] < (u64)_etext)
            return &hvm_funcs[i];
    return NULL;
}
#endif

static void apply(void *payload)
{
    (void)payload;
    u64 address = (u64)replacement;
    u64 *pointer = find_pointer();
    if (!pointer || !*pointer) {
        SAY("no pointer found, nothing done");
        return;
    }
    genuine = *pointer;
    write_protected(pointer, &address, sizeof(address));
    changed = pointer;
    SAY("pointer at %p was %lx, is %lx", changed, genuine, *changed);
}
AFTER_APPLY(apply);

static int revert(void *payload)
{
    (void)payload;
    if (changed)
        write_protected(changed, &genuine, sizeof(genuine));
    SAY("pointer restored, it was taken %lu times", count);
    return 0;
}
BEFORE_REVERT(revert);
