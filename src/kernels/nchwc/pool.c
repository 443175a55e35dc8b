/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/nchwc/pool.h"

#include <string.h>

#include "base/memory.h"
#include "kernels/nchwc/merge.h"
#include "kernels/table.h"

enum {
    TASKS = 64,            /* as many at least, where shapes allow */
    TASK_PIXELS = 1024,    /* of the input, that a task should have at least */
    BUFFER_BYTES = 1 << 17 /* of the input, that a task should have in the cache at most */
};

/* Rows are done in bands, `grain` bands to a task. Forward these are rows of output, backward of
 * the input. */
typedef struct Pooling {
    const ShoalNchwc *engine;
    const ShoalPoolShape *shape;
    size_t lanes, channels, blocks, units; /* units: images times blocks */
    size_t band_rows, bands, grain;
    ShoalNchwcParts parts; /* backward: a band is one part */
    float *partials;
    unsigned char *scratch;
    size_t scratch_bytes; /* of a thread */
    bool max;

    ShoalNchwcInput x; /* forward */
    float *y;
    uint8_t *to_place;

    const float *dy; /* backward */
    const uint8_t *place;
    const ShoalNchwcGradient *dx;
} Pooling;

static int least(int a, int b) {
    return a < b ? a : b;
}

static int greatest(int a, int b) {
    return a > b ? a : b;
}

/* --- Cutting -------------------------------------------------------------------------------- */

/* Bands of a backward pass: parts of sums. */
static ShoalNchwcParts parts_of(size_t batch, size_t height, size_t width) {
    const size_t most = SHOAL_NCHWC_PART_PIXELS / width;
    const size_t rows = most > 0 ? shoal_div_up(height, shoal_div_up(height, most)) : 1;
    return (ShoalNchwcParts){batch, height * width, rows * width};
}

static size_t plane_bytes(const ShoalNchwc *engine, size_t height, size_t width) {
    return shoal_align_up(height * width * engine->lanes * sizeof(float));
}

size_t shoal_nchwc_pool_workspace_bytes(const ShoalNchwc *engine, const ShoalNchwcDims *dims,
                                        unsigned threads) {
    const size_t height = (size_t)dims->height, width = (size_t)dims->width;
    if (height == 0 || width == 0)
        return 0;
    const ShoalNchwcParts parts = parts_of((size_t)dims->batch, height, width);
    const size_t blocks = shoal_div_up((size_t)dims->channels, engine->lanes);
    /* The one is needed forward, the other backward. */
    size_t bytes = shoal_nchwc_partials_bytes(&parts, blocks, engine->lanes, 1 + SHOAL_NCHWC_TERMS);
    size_t planes;
    if (!shoal_size_mul(plane_bytes(engine, height, width), threads, &planes))
        return SIZE_MAX;
    return bytes > planes ? bytes : planes;
}

static Pooling pooling_of(const ShoalCompute *compute, const ShoalNchwcPool *pool, bool max) {
    Pooling p = {.engine = compute->kernels->nchwc, .shape = &pool->shape, .max = max};
    p.lanes = p.engine->lanes;
    p.channels = (size_t)pool->channels;
    p.blocks = shoal_div_up(p.channels, p.lanes);
    p.units = (size_t)pool->batch * p.blocks;
    return p;
}

static void run_bands(const ShoalCompute *compute, Pooling *p, size_t pixels, ShoalPoolTask *task) {
    const size_t all = p->units * p->bands;
    p->grain = pixels < TASK_PIXELS ? TASK_PIXELS / pixels : 1;
    if (p->grain > all / TASKS)
        p->grain = all / TASKS > 0 ? all / TASKS : 1;
    shoal_pool_run(compute->pool, shoal_div_up(all, p->grain), task, p);
}

/* Channels of a unit's block. */
static size_t channels_of(const Pooling *p, size_t unit) {
    const size_t rest = p->channels - unit % p->blocks * p->lanes;
    return rest < p->lanes ? rest : p->lanes;
}

/* --- Forward -------------------------------------------------------------------------------- */

