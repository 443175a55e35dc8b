/* SPDX-License-Identifier: Apache-2.0 */
#include "net/layers/neuron.h"

#include <math.h>

/* Sigmoid: y = 1 / (1 + e^-x), computed as tanh(x / 2) / 2 + 1 / 2. */

static void forward_part(const void *state, size_t n, const float *x, float *y) {
    (void)state;
    for (size_t i = 0; i < n; i++)
        y[i] = 0.5f * tanhf(0.5f * x[i]) + 0.5f;
}

static void backward_part(const void *state, size_t n, const float *x, const float *y,
                          const float *dy, float *dx) {
    (void)x;
    (void)state;
    for (size_t i = 0; i < n; i++)
        dx[i] = dy[i] * y[i] * (1 - y[i]);
}

static const ShoalNeuron NEURON = {forward_part, backward_part, false};
SHOAL_NEURON_FUNCTIONS(sigmoid, NEURON)

const ShoalLayerClass shoal_layer_sigmoid_class = {
    .type = "Sigmoid",
    .flags = SHOAL_LAYER_IN_PLACE | SHOAL_LAYER_BWD_NO_BOTTOM,
    .min_bottoms = 1,
    .max_bottoms = 1,
    .min_tops = 1,
    .max_tops = 1,
    .reshape = sigmoid_reshape,
    .forward = sigmoid_forward,
    .backward = sigmoid_backward,
};
