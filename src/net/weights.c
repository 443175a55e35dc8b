/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/memory.h"
#include "net/internal.h"

/* Weights from and to Caffe's NetParameter. */

/* The first layer of that name, as in Caffe; none is the name "". */
static const ShoalLayer *layer_named(const ShoalNet *net, const char *name) {
    for (int i = 0; i < net->n_layers; i++)
        if (!strcmp(net->layers[i].param->name, name ? name : ""))
            return &net->layers[i];
    return NULL;
}

/* Legacy blobs have four axes: leading ones of size 1 do not count (Blob::ShapeEquals). */
static bool shape_fits(const ShoalBlob *target, const int *dims, int axes, bool legacy) {
    int skip = 0;
    if (legacy)
        while (axes - skip > target->axes && dims[skip] == 1)
            skip++;
    return axes - skip == target->axes &&
           !memcmp(dims + skip, target->shape, (size_t)target->axes * sizeof *dims);
}

static ShoalStatus check_blob(const ShoalLayer *layer, int index, const Caffe__BlobProto *blob,
                              ShoalError *err) {
    int dims[SHOAL_MAX_AXES], axes;
    const ShoalBlob *target = &layer->params[index]->blob;
    const char *name = layer->param->name;
    ShoalStatus status = shoal_caffe_blob_shape(blob, SHOAL_MAX_AXES, dims, &axes, err);
    if (status) {
        shoal_error_prefix(err, "layer '%s', weight blob %d", name, index);
        return status;
    }
    bool legacy = !blob->shape;
    if (!shape_fits(target, dims, axes, legacy)) {
        ShoalBlob found = {.name = name};
        char a[128], b[128];
        (void)shoal_blob_reshape(&found, axes, dims, NULL);
        return shoal_error_set(err, SHOAL_ERR_MODEL,
                               "layer '%s', weight blob %d: the file has shape %s, the net needs "
                               "%s; rename the layer if it is to be trained from scratch",
                               name, index, shoal_blob_shape_text(&found, a, sizeof a),
                               shoal_blob_shape_text(target, b, sizeof b));
    }
    if (blob->n_data != target->count && blob->n_double_data != target->count)
        return shoal_error_set(err, SHOAL_ERR_PARSE,
                               "layer '%s', weight blob %d: %zu values are stored, its shape needs "
                               "%zu",
                               name, index, blob->n_data ? blob->n_data : blob->n_double_data,
                               target->count);
    return SHOAL_OK;
}

/* HDF5 files leave out blobs that are stored with the layer whose memory they share. */
static bool left_out(const ShoalLayer *layer, int index, const Caffe__LayerParameter *source) {
    const Caffe__BlobProto *blob = (size_t)index < source->n_blobs ? source->blobs[index] : NULL;
    bool empty = !blob || (!blob->shape && !blob->has_num && !blob->n_data && !blob->n_double_data);
    return empty && layer->params[index]->owner != layer->params[index];
}

static ShoalStatus check_layer(const ShoalLayer *layer, const Caffe__LayerParameter *source,
                               ShoalError *err) {
    bool fits = source->n_blobs <= (size_t)layer->n_params;
    for (int j = (int)source->n_blobs; fits && j < layer->n_params; j++)
        fits = left_out(layer, j, source);
    if (!fits)
        return shoal_error_set(err, SHOAL_ERR_MODEL,
                               "layer '%s': the file has %zu weight blobs, the net needs %d",
                               layer->param->name, source->n_blobs, layer->n_params);
    for (int j = 0; j < layer->n_params; j++) {
        ShoalStatus status =
            left_out(layer, j, source) ? SHOAL_OK : check_blob(layer, j, source->blobs[j], err);
        if (status)
            return status;
    }
    return SHOAL_OK;
}

static void copy_blob(ShoalBlob *target, const Caffe__BlobProto *blob) {
    if (blob->n_data == target->count)
        memcpy(target->data, blob->data, target->count * sizeof(float));
    else
        for (size_t i = 0; i < target->count; i++)
            target->data[i] = (float)blob->double_data[i];
}

ShoalStatus shoal_net_load_weights(ShoalNet *net, const ShoalCaffeNet *from, int *copied,
                                   ShoalError *err) {
    for (size_t i = 0; i < from->param->n_layer; i++) {
        const ShoalLayer *layer = layer_named(net, from->param->layer[i]->name);
        ShoalStatus status = layer ? check_layer(layer, from->param->layer[i], err) : SHOAL_OK;
        if (status) {
            shoal_error_prefix(err, "%s", from->file);
            return status;
        }
    }
    int n = 0;
    for (size_t i = 0; i < from->param->n_layer; i++) {
        const Caffe__LayerParameter *source = from->param->layer[i];
        const ShoalLayer *layer = layer_named(net, source->name);
        for (int j = 0; layer && j < layer->n_params; j++)
            if (!left_out(layer, j, source))
                copy_blob(&layer->params[j]->blob, source->blobs[j]);
        n += layer && layer->n_params;
    }
    if (copied)
        *copied = n;
    return SHOAL_OK;
}

