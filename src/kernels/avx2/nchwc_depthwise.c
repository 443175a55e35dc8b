/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/avx2/avx2.h"

#if defined(__x86_64__)

#include "kernels/avx2/vector.h"

#include "kernels/nchwc/depthwise_tmpl.h"

const ShoalNchwcDepthwiseKernels shoal_nchwc_depthwise_avx2 = {SHOAL_NCHWC_DEPTHWISE_ENTRIES};

#endif
