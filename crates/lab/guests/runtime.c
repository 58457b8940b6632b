/*
 * The runtime of the lab's guests: from the entry code to main() and on to power-off.
 *
 * Events stay masked from the first instruction to the last, there is no interrupt handler and no timer: the guest makes
 * the hypercalls that its code says, and no others.
 */
#include "runtime.h"

/* How often the ring is looked at before its output is given up, with a yield in between. */
#define CONSOLE_PATIENCE 2000000

/* What there is if the domain's builder gives none, as it does for HVM. */
#ifndef COMMAND_LINE
#define COMMAND_LINE ""
#endif

bool is_pv;

static struct xencons_interface *console;
static struct evtchn_send console_channel;

void *memcpy(void *to, const void *from, size_t length)
{
    for (size_t i = 0; i < length; i++)
        ((char *)to)[i] = ((const char *)from)[i];
    return to;
}

void *memset(void *to, int byte, size_t length)
{
    for (size_t i = 0; i < length; i++)
        ((char *)to)[i] = (char)byte;
    return to;
}

static void notify(void)
{
    hypercall(__HYPERVISOR_event_channel_op, EVTCHNOP_send, (uint64_t)&console_channel, 0, 0);
}

/* Waits until at most this much of the ring is unread. */
static void drain(uint32_t unread)
{
    for (uint32_t tries = 0; tries < CONSOLE_PATIENCE; tries++) {
        if (console->out_prod - *(volatile uint32_t *)&console->out_cons <= unread)
            return;
        hypercall(__HYPERVISOR_sched_op, SCHEDOP_yield, 0, 0, 0);
    }
}

void print(const char *text)
{
    if (!console)
        return;
    for (; *text; text++) {
        if (console->out_prod - *(volatile uint32_t *)&console->out_cons == sizeof(console->out)) {
            notify();
            drain(sizeof(console->out) / 2);
        }
        console->out[console->out_prod % sizeof(console->out)] = *text;
        __asm__ volatile("" ::: "memory"); /* x86 keeps stores in order; the compiler must, too */
        *(volatile uint32_t *)&console->out_prod = console->out_prod + 1;
    }
    notify();
}

void print_number(int64_t number)
{
    char digits[24];
    char *first = digits + sizeof(digits) - 1;
    uint64_t rest = number < 0 ? -(uint64_t)number : (uint64_t)number;

    *first = 0;
    do {
        *--first = (char)('0' + rest % 10);
        rest /= 10;
    } while (rest);
    if (number < 0)
        *--first = '-';
    print(first);
}

uint64_t option(const char *command_line, const char *name, uint64_t fallback)
{
    for (const char *at = command_line; *at; at++) {
        const char *word = at, *wanted = name;
        uint64_t number = 0;

        while (*wanted && *word == *wanted)
            word++, wanted++;
        if (*wanted || *word != '=' || (at != command_line && at[-1] != ' '))
            continue;
        for (word++; *word >= '0' && *word <= '9'; word++)
            number = number * 10 + (uint64_t)(*word - '0');
        return number;
    }
    return fallback;
}

static __attribute__((noreturn)) void run(const char *command_line)
{
    struct sched_shutdown shutdown = { SHUTDOWN_poweroff };

    main(command_line);
    if (console)
        drain(0);
    for (;;)
        hypercall(__HYPERVISOR_sched_op, SCHEDOP_shutdown, (uint64_t)&shutdown, 0, 0);
}

/* A PV guest knows its console by machine frame. The list of its frames says where that is; all of them up to the end of
 * the boot-time region are mapped from BASE on, in order. */
extern char base[];

__attribute__((noreturn)) void start_pv(const struct start_info *info)
{
    const uint64_t *frames = (const uint64_t *)info->mfn_list;

    is_pv = true;
    for (uint64_t page = 0; page < info->nr_pages; page++)
        if (frames[page] == info->console_mfn) {
            console = (struct xencons_interface *)(base + page * 4096);
            break;
        }
    console_channel.port = info->console_evtchn;
    run(info->cmd_line);
}

static uint64_t hvm_param(uint32_t index)
{
    struct xen_hvm_param param = { .domid = DOMID_SELF, .index = index };

    return hypercall(__HYPERVISOR_hvm_op, HVMOP_get_param, (uint64_t)&param, 0, 0) ? 0 : param.value;
}

/* Has Xen fill the hypercall page: leaf base + 2 of CPUID names the MSR to write its address to. The base is a multiple of
 * 0x100, above 0x40000000 when Xen also shows another hypervisor's leaves. */
static bool install_hypercall_page(void)
{
    for (uint32_t leaf = 0x40000000; leaf < 0x40010000; leaf += 0x100) {
        uint32_t eax = leaf, ebx, ecx = 0, edx;

        __asm__ volatile("cpuid" : "+a"(eax), "=b"(ebx), "+c"(ecx), "=d"(edx));
        if (ebx != 0x566e6558 || ecx != 0x65584d4d || edx != 0x4d4d566e) /* "XenVMMXenVMM" */
            continue;
        eax = leaf + 2, ecx = 0;
        __asm__ volatile("cpuid" : "+a"(eax), "=b"(ebx), "+c"(ecx), "=d"(edx));
        __asm__ volatile("wrmsr" ::"c"(ebx), "a"((uint32_t)(uint64_t)hypercall_page), "d"(0) : "memory");
        return true;
    }
    return false;
}

__attribute__((noreturn)) void start_pvh(const struct hvm_start_info *info)
{
    while (!install_hypercall_page())
        ; /* not under Xen: there is nobody to tell */
    console = (struct xencons_interface *)(hvm_param(HVM_PARAM_CONSOLE_PFN) << 12);
    console_channel.port = (uint32_t)hvm_param(HVM_PARAM_CONSOLE_EVTCHN);
    run(info->cmdline_paddr ? (const char *)info->cmdline_paddr : COMMAND_LINE);
}
