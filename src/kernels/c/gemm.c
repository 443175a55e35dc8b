/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/c/reference.h"

typedef struct Gemm {
    bool trans_a, trans_b;
    size_t n, k, lda, ldb, ldc;
    float alpha, beta;
    const float *a, *b;
    float *c;
} Gemm;

static double dot(const Gemm *g, size_t i, size_t j) {
    double sum = 0;
    for (size_t p = 0; p < g->k; p++) {
        double a = (double)(g->trans_a ? g->a[p * g->lda + i] : g->a[i * g->lda + p]);
        double b = (double)(g->trans_b ? g->b[j * g->ldb + p] : g->b[p * g->ldb + j]);
        sum += a * b;
    }
    return sum;
}

static void gemm_row(void *context, size_t i, unsigned thread) {
    const Gemm *g = context;
    float *c = g->c + i * g->ldc;
    (void)thread;
    for (size_t j = 0; j < g->n; j++) {
        double value = (double)g->alpha * dot(g, i, j);
        if (g->beta != 0)
            value += (double)g->beta * (double)c[j];
        c[j] = (float)value;
    }
}

void shoal_gemm_f32_c(const ShoalCompute *compute, bool trans_a, bool trans_b, size_t m, size_t n,
                      size_t k, float alpha, const float *a, size_t lda, const float *b, size_t ldb,
                      float beta, float *c, size_t ldc) {
    Gemm g = {trans_a, trans_b, n, k, lda, ldb, ldc, alpha, beta, a, b, c};
    shoal_pool_run(compute->pool, m, gemm_row, &g);
}
