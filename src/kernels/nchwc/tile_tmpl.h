/* SPDX-License-Identifier: Apache-2.0 */
/* The routines of ShoalNchwcTileKernels over a vector type, compiled once per level. The includer
 * defines, with its intrinsics:
 *   Vector, LANES, vector_zero() vector_set1(a) vector_load(p) vector_store(p, v)
 *   vector_fma(a, b, c) = a * b + c, rounded once
 * and with macros:
 *   TILE_ROWS           6 or 14; a tile has up to 2 vectors
 *   WTILE_ROWS 4 or 8, WTILE_VECTORS 3
 * so that the sums, a row of b and one number of a fit the registers: a number of a is broadcast
 * into a register once for all its products, because a load port serves fewer loads than there are
 * multiply-adds. */

#include "kernels/nchwc/engine.h"

#define SHOAL_INLINE static inline __attribute__((always_inline))
#define SHOAL_UNROLL _Pragma("GCC unroll 16")

/* --- tile --------------------------------------------------------------------------------- */

/* Steps of a segment that are unrolled. */
#define TILE_STEPS 4
/* Three rows share a base register, so that the addresses fit the register file. */
#define TILE_BASES(rows) (((rows) + 2) / 3)

/* Makes the compiler believe that a distance or address is a new one, so that it adds it up in
 * every step instead of keeping a register for each sum of a distance and a step. */
#define TILE_HIDE(address) __asm__("" : "+r"(address))

SHOAL_INLINE void tile_step(const float *const *base, size_t row, size_t p, const float *b,
                            const int rows, const int vectors, Vector sum[TILE_ROWS][2]) {
    Vector b0 = vector_load(b), b1 = vectors > 1 ? vector_load(b + LANES) : b0;
    SHOAL_UNROLL
    for (int i = 0; i < rows; i++) {
        Vector a = vector_set1((base[i / 3] + (size_t)(i % 3) * row)[p]);
        sum[i][0] = vector_fma(a, b0, sum[i][0]);
        if (vectors > 1)
            sum[i][1] = vector_fma(a, b1, sum[i][1]);
    }
}

SHOAL_INLINE const float *tile_segment(const float *a, size_t row, size_t length, const float *b,
                                       const int rows, const int vectors,
                                       Vector sum[TILE_ROWS][2]) {
    const float *base[TILE_BASES(TILE_ROWS)];
    SHOAL_UNROLL
    for (int i = 0; i < TILE_BASES(rows); i++)
        base[i] = a + 3 * (size_t)i * row;
    size_t p = 0;
    for (; p + TILE_STEPS <= length; p += TILE_STEPS) {
        SHOAL_UNROLL
        for (size_t q = 0; q < TILE_STEPS; q++, b += vectors * LANES) {
            TILE_HIDE(row);
            tile_step(base, row, q, b, rows, vectors, sum);
        }
        SHOAL_UNROLL
        for (int i = 0; i < TILE_BASES(rows); i++)
            base[i] += TILE_STEPS;
    }
    for (; p < length; p++, b += vectors * LANES) {
        tile_step(base, row, 0, b, rows, vectors, sum);
        SHOAL_UNROLL
        for (int i = 0; i < TILE_BASES(rows); i++)
            base[i]++;
    }
    return b;
}

SHOAL_INLINE void tile_segments(const ShoalNchwcTile *t, const size_t length, const int rows,
                                const int vectors, Vector sum[TILE_ROWS][2]) {
    const float *b = t->b, *a = t->a;
    const size_t row = t->a_row;
    const ptrdiff_t *at = t->offsets;
    for (size_t s = t->segments; s > 0; s--, a += t->a_segment) {
        const float *from = at ? t->a + *at++ : a;
        b = tile_segment(from, row, length, b, rows, vectors, sum);
    }
}

