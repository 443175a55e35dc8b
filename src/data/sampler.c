/* SPDX-License-Identifier: Apache-2.0 */
#include "data/sampler.h"

void shoal_sampler_init(ShoalSampler *sampler, uint64_t count) {
    sampler->count = count ? count : 1;
}

uint64_t shoal_sampler_record(const ShoalSampler *sampler, uint64_t sample_number) {
    return sample_number % sampler->count;
}

uint64_t shoal_sampler_epoch(const ShoalSampler *sampler, uint64_t sample_number) {
    return sample_number / sampler->count;
}
