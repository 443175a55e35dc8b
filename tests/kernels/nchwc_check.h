/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHOAL_TESTS_KERNELS_NCHWC_CHECK_H
#define SHOAL_TESTS_KERNELS_NCHWC_CHECK_H

/* What tests of channel-blocked tensors share: blocked arrays between guards, the value of an
 * input, and what a gradient's finish should give, all in double. */

#include "kernels/check.h"
#include "kernels/nchwc.h"

static inline size_t nchwc_plane(const ShoalNchwcDims *d) {
    return (size_t)d->height * (size_t)d->width;
}

static inline size_t nchwc_count(const ShoalNchwcDims *d, int lanes) {
    return (size_t)d->batch * shoal_nchwc_padded(d->channels, lanes) * nchwc_plane(d);
}

/* Where the number of an image, channel and pixel lies. */
static inline size_t nchwc_at(const ShoalNchwcDims *d, int lanes, int image, int channel,
                              size_t pixel) {
    size_t l = (size_t)lanes, c = (size_t)channel;
    size_t block = (size_t)image * (shoal_nchwc_padded(d->channels, lanes) / l) + c / l;
    return (block * nchwc_plane(d) + pixel) * l + c % l;
}

/* All numbers of a tensor by image, channel, pixel; the body sees `at` too. */
#define FOR_NCHWC(d, lanes, n, c, p)                                                               \
    for (int n = 0; n < (d)->batch; n++)                                                           \
        for (int c = 0; c < (int)shoal_nchwc_padded((d)->channels, lanes); c++)                    \
            for (size_t p = 0; p < nchwc_plane(d); p++)

/* As array_blank, aligned as tensors are. */
static inline Array aligned_blank(size_t count) {
    Array a = {.count = count};
    a.block = shoal_calloc(count + 2 * GUARD, sizeof *a.block);
    assert_non_null(a.block);
    a.data = a.block + GUARD;
    fill_guard(a.block, count + 2 * GUARD);
    CHECK_FORBID(a.block, GUARD);
    CHECK_FORBID(a.data + count, GUARD);
    return a;
}

static inline Array aligned_copy(const Array *from) {
    Array a = aligned_blank(from->count);
    for (size_t i = 0; i < from->count; i++)
        a.data[i] = from->data[i];
    return a;
}

static inline void clear_padding(const ShoalNchwcDims *d, int lanes, float *x) {
    FOR_NCHWC(d, lanes, n, c, p)
    if (c >= d->channels)
        x[nchwc_at(d, lanes, n, c, p)] = 0;
}

/* Uniform in [-1, 1), zeros in the padding. */
static inline Array nchwc_random(const ShoalNchwcDims *d, int lanes) {
    Array a = aligned_blank(nchwc_count(d, lanes));
    shoal_rng_fill_uniform(&check_rng, -1, 1, a.count, a.data);
    clear_padding(d, lanes, a.data);
    return a;
}

/* Per-channel numbers, zeros in the padding. */
static inline Array channels_random(int channels, int lanes) {
    ShoalNchwcDims d = {1, channels, 1, 1};
    return nchwc_random(&d, lanes);
}

static inline void check_padding(const char *what, const ShoalNchwcDims *d, int lanes,
                                 const float *x) {
    FOR_NCHWC(d, lanes, n, c, p) {
        float value = x[nchwc_at(d, lanes, n, c, p)];
        if (c >= d->channels && !(value == 0))
            fail_msg("%s: padding lane of channel %d, pixel %zu is %g", what, c, p, (double)value);
    }
}

/* The value of number `at`, of channel c; *magnitude: what its rounding errors are relative to. */
static inline double nchwc_value(const ShoalNchwcInput *x, size_t at, int c, double *magnitude) {
    double value = (double)x->x[at];
    *magnitude = fabs(value);
    if (x->scale) {
        *magnitude = fabs((double)x->scale[c] * value) + fabs((double)x->shift[c]);
        value = (double)x->scale[c] * value + (double)x->shift[c];
    }
    return x->relu && value < 0 ? 0 : value;
}

