/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/c/reference.h"

#include <math.h>

/* One column: `classes` values that are `inner` apart. */
static void softmax_column(size_t classes, size_t inner, const float *x, float *y) {
    float top = x[0];
    for (size_t c = 1; c < classes; c++)
        top = x[c * inner] > top ? x[c * inner] : top;
    double sum = 0;
    for (size_t c = 0; c < classes; c++) {
        float value = expf(x[c * inner] - top);
        y[c * inner] = value;
        sum += (double)value;
    }
    for (size_t c = 0; c < classes; c++)
        y[c * inner] = (float)((double)y[c * inner] / sum);
}

void shoal_softmax_fwd_f32_c(size_t classes, size_t inner, const float *x, float *y) {
    for (size_t i = 0; classes > 0 && i < inner; i++)
        softmax_column(classes, inner, x + i, y + i);
}

void shoal_softmax_bwd_f32_c(size_t classes, size_t inner, const float *y, const float *dy,
                             float *dx) {
    for (size_t i = 0; i < inner; i++) {
        double dot = 0;
        for (size_t c = 0; c < classes; c++)
            dot += (double)dy[c * inner + i] * (double)y[c * inner + i];
        for (size_t c = 0; c < classes; c++) {
            size_t at = c * inner + i;
            dx[at] = (float)(((double)dy[at] - dot) * (double)y[at]);
        }
    }
}
