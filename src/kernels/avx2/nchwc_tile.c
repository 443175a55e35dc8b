/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/avx2/avx2.h"

#if defined(__x86_64__)

#include "kernels/avx2/vector.h"

const ShoalNchwcTileKernels shoal_nchwc_tile_avx2 = {0};

#endif
