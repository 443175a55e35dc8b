/* SPDX-License-Identifier: Apache-2.0 */
#include "net/layers/layers.h"

#include <math.h>
#include <string.h>

/* MultinomialLogisticLoss: the mean over the samples of -log max(p[label], 1e-20), p given as
 * probabilities. */

static const float LEAST = 1e-20f; /* Caffe's kLOG_THRESHOLD */

static ShoalStatus multinomial_reshape(ShoalLayer *layer, ShoalError *err) {
    ShoalLabelLayout *layout = layer->state;
    ShoalStatus status = shoal_layer_sample_layout(layer, layout, err);
    return status ? status : shoal_layer_shape_top(layer, 0, 0, NULL, err);
}

static float chance_of(const ShoalLayer *layer, size_t n, int label) {
    const ShoalLabelLayout *layout = layer->state;
    float p = layer->bottoms[0]->data[n * (size_t)layout->classes + (size_t)label];
    return p < LEAST ? LEAST : p;
}

static ShoalStatus multinomial_forward(ShoalLayer *layer, const ShoalCompute *compute,
                                       ShoalError *err) {
    (void)compute;
    const ShoalLabelLayout *layout = layer->state;
    double sum = 0;
    for (size_t n = 0; n < layout->outer; n++) {
        int label;
        ShoalStatus status = shoal_layer_label_read(layer, layout, n, &label, err);
        if (status)
            return status;
        sum -= log((double)chance_of(layer, n, label));
    }
    layer->tops[0]->data[0] = (float)(sum / (double)layout->outer);
    return SHOAL_OK;
}

static void multinomial_backward(ShoalLayer *layer, const ShoalCompute *compute) {
    (void)compute;
    const ShoalLabelLayout *layout = layer->state;
    const ShoalBlob *bottom = layer->bottoms[0];
    if (!layer->propagate[0])
        return;
    float factor = -layer->tops[0]->diff[0] / (float)layout->outer;
    memset(bottom->diff, 0, bottom->count * sizeof(float));
    for (size_t n = 0; n < layout->outer; n++) {
        int label = (int)layer->bottoms[1]->data[n];
        bottom->diff[n * (size_t)layout->classes + (size_t)label] =
            factor / chance_of(layer, n, label);
    }
}

const ShoalLayerClass shoal_layer_multinomial_logistic_loss_class = {
    .type = "MultinomialLogisticLoss",
    .flags = SHOAL_LAYER_LOSS | SHOAL_LAYER_BWD_NO_TOP,
    .min_bottoms = 2,
    .max_bottoms = 2,
    .min_tops = 1,
    .max_tops = 1,
    .state_bytes = sizeof(ShoalLabelLayout),
    .reshape = multinomial_reshape,
    .forward = multinomial_forward,
    .backward = multinomial_backward,
    .no_gradient_bottoms = 1u << 1,
};
