/*
 * The guest `known`: makes exactly the calls of known.calls between its two marks, and afterwards says which of them were
 * not answered as expected:
 *
 *     known: wrong row=7 result=-22
 *     known: done calls=1075 wrong=0
 *
 * Nothing else is called between the marks: results are checked as they come and printed at the end.
 */
#include "runtime.h"

enum where { PV = 1, PVH = 2, BOTH = 3 };
enum level { OUTER, INNER };
enum expected { EXACTLY, AT_LEAST };

struct row {
    unsigned repeat;
    enum where where;
    enum level level;
    unsigned number;
    uint64_t args[4];
    enum expected expected;
    int64_t value;
};

/* What the rows point at. */
static char page[4096] __attribute__((aligned(4096)));
static uint64_t zeroes[2];
static char text[] = "known";
static uint16_t self = DOMID_SELF;
static struct evtchn_channel channel = { .dom = DOMID_SELF, .remote_dom = 0 };
static struct sched_poll too_many_ports = { .nr_ports = 1000 };
static struct gnttab_query_size grant_size = { .dom = DOMID_SELF };
static struct xen_hvm_param parameter = { .domid = DOMID_SELF, .index = HVM_PARAM_CONSOLE_PFN };
static struct mmuext_op flush = { .cmd = 6 /* MMUEXT_TLB_FLUSH_LOCAL */ };
static struct multicall_entry entries[8];

#define CALL(repeat, where, level, number, first, second, third, fourth, expected, value) \
    { repeat, where, level, number, \
      { (uint64_t)first, (uint64_t)second, (uint64_t)third, (uint64_t)fourth }, expected, value },
static const struct row rows[] = {
#include "known.calls"
};
#undef CALL

#define ROWS (sizeof(rows) / sizeof(rows[0]))

static int64_t wrong_result[ROWS];
static bool is_wrong[ROWS];

static bool made_here(const struct row *row)
{
    return row->where & (is_pv ? PV : PVH);
}

static void check(size_t at, int64_t result)
{
    bool good = rows[at].expected == EXACTLY ? result == rows[at].value : result >= rows[at].value;

    if (good)
        return;
    is_wrong[at] = true;
    wrong_result[at] = result;
}

/* Fills `entries` from the inner rows. */
static void prepare_multicall(void)
{
    struct multicall_entry *entry = entries;

    for (size_t at = 0; at < ROWS; at++) {
        if (rows[at].level != INNER)
            continue;
        entry->op = rows[at].number;
        for (size_t i = 0; i < 4; i++)
            entry->args[i] = rows[at].args[i];
        entry++;
    }
}

static void check_multicall(void)
{
    const struct multicall_entry *entry = entries;

    for (size_t at = 0; at < ROWS; at++)
        if (rows[at].level == INNER)
            check(at, (entry++)->result);
}

static uint64_t make_calls(void)
{
    uint64_t calls = 0;

    for (size_t at = 0; at < ROWS; at++) {
        const struct row *row = &rows[at];

        if (row->level != OUTER || !made_here(row))
            continue;
        for (unsigned i = 0; i < row->repeat; i++, calls++)
            check(at, hypercall(row->number, row->args[0], row->args[1], row->args[2], row->args[3]));
    }
    return calls;
}

void main(const char *command_line)
{
    uint64_t calls, wrong = 0;

    (void)command_line;
    prepare_multicall();
    mark(MARK_BEGIN);
    calls = make_calls();
    mark(MARK_END);
    check_multicall();
    for (size_t at = 0; at < ROWS; at++) {
        if (!is_wrong[at])
            continue;
        wrong++;
        print("known: wrong row="), print_number((int64_t)at);
        print(" result="), print_number(wrong_result[at]), print("\n");
    }
    print("known: done calls="), print_number((int64_t)calls);
    print(" wrong="), print_number((int64_t)wrong), print("\n");
}
