/*
 * A guest that Xen does not know (vmcb.h): built and run from here, once, on the CPU that runs the hook. Nothing stays of it and there is
 * nothing to revert.
 */
#include "vmcb.h"

#define EXITS_MAX 4

static void run(void *payload)
{
    (void)payload;
    u64 address = make_guest(), exit = 0;
    if (!address) {
        SAY("SVM is not enabled here, nothing done");
        return;
    }
    for (unsigned int i = 0; i < EXITS_MAX && exit != EXIT_HLT; i++) {
        enter_guest(address);
        exit = get64(VMCB_EXIT_CODE);
        SAY("VMRUN with VMCB %lx left with exit %lx at %lx", address, exit, get64(VMCB_RIP));
        if (exit == EXIT_VMMCALL)
            set64(VMCB_RIP, get64(VMCB_RIP) + VMMCALL_BYTES);
    }
}
AFTER_APPLY(run);
