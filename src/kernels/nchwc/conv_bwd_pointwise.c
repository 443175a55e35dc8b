/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "kernels/nchwc/conv.h"
#include "kernels/nchwc/merge.h"
#include "kernels/table.h"

/* The backward pass of a kernel of one pixel, in one sweep.
 *
 * Such a convolution does little work per number, so the memory is what its backward pass waits
 * for. Pixels are cut into pieces: some rows of an image, or some small images. For a piece, the
 * gradient dy of all its outputs and the values of all its inputs are made in panels, from which
 * come the piece's dx, finished while it is in the cache, and its products for dw; so no number is
 * read twice from memory, and dy is never written to it. The pieces are cut into slices, with sums
 * for dw of their own, that are added in order at the end. */

/* Slices wanted: each is a task. */
enum { SLICES = 16 };
/* Pixels that pay for passing all weights and sums. */
enum { FEWEST_PIXELS = 64 };

/* What the panels of a piece may take of the cache that a core has for itself. */
static size_t piece_bytes(size_t lanes) {
    return lanes * ((size_t)64 << 10);
}

/* What the weights, or the sums of a slice, may take of it besides. Larger ones have work enough
 * per number for passes of their own. */
static size_t weights_most(size_t lanes) {
    return lanes * ((size_t)32 << 10);
}

typedef struct Plan {
    const ShoalNchwc *engine;
    const ShoalConvShape *shape;
    ShoalNchwcPanel x, dy;
    size_t batch, in_channels, in_blocks, out_channels, out_blocks;
    size_t rows, images, row_parts, pieces, slices; /* rows of outputs */
    ShoalNchwcParts parts;                          /* of dx, for its sums */
    ShoalNchwcParts out_parts;                      /* of dy, for the bias */
    size_t sums_floats, x_floats, dy_floats;
    /* workspace */
    float *weights; /* [pairs][outputs, padded][inputs of the pair] */
    float *sums;    /* [slices][inputs, padded][outputs, padded] */
    float *xs, *dys, *partials, *out_partials;
    double *bias; /* [outputs, padded] */
} Plan;

static size_t piece_pixels(size_t lanes, size_t channels) {
    return shoal_size_min(SHOAL_NCHWC_PIECE_PIXELS,
                          piece_bytes(lanes) / (channels * sizeof(float)));
}

bool shoal_nchwc_pointwise_bwd_applies(const ShoalNchwc *engine, const ShoalNchwcConv *conv) {
    const ShoalConvShape *s = &conv->shape;
    const size_t lanes = engine->lanes;
    if (conv->plain_input || s->group != 1 || s->kernel_h != 1 || s->kernel_w != 1 ||
        s->pad_h != 0 || s->pad_w != 0 || s->stride_h > 2 || s->stride_w > 2 ||
        s->channels > 1 << 15 || s->outputs > 1 << 15)
        return false;
    const size_t in = shoal_nchwc_padded(s->channels, (int)lanes);
    const size_t out = shoal_nchwc_padded(s->outputs, (int)lanes);
    return in * out * sizeof(float) <= weights_most(lanes) &&
           piece_pixels(lanes, in + out) >= shoal_size_max(FEWEST_PIXELS, (size_t)s->out_width);
}

static void plan_pieces(Plan *p) {
    const ShoalConvShape *s = p->shape;
    const size_t height = (size_t)s->out_height, width = (size_t)s->out_width;
    const size_t lanes = p->engine->lanes;
    const size_t most = piece_pixels(lanes, (p->in_blocks + p->out_blocks) * lanes);
    p->row_parts = shoal_div_up(height, shoal_size_min(most / width, height));
    p->rows = shoal_div_up(height, p->row_parts);
    p->row_parts = shoal_div_up(height, p->rows);
    p->images = 1;
    if (p->row_parts == 1)
        p->images = shoal_size_min(most / (height * width), p->batch);
    p->pieces = p->row_parts * shoal_div_up(p->batch, p->images);
    p->slices = shoal_size_min(SLICES, p->pieces);
    p->parts = (ShoalNchwcParts){p->batch, (size_t)s->height * (size_t)s->width,
                                 p->rows * (size_t)s->stride_h * (size_t)s->width};
    p->out_parts = (ShoalNchwcParts){p->batch, height * width, p->rows * width};
}

