/* SPDX-License-Identifier: Apache-2.0 */
#include "net/layers/layers.h"

#include <string.h>

/* Parameter: a weight that is itself the top; 0 at first, as in Caffe, where nothing fills it. */

static ShoalStatus parameter_setup(ShoalLayer *layer, ShoalError *err) {
    const Caffe__ParameterParameter *param = layer->param->parameter_param;
    int dims[SHOAL_MAX_AXES], axes = 0;
    if (!param || !param->shape)
        return shoal_layer_fail(layer, SHOAL_ERR_MODEL, err,
                                "no parameter_param; expected one with a shape");
    ShoalStatus status = shoal_layer_shape_read(layer, param->shape, dims, &axes, err);
    if (status)
        return status;
    /* Where its axis 0 is as long as the batch it may stand beside samples. */
    layer->whole_batch = axes > 0 && dims[0] > 1 && dims[0] == layer->context->batch_full;
    return shoal_layer_declare(layer, axes, dims, NULL, err);
}

static ShoalStatus parameter_reshape(ShoalLayer *layer, ShoalError *err) {
    return shoal_layer_shape_top_like(layer, 0, &layer->params[0]->blob, err);
}

static ShoalStatus parameter_forward(ShoalLayer *layer, const ShoalCompute *compute,
                                     ShoalError *err) {
    (void)compute;
    (void)err;
    const ShoalBlob *weight = &layer->params[0]->blob;
    memcpy(layer->tops[0]->data, weight->data, weight->count * sizeof(float));
    return SHOAL_OK;
}

static void parameter_backward(ShoalLayer *layer, const ShoalCompute *compute) {
    const ShoalParam *weight = layer->params[0];
    if (weight->learns)
        shoal_vec_axpy(compute, weight->blob.count, 1, layer->tops[0]->diff, weight->blob.diff);
}

const ShoalLayerClass shoal_layer_parameter_class = {
    .type = "Parameter",
    .flags = SHOAL_LAYER_BWD_NO_BOTTOM | SHOAL_LAYER_BWD_NO_TOP,
    .min_bottoms = 0,
    .max_bottoms = 0,
    .min_tops = 1,
    .max_tops = 1,
    .setup = parameter_setup,
    .reshape = parameter_reshape,
    .forward = parameter_forward,
    .backward = parameter_backward,
};
