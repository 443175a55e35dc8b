/* SPDX-License-Identifier: Apache-2.0 */
#include "net/layers/layers.h"

#include <string.h>

/* Split: one blob to several consumers (the net puts it in where a blob has more than one). The
 * tops share the bottom's data; backward adds up their gradients, in order, as Caffe's does. */

static ShoalStatus split_reshape(ShoalLayer *layer, ShoalError *err) {
    for (int i = 0; i < layer->n_tops; i++) {
        ShoalStatus status = shoal_layer_shape_top_like(layer, i, layer->bottoms[0], err);
        if (status != SHOAL_OK)
            return status;
    }
    return SHOAL_OK;
}

static void split_backward(ShoalLayer *layer, const ShoalCompute *compute) {
    if (!layer->propagate[0])
        return;
    size_t n = layer->bottoms[0]->count;
    float *dx = layer->bottoms[0]->diff;
    const float *first = NULL;
    int summed = 0;
    /* A top without a diff (its consumers have no gradient) adds nothing. */
    for (int i = 0; i < layer->n_tops; i++) {
        const float *dy = layer->tops[i]->diff;
        if (!dy)
            continue;
        if (summed == 0)
            first = dy;
        else
            shoal_vec_add(compute, n, summed == 1 ? first : dx, dy, dx);
        summed++;
    }
    if (summed == 0)
        memset(dx, 0, n * sizeof *dx);
    else if (summed == 1 && first != dx)
        memcpy(dx, first, n * sizeof *dx);
}

const ShoalLayerClass shoal_layer_split_class = {
    .type = "Split",
    .flags = SHOAL_LAYER_SHARES_DATA | SHOAL_LAYER_BWD_NO_BOTTOM | SHOAL_LAYER_BWD_NO_TOP,
    .min_bottoms = 1,
    .max_bottoms = 1,
    .min_tops = 1,
    .max_tops = -1,
    .reshape = split_reshape,
    .backward = split_backward,
};