/* Rows of the image under output row i: [top, bottom). */
static int top_of(const ShoalPoolShape *s, int i) {
    return least(greatest(i * s->stride_h - s->pad_h, 0), s->height);
}

static int bottom_of(const ShoalPoolShape *s, int i) {
    return greatest(least(i * s->stride_h - s->pad_h + s->kernel_h, s->height), 0);
}

/* Row `top` of a unit's image and those after it up to `bottom`, through the input's function. */
static const float *rows_of(const Pooling *p, size_t unit, int top, int bottom, unsigned thread) {
    const ShoalPoolShape *s = p->shape;
    const size_t width = (size_t)s->width, first = unit * (size_t)s->height + (size_t)top;
    const float *x = p->x.x + first * width * p->lanes;
    const size_t channel = unit % p->blocks * p->lanes;
    float *to = (float *)(void *)(p->scratch + thread * p->scratch_bytes);
    if ((!p->x.scale && !p->x.relu) || top >= bottom)
        return x;
    p->engine->strip->activate((size_t)(bottom - top) * width, x,
                               p->x.scale ? p->x.scale + channel : NULL,
                               p->x.scale ? p->x.shift + channel : NULL, p->x.relu, to);
    return to;
}

static void fwd_band(const Pooling *p, size_t unit, int begin, int end, unsigned thread) {
    const ShoalPoolShape *s = p->shape;
    const int top = top_of(s, begin), bottom = bottom_of(s, end - 1);
    const float *x = rows_of(p, unit, top, bottom, thread);
    const size_t width = (size_t)s->width * p->lanes, out = (size_t)s->out_width * p->lanes;
    for (int i = begin; i < end; i++) {
        const int from = top_of(s, i);
        const size_t at = (unit * (size_t)s->out_height + (size_t)i) * out;
        ShoalNchwcPoolRow row = {.shape = s, .row = i, .channels = channels_of(p, unit)};
        row.rows = greatest(bottom_of(s, i) - from, 0);
        row.tap = from - (i * s->stride_h - s->pad_h);
        row.x = row.rows > 0 ? x + (size_t)(from - top) * width : x;
        if (p->max)
            p->engine->pool->max_fwd(&row, p->y + at, p->to_place + at);
        else
            p->engine->pool->ave_fwd(&row, p->y + at);
    }
}

static void fwd_task(void *context, size_t index, unsigned thread) {
    const Pooling *p = context;
    const size_t first = index * p->grain, all = p->units * p->bands;
    for (size_t i = first; i < first + p->grain && i < all; i++) {
        const int begin = (int)(i % p->bands * p->band_rows);
        fwd_band(p, i / p->bands, begin, least(begin + (int)p->band_rows, p->shape->out_height),
                 thread);
    }
}

static void run_fwd(const ShoalCompute *compute, Pooling *p) {
    const ShoalPoolShape *s = p->shape;
    const size_t height = (size_t)s->height, width = (size_t)s->width;
    const size_t rows = (size_t)s->out_height, outs = rows * (size_t)s->out_width;
    if (p->units == 0 || outs == 0)
        return;
    p->scratch = compute->workspace;
    p->scratch_bytes = plane_bytes(p->engine, height, width);
    size_t bands = shoal_div_up(p->scratch_bytes, BUFFER_BYTES);
    if (bands * p->units < TASKS)
        bands = shoal_div_up(TASKS, p->units);
    p->band_rows = shoal_div_up(rows, bands < rows ? bands : rows);
    p->bands = shoal_div_up(rows, p->band_rows);
    run_bands(compute, p, shoal_div_up(height * width, p->bands), fwd_task);
}

void shoal_nchwc_pool_max_fwd(const ShoalCompute *compute, const ShoalNchwcPool *pool,
                              const ShoalNchwcInput *x, float *y, uint8_t *place) {
    Pooling p = pooling_of(compute, pool, true);
    p.x = *x;
    p.y = y;
    p.to_place = place;
    run_fwd(compute, &p);
}

void shoal_nchwc_pool_ave_fwd(const ShoalCompute *compute, const ShoalNchwcPool *pool,
                              const ShoalNchwcInput *x, float *y) {
    Pooling p = pooling_of(compute, pool, false);
    p.x = *x;
    p.y = y;
    run_fwd(compute, &p);
}

