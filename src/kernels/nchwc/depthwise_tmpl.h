/* SPDX-License-Identifier: Apache-2.0 */
/* ShoalNchwcDepthwiseKernels over the primitives of a level's vector.h, which the includer includes
 * first. The general loops are written once; calls with constants make the fast ones of them. */

#include "kernels/nchwc/depthwise.h"

#define SHOAL_INLINE static inline __attribute__((always_inline))
#define SHOAL_UNROLL _Pragma("GCC unroll 16")

/* Outputs in registers. The usual widths (224, 112, ... 7) are multiples of it. */
enum { GROUP = 7 };

typedef ShoalNchwcDepthwiseRow Row;

SHOAL_INLINE Vector start_of(const Row *r, size_t j) {
    if (r->accumulate)
        return vector_load(r->y + j * LANES);
    return r->bias ? vector_load(r->bias) : vector_zero();
}

/* What a 3x3 keeps while it runs over a row. Stores through vectors may alias anything as far as
 * the compiler knows, so what lies behind pointers would be read again and again. */
typedef struct Three {
    const float *x[3];
    Vector w[9], bias;
    float *y;
} Three;

SHOAL_INLINE Three three_of(const Row *r) {
    Three three = {.bias = r->bias ? vector_load(r->bias) : vector_zero(), .y = r->y};
    SHOAL_UNROLL
    for (int t = 0; t < 9; t++)
        three.w[t] = vector_load(r->w[t / 3] + t % 3 * LANES);
    SHOAL_UNROLL
    for (int u = 0; u < 3; u++)
        three.x[u] = r->x[u];
    return three;
}

/* `count` outputs from column j on. */
SHOAL_INLINE void gather_three_group(const Three *three, const size_t stride, const bool accumulate,
                                     const size_t count, size_t j) {
    Vector sum[GROUP];
    SHOAL_UNROLL
    for (size_t i = 0; i < count; i++)
        sum[i] = accumulate ? vector_load(three->y + (j + i) * LANES) : three->bias;
    SHOAL_UNROLL
    for (size_t t = 0; t < 9; t++) {
        const float *x = three->x[t / 3] + (j * stride + t % 3) * LANES;
        SHOAL_UNROLL
        for (size_t i = 0; i < count; i++)
            sum[i] = vector_fma(vector_load(x + i * stride * LANES), three->w[t], sum[i]);
    }
    SHOAL_UNROLL
    for (size_t i = 0; i < count; i++)
        vector_store(three->y + (j + i) * LANES, sum[i]);
}

SHOAL_INLINE void gather_three(const Row *r, const size_t stride, const bool accumulate) {
    const Three three = three_of(r);
    const size_t pixels = r->pixels;
    size_t j = 0;
    for (; j + GROUP <= pixels; j += GROUP)
        gather_three_group(&three, stride, accumulate, GROUP, j);
    for (; j < pixels; j++)
        gather_three_group(&three, stride, accumulate, 1, j);
}

SHOAL_INLINE void gather_group(const Row *r, const size_t count, size_t j) {
    const size_t step = r->stride * LANES, next = r->dilation * LANES;
    Vector sum[GROUP];
    SHOAL_UNROLL
    for (size_t i = 0; i < count; i++)
        sum[i] = start_of(r, j + i);
    for (size_t u = 0; u < r->rows; u++)
        for (size_t v = 0; v < r->kernel_w; v++) {
            const float *x = r->x[u] + j * step + v * next;
            const Vector tap = vector_load(r->w[u] + v * LANES);
            SHOAL_UNROLL
            for (size_t i = 0; i < count; i++)
                sum[i] = vector_fma(vector_load(x + i * step), tap, sum[i]);
        }
    SHOAL_UNROLL
    for (size_t i = 0; i < count; i++)
        vector_store(r->y + (j + i) * LANES, sum[i]);
}

static void gather_any(const Row *r) {
    size_t j = 0;
    for (; j + GROUP <= r->pixels; j += GROUP)
        gather_group(r, GROUP, j);
    for (; j < r->pixels; j++)
        gather_group(r, 1, j);
}

