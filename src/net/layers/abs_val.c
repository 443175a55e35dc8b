/* SPDX-License-Identifier: Apache-2.0 */
#include "net/layers/neuron.h"

#include <math.h>

/* AbsVal: y = |x|, dx = dy * sign(x), sign(0) = 0. */

static void forward_part(const void *state, size_t n, const float *x, float *y) {
    (void)state;
    for (size_t i = 0; i < n; i++)
        y[i] = fabsf(x[i]);
}

static void backward_part(const void *state, size_t n, const float *x, const float *y,
                          const float *dy, float *dx) {
    (void)state;
    (void)y;
    for (size_t i = 0; i < n; i++)
        dx[i] = dy[i] * (float)((x[i] > 0) - (x[i] < 0));
}

static const ShoalNeuron NEURON = {forward_part, backward_part, true};
SHOAL_NEURON_FUNCTIONS(abs_val, NEURON)

const ShoalLayerClass shoal_layer_abs_val_class = {
    .type = "AbsVal",
    .flags = SHOAL_LAYER_IN_PLACE | SHOAL_LAYER_BWD_NO_TOP,
    .min_bottoms = 1,
    .max_bottoms = 1,
    .min_tops = 1,
    .max_tops = 1,
    .reshape = abs_val_reshape,
    .forward = abs_val_forward,
    .backward = abs_val_backward,
};
