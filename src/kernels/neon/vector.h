/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHOAL_KERNELS_NEON_VECTOR_H
#define SHOAL_KERNELS_NEON_VECTOR_H

#if defined(__aarch64__)

#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <arm_neon.h>

/* Nothing here is younger than Armv8.0-A. */

typedef float32x4_t Vector;
enum { LANES = 4 };

static inline Vector vector_zero(void) {
    return vdupq_n_f32(0);
}

static inline Vector vector_set1(float a) {
    return vdupq_n_f32(a);
}

static inline Vector vector_load(const float *p) {
    return vld1q_f32(p);
}

static inline void vector_store(float *p, Vector v) {
    vst1q_f32(p, v);
}

static inline Vector vector_add(Vector a, Vector b) {
    return vaddq_f32(a, b);
}

static inline Vector vector_sub(Vector a, Vector b) {
    return vsubq_f32(a, b);
}

/* max(0, a); 0 for a NaN. */
static inline Vector vector_relu(Vector a) {
    return vmaxnmq_f32(a, vdupq_n_f32(0));
}

/* a where m > 0, 0 elsewhere. */
static inline Vector vector_where_positive(Vector m, Vector a) {
    return vreinterpretq_f32_u32(vandq_u32(vcgtzq_f32(m), vreinterpretq_u32_f32(a)));
}

static inline Vector vector_mul(Vector a, Vector b) {
    return vmulq_f32(a, b);
}

static inline Vector vector_fma(Vector a, Vector b, Vector c) {
    return vfmaq_f32(c, a, b);
}

/* x where a > b, y elsewhere: also where one is a NaN. */
static inline Vector vector_where_greater(Vector a, Vector b, Vector x, Vector y) {
    return vbslq_f32(vcgtq_f32(a, b), x, y);
}

/* One byte per lane from whole numbers in [0, 255]. */
static inline void vector_store_bytes(unsigned char *p, Vector v) {
    uint16x4_t words = vmovn_u32(vcvtq_u32_f32(v));
    uint8x8_t bytes = vmovn_u16(vcombine_u16(words, words));
    uint32_t four = vget_lane_u32(vreinterpret_u32_u8(bytes), 0);
    memcpy(p, &four, sizeof four);
}

/* a where the lane's byte at p is `byte`, 0 elsewhere. */
static inline Vector vector_where_byte(const unsigned char *p, int byte, Vector a) {
    uint32_t four;
    memcpy(&four, p, sizeof four);
    uint8x8_t same = vceq_u8(vcreate_u8(four), vdup_n_u8((uint8_t)byte));
    int32x4_t mask = vmovl_s16(vget_low_s16(vmovl_s8(vreinterpret_s8_u8(same))));
    return vreinterpretq_f32_s32(vandq_s32(mask, vreinterpretq_s32_f32(a)));
}

/* NEON has no masked loads and stores; lanes go one by one, and nearly all masks are full. */
typedef struct Mask {
    int low, high;
} Mask;

static inline Mask mask_of(int low, int high) {
    return (Mask){low, high};
}

static inline int mask_is_full(Mask mask) {
    return mask.low <= 0 && mask.high >= LANES;
}

static inline int mask_has(Mask mask, int lane) {
    return mask.low <= lane && lane < mask.high;
}

static inline Vector vector_load_masked(const float *p, Mask mask) {
    if (mask_is_full(mask))
        return vld1q_f32(p);
    Vector v = vdupq_n_f32(0);
    if (mask_has(mask, 0))
        v = vld1q_lane_f32(p, v, 0);
    if (mask_has(mask, 1))
        v = vld1q_lane_f32(p + 1, v, 1);
    if (mask_has(mask, 2))
        v = vld1q_lane_f32(p + 2, v, 2);
    if (mask_has(mask, 3))
        v = vld1q_lane_f32(p + 3, v, 3);
    return v;
}

static inline void vector_store_masked(float *p, Mask mask, Vector v) {
    if (mask_is_full(mask)) {
        vst1q_f32(p, v);
        return;
    }
    if (mask_has(mask, 0))
        vst1q_lane_f32(p, v, 0);
    if (mask_has(mask, 1))
        vst1q_lane_f32(p + 1, v, 1);
    if (mask_has(mask, 2))
        vst1q_lane_f32(p + 2, v, 2);
    if (mask_has(mask, 3))
        vst1q_lane_f32(p + 3, v, 3);
}

static inline void vector_transpose(Vector v[LANES]) {
    float32x4x2_t even = vtrnq_f32(v[0], v[1]), odd = vtrnq_f32(v[2], v[3]);
    for (int j = 0; j < 2; j++) {
        v[j] = vcombine_f32(vget_low_f32(even.val[j]), vget_low_f32(odd.val[j]));
        v[2 + j] = vcombine_f32(vget_high_f32(even.val[j]), vget_high_f32(odd.val[j]));
    }
}

#endif

#endif