static float *copy_floats(const float *values, size_t n) {
    float *copy = malloc(n ? n * sizeof *copy : 1);
    if (copy && values)
        memcpy(copy, values, n * sizeof *copy);
    else if (copy)
        memset(copy, 0, n * sizeof *copy);
    return copy;
}

static bool set_shape(Caffe__BlobProto *proto, const ShoalBlob *blob) {
    Caffe__BlobShape *shape = malloc(sizeof *shape);
    if (!shape)
        return false;
    caffe__blob_shape__init(shape);
    proto->shape = shape;
    shape->dim = malloc((size_t)(blob->axes + 1) * sizeof *shape->dim);
    if (!shape->dim)
        return false;
    for (int i = 0; i < blob->axes; i++)
        shape->dim[i] = blob->shape[i];
    shape->n_dim = (size_t)blob->axes;
    return true;
}

Caffe__BlobProto *shoal_blob_to_proto(const ShoalBlob *blob, const float *data, bool with_diff) {
    Caffe__BlobProto *proto = malloc(sizeof *proto);
    if (!proto)
        return NULL;
    caffe__blob_proto__init(proto);
    bool ok = set_shape(proto, blob);
    if (ok && with_diff && (proto->diff = copy_floats(blob->diff, blob->count)))
        proto->n_diff = blob->count;
    if (!ok || (with_diff && !proto->diff)) {
        caffe__blob_proto__free_unpacked(proto, NULL);
        return NULL;
    }
    proto->data = (float *)data; /* lent: it is only read */
    proto->n_data = blob->count;
    return proto;
}

void shoal_blob_proto_free(Caffe__BlobProto *proto) {
    proto->data = NULL;
    proto->n_data = 0;
    caffe__blob_proto__free_unpacked(proto, NULL);
}

static void free_layer(Caffe__LayerParameter *layer) {
    for (size_t j = 0; j < layer->n_blobs; j++)
        shoal_blob_proto_free(layer->blobs[j]);
    layer->n_blobs = 0;
    caffe__layer_parameter__free_unpacked(layer, NULL);
}

void shoal_net_proto_free(Caffe__NetParameter *proto) {
    for (size_t i = 0; i < proto->n_layer; i++)
        free_layer(proto->layer[i]);
    proto->n_layer = 0;
    caffe__net_parameter__free_unpacked(proto, NULL);
}

static Caffe__LayerParameter *layer_to_proto(const ShoalLayer *layer, bool with_diff) {
    Caffe__LayerParameter *copy = (Caffe__LayerParameter *)shoal_caffe_copy(&layer->param->base);
    if (!copy || !layer->n_params)
        return copy;
    copy->blobs = calloc((size_t)layer->n_params, sizeof *copy->blobs);
    for (int j = 0; copy->blobs && j < layer->n_params; j++) {
        const ShoalBlob *blob = &layer->params[j]->blob;
        copy->blobs[j] = shoal_blob_to_proto(blob, blob->data, with_diff);
        if (!copy->blobs[j])
            break;
        copy->n_blobs++;
    }
    if (copy->n_blobs == (size_t)layer->n_params)
        return copy;
    free_layer(copy);
    return NULL;
}

ShoalStatus shoal_net_to_proto(const ShoalNet *net, bool with_diff, Caffe__NetParameter **out,
                               ShoalError *err) {
    Caffe__NetParameter *proto = malloc(sizeof *proto);
    if (!proto)
        return shoal_error_memory(err, "a snapshot", sizeof *proto);
    caffe__net_parameter__init(proto);
    proto->name = strdup(net->name);
    proto->layer = calloc((size_t)net->n_layers + 1, sizeof *proto->layer);
    for (int i = 0; proto->layer && i < net->n_layers; i++) {
        proto->layer[i] = layer_to_proto(&net->layers[i], with_diff);
        if (!proto->layer[i])
            break;
        proto->n_layer++;
    }
    if (!proto->name || proto->n_layer != (size_t)net->n_layers) {
        shoal_net_proto_free(proto);
        return shoal_error_memory(err, "a snapshot", 2 * net->data_count * sizeof(float));
    }
    *out = proto;
    return SHOAL_OK;
}
