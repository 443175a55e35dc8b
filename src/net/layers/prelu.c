/* SPDX-License-Identifier: Apache-2.0 */
#include "net/layers/layers.h"

#include <string.h>

/* PReLU (He et al. 2015): y = x where x > 0, else slope * x. The slope is a weight: one for each
 * channel (axis 1), or one for all; 0.25 by default. In place, x is kept for backward. */

typedef struct PreluState {
    size_t outer, channels, inner;
    bool shared;
    Caffe__FillerParameter quarter;
} PreluState;

static ShoalStatus prelu_setup(ShoalLayer *layer, ShoalError *err) {
    PreluState *state = layer->state;
    const Caffe__PReLUParameter *param = layer->param->prelu_param;
    const ShoalBlob *bottom = layer->bottoms[0];
    if (bottom->axes < 2)
        return shoal_layer_fail(layer, SHOAL_ERR_MODEL, err,
                                "bottom '%s' has %d axes; expected 2 or more, with the channels on "
                                "axis 1",
                                bottom->name, bottom->axes);
    state->shared = param && param->channel_shared;
    caffe__filler_parameter__init(&state->quarter);
    state->quarter.value = 0.25f;
    return shoal_layer_declare(layer, state->shared ? 0 : 1, &bottom->shape[1],
                               param && param->filler ? param->filler : &state->quarter, err);
}

static ShoalStatus prelu_reshape(ShoalLayer *layer, ShoalError *err) {
    PreluState *state = layer->state;
    const ShoalBlob *bottom = layer->bottoms[0];
    state->outer = (size_t)bottom->shape[0];
    state->channels = (size_t)bottom->shape[1];
    state->inner = shoal_blob_count(bottom, 2, bottom->axes);
    layer->scratch_bytes = state->channels * sizeof(double);
    layer->saved_bytes = layer->tops[0] == bottom ? bottom->count * sizeof(float) : 0;
    return shoal_layer_shape_top_like(layer, 0, bottom, err);
}

static float slope_of(const ShoalLayer *layer, size_t channel) {
    const PreluState *state = layer->state;
    return layer->params[0]->blob.data[state->shared ? 0 : channel];
}

static void forward_row(void *context, size_t row, unsigned thread) {
    const ShoalLayer *layer = context;
    const PreluState *state = layer->state;
    (void)thread;
    const float *x = layer->bottoms[0]->data + row * state->inner;
    float *y = layer->tops[0]->data + row * state->inner;
    float slope = slope_of(layer, row % state->channels);
    for (size_t i = 0; i < state->inner; i++)
        y[i] = x[i] > 0 ? x[i] : slope * x[i];
}

static ShoalStatus prelu_forward(ShoalLayer *layer, const ShoalCompute *compute, ShoalError *err) {
    (void)err;
    const PreluState *state = layer->state;
    if (layer->saved_bytes && layer->needs_backward)
        memcpy(layer->saved, layer->bottoms[0]->data, layer->saved_bytes);
    shoal_pool_run(compute->pool, state->outer * state->channels, forward_row, layer);
    return SHOAL_OK;
}

static void backward_channel(void *context, size_t channel, unsigned thread) {
    const ShoalLayer *layer = context;
    const PreluState *state = layer->state;
    (void)thread;
    const float *x = layer->saved_bytes ? layer->saved : layer->bottoms[0]->data;
    const float *dy = layer->tops[0]->diff;
    float *dx = layer->propagate[0] ? layer->bottoms[0]->diff : NULL;
    float slope = slope_of(layer, channel);
    double sum = 0;
    for (size_t n = 0; n < state->outer; n++) {
        size_t at = (n * state->channels + channel) * state->inner;
        for (size_t i = at; i < at + state->inner; i++) {
            if (!(x[i] > 0))
                sum += (double)dy[i] * (double)x[i];
            if (dx)
                dx[i] = x[i] > 0 ? dy[i] : slope * dy[i];
        }
    }
    ((double *)layer->scratch)[channel] = sum;
}

static void prelu_backward(ShoalLayer *layer, const ShoalCompute *compute) {
    const PreluState *state = layer->state;
    const double *sums = layer->scratch;
    ShoalParam *weight = layer->params[0];
    shoal_pool_run(compute->pool, state->channels, backward_channel, layer);
    if (!weight->learns)
        return;
    double all = 0;
    for (size_t c = 0; c < state->channels; c++) {
        all += sums[c];
        if (!state->shared)
            weight->blob.diff[c] += (float)sums[c];
    }
    if (state->shared)
        weight->blob.diff[0] += (float)all;
}

const ShoalLayerClass shoal_layer_prelu_class = {
    .type = "PReLU",
    .flags = SHOAL_LAYER_IN_PLACE | SHOAL_LAYER_BWD_NO_TOP,
    .min_bottoms = 1,
    .max_bottoms = 1,
    .min_tops = 1,
    .max_tops = 1,
    .state_bytes = sizeof(PreluState),
    .setup = prelu_setup,
    .reshape = prelu_reshape,
    .forward = prelu_forward,
    .backward = prelu_backward,
};
