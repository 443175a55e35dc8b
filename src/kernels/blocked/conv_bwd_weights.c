/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/blocked/conv.h"

#include "kernels/table.h"

/* dw[o][tap] += dy[o][pixel] * columns[tap][pixel], the sum running over the pixels of all images
 * in order. dy is broadcast from where it stands; columns[] must be transposed to be read by
 * vectors, so rows of it are copied from the image, then flipped, a block of pixels at a time.
 * Tasks are blocks of taps: no sum is shared between threads. */

typedef struct Gradient {
    ShoalConvPlan plan;
    ShoalConvSpace space;
    const float *x, *dy; /* of the round */
    float *dw;
    size_t images;    /* of the round */
    size_t tap_parts; /* tasks per group */
} Gradient;

/* Columns [tap, tap + width) of dw: pixels [begin, begin + depth) of one image, whose panel of
 * transposed columns is given. */
static void multiply(const Gradient *g, size_t group, size_t image, size_t begin, size_t depth,
                     size_t tap, size_t width, const float *panel) {
    const ShoalConvPlan *p = &g->plan;
    const size_t tiles = shoal_div_up(p->outputs, p->blocked->mr);
    for (size_t i = 0; i < tiles; i++) {
        size_t first = shoal_part_begin(p->outputs, tiles, i);
        size_t output = group * p->outputs + first;
        ShoalTile t = {.m = shoal_part_begin(p->outputs, tiles, i + 1) - first,
                       .n = width,
                       .k = depth,
                       .a =
                           g->dy + (image * p->groups * p->outputs + output) * p->out_plane + begin,
                       .a_row = p->out_plane,
                       .a_col = 1,
                       .b = panel,
                       .b_row = p->blocked->nr,
                       .c = g->dw + output * p->rows + tap,
                       .c_row = p->rows,
                       .alpha = 1,
                       .beta = 1};
        p->blocked->tile(&t);
    }
}

/* Taps [tap, end) of one image of the round, a block of pixels at a time. */
static void gradient_image(const Gradient *g, size_t group, size_t image, size_t tap, size_t end,
                           float *columns) {
    const ShoalConvPlan *p = &g->plan;
    const size_t nr = p->blocked->nr;
    const float *x = g->x + group * p->channels * p->height * p->width;
    float *panel = columns + SHOAL_NR_MAX * SHOAL_CONV_WEIGHT_STRIDE;
    ShoalRun runs[SHOAL_CONV_BLOCK_PIXELS];
    for (size_t begin = 0; begin < p->out_plane; begin += SHOAL_CONV_BLOCK_PIXELS) {
        size_t left = p->out_plane - begin, at = image * p->out_plane + begin;
        size_t depth = left < SHOAL_CONV_BLOCK_PIXELS ? left : SHOAL_CONV_BLOCK_PIXELS;
        size_t count = shoal_conv_pixel_runs(p, at, at + depth, runs);
        for (size_t t = tap; t < end; t += nr) {
            size_t width = end - t < nr ? end - t : nr;
            p->blocked->pack_runs(x, g->space.tap_at + t, width, runs, count, columns,
                                  SHOAL_CONV_WEIGHT_STRIDE);
            p->blocked->transpose(columns, SHOAL_CONV_WEIGHT_STRIDE, depth, width, panel, nr);
            multiply(g, group, image, begin, depth, t, width, panel);
        }
    }
}

static void gradient_task(void *context, size_t index, unsigned thread) {
    const Gradient *g = context;
    const ShoalConvPlan *p = &g->plan;
    const size_t nr = p->blocked->nr, panels = shoal_div_up(p->rows, nr);
    const size_t part = index % g->tap_parts;
    float *columns = (float *)(void *)(g->space.threads + thread * g->space.thread_bytes);
    size_t tap = shoal_part_begin(panels, g->tap_parts, part) * nr;
    size_t end = shoal_part_begin(panels, g->tap_parts, part + 1) * nr;
    end = end < p->rows ? end : p->rows;
    for (size_t image = 0; image < g->images; image++)
        gradient_image(g, index / g->tap_parts, image, tap, end, columns);
}

void shoal_conv_bwd_weights_f32_blocked(const ShoalCompute *compute, const ShoalConvShape *shape,
                                        const float *x, const float *dy, float *dw) {
    if (shoal_conv_is_depthwise(shape)) {
        shoal_conv_depthwise_bwd_weights(compute, shape, x, dy, dw);
        return;
    }
    Gradient g = {.dw = dw};
    g.plan = shoal_conv_plan(shape, compute->kernels->blocked, shoal_pool_threads(compute->pool));
    const ShoalConvPlan *p = &g.plan;
    if (p->batch == 0 || p->out_plane == 0 || p->outputs == 0 || p->rows == 0)
        return;
    g.space = shoal_conv_space(p, SHOAL_CONV_BWD_WEIGHTS, compute->workspace);
    const size_t panels = shoal_div_up(p->rows, p->blocked->nr);
    const size_t wanted = p->threads > 1 ? shoal_div_up(3 * (size_t)p->threads, p->groups) : 1;
    g.tap_parts = wanted < panels ? wanted : panels;
    shoal_conv_fill_tap_at(p, g.space.tap_at);
    const size_t round = p->bordered ? p->images : p->batch;
    for (size_t first = 0; first < p->batch; first += round) {
        g.images = p->batch - first < round ? p->batch - first : round;
        g.x = shoal_conv_round_input(p, &g.space, compute->pool, first, g.images, x);
        g.dy = dy + first * p->groups * p->outputs * p->out_plane;
        shoal_pool_run(compute->pool, p->groups * g.tap_parts, gradient_task, &g);
    }
}