SHOAL_INLINE void tile_start(const ShoalNchwcTile *t, const int rows, const int vectors,
                             Vector sum[TILE_ROWS][2]) {
    SHOAL_UNROLL
    for (int i = 0; i < rows; i++)
        SHOAL_UNROLL
    for (int v = 0; v < vectors; v++)
        sum[i][v] = t->accumulate ? vector_load(t->c + (size_t)i * t->c_row + (size_t)v * t->c_col)
                    : t->init     ? vector_load(t->init + v * LANES)
                                  : vector_zero();
}

SHOAL_INLINE void tile_body(const ShoalNchwcTile *t, const int rows, const int vectors) {
    Vector sum[TILE_ROWS][2];
    tile_start(t, rows, vectors, sum);
    if (t->length == LANES)
        tile_segments(t, LANES, rows, vectors, sum);
    else
        tile_segments(t, t->length, rows, vectors, sum);
    SHOAL_UNROLL
    for (int i = 0; i < rows; i++)
        SHOAL_UNROLL
    for (int v = 0; v < vectors; v++)
        vector_store(t->c + (size_t)i * t->c_row + (size_t)v * t->c_col, sum[i][v]);
}

/* One function per shape, so that each gets its own register allocation. */
#define SHOAL_TILE(rows)                                                                           \
    static void tile_##rows##_1(const ShoalNchwcTile *t) {                                         \
        tile_body(t, rows, 1);                                                                     \
    }                                                                                              \
    static void tile_##rows##_2(const ShoalNchwcTile *t) {                                         \
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
#if TILE_ROWS == 14
SHOAL_TILE(7)
SHOAL_TILE(8)
SHOAL_TILE(9)
SHOAL_TILE(10)
SHOAL_TILE(11)
SHOAL_TILE(12)
SHOAL_TILE(13)
SHOAL_TILE(14)
#endif

