/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/avx512/avx512.h"

#if defined(__x86_64__)

#include <float.h>
#include <immintrin.h>
#include <string.h>

#include "kernels/c/reference.h"

enum { LANES = 16 };

static bool two_by_two(const ShoalPoolShape *s) {
    return s->kernel_h == 2 && s->kernel_w == 2 && s->stride_h == 2 && s->stride_w == 2 &&
           s->pad_h == 0 && s->pad_w == 0;
}

/* Output columns whose windows lie whole inside the image; likewise rows. */
static int whole_windows(int size, int outs) {
    return size / 2 < outs ? size / 2 : outs;
}

static __mmask16 first_lanes(int count) {
    return count >= LANES ? 0xffff : (__mmask16)((1u << count) - 1);
}

/* Numbers 0, 2, 4, ... (odd = 0) or 1, 3, 5, ... of two vectors. */
static __m512 every_second(__m512 low, __m512 high, int odd) {
    const __m512i even =
        _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    return _mm512_permutex2var_ps(low, _mm512_add_epi32(even, _mm512_set1_epi32(odd)), high);
}

typedef struct Best {
    __m512 value;
    __m512i place;
} Best;

/* A comparison that is false for NaN, as the reference's. */
static void improve(Best *best, __m512 value, __m512i place) {
    __mmask16 more = _mm512_cmp_ps_mask(value, best->value, _CMP_GT_OQ);
    best->value = _mm512_mask_mov_ps(best->value, more, value);
    best->place = _mm512_mask_mov_epi32(best->place, more, place);
}

/* `count` outputs, at most 16, from two rows of the input; `place` is that of x[0]. */
static void windows(const float *x, int width, int place, int count, float *y, int32_t *index) {
    const __m512i steps =
        _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    const __mmask16 low = first_lanes(2 * count);
    const __mmask16 high = count > LANES / 2 ? first_lanes(2 * count - LANES) : 0;
    __m512i at = _mm512_add_epi32(steps, _mm512_set1_epi32(place));
    Best best = {_mm512_set1_ps(-FLT_MAX), _mm512_set1_epi32(-1)};
    for (int row = 0; row < 2; row++, x += width) {
        __m512 a = _mm512_maskz_loadu_ps(low, x), b = _mm512_maskz_loadu_ps(high, x + LANES);
        improve(&best, every_second(a, b, 0), at);
        improve(&best, every_second(a, b, 1), _mm512_add_epi32(at, _mm512_set1_epi32(1)));
        at = _mm512_add_epi32(at, _mm512_set1_epi32(width));
    }
    _mm512_mask_storeu_ps(y, first_lanes(count), best.value);
    _mm512_mask_storeu_epi32(index, first_lanes(count), best.place);
}

void shoal_pool_max_fwd_f32_avx512(const ShoalPoolShape *s, const float *x, float *y,
                                   int32_t *index) {
    if (!two_by_two(s)) {
        shoal_pool_max_fwd_f32_c(s, x, y, index);
        return;
    }
    const int rows = whole_windows(s->height, s->out_height);
    const int cols = whole_windows(s->width, s->out_width);
    for (int i = 0; i < s->out_height; i++) {
        const size_t out = (size_t)i * (size_t)s->out_width;
        const size_t in = 2 * (size_t)i * (size_t)s->width;
        for (int j = 0; i < rows && j < cols; j += LANES)
            windows(x + in + 2 * (size_t)j, s->width, (int)in + 2 * j,
                    cols - j < LANES ? cols - j : LANES, y + out + j, index + out + j);
        shoal_pool_max_fwd_row_f32_c(s, i, i < rows ? cols : 0, x, y, index);
    }
}

/* The two input rows that `count` windows cover: each dy to its place, zeros elsewhere. */
static void spread(const float *dy, const int32_t *index, int width, int place, int count,
                   float *dx) {
    const __m512i steps =
        _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    const __m512i low = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
    const __m512i high = _mm512_add_epi32(low, _mm512_set1_epi32(LANES / 2));
    const __m512i at = _mm512_maskz_loadu_epi32(first_lanes(count), index);
    /* Plus 0, as the reference adds to 0: a -0 becomes 0. */
    const __m512 value =
        _mm512_add_ps(_mm512_maskz_loadu_ps(first_lanes(count), dy), _mm512_setzero_ps());
    __m512i here = _mm512_add_epi32(steps, _mm512_set1_epi32(place));
    for (int row = 0; row < 2; row++, dx += width) {
        __m512i next = _mm512_add_epi32(here, _mm512_set1_epi32(1));
        __m512 even = _mm512_maskz_mov_ps(_mm512_cmpeq_epi32_mask(at, here), value);
        __m512 odd = _mm512_maskz_mov_ps(_mm512_cmpeq_epi32_mask(at, next), value);
        _mm512_mask_storeu_ps(dx, first_lanes(2 * count), _mm512_permutex2var_ps(even, low, odd));
        if (count > LANES / 2)
            _mm512_mask_storeu_ps(dx + LANES, first_lanes(2 * count - LANES),
                                  _mm512_permutex2var_ps(even, high, odd));
        here = _mm512_add_epi32(here, _mm512_set1_epi32(width));
    }
}

void shoal_pool_max_bwd_f32_avx512(const ShoalPoolShape *s, const float *dy, const int32_t *index,
                                   float *dx) {
    /* Every window whole and every input in one: nothing to clear, nothing to add up. */
    if (!two_by_two(s) || s->height != 2 * s->out_height || s->width != 2 * s->out_width) {
        shoal_pool_max_bwd_f32_c(s, dy, index, dx);
        return;
    }
    for (int i = 0; i < s->out_height; i++)
        for (int j = 0; j < s->out_width; j += LANES) {
            const size_t out = (size_t)i * (size_t)s->out_width + (size_t)j;
            const size_t in = 2 * ((size_t)i * (size_t)s->width + (size_t)j);
            spread(dy + out, index + out, s->width, (int)in,
                   s->out_width - j < LANES ? s->out_width - j : LANES, dx + in);
        }
}

#endif
