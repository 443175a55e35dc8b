/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/neon/neon.h"

#if defined(__aarch64__)

#include "kernels/neon/vector.h"

/* 28 of the 32 registers are sums: enough chains for three FMAs a cycle, and more FMAs than loads,
 * which broadcasts from memory need two of per row. */
#define MR 14
#include "kernels/blocked/vector_tmpl.h"

const ShoalBlocked shoal_blocked_neon = {SHOAL_BLOCKED_ENTRIES};

#endif
