# /remove PATH ...: unlink each path, or remove it if it is an empty directory.
# Missing files and directories that are not empty are ignored; any other error exits with 1.
.intel_syntax noprefix
    lea rbx, [rsp + 16]     # argv[1]
    xor ebp, ebp            # exit code
next:
    mov rdi, [rbx]
    test rdi, rdi
    je end
    mov eax, 87             # unlink
    syscall
    cmp eax, -21            # EISDIR
    jne result
    mov rdi, [rbx]
    mov eax, 84             # rmdir
    syscall
    cmp eax, -39            # ENOTEMPTY
    je continue
result:
    test eax, eax
    je continue
    cmp eax, -2             # ENOENT
    je continue
    cmp eax, -20            # ENOTDIR
    je continue
    mov ebp, 1
continue:
    add rbx, 8
    jmp next
end:
    mov edi, ebp
    mov eax, 60             # exit
    syscall
