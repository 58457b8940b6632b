/*
 * Writes to Xen's text with CR0.WP cleared for a moment: xen_changeset() returns another string, `xl info` shows it as
 * xen_changeset. Reverting puts the bytes back. Acts on the CPU that runs the hook; text is the same memory for all.
 */
#include "payload.h"

extern u8 xen_changeset[];

static const char forged[] = "text_patch was here";
static u8 genuine[4];
static int patched;

static void patch(void *payload)
{
    (void)payload;
    u8 *at = xen_changeset + LEA_DISTANCE;
    u32 distance = distance_to(xen_changeset, forged);
    if (!is_string_function(xen_changeset)) {
        SAY("xen_changeset has an unknown form, nothing done");
        return;
    }
    __builtin_memcpy(genuine, at, sizeof(genuine));
    write_protected(at, &distance, sizeof(distance));
    patched = 1;
    SAY("wrote %zu bytes of text at %p", sizeof(distance), at);
}
AFTER_APPLY(patch);

static int restore(void *payload)
{
    (void)payload;
    if (patched)
        write_protected(xen_changeset + LEA_DISTANCE, genuine, sizeof(genuine));
    SAY("text restored");
    return 0;
}
BEFORE_REVERT(restore);
