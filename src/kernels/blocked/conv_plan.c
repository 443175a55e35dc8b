/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/blocked/conv.h"

#include <string.h>

#include "base/memory.h"

/* What a round's copies may take together, unless a single image takes more; and a thread's column
 * buffer, unless that makes its products too thin. */
static const size_t round_bytes = (size_t)4 << 20, column_bytes = (size_t)24 << 10;
enum { COLUMN_ROWS = 24 };

/* a * b and a + b that stick at SIZE_MAX. */
static size_t times(size_t a, size_t b) {
    size_t out;
    return shoal_size_mul(a, b, &out) ? out : SIZE_MAX;
}

static size_t plus(size_t a, size_t b) {
    size_t out;
    return shoal_size_add(a, b, &out) ? out : SIZE_MAX;
}

/* The border makes room for the padding and for every tap of every output. */
static size_t bordered(int size, int pad, int outs, int stride, int kernel, int dilation) {
    size_t padded = (size_t)size + 2 * (size_t)pad;
    if (outs <= 0 || kernel <= 0)
        return padded;
    size_t reach = plus(times((size_t)outs - 1, (size_t)stride),
                        plus(times((size_t)kernel - 1, (size_t)dilation), 1));
    return reach > padded ? reach : padded;
}

static size_t clamp(size_t value, size_t low, size_t high) {
    return value < low ? low : value > high ? high : value;
}

static size_t at_least_1(size_t value) {
    return value ? value : 1;
}

ShoalConvPlan shoal_conv_plan(const ShoalConvShape *s, const ShoalBlocked *blocked,
                              unsigned threads) {
    ShoalConvPlan p = {.shape = s, .blocked = blocked, .threads = threads};
    p.batch = (size_t)s->batch;
    p.groups = (size_t)s->group;
    p.channels = (size_t)s->channels / p.groups;
    p.outputs = (size_t)s->outputs / p.groups;
    p.taps = times((size_t)s->kernel_h, (size_t)s->kernel_w);
    p.rows = times(p.channels, p.taps);
    p.in_plane = times((size_t)s->height, (size_t)s->width);
    p.out_plane = times((size_t)s->out_height, (size_t)s->out_width);
    p.height =
        bordered(s->height, s->pad_h, s->out_height, s->stride_h, s->kernel_h, s->dilation_h);
    p.width = bordered(s->width, s->pad_w, s->out_width, s->stride_w, s->kernel_w, s->dilation_w);
    p.bordered =
        s->pad_h > 0 || s->pad_w > 0 || p.height > (size_t)s->height || p.width > (size_t)s->width;
    p.pointwise = p.taps == 1 && s->stride_h == 1 && s->stride_w == 1 && !p.bordered;
    /* An odd number of half panels: no power of two. */
    p.pixel_stride = plus(p.out_plane, SHOAL_NR_MAX - 1) / SHOAL_NR_MAX * SHOAL_NR_MAX;
    p.pixel_stride = plus(p.pixel_stride, SHOAL_NR_MAX / 2);

    size_t per_channel = times(times(p.taps, p.pixel_stride), sizeof(float));
    size_t fit = column_bytes / at_least_1(per_channel);
    size_t thick = p.taps < COLUMN_ROWS ? shoal_div_up(COLUMN_ROWS, at_least_1(p.taps)) : 1;
    p.channel_step = clamp(fit > thick ? fit : thick, 1, at_least_1(p.channels));
    size_t border = p.bordered ? times(times(p.height, p.width), (size_t)s->channels) : 0;
    p.images =
        clamp(round_bytes / at_least_1(times(border, sizeof(float))), 1, at_least_1(p.batch));
    return p;
}

bool shoal_conv_is_depthwise(const ShoalConvShape *shape) {
    return shape->group > 1 && shape->group == shape->channels;
}

/* Adds an array to a layout; NULL while only the size is being found out. */
static void *take(unsigned char *base, size_t *used, size_t count, size_t size) {
    size_t start = *used, bytes = times(count, size);
    *used = bytes > SIZE_MAX / 2 || start > SIZE_MAX / 2 ? SIZE_MAX : start + shoal_align_up(bytes);
    return base ? base + start : NULL;
}

static size_t thread_bytes(const ShoalConvPlan *p, ShoalConvPass pass) {
    const size_t border = times(p->height, p->width);
    size_t floats = 0;
    switch (pass) {
    case SHOAL_CONV_FWD:
        floats = (size_t)SHOAL_CONV_BLOCK_K * SHOAL_CONV_BLOCK_PIXELS;
        break;
    case SHOAL_CONV_BWD_DATA:
        floats = times(p->pixel_stride, plus(p->outputs, times(p->channel_step, p->taps)));
        break;
    case SHOAL_CONV_BWD_WEIGHTS:
        floats = (size_t)SHOAL_NR_MAX * (SHOAL_CONV_WEIGHT_STRIDE + SHOAL_CONV_BLOCK_PIXELS);
        break;
    case SHOAL_CONV_DEPTHWISE:
        floats = border;
        break;
    }
    size_t bytes = plus(times(floats, sizeof(float)), SHOAL_ALIGN);
    return bytes > SIZE_MAX / 2 ? SIZE_MAX : shoal_align_up(bytes);
}