/* An input over x, with or without a function: bit 0 a scale, bit 1 relu. */
static inline ShoalNchwcInput input_of(const Array *x, const Array *scale, const Array *shift,
                                       int kind) {
    ShoalNchwcInput input = {.x = x->data, .relu = kind & 2};
    if (kind & 1) {
        input.scale = scale->data;
        input.shift = shift->data;
    }
    return input;
}

/* --- Gradients ------------------------------------------------------------------------------ */

/* Everything that a gradient may come with. kind: bits 0..1 mask (none, raw, scaled), 2..3 sums
 * (none, no term, one, two), bit 4 accumulate, bit 5 finish. */
typedef struct GradientCase {
    ShoalNchwcDims dims;
    int lanes, kind;
    Array before, mask, mask_scale, mask_shift, z[2], center[2];
    double *sums; /* [3][padded channels] */
    float *g;     /* what the last gradient_of was given */
} GradientCase;

enum { GRADIENT_KINDS = 64 };

static inline bool gradient_kind_valid(int kind) {
    return (kind & 3) < 3 && ((kind & 32) || (kind & 15) == 0);
}

static inline GradientCase gradient_case(const ShoalNchwcDims *dims, int lanes, int kind) {
    GradientCase c = {.dims = *dims, .lanes = lanes, .kind = kind};
    c.before = nchwc_random(dims, lanes);
    c.mask = nchwc_random(dims, lanes);
    c.mask_scale = channels_random(dims->channels, lanes);
    c.mask_shift = channels_random(dims->channels, lanes);
    for (int t = 0; t < 2; t++) {
        c.z[t] = nchwc_random(dims, lanes);
        c.center[t] = channels_random(dims->channels, lanes);
    }
    c.sums = shoal_calloc(3 * shoal_nchwc_padded(dims->channels, lanes), sizeof *c.sums);
    return c;
}

static inline void gradient_case_close(GradientCase *c) {
    Array *arrays[] = {&c->before, &c->mask, &c->mask_scale, &c->mask_shift,
                       &c->z[0],   &c->z[1], &c->center[0],  &c->center[1]};
    for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++)
        array_close(arrays[i]);
    shoal_free(c->sums);
}

/* A gradient of the case over g, which gets what it is to add to. */
static inline ShoalNchwcGradient gradient_of(GradientCase *c, float *g) {
    size_t padded = shoal_nchwc_padded(c->dims.channels, c->lanes);
    ShoalNchwcGradient d = {.g = g, .accumulate = c->kind & 16, .finish = c->kind & 32};
    if (d.accumulate)
        memcpy(g, c->before.data, c->before.count * sizeof *g);
    for (size_t i = 0; i < 3 * padded; i++)
        c->sums[i] = NAN;
    if (c->kind & 3)
        d.mask = c->mask.data;
    if ((c->kind & 3) == 2) {
        d.mask_scale = c->mask_scale.data;
        d.mask_shift = c->mask_shift.data;
    }
    if (c->kind >> 2 & 3) {
        d.sum_g = c->sums;
        d.terms = (c->kind >> 2 & 3) - 1;
    }
    for (int t = 0; t < d.terms; t++) {
        d.term[t].z = c->z[t].data;
        d.term[t].center = c->center[t].data;
        d.term[t].sum = c->sums + (1 + (size_t)t) * padded;
    }
    return d;
}

/* m of the finish; close is set when rounding may turn its sign. */
static inline double gradient_mask(const GradientCase *c, size_t at, int channel, bool *close) {
    double m = (double)c->mask.data[at];
    *close = false;
    if ((c->kind & 3) == 2) {
        m = m * (double)c->mask_scale.data[channel] + (double)c->mask_shift.data[channel];
        *close = fabs(m) < 1e-6;
    }
    return m;
}

static inline void check_sum(const char *what, double got, double expected, double magnitude,
                             size_t terms) {
    if (fabs(got - expected) > check_tolerance(terms, magnitude))
        fail_msg("%s: %.9g, not %.9g (%zu terms, allowed %.3g)", what, got, expected, terms,
                 check_tolerance(terms, magnitude));
}

