/* SPDX-License-Identifier: Apache-2.0 */
/* The routines of ShoalBlocked over a vector type, compiled once per level. The includer defines,
 * with its intrinsics:
 *   Vector, LANES, MR (rows of a full tile, which has 2 vectors per row)
 *   vector_zero() vector_set1(a) vector_load(p) vector_store(p, v)
 *   vector_add(a, b) vector_mul(a, b) vector_fma(a, b, c) = a * b + c, rounded once
 *   vector_load_part(p, low, high): lanes [low, high) from p + lane, others 0 and not touched
 *   vector_store_part(p, count, v): the first `count` lanes
 *   vector_transpose(v): LANES vectors as a square matrix, in place */

#include "kernels/blocked/blocked.h"

#define SHOAL_INLINE static inline __attribute__((always_inline))
#define SHOAL_UNROLL _Pragma("GCC unroll 16")

/* Row i of A: three rows share a base register, so that the addresses fit the register file. */
SHOAL_INLINE const float *row_of(const char *const *base, int i, size_t row_bytes) {
    return (const float *)(base[i / 3] + (size_t)(i % 3) * row_bytes);
}

SHOAL_INLINE void tile_sums(const ShoalTile *t, const int rows, const int vectors,
                            Vector sum[MR][2]) {
    const size_t row_bytes = t->a_row * sizeof(float), col_bytes = t->a_col * sizeof(float);
    const char *base[(MR + 2) / 3];
    SHOAL_UNROLL
    for (int i = 0; i < (rows + 2) / 3; i++)
        base[i] = (const char *)t->a + 3 * (size_t)i * row_bytes;
    const float *b = t->b;
    for (size_t p = t->k; p > 0; p--, b += t->b_row) {
        Vector b0 = vector_load(b), b1 = vectors > 1 ? vector_load(b + LANES) : b0;
        SHOAL_UNROLL
        for (int i = 0; i < rows; i++) {
            Vector a = vector_set1(*row_of(base, i, row_bytes));
            sum[i][0] = vector_fma(a, b0, sum[i][0]);
            if (vectors > 1)
                sum[i][1] = vector_fma(a, b1, sum[i][1]);
        }
        SHOAL_UNROLL
        for (int i = 0; i < (rows + 2) / 3; i++)
            base[i] += col_bytes;
    }
}

SHOAL_INLINE void store_vector(float *c, size_t count, Vector value, Vector alpha, float beta) {
    value = vector_mul(alpha, value);
    if (count >= LANES) {
        if (beta != 0)
            value = vector_fma(vector_set1(beta), vector_load(c), value);
        vector_store(c, value);
        return;
    }
    if (beta != 0)
        value = vector_fma(vector_set1(beta), vector_load_part(c, 0, (int)count), value);
    vector_store_part(c, (int)count, value);
}

SHOAL_INLINE void tile_body(const ShoalTile *t, const int rows, const int vectors) {
    Vector sum[MR][2];
    SHOAL_UNROLL
    for (int i = 0; i < rows; i++) {
        sum[i][0] = t->init ? vector_set1(t->init[i]) : vector_zero();
        sum[i][1] = sum[i][0];
    }
    tile_sums(t, rows, vectors, sum);
    const Vector alpha = vector_set1(t->alpha);
    SHOAL_UNROLL
    for (int i = 0; i < rows; i++) {
        float *c = t->c + (size_t)i * t->c_row;
        store_vector(c, t->n, sum[i][0], alpha, t->beta);
        if (vectors > 1)
            store_vector(c + LANES, t->n - LANES, sum[i][1], alpha, t->beta);
    }
}

/* One function per tile shape, so that each gets its own register allocation. */
#define SHOAL_TILE(rows)                                                                           \
    static void tile_##rows##_1(const ShoalTile *t) {                                              \
        tile_body(t, rows, 1);                                                                     \
    }                                                                                              \
    static void tile_##rows##_2(const ShoalTile *t) {                                              \
        tile_body(t, rows, 2);                                                                     \
    }
#define SHOAL_TILE_ROW(rows)                                                                       \
    {                                                                                              \
        tile_##rows##_1, tile_##rows##_2                                                           \
    }
