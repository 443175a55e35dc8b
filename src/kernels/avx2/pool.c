/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/avx2/avx2.h"

#if defined(__x86_64__)

#include <float.h>
#include <immintrin.h>

#include "kernels/c/reference.h"

enum { LANES = 8 };

static bool two_by_two(const ShoalPoolShape *s) {
    return s->kernel_h == 2 && s->kernel_w == 2 && s->stride_h == 2 && s->stride_w == 2 &&
           s->pad_h == 0 && s->pad_w == 0;
}

typedef struct Best {
    __m256 value;
    __m256i place;
} Best;

/* A comparison that is false for NaN, as the reference's. */
static void improve(Best *best, __m256 value, __m256i place) {
    __m256 more = _mm256_cmp_ps(value, best->value, _CMP_GT_OQ);
    best->value = _mm256_blendv_ps(best->value, value, more);
    best->place = _mm256_blendv_epi8(best->place, place, _mm256_castps_si256(more));
}

/* Even and odd numbers of 16; shuffle_ps works within halves, so the quarters are put right. */
static __m256 every_second(__m256 low, __m256 high, int odd) {
    __m256 mixed = odd ? _mm256_shuffle_ps(low, high, 0xdd) : _mm256_shuffle_ps(low, high, 0x88);
    return _mm256_castpd_ps(_mm256_permute4x64_pd(_mm256_castps_pd(mixed), 0xd8));
}

/* 8 outputs from two rows of the input; `place` is that of x[0]. */
static void windows(const float *x, int width, int place, float *y, int32_t *index) {
    const __m256i steps = _mm256_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14);
    __m256i at = _mm256_add_epi32(steps, _mm256_set1_epi32(place));
    Best best = {_mm256_set1_ps(-FLT_MAX), _mm256_set1_epi32(-1)};
    for (int row = 0; row < 2; row++, x += width) {
        __m256 a = _mm256_loadu_ps(x), b = _mm256_loadu_ps(x + LANES);
        improve(&best, every_second(a, b, 0), at);
        improve(&best, every_second(a, b, 1), _mm256_add_epi32(at, _mm256_set1_epi32(1)));
        at = _mm256_add_epi32(at, _mm256_set1_epi32(width));
    }
    _mm256_storeu_ps(y, best.value);
    _mm256_storeu_si256((__m256i *)(void *)index, best.place);
}

void shoal_pool_max_fwd_f32_avx2(const ShoalPoolShape *s, const float *x, float *y,
                                 int32_t *index) {
    if (!two_by_two(s)) {
        shoal_pool_max_fwd_f32_c(s, x, y, index);
        return;
    }
    const int whole = s->width / 2 < s->out_width ? s->width / 2 : s->out_width;
    for (int i = 0; i < s->out_height; i++) {
        const size_t out = (size_t)i * (size_t)s->out_width;
        const size_t in = 2 * (size_t)i * (size_t)s->width;
        int j = 0;
        for (; 2 * i + 1 < s->height && j + LANES <= whole; j += LANES)
            windows(x + in + 2 * (size_t)j, s->width, (int)in + 2 * j, y + out + j,
                    index + out + j);
        shoal_pool_max_fwd_row_f32_c(s, i, j, x, y, index);
    }
}

#endif
