/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "kernels/blocked/blocked.h"
#include "kernels/nchwc/conv.h"
#include "kernels/nchwc/merge.h"
#include "kernels/table.h"

/* The weight gradient, by the direct way.
 *
 * dw is cut into tiles of input channels by output channels whose sums stay in L2, the pixels into
 * pieces of which a few vectors stay in L1, and the pieces into slices. A task is a tile and a
 * slice: it opens the input panel of every piece and adds its products to sums of its own. There
 * are several slices only where dw has few tiles; their sums are added in order at the end. */

/* Blocks of outputs of a tile: what the opening of a panel is shared by. */
enum { TILE_OUTPUTS = 8, TILE_OUTPUTS_POINTWISE = 16 };
/* Tasks wanted. */
enum { TASKS = 16 };

static size_t tile_bytes(size_t lanes) {
    return lanes * ((size_t)16 << 10);
}

typedef struct Plan {
    const ShoalNchwc *engine;
    const ShoalConvShape *shape;
    ShoalNchwcPanel panel;
    ShoalNchwcAxis h, w;
    size_t groups, batch, out_height, out_width;
    size_t in_channels, in_blocks, out_channels, out_blocks; /* per group */
    size_t taps_h, taps_w, columns, run; /* a run: taps of an image's row that are rows together */
    size_t rows, images, row_parts, pieces; /* of a piece */
    size_t vectors;                         /* of outputs that stay in L1 with a block of inputs */
    size_t tile_in, tile_out, in_tiles, out_tiles, tiles, slices; /* tiles in blocks */
    size_t tile_floats, panel_rows;
    /* workspace */
    float *sums, *buffers;
    size_t buffer_floats, segments;
    ptrdiff_t *at; /* [threads][2][segments] */
} Plan;

static void plan_pieces(Plan *p) {
    const size_t pixels = p->out_height * p->out_width;
    const size_t rows =
        shoal_size_min(shoal_size_max(SHOAL_NCHWC_PIECE_PIXELS / p->out_width, 1), p->out_height);
    p->row_parts = shoal_div_up(p->out_height, rows);
    p->rows = shoal_div_up(p->out_height, p->row_parts);
    p->row_parts = shoal_div_up(p->out_height, p->rows);
    p->images = 1;
    if (p->row_parts == 1)
        p->images = shoal_size_max(shoal_size_min(SHOAL_NCHWC_PIECE_PIXELS / pixels, p->batch), 1);
    p->pieces = p->row_parts * shoal_div_up(p->batch, p->images);
    p->segments = p->rows * p->images;
}

static void plan_tiles(Plan *p) {
    const size_t lanes = p->engine->lanes, taps = p->taps_h * p->taps_w;
    const size_t outputs = taps == 1 ? TILE_OUTPUTS_POINTWISE : TILE_OUTPUTS;
    p->out_tiles = shoal_div_up(p->out_blocks, outputs);
    p->tile_out = shoal_div_up(p->out_blocks, p->out_tiles);
    size_t per_block = p->tile_out * taps * p->panel.lanes * lanes * sizeof(float);
    p->in_tiles = shoal_div_up(p->in_blocks, shoal_size_max(tile_bytes(lanes) / per_block, 1));
    p->tile_in = shoal_div_up(p->in_blocks, p->in_tiles);
    p->in_tiles = shoal_div_up(p->in_blocks, p->tile_in);
    p->out_tiles = shoal_div_up(p->out_blocks, p->tile_out);
    p->tiles = p->groups * p->in_tiles * p->out_tiles;
    p->slices = shoal_size_min(shoal_div_up(TASKS, p->tiles), p->pieces);
    p->tile_floats = p->tile_in * p->panel.lanes * taps * p->tile_out * lanes;
}

