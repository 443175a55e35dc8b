/* SPDX-License-Identifier: Apache-2.0 */
#include "net/units.h"

#include <string.h>

#include "base/error.h"
#include "base/memory.h"
#include "net/layers/layers.h"

/* Layers into units, in the order of the net. While they are made, blob->value says in which value
 * the newest version of a blob is (-1: it is plain). */

/* ---- room for units and values ---- */

static ShoalUnit *add_unit(ShoalNet *net, ShoalUnitKind kind, int layer) {
    ShoalUnit *unit = &net->units[net->n_units++];
    *unit = (ShoalUnit){.kind = kind, .layer = layer, .output = -1, .place_item = -1};
    unit->needs_backward = net->backward && net->layers[layer].needs_backward;
    return unit;
}

static void add_input(ShoalNet *net, ShoalUnit *unit, int value, bool wants) {
    unit->input[unit->inputs] = value;
    unit->wants[unit->inputs++] = wants && net->backward;
}

static int add_value(ShoalNet *net, ShoalUnit *unit, ShoalBlob *blob) {
    int number = net->n_values++;
    ShoalValue *value = &net->values[number];
    *value = (ShoalValue){.blob = blob,
                          .producer = (int)(unit - net->units),
                          .storage = number,
                          .alias = -1,
                          .data_item = -1,
                          .grad_item = -1,
                          .raw_item = -1};
    shoal_net_blob_of(blob)->value = number;
    return unit->output = number;
}

static ShoalValue *value_of(const ShoalNet *net, ShoalBlob *blob) {
    int value = shoal_net_blob_of(blob)->value;
    return value < 0 ? NULL : &net->values[value];
}

/* ---- changes of layout ---- */

static void unblock(ShoalNet *net, int layer, ShoalBlob *blob, bool wants) {
    ShoalNetBlob *of = shoal_net_blob_of(blob);
    if (of->value < 0)
        return;
    ShoalUnit *unit = add_unit(net, SHOAL_UNIT_UNBLOCK, layer);
    unit->needs_backward = wants && net->backward;
    unit->plain = blob;
    add_input(net, unit, of->value, wants);
    of->value = -1;
}

static void block(ShoalNet *net, int layer, ShoalBlob *blob, bool wants) {
    if (shoal_net_blob_of(blob)->value >= 0)
        return;
    ShoalUnit *unit = add_unit(net, SHOAL_UNIT_BLOCK, layer);
    unit->needs_backward = wants && net->backward;
    unit->plain = blob;
    add_value(net, unit, blob);
}

/* ---- one layer ---- */

static bool is_image(const ShoalBlob *blob) {
    return blob->axes == 4 && blob->count > 0;
}

static void own_unit(ShoalNet *net, int number) {
    ShoalLayer *layer = &net->layers[number];
    for (int i = 0; i < layer->n_bottoms; i++)
        unblock(net, number, layer->bottoms[i], layer->propagate[i]);
    add_unit(net, SHOAL_UNIT_LAYER, number);
    for (int i = 0; i < layer->n_tops; i++)
        shoal_net_blob_of(layer->tops[i])->value = -1;
}

/* Padding that is computed in vain, at most half of the work, unless all is to be fused. */
static bool worth(const ShoalNet *net, int channels, int outputs) {
    size_t real = (size_t)channels * (size_t)outputs;
    size_t padded =
        shoal_nchwc_padded(channels, net->lanes) * shoal_nchwc_padded(outputs, net->lanes);
    return net->fuse_all || 2 * padded <= 3 * real;
}

