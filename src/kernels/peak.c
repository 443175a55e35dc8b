/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/peak.h"

#include "kernels/table.h"

typedef float PeakPiece(size_t rounds, double *operations);

typedef struct Peak {
    PeakPiece *piece;
    size_t rounds;
} Peak;

/* Parts per thread: a thread that starts late leaves the others its share. */
enum { PARTS = 4 };

static PeakPiece *piece_of(ShoalCpuLevel level) {
    switch (level) {
#if defined(__x86_64__)
    case SHOAL_CPU_AVX2:
        return shoal_peak_avx2;
    case SHOAL_CPU_AVX512:
        return shoal_peak_avx512;
#endif
#if defined(__aarch64__)
    case SHOAL_CPU_NEON:
        return shoal_peak_neon;
#endif
    default:
        return shoal_peak_c;
    }
}

static void part(void *context, size_t index, unsigned thread) {
    const Peak *peak = context;
    double operations;
    /* Kept from being dropped as unused. */
    volatile float sum = peak->piece(peak->rounds, &operations);
    (void)sum;
    (void)index;
    (void)thread;
}

double shoal_kernels_peak(const ShoalCompute *compute, size_t rounds) {
    Peak peak = {piece_of(compute->kernels->level), rounds / PARTS + 1};
    size_t parts = (size_t)shoal_pool_threads(compute->pool) * PARTS;
    double operations;
    peak.piece(0, &operations);
    shoal_pool_run(compute->pool, parts, part, &peak);
    return operations * (double)peak.rounds * (double)parts;
}
