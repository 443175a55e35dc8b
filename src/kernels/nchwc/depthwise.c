/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/nchwc/depthwise.h"

#include <string.h>

#include "base/memory.h"
#include "kernels/nchwc/merge.h"
#include "kernels/table.h"

/* Both passes sweep over rows of a source that are first put, through the function that it is read
 * with, between zeros into a ring of rows that stays in the nearest cache: every number is fetched
 * once and activated once, and the inner loops know no borders. A task is a band of rows of one
 * channel block (with a gradient of the taps also several images).
 *
 * Forward sweeps over y with x as its source. Backward sweeps over dx with dy as its source: row i
 * of dx is made of the rows of dy that row i of x meets in the gradient of the taps. */

enum {
    TASKS = 64,          /* as many at least, where shapes allow: for 8 threads and one image */
    PART_PIXELS = 256,   /* of one statistic: these rows are still in the nearest cache */
    SLICE_PIXELS = 2048, /* of a task with a gradient of the taps, where there are enough tasks */
};

typedef struct Sweep {
    const ShoalNchwc *engine;
    const ShoalConvShape *shape;
    size_t lanes, blocks, taps;
    ShoalNchwcInput source;
    const ShoalNchwcOutGradient *dy;        /* backward: the source is this */
    int source_h, source_w, rows_h, rows_w; /* rows: of what is swept over */
    bool spread;                            /* strides divide instead of multiplying */
    int pad_h, pad_w, span_h;               /* span: rows from the first tap to the last */
    size_t left, pitch, ring;               /* columns before the source, of a row; rows */
    ShoalNchwcParts parts;
    int part_rows, band_rows;
    size_t bands, group; /* group: images of a task */
    size_t scratch_bytes;
    bool far; /* what is swept over goes past the caches, a part at a time */

    const float *weights, *bias; /* packed [blocks][taps][lanes], [blocks][lanes] */
    float *partials;
    unsigned char *scratch;
    float *y;                           /* what is swept over; NULL: not wanted */
    bool stats;                         /* forward */
    const ShoalNchwcGradient *gradient; /* backward */
    const ShoalNchwcInput *in;          /* backward: x, for the taps' gradient; or NULL */
    float *tap_sums;                    /* that: [tasks][taps][lanes] */
} Sweep;

/* What a thread has: rows between zeros, and where they are. */
typedef struct Scratch {
    float *ring, *zeros, *sums, *part, *in;
    const float **x, **w;
    float **dw;
    int next; /* row of the source not yet in the ring */
} Scratch;

static int least(int a, int b) {
    return a < b ? a : b;
}

static int greatest(int a, int b) {
    return a > b ? a : b;
}

static int div_floor(int a, int b) {
    return a >= 0 ? a / b : -((-a + b - 1) / b);
}

bool shoal_nchwc_depthwise_applies(const ShoalNchwcConv *conv) {
    const ShoalConvShape *s = &conv->shape;
    return s->group == s->channels && s->outputs == s->channels && !conv->plain_input;
}

/* --- Shapes -------------------------------------------------------------------------------- */

static void cut_rows(Sweep *s) {
    const size_t rows = (size_t)s->rows_h, width = (size_t)s->rows_w;
    const size_t batch = (size_t)s->shape->batch, units = batch * s->blocks;
    size_t per_part = PART_PIXELS / width > 0 ? PART_PIXELS / width : 1;
    per_part = shoal_div_up(rows, shoal_div_up(rows, per_part));
    s->parts = (ShoalNchwcParts){batch, rows * width, per_part * width};
    const size_t most = shoal_div_up(rows, per_part),
                 wanted = units < TASKS ? shoal_div_up(TASKS, units) : 1;
    const size_t band = per_part * shoal_div_up(most, wanted < most ? wanted : most);
    s->part_rows = (int)per_part;
    s->band_rows = (int)band;
    s->bands = shoal_div_up(rows, band);
    s->group = 1;
}

