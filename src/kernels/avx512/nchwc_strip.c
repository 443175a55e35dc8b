/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/avx512/avx512.h"

#if defined(__x86_64__)

#include "kernels/avx512/vector.h"

#include "kernels/nchwc/strip_tmpl.h"

const ShoalNchwcStripKernels shoal_nchwc_strip_avx512 = {SHOAL_NCHWC_STRIP_ENTRIES};

#endif
