/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/avx2/avx2.h"

#if defined(__x86_64__)

#include "kernels/avx2/vector.h"

#include "kernels/nchwc/pool_tmpl.h"

const ShoalNchwcPoolKernels shoal_nchwc_pool_avx2 = {SHOAL_NCHWC_POOL_ENTRIES};

#endif