static bool three_by_three(const Row *r) {
    return r->rows == 3 && r->kernel_w == 3 && r->dilation == 1;
}

static void gather_sums(const Row *r) {
    if (three_by_three(r) && r->stride == 1 && r->accumulate)
        gather_three(r, 1, true);
    else if (three_by_three(r) && r->stride == 1)
        gather_three(r, 1, false);
    else if (three_by_three(r) && r->stride == 2 && !r->accumulate)
        gather_three(r, 2, false);
    else
        gather_any(r);
}

/* The columns of y that share what they leave when j + pad is divided by the stride: they meet the
 * same taps v = v_first + t * v_step, t < taps, at x's columns one further for each. */
typedef struct Phase {
    size_t first, count; /* columns first, first + stride, ... */
    size_t taps, v_first, v_step;
    size_t x_first, x_step; /* x's column for the first of y at t = 0; t takes x_step off */
} Phase;

static Phase phase_at(const Row *r, size_t phase) {
    Phase p = {.v_step = 1};
    while (p.v_step * r->dilation % r->stride != 0)
        p.v_step++;
    while (p.v_first < p.v_step && p.v_first * r->dilation % r->stride != phase)
        p.v_first++;
    p.first = (phase + r->stride - r->pad % r->stride) % r->stride;
    p.count = p.first < r->pixels ? (r->pixels - p.first - 1) / r->stride + 1 : 0;
    if (p.v_first == p.v_step || p.v_first >= r->kernel_w)
        return p; /* no taps */
    p.taps = (r->kernel_w - 1 - p.v_first) / p.v_step + 1;
    p.x_first = r->left + (p.first + r->pad) / r->stride - p.v_first * r->dilation / r->stride;
    p.x_step = p.v_step * r->dilation / r->stride;
    return p;
}

/* `count` outputs from the q-th of the phase on. */
SHOAL_INLINE void spread_group(const Row *r, const Phase *p, const size_t count, size_t q) {
    const size_t column = p->first + q * r->stride;
    Vector sum[GROUP];
    SHOAL_UNROLL
    for (size_t i = 0; i < count; i++)
        sum[i] = start_of(r, column + i * r->stride);
    for (size_t u = 0; u < r->rows; u++)
        for (size_t t = 0; t < p->taps; t++) {
            const float *x = r->x[u] + (p->x_first + q - t * p->x_step) * LANES;
            const Vector tap = vector_load(r->w[u] + (p->v_first + t * p->v_step) * LANES);
            SHOAL_UNROLL
            for (size_t i = 0; i < count; i++)
                sum[i] = vector_fma(vector_load(x + i * LANES), tap, sum[i]);
        }
    SHOAL_UNROLL
    for (size_t i = 0; i < count; i++)
        vector_store(r->y + (column + i * r->stride) * LANES, sum[i]);
}

static void spread_any(const Row *r) {
    for (size_t phase = 0; phase < r->stride; phase++) {
        const Phase p = phase_at(r, phase);
        size_t q = 0;
        for (; q + GROUP <= p.count; q += GROUP)
            spread_group(r, &p, GROUP, q);
        for (; q < p.count; q++)
            spread_group(r, &p, 1, q);
    }
}

/* Of 3 taps at stride 2 an odd place (with the pad) meets the second; an even one the first and, of
 * x's pixel before, the last. Pairs: the even one of x's column k and the odd one after it. */
