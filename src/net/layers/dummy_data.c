/* SPDX-License-Identifier: Apache-2.0 */
#include "net/layers/layers.h"

/* DummyData: tops made by fillers, anew in every forward pass. Sample number s of the run draws the
 * same numbers in whatever share it is: they lie at position s * draws-per-sample of a stream that
 * belongs to (seed, layer, top). */

enum { TOPS_PER_STREAM = 256 };

static const Caffe__FillerParameter *top_filler(const ShoalLayer *layer, int top) {
    const Caffe__DummyDataParameter *param = layer->param->dummy_data_param;
    if (param->n_data_filler == 0)
        return NULL;
    return param->data_filler[param->n_data_filler == 1 ? 0 : top];
}

static bool is_legacy(const Caffe__DummyDataParameter *param) {
    return param->n_num || param->n_channels || param->n_height || param->n_width;
}

/* The deprecated num, channels, height, width into dims. */
static ShoalStatus legacy_shape(const ShoalLayer *layer, int top, int dims[SHOAL_MAX_AXES],
                                int *axes, ShoalError *err) {
    const Caffe__DummyDataParameter *param = layer->param->dummy_data_param;
    const struct {
        const char *name;
        size_t n;
        const uint32_t *values;
    } fields[4] = {{"num", param->n_num, param->num},
                   {"channels", param->n_channels, param->channels},
                   {"height", param->n_height, param->height},
                   {"width", param->n_width, param->width}};
    for (int i = 0; i < 4; i++) {
        ShoalStatus status = shoal_layer_int(
            layer, fields[i].name, fields[i].values[fields[i].n == 1 ? 0 : top], 0, &dims[i], err);
        if (status != SHOAL_OK)
            return status;
    }
    *axes = 4;
    return SHOAL_OK;
}

/* The shape of a top as the prototxt has it: of the whole batch. */
static ShoalStatus whole_shape(const ShoalLayer *layer, int top, ShoalBlob *whole,
                               ShoalError *err) {
    const Caffe__DummyDataParameter *param = layer->param->dummy_data_param;
    int dims[SHOAL_MAX_AXES] = {0}, axes = 0;
    ShoalStatus status =
        is_legacy(param)
            ? legacy_shape(layer, top, dims, &axes, err)
            : shoal_layer_shape_read(layer, param->shape[param->n_shape == 1 ? 0 : top], dims,
                                     &axes, err);
    if (status != SHOAL_OK)
        return status;
    *whole = (ShoalBlob){.name = layer->tops[top]->name};
    status = shoal_blob_reshape(whole, axes, dims, err);
    return status == SHOAL_OK ? SHOAL_OK : shoal_layer_prefix(layer, status, err);
}

static ShoalStatus check_number(const ShoalLayer *layer, const char *what, size_t n, bool may_miss,
                                ShoalError *err) {
    if (n == 1 || n == (size_t)layer->n_tops || (n == 0 && may_miss))
        return SHOAL_OK;
    return shoal_layer_fail(layer, SHOAL_ERR_MODEL, err,
                            "dummy_data_param has %zu %s for %d tops; expected %s1 or %d", n, what,
                            layer->n_tops, may_miss ? "0, " : "", layer->n_tops);
}

static ShoalStatus check_numbers(const ShoalLayer *layer, ShoalError *err) {
    const Caffe__DummyDataParameter *param = layer->param->dummy_data_param;
    ShoalStatus status = check_number(layer, "data_filler", param->n_data_filler, true, err);
    if (!is_legacy(param))
        return status == SHOAL_OK ? check_number(layer, "shape", param->n_shape, false, err)
                                  : status;
    if (status == SHOAL_OK && param->n_shape)
        return shoal_layer_fail(layer, SHOAL_ERR_MODEL, err,
                                "dummy_data_param has both shape and the old num, channels, "
                                "height, width; expected one of the two");
    if (status == SHOAL_OK)
        status = check_number(layer, "num", param->n_num, false, err);
    if (status == SHOAL_OK)
        status = check_number(layer, "channels", param->n_channels, false, err);
    if (status == SHOAL_OK)
        status = check_number(layer, "height", param->n_height, false, err);
    if (status == SHOAL_OK)
        status = check_number(layer, "width", param->n_width, false, err);
    return status;
}

