/* SPDX-License-Identifier: Apache-2.0 */
#include "net/layers/layers.h"

#include <math.h>
#include <string.h>

/* ReLU: y = x > 0 ? x : negative_slope * x; in place or not. The sign of y tells that of x as long
 * as the slope is not below 0, so backward reads the top; for the odd negative slope x is kept. */

typedef struct ReluState {
    float slope;
} ReluState;

static ShoalStatus relu_setup(ShoalLayer *layer, ShoalError *err) {
    ReluState *state = layer->state;
    const Caffe__ReLUParameter *param = layer->param->relu_param;
    state->slope = param ? param->negative_slope : 0;
    if (!isfinite(state->slope))
        return shoal_layer_fail(layer, SHOAL_ERR_MODEL, err,
                                "negative_slope is %g; expected a finite number",
                                (double)state->slope);
    return SHOAL_OK;
}

static ShoalStatus relu_reshape(ShoalLayer *layer, ShoalError *err) {
    const ReluState *state = layer->state;
    layer->saved_bytes = state->slope < 0 ? layer->bottoms[0]->count * sizeof(float) : 0;
    return shoal_layer_shape_top_like(layer, 0, layer->bottoms[0], err);
}

static ShoalStatus relu_forward(ShoalLayer *layer, const ShoalCompute *compute, ShoalError *err) {
    (void)err;
    const ReluState *state = layer->state;
    const ShoalBlob *x = layer->bottoms[0];
    if (state->slope < 0)
        memcpy(layer->saved, x->data, x->count * sizeof(float));
    shoal_relu_fwd(compute, x->count, state->slope, x->data, layer->tops[0]->data);
    return SHOAL_OK;
}

static void relu_backward(ShoalLayer *layer, const ShoalCompute *compute) {
    const ReluState *state = layer->state;
    if (!layer->propagate[0])
        return;
    const float *signs = state->slope < 0 ? layer->saved : layer->tops[0]->data;
    shoal_relu_bwd(compute, layer->bottoms[0]->count, state->slope, signs, layer->tops[0]->diff,
                   layer->bottoms[0]->diff);
}

const ShoalLayerClass shoal_layer_relu_class = {
    .type = "ReLU",
    .flags = SHOAL_LAYER_IN_PLACE | SHOAL_LAYER_BWD_NO_BOTTOM,
    .min_bottoms = 1,
    .max_bottoms = 1,
    .min_tops = 1,
    .max_tops = 1,
    .state_bytes = sizeof(ReluState),
    .setup = relu_setup,
    .reshape = relu_reshape,
    .forward = relu_forward,
    .backward = relu_backward,
};
