/* SPDX-License-Identifier: Apache-2.0 */
#include "net/layers/neuron.h"

#include <math.h>

/* Log: y = log(shift + scale * x) to the base; base -1 is e. */

typedef struct LogState {
    float base_scale, scale, shift; /* base_scale: 1 / log(base) */
} LogState;

static ShoalStatus log_setup(ShoalLayer *layer, ShoalError *err) {
    LogState *s = layer->state;
    const Caffe__LogParameter *param = layer->param->log_param;
    float base = param ? param->base_ : -1;
    s->scale = param ? param->scale : 1;
    s->shift = param ? param->shift : 0;
    if (base != -1 && (!(base > 0 && isfinite(base)) || base == 1))
        return shoal_layer_fail(layer, SHOAL_ERR_MODEL, err,
                                "base is %g; expected a number above 0 other than 1, or -1 for e",
                                (double)base);
    s->base_scale = base == -1 ? 1 : 1 / logf(base);
    return SHOAL_OK;
}

static void forward_part(const void *state, size_t n, const float *x, float *y) {
    const LogState *s = state;
    for (size_t i = 0; i < n; i++)
        y[i] = logf(s->scale * x[i] + s->shift) * s->base_scale;
}

static void backward_part(const void *state, size_t n, const float *x, const float *y,
                          const float *dy, float *dx) {
    const LogState *s = state;
    (void)y;
    for (size_t i = 0; i < n; i++)
        dx[i] = dy[i] * s->scale * s->base_scale / (s->scale * x[i] + s->shift);
}

static const ShoalNeuron NEURON = {forward_part, backward_part, true};
SHOAL_NEURON_FUNCTIONS(log, NEURON)

const ShoalLayerClass shoal_layer_log_class = {
    .type = "Log",
    .flags = SHOAL_LAYER_IN_PLACE | SHOAL_LAYER_BWD_NO_TOP,
    .min_bottoms = 1,
    .max_bottoms = 1,
    .min_tops = 1,
    .max_tops = 1,
    .state_bytes = sizeof(LogState),
    .setup = log_setup,
    .reshape = log_reshape,
    .forward = log_forward,
    .backward = log_backward,
};
