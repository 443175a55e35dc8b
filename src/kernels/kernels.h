/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHOAL_KERNELS_KERNELS_H
#define SHOAL_KERNELS_KERNELS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/pool.h"
#include "cpu/cpu.h"

/* The arithmetic of the layers, on plain row-major float32 tensors (NCHW). Every operation has a C
 * reference (double accumulation) and may have faster versions per instruction set, chosen once in
 * a dispatch table. For a given level results are the same to the bit for any number of threads:
 * work is split over outputs, never over a sum. */

typedef struct ShoalKernels ShoalKernels; /* the dispatch table: kernels/table.h */

/* What an operation runs on. Owned by whoever runs the net; kernels keep nothing in it. */
typedef struct ShoalCompute {
    const ShoalKernels *kernels;
    ShoalPool *pool;           /* may be NULL: one thread */
    void *workspace;           /* SHOAL_ALIGN-aligned scratch, garbage between calls */
    size_t workspace_bytes;    /* at least what the operation's *_workspace_bytes asks for */
    const atomic_bool *cancel; /* of another thread: a net stops before its next unit; or NULL */
    void (*unit_done)(void *context); /* a net calls it after every unit; it may wait; or NULL */
    void *context;
} ShoalCompute;

/* The table for a level; a level that the build or CPU lacks gives NULL. Static storage. */
const ShoalKernels *shoal_kernels_for(ShoalCpuLevel level);

/* Bytes of workspace that shoal_gemm needs with this many threads, whatever the sizes; SIZE_MAX
 * when it does not fit. */
size_t shoal_gemm_workspace_bytes(unsigned threads);

/* C[m][n] = alpha * op(A)[m][k] * op(B)[k][n] + beta * C; op transposes when trans_* is set: then A
 * is stored [k][m] with row length lda, B [n][k] with row length ldb. beta 0 does not read C.
 * Row-major; m, n or k may be 0. No aliasing of C with A or B. */
void shoal_gemm(const ShoalCompute *compute, bool trans_a, bool trans_b, size_t m, size_t n,
                size_t k, float alpha, const float *a, size_t lda, const float *b, size_t ldb,
                float beta, float *c, size_t ldc);

/* A 2-D convolution as Caffe has it. */
typedef struct ShoalConvShape {
    int batch, channels, height, width; /* input  [batch][channels][height][width] */
    int outputs, out_height, out_width; /* output [batch][outputs][out_height][out_width] */
    int kernel_h, kernel_w, stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w;
    int group; /* weights [outputs][channels / group][kernel_h][kernel_w] */
} ShoalConvShape;

/* Bytes of workspace that each of the three passes needs, at any level, with this many threads;
 * SIZE_MAX when it does not fit. */
size_t shoal_conv_workspace_bytes(const ShoalConvShape *shape, unsigned threads);

/* y = conv(x, w) + bias; bias [outputs] or NULL. Out of range, x reads as 0.
 * Equivalent to: y[b][o][i][j] = bias[o] + sum over c,u,v of
 *   w[o][c][u][v] * x[b][g*C/G + c][i*stride_h - pad_h + u*dilation_h][j*stride_w - ... ] */
void shoal_conv_fwd(const ShoalCompute *compute, const ShoalConvShape *shape, const float *x,
                    const float *w, const float *bias, float *y);
/* dx = gradient of the above for x, from dy; overwrites dx. */
void shoal_conv_bwd_data(const ShoalCompute *compute, const ShoalConvShape *shape, const float *dy,
                         const float *w, float *dx);
/* Adds the gradients for w into dw and, when db is not NULL, for the bias into db. */
void shoal_conv_bwd_weights(const ShoalCompute *compute, const ShoalConvShape *shape,
                            const float *x, const float *dy, float *dw, float *db);

/* Pooling over windows as Caffe has them (sizes already rounded up by the layer). */
typedef struct ShoalPoolShape {
    int planes; /* batch * channels */
    int height, width, out_height, out_width;
    int kernel_h, kernel_w, stride_h, stride_w, pad_h, pad_w;
} ShoalPoolShape;

/* y = maximum over the window clipped to the image; on equal values the first (row by row) wins;
 * index[] gets its place h*width + w in the plane, or -1 when the window holds nothing but NaN
 * (y is then -FLT_MAX, as in Caffe) or is empty. */
