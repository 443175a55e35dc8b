/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/peak.h"

#if defined(__x86_64__)

#include "kernels/avx2/vector.h"
#include "kernels/peak_tmpl.h"

float shoal_peak_avx2(size_t rounds, double *operations) {
    return peak(rounds, operations);
}

#endif
