/* SPDX-License-Identifier: Apache-2.0 */
#include "net/layers/layers.h"

#include <string.h>

/* Silence: takes blobs that nobody wants, so that they are no outputs of the net. */

static ShoalStatus silence_reshape(ShoalLayer *layer, ShoalError *err) {
    (void)layer;
    (void)err;
    return SHOAL_OK;
}

static void silence_backward(ShoalLayer *layer, const ShoalCompute *compute) {
    (void)compute;
    for (int i = 0; i < layer->n_bottoms; i++)
        if (layer->propagate[i])
            memset(layer->bottoms[i]->diff, 0, layer->bottoms[i]->count * sizeof(float));
}

const ShoalLayerClass shoal_layer_silence_class = {
    .type = "Silence",
    .flags = SHOAL_LAYER_BWD_NO_BOTTOM | SHOAL_LAYER_BWD_NO_TOP,
    .min_bottoms = 1,
    .max_bottoms = -1,
    .min_tops = 0,
    .max_tops = 0,
    .reshape = silence_reshape,
    .backward = silence_backward,
};
