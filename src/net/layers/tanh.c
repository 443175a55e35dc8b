/* SPDX-License-Identifier: Apache-2.0 */
#include "net/layers/layers.h"

#include <math.h>

/* TanH: y = tanh(x); in place or not. dx = dy * (1 - y^2). */

static ShoalStatus tanh_reshape(ShoalLayer *layer, ShoalError *err) {
    return shoal_layer_shape_top_like(layer, 0, layer->bottoms[0], err);
}

static ShoalStatus tanh_forward(ShoalLayer *layer, const ShoalCompute *compute, ShoalError *err) {
    (void)compute;
    (void)err;
    const ShoalBlob *x = layer->bottoms[0];
    float *y = layer->tops[0]->data;
    for (size_t i = 0; i < x->count; i++)
        y[i] = tanhf(x->data[i]);
    return SHOAL_OK;
}

static void tanh_backward(ShoalLayer *layer, const ShoalCompute *compute) {
    (void)compute;
    if (!layer->propagate[0])
        return;
    const ShoalBlob *top = layer->tops[0];
    float *dx = layer->bottoms[0]->diff;
    for (size_t i = 0; i < top->count; i++)
        dx[i] = top->diff[i] * (1 - top->data[i] * top->data[i]);
}

const ShoalLayerClass shoal_layer_tanh_class = {
    .type = "TanH",
    .flags = SHOAL_LAYER_IN_PLACE | SHOAL_LAYER_BWD_NO_BOTTOM,
    .min_bottoms = 1,
    .max_bottoms = 1,
    .min_tops = 1,
    .max_tops = 1,
    .reshape = tanh_reshape,
    .forward = tanh_forward,
    .backward = tanh_backward,
};
