/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/avx512/avx512.h"

#if defined(__x86_64__)

#include "kernels/avx512/vector.h"

#include "kernels/nchwc/pool_tmpl.h"

const ShoalNchwcPoolKernels shoal_nchwc_pool_avx512 = {SHOAL_NCHWC_POOL_ENTRIES};

#endif
