/* SPDX-License-Identifier: Apache-2.0 */
#include "net/layers/layers.h"

/* HingeLoss: the mean over the samples of the sum over the classes of h (norm L1) or h^2 (L2),
 * where h = max(0, 1 - score) for the true class and max(0, 1 + score) for the others. */

static bool is_squared(const ShoalLayer *layer) {
    const Caffe__HingeLossParameter *param = layer->param->hinge_loss_param;
    return param && param->norm == CAFFE__HINGE_LOSS_PARAMETER__NORM__L2;
}

static ShoalStatus hinge_loss_reshape(ShoalLayer *layer, ShoalError *err) {
    ShoalLabelLayout *layout = layer->state;
    ShoalStatus status = shoal_layer_sample_layout(layer, layout, err);
    return status ? status : shoal_layer_shape_top(layer, 0, 0, NULL, err);
}

static float violation(const float *scores, int class, int label) {
    float value = 1 + (class == label ? -scores[class] : scores[class]);
    return value > 0 ? value : 0;
}

static ShoalStatus hinge_loss_forward(ShoalLayer *layer, const ShoalCompute *compute,
                                      ShoalError *err) {
    (void)compute;
    const ShoalLabelLayout *layout = layer->state;
    double sum = 0;
    for (size_t n = 0; n < layout->outer; n++) {
        int label;
        ShoalStatus status = shoal_layer_label_read(layer, layout, n, &label, err);
        if (status)
            return status;
        const float *scores = layer->bottoms[0]->data + n * (size_t)layout->classes;
        for (int c = 0; c < layout->classes; c++) {
            double value = (double)violation(scores, c, label);
            sum += is_squared(layer) ? value * value : value;
        }
    }
    layer->tops[0]->data[0] = (float)(sum / (double)layout->outer);
    return SHOAL_OK;
}

static void hinge_loss_backward(ShoalLayer *layer, const ShoalCompute *compute) {
    (void)compute;
    const ShoalLabelLayout *layout = layer->state;
    float factor = layer->tops[0]->diff[0] / (float)layout->outer;
    for (size_t n = 0; n < layout->outer && layer->propagate[0]; n++) {
        int label = (int)layer->bottoms[1]->data[n];
        size_t at = n * (size_t)layout->classes;
        for (int c = 0; c < layout->classes; c++) {
            float value = violation(layer->bottoms[0]->data + at, c, label);
            float slope = is_squared(layer) ? 2 * value : value > 0 ? 1 : 0;
            layer->bottoms[0]->diff[at + (size_t)c] = factor * (c == label ? -slope : slope);
        }
    }
}

const ShoalLayerClass shoal_layer_hinge_loss_class = {
    .type = "HingeLoss",
    .flags = SHOAL_LAYER_LOSS | SHOAL_LAYER_BWD_NO_TOP,
    .min_bottoms = 2,
    .max_bottoms = 2,
    .min_tops = 1,
    .max_tops = 1,
    .state_bytes = sizeof(ShoalLabelLayout),
    .reshape = hinge_loss_reshape,
    .forward = hinge_loss_forward,
    .backward = hinge_loss_backward,
    .no_gradient_bottoms = 1u << 1,
};
