/* SPDX-License-Identifier: Apache-2.0 */
#include "net/layers/layers.h"

#include <float.h>
#include <math.h>
#include <string.h>

/* SoftmaxWithLoss: bottom 0 scores, bottom 1 labels; top 0 the mean of -log max(p[label], FLT_MIN),
 * top 1 (optional) the probabilities. What the sum is divided by is loss_param.normalization. With
 * label_smoothing e (Szegedy et al. 2016, section 7) the target is 1 - e for the label and e / K
 * more for each of the K classes. Probabilities and labels are kept for backward, so that it needs
 * neither bottom nor top. */

typedef struct LossState {
    ShoalLabelLayout layout;
    ShoalLossNorm norm;
    float smoothing;
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
    state->layout.has_ignore = param && param->has_ignore_label;
    state->layout.ignore = param ? param->ignore_label : 0;
    state->smoothing = param ? param->label_smoothing : 0;
    if (!(state->smoothing >= 0 && state->smoothing < 1))
        return shoal_layer_fail(layer, SHOAL_ERR_MODEL, err,
                                "loss_param.label_smoothing is %g; expected at least 0 and less "
                                "than 1",
                                (double)state->smoothing);
    return shoal_layer_loss_norm(layer, CAFFE__LOSS_PARAMETER__NORMALIZATION_MODE__VALID,
                                 &state->norm, err);
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

static double loss_factor(const ShoalLayer *layer) {
    const LossState *state = layer->state;
    return shoal_layer_loss_factor(layer, state->norm, state->layout.outer, state->layout.inner,
                                   state->valid);
}

/* -log of a probability. Not fmaxf: NaN must stay NaN, so that divergence shows. */
static double cost(float p) {
    return -log((double)(p < FLT_MIN ? FLT_MIN : p));
}

/* The mean cost of all classes at a place. */
static double mean_cost(const ShoalLabelLayout *layout, const float *p) {
    double sum = 0;
    for (size_t c = 0; c < (size_t)layout->classes; c++)
        sum += cost(p[c * layout->inner]);
    return sum / (double)layout->classes;
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
            const float *at = p + i * classes * layout->inner + j;
            double own = cost(at[(size_t)label * layout->inner]);
            if (state->smoothing > 0)
                own += (double)state->smoothing * (mean_cost(layout, at) - own);
            sum += own;
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
            float *at = dx + i * classes * layout->inner + j;
            if (label >= 0)
                at[(size_t)label * layout->inner] -= 1 - state->smoothing;
            bool spread = label < 0 || state->smoothing > 0;
            for (size_t c = 0; c < classes && spread; c++)
                at[c * layout->inner] =
                    label < 0 ? 0
                              : at[c * layout->inner] - state->smoothing / (float)layout->classes;
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
