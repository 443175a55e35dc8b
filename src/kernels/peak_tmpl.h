/* SPDX-License-Identifier: Apache-2.0 */
/* The body of a level's shoal_peak_*, over its vector.h. More chains than the latency of a
 * multiply-add times the units that do it (4 x 2 on today's processors, 4 x 3 on the widest ARM
 * ones), few enough for 16 registers. */

enum { CHAINS = 12 };

static float peak(size_t rounds, double *operations) {
    Vector chain[CHAINS];
    float lanes[LANES], sum = 0;
    /* The chains converge to 1: no overflow, no denormals. */
    const Vector a = vector_set1(0.5f), b = vector_set1(0.5f);
    for (int i = 0; i < CHAINS; i++)
        chain[i] = vector_set1((float)i);
    for (size_t round = 0; round < rounds; round++)
#pragma GCC unroll 12
        for (int i = 0; i < CHAINS; i++)
            chain[i] = vector_fma(chain[i], a, b);
    for (int i = 0; i < CHAINS; i++) {
        vector_store(lanes, chain[i]);
        sum += lanes[0];
    }
    *operations = 2.0 * CHAINS * LANES;
    return sum;
}
