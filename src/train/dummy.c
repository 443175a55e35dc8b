/* SPDX-License-Identifier: Apache-2.0 */
#include "train/dummy.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/file.h"
#include "base/memory.h"
#include "base/rng.h"
#include "data/dataset.h"

enum { IMAGE_CHANNELS = 3 };

/* The shape of the images of a net, and where it comes from. */
typedef struct Shape {
    int dims[3];
    char from[64];
} Shape;

static ShoalStatus parse_shape(const char *text, Shape *shape, ShoalError *err) {
    int end = 0, *d = shape->dims;
    bool whole = sscanf(text, "%6dx%6dx%6d%n", &d[0], &d[1], &d[2], &end) == 3 && !text[end];
    if (!whole || d[0] < 1 || d[1] < 1 || d[2] < 1)
        return shoal_error_set(err, SHOAL_ERR_ARGUMENT,
                               "--shape=%.40s: expected channels, height and width such as "
                               "3x224x224",
                               text);
    snprintf(shape->from, sizeof shape->from, "--shape");
    return SHOAL_OK;
}

static ShoalStatus shape_of_mean(const char *path, Shape *shape, ShoalError *err) {
    unsigned char *bytes;
    size_t size;
    ShoalStatus status = shoal_file_read(path, &bytes, &size, err);
    if (status)
        return status;
    ProtobufCMessage *message;
    status = shoal_caffe_unpack(&caffe__blob_proto__descriptor, bytes, size, path, &message, err);
    shoal_free(bytes);
    if (status)
        return status;
    int dims[4], axes;
    status = shoal_caffe_blob_shape((const Caffe__BlobProto *)message, 4, dims, &axes, err);
    protobuf_c_message_free_unpacked(message, NULL);
    if (!status && axes < 3)
        status = shoal_error_set(err, SHOAL_ERR_MODEL, "%s: not the mean of images", path);
    for (int i = 0; !status && i < 3; i++)
        shape->dims[i] = dims[axes - 3 + i];
    snprintf(shape->from, sizeof shape->from, "mean_file");
    return status;
}

static ShoalStatus shape_of_layer(const Caffe__LayerParameter *layer, Shape *shape,
                                  ShoalError *err) {
    const Caffe__TransformationParameter *param = layer->transform_param;
    if (param && param->crop_size) {
        *shape = (Shape){.dims = {IMAGE_CHANNELS, (int)param->crop_size, (int)param->crop_size}};
        snprintf(shape->from, sizeof shape->from, "crop_size; 3 channels are assumed");
        return SHOAL_OK;
    }
    ShoalError attempt = {0};
    if (param && param->mean_file && param->mean_file[0])
        return shape_of_mean(param->mean_file, shape, &attempt)
                   ? shoal_error_set(err, attempt.status, "%s; or give --shape=CxHxW", attempt.text)
                   : SHOAL_OK;
    return shoal_error_set(err, SHOAL_ERR_MODEL,
                           "the shape of the images of layer '%s' is unknown: it has no crop_size "
                           "and no mean_file; give --shape=CxHxW",
                           layer->name);
}

/* A layer whose samples are images, of which only the shape is needed. */
static bool has_images(const Caffe__LayerParameter *layer) {
    return shoal_dataset_feeds(layer) && strcmp(layer->type, "HDF5Data") != 0;
}

static uint32_t batch_of(const Caffe__LayerParameter *layer) {
    return layer->image_data_param    ? layer->image_data_param->batch_size
           : layer->window_data_param ? layer->window_data_param->batch_size
           : layer->data_param        ? layer->data_param->batch_size
                                      : 0;
}

/* It becomes a Data layer, whichever it was. */
static ShoalStatus make_data_layer(Caffe__LayerParameter *layer, ShoalError *err) {
    if (!strcmp(layer->type, "Data"))
        return SHOAL_OK;
    char *type = strdup("Data");
    Caffe__DataParameter *param = malloc(sizeof *param);
    if (!type || !param) {
        free(type);
        free(param);
        return shoal_error_memory(err, "a data layer", sizeof *param);
    }
    caffe__data_parameter__init(param);
    param->has_batch_size = true;
    param->batch_size = batch_of(layer);
    free(layer->type);
    layer->type = type;
    if (layer->data_param)
        caffe__data_parameter__free_unpacked(layer->data_param, NULL);
    layer->data_param = param;
    return SHOAL_OK;
}

/* Each of them gets a dataset of its own, of which only the shape exists. */
static ShoalStatus replace_data(ShoalJob *job, Caffe__LayerParameter *layer, int number,
                                const Shape *shape, ShoalError *err) {
    char name[32];
    snprintf(name, sizeof name, "dummy data %d", number);
    ShoalStatus status = make_data_layer(layer, err);
    if (status)
        return status;
    char *source = strdup(name);
    if (!source)
        return shoal_error_memory(err, "a name", sizeof name);
    if (!layer->data_param) {
        free(source);
        return SHOAL_OK; /* the net will say what is missing */
    }
    free(layer->data_param->source);
    layer->data_param->source = source;
    layer->data_param->has_backend = true;
    layer->data_param->backend = CAFFE__DATA_PARAMETER__DB__LMDB;
    if (layer->transform_param)
        caffe__transformation_parameter__free_unpacked(layer->transform_param, NULL);
    layer->transform_param = NULL;
    const ShoalRecordShape record = {1, {{3, {shape->dims[0], shape->dims[1], shape->dims[2]}}}};
    return shoal_job_add_dataset(job, source, &record, err);
}