static bool fuse_convolution(ShoalNet *net, int number) {
    ShoalLayer *layer = &net->layers[number];
    bool only_bias = !layer->params[0]->learns && layer->n_params > 1 && layer->params[1]->learns;
    if (layer->n_bottoms != 1 || only_bias || !is_image(layer->bottoms[0]))
        return false;
    ShoalNchwcConv conv = {.shape = *shoal_convolution_shape(layer), .winograd = net->winograd};
    const ShoalConvShape *shape = &conv.shape;
    bool depthwise = shape->group > 1 && shape->group == shape->channels;
    ShoalBlob *bottom = layer->bottoms[0];
    conv.plain_input = shape->group == 1 && shape->channels < net->lanes && !layer->propagate[0] &&
                       !value_of(net, bottom);
    bool wide = conv.plain_input || depthwise;
    if (!worth(net, wide ? net->lanes : shape->channels, shape->outputs) ||
        !shoal_nchwc_conv_supported(net->kernels, &conv))
        return false;
    if (!conv.plain_input)
        block(net, number, bottom, layer->propagate[0]);
    ShoalUnit *unit = add_unit(net, SHOAL_UNIT_CONV, number);
    unit->conv = conv;
    if (conv.plain_input)
        unit->plain = bottom;
    else
        add_input(net, unit, shoal_net_blob_of(bottom)->value, layer->propagate[0]);
    add_value(net, unit, layer->tops[0]);
    return true;
}

static bool fuse_pooling(ShoalNet *net, int number) {
    ShoalLayer *layer = &net->layers[number];
    bool max;
    const ShoalPoolShape *shape = shoal_pooling_shape(layer, &max);
    int channels = layer->bottoms[0]->shape[1];
    if (!shape || layer->n_tops != 1 || !is_image(layer->bottoms[0]) ||
        (max && (int64_t)shape->kernel_h * shape->kernel_w > 255) ||
        (!value_of(net, layer->bottoms[0]) && !worth(net, channels, channels)))
        return false;
    block(net, number, layer->bottoms[0], layer->propagate[0]);
    ShoalUnit *unit = add_unit(net, SHOAL_UNIT_POOL, number);
    unit->max = max;
    add_input(net, unit, shoal_net_blob_of(layer->bottoms[0])->value, layer->propagate[0]);
    add_value(net, unit, layer->tops[0]);
    return true;
}

static bool fuse_sum(ShoalNet *net, int number) {
    ShoalLayer *layer = &net->layers[number];
    const Caffe__EltwiseParameter *param = layer->param->eltwise_param;
    if (layer->n_bottoms != 2 || !value_of(net, layer->bottoms[0]) ||
        !value_of(net, layer->bottoms[1]))
        return false;
    if (param && param->operation != CAFFE__ELTWISE_PARAMETER__ELTWISE_OP__SUM)
        return false;
    for (size_t i = 0; param && i < param->n_coeff; i++)
        if (param->coeff[i] != 1)
            return false;
    ShoalUnit *unit = add_unit(net, SHOAL_UNIT_SUM, number);
    for (int i = 0; i < 2; i++)
        add_input(net, unit, shoal_net_blob_of(layer->bottoms[i])->value, layer->propagate[i]);
    add_value(net, unit, layer->tops[0]);
    return true;
}

static bool fuse_split(ShoalNet *net, int number) {
    ShoalLayer *layer = &net->layers[number];
    ShoalValue *value = value_of(net, layer->bottoms[0]);
    if (!value)
        return false;
    value->shared = value->shared || layer->n_tops > 1;
    for (int i = 0; i < layer->n_tops; i++)
        shoal_net_blob_of(layer->tops[i])->value = shoal_net_blob_of(layer->bottoms[0])->value;
    net->layer_unit[number] = value->producer;
    return true;
}

/* The value that a function may be added to: the bottom's, or a view of it when others read it or
 * it has been rectified. NULL when there is none. */
static ShoalValue *function_on(ShoalNet *net, int number, bool norm) {
    ShoalLayer *layer = &net->layers[number];
    ShoalValue *value = value_of(net, layer->bottoms[0]);
    if (!value || layer->n_bottoms != 1)
        return NULL;
    bool own = !value->shared && !value->relu && !(norm && value->rectified);
    if (!own && (value->norm || value->relu))
        return NULL;
    if (!own) {
        int storage = value->storage, source = shoal_net_blob_of(layer->bottoms[0])->value;
        ShoalUnit *unit = add_unit(net, SHOAL_UNIT_VIEW, number);
        add_input(net, unit, source, layer->propagate[0]);
        value = &net->values[add_value(net, unit, layer->tops[0])];
        value->storage = storage;
    }
    shoal_net_blob_of(layer->tops[0])->value = (int)(value - net->values);
    net->layer_unit[number] = value->producer;
    net->units[value->producer].needs_backward |= net->backward && layer->needs_backward;
    return value;
}

