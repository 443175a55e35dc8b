/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/range.h"
#include "kernels/table.h"

/* Operations with a value per channel. */

typedef struct Channels {
    const ShoalKernels *kernels;
    ShoalChannelShape shape;
    const float *x, *dy, *a, *b;
    float *out, *second;
} Channels;

static const float *plane_of(const Channels *c, const float *tensor, size_t n, size_t channel) {
    return tensor + (n * c->shape.channels + channel) * c->shape.inner;
}

static double sum_of(const Channels *c, const float *x, size_t channel) {
    double sum = 0;
    for (size_t n = 0; n < c->shape.outer; n++)
        sum += c->kernels->sum(c->shape.inner, plane_of(c, x, n, channel));
    return sum;
}

static double dot_of(const Channels *c, const float *x, const float *y, size_t channel) {
    double sum = 0;
    for (size_t n = 0; n < c->shape.outer; n++)
        sum +=
            c->kernels->dot(c->shape.inner, plane_of(c, x, n, channel), plane_of(c, y, n, channel));
    return sum;
}

static void run_channels(const ShoalCompute *compute, ShoalRangeBody *body, const Channels *c) {
    run_range(compute, c->shape.channels, c->shape.outer * c->shape.inner, body, c);
}

static void run_planes(const ShoalCompute *compute, ShoalRangeBody *body, const Channels *c) {
    run_range(compute, c->shape.outer * c->shape.channels, c->shape.inner, body, c);
}

static void moments_range(const void *context, size_t begin, size_t end) {
    const Channels *c = context;
    double count = (double)c->shape.outer * (double)c->shape.inner;
    for (size_t channel = begin; channel < end; channel++) {
        double mean = count > 0 ? sum_of(c, c->x, channel) / count : 0, spread = 0;
        for (size_t n = 0; n < c->shape.outer; n++)
            spread += c->kernels->spread(c->shape.inner, mean, plane_of(c, c->x, n, channel));
        c->out[channel] = (float)mean;
        c->second[channel] = count > 0 ? (float)(spread / count) : 0;
    }
}

void shoal_channel_moments(const ShoalCompute *compute, const ShoalChannelShape *shape,
                           const float *x, float *mean, float *variance) {
    Channels c = {
        .kernels = compute->kernels, .shape = *shape, .x = x, .out = mean, .second = variance};
    run_channels(compute, moments_range, &c);
}

static void affine_range(const void *context, size_t begin, size_t end) {
    const Channels *c = context;
    size_t inner = c->shape.inner;
    for (size_t plane = begin; plane < end; plane++) {
        size_t channel = plane % c->shape.channels;
        c->kernels->affine(inner, c->a[channel], c->b ? c->b[channel] : 0, c->x + plane * inner,
                           c->out + plane * inner);
    }
}

void shoal_channel_affine(const ShoalCompute *compute, const ShoalChannelShape *shape,
                          const float *x, const float *factor, const float *shift, float *y) {
    Channels c = {
        .kernels = compute->kernels, .shape = *shape, .x = x, .a = factor, .b = shift, .out = y};
    run_planes(compute, affine_range, &c);
}

static void sums_range(const void *context, size_t begin, size_t end) {
    const Channels *c = context;
    for (size_t channel = begin; channel < end; channel++) {
        double sum = c->x ? dot_of(c, c->x, c->dy, channel) : sum_of(c, c->dy, channel);
        c->out[channel] = (float)((double)c->out[channel] + sum);
    }
}

void shoal_channel_sums(const ShoalCompute *compute, const ShoalChannelShape *shape, const float *x,
                        const float *dy, float *sums) {
    Channels c = {.kernels = compute->kernels, .shape = *shape, .x = x, .dy = dy, .out = sums};
    run_channels(compute, sums_range, &c);
}

static void normalize_range(const void *context, size_t begin, size_t end) {
    const Channels *c = context;
    size_t inner = c->shape.inner;
    for (size_t plane = begin; plane < end; plane++) {
        size_t channel = plane % c->shape.channels;
        c->kernels->normalize(inner, c->a[channel], c->b[channel], c->x + plane * inner,
                              c->out + plane * inner);
    }
}

void shoal_batch_norm_fwd(const ShoalCompute *compute, const ShoalChannelShape *shape,
                          const float *x, const float *mean, const float *inverse, float *y) {
    Channels c = {
        .kernels = compute->kernels, .shape = *shape, .x = x, .a = mean, .b = inverse, .out = y};
    run_planes(compute, normalize_range, &c);
}

static void normalize_bwd_range(const void *context, size_t begin, size_t end) {
    const Channels *c = context;
    size_t inner = c->shape.inner;
    double count = (double)c->shape.outer * (double)inner;
    for (size_t channel = begin; channel < end; channel++) {
        float mean_dy = (float)(sum_of(c, c->dy, channel) / count);
        float mean_dot = (float)(dot_of(c, c->x, c->dy, channel) / count);
        for (size_t n = 0; n < c->shape.outer; n++) {
            size_t at = (n * c->shape.channels + channel) * inner;
            c->kernels->normalize_bwd(inner, mean_dy, mean_dot, c->a[channel], c->x + at,
                                      c->dy + at, c->out + at);
        }
    }
}

void shoal_batch_norm_bwd(const ShoalCompute *compute, const ShoalChannelShape *shape,
                          const float *y, const float *dy, const float *inverse, float *dx) {
    Channels c = {
        .kernels = compute->kernels, .shape = *shape, .x = y, .dy = dy, .a = inverse, .out = dx};
    run_channels(compute, normalize_bwd_range, &c);
}
