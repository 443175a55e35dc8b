/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/nchwc/merge.h"

#include <string.h>

#include "base/memory.h"
#include "kernels/nchwc/pool.h"
#include "kernels/table.h"

/* A loop over a blocked tensor. A task is one part of one block: a strip of one image, or, where
 * images are small, a group of whole ones. */
typedef struct Loop Loop;

/* A strip within a task. */
typedef struct Strip {
    size_t at;             /* in the blocked tensor, in floats */
    size_t plain, channel; /* of the first channel and pixel in a plain tensor; that channel */
    size_t pixels;
    float *partial; /* of the task, or NULL */
    bool first;     /* strip of the task */
} Strip;

struct Loop {
    const ShoalNchwc *engine;
    const ShoalNchwcDims *dims;
    size_t plane, blocks; /* pixels of an image; blocks of channels */
    size_t group;         /* images of a task, 1 when they are cut into strips */
    ShoalNchwcParts parts;
    size_t rows; /* of partials; 0: none */
    float *partials;
    void (*strip)(const Loop *loop, const Strip *strip);

    ShoalNchwcInput a, b; /* what the operation has */
    bool relu;
    const float *from;
    const ShoalNchwcGradient *gradient;
    const float *scale_g, *scale_z, *shift;
    float *to;
    bool far; /* past the caches */
};

static Loop loop_over(const ShoalNchwc *engine, const ShoalNchwcDims *dims) {
    const size_t most = SHOAL_NCHWC_PART_PIXELS, batch = (size_t)dims->batch;
    Loop loop = {.engine = engine, .dims = dims, .group = 1};
    loop.plane = (size_t)dims->height * (size_t)dims->width;
    loop.blocks = shoal_div_up((size_t)dims->channels, engine->lanes);
    if (2 * loop.plane <= most && loop.plane > 0 && batch > 1) {
        loop.group = shoal_size_min(most / loop.plane, batch);
        loop.parts = (ShoalNchwcParts){1, batch * loop.plane, loop.group * loop.plane};
    } else {
        size_t strips = shoal_div_up(loop.plane, most);
        size_t strip = strips > 0 ? shoal_div_up(loop.plane, strips) : 1;
        loop.parts = (ShoalNchwcParts){batch, loop.plane, strip};
    }
    return loop;
}

static void run_task(void *context, size_t index, unsigned thread) {
    const Loop *loop = context;
    const size_t lanes = loop->engine->lanes, batch = (size_t)loop->dims->batch;
    const size_t strips = loop->group > 1 ? 1 : shoal_nchwc_parts_per_image(&loop->parts);
    const size_t strip = index % strips, block = index / strips % loop->blocks;
    const size_t group = index / strips / loop->blocks, first = group * loop->group;
    const size_t begin = strip * loop->parts.strip;
    (void)thread;
    Strip s = {.channel = block * lanes, .first = true};
    s.pixels = shoal_size_min(loop->plane - begin, loop->parts.strip);
    if (loop->rows > 0)
        s.partial = shoal_nchwc_partial(&loop->parts, lanes, loop->rows, loop->partials, block,
                                        group * strips + strip);
    for (size_t image = first; image < shoal_size_min(first + loop->group, batch); image++) {
        s.at = ((image * loop->blocks + block) * loop->plane + begin) * lanes;
        s.plain = (image * (size_t)loop->dims->channels + s.channel) * loop->plane + begin;
        loop->strip(loop, &s);
        s.first = false;
    }
}

static void run_loop(const ShoalCompute *compute, Loop *loop) {
    loop->partials = compute->workspace;
    shoal_pool_run(compute->pool, loop->blocks * shoal_nchwc_parts_count(&loop->parts), run_task,
                   loop);
}

/* Channels of the strip's block. */
static size_t strip_channels(const Loop *loop, const Strip *s) {
    return shoal_size_min((size_t)loop->dims->channels - s->channel, loop->engine->lanes);
}

/* The i-th pixel on of a per-pixel pointer, and the per-channel arrays at the strip's block. */
static ShoalNchwcInput input_at(const ShoalNchwcInput *input, const Strip *s) {
    ShoalNchwcInput at = {.x = input->x + s->at, .relu = input->relu};
    if (input->scale) {
        at.scale = input->scale + s->channel;
        at.shift = input->shift + s->channel;
    }
    return at;
}

static bool is_far(const Loop *loop) {
    const size_t numbers = (size_t)loop->dims->batch * loop->blocks * loop->plane;
    return numbers * loop->engine->lanes * sizeof(float) >= SHOAL_NCHWC_FAR_BYTES;
}

