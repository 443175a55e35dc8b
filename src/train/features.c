/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/memory.h"
#include "caffe/model.h"
#include "data/watch.h"
#include "data/writer.h"
#include "shoal/tools.h"
#include "train/engine.h"
#include "train/replica.h"
#include "train/stream.h"

/* `shoal extract_features`: blobs of a net in phase TEST into datasets (BVLC Caffe:
 * tools/extract_features.cpp).
 *
 * A blob's memory is given to others once it was consumed, and fused layers do not write it at all.
 * So each blob that is asked for gets a consumer of its own at the end of the net, a Split with one
 * top, which is an output of the net and shares the blob's memory. */

#define TAP "extract_features "

typedef struct Feature {
    char *blob, *lmdb; /* in Extraction.blobs and .lmdbs */
    char *top;         /* of its tap: TAP, number, blob */
    ShoalDatasetWriter *writer;
    uint64_t images;
} Feature;

typedef struct Extraction {
    const ShoalFeaturesOptions *options;
    const ShoalToolWatch *watch;
    char *blobs, *lmdbs; /* the lists, cut at their commas */
    Feature *features;
    size_t n_features;
    ShoalJob job;
    ShoalStreams streams;
    ShoalReplica *replica;
    ShoalSlot *slot;
    ShoalResult result;
} Extraction;

/* ---- what is asked for ---- */

/* Cuts a list at its commas; returns how many parts there are. */
static size_t cut(char *list) {
    size_t n = 1;
    for (char *c = list; *c; c++) {
        if (*c == ',') {
            *c = '\0';
            n++;
        }
    }
    return n;
}

static ShoalStatus parse_names(Extraction *x, ShoalError *err) {
    x->blobs = shoal_strdup(x->options->blobs);
    x->lmdbs = shoal_strdup(x->options->lmdbs);
    if (!x->blobs || !x->lmdbs)
        return shoal_error_memory(err, "names", 0);
    size_t n = cut(x->blobs), datasets = cut(x->lmdbs);
    if (n != datasets)
        return shoal_error_set(err, SHOAL_ERR_ARGUMENT,
                               "%zu blobs and %zu datasets; there must be as many of both", n,
                               datasets);
    x->features = shoal_calloc(n, sizeof *x->features);
    if (!x->features)
        return shoal_error_memory(err, "features", n * sizeof *x->features);
    x->n_features = n;
    char *blob = x->blobs, *lmdb = x->lmdbs;
    for (size_t i = 0; i < n; i++) {
        x->features[i].blob = blob;
        x->features[i].lmdb = lmdb;
        if (!*blob || !*lmdb)
            return shoal_error_set(err, SHOAL_ERR_ARGUMENT, "an empty name among '%s' or '%s'",
                                   x->options->blobs, x->options->lmdbs);
        blob += strlen(blob) + 1;
        lmdb += strlen(lmdb) + 1;
    }
    return SHOAL_OK;
}

/* ---- taps ---- */

static bool is_top(const Caffe__NetParameter *net, const char *blob) {
    for (size_t i = 0; i < net->n_layer; i++)
        for (size_t t = 0; t < net->layer[i]->n_top; t++)
            if (!strcmp(net->layer[i]->top[t], blob))
                return true;
    return false;
}

/* A list of one string in malloc storage, as protobuf-c frees it. */
static bool set_only(char ***list, size_t *count, const char *text) {
    *list = malloc(sizeof **list);
    if (!*list)
        return false;
    (*list)[0] = strdup(text);
    *count = (*list)[0] != NULL;
    return *count == 1;
}

static Caffe__LayerParameter *new_tap(const Feature *feature) {
    Caffe__LayerParameter *layer = malloc(sizeof *layer);
    if (!layer)
        return NULL;
    caffe__layer_parameter__init(layer);
    layer->name = strdup(feature->top);
    layer->type = strdup("Split");
    if (layer->name && layer->type && set_only(&layer->bottom, &layer->n_bottom, feature->blob) &&
        set_only(&layer->top, &layer->n_top, feature->top))
        return layer;
    caffe__layer_parameter__free_unpacked(layer, NULL);
    return NULL;
}

static ShoalStatus add_tap(Caffe__NetParameter *net, Feature *feature, size_t number,
                           const char *model, ShoalError *err) {
    if (!is_top(net, feature->blob))
        return shoal_error_set(err, SHOAL_ERR_MODEL, "%s: no layer has a top '%s' to extract",
                               model, feature->blob);
    size_t size = strlen(feature->blob) + sizeof TAP + 32;
    feature->top = shoal_calloc(size, 1);
    Caffe__LayerParameter **layers = realloc(net->layer, (net->n_layer + 1) * sizeof *layers);
    if (layers)
        net->layer = layers;
    if (!feature->top || !layers)
        return shoal_error_memory(err, "a layer", size);
    snprintf(feature->top, size, TAP "%zu: %s", number, feature->blob);
    layers[net->n_layer] = new_tap(feature);
    if (!layers[net->n_layer])
        return shoal_error_memory(err, "a layer", size);
    net->n_layer++;
    return SHOAL_OK;
}

