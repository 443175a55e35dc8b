/* SPDX-License-Identifier: Apache-2.0 */
#include "net/layers/layers.h"

#include <float.h>
#include <math.h>
#include <string.h>

/* SoftmaxWithLoss: bottom 0 scores, bottom 1 labels; top 0 the mean of -log max(p[label], FLT_MIN),
 * top 1 (optional) the probabilities. What the sum is divided by is loss_param.normalization.
 * Probabilities and labels are kept for backward, so that it needs neither bottom nor top. */

typedef struct LossState {
    ShoalLabelLayout layout;
    Caffe__LossParameter__NormalizationMode mode;
    size_t valid; /* labels of this share that count */
} LossState;

static float *saved_probabilities(const ShoalLayer *layer) {
    return layer->saved;
}

static int *saved_labels(const ShoalLayer *layer) {
    return (int *)(saved_probabilities(layer) + layer->bottoms[0]->count);
}

static ShoalStatus loss_setup(ShoalLayer *layer, ShoalError *err) {
    LossState *state = layer->state;
    const Caffe__LossParameter *param = layer->param->loss_param;
    state->mode = CAFFE__LOSS_PARAMETER__NORMALIZATION_MODE__VALID;
    if (!param)
        return SHOAL_OK;
    state->layout.has_ignore = param->has_ignore_label;
    state->layout.ignore = param->ignore_label;
    if (param->has_normalization)
        state->mode = param->normalization;
    else if (param->has_normalize && !param->normalize)
        state->mode = CAFFE__LOSS_PARAMETER__NORMALIZATION_MODE__BATCH_SIZE;
    if ((unsigned)state->mode > CAFFE__LOSS_PARAMETER__NORMALIZATION_MODE__NONE)
        return shoal_layer_fail(layer, SHOAL_ERR_MODEL, err,
                                "loss_param.normalization is the unknown mode %d; expected FULL, "
                                "VALID, BATCH_SIZE or NONE",
                                (int)state->mode);
    return SHOAL_OK;
}

static ShoalStatus loss_reshape(ShoalLayer *layer, ShoalError *err) {
    LossState *state = layer->state;
    const Caffe__SoftmaxParameter *param = layer->param->softmax_param;
    const ShoalBlob *scores = layer->bottoms[0], *labels = layer->bottoms[1];
    ShoalStatus status =
        shoal_layer_label_layout(layer, param ? param->axis : 1, &state->layout, err);
    if (status != SHOAL_OK)
        return status;
    char have[128], want[128];
    if (labels->axes == 0 || labels->shape[0] != scores->shape[0])
        return shoal_layer_fail(layer, SHOAL_ERR_MODEL, err,
                                "labels '%s' are %s and scores '%s' are %s; expected the same "
                                "first axis",
                                labels->name, shoal_blob_shape_text(labels, have, sizeof have),
                                scores->name, shoal_blob_shape_text(scores, want, sizeof want));
    layer->saved_bytes = scores->count * sizeof(float) + labels->count * sizeof(int);
    status = shoal_layer_shape_top(layer, 0, 0, NULL, err);
    if (status == SHOAL_OK && layer->n_tops > 1)
        status = shoal_layer_shape_top_like(layer, 1, scores, err);
    return status;
}

/* 1 / what Caffe divides by. NONE gives a sum over the share, made to stand for the batch. */
static double loss_factor(const ShoalLayer *layer) {
    const LossState *state = layer->state;
    const ShoalLabelLayout *layout = &state->layout;
    double n = 1;
    switch (state->mode) {
    case CAFFE__LOSS_PARAMETER__NORMALIZATION_MODE__FULL:
        n = (double)(layout->outer * layout->inner);
        break;
    case CAFFE__LOSS_PARAMETER__NORMALIZATION_MODE__VALID:
        n = (double)state->valid;
        break;
    case CAFFE__LOSS_PARAMETER__NORMALIZATION_MODE__BATCH_SIZE:
        n = (double)layout->outer;
        break;
    default:
        return (double)shoal_layer_sum_scale(layer);
    }
    return 1 / (n < 1 ? 1 : n);
}

static ShoalStatus read_labels(ShoalLayer *layer, ShoalError *err) {
    LossState *state = layer->state;
    int *labels = saved_labels(layer);
    size_t n = state->layout.outer * state->layout.inner, valid = 0;
    for (size_t i = 0; i < n; i++) {
        ShoalStatus status = shoal_layer_label_read(layer, &state->layout, i, &labels[i], err);
        if (status != SHOAL_OK)
            return status;
        valid += labels[i] >= 0;
    }
    state->valid = valid;
    return SHOAL_OK;
}

static ShoalStatus loss_forward(ShoalLayer *layer, const ShoalCompute *compute, ShoalError *err) {
    LossState *state = layer->state;
    const ShoalLabelLayout *layout = &state->layout;
    size_t classes = (size_t)layout->classes;
    float *p = saved_probabilities(layer);
    ShoalStatus status = read_labels(layer, err);
    if (status != SHOAL_OK)
        return status;
    shoal_softmax_fwd(compute, layout->outer, classes, layout->inner, layer->bottoms[0]->data, p);
    const int *labels = saved_labels(layer);
    double sum = 0;
    for (size_t i = 0; i < layout->outer; i++)
        for (size_t j = 0; j < layout->inner; j++) {
            int label = labels[i * layout->inner + j];
            if (label < 0)
                continue;
            float value = p[(i * classes + (size_t)label) * layout->inner + j];
            /* Not fmaxf: NaN must stay NaN, so that divergence shows. */
            sum -= log((double)(value < FLT_MIN ? FLT_MIN : value));
        }
    layer->tops[0]->data[0] = (float)(sum * loss_factor(layer));
    if (layer->n_tops > 1)
        memcpy(layer->tops[1]->data, p, layer->bottoms[0]->count * sizeof(float));
    return SHOAL_OK;
}

static void loss_backward(ShoalLayer *layer, const ShoalCompute *compute) {
    const LossState *state = layer->state;
    const ShoalLabelLayout *layout = &state->layout;
    if (!layer->propagate[0])
        return;
    size_t classes = (size_t)layout->classes, count = layer->bottoms[0]->count;
    const int *labels = saved_labels(layer);
    float *dx = layer->bottoms[0]->diff;
    memcpy(dx, saved_probabilities(layer), count * sizeof(float));
    for (size_t i = 0; i < layout->outer; i++)
        for (size_t j = 0; j < layout->inner; j++) {
            int label = labels[i * layout->inner + j];
            if (label >= 0)
                dx[(i * classes + (size_t)label) * layout->inner + j] -= 1;
            for (size_t c = 0; label < 0 && c < classes; c++)
                dx[(i * classes + c) * layout->inner + j] = 0;
        }
    double weight = (double)layer->tops[0]->diff[0] * loss_factor(layer);
    shoal_vec_scale(compute, count, (float)weight, dx);
}

const ShoalLayerClass shoal_layer_softmax_loss_class = {
    .type = "SoftmaxWithLoss",
    .flags = SHOAL_LAYER_LOSS | SHOAL_LAYER_BWD_NO_BOTTOM | SHOAL_LAYER_BWD_NO_TOP,
    .min_bottoms = 2,
    .max_bottoms = 2,
    .min_tops = 1,
    .max_tops = 2,
    .state_bytes = sizeof(LossState),
    .setup = loss_setup,
    .reshape = loss_reshape,
    .forward = loss_forward,
    .backward = loss_backward,
    .no_gradient_bottoms = 1u << 1,
};