static bool make_norm(const ShoalNet *net, ShoalValue *value) {
    if (value->norm)
        return true;
    int channels = value->blob->shape[1];
    value->norm = shoal_norm_create((size_t)channels, shoal_nchwc_padded(channels, net->lanes));
    return value->norm;
}

static bool fuse_batch_norm(ShoalNet *net, int number, bool *memory) {
    ShoalLayer *layer = &net->layers[number];
    const ShoalValue *bottom = value_of(net, layer->bottoms[0]);
    if (!bottom || (bottom->norm && !bottom->shared) || !is_image(layer->bottoms[0]))
        return false;
    ShoalValue *value = function_on(net, number, true);
    if (!value)
        return false;
    *memory = make_norm(net, value);
    if (*memory) {
        value->norm->batch_norm = layer;
        value->norm->batch_statistics = !shoal_batch_norm_is_global(layer);
    }
    return true;
}

static int param_axis(const ShoalLayer *layer) {
    const Caffe__ScaleParameter *param = layer->param->scale_param;
    return shoal_blob_axis(layer->bottoms[0], param ? param->axis : 1);
}

/* A Scale with its own factors, one per channel. */
static bool is_per_channel(const ShoalLayer *layer) {
    const ShoalBlob *bottom = layer->bottoms[0];
    return layer->n_bottoms == 1 && is_image(bottom) && layer->n_params > 0 &&
           layer->params[0]->blob.axes == 1 && param_axis(layer) == 1;
}

static bool fuse_scale(ShoalNet *net, int number, bool *memory) {
    ShoalLayer *layer = &net->layers[number];
    const ShoalValue *bottom = value_of(net, layer->bottoms[0]);
    if (!bottom || !is_per_channel(layer) || (bottom->norm && bottom->norm->scale_layer))
        return false;
    ShoalValue *value = function_on(net, number, true);
    if (!value)
        return false;
    *memory = make_norm(net, value);
    if (*memory)
        value->norm->scale_layer = layer;
    return true;
}

static bool fuse_relu(ShoalNet *net, int number) {
    ShoalLayer *layer = &net->layers[number];
    const Caffe__ReLUParameter *param = layer->param->relu_param;
    const ShoalValue *bottom = value_of(net, layer->bottoms[0]);
    if (!bottom || (param && param->negative_slope != 0) || bottom->rectified)
        return false;
    ShoalValue *value = function_on(net, number, false);
    if (!value)
        return false;
    ShoalUnit *producer = &net->units[value->producer];
    if (producer->kind == SHOAL_UNIT_SUM && !value->norm)
        producer->relu = value->rectified = true;
    else
        value->relu = true;
    return true;
}

static bool has_loss(const ShoalLayer *layer) {
    for (int i = 0; i < layer->n_tops; i++)
        if (layer->loss_weights[i] != 0)
            return true;
    return false;
}

/* True when the layer has become part of a unit on blocked tensors. */
static bool fuse_layer(ShoalNet *net, int number, bool *memory) {
    const ShoalLayer *layer = &net->layers[number];
    const char *type = layer->class->type;
    if (has_loss(layer))
        return false;
    if (!strcmp(type, "Convolution"))
        return fuse_convolution(net, number);
    if (!strcmp(type, "Pooling"))
        return fuse_pooling(net, number);
    if (!strcmp(type, "Eltwise"))
        return fuse_sum(net, number);
    if (!strcmp(type, "Split"))
        return fuse_split(net, number);
    if (!strcmp(type, "BatchNorm"))
        return fuse_batch_norm(net, number, memory);
    if (!strcmp(type, "Scale"))
        return fuse_scale(net, number, memory);
    if (!strcmp(type, "ReLU"))
        return fuse_relu(net, number);
    return false;
}

/* ---- who gives which gradient ---- */

