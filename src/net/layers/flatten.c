/* SPDX-License-Identifier: Apache-2.0 */
#include "net/layers/layers.h"

#include <string.h>

/* Flatten: the axes from `axis` to `end_axis` become one. The top is the bottom in another shape:
 * there is nothing to compute. The net lets both share memory. */

typedef struct FlattenState {
    int axis, end; /* inclusive */
} FlattenState;

static ShoalStatus flatten_setup(ShoalLayer *layer, ShoalError *err) {
    FlattenState *state = layer->state;
    const Caffe__FlattenParameter *param = layer->param->flatten_param;
    ShoalStatus status = shoal_layer_axis(layer, param ? param->axis : 1, &state->axis, err);
    if (!status)
        status = shoal_layer_axis(layer, param ? param->end_axis : -1, &state->end, err);
    if (!status && state->end < state->axis)
        status = shoal_layer_fail(layer, SHOAL_ERR_MODEL, err,
                                  "end_axis is axis %d, before axis %d; expected one not before",
                                  state->end, state->axis);
    return status;
}

static ShoalStatus flatten_reshape(ShoalLayer *layer, ShoalError *err) {
    const FlattenState *state = layer->state;
    const ShoalBlob *bottom = layer->bottoms[0];
    int shape[SHOAL_MAX_AXES], axes = 0;
    layer->whole_batch = state->axis == 0 && state->end > 0;
    for (int i = 0; i < bottom->axes; i++)
        if (i == state->axis)
            shape[axes++] = (int)shoal_blob_count(bottom, state->axis, state->end + 1);
        else if (i < state->axis || i > state->end)
            shape[axes++] = bottom->shape[i];
    return shoal_layer_shape_top(layer, 0, axes, shape, err);
}

static void flatten_backward(ShoalLayer *layer, const ShoalCompute *compute) {
    (void)compute;
    float *dx = layer->bottoms[0]->diff;
    const float *dy = layer->tops[0]->diff;
    if (layer->propagate[0] && dx != dy)
        memcpy(dx, dy, layer->bottoms[0]->count * sizeof *dx);
}

const ShoalLayerClass shoal_layer_flatten_class = {
    .type = "Flatten",
    .flags = SHOAL_LAYER_SHARES_DATA | SHOAL_LAYER_SHARES_DIFF | SHOAL_LAYER_BWD_NO_BOTTOM |
             SHOAL_LAYER_BWD_NO_TOP,
    .min_bottoms = 1,
    .max_bottoms = 1,
    .min_tops = 1,
    .max_tops = 1,
    .state_bytes = sizeof(FlattenState),
    .setup = flatten_setup,
    .reshape = flatten_reshape,
    .backward = flatten_backward,
};
