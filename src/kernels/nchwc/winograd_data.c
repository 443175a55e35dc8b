/* SPDX-License-Identifier: Apache-2.0 */
/* Forward and backward-data: one driver, with other weights and another end. */
#include <string.h>

#include "base/memory.h"
#include "kernels/nchwc/winograd_plan.h"
#include "kernels/table.h"

enum {
    FREQUENCIES = SHOAL_NCHWC_FREQUENCIES,
    TILE = 4,
    PAIR = 2, /* vectors of outputs that are multiplied at a time */
};

/* By chunks from this many tiles per chunk and chunks on: fewer tiles would wait for U. */
enum { LEAST_CHUNK_TILES = 24, LEAST_CHUNKS = 8, CHUNKS_MULTIPLE = 4 };

/* By chunks up to this size of U, which streams by once per chunk. */
static const size_t most_u_bytes = (size_t)4 << 20;

typedef struct Data {
    ShoalWinogradPlan plan;
    ShoalWinogradSource source;
    ShoalNchwcParts parts;
    const float *w;
    size_t w_row, w_lane; /* as ShoalNchwcWinogradWeights has them */
    bool turned;
    const float *bias;
    float *y;
    const ShoalNchwcStats *stats;       /* forward, or NULL */
    const ShoalNchwcGradient *gradient; /* backward-data, or NULL */
    /* In the workspace; scratch is per thread. */
    float *u, *partials, *scratch;
    size_t partial_rows, u_step, u_blocks, scratch_floats;
    ShoalWinogradPanel v; /* of a round */
} Data;

static size_t pairs_of(const ShoalWinogradPlan *plan) {
    return shoal_div_up(plan->out_blocks, PAIR);
}

static size_t pair_vectors(const ShoalWinogradPlan *plan, size_t pair) {
    return shoal_size_min(PAIR, plan->out_blocks - pair * PAIR);
}

/* Floats of V and of M per tile. */
static size_t v_floats(const ShoalWinogradPlan *plan) {
    return FREQUENCIES * plan->in_blocks * plan->lanes;
}

static size_t m_floats(const ShoalWinogradPlan *plan) {
    return FREQUENCIES * PAIR * plan->lanes;
}

/* Floats of U of a pair per block of input channels. */
static size_t u_floats(const ShoalWinogradPlan *plan) {
    return FREQUENCIES * plan->lanes * PAIR * plan->lanes;
}

/* Rows of tiles for what takes `floats` per tile out of `all`; at least 1. */
static size_t rows_within(const ShoalWinogradPlan *plan, size_t all, size_t floats) {
    const size_t rows = all / floats / plan->tiles_w;
    return shoal_size_min(plan->rows, rows > 0 ? rows : 1);
}

void shoal_winograd_plan_data(ShoalWinogradPlan *plan) {
    const size_t cache = plan->engine->winograd->cache_bytes / sizeof(float);
    /* The other half of the cache is for U. */
    const size_t fit = rows_within(plan, cache / 2, v_floats(plan) + m_floats(plan));
    size_t chunks = shoal_div_up(plan->rows, fit);
    if (chunks < LEAST_CHUNKS)
        chunks = LEAST_CHUNKS;
    chunks = shoal_div_up(chunks, CHUNKS_MULTIPLE) * CHUNKS_MULTIPLE;
    plan->chunk_rows = shoal_div_up(plan->rows, chunks);
    plan->by_chunks =
        plan->chunk_rows * plan->tiles_w >= LEAST_CHUNK_TILES &&
        pairs_of(plan) * plan->in_blocks * u_floats(plan) * sizeof(float) <= most_u_bytes;
    if (plan->by_chunks)
        return;
    plan->chunk_rows = shoal_size_min(
        rows_within(plan, cache / 2, m_floats(plan)),
        rows_within(plan, plan->engine->winograd->round_bytes / sizeof(float), v_floats(plan)));
}

/* Blocks of input channels whose U a thread holds at a time; by chunks all have all. */
static size_t u_blocks_of(const ShoalWinogradPlan *plan) {
    const size_t half = plan->engine->winograd->cache_bytes / sizeof(float) / 2;
    const size_t fit = half / u_floats(plan);
    return plan->by_chunks ? plan->in_blocks : shoal_size_min(plan->in_blocks, fit ? fit : 1);
}

static ShoalNchwcParts parts_of(const ShoalWinogradPlan *plan) {
    return (ShoalNchwcParts){plan->batch, (size_t)plan->out_height * (size_t)plan->out_width,
                             TILE * (size_t)plan->out_width};
}

