/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/blocked/conv.h"

#include <string.h>

#include "kernels/table.h"

/* y[o][pixel] = w[o][tap] * columns[tap][pixel]: panels of nr pixels of columns[] are copied from
 * the image and multiplied while they are in the cache. The images of a round lie side by side. */

typedef struct Forward {
    ShoalConvPlan plan;
    ShoalConvSpace space;
    const float *w, *bias, *x; /* x: of the round */
    float *y;                  /* of the round */
    size_t pixels;             /* of the round */
    size_t block, blocks;      /* pixels per task, tasks per group and row part */
    size_t row_parts;
} Forward;

/* Tiles of weights are packed [tap][row of the tile]: numbers that are broadcast one after another
 * lie one after another. */
static void pack_weights(void *context, size_t index, unsigned thread) {
    const Forward *f = context;
    const ShoalConvPlan *p = &f->plan;
    const size_t tiles = shoal_div_up(p->outputs, p->blocked->mr);
    const size_t group = index / tiles, tile = index % tiles;
    const size_t begin = group * p->outputs + shoal_part_begin(p->outputs, tiles, tile);
    const size_t end = group * p->outputs + shoal_part_begin(p->outputs, tiles, tile + 1);
    (void)thread;
    p->blocked->transpose(f->w + begin * p->rows, p->rows, p->rows, end - begin,
                          f->space.weights + begin * p->rows, end - begin);
}

/* Copies a finished tile to where its pixels belong, which may be in several images. */
static void scatter(const Forward *f, const ShoalTile *t, size_t output, size_t pixel, bool add) {
    const ShoalConvPlan *p = &f->plan;
    for (size_t i = 0; i < t->m; i++)
        for (size_t j = 0; j < t->n; j++) {
            size_t image = (pixel + j) / p->out_plane, at = (pixel + j) % p->out_plane;
            float *y = f->y + (image * p->groups * p->outputs + output + i) * p->out_plane + at;
            float value = t->c[i * t->c_row + j];
            *y = add ? *y + value : value;
        }
}

/* Rows [begin, end) of the group's outputs for one panel of pixels. */
static void panel_rows(const Forward *f, size_t group, size_t tile, size_t pixel, size_t width,
                       size_t k0, size_t k1, const float *panel) {
    const ShoalConvPlan *p = &f->plan;
    const size_t tiles = shoal_div_up(p->outputs, p->blocked->mr);
    const size_t begin = group * p->outputs + shoal_part_begin(p->outputs, tiles, tile);
    const size_t end = group * p->outputs + shoal_part_begin(p->outputs, tiles, tile + 1);
    const size_t image = pixel / p->out_plane, at = pixel % p->out_plane;
    float buffer[SHOAL_MR_MAX * SHOAL_NR_MAX];
    ShoalTile t = {.m = end - begin,
                   .n = width,
                   .k = k1 - k0,
                   .a = f->space.weights + begin * p->rows + k0 * (end - begin),
                   .a_row = 1,
                   .a_col = end - begin,
                   .b = panel,
                   .b_row = p->blocked->nr,
                   .alpha = 1,
                   .init = f->bias && k0 == 0 ? f->bias + begin : NULL};
    if (at + width <= p->out_plane) {
        t.c = f->y + (image * p->groups * p->outputs + begin) * p->out_plane + at;
        t.c_row = p->out_plane;
        t.beta = k0 == 0 ? 0 : 1;
        p->blocked->tile(&t);
    } else {
        t.c = buffer;
        t.c_row = p->blocked->nr;
        p->blocked->tile(&t);
        scatter(f, &t, begin, pixel, k0 != 0);
    }
}

static void pack_panel(const Forward *f, size_t group, size_t pixel, size_t width, size_t k0,
                       size_t k1, float *panel) {
    const ShoalConvPlan *p = &f->plan;
    ShoalRun runs[SHOAL_NR_MAX];
    size_t count = shoal_conv_pixel_runs(p, pixel, pixel + width, runs);
    if (width < p->blocked->nr)
        memset(panel, 0, (k1 - k0) * p->blocked->nr * sizeof *panel);
    p->blocked->pack_runs(f->x + group * p->channels * p->height * p->width, f->space.tap_at + k0,
                          k1 - k0, runs, count, panel, p->blocked->nr);
}

