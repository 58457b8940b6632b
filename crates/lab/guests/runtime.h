/*
 * What a program of the lab's guests is given: hypercalls, a console to print on, numbers from the command line. A program
 * is a main(); when it returns, its domain powers off.
 */
#ifndef LAB_RUNTIME_H
#define LAB_RUNTIME_H

#include "xen.h"

/* Whether the domain is paravirtualised; else it is PVH or HVM. */
extern bool is_pv;

/* The code that Xen provides: one entry of 32 bytes for each hypercall number below 128. */
extern char hypercall_page[4096];

/* The program. */
void main(const char *command_line);

/* Makes a hypercall, and nothing else. */
static inline long hypercall(unsigned number, uint64_t a, uint64_t b, uint64_t c, uint64_t d)
{
    long result;
    register uint64_t fourth __asm__("r10") = d;

    __asm__ volatile("call *%[entry]"
                     : "=a"(result), "+D"(a), "+S"(b), "+d"(c), "+r"(fourth)
                     : [entry] "0"(hypercall_page + 32 * (size_t)number)
                     : "rcx", "r8", "r9", "r11", "memory");
    return result;
}

/* Makes the call that marks a place in every recording. */
static inline long mark(unsigned which)
{
    return hypercall(__HYPERVISOR_sched_op, MARK_COMMAND | which, 0, 0, 0);
}

/* Prints on the console, which xenconsoled writes to its log. */
void print(const char *text);
void print_number(int64_t number);

/* The number behind NAME= on the command line, or the default. */
uint64_t option(const char *command_line, const char *name, uint64_t fallback);

#endif
