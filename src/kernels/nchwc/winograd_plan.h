/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHOAL_KERNELS_NCHWC_WINOGRAD_PLAN_H
#define SHOAL_KERNELS_NCHWC_WINOGRAD_PLAN_H

#include "kernels/nchwc/merge.h"
#include "kernels/nchwc/winograd.h"

/* What the three Winograd passes share.
 *
 * Work is cut into rows of tiles: row r of the batch is row r % tiles_h of image r / tiles_h. Each
 * pass has two orders of work; the shape alone decides. In one (by_chunks), a task has a chunk of
 * rows, whose tiles stay in the thread's cache from the first transform to the last. In the other,
 * the tiles of a round of rows are transformed into the workspace, and a task has some of the
 * channels for all of them: for U that is too large to stream by for each chunk, and for so few
 * rows that there would be too few chunks. */

/* A pass as a convolution of `channels` to `outputs`; backward-data has the roles exchanged. */
typedef struct ShoalWinogradPlan {
    const ShoalNchwc *engine;
    size_t lanes, batch, channels, outputs; /* channels of what is read */
    size_t in_blocks, out_blocks;
    ptrdiff_t height, width, out_height, out_width, pad_h, pad_w;
    size_t tiles_h, tiles_w, rows;
    bool by_chunks;
    size_t chunk_rows; /* of a chunk or a round */
} ShoalWinogradPlan;

/* V, M or the transformed gradient of some rows of tiles: frequency f, block b, row r, tile t is at
 * at + f * step + (b * tiles + (r - first) * tiles_w + t) * lanes. */
typedef struct ShoalWinogradPanel {
    float *at;
    size_t step, tiles, first;
} ShoalWinogradPanel;

/* A tensor that is transformed into a panel. */
typedef struct ShoalWinogradSource {
    const ShoalNchwcInput *x;
    size_t blocks;
    ptrdiff_t height, width, pad_h, pad_w;
    void (*transform)(const ShoalNchwcWinogradRead *read);
} ShoalWinogradSource;

typedef struct ShoalWinogradRange {
    size_t from, to;
} ShoalWinogradRange;

/* Part `index` of [0, whole) cut into `parts` that differ by at most 1. */
static inline ShoalWinogradRange shoal_winograd_cut(size_t whole, size_t parts, size_t index) {
    return (ShoalWinogradRange){whole * index / parts, whole * (index + 1) / parts};
}

/* The rows of a chunk or round. */
static inline ShoalWinogradRange shoal_winograd_rows(const ShoalWinogradPlan *plan, size_t index) {
    size_t from = index * plan->chunk_rows;
    return (ShoalWinogradRange){from, shoal_size_min(plan->rows, from + plan->chunk_rows)};
}

/* Geometry without the order of work. */
ShoalWinogradPlan shoal_winograd_plan(const ShoalNchwc *engine, const ShoalNchwcConv *conv,
                                      bool backward_data);

/* Floats between the frequencies of a panel. A vector more than needed: at a power of two the 36
 * vectors of a tile would all fall into the same few sets of the cache. */
size_t shoal_winograd_step(size_t blocks, size_t tiles, size_t lanes);
/* `bytes` plus count * floats numbers, rounded up to SHOAL_ALIGN; SIZE_MAX when it does not fit,
 * and from then on. */
size_t shoal_winograd_add(size_t bytes, size_t count, size_t floats);

/* The panel of rows [first, first + rows) in storage that was made with shoal_winograd_step. */
ShoalWinogradPanel shoal_winograd_panel(const ShoalWinogradPlan *plan, float *at, size_t blocks,
                                        ShoalWinogradRange rows);

/* Transforms some blocks of some rows into the panel. */
void shoal_winograd_read(const ShoalWinogradPlan *plan, const ShoalWinogradSource *source,
                         const ShoalWinogradPanel *panel, ShoalWinogradRange rows,
                         ShoalWinogradRange blocks);

/* The same for all blocks of many rows, in parallel. */
void shoal_winograd_read_all(const ShoalCompute *compute, const ShoalWinogradPlan *plan,
                             const ShoalWinogradSource *source, const ShoalWinogradPanel *panel,
                             ShoalWinogradRange rows);

/* Workspace of a planned pass. */
size_t shoal_winograd_data_bytes(const ShoalWinogradPlan *plan, unsigned threads);
size_t shoal_winograd_weights_bytes(const ShoalWinogradPlan *plan, unsigned threads);

/* Choose the order of work: for forward and backward-data; for backward-weights. */
void shoal_winograd_plan_data(ShoalWinogradPlan *plan);
void shoal_winograd_plan_weights(ShoalWinogradPlan *plan);

#endif
