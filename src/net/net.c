/* SPDX-License-Identifier: Apache-2.0 */
#include "net/net.h"

#include "base/error.h"
#include "base/memory.h"
#include "net/units.h"

/* Creation, destruction and the small questions; the rest is in the files that internal.h lists. */

/* What units of several layers have planned would not hold. */
static bool is_dynamic(const ShoalNet *net) {
    for (int i = 0; i < net->n_layers; i++)
        if (net->layers[i].class->flags & SHOAL_LAYER_DYNAMIC)
            return true;
    return false;
}

ShoalStatus shoal_net_create(const ShoalCaffeNet *model, const ShoalNetOptions *options,
                             ShoalNet **out, ShoalError *err) {
    ShoalNet *net = shoal_calloc(1, sizeof *net);
    if (!net)
        return shoal_error_memory(err, "a net", sizeof *net);
    const Caffe__NetParameter *param = model->param;
    net->context = (ShoalLayerContext){.phase = options->phase,
                                       .seed = options->seed,
                                       .threads = options->threads > 0 ? options->threads : 1,
                                       .source_shape = options->source_shape,
                                       .named_file = options->named_file,
                                       .writes_files = options->writes_files,
                                       .source_context = options->source_context};
    net->capacity = options->capacity;
    net->backward = options->backward;
    net->keep_all = options->keep_all;
    net->force_backward = param->has_force_backward && param->force_backward;
    net->weights_of = options->weights_of;
    net->kernels = options->keep_all ? NULL : options->kernels;
    net->fuse_all = options->fuse_all;
    net->winograd = !options->no_winograd;
    net->recompute = options->recompute;
    net->name = shoal_strdup(param->name ? param->name : "");
    ShoalStatus status = net->name ? SHOAL_OK : shoal_error_memory(err, "a net", 1);
    if (!status)
        status = shoal_graph_build(model, options->phase, options->state, &net->graph, err);
    if (!status && net->graph.count == 0)
        status =
            shoal_error_set(err, SHOAL_ERR_MODEL, "%s: the net has no layers in phase %s",
                            model->file, options->phase == CAFFE__PHASE__TRAIN ? "TRAIN" : "TEST");
    if (!status)
        status = shoal_net_wire(net, model, err);
    if (!status) {
        status = shoal_net_collect_params(net, err);
        if (!status)
            status = shoal_net_find_gradients(net, err);
        if (is_dynamic(net))
            net->kernels = NULL;
        if (!status)
            status = shoal_units_plan(net, err);
        if (!status)
            status = shoal_net_plan_memory(net, err);
        shoal_error_prefix(err, "%s", model->file);
    }
    if (status) {
        shoal_net_destroy(net);
        return status;
    }
    *out = net;
    return SHOAL_OK;
}

static void close_layer(ShoalLayer *layer) {
    if (layer->class && layer->class->close && layer->state)
        layer->class->close(layer);
    for (int i = 0; i < layer->n_params; i++)
        shoal_free(layer->params[i]);
    shoal_free(layer->params);
    shoal_free(layer->bottoms);
    shoal_free(layer->tops);
    shoal_free(layer->propagate);
    shoal_free(layer->loss_weights);
    shoal_free(layer->state);
}

void shoal_net_destroy(ShoalNet *net) {
    if (!net)
        return;
    for (int i = 0; i < net->n_layers; i++)
        close_layer(&net->layers[i]);
    for (int i = 0; i < net->n_blobs; i++) {
        shoal_free(net->blobs[i]->name);
        shoal_free(net->blobs[i]);
    }
    shoal_units_destroy(net);
    shoal_graph_close(&net->graph);
    shoal_free(net->layers);
    shoal_free(net->blobs);
    shoal_free(net->outputs);
    shoal_free(net->sources);
    shoal_free(net->owners);
    shoal_free(net->param_data);
    shoal_free(net->param_gradients);
    shoal_free(net->items);
    shoal_free(net->layer_items);
    shoal_free(net->name);
    shoal_free(net);
}

size_t shoal_net_arena_bytes(const ShoalNet *net) {
    return net->arena_bytes;
}

size_t shoal_net_workspace_bytes(const ShoalNet *net) {
    return net->workspace_bytes;
}

int shoal_net_sources(const ShoalNet *net) {
    return net->n_sources;
}

ShoalLayer *shoal_net_source(const ShoalNet *net, int n) {
    return &net->layers[net->sources[n]];
}

int shoal_net_batch(const ShoalNet *net) {
    return net->context.batch_full;
}

int shoal_net_capacity(const ShoalNet *net) {
    return net->capacity;
}

int shoal_net_layers(const ShoalNet *net) {
    return net->n_layers;
}

ShoalLayer *shoal_net_layer(const ShoalNet *net, int n) {
    return &net->layers[n];
}

int shoal_net_layer_unit(const ShoalNet *net, int n) {
    return net->units[net->layer_unit[n]].layer;
}

int shoal_net_outputs(const ShoalNet *net) {
    return net->n_outputs;
}

const ShoalBlob *shoal_net_output(const ShoalNet *net, int n) {
    return &net->blobs[net->outputs[n]]->blob;
}

size_t shoal_net_output_most(const ShoalNet *net, int n) {
    const ShoalNetBlob *blob = net->blobs[net->outputs[n]];
    return is_dynamic(net) ? blob->capacity : blob->blob.count;
}

float shoal_net_output_loss_weight(const ShoalNet *net, int n) {
    return net->blobs[net->outputs[n]]->loss_weight;
}

float shoal_layer_sum_scale(const ShoalLayer *layer) {
    return (float)layer->context->batch_full / (float)layer->context->batch_now;
}

int shoal_layer_share_of(const ShoalLayer *layer, int full) {
    return full == layer->context->batch_full ? layer->context->batch_now : full;
}

/* Among layers that take statistics over parts of the batch, or not, all do alike. */
static ShoalStatus statistics_unit(const ShoalNet *net, int *unit, ShoalError *err) {
    const ShoalLayer *first = NULL;
    for (int i = 0; i < net->n_layers; i++) {
        const ShoalLayer *layer = &net->layers[i];
        if (layer->statistics_batch == 0)
            continue;
        first = first ? first : layer;
        if (layer->statistics_batch != first->statistics_batch)
            return shoal_error_set(err, SHOAL_ERR_MODEL,
                                   "layer '%s' takes statistics over %d samples, layer '%s' over "
                                   "%d; expected one stats_batch_size for all",
                                   first->param->name, first->statistics_batch, layer->param->name,
                                   layer->statistics_batch);
    }
    const int batch = net->context.batch_full, n = first ? first->statistics_batch : batch;
    if (batch % n != 0)
        return shoal_error_set(err, SHOAL_ERR_MODEL,
                               "layer '%s' takes statistics over %d samples, and the batch has %d; "
                               "expected a multiple",
                               first->param->name, n, batch);
    *unit = n == batch ? 0 : n;
    return SHOAL_OK;
}

ShoalStatus shoal_net_unit(const ShoalNet *net, int *unit, ShoalError *err) {
    ShoalStatus status = statistics_unit(net, unit, err);
    for (int i = 0; i < net->n_layers && !status; i++) {
        if (!net->layers[i].whole_batch)
            continue;
        if (*unit != 0 && *unit != net->context.batch_full)
            return shoal_error_set(err, SHOAL_ERR_MODEL,
                                   "layer '%s' has to have its batch of %d whole, so no "
                                   "stats_batch_size can cut it into parts of %d",
                                   net->layers[i].param->name, net->context.batch_full, *unit);
        *unit = net->context.batch_full;
    }
    return status;
}