static Plan plan_of(const ShoalNchwc *engine, const ShoalNchwcConv *conv, bool function,
                    unsigned threads, void *base, size_t *bytes) {
    const ShoalConvShape *s = &conv->shape;
    Plan p = {.engine = engine, .shape = s, .groups = (size_t)s->group, .batch = (size_t)s->batch};
    p.h = shoal_nchwc_axis_fwd(s, true);
    p.w = shoal_nchwc_axis_fwd(s, false);
    p.out_height = (size_t)s->out_height;
    p.out_width = (size_t)s->out_width;
    p.in_channels = (size_t)s->channels / p.groups;
    p.out_channels = (size_t)s->outputs / p.groups;
    p.panel.engine = engine;
    p.panel.lanes = conv->plain_input ? 1 : engine->lanes;
    p.in_blocks = shoal_div_up(p.in_channels, p.panel.lanes);
    p.out_blocks = shoal_div_up(p.out_channels, engine->lanes);
    p.taps_h = (size_t)s->kernel_h;
    p.taps_w = (size_t)s->kernel_w;
    const bool joined = conv->plain_input && s->dilation_w == 1;
    p.columns = joined ? 1 : p.taps_w;
    p.run = joined ? p.taps_w : p.panel.lanes;
    p.panel.height = (size_t)s->height;
    p.panel.width = (size_t)s->width;
    p.panel.tensor_blocks = p.groups * p.in_blocks;
    shoal_nchwc_reach_add(&p.panel.h, &p.h, s->height);
    shoal_nchwc_reach_add(&p.panel.w, &p.w, s->width);
    p.panel.in_place = shoal_nchwc_panel_in_place(&p.panel, function);
    plan_pieces(&p);
    plan_tiles(&p);
    p.panel_rows = (size_t)(p.panel.h.size -
                            (ptrdiff_t)(p.out_height - p.rows) * p.h.in_step / p.panel.h.skip);
    shoal_nchwc_panel_layout(&p.panel, p.images, p.panel_rows);

    ShoalNchwcSpace space = {base, 0};
    p.at =
        shoal_nchwc_take(&space, shoal_nchwc_times(p.segments, 2 * (size_t)threads), sizeof *p.at);
    p.sums = shoal_nchwc_take(
        &space, shoal_nchwc_times(p.slices > 1 ? p.tiles * p.slices : threads, p.tile_floats),
        sizeof(float));
    p.buffer_floats = p.panel.in_place ? 0 : shoal_nchwc_times(p.panel.block, p.tile_in);
    p.buffers =
        shoal_nchwc_take(&space, shoal_nchwc_times(p.buffer_floats, threads), sizeof(float));
    *bytes = space.used;
    return p;
}

/* --- Products ----------------------------------------------------------------------------- */

typedef struct Run {
    const Plan *p;
    const ShoalKernels *kernels;
    const ShoalNchwcInput *x;
    const float *dy;
    float *dw;
} Run;

/* A tile of dw: blocks of a group. */
typedef struct Tile {
    size_t group, in, ins, out, outs;
} Tile;

static Tile tile_of(const Plan *p, size_t index) {
    Tile t = {.out = index % p->out_tiles * p->tile_out};
    index /= p->out_tiles;
    t.in = index % p->in_tiles * p->tile_in;
    t.group = index / p->in_tiles;
    t.outs = shoal_size_min(p->out_blocks - t.out, p->tile_out);
    t.ins = shoal_size_min(p->in_blocks - t.in, p->tile_in);
    return t;
}

typedef struct Piece {
    size_t image, images, row, rows;
} Piece;

static Piece piece_of(const Plan *p, size_t index) {
    Piece piece = {.row = index % p->row_parts * p->rows,
                   .image = index / p->row_parts * p->images};
    piece.rows = shoal_size_min(p->out_height - piece.row, p->rows);
    piece.images = shoal_size_min(p->batch - piece.image, p->images);
    return piece;
}

