/* SPDX-License-Identifier: Apache-2.0 */
#include "net/graph.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/memory.h"

typedef struct NetState {
    Caffe__Phase phase;
    int level;
    char **stages; /* borrowed strings */
    size_t n_stages;
} NetState;

static bool has_stage(char *const *stages, size_t n_stages, const char *stage) {
    for (size_t i = 0; i < n_stages; i++)
        if (!strcmp(stages[i], stage))
            return true;
    return false;
}

bool shoal_graph_state_meets(const Caffe__NetStateRule *rule, Caffe__Phase phase, int level,
                             char *const *stages, size_t n_stages) {
    if (rule->has_phase && rule->phase != phase)
        return false;
    if (rule->has_min_level && level < rule->min_level)
        return false;
    if (rule->has_max_level && level > rule->max_level)
        return false;
    for (size_t i = 0; i < rule->n_stage; i++)
        if (!has_stage(stages, n_stages, rule->stage[i]))
            return false;
    for (size_t i = 0; i < rule->n_not_stage; i++)
        if (has_stage(stages, n_stages, rule->not_stage[i]))
            return false;
    return true;
}

static bool any_rule_met(Caffe__NetStateRule *const *rules, size_t n, const NetState *state) {
    for (size_t i = 0; i < n; i++)
        if (shoal_graph_state_meets(rules[i], state->phase, state->level, state->stages,
                                    state->n_stages))
            return true;
    return false;
}

static bool layer_is_kept(const Caffe__LayerParameter *layer, const NetState *state) {
    if (layer->n_include == 0)
        return !any_rule_met(layer->exclude, layer->n_exclude, state);
    return any_rule_met(layer->include, layer->n_include, state);
}

/* A copy of a layer without its blobs: a caffemodel's weights are not copied just to be dropped. It
 * always has a name. */
static Caffe__LayerParameter *copy_layer(const Caffe__LayerParameter *layer) {
    static char no_name[] = "";
    Caffe__LayerParameter bare = *layer;
    bare.n_blobs = 0;
    bare.blobs = NULL;
    bare.name = bare.name ? bare.name : no_name;
    return (Caffe__LayerParameter *)shoal_caffe_copy(&bare.base);
}

static ShoalStatus append(ShoalGraph *graph, Caffe__LayerParameter *param,
                          const Caffe__LayerParameter *source, Caffe__Phase phase,
                          ShoalError *err) {
    if (!param)
        return shoal_error_memory(err, "a layer", sizeof *param);
    if (!param->has_phase) {
        param->has_phase = 1;
        param->phase = phase;
    }
    graph->layers[graph->count++] = (ShoalGraphLayer){.param = param, .source = source};
    return SHOAL_OK;
}

static bool is_batch_norm(const Caffe__LayerParameter *layer) {
    return layer->type && !strcmp(layer->type, "BatchNorm");
}

/* Intel Caffe: what the net says of statistics holds for each BatchNorm (ApplyBnStatsBatchSize). */
static ShoalStatus set_statistics_batch(const Caffe__NetParameter *net,
                                        Caffe__LayerParameter *layer, ShoalError *err) {
    if (!net->has_bn_stats_batch_size || !is_batch_norm(layer))
        return SHOAL_OK;
    if (!layer->batch_norm_param) {
        layer->batch_norm_param = malloc(sizeof *layer->batch_norm_param);
        if (!layer->batch_norm_param)
            return shoal_error_memory(err, "a layer", sizeof *layer->batch_norm_param);
        caffe__batch_norm_parameter__init(layer->batch_norm_param);
    }
    layer->batch_norm_param->has_stats_batch_size = 1;
    layer->batch_norm_param->stats_batch_size = net->bn_stats_batch_size;
    return SHOAL_OK;
}

/* ---- BatchNorm with a factor and a bias of its own ---- */

/* NVCaffe's BatchNorm that scales (BatchNormLayer::LayerSetUp): a plain one and a Scale layer that
 * works in place on its top. */
static bool scales(const Caffe__LayerParameter *layer) {
    const Caffe__BatchNormParameter *param = layer->batch_norm_param;
    return is_batch_norm(layer) && param && (param->scale_bias || param->scale_filler) &&
           layer->n_top == 1;
}

