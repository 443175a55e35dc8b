/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/blocked/blocked.h"

#include <string.h>

#include "base/memory.h"
#include "kernels/table.h"

/* Blocks: KC of k at a time; a packed block of B is KC x NC and stays in the second-level cache, as
 * do MC rows of A. */
enum { KC = 512, NC = 512, MC = 168, B_FLOATS = KC * NC, SCRATCH_FLOATS = B_FLOATS + KC * MC };
/* B is packed when more rows than these share the packing (or it must be transposed), A when more
 * columns do as well; else they are read where they stand. */
enum { ROWS_WORTH_PACKING = 150, COLUMNS_WORTH_PACKING = 200 };
/* Multiplications that are worth waking a thread for. */
enum { TASK_WORK = 1 << 17 };

/* A(i,p) = a[i*a_row + p*a_col], and so on: transposes are strides. */
typedef struct Gemm {
    const ShoalBlocked *blocked;
    size_t m, n, k;
    float alpha, beta;
    const float *a, *b;
    float *c;
    size_t a_row, a_col, b_row, b_col, c_row, c_col;
    size_t row_parts, col_parts;
    unsigned char *workspace;
} Gemm;

/* Rows [m0, m1) and columns [n0, n1) of C, and [k0, k1) of the sum. */
typedef struct Block {
    size_t m0, m1, n0, n1, k0, k1;
} Block;

/* At most MC rows of A: in place, or packed in tiles: [tile][k][row of the tile]. */
typedef struct Rows {
    size_t begin, end;
    const float *packed; /* or NULL */
} Rows;

size_t shoal_gemm_workspace_bytes(unsigned threads) {
    size_t bytes;
    if (!shoal_size_mul(threads, (size_t)SCRATCH_FLOATS * sizeof(float), &bytes))
        return SIZE_MAX;
    return bytes;
}

static void pack_panel(const Gemm *g, const Block *block, size_t j, size_t width, float *panel) {
    const size_t nr = g->blocked->nr, depth = block->k1 - block->k0;
    const float *from = g->b + block->k0 * g->b_row + j * g->b_col;
    if (width < nr) /* the tile reads whole vectors: no stray bits that might be slow denormals */
        memset(panel, 0, depth * nr * sizeof *panel);
    if (g->b_col != 1) {
        g->blocked->transpose(from, g->b_col, depth, width, panel, nr);
        return;
    }
    for (size_t p = 0; p < depth; p++)
        memcpy(panel + p * nr, from + p * g->b_row, width * sizeof *panel);
}

/* C is stored transposed: the tile goes through a buffer. */
static void tile_transposed(const Gemm *g, ShoalTile *t) {
    float *c = t->c, buffer[SHOAL_MR_MAX * SHOAL_NR_MAX], flipped[SHOAL_MR_MAX * SHOAL_NR_MAX];
    const float beta = t->beta;
    t->c = buffer;
    t->c_row = g->blocked->nr;
    t->beta = 0;
    g->blocked->tile(t);
    if (beta == 0) {
        g->blocked->transpose(buffer, t->c_row, t->n, t->m, c, g->c_col);
        return;
    }
    g->blocked->transpose(buffer, t->c_row, t->n, t->m, flipped, t->m);
    for (size_t j = 0; j < t->n; j++)
        for (size_t i = 0; i < t->m; i++) {
            float *out = c + j * g->c_col + i;
            *out = flipped[j * t->m + i] + beta * *out;
        }
}

static size_t tiles_of(const Gemm *g, const Rows *rows) {
    return shoal_div_up(rows->end - rows->begin, g->blocked->mr);
}

/* Rows [*begin, *end) of tile i. */
static void tile_rows(const Gemm *g, const Rows *rows, size_t i, size_t *begin, size_t *end) {
    size_t count = rows->end - rows->begin, tiles = tiles_of(g, rows);
    *begin = rows->begin + shoal_part_begin(count, tiles, i);
    *end = rows->begin + shoal_part_begin(count, tiles, i + 1);
}

static void pack_rows(const Gemm *g, const Block *block, Rows *rows, float *to) {
    const size_t depth = block->k1 - block->k0;
    rows->packed = to;
    for (size_t i = 0; i < tiles_of(g, rows); i++) {
        size_t begin, end;
        tile_rows(g, rows, i, &begin, &end);
        const size_t width = end - begin;
        const float *a = g->a + begin * g->a_row + block->k0 * g->a_col;
        if (g->a_col == 1)
            g->blocked->transpose(a, g->a_row, depth, width, to, width);
        else
            for (size_t p = 0; p < depth; p++)
                memcpy(to + p * width, a + p * g->a_col, width * sizeof *to);
        to += depth * width;
    }
}

/* Columns [j, j + width) times some rows. */
static void multiply(const Gemm *g, const Block *block, size_t j, size_t width, const float *b,
                     size_t b_row, const Rows *rows) {
    const size_t depth = block->k1 - block->k0;
    for (size_t i = 0; i < tiles_of(g, rows); i++) {
        size_t begin, end;
        tile_rows(g, rows, i, &begin, &end);
        ShoalTile t = {.m = end - begin,
                       .n = width,
                       .k = depth,
                       .a = g->a + begin * g->a_row + block->k0 * g->a_col,
                       .a_row = g->a_row,
                       .a_col = g->a_col,
                       .b = b,
                       .b_row = b_row,
                       .c = g->c + begin * g->c_row + j * g->c_col,
                       .c_row = g->c_row,
                       .alpha = g->alpha,
                       .beta = block->k0 == 0 ? g->beta : 1};
        if (rows->packed) {
            t.a = rows->packed + (begin - rows->begin) * depth;
            t.a_row = 1;
            t.a_col = t.m;
        }
        if (g->c_col == 1)
            g->blocked->tile(&t);
        else
            tile_transposed(g, &t);
    }
}

