/*
 * The guest `hold`: stays up until it is destroyed.
 *
 *     wake=MS     on the command line: makes two hypercalls every so many milliseconds; else it sleeps for good
 *
 * It polls no event channel, with a timeout or without; SCHEDOP_block would unmask events, for which there is no handler.
 */
#include "runtime.h"

/* Since when this vCPU runs, in Xen's system time: the time, for one that has just woken up. */
static uint64_t now_ns(void)
{
    struct vcpu_runstate_info state = { 0 };

    hypercall(__HYPERVISOR_vcpu_op, VCPUOP_get_runstate_info, 0, (uint64_t)&state, 0);
    return state.state_entry_time;
}

void main(const char *command_line)
{
    uint64_t wake_ms = option(command_line, "wake", 0);
    struct sched_poll nothing = { 0 };

    print("hold: up\n");
    for (;;) {
        nothing.timeout = wake_ms ? now_ns() + wake_ms * 1000000 : 0;
        hypercall(__HYPERVISOR_sched_op, SCHEDOP_poll, (uint64_t)&nothing, 0, 0);
    }
}
