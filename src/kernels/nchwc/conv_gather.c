/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/nchwc/conv_gather.h"

#include <string.h>

#include "kernels/blocked/blocked.h"
#include "kernels/table.h"

/* --- The plan ----------------------------------------------------------------------------- */

static ShoalNchwcAxis axis_of(const ShoalNchwcGather *g, bool vertical, size_t phase) {
    return g->backward ? shoal_nchwc_axis_bwd(g->shape, vertical, (ptrdiff_t)phase)
                       : shoal_nchwc_axis_fwd(g->shape, vertical);
}

/* Rows of a panel for so many output rows from a multiple of the stride on. */
static size_t panel_rows_for(const ShoalNchwcGather *g, size_t rows) {
    const ShoalNchwcAxis axis = axis_of(g, true, 0);
    const ptrdiff_t steps = g->backward ? ((ptrdiff_t)rows - 1) / axis.step : (ptrdiff_t)rows - 1;
    const ptrdiff_t all = axis.count - 1;
    const ShoalNchwcReach *h = &g->panel.h;
    ptrdiff_t less = (all - (steps < all ? steps : all)) * axis.in_step / h->skip;
    return (size_t)(h->size - less);
}

static void plan_panel(ShoalNchwcGather *g, const ShoalNchwcConv *conv, bool function) {
    const ShoalConvShape *s = g->shape;
    ShoalNchwcPanel *p = &g->panel;
    p->engine = g->engine;
    p->lanes = conv->plain_input ? 1 : g->engine->lanes;
    p->height = (size_t)(g->backward ? s->out_height : s->height);
    p->width = (size_t)(g->backward ? s->out_width : s->width);
    p->tensor_blocks = g->groups * g->in_blocks;
    for (size_t phase = 0; phase < g->phases_h; phase++) {
        ShoalNchwcAxis axis = axis_of(g, true, phase);
        g->empty_phase |= axis.taps == 0;
        shoal_nchwc_reach_add(&p->h, &axis, (ptrdiff_t)p->height);
    }
    for (size_t phase = 0; phase < g->phases_w; phase++) {
        ShoalNchwcAxis axis = axis_of(g, false, phase);
        g->empty_phase |= axis.taps == 0;
        shoal_nchwc_reach_add(&p->w, &axis, (ptrdiff_t)p->width);
    }
    p->in_place = shoal_nchwc_panel_in_place(p, function);
}

static size_t panel_bytes_for(const ShoalNchwcGather *g, size_t rows) {
    size_t pixels = shoal_nchwc_times(panel_rows_for(g, rows), (size_t)g->panel.w.size);
    return shoal_nchwc_times(shoal_nchwc_times(pixels, g->panel.lanes * sizeof(float)),
                             g->in_blocks);
}

/* Rows of a sum over pixels, and with them of items. */
static size_t strip_rows(const ShoalNchwcGather *g) {
    size_t pixels = g->out_height * g->out_width;
    size_t strips = shoal_div_up(pixels, SHOAL_NCHWC_PART_PIXELS);
    size_t rows = shoal_div_up(g->out_height, shoal_size_min(strips, g->out_height));
    return shoal_div_up(rows, g->phases_h) * g->phases_h;
}

static size_t panels_of(const ShoalNchwcGather *g) {
    return g->groups * g->image_parts * g->row_parts;
}