ShoalConvSpace shoal_conv_space(const ShoalConvPlan *p, ShoalConvPass pass, void *base) {
    ShoalConvSpace space = {.thread_bytes = thread_bytes(p, pass)};
    const size_t weights = times(times(p->groups, p->outputs), p->rows);
    const size_t channels = times(p->groups, p->channels);
    unsigned char *b = base;
    size_t used = 0;
    if (pass == SHOAL_CONV_FWD || pass == SHOAL_CONV_BWD_WEIGHTS) {
        space.tap_at = take(b, &used, p->rows, sizeof(ptrdiff_t));
        if (p->bordered)
            space.images =
                take(b, &used, times(p->images, times(channels, times(p->height, p->width))),
                     sizeof(float));
    }
    if (pass == SHOAL_CONV_FWD || pass == SHOAL_CONV_BWD_DATA)
        space.weights = take(b, &used, weights, sizeof(float));
    if (pass == SHOAL_CONV_BWD_DATA)
        space.output_at = take(b, &used, p->outputs, sizeof(ptrdiff_t));
    space.threads = take(b, &used, p->threads, space.thread_bytes);
    space.bytes = used;
    return space;
}

size_t shoal_conv_workspace_bytes(const ShoalConvShape *shape, unsigned threads) {
    ShoalConvPlan plan = shoal_conv_plan(shape, NULL, threads);
    if (shoal_conv_is_depthwise(shape))
        return shoal_conv_space(&plan, SHOAL_CONV_DEPTHWISE, NULL).bytes;
    size_t most = 0;
    for (int pass = SHOAL_CONV_FWD; pass <= SHOAL_CONV_BWD_WEIGHTS; pass++) {
        size_t bytes = shoal_conv_space(&plan, (ShoalConvPass)pass, NULL).bytes;
        most = bytes > most ? bytes : most;
    }
    return most;
}

void shoal_conv_fill_tap_at(const ShoalConvPlan *p, ptrdiff_t *tap_at) {
    const ShoalConvShape *s = p->shape;
    for (size_t c = 0; c < p->channels; c++)
        for (size_t u = 0; u < (size_t)s->kernel_h; u++)
            for (size_t v = 0; v < (size_t)s->kernel_w; v++) {
                size_t row = c * p->height + u * (size_t)s->dilation_h;
                *tap_at++ = (ptrdiff_t)(row * p->width + v * (size_t)s->dilation_w);
            }
}

void shoal_conv_border_plane(const ShoalConvPlan *p, const float *x, float *plane) {
    const ShoalConvShape *s = p->shape;
    const size_t width = (size_t)s->width, left = (size_t)s->pad_w;
    const size_t top = (size_t)s->pad_h * p->width;
    memset(plane, 0, top * sizeof *plane);
    float *row = plane + top;
    for (int h = 0; h < s->height; h++, x += width, row += p->width) {
        memset(row, 0, left * sizeof *row);
        memcpy(row + left, x, width * sizeof *row);
        memset(row + left + width, 0, (p->width - left - width) * sizeof *row);
    }
    memset(row, 0, (size_t)(plane + p->height * p->width - row) * sizeof *row);
}

typedef struct Border {
    const ShoalConvPlan *plan;
    const float *x;
    float *planes;
} Border;

static void border_task(void *context, size_t index, unsigned thread) {
    const Border *b = context;
    (void)thread;
    shoal_conv_border_plane(b->plan, b->x + index * b->plan->in_plane,
                            b->planes + index * b->plan->height * b->plan->width);
}

void shoal_conv_add_border(const ShoalConvPlan *plan, ShoalPool *pool, size_t count, const float *x,
                           float *planes) {
    Border border = {plan, x, planes};
    shoal_pool_run(pool, count, border_task, &border);
}

const float *shoal_conv_round_input(const ShoalConvPlan *plan, const ShoalConvSpace *space,
                                    ShoalPool *pool, size_t first, size_t count, const float *x) {
    const size_t channels = plan->groups * plan->channels;
    x += first * channels * plan->in_plane;
    if (!plan->bordered)
        return x;
    shoal_conv_add_border(plan, pool, count * channels, x, space->images);
    return space->images;
}

size_t shoal_conv_pixel_runs(const ShoalConvPlan *p, size_t begin, size_t end, ShoalRun *runs) {
    const ShoalConvShape *s = p->shape;
    const size_t out_width = (size_t)s->out_width, step = (size_t)s->stride_w;
    const size_t image_size = p->groups * p->channels * p->height * p->width;
    size_t count = 0;
    for (size_t pixel = begin; pixel < end;) {
        size_t image = pixel / p->out_plane, i = pixel % p->out_plane / out_width;
        size_t j = pixel % out_width; /* out_plane is a multiple of out_width */
        size_t from = image * image_size + i * (size_t)s->stride_h * p->width + j * step;
        size_t length = step == 1 ? out_width - j : 1;
        if (length > end - pixel)
            length = end - pixel;
        ShoalRun *last = count > 0 ? &runs[count - 1] : NULL;
        if (last && (ptrdiff_t)from == last->from + (ptrdiff_t)last->length)
            last->length += length;
        else
            runs[count++] = (ShoalRun){(ptrdiff_t)from, pixel - begin, length};
        pixel += length;
    }
    return count;
}
