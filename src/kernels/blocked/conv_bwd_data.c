/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/blocked/conv.h"

#include <string.h>

#include "kernels/table.h"

/* columns[tap][pixel] = w[o][tap] * dy[o][pixel], summed over o, some channels at a time into a
 * buffer in the cache; then every input gathers the entries that read it. */

typedef struct Backward {
    ShoalConvPlan plan;
    ShoalConvSpace space;
    const float *w, *dy;
    float *dx;
    size_t channel_parts; /* tasks per image and group */
} Backward;

/* The group's dy of one image, in panels of nr pixels: [panel][o][nr]. */
static void pack_dy(const Backward *b, const float *dy, float *panels) {
    const ShoalConvPlan *p = &b->plan;
    const size_t nr = p->blocked->nr;
    for (size_t pixel = 0; pixel < p->out_plane; pixel += nr) {
        float *panel = panels + pixel * p->outputs;
        ShoalRun run = {(ptrdiff_t)pixel, 0, p->out_plane - pixel < nr ? p->out_plane - pixel : nr};
        if (run.length < nr)
            memset(panel, 0, p->outputs * nr * sizeof *panel);
        p->blocked->pack_runs(dy, b->space.output_at, p->outputs, &run, 1, panel, nr);
    }
}

/* Rows [row, row + rows) of the group's columns[] for all pixels into columns. */
static void multiply(const Backward *b, size_t group, size_t row, size_t rows, const float *panels,
                     float *columns, size_t stride) {
    const ShoalConvPlan *p = &b->plan;
    const size_t nr = p->blocked->nr, tiles = shoal_div_up(rows, p->blocked->mr);
    for (size_t pixel = 0; pixel < p->out_plane; pixel += nr)
        for (size_t i = 0; i < tiles; i++) {
            size_t begin = shoal_part_begin(rows, tiles, i);
            size_t end = shoal_part_begin(rows, tiles, i + 1);
            ShoalTile t = {.m = end - begin,
                           .n = p->out_plane - pixel < nr ? p->out_plane - pixel : nr,
                           .k = p->outputs,
                           .a = b->w + group * p->outputs * p->rows + row + begin,
                           .a_row = 1,
                           .a_col = p->rows,
                           .b = panels + pixel * p->outputs,
                           .b_row = nr,
                           .c = columns + begin * stride + pixel,
                           .c_row = stride,
                           .alpha = 1};
            p->blocked->tile(&t);
        }
}

/* Task: some channels of one group of one image. */
static void bwd_data_task(void *context, size_t index, unsigned thread) {
    const Backward *b = context;
    const ShoalConvPlan *p = &b->plan;
    const size_t part = index % b->channel_parts, plane = index / b->channel_parts;
    const size_t group = plane % p->groups;
    const size_t begin = shoal_part_begin(p->channels, b->channel_parts, part);
    const size_t end = shoal_part_begin(p->channels, b->channel_parts, part + 1);
    float *panels = (float *)(void *)(b->space.threads + thread * b->space.thread_bytes);
    float *columns = panels + p->pixel_stride * p->outputs;
    float *dx = b->dx + (plane * p->channels + begin) * p->in_plane;
    pack_dy(b, b->dy + plane * p->outputs * p->out_plane, panels);
    if (p->pointwise) {
        multiply(b, group, begin, end - begin, panels, dx, p->out_plane);
        return;
    }
    for (size_t c = begin; c < end; c += p->channel_step) {
        size_t count = end - c < p->channel_step ? end - c : p->channel_step;
        multiply(b, group, c * p->taps, count * p->taps, panels, columns, p->pixel_stride);
        for (size_t i = 0; i < count; i++, dx += p->in_plane)
            for (int row = 0; row < p->shape->height; row++)
                p->blocked->col2im_row(p->shape, columns + i * p->taps * p->pixel_stride,
                                       p->pixel_stride, row,
                                       dx + (size_t)row * (size_t)p->shape->width);
    }
}

void shoal_conv_bwd_data_f32_blocked(const ShoalCompute *compute, const ShoalConvShape *shape,
                                     const float *dy, const float *w, float *dx) {
    if (shoal_conv_is_depthwise(shape)) {
        shoal_conv_depthwise_bwd_data(compute, shape, dy, w, dx);
        return;
    }
    Backward b = {.w = w, .dy = dy, .dx = dx, .channel_parts = 1};
    b.plan = shoal_conv_plan(shape, compute->kernels->blocked, shoal_pool_threads(compute->pool));
    const ShoalConvPlan *p = &b.plan;
    const size_t planes = p->batch * p->groups;
    if (planes == 0)
        return;
    if (p->outputs == 0 || p->out_plane == 0) {
        memset(dx, 0, planes * p->channels * p->in_plane * sizeof *dx);
        return;
    }
    b.space = shoal_conv_space(p, SHOAL_CONV_BWD_DATA, compute->workspace);
    for (size_t o = 0; o < p->outputs; o++)
        b.space.output_at[o] = (ptrdiff_t)(o * p->out_plane);
    if (p->threads > 1 && planes < 2 * (size_t)p->threads) {
        size_t parts = shoal_div_up(3 * (size_t)p->threads, planes);
        b.channel_parts = parts < p->channels ? parts : p->channels;
    }
    shoal_pool_run(compute->pool, planes * b.channel_parts, bwd_data_task, &b);
}