/* --- The operations ------------------------------------------------------------------------ */

/* Pixels that pass through a buffer on the stack at a time. */
enum { BUFFER_PIXELS = 128 };

typedef struct Buffer {
    _Alignas(SHOAL_ALIGN) float strip[BUFFER_PIXELS * SHOAL_NCHWC_LANES_MAX];
} Buffer;

static void from_plain_strip(const Loop *loop, const Strip *s) {
    loop->engine->strip->block(s->pixels, strip_channels(loop, s), loop->from + s->plain,
                               loop->plane, loop->to + s->at);
}

void shoal_nchwc_from_plain(const ShoalCompute *compute, const ShoalNchwcDims *dims,
                            const float *plain, float *y) {
    Loop loop = loop_over(compute->kernels->nchwc, dims);
    loop.strip = from_plain_strip;
    loop.from = plain;
    loop.to = y;
    run_loop(compute, &loop);
}

static void to_plain_strip(const Loop *loop, const Strip *s) {
    const ShoalNchwcStripKernels *k = loop->engine->strip;
    const size_t channels = strip_channels(loop, s), lanes = loop->engine->lanes;
    const ShoalNchwcInput x = input_at(&loop->a, s);
    float *plain = loop->to + s->plain;
    if (!x.scale && !x.relu) {
        k->unblock(s->pixels, channels, x.x, plain, loop->plane);
        return;
    }
    Buffer buffer;
    for (size_t p = 0; p < s->pixels; p += BUFFER_PIXELS) {
        size_t pixels = shoal_size_min(s->pixels - p, BUFFER_PIXELS);
        k->activate(pixels, x.x + p * lanes, x.scale, x.shift, x.relu, buffer.strip);
        k->unblock(pixels, channels, buffer.strip, plain + p, loop->plane);
    }
}

void shoal_nchwc_to_plain(const ShoalCompute *compute, const ShoalNchwcDims *dims,
                          const ShoalNchwcInput *x, float *plain) {
    Loop loop = loop_over(compute->kernels->nchwc, dims);
    loop.strip = to_plain_strip;
    loop.a = *x;
    loop.to = plain;
    run_loop(compute, &loop);
}

static void stats_strip(const Loop *loop, const Strip *s) {
    const size_t lanes = loop->engine->lanes;
    if (s->first) {
        shoal_nchwc_part_stats(loop->engine, s->pixels, loop->from + s->at, s->partial);
        return;
    }
    float more[2 * SHOAL_NCHWC_LANES_MAX];
    loop->engine->strip->moments(s->pixels, loop->from + s->at, s->partial, more, more + lanes);
    for (size_t l = 0; l < 2 * lanes; l++)
        s->partial[lanes + l] += more[l];
}

void shoal_nchwc_stats(const ShoalCompute *compute, const ShoalNchwcDims *dims, const float *x,
                       const ShoalNchwcStats *stats) {
    Loop loop = loop_over(compute->kernels->nchwc, dims);
    loop.strip = stats_strip;
    loop.rows = SHOAL_NCHWC_STATS_ROWS;
    loop.from = x;
    run_loop(compute, &loop);
    shoal_nchwc_merge_stats(compute, &loop.parts, loop.blocks, loop.partials, stats);
}

static void sum_strip(const Loop *loop, const Strip *s) {
    const ShoalNchwcStripKernels *k = loop->engine->strip;
    const ShoalNchwcInput a = input_at(&loop->a, s), b = input_at(&loop->b, s);
    (loop->far ? k->sum_far : k->sum)(s->pixels, &a, &b, loop->relu, loop->to + s->at);
}

void shoal_nchwc_sum(const ShoalCompute *compute, const ShoalNchwcDims *dims,
                     const ShoalNchwcInput *a, const ShoalNchwcInput *b, bool relu, float *y) {
    Loop loop = loop_over(compute->kernels->nchwc, dims);
    loop.strip = sum_strip;
    loop.a = *a;
    loop.b = *b;
    loop.relu = relu;
    loop.to = y;
    loop.far = is_far(&loop) && y != a->x && y != b->x;
    run_loop(compute, &loop);
}

