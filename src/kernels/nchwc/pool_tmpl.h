/* SPDX-License-Identifier: Apache-2.0 */
/* ShoalNchwcPoolKernels over the primitives of a level's vector.h, which the includer includes
 * first. The general loops are written once; calls with constants make the fast ones of them. */

#include <float.h>

#include "kernels/nchwc/pool.h"

#define SHOAL_INLINE static inline __attribute__((always_inline))
#define SHOAL_UNROLL _Pragma("GCC unroll 4")

typedef ShoalNchwcPoolRow Row;

/* Places are kept as float while they are compared: every vector has selects for those. */
enum { NO_PLACE = 255 };

static inline int least(int a, int b) {
    return a < b ? a : b;
}

static inline int greatest(int a, int b) {
    return a > b ? a : b;
}

/* How many of `size` and its pads a window covers that begins at `from`. */
static inline int covered(int from, int kernel, int size, int pad) {
    return least(from + kernel, size + pad) - from;
}

/* 1 / size of the window at output (i, j), clipped to the padded image; 0 when it is empty. */
static inline float share_at(const ShoalPoolShape *s, int i, int j) {
    const int h = covered(i * s->stride_h - s->pad_h, s->kernel_h, s->height, s->pad_h);
    const int w = covered(j * s->stride_w - s->pad_w, s->kernel_w, s->width, s->pad_w);
    return h > 0 && w > 0 ? 1.0f / ((float)h * (float)w) : 0;
}

/* Columns [from, to) of the window at output column j lie in the image. */
typedef struct Columns {
    int from, to, x;
} Columns;

static inline Columns columns_at(const ShoalPoolShape *s, int j) {
    const int left = j * s->stride_w - s->pad_w;
    const Columns c = {greatest(0, -left), least(s->kernel_w, s->width - left), left};
    return c;
}

/* --- Maximum -------------------------------------------------------------------------------- */

/* Of columns from, ..., from + columns - 1 of the window at x's column `left`. Places are counted
 * from the window's first number in the image, so that with constants they are constants too. */
SHOAL_INLINE void max_window(const float *x, size_t pitch, const int rows, const int kernel_w,
                             const int columns, int first_place, float *y, uint8_t *place) {
    Vector best = vector_set1(-FLT_MAX), at = vector_set1((float)(NO_PLACE - first_place));
    SHOAL_UNROLL
    for (int u = 0; u < rows; u++, x += pitch) {
        SHOAL_UNROLL
        for (int v = 0; v < columns; v++) {
            const Vector value = vector_load(x + v * LANES);
            at = vector_where_greater(value, best, vector_set1((float)(u * kernel_w + v)), at);
            best = vector_where_greater(value, best, value, best);
        }
    }
    vector_store(y, best);
    vector_store_bytes(place, vector_add(at, vector_set1((float)first_place)));
}

/* A window that holds nothing is -FLT_MAX as one of NaN; only the padding lanes stay 0. */
static void max_nothing(const Row *r, float *y, uint8_t *place) {
    vector_store(y, vector_zero());
    vector_store_masked(y, mask_of(0, (int)r->channels), vector_set1(-FLT_MAX));
    vector_store_bytes(place, vector_set1(NO_PLACE));
}

static void max_window_any(const Row *r, int j, float *y, uint8_t *place) {
    const Columns c = columns_at(r->shape, j);
    if (c.from < c.to && r->rows > 0)
        max_window(r->x + (ptrdiff_t)(c.x + c.from) * LANES, (size_t)r->shape->width * LANES,
                   r->rows, r->shape->kernel_w, c.to - c.from, r->tap * r->shape->kernel_w + c.from,
                   y, place);
    else
        max_nothing(r, y, place);
}

/* Windows whose columns all lie in the image are [from, to). */
static Columns whole_windows(const ShoalPoolShape *s) {
    const int from = (s->pad_w + s->stride_w - 1) / s->stride_w;
    const int room = s->width + s->pad_w - s->kernel_w;
    const Columns c = {least(from, s->out_width),
                       room < 0 ? 0 : least(room / s->stride_w + 1, s->out_width), 0};
    return c;
}

