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

static bool is(const ShoalLayer *layer, const char *type) {
    return !strcmp(layer->class->type, type);
}

/* Each of `values` works with a row of the weights: they have `rows`. */
static double by_rows(const ShoalLayer *layer, ShoalBlob *const *values, int n, double rows) {
    double macs = 0;
    for (int i = 0; i < n; i++)
        macs += (double)values[i]->count * ((double)layer->params[0]->blob.count / rows);
    return macs;
}

/* Each matrix works on each step of each sequence, that of a static input on each sequence. With a
 * static input the number of weights is even (recurrent.c). */
static double by_steps(const ShoalLayer *layer) {
    const double steps = layer->bottoms[0]->shape[0], sequences = layer->bottoms[0]->shape[1];
    const int of_static = layer->n_params % 2 == 0 ? 2 : -1;
    double macs = 0;
    for (int i = 0; i < layer->n_params; i++)
        if (layer->params[i]->blob.axes == 2)
            macs += (double)layer->params[i]->blob.count * sequences * (i == of_static ? 1 : steps);
    return macs;
}

/* Of one pass. */
static double multiply_adds(const ShoalLayer *layer) {
    if (is(layer, "Convolution"))
        return by_rows(layer, layer->tops, layer->n_tops,
                       layer->param->convolution_param->num_output);
    if (is(layer, "InnerProduct"))
        return by_rows(layer, layer->tops, layer->n_tops,
                       layer->param->inner_product_param->num_output);
    if (is(layer, "Deconvolution")) /* a row for each channel of the bottom */
        return by_rows(layer, layer->bottoms, layer->n_bottoms, layer->params[0]->blob.shape[0]);
    if (is(layer, "LSTM") || is(layer, "RNN"))
        return by_steps(layer);
    return 0;
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
