/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHOAL_KERNELS_PEAK_H
#define SHOAL_KERNELS_PEAK_H

#include "kernels/kernels.h"

/* What a level's arithmetic can do at most: multiply-adds on registers alone, in independent
 * chains, on all threads of the pool. Returns the floating-point operations done (2 per
 * multiply-add); whoever calls it has a clock. `rounds` sets the length: a round is some dozens of
 * operations. */
double shoal_kernels_peak(const ShoalCompute *compute, size_t rounds);

/* The piece of a level: `rounds` rounds in the calling thread. *operations gets those of a round;
 * the value that is returned has no meaning but depends on all of them. */
float shoal_peak_c(size_t rounds, double *operations);
float shoal_peak_avx2(size_t rounds, double *operations);
float shoal_peak_avx512(size_t rounds, double *operations);
float shoal_peak_neon(size_t rounds, double *operations);

#endif