static ShoalStatus load_model(const char *path, ShoalJob *job, ShoalError *err) {
    unsigned char *text;
    size_t size;
    ShoalStatus status = shoal_file_read(path, &text, &size, err);
    if (status)
        return status;
    job->nets = shoal_calloc(1, sizeof *job->nets);
    if (job->nets)
        status =
            shoal_caffe_net_from_text((const char *)text, size, path, &job->nets[0].model, err);
    else
        status = shoal_error_memory(err, "a net", sizeof *job->nets);
    job->n_nets = status ? 0 : 1;
    shoal_free(text);
    return status;
}

/* Only the layers of phase TRAIN must have a shape; the others take it over. */
static bool is_timed(const Caffe__LayerParameter *layer) {
    for (size_t i = 0; i < layer->n_include; i++)
        if (layer->include[i]->has_phase && layer->include[i]->phase == CAFFE__PHASE__TEST)
            return false;
    return true;
}

static ShoalStatus replace_all(ShoalJob *job, const char *given, char text[SHOAL_DUMMY_TEXT],
                               ShoalError *err) {
    Caffe__NetParameter *net = job->nets[0].model.param;
    Shape shape = {{0}, ""};
    ShoalStatus status = given ? parse_shape(given, &shape, err) : SHOAL_OK;
    int number = 0;
    for (size_t i = 0; i < net->n_layer && !status; i++) {
        Caffe__LayerParameter *layer = net->layer[i];
        if (is_timed(layer) && layer->type && !strcmp(layer->type, "HDF5Data"))
            return shoal_error_set(
                err, SHOAL_ERR_UNSUPPORTED,
                "layer '%s': in place of HDF5Data no random numbers can be made; "
                "time the net on its data",
                layer->name);
        if (!has_images(layer) || !is_timed(layer))
            continue;
        if (!given)
            status = shape_of_layer(layer, &shape, err);
        if (!status)
            status = replace_data(job, layer, number++, &shape, err);
    }
    if (number)
        snprintf(text, SHOAL_DUMMY_TEXT,
                 "random numbers instead of a dataset; images of %dx%dx%d "
                 "(by %s)",
                 shape.dims[0], shape.dims[1], shape.dims[2], shape.from);
    else
        snprintf(text, SHOAL_DUMMY_TEXT, "random numbers; the net has no Data layer");
    return status;
}

ShoalStatus shoal_dummy_load(const char *model, const char *shape, ShoalJob *out,
                             char text[SHOAL_DUMMY_TEXT], ShoalError *err) {
    ShoalJob job = {.workers = 1};
    ShoalStatus status = load_model(model, &job, err);
    if (!status)
        status = replace_all(&job, shape, text, err);
    if (status)
        shoal_job_close(&job);
    else
        *out = job;
    return status;
}

/* ---- batch ---- */

static void set_shapes(size_t n, Caffe__BlobShape **shapes, int from, int to) {
    for (size_t i = 0; i < n; i++)
        if (shapes[i]->n_dim && shapes[i]->dim[0] == from)
            shapes[i]->dim[0] = to;
}

ShoalStatus shoal_dummy_set_batch(ShoalJob *job, int batch, ShoalError *err) {
    int old;
    const ShoalJobNet *net = &job->nets[0];
    ShoalStatus status =
        shoal_net_model_batch(&net->model, CAFFE__PHASE__TRAIN, net->state, &old, err);
    if (status)
        return status;
    for (size_t i = 0; i < net->model.param->n_layer; i++) {
        Caffe__LayerParameter *layer = net->model.param->layer[i];
        if (layer->data_param) {
            layer->data_param->batch_size = (uint32_t)batch;
            layer->data_param->has_batch_size = true;
        }
        if (layer->input_param)
            set_shapes(layer->input_param->n_shape, layer->input_param->shape, old, batch);
        if (layer->dummy_data_param) {
            Caffe__DummyDataParameter *dummy = layer->dummy_data_param;
            set_shapes(dummy->n_shape, dummy->shape, old, batch);
            for (size_t k = 0; k < dummy->n_num; k++)
                if (dummy->num[k] == (uint32_t)old)
                    dummy->num[k] = (uint32_t)batch;
        }
    }
    return SHOAL_OK;
}

/* ---- numbers ---- */

/* How many classes there are when the blob holds labels, else 0. Splits hand it on. */
static int classes_of(ShoalNet *net, const ShoalBlob *blob) {
    for (int i = 0; i < shoal_net_layers(net); i++) {
        const ShoalLayer *layer = shoal_net_layer(net, i);
        if (layer->n_bottoms > 1 && layer->bottoms[1] == blob &&
            (layer->class->no_gradient_bottoms >> 1 & 1 ||
             (layer->class->flags & SHOAL_LAYER_NO_BACKWARD)))
            return layer->bottoms[0]->axes > 1 ? layer->bottoms[0]->shape[1] : 1;
        bool splits = layer->class->flags & SHOAL_LAYER_SHARES_DATA;
        for (int t = 0; splits && layer->bottoms[0] == blob && t < layer->n_tops; t++) {
            int classes = classes_of(net, layer->tops[t]);
            if (classes)
                return classes;
        }
    }
    return 0;
}

void shoal_dummy_fill(ShoalNet *net, uint64_t seed) {
    uint32_t stream = 0;
    for (int s = 0; s < shoal_net_sources(net); s++) {
        const ShoalLayer *source = shoal_net_source(net, s);
        for (int t = 0; t < source->n_tops; t++) {
            const ShoalBlob *top = source->tops[t];
            int classes = classes_of(net, top);
            ShoalRng rng;
            shoal_rng_init(&rng, seed, SHOAL_RNG_DUMMY, stream++);
            if (!classes)
                shoal_rng_fill_gaussian(&rng, 0, 1, top->count, top->data);
            for (size_t i = 0; classes && i < top->count; i++)
                top->data[i] = (float)shoal_rng_below(&rng, (uint32_t)classes);
        }
    }
}
