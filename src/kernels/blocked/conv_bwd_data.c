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
    size_t steps, step_parts; /* of a group; tasks per image and group */
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

/* Step `step` of the group: its rows [*begin, *end) of columns[]. */
static void rows_of_step(const ShoalConvPlan *p, size_t step, size_t *begin, size_t *end) {
    size_t channel = step * p->channel_step, left = p->channels - channel;
    *begin = channel * p->taps;
    *end = *begin + (left < p->channel_step ? left : p->channel_step) * p->taps;
}

/* Tile `i` of a step, in rows of columns[]. */
static void rows_of_tile(size_t begin, size_t end, size_t tiles, size_t i, size_t *tile_begin,
                         size_t *tile_end) {
    *tile_begin = begin + shoal_part_begin(end - begin, tiles, i);
    *tile_end = begin + shoal_part_begin(end - begin, tiles, i + 1);
}

/* Task: the weights of one step of one group, each tile as [o][row of the tile]. */
static void pack_weights(void *context, size_t index, unsigned thread) {
    const Backward *b = context;
    const ShoalConvPlan *p = &b->plan;
    const size_t group = index / b->steps;
    size_t begin, end;
    (void)thread;
    rows_of_step(p, index % b->steps, &begin, &end);
    const size_t tiles = shoal_div_up(end - begin, p->blocked->mr);
    const float *w = b->w + group * p->outputs * p->rows;
    float *packed = b->space.weights + group * p->outputs * p->rows + begin * p->outputs;
    for (size_t i = 0; i < tiles; i++) {
        size_t row, row_end;
        rows_of_tile(begin, end, tiles, i, &row, &row_end);
        for (size_t o = 0; o < p->outputs; o++, packed += row_end - row)
            memcpy(packed, w + o * p->rows + row, (row_end - row) * sizeof *packed);
    }
}

/* The rows of one step for all pixels into columns. */
static void multiply(const Backward *b, size_t group, size_t step, const float *panels,
                     float *columns, size_t stride) {
    const ShoalConvPlan *p = &b->plan;
    const float *weights = b->space.weights + group * p->outputs * p->rows;
    size_t begin, end;
    rows_of_step(p, step, &begin, &end);
    const size_t nr = p->blocked->nr, tiles = shoal_div_up(end - begin, p->blocked->mr);
    for (size_t pixel = 0; pixel < p->out_plane; pixel += nr)
        for (size_t i = 0; i < tiles; i++) {
            size_t row, row_end;
            rows_of_tile(begin, end, tiles, i, &row, &row_end);
            ShoalTile t = {.m = row_end - row,
                           .n = p->out_plane - pixel < nr ? p->out_plane - pixel : nr,
                           .k = p->outputs,
                           .a = weights + row * p->outputs,
                           .a_row = 1,
                           .a_col = row_end - row,
                           .b = panels + pixel * p->outputs,
                           .b_row = nr,
                           .c = columns + (row - begin) * stride + pixel,
                           .c_row = stride,
                           .alpha = 1};
            p->blocked->tile(&t);
        }
}

/* Task: some steps of one group of one image. */
static void bwd_data_task(void *context, size_t index, unsigned thread) {
    const Backward *b = context;
    const ShoalConvPlan *p = &b->plan;
    const size_t part = index % b->step_parts, plane = index / b->step_parts;
    float *panels = (float *)(void *)(b->space.threads + thread * b->space.thread_bytes);
    float *columns = panels + p->pixel_stride * p->outputs;
    pack_dy(b, b->dy + plane * p->outputs * p->out_plane, panels);
    const size_t last = shoal_part_begin(b->steps, b->step_parts, part + 1);
    for (size_t step = shoal_part_begin(b->steps, b->step_parts, part); step < last; step++) {
        size_t channel = step * p->channel_step, left = p->channels - channel;
        float *dx = b->dx + (plane * p->channels + channel) * p->in_plane;
        if (p->pointwise) {
            multiply(b, plane % p->groups, step, panels, dx, p->out_plane);
            continue;
        }
        multiply(b, plane % p->groups, step, panels, columns, p->pixel_stride);
        for (size_t i = 0; i < p->channel_step && i < left; i++)
            p->blocked->col2im(p->shape, columns + i * p->taps * p->pixel_stride, p->pixel_stride,
                               dx + i * p->in_plane);
    }
}

void shoal_conv_bwd_data_f32_blocked(const ShoalCompute *compute, const ShoalConvShape *shape,
                                     const float *dy, const float *w, float *dx) {
    if (shoal_conv_is_depthwise(shape)) {
        shoal_conv_depthwise_bwd_data(compute, shape, dy, w, dx);
        return;
    }
    Backward b = {.w = w, .dy = dy, .dx = dx, .step_parts = 1};
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
    b.steps = shoal_div_up(p->channels, p->channel_step);
    if (p->threads > 1 && planes < 2 * (size_t)p->threads) {
        size_t parts = shoal_div_up(3 * (size_t)p->threads, planes);
        b.step_parts = parts < b.steps ? parts : b.steps;
    }
    shoal_pool_run(compute->pool, p->groups * b.steps, pack_weights, &b);
    shoal_pool_run(compute->pool, planes * b.step_parts, bwd_data_task, &b);
}
