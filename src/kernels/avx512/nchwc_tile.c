/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/avx512/avx512.h"

#if defined(__x86_64__)

#include "kernels/avx512/vector.h"

#define TILE_ROWS 14
#define WTILE_ROWS 8
#define WTILE_VECTORS 3
#include "kernels/nchwc/tile_tmpl.h"

const ShoalNchwcTileKernels shoal_nchwc_tile_avx512 = {SHOAL_NCHWC_TILE_ENTRIES};

#endif
