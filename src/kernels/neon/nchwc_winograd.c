/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/neon/neon.h"

#if defined(__aarch64__)

#include "kernels/neon/vector.h"

#define SHOAL_ISA(name) name##_neon
/* Most of the 256 KiB that the second-level caches of phones' big cores have at least. */
#define WINOGRAD_CACHE_BYTES (192 << 10)
#include "kernels/nchwc/winograd_tmpl.h"

#endif
