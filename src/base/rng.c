/* SPDX-License-Identifier: Apache-2.0 */
#include "base/rng.h"

#include <math.h>

enum { PHILOX_ROUNDS = 10 };
#define PHILOX_M0 0xD2511F53u
#define PHILOX_M1 0xCD9E8D57u
#define PHILOX_W0 0x9E3779B9u
#define PHILOX_W1 0xBB67AE85u

static void philox_block(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4]) {
    uint32_t c0 = counter[0], c1 = counter[1], c2 = counter[2], c3 = counter[3];
    uint32_t k0 = key[0], k1 = key[1];
    for (int round = 0; round < PHILOX_ROUNDS; round++) {
        uint64_t p0 = (uint64_t)PHILOX_M0 * c0, p1 = (uint64_t)PHILOX_M1 * c2;
        c0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0;
        c1 = (uint32_t)p1;
        c2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c3 = (uint32_t)p0;
        k0 += PHILOX_W0;
        k1 += PHILOX_W1;
    }
    out[0] = c0;
    out[1] = c1;
    out[2] = c2;
    out[3] = c3;
}

static void next_block(ShoalRng *rng) {
    uint32_t counter[4] = {(uint32_t)rng->block, (uint32_t)(rng->block >> 32), rng->stream[0],
                           rng->stream[1]};
    philox_block(counter, rng->key, rng->out);
    rng->block++;
    rng->left = 4;
}

void shoal_rng_init(ShoalRng *rng, uint64_t seed, ShoalRngUse use, uint32_t index) {
    *rng = (ShoalRng){.key = {(uint32_t)seed, (uint32_t)(seed >> 32)},
                      .stream = {index, (uint32_t)use}};
}

void shoal_rng_seek(ShoalRng *rng, uint64_t position) {
    rng->block = position / 4;
    next_block(rng);
    rng->left = 4 - (unsigned)(position % 4);
}

uint32_t shoal_rng_u32(ShoalRng *rng) {
    if (!rng->left)
        next_block(rng);
    return rng->out[4 - rng->left--];
}

float shoal_rng_unit(ShoalRng *rng) {
    return (float)(shoal_rng_u32(rng) >> 8) * 0x1p-24f;
}

uint32_t shoal_rng_below(ShoalRng *rng, uint32_t bound) {
    uint64_t product = (uint64_t)shoal_rng_u32(rng) * bound;
    if ((uint32_t)product < bound) {
        uint32_t reject_below = -bound % bound;
        while ((uint32_t)product < reject_below)
            product = (uint64_t)shoal_rng_u32(rng) * bound;
    }
    return (uint32_t)(product >> 32);
}

void shoal_rng_fill_uniform(ShoalRng *rng, float low, float high, size_t n, float *out) {
    for (size_t i = 0; i < n; i++)
        out[i] = low + (high - low) * shoal_rng_unit(rng);
}

void shoal_rng_fill_gaussian(ShoalRng *rng, float mean, float std, size_t n, float *out) {
    const double two_pi = 6.283185307179586476925;
    for (size_t i = 0; i < n; i += 2) {
        double u = ((double)shoal_rng_u32(rng) + 1.0) * 0x1p-32; /* (0, 1]: the log is finite */
        double v = (double)shoal_rng_u32(rng) * 0x1p-32;
        double radius = sqrt(-2.0 * log(u));
        out[i] = mean + std * (float)(radius * cos(two_pi * v));
        if (i + 1 < n)
            out[i + 1] = mean + std * (float)(radius * sin(two_pi * v));
    }
}
