/* SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "caffe/upgrade.h"

#include "base/error.h"
#include "base/log.h"
#include "base/memory.h"
#include "caffe/field.h"

/* ---- places and messages ---- */

const char *shoal_caffe_where(const char *file, const ShoalTextOrigins *origins,
                              const ProtobufCMessage *message, char *where, size_t size) {
    const ShoalTextOrigin *origin = origins ? shoal_text_origins_find(origins, message) : NULL;
    if (origin)
        snprintf(where, size, "%s:%d:%d", file, origin->line, origin->column);
    else
        snprintf(where, size, "%s", file);
    return where;
}

ShoalStatus shoal_caffe_upgrade_fail(const ShoalCaffeUpgrade *u, const void *message,
                                     const char *format, ...) {
    char text[512], where[384];
    va_list list;
    va_start(list, format);
    vsnprintf(text, sizeof text, format, list);
    va_end(list);
    return shoal_error_set(u->err, SHOAL_ERR_MODEL, "%s: %s",
                           shoal_caffe_where(u->file, u->origins, message, where, sizeof where),
                           text);
}

void shoal_caffe_upgrade_warn(const ShoalCaffeUpgrade *u, const void *message, const char *format,
                              ...) {
    char text[512], where[384];
    va_list list;
    va_start(list, format);
    vsnprintf(text, sizeof text, format, list);
    va_end(list);
    shoal_log(SHOAL_LOG_WARNING, "%s: %s",
              shoal_caffe_where(u->file, u->origins, message, where, sizeof where), text);
}

bool shoal_caffe_string_set(char **field, const char *default_value, const char *text) {
    char *copy = strdup(text);
    if (!copy)
        return false;
    if (*field != default_value)
        free(*field);
    *field = copy;
    return true;
}

/* ---- what is taken out ---- */

ShoalStatus shoal_caffe_upgrade_retire(ShoalCaffeUpgrade *u, ProtobufCMessage *old,
                                       const ProtobufCMessage *now) {
    if (u->husk_count == u->husk_capacity) {
        size_t capacity = u->husk_capacity ? 2 * u->husk_capacity : 64;
        ShoalCaffeHusk *husks = shoal_calloc(capacity, sizeof *husks);
        if (!husks)
            return shoal_error_memory(u->err, "an upgrade", capacity * sizeof *husks);
        if (u->husk_count)
            memcpy(husks, u->husks, u->husk_count * sizeof *husks);
        shoal_free(u->husks);
        u->husks = husks;
        u->husk_capacity = capacity;
    }
    u->husks[u->husk_count++] = (ShoalCaffeHusk){old, now};
    return SHOAL_OK;
}

static int compare_pointers(const void *a, const void *b) {
    uintptr_t left = (uintptr_t) * (const void *const *)a,
              right = (uintptr_t) * (const void *const *)b;
    return (left > right) - (left < right);
}

typedef struct Dead {
    const void **messages; /* NULL on the first walk, which counts */
    size_t count;
} Dead;

/* All messages in a tree; its depth is that of the schema. */
static void collect_dead(Dead *dead, const ProtobufCMessage *message) {
    if (dead->messages)
        dead->messages[dead->count] = message;
    dead->count++;
    for (unsigned i = 0; i < message->descriptor->n_fields; i++) {
        const ProtobufCFieldDescriptor *field = &message->descriptor->fields[i];
        if (field->type != PROTOBUF_C_TYPE_MESSAGE)
            continue;
        size_t n = shoal_field_count(message, field);
        for (size_t j = 0; j < n; j++)
            collect_dead(dead, *(ProtobufCMessage *const *)shoal_field_item(message, field, j));
    }
}

static void collect_all_dead(Dead *dead, const ShoalCaffeUpgrade *u) {
    dead->count = 0;
    for (size_t i = 0; i < u->husk_count; i++)
        collect_dead(dead, u->husks[i].old);
}

/* What a message is now that may have been retired, twice even; NULL when it is nothing. */
static const ProtobufCMessage *current(const ShoalCaffeUpgrade *u,
                                       const ProtobufCMessage *message) {
    while (message) {
        const ShoalCaffeHusk *husk =
            bsearch(&message, u->husks, u->husk_count, sizeof *u->husks, compare_pointers);
        if (!husk)
            break;
        message = husk->now;
    }
    return message;
}

