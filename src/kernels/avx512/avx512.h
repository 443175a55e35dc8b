/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHOAL_KERNELS_AVX512_AVX512_H
#define SHOAL_KERNELS_AVX512_AVX512_H

#include "kernels/blocked/blocked.h"
#include "kernels/nchwc/engine.h"

/* What avx512/table.c puts into its table. */

extern const ShoalBlocked shoal_blocked_avx512;
extern const ShoalNchwc shoal_nchwc_avx512;
extern const ShoalNchwcTileKernels shoal_nchwc_tile_avx512;
extern const ShoalNchwcStripKernels shoal_nchwc_strip_avx512;
extern const struct ShoalNchwcPoolKernels shoal_nchwc_pool_avx512;
extern const struct ShoalNchwcDepthwiseKernels shoal_nchwc_depthwise_avx512;
extern const struct ShoalNchwcWinogradKernels shoal_nchwc_winograd_avx512;

/* As the reference's; windows of 2 x 2 at stride 2 without padding go 16 outputs at a time. */
void shoal_pool_max_fwd_f32_avx512(const ShoalPoolShape *shape, const float *x, float *y,
                                   int32_t *index);
void shoal_pool_max_bwd_f32_avx512(const ShoalPoolShape *shape, const float *dy,
                                   const int32_t *index, float *dx);

#endif
