/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "base/memory.h"
#include "kernels/nchwc/winograd_plan.h"
#include "kernels/table.h"

enum { FREQUENCIES = SHOAL_NCHWC_FREQUENCIES };

/* Two orders, chosen by the shape alone.
 *   by slices  The rows of tiles are dealt to slices. Each has a dU of its own, in the cache of the
 *              thread, and adds chunk after chunk to it. The slices' dU are added in order.
 *   by blocks  A round of rows is transformed into the workspace. Then each task computes dU of
 * some blocks of channels by some blocks of outputs, in the thread's cache, and adds it to dw. */
enum { SLICES = 8, LEAST_CHUNK_TILES = 24 };

/* A round of fewer tiles would spend its time on the way back from dU. */
enum { LEAST_ROUND_TILES = 128 };

typedef struct Weights {
    ShoalWinogradPlan plan;
    ShoalWinogradSource x, dy;
    float *dw;
    /* In the workspace: dU of the slices; scratch is per thread. */
    float *u, *scratch;
    size_t slice_floats, scratch_floats;
    size_t in_parts, out_parts; /* by blocks: what blocks are cut into */
    ShoalWinogradPanel v, m;    /* of a round */
} Weights;

/* Floats between the frequencies of dU, [channel][output]; see shoal_winograd_step. */
static size_t u_step_of(const ShoalWinogradPlan *plan, size_t in, size_t out) {
    return (in * plan->lanes * out + 1) * plan->lanes;
}

static size_t slice_floats(const ShoalWinogradPlan *plan) {
    return FREQUENCIES * u_step_of(plan, plan->in_blocks, plan->out_blocks);
}

static size_t cache_floats(const ShoalWinogradPlan *plan) {
    return plan->engine->winograd->cache_bytes / sizeof(float);
}

void shoal_winograd_plan_weights(ShoalWinogradPlan *plan) {
    const size_t row = FREQUENCIES * (plan->in_blocks + plan->out_blocks) * plan->lanes *
                       plan->tiles_w; /* floats of a row of tiles, V and dM */
    const size_t cache = cache_floats(plan), u = slice_floats(plan);
    const size_t fit = u < cache ? (cache - u) / row : 0;
    plan->chunk_rows = shoal_size_min(fit, shoal_div_up(plan->rows, SLICES));
    plan->by_chunks = plan->chunk_rows * plan->tiles_w >= LEAST_CHUNK_TILES;
    if (plan->by_chunks)
        return;
    size_t rows = plan->engine->winograd->round_bytes / sizeof(float) / row;
    const size_t least = shoal_div_up(LEAST_ROUND_TILES, plan->tiles_w);
    if (rows < least)
        rows = least;
    /* Rounds of one size. */
    plan->chunk_rows = shoal_div_up(plan->rows, shoal_div_up(plan->rows, rows));
}

static size_t slices_of(const ShoalWinogradPlan *plan) {
    return shoal_size_min(SLICES, plan->rows);
}

/* Blocks of outputs and of channels of a task by blocks: whole tiles of products, and no more than
 * the cache holds. */
static size_t task_out_blocks(const ShoalWinogradPlan *plan) {
    return shoal_size_min(plan->out_blocks, 2 * plan->engine->tile->wvectors);
}

static size_t task_in_blocks(const ShoalWinogradPlan *plan) {
    const size_t column = FREQUENCIES * plan->lanes * task_out_blocks(plan) * plan->lanes;
    const size_t fit = cache_floats(plan) / 4 * 3 / column;
    return shoal_size_min(plan->in_blocks, fit > 0 ? fit : 1);
}

static size_t panel_floats(const ShoalWinogradPlan *plan, size_t blocks) {
    return FREQUENCIES * shoal_winograd_step(blocks, plan->chunk_rows * plan->tiles_w, plan->lanes);
}

/* V and dM of a chunk (of a thread) or round (of all). */
static size_t panels_floats(const ShoalWinogradPlan *plan) {
    return panel_floats(plan, plan->in_blocks) + panel_floats(plan, plan->out_blocks);
}

static size_t shared_floats(const ShoalWinogradPlan *plan) {
    return plan->by_chunks ? slices_of(plan) * slice_floats(plan) : panels_floats(plan);
}

