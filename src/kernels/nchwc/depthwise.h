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
    float *y;         /* NULL: not wanted */
    const float *in;  /* what meets the source in the gradient of the taps; NULL: none is wanted */
    float *const *dw; /* [rows], as w */
    /* With y and in: rows that the next one will read, to ask the memory for meanwhile. */
    const float *next[3];
} ShoalNchwcDepthwiseRow;

/* In a backward pass the source is dy, y is dx, and in is x: row of x and row of dx meet the same
 * rows of dy with the same taps, so both gradients come of one look at dy. */
typedef struct ShoalNchwcDepthwiseKernels {
    /* y[j] = start + sum over r, v, in this order, of x[r][j * stride + v * dilation] * w[r][v];
     * start = accumulate ? y[j] : bias or 0;
     * dw[r][v] += sum over j < pixels of x[r][j * stride + v * dilation] * in[j]. */
    void (*gather)(const ShoalNchwcDepthwiseRow *row);
    /* The transposed: y[j] = start + sum over r and all v for which
     * (j + pad - v * dilation) = k * stride, of x[r][left + k] * w[r][v]; and for the same j and k
     * dw[r][v] += x[r][left + k] * in[j]. */
    void (*spread)(const ShoalNchwcDepthwiseRow *row);
} ShoalNchwcDepthwiseKernels;

/* Whether a convolution is one. */
bool shoal_nchwc_depthwise_applies(const ShoalNchwcConv *conv);
/* Of the most demanding of the three passes; SIZE_MAX when it does not fit. */
size_t shoal_nchwc_depthwise_workspace_bytes(const ShoalNchwc *engine, const ShoalNchwcConv *conv,
                                             unsigned threads);
/* As shoal_nchwc_conv_*; the bias's gradient is the caller's. dy->room is not used. */
void shoal_nchwc_depthwise_fwd(const ShoalCompute *compute, const ShoalNchwcConv *conv,
                               const ShoalNchwcInput *x, const float *w, const float *bias,
                               float *y, const ShoalNchwcStats *stats);
void shoal_nchwc_depthwise_bwd_data(const ShoalCompute *compute, const ShoalNchwcConv *conv,
                                    const float *dy, const float *w, const ShoalNchwcGradient *dx);
void shoal_nchwc_depthwise_bwd_weights(const ShoalCompute *compute, const ShoalNchwcConv *conv,
                                       const ShoalNchwcInput *x, const float *dy, float *dw);
void shoal_nchwc_depthwise_bwd(const ShoalCompute *compute, const ShoalNchwcConv *conv,
                               const ShoalNchwcInput *x, const ShoalNchwcOutGradient *dy,
                               const float *w, float *dw, const ShoalNchwcGradient *dx);

#endif