static void plan_panels(Plan *p, bool function, bool made) {
    const ShoalConvShape *s = p->shape;
    const ShoalNchwcAxis h = shoal_nchwc_axis_fwd(s, true), w = shoal_nchwc_axis_fwd(s, false);
    p->x = (ShoalNchwcPanel){.engine = p->engine,
                             .lanes = p->engine->lanes,
                             .height = (size_t)s->height,
                             .width = (size_t)s->width,
                             .tensor_blocks = p->in_blocks};
    shoal_nchwc_reach_add(&p->x.h, &h, s->height);
    shoal_nchwc_reach_add(&p->x.w, &w, s->width);
    p->x.in_place = shoal_nchwc_panel_in_place(&p->x, function) && s->stride_h == 1 &&
                    s->stride_w == 1 && s->width == s->out_width;
    shoal_nchwc_panel_layout(&p->x, p->images, p->rows);
    p->dy = (ShoalNchwcPanel){.engine = p->engine,
                              .in_place = made,
                              .lanes = p->engine->lanes,
                              .height = (size_t)s->out_height,
                              .width = (size_t)s->out_width,
                              .tensor_blocks = p->out_blocks,
                              .h = {.skip = 1, .size = s->out_height},
                              .w = {.skip = 1, .size = s->out_width}};
    shoal_nchwc_panel_layout(&p->dy, p->images, p->rows);
}

static Plan plan_of(const ShoalNchwc *engine, const ShoalNchwcConv *conv, bool function, bool made,
                    unsigned threads, void *base, size_t *bytes) {
    const ShoalConvShape *s = &conv->shape;
    const size_t lanes = engine->lanes;
    Plan p = {.engine = engine, .shape = s, .batch = (size_t)s->batch};
    p.in_channels = (size_t)s->channels;
    p.out_channels = (size_t)s->outputs;
    p.in_blocks = shoal_div_up(p.in_channels, lanes);
    p.out_blocks = shoal_div_up(p.out_channels, lanes);
    plan_pieces(&p);
    plan_panels(&p, function, made);
    p.sums_floats = p.in_blocks * p.out_blocks * lanes * lanes;
    p.x_floats = p.x.in_place ? 0 : p.in_blocks * p.x.block;
    p.dy_floats = p.dy.in_place ? 0 : p.out_blocks * p.dy.block;

    ShoalNchwcSpace space = {base, 0};
    p.weights = shoal_nchwc_take(&space, p.sums_floats, sizeof(float));
    p.sums = shoal_nchwc_take(&space, shoal_nchwc_times(p.slices, p.sums_floats), sizeof(float));
    p.xs = shoal_nchwc_take(&space, shoal_nchwc_times(p.x_floats, threads), sizeof(float));
    p.dys = shoal_nchwc_take(&space, shoal_nchwc_times(p.dy_floats, threads), sizeof(float));
    p.partials = shoal_nchwc_take(
        &space, shoal_nchwc_partials_bytes(&p.parts, p.in_blocks, lanes, 1 + SHOAL_NCHWC_TERMS), 1);
    p.out_partials = shoal_nchwc_take(
        &space, shoal_nchwc_partials_bytes(&p.out_parts, p.out_blocks, lanes, 1), 1);
    p.bias = shoal_nchwc_take(&space, p.out_blocks * lanes, sizeof(double));
    *bytes = space.used;
    return p;
}

size_t shoal_nchwc_pointwise_bwd_bytes(const ShoalNchwc *engine, const ShoalNchwcConv *conv,
                                       unsigned threads) {
    size_t bytes;
    plan_of(engine, conv, true, false, threads, NULL, &bytes);
    return bytes;
}

typedef struct Run {
    const Plan *p;
    const ShoalKernels *kernels;
    const ShoalNchwcInput *x;
    const ShoalNchwcOutGradient *dy;
    const float *w;
    float *dw, *db;
    const ShoalNchwcGradient *dx;
} Run;

