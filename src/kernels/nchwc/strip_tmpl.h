/* SPDX-License-Identifier: Apache-2.0 */
/* ShoalNchwcStripKernels over the primitives of a level's vector.h, which the includer includes
 * first. All of these stream through memory, so what matters is that each number is touched once
 * and that a few sums run side by side. */

#include "kernels/nchwc/engine.h"

#define SHOAL_INLINE static inline __attribute__((always_inline))
#define SHOAL_UNROLL _Pragma("GCC unroll 16")

#if !defined(SHOAL_VECTOR_STREAM)
/* Where the processor sees by itself that whole lines are written. */
static inline void vector_stream(float *p, Vector v) {
    vector_store(p, v);
}

static inline void vector_stream_end(void) {
}
#endif

/* Pixels per step: enough independent sums to hide the latency of an addition. */
enum { STRIP_STEP = 4 };

/* Asks for what a long strip comes to 2 KB on: the processors that prefetch by themselves do not
 * look across pages, and one stream alone does not fill the memory's time. */
SHOAL_INLINE void prefetch(const float *x) {
    __builtin_prefetch(x + 2048 / sizeof *x);
}

SHOAL_INLINE Vector vector_or(const float *p, float otherwise) {
    return p ? vector_load(p) : vector_set1(otherwise);
}

SHOAL_INLINE Vector function_of(Vector x, const bool scaled, Vector scale, Vector shift,
                                const bool relu) {
    if (scaled)
        x = vector_fma(scale, x, shift);
    return relu ? vector_relu(x) : x;
}

SHOAL_INLINE void activate_body(size_t pixels, const float *x, const float *scale,
                                const float *shift, const bool scaled, const bool relu, float *y) {
    const Vector a = vector_or(scale, 1), b = vector_or(shift, 0);
    size_t p = 0;
    for (; p + STRIP_STEP <= pixels; p += STRIP_STEP) {
        SHOAL_UNROLL
        for (size_t i = 0; i < STRIP_STEP; i++) {
            prefetch(x + (p + i) * LANES);
            vector_store(y + (p + i) * LANES,
                         function_of(vector_load(x + (p + i) * LANES), scaled, a, b, relu));
        }
    }
    for (; p < pixels; p++)
        vector_store(y + p * LANES, function_of(vector_load(x + p * LANES), scaled, a, b, relu));
}

static void strip_activate(size_t pixels, const float *x, const float *scale, const float *shift,
                           bool relu, float *y) {
    if (scale && relu)
        activate_body(pixels, x, scale, shift, true, true, y);
    else if (scale)
        activate_body(pixels, x, scale, shift, true, false, y);
    else if (relu)
        activate_body(pixels, x, NULL, NULL, false, true, y);
    else if (x != y)
        activate_body(pixels, x, NULL, NULL, false, false, y);
}

SHOAL_INLINE void moment(Vector x, Vector *sum, Vector *square) {
    *sum = vector_add(*sum, x);
    *square = vector_fma(x, x, *square);
}

SHOAL_INLINE Vector sum_of_step(const Vector v[STRIP_STEP]) {
    return vector_add(vector_add(v[0], v[1]), vector_add(v[2], v[3]));
}

static void strip_moments(size_t pixels, const float *x, const float *origin, float *sum,
                          float *square) {
    const Vector from = vector_load(origin);
    Vector s[STRIP_STEP], q[STRIP_STEP];
    SHOAL_UNROLL
    for (int i = 0; i < STRIP_STEP; i++)
        s[i] = q[i] = vector_zero();
    size_t p = 0;
    for (; p + STRIP_STEP <= pixels; p += STRIP_STEP) {
        SHOAL_UNROLL
        for (size_t i = 0; i < STRIP_STEP; i++) {
            prefetch(x + (p + i) * LANES);
            moment(vector_sub(vector_load(x + (p + i) * LANES), from), &s[i], &q[i]);
        }
    }
    for (; p < pixels; p++)
        moment(vector_sub(vector_load(x + p * LANES), from), &s[0], &q[0]);
    vector_store(sum, sum_of_step(s));
    vector_store(square, sum_of_step(q));
}

/* The kinds of mask. */
enum { MASK_NONE, MASK_RAW, MASK_SCALED };

/* What a finish holds in registers while it runs over a strip. */
typedef struct FinishState {
    Vector scale, shift, center[SHOAL_NCHWC_TERMS];
    Vector sum_g[STRIP_STEP], sum[SHOAL_NCHWC_TERMS][STRIP_STEP];
} FinishState;

