/* SPDX-License-Identifier: Apache-2.0 */
#include "data/sampler.h"

#include "base/rng.h"

/* A permutation of [0, count) that is computed one element at a time: a balanced Feistel network
 * (Luby, Rackoff: "How to construct pseudorandom permutations from pseudorandom functions", SIAM J.
 * Comput. 17, 1988) over the smallest even number of bits that can hold count - 1, walked along its
 * cycle until it is back below count (Black, Rogaway: "Ciphers with arbitrary finite domains",
 * CT-RSA 2002, section 3). Four rounds are enough in theory, where the halves are wide; in small
 * domains more are needed. The domain is at most four times as large as count, so the walk takes
 * less than four steps on average. */

enum { FEISTEL_ROUNDS = 10 };

typedef struct Permutation {
    uint64_t key[2];
    unsigned half_bits; /* 0 .. 32 */
} Permutation;

/* A half is at most 32 bits, and so is what comes out. Mixing as in splitmix64 (Steele, Lea, Flood:
 * "Fast splittable pseudorandom number generators", OOPSLA 2014, figure 16). */
static uint32_t round_function(const Permutation *permutation, int round, uint32_t half) {
    uint64_t z =
        permutation->key[round & 1] + ((uint64_t)round << 32 | half) * UINT64_C(0x9E3779B97F4A7C15);
    z = (z ^ z >> 30) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ z >> 27) * UINT64_C(0x94D049BB133111EB);
    return (uint32_t)((z ^ z >> 31) >> 32);
}

static uint64_t feistel(const Permutation *permutation, uint64_t x) {
    unsigned bits = permutation->half_bits;
    uint32_t mask = (uint32_t)((UINT64_C(1) << bits) - 1);
    uint32_t left = (uint32_t)(x >> bits) & mask, right = (uint32_t)x & mask;
    for (int round = 0; round < FEISTEL_ROUNDS; round++) {
        uint32_t mixed = left ^ (round_function(permutation, round, right) & mask);
        left = right;
        right = mixed;
    }
    return (uint64_t)left << bits | right;
}

/* Where x, below count, goes in permutation number `turn` of the family (seed, index). */
static uint64_t permute(uint64_t seed, uint32_t index, uint64_t turn, uint64_t count, uint64_t x) {
    ShoalRng rng;
    shoal_rng_init(&rng, seed, SHOAL_RNG_SHUFFLE, index);
    /* One block of four numbers each; the first one belongs to rand_skip. */
    shoal_rng_seek(&rng, 4 * (turn + 1));
    Permutation permutation;
    for (int i = 0; i < 2; i++) {
        permutation.key[i] = (uint64_t)shoal_rng_u32(&rng) << 32;
        permutation.key[i] |= shoal_rng_u32(&rng);
    }
    permutation.half_bits = 0;
    while (permutation.half_bits < 32 && (count - 1) >> (2 * permutation.half_bits))
        permutation.half_bits++;
    do
        x = feistel(&permutation, x);
    while (x >= count);
    return x;
}

/* j * count / batch, in a way that cannot overflow: batch is below 2^32. */
static uint64_t shard_begin(const ShoalSampler *sampler, uint64_t j) {
    return j * (sampler->count / sampler->batch) +
           j * (sampler->count % sampler->batch) / sampler->batch;
}

static uint64_t sharded(const ShoalSampler *sampler, uint64_t n) {
    uint64_t shard = n % sampler->batch, step = n / sampler->batch;
    uint64_t begin = shard_begin(sampler, shard);
    uint64_t size = shard_begin(sampler, shard + 1) - begin;
    return begin + permute(sampler->seed, (uint32_t)shard, step / size, size, step % size);
}

void shoal_sampler_init(ShoalSampler *sampler, uint64_t count, ShoalShuffle shuffle, uint64_t seed,
                        uint64_t batch) {
    *sampler = (ShoalSampler){
        .count = count ? count : 1, .shuffle = shuffle, .seed = seed, .batch = batch ? batch : 1};
    if (shuffle == SHOAL_SHUFFLE_SHARD &&
        (sampler->batch > sampler->count || sampler->batch > UINT32_MAX))
        sampler->shuffle = SHOAL_SHUFFLE_GLOBAL;
}

uint64_t shoal_sampler_record(const ShoalSampler *sampler, uint64_t sample_number) {
    uint64_t count = sampler->count;
    switch (sampler->shuffle) {
    case SHOAL_SHUFFLE_GLOBAL:
        return permute(sampler->seed, 0, sample_number / count, count, sample_number % count);
    case SHOAL_SHUFFLE_SHARD:
        return sharded(sampler, sample_number);
    case SHOAL_SHUFFLE_NONE:
        break;
    }
    return sample_number % count;
}

uint64_t shoal_sampler_epoch(const ShoalSampler *sampler, uint64_t sample_number) {
    if (sampler->shuffle != SHOAL_SHUFFLE_SHARD)
        return sample_number / sampler->count;
    /* The last shard is as large as any, and its place comes last in a batch. */
    uint64_t largest = sampler->count - shard_begin(sampler, sampler->batch - 1);
    return sample_number / sampler->batch / largest;
}
