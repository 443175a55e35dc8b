/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHOAL_KERNELS_BLOCKED_CONV_H
#define SHOAL_KERNELS_BLOCKED_CONV_H

#include "kernels/blocked/blocked.h"

/* What the three passes of the blocked convolution share.
 *
 * Seen as a matrix, the input of a group is columns[tap][pixel] = x[tap_at[tap] + pixel_at[pixel]]:
 * the place of a number is a sum of one part per row and one per column, once the images have a
 * border that all taps stay within. So the matrix is never built: the passes copy those pieces of
 * it that they are about to use, straight from the image.
 *
 * Images with a border are copied into the workspace, as many at a time ("a round") as fit. */

/* Sizes as size_t; "group" counts are per group. */
typedef struct ShoalConvPlan {
    const ShoalConvShape *shape;
    const ShoalBlocked *blocked;
    size_t batch, groups, channels, outputs; /* of one group */
    size_t taps, rows;                       /* kernel_h * kernel_w; channels * taps */
    size_t in_plane, out_plane;
    size_t height, width; /* with the border */
    bool bordered;        /* whether the border must be made */
    bool pointwise;       /* 1 x 1, stride 1, no border: columns[] is x itself */
    size_t images;        /* per round; >= 1 */
    size_t pixel_stride;  /* row stride of column buffers */
    size_t channel_step;  /* channels whose gradients go through the buffer at a time */
    unsigned threads;
} ShoalConvPlan;

/* Where things lie in the workspace; each pass uses some. */
typedef struct ShoalConvSpace {
    ptrdiff_t *tap_at;    /* [rows] */
    ptrdiff_t *output_at; /* [outputs]: o * out_plane */
    float *weights;       /* [groups * outputs][rows] packed in tiles */
    float *images;        /* [images][groups * channels][height][width] with border */
    unsigned char *threads;
    size_t thread_bytes; /* of each thread's part of `threads` */
    size_t bytes;        /* in all */
} ShoalConvSpace;

typedef enum ShoalConvPass {
    SHOAL_CONV_FWD,
    SHOAL_CONV_BWD_DATA,
    SHOAL_CONV_BWD_WEIGHTS,
    SHOAL_CONV_DEPTHWISE
} ShoalConvPass;

/* Block sizes: BLOCK_K taps of BLOCK_PIXELS output pixels at a time, which is what the forward pass
 * keeps of columns[] per thread. The weight gradient keeps a panel of nr taps, once as rows, which
 * avoid a power of two, and once transposed. */
enum {
    SHOAL_CONV_BLOCK_K = 512,
    SHOAL_CONV_BLOCK_PIXELS = 256,
    SHOAL_CONV_WEIGHT_STRIDE = SHOAL_CONV_BLOCK_PIXELS + 16
};

/* The plan of a shape; blocked may be NULL when only the workspace is asked for. */
ShoalConvPlan shoal_conv_plan(const ShoalConvShape *shape, const ShoalBlocked *blocked,
                              unsigned threads);

/* Lays a pass out over base (NULL: only .bytes and .thread_bytes mean anything). .bytes is SIZE_MAX
 * when it does not fit a size_t. */
ShoalConvSpace shoal_conv_space(const ShoalConvPlan *plan, ShoalConvPass pass, void *base);

/* Whether the shape goes the depthwise way: one input channel per group. */
bool shoal_conv_is_depthwise(const ShoalConvShape *shape);

void shoal_conv_fill_tap_at(const ShoalConvPlan *plan, ptrdiff_t *tap_at);

/* Copies image planes with their border (zeros): planes [count][height][width] of the plan from
 * x [count][shape.height][shape.width], in parallel. */
void shoal_conv_add_border(const ShoalConvPlan *plan, ShoalPool *pool, size_t count, const float *x,
                           float *planes);
void shoal_conv_border_plane(const ShoalConvPlan *plan, const float *x, float *plane);

/* The input of a round from image `first` on: x itself or the copy with a border. */
const float *shoal_conv_round_input(const ShoalConvPlan *plan, const ShoalConvSpace *space,
                                    ShoalPool *pool, size_t first, size_t count, const float *x);

/* Pixels [begin, end) of a round (all its images side by side) as runs relative to the first
 * channel of the group in the round's first image; `to` counts from 0. At most end - begin runs,
 * into runs[]; the number is returned. */
size_t shoal_conv_pixel_runs(const ShoalConvPlan *plan, size_t begin, size_t end, ShoalRun *runs);

/* Depthwise passes (kernels/blocked/depthwise.c). */
void shoal_conv_depthwise_fwd(const ShoalCompute *compute, const ShoalConvShape *shape,
                              const float *x, const float *w, const float *bias, float *y);
void shoal_conv_depthwise_bwd_data(const ShoalCompute *compute, const ShoalConvShape *shape,
                                   const float *dy, const float *w, float *dx);
void shoal_conv_depthwise_bwd_weights(const ShoalCompute *compute, const ShoalConvShape *shape,
                                      const float *x, const float *dy, float *dw);

#endif
