/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/kernels.h"

#include <string.h>

#include "kernels/nchwc/engine.h"
#include "kernels/range.h"
#include "kernels/table.h"

const ShoalKernels *shoal_kernels_for(ShoalCpuLevel level) {
    if (!shoal_cpu_level_usable(level))
        return NULL;
    switch (level) {
    case SHOAL_CPU_C:
        return &shoal_kernels_c;
#if defined(__x86_64__)
    case SHOAL_CPU_AVX2:
        return &shoal_kernels_avx2;
    case SHOAL_CPU_AVX512:
        return &shoal_kernels_avx512;
#endif
#if defined(__aarch64__)
    case SHOAL_CPU_NEON:
        return &shoal_kernels_neon;
#endif
    default:
        return NULL;
    }
}

int shoal_nchwc_lanes(const ShoalKernels *kernels) {
    return kernels->nchwc ? (int)kernels->nchwc->lanes : 0;
}

/* --- GEMM and convolution ----------------------------------------------------------------- */

static void scale_matrix(size_t m, size_t n, float beta, float *c, size_t ldc) {
    for (size_t i = 0; i < m; i++) {
        if (beta == 0)
            memset(c + i * ldc, 0, n * sizeof *c);
        else
            for (size_t j = 0; j < n; j++)
                c[i * ldc + j] *= beta;
    }
}

