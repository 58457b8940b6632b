# A Linux program for dom0 that runs into a breakpoint: it is killed by SIGTRAP. It makes the gate of the payload `idt` run.
.globl _start
_start:
    int3
    mov $60, %eax
    xor %edi, %edi
    syscall
.section .note.GNU-stack, "", @progbits
