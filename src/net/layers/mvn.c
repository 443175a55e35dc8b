/* SPDX-License-Identifier: Apache-2.0 */
#include "net/layers/layers.h"

#include <math.h>
#include <string.h>

/* MVN: each channel of each sample (with across_channels: each sample) less its mean and, with
 * normalize_variance, divided by (its deviation + eps). As in Caffe the gradient takes eps for a
 * constant that changes nothing else: exact where the deviation is much larger. In place the
 * gradient is the same; Caffe's overwrites the top's diff there before it has read it all. */

typedef struct MvnState {
    bool variance, across;
    float eps;
    size_t rows, size;
} MvnState;

static ShoalStatus mvn_setup(ShoalLayer *layer, ShoalError *err) {
    MvnState *state = layer->state;
    const Caffe__MVNParameter *param = layer->param->mvn_param;
    (void)err;
    state->variance = !param || param->normalize_variance;
    state->across = param && param->across_channels;
    state->eps = param ? param->eps : 1e-9f;
    return SHOAL_OK;
}

static ShoalStatus mvn_reshape(ShoalLayer *layer, ShoalError *err) {
    MvnState *state = layer->state;
    const ShoalBlob *bottom = layer->bottoms[0];
    if (bottom->axes < 2 || bottom->axes > 4)
        return shoal_layer_fail(layer, SHOAL_ERR_MODEL, err,
                                "bottom '%s' has %d axes; expected 2 to 4, with the channels on "
                                "axis 1",
                                bottom->name, bottom->axes);
    state->rows = shoal_blob_count(bottom, 0, state->across ? 1 : 2);
    state->size = state->rows ? bottom->count / state->rows : 0;
    layer->saved_bytes = state->rows * sizeof(float);
    int shape[4] = {1, 1, 1, 1}; /* Caffe's top always has four axes */
    memcpy(shape, bottom->shape, (size_t)bottom->axes * sizeof *shape);
    return shoal_layer_shape_top(layer, 0, 4, shape, err);
}

static void forward_row(void *context, size_t row, unsigned thread) {
    const ShoalLayer *layer = context;
    const MvnState *state = layer->state;
    (void)thread;
    const float *x = layer->bottoms[0]->data + row * state->size;
    float *y = layer->tops[0]->data + row * state->size, *deviations = layer->saved;
    double sum = 0, squares = 0;
    for (size_t i = 0; i < state->size; i++)
        sum += (double)x[i];
    float mean = (float)(sum / (double)state->size);
    for (size_t i = 0; i < state->size; i++) {
        y[i] = x[i] - mean;
        squares += (double)y[i] * (double)y[i];
    }
    deviations[row] = (float)sqrt(squares / (double)state->size) + state->eps;
    for (size_t i = 0; i < state->size && state->variance; i++)
        y[i] /= deviations[row];
}

static ShoalStatus mvn_forward(ShoalLayer *layer, const ShoalCompute *compute, ShoalError *err) {
    const MvnState *state = layer->state;
    (void)err;
    shoal_pool_run(compute->pool, state->rows, forward_row, layer);
    return SHOAL_OK;
}

static void backward_row(void *context, size_t row, unsigned thread) {
    const ShoalLayer *layer = context;
    const MvnState *state = layer->state;
    (void)thread;
    const float *y = layer->tops[0]->data + row * state->size, *deviations = layer->saved;
    const float *dy = layer->tops[0]->diff + row * state->size;
    float *dx = layer->bottoms[0]->diff + row * state->size;
    double sum = 0, product = 0, n = (double)state->size;
    for (size_t i = 0; i < state->size; i++) {
        sum += (double)dy[i];
        product += (double)dy[i] * (double)y[i];
    }
    for (size_t i = 0; i < state->size; i++) {
        double value = (double)dy[i] - sum / n;
        if (state->variance)
            value = (value - (double)y[i] * product / n) / (double)deviations[row];
        dx[i] = (float)value;
    }
}

static void mvn_backward(ShoalLayer *layer, const ShoalCompute *compute) {
    const MvnState *state = layer->state;
    if (layer->propagate[0])
        shoal_pool_run(compute->pool, state->rows, backward_row, layer);
}

const ShoalLayerClass shoal_layer_mvn_class = {
    .type = "MVN",
    .flags = SHOAL_LAYER_IN_PLACE | SHOAL_LAYER_BWD_NO_BOTTOM,
    .min_bottoms = 1,
    .max_bottoms = 1,
    .min_tops = 1,
    .max_tops = 1,
    .state_bytes = sizeof(MvnState),
    .setup = mvn_setup,
    .reshape = mvn_reshape,
    .forward = mvn_forward,
    .backward = mvn_backward,
};
