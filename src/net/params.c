/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/memory.h"
#include "net/filler.h"
#include "net/internal.h"

/* Weights: who owns them, where they lie, what they start with. */

enum { PARAM_ALIGN_FLOATS = SHOAL_ALIGN / sizeof(float) };

ShoalStatus shoal_layer_add_param(ShoalLayer *layer, int axes, const int *shape,
                                  const Caffe__FillerParameter *filler, ShoalError *err) {
    int index = layer->n_params;
    ShoalParam **params = shoal_calloc((size_t)index + 1, sizeof *params);
    ShoalParam *param = shoal_calloc(1, sizeof *param);
    if (!params || !param) {
        shoal_free(params);
        shoal_free(param);
        return shoal_error_memory(err, "a parameter", sizeof *param);
    }
    if (index)
        memcpy(params, layer->params, (size_t)index * sizeof *params);
    shoal_free(layer->params);
    layer->params = params;
    params[layer->n_params++] = param;
    const Caffe__ParamSpec *spec =
        (size_t)index < layer->param->n_param ? layer->param->param[index] : NULL;
    param->lr_mult = spec ? spec->lr_mult : 1;
    param->decay_mult = spec ? spec->decay_mult : 1;
    param->share_name = spec && spec->name && spec->name[0] ? spec->name : NULL;
    param->filler = filler;
    param->owner = param;
    param->layer = layer;
    param->index = index;
    param->blob.name = layer->param->name;
    return shoal_blob_reshape(&param->blob, axes, shape, err);
}

static ShoalStatus append_fixed_spec(ShoalLayer *layer, ShoalError *err) {
    /* Stored, not only meant: Caffe writes it into the caffemodel too. */
    Caffe__LayerParameter *param = (Caffe__LayerParameter *)layer->param;
    Caffe__ParamSpec *spec = malloc(sizeof *spec);
    Caffe__ParamSpec **specs = realloc(param->param, (param->n_param + 1) * sizeof *specs);
    if (specs)
        param->param = specs;
    if (!spec || !specs) {
        free(spec);
        return shoal_error_memory(err, "a parameter", sizeof *spec);
    }
    caffe__param_spec__init(spec);
    spec->has_lr_mult = 1;
    spec->lr_mult = 0;
    param->param[param->n_param++] = spec;
    return SHOAL_OK;
}

ShoalStatus shoal_layer_add_statistic(ShoalLayer *layer, int axes, const int *shape, bool moves,
                                      ShoalError *err) {
    size_t index = (size_t)layer->n_params;
    ShoalStatus status = SHOAL_OK;
    if (layer->param->n_param == index)
        status = append_fixed_spec(layer, err);
    else if (layer->param->param[index]->lr_mult != 0)
        status =
            shoal_error_set(err, SHOAL_ERR_MODEL,
                            "layer '%s': param %zu has lr_mult %g, but the weights of this "
                            "layer are statistics that do not learn; expected lr_mult: 0 or "
                            "no param",
                            layer->param->name, index, (double)layer->param->param[index]->lr_mult);
    if (!status)
        status = shoal_layer_add_param(layer, axes, shape, NULL, err);
    if (!status)
        layer->params[index]->statistic = moves;
    return status;
}

static ShoalParam *find_named(const ShoalNet *net, const ShoalParam *until) {
    for (int i = 0; i < net->n_layers; i++)
        for (int j = 0; j < net->layers[i].n_params; j++) {
            ShoalParam *param = net->layers[i].params[j];
            if (param == until)
                return NULL;
            if (param->share_name && !strcmp(param->share_name, until->share_name))
                return param;
        }
    return NULL;
}

static bool is_permissive(const ShoalParam *param) {
    const Caffe__ParamSpec *spec = param->layer->param->param[param->index];
    return spec->has_share_mode &&
           spec->share_mode == CAFFE__PARAM_SPEC__DIM_CHECK_MODE__PERMISSIVE;
}

/* Takes over a multiplier from the later of two sharers, or finds that they disagree. */
static bool merge_mult(float *owner, float sharer, bool owner_has, bool sharer_has) {
    if (sharer_has && owner_has)
        return *owner == sharer;
    if (sharer_has)
        *owner = sharer;
    return true;
}

/* `param { name: "x" }` on several layers: one memory (Net::AppendParam). */
static ShoalStatus share_by_name(const ShoalNet *net, ShoalParam *param, ShoalError *err) {
    ShoalParam *owner = find_named(net, param);
    if (!owner)
        return SHOAL_OK;
    bool fits = is_permissive(param) ? owner->blob.count == param->blob.count
                                     : shoal_blob_same_shape(&owner->blob, &param->blob);
    if (!fits) {
        char a[128], b[128];
        return shoal_error_set(
            err, SHOAL_ERR_MODEL,
            "layers '%s' and '%s' share parameter '%s', but its shapes differ: %s and %s%s",
            owner->layer->param->name, param->layer->param->name, param->share_name,
            shoal_blob_shape_text(&owner->blob, a, sizeof a),
            shoal_blob_shape_text(&param->blob, b, sizeof b),
            is_permissive(param) ? "" : " (share_mode: PERMISSIVE compares only the counts)");
    }
    Caffe__ParamSpec *theirs = owner->layer->param->param[owner->index];
    const Caffe__ParamSpec *ours = param->layer->param->param[param->index];
    bool agree = merge_mult(&owner->lr_mult, ours->lr_mult, theirs->has_lr_mult, ours->has_lr_mult);
    agree = merge_mult(&owner->decay_mult, ours->decay_mult, theirs->has_decay_mult,
                       ours->has_decay_mult) &&
            agree;
    if (!agree)
        return shoal_error_set(err, SHOAL_ERR_MODEL,
                               "layers '%s' and '%s' share parameter '%s', but give it different "
                               "lr_mult or decay_mult",
                               owner->layer->param->name, param->layer->param->name,
                               param->share_name);
    param->owner = owner;
    return SHOAL_OK;
}

