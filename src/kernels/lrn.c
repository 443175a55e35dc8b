/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "kernels/range.h"
#include "kernels/table.h"

/* Local response normalisation, in both regions. */

/* Pixels that are worked on at a time across all channels: some channels of them fit the cache. */
enum { STRIP = 512 };

typedef struct Lrn {
    const ShoalKernels *kernels;
    ShoalLrnShape shape;
    size_t pixels, strips;
    const float *x, *s_in, *dy;
    float *s, *y, *scratch, *dx;
} Lrn;

static Lrn lrn_of(const ShoalCompute *compute, const ShoalLrnShape *shape) {
    size_t pixels = shape->height * shape->width;
    return (Lrn){.kernels = compute->kernels,
                 .shape = *shape,
                 .pixels = pixels,
                 .strips = (pixels + STRIP - 1) / STRIP};
}

/* The window around `at` in [0, limit). */
static void window_of(size_t at, size_t size, size_t limit, size_t *begin, size_t *end) {
    size_t half = size / 2;
    *begin = at > half ? at - half : 0;
    *end = limit - at > half ? at + half + 1 : limit;
}

static void set(size_t n, float value, float *y) {
    for (size_t i = 0; i < n; i++)
        y[i] = value;
}

/* --- Across channels: strip number i of an image --- */

static size_t strip_of(const Lrn *l, size_t i, size_t *n) {
    size_t first = i % l->strips * STRIP, left = l->pixels - first;
    *n = left < STRIP ? left : STRIP;
    return i / l->strips * l->shape.channels * l->pixels + first;
}

static void across_fwd_range(const void *context, size_t begin, size_t end) {
    const Lrn *l = context;
    for (size_t i = begin; i < end; i++) {
        size_t n, at = strip_of(l, i, &n);
        for (size_t c = 0; c < l->shape.channels; c++) {
            size_t from, to, here = at + c * l->pixels;
            window_of(c, l->shape.size, l->shape.channels, &from, &to);
            set(n, l->shape.k, l->s + here);
            for (size_t w = from; w < to; w++)
                l->kernels->lrn_square(n, l->shape.alpha, l->x + at + w * l->pixels, l->s + here);
            l->kernels->lrn_fwd(n, l->shape.beta, l->x + here, l->s + here, l->y + here);
        }
    }
}

static void across_bwd_range(const void *context, size_t begin, size_t end) {
    const Lrn *l = context;
    float factor = 2 * l->shape.alpha * l->shape.beta;
    for (size_t i = begin; i < end; i++) {
        size_t n, at = strip_of(l, i, &n);
        for (size_t c = 0; c < l->shape.channels; c++) {
            size_t here = at + c * l->pixels;
            l->kernels->lrn_ratio(n, l->shape.beta, l->x + here, l->s_in + here, l->dy + here,
                                  l->scratch + here);
        }
        for (size_t c = 0; c < l->shape.channels; c++) {
            size_t from, to, here = at + c * l->pixels;
            float *dx = l->dx + here;
            window_of(c, l->shape.size, l->shape.channels, &from, &to);
            set(n, 0, dx);
            for (size_t w = from; w < to; w++)
                l->kernels->add(n, dx, l->scratch + at + w * l->pixels, dx);
            l->kernels->lrn_bwd(n, l->shape.beta, factor, l->x + here, l->s_in + here, l->dy + here,
                                dx, dx);
        }
    }
}

/* --- Within a channel: one plane; the window sums are separable --- */

/* out[row] += rows of in[] in the window around it; out was set before. */
static void sum_rows(const Lrn *l, float factor, const float *in, float *out) {
    size_t width = l->shape.width, from, to;
    for (size_t row = 0; row < l->shape.height; row++) {
        window_of(row, l->shape.size, l->shape.height, &from, &to);
        for (size_t w = from; w < to; w++)
            l->kernels->axpy(width, factor, in + w * width, out + row * width);
    }
}

