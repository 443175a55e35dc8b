/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHOAL_DATA_FEED_H
#define SHOAL_DATA_FEED_H

#include <stdbool.h>
#include <stdint.h>

#include "data/dataset.h"
#include "data/datum.h"

/* From records to samples: decodes and transforms the records of a source layer's dataset into the
 * tops of the layer. A worker does this with records that the coordinator sends: nothing here opens
 * a file. */

enum { SHOAL_FEED_TOPS = 16, SHOAL_FEED_AXES = 7 };

/* What a dataset's records look like before any transform: the shape of each top of one sample.
 * Data, ImageData, WindowData: one, channels x height x width of the first record. */
typedef struct ShoalRecordShape {
    int n;
    struct {
        int axes, dims[SHOAL_FEED_AXES];
    } tops[SHOAL_FEED_TOPS];
} ShoalRecordShape;

/* By the dataset's first record. Errors: SHOAL_ERR_DATA (it cannot be decoded), SHOAL_ERR_MODEL,
 * SHOAL_ERR_UNSUPPORTED, SHOAL_ERR_MEMORY. */
ShoalStatus shoal_feed_describe(const Caffe__LayerParameter *layer, ShoalDataset *dataset,
                                ShoalRecordShape *out, ShoalError *err);

typedef struct ShoalFeedOptions {
    bool train;
    uint64_t seed;
    const Caffe__BlobProto *mean; /* the message in transform_param.mean_file; else NULL; copied */
    bool fast_decode;             /* JPEGs that are made smaller may be decoded smaller (an eighth,
                                     a quarter, a half): quicker, not the same pixels */
} ShoalFeedOptions;

typedef struct ShoalFeed ShoalFeed;

/* layer must outlive the feed. Errors as shoal_transform_create. *out is the caller's. */
ShoalStatus shoal_feed_create(const Caffe__LayerParameter *layer, const ShoalRecordShape *records,
                              const ShoalFeedOptions *options, ShoalFeed **out, ShoalError *err);
/* NULL is fine. */
void shoal_feed_destroy(ShoalFeed *feed);

/* The shape of one sample of a top: dims[*axes], at most SHOAL_FEED_AXES. */
void shoal_feed_shape(const ShoalFeed *feed, int top, int *axes, int *dims);

/* Record `number` of the dataset as sample number `sample` of the run into tops[n_tops]: each
 * points to where the sample of that top goes. dataset: its name, for messages. Thread-safe for
 * different decoders. SHOAL_ERR_DATA names dataset and record. */
ShoalStatus shoal_feed_stage(const ShoalFeed *feed, ShoalDatumDecoder *decoder, const char *dataset,
                             const ShoalRecord *record, uint64_t number, uint64_t sample,
                             float *const *tops, int n_tops, ShoalError *err);

#endif
