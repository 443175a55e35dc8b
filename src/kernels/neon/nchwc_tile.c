/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/neon/neon.h"

#if defined(__aarch64__)

#include "kernels/neon/vector.h"

#define SHOAL_INLINE static inline __attribute__((always_inline))
#if defined(__clang__)
#define SHOAL_UNROLL _Pragma("clang loop unroll(full)")
#else
#define SHOAL_UNROLL _Pragma("GCC unroll 16")
#endif

/* NEON multiplies a vector by one lane of another, so four neighbouring numbers of a come with one
 * load and are never broadcast. A tile of 8 rows has 16 sums, 8 vectors of a and 2 of b in the 32
 * registers and loads 16 vectors for 64 FMAs. Vectors of 8 lanes (two registers) would leave room
 * for 5 rows, load as much per FMA, and cost depthwise convolutions and Winograd's transforms,
 * which hold 9 to 36 vectors, twice the registers. */
enum { TILE_ROWS = 8, TILE_VECTORS = 2, WTILE_ROWS = 4, WTILE_VECTORS = 4 };

/* a[lane] * b + sum; the lane is a constant after inlining. */
SHOAL_INLINE Vector fma_lane(Vector a, const int lane, Vector b, Vector sum) {
    switch (lane) {
    case 0:
        return vfmaq_laneq_f32(sum, b, a, 0);
    case 1:
        return vfmaq_laneq_f32(sum, b, a, 1);
    case 2:
        return vfmaq_laneq_f32(sum, b, a, 2);
    default:
        return vfmaq_laneq_f32(sum, b, a, 3);
    }
}

/* --- tile --------------------------------------------------------------------------------- */

/* Steps first..3 of four; a row of a starts at a[at[i]]. */
SHOAL_INLINE const float *tile_quad(const float *a, const size_t at[TILE_ROWS], const float *b,
                                    const int first, const int rows, const int vectors,
                                    Vector sum[TILE_ROWS][TILE_VECTORS]) {
    Vector av[TILE_ROWS];
    SHOAL_UNROLL
    for (int i = 0; i < rows; i++)
        av[i] = vector_load(a + at[i]);
    SHOAL_UNROLL
    for (int q = first; q < 4; q++, b += vectors * LANES) {
        Vector b0 = vector_load(b), b1 = vectors > 1 ? vector_load(b + LANES) : b0;
        SHOAL_UNROLL
        for (int i = 0; i < rows; i++) {
            sum[i][0] = fma_lane(av[i], q, b0, sum[i][0]);
            if (vectors > 1)
                sum[i][1] = fma_lane(av[i], q, b1, sum[i][1]);
        }
    }
    return b;
}

SHOAL_INLINE const float *tile_single(const float *a, const size_t at[TILE_ROWS], const float *b,
                                      const int rows, const int vectors,
                                      Vector sum[TILE_ROWS][TILE_VECTORS]) {
    Vector b0 = vector_load(b), b1 = vectors > 1 ? vector_load(b + LANES) : b0;
    SHOAL_UNROLL
    for (int i = 0; i < rows; i++) {
        Vector av = vector_set1(a[at[i]]);
        sum[i][0] = vector_fma(av, b0, sum[i][0]);
        if (vectors > 1)
            sum[i][1] = vector_fma(av, b1, sum[i][1]);
    }
    return b + vectors * LANES;
}

/* A segment of any length. What is left over four steps is taken from the segment's last four
 * numbers, so that nothing beyond it is read. */
SHOAL_INLINE const float *tile_run(const float *a, size_t length, const size_t at[TILE_ROWS],
                                   const float *b, const int rows, const int vectors,
                                   Vector sum[TILE_ROWS][TILE_VECTORS]) {
    if (length < 4) {
        for (; length > 0; length--, a++)
            b = tile_single(a, at, b, rows, vectors, sum);
        return b;
    }
    for (; length >= 4; length -= 4, a += 4)
        b = tile_quad(a, at, b, 0, rows, vectors, sum);
    if (length == 3)
        return tile_quad(a - 1, at, b, 1, rows, vectors, sum);
    if (length == 2)
        return tile_quad(a - 2, at, b, 2, rows, vectors, sum);
    return length == 1 ? tile_quad(a - 3, at, b, 3, rows, vectors, sum) : b;
}

SHOAL_INLINE void tile_segments(const ShoalNchwcTile *t, const bool block, const int rows,
                                const int vectors, Vector sum[TILE_ROWS][TILE_VECTORS]) {
    size_t at[TILE_ROWS];
    SHOAL_UNROLL
    for (int i = 0; i < rows; i++)
        at[i] = (size_t)i * t->a_row;
    const float *b = t->b, *next = t->a;
    const ptrdiff_t *offsets = t->offsets;
    for (size_t s = t->segments; s > 0; s--, next += t->a_segment) {
        const float *a = offsets ? t->a + *offsets++ : next;
        if (block)
            b = tile_quad(a, at, b, 0, rows, vectors, sum);
        else
            b = tile_run(a, t->length, at, b, rows, vectors, sum);
    }
}

SHOAL_INLINE Vector tile_start(const ShoalNchwcTile *t, const float *c, int v) {
    if (t->accumulate)
        return vector_load(c);
    return t->init ? vector_load(t->init + v * LANES) : vector_zero();
}

