/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "kernels/nchwc/conv.h"

void *shoal_nchwc_take(ShoalNchwcSpace *space, size_t count, size_t size) {
    size_t start = space->used, bytes = shoal_nchwc_times(count, size);
    space->used =
        bytes > SIZE_MAX / 4 || start > SIZE_MAX / 4 ? SIZE_MAX : start + shoal_align_up(bytes);
    return space->base ? space->base + start : NULL;
}

/* --- Directions --------------------------------------------------------------------------- */

ShoalNchwcAxis shoal_nchwc_axis_fwd(const ShoalConvShape *s, bool vertical) {
    return (ShoalNchwcAxis){.first = 0,
                            .step = 1,
                            .count = vertical ? s->out_height : s->out_width,
                            .taps = vertical ? s->kernel_h : s->kernel_w,
                            .tap_first = 0,
                            .tap_step = 1,
                            .in_step = vertical ? s->stride_h : s->stride_w,
                            .at_first = -(ptrdiff_t)(vertical ? s->pad_h : s->pad_w),
                            .at_step = vertical ? s->dilation_h : s->dilation_w};
}

static ptrdiff_t common_divisor(ptrdiff_t a, ptrdiff_t b) {
    while (b != 0) {
        ptrdiff_t rest = a % b;
        a = b;
        b = rest;
    }
    return a;
}

/* Input pixel h = phase + i * stride reads, by tap u, the output (h + pad - u * dilation) / stride,
 * when that is whole: a condition on u alone, that every tap_step-th u meets or none. */
ShoalNchwcAxis shoal_nchwc_axis_bwd(const ShoalConvShape *s, bool vertical, ptrdiff_t phase) {
    const ptrdiff_t size = vertical ? s->height : s->width, pad = vertical ? s->pad_h : s->pad_w;
    const ptrdiff_t kernel = vertical ? s->kernel_h : s->kernel_w;
    const ptrdiff_t stride = vertical ? s->stride_h : s->stride_w;
    const ptrdiff_t dilation = vertical ? s->dilation_h : s->dilation_w;
    ShoalNchwcAxis a = {.first = phase, .step = stride, .in_step = 1};
    a.count = phase < size ? (size - phase + stride - 1) / stride : 0;
    a.tap_step = stride / common_divisor(stride, dilation);
    while (a.tap_first < a.tap_step && (phase + pad - a.tap_first * dilation) % stride != 0)
        a.tap_first++;
    if (a.tap_first == a.tap_step || a.tap_first >= kernel)
        return a;
    a.taps = (kernel - 1 - a.tap_first) / a.tap_step + 1;
    a.at_first = (phase + pad - a.tap_first * dilation) / stride;
    a.at_step = -(a.tap_step * dilation / stride);
    return a;
}

void shoal_nchwc_reach_add(ShoalNchwcReach *reach, const ShoalNchwcAxis *axis, ptrdiff_t input) {
    if (reach->size == 0) /* and so it stays where all outputs lie in the padding */
        reach->skip = 1;
    if (axis->taps == 0 || axis->count == 0)
        return;
    const ptrdiff_t last_tap = axis->at_first + (axis->taps - 1) * axis->at_step;
    const ptrdiff_t low = axis->at_first < last_tap ? axis->at_first : last_tap;
    const ptrdiff_t skip = axis->taps == 1 ? axis->in_step : 1;
    ptrdiff_t high =
        (axis->at_first < last_tap ? last_tap : axis->at_first) + (axis->count - 1) * axis->in_step;
    if (reach->size == 0) {
        *reach = (ShoalNchwcReach){.low = low, .skip = skip};
    } else { /* phases, which all have in_step 1 */
        ptrdiff_t before = reach->low + reach->size - 1;
        high = high > before ? high : before;
        reach->low = low < reach->low ? low : reach->low;
    }
    reach->size = (high - reach->low) / reach->skip + 1;
    reach->inside = reach->low >= 0 && high < input;
}

/* --- Panels ------------------------------------------------------------------------------- */

void shoal_nchwc_panel_layout(ShoalNchwcPanel *p, size_t images, size_t rows) {
    if (p->in_place) {
        p->col = (size_t)p->w.skip * p->lanes;
        p->row = (size_t)p->h.skip * p->width * p->lanes;
        p->block = p->height * p->width * p->lanes;
        p->image = p->tensor_blocks * p->block;
        return;
    }
    p->col = p->lanes;
    p->row = (size_t)p->w.size * p->col;
    p->image = rows * p->row;
    p->block = images * p->image;
}

