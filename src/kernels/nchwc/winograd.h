/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHOAL_KERNELS_NCHWC_WINOGRAD_H
#define SHOAL_KERNELS_NCHWC_WINOGRAD_H

#include "kernels/nchwc/engine.h"

/* Winograd's minimal filtering F(4x4,3x3) for all three passes of 3x3 convolutions with stride 1
 * (Lavin, Gray: "Fast Algorithms for Convolutional Neural Networks", 2015, equation 8 and
 * section 4.3): 36 multiplications make 4x4 outputs, where the direct way needs 144.
 *
 * Tiles of 6x6 inputs, 4 apart, give 4x4 outputs each. With V = B' d B of the input tile and
 * U = G g G' of the weights (' transposes), for each of the 36 "frequencies"
 *   M[f][tile][o] = sum over c of V[f][tile][c] * U[f][c][o]
 * is a product of matrices, and Y = A' M A. The gradient for the input is the same with weights
 * turned by 180 degrees and channels exchanged. The gradient for the weights is that of the above:
 *   dU[f][c][o] = sum over tiles of V[f][tile][c] * (A dY A')[f][tile][o],   dg = G' dU G
 *
 * The points at which the polynomials are evaluated decide the error (Barabasz, Anderson,
 * Soodhalter, Gregg: "Error Analysis and Improving the Accuracy of Winograd Convolution for Deep
 * Neural Networks", 2020). Here they are 0, +-5/8, +-3/2 and infinity. Measured against fp64 with
 * unit-normal data, in units of 2^-24 of the result's root mean square (rms), root mean square of
 * the error over a sum of 64 / 512 channels:
 *   direct                            7 /  20
 *   0, +-1, +-2, infinity (Lavin)    28 /  72
 *   0, +-1, +-1/2, infinity          28 /  74
 *   0, +-1, 1/2, -2, infinity        19 /  47
 *   0, +-sqrt(1/2), +-sqrt(2), inf   13 /  33
 *   0, +-5/8, +-3/2, infinity        13 /  33
 * and all coefficients of the last have exact binary fractions, but for those of G. Largest error
 * of some 10^4 outputs: 98 / 340; the same for backward-data, and for the weight gradient over as
 * many tiles rms 13 / 14, largest 78 / 76 (it sums in parts). test_nchwc_winograd.c measures all
 * passes at 64, 256 and 512 terms and holds them under 4 + 3 sqrt(terms) (rms) and 24 + 30
 * sqrt(terms) (largest), about twice what was found. */

enum { SHOAL_NCHWC_FREQUENCIES = 36 };

/* A row of `tiles` tiles to be read from a plane of one channel block, the first at pixel
 * (row, col), the others 4 columns apart. What lies out of the plane reads as 0. Frequency f of
 * tile t goes to v[f * v_step + t * lanes]. */
typedef struct ShoalNchwcWinogradRead {
    const float *x;
    ptrdiff_t height, width, row, col;
    size_t tiles;
    const float *scale, *shift; /* as in ShoalNchwcInput, at the block */
    bool relu;
    float *v;
    size_t v_step;
} ShoalNchwcWinogradRead;

/* A row of tiles of M to be written to rows row .. row + 3 of a plane, from column 0 on; what lies
 * out of the plane is dropped. bias [lanes] or NULL; accumulate adds to what is there. */
typedef struct ShoalNchwcWinogradWrite {
    const float *m;
    size_t m_step, tiles;
    float *y;
    ptrdiff_t height, width, row;
    const float *bias;
    bool accumulate;
} ShoalNchwcWinogradWrite;

/* Weights of `count` <= lanes rows of U by one vector of columns: the taps of (row i, lane l) are
 * the 9 numbers from w[i * w_row + l * w_lane] on, backwards when `turned`. One of w_row and w_lane
 * is 9. Lanes beyond `valid` become 0. Frequency f of row i goes to u[f * u_step + i * u_row].
 * `ahead` is where w will be in the next call (or w): it is fetched meanwhile. */
typedef struct ShoalNchwcWinogradWeights {
    const float *w, *ahead;
    size_t w_row, w_lane, valid, count;
    bool turned;
    float *u;
    size_t u_step, u_row;
} ShoalNchwcWinogradWeights;

/* The way back for the weight gradient, with the same names; w_row is 9:
 * w += the sum of `slices` dU, which are u_slice apart. */
typedef struct ShoalNchwcWinogradSum {
    const float *u;
    size_t u_step, u_row, u_slice, slices;
    float *w;
    size_t w_lane, valid, count;
} ShoalNchwcWinogradSum;

/* nchwc/winograd_tmpl.h */
typedef struct ShoalNchwcWinogradKernels {
    size_t cache_bytes; /* what a thread should keep between the stages: most of its L2 */
    size_t round_bytes; /* what all threads should keep between the stages together */
    void (*input)(const ShoalNchwcWinogradRead *read);    /* 6x6 tiles, B' d B */
    void (*gradient)(const ShoalNchwcWinogradRead *read); /* 4x4 tiles, A dY A'; no function */
    void (*output)(const ShoalNchwcWinogradWrite *write); /* A' M A */
    void (*weights)(const ShoalNchwcWinogradWeights *weights);
    void (*sum)(const ShoalNchwcWinogradSum *sum);
} ShoalNchwcWinogradKernels;

/* Whether a convolution with `winograd` set goes this way: 3x3, stride 1, no dilation, group 1,
 * pad 0 to 2, blocked input, and enough channels and tiles that it pays. */
bool shoal_nchwc_winograd_applies(const ShoalNchwc *engine, const ShoalNchwcConv *conv);

/* The rest is as the functions of kernels/nchwc.h with `conv` in place of `winograd`, for a
 * convolution that it applies to. bwd_weights leaves the bias to the caller. */
size_t shoal_nchwc_winograd_workspace_bytes(const ShoalNchwc *engine, const ShoalNchwcConv *conv,
                                            unsigned threads);
void shoal_nchwc_winograd_fwd(const ShoalCompute *compute, const ShoalNchwcConv *conv,
                              const ShoalNchwcInput *x, const float *w, const float *bias, float *y,
                              const ShoalNchwcStats *stats);
void shoal_nchwc_winograd_bwd_data(const ShoalCompute *compute, const ShoalNchwcConv *conv,
                                   const float *dy, const float *w, const ShoalNchwcGradient *dx);
void shoal_nchwc_winograd_bwd_weights(const ShoalCompute *compute, const ShoalNchwcConv *conv,
                                      const ShoalNchwcInput *x, const float *dy, float *dw);

#endif
