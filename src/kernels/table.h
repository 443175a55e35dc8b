/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHOAL_KERNELS_TABLE_H
#define SHOAL_KERNELS_TABLE_H

#include "kernels/kernels.h"

/* The dispatch table: one static constant per level (table.c of c/, avx2/, avx512/, neon/).
 * Entries fall into two kinds. Whole operations take the ShoalCompute and share the work out
 * themselves. Pieces run in the calling thread on a part of the work; dispatch.c splits and calls
 * them, so that the split is the same at every level. */

struct ShoalBlocked; /* kernels/blocked/blocked.h: what the blocked engine needs of a level */
struct ShoalNchwc;   /* kernels/nchwc/engine.h: what channel-blocked tensors need of a level */

struct ShoalKernels {
    ShoalCpuLevel level;
    const struct ShoalBlocked *blocked; /* NULL where gemm and conv are the reference */
    const struct ShoalNchwc *nchwc;     /* kernels/nchwc/engine.h; NULL: no blocked tensors */

    /* Whole operations, as in kernels.h. m, n > 0 for gemm. */
    void (*gemm)(const ShoalCompute *compute, bool trans_a, bool trans_b, size_t m, size_t n,
                 size_t k, float alpha, const float *a, size_t lda, const float *b, size_t ldb,
                 float beta, float *c, size_t ldc);
    void (*conv_fwd)(const ShoalCompute *compute, const ShoalConvShape *shape, const float *x,
                     const float *w, const float *bias, float *y);
    void (*conv_bwd_data)(const ShoalCompute *compute, const ShoalConvShape *shape, const float *dy,
                          const float *w, float *dx);
    void (*conv_bwd_weights)(const ShoalCompute *compute, const ShoalConvShape *shape,
                             const float *x, const float *dy, float *dw);

    /* Pieces: one plane of a pooling. */
    void (*pool_max_fwd)(const ShoalPoolShape *shape, const float *x, float *y, int32_t *index);
    void (*pool_max_bwd)(const ShoalPoolShape *shape, const float *dy, const int32_t *index,
                         float *dx);
    void (*pool_ave_fwd)(const ShoalPoolShape *shape, const float *x, float *y);
    void (*pool_ave_bwd)(const ShoalPoolShape *shape, const float *dy, float *dx);

    /* Pieces: one outer index of a softmax. */
    void (*softmax_fwd)(size_t classes, size_t inner, const float *x, float *y);
    void (*softmax_bwd)(size_t classes, size_t inner, const float *y, const float *dy, float *dx);

    /* Pieces: a range of elements. The same bits at every level: see elementwise_tmpl.h. */
    void (*relu_fwd)(size_t n, float slope, const float *x, float *y);
    void (*relu_bwd)(size_t n, float slope, const float *x, const float *dy, float *dx);
    void (*axpy)(size_t n, float a, const float *x, float *y);
    void (*scale)(size_t n, float a, float *x);
    void (*add)(size_t n, const float *a, const float *b, float *y);
    void (*mul)(size_t n, const float *a, const float *b, float *y);
    void (*update_sgd)(const ShoalSgdRule *rule, size_t n, const float *g, float *h, float *w);
    void (*update_adaptive)(const ShoalAdaptiveRule *rule, size_t n, const float *g, float *v,
                            float *u, float *w, float *step);
    double (*sumsq)(size_t n, const float *x);
    double (*sum)(size_t n, const float *x);
    double (*asum)(size_t n, const float *x);
    double (*dot)(size_t n, const float *x, const float *y);
    double (*spread)(size_t n, double mean, const float *x); /* sum of (x - mean)^2 */
    void (*affine)(size_t n, float factor, float shift, const float *x, float *y);
    void (*normalize)(size_t n, float mean, float inverse, const float *x, float *y);
    void (*normalize_bwd)(size_t n, float mean_dy, float mean_dot, float inverse, const float *y,
                          const float *dy, float *dx);
    /* Pieces of lrn.c: see lrn_tmpl.h. */
    void (*lrn_square)(size_t n, float factor, const float *x, float *s);
    void (*lrn_fwd)(size_t n, float beta, const float *x, const float *s, float *y);
    void (*lrn_ratio)(size_t n, float beta, const float *x, const float *s, const float *dy,
                      float *r);
    void (*lrn_bwd)(size_t n, float beta, float factor, const float *x, const float *s,
                    const float *dy, const float *t, float *dx);
    /* Pieces: some rows; some columns of rows that are `stride` apart. */
    void (*bias_add)(size_t rows, size_t cols, const float *bias, float *x);
    void (*bias_grad)(size_t rows, size_t cols, size_t stride, const float *dy, float *db);
};

extern const ShoalKernels shoal_kernels_c;
#if defined(__x86_64__)
extern const ShoalKernels shoal_kernels_avx2;
extern const ShoalKernels shoal_kernels_avx512;
#endif
#if defined(__aarch64__)
extern const ShoalKernels shoal_kernels_neon;
#endif

#endif
