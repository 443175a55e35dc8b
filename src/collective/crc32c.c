/* SPDX-License-Identifier: Apache-2.0 */
#include "collective/crc32c.h"

/* table[i]: four steps of the reflected polynomial 0x82f63b78 from i. */
static const uint32_t TABLE[16] = {0x00000000u, 0x105ec76fu, 0x20bd8edeu, 0x30e349b1u,
                                   0x417b1dbcu, 0x5125dad3u, 0x61c69362u, 0x7198540du,
                                   0x82f63b78u, 0x92a8fc17u, 0xa24bb5a6u, 0xb21572c9u,
                                   0xc38d26c4u, 0xd3d3e1abu, 0xe330a81au, 0xf36e6f75u};

uint32_t shoal_crc32c(uint32_t before, const void *bytes, size_t size) {
    const unsigned char *p = bytes;
    uint32_t sum = ~before;
    for (size_t i = 0; i < size; i++) {
        sum = sum >> 4 ^ TABLE[(sum ^ p[i]) & 15];
        sum = sum >> 4 ^ TABLE[(sum ^ (uint32_t)p[i] >> 4) & 15];
    }
    return ~sum;
}
