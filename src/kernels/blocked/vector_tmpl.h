/* SPDX-License-Identifier: Apache-2.0 */
/* The routines of ShoalBlocked over a vector type, compiled once per level. The includer defines,
 * with its intrinsics:
 *   Vector, LANES, MR (rows of a full tile, which has 2 vectors per row)
 *   vector_zero() vector_set1(a) vector_load(p) vector_store(p, v)
 *   vector_add(a, b) vector_mul(a, b) vector_fma(a, b, c) = a * b + c, rounded once
 *   Mask, mask_of(low, high): lanes [low, high)
 *   vector_load_masked(p, mask): these lanes from p + lane; others are 0 and not touched
 *   vector_store_masked(p, mask, v)
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
    Mask mask = mask_of(0, (int)count);
    if (beta != 0)
        value = vector_fma(vector_set1(beta), vector_load_masked(c, mask), value);
    vector_store_masked(c, mask, value);
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
    { tile_##rows##_1, tile_##rows##_2 }
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
        SHOAL_TILE_ROW(1),
        SHOAL_TILE_ROW(2),
        SHOAL_TILE_ROW(3),
        SHOAL_TILE_ROW(4),
        SHOAL_TILE_ROW(5),
        SHOAL_TILE_ROW(6),
#if MR == 14
        SHOAL_TILE_ROW(7),
        SHOAL_TILE_ROW(8),
        SHOAL_TILE_ROW(9),
        SHOAL_TILE_ROW(10),
        SHOAL_TILE_ROW(11),
        SHOAL_TILE_ROW(12),
        SHOAL_TILE_ROW(13),
        SHOAL_TILE_ROW(14),
#endif
    };
    shapes[t->m - 1][t->n > LANES](t);
}

/* `count` columns, at most a vector, of all rows. */
static void pack_piece(const float *src, const ptrdiff_t *offsets, size_t rows, size_t count,
                       float *dst, size_t dst_row) {
    if (count == LANES) {
        for (size_t i = 0; i < rows; i++, dst += dst_row)
            vector_store(dst, vector_load(src + offsets[i]));
        return;
    }
    const Mask mask = mask_of(0, (int)count);
    for (size_t i = 0; i < rows; i++, dst += dst_row)
        vector_store_masked(dst, mask, vector_load_masked(src + offsets[i], mask));
}

static size_t longest_run(const ShoalRun *runs, size_t count) {
    size_t longest = 0;
    for (size_t r = 0; r < count; r++)
        longest = runs[r].length > longest ? runs[r].length : longest;
    return longest;
}

/* Rows at a time: short runs share cache lines, which must not leave the cache in between. */
enum { PACK_ROWS = 32 };

static void pack_rows(const float *src, const ptrdiff_t *offsets, size_t rows, const ShoalRun *runs,
                      size_t run_count, float *dst, size_t dst_row) {
    for (size_t r = 0; r < run_count; r++)
        for (size_t j = 0; j < runs[r].length; j += LANES) {
            size_t left = runs[r].length - j;
            pack_piece(src + runs[r].from + j, offsets, rows, left < LANES ? left : LANES,
                       dst + runs[r].to + j, dst_row);
        }
}

static void pack_runs(const float *src, const ptrdiff_t *offsets, size_t rows, const ShoalRun *runs,
                      size_t run_count, float *dst, size_t dst_row) {
    if (longest_run(runs, run_count) == 1) { /* strided pixels: no vectors to be had */
        for (size_t i = 0; i < rows; i++, dst += dst_row)
            for (size_t r = 0; r < run_count; r++)
                dst[runs[r].to] = src[offsets[i] + runs[r].from];
        return;
    }
    for (; rows > PACK_ROWS; rows -= PACK_ROWS, offsets += PACK_ROWS, dst += PACK_ROWS * dst_row)
        pack_rows(src, offsets, PACK_ROWS, runs, run_count, dst, dst_row);
    pack_rows(src, offsets, rows, runs, run_count, dst, dst_row);
}

static void transpose_block(const float *src, size_t src_row, size_t rows, size_t cols, float *dst,
                            size_t dst_row) {
    const Mask from = mask_of(0, (int)rows), to = mask_of(0, (int)cols);
    Vector v[LANES];
    SHOAL_UNROLL
    for (size_t j = 0; j < LANES; j++)
        v[j] = j < cols ? vector_load_masked(src + j * src_row, from) : vector_zero();
    vector_transpose(v);
    SHOAL_UNROLL
    for (size_t i = 0; i < LANES; i++)
        if (i < rows)
            vector_store_masked(dst + i * dst_row, to, v[i]);
}

static void transpose(const float *src, size_t src_row, size_t rows, size_t cols, float *dst,
                      size_t dst_row) {
    for (size_t i = 0; i < rows; i += LANES)
        for (size_t j = 0; j < cols; j += LANES)
            transpose_block(src + j * src_row + i, src_row, rows - i < LANES ? rows - i : LANES,
                            cols - j < LANES ? cols - j : LANES, dst + i * dst_row + j, dst_row);
}

/* Taps [*first, *end) of a column of taps that, at stride 1, make input row `at` (counted with the
 * padding) of an output row in [0, limit): the output is at - tap * dilation. */
static void taps_in_range(long at, int dilation, int limit, int taps, int *first, int *end) {
    long low = at - (limit - 1), high = at < 0 ? 0 : at / dilation + 1;
    *first = low > 0 ? (int)((low + dilation - 1) / dilation) : 0;
    *end = high < taps ? (int)high : taps;
}

/* What a column of taps gives to the inputs [w0, w0 + LANES) of any row. */
typedef struct TapColumn {
    Mask mask; /* of the inputs that it reads */
    ptrdiff_t at;
} TapColumn;

