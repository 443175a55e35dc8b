/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHOAL_KERNELS_NCHWC_DEPTHWISE_H
#define SHOAL_KERNELS_NCHWC_DEPTHWISE_H

#include "kernels/nchwc/engine.h"

/* Depthwise convolution on blocked tensors: every channel has its own kernel_h x kernel_w taps, so
 * a vector of lanes goes through the same steps. Any kernel, stride, pad and dilation; 3x3 of
 * stride 1 and 2 fast. */

/* One row of one channel block, from rows of the source that have zeros around them. Units of
 * columns: pixels. */
typedef struct ShoalNchwcDepthwiseRow {
    size_t rows;           /* of the source that this row meets; may be 0 for spread */
    const float *const *x; /* [rows]: those */
    const float *const *w; /* [rows]: for each its kernel_w taps, of `lanes` numbers each */
    size_t kernel_w, stride, dilation;
    size_t pad;        /* spread: the convolution's */
    size_t left;       /* spread: zeros to the left of x's column 0 */
    const float *bias; /* [lanes], or NULL */
    bool accumulate;   /* adds to y, then without bias */
    size_t pixels;
    float *y;
} ShoalNchwcDepthwiseRow;

typedef struct ShoalNchwcDepthwiseKernels {
    /* y[j] = start + sum over r, v, in this order, of x[r][j * stride + v * dilation] * w[r][v];
     * start = accumulate ? y[j] : bias or 0. */
    void (*gather)(const ShoalNchwcDepthwiseRow *row);
    /* The transposed: y[j] = start + sum over r and all v for which
     * (j + pad - v * dilation) = k * stride, of x[r][left + k] * w[r][v]. */
    void (*spread)(const ShoalNchwcDepthwiseRow *row);
    /* dw[r][v] += sum over j < pixels of x[r][j * stride + v * dilation] * dy[j]; dw is
     * [rows][kernel_w][lanes]; w, bias and y are not used. */
    void (*weights)(const ShoalNchwcDepthwiseRow *row, const float *dy, float *dw);
} ShoalNchwcDepthwiseKernels;

/* Whether a convolution is one. */
bool shoal_nchwc_depthwise_applies(const ShoalNchwcConv *conv);
/* Of the most demanding of the three passes; SIZE_MAX when it does not fit. */
size_t shoal_nchwc_depthwise_workspace_bytes(const ShoalNchwc *engine, const ShoalNchwcConv *conv,
                                             unsigned threads);
/* As shoal_nchwc_conv_*; the bias's gradient is the caller's. */
void shoal_nchwc_depthwise_fwd(const ShoalCompute *compute, const ShoalNchwcConv *conv,
                               const ShoalNchwcInput *x, const float *w, const float *bias,
                               float *y, const ShoalNchwcStats *stats);
void shoal_nchwc_depthwise_bwd_data(const ShoalCompute *compute, const ShoalNchwcConv *conv,
                                    const float *dy, const float *w, const ShoalNchwcGradient *dx);
void shoal_nchwc_depthwise_bwd_weights(const ShoalCompute *compute, const ShoalNchwcConv *conv,
                                       const ShoalNchwcInput *x, const float *dy, float *dw);

#endif
