/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/peak.h"

#if defined(__aarch64__)

#include "kernels/neon/vector.h"
#include "kernels/peak_tmpl.h"

float shoal_peak_neon(size_t rounds, double *operations) {
    return peak(rounds, operations);
}

#endif