static Sweep sweep_outputs(const ShoalNchwc *engine, const ShoalConvShape *shape) {
    Sweep s = {.engine = engine, .shape = shape, .lanes = engine->lanes};
    s.blocks = shoal_div_up((size_t)shape->channels, s.lanes);
    s.taps = (size_t)shape->kernel_h * (size_t)shape->kernel_w;
    s.source_h = shape->height;
    s.source_w = shape->width;
    s.rows_h = shape->out_height;
    s.rows_w = shape->out_width;
    s.pad_h = shape->pad_h;
    s.pad_w = shape->pad_w;
    s.span_h = (shape->kernel_h - 1) * shape->dilation_h + 1;
    const int width = (s.rows_w - 1) * shape->stride_w + (shape->kernel_w - 1) * shape->dilation_w;
    s.left = (size_t)s.pad_w;
    s.pitch = (size_t)greatest(s.pad_w + s.source_w, width + 1);
    s.ring = (size_t)least(s.span_h, s.source_h);
    cut_rows(&s);
    return s;
}

/* Several images per task where that leaves enough tasks. */
static void group_images(Sweep *s) {
    const size_t batch = (size_t)s->shape->batch, pixels = s->parts.pixels;
    const size_t slices = s->blocks < TASKS ? shoal_div_up(TASKS, s->blocks) : 1;
    const size_t most = batch / slices, wanted = pixels < SLICE_PIXELS ? SLICE_PIXELS / pixels : 1;
    const size_t group = wanted < most ? wanted : most;
    if (s->bands == 1 && group > 1)
        s->group = group;
}

/* Backward. At stride 1 it is a forward with the taps turned round. */
static Sweep sweep_inputs(const ShoalNchwc *engine, const ShoalConvShape *shape) {
    Sweep s = sweep_outputs(engine, shape);
    const int span_w = (shape->kernel_w - 1) * shape->dilation_w + 1;
    s.source_h = shape->out_height;
    s.source_w = shape->out_width;
    s.rows_h = shape->height;
    s.rows_w = shape->width;
    s.spread = shape->stride_h != 1 || shape->stride_w != 1 || s.span_h - 1 < s.pad_h ||
               span_w - 1 < s.pad_w;
    if (s.spread) {
        const int before = span_w - 1 - s.pad_w;
        const int last = (s.rows_w - 1 + s.pad_w) / shape->stride_w;
        s.left = before > 0 ? shoal_div_up((size_t)before, (size_t)shape->stride_w) : 0;
        s.pitch = s.left + (size_t)greatest(s.source_w, last + 1);
        s.ring = (size_t)least((s.span_h - 1) / shape->stride_h + 1, s.source_h);
    } else {
        /* The strides are 1 already. */
        s.pad_h = s.span_h - 1 - s.pad_h;
        s.pad_w = span_w - 1 - s.pad_w;
        s.left = (size_t)s.pad_w;
        s.pitch = (size_t)greatest(s.pad_w + s.source_w, s.rows_w + span_w - 1);
        s.ring = (size_t)least(s.span_h, s.source_h);
    }
    cut_rows(&s);
    group_images(&s);
    return s;
}

static size_t tasks_of(const Sweep *s) {
    return shoal_div_up((size_t)s->shape->batch, s->group) * s->blocks * s->bands;
}

/* --- Workspace ----------------------------------------------------------------------------- */

static size_t scratch_floats(const Sweep *s) {
    return ((s->ring + 1) * s->pitch + s->taps + s->parts.strip + (size_t)s->rows_w) * s->lanes;
}

static size_t scratch_bytes(const Sweep *s) {
    const size_t pointers = 3 * (size_t)s->shape->kernel_h * sizeof(const float *);
    return shoal_align_up(scratch_floats(s) * sizeof(float)) + shoal_align_up(pointers);
}

static Scratch scratch_of(const Sweep *s, unsigned thread) {
    unsigned char *base = s->scratch + (size_t)thread * s->scratch_bytes;
    const size_t row = s->pitch * s->lanes, floats = scratch_floats(s) * sizeof(float);
    Scratch scratch = {.ring = (float *)(void *)base};
    scratch.zeros = scratch.ring + s->ring * row;
    scratch.sums = scratch.zeros + row;
    scratch.part = scratch.sums + s->taps * s->lanes;
    scratch.in = scratch.part + s->parts.strip * s->lanes;
    scratch.x = (const float **)(void *)(base + shoal_align_up(floats));
    scratch.w = scratch.x + s->shape->kernel_h;
    scratch.dw = (float **)(void *)(scratch.w + s->shape->kernel_h);
    return scratch;
}

