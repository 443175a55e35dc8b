/* SPDX-License-Identifier: Apache-2.0 */
#include "net/layers/layers.h"

#include <string.h>

/* Crop: bottom 0 cut, on the axes from `axis` on, to the sizes of bottom 1, whose values do not
 * matter; `offset`: one for all of these axes, or one each, 0 by default. */

typedef struct CropState {
    int axis, offsets[SHOAL_MAX_AXES];
} CropState;

static ShoalStatus crop_setup(ShoalLayer *layer, ShoalError *err) {
    CropState *state = layer->state;
    const Caffe__CropParameter *param = layer->param->crop_param;
    const ShoalBlob *bottom = layer->bottoms[0];
    ShoalStatus status = shoal_layer_axis(layer, param ? param->axis : 2, &state->axis, err);
    if (status)
        return status;
    size_t n = param ? param->n_offset : 0, cropped = (size_t)(bottom->axes - state->axis);
    if (n > 1 && n != cropped)
        return shoal_layer_fail(layer, SHOAL_ERR_MODEL, err,
                                "%zu offsets for %zu axes that are cropped; expected one, or one "
                                "each",
                                n, cropped);
    for (size_t i = 0; i < cropped && n; i++) {
        status = shoal_layer_int(layer, "offset", param->offset[n == 1 ? 0 : i], 0,
                                 &state->offsets[state->axis + (int)i], err);
        if (status)
            return status;
    }
    return SHOAL_OK;
}

static ShoalStatus crop_reshape(ShoalLayer *layer, ShoalError *err) {
    const CropState *state = layer->state;
    const ShoalBlob *bottom = layer->bottoms[0], *like = layer->bottoms[1];
    char a[128], b[128];
    int shape[SHOAL_MAX_AXES];
    memcpy(shape, bottom->shape, sizeof shape);
    bool fits = bottom->axes <= like->axes;
    for (int i = state->axis; i < bottom->axes && fits; i++) {
        shape[i] = like->shape[i];
        fits = shape[i] <= bottom->shape[i] - state->offsets[i];
    }
    if (!fits)
        return shoal_layer_fail(layer, SHOAL_ERR_MODEL, err,
                                "bottom '%s' is %s, from which %s cannot be cut at these offsets",
                                bottom->name, shoal_blob_shape_text(bottom, a, sizeof a),
                                shoal_blob_shape_text(like, b, sizeof b));
    layer->whole_batch = state->axis == 0 && shape[0] != bottom->shape[0];
    return shoal_layer_shape_top(layer, 0, bottom->axes, shape, err);
}

/* Row by row along the last axis: the place in the bottom of row r of the top. */
static size_t place_of(const ShoalLayer *layer, size_t r) {
    const CropState *state = layer->state;
    const ShoalBlob *bottom = layer->bottoms[0], *top = layer->tops[0];
    int last = top->axes - 1;
    size_t at = (size_t)state->offsets[last], stride = (size_t)bottom->shape[last];
    for (int i = last - 1; i >= 0; i--) {
        size_t size = (size_t)top->shape[i];
        at += (r % size + (size_t)state->offsets[i]) * stride;
        r /= size;
        stride *= (size_t)bottom->shape[i];
    }
    return at;
}

static ShoalStatus crop_forward(ShoalLayer *layer, const ShoalCompute *compute, ShoalError *err) {
    (void)compute;
    (void)err;
    const ShoalBlob *top = layer->tops[0];
    size_t width = (size_t)top->shape[top->axes - 1];
    for (size_t r = 0; width && r < top->count / width; r++)
        memcpy(top->data + r * width, layer->bottoms[0]->data + place_of(layer, r),
               width * sizeof(float));
    return SHOAL_OK;
}

static void crop_backward(ShoalLayer *layer, const ShoalCompute *compute) {
    (void)compute;
    const ShoalBlob *top = layer->tops[0], *bottom = layer->bottoms[0];
    size_t width = (size_t)top->shape[top->axes - 1];
    if (layer->propagate[1])
        memset(layer->bottoms[1]->diff, 0, layer->bottoms[1]->count * sizeof(float));
    if (!layer->propagate[0])
        return;
    memset(bottom->diff, 0, bottom->count * sizeof(float));
    for (size_t r = 0; width && r < top->count / width; r++)
        memcpy(bottom->diff + place_of(layer, r), top->diff + r * width, width * sizeof(float));
}

const ShoalLayerClass shoal_layer_crop_class = {
    .type = "Crop",
    .flags = SHOAL_LAYER_BWD_NO_BOTTOM | SHOAL_LAYER_BWD_NO_TOP,
    .min_bottoms = 2,
    .max_bottoms = 2,
    .min_tops = 1,
    .max_tops = 1,
    .state_bytes = sizeof(CropState),
    .setup = crop_setup,
    .reshape = crop_reshape,
    .forward = crop_forward,
    .backward = crop_backward,
};
