/*
 * Changes text for FLICKER_US microseconds and puts it back, FLICKER_TIMES times, FLICKER_GAP_US apart: what escapes a look at long
 * intervals. The text is that of xen_compile_date(); nothing calls it meanwhile but this, once each time, with FLICKER_EXECUTE. All of
 * it happens in the hook, so that the patch is "applied" when all is over; there is nothing to revert.
 */
#include "payload.h"

#ifndef FLICKER_US
#define FLICKER_US 1000
#endif
#ifndef FLICKER_TIMES
#define FLICKER_TIMES 10
#endif
#ifndef FLICKER_GAP_US
#define FLICKER_GAP_US 10000
#endif
#ifndef FLICKER_EXECUTE
#define FLICKER_EXECUTE 0
#endif

extern u8 xen_compile_date[];

static const char forged[] = "flicker was here";

static void wait_microseconds(int64_t microseconds)
{
    int64_t end_ns = get_s_time() + microseconds * 1000;
    while (get_s_time() < end_ns)
        __builtin_ia32_pause();
}

/* What xen_compile_date() returns, as it stands there now. */
static const char *execute(void)
{
    const char *(*function)(void) = (const char *(*)(void))(u64)xen_compile_date;
    __asm__("" : "+r"(function));
    return function();
}

static void flicker(void *payload)
{
    (void)payload;
    unsigned int misled = 0;
    u8 *at = xen_compile_date + LEA_DISTANCE;
    u32 genuine, forged_distance = distance_to(xen_compile_date, forged);
    if (!is_string_function(xen_compile_date)) {
        SAY("xen_compile_date has an unknown form, nothing done");
        return;
    }
    __builtin_memcpy(&genuine, at, sizeof(genuine));
    for (unsigned int i = 0; i < FLICKER_TIMES; i++) {
        write_protected(at, &forged_distance, sizeof(genuine));
        if (FLICKER_EXECUTE)
            misled += execute() == forged;
        wait_microseconds(FLICKER_US);
        write_protected(at, &genuine, sizeof(genuine));
        wait_microseconds(FLICKER_GAP_US);
    }
    SAY("changed %zu bytes at %p for %d us, %d times, and put them back", sizeof(genuine), at, FLICKER_US, FLICKER_TIMES);
    SAY("they were executed changed %u times", misled);
}
AFTER_APPLY(flicker);
