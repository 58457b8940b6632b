/*
 * A guest that Xen does not know: a VMCB, and VMRUN. Its code is a VMMCALL and a HLT, in Xen's own address space and in ring 0; both
 * leave it again. SVM only. Offsets and bits: AMD APM vol. 2, appendix B.
 */
#ifndef HYPOVISOR_VMCB_H
#define HYPOVISOR_VMCB_H

#include "paging.h"

#define EFER_SVME (1ul << 12)
#define MSR_PAT 0x277u
#define EXIT_HLT 0x78
#define EXIT_VMMCALL 0x81
#define VMMCALL_BYTES 3

#define VMCB_INTERCEPTS 0x00c
#define INTERCEPT_NMI (1u << 1)
#define INTERCEPT_HLT (1u << 24)
#define INTERCEPT_SHUTDOWN (1u << 31)
#define VMCB_INTERCEPTS_SVM 0x010
#define INTERCEPT_VMRUN (1u << 0)
#define INTERCEPT_VMMCALL (1u << 1)
#define VMCB_ASID 0x058
#define VMCB_TLB_CONTROL 0x05c
#define FLUSH_ALL 1
#define VMCB_EXIT_CODE 0x070
#define VMCB_ES 0x400
#define VMCB_CS 0x410
#define VMCB_SS 0x420
#define VMCB_DS 0x430
#define VMCB_GDTR 0x460
#define VMCB_IDTR 0x480
#define VMCB_EFER 0x4d0
#define VMCB_CR4 0x548
#define VMCB_CR3 0x550
#define VMCB_CR0 0x558
#define VMCB_DR7 0x560
#define VMCB_DR6 0x568
#define VMCB_RFLAGS 0x570
#define VMCB_RIP 0x578
#define VMCB_PAT 0x668

static u8 vmcb[PAGE_BYTES] __attribute__((aligned(4096)));
extern u8 guest[];

__asm__(".text\n.balign 16\nguest:\n"
        "vmmcall\n"
        "hlt\n");

static inline void set32(size_t offset, u32 value) { *(volatile u32 *)(vmcb + offset) = value; }
static inline void set64(size_t offset, u64 value) { *(volatile u64 *)(vmcb + offset) = value; }
static inline u64 get64(size_t offset) { return *(volatile u64 *)(vmcb + offset); }

static inline void set_segment(size_t offset, u16 selector, u16 attributes, u32 limit, u64 base)
{
    *(volatile u16 *)(vmcb + offset) = selector;
    *(volatile u16 *)(vmcb + offset + 2) = attributes;
    set32(offset + 4, limit);
    set64(offset + 8, base);
}

static inline void set_segments(void)
{
    struct __attribute__((packed)) {
        u16 limit;
        u64 base;
    } gdtr, idtr;
    u16 cs;
    __asm__ volatile("sgdt %0; sidt %1; mov %%cs, %2" : "=m"(gdtr), "=m"(idtr), "=r"(cs));
    set_segment(VMCB_CS, cs, 0xa9b, ~0u, 0); /* 64-bit code */
    set_segment(VMCB_SS, 0, 0xc93, ~0u, 0);
    set_segment(VMCB_DS, 0, 0xc93, ~0u, 0);
    set_segment(VMCB_ES, 0, 0xc93, ~0u, 0);
    set_segment(VMCB_GDTR, 0, 0, gdtr.limit, gdtr.base);
    set_segment(VMCB_IDTR, 0, 0, idtr.limit, idtr.base);
}

/* The last one, which Xen hands out last. */
static inline u32 highest_asid(void)
{
    u32 a = 0x8000000a, b, c = 0, d;
    __asm__ volatile("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
    return b - 1;
}

static inline void build_vmcb(void)
{
    set32(VMCB_INTERCEPTS, INTERCEPT_NMI | INTERCEPT_HLT | INTERCEPT_SHUTDOWN);
    set32(VMCB_INTERCEPTS_SVM, INTERCEPT_VMRUN | INTERCEPT_VMMCALL);
    set32(VMCB_ASID, highest_asid());
    set32(VMCB_TLB_CONTROL, FLUSH_ALL);
    set_segments();
    set64(VMCB_EFER, read_msr(MSR_EFER));
    set64(VMCB_CR0, read_cr0());
    set64(VMCB_CR3, read_cr3());
    set64(VMCB_CR4, read_cr4());
    set64(VMCB_DR6, 0xffff0ff0);
    set64(VMCB_DR7, 0x400);
    set64(VMCB_RFLAGS, 2);
    set64(VMCB_RIP, (u64)guest);
    set64(VMCB_PAT, read_msr(MSR_PAT));
}

/* Host state goes to the area that Xen gave this CPU for it; registers that VMRUN does not switch are not changed by the guest. */
static inline void enter_guest(u64 machine_address)
{
    u64 flags = interrupts_off();
    __asm__ volatile("clgi; vmrun; stgi" : : "a"(machine_address) : "memory", "cc");
    interrupts_back(flags);
}

/* Builds it; its machine address, or 0 where SVM is not enabled. */
static inline u64 make_guest(void)
{
    if (!(read_msr(MSR_EFER) & EFER_SVME))
        return 0;
    build_vmcb();
    return machine_address(vmcb);
}

#endif
