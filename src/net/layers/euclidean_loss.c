/* SPDX-License-Identifier: Apache-2.0 */
#include "net/layers/layers.h"

/* EuclideanLoss: sum of (a - b)^2 / (2 N), N samples. Both bottoms may get a gradient. */

static ShoalStatus euclidean_loss_reshape(ShoalLayer *layer, ShoalError *err) {
    const ShoalBlob *a = layer->bottoms[0], *b = layer->bottoms[1];
    if (a->axes == 0 || b->axes == 0 || a->shape[0] != b->shape[0] || a->count != b->count) {
        char have[128], want[128];
        return shoal_layer_fail(layer, SHOAL_ERR_MODEL, err,
                                "bottom '%s' is %s and '%s' is %s; expected as many samples of as "
                                "many values",
                                a->name, shoal_blob_shape_text(a, have, sizeof have), b->name,
                                shoal_blob_shape_text(b, want, sizeof want));
    }
    return shoal_layer_shape_top(layer, 0, 0, NULL, err);
}

static ShoalStatus euclidean_loss_forward(ShoalLayer *layer, const ShoalCompute *compute,
                                          ShoalError *err) {
    (void)compute;
    (void)err;
    const ShoalBlob *a = layer->bottoms[0], *b = layer->bottoms[1];
    double sum = 0;
    for (size_t i = 0; i < a->count; i++) {
        double difference = (double)(a->data[i] - b->data[i]);
        sum += difference * difference;
    }
    layer->tops[0]->data[0] = (float)(sum / (2 * (double)a->shape[0]));
    return SHOAL_OK;
}

static void euclidean_loss_backward(ShoalLayer *layer, const ShoalCompute *compute) {
    (void)compute;
    const ShoalBlob *a = layer->bottoms[0], *b = layer->bottoms[1];
    float factor = layer->tops[0]->diff[0] / (float)a->shape[0];
    for (size_t i = 0; i < a->count; i++) {
        float difference = factor * (a->data[i] - b->data[i]);
        if (layer->propagate[0])
            a->diff[i] = difference;
        if (layer->propagate[1])
            b->diff[i] = -difference;
    }
}

const ShoalLayerClass shoal_layer_euclidean_loss_class = {
    .type = "EuclideanLoss",
    .flags = SHOAL_LAYER_LOSS | SHOAL_LAYER_BWD_NO_TOP,
    .min_bottoms = 2,
    .max_bottoms = 2,
    .min_tops = 1,
    .max_tops = 1,
    .reshape = euclidean_loss_reshape,
    .forward = euclidean_loss_forward,
    .backward = euclidean_loss_backward,
};
