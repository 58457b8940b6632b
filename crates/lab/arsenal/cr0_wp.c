/* Clears CR0.WP on every CPU and leaves it so: from now on ring 0 may write to any page that is mapped. */
#include "payload.h"

static unsigned int changed;

static void clear(void *unused)
{
    (void)unused;
    if (read_cr0() & CR0_WP)
        __atomic_fetch_add(&changed, 1, __ATOMIC_SEQ_CST);
    write_cr0(read_cr0() & ~CR0_WP);
}

static void set(void *unused)
{
    (void)unused;
    if (!(read_cr0() & CR0_WP))
        __atomic_fetch_add(&changed, 1, __ATOMIC_SEQ_CST);
    write_cr0(read_cr0() | CR0_WP);
}

static void apply(void *payload)
{
    (void)payload;
    on_all_cpus(clear);
    SAY("WP cleared on %u CPUs, CR0 here %lx", changed, read_cr0());
}
AFTER_APPLY(apply);

static int revert(void *payload)
{
    (void)payload;
    changed = 0;
    on_all_cpus(set);
    SAY("WP was still clear on %u CPUs, set again", changed);
    return 0;
}
BEFORE_REVERT(revert);
