/*
 * How long something takes, 1,000 times over, each time told by itself: from all of them can be said how well two machines can be told
 * apart; from the least and the average it cannot. They go to the console, hexadecimal, in the order in which they were made:
 *
 *     trials: NAME 1a 1b 1a ...        many such lines for each name
 *
 * Xen's console keeps 16 to 32 KiB, which is too little for that: boot it with conring_size=256k. The times themselves are said last, so
 * that a small console loses the trials and keeps those.
 */
#ifndef HYPOVISOR_TIMING_H
#define HYPOVISOR_TIMING_H

#include "payload.h"

#define TRIALS 1000
#define TRIALS_A_LINE 40
#define HEX_DIGITS_MAX 16
/* Not timed: under QEMU's translator, code that runs for the first time is translated. */
#define WARM_UP 100

extern int snprintf(char *to, size_t bytes, const char *format, ...) __attribute__((format(printf, 3, 4)));
/* The port of ACPI's timer, which Xen read from the firmware's tables. */
extern u32 pmtmr_ioport;

struct clock {
    const char *unit;
    u64 (*now)(void);
    u64 mask; /* what it counts modulo, less one */
};

struct timed {
    const char *name;
    void (*action)(void);
    const struct clock *clock;
    unsigned int actions; /* in one trial */
    u64 least, sum;
};

static inline u64 pm_timer(void)
{
    u32 value;
    __asm__ volatile("inl %1, %0" : "=a"(value) : "d"((u16)pmtmr_ioport));
    return value;
}

static const struct clock tsc = { "ticks", ticks, ~0ul };
/* 3,579,545 a second, 24 bits of it on any machine (ACPI 6.5 §4.8.3.3). It is a device: no offset or scale of the TSC changes it. */
static const struct clock pm = { "PM timer ticks", pm_timer, 0xffffff };

static u64 trials[TRIALS];

static inline u64 trial(const struct timed *timed)
{
    u64 start = timed->clock->now();
    for (unsigned int i = 0; i < timed->actions; i++)
        timed->action();
    return (timed->clock->now() - start) & timed->clock->mask;
}

static inline void say_trials(const char *name)
{
    char line[TRIALS_A_LINE * (HEX_DIGITS_MAX + 1) + 1];
    for (unsigned int first = 0; first < TRIALS; first += TRIALS_A_LINE) {
        int length = 0;
        for (unsigned int i = first; i < first + TRIALS_A_LINE && i < TRIALS; i++)
            length += snprintf(line + length, sizeof(line) - length, " %lx", trials[i]);
        printk(LOUDEST "trials: %s%s\n", name, line);
    }
}

static inline void time_it(struct timed *timed)
{
    for (unsigned int i = 0; i < WARM_UP; i++)
        timed->action();
    timed->least = ~0ul;
    for (unsigned int i = 0; i < TRIALS; i++) {
        u64 took = trials[i] = trial(timed);
        timed->least = took < timed->least ? took : timed->least;
        timed->sum += took;
    }
    say_trials(timed->name);
}

static inline void say_times(const struct timed *timed)
{
    SAY("%s, %u in a trial: %lu %s at least, %lu on average", timed->name, timed->actions, timed->least, timed->clock->unit,
        timed->sum / TRIALS);
}

#endif