static Caffe__ScaleParameter *take_scale(Caffe__BatchNormParameter *from) {
    Caffe__ScaleParameter *scale = malloc(sizeof *scale);
    if (!scale)
        return NULL;
    caffe__scale_parameter__init(scale);
    scale->has_bias_term = scale->bias_term = 1;
    scale->filler = from->scale_filler;
    scale->bias_filler = from->bias_filler;
    from->scale_filler = from->bias_filler = NULL;
    from->has_scale_bias = from->scale_bias = 0;
    return scale;
}

static char **one_name(const char *name, size_t *n) {
    char **names = malloc(sizeof *names);
    if (names && (names[0] = strdup(name)))
        *n = 1;
    return names;
}

/* The param entries of the three sums count for nothing in NVCaffe; those after them are the Scale
 * layer's. */
static bool take_specs(Caffe__LayerParameter *from, Caffe__LayerParameter *scale) {
    const size_t own = 3, n = from->n_param > own ? from->n_param - own : 0;
    for (size_t i = 0; i < from->n_param && i < own; i++) {
        from->param[i]->has_lr_mult = 1;
        from->param[i]->lr_mult = 0;
    }
    if (n == 0)
        return true;
    scale->param = malloc(n * sizeof *scale->param);
    if (!scale->param)
        return false;
    memcpy(scale->param, from->param + own, n * sizeof *scale->param);
    scale->n_param = n;
    from->n_param = own;
    return true;
}

static Caffe__LayerParameter *split_off_scale(Caffe__LayerParameter *norm) {
    Caffe__LayerParameter *scale = malloc(sizeof *scale);
    if (!scale)
        return NULL;
    caffe__layer_parameter__init(scale);
    if (asprintf(&scale->name, "%s_scale_bias", norm->name) < 0)
        scale->name = NULL;
    scale->type = strdup("Scale");
    scale->bottom = one_name(norm->top[0], &scale->n_bottom);
    scale->top = one_name(norm->top[0], &scale->n_top);
    scale->scale_param = take_scale(norm->batch_norm_param);
    if (scale->name && scale->type && scale->n_bottom && scale->n_top && scale->scale_param &&
        take_specs(norm, scale))
        return scale;
    caffe__layer_parameter__free_unpacked(scale, NULL);
    return NULL;
}

static ShoalStatus filter(const ShoalCaffeNet *model, const NetState *state, ShoalGraph *out,
                          ShoalError *err) {
    const Caffe__NetParameter *net = model->param;
    out->layers = shoal_calloc(2 * net->n_layer + 1, sizeof *out->layers);
    if (!out->layers)
        return shoal_error_memory(err, "the net's layers", net->n_layer * sizeof *out->layers);
    for (size_t i = 0; i < net->n_layer; i++) {
        const Caffe__LayerParameter *layer = net->layer[i];
        if (layer->n_include && layer->n_exclude) {
            char where[512];
            return shoal_error_set(
                err, SHOAL_ERR_MODEL,
                "%s: layer '%s' has both include and exclude rules; keep one kind",
                shoal_caffe_net_where(model, layer, where, sizeof where),
                layer->name ? layer->name : "");
        }
        if (!layer_is_kept(layer, state))
            continue;
        Caffe__LayerParameter *param = copy_layer(layer);
        ShoalStatus status = append(out, param, layer, state->phase, err);
        if (!status)
            status = set_statistics_batch(net, param, err);
        if (!status && scales(param))
            status = append(out, split_off_scale(param), layer, state->phase, err);
        if (status)
            return status;
    }
    return SHOAL_OK;
}

/* ---- splits ---- */

/* A top of the filtered net, in order of production; how many bottoms read it. */
typedef struct Top {
    const char *blob;
    int layer, index;
    int readers; /* a loss weight counts as one */
    int next;    /* reader number that the next bottom gets */
    float loss_weight;
    int slot_next; /* previous top of the same hash slot; -1 ends */
} Top;

typedef struct Tops {
    Top *items;
    int count;
    int *slots; /* hash table over blob names: latest top first */
    unsigned mask;
} Tops;

static unsigned name_slot(const Tops *tops, const char *name) {
    unsigned hash = 2166136261u; /* FNV-1a */
    for (; *name; name++)
        hash = (hash ^ (unsigned char)*name) * 16777619u;
    return hash & tops->mask;
}

static int latest_top(const Tops *tops, const char *blob) {
    for (int i = tops->slots[name_slot(tops, blob)]; i >= 0; i = tops->items[i].slot_next)
        if (!strcmp(tops->items[i].blob, blob))
            return i;
    return -1;
}