/* As shoal_winograd_step, of U. */
static size_t u_step_of(const ShoalWinogradPlan *plan) {
    return (u_blocks_of(plan) * plan->lanes + 1) * PAIR * plan->lanes;
}

/* Floats of V and of M of a chunk or round. */
static size_t v_all(const ShoalWinogradPlan *plan) {
    return FREQUENCIES *
           shoal_winograd_step(plan->in_blocks, plan->chunk_rows * plan->tiles_w, plan->lanes);
}

static size_t m_all(const ShoalWinogradPlan *plan) {
    return FREQUENCIES * shoal_winograd_step(PAIR, plan->chunk_rows * plan->tiles_w, plan->lanes);
}

/* By chunks all have one U and each thread its V and M; else all have one V and each thread its
 * part of U and M. */
static size_t shared_floats(const ShoalWinogradPlan *plan) {
    return plan->by_chunks ? pairs_of(plan) * FREQUENCIES * u_step_of(plan) : v_all(plan);
}

static size_t scratch_floats(const ShoalWinogradPlan *plan) {
    return m_all(plan) + (plan->by_chunks ? v_all(plan) : FREQUENCIES * u_step_of(plan));
}

size_t shoal_winograd_data_bytes(const ShoalWinogradPlan *plan, unsigned threads) {
    const ShoalNchwcParts parts = parts_of(plan);
    const size_t partials =
        shoal_nchwc_partials_bytes(&parts, plan->out_blocks, plan->lanes, 1 + SHOAL_NCHWC_TERMS);
    size_t bytes = shoal_winograd_add(0, 1, shared_floats(plan));
    bytes = shoal_winograd_add(bytes, threads, scratch_floats(plan));
    return shoal_winograd_add(bytes, partials == SIZE_MAX ? SIZE_MAX : 1, partials / sizeof(float));
}

/* --- Weights ------------------------------------------------------------------------------- */

/* The weights of one block of input channels and one of outputs. */
static const float *weights_at(const Data *d, size_t in, size_t out) {
    return d->w + in * d->plan.lanes * d->w_row + out * d->plan.lanes * d->w_lane;
}

/* Their U; frequency 0 goes to u. */
static void make_u(const Data *d, size_t in, size_t out, const float *ahead, float *u) {
    const ShoalWinogradPlan *p = &d->plan;
    const size_t lanes = p->lanes, row = pair_vectors(p, out / PAIR) * lanes;
    const ShoalNchwcWinogradWeights s = {.w = weights_at(d, in, out),
                                         .ahead = ahead,
                                         .w_row = d->w_row,
                                         .w_lane = d->w_lane,
                                         .valid = shoal_size_min(lanes, p->outputs - out * lanes),
                                         .count = shoal_size_min(lanes, p->channels - in * lanes),
                                         .turned = d->turned,
                                         .u = u,
                                         .u_step = d->u_step,
                                         .u_row = row};
    p->engine->winograd->weights(&s);
    for (size_t f = 0; f < FREQUENCIES; f++)
        for (size_t i = s.count; i < lanes; i++)
            memset(s.u + f * s.u_step + i * row, 0, lanes * sizeof(float));
}

/* Of blocks [blocks) and of a pair, at u: [frequency][channel][vectors of the pair][lanes]. */
static void make_pair_u(const Data *d, ShoalWinogradRange blocks, size_t pair, float *u) {
    const size_t lanes = d->plan.lanes, vectors = pair_vectors(&d->plan, pair);
    const size_t last = d->plan.in_blocks - 1;
    for (size_t in = blocks.from; in < blocks.to; in++)
        for (size_t v = 0; v < vectors; v++) {
            const size_t out = pair * PAIR + v, next = shoal_size_min(in + 1, last);
            const float *ahead =
                v + 1 < vectors ? weights_at(d, in, out + 1) : weights_at(d, next, pair * PAIR);
            make_u(d, in, out, ahead, u + ((in - blocks.from) * lanes * vectors + v) * lanes);
        }
}

static void weights_task(void *context, size_t index, unsigned thread) {
    const Data *d = context;
    const size_t pair = index / d->plan.in_blocks, in = index % d->plan.in_blocks;
    const size_t lanes = d->plan.lanes;
    (void)thread;
    make_pair_u(d, (ShoalWinogradRange){in, in + 1}, pair,
                d->u + pair * FREQUENCIES * d->u_step +
                    in * lanes * pair_vectors(&d->plan, pair) * lanes);
}

/* --- Products ------------------------------------------------------------------------------ */

/* M of a pair from V of some blocks of channels and their U; adds to M unless they are the first.
 */
