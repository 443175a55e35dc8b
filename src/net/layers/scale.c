/* SPDX-License-Identifier: Apache-2.0 */
#include "net/layers/layers.h"

#include <string.h>

/* Scale: y = x * factor (+ bias), the factor spread over the axes of x before `axis` and after its
 * own; in place or not. The factor is a weight with `num_axes` axes (-1: all from `axis` on), 1 by
 * default, or the second bottom; the bias is a weight of the same shape. Seen from the factor, x is
 * [outer][factor][inner]. In place, x is kept for the factor's gradient. */

typedef struct ScaleState {
    ShoalChannelShape shape;
    Caffe__FillerParameter one;
    bool two_bottoms, bias, in_place;
} ScaleState;

static int axis_of(const ShoalLayer *layer) {
    return layer->param->scale_param ? layer->param->scale_param->axis : 1;
}

/* How many axes the factor has as a weight. */
static ShoalStatus weight_axes(const ShoalLayer *layer, int axis, int *axes, ShoalError *err) {
    const Caffe__ScaleParameter *param = layer->param->scale_param;
    int wanted = param ? param->num_axes : 1, most = layer->bottoms[0]->axes - axis;
    if (wanted < -1 || wanted > most)
        return shoal_layer_fail(layer, SHOAL_ERR_MODEL, err,
                                "num_axes is %d; expected -1 to %d, the axes of bottom '%s' from "
                                "axis %d on",
                                wanted, most, layer->bottoms[0]->name, axis);
    *axes = wanted < 0 ? most : wanted;
    return SHOAL_OK;
}

static ShoalStatus scale_setup(ShoalLayer *layer, ShoalError *err) {
    ScaleState *state = layer->state;
    const Caffe__ScaleParameter *param = layer->param->scale_param;
    const ShoalBlob *bottom = layer->bottoms[0];
    state->two_bottoms = layer->n_bottoms == 2;
    state->bias = param && param->bias_term;
    state->in_place = layer->tops[0] == bottom;
    caffe__filler_parameter__init(&state->one);
    state->one.value = 1;
    if (state->two_bottoms) {
        const ShoalBlob *factor = layer->bottoms[1];
        bool from_first = axis_of(layer) == 0 || axis_of(layer) == -bottom->axes;
        layer->whole_batch = state->bias && from_first && factor->axes > 0;
        return state->bias ? shoal_layer_declare(layer, factor->axes, factor->shape,
                                                 param->bias_filler, err)
                           : SHOAL_OK;
    }
    int axis = 0, axes = 0;
    ShoalStatus status = shoal_layer_axis(layer, axis_of(layer), &axis, err);
    if (!status)
        status = weight_axes(layer, axis, &axes, err);
    layer->whole_batch = axis == 0 && axes > 0;
    if (!status)
        status = shoal_layer_declare(layer, axes, bottom->shape + axis,
                                     param && param->filler ? param->filler : &state->one, err);
    if (!status && state->bias)
        status = shoal_layer_declare(layer, axes, bottom->shape + axis, param->bias_filler, err);
    return status;
}

static const ShoalBlob *factor_of(const ShoalLayer *layer) {
    const ScaleState *state = layer->state;
    return state->two_bottoms ? layer->bottoms[1] : &layer->params[0]->blob;
}

static ShoalParam *bias_of(const ShoalLayer *layer) {
    const ScaleState *state = layer->state;
    return state->bias ? layer->params[layer->n_params - 1] : NULL;
}

static bool fits(const ShoalBlob *bottom, int axis, const ShoalBlob *part) {
    return bottom->axes - axis >= part->axes &&
           !memcmp(bottom->shape + axis, part->shape, (size_t)part->axes * sizeof *part->shape);
}

static ShoalStatus scale_reshape(ShoalLayer *layer, ShoalError *err) {
    ScaleState *state = layer->state;
    const ShoalBlob *bottom = layer->bottoms[0], *factor = factor_of(layer);
    const ShoalParam *bias = bias_of(layer);
    int axis = 0; /* of a scalar: any would do */
    ShoalStatus status =
        factor->axes ? shoal_layer_axis(layer, axis_of(layer), &axis, err) : SHOAL_OK;
    if (status)
        return status;
    if (!fits(bottom, axis, factor) || (bias && !shoal_blob_same_shape(&bias->blob, factor))) {
        char a[128], b[128];
        return shoal_layer_fail(layer, SHOAL_ERR_MODEL, err,
                                "bottom '%s' is %s, its factor%s %s; expected the factor to have "
                                "the bottom's sizes from axis %d on, in every share of the batch",
                                bottom->name, shoal_blob_shape_text(bottom, a, sizeof a),
                                bias ? " or the bias" : "",
                                shoal_blob_shape_text(factor, b, sizeof b), axis);
    }
    state->shape = (ShoalChannelShape){shoal_blob_count(bottom, 0, axis), factor->count,
                                       shoal_blob_count(bottom, axis + factor->axes, bottom->axes)};
    layer->saved_bytes = state->in_place ? bottom->count * sizeof(float) : 0;
    return shoal_layer_shape_top_like(layer, 0, bottom, err);
}

static ShoalStatus scale_forward(ShoalLayer *layer, const ShoalCompute *compute, ShoalError *err) {
    (void)err;
    const ScaleState *state = layer->state;
    const ShoalBlob *x = layer->bottoms[0];
    const ShoalParam *bias = bias_of(layer);
    if (state->in_place && layer->needs_backward)
        memcpy(layer->saved, x->data, x->count * sizeof(float));
    shoal_channel_affine(compute, &state->shape, x->data, factor_of(layer)->data,
                         bias ? bias->blob.data : NULL, layer->tops[0]->data);
    return SHOAL_OK;
}

static void scale_backward(ShoalLayer *layer, const ShoalCompute *compute) {
    const ScaleState *state = layer->state;
    const ShoalBlob *factor = factor_of(layer);
    const ShoalParam *bias = bias_of(layer);
    const float *dy = layer->tops[0]->diff;
    const float *x = state->in_place ? layer->saved : layer->bottoms[0]->data;
    if (bias && bias->learns)
        shoal_channel_sums(compute, &state->shape, NULL, dy, bias->blob.diff);
    bool wanted = state->two_bottoms ? layer->propagate[1] : layer->params[0]->learns;
    if (state->two_bottoms && wanted)
        memset(factor->diff, 0, factor->count * sizeof *factor->diff);
    if (wanted)
        shoal_channel_sums(compute, &state->shape, x, dy, factor->diff);
    if (layer->propagate[0])
        shoal_channel_affine(compute, &state->shape, dy, factor->data, NULL,
                             layer->bottoms[0]->diff);
}

const ShoalLayerClass shoal_layer_scale_class = {
    .type = "Scale",
    .flags = SHOAL_LAYER_IN_PLACE | SHOAL_LAYER_BWD_NO_TOP,
    .min_bottoms = 1,
    .max_bottoms = 2,
    .min_tops = 1,
    .max_tops = 1,
    .state_bytes = sizeof(ScaleState),
    .setup = scale_setup,
    .reshape = scale_reshape,
    .forward = scale_forward,
    .backward = scale_backward,
};
