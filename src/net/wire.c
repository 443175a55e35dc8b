/* SPDX-License-Identifier: Apache-2.0 */
#include <limits.h>
#include <stdlib.h>
#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "base/memory.h"
#include "net/units.h"

/* Layers and blobs of a net (BVLC Caffe: Net::Init, AppendBottom, AppendTop). */

static ShoalNetBlob *find_blob(const ShoalNet *net, const char *name) {
    for (int i = net->n_blobs - 1; i >= 0; i--)
        if (!strcmp(net->blobs[i]->name, name))
            return net->blobs[i];
    return NULL;
}

ShoalBlob *shoal_net_blob(const ShoalNet *net, const char *name) {
    ShoalNetBlob *blob = find_blob(net, name);
    return blob ? &blob->blob : NULL;
}

static ShoalNetBlob *add_blob(ShoalNet *net, const char *name) {
    if (net->n_blobs == net->blobs_size)
        return NULL; /* sized for all tops: cannot happen */
    ShoalNetBlob *blob = shoal_calloc(1, sizeof *blob);
    if (!blob || !(blob->name = shoal_strdup(name))) {
        shoal_free(blob);
        return NULL;
    }
    blob->blob.name = blob->name;
    blob->blob.count = 1;
    blob->data_item = blob->diff_item = -1;
    return net->blobs[net->n_blobs++] = blob;
}

static ShoalStatus wrong_number(const ShoalLayer *layer, const char *what, int found, int min,
                                int max, ShoalError *err) {
    char expected[64];
    if (max < 0)
        snprintf(expected, sizeof expected, "at least %d", min);
    else if (min == max)
        snprintf(expected, sizeof expected, "%d", min);
    else
        snprintf(expected, sizeof expected, "%d to %d", min, max);
    return shoal_error_set(err, SHOAL_ERR_MODEL, "layer '%s' (%s) has %d %s; it takes %s",
                           layer->param->name, layer->class->type, found, what, expected);
}

static ShoalStatus check_numbers(const ShoalLayer *layer, int n_tops, ShoalError *err) {
    const ShoalLayerClass *class = layer->class;
    int n_bottoms = (int)layer->param->n_bottom;
    if (n_bottoms < class->min_bottoms ||
        (class->max_bottoms >= 0 && n_bottoms > class->max_bottoms))
        return wrong_number(layer, "bottoms", n_bottoms, class->min_bottoms, class->max_bottoms,
                            err);
    if (n_tops < class->min_tops || (class->max_tops >= 0 && n_tops > class->max_tops))
        return wrong_number(layer, "tops", n_tops, class->min_tops, class->max_tops, err);
    size_t n_down = layer->param->n_propagate_down;
    if (n_down && n_down != (size_t)n_bottoms)
        return shoal_error_set(err, SHOAL_ERR_MODEL,
                               "layer '%s' has %zu propagate_down values for %d bottoms; give none "
                               "or one per bottom",
                               layer->param->name, n_down, n_bottoms);
    return SHOAL_OK;
}

static ShoalStatus wire_bottoms(ShoalNet *net, ShoalLayer *layer, ShoalError *err) {
    for (int i = 0; i < layer->n_bottoms; i++) {
        ShoalNetBlob *blob = find_blob(net, layer->param->bottom[i]);
        if (!blob || blob->consumed)
            return shoal_error_set(err, SHOAL_ERR_MODEL,
                                   "layer '%s': bottom '%s' is not a top of any layer before it",
                                   layer->param->name, layer->param->bottom[i]);
        blob->consumed = true;
        layer->bottoms[i] = &blob->blob;
    }
    return SHOAL_OK;
}

