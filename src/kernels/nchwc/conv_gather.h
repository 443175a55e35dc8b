/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHOAL_KERNELS_NCHWC_CONV_GATHER_H
#define SHOAL_KERNELS_NCHWC_CONV_GATHER_H

#include "kernels/nchwc/conv.h"
#include "kernels/nchwc/merge.h"

/* Forward and backward-data, by the direct way.
 *
 * The output is cut into items: some rows of an image, or some whole images, by some vectors of
 * output channels. A thread that takes an item opens the panel of inputs that it needs, and for
 * every pair of vectors runs over a piece of the sum that keeps its weights in L1, and over all
 * tiles of pixels; the pair's sums over pixels are made while its pixels are in L2. */

typedef struct ShoalNchwcGather {
    const ShoalNchwc *engine;
    const ShoalConvShape *shape;
    bool backward;
    ShoalNchwcPanel panel;
    /* per group */
    size_t in_channels, in_blocks, out_channels, out_blocks;
    size_t groups, batch, out_height, out_width;
    size_t phases_h, phases_w;
    bool empty_phase; /* some phase has no taps */
    /* Steps of a segment, and the segments of all phases: the weights of a vector of outputs are
     * [segments][length] rows. */
    size_t length, segments;
    /* Items: `images` whole images, or `rows` rows of one; by `pairs` pairs. */
    size_t images, rows, pairs;
    size_t image_parts, row_parts, pair_parts;
    bool pack_late; /* a pair's weights are for a single item, which packs them into its L2 */
    bool shared;    /* a panel is opened once for all its items, and not by each of them */
    size_t panel_rows;
    ShoalNchwcParts parts; /* of the output, for its sums */

    /* the workspace */
    ptrdiff_t *offsets; /* [segments]: from a panel's first pixel */
    float *weights, *init, *partials, *buffers;
    size_t buffer_floats;
} ShoalNchwcGather;

/* Plans and lays out the workspace at `base` (NULL: only finds the size, into *bytes). */
ShoalNchwcGather shoal_nchwc_gather(const ShoalNchwc *engine, const ShoalNchwcConv *conv,
                                    bool backward, bool function, unsigned threads, void *base,
                                    size_t *bytes);

/* What is done with the output besides. */
typedef struct ShoalNchwcGatherOutput {
    float *y;
    const float *bias;              /* [outputs]; forward */
    const ShoalNchwcStats *stats;   /* forward; NULL: none */
    const ShoalNchwcGradient *grad; /* backward */
} ShoalNchwcGatherOutput;

void shoal_nchwc_gather_run(const ShoalCompute *compute, ShoalNchwcGather *gather,
                            const ShoalNchwcInput *x, const float *w,
                            const ShoalNchwcGatherOutput *out);

#endif