static ShoalParam *param_of_other_net(const ShoalNet *other, const ShoalParam *param) {
    for (int i = 0; other && i < other->n_layers; i++) {
        const ShoalLayer *layer = &other->layers[i];
        if (layer->n_params > param->index &&
            !strcmp(layer->param->name, param->layer->param->name))
            return layer->params[param->index]->owner;
    }
    return NULL;
}

static ShoalStatus link_param(const ShoalNet *net, ShoalParam *param, ShoalError *err) {
    ShoalParam *other = param_of_other_net(net->weights_of, param);
    if (!other)
        return param->share_name ? share_by_name(net, param, err) : SHOAL_OK;
    if (other->blob.count != param->blob.count) {
        char a[128], b[128];
        return shoal_error_set(
            err, SHOAL_ERR_MODEL,
            "layer '%s', weight blob %d: the train net has shape %s, this net %s",
            param->layer->param->name, param->index,
            shoal_blob_shape_text(&other->blob, a, sizeof a),
            shoal_blob_shape_text(&param->blob, b, sizeof b));
    }
    param->owner = other;
    return SHOAL_OK;
}

/* The order in memory: what learns first, so that all gradients are one block; statistics last, so
 * that they are one too. */
enum { LEARNING, FIXED, STATISTICS, PLACES };

static int place_of(const ShoalParam *param) {
    return param->learns ? LEARNING : param->statistic ? STATISTICS : FIXED;
}

static size_t padded_count(const ShoalParam *param) {
    size_t values = param->blob.count + PARAM_ALIGN_FLOATS - 1;
    return values / PARAM_ALIGN_FLOATS * PARAM_ALIGN_FLOATS;
}

/* Gives memory to the owners. */
static ShoalStatus allocate(ShoalNet *net, ShoalError *err) {
    size_t counts[PLACES] = {0};
    for (int i = 0; i < net->n_owners; i++)
        counts[place_of(net->owners[i])] += padded_count(net->owners[i]);
    if (counts[STATISTICS])
        counts[STATISTICS] += PARAM_ALIGN_FLOATS;
    size_t count = counts[LEARNING] + counts[FIXED] + counts[STATISTICS];
    net->gradient_count = counts[LEARNING];
    net->statistic_count = counts[STATISTICS];
    net->data_count = count;
    net->param_data = shoal_calloc(count, sizeof(float));
    net->param_gradients = shoal_calloc(net->backward ? net->gradient_count : 0, sizeof(float));
    if (!net->param_data || !net->param_gradients)
        return shoal_error_memory(err, "the weights", 2 * count * sizeof(float));
    size_t at = 0;
    for (int place = 0; place < PLACES; place++)
        for (int i = 0; i < net->n_owners; i++) {
            ShoalParam *param = net->owners[i];
            if (place_of(param) != place)
                continue;
            param->blob.data = net->param_data + at;
            if (param->learns && net->backward)
                param->blob.diff = net->param_gradients + at;
            at += padded_count(param);
        }
    return SHOAL_OK;
}

ShoalStatus shoal_net_collect_params(ShoalNet *net, ShoalError *err) {
    int total = 0;
    for (int i = 0; i < net->n_layers; i++)
        total += net->layers[i].n_params;
    net->owners = shoal_calloc((size_t)total + 1, sizeof *net->owners);
    if (!net->owners)
        return shoal_error_memory(err, "the parameters", (size_t)total * sizeof *net->owners);
    for (int i = 0; i < net->n_layers; i++)
        for (int j = 0; j < net->layers[i].n_params; j++) {
            ShoalParam *param = net->layers[i].params[j];
            ShoalStatus status = link_param(net, param, err);
            if (status)
                return status;
            if (param->owner == param)
                net->owners[net->n_owners++] = param;
            else if (param->owner->layer->context == &net->context)
                param->owner->statistic |= param->statistic;
            net->moves_statistics |= param->statistic;
        }
    for (int i = 0; i < net->n_owners; i++)
        net->owners[i]->learns = net->owners[i]->lr_mult != 0;
    ShoalStatus status = allocate(net, err);
    for (int i = 0; !status && i < net->n_layers; i++)
        for (int j = 0; j < net->layers[i].n_params; j++) {
            ShoalParam *param = net->layers[i].params[j];
            param->learns = param->owner->learns;
            param->blob.data = param->owner->blob.data;
            param->blob.diff = net->backward ? param->owner->blob.diff : NULL;
        }
    return status;
}

ShoalStatus shoal_net_init_weights(ShoalNet *net, ShoalError *err) {
    for (int i = 0; i < net->n_owners; i++) {
        ShoalParam *param = net->owners[i];
        ShoalRng rng;
        shoal_rng_init(&rng, net->context.seed, SHOAL_RNG_FILLER, (uint32_t)i);
        ShoalStatus status = shoal_filler_fill(param->filler, &rng, &param->blob, err);
        if (status) {
            shoal_error_prefix(err, "layer '%s', weight blob %d", param->layer->param->name,
                               param->index);
            return status;
        }
    }
    return SHOAL_OK;
}

ShoalNetParams shoal_net_params(const ShoalNet *net) {
    return (ShoalNetParams){.data = net->param_data,
                            .gradients = net->param_gradients,
                            .data_count = net->data_count,
                            .gradient_count = net->gradient_count,
                            .statistic_count = net->statistic_count,
                            .moves_statistics = net->moves_statistics,
                            .items = net->owners,
                            .count = net->n_owners};
}
