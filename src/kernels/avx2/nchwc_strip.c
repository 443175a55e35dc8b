/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/avx2/avx2.h"

#if defined(__x86_64__)

#include "kernels/avx2/vector.h"

#include "kernels/nchwc/strip_tmpl.h"

const ShoalNchwcStripKernels shoal_nchwc_strip_avx2 = {SHOAL_NCHWC_STRIP_ENTRIES};

#endif