/* Origins of messages that moved follow them; those of messages that die go. */
static ShoalStatus update_origins(ShoalCaffeUpgrade *u) {
    Dead dead = {0};
    collect_all_dead(&dead, u);
    dead.messages = shoal_calloc(dead.count, sizeof *dead.messages);
    if (!dead.messages)
        return shoal_error_memory(u->err, "an upgrade", dead.count * sizeof *dead.messages);
    collect_all_dead(&dead, u);
    qsort(dead.messages, dead.count, sizeof *dead.messages, compare_pointers);
    qsort(u->husks, u->husk_count, sizeof *u->husks, compare_pointers);
    size_t kept = 0;
    for (size_t i = 0; i < u->origins->count; i++) {
        ShoalTextOrigin origin = u->origins->items[i];
        origin.message = current(u, origin.message);
        if (origin.message && !bsearch(&origin.message, dead.messages, dead.count,
                                       sizeof *dead.messages, compare_pointers))
            u->origins->items[kept++] = origin;
    }
    u->origins->count = kept;
    shoal_text_origins_sort(u->origins);
    shoal_free(dead.messages);
    return SHOAL_OK;
}

/* ---- data layers: crop, mirror, mean and scale move to transform_param ---- */

static const char *const transform_fields[] = {"scale", "mean_file", "crop_size", "mirror"};

static const char *data_field_of(const Caffe__V1LayerParameter *layer) {
    if (!layer->has_type)
        return NULL;
    switch (layer->type) {
    case CAFFE__V1_LAYER_PARAMETER__LAYER_TYPE__DATA:
        return "data_param";
    case CAFFE__V1_LAYER_PARAMETER__LAYER_TYPE__IMAGE_DATA:
        return "image_data_param";
    case CAFFE__V1_LAYER_PARAMETER__LAYER_TYPE__WINDOW_DATA:
        return "window_data_param";
    default:
        return NULL;
    }
}

/* The layer's data_param (or its sibling), or NULL. */
static ProtobufCMessage *data_param_of(const Caffe__V1LayerParameter *layer) {
    const char *name = data_field_of(layer);
    if (!name)
        return NULL;
    const ProtobufCFieldDescriptor *field = shoal_field_find(layer->base.descriptor, name);
    return *(ProtobufCMessage **)shoal_field_value(&layer->base, field);
}

static bool has_old_transform(const Caffe__V1LayerParameter *layer) {
    ProtobufCMessage *data = data_param_of(layer);
    for (size_t i = 0; data && i < sizeof transform_fields / sizeof *transform_fields; i++)
        if (shoal_field_count(data, shoal_field_find(data->descriptor, transform_fields[i])))
            return true;
    return false;
}

static ShoalStatus upgrade_data(ShoalCaffeUpgrade *u) {
    for (size_t i = 0; i < u->net->n_layers; i++) {
        Caffe__V1LayerParameter *layer = u->net->layers[i];
        if (!has_old_transform(layer))
            continue;
        ProtobufCMessage *data = data_param_of(layer);
        if (!layer->transform_param)
            layer->transform_param = (Caffe__TransformationParameter *)shoal_field_new_message(
                &caffe__transformation_parameter__descriptor);
        if (!layer->transform_param)
            return shoal_error_memory(u->err, "an upgrade", sizeof *layer->transform_param);
        ProtobufCMessage *transform = &layer->transform_param->base;
        for (size_t j = 0; j < sizeof transform_fields / sizeof *transform_fields; j++)
            shoal_field_move(data, shoal_field_find(data->descriptor, transform_fields[j]),
                             transform,
                             shoal_field_find(transform->descriptor, transform_fields[j]));
    }
    return SHOAL_OK;
}

/* ---- inputs: `input`, `input_shape`, `input_dim` become an Input layer ---- */

static bool shape_add_dims(Caffe__BlobShape *shape, const int32_t *dims, size_t n) {
    shape->dim = malloc(n * sizeof *shape->dim);
    if (!shape->dim)
        return false;
    for (size_t i = 0; i < n; i++)
        shape->dim[i] = dims[i];
    shape->n_dim = n;
    return true;
}