/* Calls for one row and each shift of the window: out[begin..begin+n) gets in[begin + shift...]. */
typedef struct Shift {
    size_t out, in, n;
} Shift;

static Shift shift_of(size_t w, size_t half, size_t width) {
    size_t left = w < half ? half - w : 0, right = w > half ? w - half : 0;
    size_t lost = left + right;
    return (Shift){left, right, lost < width ? width - lost : 0};
}

static void within_fwd_plane(const Lrn *l, size_t at) {
    size_t width = l->shape.width;
    float *sums = l->y + at; /* overwritten by the result at the end */
    memset(sums, 0, l->pixels * sizeof *sums);
    for (size_t row = 0; row < l->shape.height; row++)
        for (size_t w = 0; w < l->shape.size; w++) {
            Shift shift = shift_of(w, l->shape.size / 2, width);
            l->kernels->lrn_square(shift.n, 1, l->x + at + row * width + shift.in,
                                   sums + row * width + shift.out);
        }
    set(l->pixels, l->shape.k, l->s + at);
    sum_rows(l, l->shape.alpha, sums, l->s + at);
    l->kernels->lrn_fwd(l->pixels, l->shape.beta, l->x + at, l->s + at, l->y + at);
}

static void within_fwd_range(const void *context, size_t begin, size_t end) {
    const Lrn *l = context;
    for (size_t plane = begin; plane < end; plane++)
        within_fwd_plane(l, plane * l->pixels);
}

static void within_bwd_plane(const Lrn *l, size_t at) {
    size_t width = l->shape.width;
    float *ratio = l->dx + at, *sums = l->scratch + at;
    l->kernels->lrn_ratio(l->pixels, l->shape.beta, l->x + at, l->s_in + at, l->dy + at, ratio);
    memset(sums, 0, l->pixels * sizeof *sums);
    for (size_t row = 0; row < l->shape.height; row++)
        for (size_t w = 0; w < l->shape.size; w++) {
            Shift shift = shift_of(w, l->shape.size / 2, width);
            float *out = sums + row * width + shift.out;
            l->kernels->add(shift.n, out, ratio + row * width + shift.in, out);
        }
    memset(ratio, 0, l->pixels * sizeof *ratio);
    sum_rows(l, 1, sums, ratio);
    l->kernels->lrn_bwd(l->pixels, l->shape.beta, 2 * l->shape.alpha * l->shape.beta, l->x + at,
                        l->s_in + at, l->dy + at, ratio, ratio);
}

static void within_bwd_range(const void *context, size_t begin, size_t end) {
    const Lrn *l = context;
    for (size_t plane = begin; plane < end; plane++)
        within_bwd_plane(l, plane * l->pixels);
}

static void run(const ShoalCompute *compute, const Lrn *l, ShoalRangeBody *within,
                ShoalRangeBody *across) {
    if (l->shape.within)
        run_range(compute, l->shape.batch * l->shape.channels, l->pixels, within, l);
    else
        run_range(compute, l->shape.batch * l->strips,
                  l->shape.channels * (l->pixels < STRIP ? l->pixels : STRIP), across, l);
}

void shoal_lrn_fwd(const ShoalCompute *compute, const ShoalLrnShape *shape, const float *x,
                   float *s, float *y) {
    Lrn l = lrn_of(compute, shape);
    l.x = x;
    l.s = s;
    l.y = y;
    run(compute, &l, within_fwd_range, across_fwd_range);
}

void shoal_lrn_bwd(const ShoalCompute *compute, const ShoalLrnShape *shape, const float *x,
                   const float *s, const float *dy, float *scratch, float *dx) {
    Lrn l = lrn_of(compute, shape);
    l.x = x;
    l.s_in = s;
    l.dy = dy;
    l.scratch = scratch;
    l.dx = dx;
    run(compute, &l, within_bwd_range, across_bwd_range);
}
