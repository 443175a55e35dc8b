/* SPDX-License-Identifier: Apache-2.0 */
#include "net/layers/layers.h"

#include <limits.h>
#include <string.h>

/* Reshape: the same values in another shape: the axes from `axis` on, num_axes of them (-1: all),
 * give way to `shape`, where 0 takes over the bottom's axis at that place and one -1 takes what is
 * left. The net lets both share memory. A size on axis 0 that is the global batch stands for the
 * share. */

typedef struct ReshapeState {
    int first, end; /* axes of the bottom that are replaced */
} ReshapeState;

static ShoalStatus reshape_setup(ShoalLayer *layer, ShoalError *err) {
    ReshapeState *state = layer->state;
    const Caffe__ReshapeParameter *param = layer->param->reshape_param;
    int axes = layer->bottoms[0]->axes;
    if (!param || !param->shape)
        return shoal_layer_fail(layer, SHOAL_ERR_MODEL, err,
                                "no reshape_param; expected one with a shape");
    /* One place more than axes: -1 is behind the last axis. */
    state->first = param->axis < 0 ? axes + 1 + param->axis : param->axis;
    state->end = param->num_axes == -1 ? axes : state->first + param->num_axes;
    if (state->first < 0 || state->first > axes || param->num_axes < -1 || state->end > axes)
        return shoal_layer_fail(layer, SHOAL_ERR_MODEL, err,
                                "axis %d with num_axes %d is out of range: bottom '%s' has %d axes",
                                param->axis, param->num_axes, layer->bottoms[0]->name, axes);
    int inferred = 0;
    for (size_t i = 0; i < param->shape->n_dim; i++)
        inferred += param->shape->dim[i] == -1;
    if (inferred > 1)
        return shoal_layer_fail(layer, SHOAL_ERR_MODEL, err,
                                "reshape_param.shape has %d sizes of -1; expected one at most",
                                inferred);
    return SHOAL_OK;
}

static ShoalStatus mismatch(const ShoalLayer *layer, ShoalError *err) {
    char text[128];
    return shoal_layer_fail(layer, SHOAL_ERR_MODEL, err,
                            "bottom '%s' is %s, which cannot take the shape of reshape_param; "
                            "expected as many values",
                            layer->bottoms[0]->name,
                            shoal_blob_shape_text(layer->bottoms[0], text, sizeof text));
}

/* Fills the new sizes between the axes that stay; *inferred: the place of -1, or -1. */
static ShoalStatus new_shape(const ShoalLayer *layer, int *shape, int *axes, int *inferred,
                             ShoalError *err) {
    const ReshapeState *state = layer->state;
    const Caffe__BlobShape *wanted = layer->param->reshape_param->shape;
    const ShoalBlob *bottom = layer->bottoms[0];
    size_t total = (size_t)(bottom->axes - (state->end - state->first)) + wanted->n_dim;
    if (total > SHOAL_MAX_AXES)
        return shoal_layer_fail(layer, SHOAL_ERR_MODEL, err,
                                "the top would have %zu axes; expected at most %d", total,
                                SHOAL_MAX_AXES);
    *inferred = -1;
    *axes = 0;
    for (int i = 0; i < state->first; i++)
        shape[(*axes)++] = bottom->shape[i];
    for (size_t i = 0; i < wanted->n_dim; i++) {
        int64_t dim = wanted->dim[i];
        int from = state->first + (int)i;
        if (dim < -1 || dim > INT_MAX || (dim == 0 && from >= bottom->axes))
            return mismatch(layer, err);
        if (dim == -1)
            *inferred = *axes;
        if (dim > 0 && *axes == 0)
            dim = shoal_layer_share_of(layer, (int)dim);
        shape[(*axes)++] = dim == 0 ? bottom->shape[from] : dim == -1 ? 1 : (int)dim;
    }
    for (int i = state->end; i < bottom->axes; i++)
        shape[(*axes)++] = bottom->shape[i];
    return SHOAL_OK;
}

static ShoalStatus reshape_reshape(ShoalLayer *layer, ShoalError *err) {
    const ShoalBlob *bottom = layer->bottoms[0];
    int shape[SHOAL_MAX_AXES], axes = 0, inferred = -1;
    ShoalStatus status = new_shape(layer, shape, &axes, &inferred, err);
    if (status)
        return status;
    uint64_t count = 1;
    for (int i = 0; i < axes; i++)
        if (count <= INT_MAX)
            count *= (uint64_t)shape[i];
    if (inferred >= 0) {
        uint64_t values = bottom->count, known = count;
        if (inferred > 0 && shape[0] == 0 && bottom->axes > 0 && bottom->shape[0] == 0) {
            /* A Filter let nothing through: what a sample would have. */
            values = shoal_blob_count(bottom, 1, bottom->axes);
            known = 1;
            for (int i = 1; i < axes && known <= INT_MAX; i++)
                known *= (uint64_t)shape[i];
        }
        if (!known || values % known || values / known > INT_MAX)
            return mismatch(layer, err);
        shape[inferred] = (int)(values / known);
        count *= (uint64_t)shape[inferred];
    }
    if (count != bottom->count)
        return mismatch(layer, err);
    layer->whole_batch = bottom->axes > 0 && (axes == 0 || shape[0] != bottom->shape[0]);
    return shoal_layer_shape_top(layer, 0, axes, shape, err);
}

static void reshape_backward(ShoalLayer *layer, const ShoalCompute *compute) {
    (void)compute;
    float *dx = layer->bottoms[0]->diff;
    const float *dy = layer->tops[0]->diff;
    if (layer->propagate[0] && dx != dy)
        memcpy(dx, dy, layer->bottoms[0]->count * sizeof *dx);
}

const ShoalLayerClass shoal_layer_reshape_class = {
    .type = "Reshape",
    .flags = SHOAL_LAYER_SHARES_DATA | SHOAL_LAYER_SHARES_DIFF | SHOAL_LAYER_BWD_NO_BOTTOM |
             SHOAL_LAYER_BWD_NO_TOP,
    .min_bottoms = 1,
    .max_bottoms = 1,
    .min_tops = 1,
    .max_tops = 1,
    .state_bytes = sizeof(ReshapeState),
    .setup = reshape_setup,
    .reshape = reshape_reshape,
    .backward = reshape_backward,
};
