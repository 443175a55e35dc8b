/* SPDX-License-Identifier: Apache-2.0 */
#include "data/feed.h"

#include <string.h>

#include "base/error.h"
#include "base/memory.h"
#include "data/dataset_kinds.h"
#include "data/transform.h"

struct ShoalFeed {
    const Caffe__LayerParameter *layer;
    ShoalRecordShape records;
    ShoalTransform *transform; /* NULL: numbers as they are (HDF5Data) */
};

static bool is_plain(const Caffe__LayerParameter *layer) {
    return !strcmp(layer->type, "HDF5Data");
}

/* ---- shapes ---- */

static ShoalStatus describe_image(ShoalDataset *dataset, ShoalDatumDecoder *decoder,
                                  ShoalRecordShape *out, ShoalError *err) {
    ShoalRecord record;
    ShoalDatum datum;
    ShoalStatus status = shoal_dataset_record(dataset, 0, &record, err);
    if (!status)
        status = shoal_datum_parse(decoder, record.bytes, record.size, shoal_dataset_name(dataset),
                                   0, &datum, err);
    if (!status)
        *out = (ShoalRecordShape){1, {{3, {datum.channels, datum.height, datum.width}}}};
    return status;
}

ShoalStatus shoal_feed_describe(const Caffe__LayerParameter *layer, ShoalDataset *dataset,
                                ShoalRecordShape *out, ShoalError *err) {
    if (is_plain(layer))
        return shoal_dataset_hdf5_shape(dataset, out, err);
    ShoalDatumDecoder *decoder = shoal_datum_decoder_create();
    ShoalStatus status = decoder ? describe_image(dataset, decoder, out, err)
                                 : shoal_error_memory(err, "a record", 0);
    shoal_datum_decoder_destroy(decoder);
    return status;
}

void shoal_feed_shape(const ShoalFeed *feed, int top, int *axes, int *dims) {
    if (feed->transform) {
        *axes = top == 0 ? 3 : 0; /* the rest are labels */
        if (top == 0)
            shoal_transform_shape(feed->transform, dims);
        return;
    }
    bool known = top >= 0 && top < feed->records.n;
    *axes = known ? feed->records.tops[top].axes : 0;
    for (int i = 0; i < *axes; i++)
        dims[i] = feed->records.tops[top].dims[i];
}

/* ---- life ---- */

ShoalStatus shoal_feed_create(const Caffe__LayerParameter *layer, const ShoalRecordShape *records,
                              const ShoalFeedOptions *options, ShoalFeed **out, ShoalError *err) {
    bool plain = is_plain(layer);
    if (plain ? (size_t)records->n != layer->n_top
              : records->n != 1 || records->tops[0].axes != 3)
        return shoal_error_set(err, SHOAL_ERR_DATA,
                               "the dataset's records have %d parts, which the layer cannot use",
                               records->n);
    ShoalFeed *feed = shoal_calloc(1, sizeof *feed);
    if (!feed)
        return shoal_error_memory(err, "a data layer", sizeof *feed);
    feed->layer = layer;
    feed->records = *records;
    ShoalStatus status = SHOAL_OK;
    const int *dims = records->tops[0].dims;
    if (!plain)
        status = shoal_transform_create(layer->transform_param, options->train, options->seed,
                                        options->mean, dims[0], dims[1], dims[2], &feed->transform,
                                        err);
    if (status)
        shoal_feed_destroy(feed);
    else
        *out = feed;
    return status;
}

void shoal_feed_destroy(ShoalFeed *feed) {
    if (!feed)
        return;
    shoal_transform_destroy(feed->transform);
    shoal_free(feed);
}

/* ---- samples ---- */

static size_t top_count(const ShoalFeed *feed, int top) {
    size_t count = 1;
    for (int i = 0; i < feed->records.tops[top].axes; i++)
        count *= (size_t)feed->records.tops[top].dims[i];
    return count;
}

static ShoalStatus stage_plain(const ShoalFeed *feed, const char *dataset,
                               const ShoalRecord *record, uint64_t number, float *const *tops,
                               int n_tops, ShoalError *err) {
    size_t expected = 0;
    for (int t = 0; t < feed->records.n; t++)
        expected += top_count(feed, t) * sizeof(float);
    if (record->size != expected || n_tops > feed->records.n)
        return shoal_error_set(err, SHOAL_ERR_DATA, "record %llu of %s: %zu bytes, expected %zu",
                               (unsigned long long)number, dataset, record->size, expected);
    const unsigned char *at = record->bytes;
    for (int t = 0; t < n_tops; t++) {
        size_t size = top_count(feed, t) * sizeof(float);
        memcpy(tops[t], at, size);
        at += size;
    }
    return SHOAL_OK;
}

ShoalStatus shoal_feed_stage(const ShoalFeed *feed, ShoalDatumDecoder *decoder, const char *dataset,
                             const ShoalRecord *record, uint64_t number, uint64_t sample,
                             float *const *tops, int n_tops, ShoalError *err) {
    if (!feed->transform)
        return stage_plain(feed, dataset, record, number, tops, n_tops, err);
    ShoalDatum datum;
    ShoalStatus status =
        shoal_datum_parse(decoder, record->bytes, record->size, dataset, number, &datum, err);
    if (!status)
        status = shoal_transform_apply(feed->transform, &datum, sample, tops[0], err);
    if (!status && n_tops > 1)
        tops[1][0] = (float)datum.label;
    return status;
}
