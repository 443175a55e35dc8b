/* SPDX-License-Identifier: Apache-2.0 */
/* The elementwise pieces of table.h as plain loops, compiled once per level: the includer defines
 * SHOAL_ISA(name) and gets static functions. Compilers vectorise these loops as well as hands do.
 *
 * Every level gives the same bits: one rounding per written operation (the build forbids
 * contraction), and sums run in SUM_LANES double lanes, element i in lane i % SUM_LANES, which are
 * added up pairwise at the end. Arguments may alias only as whole ranges (y == x). */

#include <math.h>

#include "kernels/table.h"

#if defined(__clang__)
#define SHOAL_INDEPENDENT _Pragma("clang loop vectorize(assume_safety)")
#else
#define SHOAL_INDEPENDENT _Pragma("GCC ivdep")
#endif

enum { SUM_LANES = 32, BIAS_LANES = 64 };

static void SHOAL_ISA(relu_fwd)(size_t n, float slope, const float *x, float *y) {
    SHOAL_INDEPENDENT
    for (size_t i = 0; i < n; i++) {
        float value = x[i], low = slope * value;
        y[i] = value > 0 ? value : low;
    }
}

static void SHOAL_ISA(relu_bwd)(size_t n, float slope, const float *x, const float *dy, float *dx) {
    SHOAL_INDEPENDENT
    for (size_t i = 0; i < n; i++) {
        float high = dy[i], low = slope * high;
        dx[i] = x[i] > 0 ? high : low;
    }
}

static void SHOAL_ISA(axpy)(size_t n, float a, const float *x, float *y) {
    SHOAL_INDEPENDENT
    for (size_t i = 0; i < n; i++)
        y[i] += a * x[i];
}

static void SHOAL_ISA(scale)(size_t n, float a, float *x) {
    for (size_t i = 0; i < n; i++)
        x[i] *= a;
}

static void SHOAL_ISA(add)(size_t n, const float *a, const float *b, float *y) {
    SHOAL_INDEPENDENT
    for (size_t i = 0; i < n; i++)
        y[i] = a[i] + b[i];
}

static void SHOAL_ISA(mul)(size_t n, const float *a, const float *b, float *y) {
    SHOAL_INDEPENDENT
    for (size_t i = 0; i < n; i++)
        y[i] = a[i] * b[i];
}

/* T: the regularised gradient of element i. */
#define SHOAL_UPDATE_LOOPS(T)                                                                      \
    if (rule->nesterov) {                                                                          \
        SHOAL_INDEPENDENT                                                                          \
        for (size_t i = 0; i < n; i++) {                                                           \
            float back = momentum * h[i];                                                          \
            h[i] = back + rate * (T);                                                              \
            w[i] -= over * h[i] - back;                                                            \
        }                                                                                          \
    } else {                                                                                       \
        SHOAL_INDEPENDENT                                                                          \
        for (size_t i = 0; i < n; i++) {                                                           \
            h[i] = momentum * h[i] + rate * (T);                                                   \
            w[i] -= h[i];                                                                          \
        }                                                                                          \
    }

static void SHOAL_ISA(update_sgd)(const ShoalSgdRule *rule, size_t n, const float *g, float *h,
                                  float *w) {
    const float scale = rule->scale, rate = rule->rate, momentum = rule->momentum;
    const float decay = rule->decay, over = 1 + momentum;
    if (decay == 0) { /* as Caffe: no term at all, so an infinite weight gives no NaN here */
        SHOAL_UPDATE_LOOPS(g[i] * scale)
    } else if (rule->l1) {
        SHOAL_UPDATE_LOOPS(g[i] * scale + decay * (float)((w[i] > 0) - (w[i] < 0)))
    } else {
        SHOAL_UPDATE_LOOPS(g[i] * scale + decay * w[i])
    }
}
#undef SHOAL_UPDATE_LOOPS

#define SHOAL_ADAPTIVE_LOOP(T, BODY)                                                               \
    {                                                                                              \
        SHOAL_INDEPENDENT                                                                          \
        for (size_t i = 0; i < n; i++) {                                                           \
            const float t = (T);                                                                   \
            float s;                                                                               \
            BODY;                                                                                  \
            s *= rate;                                                                             \
            step[i] = s;                                                                           \
            w[i] -= s;                                                                             \
        }                                                                                          \
    }

/* The kinds for one way to get t. */
#define SHOAL_ADAPTIVE_KINDS(T)                                                                    \
    switch (rule->kind) {                                                                          \
    case SHOAL_UPDATE_ADAGRAD:                                                                     \
        SHOAL_ADAPTIVE_LOOP(T, v[i] = t * t + v[i]; s = t / (sqrtf(v[i]) + delta))                 \
        break;                                                                                     \
    case SHOAL_UPDATE_RMSPROP:                                                                     \
        SHOAL_ADAPTIVE_LOOP(T, v[i] = new1 * (t * t) + old1 * v[i]; s = t / (sqrtf(v[i]) + delta)) \
        break;                                                                                     \
    case SHOAL_UPDATE_ADADELTA:                                                                    \
        SHOAL_ADAPTIVE_LOOP(T, v[i] = new1 * (t * t) + old1 * v[i];                                \
                            s = t * sqrtf((u[i] + delta) / (v[i] + delta));                        \
                            u[i] = new1 * (s * s) + old1 * u[i])                                   \
        break;                                                                                     \
    case SHOAL_UPDATE_ADAM:                                                                        \
        SHOAL_ADAPTIVE_LOOP(T, v[i] = new1 * t + old1 * v[i]; u[i] = new2 * (t * t) + old2 * u[i]; \
                            s = v[i] / (sqrtf(u[i]) + delta))                                      \
        break;                                                                                     \
    }

