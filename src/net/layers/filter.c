/* SPDX-License-Identifier: Apache-2.0 */
#include "net/layers/layers.h"

#include <string.h>

/* Filter: of each bottom but the last those samples for which the last, the selector, is not 0. How
 * many that are is known in forward only. */

static const ShoalBlob *selector_of(const ShoalLayer *layer) {
    return layer->bottoms[layer->n_bottoms - 1];
}

static ShoalStatus shape_tops(ShoalLayer *layer, int samples, ShoalError *err) {
    ShoalStatus status = SHOAL_OK;
    for (int i = 0; i < layer->n_tops && !status; i++) {
        int shape[SHOAL_MAX_AXES];
        memcpy(shape, layer->bottoms[i]->shape, sizeof shape);
        shape[0] = samples;
        status = shoal_layer_shape_top(layer, i, layer->bottoms[i]->axes, shape, err);
    }
    return status;
}

static ShoalStatus filter_reshape(ShoalLayer *layer, ShoalError *err) {
    const ShoalBlob *selector = selector_of(layer);
    if (layer->n_tops != layer->n_bottoms - 1)
        return shoal_layer_fail(layer, SHOAL_ERR_MODEL, err,
                                "%d bottoms and %d tops; expected a top for each bottom but the "
                                "last, the selector",
                                layer->n_bottoms, layer->n_tops);
    bool fits = selector->axes > 0 && selector->count == (size_t)selector->shape[0];
    for (int i = 0; i < layer->n_tops && fits; i++)
        fits = layer->bottoms[i]->axes > 0 && layer->bottoms[i]->shape[0] == selector->shape[0];
    if (!fits)
        return shoal_layer_fail(layer, SHOAL_ERR_MODEL, err,
                                "the selector '%s' does not have one number for each sample of "
                                "every bottom",
                                selector->name);
    layer->whole_batch = true;
    return shape_tops(layer, selector->shape[0], err);
}

static ShoalStatus filter_forward(ShoalLayer *layer, const ShoalCompute *compute, ShoalError *err) {
    (void)compute;
    const ShoalBlob *selector = selector_of(layer);
    int chosen = 0;
    for (size_t n = 0; n < selector->count; n++)
        chosen += selector->data[n] != 0;
    ShoalStatus status = shape_tops(layer, chosen, err);
    for (int i = 0; i < layer->n_tops && !status; i++) {
        const ShoalBlob *bottom = layer->bottoms[i];
        size_t size = shoal_blob_count(bottom, 1, bottom->axes);
        float *y = layer->tops[i]->data;
        for (size_t n = 0; n < selector->count; n++) {
            if (selector->data[n] == 0)
                continue;
            memcpy(y, bottom->data + n * size, size * sizeof *y);
            y += size;
        }
    }
    return status;
}

static void filter_backward(ShoalLayer *layer, const ShoalCompute *compute) {
    (void)compute;
    const ShoalBlob *selector = selector_of(layer);
    for (int i = 0; i < layer->n_bottoms; i++) {
        const ShoalBlob *bottom = layer->bottoms[i];
        if (!layer->propagate[i])
            continue;
        memset(bottom->diff, 0, bottom->count * sizeof(float));
        size_t size = shoal_blob_count(bottom, 1, bottom->axes);
        const float *dy = i < layer->n_tops ? layer->tops[i]->diff : NULL;
        for (size_t n = 0; dy && n < selector->count; n++) {
            if (selector->data[n] == 0)
                continue;
            memcpy(bottom->diff + n * size, dy, size * sizeof *dy);
            dy += size;
        }
    }
}

const ShoalLayerClass shoal_layer_filter_class = {
    .type = "Filter",
    .flags = SHOAL_LAYER_DYNAMIC | SHOAL_LAYER_BWD_NO_TOP,
    .min_bottoms = 2,
    .max_bottoms = -1,
    .min_tops = 1,
    .max_tops = -1,
    .reshape = filter_reshape,
    .forward = filter_forward,
    .backward = filter_backward,
};