/* A block of at most NC columns. */
static void block_columns(const Gemm *g, const Block *block, float *scratch) {
    const size_t nr = g->blocked->nr, depth = block->k1 - block->k0;
    const bool many_rows = block->m1 - block->m0 > ROWS_WORTH_PACKING;
    const bool many_columns = block->n1 - block->n0 > COLUMNS_WORTH_PACKING;
    for (size_t m0 = block->m0; m0 < block->m1; m0 += MC) {
        Rows rows = {m0, block->m1 - m0 < MC ? block->m1 : m0 + MC, NULL};
        if (many_rows && many_columns)
            pack_rows(g, block, &rows, scratch + B_FLOATS);
        for (size_t j = block->n0; j < block->n1; j += nr) {
            size_t width = block->n1 - j < nr ? block->n1 - j : nr;
            if (!many_rows && g->b_col == 1 && width == nr) {
                const float *b = g->b + block->k0 * g->b_row + j;
                multiply(g, block, j, width, b, g->b_row, &rows);
                continue;
            }
            float *panel = scratch + (j - block->n0) * depth;
            if (m0 == block->m0)
                pack_panel(g, block, j, width, panel);
            multiply(g, block, j, width, panel, nr, &rows);
        }
    }
}

static void gemm_part(void *context, size_t index, unsigned thread) {
    const Gemm *g = context;
    const size_t mr = g->blocked->mr, nr = g->blocked->nr;
    const size_t row = index / g->col_parts, col = index % g->col_parts;
    const size_t rows = shoal_div_up(g->m, mr), cols = shoal_div_up(g->n, nr);
    float *scratch =
        (float *)(void *)(g->workspace + thread * (size_t)SCRATCH_FLOATS * sizeof(float));
    Block part = {.m0 = shoal_part_begin(rows, g->row_parts, row) * mr,
                  .m1 = shoal_part_begin(rows, g->row_parts, row + 1) * mr};
    size_t n0 = shoal_part_begin(cols, g->col_parts, col) * nr;
    size_t n1 = shoal_part_begin(cols, g->col_parts, col + 1) * nr;
    part.m1 = part.m1 < g->m ? part.m1 : g->m;
    n1 = n1 < g->n ? n1 : g->n;
    const size_t depths = shoal_div_up(g->k, KC);
    for (size_t d = 0; d < depths; d++) {
        part.k0 = shoal_part_begin(g->k, depths, d);
        part.k1 = shoal_part_begin(g->k, depths, d + 1);
        for (part.n0 = n0; part.n0 < n1; part.n0 = part.n1) {
            part.n1 = n1 - part.n0 < NC ? n1 : part.n0 + NC;
            block_columns(g, &part, scratch);
        }
    }
}

/* Swaps the roles: C^T = op(B)^T op(A)^T. */
static void swap_roles(Gemm *g) {
    Gemm old = *g;
    g->m = old.n;
    g->n = old.m;
    g->a = old.b;
    g->a_row = old.b_col;
    g->a_col = old.b_row;
    g->b = old.a;
    g->b_row = old.a_col;
    g->b_col = old.a_row;
    g->c_row = old.c_col;
    g->c_col = old.c_row;
}

/* As many parts as keep the threads busy; a bigger B is worth cutting first. */
static void choose_parts(Gemm *g, unsigned threads) {
    g->row_parts = g->col_parts = 1;
    if (threads == 1)
        return;
    const size_t rows = shoal_div_up(g->m, g->blocked->mr);
    const size_t cols = shoal_div_up(g->n, g->blocked->nr);
    double work = (double)g->m * (double)g->n * (double)g->k / TASK_WORK;
    size_t wanted = 3 * (size_t)threads;
    if (work < (double)wanted)
        wanted = work < 1 ? 1 : (size_t)work;
    g->col_parts = cols < wanted ? cols : wanted;
    size_t more = wanted / g->col_parts;
    g->row_parts = more < 1 ? 1 : more < rows ? more : rows;
}

void shoal_gemm_f32_blocked(const ShoalCompute *compute, bool trans_a, bool trans_b, size_t m,
                            size_t n, size_t k, float alpha, const float *a, size_t lda,
                            const float *b, size_t ldb, float beta, float *c, size_t ldc) {
    Gemm g = {.blocked = compute->kernels->blocked,
              .m = m,
              .n = n,
              .k = k,
              .alpha = alpha,
              .beta = beta,
              .a = a,
              .b = b,
              .c = c,
              .a_row = trans_a ? 1 : lda,
              .a_col = trans_a ? lda : 1,
              .b_row = trans_b ? 1 : ldb,
              .b_col = trans_b ? ldb : 1,
              .c_row = ldc,
              .c_col = 1,
              .workspace = compute->workspace};
    /* A transposed B must be packed, A never: with few rows in A let B be the A. */
    if (trans_b && m < n && m <= ROWS_WORTH_PACKING)
        swap_roles(&g);
    choose_parts(&g, shoal_pool_threads(compute->pool));
    shoal_pool_run(compute->pool, g.row_parts * g.col_parts, gemm_part, &g);
}