/* Where the piece's rows begin in the panel and in dy. */
static void piece_segments(const Plan *p, const Piece *piece, ShoalNchwcWtile *t, ptrdiff_t *at) {
    const size_t lanes = p->engine->lanes, plane = p->out_height * p->out_width * lanes;
    const size_t a_row = (size_t)(p->h.in_step / p->panel.h.skip) * p->panel.row;
    const size_t b_row = p->out_width * lanes;
    size_t rows = piece->rows;
    t->length = p->out_width;
    t->a_step = (size_t)(p->w.in_step / p->panel.w.skip) * p->panel.col;
    t->b_step = lanes;
    t->b_col = plane;
    if (t->a_step * t->length == a_row) { /* rows are neighbours: one run per image */
        t->length *= rows;
        rows = 1;
    }
    t->segments = piece->images * rows;
    t->a_at = at;
    t->b_at = at + p->segments;
    for (size_t image = 0; image < piece->images; image++)
        for (size_t r = 0; r < rows; r++, at++) {
            at[0] = (ptrdiff_t)(image * p->panel.image + r * a_row);
            at[p->segments] = (ptrdiff_t)(image * p->groups * p->out_blocks * plane + r * b_row);
        }
}

/* All inputs and taps of the tile, for a few vectors of outputs. sums [ins * lanes][taps][outs]. */
static void run_outputs(const Plan *p, const Tile *tile, ShoalNchwcWtile t, const float *panel,
                        float *sums) {
    const size_t row = p->tile_out * p->engine->lanes, taps = p->taps_h * p->taps_w;
    const size_t in_lanes = p->panel.lanes;
    const size_t d_row = in_lanes > 1 ? taps * row : row; /* to the next channel, or tap */
    for (size_t b = 0; b < tile->ins; b++)
        for (size_t u = 0; u < p->taps_h; u++)
            for (size_t v = 0; v < p->columns; v++) {
                size_t h = u * (size_t)p->h.at_step, w = v * (size_t)p->w.at_step;
                t.a = panel + b * p->panel.block + h * p->panel.row + w * p->panel.col;
                t.d = sums + (b * in_lanes * taps + u * p->taps_w + v) * row;
                t.d_row = d_row;
                shoal_nchwc_run_rows(p->engine->tile, &t, p->run);
            }
}

static void run_piece(const Run *r, const Tile *tile, const Piece *piece, unsigned thread,
                      float *sums) {
    const Plan *p = r->p;
    const size_t lanes = p->engine->lanes;
    ShoalNchwcWindow window = {
        piece->image, piece->images, tile->group * p->in_blocks + tile->in, tile->ins, 0, 0};
    window.rows =
        p->panel_rows - (p->rows - piece->rows) * (size_t)(p->h.in_step / p->panel.h.skip);
    window.top = (ptrdiff_t)piece->row * p->h.in_step + p->panel.h.low;
    const float *panel =
        shoal_nchwc_panel_open(&p->panel, r->x, &window, p->buffers + thread * p->buffer_floats);
    ShoalNchwcWtile t = {0};
    piece_segments(p, piece, &t, p->at + thread * 2 * p->segments);
    const float *dy =
        r->dy +
        ((piece->image * p->groups * p->out_blocks + tile->group * p->out_blocks + tile->out) *
             p->out_height +
         piece->row) *
            p->out_width * lanes;
    t.d_col = lanes;
    const size_t packs = shoal_div_up(tile->outs, p->engine->tile->wvectors);
    for (size_t i = 0; i < packs; i++) {
        size_t from = shoal_part_begin(tile->outs, packs, i);
        t.vectors = shoal_part_begin(tile->outs, packs, i + 1) - from;
        t.b = dy + from * t.b_col;
        run_outputs(p, tile, t, panel, sums + from * lanes);
    }
}

/* --- Into dw ------------------------------------------------------------------------------ */

/* Rows of sums that are turned at a time. */
enum { ADD_ROWS = 64 };

/* Sums of all slices: `rows` rows, into `buffer` where there are several slices. */
static const float *add_slices(const ShoalNchwc *engine, const ShoalNchwcSums *s, const float *sums,
                               size_t rows, float *buffer) {
    const size_t lanes = engine->lanes;
    if (s->slices == 1)
        return sums;
    for (size_t i = 0; i < rows; i++, sums += s->row, buffer += lanes) {
        memcpy(buffer, sums, lanes * sizeof *buffer);
        for (size_t slice = 1; slice < s->slices; slice++)
            engine->strip->add(1, sums + slice * s->apart, buffer);
    }
    return buffer - rows * lanes;
}