/* Hands the shapes of the net to the Input layer. */
static bool input_take_shapes(Caffe__NetParameter *net, Caffe__InputParameter *input) {
    if (net->n_input_shape) {
        input->shape = net->input_shape;
        input->n_shape = net->n_input_shape;
        net->input_shape = NULL;
        net->n_input_shape = 0;
        return true;
    }
    input->shape = calloc(net->n_input, sizeof *input->shape);
    if (!input->shape)
        return false;
    for (size_t i = 0; i < net->n_input; i++) {
        ProtobufCMessage *shape = shoal_field_new_message(&caffe__blob_shape__descriptor);
        if (!shape)
            return false;
        input->shape[input->n_shape++] = (Caffe__BlobShape *)shape;
        if (!shape_add_dims((Caffe__BlobShape *)shape, net->input_dim + 4 * i, 4))
            return false;
    }
    return true;
}

static ShoalStatus check_inputs(ShoalCaffeUpgrade *u) {
    const Caffe__NetParameter *net = u->net;
    if (net->n_input_shape && net->n_input_shape != net->n_input)
        return shoal_caffe_upgrade_fail(u, net,
                                        "%zu \"input\" but %zu \"input_shape\"; give one shape for "
                                        "each input",
                                        net->n_input, net->n_input_shape);
    if (!net->n_input_shape && net->n_input_dim &&
        (net->n_input_dim % 4 || net->n_input_dim / 4 != net->n_input))
        return shoal_caffe_upgrade_fail(u, net,
                                        "%zu \"input\" but %zu \"input_dim\"; give four for each "
                                        "input",
                                        net->n_input, net->n_input_dim);
    return SHOAL_OK;
}

static Caffe__LayerParameter *new_input_layer(Caffe__NetParameter *net) {
    Caffe__LayerParameter *layer =
        (Caffe__LayerParameter *)shoal_field_new_message(&caffe__layer_parameter__descriptor);
    if (!layer)
        return NULL;
    layer->input_param =
        (Caffe__InputParameter *)shoal_field_new_message(&caffe__input_parameter__descriptor);
    if (!layer->input_param || !shoal_caffe_string_set(&layer->name, NULL, "input") ||
        !shoal_caffe_string_set(&layer->type, NULL, "Input") ||
        !input_take_shapes(net, layer->input_param)) {
        protobuf_c_message_free_unpacked(&layer->base, NULL);
        return NULL;
    }
    layer->top = net->input;
    layer->n_top = net->n_input;
    net->input = NULL;
    net->n_input = 0;
    return layer;
}

static bool prepend_layer(Caffe__NetParameter *net, Caffe__LayerParameter *layer) {
    size_t bytes;
    if (!shoal_size_mul(net->n_layer + 1, sizeof *net->layer, &bytes))
        return false;
    Caffe__LayerParameter **layers = realloc(net->layer, bytes);
    if (!layers)
        return false;
    memmove(layers + 1, layers, net->n_layer * sizeof *layers);
    layers[0] = layer;
    net->layer = layers;
    net->n_layer++;
    return true;
}

static void clear_inputs(Caffe__NetParameter *net) {
    for (size_t i = 0; i < net->n_input; i++)
        free(net->input[i]);
    for (size_t i = 0; i < net->n_input_shape; i++)
        protobuf_c_message_free_unpacked(&net->input_shape[i]->base, NULL);
    free(net->input);
    free(net->input_shape);
    free(net->input_dim);
    net->input = NULL;
    net->input_shape = NULL;
    net->input_dim = NULL;
    net->n_input = net->n_input_shape = net->n_input_dim = 0;
}

/* A net with inputs but no shapes is an old .caffemodel: there they are of no use. */
static ShoalStatus upgrade_inputs(ShoalCaffeUpgrade *u) {
    Caffe__NetParameter *net = u->net;
    if (!net->n_input)
        return SHOAL_OK;
    ShoalStatus status = check_inputs(u);
    if (status)
        return status;
    if (net->n_input_shape || net->n_input_dim) {
        Caffe__LayerParameter *layer = new_input_layer(net);
        if (!layer || !prepend_layer(net, layer)) {
            if (layer)
                protobuf_c_message_free_unpacked(&layer->base, NULL);
            return shoal_error_memory(u->err, "an input layer", sizeof *layer);
        }
    }
    clear_inputs(net);
    return SHOAL_OK;
}