/* Rows of an image, or whole images. */
typedef struct Piece {
    size_t image, images, row, rows;
} Piece;

static Piece piece_of(const Plan *p, size_t index) {
    Piece piece = {.row = index % p->row_parts * p->rows,
                   .image = index / p->row_parts * p->images};
    piece.rows = shoal_size_min((size_t)p->shape->out_height - piece.row, p->rows);
    piece.images = shoal_size_min(p->batch - piece.image, p->images);
    return piece;
}

/* --- Weights ------------------------------------------------------------------------------ */

static void pack_pair(void *context, size_t pair, unsigned thread) {
    const Run *r = context;
    const Plan *p = r->p;
    const size_t lanes = p->engine->lanes, first = 2 * pair * lanes;
    const size_t row = shoal_size_min(p->in_blocks - 2 * pair, 2) * lanes;
    const size_t count = shoal_size_min(p->in_channels - first, row);
    float *to = p->weights + first * p->out_blocks * lanes;
    (void)thread;
    for (size_t o = 0; o < p->out_channels; o++, to += row) {
        memcpy(to, r->w + o * p->in_channels + first, count * sizeof *to);
        memset(to + count, 0, (row - count) * sizeof *to);
    }
    memset(to, 0, (p->out_blocks * lanes - p->out_channels) * row * sizeof *to);
}

/* --- dy ----------------------------------------------------------------------------------- */

static void open_dy_strip(const Run *r, size_t at, size_t channel, size_t pixels, float *to) {
    const ShoalNchwcOutGradient *dy = r->dy;
    const ShoalNchwcStripKernels *strip = r->p->engine->strip;
    if (dy->z)
        strip->affine(pixels, dy->g + at, dy->z + at, dy->a + channel, dy->b + channel,
                      dy->c0 + channel, to);
    else
        strip->affine(pixels, dy->g + at, NULL, dy->a + channel, NULL, NULL, to);
}

static const float *open_dy(const Run *r, const Piece *piece, float *buffer) {
    const Plan *p = r->p;
    const size_t lanes = p->engine->lanes, width = p->dy.width, plane = p->dy.height * width;
    const size_t first = (piece->image * p->out_blocks * plane + piece->row * width) * lanes;
    if (p->dy.in_place)
        return r->dy->g + first;
    for (size_t b = 0; b < p->out_blocks; b++)
        for (size_t i = 0; i < piece->images; i++)
            open_dy_strip(r, first + (i * p->out_blocks + b) * plane * lanes, b * lanes,
                          piece->rows * width, buffer + b * p->dy.block + i * p->dy.image);
    return buffer;
}

/* Sums of the piece's dy. */
static void sum_bias(const Run *r, const Piece *piece, const float *dy) {
    const Plan *p = r->p;
    const size_t lanes = p->engine->lanes, per_image = shoal_nchwc_parts_per_image(&p->out_parts);
    for (size_t b = 0; b < p->out_blocks; b++)
        for (size_t i = 0; i < piece->images; i++) {
            _Alignas(SHOAL_ALIGN) float origin[SHOAL_NCHWC_LANES_MAX] = {0};
            _Alignas(SHOAL_ALIGN) float square[SHOAL_NCHWC_LANES_MAX];
            float *sum = shoal_nchwc_partial(&p->out_parts, lanes, 1, p->out_partials, b,
                                             (piece->image + i) * per_image + piece->row / p->rows);
            p->engine->strip->moments(piece->rows * p->dy.width,
                                      dy + b * p->dy.block + i * p->dy.image, origin, sum, square);
        }
}

/* --- dx ----------------------------------------------------------------------------------- */

/* A pair of dx's blocks in an image: the part of it that the piece is responsible for. */
typedef struct Target {
    size_t image, pair, vectors;
    size_t row, rows; /* of the input */
} Target;

static size_t dx_at(const Plan *p, const Target *t, size_t block) {
    return ((t->image * p->in_blocks + block) * p->x.height + t->row) * p->x.width *
           p->engine->lanes;
}

