/* SPDX-License-Identifier: Apache-2.0 */
#include "net/layers/neuron.h"

#include <math.h>

/* BNLL: y = log(1 + e^x). As in Caffe the derivative is taken at 50 at most. */

static void forward_part(const void *state, size_t n, const float *x, float *y) {
    (void)state;
    for (size_t i = 0; i < n; i++)
        y[i] = x[i] > 0 ? x[i] + logf(1 + expf(-x[i])) : logf(1 + expf(x[i]));
}

static void backward_part(const void *state, size_t n, const float *x, const float *y,
                          const float *dy, float *dx) {
    (void)state;
    (void)y;
    for (size_t i = 0; i < n; i++) {
        float e = expf(x[i] < 50 ? x[i] : 50);
        dx[i] = dy[i] * e / (e + 1);
    }
}

static const ShoalNeuron NEURON = {forward_part, backward_part, true};
SHOAL_NEURON_FUNCTIONS(bnll, NEURON)

const ShoalLayerClass shoal_layer_bnll_class = {
    .type = "BNLL",
    .flags = SHOAL_LAYER_IN_PLACE | SHOAL_LAYER_BWD_NO_TOP,
    .min_bottoms = 1,
    .max_bottoms = 1,
    .min_tops = 1,
    .max_tops = 1,
    .reshape = bnll_reshape,
    .forward = bnll_forward,
    .backward = bnll_backward,
};
