/* SPDX-License-Identifier: Apache-2.0 */
#include "net/layers/layers.h"

#include "base/error.h"

/* Data, ImageData, HDF5Data, WindowData: samples of a dataset, read, decoded and transformed
 * elsewhere (data/feed.h) and bound to the tops before forward. Each top is [share][shape of a
 * sample]. */

typedef struct FedState {
    int batch;
} FedState;

static ShoalStatus missing(const ShoalLayer *layer, const char *field, ShoalError *err) {
    return shoal_layer_fail(layer, SHOAL_ERR_MODEL, err,
                            "no %s; expected one with a source and a batch_size", field);
}

static ShoalStatus check_backend(const ShoalLayer *layer, const Caffe__DataParameter *param,
                                 ShoalError *err) {
    if (param->backend == CAFFE__DATA_PARAMETER__DB__LMDB)
        return SHOAL_OK;
    if (param->backend == CAFFE__DATA_PARAMETER__DB__LEVELDB)
        return shoal_layer_fail(layer, SHOAL_ERR_UNSUPPORTED, err,
                                "data_param has backend LEVELDB%s; only LMDB can be read: convert "
                                "the dataset and write `backend: LMDB`",
                                param->has_backend ? "" : " (Caffe's default when none is given)");
    return shoal_layer_fail(layer, SHOAL_ERR_MODEL, err,
                            "data_param has the unknown backend %d; expected LMDB",
                            (int)param->backend);
}

/* Every sample's shape must be known when the net is built. */
static ShoalStatus finish_setup(ShoalLayer *layer, const char *field, uint32_t batch,
                                ShoalError *err) {
    FedState *state = layer->state;
    ShoalStatus status = shoal_layer_int(layer, field, batch, 1, &state->batch, err);
    if (status != SHOAL_OK || layer->context->source_shape)
        return status;
    return shoal_layer_fail(layer, SHOAL_ERR_UNSUPPORTED, err,
                            "a %s layer needs a dataset, and none can be opened here; use an "
                            "Input layer",
                            layer->class->type);
}

static ShoalStatus data_setup(ShoalLayer *layer, ShoalError *err) {
    const Caffe__DataParameter *param = layer->param->data_param;
    if (!param)
        return missing(layer, "data_param", err);
    ShoalStatus status = check_backend(layer, param, err);
    return status ? status : finish_setup(layer, "data_param.batch_size", param->batch_size, err);
}

static ShoalStatus image_data_setup(ShoalLayer *layer, ShoalError *err) {
    const Caffe__ImageDataParameter *param = layer->param->image_data_param;
    if (!param)
        return missing(layer, "image_data_param", err);
    return finish_setup(layer, "image_data_param.batch_size", param->batch_size, err);
}

static ShoalStatus hdf5_data_setup(ShoalLayer *layer, ShoalError *err) {
    const Caffe__HDF5DataParameter *param = layer->param->hdf5_data_param;
    if (!param)
        return missing(layer, "hdf5_data_param", err);
    return finish_setup(layer, "hdf5_data_param.batch_size", param->batch_size, err);
}

static ShoalStatus window_data_setup(ShoalLayer *layer, ShoalError *err) {
    const Caffe__WindowDataParameter *param = layer->param->window_data_param;
    if (!param)
        return missing(layer, "window_data_param", err);
    return finish_setup(layer, "window_data_param.batch_size", param->batch_size, err);
}

static ShoalStatus shape_top(ShoalLayer *layer, int top, ShoalError *err) {
    const ShoalLayerContext *context = layer->context;
    const FedState *state = layer->state;
    int shape[SHOAL_MAX_AXES] = {shoal_layer_share_of(layer, state->batch)}, axes = 0;
    ShoalStatus status =
        context->source_shape(context->source_context, layer->param, top, &axes, shape + 1, err);
    if (status != SHOAL_OK)
        return shoal_layer_prefix(layer, status, err);
    for (int i = 1; i <= axes; i++)
        if (shape[i] <= 0)
            return shoal_layer_fail(layer, SHOAL_ERR_DATA, err,
                                    "the dataset's samples have size %d on axis %d; expected sizes "
                                    "above 0",
                                    shape[i], i - 1);
    return shoal_layer_shape_top(layer, top, axes + 1, shape, err);
}

/* The samples' shapes never change, but the share does. */
static ShoalStatus fed_reshape(ShoalLayer *layer, ShoalError *err) {
    const FedState *state = layer->state;
    int share = shoal_layer_share_of(layer, state->batch);
    for (int i = 0; i < layer->n_tops; i++) {
        ShoalBlob *top = layer->tops[i];
        int shape[SHOAL_MAX_AXES] = {share};
        for (int a = 1; a < top->axes; a++)
            shape[a] = top->shape[a];
        ShoalStatus status = top->axes > 0 ? shoal_layer_shape_top(layer, i, top->axes, shape, err)
                                           : shape_top(layer, i, err);
        if (status != SHOAL_OK)
            return status;
    }
    return SHOAL_OK;
}

enum {
    FED_FLAGS = SHOAL_LAYER_SOURCE | SHOAL_LAYER_NO_BACKWARD | SHOAL_LAYER_BWD_NO_BOTTOM |
                SHOAL_LAYER_BWD_NO_TOP
};

const ShoalLayerClass shoal_layer_data_class = {
    .type = "Data",
    .flags = FED_FLAGS,
    .min_tops = 1,
    .max_tops = 2,
    .state_bytes = sizeof(FedState),
    .setup = data_setup,
    .reshape = fed_reshape,
};

const ShoalLayerClass shoal_layer_image_data_class = {
    .type = "ImageData",
    .flags = FED_FLAGS,
    .min_tops = 2,
    .max_tops = 2,
    .state_bytes = sizeof(FedState),
    .setup = image_data_setup,
    .reshape = fed_reshape,
};

const ShoalLayerClass shoal_layer_hdf5_data_class = {
    .type = "HDF5Data",
    .flags = FED_FLAGS,
    .min_tops = 1,
    .max_tops = -1,
    .state_bytes = sizeof(FedState),
    .setup = hdf5_data_setup,
    .reshape = fed_reshape,
};

const ShoalLayerClass shoal_layer_window_data_class = {
    .type = "WindowData",
    .flags = FED_FLAGS,
    .min_tops = 2,
    .max_tops = 2,
    .state_bytes = sizeof(FedState),
    .setup = window_data_setup,
    .reshape = fed_reshape,
};