SHOAL_INLINE void finish_pixel(const ShoalNchwcFinish *f, size_t at, const int mask,
                               const bool sums, const int terms, FinishState *state, int i) {
    Vector g = vector_load(f->g + at);
    if (mask != MASK_NONE) {
        Vector m = vector_load(f->mask + at);
        prefetch(f->mask + at);
        if (mask == MASK_SCALED)
            m = vector_fma(state->scale, m, state->shift);
        g = vector_where_positive(m, g);
        vector_store(f->g + at, g);
    }
    if (sums)
        state->sum_g[i] = vector_add(state->sum_g[i], g);
    SHOAL_UNROLL
    for (int t = 0; t < terms; t++) {
        Vector z = vector_sub(vector_load(f->z[t] + at), state->center[t]);
        prefetch(f->z[t] + at);
        state->sum[t][i] = vector_fma(g, z, state->sum[t][i]);
    }
}

SHOAL_INLINE void sum_into(const Vector v[STRIP_STEP], float *sum) {
    vector_store(sum, vector_add(vector_load(sum), sum_of_step(v)));
}

SHOAL_INLINE void finish_body(size_t pixels, const ShoalNchwcFinish *f, const int mask,
                              const bool sums, const int terms) {
    FinishState state = {.scale = vector_zero(), .shift = vector_zero()};
    if (mask == MASK_SCALED) {
        state.scale = vector_load(f->mask_scale);
        state.shift = vector_load(f->mask_shift);
    }
    SHOAL_UNROLL
    for (int t = 0; t < terms; t++)
        state.center[t] = vector_load(f->center[t]);
    SHOAL_UNROLL
    for (int i = 0; i < STRIP_STEP; i++)
        state.sum_g[i] = state.sum[0][i] = state.sum[1][i] = vector_zero();
    size_t p = 0;
    for (; p + STRIP_STEP <= pixels; p += STRIP_STEP) {
        SHOAL_UNROLL
        for (int i = 0; i < STRIP_STEP; i++)
            finish_pixel(f, (p + (size_t)i) * LANES, mask, sums, terms, &state, i);
    }
    for (; p < pixels; p++)
        finish_pixel(f, p * LANES, mask, sums, terms, &state, 0);
    if (sums)
        sum_into(state.sum_g, f->sum_g);
    SHOAL_UNROLL
    for (int t = 0; t < terms; t++)
        sum_into(state.sum[t], f->sum[t]);
}

SHOAL_INLINE void finish_masked(size_t pixels, const ShoalNchwcFinish *f, const int mask) {
    if (!f->sum_g)
        finish_body(pixels, f, mask, false, 0);
    else if (f->terms == 0)
        finish_body(pixels, f, mask, true, 0);
    else if (f->terms == 1)
        finish_body(pixels, f, mask, true, 1);
    else
        finish_body(pixels, f, mask, true, 2);
}

static void strip_finish(size_t pixels, const ShoalNchwcFinish *f) {
    if (!f->mask && f->sum_g)
        finish_masked(pixels, f, MASK_NONE);
    else if (f->mask && f->mask_scale)
        finish_masked(pixels, f, MASK_SCALED);
    else if (f->mask)
        finish_masked(pixels, f, MASK_RAW);
}

SHOAL_INLINE void put(float *p, Vector v, const bool far) {
    if (far)
        vector_stream(p, v);
    else
        vector_store(p, v);
}

/* An input without a scale goes through 1 * x + 0: that is free next to the memory's time. */
SHOAL_INLINE void sum_body(size_t pixels, const ShoalNchwcInput *a, const ShoalNchwcInput *b,
                           const bool relu_a, const bool relu_b, const bool relu, const bool far,
                           float *y) {
    const Vector scale_a = vector_or(a->scale, 1), shift_a = vector_or(a->shift, 0);
    const Vector scale_b = vector_or(b->scale, 1), shift_b = vector_or(b->shift, 0);
    const float *xa = a->x, *xb = b->x;
    for (size_t p = 0; p < pixels; p++) {
        Vector va = function_of(vector_load(xa + p * LANES), true, scale_a, shift_a, relu_a);
        Vector vb = function_of(vector_load(xb + p * LANES), true, scale_b, shift_b, relu_b);
        Vector sum = vector_add(va, vb);
        put(y + p * LANES, relu ? vector_relu(sum) : sum, far);
    }
}

SHOAL_INLINE void sum_result(size_t pixels, const ShoalNchwcInput *a, const ShoalNchwcInput *b,
                             const bool relu, const bool far, float *y) {
    if (a->relu && b->relu)
        sum_body(pixels, a, b, true, true, relu, far, y);
    else if (a->relu)
        sum_body(pixels, a, b, true, false, relu, far, y);
    else if (b->relu)
        sum_body(pixels, a, b, false, true, relu, far, y);
    else
        sum_body(pixels, a, b, false, false, relu, far, y);
}

