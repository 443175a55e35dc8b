/* SPDX-License-Identifier: Apache-2.0 */
#include "net/layers/layers.h"

#include <math.h>
#include <string.h>

#include "base/memory.h"

/* BatchNorm: y = (x - mean) / sqrt(variance + eps) per channel (axis 1); in place or not. Weights,
 * none of which learns (BVLC Caffe: BatchNormLayer):
 *   [0] sum of means [C], [1] sum of unbiased variances [C], [2] sum of weights [1]
 * With global statistics (default: phase TEST) mean and variance are [0] and [1] divided by [2], 0
 * while [2] is 0. Else they are those of the share (which shoal_net_unit keeps to Intel's
 * stats_batch_size), the variance biased, and the forward pass moves
 * the sums: s = fraction * s + new. Backward needs no blob: the normalised values are kept, since
 * the layers that follow mostly work in place. */

typedef struct BatchNormState {
    ShoalChannelShape shape;
    float fraction, eps;
    bool global;
} BatchNormState;

/* `saved`: inverse [C], mean [C], variance [C], then (own statistics only) the normalised values,
 * aligned. */
static size_t values_offset(const BatchNormState *state) {
    return shoal_align_up(3 * state->shape.channels * sizeof(float)) / sizeof(float);
}

static ShoalStatus check_param(const ShoalLayer *layer, const Caffe__BatchNormParameter *param,
                               ShoalError *err) {
    const BatchNormState *state = layer->state;
    /* filler and bias_filler alone change nothing, as in Intel Caffe's own engine. */
    if (param && ((param->has_use_weight_bias && param->use_weight_bias) ||
                  (param->has_bias_term && param->bias_term)))
        return shoal_layer_fail(layer, SHOAL_ERR_UNSUPPORTED, err,
                                "batch_norm_param asks for weights of its own by use_weight_bias "
                                "or bias_term, which Caffe does not know; expected a Scale layer "
                                "with bias_term after this one instead");
    if (!isfinite(state->eps) || state->eps < 0)
        return shoal_layer_fail(layer, SHOAL_ERR_MODEL, err,
                                "eps is %g; expected a number of at least 0", (double)state->eps);
    if (!isfinite(state->fraction))
        return shoal_layer_fail(layer, SHOAL_ERR_MODEL, err,
                                "moving_average_fraction is %g; expected a finite number",
                                (double)state->fraction);
    return SHOAL_OK;
}

static ShoalStatus batch_norm_setup(ShoalLayer *layer, ShoalError *err) {
    BatchNormState *state = layer->state;
    const Caffe__BatchNormParameter *param = layer->param->batch_norm_param;
    const ShoalBlob *bottom = layer->bottoms[0];
    char text[128];
    state->global = param && param->has_use_global_stats
                        ? param->use_global_stats
                        : layer->context->phase == CAFFE__PHASE__TEST;
    state->fraction = param ? param->moving_average_fraction : .999f;
    state->eps = param ? param->eps : 1e-5f;
    ShoalStatus status = check_param(layer, param, err);
    if (status)
        return status;
    if (bottom->axes < 2 || bottom->shape[1] < 1)
        return shoal_layer_fail(layer, SHOAL_ERR_MODEL, err,
                                "bottom '%s' is %s; expected 2 axes or more, and channels on axis "
                                "1",
                                bottom->name, shoal_blob_shape_text(bottom, text, sizeof text));
    const int batch = layer->context->batch_full;
    const unsigned part = param ? param->stats_batch_size : 0;
    layer->statistics_batch = state->global                        ? 0
                              : part > 0 && part < (unsigned)batch ? (int)part
                                                                   : batch;
    const int channels = bottom->shape[1], one = 1;
    status = shoal_layer_add_statistic(layer, 1, &channels, !state->global, err);
    if (!status)
        status = shoal_layer_add_statistic(layer, 1, &channels, !state->global, err);
    if (!status)
        status = shoal_layer_add_statistic(layer, 1, &one, !state->global, err);
    return status;
}