static size_t packed_bytes(const Sweep *s) {
    return shoal_align_up((s->taps + 1) * s->blocks * s->lanes * sizeof(float));
}

static size_t tap_sums_bytes(const Sweep *s) {
    return shoal_align_up(tasks_of(s) * s->taps * s->lanes * sizeof(float));
}

/* Bytes of a sweep with partials of this many rows per part. */
static size_t sweep_bytes(const Sweep *s, size_t rows, unsigned threads) {
    size_t bytes = shoal_nchwc_partials_bytes(&s->parts, s->blocks, s->lanes, rows), all;
    if (bytes > SIZE_MAX - SHOAL_ALIGN || !shoal_size_mul(scratch_bytes(s), threads, &all) ||
        !shoal_size_add(all, packed_bytes(s), &all) ||
        !shoal_size_add(all, shoal_align_up(bytes), &all))
        return SIZE_MAX;
    return all;
}

size_t shoal_nchwc_depthwise_workspace_bytes(const ShoalNchwc *engine, const ShoalNchwcConv *conv,
                                             unsigned threads) {
    const Sweep fwd = sweep_outputs(engine, &conv->shape), bwd = sweep_inputs(engine, &conv->shape);
    const size_t forward = sweep_bytes(&fwd, SHOAL_NCHWC_STATS_ROWS, threads);
    size_t backward = sweep_bytes(&bwd, 1 + SHOAL_NCHWC_TERMS, threads), sums;
    if (!shoal_size_mul(tasks_of(&bwd), bwd.taps * bwd.lanes * sizeof(float), &sums) ||
        sums > SIZE_MAX - SHOAL_ALIGN || !shoal_size_add(backward, shoal_align_up(sums), &backward))
        return SIZE_MAX;
    return forward > backward ? forward : backward;
}

/* Takes weights [channels][taps] (turned: the last tap first) and bias into the workspace, and
 * gives partials, sums of taps and scratch their places behind. w NULL: there is no y. */
static void prepare(Sweep *s, const ShoalCompute *compute, const float *w, const float *bias,
                    bool turned, size_t rows) {
    float *packed = compute->workspace, *to = packed;
    const size_t channels = (size_t)s->shape->channels;
    for (size_t block = 0; w && block < s->blocks; block++)
        for (size_t t = 0; t < s->taps; t++)
            for (size_t c = block * s->lanes; c < (block + 1) * s->lanes; c++)
                *to++ = c < channels ? w[c * s->taps + (turned ? s->taps - 1 - t : t)] : 0;
    s->weights = packed;
    if (bias) {
        memset(to, 0, s->blocks * s->lanes * sizeof *to);
        memcpy(to, bias, channels * sizeof *to);
        s->bias = to;
    }
    unsigned char *partials = (unsigned char *)compute->workspace + packed_bytes(s);
    s->partials = (float *)(void *)partials;
    s->scratch_bytes = scratch_bytes(s);
    s->scratch =
        partials + shoal_align_up(shoal_nchwc_partials_bytes(&s->parts, s->blocks, s->lanes, rows));
    if (s->in) {
        s->tap_sums = (float *)(void *)s->scratch;
        s->scratch += tap_sums_bytes(s);
    }
}

/* --- Rows ---------------------------------------------------------------------------------- */

/* The first and last row of the source that row i of what is swept over meets; they may lie
 * outside. */
static int first_met(const Sweep *s, int i) {
    if (s->spread)
        return -div_floor(-(i + s->pad_h - s->span_h + 1), s->shape->stride_h);
    return i * s->shape->stride_h - s->pad_h;
}

static int last_met(const Sweep *s, int i) {
    if (s->spread)
        return div_floor(i + s->pad_h, s->shape->stride_h);
    return first_met(s, i) + s->span_h - 1;
}

static float *ring_row(const Sweep *s, const Scratch *scratch, int row) {
    return scratch->ring + (size_t)row % s->ring * s->pitch * s->lanes;
}

/* Zeros around what the rows of a thread will hold; nobody writes there afterwards. */
static void clear_borders(const Sweep *s, const Scratch *scratch) {
    const size_t begin = s->left * s->lanes, width = (size_t)s->source_w * s->lanes;
    const size_t row = s->pitch * s->lanes;
    for (size_t i = 0; i < s->ring; i++) {
        float *to = scratch->ring + i * row;
        memset(to, 0, begin * sizeof *to);
        memset(to + begin + width, 0, (row - begin - width) * sizeof *to);
    }
    memset(scratch->zeros, 0, row * sizeof *scratch->zeros);
}