void shoal_pool_max_fwd(const ShoalCompute *compute, const ShoalPoolShape *shape, const float *x,
                        float *y, int32_t *index);
/* Overwrites dx: each dy goes to its index (several add up, in output order); -1 goes nowhere. */
void shoal_pool_max_bwd(const ShoalCompute *compute, const ShoalPoolShape *shape, const float *dy,
                        const int32_t *index, float *dx);
/* y = sum over the window clipped to the image / size of the window clipped to size + pad; 0 where
 * that is empty, as it can be when the stride is greater than the window (Caffe divides by 0). */
void shoal_pool_ave_fwd(const ShoalCompute *compute, const ShoalPoolShape *shape, const float *x,
                        float *y);
void shoal_pool_ave_bwd(const ShoalCompute *compute, const ShoalPoolShape *shape, const float *dy,
                        float *dx);

/* y = x > 0 ? x : slope * x; in place allowed (y == x). */
void shoal_relu_fwd(const ShoalCompute *compute, size_t n, float slope, const float *x, float *y);
/* dx = dy * (x > 0 ? 1 : slope); dx == dy allowed. x may be the output when slope >= 0. */
void shoal_relu_bwd(const ShoalCompute *compute, size_t n, float slope, const float *x,
                    const float *dy, float *dx);

/* Softmax over the middle axis of [outer][classes][inner], the maximum subtracted first; y == x
 * allowed. */
void shoal_softmax_fwd(const ShoalCompute *compute, size_t outer, size_t classes, size_t inner,
                       const float *x, float *y);
/* dx = (dy - sum over classes of dy*y) * y; dx == dy allowed. */
void shoal_softmax_bwd(const ShoalCompute *compute, size_t outer, size_t classes, size_t inner,
                       const float *y, const float *dy, float *dx);

/* Plain vector operations. */
void shoal_vec_axpy(const ShoalCompute *compute, size_t n, float a, const float *x,
                    float *y);                                                  /* y += a x */
void shoal_vec_scale(const ShoalCompute *compute, size_t n, float a, float *x); /* x *= a */
void shoal_vec_add(const ShoalCompute *compute, size_t n, const float *a, const float *b,
                   float *y); /* y = a + b; aliasing allowed */
void shoal_vec_mul(const ShoalCompute *compute, size_t n, const float *a, const float *b,
                   float *y); /* y = a * b; aliasing allowed */
/* Sum of squares, sum, sum of absolute values: double accumulation in a fixed order that does not
 * depend on the level or the number of threads, so that replicas agree to the bit. */
double shoal_vec_sumsq(size_t n, const float *x);
double shoal_vec_sum(size_t n, const float *x);
double shoal_vec_asum(size_t n, const float *x);

/* x[r][c] += bias[c] for r < rows; and db[c] += sum over r of dy[r][c]. */
void shoal_bias_add(const ShoalCompute *compute, size_t rows, size_t cols, const float *bias,
                    float *x);
void shoal_bias_grad(const ShoalCompute *compute, size_t rows, size_t cols, const float *dy,
                     float *db);

/* Stochastic gradient descent with momentum, as Caffe's SGDSolver (sgd_solver.cpp): regularise,
 * then h = momentum*h + rate*g, w -= h. g gets the gradient scale and weight decay on the way:
 *   t = g*scale; L2: t += decay*w; L1: t += decay*sign(w), sign(0) = 0
 *   h = momentum*h + rate*t; w -= h
 * or, nesterov (Caffe: NesterovSolver): w -= (1 + momentum) * h - momentum * (h before).
 * One rounding per written operation, no contraction: every level gives the same bits, so mixed
 * clusters stay identical. */
typedef struct ShoalSgdRule {
    float scale, rate, momentum, decay;
    bool l1, nesterov;
} ShoalSgdRule;
void shoal_update_sgd(const ShoalCompute *compute, const ShoalSgdRule *rule, size_t n,
                      const float *g, float *h, float *w);

