/* SPDX-License-Identifier: Apache-2.0 */
#include "caffe/upgrade.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/memory.h"
#include "caffe/field.h"

/* ---- layer types ---- */

#define TYPE(x) CAFFE__V1_LAYER_PARAMETER__LAYER_TYPE__##x

static const struct {
    const char *name;
    Caffe__V1LayerParameter__LayerType type;
} types[] = {
    {"accuracy", TYPE(ACCURACY)},
    {"bnll", TYPE(BNLL)},
    {"concat", TYPE(CONCAT)},
    {"conv", TYPE(CONVOLUTION)},
    {"data", TYPE(DATA)},
    {"dropout", TYPE(DROPOUT)},
    {"euclidean_loss", TYPE(EUCLIDEAN_LOSS)},
    {"flatten", TYPE(FLATTEN)},
    {"hdf5_data", TYPE(HDF5_DATA)},
    {"hdf5_output", TYPE(HDF5_OUTPUT)},
    {"im2col", TYPE(IM2COL)},
    {"images", TYPE(IMAGE_DATA)},
    {"infogain_loss", TYPE(INFOGAIN_LOSS)},
    {"innerproduct", TYPE(INNER_PRODUCT)},
    {"lrn", TYPE(LRN)},
    {"multinomial_logistic_loss", TYPE(MULTINOMIAL_LOGISTIC_LOSS)},
    {"pool", TYPE(POOLING)},
    {"relu", TYPE(RELU)},
    {"sigmoid", TYPE(SIGMOID)},
    {"softmax", TYPE(SOFTMAX)},
    {"softmax_loss", TYPE(SOFTMAX_LOSS)},
    {"split", TYPE(SPLIT)},
    {"tanh", TYPE(TANH)},
    {"window_data", TYPE(WINDOW_DATA)},
};

/* ---- where each field of a V0 layer belongs, by the layer's type (NULL: any) ---- */

typedef struct Rule {
    const char *field, *type, *message, *to;
} Rule;

static const Rule rules[] = {
    {"num_output", "conv", "convolution_param", "num_output"},
    {"num_output", "innerproduct", "inner_product_param", "num_output"},
    {"biasterm", "conv", "convolution_param", "bias_term"},
    {"biasterm", "innerproduct", "inner_product_param", "bias_term"},
    {"weight_filler", "conv", "convolution_param", "weight_filler"},
    {"weight_filler", "innerproduct", "inner_product_param", "weight_filler"},
    {"bias_filler", "conv", "convolution_param", "bias_filler"},
    {"bias_filler", "innerproduct", "inner_product_param", "bias_filler"},
    {"pad", "conv", "convolution_param", "pad"},
    {"pad", "pool", "pooling_param", "pad"},
    {"kernelsize", "conv", "convolution_param", "kernel_size"},
    {"kernelsize", "pool", "pooling_param", "kernel_size"},
    {"group", "conv", "convolution_param", "group"},
    {"stride", "conv", "convolution_param", "stride"},
    {"stride", "pool", "pooling_param", "stride"},
    {"pool", "pool", "pooling_param", "pool"},
    {"dropout_ratio", "dropout", "dropout_param", "dropout_ratio"},
    {"local_size", "lrn", "lrn_param", "local_size"},
    {"alpha", "lrn", "lrn_param", "alpha"},
    {"beta", "lrn", "lrn_param", "beta"},
    {"k", "lrn", "lrn_param", "k"},
    {"source", "data", "data_param", "source"},
    {"source", "hdf5_data", "hdf5_data_param", "source"},
    {"source", "images", "image_data_param", "source"},
    {"source", "window_data", "window_data_param", "source"},
    {"source", "infogain_loss", "infogain_loss_param", "source"},
    {"scale", NULL, "transform_param", "scale"},
    {"meanfile", NULL, "transform_param", "mean_file"},
    {"batchsize", "data", "data_param", "batch_size"},
    {"batchsize", "hdf5_data", "hdf5_data_param", "batch_size"},
    {"batchsize", "images", "image_data_param", "batch_size"},
    {"batchsize", "window_data", "window_data_param", "batch_size"},
    {"cropsize", NULL, "transform_param", "crop_size"},
    {"mirror", NULL, "transform_param", "mirror"},
    {"rand_skip", "data", "data_param", "rand_skip"},
    {"rand_skip", "images", "image_data_param", "rand_skip"},
    {"shuffle_images", "images", "image_data_param", "shuffle"},
    {"new_height", "images", "image_data_param", "new_height"},
    {"new_width", "images", "image_data_param", "new_width"},
    {"concat_dim", "concat", "concat_param", "concat_dim"},
    {"det_fg_threshold", "window_data", "window_data_param", "fg_threshold"},
    {"det_bg_threshold", "window_data", "window_data_param", "bg_threshold"},
    {"det_fg_fraction", "window_data", "window_data_param", "fg_fraction"},
    {"det_context_pad", "window_data", "window_data_param", "context_pad"},
    {"det_crop_mode", "window_data", "window_data_param", "crop_mode"},
    {"hdf5_output_param", "hdf5_output", NULL, "hdf5_output_param"},
};

