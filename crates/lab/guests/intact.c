/*
 * The guest `intact`: makes one harmless call again and again, and looks after each whether anything of it has changed:
 * every general register, the flags, and the memory around its stack pointer. Only the result may differ, and must be right.
 *
 *     calls=N                      on the command line: how many
 *     intact: calls=2000000 differences=0 first=none
 */
#include "runtime.h"

#define ARENA_WORDS 4096
/* Where the stack pointer stands during a call, in words; below it the hypercall page's code pushes this many. */
#define STACK_WORD 3072
#define PUSHED_WORDS 8

enum { RBX, RBP, RDI, RSI, RDX, R8, R9, R10, R12, R13, R14, R15, RCX, R11, FLAGS, RSP, REGISTERS };

static const char *const names[REGISTERS] = { "rbx", "rbp", "rdi", "rsi", "rdx", "r8",  "r9",    "r10",
                                              "r12", "r13", "r14", "r15", "rcx", "r11", "flags", "rsp" };

uint64_t arena[ARENA_WORDS] __attribute__((aligned(16384)));
uint64_t wanted[REGISTERS];
uint64_t found[REGISTERS];
uint64_t *stack = arena + STACK_WORD;
uint64_t own_stack;
char *entry;
/* All of the arithmetic flags but overflow. */
uint64_t flags = 0xd7;

static const char *first = "none";
static uint64_t differences;

/* The call with all registers set, and all of them stored afterwards. */
static long call(void)
{
    long result;

    __asm__ volatile("push %%rbx; push %%rbp; push %%r12; push %%r13; push %%r14; push %%r15\n"
                     "mov %%rsp, own_stack\n"
                     "push flags; popf\n"
                     "mov stack, %%rsp\n"
                     "mov wanted+0, %%rbx; mov wanted+8, %%rbp; mov wanted+16, %%rdi; mov wanted+24, %%rsi\n"
                     "mov wanted+32, %%rdx; mov wanted+40, %%r8; mov wanted+48, %%r9; mov wanted+56, %%r10\n"
                     "mov wanted+64, %%r12; mov wanted+72, %%r13; mov wanted+80, %%r14; mov wanted+88, %%r15\n"
                     "mov wanted+96, %%rcx; mov wanted+104, %%r11\n"
                     "call *entry\n"
                     "mov %%rbx, found+0; mov %%rbp, found+8; mov %%rdi, found+16; mov %%rsi, found+24\n"
                     "mov %%rdx, found+32; mov %%r8, found+40; mov %%r9, found+48; mov %%r10, found+56\n"
                     "mov %%r12, found+64; mov %%r13, found+72; mov %%r14, found+80; mov %%r15, found+88\n"
                     "mov %%rcx, found+96; mov %%r11, found+104; mov %%rsp, found+120\n"
                     "pushf; pop found+112\n"
                     "mov own_stack, %%rsp\n"
                     "pop %%r15; pop %%r14; pop %%r13; pop %%r12; pop %%rbp; pop %%rbx\n"
                     : "=a"(result)
                     :
                     : "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11", "cc", "memory");
    return result;
}

static uint64_t pattern(uint64_t number)
{
    return number * 0x9e3779b97f4a7c15 ^ 0x5bd1e995;
}

static void differs(const char *what)
{
    if (!differences++)
        first = what;
}

static void compare_memory(uint64_t from, uint64_t to)
{
    for (uint64_t at = from; at < to; at++)
        if (arena[at] != pattern(at) && (at < STACK_WORD - PUSHED_WORDS || at >= STACK_WORD)) {
            differs("memory");
            arena[at] = pattern(at);
        }
}

/* The page of the stack pointer each time, all of the arena now and then. */
static void compare(uint64_t number)
{
    for (unsigned which = 0; which < REGISTERS; which++)
        if (found[which] != wanted[which])
            differs(names[which]);
    if (number % 1024)
        compare_memory(STACK_WORD - 512, STACK_WORD + 8);
    else
        compare_memory(0, ARENA_WORDS);
}

void main(const char *command_line)
{
    uint64_t calls = option(command_line, "calls", 2000000);
    long version = hypercall(__HYPERVISOR_xen_version, XENVER_version, 0, 0, 0);

    entry = hypercall_page + 32 * __HYPERVISOR_xen_version;
    for (unsigned which = 0; which < REGISTERS; which++)
        wanted[which] = pattern(which + 1000);
    wanted[RDI] = XENVER_version;
    wanted[RSP] = (uint64_t)stack;
    for (uint64_t at = 0; at < ARENA_WORDS; at++)
        arena[at] = pattern(at);
    /* The flags, and the registers that the hypercall page's code may change, as they are after a call. */
    call();
    wanted[FLAGS] = found[FLAGS], wanted[RCX] = found[RCX], wanted[R11] = found[R11];
    print("intact: up\n");
    for (uint64_t number = 0; number < calls; number++) {
        if (call() != version)
            differs("result");
        compare(number);
    }
    print("intact: calls="), print_number((int64_t)calls);
    print(" differences="), print_number((int64_t)differences);
    print(" first="), print(first), print("\n");
}