/* The updates with a rate for each weight, as Caffe's solvers of these names compute them. After
 * scale and decay as above, t the result, v and u the two parts of the state:
 *   ADAGRAD   v = t*t + v                              s = rate * (t / (sqrt(v) + delta))
 *   RMSPROP   v = (1 - decay1)*t*t + decay1*v          s = rate * (t / (sqrt(v) + delta))
 *   ADADELTA  v = (1 - decay1)*t*t + decay1*v          d = t * sqrt((u + delta) / (v + delta))
 *             u = (1 - decay1)*d*d + decay1*u          s = rate * d
 *   ADAM      v = (1 - decay1)*t + decay1*v            s = rate * (v / (sqrt(u) + delta))
 *             u = (1 - decay2)*t*t + decay2*u
 * w -= s. Adam's rate comes with its correction. The first two do not touch u, which may be NULL.
 * step gets s; it may be g. The same bits at every level: root and division are IEEE's, too.
 * Duchi et al. 2011; Tieleman and Hinton 2012; Zeiler 2012; Kingma and Ba 2014. */
typedef enum ShoalAdaptiveKind {
    SHOAL_UPDATE_ADAGRAD,
    SHOAL_UPDATE_RMSPROP,
    SHOAL_UPDATE_ADADELTA,
    SHOAL_UPDATE_ADAM
} ShoalAdaptiveKind;
typedef struct ShoalAdaptiveRule {
    ShoalAdaptiveKind kind;
    float scale, rate, decay; /* decay: of the weights */
    float decay1, decay2, delta;
    bool l1;
} ShoalAdaptiveRule;
void shoal_update_adaptive(const ShoalCompute *compute, const ShoalAdaptiveRule *rule, size_t n,
                           const float *g, float *v, float *u, float *w, float *step);

/* A tensor [outer][channels][inner] with a value per channel: NCHW with outer N, inner H * W. */
typedef struct ShoalChannelShape {
    size_t outer, channels, inner;
} ShoalChannelShape;

/* mean[c], variance[c] (biased) of x over outer and inner; double accumulation, the variance about
 * the mean. Of nothing, both are 0. The same bits at every level. */
void shoal_channel_moments(const ShoalCompute *compute, const ShoalChannelShape *shape,
                           const float *x, float *mean, float *variance);
/* y = factor[c] * x + shift[c]; shift NULL: none; y == x allowed. */
void shoal_channel_affine(const ShoalCompute *compute, const ShoalChannelShape *shape,
                          const float *x, const float *factor, const float *shift, float *y);
/* sums[c] += sum over outer and inner of dy * x; x NULL: of dy. */
void shoal_channel_sums(const ShoalCompute *compute, const ShoalChannelShape *shape, const float *x,
                        const float *dy, float *sums);
/* y = (x - mean[c]) * inverse[c]; y == x allowed. */
void shoal_batch_norm_fwd(const ShoalCompute *compute, const ShoalChannelShape *shape,
                          const float *x, const float *mean, const float *inverse, float *y);
/* The gradient through shoal_batch_norm_fwd when mean and inverse = (variance + eps)^-1/2 are those
 * of x itself; y is its result, means are over outer and inner; dx == dy allowed:
 *   dx = (dy - mean(dy) - y * mean(dy * y)) * inverse[c]
 * Ioffe and Szegedy: Batch Normalization (2015), section 3; Caffe: BatchNormLayer. */
void shoal_batch_norm_bwd(const ShoalCompute *compute, const ShoalChannelShape *shape,
                          const float *y, const float *dy, const float *inverse, float *dx);

/* Local response normalisation of [batch][channels][height][width] (Krizhevsky et al.: ImageNet
 * Classification with Deep Convolutional Neural Networks (2012), section 3.3; Caffe: LRNLayer):
 *   s = k + alpha * sum of x^2 over the window, y = x * s^-beta
 * The window is `size` (odd) channels or, `within` a channel, size x size pixels around the place;
 * out of range x reads as 0. alpha is per element: Caffe divides its own by the window's size. */
typedef struct ShoalLrnShape {
    size_t batch, channels, height, width;
    size_t size;
    bool within;
    float alpha, beta, k;
} ShoalLrnShape;
/* Overwrites s and y (as large as x, no aliasing). */
void shoal_lrn_fwd(const ShoalCompute *compute, const ShoalLrnShape *shape, const float *x,
                   float *s, float *y);
/* Overwrites dx; scratch is as large as x; no aliasing.
 *   dx = dy * s^-beta - 2 * alpha * beta * x * sum over the window of dy * y / s */
void shoal_lrn_bwd(const ShoalCompute *compute, const ShoalLrnShape *shape, const float *x,
                   const float *s, const float *dy, float *scratch, float *dx);

#endif
