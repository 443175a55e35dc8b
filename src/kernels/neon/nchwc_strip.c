/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/neon/neon.h"

#if defined(__aarch64__)

#include "kernels/neon/vector.h"
#include "kernels/nchwc/strip_tmpl.h"

const ShoalNchwcStripKernels shoal_nchwc_strip_neon = {SHOAL_NCHWC_STRIP_ENTRIES};

#endif