static void clear_scratch(const Sweep *s, unsigned threads) {
    for (unsigned thread = 0; thread < threads; thread++) {
        const Scratch scratch = scratch_of(s, thread);
        clear_borders(s, &scratch);
    }
}

/* One row of the source, from its number `at` on, through the source's function. */
static void load_row(const Sweep *s, size_t at, size_t channel, float *to) {
    const size_t pixels = (size_t)s->source_w;
    const ShoalNchwcInput *x = &s->source;
    const ShoalNchwcOutGradient *dy = s->dy;
    if (dy && dy->a)
        s->engine->strip->affine(pixels, dy->g + at, dy->z ? dy->z + at : NULL, dy->a + channel,
                                 dy->z ? dy->b + channel : NULL, dy->c0 ? dy->c0 + channel : NULL,
                                 to);
    else
        s->engine->strip->activate(pixels, x->x + at, x->scale ? x->scale + channel : NULL,
                                   x->scale ? x->shift + channel : NULL, x->relu, to);
}

/* Rows of a plane of the source (which begins at `plane`) into the ring, up to the last that row i
 * meets. */
static void load_rows(const Sweep *s, Scratch *scratch, size_t plane, size_t channel, int i) {
    const int last = least(last_met(s, i), s->source_h - 1);
    for (int row = greatest(scratch->next, first_met(s, i)); row <= last; row++)
        load_row(s, plane + (size_t)row * (size_t)s->source_w * s->lanes, channel,
                 ring_row(s, scratch, row) + s->left * s->lanes);
    scratch->next = greatest(scratch->next, last + 1);
}

/* A row of x, from its number `at` on; where it is a function of numbers, made in the scratch. */
static const float *input_row(const Sweep *s, const Scratch *scratch, size_t at, size_t channel) {
    const ShoalNchwcInput *x = s->in;
    if (!x->scale && !x->relu)
        return x->x + at;
    s->engine->strip->activate((size_t)s->rows_w, x->x + at, x->scale ? x->scale + channel : NULL,
                               x->scale ? x->shift + channel : NULL, x->relu, scratch->in);
    return scratch->in;
}

/* Points row->x, row->w and row->dw at what row i meets. `taps`: the block's packed weights. */
static void point_rows(const Sweep *s, const Scratch *scratch, const float *taps, int i,
                       ShoalNchwcDepthwiseRow *row) {
    const ShoalConvShape *shape = s->shape;
    row->rows = 0;
    for (int u = 0; u < shape->kernel_h; u++) {
        int at = first_met(s, i) + u * shape->dilation_h;
        if (s->spread) {
            int place = i + s->pad_h - u * shape->dilation_h;
            at = place >= 0 && place % shape->stride_h == 0 ? place / shape->stride_h : -1;
        }
        const bool inside = at >= 0 && at < s->source_h;
        if (s->spread && !inside)
            continue;
        scratch->x[row->rows] = inside ? ring_row(s, scratch, at) : scratch->zeros;
        scratch->w[row->rows] = taps + (size_t)(u * shape->kernel_w) * s->lanes;
        scratch->dw[row->rows++] = scratch->sums + (size_t)(u * shape->kernel_w) * s->lanes;
    }
}

static ShoalNchwcDepthwiseRow row_of(const Sweep *s, const Scratch *scratch) {
    return (ShoalNchwcDepthwiseRow){.x = scratch->x,
                                    .w = scratch->w,
                                    .dw = scratch->dw,
                                    .kernel_w = (size_t)s->shape->kernel_w,
                                    .stride = (size_t)s->shape->stride_w,
                                    .dilation = (size_t)s->shape->dilation_w,
                                    .pad = (size_t)s->pad_w,
                                    .left = s->left,
                                    .pixels = (size_t)s->rows_w};
}

/* Points row->next at the next row of the source, whose plane begins at `plane`, and of x, at `in`:
 * the memory has the time of a row's arithmetic to bring them. */