/* Taps of a row that are prepared at a time. */
enum { TAP_COLUMNS = 16 };

/* The tap columns [v, v + count) that read any of the inputs; their number is returned. */
static int tap_columns(const ShoalConvShape *s, size_t stride, int w0, int v, int count,
                       TapColumn *columns) {
    int used = 0;
    for (int end = v + count; v < end; v++) {
        long j = (long)w0 + s->pad_w - (long)v * s->dilation_w; /* output column of lane 0 */
        long low = j < 0 ? -j : 0, lanes = s->width - w0 < LANES ? s->width - w0 : LANES;
        long high = s->out_width - j < lanes ? s->out_width - j : lanes;
        if (low < high)
            columns[used++] = (TapColumn){mask_of((int)low, (int)high),
                                          (ptrdiff_t)((size_t)v * stride) + (ptrdiff_t)j};
    }
    return used;
}

/* The sum of some tap columns for one row, from `at` on, `count` taps down; two sums, so that an
 * addition need not wait for the one before it. */
SHOAL_INLINE Vector add_taps(const float *columns, const TapColumn *tap, int used, ptrdiff_t at,
                             ptrdiff_t step, int count) {
    Vector even = vector_zero(), odd = vector_zero();
    for (int i = 0; i < used; i++) {
        const float *from = columns + (at + tap[i].at);
        const Mask mask = tap[i].mask;
        int u = 0;
        for (; u + 2 <= count; u += 2, from += 2 * step) {
            even = vector_add(even, vector_load_masked(from, mask));
            odd = vector_add(odd, vector_load_masked(from + step, mask));
        }
        if (u < count)
            even = vector_add(even, vector_load_masked(from, mask));
    }
    return vector_add(even, odd);
}

/* Inputs [w0, w0 + LANES) of all rows, both strides 1: gathered in registers, written once. */
static void col2im_unit(const ShoalConvShape *s, const float *columns, size_t stride, int w0,
                        float *dx) {
    const size_t width = (size_t)s->width;
    /* From a tap to the one below: another row of taps, an earlier row of outputs. */
    const ptrdiff_t step = (ptrdiff_t)((size_t)s->kernel_w * stride) -
                           (ptrdiff_t)s->dilation_h * (ptrdiff_t)s->out_width;
    const Mask mask = mask_of(0, s->width - w0 < LANES ? s->width - w0 : LANES);
    TapColumn taps[TAP_COLUMNS];
    for (int v = 0; v < s->kernel_w; v += TAP_COLUMNS) {
        int left = s->kernel_w - v, count = left < TAP_COLUMNS ? left : TAP_COLUMNS;
        int used = tap_columns(s, stride, w0, v, count, taps);
        float *row = dx + w0;
        for (int h = 0; h < s->height; h++, row += width) {
            int first, end;
            taps_in_range((long)h + s->pad_h, s->dilation_h, s->out_height, s->kernel_h, &first,
                          &end);
            ptrdiff_t at =
                (ptrdiff_t)first * step + ((ptrdiff_t)h + s->pad_h) * (ptrdiff_t)s->out_width;
            Vector sum = add_taps(columns, taps, used, at, step, end > first ? end - first : 0);
            if (v > 0)
                sum = vector_add(vector_load_masked(row, mask), sum);
            vector_store_masked(row, mask, sum);
        }
    }
}

/* Adds a row of outputs that tap column v has made of a row of inputs. */
static void col2im_strided_row(const ShoalConvShape *s, const float *outputs, int v, float *dx) {
    long w = (long)v * s->dilation_w - s->pad_w;
    for (int j = 0; j < s->out_width; j++, w += s->stride_w)
        if (w >= 0 && w < s->width)
            dx[w] += outputs[j];
}

static void col2im_strided(const ShoalConvShape *s, const float *columns, size_t stride,
                           float *dx) {
    for (size_t i = 0; i < (size_t)s->height * (size_t)s->width; i++)
        dx[i] = 0;
    for (int u = 0; u < s->kernel_h; u++)
        for (int v = 0; v < s->kernel_w; v++, columns += stride)
            for (int i = 0; i < s->out_height; i++) {
                long h = (long)i * s->stride_h - s->pad_h + (long)u * s->dilation_h;
                if (h >= 0 && h < s->height)
                    col2im_strided_row(s, columns + (size_t)i * (size_t)s->out_width, v,
                                       dx + (size_t)h * (size_t)s->width);
            }
}

static void col2im(const ShoalConvShape *s, const float *columns, size_t stride, float *dx) {
    if (s->stride_h != 1 || s->stride_w != 1) {
        col2im_strided(s, columns, stride, dx);
        return;
    }
    for (int w = 0; w < s->width; w += LANES)
        col2im_unit(s, columns, stride, w, dx);
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
    Vector sum = vector_zero();
    float lane[LANES], total = 0;
    size_t i = 0;
    if (step == 1) {
        for (; i + LANES <= n; i += LANES)
            sum = vector_fma(vector_load(a + i), vector_load(b + i), sum);
        if (i < n) {
            Mask mask = mask_of(0, (int)(n - i));
            sum = vector_fma(vector_load_masked(a + i, mask), vector_load_masked(b + i, mask), sum);
            i = n;
        }
    }
    vector_store(lane, sum);
    for (; i < n; i++)
        lane[i % LANES] += a[i] * b[i * step];
    for (size_t j = 0; j < LANES; j++)
        total += lane[j];
    return total;
}

/* The record's initialiser. */
#define SHOAL_BLOCKED_ENTRIES                                                                      \
    .mr = MR, .nr = 2 * LANES, .tile = tile, .pack_runs = pack_runs, .transpose = transpose,       \
    .col2im = col2im, .row_gather = row_gather, .row_scatter = row_scatter, .row_dot = row_dot