SHOAL_TILE(1)
SHOAL_TILE(2)
SHOAL_TILE(3)
SHOAL_TILE(4)
SHOAL_TILE(5)
SHOAL_TILE(6)
#if MR == 14
SHOAL_TILE(7)
SHOAL_TILE(8)
SHOAL_TILE(9)
SHOAL_TILE(10)
SHOAL_TILE(11)
SHOAL_TILE(12)
SHOAL_TILE(13)
SHOAL_TILE(14)
#endif

static void tile(const ShoalTile *t) {
    static void (*const shapes[MR][2])(const ShoalTile *) = {
        SHOAL_TILE_ROW(1),  SHOAL_TILE_ROW(2),  SHOAL_TILE_ROW(3),
        SHOAL_TILE_ROW(4),  SHOAL_TILE_ROW(5),  SHOAL_TILE_ROW(6),
#if MR == 14
        SHOAL_TILE_ROW(7),  SHOAL_TILE_ROW(8),  SHOAL_TILE_ROW(9),  SHOAL_TILE_ROW(10),
        SHOAL_TILE_ROW(11), SHOAL_TILE_ROW(12), SHOAL_TILE_ROW(13), SHOAL_TILE_ROW(14),
#endif
    };
    shapes[t->m - 1][t->n > LANES](t);
}

static void copy_run(const float *src, size_t length, float *dst) {
    for (; length >= LANES; length -= LANES, src += LANES, dst += LANES)
        vector_store(dst, vector_load(src));
    if (length > 0)
        vector_store_part(dst, (int)length, vector_load_part(src, 0, (int)length));
}

static void pack_runs(const float *src, const ptrdiff_t *offsets, size_t rows, const ShoalRun *runs,
                      size_t run_count, float *dst, size_t dst_row) {
    if (runs[0].length == 1 && run_count > 1) { /* strided pixels: no vectors to be had */
        for (size_t i = 0; i < rows; i++, dst += dst_row)
            for (size_t r = 0; r < run_count; r++)
                dst[runs[r].to] = src[offsets[i] + runs[r].from];
        return;
    }
    for (size_t r = 0; r < run_count; r++) {
        const float *from = src + runs[r].from;
        float *to = dst + runs[r].to;
        for (size_t i = 0; i < rows; i++, to += dst_row)
            copy_run(from + offsets[i], runs[r].length, to);
    }
}

static void transpose_block(const float *src, size_t src_row, size_t rows, size_t cols, float *dst,
                            size_t dst_row) {
    Vector v[LANES];
    SHOAL_UNROLL
    for (size_t j = 0; j < LANES; j++)
        v[j] = j < cols ? vector_load_part(src + j * src_row, 0, (int)rows) : vector_zero();
    vector_transpose(v);
    SHOAL_UNROLL
    for (size_t i = 0; i < LANES; i++)
        if (i < rows)
            vector_store_part(dst + i * dst_row, (int)cols, v[i]);
}

static void transpose(const float *src, size_t src_row, size_t rows, size_t cols, float *dst,
                      size_t dst_row) {
    for (size_t i = 0; i < rows; i += LANES)
        for (size_t j = 0; j < cols; j += LANES)
            transpose_block(src + j * src_row + i, src_row, rows - i < LANES ? rows - i : LANES,
                            cols - j < LANES ? cols - j : LANES, dst + i * dst_row + j, dst_row);
}

/* Taps [first, end) of a column or row of taps that, for input `at`, fall on an output in
 * [0, limit), at stride 1. */
static void taps_in_range(long at, int dilation, int limit, int taps, int *first, int *end) {
    long low = at - (limit - 1); /* output = at - tap * dilation */
    *first = low > 0 ? (int)((low + dilation - 1) / dilation) : 0;
    long high = at < 0 ? 0 : at / dilation + 1;
    *end = high < taps ? (int)high : taps;
}

