/* SPDX-License-Identifier: Apache-2.0 */
#include "train/time_cost.h"

#include <string.h>

static double bytes_of(const ShoalBlob *blob) {
    return (double)blob->count * sizeof(float);
}

static double bytes_of_all(ShoalBlob *const *blobs, int n) {
    double bytes = 0;
    for (int i = 0; i < n; i++)
        bytes += bytes_of(blobs[i]);
    return bytes;
}

/* Of one pass: each weight of an output works on each of its places once. */
static double multiply_adds(const ShoalLayer *layer) {
    bool product =
        !strcmp(layer->class->type, "Convolution") || !strcmp(layer->class->type, "InnerProduct");
    if (!product || layer->n_params == 0)
        return 0;
    bool inner = layer->param->inner_product_param != NULL;
    double outputs = inner ? layer->param->inner_product_param->num_output
                           : layer->param->convolution_param->num_output;
    const ShoalBlob *weights = &layer->params[0]->blob;
    double macs = 0;
    for (int i = 0; i < layer->n_tops; i++)
        macs += (double)layer->tops[i]->count * ((double)weights->count / outputs);
    return macs;
}

static void add_backward(const ShoalLayer *layer, ShoalLayerCost *cost) {
    double weights = 0;
    int gradients = 0;
    for (int i = 0; i < layer->n_params; i++) {
        const ShoalParam *param = layer->params[i];
        weights += bytes_of(&param->blob) * (param->learns ? 3 : 1); /* read; gradient added to */
        gradients += i == 0 && param->learns;
    }
    unsigned flags = layer->class->flags;
    cost->backward_bytes = weights + bytes_of_all(layer->tops, layer->n_tops);
    if (!(flags & SHOAL_LAYER_BWD_NO_TOP))
        cost->backward_bytes += bytes_of_all(layer->tops, layer->n_tops);
    if (!(flags & SHOAL_LAYER_BWD_NO_BOTTOM))
        cost->backward_bytes += bytes_of_all(layer->bottoms, layer->n_bottoms);
    bool down = false;
    for (int i = 0; i < layer->n_bottoms; i++)
        if (layer->propagate[i]) {
            cost->backward_bytes += bytes_of(layer->bottoms[i]);
            down = true;
        }
    cost->backward_flop = 2 * multiply_adds(layer) * (gradients + down);
}

ShoalLayerCost shoal_layer_cost(const ShoalLayer *layer) {
    ShoalLayerCost cost = {0};
    unsigned flags = layer->class->flags;
    if (!(flags & (SHOAL_LAYER_SHARES_DATA | SHOAL_LAYER_SOURCE))) {
        cost.forward_flop = 2 * multiply_adds(layer);
        cost.forward_bytes = bytes_of_all(layer->bottoms, layer->n_bottoms) +
                             bytes_of_all(layer->tops, layer->n_tops);
        for (int i = 0; i < layer->n_params; i++)
            cost.forward_bytes += bytes_of(&layer->params[i]->blob);
    }
    if (layer->needs_backward && !(flags & SHOAL_LAYER_SHARES_DIFF))
        add_backward(layer, &cost);
    return cost;
}