static void plan_items(ShoalNchwcGather *g) {
    const size_t budget = shoal_nchwc_panel_bytes(g->engine->lanes), strip = strip_rows(g);
    const size_t pixels = g->out_height * g->out_width;
    const size_t enough = 14 * g->engine->lanes; /* pixels that pay for passing all weights */
    size_t strips = shoal_div_up(g->out_height, strip);
    g->parts = (ShoalNchwcParts){g->batch, pixels, strip * g->out_width};
    size_t most = strips;
    while (most > 1 && panel_bytes_for(g, most * strip) > budget)
        most--;
    while (most > 1 && g->batch * shoal_div_up(strips, most) < SHOAL_NCHWC_ITEMS)
        most--;
    g->rows = most * strip;
    g->row_parts = shoal_div_up(strips, most);
    g->images = 1;
    if (g->row_parts == 1) {
        size_t fit = budget / shoal_size_max(panel_bytes_for(g, g->out_height), 1);
        g->images = shoal_size_max(shoal_size_min(fit, shoal_div_up(enough, pixels)), 1);
        g->images = shoal_size_min(g->images, g->batch);
    }
    g->image_parts = shoal_div_up(g->batch, g->images);
    const size_t pairs = shoal_div_up(g->out_blocks, 2);
    const size_t items = panels_of(g);
    g->pair_parts = shoal_size_min(shoal_div_up(SHOAL_NCHWC_ITEMS, items), pairs);
    g->pairs = shoal_div_up(pairs, g->pair_parts);
    g->pair_parts = shoal_div_up(pairs, g->pairs);
    g->panel_rows = panel_rows_for(g, shoal_size_min(g->rows, g->out_height));
    shoal_nchwc_panel_layout(&g->panel, g->images, g->panel_rows);
}

/* Packed weights of a pair. */
static size_t pair_floats(const ShoalNchwcGather *g) {
    return shoal_nchwc_times(shoal_nchwc_times(g->segments, g->length), 2 * g->engine->lanes);
}

ShoalNchwcGather shoal_nchwc_gather(const ShoalNchwc *engine, const ShoalNchwcConv *conv,
                                    bool backward, bool function, unsigned threads, void *base,
                                    size_t *bytes) {
    const ShoalConvShape *s = &conv->shape;
    ShoalNchwcGather g = {.engine = engine, .shape = s, .backward = backward};
    const size_t lanes = engine->lanes;
    g.groups = (size_t)s->group;
    g.batch = (size_t)s->batch;
    g.in_channels = (size_t)(backward ? s->outputs : s->channels) / g.groups;
    g.out_channels = (size_t)(backward ? s->channels : s->outputs) / g.groups;
    g.in_blocks = conv->plain_input ? g.in_channels : shoal_div_up(g.in_channels, lanes);
    g.out_blocks = shoal_div_up(g.out_channels, lanes);
    g.out_height = (size_t)(backward ? s->height : s->out_height);
    g.out_width = (size_t)(backward ? s->width : s->out_width);
    g.phases_h = backward ? (size_t)s->stride_h : 1;
    g.phases_w = backward ? (size_t)s->stride_w : 1;
    /* The taps of an image's row lie side by side when nothing lies between them. */
    const bool joined = conv->plain_input && s->dilation_w == 1;
    g.length = !conv->plain_input ? lanes : joined ? (size_t)s->kernel_w : 1;
    g.segments = g.in_blocks * (size_t)s->kernel_h * (joined ? 1 : (size_t)s->kernel_w);
    plan_panel(&g, conv, function);
    plan_items(&g);

    ShoalNchwcSpace space = {base, 0};
    const size_t vector = lanes * sizeof(float), blocks = g.groups * g.out_blocks;
    g.offsets = shoal_nchwc_take(&space, g.segments, sizeof *g.offsets);
    g.pack_late = g.image_parts * g.row_parts == 1;
    g.weights = shoal_nchwc_take(
        &space, pair_floats(&g),
        (g.pack_late ? threads : g.groups * shoal_div_up(g.out_blocks, 2)) * sizeof(float));
    g.init = shoal_nchwc_take(&space, blocks, vector);
    g.partials = shoal_nchwc_take(
        &space, shoal_nchwc_partials_bytes(&g.parts, blocks, lanes, 1 + SHOAL_NCHWC_TERMS), 1);
    g.buffer_floats = g.panel.in_place ? 0 : shoal_nchwc_times(g.panel.block, g.in_blocks);
    g.shared = g.pair_parts > 1 && !g.panel.in_place;
    g.buffers = shoal_nchwc_take(
        &space, shoal_nchwc_times(g.buffer_floats, g.shared ? panels_of(&g) : threads),
        sizeof(float));
    *bytes = space.used;
    return g;
}

/* --- Weights ------------------------------------------------------------------------------ */

