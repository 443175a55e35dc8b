/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHOAL_KERNELS_AVX2_VECTOR_H
#define SHOAL_KERNELS_AVX2_VECTOR_H

#include <stddef.h>
#include <immintrin.h>

typedef __m256 Vector;
enum { LANES = 8 };

static inline Vector vector_zero(void) {
    return _mm256_setzero_ps();
}

static inline Vector vector_set1(float a) {
    return _mm256_set1_ps(a);
}

static inline Vector vector_load(const float *p) {
    return _mm256_loadu_ps(p);
}

static inline void vector_store(float *p, Vector v) {
    _mm256_storeu_ps(p, v);
}

/* A store past the caches, to an aligned address: memory need not be read first. vector_stream_end
 * comes before others may read it. */
#define SHOAL_VECTOR_STREAM
static inline void vector_stream(float *p, Vector v) {
    _mm256_stream_ps(p, v);
}

static inline void vector_stream_end(void) {
    _mm_sfence();
}

static inline Vector vector_add(Vector a, Vector b) {
    return _mm256_add_ps(a, b);
}

static inline Vector vector_sub(Vector a, Vector b) {
    return _mm256_sub_ps(a, b);
}

/* max(0, a); 0 for a NaN. */
static inline Vector vector_relu(Vector a) {
    return _mm256_max_ps(a, _mm256_setzero_ps());
}

/* a where m > 0, 0 elsewhere. */
static inline Vector vector_where_positive(Vector m, Vector a) {
    return _mm256_and_ps(_mm256_cmp_ps(m, _mm256_setzero_ps(), _CMP_GT_OQ), a);
}

static inline Vector vector_mul(Vector a, Vector b) {
    return _mm256_mul_ps(a, b);
}

static inline Vector vector_fma(Vector a, Vector b, Vector c) {
    return _mm256_fmadd_ps(a, b, c);
}

/* x where a > b, y elsewhere: also where one is a NaN. */
static inline Vector vector_where_greater(Vector a, Vector b, Vector x, Vector y) {
    return _mm256_blendv_ps(y, x, _mm256_cmp_ps(a, b, _CMP_GT_OQ));
}

/* One byte per lane from whole numbers in [0, 255]. */
static inline void vector_store_bytes(unsigned char *p, Vector v) {
    __m256i numbers = _mm256_cvttps_epi32(v);
    __m128i words =
        _mm_packus_epi32(_mm256_castsi256_si128(numbers), _mm256_extracti128_si256(numbers, 1));
    _mm_storel_epi64((__m128i *)(void *)p, _mm_packus_epi16(words, words));
}

/* a where the lane's byte at p is `byte`, 0 elsewhere. */
static inline Vector vector_where_byte(const unsigned char *p, int byte, Vector a) {
    __m128i same = _mm_cmpeq_epi8(_mm_loadl_epi64((const __m128i *)(const void *)p),
                                  _mm_set1_epi8((char)byte));
    return _mm256_and_ps(_mm256_castsi256_ps(_mm256_cvtepi8_epi32(same)), a);
}

typedef __m256i Mask;

static inline Mask mask_of(int low, int high) {
    const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    return _mm256_andnot_si256(_mm256_cmpgt_epi32(_mm256_set1_epi32(low), lane),
                               _mm256_cmpgt_epi32(_mm256_set1_epi32(high), lane));
}

static inline Vector vector_load_masked(const float *p, Mask mask) {
    return _mm256_maskload_ps(p, mask);
}

static inline void vector_store_masked(float *p, Mask mask, Vector v) {
    _mm256_maskstore_ps(p, mask, v);
}

static inline void vector_transpose(Vector v[LANES]) {
    Vector t[LANES];
    for (int i = 0; i < LANES; i += 2) {
        t[i] = _mm256_unpacklo_ps(v[i], v[i + 1]);
        t[i + 1] = _mm256_unpackhi_ps(v[i], v[i + 1]);
    }
    for (int i = 0; i < LANES; i += 4)
        for (int j = 0; j < 2; j++) {
            __m256d a = _mm256_castps_pd(t[i + j]), b = _mm256_castps_pd(t[i + j + 2]);
            v[i + 2 * j] = _mm256_castpd_ps(_mm256_unpacklo_pd(a, b));
            v[i + 2 * j + 1] = _mm256_castpd_ps(_mm256_unpackhi_pd(a, b));
        }
    for (int j = 0; j < 4; j++) {
        t[j] = _mm256_permute2f128_ps(v[j], v[4 + j], 0x20);
        t[4 + j] = _mm256_permute2f128_ps(v[j], v[4 + j], 0x31);
    }
    for (int j = 0; j < LANES; j++)
        v[j] = t[j];
}

#endif