static void tile(const ShoalNchwcTile *t) {
    static void (*const shapes[TILE_ROWS][2])(const ShoalNchwcTile *) = {
        SHOAL_TILE_ROW(1),
        SHOAL_TILE_ROW(2),
        SHOAL_TILE_ROW(3),
        SHOAL_TILE_ROW(4),
        SHOAL_TILE_ROW(5),
        SHOAL_TILE_ROW(6),
#if TILE_ROWS == 14
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
    shapes[t->rows - 1][t->vectors - 1](t);
}

/* --- wtile -------------------------------------------------------------------------------- */

/* Steps by which a and b are fetched ahead: they come from L2 and beyond. */
enum { WTILE_AHEAD = 16 };

/* Steps that are unrolled: rows of images tend to be multiples of 7 pixels. */
enum { WTILE_STEPS = 7 };

SHOAL_INLINE void wtile_step(const ShoalNchwcWtile *t, const float *a, const float *b,
                             const int rows, const int vectors,
                             Vector sum[WTILE_ROWS][WTILE_VECTORS]) {
    Vector bv[WTILE_VECTORS];
    __builtin_prefetch(a + WTILE_AHEAD * t->a_step);
    SHOAL_UNROLL
    for (int v = 0; v < vectors; v++) {
        bv[v] = vector_load(b + (size_t)v * t->b_col);
        __builtin_prefetch(b + (size_t)v * t->b_col + WTILE_AHEAD * t->b_step);
    }
    SHOAL_UNROLL
    for (int i = 0; i < rows; i++) {
        Vector av = vector_set1(a[i]);
        SHOAL_UNROLL
        for (int v = 0; v < vectors; v++)
            sum[i][v] = vector_fma(av, bv[v], sum[i][v]);
    }
}

/* Fetches into L2. */
SHOAL_INLINE const float *wtile_ahead(const float *ahead, size_t step) {
    __builtin_prefetch(ahead, 0, 2);
    return ahead + step;
}

SHOAL_INLINE const float *wtile_segment(const ShoalNchwcWtile *t, const float *a, const float *b,
                                        const float *ahead, size_t ahead_step, const int rows,
                                        const int vectors, Vector sum[WTILE_ROWS][WTILE_VECTORS]) {
    size_t left = t->length;
    for (; left >= WTILE_STEPS; left -= WTILE_STEPS)
        SHOAL_UNROLL
    for (int q = 0; q < WTILE_STEPS; q++, a += t->a_step, b += t->b_step) {
        TILE_HIDE(a);
        TILE_HIDE(b);
        ahead = wtile_ahead(ahead, ahead_step);
        wtile_step(t, a, b, rows, vectors, sum);
    }
    for (; left > 0; left--, a += t->a_step, b += t->b_step)
        wtile_step(t, a, b, rows, vectors, sum);
    return ahead;
}

SHOAL_INLINE void wtile_body(const ShoalNchwcWtile *t, const int rows, const int vectors) {
    Vector sum[WTILE_ROWS][WTILE_VECTORS];
    SHOAL_UNROLL
    for (int i = 0; i < rows; i++)
        SHOAL_UNROLL
    for (int v = 0; v < vectors; v++)
        sum[i][v] = vector_load(t->d + (size_t)i * t->d_row + (size_t)v * t->d_col);
    const float *ahead = t->ahead ? t->ahead : t->a;
    const size_t ahead_step = t->ahead ? LANES : 0;
    for (size_t s = 0; s < t->segments; s++)
        ahead = wtile_segment(t, t->a_at ? t->a + t->a_at[s] : t->a + s * t->a_segment,
                              t->b_at ? t->b + t->b_at[s] : t->b + s * t->b_segment, ahead,
                              ahead_step, rows, vectors, sum);
    SHOAL_UNROLL
    for (int i = 0; i < rows; i++)
        SHOAL_UNROLL
    for (int v = 0; v < vectors; v++)
        vector_store(t->d + (size_t)i * t->d_row + (size_t)v * t->d_col, sum[i][v]);
}

#define SHOAL_WTILE(rows)                                                                          \
    static void wtile_##rows##_1(const ShoalNchwcWtile *t) {                                       \
        wtile_body(t, rows, 1);                                                                    \
    }                                                                                              \
    static void wtile_##rows##_2(const ShoalNchwcWtile *t) {                                       \
        wtile_body(t, rows, 2);                                                                    \
    }                                                                                              \
    static void wtile_##rows##_3(const ShoalNchwcWtile *t) {                                       \
        wtile_body(t, rows, 3);                                                                    \
    }
#define SHOAL_WTILE_ROW(rows)                                                                      \
    { wtile_##rows##_1, wtile_##rows##_2, wtile_##rows##_3 }
SHOAL_WTILE(1)
SHOAL_WTILE(2)
SHOAL_WTILE(3)
SHOAL_WTILE(4)
#if WTILE_ROWS == 8
SHOAL_WTILE(5)
SHOAL_WTILE(6)
SHOAL_WTILE(7)
SHOAL_WTILE(8)
#endif

static void wtile(const ShoalNchwcWtile *t) {
    static void (*const shapes[WTILE_ROWS][WTILE_VECTORS])(const ShoalNchwcWtile *) = {
        SHOAL_WTILE_ROW(1),
        SHOAL_WTILE_ROW(2),
        SHOAL_WTILE_ROW(3),
        SHOAL_WTILE_ROW(4),
#if WTILE_ROWS == 8
        SHOAL_WTILE_ROW(5),
        SHOAL_WTILE_ROW(6),
        SHOAL_WTILE_ROW(7),
        SHOAL_WTILE_ROW(8),
#endif
    };
    shapes[t->rows - 1][t->vectors - 1](t);
}

/* The record's initialiser. */
#define SHOAL_NCHWC_TILE_ENTRIES                                                                   \
    .rows = TILE_ROWS, .wrows = WTILE_ROWS, .wvectors = WTILE_VECTORS, .tile = tile, .wtile = wtile
