/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHOAL_KERNELS_NCHWC_POOL_H
#define SHOAL_KERNELS_NCHWC_POOL_H

#include "kernels/nchwc/engine.h"

/* What pooling needs of a level: rows of one channel block. */

/* One row of one channel block. Forward it is a row of windows: `row` is its number; their rows
 * tap, ..., tap + rows - 1 lie in the image, and x is at the first of those. Backward it is a row
 * of the image: output rows row, ..., row + rows - 1 have windows over it, dy and place are at the
 * first of those, whose windows' row `tap` it is (the next one's row tap - stride_h, ...). */
typedef struct ShoalNchwcPoolRow {
    const ShoalPoolShape *shape;
    int row, rows, tap;
    size_t channels;      /* of the block: lanes beyond are padding */
    const float *x;       /* [rows][width][lanes] */
    const float *dy;      /* [rows][out_width][lanes] */
    const uint8_t *place; /* as dy */
} ShoalNchwcPoolRow;

typedef struct ShoalNchwcPoolKernels {
    void (*max_fwd)(const ShoalNchwcPoolRow *row, float *y, uint8_t *place);
    /* Sets a row of the gradient, or adds to it. */
    void (*max_bwd)(const ShoalNchwcPoolRow *row, bool accumulate, float *dx);
    void (*ave_fwd)(const ShoalNchwcPoolRow *row, float *y);
    void (*ave_bwd)(const ShoalNchwcPoolRow *row, bool accumulate, float *dx);
} ShoalNchwcPoolKernels;

/* Workspace of all of pooling's operations for an input of these dims. */
size_t shoal_nchwc_pool_workspace_bytes(const ShoalNchwc *engine, const ShoalNchwcDims *dims,
                                        unsigned threads);

#endif
