/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/avx512/avx512.h"

#if defined(__x86_64__)

#include "kernels/avx512/vector.h"

#define MR 14
#include "kernels/blocked/vector_tmpl.h"

const ShoalBlocked shoal_blocked_avx512 = {SHOAL_BLOCKED_ENTRIES};

#endif
