/*
 * A genuine live patch, as a vendor would ship it: replaces xen_extra_version(), whose string `xl info` shows as xen_extra.
 * Nothing of it is an attack; who watches should name it as what it is.
 */
#include "payload.h"

static const char *patched_extra_version(void) { return "-benign"; }

/* Xen writes to it when it applies the patch. The address is left to Xen, which knows the name. */
static struct livepatch_func replaced KEPT __attribute__((section(".livepatch.funcs"), aligned(8))) = {
    .name = "xen_extra_version",
    .new_address = patched_extra_version,
    .new_bytes = 16,
    .old_bytes = 12,
    .version = 2,
};
