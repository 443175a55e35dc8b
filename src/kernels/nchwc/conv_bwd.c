/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/nchwc/conv.h"
#include "kernels/nchwc/depthwise.h"
#include "kernels/table.h"

/* Whether a way that makes dy as it goes did all. */
static bool in_one_sweep(const ShoalCompute *compute, const ShoalNchwcConv *conv,
                         const ShoalNchwcInput *x, const ShoalNchwcOutGradient *dy, const float *w,
                         float *dw, float *db, const ShoalNchwcGradient *dx) {
    const ShoalNchwc *engine = compute->kernels->nchwc;
    if (engine->depthwise && shoal_nchwc_depthwise_applies(conv)) {
        if (db) /* asks for all of dy */
            return false;
        shoal_nchwc_depthwise_bwd(compute, conv, x, dy, w, dw, dx);
        return true;
    }
    if (!shoal_nchwc_pointwise_bwd_applies(engine, conv))
        return false;
    shoal_nchwc_pointwise_bwd(compute, conv, x, dy, w, dw, db, dx);
    return true;
}

void shoal_nchwc_conv_bwd(const ShoalCompute *compute, const ShoalNchwcConv *conv,
                          const ShoalNchwcInput *x, const ShoalNchwcOutGradient *dy, const float *w,
                          float *dw, float *db, const ShoalNchwcGradient *dx) {
    const ShoalConvShape *s = &conv->shape;
    const ShoalNchwcDims dims = {s->batch, s->outputs, s->out_height, s->out_width};
    if (in_one_sweep(compute, conv, x, dy, w, dw, db, dx))
        return;
    if (dy->a)
        shoal_nchwc_affine(compute, &dims, dy->g, dy->z, dy->a, dy->b, dy->c0, dy->room);
    const float *made = dy->a ? dy->room : dy->g;
    if (dw)
        shoal_nchwc_conv_bwd_weights(compute, conv, x, made, dw, db);
    if (dx)
        shoal_nchwc_conv_bwd_data(compute, conv, made, w, dx);
}
