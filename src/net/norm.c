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

static const Caffe__BatchNormParameter *settings(const ShoalLayer *batch_norm) {
    return batch_norm->param->batch_norm_param;
}

bool shoal_norm_is_global(const ShoalLayer *batch_norm) {
    const Caffe__BatchNormParameter *param = settings(batch_norm);
    return param && param->has_use_global_stats ? param->use_global_stats
                                                : batch_norm->context->phase == CAFFE__PHASE__TEST;
}

static double eps_of(const ShoalLayer *batch_norm) {
    const Caffe__BatchNormParameter *param = settings(batch_norm);
    return param ? param->eps : 1e-5f;
}

/* The stored averages are sums; blob 2 is the sum of their weights (BVLC Caffe:
 * batch_norm_layer.cpp). The stored variance is the unbiased one. */
static void move_averages(ShoalNorm *norm, size_t count) {
    const Caffe__BatchNormParameter *param = settings(norm->batch_norm);
    const float fraction = param ? param->moving_average_fraction : 0.999f;
    ShoalParam **blobs = norm->batch_norm->params;
    const double unbiased = count > 1 ? (double)count / (double)(count - 1) : 1;
    float *mean = blobs[0]->blob.data, *variance = blobs[1]->blob.data;
    blobs[2]->blob.data[0] = blobs[2]->blob.data[0] * fraction + 1;
    for (size_t c = 0; c < norm->channels; c++) {
        mean[c] = mean[c] * fraction + (float)norm->mean[c];
        variance[c] = variance[c] * fraction + (float)(unbiased * norm->variance[c]);
    }
}

static void use_averages(ShoalNorm *norm) {
    ShoalParam **blobs = norm->batch_norm->params;
    const double weight = blobs[2]->blob.data[0];
    const double factor = weight == 0 ? 0 : 1 / weight;
    for (size_t c = 0; c < norm->channels; c++) {
        norm->mean[c] = factor * blobs[0]->blob.data[c];
        norm->variance[c] = factor * blobs[1]->blob.data[c];
    }
}

static double inverse_deviation(const ShoalNorm *norm, size_t c) {
    if (!norm->batch_norm)
        return 1;
    return 1 / sqrt(norm->variance[c] + eps_of(norm->batch_norm));
}

static double gamma_of(const ShoalNorm *norm, size_t c) {
    return norm->scale_layer ? norm->scale_layer->params[0]->blob.data[c] : 1;
}

static double beta_of(const ShoalNorm *norm, size_t c) {
    bool has = norm->scale_layer && norm->scale_layer->n_params > 1;
    return has ? norm->scale_layer->params[1]->blob.data[c] : 0;
}

void shoal_norm_forward(ShoalNorm *norm, size_t count) {
    if (norm->batch_statistics)
        move_averages(norm, count);
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