static void fwd_task(void *context, size_t index, unsigned thread) {
    const Forward *f = context;
    const ShoalConvPlan *p = &f->plan;
    const size_t nr = p->blocked->nr, tiles = shoal_div_up(p->outputs, p->blocked->mr);
    const size_t block = index % f->blocks, part = index / f->blocks % f->row_parts;
    const size_t group = index / f->blocks / f->row_parts;
    const size_t begin = block * f->block;
    const size_t end = f->pixels - begin < f->block ? f->pixels : begin + f->block;
    const size_t tile0 = shoal_part_begin(tiles, f->row_parts, part);
    const size_t tile1 = shoal_part_begin(tiles, f->row_parts, part + 1);
    float *packed = (float *)(void *)(f->space.threads + thread * f->space.thread_bytes);
    const size_t depths = shoal_div_up(p->rows, SHOAL_CONV_BLOCK_K);
    for (size_t d = 0; d < depths; d++) {
        const size_t k0 = shoal_part_begin(p->rows, depths, d);
        const size_t k1 = shoal_part_begin(p->rows, depths, d + 1);
        for (size_t pixel = begin; pixel < end; pixel += nr) {
            float *panel = packed + (pixel - begin) * (k1 - k0);
            size_t width = end - pixel < nr ? end - pixel : nr;
            pack_panel(f, group, pixel, width, k0, k1, panel);
            for (size_t tile = tile0; tile < tile1; tile++)
                panel_rows(f, group, tile, pixel, width, k0, k1, panel);
        }
    }
}

/* Cuts a round so that every thread has about three tasks; rows only where pixels are few. */
static void choose_parts(Forward *f) {
    const ShoalConvPlan *p = &f->plan;
    const size_t nr = p->blocked->nr, wanted = 3 * (size_t)p->threads;
    size_t block = shoal_round_up(shoal_div_up(f->pixels * p->groups, wanted), nr);
    f->block = block < SHOAL_CONV_BLOCK_PIXELS ? block : SHOAL_CONV_BLOCK_PIXELS;
    f->blocks = shoal_div_up(f->pixels, f->block);
    f->row_parts = 1;
    const size_t tasks = f->blocks * p->groups, tiles = shoal_div_up(p->outputs, p->blocked->mr);
    if (p->threads > 1 && tasks < 2 * (size_t)p->threads) {
        size_t parts = shoal_div_up(wanted, tasks);
        f->row_parts = parts < tiles ? parts : tiles;
    }
}

void shoal_conv_fwd_f32_blocked(const ShoalCompute *compute, const ShoalConvShape *shape,
                                const float *x, const float *w, const float *bias, float *y) {
    if (shoal_conv_is_depthwise(shape)) {
        shoal_conv_depthwise_fwd(compute, shape, x, w, bias, y);
        return;
    }
    Forward f = {.w = w, .bias = bias};
    f.plan = shoal_conv_plan(shape, compute->kernels->blocked, shoal_pool_threads(compute->pool));
    const ShoalConvPlan *p = &f.plan;
    if (p->batch == 0 || p->out_plane == 0 || p->outputs == 0)
        return;
    f.space = shoal_conv_space(p, SHOAL_CONV_FWD, compute->workspace);
    shoal_conv_fill_tap_at(p, f.space.tap_at);
    shoal_pool_run(compute->pool, p->groups * shoal_div_up(p->outputs, p->blocked->mr),
                   pack_weights, &f);
    const size_t round = p->bordered ? p->images : p->batch;
    for (size_t first = 0; first < p->batch; first += round) {
        size_t count = p->batch - first < round ? p->batch - first : round;
        f.x = shoal_conv_round_input(p, &f.space, compute->pool, first, count, x);
        f.y = y + first * p->groups * p->outputs * p->out_plane;
        f.pixels = count * p->out_plane;
        choose_parts(&f);
        shoal_pool_run(compute->pool, f.blocks * f.row_parts * p->groups, fwd_task, &f);
    }
}