/* Some pixels of a gradient that `from` goes into; from == g when it is there already. */
static void grad_pixels(const Loop *loop, const Strip *s, size_t at, size_t pixels,
                        const float *from) {
    const ShoalNchwcGradient *gradient = loop->gradient;
    const ShoalNchwcStripKernels *k = loop->engine->strip;
    float *g = gradient->g + at;
    if (gradient->accumulate)
        k->add(pixels, from, g);
    else if (from != g)
        memcpy(g, from, pixels * loop->engine->lanes * sizeof *g);
    if (!gradient->finish)
        return;
    ShoalNchwcFinish finish =
        shoal_nchwc_finish_at(gradient, loop->engine->lanes, at, s->channel, s->partial);
    k->finish(pixels, &finish);
}

static void clear_partial(const Loop *loop, const Strip *s) {
    if (s->partial && s->first)
        memset(s->partial, 0, loop->rows * loop->engine->lanes * sizeof *s->partial);
}

static void grad_strip(const Loop *loop, const Strip *s) {
    const size_t lanes = loop->engine->lanes;
    clear_partial(loop, s);
    for (size_t p = 0; p < s->pixels; p += BUFFER_PIXELS) {
        size_t at = s->at + p * lanes;
        grad_pixels(loop, s, at, shoal_size_min(s->pixels - p, BUFFER_PIXELS), loop->from + at);
    }
}

static void grad_plain_strip(const Loop *loop, const Strip *s) {
    const size_t lanes = loop->engine->lanes, channels = strip_channels(loop, s);
    Buffer buffer;
    clear_partial(loop, s);
    for (size_t p = 0; p < s->pixels; p += BUFFER_PIXELS) {
        size_t at = s->at + p * lanes, pixels = shoal_size_min(s->pixels - p, BUFFER_PIXELS);
        float *blocked = loop->gradient->accumulate ? buffer.strip : loop->gradient->g + at;
        loop->engine->strip->block(pixels, channels, loop->from + s->plain + p, loop->plane,
                                   blocked);
        grad_pixels(loop, s, at, pixels, blocked);
    }
}

static void run_grad(const ShoalCompute *compute, const ShoalNchwcDims *dims, const float *from,
                     const ShoalNchwcGradient *dx,
                     void (*strip)(const Loop *loop, const Strip *s)) {
    Loop loop = loop_over(compute->kernels->nchwc, dims);
    loop.strip = strip;
    loop.rows = shoal_nchwc_sums_rows(dx);
    loop.from = from;
    loop.gradient = dx;
    run_loop(compute, &loop);
    shoal_nchwc_merge_sums(compute, &loop.parts, loop.blocks, loop.partials, dx);
}

void shoal_nchwc_grad(const ShoalCompute *compute, const ShoalNchwcDims *dims, const float *from,
                      const ShoalNchwcGradient *dx) {
    run_grad(compute, dims, from, dx, grad_strip);
}

void shoal_nchwc_grad_from_plain(const ShoalCompute *compute, const ShoalNchwcDims *dims,
                                 const float *plain, const ShoalNchwcGradient *dx) {
    run_grad(compute, dims, plain, dx, grad_plain_strip);
}

static void affine_strip(const Loop *loop, const Strip *s) {
    const float *z = loop->b.x;
    const ShoalNchwcStripKernels *k = loop->engine->strip;
    (loop->far ? k->affine_far : k->affine)(s->pixels, loop->from + s->at, z ? z + s->at : NULL,
                                            loop->scale_g + s->channel,
                                            z ? loop->scale_z + s->channel : NULL,
                                            z ? loop->shift + s->channel : NULL, loop->to + s->at);
}

void shoal_nchwc_affine(const ShoalCompute *compute, const ShoalNchwcDims *dims, const float *g,
                        const float *z, const float *a, const float *b, const float *c0,
                        float *dz) {
    Loop loop = loop_over(compute->kernels->nchwc, dims);
    loop.strip = affine_strip;
    loop.from = g;
    loop.b.x = z;
    loop.scale_g = a;
    loop.scale_z = b;
    loop.shift = c0;
    loop.to = dz;
    loop.far = is_far(&loop) && dz != g && dz != z;
    run_loop(compute, &loop);
}

size_t shoal_nchwc_workspace_bytes(const ShoalKernels *kernels, const ShoalNchwcDims *dims,
                                   unsigned threads) {
    if (!kernels->nchwc)
        return 0;
    Loop loop = loop_over(kernels->nchwc, dims);
    size_t bytes = shoal_nchwc_partials_bytes(&loop.parts, loop.blocks, kernels->nchwc->lanes,
                                              1 + SHOAL_NCHWC_TERMS);
    size_t pool = shoal_nchwc_pool_workspace_bytes(kernels->nchwc, dims, threads);
    return bytes > pool ? bytes : pool;
}