static const Rule *find_rule(const char *field, const char *type) {
    for (size_t i = 0; i < sizeof rules / sizeof *rules; i++)
        if (strcmp(rules[i].field, field) == 0 &&
            (!rules[i].type || strcmp(rules[i].type, type) == 0))
            return &rules[i];
    return NULL;
}

static const char *type_of(const Caffe__V1LayerParameter *layer) {
    return layer->layer->type ? layer->layer->type : "";
}

/* ---- one layer ---- */

/* The message `name` of a layer, made when it is not there; NULL when memory is short. */
static ProtobufCMessage *submessage(ProtobufCMessage *layer, const char *name) {
    const ProtobufCFieldDescriptor *field = shoal_field_find(layer->descriptor, name);
    ProtobufCMessage **slot = shoal_field_value(layer, field);
    if (!*slot)
        *slot = shoal_field_new_message(field->descriptor);
    return *slot;
}

/* pad, stride and kernel size are lists in today's convolutions. */
static bool transfer(ProtobufCMessage *from, const ProtobufCFieldDescriptor *field,
                     ProtobufCMessage *to, const ProtobufCFieldDescriptor *to_field) {
    if (to_field->label == field->label) {
        shoal_field_move(from, field, to, to_field);
        return true;
    }
    void *item = shoal_field_add(to, to_field);
    if (item)
        memcpy(item, shoal_field_value(from, field), shoal_field_value_size(field->type));
    return item != NULL;
}

/* Fields that keep name and meaning from V0 to V1. */
static bool is_common(const char *name) {
    return strcmp(name, "name") == 0 || strcmp(name, "blobs") == 0 ||
           strcmp(name, "blobs_lr") == 0 || strcmp(name, "weight_decay") == 0;
}

static ShoalStatus upgrade_field(ShoalCaffeUpgrade *u, Caffe__V1LayerParameter *old,
                                 const ProtobufCFieldDescriptor *field,
                                 Caffe__V1LayerParameter *now) {
    ProtobufCMessage *v0 = &old->layer->base, *to = &now->base;
    const char *name = field->name;
    if (!is_common(name)) {
        const Rule *rule = find_rule(name, type_of(old));
        if (!rule) {
            shoal_caffe_upgrade_warn(u, old,
                                     "\"%s\" means nothing in a layer of type \"%s\"; "
                                     "ignored, as Caffe does",
                                     name, type_of(old));
            return SHOAL_OK;
        }
        name = rule->to;
        if (rule->message)
            to = submessage(to, rule->message);
    }
    if (!to || !transfer(v0, field, to, shoal_field_find(to->descriptor, name)))
        return shoal_error_memory(u->err, "an upgrade", sizeof *now);
    return SHOAL_OK;
}

