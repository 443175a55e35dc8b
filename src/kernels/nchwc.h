/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHOAL_KERNELS_NCHWC_H
#define SHOAL_KERNELS_NCHWC_H

#include "kernels/kernels.h"

/* The arithmetic of training on channel-blocked tensors, with what usually goes before and after a
 * convolution (batch normalisation, scale, ReLU, and their gradients) done while the numbers are in
 * the cache.
 *
 * A blocked tensor is float32 [batch][blocks][height][width][lanes]: `lanes` channels lie side by
 * side (nChw16c, nChw8c, nChw4c; oneDNN calls it so), blocks = ceil(channels / lanes). Lanes beyond
 * the last channel are padding: every operation writes 0 there and may rely on 0 being there.
 * Arrays "per channel" have blocks * lanes values, 0 in the padding.
 *
 * For a level, results are the same to the bit for any number of threads: work is cut by shapes
 * alone, sums over parts are made in a fixed order. Tensors are SHOAL_ALIGN-aligned; nothing
 * aliases unless it is said. Nothing allocates: compute->workspace must have the bytes that the
 * operation's *_workspace_bytes asks for. */

/* Lanes of a level: 16, 8 or 4; 0 when the level has none of these operations (the reference). */
int shoal_nchwc_lanes(const ShoalKernels *kernels);

/* Channels rounded up to whole blocks. */
static inline size_t shoal_nchwc_padded(int channels, int lanes) {
    return ((size_t)channels + (size_t)lanes - 1) / (size_t)lanes * (size_t)lanes;
}

typedef struct ShoalNchwcDims {
    int batch, channels, height, width;
} ShoalNchwcDims;

/* A tensor that is read through a function that is applied on the way:
 *   value = relu ? max(0, scale[c] * x + shift[c]) : scale[c] * x + shift[c]
 * scale NULL: scale 1, shift 0 (shift is NULL then too). So a batch normalisation with its scale
 * and ReLU costs no pass over memory. A NaN stays NaN without relu; with it, it may become 0. */
typedef struct ShoalNchwcInput {
    const float *x;
    const float *scale, *shift; /* per channel */
    bool relu;
} ShoalNchwcInput;

/* Mean and biased variance of every channel over batch and pixels: per channel, made from sums
 * about a value of the data itself and merged in double (Chan, Golub, LeVeque: "Updating formulae
 * and a pairwise algorithm for computing sample variances", 1979), so that a mean far from 0 costs
 * no digits. */
typedef struct ShoalNchwcStats {
    double *mean, *variance; /* per channel */
} ShoalNchwcStats;

/* Where the gradient of a ShoalNchwcInput's value goes, and what is done with it there.
 *   1. g = (accumulate ? g : 0) + what the operation computes
 * and, when `finish` is set (the last contribution to this gradient):
 *   2. with mask: g = m > 0 ? g : 0, where m = mask_scale[c] * mask[..] + mask_shift[c]
 *      (mask_scale NULL: m = mask[..])                              (the ReLU's gradient)
 *   3. with sum_g: sum_g[c] = sum of g over batch and pixels, and for each i < terms:
 *      term[i].sum[c] = sum of g * (term[i].z[..] - term[i].center[c])
 *                                                  (what a batch normalisation's gradient needs) */
enum { SHOAL_NCHWC_TERMS = 2 };
typedef struct ShoalNchwcGradient {
    float *g;
    bool accumulate, finish;
    const float *mask, *mask_scale, *mask_shift;
    double *sum_g; /* per channel; NULL: no sums */
    int terms;
    struct {
        const float *z, *center;
        double *sum; /* per channel */
    } term[SHOAL_NCHWC_TERMS];
} ShoalNchwcGradient;

/* --- Convolution --------------------------------------------------------------------------- */

/* How a convolution is done. Weights are Caffe's [outputs][channels / group][kernel_h][kernel_w];
 * they are packed inside, once per call. */
typedef struct ShoalNchwcConv {
    ShoalConvShape shape;
    bool plain_input; /* x is plain NCHW without a function (an image of 1 or 3 channels): only the
                         output is blocked; there is no bwd_data then */
    bool winograd;    /* F(4x4,3x3) where it applies and pays (3x3, stride 1, dilation 1, group 1,
                         enough channels); the direct way otherwise */
} ShoalNchwcConv;

/* Whether the level has this convolution: group 1, depthwise (channels = group = outputs), or
 * groups of whole blocks; any kernel, stride, pad and dilation. plain_input asks for group 1. */
bool shoal_nchwc_conv_supported(const ShoalKernels *kernels, const ShoalNchwcConv *conv);

/* Whether `winograd` would be followed: for the plan to print. */
bool shoal_nchwc_conv_uses_winograd(const ShoalKernels *kernels, const ShoalNchwcConv *conv);

/* Workspace of the most demanding of the three passes; SIZE_MAX when it does not fit. */
size_t shoal_nchwc_conv_workspace_bytes(const ShoalKernels *kernels, const ShoalNchwcConv *conv,
                                        unsigned threads);

