/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHOAL_KERNELS_NEON_NEON_H
#define SHOAL_KERNELS_NEON_NEON_H

#include "kernels/blocked/blocked.h"
#include "kernels/nchwc/engine.h"

/* What neon/table.c puts into its table. */

extern const ShoalBlocked shoal_blocked_neon;
extern const ShoalNchwc shoal_nchwc_neon;
extern const ShoalNchwcTileKernels shoal_nchwc_tile_neon;
extern const ShoalNchwcStripKernels shoal_nchwc_strip_neon;
extern const struct ShoalNchwcPoolKernels shoal_nchwc_pool_neon;
extern const struct ShoalNchwcDepthwiseKernels shoal_nchwc_depthwise_neon;
extern const struct ShoalNchwcWinogradKernels shoal_nchwc_winograd_neon;

#endif