/* The segments of a phase: [taps_h][taps_w] of every input block. */
typedef struct Phase {
    ShoalNchwcAxis h, w;
    size_t first, segments; /* among all */
} Phase;

/* Steps through the phases; the first when `phase` is zeroed. */
static Phase phase_of(const ShoalNchwcGather *g, size_t ph, size_t pw, size_t first) {
    Phase p = {.h = axis_of(g, true, ph), .w = axis_of(g, false, pw), .first = first};
    const bool joined = g->panel.lanes == 1 && g->shape->dilation_w == 1;
    const size_t columns = joined ? 1 : (size_t)p.w.taps;
    p.segments = g->in_blocks * (size_t)p.h.taps * columns;
    return p;
}

typedef struct Packing {
    const ShoalNchwcGather *g;
    const ShoalBlocked *blocked;
    const float *w;
} Packing;

/* Weights of a group as a matrix of outputs by inputs of the gather, each with all taps. */
typedef struct Matrix {
    const float *w;
    size_t taps, out_step, in_step;
} Matrix;

static Matrix matrix_of(const ShoalNchwcGather *g, const float *w, size_t group) {
    const size_t taps = (size_t)g->shape->kernel_h * (size_t)g->shape->kernel_w;
    Matrix m = {w + group * g->out_channels * g->in_channels * taps, taps, taps, taps};
    if (g->backward)
        m.in_step = g->out_channels * taps;
    else
        m.out_step = g->in_channels * taps;
    return m;
}

/* Where the weights of a vector of outputs go. */
typedef struct Packed {
    float *to;
    size_t step; /* from a row to the next */
    size_t outs; /* lanes that have a channel */
} Packed;

/* The number of a phase's tap in the kernel. */
static size_t tap_of(const ShoalNchwcGather *g, const Phase *p, size_t t, size_t tw) {
    ptrdiff_t u = p->h.tap_first + (ptrdiff_t)t * p->h.tap_step;
    ptrdiff_t v = p->w.tap_first + (ptrdiff_t)tw * p->w.tap_step;
    return (size_t)(u * g->shape->kernel_w + v);
}

/* `count` numbers, mostly a whole vector: too few for a call. */
static inline void copy_lanes(float *to, const float *from, size_t count) {
    if (count == 16)
        memcpy(to, from, 16 * sizeof *to);
    else if (count == 8)
        memcpy(to, from, 8 * sizeof *to);
    else
        memcpy(to, from, count * sizeof *to);
}

/* Most taps that are turned together. */
enum { TURNED_TAPS = 64 };

static void pack_lanes(const Matrix *m, const float *from, const Packed *packed, size_t row) {
    for (size_t l = 0; l < packed->outs; l++)
        packed->to[row * packed->step + l] = from[l * m->out_step];
}

/* Number by number: the taps of an image's rows, and large kernels with a stride. */
static void pack_phase(const ShoalNchwcGather *g, const Matrix *m, const Phase *p,
                       const Packed *packed) {
    const bool joined = g->panel.lanes == 1 && g->shape->dilation_w == 1;
    const size_t taps_h = (size_t)p->h.taps, taps_w = (size_t)p->w.taps;
    for (size_t in = 0; in < g->in_channels; in++)
        for (size_t t = 0; t < taps_h; t++)
            for (size_t tw = 0; tw < taps_w; tw++) {
                size_t block = in / g->panel.lanes, lane = in % g->panel.lanes;
                size_t s = p->first + (block * taps_h + t) * (joined ? 1 : taps_w);
                size_t row = joined ? s * g->length + tw : (s + tw) * g->length + lane;
                pack_lanes(m, m->w + in * m->in_step + tap_of(g, p, t, tw), packed, row);
            }
}