static void point_next(const Sweep *s, const Scratch *scratch, size_t plane, size_t in,
                       ShoalNchwcDepthwiseRow *row) {
    const size_t next = (size_t)least(scratch->next, s->source_h - 1);
    const size_t at = plane + next * (size_t)s->source_w * s->lanes;
    row->next[0] = s->source.x + at;
    row->next[1] = s->dy->z ? s->dy->z + at : row->next[0];
    row->next[2] = s->in->x + in;
}

/* --- The sweep ------------------------------------------------------------------------------ */

/* A part of what is swept over: rows of one block of one image. */
typedef struct Part {
    size_t image, block, at; /* at: its first number in the tensor */
    int begin, rows;
    float *values; /* in the tensor, or in a thread's scratch */
} Part;

/* The statistics or the finish of a part, while its numbers are at hand. */
static void end_part(const Sweep *s, const Part *p) {
    const size_t rows = s->stats      ? SHOAL_NCHWC_STATS_ROWS
                        : s->gradient ? shoal_nchwc_sums_rows(s->gradient)
                                      : 0;
    const size_t number =
        p->image * shoal_nchwc_parts_per_image(&s->parts) + (size_t)p->begin / (size_t)s->part_rows;
    const size_t pixels = (size_t)p->rows * (size_t)s->rows_w;
    float *partial =
        rows > 0 ? shoal_nchwc_partial(&s->parts, s->lanes, rows, s->partials, p->block, number)
                 : NULL;
    if (s->stats)
        shoal_nchwc_part_stats(s->engine, pixels, p->values, partial);
    if (s->gradient && s->gradient->finish) {
        if (partial)
            memset(partial, 0, rows * s->lanes * sizeof *partial);
        ShoalNchwcFinish finish =
            shoal_nchwc_finish_at(s->gradient, s->lanes, p->at, p->block * s->lanes, partial);
        finish.g = p->values;
        s->engine->strip->finish(pixels, &finish);
    }
    if (s->far)
        s->engine->strip->copy_far(pixels, p->values, s->y + p->at);
}

/* What the rows of a part added to the taps' gradient goes into the task's sum: no float32 sum runs
 * over too many. */
static void end_taps(const Sweep *s, const Scratch *scratch, float *sum) {
    s->engine->strip->add(s->taps, scratch->sums, sum);
    memset(scratch->sums, 0, s->taps * s->lanes * sizeof *scratch->sums);
}

/* A band of rows of one image and block; the taps' sums are added to tap_sum. */
static void sweep_band(const Sweep *s, Scratch *scratch, size_t unit, size_t band, float *tap_sum) {
    const size_t block = unit % s->blocks, width = (size_t)s->rows_w * s->lanes;
    const size_t from = unit * (size_t)s->source_h * (size_t)s->source_w * s->lanes;
    const size_t to = unit * (size_t)s->rows_h * width, channel = block * s->lanes;
    const int begin = (int)band * s->band_rows, end = least(begin + s->band_rows, s->rows_h);
    ShoalNchwcDepthwiseRow row = row_of(s, scratch);
    row.bias = s->bias ? s->bias + channel : NULL;
    row.accumulate = s->gradient && s->gradient->accumulate;
    Part part = {.image = unit / s->blocks, .block = block};
    scratch->next = 0;
    for (int i = begin; i < end; i++) {
        if (part.rows == 0) {
            part.begin = i;
            part.at = to + (size_t)i * width;
            part.values = s->far ? scratch->part : s->y ? s->y + part.at : NULL;
        }
        load_rows(s, scratch, from, channel, i);
        point_rows(s, scratch, s->weights + block * s->taps * s->lanes, i, &row);
        row.y = s->y ? part.values + (size_t)part.rows * width : NULL;
        row.in = s->in ? input_row(s, scratch, to + (size_t)i * width, channel) : NULL;
        part.rows++;
        if (s->in)
            point_next(s, scratch, from, to + (size_t)least(i + 1, end - 1) * width, &row);
        if (s->spread)
            s->engine->depthwise->spread(&row);
        else
            s->engine->depthwise->gather(&row);
        if (i + 1 < end && part.rows < s->part_rows)
            continue;
        if (s->y)
            end_part(s, &part);
        if (s->in)
            end_taps(s, scratch, tap_sum);
        part.rows = 0;
    }
}

