/* SPDX-License-Identifier: Apache-2.0 */
#include "net/layers/neuron.h"

#include <math.h>

/* ELU (Clevert et al. 2015): y = x where x > 0, else alpha * (e^x - 1). */

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
    for (size_t i = 0; i < n; i++)
        dx[i] = x[i] > 0 ? dy[i] : dy[i] * (s->alpha + y[i]);
}

static const ShoalNeuron NEURON = {forward_part, backward_part, true};
SHOAL_NEURON_FUNCTIONS(elu, NEURON)

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