/* Taps of several phases: turned together, then each to its phase. */
static void pack_phases(const Packing *k, const Matrix *m, const Packed *packed) {
    const ShoalNchwcGather *g = k->g;
    const size_t lanes = g->engine->lanes;
    float turned[TURNED_TAPS * SHOAL_NCHWC_LANES_MAX];
    size_t first[TURNED_TAPS], step[TURNED_TAPS]; /* segments */
    for (size_t ph = 0, from = 0; ph < g->phases_h; ph++)
        for (size_t pw = 0; pw < g->phases_w; pw++) {
            Phase p = phase_of(g, ph, pw, from);
            from += p.segments;
            for (size_t t = 0; t < (size_t)p.h.taps; t++)
                for (size_t tw = 0; tw < (size_t)p.w.taps; tw++) {
                    size_t tap = tap_of(g, &p, t, tw);
                    first[tap] = p.first + t * (size_t)p.w.taps + tw;
                    step[tap] = (size_t)(p.h.taps * p.w.taps);
                }
        }
    for (size_t in = 0; in < g->in_channels; in++) {
        k->blocked->transpose(m->w + in * m->in_step, m->out_step, m->taps, packed->outs, turned,
                              lanes);
        for (size_t tap = 0; tap < m->taps; tap++) {
            size_t row = (first[tap] + in / lanes * step[tap]) * lanes + in % lanes;
            copy_lanes(packed->to + row * packed->step, turned + tap * lanes, packed->outs);
        }
    }
}

/* One phase has all taps: squares of the matrix are turned. */
static void pack_squares(const Packing *k, const Matrix *m, const Packed *packed) {
    const ShoalNchwcGather *g = k->g;
    const size_t lanes = g->engine->lanes;
    for (size_t in = 0; in < g->in_channels; in += m->taps == 1 ? lanes : 1) {
        const float *from = m->w + in * m->in_step;
        size_t row = in / lanes * m->taps * lanes + in % lanes;
        if (m->taps > 1)
            k->blocked->transpose(from, m->out_step, m->taps, packed->outs,
                                  packed->to + row * packed->step, lanes * packed->step);
        else if (!g->backward)
            k->blocked->transpose(from, m->out_step, shoal_size_min(lanes, g->in_channels - in),
                                  packed->outs, packed->to + row * packed->step, packed->step);
        else
            for (size_t i = in; i < in + lanes && i < g->in_channels; i++)
                copy_lanes(packed->to + i * packed->step, m->w + i * m->in_step, packed->outs);
    }
}

static float *weights_of(const ShoalNchwcGather *g, size_t group, size_t pair) {
    return g->weights + (group * shoal_div_up(g->out_blocks, 2) + pair) * pair_floats(g);
}

/* A vector of outputs, `step` floats from row to row. */
static void pack_block(const Packing *k, size_t group, size_t block, float *to, size_t step) {
    const ShoalNchwcGather *g = k->g;
    const size_t lanes = g->engine->lanes, from = block * lanes;
    const Packed packed = {to, step, shoal_size_min(g->out_channels - from, lanes)};
    Matrix matrix = matrix_of(g, k->w, group);
    matrix.w += from * matrix.out_step;
    if (packed.outs < lanes || g->in_channels % g->panel.lanes != 0)
        for (size_t i = 0; i < g->segments * g->length; i++)
            memset(packed.to + i * packed.step, 0, lanes * sizeof(float));
    if (g->panel.lanes > 1 && (matrix.taps == 1 || g->phases_h * g->phases_w == 1)) {
        pack_squares(k, &matrix, &packed);
        return;
    }
    if (g->panel.lanes > 1 && matrix.taps <= TURNED_TAPS) {
        pack_phases(k, &matrix, &packed);
        return;
    }
    for (size_t ph = 0, first = 0; ph < g->phases_h; ph++)
        for (size_t pw = 0; pw < g->phases_w; pw++) {
            Phase p = phase_of(g, ph, pw, first);
            pack_phase(g, &matrix, &p, &packed);
            first += p.segments;
        }
}

static void pack_pair(const Packing *k, size_t group, size_t pair, float *to) {
    const ShoalNchwcGather *g = k->g;
    const size_t lanes = g->engine->lanes, vectors = shoal_size_min(g->out_blocks - 2 * pair, 2);
    for (size_t v = 0; v < vectors; v++)
        pack_block(k, group, 2 * pair + v, to + v * lanes, vectors * lanes);
}