static ShoalStatus upgrade_type(ShoalCaffeUpgrade *u, const Caffe__V1LayerParameter *old,
                                Caffe__V1LayerParameter *now) {
    if (!old->layer->type)
        return SHOAL_OK;
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (strcmp(types[i].name, old->layer->type) == 0) {
            now->has_type = 1;
            now->type = types[i].type;
            return SHOAL_OK;
        }
    return shoal_caffe_upgrade_fail(u, old, "unknown layer type \"%.80s\"", old->layer->type);
}

static ShoalStatus upgrade_layer(ShoalCaffeUpgrade *u, Caffe__V1LayerParameter *old,
                                 Caffe__V1LayerParameter *now) {
    ShoalStatus status = upgrade_type(u, old, now);
    for (const char *const *name = (const char *const[]){"bottom", "top", NULL}; *name; name++) {
        const ProtobufCFieldDescriptor *field = shoal_field_find(now->base.descriptor, *name);
        shoal_field_move(&old->base, field, &now->base, field);
    }
    const ProtobufCMessageDescriptor *type = old->layer->base.descriptor;
    for (unsigned i = 0; i < type->n_fields && !status; i++)
        if (strcmp(type->fields[i].name, "type") != 0 &&
            shoal_field_count(&old->layer->base, &type->fields[i]))
            status = upgrade_field(u, old, &type->fields[i], now);
    return status;
}

/* ---- padding layers: their pad goes to the convolution or pooling behind them ---- */

/* The layer that last wrote each blob: an open-addressed table, names borrowed from the net. */
typedef struct Producers {
    struct Producer {
        const char *blob;
        const Caffe__V1LayerParameter *layer; /* NULL: an input of the net */
    } * slots;                                /* shoal_calloc; blob NULL: free */
    size_t mask;
} Producers;

static struct Producer *producer_slot(const Producers *p, const char *blob) {
    uint64_t hash = 14695981039346656037u; /* FNV-1a */
    for (const char *c = blob; *c; c++)
        hash = (hash ^ (unsigned char)*c) * 1099511628211u;
    size_t i = (size_t)(hash ^ hash >> 32) & p->mask;
    while (p->slots[i].blob && strcmp(p->slots[i].blob, blob) != 0)
        i = (i + 1) & p->mask;
    return &p->slots[i];
}

static void producer_set(Producers *p, const char *blob, const Caffe__V1LayerParameter *layer) {
    struct Producer *slot = producer_slot(p, blob);
    slot->blob = blob;
    slot->layer = layer;
}

static bool producers_init(Producers *p, const Caffe__NetParameter *net) {
    size_t names = net->n_input, size = 16;
    for (size_t i = 0; i < net->n_layers; i++)
        names += net->layers[i]->n_top;
    while (size / 2 < names)
        size *= 2;
    p->slots = shoal_calloc(size, sizeof *p->slots);
    p->mask = size - 1;
    if (!p->slots)
        return false;
    for (size_t i = 0; i < net->n_input; i++)
        producer_set(p, net->input[i], NULL);
    return true;
}

static bool is_padding(const Caffe__V1LayerParameter *layer) {
    return strcmp(type_of(layer), "padding") == 0;
}

static ShoalStatus check_padded(ShoalCaffeUpgrade *u, const Caffe__V1LayerParameter *layer,
                                const Caffe__V1LayerParameter *padding) {
    const char *type = type_of(layer);
    if (strcmp(type, "conv") != 0 && strcmp(type, "pool") != 0)
        return shoal_caffe_upgrade_fail(u, layer,
                                        "a layer of type \"%.80s\" reads a padding layer; only "
                                        "conv and pool can",
                                        type);
    if (layer->n_bottom != 1)
        return shoal_caffe_upgrade_fail(u, layer, "%zu bottoms behind a padding layer, expected 1",
                                        layer->n_bottom);
    if (padding->n_bottom != 1 || padding->n_top != 1)
        return shoal_caffe_upgrade_fail(u, padding,
                                        "a padding layer with %zu bottoms and %zu tops, expected "
                                        "1 and 1",
                                        padding->n_bottom, padding->n_top);
    return SHOAL_OK;
}

