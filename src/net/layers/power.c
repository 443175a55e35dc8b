/* SPDX-License-Identifier: Apache-2.0 */
#include "net/layers/neuron.h"

#include <math.h>

/* Power: y = (shift + scale * x) ^ power. Where scale * power is 0 it is the constant shift ^ power
 * and has no gradient, also where x makes that 0 ^ 0, as in Caffe. */

typedef struct PowerState {
    float power, scale, shift;
} PowerState;

static ShoalStatus power_setup(ShoalLayer *layer, ShoalError *err) {
    PowerState *s = layer->state;
    const Caffe__PowerParameter *param = layer->param->power_param;
    (void)err;
    *s = (PowerState){param ? param->power : 1, param ? param->scale : 1, param ? param->shift : 0};
    return SHOAL_OK;
}

static void forward_part(const void *state, size_t n, const float *x, float *y) {
    const PowerState *s = state;
    float constant = s->power == 0 ? 1 : powf(s->shift, s->power);
    bool varies = s->power * s->scale != 0;
    for (size_t i = 0; i < n; i++) {
        float base = s->scale * x[i] + s->shift;
        y[i] = !varies         ? constant
               : s->power == 1 ? base
               : s->power == 2 ? base * base
                               : powf(base, s->power);
    }
}

static void backward_part(const void *state, size_t n, const float *x, const float *y,
                          const float *dy, float *dx) {
    const PowerState *s = state;
    (void)y;
    float factor = s->power * s->scale;
    for (size_t i = 0; i < n; i++) {
        float base = s->scale * x[i] + s->shift;
        float slope = factor == 0 || s->power == 1 ? factor
                      : s->power == 2              ? factor * base
                                                   : factor * powf(base, s->power - 1);
        dx[i] = dy[i] * slope;
    }
}

static const ShoalNeuron NEURON = {forward_part, backward_part, true};
SHOAL_NEURON_FUNCTIONS(power, NEURON)

const ShoalLayerClass shoal_layer_power_class = {
    .type = "Power",
    .flags = SHOAL_LAYER_IN_PLACE | SHOAL_LAYER_BWD_NO_TOP,
    .min_bottoms = 1,
    .max_bottoms = 1,
    .min_tops = 1,
    .max_tops = 1,
    .state_bytes = sizeof(PowerState),
    .setup = power_setup,
    .reshape = power_reshape,
    .forward = power_forward,
    .backward = power_backward,
};
