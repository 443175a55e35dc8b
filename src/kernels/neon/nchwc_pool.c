/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/neon/neon.h"

#if defined(__aarch64__)

#include "kernels/neon/vector.h"

#include "kernels/nchwc/pool_tmpl.h"

const ShoalNchwcPoolKernels shoal_nchwc_pool_neon = {SHOAL_NCHWC_POOL_ENTRIES};

#endif