static ShoalStatus take_padding(ShoalCaffeUpgrade *u, Caffe__V1LayerParameter *layer,
                                const Caffe__V1LayerParameter *padding) {
    ShoalStatus status = check_padded(u, layer, padding);
    if (status)
        return status;
    if (!shoal_caffe_string_set(&layer->bottom[0], NULL, padding->bottom[0]))
        return shoal_error_memory(u->err, "a blob name", strlen(padding->bottom[0]));
    layer->layer->has_pad = 1;
    layer->layer->pad = padding->layer->pad;
    return SHOAL_OK;
}

static ShoalStatus merge_layer(ShoalCaffeUpgrade *u, Producers *producers, size_t index) {
    Caffe__V1LayerParameter *layer = u->net->layers[index];
    for (size_t j = 0; j < layer->n_bottom; j++) {
        const struct Producer *from = producer_slot(producers, layer->bottom[j]);
        if (!from->blob)
            return shoal_caffe_upgrade_fail(u, layer, "bottom \"%.80s\" is no top of a layer above",
                                            layer->bottom[j]);
        if (from->layer && is_padding(from->layer)) {
            ShoalStatus status = take_padding(u, layer, from->layer);
            if (status)
                return status;
        }
    }
    for (size_t j = 0; j < layer->n_top; j++)
        producer_set(producers, layer->top[j], layer);
    return SHOAL_OK;
}

static ShoalStatus merge_padding(ShoalCaffeUpgrade *u) {
    Producers producers;
    if (!producers_init(&producers, u->net))
        return shoal_error_memory(u->err, "an upgrade", u->net->n_layers);
    ShoalStatus status = SHOAL_OK;
    for (size_t i = 0; i < u->net->n_layers && !status; i++)
        status = merge_layer(u, &producers, i);
    shoal_free(producers.slots);
    return status;
}

/* ---- the whole ---- */

static ShoalStatus check_all_v0(ShoalCaffeUpgrade *u) {
    for (size_t i = 0; i < u->net->n_layers; i++)
        if (!u->net->layers[i]->layer)
            return shoal_caffe_upgrade_fail(u, u->net->layers[i],
                                            "this one of the \"layers\" has no \"layer\" inside "
                                            "while others have; write all of them alike");
    return SHOAL_OK;
}

/* Layer i, upgraded, in place of the old one; a padding layer is only taken out. */
static ShoalStatus replace_layer(ShoalCaffeUpgrade *u, size_t i, size_t *kept) {
    Caffe__V1LayerParameter *old = u->net->layers[i], *now = NULL;
    ShoalStatus status = SHOAL_OK;
    if (!is_padding(old)) {
        now = (Caffe__V1LayerParameter *)shoal_field_new_message(
            &caffe__v1_layer_parameter__descriptor);
        if (!now)
            return shoal_error_memory(u->err, "an upgrade", sizeof *now);
        status = upgrade_layer(u, old, now);
    }
    if (!status)
        status = shoal_caffe_upgrade_retire(u, &old->base, now ? &now->base : NULL);
    if (status) {
        if (now)
            protobuf_c_message_free_unpacked(&now->base, NULL);
        return status;
    }
    u->net->layers[i] = NULL;
    if (now)
        u->net->layers[(*kept)++] = now;
    return SHOAL_OK;
}

ShoalStatus shoal_caffe_upgrade_v0(ShoalCaffeUpgrade *u) {
    Caffe__NetParameter *net = u->net;
    ShoalStatus status = check_all_v0(u);
    if (!status)
        status = merge_padding(u);
    size_t kept = 0, i = 0;
    for (; i < net->n_layers && !status; i++)
        status = replace_layer(u, i, &kept);
    if (!status) {
        net->n_layers = kept;
        return SHOAL_OK;
    }
    /* Close the gap that padding layers left, so that the net can be freed. */
    for (i = 0, kept = 0; i < net->n_layers; i++)
        if (net->layers[i])
            net->layers[kept++] = net->layers[i];
    net->n_layers = kept;
    return status;
}
