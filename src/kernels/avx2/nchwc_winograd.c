/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/avx2/avx2.h"

#if defined(__x86_64__)

#include "kernels/avx2/vector.h"

#define SHOAL_ISA(name) name##_avx2
#define WINOGRAD_CACHE_BYTES (384 << 10)
#include "kernels/nchwc/winograd_tmpl.h"

#endif
