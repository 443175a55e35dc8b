/* SPDX-License-Identifier: Apache-2.0 */
#include "net/layers/layers.h"

#include <string.h>

/* Accuracy: bottom 0 scores, bottom 1 labels; top 0 the part of the labels whose class is among the
 * top_k scores, top 1 (optional) the same per class (0 for a class without labels). Ties count
 * against the true class: it is right when fewer than top_k other scores are >= its own. So does
 * NaN, in the true class or another (Caffe takes a NaN score of the true class as right). */

typedef struct AccuracyState {
    ShoalLabelLayout layout;
    uint32_t top_k;
} AccuracyState;

static ShoalStatus accuracy_setup(ShoalLayer *layer, ShoalError *err) {
    (void)err;
    AccuracyState *state = layer->state;
    const Caffe__AccuracyParameter *param = layer->param->accuracy_param;
    state->top_k = param ? param->top_k : 1;
    state->layout.has_ignore = param && param->has_ignore_label;
    state->layout.ignore = param ? param->ignore_label : 0;
    /* Then it is divided by numbers of labels that are not the same in every share. */
    layer->whole_batch = state->layout.has_ignore || layer->n_tops > 1;
    return SHOAL_OK;
}

static ShoalStatus accuracy_reshape(ShoalLayer *layer, ShoalError *err) {
    AccuracyState *state = layer->state;
    const Caffe__AccuracyParameter *param = layer->param->accuracy_param;
    ShoalStatus status =
        shoal_layer_label_layout(layer, param ? param->axis : 1, &state->layout, err);
    if (status != SHOAL_OK)
        return status;
    int classes = state->layout.classes;
    if (state->top_k < 1 || state->top_k > (uint32_t)classes)
        return shoal_layer_fail(layer, SHOAL_ERR_MODEL, err,
                                "top_k is %lu; expected 1 to the number of classes, %d",
                                (unsigned long)state->top_k, classes);
    status = shoal_layer_shape_top(layer, 0, 0, NULL, err);
    if (status == SHOAL_OK && layer->n_tops > 1) {
        status = shoal_layer_shape_top(layer, 1, 1, &classes, err);
        layer->scratch_bytes = (size_t)classes * sizeof(uint32_t);
    }
    return status;
}

/* Whether the class `label` is among the top_k of scores[0], scores[inner], ... */
static bool is_right(const AccuracyState *state, const float *scores, int label) {
    const ShoalLabelLayout *layout = &state->layout;
    float own = scores[(size_t)label * layout->inner];
    uint32_t others = 0;
    for (int c = 0; c < layout->classes && others < state->top_k; c++)
        others += c != label && !(scores[(size_t)c * layout->inner] < own);
    return own == own && others < state->top_k;
}

static void per_class_means(ShoalLayer *layer, const uint32_t *labels) {
    ShoalBlob *top = layer->tops[1];
    for (size_t c = 0; c < top->count; c++)
        top->data[c] = labels[c] ? top->data[c] / (float)labels[c] : 0;
}

static ShoalStatus accuracy_forward(ShoalLayer *layer, const ShoalCompute *compute,
                                    ShoalError *err) {
    (void)compute;
    const AccuracyState *state = layer->state;
    const ShoalLabelLayout *layout = &state->layout;
    uint32_t *class_labels = layer->n_tops > 1 ? layer->scratch : NULL;
    float *class_right = layer->n_tops > 1 ? layer->tops[1]->data : NULL;
    size_t counted = 0, right = 0, classes = (size_t)layout->classes;
    if (class_labels) {
        memset(class_labels, 0, classes * sizeof *class_labels);
        memset(class_right, 0, classes * sizeof *class_right);
    }
    for (size_t n = 0; n < layout->outer * layout->inner; n++) {
        int label = 0;
        ShoalStatus status = shoal_layer_label_read(layer, layout, n, &label, err);
        if (status != SHOAL_OK)
            return status;
        if (label < 0)
            continue;
        size_t i = n / layout->inner, j = n % layout->inner;
        bool ok = is_right(state, layer->bottoms[0]->data + i * classes * layout->inner + j, label);
        counted++;
        right += ok;
        if (class_labels) {
            class_labels[label]++;
            class_right[label] += ok;
        }
    }
    layer->tops[0]->data[0] = counted ? (float)((double)right / (double)counted) : 0;
    if (class_labels)
        per_class_means(layer, class_labels);
    return SHOAL_OK;
}

const ShoalLayerClass shoal_layer_accuracy_class = {
    .type = "Accuracy",
    .flags = SHOAL_LAYER_NO_BACKWARD | SHOAL_LAYER_BWD_NO_BOTTOM | SHOAL_LAYER_BWD_NO_TOP,
    .min_bottoms = 2,
    .max_bottoms = 2,
    .min_tops = 1,
    .max_tops = 2,
    .state_bytes = sizeof(AccuracyState),
    .setup = accuracy_setup,
    .reshape = accuracy_reshape,
    .forward = accuracy_forward,
    .no_gradient_bottoms = 3,
};
