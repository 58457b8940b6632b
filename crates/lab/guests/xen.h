/*
 * The little of Xen's interface that the lab's guests use. Numbers and layouts are facts of Xen's public headers (xen.h,
 * version.h, sched.h, event_channel.h, memory.h, vcpu.h, grant_table.h, hvm/params.h, io/console.h, arch-x86/hvm/
 * start_info.h; the same in Xen 4.17 and 4.20); only 64-bit guests are meant.
 */
#ifndef LAB_XEN_H
#define LAB_XEN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Hypercall numbers. */
#define __HYPERVISOR_xen_version 17
#define __HYPERVISOR_vcpu_op 24
#define __HYPERVISOR_sched_op 29
#define __HYPERVISOR_event_channel_op 32
#define __HYPERVISOR_hvm_op 34
#define __HYPERVISOR_multicall 13

#define XENVER_version 0

#define SCHEDOP_yield 0
#define SCHEDOP_shutdown 2
#define SCHEDOP_poll 3
#define SHUTDOWN_poweroff 0

#define VCPUOP_get_runstate_info 4

#define EVTCHNOP_send 4

#define HVMOP_get_param 1
#define HVM_PARAM_CONSOLE_PFN 17
#define HVM_PARAM_CONSOLE_EVTCHN 18

#define DOMID_SELF 0x7ff0u

/* Calls that nobody makes by accident: sched_op with this command, the mark's number in the low half. Xen answers -ENOSYS.
 * sched_op, because its command is one of the few arguments that Xen's own trace records. */
#define MARK_COMMAND 0x48590000u
#define MARK_BEGIN 1
#define MARK_END 2 /* the fences of window.sh are 3 and 4 */

/* What a PV guest is started with; RSI points at it. */
struct start_info {
    char magic[32];
    uint64_t nr_pages;
    uint64_t shared_info;
    uint32_t flags;
    uint64_t store_mfn;
    uint32_t store_evtchn;
    uint64_t console_mfn;
    uint32_t console_evtchn;
    uint64_t pt_base;
    uint64_t nr_pt_frames;
    uint64_t mfn_list;
    uint64_t mod_start;
    uint64_t mod_len;
    char cmd_line[1024];
};

/* What a PVH guest is started with; EBX points at it. */
struct hvm_start_info {
    uint32_t magic;
    uint32_t version;
    uint32_t flags;
    uint32_t nr_modules;
    uint64_t modlist_paddr;
    uint64_t cmdline_paddr;
};

/* The console: two rings in a page that is shared with xenconsoled. */
struct xencons_interface {
    char in[1024];
    char out[2048];
    uint32_t in_cons, in_prod;
    uint32_t out_cons, out_prod;
};

struct sched_shutdown {
    uint32_t reason;
};

struct sched_poll {
    uint64_t ports;
    uint32_t nr_ports;
    uint64_t timeout;
};

struct vcpu_runstate_info {
    int state;
    uint64_t state_entry_time;
    uint64_t time[4];
};

struct evtchn_send {
    uint32_t port;
};

/* evtchn_alloc_unbound and evtchn_status agree in where the port is, so one of these serves both. */
struct evtchn_channel {
    uint16_t dom;
    uint16_t remote_dom;
    uint32_t port;
    uint32_t status;
    uint32_t vcpu;
    uint64_t details;
};

struct gnttab_query_size {
    uint16_t dom;
    uint32_t nr_frames;
    uint32_t max_nr_frames;
    int16_t status;
};

struct mmuext_op {
    uint32_t cmd;
    uint64_t arg1;
    uint64_t arg2;
};

struct xen_hvm_param {
    uint16_t domid;
    uint16_t pad;
    uint32_t index;
    uint64_t value;
};

struct multicall_entry {
    uint64_t op;
    int64_t result;
    uint64_t args[6];
};

#endif