static void pack_task(void *context, size_t index, unsigned thread) {
    const Packing *k = context;
    const size_t pairs = shoal_div_up(k->g->out_blocks, 2);
    const size_t group = index / pairs, pair = index % pairs;
    (void)thread;
    pack_pair(k, group, pair, weights_of(k->g, group, pair));
}

/* The bias with its padding. */
static void fill_init(const ShoalNchwcGather *g, const float *bias) {
    const size_t lanes = g->engine->lanes, padded = g->out_blocks * lanes;
    for (size_t i = 0; i < g->groups * padded; i++) {
        size_t group = i / padded, out = i % padded;
        g->init[i] = out < g->out_channels ? bias[group * g->out_channels + out] : 0;
    }
}

static void fill_offsets(const ShoalNchwcGather *g, const Phase *p) {
    const ShoalNchwcPanel *panel = &g->panel;
    const size_t taps_h = (size_t)p->h.taps;
    const size_t columns = taps_h ? p->segments / g->in_blocks / taps_h : 0;
    ptrdiff_t *to = g->offsets + p->first;
    for (size_t b = 0; b < g->in_blocks; b++)
        for (size_t t = 0; t < taps_h; t++)
            for (size_t tw = 0; tw < columns; tw++) {
                ptrdiff_t h = p->h.at_first + (ptrdiff_t)t * p->h.at_step - panel->h.low;
                ptrdiff_t w = p->w.at_first + (ptrdiff_t)tw * p->w.at_step - panel->w.low;
                *to++ = (ptrdiff_t)(b * panel->block) + h / panel->h.skip * (ptrdiff_t)panel->row +
                        w / panel->w.skip * (ptrdiff_t)panel->col;
            }
}

/* --- The loops ---------------------------------------------------------------------------- */

typedef struct Run {
    const ShoalNchwcGather *g;
    const Packing *packing;
    const ShoalNchwcInput *x;
    const ShoalNchwcGatherOutput *out;
    size_t sums; /* rows of a part's sums; 0: none */
} Run;

typedef struct Item {
    size_t group, image, images, row, rows, pair, pairs;
    const float *panel;
} Item;

/* A pair of output blocks of an item. */
typedef struct Pair {
    size_t block, vectors; /* of all blocks */
    const float *weights;
} Pair;

static Item item_of(const ShoalNchwcGather *g, size_t index) {
    const size_t pairs = shoal_div_up(g->out_blocks, 2);
    Item it = {.pair = index % g->pair_parts * g->pairs};
    it.pairs = shoal_size_min(pairs - it.pair, g->pairs);
    index /= g->pair_parts;
    it.group = index % g->groups;
    index /= g->groups;
    it.row = index % g->row_parts * g->rows;
    it.rows = shoal_size_min(g->out_height - it.row, g->rows);
    it.image = index / g->row_parts * g->images;
    it.images = shoal_size_min(g->batch - it.image, g->images);
    return it;
}

static size_t out_at(const ShoalNchwcGather *g, size_t image, size_t block, size_t row) {
    size_t blocks = g->groups * g->out_blocks;
    return ((image * blocks + block) * g->out_height + row) * g->out_width * g->engine->lanes;
}

/* The item's outputs of a phase, for a piece of the sum. */
static void run_piece(const Run *r, const Item *it, const Phase *p, ShoalNchwcTile tile,
                      size_t block) {
    const ShoalNchwcGather *g = r->g;
    const ShoalNchwcPanel *panel = &g->panel;
    const size_t step = (size_t)p->h.step, first = (size_t)p->h.first;
    const size_t a_rows = (size_t)(p->h.in_step / panel->h.skip) * panel->row;
    const size_t c_rows = step * g->out_width * g->engine->lanes;
    size_t rows = it->rows > first ? (it->rows - first + step - 1) / step : 0;
    size_t pixels = (size_t)p->w.count;
    if (tile.a_row * pixels == a_rows && tile.c_row * pixels == c_rows) {
        pixels *= rows;
        rows = rows > 0;
    }
    for (size_t image = 0; image < it->images; image++)
        for (size_t i = 0; i < rows; i++) {
            ShoalNchwcTile t = tile;
            t.a = it->panel + image * panel->image + i * a_rows;
            t.c = r->out->y + out_at(g, it->image + image, block, it->row + first) + i * c_rows +
                  (size_t)p->w.first * g->engine->lanes;
            shoal_nchwc_run_pixels(g->engine->tile, &t, pixels);
        }
}