void shoal_gemm(const ShoalCompute *compute, bool trans_a, bool trans_b, size_t m, size_t n,
                size_t k, float alpha, const float *a, size_t lda, const float *b, size_t ldb,
                float beta, float *c, size_t ldc) {
    if (m == 0 || n == 0)
        return;
    if (k == 0 || alpha == 0) { /* as BLAS: A and B are not read */
        if (beta != 1)
            scale_matrix(m, n, beta, c, ldc);
        return;
    }
    compute->kernels->gemm(compute, trans_a, trans_b, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
}

void shoal_conv_fwd(const ShoalCompute *compute, const ShoalConvShape *shape, const float *x,
                    const float *w, const float *bias, float *y) {
    compute->kernels->conv_fwd(compute, shape, x, w, bias, y);
}

void shoal_conv_bwd_data(const ShoalCompute *compute, const ShoalConvShape *shape, const float *dy,
                         const float *w, float *dx) {
    compute->kernels->conv_bwd_data(compute, shape, dy, w, dx);
}

typedef struct ConvBias {
    const ShoalKernels *kernels;
    const ShoalConvShape *shape;
    const float *dy;
    float *db;
} ConvBias;

static void conv_bias_range(const void *context, size_t begin, size_t end) {
    const ConvBias *c = context;
    size_t outputs = (size_t)c->shape->outputs;
    size_t plane = (size_t)c->shape->out_height * (size_t)c->shape->out_width;
    for (size_t o = begin; o < end; o++) {
        double sum = (double)c->db[o];
        for (size_t b = 0; b < (size_t)c->shape->batch; b++)
            sum += c->kernels->sum(plane, c->dy + (b * outputs + o) * plane);
        c->db[o] = (float)sum;
    }
}

void shoal_conv_bwd_weights(const ShoalCompute *compute, const ShoalConvShape *shape,
                            const float *x, const float *dy, float *dw, float *db) {
    compute->kernels->conv_bwd_weights(compute, shape, x, dy, dw);
    if (!db)
        return;
    ConvBias context = {compute->kernels, shape, dy, db};
    size_t plane = (size_t)shape->out_height * (size_t)shape->out_width;
    run_range(compute, (size_t)shape->outputs, (size_t)shape->batch * plane, conv_bias_range,
              &context);
}

/* --- Pooling and softmax ------------------------------------------------------------------ */

typedef struct Pooling {
    const ShoalKernels *kernels;
    const ShoalPoolShape *shape;
    size_t in_plane, out_plane;
    const float *from;
    float *to;
    int32_t *index_out;
    const int32_t *index_in;
} Pooling;

static Pooling pooling_of(const ShoalCompute *compute, const ShoalPoolShape *shape,
                          const float *from, float *to) {
    return (Pooling){.kernels = compute->kernels,
                     .shape = shape,
                     .in_plane = (size_t)shape->height * (size_t)shape->width,
                     .out_plane = (size_t)shape->out_height * (size_t)shape->out_width,
                     .from = from,
                     .to = to};
}

static void max_fwd_range(const void *context, size_t begin, size_t end) {
    const Pooling *p = context;
    for (size_t i = begin; i < end; i++)
        p->kernels->pool_max_fwd(p->shape, p->from + i * p->in_plane, p->to + i * p->out_plane,
                                 p->index_out + i * p->out_plane);
}

static void max_bwd_range(const void *context, size_t begin, size_t end) {
    const Pooling *p = context;
    for (size_t i = begin; i < end; i++)
        p->kernels->pool_max_bwd(p->shape, p->from + i * p->out_plane,
                                 p->index_in + i * p->out_plane, p->to + i * p->in_plane);
}

static void ave_fwd_range(const void *context, size_t begin, size_t end) {
    const Pooling *p = context;
    for (size_t i = begin; i < end; i++)
        p->kernels->pool_ave_fwd(p->shape, p->from + i * p->in_plane, p->to + i * p->out_plane);
}

static void ave_bwd_range(const void *context, size_t begin, size_t end) {
    const Pooling *p = context;
    for (size_t i = begin; i < end; i++)
        p->kernels->pool_ave_bwd(p->shape, p->from + i * p->out_plane, p->to + i * p->in_plane);
}

void shoal_pool_max_fwd(const ShoalCompute *compute, const ShoalPoolShape *shape, const float *x,
                        float *y, int32_t *index) {
    Pooling p = pooling_of(compute, shape, x, y);
    p.index_out = index;
    run_range(compute, (size_t)shape->planes, p.in_plane, max_fwd_range, &p);
}

void shoal_pool_max_bwd(const ShoalCompute *compute, const ShoalPoolShape *shape, const float *dy,
                        const int32_t *index, float *dx) {
    Pooling p = pooling_of(compute, shape, dy, dx);
    p.index_in = index;
    run_range(compute, (size_t)shape->planes, p.in_plane, max_bwd_range, &p);
}

void shoal_pool_ave_fwd(const ShoalCompute *compute, const ShoalPoolShape *shape, const float *x,
                        float *y) {
    Pooling p = pooling_of(compute, shape, x, y);
    run_range(compute, (size_t)shape->planes, p.in_plane, ave_fwd_range, &p);
}

void shoal_pool_ave_bwd(const ShoalCompute *compute, const ShoalPoolShape *shape, const float *dy,
                        float *dx) {
    Pooling p = pooling_of(compute, shape, dy, dx);
    run_range(compute, (size_t)shape->planes, p.in_plane, ave_bwd_range, &p);
}

typedef struct Softmax {
    const ShoalKernels *kernels;
    size_t classes, inner;
    const float *y, *dy;
    float *out;
} Softmax;

static void softmax_fwd_range(const void *context, size_t begin, size_t end) {
    const Softmax *s = context;
    for (size_t i = begin; i < end; i++) {
        size_t at = i * s->classes * s->inner;
        s->kernels->softmax_fwd(s->classes, s->inner, s->y + at, s->out + at);
    }
}

static void softmax_bwd_range(const void *context, size_t begin, size_t end) {
    const Softmax *s = context;
    for (size_t i = begin; i < end; i++) {
        size_t at = i * s->classes * s->inner;
        s->kernels->softmax_bwd(s->classes, s->inner, s->y + at, s->dy + at, s->out + at);
    }
}

void shoal_softmax_fwd(const ShoalCompute *compute, size_t outer, size_t classes, size_t inner,
                       const float *x, float *y) {
    Softmax s = {compute->kernels, classes, inner, x, NULL, y};
    run_range(compute, outer, classes * inner, softmax_fwd_range, &s);
}

void shoal_softmax_bwd(const ShoalCompute *compute, size_t outer, size_t classes, size_t inner,
                       const float *y, const float *dy, float *dx) {
    Softmax s = {compute->kernels, classes, inner, y, dy, dx};
    run_range(compute, outer, classes * inner, softmax_bwd_range, &s);
}

/* --- Vectors ------------------------------------------------------------------------------ */

typedef struct Vector {
    const ShoalKernels *kernels;
    const ShoalSgdRule *rule;
    float factor;
    const float *a, *b;
    float *y, *w;
    size_t rows, cols;
} Vector;

static void relu_fwd_range(const void *context, size_t begin, size_t end) {
    const Vector *v = context;
    v->kernels->relu_fwd(end - begin, v->factor, v->a + begin, v->y + begin);
}

static void relu_bwd_range(const void *context, size_t begin, size_t end) {
    const Vector *v = context;
    v->kernels->relu_bwd(end - begin, v->factor, v->a + begin, v->b + begin, v->y + begin);
}

static void axpy_range(const void *context, size_t begin, size_t end) {
    const Vector *v = context;
    v->kernels->axpy(end - begin, v->factor, v->a + begin, v->y + begin);
}

static void scale_range(const void *context, size_t begin, size_t end) {
    const Vector *v = context;
    v->kernels->scale(end - begin, v->factor, v->y + begin);
}

static void add_range(const void *context, size_t begin, size_t end) {
    const Vector *v = context;
    v->kernels->add(end - begin, v->a + begin, v->b + begin, v->y + begin);
}

static void mul_range(const void *context, size_t begin, size_t end) {
    const Vector *v = context;
    v->kernels->mul(end - begin, v->a + begin, v->b + begin, v->y + begin);
}

static void sgd_range(const void *context, size_t begin, size_t end) {
    const Vector *v = context;
    v->kernels->update_sgd(v->rule, end - begin, v->a + begin, v->y + begin, v->w + begin);
}

static void bias_add_range(const void *context, size_t begin, size_t end) {
    const Vector *v = context;
    v->kernels->bias_add(end - begin, v->cols, v->a, v->y + begin * v->cols);
}

static void bias_grad_range(const void *context, size_t begin, size_t end) {
    const Vector *v = context;
    v->kernels->bias_grad(v->rows, end - begin, v->cols, v->a + begin, v->y + begin);
}

void shoal_relu_fwd(const ShoalCompute *compute, size_t n, float slope, const float *x, float *y) {
    Vector v = {.kernels = compute->kernels, .factor = slope, .a = x, .y = y};
    run_range(compute, n, 1, relu_fwd_range, &v);
}

void shoal_relu_bwd(const ShoalCompute *compute, size_t n, float slope, const float *x,
                    const float *dy, float *dx) {
    Vector v = {.kernels = compute->kernels, .factor = slope, .a = x, .b = dy, .y = dx};
    run_range(compute, n, 1, relu_bwd_range, &v);
}

void shoal_vec_axpy(const ShoalCompute *compute, size_t n, float a, const float *x, float *y) {
    Vector v = {.kernels = compute->kernels, .factor = a, .a = x, .y = y};
    run_range(compute, n, 1, axpy_range, &v);
}

void shoal_vec_scale(const ShoalCompute *compute, size_t n, float a, float *x) {
    Vector v = {.kernels = compute->kernels, .factor = a, .y = x};
    run_range(compute, n, 1, scale_range, &v);
}

void shoal_vec_add(const ShoalCompute *compute, size_t n, const float *a, const float *b,
                   float *y) {
    Vector v = {.kernels = compute->kernels, .a = a, .b = b, .y = y};
    run_range(compute, n, 1, add_range, &v);
}

void shoal_vec_mul(const ShoalCompute *compute, size_t n, const float *a, const float *b,
                   float *y) {
    Vector v = {.kernels = compute->kernels, .a = a, .b = b, .y = y};
    run_range(compute, n, 1, mul_range, &v);
}

void shoal_bias_add(const ShoalCompute *compute, size_t rows, size_t cols, const float *bias,
                    float *x) {
    Vector v = {.kernels = compute->kernels, .a = bias, .y = x, .cols = cols};
    run_range(compute, rows, cols, bias_add_range, &v);
}

void shoal_bias_grad(const ShoalCompute *compute, size_t rows, size_t cols, const float *dy,
                     float *db) {
    Vector v = {.kernels = compute->kernels, .a = dy, .y = db, .rows = rows, .cols = cols};
    run_range(compute, cols, rows, bias_grad_range, &v);
}

void shoal_update_sgd(const ShoalCompute *compute, const ShoalSgdRule *rule, size_t n,
                      const float *g, float *h, float *w) {
    Vector v = {.kernels = compute->kernels, .rule = rule, .a = g, .y = h, .w = w};
    run_range(compute, n, 1, sgd_range, &v);
}

typedef struct Adaptive {
    const ShoalKernels *kernels;
    const ShoalAdaptiveRule *rule;
    const float *g;
    float *v, *u, *w, *step;
} Adaptive;

static void adaptive_range(const void *context, size_t begin, size_t end) {
    const Adaptive *a = context;
    a->kernels->update_adaptive(a->rule, end - begin, a->g + begin, a->v + begin,
                                a->u ? a->u + begin : NULL, a->w + begin, a->step + begin);
}

void shoal_update_adaptive(const ShoalCompute *compute, const ShoalAdaptiveRule *rule, size_t n,
                           const float *g, float *v, float *u, float *w, float *step) {
    Adaptive a = {compute->kernels, rule, g, v, u, w, step};
    run_range(compute, n, 1, adaptive_range, &a);
}

/* The sums give the same bits at every level, so they may take the fastest without being told. */
static const ShoalKernels *fastest(void) {
    int level = SHOAL_CPU_LEVELS - 1;
    while (level > 0 && !shoal_cpu_level_usable((ShoalCpuLevel)level))
        level--;
    return shoal_kernels_for((ShoalCpuLevel)level);
}

double shoal_vec_sumsq(size_t n, const float *x) {
    return fastest()->sumsq(n, x);
}

double shoal_vec_sum(size_t n, const float *x) {
    return fastest()->sum(n, x);
}

double shoal_vec_asum(size_t n, const float *x) {
    return fastest()->asum(n, x);
}
