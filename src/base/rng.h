/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHOAL_BASE_RNG_H
#define SHOAL_BASE_RNG_H

#include <stddef.h>
#include <stdint.h>

/* Counter-based random numbers: Philox4x32-10 (Salmon, Moraes, Dror, Shaw: "Parallel random
 * numbers: as easy as 1, 2, 3", SC 2011, section 4.3 and table 2).
 *
 * A number is a pure function of (seed, stream, position), so any worker can draw the ones of any
 * sample without having drawn those before it: dropout and augmentation do not depend on how many
 * workers there are. Thread-safe: no state is shared. */

/* What a stream of numbers is for: the upper part of the stream key. */
typedef enum ShoalRngUse {
    SHOAL_RNG_FILLER = 1,    /* initial weights; index: running number of the parameter */
    SHOAL_RNG_DROPOUT = 2,   /* index: layer; position: see the layer */
    SHOAL_RNG_DUMMY = 3,     /* DummyData tops */
    SHOAL_RNG_TRANSFORM = 4, /* crops and mirrors; position: global sample number */
    SHOAL_RNG_SHUFFLE = 5,   /* sample order; index: epoch */
    SHOAL_RNG_TEST = 6       /* tests of the project */
} ShoalRngUse;

typedef struct ShoalRng {
    uint32_t key[2];
    uint32_t stream[2]; /* {index, use} */
    uint64_t block;     /* number of the next block of four */
    uint32_t out[4];
    unsigned left; /* unread numbers in out */
} ShoalRng;

/* A generator for (seed, use, index), at position 0. Deterministic on every platform. */
void shoal_rng_init(ShoalRng *rng, uint64_t seed, ShoalRngUse use, uint32_t index);

/* Goes to number `position` (counted in 32-bit numbers); the next draw is that one. */
void shoal_rng_seek(ShoalRng *rng, uint64_t position);

/* The next 32 random bits. */
uint32_t shoal_rng_u32(ShoalRng *rng);

/* Uniform in [0, 1), 24 bits. */
float shoal_rng_unit(ShoalRng *rng);

/* Uniform integer in [0, bound), without bias (Lemire 2019); bound > 0. */
uint32_t shoal_rng_below(ShoalRng *rng, uint32_t bound);

/* out[0..n): uniform in [low, high). */
void shoal_rng_fill_uniform(ShoalRng *rng, float low, float high, size_t n, float *out);

/* out[0..n): normal with the given mean and standard deviation (Box-Muller, in double). */
void shoal_rng_fill_gaussian(ShoalRng *rng, float mean, float std, size_t n, float *out);

#endif