SHOAL_INLINE void max_row(const Row *r, const int rows, const int kernel_w, const int stride,
                          float *y, uint8_t *place) {
    const Columns whole = whole_windows(r->shape);
    const size_t pitch = (size_t)r->shape->width * LANES;
    const int first_place = r->tap * kernel_w, outs = r->shape->out_width;
    const float *x = r->x + (ptrdiff_t)(whole.from * stride - r->shape->pad_w) * LANES;
    int j = 0;
    for (; j < whole.from; j++)
        max_window_any(r, j, y + j * LANES, place + j * LANES);
    for (; j < whole.to; j++, x += stride * LANES)
        max_window(x, pitch, rows, kernel_w, kernel_w, first_place, y + j * LANES,
                   place + j * LANES);
    for (; j < outs; j++)
        max_window_any(r, j, y + j * LANES, place + j * LANES);
}

static void pool_max_fwd(const Row *r, float *y, uint8_t *place) {
    const ShoalPoolShape *s = r->shape;
    if (r->rows == 3 && s->kernel_w == 3 && s->stride_w == 2)
        max_row(r, 3, 3, 2, y, place);
    else if (r->rows == 2 && s->kernel_w == 2 && s->stride_w == 2)
        max_row(r, 2, 2, 2, y, place);
    else if (r->rows > 0)
        max_row(r, r->rows, s->kernel_w, s->stride_w, y, place);
    else
        for (int j = 0; j < s->out_width; j++)
            max_nothing(r, y + j * LANES, place + j * LANES);
}

/* What one pixel gets from `columns` windows, the last of them output column j, whose column v it
 * is; in the order of outputs. */
SHOAL_INLINE Vector max_met(const Row *r, const int rows, const int kernel_w, const int stride_w,
                            const int columns, int j, int v, Vector sum) {
    const ShoalPoolShape *s = r->shape;
    SHOAL_UNROLL
    for (int k = 0; k < rows; k++) {
        const int tap = (r->tap - k * s->stride_h) * kernel_w;
        SHOAL_UNROLL
        for (int c = columns - 1; c >= 0; c--) {
            const size_t at = ((size_t)k * (size_t)s->out_width + (size_t)(j - c)) * LANES;
            sum = vector_add(sum, vector_where_byte(r->place + at, tap + v + c * stride_w,
                                                    vector_load(r->dy + at)));
        }
    }
    return sum;
}

SHOAL_INLINE Vector before(const float *dx, const bool accumulate) {
    return accumulate ? vector_load(dx) : vector_zero();
}

static void max_bwd_pixel(const Row *r, int w, const bool accumulate, float *dx) {
    const ShoalPoolShape *s = r->shape;
    const int end = w + s->pad_w, first = end - s->kernel_w + 1;
    const int last = least(end / s->stride_w, s->out_width - 1);
    const int from = first > 0 ? (first + s->stride_w - 1) / s->stride_w : 0;
    const int columns = greatest(last - from + 1, 0);
    vector_store(dx, max_met(r, r->rows, s->kernel_w, s->stride_w, columns, last,
                             end - last * s->stride_w, before(dx, accumulate)));
}

/* Stride 2 and 2 or 3 columns: pairs of pixels, the first of which meets a window's columns 0 and,
 * of the window before, 2; the second column 1. */
SHOAL_INLINE void max_bwd_row(const Row *r, const int rows, const int kernel_w,
                              const bool accumulate, float *dx) {
    const ShoalPoolShape *s = r->shape;
    int w = 0, j = 1 + s->pad_w / 2;
    for (; w < s->width && w < 2 * j - s->pad_w; w++)
        max_bwd_pixel(r, w, accumulate, dx + w * LANES);
    for (; w + 2 <= s->width && j < s->out_width; w += 2, j++) {
        float *to = dx + w * LANES, *next = to + LANES;
        vector_store(to, max_met(r, rows, kernel_w, 2, kernel_w - 1, j, 0, before(to, accumulate)));
        vector_store(next, max_met(r, rows, kernel_w, 2, 1, j, 1, before(next, accumulate)));
    }
    for (; w < s->width; w++)
        max_bwd_pixel(r, w, accumulate, dx + w * LANES);
}

