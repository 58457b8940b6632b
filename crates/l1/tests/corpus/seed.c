/* What the seeds in fuzz/corpus/symbol_file are made of: the structures that the layout is read from, in the shapes
 * that make reading hard (anonymous unions, typedefs, qualifiers). Compiled with gcc 12, -gdwarf-5, -gdwarf-4 or neither:
 *
 *   gcc -gdwarf-5 -O0 -fno-asynchronous-unwind-tables -nostdlib -static -Wl,-e,lstar_enter seed.c -o dwarf5
 */
typedef unsigned long u64;
typedef unsigned int u32;

struct cpu_user_regs {
    u64 r15, r14, r13, r12, rbp, rbx, r11, r10, r9, r8, rax, rcx, rdx, rsi, rdi;
    u32 error_code, entry_vector;
    u64 rip;
    unsigned short cs;
    u64 rflags, rsp;
    unsigned short ss;
};
struct vcpu;
struct domain;
struct cpu_info {
    struct cpu_user_regs guest_cpu_user_regs;
    u32 processor_id, verw_sel;
    struct vcpu *current_vcpu;
};
struct svm { u64 vmcb_pa; };
struct hvm { u64 a; union { struct svm svm; u64 vmx; }; };
typedef struct { u64 x; struct hvm hvm; } arch_vcpu;
struct vcpu {
    int vcpu_id, processor;
    struct domain *domain;
    volatile arch_vcpu arch;
};
struct domain {
    unsigned short domain_id;
    struct vcpu **vcpu;
    u32 options;
    struct { u32 emulation_flags; } arch;
    struct domain *next_in_list;
    unsigned char handle[16];
};
struct mc_state { u64 flags; u64 call; };

struct domain *hardware_domain;
struct cpu_info cpu;
struct mc_state mc;
struct vcpu first;
struct domain dom;

void pv_hypercall(struct cpu_user_regs *regs) { regs->rax = 0; }
void lstar_enter(struct cpu_user_regs *regs) { pv_hypercall(regs); }
