/* SPDX-License-Identifier: Apache-2.0 */
#include "net/layers/layers.h"

#include <math.h>

/* LRN: y = x / (k + alpha / size * sum of x^2 over `local_size` channels)^beta, or, WITHIN_CHANNEL,
 * over local_size x local_size pixels, with alpha / size^2 and 1 in place of k. Backward reads x
 * and the sums under the power, which are kept. */

typedef struct LrnState {
    ShoalLrnShape shape;
} LrnState;

static ShoalStatus check_numbers(const ShoalLayer *layer, float alpha, float beta, float k,
                                 ShoalError *err) {
    if (!isfinite(alpha) || !isfinite(beta) || !isfinite(k))
        return shoal_layer_fail(layer, SHOAL_ERR_MODEL, err,
                                "alpha is %g, beta %g, k %g; expected finite numbers",
                                (double)alpha, (double)beta, (double)k);
    return SHOAL_OK;
}

static ShoalStatus lrn_setup(ShoalLayer *layer, ShoalError *err) {
    LrnState *state = layer->state;
    Caffe__LRNParameter defaults = CAFFE__LRNPARAMETER__INIT;
    const Caffe__LRNParameter *param =
        layer->param->lrn_param ? layer->param->lrn_param : &defaults;
    int size;
    ShoalStatus status = shoal_layer_int(layer, "local_size", param->local_size, 1, &size, err);
    if (!status)
        status = check_numbers(layer, param->alpha, param->beta, param->k, err);
    if (status)
        return status;
    if (size % 2 == 0)
        return shoal_layer_fail(layer, SHOAL_ERR_MODEL, err,
                                "local_size is %d; expected an odd number", size);
    bool within = param->norm_region == CAFFE__LRNPARAMETER__NORM_REGION__WITHIN_CHANNEL;
    if (!within && param->norm_region != CAFFE__LRNPARAMETER__NORM_REGION__ACROSS_CHANNELS)
        return shoal_layer_fail(layer, SHOAL_ERR_MODEL, err,
                                "norm_region is the unknown number %d; expected ACROSS_CHANNELS or "
                                "WITHIN_CHANNEL",
                                (int)param->norm_region);
    double places = within ? (double)size * size : size;
    state->shape = (ShoalLrnShape){.size = (size_t)size,
                                   .within = within,
                                   .alpha = (float)((double)param->alpha / places),
                                   .beta = param->beta,
                                   .k = within ? 1 : param->k};
    return SHOAL_OK;
}

static ShoalStatus lrn_reshape(ShoalLayer *layer, ShoalError *err) {
    ShoalLrnShape *shape = &((LrnState *)layer->state)->shape;
    const ShoalBlob *bottom = layer->bottoms[0];
    char text[128];
    if (bottom->axes != 4)
        return shoal_layer_fail(layer, SHOAL_ERR_MODEL, err,
                                "bottom '%s' is %s; expected 4 axes: N x C x H x W", bottom->name,
                                shoal_blob_shape_text(bottom, text, sizeof text));
    shape->batch = (size_t)bottom->shape[0];
    shape->channels = (size_t)bottom->shape[1];
    shape->height = (size_t)bottom->shape[2];
    shape->width = (size_t)bottom->shape[3];
    layer->saved_bytes = layer->scratch_bytes = bottom->count * sizeof(float);
    return shoal_layer_shape_top_like(layer, 0, bottom, err);
}

static ShoalStatus lrn_forward(ShoalLayer *layer, const ShoalCompute *compute, ShoalError *err) {
    (void)err;
    const LrnState *state = layer->state;
    shoal_lrn_fwd(compute, &state->shape, layer->bottoms[0]->data, layer->saved,
                  layer->tops[0]->data);
    return SHOAL_OK;
}

static void lrn_backward(ShoalLayer *layer, const ShoalCompute *compute) {
    const LrnState *state = layer->state;
    if (layer->propagate[0])
        shoal_lrn_bwd(compute, &state->shape, layer->bottoms[0]->data, layer->saved,
                      layer->tops[0]->diff, layer->scratch, layer->bottoms[0]->diff);
}

const ShoalLayerClass shoal_layer_lrn_class = {
    .type = "LRN",
    .flags = SHOAL_LAYER_BWD_NO_TOP,
    .min_bottoms = 1,
    .max_bottoms = 1,
    .min_tops = 1,
    .max_tops = 1,
    .state_bytes = sizeof(LrnState),
    .setup = lrn_setup,
    .reshape = lrn_reshape,
    .forward = lrn_forward,
    .backward = lrn_backward,
};
