/* SPDX-License-Identifier: Apache-2.0 */
#include "net/layers/layers.h"

#include <limits.h>
#include <string.h>

/* Concat: bottoms that differ in one axis only, one after the other along it. */

typedef struct ConcatState {
    int axis;
} ConcatState;

static ShoalStatus concat_setup(ShoalLayer *layer, ShoalError *err) {
    ConcatState *state = layer->state;
    const Caffe__ConcatParameter *param = layer->param->concat_param;
    if (param && param->has_axis && param->has_concat_dim)
        return shoal_layer_fail(layer, SHOAL_ERR_MODEL, err,
                                "concat_param has axis and concat_dim; expected one of the two");
    int axis = param ? param->axis : 1;
    if (param && param->has_concat_dim) {
        ShoalStatus status = shoal_layer_int(layer, "concat_dim", param->concat_dim, 0, &axis, err);
        if (status)
            return status;
    }
    return shoal_layer_axis(layer, axis, &state->axis, err);
}

static ShoalStatus concat_reshape(ShoalLayer *layer, ShoalError *err) {
    const ConcatState *state = layer->state;
    const ShoalBlob *first = layer->bottoms[0];
    int64_t sum = 0;
    for (int i = 0; i < layer->n_bottoms; i++) {
        ShoalBlob like = *layer->bottoms[i];
        char a[128], b[128];
        if (like.axes > state->axis)
            like.shape[state->axis] = first->shape[state->axis];
        if (!shoal_blob_same_shape(first, &like))
            return shoal_layer_fail(
                layer, SHOAL_ERR_MODEL, err,
                "bottom '%s' is %s, but bottom '%s' is %s; expected shapes that differ on axis %d "
                "only",
                first->name, shoal_blob_shape_text(first, a, sizeof a), like.name,
                shoal_blob_shape_text(layer->bottoms[i], b, sizeof b), state->axis);
        sum += layer->bottoms[i]->shape[state->axis];
    }
    layer->whole_batch = state->axis == 0 && layer->n_bottoms > 1;
    int shape[SHOAL_MAX_AXES];
    memcpy(shape, first->shape, sizeof shape);
    shape[state->axis] = sum > INT_MAX ? INT_MAX : (int)sum; /* too large for a blob either way */
    return shoal_layer_shape_top(layer, 0, first->axes, shape, err);
}

/* Values that bottom i has between two steps of the axes before the one that grows. */
static size_t slice_of(const ShoalLayer *layer, const ShoalBlob *blob) {
    const ConcatState *state = layer->state;
    return shoal_blob_count(blob, state->axis, blob->axes);
}

static ShoalStatus concat_forward(ShoalLayer *layer, const ShoalCompute *compute, ShoalError *err) {
    (void)compute;
    (void)err;
    const ConcatState *state = layer->state;
    const ShoalBlob *top = layer->tops[0];
    size_t outer = shoal_blob_count(top, 0, state->axis), whole = slice_of(layer, top), at = 0;
    for (int i = 0; i < layer->n_bottoms; i++) {
        size_t part = slice_of(layer, layer->bottoms[i]);
        for (size_t n = 0; n < outer; n++)
            memcpy(top->data + n * whole + at, layer->bottoms[i]->data + n * part,
                   part * sizeof(float));
        at += part;
    }
    return SHOAL_OK;
}

static void concat_backward(ShoalLayer *layer, const ShoalCompute *compute) {
    (void)compute;
    const ConcatState *state = layer->state;
    const ShoalBlob *top = layer->tops[0];
    size_t outer = shoal_blob_count(top, 0, state->axis), whole = slice_of(layer, top), at = 0;
    for (int i = 0; i < layer->n_bottoms; i++) {
        size_t part = slice_of(layer, layer->bottoms[i]);
        for (size_t n = 0; n < outer && layer->propagate[i]; n++)
            memcpy(layer->bottoms[i]->diff + n * part, top->diff + n * whole + at,
                   part * sizeof(float));
        at += part;
    }
}

const ShoalLayerClass shoal_layer_concat_class = {
    .type = "Concat",
    .flags = SHOAL_LAYER_BWD_NO_BOTTOM | SHOAL_LAYER_BWD_NO_TOP,
    .min_bottoms = 1,
    .max_bottoms = -1,
    .min_tops = 1,
    .max_tops = 1,
    .state_bytes = sizeof(ConcatState),
    .setup = concat_setup,
    .reshape = concat_reshape,
    .forward = concat_forward,
    .backward = concat_backward,
};