static ShoalStatus wire_top(ShoalNet *net, ShoalLayer *layer, int i, const char *name,
                            ShoalError *err) {
    const Caffe__LayerParameter *param = layer->param;
    if ((size_t)i < param->n_bottom && !strcmp(param->bottom[i], name)) {
        if (!(layer->class->flags & SHOAL_LAYER_IN_PLACE))
            return shoal_error_set(err, SHOAL_ERR_MODEL,
                                   "layer '%s' (%s) cannot work in place: give its top another "
                                   "name than its bottom '%s'",
                                   param->name, layer->class->type, name);
        layer->tops[i] = layer->bottoms[i];
        shoal_net_blob_of(layer->tops[i])->consumed = false; /* a new version of it */
        return SHOAL_OK;
    }
    if (find_blob(net, name))
        return shoal_error_set(err, SHOAL_ERR_MODEL,
                               "layer '%s': top '%s' is already the top of another layer",
                               param->name, name);
    ShoalNetBlob *blob = add_blob(net, name);
    if (!blob)
        return shoal_error_memory(err, "a blob", sizeof *blob);
    blob->external = layer->class->flags & SHOAL_LAYER_SOURCE;
    layer->tops[i] = &blob->blob;
    return SHOAL_OK;
}

/* A loss layer that names no top gets one, as in Caffe (AutoTopBlobs). */
static int needed_tops(const ShoalLayer *layer) {
    int named = (int)layer->param->n_top;
    bool automatic = layer->class->flags & SHOAL_LAYER_LOSS;
    return automatic && named < layer->class->min_tops ? layer->class->min_tops : named;
}

static ShoalStatus wire_tops(ShoalNet *net, ShoalLayer *layer, ShoalError *err) {
    for (int i = 0; i < layer->n_tops; i++) {
        char name[64];
        snprintf(name, sizeof name, "(automatic %d.%d)", layer->number, i);
        bool named = (size_t)i < layer->param->n_top;
        ShoalStatus status = wire_top(net, layer, i, named ? layer->param->top[i] : name, err);
        if (status)
            return status;
    }
    return SHOAL_OK;
}

static ShoalStatus set_loss_weights(ShoalLayer *layer, Caffe__LayerParameter *param,
                                    ShoalError *err) {
    if (param->n_loss_weight > (size_t)layer->n_tops)
        return shoal_error_set(err, SHOAL_ERR_MODEL,
                               "layer '%s' has %zu loss_weight values for %d tops", param->name,
                               param->n_loss_weight, layer->n_tops);
    if ((layer->class->flags & SHOAL_LAYER_LOSS) && param->n_loss_weight == 0) {
        /* Stored, not only meant: Caffe writes it into the caffemodel too. */
        float *one = malloc(sizeof *one);
        if (!one)
            return shoal_error_memory(err, "a loss weight", sizeof *one);
        *one = 1;
        free(param->loss_weight);
        param->loss_weight = one;
        param->n_loss_weight = 1;
    }
    for (size_t i = 0; i < param->n_loss_weight; i++) {
        layer->loss_weights[i] = param->loss_weight[i];
        shoal_net_blob_of(layer->tops[i])->loss_weight = param->loss_weight[i];
    }
    return SHOAL_OK;
}

static ShoalStatus allocate_layer(ShoalLayer *layer, ShoalError *err) {
    layer->n_bottoms = (int)layer->param->n_bottom;
    layer->bottoms = shoal_calloc((size_t)layer->n_bottoms + 1, sizeof *layer->bottoms);
    layer->propagate = shoal_calloc((size_t)layer->n_bottoms + 1, sizeof *layer->propagate);
    layer->tops = shoal_calloc((size_t)layer->n_tops + 1, sizeof *layer->tops);
    layer->loss_weights = shoal_calloc((size_t)layer->n_tops + 1, sizeof *layer->loss_weights);
    layer->state = shoal_calloc(1, layer->class->state_bytes);
    if (!layer->bottoms || !layer->propagate || !layer->tops || !layer->loss_weights ||
        !layer->state)
        return shoal_error_memory(err, "a layer", sizeof *layer);
    return SHOAL_OK;
}

/* batch_size of a layer that a dataset feeds; 0 for others. */
static int dataset_batch(const Caffe__LayerParameter *layer) {
    uint32_t batch = layer->data_param          ? layer->data_param->batch_size
                     : layer->image_data_param  ? layer->image_data_param->batch_size
                     : layer->window_data_param ? layer->window_data_param->batch_size
                     : layer->hdf5_data_param   ? layer->hdf5_data_param->batch_size
                                                : 0;
    return batch <= INT_MAX ? (int)batch : 0;
}

