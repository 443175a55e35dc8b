/* SPDX-License-Identifier: Apache-2.0 */
#include "net/layers/layers.h"

/* MemoryData: samples [batch][C][H][W] and labels [batch] that the caller fills before forward. */

static ShoalStatus memory_data_setup(ShoalLayer *layer, ShoalError *err) {
    const Caffe__MemoryDataParameter *param = layer->param->memory_data_param;
    int ignored;
    if (!param)
        return shoal_layer_fail(layer, SHOAL_ERR_MODEL, err,
                                "no memory_data_param; expected one with batch_size, channels, "
                                "height and width");
    ShoalStatus status = shoal_layer_int(layer, "batch_size", param->batch_size, 1, &ignored, err);
    if (!status)
        status = shoal_layer_int(layer, "channels", param->channels, 1, &ignored, err);
    if (!status)
        status = shoal_layer_int(layer, "height", param->height, 1, &ignored, err);
    return status ? status : shoal_layer_int(layer, "width", param->width, 1, &ignored, err);
}

static ShoalStatus memory_data_reshape(ShoalLayer *layer, ShoalError *err) {
    const Caffe__MemoryDataParameter *param = layer->param->memory_data_param;
    int shape[4] = {shoal_layer_share_of(layer, (int)param->batch_size), (int)param->channels,
                    (int)param->height, (int)param->width};
    layer->whole_batch = (int)param->batch_size != layer->context->batch_full;
    ShoalStatus status = shoal_layer_shape_top(layer, 0, 4, shape, err);
    return status ? status : shoal_layer_shape_top(layer, 1, 1, shape, err);
}

const ShoalLayerClass shoal_layer_memory_data_class = {
    .type = "MemoryData",
    .flags = SHOAL_LAYER_SOURCE | SHOAL_LAYER_NO_BACKWARD | SHOAL_LAYER_BWD_NO_BOTTOM |
             SHOAL_LAYER_BWD_NO_TOP,
    .min_bottoms = 0,
    .max_bottoms = 0,
    .min_tops = 2,
    .max_tops = 2,
    .setup = memory_data_setup,
    .reshape = memory_data_reshape,
};