static ShoalStatus prepare(Extraction *x, ShoalError *err) {
    const ShoalFeaturesOptions *options = x->options;
    ShoalReplicaOptions replica = {.phase_test = true, .writes_files = true};
    ShoalStatus status =
        shoal_job_load_net(options->model, options->weights, &options->choice, &x->job, err);
    for (size_t i = 0; i < x->n_features && !status; i++)
        status = add_tap(x->job.nets[0].model.param, &x->features[i], i, options->model, err);
    if (!status)
        status = shoal_streams_open(&x->job, 0, CAFFE__PHASE__TEST, &x->streams, err);
    if (!status)
        status = shoal_engine_choose(&options->engine, 0, &replica, err);
    if (!status)
        status = shoal_replica_create(&x->job, &replica, &x->replica, err);
    if (!status)
        status = shoal_replica_result_init(x->replica, &x->result, err);
    if (status)
        return status;
    x->slot = shoal_slot_create(x->replica);
    if (!x->slot)
        return shoal_error_memory(err, "the samples", 0);
    for (size_t i = 0; i < x->n_features && !status; i++)
        status = shoal_dataset_writer_create(x->features[i].lmdb, &x->features[i].writer, err);
    return status;
}

/* ---- records ---- */

/* Blob::LegacyShape of Caffe: an axis that is not there is 1. */
static int size_of_axis(const ShoalBlob *blob, int axis) {
    return axis < blob->axes ? blob->shape[axis] : 1;
}

static ShoalStatus put_image(Feature *feature, const ShoalBlob *blob, float *values, size_t count,
                             ShoalError *err) {
    Caffe__Datum datum;
    caffe__datum__init(&datum);
    datum.has_channels = datum.has_height = datum.has_width = 1;
    datum.channels = size_of_axis(blob, 1);
    datum.height = size_of_axis(blob, 2);
    datum.width = size_of_axis(blob, 3);
    datum.float_data = values;
    datum.n_float_data = count;
    char key[32];
    int key_size = snprintf(key, sizeof key, "%010llu", (unsigned long long)feature->images);
    void *bytes;
    size_t size;
    ShoalStatus status = shoal_caffe_pack(&datum.base, &bytes, &size, err);
    if (status)
        return status;
    status = shoal_dataset_writer_put(feature->writer, key, (size_t)key_size, bytes, size, err);
    shoal_free(bytes);
    feature->images += !status;
    return status;
}

static ShoalStatus put_blob(Feature *feature, const ShoalNet *net, ShoalError *err) {
    const ShoalBlob *blob = shoal_net_blob(net, feature->top);
    if (!blob || blob->axes > 4)
        return shoal_error_set(err, SHOAL_ERR_UNSUPPORTED,
                               "blob %s has %d axes; a record takes at most 4", feature->blob,
                               blob ? blob->axes : 0);
    int images = size_of_axis(blob, 0);
    ShoalStatus status = SHOAL_OK;
    for (int n = 0; n < images && !status; n++) {
        size_t count = blob->count / (size_t)images;
        status = put_image(feature, blob, blob->data + (size_t)n * count, count, err);
    }
    return status;
}

static ShoalStatus run_batch(Extraction *x, int number, ShoalError *err) {
    const ShoalNet *net = shoal_replica_net(x->replica, 0);
    int batch = shoal_net_batch(net);
    *shoal_slot_round(x->slot) = (ShoalRound){.kind = SHOAL_STEP_TEST,
                                              .first_sample = (uint64_t)number * (uint64_t)batch,
                                              .count = batch,
                                              .batch = batch};
    ShoalStatus status = shoal_streams_stage(&x->streams, x->slot, err);
    if (!status)
        status = shoal_replica_run(x->replica, x->slot, NULL, 0, &x->result, err);
    for (size_t i = 0; i < x->n_features && !status; i++)
        status = put_blob(&x->features[i], net, err);
    return status;
}

static ShoalStatus finish(Extraction *x, ShoalError *err) {
    ShoalStatus status = SHOAL_OK;
    for (size_t i = 0; i < x->n_features && !status; i++) {
        Feature *feature = &x->features[i];
        if (!feature->images)
            return shoal_error_set(err, SHOAL_ERR_DATA, "blob %s is empty", feature->blob);
        status = shoal_dataset_writer_close(feature->writer, err);
        feature->writer = NULL;
        if (!status)
            shoal_watch_note(x->watch,
                             "Extracted features of %llu query images for feature blob %s",
                             (unsigned long long)feature->images, feature->blob);
    }
    return status;
}

static ShoalStatus extract(Extraction *x, ShoalError *err) {
    ShoalStatus status = parse_names(x, err);
    if (!status)
        status = prepare(x, err);
    for (int i = 0; i < x->options->batches && !status; i++) {
        status = run_batch(x, i, err);
        if (status)
            break;
        shoal_watch_progress(x->watch, x->features[0].images,
                             x->features[0].images / (uint64_t)(i + 1) *
                                 (uint64_t)x->options->batches);
        status = shoal_watch_stopped(x->watch, err);
    }
    return status ? status : finish(x, err);
}

ShoalStatus shoal_extract_features(const ShoalFeaturesOptions *options, const ShoalToolWatch *watch,
                                   ShoalError *error) {
    if (!options->model || !options->weights || !options->blobs || !options->lmdbs)
        return shoal_error_set(error, SHOAL_ERR_ARGUMENT,
                               "give weights, a model, blobs and datasets");
    if (options->batches < 1)
        return shoal_error_set(error, SHOAL_ERR_ARGUMENT, "%d batches; expected 1 or more",
                               options->batches);
    Extraction x = {.options = options, .watch = watch};
    ShoalStatus status = extract(&x, error);
    for (size_t i = 0; i < x.n_features; i++) {
        shoal_dataset_writer_discard(x.features[i].writer);
        shoal_free(x.features[i].top);
    }
    shoal_replica_result_close(&x.result);
    shoal_slot_destroy(x.slot);
    shoal_replica_destroy(x.replica);
    shoal_streams_close(&x.streams);
    shoal_job_close(&x.job);
    shoal_free(x.features);
    shoal_free(x.blobs);
    shoal_free(x.lmdbs);
    return status;
}
