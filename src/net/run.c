/* SPDX-License-Identifier: Apache-2.0 */
#include <stdatomic.h>
#include <string.h>

#include "base/error.h"
#include "net/internal.h"
#include "net/plan.h"
#include "net/units.h"

/* Execution of a planned net. */

static void *private_memory(const ShoalNet *net, int item, void *arena) {
    return net->items[item].last < 0 ? NULL : (unsigned char *)arena + net->items[item].offset;
}

/* What a layer gave in this pass may be less than the plan has room for, never more. */
static ShoalStatus reshape_above(ShoalNet *net, int number, ShoalError *err) {
    for (int i = number + 1; i < net->n_layers; i++) {
        ShoalLayer *layer = &net->layers[i];
        ShoalStatus status = layer->class->reshape(layer, err);
        if (status)
            return status;
        for (int j = 0; j < layer->n_tops; j++) {
            const ShoalNetBlob *top = shoal_net_blob_of(layer->tops[j]);
            if (top->blob.count > top->capacity)
                return shoal_error_set(err, SHOAL_ERR_MODEL,
                                       "blob '%s' grows when layer '%s' gives less; expected a net "
                                       "whose blobs do not",
                                       top->name, net->layers[number].param->name);
        }
    }
    return SHOAL_OK;
}

ShoalStatus shoal_layer_run_forward(ShoalNet *net, int number, const ShoalCompute *compute,
                                    ShoalError *err) {
    ShoalLayer *layer = &net->layers[number];
    if (layer->class->flags & SHOAL_LAYER_SHARES_DATA)
        for (int i = 0; i < layer->n_tops; i++)
            layer->tops[i]->data = layer->bottoms[0]->data;
    layer->scratch = private_memory(net, net->layer_items[3 * number], net->arena);
    layer->saved = private_memory(net, net->layer_items[3 * number + 2], net->arena);
    ShoalStatus status =
        layer->class->forward ? layer->class->forward(layer, compute, err) : SHOAL_OK;
    if (!status && layer->class->flags & SHOAL_LAYER_DYNAMIC)
        status = reshape_above(net, number, err);
    return status;
}

ShoalStatus shoal_net_forward_layer(ShoalNet *net, int number, const ShoalCompute *compute,
                                    ShoalError *err) {
    ShoalStatus status = SHOAL_OK;
    for (int u = net->layer_units[number]; u < net->layer_units[number + 1] && !status; u++)
        status = shoal_unit_forward(net, u, compute, err);
    return status;
}

static bool is_cancelled(const ShoalCompute *compute) {
    return compute->cancel && atomic_load_explicit(compute->cancel, memory_order_relaxed);
}

static void note_done(const ShoalCompute *compute) {
    if (compute->unit_done)
        compute->unit_done(compute->context);
}

ShoalStatus shoal_net_forward(ShoalNet *net, const ShoalCompute *compute, float *loss,
                              ShoalError *err) {
    float sum = 0;
    for (int i = 0; i < net->n_layers; i++) {
        if (is_cancelled(compute))
            return shoal_error_set(err, SHOAL_ERR_STOPPED, "the computation was cancelled");
        ShoalStatus status = shoal_net_forward_layer(net, i, compute, err);
        note_done(compute);
        if (status)
            return status;
        const ShoalLayer *layer = &net->layers[i];
        for (int j = 0; j < layer->n_tops; j++)
            for (size_t k = 0; layer->loss_weights[j] != 0 && k < layer->tops[j]->count; k++)
                sum += layer->loss_weights[j] * layer->tops[j]->data[k];
    }
    if (loss)
        *loss = sum;
    return SHOAL_OK;
}

static void fill(float *values, size_t n, float value) {
    for (size_t i = 0; i < n; i++)
        values[i] = value;
}

void shoal_net_seed_gradient(ShoalNet *net, float weight) {
    for (int i = 0; i < net->n_layers; i++) {
        const ShoalLayer *layer = &net->layers[i];
        for (int j = 0; j < layer->n_tops; j++)
            if (layer->loss_weights[j] != 0 && layer->tops[j]->diff)
                fill(layer->tops[j]->diff, layer->tops[j]->count, weight * layer->loss_weights[j]);
    }
}

/* A top that nobody above writes a gradient to has gradient 0, not what the arena held. */
static void clear_unwritten(const ShoalLayer *layer) {
    for (int i = 0; i < layer->n_tops; i++) {
        const ShoalNetBlob *top = shoal_net_blob_of(layer->tops[i]);
        if (top->diff_writers == 0 && layer->loss_weights[i] == 0 && top->blob.diff)
            memset(top->blob.diff, 0, top->blob.count * sizeof(float));
    }
}

void shoal_layer_run_backward(ShoalNet *net, int number, const ShoalCompute *compute) {
    ShoalLayer *layer = &net->layers[number];
    if (!layer->needs_backward || !layer->class->backward)
        return;
    layer->scratch = private_memory(net, net->layer_items[3 * number + 1], net->arena);
    clear_unwritten(layer);
    layer->class->backward(layer, compute);
}

void shoal_net_backward_layer(ShoalNet *net, int number, const ShoalCompute *compute) {
    for (int u = net->layer_units[number + 1] - 1; u >= net->layer_units[number]; u--)
        shoal_unit_backward(net, u, compute);
}

/* A shared parameter is complete only at its first layer, which owns it. */
static void tell_ready(const ShoalNet *net, int unit, ShoalGradientReady *ready, void *context) {
    for (int i = net->n_layers - 1; i >= 0; i--) {
        const ShoalLayer *layer = &net->layers[i];
        for (int j = layer->n_params - 1; net->layer_unit[i] == unit && j >= 0; j--)
            if (layer->params[j]->owner == layer->params[j] && layer->params[j]->learns)
                ready(context, layer->params[j]);
    }
}

void shoal_net_backward(ShoalNet *net, const ShoalCompute *compute, float weight,
                        ShoalGradientReady *ready, void *context) {
    shoal_net_seed_gradient(net, weight);
    for (int u = net->n_units - 1; u >= 0 && !is_cancelled(compute); u--) {
        shoal_unit_backward(net, u, compute);
        if (ready)
            tell_ready(net, u, ready, context);
        note_done(compute);
    }
}
