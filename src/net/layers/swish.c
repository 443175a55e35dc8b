/* SPDX-License-Identifier: Apache-2.0 */
#include "net/layers/neuron.h"

#include <math.h>

/* Swish (Ramachandran et al. 2017): y = x * sigmoid(beta * x). */

typedef struct SwishState {
    float beta;
} SwishState;

static ShoalStatus swish_setup(ShoalLayer *layer, ShoalError *err) {
    SwishState *s = layer->state;
    (void)err;
    s->beta = layer->param->swish_param ? layer->param->swish_param->beta : 1;
    return SHOAL_OK;
}

static float sigmoid(float x) {
    return 0.5f * tanhf(0.5f * x) + 0.5f;
}

static void forward_part(const void *state, size_t n, const float *x, float *y) {
    const SwishState *s = state;
    for (size_t i = 0; i < n; i++)
        y[i] = x[i] * sigmoid(s->beta * x[i]);
}

static void backward_part(const void *state, size_t n, const float *x, const float *y,
                          const float *dy, float *dx) {
    const SwishState *s = state;
    (void)y;
    for (size_t i = 0; i < n; i++) {
        float share = sigmoid(s->beta * x[i]), value = s->beta * x[i] * share;
        dx[i] = dy[i] * (value + share * (1 - value));
    }
}

static const ShoalNeuron NEURON = {forward_part, backward_part, true};
SHOAL_NEURON_FUNCTIONS(swish, NEURON)

const ShoalLayerClass shoal_layer_swish_class = {
    .type = "Swish",
    .flags = SHOAL_LAYER_IN_PLACE | SHOAL_LAYER_BWD_NO_TOP,
    .min_bottoms = 1,
    .max_bottoms = 1,
    .min_tops = 1,
    .max_tops = 1,
    .state_bytes = sizeof(SwishState),
    .setup = swish_setup,
    .reshape = swish_reshape,
    .forward = swish_forward,
    .backward = swish_backward,
};
