/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/avx512/avx512.h"

#if defined(__x86_64__)

#include "kernels/avx512/vector.h"

const ShoalNchwcTileKernels shoal_nchwc_tile_avx512 = {0};

#endif
