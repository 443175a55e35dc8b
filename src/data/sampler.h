/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHOAL_DATA_SAMPLER_H
#define SHOAL_DATA_SAMPLER_H

#include <stdint.h>

/* Which record is sample number n. A pure function of the running number of the sample in the whole
 * training (and of the seed), never of who is in the cluster: iteration i with global batch B is
 * samples i*B to i*B + B - 1, whoever computes them. */

typedef enum ShoalShuffle {
    SHOAL_SHUFFLE_NONE, /* Caffe's order: the records in key order, again and again, wrapping round
                           in the middle of a batch */
    SHOAL_SHUFFLE_GLOBAL, /* every epoch is another permutation of all records */
    SHOAL_SHUFFLE_SHARD   /* the dataset is cut into as many shards as a batch has places; place j
                             goes through shard j, in another permutation each time. So a worker that
                             keeps its places meets the same records again */
} ShoalShuffle;

typedef struct ShoalSampler {
    uint64_t count; /* records in the dataset */
    ShoalShuffle shuffle;
    uint64_t seed;
    uint64_t batch; /* places of a batch (SHARD) */
} ShoalSampler;

/* count: at least 1 (0 counts as 1). batch: at least 1 (0 counts as 1); more places than records
 * makes SHARD the same as GLOBAL. */
void shoal_sampler_init(ShoalSampler *sampler, uint64_t count, ShoalShuffle shuffle, uint64_t seed,
                        uint64_t batch);

/* The record, in [0, count), of a sample. Any epoch of GLOBAL, and any full turn of a shard, has
 * each record once. Shard j is the records from j * count / batch on; a shard whose size is one
 * less than another's begins its next turn one batch earlier. No memory, no state: a permutation is
 * computed where it is asked for. Thread-safe. */
uint64_t shoal_sampler_record(const ShoalSampler *sampler, uint64_t sample_number);

/* How many times all records have been used before this sample. */
uint64_t shoal_sampler_epoch(const ShoalSampler *sampler, uint64_t sample_number);

#endif
