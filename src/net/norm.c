/* SPDX-License-Identifier: Apache-2.0 */
#include <math.h>

#include "base/memory.h"
#include "net/layers/layers.h"
#include "net/units.h"

/* Batch normalisation and scale as one function of a channel's numbers.
 *   y = gamma * (x - mean) / sqrt(variance + eps) + beta = scale * x + shift
 * With g = dL/dy, xh = (x - mean) / sqrt(variance + eps) and m numbers per channel:
 *   dL/dbeta = sum g, dL/dgamma = sum g xh
 *   dL/dx = gamma / sqrt(variance + eps) * (g - dL/dbeta / m - xh * dL/dgamma / m)
 * (Ioffe, Szegedy: "Batch Normalization", 2015), without the last two terms when mean and variance
 * are constants. */

enum { NORM_DOUBLES = 4, NORM_FLOATS = 6 };

ShoalNorm *shoal_norm_create(size_t channels, size_t padded) {
    ShoalNorm *norm = shoal_calloc(1, sizeof *norm);
    double *block =
        shoal_calloc(padded, NORM_DOUBLES * sizeof(double) + NORM_FLOATS * sizeof(float));
    if (!norm || !block) {
        shoal_free(norm);
        shoal_free(block);
        return NULL;
    }
    norm->channels = channels;
    norm->mean = block;
    norm->variance = block + padded;
    norm->sum_g = block + 2 * padded;
    norm->sum_gz = block + 3 * padded;
    float *floats = (float *)(block + NORM_DOUBLES * padded);
    norm->scale = floats;
    norm->shift = floats + padded;
    norm->center = floats + 2 * padded;
    norm->a = floats + 3 * padded;
    norm->b = floats + 4 * padded;
    norm->c0 = floats + 5 * padded;
    return norm;
}

void shoal_norm_destroy(ShoalNorm *norm) {
    if (norm)
        shoal_free(norm->mean);
    shoal_free(norm);
}

/* The layer's own numbers are single. center and a serve as room for them: both are set anew after
 * this. */
static void move_averages(ShoalNorm *norm) {
    for (size_t c = 0; c < norm->channels; c++) {
        norm->center[c] = (float)norm->mean[c];
        norm->a[c] = (float)norm->variance[c];
    }
    shoal_batch_norm_move(norm->batch_norm, norm->center, norm->a);
}

static void use_averages(ShoalNorm *norm) {
    shoal_batch_norm_stored(norm->batch_norm, norm->center, norm->a);
    for (size_t c = 0; c < norm->channels; c++) {
        norm->mean[c] = norm->center[c];
        norm->variance[c] = norm->a[c];
    }
}

static double inverse_deviation(const ShoalNorm *norm, size_t c) {
    if (!norm->batch_norm)
        return 1;
    return 1 / sqrt(norm->variance[c] + shoal_batch_norm_eps(norm->batch_norm));
}

static double gamma_of(const ShoalNorm *norm, size_t c) {
    return norm->scale_layer ? norm->scale_layer->params[0]->blob.data[c] : 1;
}

static double beta_of(const ShoalNorm *norm, size_t c) {
    bool has = norm->scale_layer && norm->scale_layer->n_params > 1;
    return has ? norm->scale_layer->params[1]->blob.data[c] : 0;
}

void shoal_norm_forward(ShoalNorm *norm) {
    if (norm->batch_statistics)
        move_averages(norm);
    else if (norm->batch_norm)
        use_averages(norm);
    for (size_t c = 0; c < norm->channels; c++) {
        double scale = gamma_of(norm, c) * inverse_deviation(norm, c);
        norm->scale[c] = (float)scale;
        norm->shift[c] = (float)(beta_of(norm, c) - norm->mean[c] * scale);
        norm->center[c] = (float)norm->mean[c];
    }
}

static void add_gradient(ShoalNorm *norm, int param, size_t c, double value) {
    ShoalLayer *layer = norm->scale_layer;
    if (layer && layer->n_params > param && layer->params[param]->learns)
        layer->params[param]->blob.diff[c] += (float)value;
}

void shoal_norm_backward(ShoalNorm *norm, const double *sum_g, size_t count) {
    for (size_t c = 0; c < norm->channels; c++) {
        double inverse = inverse_deviation(norm, c), mean = norm->mean[c];
        double d_gamma = (norm->sum_gz[c] + (norm->center[c] - mean) * sum_g[c]) * inverse;
        double a = gamma_of(norm, c) * inverse;
        add_gradient(norm, 0, c, d_gamma);
        add_gradient(norm, 1, c, sum_g[c]);
        norm->a[c] = (float)a;
        if (!norm->batch_statistics)
            continue;
        double b = -a * inverse * d_gamma / (double)count;
        norm->b[c] = (float)b;
        norm->c0[c] = (float)(-a * sum_g[c] / (double)count - b * mean);
    }
}
