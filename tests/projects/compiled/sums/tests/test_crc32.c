#include <stdio.h>
#include <string.h>

#include "crc32.h"

static int wrong;

static void expect(const char *what, uint32_t found, uint32_t expected)
{
    if (found != expected) {
        fprintf(stderr, "%s: %08x, expected %08x\n", what, (unsigned)found, (unsigned)expected);
        wrong = 1;
    }
}

int main(void)
{
    const unsigned char *digits = (const unsigned char *)"123456789";
    expect("nothing", crc32(0, digits, 0), 0);
    expect("the check string", crc32(0, digits, 9), 0xcbf43926u);
    expect("in two parts", crc32(crc32(0, digits, 4), digits + 4, 5), 0xcbf43926u);
    return wrong;
}
