/* SPDX-License-Identifier: Apache-2.0 */
#include "train/stream.h"

#include <sodium.h>
#include <string.h>

#include "base/error.h"
#include "base/memory.h"
#include "base/rng.h"
#include "data/feed.h"
#include "net/graph.h"

enum { FINGERPRINT_RECORDS = 16 };

/* Of the number of records, and of some of them: first, last and between. */
static ShoalStatus fingerprint(ShoalDataset *dataset, ShoalFingerprint *out, ShoalError *err) {
    uint64_t count = shoal_dataset_count(dataset);
    crypto_generichash_state state;
    crypto_generichash_init(&state, NULL, 0, sizeof out->bytes);
    crypto_generichash_update(&state, (const unsigned char *)&count, sizeof count);
    for (uint64_t i = 0; i < FINGERPRINT_RECORDS; i++) {
        ShoalRecord record;
        uint64_t number = (count - 1) / (FINGERPRINT_RECORDS - 1) * i;
        ShoalStatus status = shoal_dataset_record(
            dataset, i == FINGERPRINT_RECORDS - 1 ? count - 1 : number, &record, err);
        if (status)
            return status;
        crypto_generichash_update(&state, record.bytes, record.size);
    }
    crypto_generichash_final(&state, out->bytes, sizeof out->bytes);
    return SHOAL_OK;
}

static ShoalStatus describe_dataset(ShoalJob *job, const Caffe__LayerParameter *layer,
                                    ShoalDataset *dataset, ShoalError *err) {
    const char *name = shoal_dataset_name(dataset);
    if (shoal_job_dataset(job, name))
        return SHOAL_OK;
    ShoalFingerprint print;
    ShoalRecordShape shape;
    ShoalStatus status = shoal_feed_describe(layer, dataset, &shape, err);
    if (!status)
        status = shoal_job_add_dataset(job, name, &shape, err);
    if (!status)
        status = fingerprint(dataset, &print, err);
    if (!status)
        shoal_job_name_dataset(job, name, shoal_dataset_count(dataset), &print);
    return status;
}

/* rand_skip and shuffle: what depends on the job's seed. */
static void seed_stream(const ShoalJob *job, ShoalStream *stream, ShoalShuffle shuffle) {
    uint64_t count = shoal_dataset_count(stream->dataset);
    stream->seed = job->seed + stream->layer;
    if (stream->shuffled && shuffle == SHOAL_SHUFFLE_NONE)
        shuffle = SHOAL_SHUFFLE_GLOBAL;
    shoal_sampler_init(&stream->sampler, count, shuffle, job->seed + stream->layer,
                       (uint64_t)stream->batch);
    if (stream->rand_skip) {
        ShoalRng rng;
        shoal_rng_init(&rng, job->seed, SHOAL_RNG_SHUFFLE, stream->layer);
        stream->skip = shoal_rng_below(&rng, stream->rand_skip);
    }
}

void shoal_streams_seed(const ShoalJob *job, ShoalStreams *streams, ShoalShuffle shuffle) {
    for (int i = 0; i < streams->count; i++)
        if (streams->items[i].dataset)
            seed_stream(job, &streams->items[i], shuffle);
}

/* What the layer itself says about the order of its samples. */
static void read_order(const Caffe__LayerParameter *layer, ShoalStream *stream) {
    const Caffe__DataParameter *data = layer->data_param;
    const Caffe__ImageDataParameter *images = layer->image_data_param;
    const Caffe__HDF5DataParameter *hdf5 = layer->hdf5_data_param;
    uint32_t batch = 0;
    if (!strcmp(layer->type, "Data")) {
        batch = data->batch_size;
        stream->rand_skip = data->rand_skip;
        stream->shuffled = data->shuffle;
    } else if (!strcmp(layer->type, "ImageData")) {
        batch = images->batch_size;
        stream->rand_skip = images->rand_skip;
        stream->shuffled = images->shuffle;
    } else if (!strcmp(layer->type, "HDF5Data")) {
        batch = hdf5->batch_size;
        stream->shuffled = hdf5->shuffle;
    } else {
        batch = layer->window_data_param->batch_size;
    }
    stream->batch = batch > 0 ? batch : 1;
}

