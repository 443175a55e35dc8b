/* SPDX-License-Identifier: Apache-2.0 */
#include "net/layers/layers.h"

#include <math.h>

/* ContrastiveLoss (Hadsell et al. 2006): for pairs a, b of N x C (x 1 x 1) and a flag "similar"
 * each: the mean over N of half of d^2 for similar pairs, else of max(margin - d, 0)^2
 * (legacy_version: max(margin - d^2, 0)), d the distance. */

static const Caffe__ContrastiveLossParameter *param_of(const ShoalLayer *layer) {
    return layer->param->contrastive_loss_param;
}

static ShoalStatus contrastive_loss_reshape(ShoalLayer *layer, ShoalError *err) {
    const ShoalBlob *a = layer->bottoms[0], *b = layer->bottoms[1], *similar = layer->bottoms[2];
    bool fits = a->axes >= 2 && a->axes <= 4 && shoal_blob_same_shape(a, b) &&
                a->count == (size_t)a->shape[0] * (size_t)a->shape[1] &&
                similar->count == (size_t)a->shape[0];
    if (!fits)
        return shoal_layer_fail(layer, SHOAL_ERR_MODEL, err,
                                "expected '%s' and '%s' as N x C and '%s' with N numbers", a->name,
                                b->name, similar->name);
    return shoal_layer_shape_top(layer, 0, 0, NULL, err);
}

/* Caffe cuts the flag to an integer. */
static bool is_similar(const ShoalLayer *layer, size_t pair) {
    return !(fabsf(layer->bottoms[2]->data[pair]) < 1);
}

static double distance_squared(const ShoalLayer *layer, size_t pair, size_t size) {
    const float *a = layer->bottoms[0]->data + pair * size;
    const float *b = layer->bottoms[1]->data + pair * size;
    double sum = 0;
    for (size_t i = 0; i < size; i++) {
        double difference = (double)(a[i] - b[i]);
        sum += difference * difference;
    }
    return sum;
}

static ShoalStatus contrastive_loss_forward(ShoalLayer *layer, const ShoalCompute *compute,
                                            ShoalError *err) {
    (void)compute;
    (void)err;
    size_t n = (size_t)layer->bottoms[0]->shape[0], size = (size_t)layer->bottoms[0]->shape[1];
    double margin = param_of(layer) ? (double)param_of(layer)->margin : 1, sum = 0;
    bool legacy = param_of(layer) && param_of(layer)->legacy_version;
    for (size_t i = 0; i < n; i++) {
        double squared = distance_squared(layer, i, size);
        double missing = margin - (legacy ? squared : sqrt(squared));
        if (is_similar(layer, i))
            sum += squared;
        else if (!(missing <= 0)) /* NaN shows */
            sum += legacy ? missing : missing * missing;
    }
    layer->tops[0]->data[0] = (float)(sum / (double)n / 2);
    return SHOAL_OK;
}

/* What a - b must be multiplied by to be the gradient of the pair's loss; the 1e-4 is Caffe's. */
static double slope_of(const ShoalLayer *layer, size_t pair, size_t size) {
    double margin = param_of(layer) ? (double)param_of(layer)->margin : 1;
    bool legacy = param_of(layer) && param_of(layer)->legacy_version;
    if (is_similar(layer, pair))
        return 1;
    double squared = distance_squared(layer, pair, size), distance = sqrt(squared);
    double missing = margin - (legacy ? squared : distance);
    return missing <= 0 ? 0 : legacy ? -1 : -missing / (distance + 1e-4);
}

static void contrastive_loss_backward(ShoalLayer *layer, const ShoalCompute *compute) {
    (void)compute;
    const ShoalBlob *a = layer->bottoms[0], *b = layer->bottoms[1];
    size_t n = (size_t)a->shape[0], size = (size_t)a->shape[1];
    double factor = (double)layer->tops[0]->diff[0] / (double)n;
    for (size_t i = 0; i < n; i++) {
        float slope = (float)(factor * slope_of(layer, i, size));
        for (size_t k = i * size; k < (i + 1) * size; k++) {
            float difference = slope * (a->data[k] - b->data[k]);
            if (layer->propagate[0])
                a->diff[k] = difference;
            if (layer->propagate[1])
                b->diff[k] = -difference;
        }
    }
}

const ShoalLayerClass shoal_layer_contrastive_loss_class = {
    .type = "ContrastiveLoss",
    .flags = SHOAL_LAYER_LOSS | SHOAL_LAYER_BWD_NO_TOP,
    .min_bottoms = 3,
    .max_bottoms = 3,
    .min_tops = 1,
    .max_tops = 1,
    .reshape = contrastive_loss_reshape,
    .forward = contrastive_loss_forward,
    .backward = contrastive_loss_backward,
    .no_gradient_bottoms = 1u << 2,
};