/* ---- BatchNorm: its three blobs are statistics, never trained ---- */

static void upgrade_batch_norm(Caffe__NetParameter *net) {
    for (size_t i = 0; i < net->n_layer; i++) {
        Caffe__LayerParameter *layer = net->layer[i];
        if (!layer->type || strcmp(layer->type, "BatchNorm") != 0 || layer->n_param != 3)
            continue;
        for (size_t j = 0; j < 3; j++) {
            Caffe__ParamSpec *param = layer->param[j];
            param->has_lr_mult = param->has_decay_mult = 1;
            param->lr_mult = param->decay_mult = 0;
        }
    }
}

/* ---- the whole ---- */

static bool is_v0(const Caffe__NetParameter *net) {
    for (size_t i = 0; i < net->n_layers; i++)
        if (net->layers[i]->layer)
            return true;
    return false;
}

ShoalStatus shoal_caffe_upgrade_net(ShoalCaffeUpgrade *u, Caffe__NetParameter *net) {
    u->net = net;
    ShoalStatus status = is_v0(net) ? shoal_caffe_upgrade_v0(u) : SHOAL_OK;
    if (!status)
        status = upgrade_data(u);
    if (!status && net->n_layers)
        status = shoal_caffe_upgrade_v1(u);
    if (!status)
        status = upgrade_inputs(u);
    if (!status)
        upgrade_batch_norm(net);
    return status;
}

ShoalStatus shoal_caffe_upgrade_finish(ShoalCaffeUpgrade *u, ShoalStatus status) {
    if (!status && u->origins && u->husk_count)
        status = update_origins(u);
    for (size_t i = 0; i < u->husk_count; i++)
        protobuf_c_message_free_unpacked(u->husks[i].old, NULL);
    shoal_free(u->husks);
    u->husks = NULL;
    u->husk_count = u->husk_capacity = 0;
    return status;
}

/* ---- solvers ---- */

static const char *solver_type_name(Caffe__SolverParameter__SolverType type) {
    switch (type) {
    case CAFFE__SOLVER_PARAMETER__SOLVER_TYPE__SGD:
        return "SGD";
    case CAFFE__SOLVER_PARAMETER__SOLVER_TYPE__NESTEROV:
        return "Nesterov";
    case CAFFE__SOLVER_PARAMETER__SOLVER_TYPE__ADAGRAD:
        return "AdaGrad";
    case CAFFE__SOLVER_PARAMETER__SOLVER_TYPE__RMSPROP:
        return "RMSProp";
    case CAFFE__SOLVER_PARAMETER__SOLVER_TYPE__ADADELTA:
        return "AdaDelta";
    case CAFFE__SOLVER_PARAMETER__SOLVER_TYPE__ADAM:
        return "Adam";
    default:
        return NULL;
    }
}

ShoalStatus shoal_caffe_upgrade_solver(Caffe__SolverParameter *solver, const char *file,
                                       ShoalError *err) {
    if (!solver->has_solver_type)
        return SHOAL_OK;
    const ProtobufCFieldDescriptor *type = shoal_field_find(solver->base.descriptor, "type");
    if (shoal_field_count(&solver->base, type))
        return shoal_error_set(err, SHOAL_ERR_MODEL,
                               "%s: both \"type\" and the old \"solver_type\" are given; keep type",
                               file);
    const char *name = solver_type_name(solver->solver_type);
    if (!name)
        return shoal_error_set(err, SHOAL_ERR_MODEL,
                               "%s: solver_type is %d, expected 0 to 5; use type: \"SGD\" or such",
                               file, (int)solver->solver_type);
    if (!shoal_caffe_string_set(&solver->type, type->default_value, name))
        return shoal_error_memory(err, "a solver type", strlen(name));
    solver->has_solver_type = 0;
    solver->solver_type = CAFFE__SOLVER_PARAMETER__SOLVER_TYPE__SGD;
    return SHOAL_OK;
}