static void multiply_dx(const Run *r, const Target *t, const float *dy, size_t out_rows) {
    const Plan *p = r->p;
    const ShoalConvShape *s = p->shape;
    const size_t lanes = p->engine->lanes, row = t->vectors * lanes;
    const size_t most =
        shoal_size_max(shoal_nchwc_weight_bytes(lanes) / (lanes * row * sizeof(float)), 1);
    const size_t parts = shoal_div_up(p->out_blocks, most);
    const bool joined = s->stride_w == 1 && s->stride_h == 1;
    const size_t c_row = (size_t)s->stride_h * p->x.width * lanes;
    ShoalNchwcTile tile = {.vectors = t->vectors,
                           .length = lanes,
                           .a_segment = p->dy.block,
                           .a_row = lanes,
                           .c_row = (size_t)s->stride_w * lanes,
                           .c_col = p->x.height * p->x.width * lanes,
                           .accumulate = r->dx->accumulate};
    float *c = r->dx->g + dx_at(p, t, 2 * t->pair);
    for (size_t i = 0; i < parts; i++) {
        const size_t from = shoal_part_begin(p->out_blocks, parts, i);
        tile.segments = shoal_part_begin(p->out_blocks, parts, i + 1) - from;
        tile.b = p->weights + (2 * t->pair * p->out_blocks * lanes + from * row) * lanes;
        for (size_t h = 0; h < (joined ? 1 : out_rows); h++) {
            tile.a = dy + from * p->dy.block + h * p->dy.row;
            tile.c = c + h * c_row;
            shoal_nchwc_run_pixels(p->engine->tile, &tile, p->dy.width * (joined ? out_rows : 1));
        }
        tile.accumulate = true;
    }
}

static void finish_dx(const Run *r, const Target *t, size_t block, size_t sums) {
    const Plan *p = r->p;
    const size_t lanes = p->engine->lanes;
    const size_t part = t->image * shoal_nchwc_parts_per_image(&p->parts) +
                        t->row / (p->rows * (size_t)p->shape->stride_h);
    float *partial =
        sums ? shoal_nchwc_partial(&p->parts, lanes, sums, p->partials, block, part) : NULL;
    if (partial)
        memset(partial, 0, sums * lanes * sizeof *partial);
    ShoalNchwcFinish finish =
        shoal_nchwc_finish_at(r->dx, lanes, dx_at(p, t, block), block * lanes, partial);
    p->engine->strip->finish(t->rows * p->x.width, &finish);
}

static void run_target(const Run *r, const Target *t, const float *dy, size_t out_rows) {
    const Plan *p = r->p;
    const ShoalConvShape *s = p->shape;
    const size_t sums = shoal_nchwc_sums_rows(r->dx);
    if ((s->stride_h > 1 || s->stride_w > 1) && !r->dx->accumulate)
        for (size_t v = 0; v < t->vectors; v++)
            memset(r->dx->g + dx_at(p, t, 2 * t->pair + v), 0,
                   t->rows * p->x.width * p->engine->lanes * sizeof(float));
    multiply_dx(r, t, dy, out_rows);
    if (r->dx->finish && (r->dx->mask || sums))
        for (size_t v = 0; v < t->vectors; v++)
            finish_dx(r, t, 2 * t->pair + v, sums);
}

static void run_dx(const Run *r, const Piece *piece, const float *dy) {
    const Plan *p = r->p;
    const size_t stride = (size_t)p->shape->stride_h, height = (size_t)p->shape->height;
    Target t = {.row = piece->row * stride};
    t.rows = shoal_size_min(height - t.row, piece->rows * stride);
    for (t.pair = 0; 2 * t.pair < p->in_blocks; t.pair++) {
        t.vectors = shoal_size_min(p->in_blocks - 2 * t.pair, 2);
        for (size_t i = 0; i < piece->images; i++) {
            t.image = piece->image + i;
            run_target(r, &t, dy + i * p->dy.image, piece->rows);
        }
    }
}

/* --- What comes next ---------------------------------------------------------------------- */

