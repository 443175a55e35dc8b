/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/blocked/conv.h"

#include <string.h>

#include "kernels/table.h"

/* Convolutions with one input channel per group, row by row: too thin for tiles, and memory is
 * what they wait for. A group may have several outputs. */

typedef struct Depthwise {
    ShoalConvPlan plan;
    ShoalConvSpace space;
    const float *x, *w, *bias, *dy;
    float *out;
} Depthwise;

static Depthwise depthwise_of(const ShoalCompute *compute, const ShoalConvShape *shape) {
    Depthwise d = {0};
    d.plan = shoal_conv_plan(shape, compute->kernels->blocked, shoal_pool_threads(compute->pool));
    d.space = shoal_conv_space(&d.plan, SHOAL_CONV_DEPTHWISE, compute->workspace);
    return d;
}

static float *scratch_of(const Depthwise *d, unsigned thread) {
    return (float *)(void *)(d->space.threads + thread * d->space.thread_bytes);
}

/* Where output row i and tap (u, v) begin to read in a plane with border. */
static size_t tap_start(const ShoalConvPlan *p, int i, int u, int v) {
    const ShoalConvShape *s = p->shape;
    size_t row = (size_t)i * (size_t)s->stride_h + (size_t)u * (size_t)s->dilation_h;
    return row * p->width + (size_t)v * (size_t)s->dilation_w;
}

/* The input plane with its border: the plane itself when it needs none. */
static const float *with_border(const Depthwise *d, const float *x, unsigned thread) {
    if (!d->plan.bordered)
        return x;
    float *plane = scratch_of(d, thread);
    shoal_conv_border_plane(&d->plan, x, plane);
    return plane;
}

/* Task: the outputs of one channel of one image. */
static void fwd_task(void *context, size_t index, unsigned thread) {
    const Depthwise *d = context;
    const ShoalConvPlan *p = &d->plan;
    const ShoalConvShape *s = p->shape;
    const size_t channel = index % p->groups, out_width = (size_t)s->out_width;
    const float *x = with_border(d, d->x + index * p->in_plane, thread);
    float *y = d->out + index * p->outputs * p->out_plane;
    for (size_t o = channel * p->outputs; o < (channel + 1) * p->outputs; o++)
        for (int i = 0; i < s->out_height; i++, y += out_width) {
            const float *w = d->w + o * p->taps;
            for (size_t j = 0; j < out_width; j++)
                y[j] = d->bias ? d->bias[o] : 0;
            for (int u = 0; u < s->kernel_h; u++)
                for (int v = 0; v < s->kernel_w; v++)
                    p->blocked->row_gather(out_width, *w++, x + tap_start(p, i, u, v),
                                           (size_t)s->stride_w, y);
        }
}

void shoal_conv_depthwise_fwd(const ShoalCompute *compute, const ShoalConvShape *shape,
                              const float *x, const float *w, const float *bias, float *y) {
    Depthwise d = depthwise_of(compute, shape);
    d.x = x;
    d.w = w;
    d.bias = bias;
    d.out = y;
    shoal_pool_run(compute->pool, d.plan.batch * d.plan.groups, fwd_task, &d);
}

/* Copies a plane without its border. */
static void drop_border(const ShoalConvPlan *p, const float *plane, float *x) {
    const ShoalConvShape *s = p->shape;
    for (size_t h = 0; h < (size_t)s->height; h++)
        memcpy(x + h * (size_t)s->width,
               plane + (h + (size_t)s->pad_h) * p->width + (size_t)s->pad_w,
               (size_t)s->width * sizeof *x);
}

/* Task: one channel of one image. */
static void bwd_data_task(void *context, size_t index, unsigned thread) {
    const Depthwise *d = context;
    const ShoalConvPlan *p = &d->plan;
    const ShoalConvShape *s = p->shape;
    const size_t channel = index % p->groups, out_width = (size_t)s->out_width;
    const float *dy = d->dy + index * p->outputs * p->out_plane;
    float *dx = d->out + index * p->in_plane, *plane = p->bordered ? scratch_of(d, thread) : dx;
    memset(plane, 0, p->height * p->width * sizeof *plane);
    for (size_t o = channel * p->outputs; o < (channel + 1) * p->outputs; o++)
        for (int i = 0; i < s->out_height; i++, dy += out_width) {
            const float *w = d->w + o * p->taps;
            for (int u = 0; u < s->kernel_h; u++)
                for (int v = 0; v < s->kernel_w; v++)
                    p->blocked->row_scatter(out_width, *w++, dy, plane + tap_start(p, i, u, v),
                                            (size_t)s->stride_w);
        }
    if (p->bordered)
        drop_border(p, plane, dx);
}

void shoal_conv_depthwise_bwd_data(const ShoalCompute *compute, const ShoalConvShape *shape,
                                   const float *dy, const float *w, float *dx) {
    Depthwise d = depthwise_of(compute, shape);
    d.dy = dy;
    d.w = w;
    d.out = dx;
    shoal_pool_run(compute->pool, d.plan.batch * d.plan.groups, bwd_data_task, &d);
}

/* The gradient of one tap from one image. */
static double tap_gradient(const ShoalConvPlan *p, const float *x, const float *dy, int u, int v) {
    const ShoalConvShape *s = p->shape;
    double sum = 0;
    for (int i = 0; i < s->out_height; i++, dy += s->out_width)
        sum += (double)p->blocked->row_dot((size_t)s->out_width, dy, x + tap_start(p, i, u, v),
                                           (size_t)s->stride_w);
    return sum;
}

/* Task: the filters of one channel. */
static void bwd_weights_task(void *context, size_t channel, unsigned thread) {
    const Depthwise *d = context;
    const ShoalConvPlan *p = &d->plan;
    for (size_t b = 0; b < p->batch; b++) {
        const size_t plane = b * p->groups + channel;
        const float *x = with_border(d, d->x + plane * p->in_plane, thread);
        const float *dy = d->dy + plane * p->outputs * p->out_plane;
        float *dw = d->out + channel * p->outputs * p->taps;
        for (size_t o = 0; o < p->outputs; o++, dy += p->out_plane)
            for (int u = 0; u < p->shape->kernel_h; u++)
                for (int v = 0; v < p->shape->kernel_w; v++, dw++)
                    *dw = (float)((double)*dw + tap_gradient(p, x, dy, u, v));
    }
}

void shoal_conv_depthwise_bwd_weights(const ShoalCompute *compute, const ShoalConvShape *shape,
                                      const float *x, const float *dy, float *dw) {
    Depthwise d = depthwise_of(compute, shape);
    d.x = x;
    d.dy = dy;
    d.out = dw;
    shoal_pool_run(compute->pool, d.plan.groups, bwd_weights_task, &d);
}