SHOAL_INLINE void tile_body(const ShoalNchwcTile *t, const int rows, const int vectors) {
    Vector sum[TILE_ROWS][TILE_VECTORS];
    SHOAL_UNROLL
    for (int i = 0; i < rows; i++)
        SHOAL_UNROLL
    for (int v = 0; v < vectors; v++)
        sum[i][v] = tile_start(t, t->c + (size_t)i * t->c_row + (size_t)v * t->c_col, v);
    if (t->length == LANES)
        tile_segments(t, true, rows, vectors, sum);
    else
        tile_segments(t, false, rows, vectors, sum);
    SHOAL_UNROLL
    for (int i = 0; i < rows; i++)
        SHOAL_UNROLL
    for (int v = 0; v < vectors; v++)
        vector_store(t->c + (size_t)i * t->c_row + (size_t)v * t->c_col, sum[i][v]);
}

/* One function per shape, so that each gets its own register allocation. */
#define TILE(rows)                                                                                 \
    static void tile_##rows##_1(const ShoalNchwcTile *t) {                                         \
        tile_body(t, rows, 1);                                                                     \
    }                                                                                              \
    static void tile_##rows##_2(const ShoalNchwcTile *t) {                                         \
        tile_body(t, rows, 2);                                                                     \
    }
TILE(1)
TILE(2)
TILE(3)
TILE(4)
TILE(5)
TILE(6)
TILE(7)
TILE(8)

static void tile(const ShoalNchwcTile *t) {
    static void (*const shapes[TILE_ROWS][TILE_VECTORS])(const ShoalNchwcTile *) = {
        {tile_1_1, tile_1_2}, {tile_2_1, tile_2_2}, {tile_3_1, tile_3_2}, {tile_4_1, tile_4_2},
        {tile_5_1, tile_5_2}, {tile_6_1, tile_6_2}, {tile_7_1, tile_7_2}, {tile_8_1, tile_8_2},
    };
    shapes[t->rows - 1][t->vectors - 1](t);
}

/* --- wtile -------------------------------------------------------------------------------- */

/* The rows' numbers of one pixel as a vector; nothing beyond them is read. */
SHOAL_INLINE Vector wtile_rows(const float *a, const int rows) {
    return rows == LANES ? vector_load(a) : vector_load_masked(a, mask_of(0, rows));
}

SHOAL_INLINE void wtile_segment(const ShoalNchwcWtile *t, const float *a, const float *b,
                                const int rows, const int vectors,
                                Vector sum[WTILE_ROWS][WTILE_VECTORS]) {
    const size_t a_step = t->a_step, b_step = t->b_step;
    size_t at[WTILE_VECTORS];
    SHOAL_UNROLL
    for (int v = 0; v < vectors; v++)
        at[v] = (size_t)v * t->b_col;
    for (size_t p = t->length; p > 0; p--, a += a_step, b += b_step) {
        const Vector av = wtile_rows(a, rows);
        Vector bv[WTILE_VECTORS];
        SHOAL_UNROLL
        for (int v = 0; v < vectors; v++)
            bv[v] = vector_load(b + at[v]);
        SHOAL_UNROLL
        for (int i = 0; i < rows; i++)
            SHOAL_UNROLL
        for (int v = 0; v < vectors; v++)
            sum[i][v] = fma_lane(av, i, bv[v], sum[i][v]);
    }
}

SHOAL_INLINE void wtile_body(const ShoalNchwcWtile *t, const int rows, const int vectors) {
    Vector sum[WTILE_ROWS][WTILE_VECTORS];
    SHOAL_UNROLL
    for (int i = 0; i < rows; i++)
        SHOAL_UNROLL
    for (int v = 0; v < vectors; v++)
        sum[i][v] = vector_load(t->d + (size_t)i * t->d_row + (size_t)v * t->d_col);
    for (size_t s = 0; s < t->segments; s++)
        wtile_segment(t, t->a_at ? t->a + t->a_at[s] : t->a + s * t->a_segment,
                      t->b_at ? t->b + t->b_at[s] : t->b + s * t->b_segment, rows, vectors, sum);
    SHOAL_UNROLL
    for (int i = 0; i < rows; i++)
        SHOAL_UNROLL
    for (int v = 0; v < vectors; v++)
        vector_store(t->d + (size_t)i * t->d_row + (size_t)v * t->d_col, sum[i][v]);
}

#define WTILE_SHAPE(rows, vectors)                                                                 \
    static void wtile_##rows##_##vectors(const ShoalNchwcWtile *t) {                               \
        wtile_body(t, rows, vectors);                                                              \
    }
#define WTILE(rows)                                                                                \
    WTILE_SHAPE(rows, 1)                                                                           \
    WTILE_SHAPE(rows, 2)                                                                           \
    WTILE_SHAPE(rows, 3)                                                                           \
    WTILE_SHAPE(rows, 4)
WTILE(1)
WTILE(2)
WTILE(3)
WTILE(4)

static void wtile(const ShoalNchwcWtile *t) {
    static void (*const shapes[WTILE_ROWS][WTILE_VECTORS])(const ShoalNchwcWtile *) = {
        {wtile_1_1, wtile_1_2, wtile_1_3, wtile_1_4},
        {wtile_2_1, wtile_2_2, wtile_2_3, wtile_2_4},
        {wtile_3_1, wtile_3_2, wtile_3_3, wtile_3_4},
        {wtile_4_1, wtile_4_2, wtile_4_3, wtile_4_4},
    };
    shapes[t->rows - 1][t->vectors - 1](t);
}

const ShoalNchwcTileKernels shoal_nchwc_tile_neon = {
    .rows = TILE_ROWS,
    .wrows = WTILE_ROWS,
    .wvectors = WTILE_VECTORS,
    .tile = tile,
    .wtile = wtile,
};

#endif
