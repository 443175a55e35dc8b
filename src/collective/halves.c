/* SPDX-License-Identifier: Apache-2.0 */
#include "collective/halves.h"

#include <string.h>

/* All without branches, on signed integers of 32 bits where order matters: so the compiler makes
 * vectors of it with any instruction set. */

static inline int32_t bits_of(float value) {
    int32_t bits;
    memcpy(&bits, &value, sizeof(bits));
    return bits;
}

static inline float float_of(int32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof(value));
    return value;
}

/* condition 0 or 1. */
static inline int32_t choose(int32_t condition, int32_t yes, int32_t no) {
    return (yes & -condition) | (no & ~-condition);
}

#define INFINITE 0x7f800000
#define FP16_LARGEST 0x477fe000         /* 65504 */
#define FP16_SMALLEST_NORMAL 0x38800000 /* 2^-14 */
#define FP16_BIAS 0x38000000            /* what the exponents of the two formats differ by */
#define ONE_HALF 0x3f000000             /* whose last place is fp16's smallest subnormal, 2^-24 */
#define FP16_NAN 0x7e00

static inline int32_t fp16_of(float value) {
    int32_t bits = bits_of(value);
    int32_t size = bits & 0x7fffffff;
    int32_t kept = choose(size < FP16_LARGEST, size, FP16_LARGEST);
    int32_t normal = (kept - FP16_BIAS + 0xfff + ((kept >> 13) & 1)) >> 13;
    int32_t subnormal = bits_of(float_of(kept) + 0.5f) - ONE_HALF;
    int32_t half = choose(kept < FP16_SMALLEST_NORMAL, subnormal, normal);
    half = choose(size > INFINITE, FP16_NAN, half);
    return half | ((int32_t)((uint32_t)bits >> 16) & 0x8000);
}

static inline float float_of_fp16(int32_t half) {
    int32_t size = (half & 0x7fff) << 13;
    int32_t normal = size + FP16_BIAS;
    /* Infinities and NaNs: the largest exponent there is the largest exponent here. */
    normal += FP16_BIAS & -(int32_t)((half & 0x7fff) >= 0x7c00);
    /* 2^-14 (1 + f) - 2^-14 */
    int32_t subnormal = bits_of(float_of(size + FP16_SMALLEST_NORMAL) - 0x1p-14f);
    int32_t found = choose(size < 0x00800000, subnormal, normal);
    return float_of(found | (int32_t)((uint32_t)(half & 0x8000) << 16));
}

static inline int32_t bf16_of(float value) {
    uint32_t bits = (uint32_t)bits_of(value);
    int32_t rounded = (int32_t)((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
    int32_t nan = (int32_t)(bits >> 16) | 0x40;
    return choose((int32_t)(bits & 0x7fffffff) > INFINITE, nan, rounded);
}

static inline float float_of_bf16(int32_t half) {
    return float_of((int32_t)((uint32_t)half << 16));
}

static inline float finite_or_0(float value) {
    int32_t bits = bits_of(value);
    return float_of(bits & -(int32_t)((bits & 0x7fffffff) < INFINITE));
}

#define DEFINE_HALF(name)                                                                          \
    static void name##_encode_plain(const float *restrict values, uint16_t *restrict halves,       \
                                    size_t n) {                                                    \
        for (size_t i = 0; i < n; i++)                                                             \
            halves[i] = (uint16_t)name##_of(values[i]);                                            \
    }                                                                                              \
    static void name##_encode_feedback(const float *restrict values, float *restrict residual,     \
                                       uint16_t *restrict halves, size_t n) {                      \
        for (size_t i = 0; i < n; i++) {                                                           \
            float wanted = values[i] + residual[i];                                                \
            int32_t half = name##_of(wanted);                                                      \
            halves[i] = (uint16_t)half;                                                            \
            residual[i] = finite_or_0(wanted - float_of_##name(half));                             \
        }                                                                                          \
    }                                                                                              \
    void shoal_##name##_encode(const float *values, float *residual, uint16_t *halves, size_t n) { \
        if (residual)                                                                              \
            name##_encode_feedback(values, residual, halves, n);                                   \
        else                                                                                       \
            name##_encode_plain(values, halves, n);                                                \
    }                                                                                              \
    void shoal_##name##_decode(const uint16_t *restrict halves, float *restrict values,            \
                               size_t n) {                                                         \
        for (size_t i = 0; i < n; i++)                                                             \
            values[i] = float_of_##name(halves[i]);                                                \
    }                                                                                              \
    void shoal_##name##_decode_add(const uint16_t *restrict halves, float *restrict values,        \
                                   size_t n) {                                                     \
        for (size_t i = 0; i < n; i++)                                                             \
            values[i] += float_of_##name(halves[i]);                                               \
    }

DEFINE_HALF(fp16)
DEFINE_HALF(bf16)