/* A tensor that the next piece needs, from the piece's first pixel on. */
typedef struct Stream {
    const float *from;
    size_t blocks, pixels, block; /* pixels of a block; floats from block to block */
} Stream;

/* g and z of dy, x, g and mask of dx, and its terms. */
enum { STREAMS = 5 + SHOAL_NCHWC_TERMS };

/* The products for dw have the next piece brought into L2 while they run. */
typedef struct Ahead {
    Stream streams[STREAMS];
    size_t count, stream, block, pixel; /* how far it has come */
} Ahead;

static void ahead_add(Ahead *ahead, const ShoalNchwcPanel *tensor, const Piece *piece,
                      size_t stride, const float *from) {
    const size_t plane = tensor->height * tensor->width, blocks = tensor->tensor_blocks;
    Stream s = {.blocks = blocks, .pixels = piece->rows * stride * tensor->width};
    if (!from)
        return;
    s.from = from +
             (piece->image * blocks * plane + piece->row * stride * tensor->width) * tensor->lanes;
    s.block = plane * tensor->lanes;
    if (s.pixels >= plane) { /* whole images */
        s.pixels = blocks * piece->images * plane;
        s.blocks = 1;
    }
    for (size_t i = 0; i < ahead->count; i++)
        if (ahead->streams[i].from == s.from)
            return;
    ahead->streams[ahead->count++] = s;
}

static Ahead ahead_of(const Run *r, Piece piece) {
    const ShoalNchwcPanel *x = &r->p->x, *dy = &r->p->dy;
    const size_t stride = (size_t)r->p->shape->stride_h;
    Ahead ahead = {.count = 0};
    ahead_add(&ahead, dy, &piece, 1, r->dy->g);
    ahead_add(&ahead, dy, &piece, 1, r->dy->a ? r->dy->z : NULL);
    ahead_add(&ahead, x, &piece, stride, r->x->x);
    if (!r->dx)
        return ahead;
    ahead_add(&ahead, x, &piece, stride, r->dx->g);
    if (r->dx->finish)
        ahead_add(&ahead, x, &piece, stride, r->dx->mask);
    if (shoal_nchwc_sums_rows(r->dx) > 0)
        for (int t = 0; t < r->dx->terms; t++)
            ahead_add(&ahead, x, &piece, stride, r->dx->term[t].z);
    return ahead;
}

/* Where the next `pixels` pixels to bring begin; NULL when all are brought. */
static const float *ahead_next(Ahead *ahead, size_t pixels, size_t lanes) {
    if (ahead->stream == ahead->count)
        return NULL;
    const Stream *s = &ahead->streams[ahead->stream];
    const float *from = s->from + ahead->block * s->block + ahead->pixel * lanes;
    ahead->pixel += pixels;
    if (ahead->pixel >= s->pixels) {
        ahead->pixel = 0;
        ahead->block++;
    }
    if (ahead->block == s->blocks) {
        ahead->block = 0;
        ahead->stream++;
    }
    return from;
}

/* --- dw ----------------------------------------------------------------------------------- */

static void run_dw(const Run *r, const Piece *piece, Ahead *ahead, const float *dy, unsigned thread,
                   float *sums) {
    const Plan *p = r->p;
    const size_t lanes = p->engine->lanes, row = p->out_blocks * lanes;
    const ShoalNchwcWindow window = {
        piece->image, piece->images, 0,
        p->in_blocks, piece->rows,   (ptrdiff_t)piece->row * p->shape->stride_h};
    const float *x = shoal_nchwc_panel_open(&p->x, r->x, &window, p->xs + thread * p->x_floats);
    ShoalNchwcWtile t = {.segments = piece->images,
                         .length = piece->rows * p->dy.width,
                         .a_segment = p->x.image,
                         .a_step = lanes,
                         .b_segment = p->dy.image,
                         .b_step = lanes,
                         .b_col = p->dy.block,
                         .d_row = row,
                         .d_col = lanes};
    const size_t packs = shoal_div_up(p->out_blocks, p->engine->tile->wvectors);
    for (size_t i = 0; i < packs; i++) {
        const size_t from = shoal_part_begin(p->out_blocks, packs, i);
        t.vectors = shoal_part_begin(p->out_blocks, packs, i + 1) - from;
        t.b = dy + from * p->dy.block;
        for (size_t b = 0; b < p->in_blocks; b++) {
            t.a = x + b * p->x.block;
            t.d = sums + b * lanes * row + from * lanes;
            for (size_t l = 0; l < lanes; l += p->engine->tile->wrows) {
                t.rows = shoal_size_min(p->engine->tile->wrows, lanes - l);
                t.ahead = ahead_next(ahead, t.segments * t.length, lanes);
                p->engine->tile->wtile(&t);
                t.a += t.rows;
                t.d += t.rows * row;
            }
        }
    }
}