static void multiply(const Data *d, const ShoalWinogradPanel *v, ShoalWinogradRange blocks,
                     size_t pair, const float *u, float *m) {
    const ShoalWinogradPlan *p = &d->plan;
    const ShoalNchwcTileKernels *kernels = p->engine->tile;
    const size_t lanes = p->lanes, groups = shoal_div_up(v->tiles, kernels->rows);
    ShoalNchwcTile tile = {.vectors = pair_vectors(p, pair),
                           .segments = blocks.to - blocks.from,
                           .length = lanes,
                           .a_segment = v->tiles * lanes,
                           .a_row = lanes,
                           .c_row = lanes,
                           .c_col = v->tiles * lanes,
                           .accumulate = blocks.from > 0};
    for (size_t f = 0; f < FREQUENCIES; f++) {
        const float *a = v->at + f * v->step + blocks.from * tile.a_segment;
        tile.b = u + f * d->u_step;
        for (size_t g = 0; g < groups; g++) {
            const ShoalWinogradRange tiles = shoal_winograd_cut(v->tiles, groups, g);
            tile.rows = tiles.to - tiles.from;
            tile.a = a + tiles.from * lanes;
            tile.c = m + f * shoal_winograd_step(PAIR, v->tiles, lanes) + tiles.from * lanes;
            kernels->tile(&tile);
        }
    }
}

/* --- The way back -------------------------------------------------------------------------- */

/* What is done with a finished strip of the output while it is in the cache. */
static void finish_strip(const Data *d, size_t row, size_t block, size_t at, size_t pixels) {
    const ShoalNchwc *engine = d->plan.engine;
    const size_t lanes = d->plan.lanes;
    float *partial = NULL;
    if (d->partial_rows > 0)
        partial = shoal_nchwc_partial(&d->parts, lanes, d->partial_rows, d->partials, block, row);
    if (d->stats)
        shoal_nchwc_part_stats(engine, pixels, d->y + at, partial);
    if (!d->gradient || !d->gradient->finish)
        return;
    if (partial)
        memset(partial, 0, d->partial_rows * lanes * sizeof *partial);
    ShoalNchwcFinish finish = shoal_nchwc_finish_at(d->gradient, lanes, at, block * lanes, partial);
    engine->strip->finish(pixels, &finish);
}

/* Output block `block` of row `row` from its place in M. */
static void write_row(const Data *d, size_t row, size_t block, const float *m, size_t m_step) {
    const ShoalWinogradPlan *p = &d->plan;
    const size_t lanes = p->lanes, plane = (size_t)p->out_height * (size_t)p->out_width * lanes;
    const size_t plane_at = (row / p->tiles_h * p->out_blocks + block) * plane;
    const ptrdiff_t first = (ptrdiff_t)(row % p->tiles_h) * TILE;
    const ptrdiff_t last = first + TILE < p->out_height ? first + TILE : p->out_height;
    _Alignas(SHOAL_ALIGN) float bias[SHOAL_NCHWC_LANES_MAX] = {0};
    ShoalNchwcWinogradWrite write = {.m = m,
                                     .m_step = m_step,
                                     .tiles = p->tiles_w,
                                     .y = d->y + plane_at,
                                     .height = p->out_height,
                                     .width = p->out_width,
                                     .row = first,
                                     .accumulate = d->gradient && d->gradient->accumulate};
    if (d->bias) {
        const size_t count = shoal_size_min(lanes, p->outputs - block * lanes);
        memcpy(bias, d->bias + block * lanes, count * sizeof *bias);
        write.bias = bias;
    }
    p->engine->winograd->output(&write);
    finish_strip(d, row, block, plane_at + (size_t)(first * p->out_width) * lanes,
                 (size_t)((last - first) * p->out_width));
}

/* All rows of a chunk or round, for a pair. */
static void write_pair(const Data *d, ShoalWinogradRange rows, size_t pair, const float *m) {
    const ShoalWinogradPlan *p = &d->plan;
    const size_t tiles = (rows.to - rows.from) * p->tiles_w;
    for (size_t b = 0; b < pair_vectors(p, pair); b++)
        for (size_t r = rows.from; r < rows.to; r++)
            write_row(d, r, pair * PAIR + b,
                      m + (b * tiles + (r - rows.from) * p->tiles_w) * p->lanes,
                      shoal_winograd_step(PAIR, tiles, p->lanes));
}

/* --- The two orders ------------------------------------------------------------------------ */