/* Pixels [*from, *end) of the seen row are in the tensor. */
static void seen_columns(const ShoalNchwcPanel *p, ptrdiff_t *from, ptrdiff_t *end) {
    const ShoalNchwcReach *w = &p->w;
    *from = w->low < 0 ? (-w->low + w->skip - 1) / w->skip : 0;
    ptrdiff_t inside = ((ptrdiff_t)p->width - w->low + w->skip - 1) / w->skip;
    *end = inside < w->size ? inside : w->size;
    *from = *from < w->size ? *from : w->size;
    *end = *end > *from ? *end : *from;
}

/* One seen row; `row` is the tensor's row of it. */
static void fill_row(const ShoalNchwcPanel *p, const ShoalNchwcInput *x, const float *row,
                     size_t channel, float *to) {
    const size_t pixel = p->lanes * sizeof *to;
    ptrdiff_t from, end;
    seen_columns(p, &from, &end);
    const size_t count = (size_t)(end - from);
    memset(to, 0, (size_t)from * pixel);
    memset(to + (size_t)end * p->lanes, 0, (size_t)(p->w.size - end) * pixel);
    if (count == 0)
        return;
    row += (size_t)(p->w.low + from * p->w.skip) * p->lanes;
    to += (size_t)from * p->lanes;
    if (p->w.skip > 1) {
        for (size_t i = 0; i < count; i++)
            memcpy(to + i * p->lanes, row + i * (size_t)p->w.skip * p->lanes, pixel);
        row = to;
    }
    if (x->scale || x->relu)
        p->engine->strip->activate(count, row, x->scale ? x->scale + channel : NULL,
                                   x->scale ? x->shift + channel : NULL, x->relu, to);
    else if (row != to)
        memcpy(to, row, count * pixel);
}

static void fill_image(const ShoalNchwcPanel *p, const ShoalNchwcInput *x,
                       const ShoalNchwcWindow *window, size_t image, size_t block, float *to) {
    const float *plane =
        x->x + (image * p->tensor_blocks + block) * p->height * p->width * p->lanes;
    for (size_t r = 0; r < window->rows; r++, to += p->row) {
        ptrdiff_t h = window->top + (ptrdiff_t)r * p->h.skip;
        if (h < 0 || h >= (ptrdiff_t)p->height)
            memset(to, 0, p->row * sizeof *to);
        else
            fill_row(p, x, plane + (size_t)h * p->width * p->lanes, block * p->lanes, to);
    }
}

const float *shoal_nchwc_panel_open(const ShoalNchwcPanel *p, const ShoalNchwcInput *x,
                                    const ShoalNchwcWindow *window, float *buffer) {
    if (p->in_place)
        return x->x + window->image * p->image + window->block * p->block +
               ((size_t)window->top * p->width + (size_t)p->w.low) * p->lanes;
    for (size_t b = 0; b < window->blocks; b++)
        for (size_t i = 0; i < window->images; i++)
            fill_image(p, x, window, window->image + i, window->block + b,
                       buffer + b * p->block + i * p->image);
    return buffer;
}

/* --- Tiles -------------------------------------------------------------------------------- */

void shoal_nchwc_run_pixels(const ShoalNchwcTileKernels *kernels, ShoalNchwcTile *tile,
                            size_t pixels) {
    const size_t tiles = shoal_div_up(pixels, kernels->rows);
    const float *a = tile->a;
    float *c = tile->c;
    for (size_t i = 0, at = 0; i < tiles; i++, at += tile->rows) {
        tile->rows = shoal_part_begin(pixels, tiles, i + 1) - at;
        tile->a = a + at * tile->a_row;
        tile->c = c + at * tile->c_row;
        kernels->tile(tile);
    }
}

void shoal_nchwc_run_rows(const ShoalNchwcTileKernels *kernels, const ShoalNchwcWtile *tile,
                          size_t count) {
    const size_t parts = shoal_div_up(count, kernels->wrows);
    for (size_t i = 0; i < parts; i++) {
        size_t from = shoal_part_begin(count, parts, i);
        ShoalNchwcWtile t = *tile;
        t.rows = shoal_part_begin(count, parts, i + 1) - from;
        t.a += from;
        t.d += from * t.d_row;
        kernels->wtile(&t);
    }
}
