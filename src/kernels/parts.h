/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHOAL_KERNELS_PARTS_H
#define SHOAL_KERNELS_PARTS_H

#include <stddef.h>

/* How work is cut. */

/* The i-th of `parts` near-equal parts of [0, total): where it begins; parts >= 1, i <= parts. */
static inline size_t shoal_part_begin(size_t total, size_t parts, size_t i) {
    size_t base = total / parts, rest = total % parts;
    return i * base + (i < rest ? i : rest);
}

static inline size_t shoal_div_up(size_t a, size_t b) {
    return (a + b - 1) / b;
}

static inline size_t shoal_round_up(size_t a, size_t b) {
    return shoal_div_up(a, b) * b;
}

static inline size_t shoal_size_min(size_t a, size_t b) {
    return a < b ? a : b;
}

static inline size_t shoal_size_max(size_t a, size_t b) {
    return a > b ? a : b;
}

#endif