static void chunk_task(void *context, size_t index, unsigned thread) {
    const Data *d = context;
    const ShoalWinogradPlan *p = &d->plan;
    const ShoalWinogradRange rows = shoal_winograd_rows(p, index), blocks = {0, p->in_blocks};
    float *scratch = d->scratch + thread * d->scratch_floats, *m = scratch + v_all(p);
    const ShoalWinogradPanel v = shoal_winograd_panel(p, scratch, p->in_blocks, rows);
    shoal_winograd_read(p, &d->source, &v, rows, blocks);
    for (size_t pair = 0; pair < pairs_of(p); pair++) {
        multiply(d, &v, blocks, pair, d->u + pair * FREQUENCIES * d->u_step, m);
        write_pair(d, rows, pair, m);
    }
}

static void pair_task(void *context, size_t pair, unsigned thread) {
    const Data *d = context;
    const ShoalWinogradPlan *p = &d->plan;
    const size_t parts = shoal_div_up(p->in_blocks, d->u_blocks);
    float *m = d->scratch + thread * d->scratch_floats, *u = m + m_all(p);
    for (size_t i = 0; i < parts; i++) {
        const ShoalWinogradRange blocks = shoal_winograd_cut(p->in_blocks, parts, i);
        make_pair_u(d, blocks, pair, u);
        multiply(d, &d->v, blocks, pair, u, m);
    }
    write_pair(d, (ShoalWinogradRange){d->v.first, d->v.first + d->v.tiles / p->tiles_w}, pair, m);
}

static void run(const ShoalCompute *compute, Data *d) {
    const ShoalWinogradPlan *p = &d->plan;
    const size_t chunks = shoal_div_up(p->rows, p->chunk_rows);
    float *shared = compute->workspace;
    d->parts = parts_of(p);
    d->u_blocks = u_blocks_of(p);
    d->u_step = u_step_of(p);
    d->scratch_floats = scratch_floats(p);
    d->scratch = shared + shared_floats(p);
    d->partials = d->scratch + shoal_pool_threads(compute->pool) * d->scratch_floats;
    if (p->by_chunks) {
        d->u = shared;
        shoal_pool_run(compute->pool, pairs_of(p) * p->in_blocks, weights_task, d);
        shoal_pool_run(compute->pool, chunks, chunk_task, d);
        return;
    }
    for (size_t i = 0; i < chunks; i++) {
        const ShoalWinogradRange rows = shoal_winograd_rows(p, i);
        d->v = shoal_winograd_panel(p, shared, p->in_blocks, rows);
        shoal_winograd_read_all(compute, p, &d->source, &d->v, rows);
        shoal_pool_run(compute->pool, pairs_of(p), pair_task, d);
    }
}

static Data data_of(const ShoalCompute *compute, const ShoalNchwcConv *conv, bool backward,
                    const ShoalNchwcInput *x, const float *w, float *y) {
    const ShoalNchwc *engine = compute->kernels->nchwc;
    const size_t taps = 9, row = (size_t)conv->shape.channels * taps;
    Data d = {.plan = shoal_winograd_plan(engine, conv, backward),
              .w = w,
              .w_row = backward ? row : taps,
              .w_lane = backward ? taps : row,
              .turned = backward,
              .y = y};
    shoal_winograd_plan_data(&d.plan);
    d.source = (ShoalWinogradSource){x,
                                     d.plan.in_blocks,
                                     d.plan.height,
                                     d.plan.width,
                                     d.plan.pad_h,
                                     d.plan.pad_w,
                                     engine->winograd->input};
    return d;
}

void shoal_nchwc_winograd_fwd(const ShoalCompute *compute, const ShoalNchwcConv *conv,
                              const ShoalNchwcInput *x, const float *w, const float *bias, float *y,
                              const ShoalNchwcStats *stats) {
    Data d = data_of(compute, conv, false, x, w, y);
    d.bias = bias;
    d.stats = stats;
    d.partial_rows = stats ? SHOAL_NCHWC_STATS_ROWS : 0;
    run(compute, &d);
    if (stats)
        shoal_nchwc_merge_stats(compute, &d.parts, d.plan.out_blocks, d.partials, stats);
}

void shoal_nchwc_winograd_bwd_data(const ShoalCompute *compute, const ShoalNchwcConv *conv,
                                   const float *dy, const float *w, const ShoalNchwcGradient *dx) {
    const ShoalNchwcInput source = {.x = dy};
    Data d = data_of(compute, conv, true, &source, w, dx->g);
    d.gradient = dx;
    d.partial_rows = shoal_nchwc_sums_rows(dx);
    run(compute, &d);
    shoal_nchwc_merge_sums(compute, &d.parts, d.plan.out_blocks, d.partials, dx);
}