/* A vector of outputs. */
static void add_dw(void *context, size_t block, unsigned thread) {
    const Run *r = context;
    const Plan *p = r->p;
    const size_t lanes = p->engine->lanes;
    const ShoalNchwcSums sums = {.sums = p->sums + block * lanes,
                                 .row = p->out_blocks * lanes,
                                 .slices = p->slices,
                                 .apart = p->sums_floats,
                                 .rows = p->in_channels,
                                 .outputs = shoal_size_min(lanes, p->out_channels - block * lanes),
                                 .dw = r->dw + block * lanes * p->in_channels,
                                 .dw_step = p->in_channels};
    (void)thread;
    shoal_nchwc_add_sums(r->kernels, &sums);
}

/* --- All ---------------------------------------------------------------------------------- */

static void run_slice(void *context, size_t slice, unsigned thread) {
    const Run *r = context;
    const Plan *p = r->p;
    float *sums = p->sums + slice * p->sums_floats;
    if (r->dw)
        memset(sums, 0, p->sums_floats * sizeof *sums);
    const size_t end = shoal_part_begin(p->pieces, p->slices, slice + 1);
    for (size_t i = shoal_part_begin(p->pieces, p->slices, slice); i < end; i++) {
        const Piece piece = piece_of(p, i);
        const float *dy = open_dy(r, &piece, p->dys + thread * p->dy_floats);
        if (r->db)
            sum_bias(r, &piece, dy);
        if (r->dw) {
            Ahead ahead = {.count = 0};
            if (i + 1 < end)
                ahead = ahead_of(r, piece_of(p, i + 1));
            run_dw(r, &piece, &ahead, dy, thread, sums);
        }
        if (r->dx)
            run_dx(r, &piece, dy);
    }
}

static void add_bias(const ShoalCompute *compute, const Run *r) {
    const Plan *p = r->p;
    const ShoalNchwcGradient sums = {.finish = true, .sum_g = p->bias};
    shoal_nchwc_merge_sums(compute, &p->out_parts, p->out_blocks, p->out_partials, &sums);
    for (size_t o = 0; o < p->out_channels; o++)
        r->db[o] += (float)p->bias[o];
}

void shoal_nchwc_pointwise_bwd(const ShoalCompute *compute, const ShoalNchwcConv *conv,
                               const ShoalNchwcInput *x, const ShoalNchwcOutGradient *dy,
                               const float *w, float *dw, float *db, const ShoalNchwcGradient *dx) {
    size_t bytes;
    const Plan plan = plan_of(compute->kernels->nchwc, conv, dw && (x->scale || x->relu), !dy->a,
                              shoal_pool_threads(compute->pool), compute->workspace, &bytes);
    Run run = {&plan, compute->kernels, x, dy, w, dw, dw ? db : NULL, dx};
    if (dx)
        shoal_pool_run(compute->pool, shoal_div_up(plan.in_blocks, 2), pack_pair, &run);
    shoal_pool_run(compute->pool, plan.slices, run_slice, &run);
    if (dw)
        shoal_pool_run(compute->pool, plan.out_blocks, add_dw, &run);
    if (run.db)
        add_bias(compute, &run);
    if (dx)
        shoal_nchwc_merge_sums(compute, &plan.parts, plan.in_blocks, plan.partials, dx);
}
