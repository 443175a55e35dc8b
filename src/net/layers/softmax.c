/* SPDX-License-Identifier: Apache-2.0 */
#include "net/layers/layers.h"

/* Softmax over one axis; every other place is a softmax of its own. */

typedef struct SoftmaxState {
    size_t outer, classes, inner;
} SoftmaxState;

static ShoalStatus softmax_reshape(ShoalLayer *layer, ShoalError *err) {
    SoftmaxState *state = layer->state;
    const Caffe__SoftmaxParameter *param = layer->param->softmax_param;
    const ShoalBlob *bottom = layer->bottoms[0];
    int axis = 0;
    ShoalStatus status = shoal_layer_axis(layer, param ? param->axis : 1, &axis, err);
    if (status != SHOAL_OK)
        return status;
    layer->whole_batch = axis == 0;
    state->outer = shoal_blob_count(bottom, 0, axis);
    state->classes = (size_t)bottom->shape[axis];
    state->inner = shoal_blob_count(bottom, axis + 1, bottom->axes);
    return shoal_layer_shape_top_like(layer, 0, bottom, err);
}

static ShoalStatus softmax_forward(ShoalLayer *layer, const ShoalCompute *compute,
                                   ShoalError *err) {
    (void)err;
    const SoftmaxState *state = layer->state;
    shoal_softmax_fwd(compute, state->outer, state->classes, state->inner, layer->bottoms[0]->data,
                      layer->tops[0]->data);
    return SHOAL_OK;
}

static void softmax_backward(ShoalLayer *layer, const ShoalCompute *compute) {
    const SoftmaxState *state = layer->state;
    if (layer->propagate[0])
        shoal_softmax_bwd(compute, state->outer, state->classes, state->inner, layer->tops[0]->data,
                          layer->tops[0]->diff, layer->bottoms[0]->diff);
}

const ShoalLayerClass shoal_layer_softmax_class = {
    .type = "Softmax",
    .flags = SHOAL_LAYER_IN_PLACE | SHOAL_LAYER_BWD_NO_BOTTOM,
    .min_bottoms = 1,
    .max_bottoms = 1,
    .min_tops = 1,
    .max_tops = 1,
    .state_bytes = sizeof(SoftmaxState),
    .reshape = softmax_reshape,
    .forward = softmax_forward,
    .backward = softmax_backward,
};