void shoal_nchwc_add_sums(const ShoalKernels *kernels, const ShoalNchwcSums *s) {
    const size_t step = s->slices > 1 ? kernels->nchwc->lanes : s->row;
    _Alignas(SHOAL_ALIGN) float sum[ADD_ROWS * SHOAL_NCHWC_LANES_MAX];
    float turned[ADD_ROWS * SHOAL_NCHWC_LANES_MAX];
    for (size_t i = 0; i < s->rows; i += ADD_ROWS) {
        const size_t rows = shoal_size_min(s->rows - i, ADD_ROWS);
        const float *from = add_slices(kernels->nchwc, s, s->sums + i * s->row, rows, sum);
        kernels->blocked->transpose(from, step, s->outputs, rows, turned, ADD_ROWS);
        for (size_t o = 0; o < s->outputs; o++)
            kernels->axpy(rows, 1, turned + o * ADD_ROWS, s->dw + o * s->dw_step + i);
    }
}

/* Into the rows of dw of a vector of outputs. */
static void add_vector(const Run *r, const Tile *tile, size_t block, const float *sums,
                       size_t slices, size_t apart) {
    const Plan *p = r->p;
    const size_t lanes = p->engine->lanes, taps = p->taps_h * p->taps_w;
    const size_t first = tile->in * p->panel.lanes, out = (tile->out + block) * lanes;
    const size_t channels = shoal_size_min(tile->ins * p->panel.lanes, p->in_channels - first);
    const ShoalNchwcSums s = {
        .sums = sums + block * lanes,
        .row = p->tile_out * lanes,
        .slices = slices,
        .apart = apart,
        .rows = channels * taps,
        .outputs = shoal_size_min(lanes, p->out_channels - out),
        .dw = r->dw + ((tile->group * p->out_channels + out) * p->in_channels + first) * taps,
        .dw_step = p->in_channels * taps};
    shoal_nchwc_add_sums(r->kernels, &s);
}

static void add_tile(const Run *r, const Tile *tile, const float *sums, size_t slices,
                     size_t apart) {
    for (size_t block = 0; block < tile->outs; block++)
        add_vector(r, tile, block, sums, slices, apart);
}

static void run_task(void *context, size_t index, unsigned thread) {
    const Run *r = context;
    const Plan *p = r->p;
    const size_t slice = index / p->tiles;
    const Tile tile = tile_of(p, index % p->tiles);
    float *sums = p->sums + (p->slices > 1 ? index : thread) * p->tile_floats;
    memset(sums, 0, p->tile_floats * sizeof *sums);
    const size_t end = shoal_part_begin(p->pieces, p->slices, slice + 1);
    for (size_t i = shoal_part_begin(p->pieces, p->slices, slice); i < end; i++) {
        Piece piece = piece_of(p, i);
        run_piece(r, &tile, &piece, thread, sums);
    }
    if (p->slices == 1)
        add_tile(r, &tile, sums, 1, 0);
}

static void add_task(void *context, size_t index, unsigned thread) {
    const Run *r = context;
    const Plan *p = r->p;
    const Tile tile = tile_of(p, index);
    (void)thread;
    add_tile(r, &tile, p->sums + index * p->tile_floats, p->slices, p->tiles * p->tile_floats);
}

size_t shoal_nchwc_direct_bwd_weights_bytes(const ShoalNchwc *engine, const ShoalNchwcConv *conv,
                                            unsigned threads) {
    size_t bytes;
    plan_of(engine, conv, true, threads, NULL, &bytes);
    return bytes;
}

void shoal_nchwc_direct_bwd_weights(const ShoalCompute *compute, const ShoalNchwcConv *conv,
                                    const ShoalNchwcInput *x, const float *dy, float *dw) {
    size_t bytes;
    Plan plan = plan_of(compute->kernels->nchwc, conv, x->scale || x->relu,
                        shoal_pool_threads(compute->pool), compute->workspace, &bytes);
    Run run = {&plan, compute->kernels, x, dy, dw};
    shoal_pool_run(compute->pool, plan.tiles * plan.slices, run_task, &run);
    if (plan.slices > 1)
        shoal_pool_run(compute->pool, plan.tiles, add_task, &run);
}
