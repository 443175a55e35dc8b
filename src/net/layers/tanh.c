/* SPDX-License-Identifier: Apache-2.0 */
#include "net/layers/neuron.h"

#include <math.h>

/* TanH: y = tanh(x), dx = dy * (1 - y^2). */

static void forward_part(const void *state, size_t n, const float *x, float *y) {
    (void)state;
    for (size_t i = 0; i < n; i++)
        y[i] = tanhf(x[i]);
}

static void backward_part(const void *state, size_t n, const float *x, const float *y,
                          const float *dy, float *dx) {
    (void)x;
    (void)state;
    for (size_t i = 0; i < n; i++)
        dx[i] = dy[i] * (1 - y[i] * y[i]);
}

static const ShoalNeuron NEURON = {forward_part, backward_part, false};
SHOAL_NEURON_FUNCTIONS(tanh, NEURON)

const ShoalLayerClass shoal_layer_tanh_class = {
    .type = "TanH",
    .flags = SHOAL_LAYER_IN_PLACE | SHOAL_LAYER_BWD_NO_BOTTOM,
    .min_bottoms = 1,
    .max_bottoms = 1,
    .min_tops = 1,
    .max_tops = 1,
    .reshape = tanh_reshape,
    .forward = tanh_forward,
    .backward = tanh_backward,
};