static void find_readers(ShoalNet *net) {
    for (int u = net->n_units - 1; u >= 0; u--)
        for (int i = 0; i < net->units[u].inputs; i++) {
            if (!net->units[u].wants[i])
                continue;
            ShoalValue *value = &net->values[net->units[u].input[i]];
            value->second_unit = value->readers == 1 ? u : value->readers ? value->second_unit : -1;
            if (value->readers++ == 0) {
                value->first_unit = u;
                value->first_input = i;
            }
            value->last_unit = u;
            value->last_input = i;
        }
    for (int u = 0; u < net->n_units; u++) {
        ShoalUnit *unit = &net->units[u];
        if (unit->output >= 0 && net->values[unit->output].readers == 0)
            unit->needs_backward = false;
    }
}

/* The gradient of a sum is the gradient of both its inputs. An input that only the sum reads can
 * have it in the same memory. */
static bool may_alias(const ShoalNet *net, const ShoalUnit *sum, int input) {
    const ShoalValue *value = &net->values[sum->input[input]];
    return sum->wants[input] && value->readers == 1 && !value->relu && !value->rectified &&
           value->alias < 0;
}

/* So can one input to which others add more, when the other input has been through with it. */
static bool may_alias_and_add(const ShoalNet *net, const ShoalUnit *sum, int number, int input) {
    const ShoalValue *value = &net->values[sum->input[input]];
    const ShoalValue *other = &net->values[sum->input[1 - input]];
    if (!sum->wants[input] || value->readers < 2 || value->first_unit != number)
        return false;
    return other->alias != sum->output ||
           (other->readers == 1 && other->producer > value->second_unit);
}

static void find_aliases(ShoalNet *net) {
    for (int u = net->n_units - 1; u >= 0; u--) {
        const ShoalUnit *sum = &net->units[u];
        if (sum->kind != SHOAL_UNIT_SUM || !sum->needs_backward || sum->input[0] == sum->input[1])
            continue;
        const ShoalValue *output = &net->values[sum->output];
        /* Its sums over the inputs' terms are made where its own gradient is finished: it must be.
         */
        if (output->norm || (output->alias >= 0 && output->readers == 1))
            continue;
        for (int i = 0; i < 2; i++)
            if (may_alias(net, sum, i))
                net->values[sum->input[i]].alias = sum->output;
        for (int i = 0; i < 2; i++)
            if (may_alias_and_add(net, sum, u, i))
                net->values[sum->input[i]].alias = sum->output;
    }
}

/* A sum of two is quickly made again: one pass. So is a convolution that has little to do for each
 * number that it writes. The memory of a value that others see through a view is kept. */
enum { AGAIN_FLOPS_PER_BYTE = 32 };

static bool is_cheap(const ShoalUnit *unit) {
    const ShoalConvShape *s = &unit->conv.shape;
    if (unit->kind != SHOAL_UNIT_CONV)
        return unit->kind == SHOAL_UNIT_SUM;
    return !unit->plain && s->group == 1 &&
           2.0 * s->channels * s->kernel_h * s->kernel_w <= AGAIN_FLOPS_PER_BYTE * sizeof(float);
}

static void find_dropped(ShoalNet *net) {
    for (int i = 0; i < net->n_values; i++)
        net->values[i].dropped = net->recompute && net->backward &&
                                 net->units[net->values[i].producer].needs_backward &&
                                 is_cheap(&net->units[net->values[i].producer]);
    for (int i = 0; i < net->n_values; i++)
        if (net->values[i].storage != i)
            net->values[i].dropped = net->values[net->values[i].storage].dropped = false;
}

static bool allocate(ShoalNet *net, ShoalError *err) {
    /* A layer makes at most one unit more than it has bottoms; the outputs come on top. */
    size_t units = 1;
    for (int i = 0; i < net->n_layers; i++)
        units += 2 + (size_t)net->layers[i].n_bottoms;
    units += (size_t)net->n_outputs;
    net->units = shoal_calloc(units, sizeof *net->units);
    net->values = shoal_calloc(units, sizeof *net->values);
    net->again = shoal_calloc(units, sizeof *net->again);
    net->layer_unit = shoal_calloc((size_t)net->n_layers + 1, sizeof *net->layer_unit);
    net->layer_units = shoal_calloc((size_t)net->n_layers + 2, sizeof *net->layer_units);
    if (net->units && net->values && net->again && net->layer_unit && net->layer_units)
        return true;
    shoal_error_memory(err, "the units of the net", units * sizeof *net->values);
    return false;
}