/* An iteration takes the same number of samples from each dataset. */
static ShoalStatus check_batch(const ShoalNet *net, const ShoalLayer *layer, ShoalError *err) {
    int batch = dataset_batch(layer->param);
    if (batch == 0 || batch == net->context.batch_full)
        return SHOAL_OK;
    return shoal_error_set(err, SHOAL_ERR_UNSUPPORTED,
                           "layer '%s' has batch_size %d, but the data layer before it has %d; "
                           "expected one batch_size for all data layers of a phase",
                           layer->param->name, batch, net->context.batch_full);
}

static ShoalStatus make_layer(ShoalNet *net, int number, ShoalError *err) {
    ShoalLayer *layer = &net->layers[number];
    Caffe__LayerParameter *param = net->graph.layers[number].param;
    layer->param = param;
    layer->number = number;
    layer->context = &net->context;
    if (!param->type || !param->type[0])
        return shoal_error_set(err, SHOAL_ERR_MODEL, "layer '%s' has no type", param->name);
    layer->class = shoal_layer_class_find(param->type);
    if (!layer->class)
        return shoal_error_set(err, SHOAL_ERR_MODEL,
                               "layer '%s': layer type '%s' is unknown to this version of Shoal",
                               param->name, param->type);
    net->n_layers = number + 1; /* from here on destroy looks at it */
    layer->n_tops = needed_tops(layer);
    ShoalStatus status = check_numbers(layer, layer->n_tops, err);
    if (!status)
        status = allocate_layer(layer, err);
    if (!status)
        status = wire_bottoms(net, layer, err);
    if (!status)
        status = wire_tops(net, layer, err);
    if (!status)
        status = set_loss_weights(layer, param, err);
    if (!status && layer->class->setup)
        status = layer->class->setup(layer, err);
    if (!status)
        status = check_batch(net, layer, err);
    if (!status)
        status = layer->class->reshape(layer, err);
    if (!status && param->n_param > (size_t)layer->n_params)
        status = shoal_error_set(err, SHOAL_ERR_MODEL,
                                 "layer '%s' has %zu `param` entries, but only %d weight blobs",
                                 param->name, param->n_param, layer->n_params);
    return status;
}

/* The first axis of what else brings data; 0 for other layers. */
static int shape_batch(const Caffe__LayerParameter *layer) {
    int64_t batch = 0;
    const Caffe__BlobShape *shape = NULL;
    if (layer->input_param && layer->input_param->n_shape)
        shape = layer->input_param->shape[0];
    if (layer->dummy_data_param && layer->dummy_data_param->n_shape)
        shape = layer->dummy_data_param->shape[0];
    if (shape && shape->n_dim)
        batch = shape->dim[0];
    else if (layer->dummy_data_param && layer->dummy_data_param->n_num)
        batch = layer->dummy_data_param->num[0];
    else if (layer->memory_data_param)
        batch = layer->memory_data_param->batch_size;
    return batch > 0 && batch <= INT_MAX ? (int)batch : 0;
}

/* What `batch` means for the net: that of the first dataset; without one, of the first other source
 * (beside a dataset, those may be constants). */
static int batch_of_graph(const ShoalGraph *graph) {
    int batch = 0;
    for (int i = 0; i < graph->count && batch == 0; i++)
        batch = dataset_batch(graph->layers[i].param);
    for (int i = 0; i < graph->count && batch == 0; i++)
        batch = shape_batch(graph->layers[i].param);
    return batch > 0 ? batch : 1;
}

ShoalStatus shoal_net_model_batch(const ShoalCaffeNet *model, Caffe__Phase phase,
                                  const Caffe__NetState *state, int *batch, ShoalError *err) {
    ShoalGraph graph;
    ShoalStatus status = shoal_graph_build(model, phase, state, &graph, err);
    if (status)
        return status;
    *batch = batch_of_graph(&graph);
    shoal_graph_close(&graph);
    return SHOAL_OK;
}

