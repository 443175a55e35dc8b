/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHOAL_DATA_SAMPLER_H
#define SHOAL_DATA_SAMPLER_H

#include <stdint.h>

/* Which record is sample number n. A pure function of the running number of the sample in the whole
 * training, never of who is in the cluster: iteration i with global batch B is samples i*B to
 * i*B + B - 1, whoever computes them. The order is Caffe's: the records in key order, again and
 * again, wrapping round in the middle of a batch. */
typedef struct ShoalSampler {
    uint64_t count; /* records in the dataset */
} ShoalSampler;

/* count: at least 1. */
void shoal_sampler_init(ShoalSampler *sampler, uint64_t count);

/* The record, in [0, count), of a sample. Thread-safe. */
uint64_t shoal_sampler_record(const ShoalSampler *sampler, uint64_t sample_number);

/* How many times all records have been used before this sample. */
uint64_t shoal_sampler_epoch(const ShoalSampler *sampler, uint64_t sample_number);

#endif
