/* SPDX-License-Identifier: Apache-2.0 */
#include <limits.h>

#include "base/error.h"
#include "base/memory.h"
#include "net/internal.h"
#include "net/plan.h"
#include "net/units.h"

/* Lifetimes of all buffers of a net, and their places. Step i is the forward of unit i of U; step
 * 2U - 1 - i its backward; step 2U lies after everything. */

static int forward_step(const ShoalNet *net, int layer) {
    return net->layer_unit[layer];
}

static int backward_step(const ShoalNet *net, int layer) {
    return 2 * net->n_units - 1 - net->layer_unit[layer];
}

static bool is_own_unit(const ShoalNet *net, int layer) {
    return net->units[net->layer_unit[layer]].kind == SHOAL_UNIT_LAYER;
}

static int add_item(ShoalNet *net, size_t bytes) {
    net->items[net->n_items] = (ShoalPlanItem){.bytes = bytes, .first = INT_MAX, .last = -1};
    return net->n_items++;
}

static void touch(const ShoalNet *net, int item, int step) {
    if (item < 0)
        return;
    ShoalPlanItem *it = &net->items[item];
    it->first = net->keep_all ? 0 : step < it->first ? step : it->first;
    it->last = net->keep_all ? 2 * net->n_units : step > it->last ? step : it->last;
}

/* A blob's data lies where its layer's bottom 0 lies when the layer shares it. */
static void assign_data_items(ShoalNet *net) {
    for (int i = 0; i < net->n_layers; i++) {
        ShoalLayer *layer = &net->layers[i];
        for (int j = 0; j < layer->n_tops; j++) {
            ShoalNetBlob *top = shoal_net_blob_of(layer->tops[j]);
            if ((layer->class->flags & SHOAL_LAYER_SHARES_DATA) && is_own_unit(net, i)) {
                ShoalNetBlob *bottom = shoal_net_blob_of(layer->bottoms[0]);
                top->data_item = bottom->data_item;
                top->external = bottom->external;
            } else if (top->data_item < 0 && !top->external) {
                top->data_item = add_item(net, top->capacity * sizeof(float));
            }
        }
    }
}

static void assign_diff_items(ShoalNet *net) {
    for (int i = 0; i < net->n_layers; i++) {
        ShoalLayer *layer = &net->layers[i];
        for (int j = 0; j < layer->n_tops; j++) {
            ShoalNetBlob *top = shoal_net_blob_of(layer->tops[j]);
            if (!top->has_diff || top->diff_item >= 0)
                continue;
            ShoalNetBlob *bottom = layer->n_bottoms ? shoal_net_blob_of(layer->bottoms[0]) : NULL;
            bool shares = layer->class->flags & SHOAL_LAYER_SHARES_DIFF;
            top->diff_item = j == 0 && shares && bottom && bottom->diff_item >= 0
                                 ? bottom->diff_item
                                 : add_item(net, top->capacity * sizeof(float));
        }
    }
}

static void touch_forward(ShoalNet *net, int i) {
    const ShoalLayer *layer = &net->layers[i];
    int step = forward_step(net, i);
    for (int j = 0; j < layer->n_bottoms; j++)
        touch(net, shoal_net_blob_of(layer->bottoms[j])->data_item, step);
    for (int j = 0; j < layer->n_tops; j++)
        touch(net, shoal_net_blob_of(layer->tops[j])->data_item, step);
}

static void touch_backward(ShoalNet *net, int i) {
    const ShoalLayer *layer = &net->layers[i];
    int step = backward_step(net, i);
    for (int j = 0; j < layer->n_bottoms; j++) {
        ShoalNetBlob *bottom = shoal_net_blob_of(layer->bottoms[j]);
        if (!(layer->class->flags & SHOAL_LAYER_BWD_NO_BOTTOM))
            touch(net, bottom->data_item, step);
        if (layer->propagate[j])
            touch(net, bottom->diff_item, step);
    }
    for (int j = 0; j < layer->n_tops; j++) {
        ShoalNetBlob *top = shoal_net_blob_of(layer->tops[j]);
        if (!(layer->class->flags & SHOAL_LAYER_BWD_NO_TOP))
            touch(net, top->data_item, step);
        touch(net, top->diff_item, step);
        if (layer->loss_weights[j] != 0) /* seeded before the first backward step */
            touch(net, top->diff_item, net->n_units);
    }
}

static void touch_private(ShoalNet *net, int i) {
    ShoalLayer *layer = &net->layers[i];
    int *items = &net->layer_items[3 * i];
    items[0] = add_item(net, layer->scratch_bytes);
    items[1] = add_item(net, layer->scratch_bytes);
    items[2] = add_item(net, layer->saved_bytes);
    touch(net, items[0], forward_step(net, i));
    touch(net, items[2], forward_step(net, i));
    if (net->backward && layer->needs_backward) {
        touch(net, items[1], backward_step(net, i));
        touch(net, items[2], backward_step(net, i));
    }
}

static void touch_all(ShoalNet *net) {
    for (int u = 0; u < net->n_units; u++)
        if (net->units[u].kind != SHOAL_UNIT_LAYER)
            shoal_unit_touch(net, u, touch);
    for (int i = 0; i < net->n_layers; i++) {
        if (!is_own_unit(net, i))
            continue;
        touch_forward(net, i);
        if (net->backward && net->layers[i].needs_backward)
            touch_backward(net, i);
        touch_private(net, i);
    }
    shoal_units_plan_again(net, touch);
    for (int i = 0; i < net->n_outputs; i++)
        touch(net, net->blobs[net->outputs[i]]->data_item, 2 * net->n_units);
}

ShoalStatus shoal_net_plan_memory(ShoalNet *net, ShoalError *err) {
    size_t most = 2 * (size_t)net->n_blobs + 3 * (size_t)net->n_layers + 4 * (size_t)net->n_values +
                  (size_t)net->n_units;
    net->items = shoal_calloc(most + 1, sizeof *net->items);
    net->layer_items = shoal_calloc(3 * (size_t)net->n_layers + 1, sizeof *net->layer_items);
    if (!net->items || !net->layer_items)
        return shoal_error_memory(err, "the memory plan", most * sizeof *net->items);
    assign_data_items(net);
    if (net->backward)
        assign_diff_items(net);
    shoal_units_assign_items(net, add_item);
    touch_all(net);
    net->workspace_bytes = shoal_units_workspace_bytes(net);
    return shoal_plan_place(net->items, (size_t)net->n_items, &net->arena_bytes, err);
}

static float *place(const ShoalNet *net, void *arena, int item) {
    if (item < 0 || net->items[item].last < 0)
        return NULL;
    return (float *)((unsigned char *)arena + net->items[item].offset);
}

void shoal_net_bind(ShoalNet *net, void *arena) {
    net->arena = arena;
    for (int i = 0; i < net->n_blobs; i++) {
        ShoalNetBlob *blob = net->blobs[i];
        if (!blob->external)
            blob->blob.data = place(net, arena, blob->data_item);
        blob->blob.diff = place(net, arena, blob->diff_item);
    }
    for (int i = 0; i < net->n_values; i++) {
        ShoalValue *value = &net->values[i];
        value->forward_data = value->data = place(net, arena, value->data_item);
        value->again_data = place(net, arena, value->again_item);
        value->grad = place(net, arena, value->grad_item);
        value->raw = place(net, arena, value->raw_item);
    }
    for (int i = 0; i < net->n_units; i++)
        net->units[i].place = (uint8_t *)place(net, arena, net->units[i].place_item);
}
