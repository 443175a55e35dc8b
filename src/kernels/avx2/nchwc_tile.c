/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/avx2/avx2.h"

#if defined(__x86_64__)

#include "kernels/avx2/vector.h"

#define TILE_ROWS 6
#define WTILE_ROWS 4
#define WTILE_VECTORS 3
#include "kernels/nchwc/tile_tmpl.h"

const ShoalNchwcTileKernels shoal_nchwc_tile_avx2 = {SHOAL_NCHWC_TILE_ENTRIES};

#endif
