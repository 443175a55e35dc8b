/* SPDX-License-Identifier: Apache-2.0 */
#include "net/layers/layers.h"

#include <string.h>

/* Bias: y = x + bias, the bias spread over the axes of x before `axis` and after its own; in place
 * or not. It is a weight with `num_axes` axes (-1: all from `axis` on), 0 by default, or the second
 * bottom. Seen from it, x is [outer][bias][inner]. */

typedef struct BiasState {
    size_t outer, size, inner;
    bool two_bottoms;
} BiasState;

static int axis_of(const ShoalLayer *layer) {
    return layer->param->bias_param ? layer->param->bias_param->axis : 1;
}

static ShoalStatus bias_setup(ShoalLayer *layer, ShoalError *err) {
    BiasState *state = layer->state;
    const Caffe__BiasParameter *param = layer->param->bias_param;
    const ShoalBlob *bottom = layer->bottoms[0];
    state->two_bottoms = layer->n_bottoms == 2;
    if (state->two_bottoms)
        return SHOAL_OK;
    int axis = 0;
    ShoalStatus status = shoal_layer_axis(layer, axis_of(layer), &axis, err);
    if (status)
        return status;
    int axes = param ? param->num_axes : 1, most = bottom->axes - axis;
    if (axes < -1 || axes > most)
        return shoal_layer_fail(layer, SHOAL_ERR_MODEL, err,
                                "num_axes is %d; expected -1 to %d, the axes of bottom '%s' from "
                                "axis %d on",
                                axes, most, bottom->name, axis);
    axes = axes < 0 ? most : axes;
    layer->whole_batch = axis == 0 && axes > 0;
    return shoal_layer_declare(layer, axes, bottom->shape + axis, param ? param->filler : NULL,
                               err);
}

static const ShoalBlob *bias_of(const ShoalLayer *layer) {
    const BiasState *state = layer->state;
    return state->two_bottoms ? layer->bottoms[1] : &layer->params[0]->blob;
}

static ShoalStatus bias_reshape(ShoalLayer *layer, ShoalError *err) {
    BiasState *state = layer->state;
    const ShoalBlob *bottom = layer->bottoms[0], *bias = bias_of(layer);
    int axis = 0; /* of a scalar: any would do */
    ShoalStatus status =
        bias->axes ? shoal_layer_axis(layer, axis_of(layer), &axis, err) : SHOAL_OK;
    if (status)
        return status;
    if (bottom->axes - axis < bias->axes ||
        memcmp(bottom->shape + axis, bias->shape, (size_t)bias->axes * sizeof *bias->shape)) {
        char a[128], b[128];
        return shoal_layer_fail(layer, SHOAL_ERR_MODEL, err,
                                "bottom '%s' is %s and the bias %s; expected the bias to have the "
                                "bottom's sizes from axis %d on",
                                bottom->name, shoal_blob_shape_text(bottom, a, sizeof a),
                                shoal_blob_shape_text(bias, b, sizeof b), axis);
    }
    state->outer = shoal_blob_count(bottom, 0, axis);
    state->size = bias->count;
    state->inner = shoal_blob_count(bottom, axis + bias->axes, bottom->axes);
    return shoal_layer_shape_top_like(layer, 0, bottom, err);
}

static void add_to(void *context, size_t n, unsigned thread) {
    const ShoalLayer *layer = context;
    const BiasState *state = layer->state;
    (void)thread;
    size_t part = state->size * state->inner;
    const float *bias = bias_of(layer)->data, *x = layer->bottoms[0]->data + n * part;
    float *y = layer->tops[0]->data + n * part;
    for (size_t j = 0; j < state->size; j++)
        for (size_t i = j * state->inner; i < (j + 1) * state->inner; i++)
            y[i] = x[i] + bias[j];
}

static ShoalStatus bias_forward(ShoalLayer *layer, const ShoalCompute *compute, ShoalError *err) {
    const BiasState *state = layer->state;
    (void)err;
    shoal_pool_run(compute->pool, state->outer, add_to, layer);
    return SHOAL_OK;
}

static void bias_backward(ShoalLayer *layer, const ShoalCompute *compute) {
    const BiasState *state = layer->state;
    const ShoalChannelShape shape = {state->outer, state->size, state->inner};
    const ShoalBlob *bias = bias_of(layer), *bottom = layer->bottoms[0];
    const float *dy = layer->tops[0]->diff;
    bool wanted = state->two_bottoms ? layer->propagate[1] : layer->params[0]->learns;
    if (state->two_bottoms && wanted)
        memset(bias->diff, 0, bias->count * sizeof *bias->diff);
    if (wanted)
        shoal_channel_sums(compute, &shape, NULL, dy, bias->diff);
    if (layer->propagate[0] && bottom->diff != dy)
        memcpy(bottom->diff, dy, bottom->count * sizeof *dy);
}

const ShoalLayerClass shoal_layer_bias_class = {
    .type = "Bias",
    .flags = SHOAL_LAYER_IN_PLACE | SHOAL_LAYER_BWD_NO_BOTTOM | SHOAL_LAYER_BWD_NO_TOP,
    .min_bottoms = 1,
    .max_bottoms = 2,
    .min_tops = 1,
    .max_tops = 1,
    .state_bytes = sizeof(BiasState),
    .setup = bias_setup,
    .reshape = bias_reshape,
    .forward = bias_forward,
    .backward = bias_backward,
};
