/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/nchwc/winograd.h"

#include "base/memory.h"
#include "kernels/nchwc/winograd_plan.h"
#include "kernels/table.h"

enum { TILE = 4 };

/* Measured against the direct way: below, the transforms cost more than the products save. Few
 * pixels do not pay for the transform of the weights. */
enum { LEAST_CHANNELS = 16, LEAST_PIXELS = 48 };

static bool pays(const ShoalConvShape *s) {
    const double image = (double)s->out_height * (double)s->out_width;
    const double tiles =
        (double)((s->out_height + TILE - 1) / TILE) * (double)((s->out_width + TILE - 1) / TILE);
    return s->channels >= LEAST_CHANNELS && s->outputs >= LEAST_CHANNELS &&
           s->batch * image >= LEAST_PIXELS && 2 * image >= TILE * TILE * tiles;
}

bool shoal_nchwc_winograd_applies(const ShoalNchwc *engine, const ShoalNchwcConv *conv) {
    const ShoalConvShape *s = &conv->shape;
    if (!conv->winograd || !engine->winograd || conv->plain_input || s->group != 1)
        return false;
    if (s->kernel_h != 3 || s->kernel_w != 3 || s->stride_h != 1 || s->stride_w != 1 ||
        s->dilation_h != 1 || s->dilation_w != 1)
        return false;
    if (s->pad_h < 0 || s->pad_h > 2 || s->pad_w < 0 || s->pad_w > 2)
        return false;
    return pays(s);
}

ShoalWinogradPlan shoal_winograd_plan(const ShoalNchwc *engine, const ShoalNchwcConv *conv,
                                      bool backward_data) {
    const ShoalConvShape *s = &conv->shape;
    ShoalWinogradPlan p = {.engine = engine,
                           .lanes = engine->lanes,
                           .batch = (size_t)s->batch,
                           .channels = (size_t)s->channels,
                           .outputs = (size_t)s->outputs,
                           .height = s->height,
                           .width = s->width,
                           .out_height = s->out_height,
                           .out_width = s->out_width,
                           .pad_h = s->pad_h,
                           .pad_w = s->pad_w};
    if (backward_data) {
        p.channels = (size_t)s->outputs, p.outputs = (size_t)s->channels;
        p.height = s->out_height, p.width = s->out_width;
        p.out_height = s->height, p.out_width = s->width;
        p.pad_h = 2 - s->pad_h, p.pad_w = 2 - s->pad_w;
    }
    p.in_blocks = shoal_div_up(p.channels, p.lanes);
    p.out_blocks = shoal_div_up(p.outputs, p.lanes);
    p.tiles_h = shoal_div_up((size_t)p.out_height, TILE);
    p.tiles_w = shoal_div_up((size_t)p.out_width, TILE);
    p.rows = p.batch * p.tiles_h;
    return p;
}

size_t shoal_winograd_step(size_t blocks, size_t tiles, size_t lanes) {
    return (blocks * tiles + 1) * lanes;
}

size_t shoal_winograd_add(size_t bytes, size_t count, size_t floats) {
    size_t more;
    if (!shoal_size_mul(count, floats, &more) || more > SIZE_MAX / 2 / sizeof(float) ||
        bytes > SIZE_MAX / 4)
        return SIZE_MAX;
    return bytes + shoal_align_up(more * sizeof(float));
}

ShoalWinogradPanel shoal_winograd_panel(const ShoalWinogradPlan *plan, float *at, size_t blocks,
                                        ShoalWinogradRange rows) {
    size_t tiles = (rows.to - rows.from) * plan->tiles_w;
    return (ShoalWinogradPanel){at, shoal_winograd_step(blocks, tiles, plan->lanes), tiles,
                                rows.from};
}

void shoal_winograd_read(const ShoalWinogradPlan *plan, const ShoalWinogradSource *source,
                         const ShoalWinogradPanel *panel, ShoalWinogradRange rows,
                         ShoalWinogradRange blocks) {
    const size_t lanes = plan->lanes;
    const size_t plane = (size_t)source->height * (size_t)source->width * lanes;
    ShoalNchwcWinogradRead read = {.height = source->height,
                                   .width = source->width,
                                   .col = -source->pad_w,
                                   .tiles = plan->tiles_w,
                                   .relu = source->x->relu,
                                   .v_step = panel->step};
    for (size_t r = rows.from; r < rows.to; r++)
        for (size_t b = blocks.from; b < blocks.to; b++) {
            read.x = source->x->x + (r / plan->tiles_h * source->blocks + b) * plane;
            read.row = (ptrdiff_t)(r % plan->tiles_h) * TILE - source->pad_h;
            read.scale = source->x->scale ? source->x->scale + b * lanes : NULL;
            read.shift = source->x->scale ? source->x->shift + b * lanes : NULL;
            read.v = panel->at + (b * panel->tiles + (r - panel->first) * plan->tiles_w) * lanes;
            source->transform(&read);
        }
}

/* Blocks that a task of a parallel transform has at a time. */
enum { TASK_BLOCKS = 8 };

typedef struct ReadAll {
    const ShoalWinogradPlan *plan;
    const ShoalWinogradSource *source;
    const ShoalWinogradPanel *panel;
    size_t parts;
} ReadAll;

static void read_task(void *context, size_t index, unsigned thread) {
    const ReadAll *all = context;
    const size_t row = all->panel->first + index / all->parts;
    (void)thread;
    shoal_winograd_read(all->plan, all->source, all->panel, (ShoalWinogradRange){row, row + 1},
                        shoal_winograd_cut(all->source->blocks, all->parts, index % all->parts));
}

void shoal_winograd_read_all(const ShoalCompute *compute, const ShoalWinogradPlan *plan,
                             const ShoalWinogradSource *source, const ShoalWinogradPanel *panel,
                             ShoalWinogradRange rows) {
    ReadAll all = {plan, source, panel, shoal_div_up(source->blocks, TASK_BLOCKS)};
    shoal_pool_run(compute->pool, (rows.to - rows.from) * all.parts, read_task, &all);
}

size_t shoal_nchwc_winograd_workspace_bytes(const ShoalNchwc *engine, const ShoalNchwcConv *conv,
                                            unsigned threads) {
    ShoalWinogradPlan fwd = shoal_winograd_plan(engine, conv, false), weights = fwd;
    ShoalWinogradPlan back = shoal_winograd_plan(engine, conv, true);
    shoal_winograd_plan_data(&fwd);
    shoal_winograd_plan_data(&back);
    shoal_winograd_plan_weights(&weights);
    size_t data = shoal_size_max(shoal_winograd_data_bytes(&fwd, threads),
                                 shoal_winograd_data_bytes(&back, threads));
    return shoal_size_max(data, shoal_winograd_weights_bytes(&weights, threads));
}