SHOAL_INLINE void max_bwd_any(const Row *r, const bool accumulate, float *dx) {
    const ShoalPoolShape *s = r->shape;
    if (s->stride_w == 2 && s->kernel_w == 3 && r->rows == 1)
        max_bwd_row(r, 1, 3, accumulate, dx);
    else if (s->stride_w == 2 && s->kernel_w == 3 && r->rows == 2)
        max_bwd_row(r, 2, 3, accumulate, dx);
    else if (s->stride_w == 2 && s->kernel_w == 2 && r->rows == 1)
        max_bwd_row(r, 1, 2, accumulate, dx);
    else
        for (int w = 0; w < s->width; w++)
            max_bwd_pixel(r, w, accumulate, dx + w * LANES);
}

static void pool_max_bwd(const Row *r, bool accumulate, float *dx) {
    if (accumulate)
        max_bwd_any(r, true, dx);
    else
        max_bwd_any(r, false, dx);
}

/* --- Average -------------------------------------------------------------------------------- */

/* Four sums side by side over `pixels` pixels that lie in a row. */
SHOAL_INLINE void sum_pixels(const float *x, size_t pixels, Vector sum[4]) {
    size_t p = 0;
    for (; p + 4 <= pixels; p += 4) {
        SHOAL_UNROLL
        for (size_t i = 0; i < 4; i++)
            sum[i] = vector_add(sum[i], vector_load(x + (p + i) * LANES));
    }
    for (; p < pixels; p++)
        sum[0] = vector_add(sum[0], vector_load(x + p * LANES));
}

static void pool_ave_fwd(const Row *r, float *y) {
    const ShoalPoolShape *s = r->shape;
    for (int j = 0; j < s->out_width; j++) {
        const Columns c = columns_at(s, j);
        const int columns = greatest(c.to - c.from, 0);
        Vector sum[4] = {vector_zero(), vector_zero(), vector_zero(), vector_zero()};
        const float *x = r->x + (ptrdiff_t)(c.x + c.from) * LANES;
        if (columns == s->width)
            sum_pixels(x, (size_t)r->rows * (size_t)columns, sum);
        else
            for (int u = 0; columns > 0 && u < r->rows; u++)
                sum_pixels(x + (size_t)u * (size_t)s->width * LANES, (size_t)columns, sum);
        const Vector all = vector_add(vector_add(sum[0], sum[1]), vector_add(sum[2], sum[3]));
        vector_store(y + j * LANES, vector_mul(all, vector_set1(share_at(s, r->row, j))));
    }
}

/* One window over everything: all pixels get the same. */
SHOAL_INLINE void ave_bwd_same(const Row *r, const bool accumulate, float *dx) {
    const Vector share = vector_mul(vector_load(r->dy), vector_set1(share_at(r->shape, r->row, 0)));
    for (int w = 0; w < r->shape->width; w++, dx += LANES)
        vector_store(dx, accumulate ? vector_add(vector_load(dx), share) : share);
}

SHOAL_INLINE void ave_bwd_pixel(const Row *r, int w, const bool accumulate, float *dx) {
    const ShoalPoolShape *s = r->shape;
    const int end = w + s->pad_w, first = end - s->kernel_w + 1;
    const int last = least(end / s->stride_w, s->out_width - 1);
    const int from = first > 0 ? (first + s->stride_w - 1) / s->stride_w : 0;
    Vector sum = before(dx, accumulate);
    for (int k = 0; k < r->rows; k++)
        for (int j = from; j <= last; j++) {
            const float *dy = r->dy + ((size_t)k * (size_t)s->out_width + (size_t)j) * LANES;
            sum = vector_fma(vector_load(dy), vector_set1(share_at(s, r->row + k, j)), sum);
        }
    vector_store(dx, sum);
}

SHOAL_INLINE void ave_bwd_any(const Row *r, const bool accumulate, float *dx) {
    const ShoalPoolShape *s = r->shape;
    if (s->out_width == 1 && s->pad_w == 0 && s->kernel_w >= s->width && r->rows == 1)
        ave_bwd_same(r, accumulate, dx);
    else
        for (int w = 0; w < s->width; w++)
            ave_bwd_pixel(r, w, accumulate, dx + w * LANES);
}

static void pool_ave_bwd(const Row *r, bool accumulate, float *dx) {
    if (accumulate)
        ave_bwd_any(r, true, dx);
    else
        ave_bwd_any(r, false, dx);
}

#define SHOAL_NCHWC_POOL_ENTRIES                                                                   \
    .max_fwd = pool_max_fwd, .max_bwd = pool_max_bwd, .ave_fwd = pool_ave_fwd,                     \
    .ave_bwd = pool_ave_bwd
