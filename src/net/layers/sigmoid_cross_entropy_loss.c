/* SPDX-License-Identifier: Apache-2.0 */
#include "net/layers/layers.h"

#include <math.h>

/* SigmoidCrossEntropyLoss: -sum of t log s(x) + (1 - t) log(1 - s(x)), s the sigmoid, t targets in
 * [0, 1]. Divided as loss_param.normalization says: by default by the batch size. */

typedef struct CrossEntropyState {
    ShoalLossNorm norm;
    bool has_ignore;
    int ignore;
    size_t valid;
} CrossEntropyState;

static ShoalStatus cross_entropy_setup(ShoalLayer *layer, ShoalError *err) {
    CrossEntropyState *state = layer->state;
    const Caffe__LossParameter *param = layer->param->loss_param;
    state->has_ignore = param && param->has_ignore_label;
    state->ignore = param ? param->ignore_label : 0;
    return shoal_layer_loss_norm(layer, CAFFE__LOSS_PARAMETER__NORMALIZATION_MODE__BATCH_SIZE,
                                 &state->norm, err);
}

static ShoalStatus cross_entropy_reshape(ShoalLayer *layer, ShoalError *err) {
    const ShoalBlob *x = layer->bottoms[0], *targets = layer->bottoms[1];
    if (x->axes == 0 || x->count != targets->count || targets->axes == 0 ||
        targets->shape[0] != x->shape[0]) {
        char a[128], b[128];
        return shoal_layer_fail(layer, SHOAL_ERR_MODEL, err,
                                "bottom '%s' is %s and '%s' is %s; expected as many values",
                                x->name, shoal_blob_shape_text(x, a, sizeof a), targets->name,
                                shoal_blob_shape_text(targets, b, sizeof b));
    }
    ShoalStatus status = shoal_layer_shape_top(layer, 0, 0, NULL, err);
    if (!status && layer->n_tops > 1) /* as some versions of Caffe: the losses of single values */
        status = shoal_layer_shape_top_like(layer, 1, x, err);
    return status;
}

static double factor_of(const ShoalLayer *layer) {
    const CrossEntropyState *state = layer->state;
    const ShoalBlob *x = layer->bottoms[0];
    return shoal_layer_loss_factor(layer, state->norm, (size_t)x->shape[0],
                                   shoal_blob_count(x, 1, x->axes), state->valid);
}

static bool counts(const CrossEntropyState *state, float target) {
    return !(state->has_ignore && target > -2147483648.0f && target < 2147483648.0f &&
             (int)target == state->ignore);
}

static ShoalStatus cross_entropy_forward(ShoalLayer *layer, const ShoalCompute *compute,
                                         ShoalError *err) {
    (void)compute;
    (void)err;
    CrossEntropyState *state = layer->state;
    const float *x = layer->bottoms[0]->data, *t = layer->bottoms[1]->data;
    double sum = 0;
    state->valid = 0;
    for (size_t i = 0; i < layer->bottoms[0]->count; i++) {
        double loss = 0, value = (double)x[i];
        if (counts(state, t[i])) {
            loss = log(1 + exp(-fabs(value))) - value * ((double)t[i] - (x[i] >= 0));
            state->valid++;
        }
        sum += loss;
        if (layer->n_tops > 1)
            layer->tops[1]->data[i] = (float)loss;
    }
    layer->tops[0]->data[0] = (float)(sum * factor_of(layer));
    return SHOAL_OK;
}

static void cross_entropy_backward(ShoalLayer *layer, const ShoalCompute *compute) {
    (void)compute;
    const CrossEntropyState *state = layer->state;
    const ShoalBlob *x = layer->bottoms[0];
    const float *t = layer->bottoms[1]->data;
    float factor = (float)((double)layer->tops[0]->diff[0] * factor_of(layer));
    for (size_t i = 0; i < x->count && layer->propagate[0]; i++) {
        float sigmoid = 0.5f * tanhf(0.5f * x->data[i]) + 0.5f;
        x->diff[i] = counts(state, t[i]) ? factor * (sigmoid - t[i]) : 0;
    }
}

const ShoalLayerClass shoal_layer_sigmoid_cross_entropy_loss_class = {
    .type = "SigmoidCrossEntropyLoss",
    .flags = SHOAL_LAYER_LOSS | SHOAL_LAYER_BWD_NO_TOP,
    .min_bottoms = 2,
    .max_bottoms = 2,
    .min_tops = 1,
    .max_tops = 2,
    .state_bytes = sizeof(CrossEntropyState),
    .setup = cross_entropy_setup,
    .reshape = cross_entropy_reshape,
    .forward = cross_entropy_forward,
    .backward = cross_entropy_backward,
    .no_gradient_bottoms = 1u << 1,
};
