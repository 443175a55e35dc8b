/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHOAL_KERNELS_AVX2_AVX2_H
#define SHOAL_KERNELS_AVX2_AVX2_H

#include "kernels/blocked/blocked.h"
#include "kernels/nchwc/engine.h"

/* What avx2/table.c puts into its table. */

extern const ShoalBlocked shoal_blocked_avx2;
extern const ShoalNchwc shoal_nchwc_avx2;
extern const ShoalNchwcTileKernels shoal_nchwc_tile_avx2;
extern const ShoalNchwcStripKernels shoal_nchwc_strip_avx2;
extern const struct ShoalNchwcPoolKernels shoal_nchwc_pool_avx2;
extern const struct ShoalNchwcDepthwiseKernels shoal_nchwc_depthwise_avx2;
extern const struct ShoalNchwcWinogradKernels shoal_nchwc_winograd_avx2;

/* As the reference's; windows of 2 x 2 at stride 2 without padding go 8 outputs at a time. */
void shoal_pool_max_fwd_f32_avx2(const ShoalPoolShape *shape, const float *x, float *y,
                                 int32_t *index);

#endif
