# /hold: for (;;) pause();
.intel_syntax noprefix
hold:
    mov eax, 34             # pause
    syscall
    jmp hold
