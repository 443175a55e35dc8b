/* SPDX-License-Identifier: Apache-2.0 */
#include "net/layers/layers.h"

#include <string.h>

/* Slice: the bottom cut along an axis, at slice_point or into equal parts: what Concat joins. */

typedef struct SliceState {
    int axis;
} SliceState;

static ShoalStatus slice_setup(ShoalLayer *layer, ShoalError *err) {
    SliceState *state = layer->state;
    const Caffe__SliceParameter *param = layer->param->slice_param;
    if (param && param->has_axis && param->has_slice_dim)
        return shoal_layer_fail(layer, SHOAL_ERR_MODEL, err,
                                "slice_param has axis and slice_dim; expected one of the two");
    if (param && param->n_slice_point && param->n_slice_point + 1 != (size_t)layer->n_tops)
        return shoal_layer_fail(layer, SHOAL_ERR_MODEL, err,
                                "%zu slice_point values for %d tops; expected %d",
                                param->n_slice_point, layer->n_tops, layer->n_tops - 1);
    int axis = param ? param->axis : 1;
    if (param && param->has_slice_dim) {
        ShoalStatus status = shoal_layer_int(layer, "slice_dim", param->slice_dim, 0, &axis, err);
        if (status)
            return status;
    }
    return shoal_layer_axis(layer, axis, &state->axis, err);
}

/* Where the part of a top ends on the axis; -1: the points make no sense. */
static int64_t end_of(const ShoalLayer *layer, int top, int size) {
    const Caffe__SliceParameter *param = layer->param->slice_param;
    if (!param || !param->n_slice_point)
        return size % layer->n_tops ? -1 : (int64_t)size / layer->n_tops * (top + 1);
    return top + 1 < layer->n_tops ? (int64_t)param->slice_point[top] : size;
}

static ShoalStatus slice_reshape(ShoalLayer *layer, ShoalError *err) {
    const SliceState *state = layer->state;
    const ShoalBlob *bottom = layer->bottoms[0];
    int shape[SHOAL_MAX_AXES], size = bottom->shape[state->axis];
    memcpy(shape, bottom->shape, sizeof shape);
    layer->whole_batch = state->axis == 0 && layer->n_tops > 1;
    int64_t begin = 0;
    for (int i = 0; i < layer->n_tops; i++) {
        int64_t end = end_of(layer, i, size);
        if (end <= begin || end > size)
            return shoal_layer_fail(layer, SHOAL_ERR_MODEL, err,
                                    "axis %d of bottom '%s' has size %d, which cannot be cut into "
                                    "%d parts like that; expected ascending slice_point values "
                                    "inside of it, or a size that divides",
                                    state->axis, bottom->name, size, layer->n_tops);
        shape[state->axis] = (int)(end - begin);
        ShoalStatus status = shoal_layer_shape_top(layer, i, bottom->axes, shape, err);
        if (status)
            return status;
        begin = end;
    }
    return SHOAL_OK;
}

/* What lies in the bottom between two steps of the axes before. */
static size_t span(const ShoalLayer *layer, const ShoalBlob *blob) {
    const SliceState *state = layer->state;
    return shoal_blob_count(blob, state->axis, blob->axes);
}

static ShoalStatus slice_forward(ShoalLayer *layer, const ShoalCompute *compute, ShoalError *err) {
    (void)compute;
    (void)err;
    const SliceState *state = layer->state;
    const ShoalBlob *bottom = layer->bottoms[0];
    size_t outer = shoal_blob_count(bottom, 0, state->axis), whole = span(layer, bottom), at = 0;
    for (int i = 0; i < layer->n_tops; i++) {
        size_t part = span(layer, layer->tops[i]);
        for (size_t n = 0; n < outer; n++)
            memcpy(layer->tops[i]->data + n * part, bottom->data + n * whole + at,
                   part * sizeof(float));
        at += part;
    }
    return SHOAL_OK;
}

static void slice_backward(ShoalLayer *layer, const ShoalCompute *compute) {
    (void)compute;
    const SliceState *state = layer->state;
    const ShoalBlob *bottom = layer->bottoms[0];
    size_t outer = shoal_blob_count(bottom, 0, state->axis), whole = span(layer, bottom), at = 0;
    for (int i = 0; i < layer->n_tops && layer->propagate[0]; i++) {
        size_t part = span(layer, layer->tops[i]);
        for (size_t n = 0; n < outer; n++) {
            float *dx = bottom->diff + n * whole + at;
            if (layer->tops[i]->diff)
                memcpy(dx, layer->tops[i]->diff + n * part, part * sizeof(float));
            else
                memset(dx, 0, part * sizeof(float));
        }
        at += part;
    }
}

const ShoalLayerClass shoal_layer_slice_class = {
    .type = "Slice",
    .flags = SHOAL_LAYER_BWD_NO_BOTTOM | SHOAL_LAYER_BWD_NO_TOP,
    .min_bottoms = 1,
    .max_bottoms = 1,
    .min_tops = 1,
    .max_tops = -1,
    .state_bytes = sizeof(SliceState),
    .setup = slice_setup,
    .reshape = slice_reshape,
    .forward = slice_forward,
    .backward = slice_backward,
};
