/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/avx2/avx2.h"

#if defined(__x86_64__)

#include "kernels/avx2/vector.h"

#define MR 6
#include "kernels/blocked/vector_tmpl.h"

const ShoalBlocked shoal_blocked_avx2 = {SHOAL_BLOCKED_ENTRIES};

#endif