static void add_top(Tops *tops, const ShoalGraph *graph, int layer, int index) {
    const Caffe__LayerParameter *param = graph->layers[layer].param;
    const char *blob = param->top[index];
    unsigned slot = name_slot(tops, blob);
    float weight = (size_t)index < param->n_loss_weight ? param->loss_weight[index] : 0;
    tops->items[tops->count] = (Top){.blob = blob,
                                     .layer = layer,
                                     .index = index,
                                     .readers = weight != 0,
                                     .loss_weight = weight,
                                     .slot_next = tops->slots[slot]};
    tops->slots[slot] = tops->count++;
}

static ShoalStatus unknown_bottom(const ShoalCaffeNet *model, const ShoalGraphLayer *layer,
                                  size_t bottom, ShoalError *err) {
    char where[512];
    return shoal_error_set(
        err, SHOAL_ERR_MODEL,
        "%s: layer '%s': bottom %zu, '%s', is not a top of any layer before it in this phase",
        shoal_caffe_net_where(model, layer->source, where, sizeof where), layer->param->name,
        bottom, layer->param->bottom[bottom]);
}

/* Fills readers[] with the number of the top that each bottom reads, bottoms in net order. */
static ShoalStatus resolve_bottoms(const ShoalCaffeNet *model, const ShoalGraph *graph, Tops *tops,
                                   int *reads, ShoalError *err) {
    for (int i = 0, n = 0; i < graph->count; i++) {
        const Caffe__LayerParameter *param = graph->layers[i].param;
        for (size_t j = 0; j < param->n_bottom; j++) {
            int top = latest_top(tops, param->bottom[j]);
            if (top < 0)
                return unknown_bottom(model, &graph->layers[i], j, err);
            tops->items[top].readers++;
            reads[n++] = top;
        }
        for (size_t j = 0; j < param->n_top; j++)
            add_top(tops, graph, i, (int)j);
    }
    return SHOAL_OK;
}

/* "BLOB_LAYER_INDEX_split", and with reader >= 0 "..._split_READER"; malloc storage, as
 * protobuf-c's messages have it. */
static char *split_name(const char *blob, const char *layer, int index, int reader) {
    char *name = NULL;
    int n = reader < 0 ? asprintf(&name, "%s_%s_%d_split", blob, layer, index)
                       : asprintf(&name, "%s_%s_%d_split_%d", blob, layer, index, reader);
    return n < 0 ? NULL : name;
}

static Caffe__LayerParameter *make_split(const Top *top, const char *layer) {
    Caffe__LayerParameter *split = malloc(sizeof *split);
    if (!split)
        return NULL;
    caffe__layer_parameter__init(split);
    split->name = split_name(top->blob, layer, top->index, -1);
    split->type = strdup("Split");
    split->bottom = calloc(1, sizeof *split->bottom);
    split->top = calloc((size_t)top->readers, sizeof *split->top);
    if (top->loss_weight != 0)
        split->loss_weight = calloc((size_t)top->readers, sizeof *split->loss_weight);
    bool ok = split->name && split->type && split->bottom && split->top &&
              (top->loss_weight == 0 || split->loss_weight);
    if (ok && (split->bottom[0] = strdup(top->blob)))
        split->n_bottom = 1;
    for (int k = 0; ok && k < top->readers; k++)
        if ((split->top[k] = split_name(top->blob, layer, top->index, k)))
            split->n_top++;
    if (ok && top->loss_weight != 0) {
        split->n_loss_weight = (size_t)top->readers;
        split->loss_weight[0] = top->loss_weight;
    }
    if (ok && split->n_bottom == 1 && split->n_top == (size_t)top->readers)
        return split;
    caffe__layer_parameter__free_unpacked(split, NULL);
    return NULL;
}

static ShoalStatus rename_bottoms(ShoalGraph *graph, int layer, Tops *tops, const int *reads,
                                  ShoalError *err) {
    Caffe__LayerParameter *param = graph->layers[layer].param;
    for (size_t j = 0; j < param->n_bottom; j++) {
        Top *top = &tops->items[reads[j]];
        if (top->readers < 2)
            continue;
        char *name = split_name(param->bottom[j], graph->layers[top->layer].param->name, top->index,
                                top->next++);
        if (!name)
            return shoal_error_memory(err, "a blob name", 64);
        free(param->bottom[j]);
        param->bottom[j] = name;
    }
    return SHOAL_OK;
}