static void strip_sum(size_t pixels, const ShoalNchwcInput *a, const ShoalNchwcInput *b, bool relu,
                      float *y) {
    if (relu)
        sum_result(pixels, a, b, true, false, y);
    else
        sum_result(pixels, a, b, false, false, y);
}

static void strip_sum_far(size_t pixels, const ShoalNchwcInput *a, const ShoalNchwcInput *b,
                          bool relu, float *y) {
    if (relu)
        sum_result(pixels, a, b, true, true, y);
    else
        sum_result(pixels, a, b, false, true, y);
    vector_stream_end();
}

static void strip_add(size_t pixels, const float *from, float *g) {
    for (size_t p = 0; p < pixels * LANES; p += LANES)
        vector_store(g + p, vector_add(vector_load(g + p), vector_load(from + p)));
}

SHOAL_INLINE void affine_body(size_t pixels, const float *g, const float *z, const float *a,
                              const float *b, const float *c0, const bool far, float *dz) {
    const Vector va = vector_load(a), vc = vector_or(c0, 0);
    if (!z) {
        for (size_t p = 0; p < pixels * LANES; p += LANES)
            put(dz + p, vector_fma(va, vector_load(g + p), vc), far);
        return;
    }
    const Vector vb = vector_load(b);
    for (size_t p = 0; p < pixels * LANES; p += LANES) {
        Vector rest = vector_fma(vb, vector_load(z + p), vc);
        put(dz + p, vector_fma(va, vector_load(g + p), rest), far);
    }
}

static void strip_affine(size_t pixels, const float *g, const float *z, const float *a,
                         const float *b, const float *c0, float *dz) {
    affine_body(pixels, g, z, a, b, c0, false, dz);
}

static void strip_affine_far(size_t pixels, const float *g, const float *z, const float *a,
                             const float *b, const float *c0, float *dz) {
    affine_body(pixels, g, z, a, b, c0, true, dz);
    vector_stream_end();
}

static void strip_copy_far(size_t pixels, const float *from, float *to) {
    for (size_t p = 0; p < pixels * LANES; p += LANES)
        vector_stream(to + p, vector_load(from + p));
    vector_stream_end();
}

/* One square of at most LANES pixels. */
SHOAL_INLINE void block_square(size_t pixels, size_t channels, const float *plain, size_t plane,
                               float *strip) {
    Vector v[LANES];
    if (pixels == LANES && channels == LANES) {
        for (size_t c = 0; c < LANES; c++)
            v[c] = vector_load(plain + c * plane);
    } else {
        const Mask mask = mask_of(0, (int)pixels);
        for (size_t c = 0; c < LANES; c++)
            v[c] = c < channels ? vector_load_masked(plain + c * plane, mask) : vector_zero();
    }
    vector_transpose(v);
    for (size_t p = 0; p < pixels; p++)
        vector_store(strip + p * LANES, v[p]);
}

static void strip_block(size_t pixels, size_t channels, const float *plain, size_t plane,
                        float *strip) {
    size_t p = 0;
    for (; p + LANES <= pixels; p += LANES)
        block_square(LANES, channels, plain + p, plane, strip + p * LANES);
    if (p < pixels)
        block_square(pixels - p, channels, plain + p, plane, strip + p * LANES);
}

SHOAL_INLINE void unblock_square(size_t pixels, size_t channels, const float *strip, float *plain,
                                 size_t plane) {
    Vector v[LANES];
    for (size_t p = 0; p < LANES; p++)
        v[p] = p < pixels ? vector_load(strip + p * LANES) : vector_zero();
    vector_transpose(v);
    const Mask mask = mask_of(0, (int)pixels);
    for (size_t c = 0; c < channels; c++)
        vector_store_masked(plain + c * plane, mask, v[c]);
}

static void strip_unblock(size_t pixels, size_t channels, const float *strip, float *plain,
                          size_t plane) {
    size_t p = 0;
    for (; p + LANES <= pixels; p += LANES)
        unblock_square(LANES, channels, strip + p * LANES, plain + p, plane);
    if (p < pixels)
        unblock_square(pixels - p, channels, strip + p * LANES, plain + p, plane);
}

#define SHOAL_NCHWC_STRIP_ENTRIES                                                                  \
    .activate = strip_activate, .moments = strip_moments, .finish = strip_finish,                  \
    .sum = strip_sum, .sum_far = strip_sum_far, .add = strip_add, .affine = strip_affine,          \
    .affine_far = strip_affine_far, .copy_far = strip_copy_far, .block = strip_block,              \
    .unblock = strip_unblock
