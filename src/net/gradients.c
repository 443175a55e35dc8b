/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "base/error.h"
#include "base/memory.h"
#include "net/internal.h"

/* Which layers run backward and which bottoms get a gradient (BVLC Caffe: Net::Init, from
 * "need_backward" to "force_backward"). A blob here stands for all its in-place versions; Caffe
 * goes by blob name and so does the same. */

typedef struct Marks {
    bool *needs; /* per blob: something below it learns */
    bool *under_loss, *skip;
} Marks;

static int blob_number(const ShoalNet *net, const ShoalBlob *blob) {
    for (int i = 0; i < net->n_blobs; i++)
        if (&net->blobs[i]->blob == blob)
            return i;
    return -1;
}

static bool bottom_can_learn(const ShoalLayer *layer, int i) {
    return !(layer->class->flags & SHOAL_LAYER_NO_BACKWARD) &&
           !(i < 32 && (layer->class->no_gradient_bottoms >> i & 1));
}

static void mark_forward(ShoalNet *net, Marks *marks) {
    for (int i = 0; i < net->n_layers; i++) {
        ShoalLayer *layer = &net->layers[i];
        bool needs = false;
        for (int j = 0; j < layer->n_bottoms; j++) {
            layer->propagate[j] = marks->needs[blob_number(net, layer->bottoms[j])];
            if ((size_t)j < layer->param->n_propagate_down)
                layer->propagate[j] = layer->param->propagate_down[j];
            needs = needs || layer->propagate[j];
        }
        for (int j = 0; j < layer->n_params; j++)
            needs = needs || layer->params[j]->learns;
        layer->needs_backward = needs;
        for (int j = 0; needs && j < layer->n_tops; j++)
            marks->needs[blob_number(net, layer->tops[j])] = true;
    }
}

static void mark_layer_backward(ShoalNet *net, ShoalLayer *layer, Marks *marks) {
    bool contributes = false, skip = true;
    for (int j = 0; j < layer->n_tops; j++) {
        int top = blob_number(net, layer->tops[j]);
        if (layer->loss_weights[j] != 0 || marks->under_loss[top])
            contributes = true;
        if (!marks->skip[top])
            skip = false;
    }
    if (skip && layer->needs_backward) {
        layer->needs_backward = false;
        memset(layer->propagate, 0, (size_t)layer->n_bottoms * sizeof *layer->propagate);
    }
    if (!contributes)
        layer->needs_backward = false;
    for (int j = 0; j < layer->n_bottoms; j++) {
        int bottom = blob_number(net, layer->bottoms[j]);
        if (contributes)
            marks->under_loss[bottom] = true;
        else
            layer->propagate[j] = false;
        if (!layer->propagate[j])
            marks->skip[bottom] = true;
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
static void force_layer(const ShoalNet *net, ShoalLayer *layer, const Marks *marks) {
    bool contributes = false;
    for (int j = 0; j < layer->n_tops; j++)
        if (layer->loss_weights[j] != 0 || marks->under_loss[blob_number(net, layer->tops[j])])
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
    size_t n = (size_t)net->n_blobs + 1;
    bool *memory = shoal_calloc(3 * n, sizeof *memory);
    if (!memory)
        return shoal_error_memory(err, "the net's gradients", 3 * n);
    Marks marks = {memory, memory + n, memory + 2 * n};
    mark_forward(net, &marks);
    for (int i = net->n_layers - 1; i >= 0; i--)
        mark_layer_backward(net, &net->layers[i], &marks);
    ShoalStatus status = SHOAL_OK;
    for (int i = 0; i < net->n_layers && !status; i++)
        status = check_layer(&net->layers[i], err);
    for (int i = 0; i < net->n_layers && net->force_backward; i++)
        force_layer(net, &net->layers[i], &marks);
    if (!status)
        mark_diffs(net);
    shoal_free(memory);
    return status;
}
