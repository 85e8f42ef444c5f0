#ifndef CRC32_H
#define CRC32_H

#include <stddef.h>
#include <stdint.h>

/* Carry a CRC-32 (IEEE 802.3) on over more bytes; it begins as 0. */
uint32_t crc32(uint32_t sum, const unsigned char *bytes, size_t count);

#endif
