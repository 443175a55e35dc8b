/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/nchwc/conv.h"

#include "kernels/nchwc/depthwise.h"
#include "kernels/nchwc/merge.h"
#include "kernels/nchwc/winograd.h"
#include "kernels/table.h"

/* The ways there are; DIRECT takes whatever is supported. */
typedef enum Way { DIRECT, DEPTHWISE, WINOGRAD } Way;

static Way way_of(const ShoalNchwc *engine, const ShoalNchwcConv *conv) {
    if (engine->depthwise && shoal_nchwc_depthwise_applies(conv))
        return DEPTHWISE;
    return engine->winograd && shoal_nchwc_winograd_applies(engine, conv) ? WINOGRAD : DIRECT;
}

bool shoal_nchwc_conv_supported(const ShoalKernels *kernels, const ShoalNchwcConv *conv) {
    const ShoalConvShape *s = &conv->shape;
    const int lanes = shoal_nchwc_lanes(kernels);
    if (lanes == 0)
        return false;
    if (s->group == 1 || way_of(kernels->nchwc, conv) == DEPTHWISE)
        return true;
    return !conv->plain_input && s->channels / s->group % lanes == 0 &&
           s->outputs / s->group % lanes == 0;
}

bool shoal_nchwc_conv_uses_winograd(const ShoalKernels *kernels, const ShoalNchwcConv *conv) {
    return kernels->nchwc && way_of(kernels->nchwc, conv) == WINOGRAD;
}

static size_t direct_bytes(const ShoalNchwc *engine, const ShoalNchwcConv *conv, unsigned threads) {
    size_t bytes = shoal_size_max(shoal_nchwc_direct_fwd_bytes(engine, conv, threads),
                                  shoal_nchwc_direct_bwd_weights_bytes(engine, conv, threads));
    if (shoal_nchwc_pointwise_bwd_applies(engine, conv))
        bytes = shoal_size_max(bytes, shoal_nchwc_pointwise_bwd_bytes(engine, conv, threads));
    if (!conv->plain_input)
        bytes = shoal_size_max(bytes, shoal_nchwc_direct_bwd_data_bytes(engine, conv, threads));
    return bytes;
}

size_t shoal_nchwc_conv_workspace_bytes(const ShoalKernels *kernels, const ShoalNchwcConv *conv,
                                        unsigned threads) {
    switch (way_of(kernels->nchwc, conv)) {
    case DEPTHWISE:
        return shoal_nchwc_depthwise_workspace_bytes(kernels->nchwc, conv, threads);
    case WINOGRAD:
        return shoal_nchwc_winograd_workspace_bytes(kernels->nchwc, conv, threads);
    default:
        return direct_bytes(kernels->nchwc, conv, threads);
    }
}

void shoal_nchwc_conv_fwd(const ShoalCompute *compute, const ShoalNchwcConv *conv,
                          const ShoalNchwcInput *x, const float *w, const float *bias, float *y,
                          const ShoalNchwcStats *stats) {
    switch (way_of(compute->kernels->nchwc, conv)) {
    case DEPTHWISE:
        shoal_nchwc_depthwise_fwd(compute, conv, x, w, bias, y, stats);
        return;
    case WINOGRAD:
        shoal_nchwc_winograd_fwd(compute, conv, x, w, bias, y, stats);
        return;
    default:
        shoal_nchwc_direct_fwd(compute, conv, x, w, bias, y, stats);
    }
}

void shoal_nchwc_conv_bwd_data(const ShoalCompute *compute, const ShoalNchwcConv *conv,
                               const float *dy, const float *w, const ShoalNchwcGradient *dx) {
    switch (way_of(compute->kernels->nchwc, conv)) {
    case DEPTHWISE:
        shoal_nchwc_depthwise_bwd_data(compute, conv, dy, w, dx);
        return;
    case WINOGRAD:
        shoal_nchwc_winograd_bwd_data(compute, conv, dy, w, dx);
        return;
    default:
        shoal_nchwc_direct_bwd_data(compute, conv, dy, w, dx);
    }
}

/* --- Gradient of the bias ----------------------------------------------------------------- */

typedef struct BiasGradient {
    const ShoalNchwc *engine;
    const ShoalConvShape *shape;
    const float *dy;
    float *db;
} BiasGradient;

/* A block's outputs: float32 sums of bounded length, added up in double. */
static void bias_block(void *context, size_t block, unsigned thread) {
    const BiasGradient *b = context;
    const size_t lanes = b->engine->lanes, outputs = (size_t)b->shape->outputs;
    const size_t plane = (size_t)b->shape->out_height * (size_t)b->shape->out_width;
    const size_t blocks = (outputs + lanes - 1) / lanes;
    _Alignas(SHOAL_ALIGN) float origin[SHOAL_NCHWC_LANES_MAX] = {0};
    _Alignas(SHOAL_ALIGN) float sum[SHOAL_NCHWC_LANES_MAX], square[SHOAL_NCHWC_LANES_MAX];
    double total[SHOAL_NCHWC_LANES_MAX] = {0};
    (void)thread;
    for (size_t image = 0; image < (size_t)b->shape->batch; image++)
        for (size_t at = 0; at < plane; at += SHOAL_NCHWC_PART_PIXELS) {
            size_t left = plane - at;
            b->engine->strip->moments(
                left < SHOAL_NCHWC_PART_PIXELS ? left : SHOAL_NCHWC_PART_PIXELS,
                b->dy + ((image * blocks + block) * plane + at) * lanes, origin, sum, square);
            for (size_t l = 0; l < lanes; l++)
                total[l] += (double)sum[l];
        }
    for (size_t l = 0; l < lanes && block * lanes + l < outputs; l++)
        b->db[block * lanes + l] += (float)total[l];
}

void shoal_nchwc_conv_bwd_weights(const ShoalCompute *compute, const ShoalNchwcConv *conv,
                                  const ShoalNchwcInput *x, const float *dy, float *dw, float *db) {
    const ShoalNchwc *engine = compute->kernels->nchwc;
    switch (way_of(engine, conv)) {
    case DEPTHWISE:
        shoal_nchwc_depthwise_bwd_weights(compute, conv, x, dy, dw);
        break;
    case WINOGRAD:
        shoal_nchwc_winograd_bwd_weights(compute, conv, x, dy, dw);
        break;
    default:
        shoal_nchwc_direct_bwd_weights(compute, conv, x, dy, dw);
    }
    if (!db)
        return;
    BiasGradient bias = {engine, &conv->shape, dy, db};
    shoal_pool_run(compute->pool, shoal_div_up((size_t)conv->shape.outputs, engine->lanes),
                   bias_block, &bias);
}
