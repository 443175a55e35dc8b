/* SPDX-License-Identifier: Apache-2.0 */
#include "net/layers/neuron.h"

#include <math.h>

/* Exp: y = base ^ (shift + scale * x); base -1 is e. */

typedef struct ExpState {
    float inner, outer; /* y = outer * e^(inner * x) */
} ExpState;

static ShoalStatus exp_setup(ShoalLayer *layer, ShoalError *err) {
    ExpState *s = layer->state;
    const Caffe__ExpParameter *param = layer->param->exp_param;
    float base = param ? param->base_ : -1, scale = param ? param->scale : 1;
    float shift = param ? param->shift : 0;
    if (base != -1 && !(base > 0 && isfinite(base)))
        return shoal_layer_fail(layer, SHOAL_ERR_MODEL, err,
                                "base is %g; expected a number above 0, or -1 for e", (double)base);
    float log_base = base == -1 ? 1 : logf(base);
    s->inner = log_base * scale;
    s->outer = shift == 0 ? 1 : base == -1 ? expf(shift) : powf(base, shift);
    return SHOAL_OK;
}

static void forward_part(const void *state, size_t n, const float *x, float *y) {
    const ExpState *s = state;
    for (size_t i = 0; i < n; i++)
        y[i] = s->outer * expf(s->inner * x[i]);
}

static void backward_part(const void *state, size_t n, const float *x, const float *y,
                          const float *dy, float *dx) {
    (void)x;
    const ExpState *s = state;
    for (size_t i = 0; i < n; i++)
        dx[i] = dy[i] * y[i] * s->inner;
}

static const ShoalNeuron NEURON = {forward_part, backward_part, false};
SHOAL_NEURON_FUNCTIONS(exp, NEURON)

const ShoalLayerClass shoal_layer_exp_class = {
    .type = "Exp",
    .flags = SHOAL_LAYER_IN_PLACE | SHOAL_LAYER_BWD_NO_BOTTOM,
    .min_bottoms = 1,
    .max_bottoms = 1,
    .min_tops = 1,
    .max_tops = 1,
    .state_bytes = sizeof(ExpState),
    .setup = exp_setup,
    .reshape = exp_reshape,
    .forward = exp_forward,
    .backward = exp_backward,
};