SHOAL_INLINE void spread_three(const Row *r, const size_t rows, const bool accumulate) {
    const float *x[2] = {r->x[0] + r->left * LANES, r->x[rows - 1] + r->left * LANES};
    const Vector bias = r->bias ? vector_load(r->bias) : vector_zero();
    const ptrdiff_t pixels = (ptrdiff_t)r->pixels;
    Vector w[2][3];
    SHOAL_UNROLL
    for (size_t t = 0; t < 3 * rows; t++)
        w[t / 3][t % 3] = vector_load(r->w[t / 3] + t % 3 * LANES);
    float *y = r->y;
    ptrdiff_t k = (ptrdiff_t)r->pad / 2, even = 2 * k - (ptrdiff_t)r->pad;
    for (; even < pixels; even += 2, k++) {
        float *to = y + even * LANES;
        if (even >= 0) {
            Vector sum = accumulate ? vector_load(to) : bias;
            SHOAL_UNROLL
            for (size_t u = 0; u < rows; u++) {
                sum = vector_fma(vector_load(x[u] + k * LANES), w[u][0], sum);
                sum = vector_fma(vector_load(x[u] + (k - 1) * LANES), w[u][2], sum);
            }
            vector_store(to, sum);
        }
        if (even + 1 < pixels) {
            Vector sum = accumulate ? vector_load(to + LANES) : bias;
            SHOAL_UNROLL
            for (size_t u = 0; u < rows; u++)
                sum = vector_fma(vector_load(x[u] + k * LANES), w[u][1], sum);
            vector_store(to + LANES, sum);
        }
    }
}

static void spread_sums(const Row *r) {
    const bool three = r->kernel_w == 3 && r->stride == 2 && r->dilation == 1;
    if (three && r->rows == 1 && !r->accumulate)
        spread_three(r, 1, false);
    else if (three && r->rows == 2 && !r->accumulate)
        spread_three(r, 2, false);
    else
        spread_any(r);
}

/* --- Gradients of the taps ------------------------------------------------------------------ */

/* One tap: adds the products of columns of x and in, from those given on. */
SHOAL_INLINE void weights_tap(size_t count, const float *x, const size_t x_step, const float *in,
                              const size_t in_step, float *dw) {
    Vector sum[4] = {vector_load(dw), vector_zero(), vector_zero(), vector_zero()};
    size_t j = 0;
    for (; j + 4 <= count; j += 4) {
        SHOAL_UNROLL
        for (size_t i = 0; i < 4; i++)
            sum[i] = vector_fma(vector_load(x + (j + i) * x_step),
                                vector_load(in + (j + i) * in_step), sum[i]);
    }
    for (; j < count; j++)
        sum[0] = vector_fma(vector_load(x + j * x_step), vector_load(in + j * in_step), sum[0]);
    vector_store(dw, vector_add(vector_add(sum[0], sum[1]), vector_add(sum[2], sum[3])));
}

static void gather_weights(const Row *r) {
    for (size_t u = 0; u < r->rows; u++)
        for (size_t v = 0; v < r->kernel_w; v++)
            weights_tap(r->pixels, r->x[u] + v * r->dilation * LANES, r->stride * LANES, r->in,
                        LANES, r->dw[u] + v * LANES);
}

static void spread_weights(const Row *r) {
    for (size_t phase = 0; phase < r->stride; phase++) {
        const Phase p = phase_at(r, phase);
        for (size_t u = 0; u < r->rows; u++)
            for (size_t t = 0; p.count > 0 && t < p.taps; t++)
                weights_tap(p.count, r->x[u] + (p.x_first - t * p.x_step) * LANES, LANES,
                            r->in + p.first * LANES, r->stride * LANES,
                            r->dw[u] + (p.v_first + t * p.v_step) * LANES);
    }
}

/* --- Both at once --------------------------------------------------------------------------- */

/* Columns of the next rows, as many as one group has. */
SHOAL_INLINE void ask(const float *const next[3], size_t column) {
    SHOAL_UNROLL
    for (size_t i = 0; i < 3 * GROUP; i++)
        __builtin_prefetch(next[i / GROUP] + (column + i % GROUP) * LANES);
}