ShoalStatus shoal_units_plan(ShoalNet *net, ShoalError *err) {
    if (!allocate(net, err))
        return SHOAL_ERR_MEMORY;
    net->lanes = net->kernels ? shoal_nchwc_lanes(net->kernels) : 0;
    for (int i = 0; i < net->n_blobs; i++)
        net->blobs[i]->value = -1;
    for (int i = 0; i < net->n_layers; i++) {
        bool memory = true;
        net->layer_units[i] = net->n_units;
        net->layer_unit[i] = -1;
        if (net->lanes == 0 || !fuse_layer(net, i, &memory))
            own_unit(net, i);
        if (!memory)
            return shoal_error_memory(err, "a normalisation", sizeof(ShoalNorm));
        if (net->layer_unit[i] < 0)
            net->layer_unit[i] = net->n_units - 1;
    }
    for (int i = 0; i < net->n_outputs; i++)
        unblock(net, net->n_layers - 1, &net->blobs[net->outputs[i]]->blob, false);
    net->layer_units[net->n_layers] = net->n_units;
    find_readers(net);
    find_aliases(net);
    shoal_units_reshape(net);
    find_dropped(net);
    return SHOAL_OK;
}

void shoal_units_destroy(ShoalNet *net) {
    for (int i = 0; i < net->n_values; i++)
        shoal_norm_destroy(net->values[i].norm);
    shoal_free(net->values);
    shoal_free(net->again);
    shoal_free(net->units);
    shoal_free(net->layer_unit);
    shoal_free(net->layer_units);
}

void shoal_units_reshape(ShoalNet *net) {
    for (int i = 0; i < net->n_values; i++) {
        ShoalValue *value = &net->values[i];
        const int *shape = value->blob->shape;
        value->dims = (ShoalNchwcDims){shape[0], shape[1], shape[2], shape[3]};
    }
    for (int i = 0; i < net->n_units; i++) {
        ShoalUnit *unit = &net->units[i];
        const ShoalLayer *layer = &net->layers[unit->layer];
        bool max;
        if (unit->kind == SHOAL_UNIT_CONV)
            unit->conv.shape = *shoal_convolution_shape(layer);
        if (unit->kind == SHOAL_UNIT_POOL)
            unit->pool = (ShoalNchwcPool){layer->bottoms[0]->shape[0], layer->bottoms[0]->shape[1],
                                          *shoal_pooling_shape(layer, &max)};
    }
}

static size_t unit_workspace_bytes(const ShoalNet *net, const ShoalUnit *unit, int batch) {
    unsigned threads = (unsigned)net->context.threads;
    if (unit->kind == SHOAL_UNIT_LAYER)
        return net->layers[unit->layer].workspace_bytes;
    size_t most = 0;
    if (unit->kind == SHOAL_UNIT_CONV) {
        ShoalNchwcConv conv = unit->conv;
        conv.shape.batch = batch;
        most = shoal_nchwc_conv_workspace_bytes(net->kernels, &conv, threads);
    }
    for (int i = -1; i < unit->inputs; i++) {
        int value = i < 0 ? unit->output : unit->input[i];
        if (value < 0)
            continue;
        ShoalNchwcDims dims = net->values[value].dims;
        dims.batch = batch;
        size_t bytes = shoal_nchwc_workspace_bytes(net->kernels, &dims, threads);
        most = bytes > most ? bytes : most;
    }
    return most;
}

/* The share's batch need not be the blob's first axis; but it is never larger than that, and a
 * smaller share may need more where the work is cut into other parts: so all are looked at. */
size_t shoal_units_workspace_bytes(ShoalNet *net) {
    size_t most = 0;
    for (int i = 0; i < net->n_units; i++) {
        const ShoalUnit *unit = &net->units[i];
        int value = unit->output >= 0 ? unit->output : unit->inputs ? unit->input[0] : -1;
        int batch = value >= 0 ? net->values[value].dims.batch : 1;
        for (int b = batch; b >= 1; b = b > 64 ? b / 2 : b - 1) {
            size_t bytes = unit_workspace_bytes(net, unit, b);
            most = bytes > most ? bytes : most;
        }
    }
    return most;
}