/* y = conv(value of x, w) + bias; bias [outputs] or NULL. stats (NULL: none) of y. */
void shoal_nchwc_conv_fwd(const ShoalCompute *compute, const ShoalNchwcConv *conv,
                          const ShoalNchwcInput *x, const float *w, const float *bias, float *y,
                          const ShoalNchwcStats *stats);
/* The gradient for the value of x, from dy, into dx. */
void shoal_nchwc_conv_bwd_data(const ShoalCompute *compute, const ShoalNchwcConv *conv,
                               const float *dy, const float *w, const ShoalNchwcGradient *dx);
/* Adds the gradients for w into dw and, when db is not NULL, for the bias into db. */
void shoal_nchwc_conv_bwd_weights(const ShoalCompute *compute, const ShoalNchwcConv *conv,
                                  const ShoalNchwcInput *x, const float *dy, float *dw, float *db);

/* The gradient of a convolution's output, as it is read:
 *   dy = a[c] * g + b[c] * z + c0[c]     (z, b, c0 NULL: dy = a[c] * g; a NULL: dy = g)
 * which is what a batch normalisation that follows makes of its own gradient g (see
 * shoal_nchwc_affine). `room` is a tensor of the same shape, which may be g, for dy where it is
 * made in a pass of its own; a NULL: not used. */
typedef struct ShoalNchwcOutGradient {
    const float *g, *z;
    const float *a, *b, *c0; /* per channel */
    float *room;
} ShoalNchwcOutGradient;

/* The whole backward pass: as bwd_weights (dw NULL: neither it nor db) and bwd_data (dx NULL: not)
 * with that dy, each number read as few times as possible. x is read only for dw. dx->g may not be
 * g or room. */
void shoal_nchwc_conv_bwd(const ShoalCompute *compute, const ShoalNchwcConv *conv,
                          const ShoalNchwcInput *x, const ShoalNchwcOutGradient *dy, const float *w,
                          float *dw, float *db, const ShoalNchwcGradient *dx);

/* --- Pooling ------------------------------------------------------------------------------- */

/* As ShoalPoolShape (planes is not used); kernel_h * kernel_w <= 255 for MAX. */
typedef struct ShoalNchwcPool {
    int batch, channels;
    ShoalPoolShape shape;
} ShoalNchwcPool;

/* As shoal_pool_max_fwd on the value of x. place[] (blocked like y, one byte per number) gets the
 * maximum's place in its window, u * kernel_w + v; 255 when there is none. */
void shoal_nchwc_pool_max_fwd(const ShoalCompute *compute, const ShoalNchwcPool *pool,
                              const ShoalNchwcInput *x, float *y, uint8_t *place);
void shoal_nchwc_pool_max_bwd(const ShoalCompute *compute, const ShoalNchwcPool *pool,
                              const float *dy, const uint8_t *place, const ShoalNchwcGradient *dx);
void shoal_nchwc_pool_ave_fwd(const ShoalCompute *compute, const ShoalNchwcPool *pool,
                              const ShoalNchwcInput *x, float *y);
void shoal_nchwc_pool_ave_bwd(const ShoalCompute *compute, const ShoalNchwcPool *pool,
                              const float *dy, const ShoalNchwcGradient *dx);

/* --- Element by element -------------------------------------------------------------------- */

/* Workspace of every operation of this part and of pooling. */
size_t shoal_nchwc_workspace_bytes(const ShoalKernels *kernels, const ShoalNchwcDims *dims,
                                   unsigned threads);

/* Between plain NCHW and blocked. */
void shoal_nchwc_from_plain(const ShoalCompute *compute, const ShoalNchwcDims *dims,
                            const float *plain, float *y);
void shoal_nchwc_to_plain(const ShoalCompute *compute, const ShoalNchwcDims *dims,
                          const ShoalNchwcInput *x, float *plain);

/* stats of x: for a batch normalisation that does not follow a convolution. */
void shoal_nchwc_stats(const ShoalCompute *compute, const ShoalNchwcDims *dims, const float *x,
                       const ShoalNchwcStats *stats);

/* y = a + b, or max(0, a + b) with relu, of the values of a and b. y may be a->x or b->x. */
void shoal_nchwc_sum(const ShoalCompute *compute, const ShoalNchwcDims *dims,
                     const ShoalNchwcInput *a, const ShoalNchwcInput *b, bool relu, float *y);

/* A gradient that exists already goes into dx: dx gets from[]; from may be dx->g (then accumulate
 * must not be set: only the finish is done, in place). */
void shoal_nchwc_grad(const ShoalCompute *compute, const ShoalNchwcDims *dims, const float *from,
                      const ShoalNchwcGradient *dx);
/* The same from a plain NCHW gradient. */
void shoal_nchwc_grad_from_plain(const ShoalCompute *compute, const ShoalNchwcDims *dims,
                                 const float *plain, const ShoalNchwcGradient *dx);

/* dz = a[c] * g + b[c] * z + c0[c], per channel: a batch normalisation's gradient once its sums are
 * known. z, b NULL: dz = a[c] * g. dz may be g. */
void shoal_nchwc_affine(const ShoalCompute *compute, const ShoalNchwcDims *dims, const float *g,
                        const float *z, const float *a, const float *b, const float *c0, float *dz);

#endif