static ShoalStatus open_stream(ShoalJob *job, const Caffe__LayerParameter *layer, uint32_t number,
                               ShoalStream *stream, ShoalError *err) {
    ShoalStatus status = shoal_dataset_open_for(layer, &stream->dataset, err);
    if (status)
        return status;
    stream->layer = number;
    read_order(layer, stream);
    seed_stream(job, stream, SHOAL_SHUFFLE_NONE);
    return describe_dataset(job, layer, stream->dataset, err);
}

ShoalStatus shoal_streams_open(ShoalJob *job, int number, Caffe__Phase phase, ShoalStreams *out,
                               ShoalError *err) {
    const ShoalJobNet *net = &job->nets[number];
    ShoalGraph graph;
    ShoalStatus status = shoal_graph_build(&net->model, phase, net->state, &graph, err);
    if (status)
        return status;
    ShoalStreams streams = {.items = shoal_calloc((size_t)graph.count, sizeof *streams.items)};
    if (!streams.items)
        status = shoal_error_memory(err, "the data layers", sizeof *streams.items);
    for (int i = 0; i < graph.count && !status; i++) {
        const Caffe__LayerParameter *layer = graph.layers[i].param;
        const ShoalLayerClass *class = layer->type ? shoal_layer_class_find(layer->type) : NULL;
        if (!class || !(class->flags & SHOAL_LAYER_SOURCE))
            continue;
        ShoalStream *stream = &streams.items[streams.count++];
        if (!shoal_dataset_feeds(layer))
            continue;
        status = open_stream(job, layer, (uint32_t)i, stream, err);
        if (status) {
            char where[512];
            shoal_error_prefix(
                err, "%s: layer '%s'",
                shoal_caffe_net_where(&net->model, graph.layers[i].source, where, sizeof where),
                layer->name);
        }
    }
    shoal_graph_close(&graph);
    if (status)
        shoal_streams_close(&streams);
    else
        *out = streams;
    return status;
}

void shoal_streams_close(ShoalStreams *streams) {
    for (int i = 0; i < streams->count; i++)
        shoal_dataset_close(streams->items[i].dataset);
    shoal_free(streams->items);
    *streams = (ShoalStreams){0};
}

static uint64_t record_of(const ShoalStream *stream, uint64_t sample) {
    uint64_t number;
    if (shoal_dataset_pick(stream->dataset, stream->seed, sample, &number))
        return number;
    return shoal_sampler_record(&stream->sampler, sample + stream->skip);
}

ShoalStatus shoal_streams_record(ShoalStreams *streams, int source, uint64_t sample,
                                 ShoalRecord *record, ShoalError *err) {
    ShoalStream *stream = &streams->items[source];
    if (!stream->dataset) {
        *record = (ShoalRecord){0};
        return SHOAL_OK;
    }
    return shoal_dataset_record(stream->dataset, record_of(stream, sample), record, err);
}

uint64_t shoal_streams_number(const ShoalStreams *streams, int source, uint64_t sample) {
    const ShoalStream *stream = &streams->items[source];
    return stream->dataset ? record_of(stream, sample) : 0;
}

ShoalStatus shoal_streams_stage(ShoalStreams *streams, ShoalSlot *slot, ShoalError *err) {
    const ShoalRound *round = shoal_slot_round(slot);
    for (int s = 0; s < streams->count; s++)
        for (int i = 0; i < round->count; i++) {
            ShoalRecord record;
            uint64_t place = round->places ? round->places[i] : (uint64_t)i;
            uint64_t sample = round->first_sample + place;
            uint64_t number = shoal_streams_number(streams, s, sample);
            ShoalStatus status = shoal_streams_record(streams, s, sample, &record, err);
            if (!status && record.bytes)
                status = shoal_slot_stage(slot, s, i, &record, number, err);
            if (status)
                return status;
        }
    return SHOAL_OK;
}