static size_t scratch_floats(const ShoalWinogradPlan *plan) {
    return plan->by_chunks
               ? panels_floats(plan)
               : FREQUENCIES * u_step_of(plan, task_in_blocks(plan), task_out_blocks(plan));
}

size_t shoal_winograd_weights_bytes(const ShoalWinogradPlan *plan, unsigned threads) {
    size_t bytes = shoal_winograd_add(0, 1, shared_floats(plan));
    return shoal_winograd_add(bytes, threads, scratch_floats(plan));
}

/* Adds the product of one frequency into dU at u, for some blocks on both sides. */
static void multiply(const ShoalWinogradPlan *p, size_t f, ShoalWinogradRange ins,
                     ShoalWinogradRange outs, const ShoalWinogradPanel *v,
                     const ShoalWinogradPanel *m, float *u) {
    const ShoalNchwcTileKernels *kernels = p->engine->tile;
    const size_t lanes = p->lanes, width = outs.to - outs.from;
    const size_t groups = shoal_div_up(width, kernels->wvectors);
    const size_t parts = shoal_div_up(lanes, kernels->wrows);
    ShoalNchwcWtile tile = {.segments = 1,
                            .length = v->tiles,
                            .a_step = lanes,
                            .b_step = lanes,
                            .b_col = m->tiles * lanes,
                            .d_row = width * lanes,
                            .d_col = lanes};
    for (size_t g = 0; g < groups; g++) {
        const ShoalWinogradRange part_outs = shoal_winograd_cut(width, groups, g);
        tile.vectors = part_outs.to - part_outs.from;
        tile.b = m->at + f * m->step + (outs.from + part_outs.from) * m->tiles * lanes;
        for (size_t b = ins.from; b < ins.to; b++)
            for (size_t part = 0; part < parts; part++) {
                const ShoalWinogradRange rows = shoal_winograd_cut(lanes, parts, part);
                tile.rows = rows.to - rows.from;
                tile.a = v->at + f * v->step + b * v->tiles * lanes + rows.from;
                tile.d =
                    u + ((b - ins.from) * lanes + rows.from) * tile.d_row + part_outs.from * lanes;
                kernels->wtile(&tile);
            }
    }
}

/* Adds dU of one block of channels by one of outputs, and of all its slices, to dw. */
static void add_block(const Weights *w, size_t in, size_t out, ShoalNchwcWinogradSum sum) {
    const ShoalWinogradPlan *p = &w->plan;
    const size_t lanes = p->lanes, taps = 9;
    sum.w = w->dw + (out * lanes * p->channels + in * lanes) * taps;
    sum.w_lane = p->channels * taps;
    sum.valid = shoal_size_min(lanes, p->outputs - out * lanes);
    sum.count = shoal_size_min(lanes, p->channels - in * lanes);
    p->engine->winograd->sum(&sum);
}

/* --- By slices ----------------------------------------------------------------------------- */

static void slice_chunk(const Weights *w, ShoalWinogradRange rows, float *scratch, float *u) {
    const ShoalWinogradPlan *p = &w->plan;
    const ShoalWinogradRange ins = {0, p->in_blocks}, outs = {0, p->out_blocks};
    const ShoalWinogradPanel v = shoal_winograd_panel(p, scratch, p->in_blocks, rows);
    const ShoalWinogradPanel m =
        shoal_winograd_panel(p, scratch + panel_floats(p, p->in_blocks), p->out_blocks, rows);
    shoal_winograd_read(p, &w->x, &v, rows, ins);
    shoal_winograd_read(p, &w->dy, &m, rows, outs);
    for (size_t f = 0; f < FREQUENCIES; f++)
        multiply(p, f, ins, outs, &v, &m, u + f * u_step_of(p, p->in_blocks, p->out_blocks));
}

static void slice_task(void *context, size_t index, unsigned thread) {
    const Weights *w = context;
    const ShoalWinogradPlan *p = &w->plan;
    const ShoalWinogradRange slice = shoal_winograd_cut(p->rows, slices_of(p), index);
    const size_t rows = slice.to - slice.from;
    const size_t chunks = shoal_div_up(rows, p->chunk_rows);
    float *u = w->u + index * w->slice_floats;
    memset(u, 0, w->slice_floats * sizeof *u);
    for (size_t i = 0; i < chunks; i++) {
        const ShoalWinogradRange part = shoal_winograd_cut(rows, chunks, i);
        slice_chunk(w, (ShoalWinogradRange){slice.from + part.from, slice.from + part.to},
                    w->scratch + thread * w->scratch_floats, u);
    }
}

