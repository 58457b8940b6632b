/*
 * The ways into a guest of the lab, and the notes that tell the toolstack of them:
 *
 *   type="pv"   pv_start    64-bit, on the page tables that the domain builder made, RSI = struct start_info
 *   type="pvh"  pvh_start   32-bit, no paging, EBX = struct hvm_start_info
 *   type="hvm"  pvh_start   the same, in the place of the firmware and without the notes
 *
 * All run where they are linked, from BASE (4 MiB) on. Nothing is mapped below it, so that a null pointer faults.
 */
#define BASE 0x400000

    .macro note type:req, value:vararg
    .pushsection .note.Xen, "a", @note
    .balign 4
    .long 4, 2f - 1f, \type
    .asciz "Xen"
1:  \value
2:  .balign 4
    .popsection
    .endm

    note 6, .asciz "hypovisor-lab"      /* XEN_ELFNOTE_GUEST_OS */
    note 5, .asciz "xen-3.0"            /* XEN_ELFNOTE_XEN_VERSION */
    note 8, .asciz "generic"            /* XEN_ELFNOTE_LOADER */
    note 3, .quad BASE                  /* XEN_ELFNOTE_VIRT_BASE */
    note 4, .quad BASE                  /* XEN_ELFNOTE_PADDR_OFFSET */
    note 1, .quad pv_start              /* XEN_ELFNOTE_ENTRY */
    note 2, .quad hypercall_page        /* XEN_ELFNOTE_HYPERCALL_PAGE */
    note 18, .long pvh_start            /* XEN_ELFNOTE_PHYS32_ENTRY */

    .text
    .code64
    .globl pv_start
pv_start:
    cld
    mov $stack_top, %esp
    mov %rsi, %rdi
    call start_pv

/*
 * 4 GiB mapped one to one with 2-MiB pages, except for the first two. Control registers are written whole and never read:
 * QEMU's TCG (10.0 to 11.1 at least) answers a nested guest's reads of them wrongly where Xen intercepts any.
 */
    .code32
    .globl pvh_start
pvh_start:
    cld
    mov $stack_top, %esp
    xor %ecx, %ecx
1:  mov %ecx, %eax
    shl $21, %eax
    or $0x83, %eax                      /* present, writable, 2 MiB */
    mov %eax, directories(, %ecx, 8)
    inc %ecx
    cmp $2048, %ecx
    jb 1b
    movl $0, directories
    movl $0, directories + 8
    movl $directories + 0x0003, pointers
    movl $directories + 0x1003, pointers + 8
    movl $directories + 0x2003, pointers + 16
    movl $directories + 0x3003, pointers + 24
    movl $pointers + 3, top
    mov $0x20, %eax                     /* CR4: PAE */
    mov %eax, %cr4
    mov $top, %eax
    mov %eax, %cr3
    mov $0xc0000080, %ecx               /* EFER: long mode */
    mov $0x100, %eax
    xor %edx, %edx
    wrmsr
    mov $0x80000011, %eax               /* CR0: paging, extension type, protection */
    mov %eax, %cr0
    lgdt descriptors_pointer
    ljmp $8, $1f
    .code64
1:  mov $16, %eax
    mov %eax, %ds
    mov %eax, %es
    mov %eax, %ss
    mov %ebx, %edi
    call start_pvh

    .section .rodata
    .balign 8
descriptors:
    .quad 0
    .quad 0x00af9b000000ffff            /* code, 64-bit */
    .quad 0x00cf93000000ffff            /* data */
descriptors_pointer:
    .word . - descriptors - 1
    .long descriptors

    .section .hypercall_page, "ax"
    .balign 4096
    .globl hypercall_page
hypercall_page:
    .fill 4096, 1, 0xf4                 /* HLT, until Xen fills it */

    .bss
    .balign 4096
top:
    .skip 4096
pointers:
    .skip 4096
directories:
    .skip 4 * 4096
    .skip 16384
stack_top:

    .section .note.GNU-stack, "", @progbits
