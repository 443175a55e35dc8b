/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHOAL_TRAIN_STREAM_H
#define SHOAL_TRAIN_STREAM_H

#include "data/dataset.h"
#include "data/sampler.h"
#include "train/replica.h"

/* The datasets of one net, where they are on disk: one stream per source layer, in net order. */

typedef struct ShoalStream {
    ShoalDataset *dataset; /* NULL: a source that no dataset feeds (Input) */
    ShoalSampler sampler;
    uint64_t skip;      /* samples to leave out at the start */
    uint32_t rand_skip; /* of the layer: skip is less than this */
    bool shuffled;      /* the layer asks for it, whatever the run does */
    uint64_t seed;
    uint32_t layer; /* number of the layer in the net */
    uint32_t batch; /* of the layer */
} ShoalStream;

typedef struct ShoalStreams {
    ShoalStream *items;
    int count;
} ShoalStreams;

/* Opens what the Data layers of a net read in a phase, and adds the shape of their records to the
 * job. Errors name the layer's place in the file. */
ShoalStatus shoal_streams_open(ShoalJob *job, int net, Caffe__Phase phase, ShoalStreams *out,
                               ShoalError *err);
void shoal_streams_close(ShoalStreams *streams);

/* The order of the samples: of job->seed as it is now. As opened: SHOAL_SHUFFLE_NONE. */
void shoal_streams_seed(const ShoalJob *job, ShoalStreams *streams, ShoalShuffle shuffle);

/* The record of a sample; record->bytes NULL for a source that no dataset feeds. */
ShoalStatus shoal_streams_record(ShoalStreams *streams, int source, uint64_t sample,
                                 ShoalRecord *record, ShoalError *err);

/* The number of that record in its dataset; 0 where there is none. */
uint64_t shoal_streams_number(const ShoalStreams *streams, int source, uint64_t sample);

/* Stages all samples of the slot's round. */
ShoalStatus shoal_streams_stage(ShoalStreams *streams, ShoalSlot *slot, ShoalError *err);

#endif
