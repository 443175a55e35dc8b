/* SPDX-License-Identifier: Apache-2.0 */
#include "net/layers/neuron.h"

/* Clip: y = x cut to [min, max]; the gradient passes where x is in it, borders included. */

typedef struct ClipState {
    float min, max;
} ClipState;

static ShoalStatus clip_setup(ShoalLayer *layer, ShoalError *err) {
    ClipState *s = layer->state;
    const Caffe__ClipParameter *param = layer->param->clip_param;
    if (!param)
        return shoal_layer_fail(layer, SHOAL_ERR_MODEL, err,
                                "no clip_param; expected one with min and max");
    *s = (ClipState){param->min, param->max};
    return s->min <= s->max ? SHOAL_OK
                            : shoal_layer_fail(layer, SHOAL_ERR_MODEL, err,
                                               "min is %g and max is %g; expected min below max",
                                               (double)s->min, (double)s->max);
}

static void forward_part(const void *state, size_t n, const float *x, float *y) {
    const ClipState *s = state;
    for (size_t i = 0; i < n; i++)
        y[i] = x[i] < s->min ? s->min : x[i] > s->max ? s->max : x[i];
}

static void backward_part(const void *state, size_t n, const float *x, const float *y,
                          const float *dy, float *dx) {
    const ClipState *s = state;
    (void)y;
    for (size_t i = 0; i < n; i++)
        dx[i] = x[i] >= s->min && x[i] <= s->max ? dy[i] : 0;
}

static const ShoalNeuron NEURON = {forward_part, backward_part, true};
SHOAL_NEURON_FUNCTIONS(clip, NEURON)

const ShoalLayerClass shoal_layer_clip_class = {
    .type = "Clip",
    .flags = SHOAL_LAYER_IN_PLACE | SHOAL_LAYER_BWD_NO_TOP,
    .min_bottoms = 1,
    .max_bottoms = 1,
    .min_tops = 1,
    .max_tops = 1,
    .state_bytes = sizeof(ClipState),
    .setup = clip_setup,
    .reshape = clip_reshape,
    .forward = clip_forward,
    .backward = clip_backward,
};
