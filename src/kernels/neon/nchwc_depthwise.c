/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/neon/neon.h"

#if defined(__aarch64__)

#include "kernels/neon/vector.h"

#include "kernels/nchwc/depthwise_tmpl.h"

const ShoalNchwcDepthwiseKernels shoal_nchwc_depthwise_neon = {SHOAL_NCHWC_DEPTHWISE_ENTRIES};

#endif
