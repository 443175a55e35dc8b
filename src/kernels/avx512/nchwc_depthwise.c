/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/avx512/avx512.h"

#if defined(__x86_64__)

#include "kernels/avx512/vector.h"

#include "kernels/nchwc/depthwise_tmpl.h"

const ShoalNchwcDepthwiseKernels shoal_nchwc_depthwise_avx512 = {SHOAL_NCHWC_DEPTHWISE_ENTRIES};

#endif