/* The sums of one channel, of what is in d->g. */
static inline void check_gradient_sums(const char *what, const GradientCase *c,
                                       const ShoalNchwcGradient *d, int channel) {
    double sum[3] = {0}, size[3] = {0};
    for (int n = 0; n < c->dims.batch; n++)
        for (size_t p = 0; p < nchwc_plane(&c->dims); p++) {
            size_t at = nchwc_at(&c->dims, c->lanes, n, channel, p);
            double g = (double)d->g[at];
            sum[0] += g;
            size[0] += fabs(g);
            for (int t = 0; t < d->terms; t++) {
                double z = (double)c->z[t].data[at] - (double)c->center[t].data[channel];
                sum[1 + t] += g * z;
                size[1 + t] += fabs(g * z);
            }
        }
    size_t terms = (size_t)c->dims.batch * nchwc_plane(&c->dims);
    check_sum(what, d->sum_g[channel], sum[0], size[0], terms);
    for (int t = 0; t < d->terms; t++)
        check_sum(what, d->term[t].sum[channel], sum[1 + t], size[1 + t], terms);
}

/* d->g against (accumulate ? before : 0) + added, through the mask; and the sums. `added` and its
 * magnitude are blocked. */
static inline void check_gradient(const char *what, const GradientCase *c,
                                  const ShoalNchwcGradient *d, const double *added,
                                  const double *magnitude, size_t terms) {
    check_padding(what, &c->dims, c->lanes, d->g);
    FOR_NCHWC(&c->dims, c->lanes, n, channel, p) {
        size_t at = nchwc_at(&c->dims, c->lanes, n, channel, p);
        double before = d->accumulate ? (double)c->before.data[at] : 0, got = (double)d->g[at];
        double expected = before + added[at], size = fabs(before) + magnitude[at];
        bool close = false;
        if (channel >= c->dims.channels)
            continue;
        if (d->mask && gradient_mask(c, at, channel, &close) <= 0)
            expected = 0;
        if (!close && fabs(got - expected) > check_tolerance(terms + 1, size))
            fail_msg("%s, kind %d: channel %d, pixel %zu is %.9g, not %.9g", what, c->kind, channel,
                     p, got, expected);
    }
    if (d->sum_g)
        for (int channel = 0; channel < (int)shoal_nchwc_padded(c->dims.channels, c->lanes);
             channel++)
            check_gradient_sums(what, c, d, channel);
}

/* --- Statistics ----------------------------------------------------------------------------- */

static inline void check_stats(const char *what, const ShoalNchwcDims *d, int lanes, const float *x,
                               const ShoalNchwcStats *stats) {
    const double count = (double)d->batch * (double)nchwc_plane(d);
    for (int c = 0; c < (int)shoal_nchwc_padded(d->channels, lanes); c++) {
        double mean = 0, square = 0, largest = 0;
        for (int n = 0; n < d->batch; n++)
            for (size_t p = 0; p < nchwc_plane(d); p++)
                mean += (double)x[nchwc_at(d, lanes, n, c, p)] / count;
        for (int n = 0; n < d->batch; n++)
            for (size_t p = 0; p < nchwc_plane(d); p++) {
                double off = (double)x[nchwc_at(d, lanes, n, c, p)] - mean;
                square += off * off / count;
                largest = fabs(off) > largest ? fabs(off) : largest;
            }
        /* Offsets of floats from an origin that may be the farthest of them; and the roundings of
         * the doubles here. */
        largest += fabs(mean) * 1e-6;
        check_sum(what, stats->mean[c], mean, 2 * largest, 512);
        check_sum(what, stats->variance[c], square, 4 * largest * largest, 512);
    }
}

/* Levels that have blocked tensors, with their lanes. */
#define FOR_NCHWC_LEVELS(level, lanes)                                                             \
    FOR_LEVELS(level)                                                                              \
    for (int lanes = shoal_nchwc_lanes(shoal_kernels_for(level)); lanes > 0; lanes = 0)

/* Runs bits[] against what the same call with one thread gave: kept on the first call. */
static inline void check_same_bits(const char *what, const void *got, void **first, size_t bytes) {
    if (!*first) {
        *first = shoal_calloc(bytes, 1);
        memcpy(*first, got, bytes);
    } else if (memcmp(*first, got, bytes) != 0) {
        fail_msg("%s: other bits with another number of threads", what);
    }
}

#endif
