/*
 * The guest `hold`: stays up and does nothing until it is destroyed. It polls no event channel without a timeout, because
 * SCHEDOP_block would unmask events, for which there is no handler.
 */
#include "runtime.h"

void main(const char *command_line)
{
    struct sched_poll nothing = { 0 };

    (void)command_line;
    print("hold: up\n");
    for (;;)
        hypercall(__HYPERVISOR_sched_op, SCHEDOP_poll, (uint64_t)&nothing, 0, 0);
}
