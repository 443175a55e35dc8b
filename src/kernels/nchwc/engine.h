/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHOAL_KERNELS_NCHWC_ENGINE_H
#define SHOAL_KERNELS_NCHWC_ENGINE_H

#include "kernels/nchwc.h"
#include "kernels/parts.h"

/* What kernels/nchwc/ needs of a level: a few routines over one vector of `lanes` numbers, made per
 * level from the *_tmpl.h of this folder. The drivers (conv.c, winograd.c, depthwise.c, pool.c,
 * elementwise.c) cut the work and call them; they hold no intrinsics. All routines run in the
 * calling thread, keep nothing and allocate nothing. Pointers to blocked pixels are aligned to a
 * vector. A "strip" is `pixels` neighbouring pixels of one channel block: pixels * lanes floats. */

/* The product that forward, backward-data and Winograd are made of: rows (output pixels, at most
 * tile_rows) by one or two vectors of output channels stay in registers while the sum runs over
 * segments of `length` neighbouring input numbers (the channels of a block, or the taps of a row of
 * an image):
 *   C(i,v) = start(i,v) + sum over s < segments, p < length, in this order, of
 *            a[at(s) + i * a_row + p] * b[(s * length + p) * vectors * lanes + v * lanes + lane]
 *   at(s) = offsets ? offsets[s] : s * a_segment
 *   start = accumulate ? C : init ? init[v * lanes + lane] : 0
 *   C(i,v) = c[i * c_row + v * c_col + lane]
 * each step one fused multiply-add. Units: floats. */
typedef struct ShoalNchwcTile {
    size_t rows, vectors, segments, length;
    const float *a;
    const ptrdiff_t *offsets;
    size_t a_segment, a_row;
    const float *b;
    float *c;
    size_t c_row, c_col;
    const float *init;
    bool accumulate;
} ShoalNchwcTile;

/* The product of the weight gradient: rows (input channels or taps, at most wtile_rows) by up to
 * wtile_vectors vectors of output channels, summed over pixels that lie in segments:
 *   D(i,v) += sum over s < segments, p < length, in this order, of
 *             a[a_at[s] + p * a_step + i] * b[b_at[s] + p * b_step + v * b_col + lane]
 *   D(i,v) = d[i * d_row + v * d_col + lane]
 * a_at, b_at NULL: s * a_segment, s * b_segment.
 * ahead (NULL: nothing): what is wanted next from memory is brought into L2 meanwhile, a vector's
 * worth of it for each pixel. */
typedef struct ShoalNchwcWtile {
    size_t rows, vectors, segments, length;
    const float *a;
    const ptrdiff_t *a_at;
    size_t a_segment, a_step;
    const float *b;
    const ptrdiff_t *b_at;
    size_t b_segment, b_step, b_col;
    float *d;
    size_t d_row, d_col;
    const float *ahead;
} ShoalNchwcWtile;

/* What is done with a strip of a finished gradient: ShoalNchwcGradient's steps 2 and 3, with the
 * pointers at the strip and the per-channel arrays at the block. The sums are added to. */
typedef struct ShoalNchwcFinish {
    float *g;
    const float *mask, *mask_scale, *mask_shift;
    int terms;
    const float *z[SHOAL_NCHWC_TERMS], *center[SHOAL_NCHWC_TERMS];
    float *sum_g; /* [lanes], or NULL */
    float *sum[SHOAL_NCHWC_TERMS];
} ShoalNchwcFinish;

/* nchwc/tile_tmpl.h */
typedef struct ShoalNchwcTileKernels {
    size_t rows;            /* largest of a tile */
    size_t wrows, wvectors; /* largest of a wtile */
    void (*tile)(const ShoalNchwcTile *tile);
    void (*wtile)(const ShoalNchwcWtile *tile);
} ShoalNchwcTileKernels;

/* A tensor of this size is out of every cache before it is read again: to write past the caches
 * saves reading the memory that is written. */
enum { SHOAL_NCHWC_FAR_BYTES = 1 << 25 };

/* nchwc/strip_tmpl.h */
typedef struct ShoalNchwcStripKernels {
    /* y = value of x (ShoalNchwcInput); y may be x. */
    void (*activate)(size_t pixels, const float *x, const float *scale, const float *shift,
                     bool relu, float *y);
    /* sum[l] = sum of (x - origin[l]), square[l] = sum of its squares, over the strip. */
    void (*moments)(size_t pixels, const float *x, const float *origin, float *sum, float *square);
    void (*finish)(size_t pixels, const ShoalNchwcFinish *finish);
    /* y = a + b, both through their functions; relu on the result. */
    void (*sum)(size_t pixels, const ShoalNchwcInput *a, const ShoalNchwcInput *b, bool relu,
                float *y);
    /* As sum, past the caches: y is apart from a and b and part of a tensor of at least
     * SHOAL_NCHWC_FAR_BYTES. */
    void (*sum_far)(size_t pixels, const ShoalNchwcInput *a, const ShoalNchwcInput *b, bool relu,
                    float *y);
    /* g += from */
    void (*add)(size_t pixels, const float *from, float *g);
    /* dz = a * g + b * z + c0; z, b may be NULL. */
    void (*affine)(size_t pixels, const float *g, const float *z, const float *a, const float *b,
                   const float *c0, float *dz);
    /* As affine, with dz as sum_far's y; and a copy like that. */
    void (*affine_far)(size_t pixels, const float *g, const float *z, const float *a,
                       const float *b, const float *c0, float *dz);
    void (*copy_far)(size_t pixels, const float *from, float *to);
    /* Between `channels` <= lanes rows of a plain plane, `plane` floats apart, and a strip; lanes
     * beyond `channels` become 0. */
    void (*block)(size_t pixels, size_t channels, const float *plain, size_t plane, float *strip);
    void (*unblock)(size_t pixels, size_t channels, const float *strip, float *plain, size_t plane);
} ShoalNchwcStripKernels;

typedef struct ShoalNchwc {
    size_t lanes;
    const ShoalNchwcTileKernels *tile;
    const ShoalNchwcStripKernels *strip;
    const struct ShoalNchwcPoolKernels *pool;           /* nchwc/pool.h, pool_tmpl.h */
    const struct ShoalNchwcDepthwiseKernels *depthwise; /* nchwc/depthwise.h, depthwise_tmpl.h */
    const struct ShoalNchwcWinogradKernels *winograd;   /* nchwc/winograd.h, winograd_tmpl.h */
} ShoalNchwc;

#endif