static void run_phase(const Run *r, const Item *it, const Phase *p, const Pair *pair) {
    const ShoalNchwcGather *g = r->g;
    const size_t lanes = g->engine->lanes, row = g->length * pair->vectors * lanes;
    const size_t most = shoal_size_max(shoal_nchwc_weight_bytes(lanes) / (row * sizeof(float)), 1);
    const size_t pieces = shoal_div_up(p->segments, most);
    ShoalNchwcTile tile = {.vectors = pair->vectors,
                           .length = g->length,
                           .a_row = (size_t)(p->w.in_step / g->panel.w.skip) * g->panel.col,
                           .c_row = (size_t)p->w.step * lanes,
                           .c_col = g->out_height * g->out_width * lanes,
                           .init = r->out->bias ? g->init + pair->block * lanes : NULL,
                           .accumulate = r->out->grad && r->out->grad->accumulate};
    for (size_t i = 0; i < pieces; i++) {
        size_t from = shoal_part_begin(p->segments, pieces, i);
        tile.segments = shoal_part_begin(p->segments, pieces, i + 1) - from;
        tile.offsets = g->offsets + p->first + from;
        tile.b = pair->weights + (p->first + from) * row;
        run_piece(r, it, p, tile, pair->block);
        tile.accumulate = true;
    }
}

/* What is done with a finished part of a block. */
static void run_part(const Run *r, size_t image, size_t block, size_t row, size_t rows) {
    const ShoalNchwcGather *g = r->g;
    const size_t lanes = g->engine->lanes, at = out_at(g, image, block, row);
    const size_t part =
        image * shoal_nchwc_parts_per_image(&g->parts) + row * g->out_width / g->parts.strip;
    float *partial =
        r->sums ? shoal_nchwc_partial(&g->parts, lanes, r->sums, g->partials, block, part) : NULL;
    if (!g->backward) {
        shoal_nchwc_part_stats(g->engine, rows * g->out_width, r->out->y + at, partial);
        return;
    }
    if (partial)
        memset(partial, 0, r->sums * lanes * sizeof *partial);
    ShoalNchwcFinish finish =
        shoal_nchwc_finish_at(r->out->grad, lanes, at, block * lanes, partial);
    g->engine->strip->finish(rows * g->out_width, &finish);
}

static void run_epilogue(const Run *r, const Item *it, const Pair *pair) {
    const ShoalNchwcGather *g = r->g;
    const size_t strip = g->parts.strip / g->out_width;
    for (size_t image = 0; image < it->images; image++)
        for (size_t v = 0; v < pair->vectors; v++)
            for (size_t row = 0; row < it->rows; row += strip)
                run_part(r, it->image + image, pair->block + v, it->row + row,
                         shoal_size_min(it->rows - row, strip));
}

/* Zeros where no tap comes from. */
static void clear_pair(const Run *r, const Item *it, const Pair *pair) {
    const ShoalNchwcGather *g = r->g;
    const size_t floats = it->rows * g->out_width * g->engine->lanes;
    for (size_t image = 0; image < it->images; image++)
        for (size_t v = 0; v < pair->vectors; v++)
            memset(r->out->y + out_at(g, it->image + image, pair->block + v, it->row), 0,
                   floats * sizeof(float));
}

