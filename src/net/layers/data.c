/* SPDX-License-Identifier: Apache-2.0 */
#include "net/layers/layers.h"

/* Data: records of an LMDB, decoded and transformed elsewhere and bound to the tops before forward.
 * Tops: data [share][C][H][W], and optionally labels [share]. */

typedef struct DataState {
    int batch, dims[3];
} DataState;

static ShoalStatus read_batch(ShoalLayer *layer, const Caffe__DataParameter *param,
                              ShoalError *err) {
    DataState *state = layer->state;
    if (param->backend == CAFFE__DATA_PARAMETER__DB__LEVELDB)
        return shoal_layer_fail(layer, SHOAL_ERR_UNSUPPORTED, err,
                                "data_param has backend LEVELDB%s; only LMDB can be read: convert "
                                "the dataset and write `backend: LMDB`",
                                param->has_backend ? "" : " (Caffe's default when none is given)");
    if (param->backend != CAFFE__DATA_PARAMETER__DB__LMDB)
        return shoal_layer_fail(layer, SHOAL_ERR_MODEL, err,
                                "data_param has the unknown backend %d; expected LMDB",
                                (int)param->backend);
    return shoal_layer_int(layer, "data_param.batch_size", param->batch_size, 1, &state->batch,
                           err);
}

static ShoalStatus data_setup(ShoalLayer *layer, ShoalError *err) {
    DataState *state = layer->state;
    const ShoalLayerContext *context = layer->context;
    if (!layer->param->data_param)
        return shoal_layer_fail(layer, SHOAL_ERR_MODEL, err,
                                "no data_param; expected one with source, batch_size and backend");
    ShoalStatus status = read_batch(layer, layer->param->data_param, err);
    if (status != SHOAL_OK)
        return status;
    if (!context->source_shape)
        return shoal_layer_fail(layer, SHOAL_ERR_UNSUPPORTED, err,
                                "a Data layer needs a dataset, and none can be opened here; use an "
                                "Input layer");
    int dims[3] = {0, 0, 0};
    status = context->source_shape(context->source_context, layer->param, dims, err);
    if (status != SHOAL_OK)
        return shoal_layer_prefix(layer, status, err);
    if (dims[0] <= 0 || dims[1] <= 0 || dims[2] <= 0)
        return shoal_layer_fail(layer, SHOAL_ERR_DATA, err,
                                "the dataset's records are %dx%dx%d; expected sizes above 0",
                                dims[0], dims[1], dims[2]);
    for (int i = 0; i < 3; i++)
        state->dims[i] = dims[i];
    return SHOAL_OK;
}

static ShoalStatus data_reshape(ShoalLayer *layer, ShoalError *err) {
    const DataState *state = layer->state;
    int shape[4] = {shoal_layer_share_of(layer, state->batch), state->dims[0], state->dims[1],
                    state->dims[2]};
    ShoalStatus status = shoal_layer_shape_top(layer, 0, 4, shape, err);
    if (status == SHOAL_OK && layer->n_tops > 1)
        status = shoal_layer_shape_top(layer, 1, 1, shape, err);
    return status;
}

const ShoalLayerClass shoal_layer_data_class = {
    .type = "Data",
    .flags = SHOAL_LAYER_SOURCE | SHOAL_LAYER_NO_BACKWARD | SHOAL_LAYER_BWD_NO_BOTTOM |
             SHOAL_LAYER_BWD_NO_TOP,
    .min_bottoms = 0,
    .max_bottoms = 0,
    .min_tops = 1,
    .max_tops = 2,
    .state_bytes = sizeof(DataState),
    .setup = data_setup,
    .reshape = data_reshape,
};
