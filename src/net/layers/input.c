/* SPDX-License-Identifier: Apache-2.0 */
#include "net/layers/layers.h"

#include "base/error.h"

/* Input: blobs that the caller fills before forward. The first axis is the batch when it equals the
 * global batch: then a worker has its share of it. */

static const Caffe__BlobShape *input_shape(const ShoalLayer *layer, int top) {
    const Caffe__InputParameter *param = layer->param->input_param;
    return param->shape[param->n_shape == 1 ? 0 : top];
}

static ShoalStatus input_setup(ShoalLayer *layer, ShoalError *err) {
    const Caffe__InputParameter *param = layer->param->input_param;
    size_t n = param ? param->n_shape : 0;
    if (n == 0)
        return shoal_layer_fail(layer, SHOAL_ERR_MODEL, err,
                                "input_param has no shape; expected one for all %d tops, or one "
                                "each",
                                layer->n_tops);
    if (n != 1 && n != (size_t)layer->n_tops)
        return shoal_layer_fail(layer, SHOAL_ERR_MODEL, err,
                                "input_param has %zu shapes for %d tops; expected 1 or %d", n,
                                layer->n_tops, layer->n_tops);
    return SHOAL_OK;
}

static ShoalStatus input_reshape(ShoalLayer *layer, ShoalError *err) {
    for (int i = 0; i < layer->n_tops; i++) {
        int dims[SHOAL_MAX_AXES], axes = 0;
        ShoalStatus status = shoal_layer_shape_read(layer, input_shape(layer, i), dims, &axes, err);
        if (status != SHOAL_OK)
            return status;
        if (axes > 0)
            dims[0] = shoal_layer_share_of(layer, dims[0]);
        status = shoal_layer_shape_top(layer, i, axes, dims, err);
        if (status != SHOAL_OK)
            return status;
    }
    return SHOAL_OK;
}

const ShoalLayerClass shoal_layer_input_class = {
    .type = "Input",
    .flags = SHOAL_LAYER_SOURCE | SHOAL_LAYER_NO_BACKWARD | SHOAL_LAYER_BWD_NO_BOTTOM |
             SHOAL_LAYER_BWD_NO_TOP,
    .min_bottoms = 0,
    .max_bottoms = 0,
    .min_tops = 1,
    .max_tops = -1,
    .setup = input_setup,
    .reshape = input_reshape,
};