/* dx[w0 ..) of col2im_row, one vector of them, where both strides are 1. */
static void col2im_vector(const ShoalConvShape *s, const float *columns, size_t stride, int row,
                          int w0, float *dx) {
    int first, end, lanes = s->width - w0 < LANES ? s->width - w0 : LANES;
    taps_in_range((long)row + s->pad_h, s->dilation_h, s->out_height, s->kernel_h, &first, &end);
    /* From a tap to the one below: another row of taps, an earlier row of outputs. */
    const ptrdiff_t step = (ptrdiff_t)((size_t)s->kernel_w * stride) -
                           (ptrdiff_t)s->dilation_h * (ptrdiff_t)s->out_width;
    Vector sum = vector_zero();
    for (int v = 0; v < s->kernel_w; v++) {
        long j = (long)w0 + s->pad_w - (long)v * s->dilation_w; /* output column of lane 0 */
        long low = j < 0 ? -j : 0, high = s->out_width - j < lanes ? s->out_width - j : lanes;
        if (low >= high)
            continue;
        ptrdiff_t at = (ptrdiff_t)(((size_t)first * (size_t)s->kernel_w + (size_t)v) * stride) +
                       ((ptrdiff_t)row + s->pad_h - (ptrdiff_t)first * s->dilation_h) *
                           (ptrdiff_t)s->out_width +
                       (ptrdiff_t)j;
        for (int u = first; u < end; u++, at += step)
            sum = vector_add(sum, vector_load_part(columns + at, (int)low, (int)high));
    }
    vector_store_part(dx + w0, lanes, sum);
}

/* Adds the outputs i of tap (u, v), a row of columns, to the inputs that it reads. */
static void col2im_strided(const ShoalConvShape *s, const float *outputs, int v, float *dx) {
    long w = (long)v * s->dilation_w - s->pad_w;
    for (int j = 0; j < s->out_width; j++, w += s->stride_w)
        if (w >= 0 && w < s->width)
            dx[w] += outputs[j];
}

static void col2im_row(const ShoalConvShape *s, const float *columns, size_t stride, int row,
                       float *dx) {
    if (s->stride_h == 1 && s->stride_w == 1) {
        for (int w = 0; w < s->width; w += LANES)
            col2im_vector(s, columns, stride, row, w, dx);
        return;
    }
    for (int w = 0; w < s->width; w++)
        dx[w] = 0;
    for (int v = 0; v < s->kernel_w; v++)
        for (int u = 0; u < s->kernel_h; u++) {
            long scaled = (long)row + s->pad_h - (long)u * s->dilation_h;
            if (scaled < 0 || scaled % s->stride_h != 0 || scaled / s->stride_h >= s->out_height)
                continue;
            size_t tap = (size_t)u * (size_t)s->kernel_w + (size_t)v;
            size_t i = (size_t)(scaled / s->stride_h) * (size_t)s->out_width;
            col2im_strided(s, columns + tap * stride + i, v, dx);
        }
}

static void row_gather(size_t n, float a, const float *x, size_t step, float *restrict y) {
    if (step == 1) {
        for (size_t i = 0; i < n; i++)
            y[i] += a * x[i];
        return;
    }
    for (size_t i = 0; i < n; i++)
        y[i] += a * x[i * step];
}

static void row_scatter(size_t n, float a, const float *x, float *restrict y, size_t step) {
    if (step == 1) {
        for (size_t i = 0; i < n; i++)
            y[i] += a * x[i];
        return;
    }
    for (size_t i = 0; i < n; i++)
        y[i * step] += a * x[i];
}

static float row_dot(size_t n, const float *a, const float *b, size_t step) {
    float lane[LANES] = {0};
    size_t i = 0;
    if (step == 1)
        for (; i + LANES <= n; i += LANES)
            for (size_t j = 0; j < LANES; j++)
                lane[j] += a[i + j] * b[i + j];
    for (size_t j = 0; i < n; i++, j = (j + 1) % LANES)
        lane[j] += a[i] * b[i * step];
    for (size_t half = LANES / 2; half > 0; half /= 2)
        for (size_t j = 0; j < half; j++)
            lane[j] += lane[j + half];
    return lane[0];
}

/* The record's initialiser. */
#define SHOAL_BLOCKED_ENTRIES                                                                      \
    .mr = MR, .nr = 2 * LANES, .tile = tile, .pack_runs = pack_runs, .transpose = transpose,       \
    .col2im_row = col2im_row, .row_gather = row_gather, .row_scatter = row_scatter,                \
    .row_dot = row_dot
