/*
 * hcall: makes hypercalls from dom0's user space, through Linux's privcmd device. A Linux program, linked statically.
 *
 *     hcall [--cpu N] [--loop COUNT] NUMBER [ARGUMENT...]     up to 5 arguments; prints the (last) result
 *     hcall [--cpu N] --mark N                                sched_op(0x48590000 | N), which Xen answers with -ENOSYS
 *
 * An argument is a number as C writes it, or @HEX for the address of a page that begins with these bytes; the first 64 bytes of such
 * a page are printed afterwards. --cpu binds the process to one vCPU first.
 * Exit code: 0 when the calls were made, whatever Xen answered; 2 when they could not be.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#define PAGE_BYTES 4096
#define ARGUMENTS_MAX 5
#define SHOWN_BYTES 64

/* linux/xen/privcmd.h */
struct privcmd_hypercall {
    uint64_t op;
    uint64_t arg[5];
};
#define IOCTL_PRIVCMD_HYPERCALL _IOC(_IOC_NONE, 'P', 0, sizeof(struct privcmd_hypercall))

static const unsigned char *pages[ARGUMENTS_MAX];

static void fail(const char *what)
{
    fprintf(stderr, "hcall: %s: %s\n", what, strerror(errno));
    exit(2);
}

static void usage(void)
{
    fprintf(stderr, "usage: hcall [--cpu N] [--loop COUNT] NUMBER [ARGUMENT...]\n       hcall [--cpu N] --mark N\n");
    exit(2);
}

static uint64_t number(const char *text)
{
    char *end;
    uint64_t value = strtoull(text, &end, 0);

    if (!*text || *end)
        usage();
    return value;
}

/* A page of its own for an argument, resident as hypercalls need it. */
static uint64_t page_with(const char *hex, const unsigned char **page)
{
    unsigned char *bytes = mmap(NULL, PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_LOCKED, -1, 0);
    unsigned byte;

    if (bytes == MAP_FAILED)
        fail("no page");
    bytes[0] = 0; /* written to, so that it is there */
    for (size_t i = 0; i < PAGE_BYTES && sscanf(hex + 2 * i, "%2x", &byte) == 1; i++)
        bytes[i] = (unsigned char)byte;
    *page = bytes;
    return (uint64_t)bytes;
}

static void bind_to(uint64_t cpu)
{
    cpu_set_t set;

    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    if (sched_setaffinity(0, sizeof(set), &set))
        fail("cannot bind to the vCPU");
}

static int open_privcmd(void)
{
    int fd = open("/dev/xen/privcmd", O_RDWR | O_CLOEXEC);

    if (fd < 0)
        fd = open("/proc/xen/privcmd", O_RDWR | O_CLOEXEC);
    if (fd < 0)
        fail("no privcmd device");
    return fd;
}

/* The ioctl's result is an int, or -1 with the error in errno: then it is Xen's, or EPERM and the like from Linux. */
static long make(int fd, const struct privcmd_hypercall *call)
{
    int result = ioctl(fd, IOCTL_PRIVCMD_HYPERCALL, call);

    return result < 0 ? -errno : result;
}

static void show_pages(void)
{
    for (int i = 0; i < ARGUMENTS_MAX; i++) {
        if (!pages[i])
            continue;
        printf("argument %d:", i);
        for (int at = 0; at < SHOWN_BYTES; at++)
            printf(" %02x", pages[i][at]);
        printf("\n");
    }
}

int main(int argc, char **argv)
{
    struct privcmd_hypercall call = { 0 };
    uint64_t loops = 1;
    long result = 0;
    int at = 1, fd, count;

    for (; at + 1 < argc && !strncmp(argv[at], "--", 2); at += 2) {
        uint64_t value = number(argv[at + 1]);

        if (!strcmp(argv[at], "--cpu"))
            bind_to(value);
        else if (!strcmp(argv[at], "--loop"))
            loops = value;
        else if (!strcmp(argv[at], "--mark"))
            call.op = 29 /* sched_op */, call.arg[0] = 0x48590000u | value;
        else
            usage();
    }
    count = argc - at;
    if (call.op ? count > 0 : count < 1 || count > 1 + ARGUMENTS_MAX)
        usage();
    for (int i = 0; i < count; i++) {
        if (i == 0)
            call.op = number(argv[at]);
        else if (argv[at + i][0] == '@')
            call.arg[i - 1] = page_with(argv[at + i] + 1, &pages[i - 1]);
        else
            call.arg[i - 1] = number(argv[at + i]);
    }
    fd = open_privcmd();
    for (uint64_t i = 0; i < loops; i++)
        result = make(fd, &call);
    printf("%ld\n", result);
    show_pages();
    return 0;
}
