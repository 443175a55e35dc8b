/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/avx512/avx512.h"

#if defined(__x86_64__)

#include "kernels/avx512/vector.h"

#define SHOAL_ISA(name) name##_avx512
#define WINOGRAD_CACHE_BYTES (1280 << 10)
#include "kernels/nchwc/winograd_tmpl.h"

#endif
