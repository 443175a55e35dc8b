/* SPDX-License-Identifier: Apache-2.0 */
#include "net/layers/neuron.h"

#include <math.h>

/* ELU (Clevert et al. 2015): y = x where x > 0, else alpha * (e^x - 1). As long as alpha is not
 * below 0 the sign of y tells that of x, and nothing need be kept in place. */

typedef struct EluState {
    float alpha;
} EluState;

static ShoalStatus elu_setup(ShoalLayer *layer, ShoalError *err) {
    EluState *s = layer->state;
    (void)err;
    s->alpha = layer->param->elu_param ? layer->param->elu_param->alpha : 1;
    return SHOAL_OK;
}

static void forward_part(const void *state, size_t n, const float *x, float *y) {
    const EluState *s = state;
    for (size_t i = 0; i < n; i++)
        y[i] = x[i] > 0 ? x[i] : s->alpha * (expf(x[i]) - 1);
}

static void backward_part(const void *state, size_t n, const float *x, const float *y,
                          const float *dy, float *dx) {
    const EluState *s = state;
    const float *signs = x ? x : y;
    for (size_t i = 0; i < n; i++)
        dx[i] = signs[i] > 0 ? dy[i] : dy[i] * (s->alpha + y[i]);
}

static const ShoalNeuron BY_TOP = {forward_part, backward_part, false};
static const ShoalNeuron BY_BOTTOM = {forward_part, backward_part, true};

static const ShoalNeuron *neuron_of(const ShoalLayer *layer) {
    const EluState *s = layer->state;
    return s->alpha < 0 ? &BY_BOTTOM : &BY_TOP;
}

SHOAL_NEURON_FUNCTIONS(elu, *neuron_of(layer))

const ShoalLayerClass shoal_layer_elu_class = {
    .type = "ELU",
    .flags = SHOAL_LAYER_IN_PLACE,
    .min_bottoms = 1,
    .max_bottoms = 1,
    .min_tops = 1,
    .max_tops = 1,
    .state_bytes = sizeof(EluState),
    .setup = elu_setup,
    .reshape = elu_reshape,
    .forward = elu_forward,
    .backward = elu_backward,
};
