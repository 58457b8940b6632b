/*
 * time_calls: how long a null hypercall takes from dom0's user space, 1,000 times over, as somebody would time it who is root in dom0
 * and has not got into Xen. A Linux program, linked statically. It prints its trials as the payload `detector` does (timing.h).
 */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/ioctl.h>

#define TRIALS 1000
#define TRIALS_A_LINE 40
#define WARM_UP 1000
#define HYPERVISOR_XEN_VERSION 17 /* public/xen.h; sub-op 0 needs no memory */

/* linux/xen/privcmd.h */
struct privcmd_hypercall {
    uint64_t op;
    uint64_t arg[5];
};
#define IOCTL_PRIVCMD_HYPERCALL _IOC(_IOC_NONE, 'P', 0, sizeof(struct privcmd_hypercall))

static uint64_t ticks(void)
{
    uint32_t low, high;
    __asm__ volatile("lfence; rdtsc; lfence" : "=a"(low), "=d"(high) : : "memory");
    return (uint64_t)high << 32 | low;
}

static int make_hypercall(int fd)
{
    struct privcmd_hypercall call = { .op = HYPERVISOR_XEN_VERSION };
    return ioctl(fd, IOCTL_PRIVCMD_HYPERCALL, &call);
}

int main(void)
{
    static uint64_t trials[TRIALS];
    int fd = open("/dev/xen/privcmd", O_RDWR | O_CLOEXEC);

    if (fd < 0 || make_hypercall(fd) < 0) {
        perror("time_calls: no hypercall");
        return 2;
    }
    for (int i = 0; i < WARM_UP; i++)
        make_hypercall(fd);
    for (int i = 0; i < TRIALS; i++) {
        uint64_t start = ticks();
        make_hypercall(fd);
        trials[i] = ticks() - start;
    }
    for (int i = 0; i < TRIALS; i++)
        printf("%s %lx%s", i % TRIALS_A_LINE ? "" : "trials: from_dom0", trials[i], (i + 1) % TRIALS_A_LINE ? "" : "\n");
    return 0;
}
