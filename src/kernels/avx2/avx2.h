/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHOAL_KERNELS_AVX2_AVX2_H
#define SHOAL_KERNELS_AVX2_AVX2_H

#include "kernels/blocked/blocked.h"

/* What avx2/table.c puts into its table. */

extern const ShoalBlocked shoal_blocked_avx2;

/* As the reference's; windows of 2 x 2 at stride 2 without padding go 8 outputs at a time. */
void shoal_pool_max_fwd_f32_avx2(const ShoalPoolShape *shape, const float *x, float *y,
                                 int32_t *index);

#endif
