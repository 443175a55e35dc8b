/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHOAL_COLLECTIVE_WIRE_H
#define SHOAL_COLLECTIVE_WIRE_H

#include <stdint.h>
#include <string.h>

/* Integers on the wire are little-endian, and so is float32: so are all machines that Shoal runs
 * on, hence copies. */
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "big-endian machines need swaps here");
_Static_assert(sizeof(float) == 4, "float32 goes over the wire as it lies in memory");

static inline void shoal_wire_put16(unsigned char *at, uint16_t value) {
    memcpy(at, &value, sizeof(value));
}
static inline void shoal_wire_put32(unsigned char *at, uint32_t value) {
    memcpy(at, &value, sizeof(value));
}
static inline void shoal_wire_put64(unsigned char *at, uint64_t value) {
    memcpy(at, &value, sizeof(value));
}
static inline uint16_t shoal_wire_get16(const unsigned char *at) {
    uint16_t value;
    memcpy(&value, at, sizeof(value));
    return value;
}
static inline uint32_t shoal_wire_get32(const unsigned char *at) {
    uint32_t value;
    memcpy(&value, at, sizeof(value));
    return value;
}
static inline uint64_t shoal_wire_get64(const unsigned char *at) {
    uint64_t value;
    memcpy(&value, at, sizeof(value));
    return value;
}

#endif