static void run_pair(const Run *r, const Item *it, const Pair *pair) {
    const ShoalNchwcGather *g = r->g;
    const ShoalNchwcGradient *grad = r->out->grad;
    if (g->empty_phase && !(grad && grad->accumulate))
        clear_pair(r, it, pair);
    for (size_t ph = 0, first = 0; ph < g->phases_h; ph++)
        for (size_t pw = 0; pw < g->phases_w; pw++) {
            Phase p = phase_of(g, ph, pw, first);
            first += p.segments;
            if (p.segments > 0 && p.w.count > 0)
                run_phase(r, it, &p, pair);
        }
    if (grad ? grad->finish && (grad->mask || r->sums) : r->sums > 0)
        run_epilogue(r, it, pair);
}

static ShoalNchwcWindow window_of(const ShoalNchwcGather *g, const Item *it) {
    const ShoalNchwcAxis axis = axis_of(g, true, 0);
    return (ShoalNchwcWindow){.image = it->image,
                              .images = it->images,
                              .block = it->group * g->in_blocks,
                              .blocks = g->in_blocks,
                              .rows = panel_rows_for(g, it->rows),
                              .top =
                                  (ptrdiff_t)it->row / axis.step * axis.in_step + g->panel.h.low};
}

/* A block of a panel that several items share. */
static void open_block(void *context, size_t index, unsigned thread) {
    const Run *r = context;
    const ShoalNchwcGather *g = r->g;
    const size_t panel = index / g->in_blocks, block = index % g->in_blocks;
    const Item it = item_of(g, panel * g->pair_parts);
    ShoalNchwcWindow window = window_of(g, &it);
    (void)thread;
    window.block += block;
    window.blocks = 1;
    shoal_nchwc_panel_open(&g->panel, r->x, &window,
                           g->buffers + panel * g->buffer_floats + block * g->panel.block);
}

static void run_item(void *context, size_t index, unsigned thread) {
    const Run *r = context;
    const ShoalNchwcGather *g = r->g;
    Item it = item_of(g, index);
    const ShoalNchwcWindow window = window_of(g, &it);
    it.panel = g->shared ? g->buffers + index / g->pair_parts * g->buffer_floats
                         : shoal_nchwc_panel_open(&g->panel, r->x, &window,
                                                  g->buffers + thread * g->buffer_floats);
    for (size_t i = it.pair; i < it.pair + it.pairs; i++) {
        float *weights =
            g->pack_late ? g->weights + thread * pair_floats(g) : weights_of(g, it.group, i);
        if (g->pack_late)
            pack_pair(r->packing, it.group, i, weights);
        Pair pair = {.block = it.group * g->out_blocks + 2 * i,
                     .vectors = shoal_size_min(g->out_blocks - 2 * i, 2),
                     .weights = weights};
        run_pair(r, &it, &pair);
    }
}

void shoal_nchwc_gather_run(const ShoalCompute *compute, ShoalNchwcGather *g,
                            const ShoalNchwcInput *x, const float *w,
                            const ShoalNchwcGatherOutput *out) {
    const size_t blocks = g->groups * g->out_blocks;
    Packing packing = {g, compute->kernels->blocked, w};
    for (size_t ph = 0, first = 0; ph < g->phases_h; ph++)
        for (size_t pw = 0; pw < g->phases_w; pw++) {
            Phase p = phase_of(g, ph, pw, first);
            fill_offsets(g, &p);
            first += p.segments;
        }
    if (out->bias)
        fill_init(g, out->bias);
    if (!g->pack_late)
        shoal_pool_run(compute->pool, g->groups * shoal_div_up(g->out_blocks, 2), pack_task,
                       &packing);
    Run run = {.g = g, .packing = &packing, .x = x, .out = out};
    run.sums = out->grad    ? shoal_nchwc_sums_rows(out->grad)
               : out->stats ? SHOAL_NCHWC_STATS_ROWS
                            : 0;
    if (g->shared)
        shoal_pool_run(compute->pool, panels_of(g) * g->in_blocks, open_block, &run);
    shoal_pool_run(compute->pool, panels_of(g) * g->pair_parts, run_item, &run);
    if (out->stats)
        shoal_nchwc_merge_stats(compute, &g->parts, blocks, g->partials, out->stats);
    if (out->grad)
        shoal_nchwc_merge_sums(compute, &g->parts, blocks, g->partials, out->grad);
}
