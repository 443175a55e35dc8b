/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHOAL_KERNELS_BLOCKED_BLOCKED_H
#define SHOAL_KERNELS_BLOCKED_BLOCKED_H

#include <stddef.h>

#include "kernels/kernels.h"
#include "kernels/parts.h"

/* The blocked engine: GEMM and convolution for every instruction set, over the few routines of one
 * record per level. Nothing here uses intrinsics; the routines of the record do.
 *
 * The heart is a tile: a block of C of at most mr x nr numbers that stays in registers while k runs
 * (Goto, van de Geijn: "Anatomy of high-performance matrix multiplication", TOMS 34(3), 2008;
 * Van Zee, van de Geijn: "BLIS", TOMS 41(3), 2015). B is read a vector at a time, so its rows must
 * be contiguous; A is broadcast one number at a time, so any two strides do.
 *
 *   C(i,j) = alpha * (init(i) + sum over p < k, in order, of A(i,p) * B(p,j)) + beta * C(i,j)
 *
 * where each step of the sum is one fused multiply-add and beta 0 does not read C. That every
 * number takes exactly these steps, wherever it lies in whatever tile, is what makes results
 * independent of the number of threads: the split may follow it, the bits do not. */
typedef struct ShoalTile {
    size_t m, n, k; /* 1 <= m <= mr, 1 <= n <= nr, k >= 1 */
    const float *a; /* A(i,p) = a[i * a_row + p * a_col] */
    size_t a_row, a_col;
    const float *b; /* B(p,j) = b[p * b_row + j]; n rounded up to vectors must be readable */
    size_t b_row;
    float *c; /* C(i,j) = c[i * c_row + j]; only m x n numbers are touched */
    size_t c_row;
    float alpha, beta;
    const float *init; /* m numbers, or NULL for 0 */
} ShoalTile;

/* A run of numbers that lie side by side: `length` of them, from `from` on, go to column `to`. */
typedef struct ShoalRun {
    ptrdiff_t from;
    size_t to, length;
} ShoalRun;

/* What the engine needs of a level. No routine keeps state or allocates; pointers need no
 * alignment; nothing is read or written beyond the numbers named. */
typedef struct ShoalBlocked {
    size_t mr, nr;
    void (*tile)(const ShoalTile *tile);
    /* dst[i * dst_row + run.to + j] = src[offsets[i] + run.from + j] for i < rows, every run,
     * j < run.length. */
    void (*pack_runs)(const float *src, const ptrdiff_t *offsets, size_t rows, const ShoalRun *runs,
                      size_t run_count, float *dst, size_t dst_row);
    /* dst[i * dst_row + j] = src[j * src_row + i] for i < rows, j < cols. */
    void (*transpose)(const float *src, size_t src_row, size_t rows, size_t cols, float *dst,
                      size_t dst_row);
    /* The inputs of one channel from its column buffer [kernel_h][kernel_w][stride] (of each row
     * out_height * out_width numbers count): dx[h][w] = sum of columns[u][v][i][j] over the taps
     * (u, v) by which some output (i, j) reads (h, w), in a fixed order. */
    void (*col2im)(const ShoalConvShape *shape, const float *columns, size_t stride, float *dx);
    /* Rows of a depthwise convolution: y[i] += a * x[i * step], x and y apart. */
    void (*row_gather)(size_t n, float a, const float *x, size_t step, float *y);
    /* y[i * step] += a * x[i]. */
    void (*row_scatter)(size_t n, float a, const float *x, float *y, size_t step);
    /* The sum of a[i] * b[i * step], in a fixed order. */
    float (*row_dot)(size_t n, const float *a, const float *b, size_t step);
} ShoalBlocked;

/* The largest mr and nr of all levels; every nr divides SHOAL_NR_MAX. */
enum { SHOAL_MR_MAX = 14, SHOAL_NR_MAX = 32 };

/* The engine's operations, as in kernels/table.h, for a compute whose kernels have `blocked`. */
void shoal_gemm_f32_blocked(const ShoalCompute *compute, bool trans_a, bool trans_b, size_t m,
                            size_t n, size_t k, float alpha, const float *a, size_t lda,
                            const float *b, size_t ldb, float beta, float *c, size_t ldc);
void shoal_conv_fwd_f32_blocked(const ShoalCompute *compute, const ShoalConvShape *shape,
                                const float *x, const float *w, const float *bias, float *y);
void shoal_conv_bwd_data_f32_blocked(const ShoalCompute *compute, const ShoalConvShape *shape,
                                     const float *dy, const float *w, float *dx);
void shoal_conv_bwd_weights_f32_blocked(const ShoalCompute *compute, const ShoalConvShape *shape,
                                        const float *x, const float *dy, float *dw);

#endif
