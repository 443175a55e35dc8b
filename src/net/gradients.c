/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "base/error.h"
#include "net/internal.h"

/* Which layers run backward and which bottoms get a gradient (BVLC Caffe: Net::Init, from
 * "need_backward" to "force_backward"). A blob here stands for all its in-place versions; Caffe
 * goes by blob name and so does the same. */

static bool bottom_can_learn(const ShoalLayer *layer, int i) {
    return !(layer->class->flags & SHOAL_LAYER_NO_BACKWARD) &&
           !(i < 32 && (layer->class->no_gradient_bottoms >> i & 1));
}

static void mark_forward(ShoalNet *net) {
    for (int i = 0; i < net->n_layers; i++) {
        ShoalLayer *layer = &net->layers[i];
        bool needs = false;
        for (int j = 0; j < layer->n_bottoms; j++) {
            layer->propagate[j] = shoal_net_blob_of(layer->bottoms[j])->below_learns;
            if ((size_t)j < layer->param->n_propagate_down)
                layer->propagate[j] = layer->param->propagate_down[j];
            needs = needs || layer->propagate[j];
        }
        for (int j = 0; j < layer->n_params; j++)
            needs = needs || layer->params[j]->learns;
        layer->needs_backward = needs;
        for (int j = 0; needs && j < layer->n_tops; j++)
            shoal_net_blob_of(layer->tops[j])->below_learns = true;
    }
}

static void mark_layer_backward(ShoalLayer *layer) {
    bool contributes = false, skip = true;
    for (int j = 0; j < layer->n_tops; j++) {
        const ShoalNetBlob *top = shoal_net_blob_of(layer->tops[j]);
        if (layer->loss_weights[j] != 0 || top->under_loss)
            contributes = true;
        if (!top->skips)
            skip = false;
    }
    if (skip && layer->needs_backward) {
        layer->needs_backward = false;
        memset(layer->propagate, 0, (size_t)layer->n_bottoms * sizeof *layer->propagate);
    }
    if (!contributes)
        layer->needs_backward = false;
    for (int j = 0; j < layer->n_bottoms; j++) {
        ShoalNetBlob *bottom = shoal_net_blob_of(layer->bottoms[j]);
        if (contributes)
            bottom->under_loss = true;
        else
            layer->propagate[j] = false;
        if (!layer->propagate[j])
            bottom->skips = true;
    }
}

static ShoalStatus check_layer(const ShoalLayer *layer, ShoalError *err) {
    for (int j = 0; j < layer->n_bottoms; j++) {
        if (layer->propagate[j] && !bottom_can_learn(layer, j))
            return shoal_error_set(err, SHOAL_ERR_MODEL,
                                   "layer '%s' (%s) cannot pass a gradient to its bottom '%s', but "
                                   "layers below that learn ask for one; set propagate_down: false "
                                   "for it if that is meant",
                                   layer->param->name, layer->class->type, layer->bottoms[j]->name);
    }
    return SHOAL_OK;
}

/* force_backward: whatever the loss depends on gets a gradient, learning or not. */
static void force_layer(ShoalLayer *layer) {
    bool contributes = false;
    for (int j = 0; j < layer->n_tops; j++)
        if (layer->loss_weights[j] != 0 || shoal_net_blob_of(layer->tops[j])->under_loss)
            contributes = true;
    if (!contributes || (layer->class->flags & SHOAL_LAYER_NO_BACKWARD))
        return;
    for (int j = 0; j < layer->n_bottoms; j++)
        if (bottom_can_learn(layer, j))
            layer->propagate[j] = layer->needs_backward = true;
}

static void mark_diffs(ShoalNet *net) {
    for (int i = 0; i < net->n_layers; i++) {
        ShoalLayer *layer = &net->layers[i];
        if (!layer->needs_backward)
            continue;
        for (int j = 0; j < layer->n_tops; j++)
            shoal_net_blob_of(layer->tops[j])->has_diff = true;
        for (int j = 0; j < layer->n_bottoms; j++)
            if (layer->propagate[j]) {
                ShoalNetBlob *blob = shoal_net_blob_of(layer->bottoms[j]);
                blob->has_diff = true;
                blob->diff_writers++;
            }
    }
}

ShoalStatus shoal_net_find_gradients(ShoalNet *net, ShoalError *err) {
    mark_forward(net);
    for (int i = net->n_layers - 1; i >= 0; i--)
        mark_layer_backward(&net->layers[i]);
    for (int i = 0; i < net->n_layers; i++) {
        ShoalStatus status = check_layer(&net->layers[i], err);
        if (status)
            return status;
    }
    for (int i = 0; i < net->n_layers && net->force_backward; i++)
        force_layer(&net->layers[i]);
    mark_diffs(net);
    return SHOAL_OK;
}