static void add_task(void *context, size_t index, unsigned thread) {
    const Weights *w = context;
    const ShoalWinogradPlan *p = &w->plan;
    const size_t out = index / p->in_blocks, in = index % p->in_blocks;
    const size_t columns = p->out_blocks * p->lanes;
    (void)thread;
    add_block(w, in, out,
              (ShoalNchwcWinogradSum){.u = w->u + in * p->lanes * columns + out * p->lanes,
                                      .u_step = u_step_of(p, p->in_blocks, p->out_blocks),
                                      .u_row = columns,
                                      .u_slice = w->slice_floats,
                                      .slices = slices_of(p)});
}

/* --- By blocks ----------------------------------------------------------------------------- */

static void block_task(void *context, size_t index, unsigned thread) {
    const Weights *w = context;
    const ShoalWinogradPlan *p = &w->plan;
    const size_t lanes = p->lanes;
    const ShoalWinogradRange ins =
        shoal_winograd_cut(p->in_blocks, w->in_parts, index % w->in_parts);
    const ShoalWinogradRange outs =
        shoal_winograd_cut(p->out_blocks, w->out_parts, index / w->in_parts);
    const size_t columns = (outs.to - outs.from) * lanes;
    const size_t step = u_step_of(p, ins.to - ins.from, outs.to - outs.from);
    float *u = w->scratch + thread * w->scratch_floats;
    memset(u, 0, FREQUENCIES * step * sizeof *u);
    for (size_t f = 0; f < FREQUENCIES; f++)
        multiply(p, f, ins, outs, &w->v, &w->m, u + f * step);
    for (size_t out = outs.from; out < outs.to; out++)
        for (size_t in = ins.from; in < ins.to; in++)
            add_block(w, in, out,
                      (ShoalNchwcWinogradSum){.u = u + (in - ins.from) * lanes * columns +
                                                   (out - outs.from) * lanes,
                                              .u_step = step,
                                              .u_row = columns,
                                              .slices = 1});
}

static void run_round(const ShoalCompute *compute, Weights *w, ShoalWinogradRange rows) {
    const ShoalWinogradPlan *p = &w->plan;
    w->v = shoal_winograd_panel(p, w->u, p->in_blocks, rows);
    w->m = shoal_winograd_panel(p, w->u + panel_floats(p, p->in_blocks), p->out_blocks, rows);
    shoal_winograd_read_all(compute, p, &w->x, &w->v, rows);
    shoal_winograd_read_all(compute, p, &w->dy, &w->m, rows);
    shoal_pool_run(compute->pool, w->in_parts * w->out_parts, block_task, w);
}

void shoal_nchwc_winograd_bwd_weights(const ShoalCompute *compute, const ShoalNchwcConv *conv,
                                      const ShoalNchwcInput *x, const float *dy, float *dw) {
    const ShoalNchwc *engine = compute->kernels->nchwc;
    const ShoalNchwcInput gradient = {.x = dy};
    Weights w = {.plan = shoal_winograd_plan(engine, conv, false), .dw = dw};
    ShoalWinogradPlan *p = &w.plan;
    shoal_winograd_plan_weights(p);
    w.x = (ShoalWinogradSource){x,        p->in_blocks,           p->height, p->width, p->pad_h,
                                p->pad_w, engine->winograd->input};
    w.dy = (ShoalWinogradSource){
        &gradient, p->out_blocks, p->out_height, p->out_width, 0, 0, engine->winograd->gradient};
    w.u = compute->workspace;
    w.scratch = w.u + shared_floats(p);
    w.slice_floats = slice_floats(p);
    w.scratch_floats = scratch_floats(p);
    w.in_parts = shoal_div_up(p->in_blocks, task_in_blocks(p));
    w.out_parts = shoal_div_up(p->out_blocks, task_out_blocks(p));
    if (p->by_chunks) {
        shoal_pool_run(compute->pool, slices_of(p), slice_task, &w);
        shoal_pool_run(compute->pool, p->in_blocks * p->out_blocks, add_task, &w);
        return;
    }
    for (size_t i = 0; i < shoal_div_up(p->rows, p->chunk_rows); i++)
        run_round(compute, &w, shoal_winograd_rows(p, i));
}
