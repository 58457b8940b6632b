/*
 * The guest `null`: how many TSC ticks a hypercall takes that does next to nothing, xen_version(XENVER_version).
 *
 *     rounds=R calls=N warmup=W    on the command line: R rounds of N calls, after W calls that are not timed
 *     marks=0                      without the calls that mark the rounds' begin and end, which are no calls of Xen's
 *     null: rounds=200 calls=1000 median_ticks=780 min_ticks=775 max_ticks=901 mean_ticks=782
 *
 * The figures are of the rounds, each divided by N. The domain has to have tsc_mode="native": else RDTSC is emulated.
 */
#include "runtime.h"

#define ROUNDS_MAX 1000

static uint64_t ticks[ROUNDS_MAX];

/* The time, when all that came before is done and nothing that comes after has begun. */
static uint64_t now(void)
{
    uint32_t low, high;

    __asm__ volatile("lfence; rdtsc; lfence" : "=a"(low), "=d"(high)::"memory");
    return (uint64_t)high << 32 | low;
}

static void call(uint64_t calls)
{
    for (uint64_t i = 0; i < calls; i++)
        hypercall(__HYPERVISOR_xen_version, XENVER_version, 0, 0, 0);
}

/* Puts a new figure in its place among the first ones. */
static void insert(uint64_t figure, uint64_t count)
{
    for (; count && ticks[count - 1] > figure; count--)
        ticks[count] = ticks[count - 1];
    ticks[count] = figure;
}

void main(const char *command_line)
{
    uint64_t rounds = option(command_line, "rounds", 200);
    uint64_t calls = option(command_line, "calls", 1000);
    uint64_t marks = option(command_line, "marks", 1);
    uint64_t sum = 0;

    if (rounds < 1 || rounds > ROUNDS_MAX || calls < 1) {
        print("null: rounds must be 1 to 1000, calls at least 1\n");
        return;
    }
    call(option(command_line, "warmup", 20000));
    if (marks)
        mark(MARK_BEGIN);
    for (uint64_t round = 0; round < rounds; round++) {
        uint64_t before = now(), taken;

        call(calls);
        taken = (now() - before) / calls;
        sum += taken;
        insert(taken, round);
    }
    if (marks)
        mark(MARK_END);
    print("null: rounds="), print_number((int64_t)rounds);
    print(" calls="), print_number((int64_t)calls);
    print(" median_ticks="), print_number((int64_t)ticks[rounds / 2]);
    print(" min_ticks="), print_number((int64_t)ticks[0]);
    print(" max_ticks="), print_number((int64_t)ticks[rounds - 1]);
    print(" mean_ticks="), print_number((int64_t)(sum / rounds)), print("\n");
}