static void SHOAL_ISA(update_adaptive)(const ShoalAdaptiveRule *rule, size_t n, const float *g,
                                       float *v, float *u, float *w, float *step) {
    const float scale = rule->scale, rate = rule->rate, decay = rule->decay, delta = rule->delta;
    const float old1 = rule->decay1, new1 = 1 - old1, old2 = rule->decay2, new2 = 1 - old2;
    if (decay == 0) {
        SHOAL_ADAPTIVE_KINDS(g[i] * scale)
    } else if (rule->l1) {
        SHOAL_ADAPTIVE_KINDS(g[i] * scale + decay * (float)((w[i] > 0) - (w[i] < 0)))
    } else {
        SHOAL_ADAPTIVE_KINDS(g[i] * scale + decay * w[i])
    }
}
#undef SHOAL_ADAPTIVE_KINDS
#undef SHOAL_ADAPTIVE_LOOP

/* Defines the sum of TERM over the elements of x; in TERM `value` is x[at] as a double. */
#define SHOAL_DEFINE_SUM(name, PARAMETERS, TERM)                                                   \
    static double SHOAL_ISA(name) PARAMETERS {                                                     \
        double lane[SUM_LANES] = {0};                                                              \
        size_t i = 0;                                                                              \
        for (; i + SUM_LANES <= n; i += SUM_LANES)                                                 \
            for (int j = 0; j < SUM_LANES; j++) {                                                  \
                size_t at = i + (size_t)j;                                                         \
                double value = (double)x[at];                                                      \
                lane[j] += TERM;                                                                   \
            }                                                                                      \
        for (int j = 0; i < n; i++, j++) {                                                         \
            size_t at = i;                                                                         \
            double value = (double)x[at];                                                          \
            lane[j] += TERM;                                                                       \
        }                                                                                          \
        for (int half = SUM_LANES / 2; half > 0; half /= 2)                                        \
            for (int j = 0; j < half; j++)                                                         \
                lane[j] += lane[j + half];                                                         \
        return lane[0];                                                                            \
    }
SHOAL_DEFINE_SUM(sumsq, (size_t n, const float *x), value *value)
SHOAL_DEFINE_SUM(sum, (size_t n, const float *x), value)
SHOAL_DEFINE_SUM(asum, (size_t n, const float *x), fabs(value))
SHOAL_DEFINE_SUM(dot, (size_t n, const float *x, const float *y), value *(double)y[at])
SHOAL_DEFINE_SUM(spread, (size_t n, double mean, const float *x), (value - mean) * (value - mean))
#undef SHOAL_DEFINE_SUM

static void SHOAL_ISA(affine)(size_t n, float factor, float shift, const float *x, float *y) {
    SHOAL_INDEPENDENT
    for (size_t i = 0; i < n; i++)
        y[i] = factor * x[i] + shift;
}

static void SHOAL_ISA(normalize)(size_t n, float mean, float inverse, const float *x, float *y) {
    SHOAL_INDEPENDENT
    for (size_t i = 0; i < n; i++)
        y[i] = (x[i] - mean) * inverse;
}

static void SHOAL_ISA(normalize_bwd)(size_t n, float mean_dy, float mean_dot, float inverse,
                                     const float *y, const float *dy, float *dx) {
    SHOAL_INDEPENDENT
    for (size_t i = 0; i < n; i++)
        dx[i] = (dy[i] - mean_dy - mean_dot * y[i]) * inverse;
}

static void SHOAL_ISA(bias_add)(size_t rows, size_t cols, const float *bias, float *x) {
    for (size_t r = 0; r < rows; r++)
        SHOAL_ISA(add)(cols, x + r * cols, bias, x + r * cols);
}

static void SHOAL_ISA(bias_grad)(size_t rows, size_t cols, size_t stride, const float *dy,
                                 float *db) {
    for (size_t c0 = 0; c0 < cols; c0 += BIAS_LANES) {
        size_t width = cols - c0 < BIAS_LANES ? cols - c0 : BIAS_LANES;
        double sum[BIAS_LANES] = {0};
        for (size_t r = 0; r < rows; r++) {
            const float *row = dy + r * stride + c0;
            for (size_t j = 0; j < width; j++)
                sum[j] += (double)row[j];
        }
        for (size_t j = 0; j < width; j++)
            db[c0 + j] = (float)((double)db[c0 + j] + sum[j]);
    }
}

#include "kernels/lrn_tmpl.h"

/* The initialisers of these entries in a level's table. */
#define SHOAL_ELEMENTWISE_ENTRIES                                                                  \
    .relu_fwd = SHOAL_ISA(relu_fwd), .relu_bwd = SHOAL_ISA(relu_bwd), .axpy = SHOAL_ISA(axpy),     \
    .scale = SHOAL_ISA(scale), .add = SHOAL_ISA(add), .mul = SHOAL_ISA(mul),                       \
    .update_sgd = SHOAL_ISA(update_sgd), .update_adaptive = SHOAL_ISA(update_adaptive),            \
    .sumsq = SHOAL_ISA(sumsq), .sum = SHOAL_ISA(sum), .asum = SHOAL_ISA(asum),                     \
    .dot = SHOAL_ISA(dot), .spread = SHOAL_ISA(spread), .affine = SHOAL_ISA(affine),               \
    .normalize = SHOAL_ISA(normalize), .normalize_bwd = SHOAL_ISA(normalize_bwd),                  \
    .bias_add = SHOAL_ISA(bias_add), .bias_grad = SHOAL_ISA(bias_grad),                            \
    .lrn_square = SHOAL_ISA(lrn_square), .lrn_fwd = SHOAL_ISA(lrn_fwd),                            \
    .lrn_ratio = SHOAL_ISA(lrn_ratio), .lrn_bwd = SHOAL_ISA(lrn_bwd)
