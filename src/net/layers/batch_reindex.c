/* SPDX-License-Identifier: Apache-2.0 */
#include "net/layers/layers.h"

#include <string.h>

/* BatchReindex: the samples of bottom 0 that the numbers in bottom 1 name, in that order. */

static ShoalStatus batch_reindex_reshape(ShoalLayer *layer, ShoalError *err) {
    const ShoalBlob *bottom = layer->bottoms[0], *index = layer->bottoms[1];
    int shape[SHOAL_MAX_AXES];
    if (index->axes != 1 || bottom->axes < 1)
        return shoal_layer_fail(layer, SHOAL_ERR_MODEL, err,
                                "'%s' has %d axes and '%s' %d; expected 1 or more, and 1",
                                bottom->name, bottom->axes, index->name, index->axes);
    memcpy(shape, bottom->shape, sizeof shape);
    shape[0] = index->shape[0];
    layer->whole_batch = true;
    return shoal_layer_shape_top(layer, 0, bottom->axes, shape, err);
}

/* Which sample number n of the top is; -1: none that there is. */
static long sample_of(const ShoalLayer *layer, size_t n) {
    float value = layer->bottoms[1]->data[n];
    return value >= 0 && value < (float)layer->bottoms[0]->shape[0] ? (long)value : -1;
}

static ShoalStatus batch_reindex_forward(ShoalLayer *layer, const ShoalCompute *compute,
                                         ShoalError *err) {
    (void)compute;
    const ShoalBlob *bottom = layer->bottoms[0], *top = layer->tops[0];
    size_t size = shoal_blob_count(bottom, 1, bottom->axes);
    for (size_t n = 0; n < layer->bottoms[1]->count; n++) {
        long from = sample_of(layer, n);
        if (from < 0)
            return shoal_layer_fail(
                layer, SHOAL_ERR_DATA, err, "number %zu of '%s' is %g; expected 0 to %d", n,
                layer->bottoms[1]->name, (double)layer->bottoms[1]->data[n], bottom->shape[0] - 1);
        memcpy(top->data + n * size, bottom->data + (size_t)from * size, size * sizeof(float));
    }
    return SHOAL_OK;
}

static void batch_reindex_backward(ShoalLayer *layer, const ShoalCompute *compute) {
    const ShoalBlob *bottom = layer->bottoms[0], *top = layer->tops[0];
    size_t size = shoal_blob_count(bottom, 1, bottom->axes);
    if (!layer->propagate[0])
        return;
    memset(bottom->diff, 0, bottom->count * sizeof(float));
    for (size_t n = 0; n < layer->bottoms[1]->count; n++) {
        float *dx = bottom->diff + (size_t)sample_of(layer, n) * size;
        shoal_vec_add(compute, size, dx, top->diff + n * size, dx);
    }
}

const ShoalLayerClass shoal_layer_batch_reindex_class = {
    .type = "BatchReindex",
    .flags = SHOAL_LAYER_BWD_NO_TOP,
    .min_bottoms = 2,
    .max_bottoms = 2,
    .min_tops = 1,
    .max_tops = 1,
    .reshape = batch_reindex_reshape,
    .forward = batch_reindex_forward,
    .backward = batch_reindex_backward,
    .no_gradient_bottoms = 1u << 1,
};
