/* SPDX-License-Identifier: Apache-2.0 */
#include "net/layers/neuron.h"

/* Threshold: y = 1 where x > threshold, else 0. It has no gradient. */

typedef struct ThresholdState {
    float threshold;
} ThresholdState;

static ShoalStatus threshold_setup(ShoalLayer *layer, ShoalError *err) {
    ThresholdState *s = layer->state;
    (void)err;
    s->threshold = layer->param->threshold_param ? layer->param->threshold_param->threshold : 0;
    return SHOAL_OK;
}

static void forward_part(const void *state, size_t n, const float *x, float *y) {
    const ThresholdState *s = state;
    for (size_t i = 0; i < n; i++)
        y[i] = x[i] > s->threshold ? 1 : 0;
}

static const ShoalNeuron NEURON = {.forward = forward_part};

static ShoalStatus threshold_reshape(ShoalLayer *layer, ShoalError *err) {
    return shoal_neuron_reshape(layer, &NEURON, err);
}

static ShoalStatus threshold_forward(ShoalLayer *layer, const ShoalCompute *compute,
                                     ShoalError *err) {
    (void)err;
    shoal_neuron_forward(layer, &NEURON, compute);
    return SHOAL_OK;
}

const ShoalLayerClass shoal_layer_threshold_class = {
    .type = "Threshold",
    .flags = SHOAL_LAYER_IN_PLACE | SHOAL_LAYER_NO_BACKWARD | SHOAL_LAYER_BWD_NO_BOTTOM |
             SHOAL_LAYER_BWD_NO_TOP,
    .min_bottoms = 1,
    .max_bottoms = 1,
    .min_tops = 1,
    .max_tops = 1,
    .state_bytes = sizeof(ThresholdState),
    .setup = threshold_setup,
    .reshape = threshold_reshape,
    .forward = threshold_forward,
};