static ShoalStatus batch_norm_reshape(ShoalLayer *layer, ShoalError *err) {
    BatchNormState *state = layer->state;
    const ShoalBlob *bottom = layer->bottoms[0];
    size_t channels = layer->params[0]->blob.count;
    char text[128];
    if (bottom->axes < 2 || (size_t)bottom->shape[1] != channels)
        return shoal_layer_fail(layer, SHOAL_ERR_MODEL, err,
                                "bottom '%s' became %s; expected %zu channels on axis 1, as the "
                                "weights have",
                                bottom->name, shoal_blob_shape_text(bottom, text, sizeof text),
                                channels);
    state->shape = (ShoalChannelShape){(size_t)bottom->shape[0], channels,
                                       shoal_blob_count(bottom, 2, bottom->axes)};
    layer->saved_bytes =
        (values_offset(state) + (state->global ? 0 : bottom->count)) * sizeof(float);
    return shoal_layer_shape_top_like(layer, 0, bottom, err);
}

bool shoal_batch_norm_is_global(const ShoalLayer *layer) {
    return ((const BatchNormState *)layer->state)->global;
}

float shoal_batch_norm_eps(const ShoalLayer *layer) {
    return ((const BatchNormState *)layer->state)->eps;
}

void shoal_batch_norm_stored(const ShoalLayer *layer, float *mean, float *variance) {
    const float *means = layer->params[0]->blob.data, *variances = layer->params[1]->blob.data;
    float weights = layer->params[2]->blob.data[0];
    float scale = weights == 0 ? 0 : 1 / weights;
    for (size_t c = 0; c < layer->params[0]->blob.count; c++) {
        mean[c] = scale * means[c];
        variance[c] = scale * variances[c];
    }
}

void shoal_batch_norm_move(const ShoalLayer *layer, const float *mean, const float *variance) {
    const BatchNormState *state = layer->state;
    float *means = layer->params[0]->blob.data, *variances = layer->params[1]->blob.data;
    float *weights = layer->params[2]->blob.data;
    size_t m = state->shape.outer * state->shape.inner;
    float unbias = m > 1 ? (float)m / (float)(m - 1) : 1;
    weights[0] = weights[0] * state->fraction + 1;
    for (size_t c = 0; c < state->shape.channels; c++) {
        means[c] = mean[c] + state->fraction * means[c];
        variances[c] = unbias * variance[c] + state->fraction * variances[c];
    }
}

static ShoalStatus batch_norm_forward(ShoalLayer *layer, const ShoalCompute *compute,
                                      ShoalError *err) {
    (void)err;
    const BatchNormState *state = layer->state;
    const float *x = layer->bottoms[0]->data;
    float *y = layer->tops[0]->data, *inverse = layer->saved;
    float *mean = inverse + state->shape.channels, *variance = mean + state->shape.channels;
    if (layer->bottoms[0]->count == 0) /* a Filter let nothing through: no statistics */
        return SHOAL_OK;
    if (state->global) {
        shoal_batch_norm_stored(layer, mean, variance);
    } else {
        shoal_channel_moments(compute, &state->shape, x, mean, variance);
        shoal_batch_norm_move(layer, mean, variance);
    }
    for (size_t c = 0; c < state->shape.channels; c++)
        inverse[c] = 1 / sqrtf(variance[c] + state->eps);
    shoal_batch_norm_fwd(compute, &state->shape, x, mean, inverse, y);
    if (!state->global && layer->needs_backward)
        memcpy(inverse + values_offset(state), y, layer->bottoms[0]->count * sizeof *y);
    return SHOAL_OK;
}

static void batch_norm_backward(ShoalLayer *layer, const ShoalCompute *compute) {
    const BatchNormState *state = layer->state;
    if (!layer->propagate[0] || layer->bottoms[0]->count == 0)
        return;
    const float *inverse = layer->saved, *dy = layer->tops[0]->diff;
    float *dx = layer->bottoms[0]->diff;
    if (state->global)
        shoal_channel_affine(compute, &state->shape, dy, inverse, NULL, dx);
    else
        shoal_batch_norm_bwd(compute, &state->shape, inverse + values_offset(state), dy, inverse,
                             dx);
}

const ShoalLayerClass shoal_layer_batch_norm_class = {
    .type = "BatchNorm",
    .flags = SHOAL_LAYER_IN_PLACE | SHOAL_LAYER_BWD_NO_BOTTOM | SHOAL_LAYER_BWD_NO_TOP,
    .min_bottoms = 1,
    .max_bottoms = 1,
    .min_tops = 1,
    .max_tops = 1,
    .state_bytes = sizeof(BatchNormState),
    .setup = batch_norm_setup,
    .reshape = batch_norm_reshape,
    .forward = batch_norm_forward,
    .backward = batch_norm_backward,
};
