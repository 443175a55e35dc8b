/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/peak.h"

/* Plain C: one number at a time, or as many as the compiler makes of it. */
typedef float Vector;
enum { LANES = 1 };

static inline Vector vector_set1(float a) {
    return a;
}

static inline Vector vector_fma(Vector a, Vector b, Vector c) {
    return a * b + c;
}

static inline void vector_store(float *p, Vector v) {
    *p = v;
}

#include "kernels/peak_tmpl.h"

float shoal_peak_c(size_t rounds, double *operations) {
    return peak(rounds, operations);
}