/* The nine taps' sums in registers; each of x is loaded once for both uses. */
static void gather_three_both(const Row *r) {
    const Three three = three_of(r);
    const float *in = r->in;
    const size_t pixels = r->pixels;
    Vector dw[9];
    SHOAL_UNROLL
    for (size_t t = 0; t < 9; t++)
        dw[t] = vector_load(r->dw[t / 3] + t % 3 * LANES);
    for (size_t j = 0; j < pixels; j++) {
        if (j % GROUP == 0)
            ask(r->next, j);
        const Vector d = vector_load(in + j * LANES);
        Vector sum = three.bias;
        SHOAL_UNROLL
        for (size_t t = 0; t < 9; t++) {
            const Vector x = vector_load(three.x[t / 3] + (j + t % 3) * LANES);
            sum = vector_fma(x, three.w[t], sum);
            dw[t] = vector_fma(x, d, dw[t]);
        }
        vector_store(three.y + j * LANES, sum);
    }
    SHOAL_UNROLL
    for (size_t t = 0; t < 9; t++)
        vector_store(r->dw[t / 3] + t % 3 * LANES, dw[t]);
}

static void depthwise_gather(const Row *r) {
    if (r->y && r->in && three_by_three(r) && r->stride == 1 && !r->accumulate) {
        gather_three_both(r);
        return;
    }
    if (r->y)
        gather_sums(r);
    if (r->in)
        gather_weights(r);
}

/* As spread_three: what a column k of x and the one before it give to the even and the odd. */
SHOAL_INLINE void spread_three_both(const Row *r, const size_t rows) {
    const float *x[2] = {r->x[0] + r->left * LANES, r->x[rows - 1] + r->left * LANES};
    const Vector bias = r->bias ? vector_load(r->bias) : vector_zero();
    const ptrdiff_t pixels = (ptrdiff_t)r->pixels;
    const float *in = r->in;
    float *y = r->y;
    Vector w[2][3], dw[2][3];
    SHOAL_UNROLL
    for (size_t t = 0; t < 3 * rows; t++) {
        w[t / 3][t % 3] = vector_load(r->w[t / 3] + t % 3 * LANES);
        dw[t / 3][t % 3] = vector_load(r->dw[t / 3] + t % 3 * LANES);
    }
    ptrdiff_t k = (ptrdiff_t)r->pad / 2, even = 2 * k - (ptrdiff_t)r->pad;
    for (; even < pixels; even += 2, k++) {
        if (even >= 0) {
            const Vector d = vector_load(in + even * LANES);
            Vector sum = bias;
            SHOAL_UNROLL
            for (size_t u = 0; u < rows; u++) {
                const Vector at = vector_load(x[u] + k * LANES);
                const Vector before = vector_load(x[u] + (k - 1) * LANES);
                sum = vector_fma(before, w[u][2], vector_fma(at, w[u][0], sum));
                dw[u][0] = vector_fma(at, d, dw[u][0]);
                dw[u][2] = vector_fma(before, d, dw[u][2]);
            }
            vector_store(y + even * LANES, sum);
        }
        if (even + 1 < pixels) {
            const Vector d = vector_load(in + (even + 1) * LANES);
            Vector sum = bias;
            SHOAL_UNROLL
            for (size_t u = 0; u < rows; u++) {
                const Vector at = vector_load(x[u] + k * LANES);
                sum = vector_fma(at, w[u][1], sum);
                dw[u][1] = vector_fma(at, d, dw[u][1]);
            }
            vector_store(y + (even + 1) * LANES, sum);
        }
    }
    SHOAL_UNROLL
    for (size_t t = 0; t < 3 * rows; t++)
        vector_store(r->dw[t / 3] + t % 3 * LANES, dw[t / 3][t % 3]);
}

static void depthwise_spread(const Row *r) {
    const bool three = r->kernel_w == 3 && r->stride == 2 && r->dilation == 1;
    if (r->y && r->in && three && !r->accumulate && r->rows >= 1 && r->rows <= 2) {
        if (r->rows == 1)
            spread_three_both(r, 1);
        else
            spread_three_both(r, 2);
        return;
    }
    if (r->y)
        spread_sums(r);
    if (r->in)
        spread_weights(r);
}

#define SHOAL_NCHWC_DEPTHWISE_ENTRIES .gather = depthwise_gather, .spread = depthwise_spread
