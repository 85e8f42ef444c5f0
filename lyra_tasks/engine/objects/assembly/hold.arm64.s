// /hold: for (;;) ppoll(0, 0, 0, 0); arm64 has no pause
hold:
    mov x0, 0
    mov x1, 0
    mov x2, 0
    mov x3, 0
    mov x8, 73              // ppoll
    svc 0
    b hold
