/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHOAL_KERNELS_AVX512_VECTOR_H
#define SHOAL_KERNELS_AVX512_VECTOR_H

#include <stddef.h>
#include <immintrin.h>

typedef __m512 Vector;
enum { LANES = 16 };

static inline Vector vector_zero(void) {
    return _mm512_setzero_ps();
}

static inline Vector vector_set1(float a) {
    return _mm512_set1_ps(a);
}

static inline Vector vector_load(const float *p) {
    return _mm512_loadu_ps(p);
}

static inline void vector_store(float *p, Vector v) {
    _mm512_storeu_ps(p, v);
}

/* A store past the caches, to an aligned address: memory need not be read first. vector_stream_end
 * comes before others may read it. */
#define SHOAL_VECTOR_STREAM
static inline void vector_stream(float *p, Vector v) {
    _mm512_stream_ps(p, v);
}

static inline void vector_stream_end(void) {
    _mm_sfence();
}

static inline Vector vector_add(Vector a, Vector b) {
    return _mm512_add_ps(a, b);
}

static inline Vector vector_sub(Vector a, Vector b) {
    return _mm512_sub_ps(a, b);
}

/* max(0, a); 0 for a NaN. */
static inline Vector vector_relu(Vector a) {
    return _mm512_max_ps(a, _mm512_setzero_ps());
}

/* a where m > 0, 0 elsewhere. */
static inline Vector vector_where_positive(Vector m, Vector a) {
    return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(m, _mm512_setzero_ps(), _CMP_GT_OQ), a);
}

static inline Vector vector_mul(Vector a, Vector b) {
    return _mm512_mul_ps(a, b);
}

static inline Vector vector_fma(Vector a, Vector b, Vector c) {
    return _mm512_fmadd_ps(a, b, c);
}

/* x where a > b, y elsewhere: also where one is a NaN. */
static inline Vector vector_where_greater(Vector a, Vector b, Vector x, Vector y) {
    return _mm512_mask_mov_ps(y, _mm512_cmp_ps_mask(a, b, _CMP_GT_OQ), x);
}

/* One byte per lane from whole numbers in [0, 255]. */
static inline void vector_store_bytes(unsigned char *p, Vector v) {
    _mm_storeu_si128((__m128i *)(void *)p, _mm512_cvtepi32_epi8(_mm512_cvttps_epi32(v)));
}

/* a where the lane's byte at p is `byte`, 0 elsewhere. */
static inline Vector vector_where_byte(const unsigned char *p, int byte, Vector a) {
    __m128i bytes = _mm_loadu_si128((const __m128i *)(const void *)p);
    return _mm512_maskz_mov_ps(_mm_cmpeq_epi8_mask(bytes, _mm_set1_epi8((char)byte)), a);
}

typedef __mmask16 Mask;

static inline Mask mask_of(int low, int high) {
    return (Mask)(((1u << high) - 1) & ~((1u << low) - 1));
}

static inline Vector vector_load_masked(const float *p, Mask mask) {
    return _mm512_maskz_loadu_ps(mask, p);
}

static inline void vector_store_masked(float *p, Mask mask, Vector v) {
    _mm512_mask_storeu_ps(p, mask, v);
}

/* 16 x 16 in four rounds: pairs of rows, quads, then 128-bit quarters twice. */
static inline void vector_transpose(Vector v[LANES]) {
    Vector t[LANES];
    for (int i = 0; i < LANES; i += 2) {
        t[i] = _mm512_unpacklo_ps(v[i], v[i + 1]);
        t[i + 1] = _mm512_unpackhi_ps(v[i], v[i + 1]);
    }
    for (int i = 0; i < LANES; i += 4)
        for (int j = 0; j < 2; j++) {
            __m512d a = _mm512_castps_pd(t[i + j]), b = _mm512_castps_pd(t[i + j + 2]);
            v[i + 2 * j] = _mm512_castpd_ps(_mm512_unpacklo_pd(a, b));
            v[i + 2 * j + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(a, b));
        }
    /* v[4q + j]: quarter x holds column 4x + j of rows 4q .. 4q+3. */
    for (int j = 0; j < 4; j++) {
        t[j] = _mm512_shuffle_f32x4(v[j], v[4 + j], 0x88);
        t[4 + j] = _mm512_shuffle_f32x4(v[j], v[4 + j], 0xdd);
        t[8 + j] = _mm512_shuffle_f32x4(v[8 + j], v[12 + j], 0x88);
        t[12 + j] = _mm512_shuffle_f32x4(v[8 + j], v[12 + j], 0xdd);
    }
    for (int j = 0; j < 4; j++) {
        v[j] = _mm512_shuffle_f32x4(t[j], t[8 + j], 0x88);
        v[8 + j] = _mm512_shuffle_f32x4(t[j], t[8 + j], 0xdd);
        v[4 + j] = _mm512_shuffle_f32x4(t[4 + j], t[12 + j], 0x88);
        v[12 + j] = _mm512_shuffle_f32x4(t[4 + j], t[12 + j], 0xdd);
    }
}

#endif