static void sweep_task(void *context, size_t index, unsigned thread) {
    const Sweep *s = context;
    const size_t band = index % s->bands, block = index / s->bands % s->blocks;
    const size_t slice = index / s->bands / s->blocks, batch = (size_t)s->shape->batch;
    const size_t taps = s->taps * s->lanes;
    float *tap_sum = s->in ? s->tap_sums + index * taps : NULL;
    Scratch scratch = scratch_of(s, thread);
    memset(scratch.sums, 0, taps * sizeof *scratch.sums);
    if (tap_sum)
        memset(tap_sum, 0, taps * sizeof *tap_sum);
    for (size_t i = slice * s->group; i < (slice + 1) * s->group && i < batch; i++)
        sweep_band(s, &scratch, i * s->blocks + block, band, tap_sum);
}

static void run_sweep(const ShoalCompute *compute, Sweep *s) {
    const size_t numbers = shoal_nchwc_parts_count(&s->parts) * s->parts.strip * s->blocks;
    s->far = s->y && numbers * s->lanes * sizeof(float) >= SHOAL_NCHWC_FAR_BYTES &&
             !(s->gradient && s->gradient->accumulate);
    clear_scratch(s, shoal_pool_threads(compute->pool));
    shoal_pool_run(compute->pool, tasks_of(s), sweep_task, s);
}

void shoal_nchwc_depthwise_fwd(const ShoalCompute *compute, const ShoalNchwcConv *conv,
                               const ShoalNchwcInput *x, const float *w, const float *bias,
                               float *y, const ShoalNchwcStats *stats) {
    Sweep s = sweep_outputs(compute->kernels->nchwc, &conv->shape);
    s.source = *x;
    s.y = y;
    s.stats = stats;
    prepare(&s, compute, w, bias, false, SHOAL_NCHWC_STATS_ROWS);
    run_sweep(compute, &s);
    if (stats)
        shoal_nchwc_merge_stats(compute, &s.parts, s.blocks, s.partials, stats);
}

/* --- Backward ------------------------------------------------------------------------------- */

/* Adds the taps' sums of all tasks, in their order, to dw. */
static void merge_taps(const Sweep *s, float *dw) {
    const size_t per_slice = s->blocks * s->bands, tasks = tasks_of(s);
    for (size_t c = 0; c < (size_t)s->shape->channels; c++)
        for (size_t t = 0; t < s->taps; t++) {
            const size_t first = c / s->lanes * s->bands;
            double sum = 0;
            for (size_t slice = 0; slice < tasks; slice += per_slice)
                for (size_t band = 0; band < s->bands; band++)
                    sum += (double)s->tap_sums[((slice + first + band) * s->taps + t) * s->lanes +
                                               c % s->lanes];
            dw[c * s->taps + (s->spread ? t : s->taps - 1 - t)] += (float)sum;
        }
}

void shoal_nchwc_depthwise_bwd(const ShoalCompute *compute, const ShoalNchwcConv *conv,
                               const ShoalNchwcInput *x, const ShoalNchwcOutGradient *dy,
                               const float *w, float *dw, const ShoalNchwcGradient *dx) {
    Sweep s = sweep_inputs(compute->kernels->nchwc, &conv->shape);
    s.source.x = dy->g;
    s.dy = dy;
    s.in = dw ? x : NULL;
    s.gradient = dx;
    s.y = dx ? dx->g : NULL;
    prepare(&s, compute, dx ? w : NULL, NULL, !s.spread, 1 + SHOAL_NCHWC_TERMS);
    run_sweep(compute, &s);
    if (dw)
        merge_taps(&s, dw);
    if (dx)
        shoal_nchwc_merge_sums(compute, &s.parts, s.blocks, s.partials, dx);
}

void shoal_nchwc_depthwise_bwd_data(const ShoalCompute *compute, const ShoalNchwcConv *conv,
                                    const float *dy, const float *w, const ShoalNchwcGradient *dx) {
    const ShoalNchwcOutGradient from = {.g = dy};
    shoal_nchwc_depthwise_bwd(compute, conv, NULL, &from, w, NULL, dx);
}

void shoal_nchwc_depthwise_bwd_weights(const ShoalCompute *compute, const ShoalNchwcConv *conv,
                                       const ShoalNchwcInput *x, const float *dy, float *dw) {
    const ShoalNchwcOutGradient from = {.g = dy};
    shoal_nchwc_depthwise_bwd(compute, conv, x, &from, NULL, dw, NULL);
}