/* --- Backward ------------------------------------------------------------------------------- */

static void bwd_row(const Pooling *p, size_t unit, int h, float *dx) {
    const ShoalPoolShape *s = p->shape;
    const int end = h + s->pad_h, before = end - s->kernel_h + 1;
    const int first = before > 0 ? (before + s->stride_h - 1) / s->stride_h : 0;
    const int last = least(end / s->stride_h, s->out_height - 1);
    ShoalNchwcPoolRow row = {.shape = s, .row = first, .channels = channels_of(p, unit)};
    row.rows = greatest(last - first + 1, 0);
    row.tap = end - first * s->stride_h;
    const size_t at = row.rows > 0 ? (size_t)first : 0;
    const size_t out = (unit * (size_t)s->out_height + at) * (size_t)s->out_width * p->lanes;
    row.dy = p->dy + out;
    if (p->max) {
        row.place = p->place + out;
        p->engine->pool->max_bwd(&row, p->dx->accumulate, dx);
    } else {
        p->engine->pool->ave_bwd(&row, p->dx->accumulate, dx);
    }
}

static void bwd_band(const Pooling *p, size_t unit, size_t band) {
    const ShoalPoolShape *s = p->shape;
    const size_t row = (size_t)s->width * p->lanes, rows = shoal_nchwc_sums_rows(p->dx);
    const size_t block = unit % p->blocks, part = unit / p->blocks * p->bands + band;
    const int begin = (int)(band * p->band_rows);
    const int end = least(begin + (int)p->band_rows, s->height);
    const size_t at = (unit * (size_t)s->height + (size_t)begin) * row;
    for (int h = begin; h < end; h++)
        bwd_row(p, unit, h, p->dx->g + at + (size_t)(h - begin) * row);
    if (!p->dx->finish)
        return;
    float *partial = NULL;
    if (rows > 0) {
        partial = shoal_nchwc_partial(&p->parts, p->lanes, rows, p->partials, block, part);
        memset(partial, 0, rows * p->lanes * sizeof *partial);
    }
    ShoalNchwcFinish finish = shoal_nchwc_finish_at(p->dx, p->lanes, at, block * p->lanes, partial);
    p->engine->strip->finish((size_t)(end - begin) * (size_t)s->width, &finish);
}

static void bwd_task(void *context, size_t index, unsigned thread) {
    const Pooling *p = context;
    const size_t first = index * p->grain, all = p->units * p->bands;
    (void)thread;
    for (size_t i = first; i < first + p->grain && i < all; i++)
        bwd_band(p, i / p->bands, i % p->bands);
}

static void run_bwd(const ShoalCompute *compute, const ShoalNchwcPool *pool, Pooling *p) {
    const size_t height = (size_t)p->shape->height, width = (size_t)p->shape->width;
    if (p->units == 0 || height * width == 0)
        return;
    p->partials = compute->workspace;
    p->parts = parts_of((size_t)pool->batch, height, width);
    p->band_rows = p->parts.strip / width;
    p->bands = shoal_div_up(height, p->band_rows);
    run_bands(compute, p, p->parts.strip, bwd_task);
    shoal_nchwc_merge_sums(compute, &p->parts, p->blocks, p->partials, p->dx);
}

void shoal_nchwc_pool_max_bwd(const ShoalCompute *compute, const ShoalNchwcPool *pool,
                              const float *dy, const uint8_t *place, const ShoalNchwcGradient *dx) {
    Pooling p = pooling_of(compute, pool, true);
    p.dy = dy;
    p.place = place;
    p.dx = dx;
    run_bwd(compute, pool, &p);
}

void shoal_nchwc_pool_ave_bwd(const ShoalCompute *compute, const ShoalNchwcPool *pool,
                              const float *dy, const ShoalNchwcGradient *dx) {
    Pooling p = pooling_of(compute, pool, false);
    p.dy = dy;
    p.dx = dx;
    run_bwd(compute, pool, &p);
}