static ShoalStatus dummy_data_setup(ShoalLayer *layer, ShoalError *err) {
    if (!layer->param->dummy_data_param)
        return shoal_layer_fail(layer, SHOAL_ERR_MODEL, err,
                                "no dummy_data_param; expected one with a shape");
    ShoalStatus status = check_numbers(layer, err);
    if (status != SHOAL_OK)
        return status;
    for (int i = 0; i < layer->n_tops; i++) {
        ShoalBlob whole;
        status = whole_shape(layer, i, &whole, err);
        if (status != SHOAL_OK)
            return status;
        status = shoal_filler_check(top_filler(layer, i), &whole, err);
        if (status != SHOAL_OK)
            return shoal_layer_prefix(layer, status, err);
    }
    return SHOAL_OK;
}

static ShoalStatus dummy_data_reshape(ShoalLayer *layer, ShoalError *err) {
    for (int i = 0; i < layer->n_tops; i++) {
        ShoalBlob whole;
        ShoalStatus status = whole_shape(layer, i, &whole, err);
        if (status != SHOAL_OK)
            return status;
        if (whole.axes > 0)
            whole.shape[0] = shoal_layer_share_of(layer, whole.shape[0]);
        status = shoal_layer_shape_top(layer, i, whole.axes, whole.shape, err);
        if (status != SHOAL_OK)
            return status;
    }
    return SHOAL_OK;
}

static ShoalStatus fill_top(ShoalLayer *layer, int top, ShoalError *err) {
    const ShoalBlob *blob = layer->tops[top];
    ShoalBlob whole;
    ShoalStatus status = whole_shape(layer, top, &whole, err);
    if (status != SHOAL_OK)
        return status;
    int rows = whole.axes ? whole.shape[0] : 1, rows_now = blob->axes ? blob->shape[0] : 1;
    size_t size = whole.count / (size_t)rows;
    /* What is no part of the batch has all its rows on every worker, the same ones. */
    bool in_batch = rows == layer->context->batch_full;
    const ShoalSampleRange numbers = {.first = in_batch
                                                   ? layer->context->first_sample
                                                   : shoal_layer_iteration(layer) * (uint64_t)rows,
                                      .places = in_batch ? layer->context->places : NULL};
    ShoalRng rng;
    shoal_rng_init(&rng, layer->context->seed, SHOAL_RNG_DUMMY,
                   (uint32_t)layer->number * TOPS_PER_STREAM + (uint32_t)top);
    for (int row = 0; row < rows_now; row++) {
        shoal_rng_seek(&rng,
                       shoal_layer_sample_number(&numbers, (size_t)row) * shoal_filler_draws(size));
        status = shoal_filler_fill_slice(top_filler(layer, top), &rng, &whole, size,
                                         blob->data + (size_t)row * size, err);
        if (status != SHOAL_OK)
            return shoal_layer_prefix(layer, status, err);
    }
    return SHOAL_OK;
}

static ShoalStatus dummy_data_forward(ShoalLayer *layer, const ShoalCompute *compute,
                                      ShoalError *err) {
    (void)compute;
    for (int i = 0; i < layer->n_tops; i++) {
        ShoalStatus status = fill_top(layer, i, err);
        if (status != SHOAL_OK)
            return status;
    }
    return SHOAL_OK;
}

const ShoalLayerClass shoal_layer_dummy_data_class = {
    .type = "DummyData",
    .flags = SHOAL_LAYER_NO_BACKWARD | SHOAL_LAYER_BWD_NO_BOTTOM | SHOAL_LAYER_BWD_NO_TOP,
    .min_bottoms = 0,
    .max_bottoms = 0,
    .min_tops = 1,
    .max_tops = -1,
    .setup = dummy_data_setup,
    .reshape = dummy_data_reshape,
    .forward = dummy_data_forward,
};