static void set_batch(ShoalNet *net, int capacity) {
    int batch = batch_of_graph(&net->graph);
    net->context.batch_full = batch;
    net->capacity = capacity > 0 && capacity < batch ? capacity : batch;
    net->context.batch_now = net->capacity;
}

static int by_name(const ShoalNet *net, int a, int b) {
    return strcmp(net->blobs[a]->name, net->blobs[b]->name);
}

/* Blobs that nobody consumes, sorted by name (Caffe keeps them in a std::set). */
static ShoalStatus collect_ends(ShoalNet *net, ShoalError *err) {
    net->outputs = shoal_calloc((size_t)net->n_blobs + 1, sizeof *net->outputs);
    net->sources = shoal_calloc((size_t)net->n_layers + 1, sizeof *net->sources);
    if (!net->outputs || !net->sources)
        return shoal_error_memory(err, "the net's outputs", (size_t)net->n_blobs * sizeof(int));
    for (int i = 0; i < net->n_blobs; i++) {
        if (net->blobs[i]->consumed)
            continue;
        int at = net->n_outputs++;
        for (; at > 0 && by_name(net, i, net->outputs[at - 1]) < 0; at--)
            net->outputs[at] = net->outputs[at - 1];
        net->outputs[at] = i;
    }
    for (int i = 0; i < net->n_layers; i++)
        if (net->layers[i].class->flags & SHOAL_LAYER_SOURCE)
            net->sources[net->n_sources++] = i;
    return SHOAL_OK;
}

ShoalStatus shoal_net_wire(ShoalNet *net, const ShoalCaffeNet *model, ShoalError *err) {
    set_batch(net, net->capacity);
    size_t tops = 0;
    for (int i = 0; i < net->graph.count; i++)
        tops += net->graph.layers[i].param->n_top + 2; /* + what AutoTopBlobs may add */
    net->blobs_size = (int)tops;
    net->blobs = shoal_calloc(tops + 1, sizeof *net->blobs);
    net->layers = shoal_calloc((size_t)net->graph.count + 1, sizeof *net->layers);
    if (!net->blobs || !net->layers)
        return shoal_error_memory(err, "the net", tops * sizeof *net->blobs);
    for (int i = 0; i < net->graph.count; i++) {
        ShoalStatus status = make_layer(net, i, err);
        if (status) {
            char where[512];
            const Caffe__LayerParameter *source = net->graph.layers[i].source;
            shoal_error_prefix(err, "%s",
                               shoal_caffe_net_where(model, source, where, sizeof where));
            return status;
        }
    }
    for (int i = 0; i < net->n_blobs; i++)
        net->blobs[i]->capacity = net->blobs[i]->blob.count;
    return collect_ends(net, err);
}

ShoalStatus shoal_net_set_share(ShoalNet *net, int samples, uint64_t first_sample,
                                const uint32_t *places, ShoalError *err) {
    if (samples < 1 || samples > net->capacity)
        return shoal_error_set(err, SHOAL_ERR_ARGUMENT,
                               "a share of %d samples does not fit this net: 1 to %d do", samples,
                               net->capacity);
    net->context.first_sample = first_sample;
    net->context.places = places;
    if (samples == net->context.batch_now)
        return SHOAL_OK;
    net->context.batch_now = samples;
    for (int i = 0; i < net->n_layers; i++) {
        ShoalStatus status = net->layers[i].class->reshape(&net->layers[i], err);
        if (status)
            return status;
    }
    for (int i = 0; i < net->n_blobs; i++)
        if (net->blobs[i]->blob.count > net->blobs[i]->capacity)
            return shoal_error_set(err, SHOAL_ERR_MODEL,
                                   "blob '%s' grows when the batch shrinks: this net cannot be "
                                   "shared out",
                                   net->blobs[i]->name);
    shoal_units_reshape(net);
    return SHOAL_OK;
}
