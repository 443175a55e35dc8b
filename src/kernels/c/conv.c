/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/c/reference.h"

typedef struct Conv {
    const ShoalConvShape *s;
    const float *x, *w, *bias, *dy;
    float *out;
} Conv;

/* Row and column that a tap of an output reads; may be out of range. */
static long in_row(const ShoalConvShape *s, int i, int u) {
    return (long)i * s->stride_h - s->pad_h + (long)u * s->dilation_h;
}

static long in_column(const ShoalConvShape *s, int j, int v) {
    return (long)j * s->stride_w - s->pad_w + (long)v * s->dilation_w;
}

/* One output before the bias: x the group's channels of an image, w one filter. */
static double convolve(const ShoalConvShape *s, const float *x, const float *w, int i, int j) {
    double sum = 0;
    for (int c = 0; c < s->channels / s->group; c++)
        for (int u = 0; u < s->kernel_h; u++)
            for (int v = 0; v < s->kernel_w; v++, w++) {
                long row = in_row(s, i, u), column = in_column(s, j, v);
                if (row < 0 || row >= s->height || column < 0 || column >= s->width)
                    continue;
                size_t at = ((size_t)c * (size_t)s->height + (size_t)row) * (size_t)s->width;
                sum += (double)*w * (double)x[at + (size_t)column];
            }
    return sum;
}

/* Task: one output plane. */
static void fwd_plane(void *context, size_t plane, unsigned thread) {
    const Conv *conv = context;
    const ShoalConvShape *s = conv->s;
    size_t image = plane / (size_t)s->outputs, o = plane % (size_t)s->outputs;
    size_t in_group = (size_t)(s->channels / s->group), out_group = (size_t)(s->outputs / s->group);
    size_t in_plane = (size_t)s->height * (size_t)s->width;
    const float *x = conv->x + (image * (size_t)s->channels + o / out_group * in_group) * in_plane;
    const float *w = conv->w + o * in_group * (size_t)s->kernel_h * (size_t)s->kernel_w;
    float *y = conv->out + plane * (size_t)s->out_height * (size_t)s->out_width;
    double bias = conv->bias ? (double)conv->bias[o] : 0;
    (void)thread;
    for (int i = 0; i < s->out_height; i++)
        for (int j = 0; j < s->out_width; j++)
            *y++ = (float)(bias + convolve(s, x, w, i, j));
}

void shoal_conv_fwd_f32_c(const ShoalCompute *compute, const ShoalConvShape *shape, const float *x,
                          const float *w, const float *bias, float *y) {
    Conv conv = {.s = shape, .x = x, .w = w, .bias = bias, .out = y};
    shoal_pool_run(compute->pool, (size_t)shape->batch * (size_t)shape->outputs, fwd_plane, &conv);
}

/* The output row (or column) that reads input `at` with tap `tap`, or -1. */
static long out_of(long at, int pad, int tap, int dilation, int stride, int limit) {
    long scaled = at + pad - (long)tap * dilation;
    if (scaled < 0 || scaled % stride != 0 || scaled / stride >= limit)
        return -1;
    return scaled / stride;
}

/* What output plane dy and its filter w give to one input. */
static double gather(const ShoalConvShape *s, const float *dy, const float *w, int row, int col) {
    double sum = 0;
    for (int u = 0; u < s->kernel_h; u++)
        for (int v = 0; v < s->kernel_w; v++, w++) {
            long i = out_of(row, s->pad_h, u, s->dilation_h, s->stride_h, s->out_height);
            long j = out_of(col, s->pad_w, v, s->dilation_w, s->stride_w, s->out_width);
            if (i >= 0 && j >= 0)
                sum += (double)*w * (double)dy[(size_t)i * (size_t)s->out_width + (size_t)j];
        }
    return sum;
}

/* Task: one input plane. */
static void bwd_data_plane(void *context, size_t plane, unsigned thread) {
    const Conv *conv = context;
    const ShoalConvShape *s = conv->s;
    size_t image = plane / (size_t)s->channels, channel = plane % (size_t)s->channels;
    size_t in_group = (size_t)(s->channels / s->group), out_group = (size_t)(s->outputs / s->group);
    size_t first = channel / in_group * out_group;
    size_t taps = (size_t)s->kernel_h * (size_t)s->kernel_w;
    size_t out_plane = (size_t)s->out_height * (size_t)s->out_width;
    float *dx = conv->out + plane * (size_t)s->height * (size_t)s->width;
    (void)thread;
    for (int row = 0; row < s->height; row++)
        for (int col = 0; col < s->width; col++) {
            double sum = 0;
            for (size_t o = first; o < first + out_group; o++)
                sum += gather(s, conv->dy + (image * (size_t)s->outputs + o) * out_plane,
                              conv->w + (o * in_group + channel % in_group) * taps, row, col);
            *dx++ = (float)sum;
        }
}

void shoal_conv_bwd_data_f32_c(const ShoalCompute *compute, const ShoalConvShape *shape,
                               const float *dy, const float *w, float *dx) {
    Conv conv = {.s = shape, .dy = dy, .w = w, .out = dx};
    shoal_pool_run(compute->pool, (size_t)shape->batch * (size_t)shape->channels, bwd_data_plane,
                   &conv);
}

/* The gradient of tap (u, v) from one input and one output plane. */
static double correlate(const ShoalConvShape *s, const float *x, const float *dy, int u, int v) {
    double sum = 0;
    for (int i = 0; i < s->out_height; i++)
        for (int j = 0; j < s->out_width; j++, dy++) {
            long row = in_row(s, i, u), column = in_column(s, j, v);
            if (row < 0 || row >= s->height || column < 0 || column >= s->width)
                continue;
            sum += (double)*dy * (double)x[(size_t)row * (size_t)s->width + (size_t)column];
        }
    return sum;
}

/* Task: one filter. */
static void bwd_weights_filter(void *context, size_t o, unsigned thread) {
    const Conv *conv = context;
    const ShoalConvShape *s = conv->s;
    size_t in_group = (size_t)(s->channels / s->group), out_group = (size_t)(s->outputs / s->group);
    size_t in_plane = (size_t)s->height * (size_t)s->width;
    size_t out_plane = (size_t)s->out_height * (size_t)s->out_width;
    float *dw = conv->out + o * in_group * (size_t)s->kernel_h * (size_t)s->kernel_w;
    (void)thread;
    for (size_t c = o / out_group * in_group; c < (o / out_group + 1) * in_group; c++)
        for (int u = 0; u < s->kernel_h; u++)
            for (int v = 0; v < s->kernel_w; v++, dw++) {
                double sum = (double)*dw;
                for (size_t b = 0; b < (size_t)s->batch; b++)
                    sum += correlate(s, conv->x + (b * (size_t)s->channels + c) * in_plane,
                                     conv->dy + (b * (size_t)s->outputs + o) * out_plane, u, v);
                *dw = (float)sum;
            }
}

void shoal_conv_bwd_weights_f32_c(const ShoalCompute *compute, const ShoalConvShape *shape,
                                  const float *x, const float *dy, float *dw) {
    Conv conv = {.s = shape, .x = x, .dy = dy, .out = dw};
    shoal_pool_run(compute->pool, (size_t)shape->outputs, bwd_weights_filter, &conv);
}
