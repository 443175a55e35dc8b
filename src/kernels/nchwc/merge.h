/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHOAL_KERNELS_NCHWC_MERGE_H
#define SHOAL_KERNELS_NCHWC_MERGE_H

#include "kernels/nchwc/engine.h"

/* Sums over batch and pixels that are made in parts: every part sums in float32 over a bounded
 * number of pixels (about 512), whoever has the pixels in the cache; then the parts are merged in
 * double, in their order. The cut is made of shapes alone, so the bits do not depend on who did
 * which part. */

/* How pixels are cut: each of `images` runs of `pixels` pixels into strips of `strip` (the last may
 * be shorter). Part = image * ceil(pixels / strip) + strip's number. Small images that share a part
 * are one image of all their pixels here. */
typedef struct ShoalNchwcParts {
    size_t images, pixels, strip;
} ShoalNchwcParts;

/* At most this many pixels should go into one float32 sum. */
enum { SHOAL_NCHWC_PART_PIXELS = 512, SHOAL_NCHWC_LANES_MAX = 16 };

static inline size_t shoal_nchwc_parts_per_image(const ShoalNchwcParts *parts) {
    return (parts->pixels + parts->strip - 1) / parts->strip;
}

static inline size_t shoal_nchwc_parts_count(const ShoalNchwcParts *parts) {
    return parts->images * shoal_nchwc_parts_per_image(parts);
}

/* Statistics: partials [blocks][parts][3][lanes], for each part an origin (the part's first pixel),
 * sum, and square as ShoalNchwcStripKernels' moments gives them. */
enum { SHOAL_NCHWC_STATS_ROWS = 3 };

/* Sums of a finish: partials [blocks][parts][1 + terms][lanes], sum_g first. */
static inline size_t shoal_nchwc_sums_rows(const ShoalNchwcGradient *gradient) {
    return gradient->finish && gradient->sum_g ? 1 + (size_t)gradient->terms : 0;
}

/* Bytes of partials with `rows` rows (1 + SHOAL_NCHWC_TERMS covers both kinds); SIZE_MAX when it
 * does not fit. */
size_t shoal_nchwc_partials_bytes(const ShoalNchwcParts *parts, size_t blocks, size_t lanes,
                                  size_t rows);

static inline float *shoal_nchwc_partial(const ShoalNchwcParts *parts, size_t lanes, size_t rows,
                                         float *partials, size_t block, size_t part) {
    return partials + (block * shoal_nchwc_parts_count(parts) + part) * rows * lanes;
}

/* Statistics of one part that lies in one strip: fills `partial` [3][lanes]. */
void shoal_nchwc_part_stats(const ShoalNchwc *engine, size_t pixels, const float *x,
                            float *partial);

/* The finish of a strip: `at` is the strip's offset in the tensor in floats, `channel` the block's
 * first channel, `partial` [1 + terms][lanes] (added to: the caller zeroes it; NULL when there are
 * no sums). For a gradient with finish set. */
ShoalNchwcFinish shoal_nchwc_finish_at(const ShoalNchwcGradient *gradient, size_t lanes, size_t at,
                                       size_t channel, float *partial);

/* Merges partials of all blocks, in parallel over blocks. */
void shoal_nchwc_merge_stats(const ShoalCompute *compute, const ShoalNchwcParts *parts,
                             size_t blocks, const float *partials, const ShoalNchwcStats *stats);
/* Sets gradient->sum_g and the terms' sums; nothing when there are none. */
void shoal_nchwc_merge_sums(const ShoalCompute *compute, const ShoalNchwcParts *parts,
                            size_t blocks, const float *partials,
                            const ShoalNchwcGradient *gradient);

#endif
