// /remove PATH ...: unlink each path, or remove it if it is an empty directory.
// Missing files and directories that are not empty are ignored; any other error exits with 1.
    add x19, sp, 16         // argv[1]
    mov x20, 0              // exit code
next:
    ldr x21, [x19], 8
    cbz x21, end
    mov x0, -100            // AT_FDCWD
    mov x1, x21
    mov x2, 0
    mov x8, 35              // unlinkat
    svc 0
    cmn x0, 21              // EISDIR
    b.ne result
    mov x0, -100
    mov x1, x21
    mov x2, 0x200           // AT_REMOVEDIR
    mov x8, 35
    svc 0
    cmn x0, 39              // ENOTEMPTY
    b.eq next
result:
    cbz x0, next
    cmn x0, 2               // ENOENT
    b.eq next
    cmn x0, 20              // ENOTDIR
    b.eq next
    mov x20, 1
    b next
end:
    mov x0, x20
    mov x8, 93              // exit
    svc 0
