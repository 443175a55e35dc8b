/* SPDX-License-Identifier: Apache-2.0 */
#include "shoal/tools.h"

#include <inttypes.h>

#include "base/error.h"
#include "base/file.h"
#include "base/memory.h"
#include "caffe/model.h"
#include "data/dataset.h"
#include "data/datum.h"
#include "data/watch.h"

enum { PROGRESS_EVERY = 1000 };

typedef struct Sum {
    const char *lmdb;
    int channels, height, width; /* of the first record */
    size_t count;
    float *values; /* [count]; float as in Caffe, for its rounding */
} Sum;

static ShoalStatus begin(Sum *sum, const ShoalDatum *first, ShoalError *err) {
    sum->channels = first->channels;
    sum->height = first->height;
    sum->width = first->width;
    sum->count = first->count;
    sum->values = shoal_calloc(sum->count, sizeof *sum->values);
    return sum->values ? SHOAL_OK
                       : shoal_error_memory(err, "the mean", sum->count * sizeof *sum->values);
}

static ShoalStatus add(Sum *sum, const ShoalDatum *datum, ShoalError *err) {
    if (datum->channels != sum->channels || datum->height != sum->height ||
        datum->width != sum->width)
        return shoal_error_set(err, SHOAL_ERR_DATA,
                               "record %" PRIu64 " of %s: %d x %d x %d; the first is %d x %d x %d, "
                               "and a mean is of equal sizes",
                               datum->record, sum->lmdb, datum->channels, datum->height,
                               datum->width, sum->channels, sum->height, sum->width);
    for (size_t i = 0; i < sum->count && datum->bytes; i++)
        sum->values[i] += (float)datum->bytes[i];
    for (size_t i = 0; i < sum->count && !datum->bytes; i++)
        sum->values[i] += datum->floats[i];
    return SHOAL_OK;
}

static ShoalStatus add_all(Sum *sum, ShoalDataset *dataset, const ShoalToolWatch *watch,
                           ShoalError *err) {
    uint64_t records = shoal_dataset_count(dataset);
    ShoalDatumDecoder *decoder = shoal_datum_decoder_create();
    ShoalStatus status = decoder ? SHOAL_OK : shoal_error_memory(err, "the mean", 0);
    for (uint64_t i = 0; i < records && !status; i++) {
        ShoalRecord record;
        ShoalDatum datum;
        status = shoal_dataset_record(dataset, i, &record, err);
        if (!status)
            status =
                shoal_datum_parse(decoder, record.bytes, record.size, sum->lmdb, i, &datum, err);
        if (!status && i == 0)
            status = begin(sum, &datum, err);
        if (!status)
            status = add(sum, &datum, err);
        if (!status && ((i + 1) % PROGRESS_EVERY == 0 || i + 1 == records)) {
            shoal_watch_progress(watch, i + 1, records);
            status = shoal_watch_stopped(watch, err);
        }
    }
    shoal_datum_decoder_destroy(decoder);
    return status;
}

static ShoalStatus write_mean(const Sum *sum, const char *file, ShoalError *err) {
    Caffe__BlobProto blob;
    caffe__blob_proto__init(&blob);
    blob.has_num = blob.has_channels = blob.has_height = blob.has_width = 1;
    blob.num = 1;
    blob.channels = sum->channels;
    blob.height = sum->height;
    blob.width = sum->width;
    blob.data = sum->values;
    blob.n_data = sum->count;
    void *bytes;
    size_t size;
    ShoalStatus status = shoal_caffe_pack(&blob.base, &bytes, &size, err);
    if (status)
        return status;
    status = shoal_file_replace(file, bytes, size, err);
    shoal_free(bytes);
    return status;
}

static ShoalStatus take_channels(const Sum *sum, ShoalMean *mean, ShoalError *err) {
    float *values = shoal_calloc((size_t)sum->channels, sizeof *values);
    if (!values)
        return shoal_error_memory(err, "the mean", (size_t)sum->channels * sizeof *values);
    size_t plane = sum->count / (size_t)sum->channels;
    for (int c = 0; c < sum->channels; c++) {
        for (size_t i = 0; i < plane; i++)
            values[c] += sum->values[(size_t)c * plane + i];
        values[c] /= (float)plane;
    }
    mean->channels = sum->channels;
    mean->values = values;
    return SHOAL_OK;
}

ShoalStatus shoal_compute_mean(const char *lmdb, const char *file, const ShoalToolWatch *watch,
                               ShoalMean *mean, ShoalError *err) {
    ShoalDataset *dataset;
    ShoalStatus status = shoal_dataset_open(lmdb, &dataset, err);
    if (status)
        return status;
    Sum sum = {.lmdb = lmdb};
    ShoalMean found = {.records = shoal_dataset_count(dataset)};
    status = add_all(&sum, dataset, watch, err);
    for (size_t i = 0; i < sum.count && !status; i++)
        sum.values[i] /= (float)found.records;
    if (!status)
        status = take_channels(&sum, &found, err);
    if (!status && file)
        status = write_mean(&sum, file, err);
    if (status)
        shoal_mean_close(&found);
    else
        *mean = found;
    shoal_free(sum.values);
    shoal_dataset_close(dataset);
    return status;
}

void shoal_mean_close(ShoalMean *mean) {
    shoal_free(mean->values);
    *mean = (ShoalMean){0};
}