/* Builds *out from graph: takes over its layers, with splits between. */
static ShoalStatus insert_splits(ShoalGraph *graph, Tops *tops, const int *reads,
                                 Caffe__Phase phase, ShoalGraph *out, ShoalError *err) {
    int top = 0;
    for (int i = 0; i < graph->count; i++) {
        ShoalStatus status = rename_bottoms(graph, i, tops, reads, err);
        if (status)
            return status;
        Caffe__LayerParameter *param = graph->layers[i].param;
        reads += param->n_bottom;
        out->layers[out->count++] = graph->layers[i];
        for (size_t j = 0; j < param->n_top; j++, top++) {
            Top *t = &tops->items[top];
            if (t->readers < 2)
                continue;
            if (t->loss_weight != 0) { /* the split's first top carries it from here on */
                param->n_loss_weight = 0;
                t->next++;
            }
            status = append(out, make_split(t, param->name), NULL, phase, err);
            if (status)
                return status;
        }
    }
    return SHOAL_OK;
}

static bool tops_init(Tops *tops, size_t n_tops) {
    unsigned slots = 64;
    while (slots < 2 * n_tops)
        slots *= 2;
    tops->mask = slots - 1;
    tops->items = shoal_calloc(n_tops + 1, sizeof *tops->items);
    tops->slots = shoal_calloc(slots, sizeof *tops->slots);
    if (!tops->items || !tops->slots)
        return false;
    for (unsigned i = 0; i < slots; i++)
        tops->slots[i] = -1;
    return true;
}

static ShoalStatus split_shared_tops(const ShoalCaffeNet *model, ShoalGraph *graph,
                                     Caffe__Phase phase, ShoalError *err) {
    size_t n_tops = 0, n_bottoms = 0;
    for (int i = 0; i < graph->count; i++) {
        n_tops += graph->layers[i].param->n_top;
        n_bottoms += graph->layers[i].param->n_bottom;
    }
    Tops tops = {0};
    ShoalGraph out = {0};
    int *reads = shoal_calloc(n_bottoms + 1, sizeof *reads);
    out.layers = shoal_calloc((size_t)graph->count + n_tops + 1, sizeof *out.layers);
    ShoalStatus status = SHOAL_OK;
    if (!tops_init(&tops, n_tops) || !reads || !out.layers)
        status = shoal_error_memory(err, "the net's graph", n_tops * sizeof *tops.items);
    if (!status)
        status = resolve_bottoms(model, graph, &tops, reads, err);
    if (!status)
        status = insert_splits(graph, &tops, reads, phase, &out, err);
    if (!status) {
        shoal_free(graph->layers);
        *graph = out;
        out = (ShoalGraph){0};
    } else {
        for (int i = 0; i < out.count; i++)
            if (!out.layers[i].source) /* the others still belong to graph */
                caffe__layer_parameter__free_unpacked(out.layers[i].param, NULL);
    }
    shoal_free(out.layers);
    shoal_free(reads);
    shoal_free(tops.items);
    shoal_free(tops.slots);
    return status;
}

ShoalStatus shoal_graph_build(const ShoalCaffeNet *model, Caffe__Phase phase,
                              const Caffe__NetState *state, ShoalGraph *out, ShoalError *err) {
    const Caffe__NetState *own = model->param->state;
    size_t n_own = own ? own->n_stage : 0, n_given = state ? state->n_stage : 0;
    NetState merged = {.phase = phase, .n_stages = n_own + n_given};
    merged.level = state && state->has_level ? state->level : own ? own->level : 0;
    merged.stages = shoal_calloc(merged.n_stages + 1, sizeof *merged.stages);
    if (!merged.stages)
        return shoal_error_memory(err, "the net's stages", merged.n_stages * sizeof(char *));
    for (size_t i = 0; i < n_own; i++)
        merged.stages[i] = own->stage[i];
    for (size_t i = 0; i < n_given; i++)
        merged.stages[n_own + i] = state->stage[i];
    ShoalGraph graph = {0};
    ShoalStatus status = filter(model, &merged, &graph, err);
    if (!status)
        status = split_shared_tops(model, &graph, phase, err);
    shoal_free(merged.stages);
    if (status)
        shoal_graph_close(&graph);
    else
        *out = graph;
    return status;
}

void shoal_graph_close(ShoalGraph *graph) {
    for (int i = 0; i < graph->count; i++)
        caffe__layer_parameter__free_unpacked(graph->layers[i].param, NULL);
    shoal_free(graph->layers);
    *graph = (ShoalGraph){0};
}
