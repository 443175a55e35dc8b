/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHOAL_KERNELS_NCHWC_CONV_H
#define SHOAL_KERNELS_NCHWC_CONV_H

#include "base/memory.h"
#include "kernels/nchwc/engine.h"

/* What the direct convolutions on channel-blocked tensors share.
 *
 * Forward and backward-data are one operation, a gather: every output pixel is a sum over taps of
 * input pixels times a matrix of weights. Backward-data with a stride falls into phases: the pixels
 * whose row and column leave the same rests when divided by the stride take the same taps, and
 * among themselves they are an ordinary gather with stride 1. */

/* One direction of a phase: its output i < count is at first + i * step and reads, by tap t < taps,
 * the input at i * in_step + at_first + t * at_step; the tap is number tap_first + t * tap_step of
 * the kernel. */
typedef struct ShoalNchwcAxis {
    ptrdiff_t first, step, count;
    ptrdiff_t taps, tap_first, tap_step;
    ptrdiff_t in_step, at_first, at_step;
} ShoalNchwcAxis;

/* The phase 0 <= phase < stride of a direction; forward has only phase 0. */
ShoalNchwcAxis shoal_nchwc_axis_fwd(const ShoalConvShape *shape, bool vertical);
ShoalNchwcAxis shoal_nchwc_axis_bwd(const ShoalConvShape *shape, bool vertical, ptrdiff_t phase);

/* How one direction of the input is seen: from `low` (relative to the input of output 0) on every
 * skip-th pixel, `size` of them for all outputs. Taps are whole numbers of seen pixels apart. skip
 * is 1 unless there is a single tap: what a stride leaps over is then never seen. */
typedef struct ShoalNchwcReach {
    ptrdiff_t low, skip, size;
    bool inside; /* nothing out of the input is seen */
} ShoalNchwcReach;

/* Makes room in `reach` (zeroed before the first) for a phase; `input` is the input's size. */
void shoal_nchwc_reach_add(ShoalNchwcReach *reach, const ShoalNchwcAxis *axis, ptrdiff_t input);

/* The part of an input that a piece of work reads: blocks x images x rows x columns of pixels of
 * `lanes` numbers (1: plain NCHW). It is either the tensor itself or a copy, in a buffer that stays
 * in the cache, of its values with a border of zeros. */
typedef struct ShoalNchwcPanel {
    const ShoalNchwc *engine;
    bool in_place;
    size_t lanes, height, width, tensor_blocks;
    ShoalNchwcReach h, w;
    size_t row, col, image, block; /* distances between neighbours in floats */
} ShoalNchwcPanel;

/* Where a panel is to be: blocks [block, block + blocks) of images [image, image + images), `rows`
 * seen rows from input row `top` on. */
typedef struct ShoalNchwcWindow {
    size_t image, images, block, blocks, rows;
    ptrdiff_t top;
} ShoalNchwcWindow;

/* Whether the tensor can be read where it is; h and w are known. Pixels that lie apart are better
 * brought together once. */
static inline bool shoal_nchwc_panel_in_place(const ShoalNchwcPanel *panel, bool function) {
    return !function && panel->h.inside && panel->w.inside && panel->h.skip == 1 &&
           panel->w.skip == 1;
}

/* Distances for windows of at most so many images and rows. */
void shoal_nchwc_panel_layout(ShoalNchwcPanel *panel, size_t images, size_t rows);
/* The window's first pixel: in the tensor, or in `buffer`, which is filled. */
const float *shoal_nchwc_panel_open(const ShoalNchwcPanel *panel, const ShoalNchwcInput *x,
                                    const ShoalNchwcWindow *window, float *buffer);

/* Arrays one behind the other in a workspace; base NULL only counts. `used` sticks at SIZE_MAX. */
typedef struct ShoalNchwcSpace {
    unsigned char *base;
    size_t used;
} ShoalNchwcSpace;

void *shoal_nchwc_take(ShoalNchwcSpace *space, size_t count, size_t size);

static inline size_t shoal_nchwc_times(size_t a, size_t b) {
    size_t out;
    return shoal_size_mul(a, b, &out) ? out : SIZE_MAX;
}

/* What an input panel may take of the cache that a core has for itself: 512 KiB for the vectors of
 * 16 lanes of desktop machines, less with the machines that have shorter ones. */
static inline size_t shoal_nchwc_panel_bytes(size_t lanes) {
    return lanes * ((size_t)32 << 10);
}

/* Packed weights of two vectors of outputs that stay in L1 while tiles of pixels pass. */
static inline size_t shoal_nchwc_weight_bytes(size_t lanes) {
    return lanes * ((size_t)3 << 9);
}

/* tile->a and c are at the first of `pixels` outputs of a row, or of several rows that are
 * neighbours on both sides: runs over them; tile is used up. */
void shoal_nchwc_run_pixels(const ShoalNchwcTileKernels *kernels, ShoalNchwcTile *tile,
                            size_t pixels);
/* tile->a and d are at the first of `count` rows of a weight gradient: runs over them. */
void shoal_nchwc_run_rows(const ShoalNchwcTileKernels *kernels, const ShoalNchwcWtile *tile,
                          size_t count);

/* Sums for some rows of dw, for a vector of outputs: `slices` arrays, `apart` floats from each
 * other, of `rows` rows, `row` floats from each other, that have a number for each output. The sums
 * of all slices are added, in order, to dw, where the numbers of an output are neighbours and
 * outputs lie `dw_step` apart. */
typedef struct ShoalNchwcSums {
    const float *sums;
    size_t row, slices, apart, rows, outputs;
    float *dw;
    size_t dw_step;
} ShoalNchwcSums;

void shoal_nchwc_add_sums(const ShoalKernels *kernels, const ShoalNchwcSums *sums);

/* Pixels of dy that a weight gradient's products run over at a time, at most unless a row has more:
 * three vectors of dy and a block of x, which take 42 KiB with 16 lanes, are to stay in L1. */
enum { SHOAL_NCHWC_PIECE_PIXELS = 168 };

/* Work is cut in at least this many items where that costs little, whatever the number of threads,
 * so that eight threads have enough. */
enum { SHOAL_NCHWC_ITEMS = 16 };

/* The direct way, with the arguments of the functions of nchwc.h; the bytes of each. */
size_t shoal_nchwc_direct_fwd_bytes(const ShoalNchwc *engine, const ShoalNchwcConv *conv,
                                    unsigned threads);
size_t shoal_nchwc_direct_bwd_data_bytes(const ShoalNchwc *engine, const ShoalNchwcConv *conv,
                                         unsigned threads);
size_t shoal_nchwc_direct_bwd_weights_bytes(const ShoalNchwc *engine, const ShoalNchwcConv *conv,
                                            unsigned threads);
void shoal_nchwc_direct_fwd(const ShoalCompute *compute, const ShoalNchwcConv *conv,
                            const ShoalNchwcInput *x, const float *w, const float *bias, float *y,
                            const ShoalNchwcStats *stats);
void shoal_nchwc_direct_bwd_data(const ShoalCompute *compute, const ShoalNchwcConv *conv,
                                 const float *dy, const float *w, const ShoalNchwcGradient *dx);
void shoal_nchwc_direct_bwd_weights(const ShoalCompute *compute, const ShoalNchwcConv *conv,
                                    const ShoalNchwcInput *x, const float *dy, float *dw);

/* Both at once, for kernels of one pixel where dw is small enough (conv_bwd_pointwise.c), with the
 * arguments of shoal_nchwc_conv_bwd. */
bool shoal_nchwc_pointwise_bwd_applies(const ShoalNchwc *engine, const ShoalNchwcConv *conv);
size_t shoal_nchwc_pointwise_bwd_bytes(const ShoalNchwc *engine, const ShoalNchwcConv *conv,
                                       unsigned threads);
void shoal_nchwc_pointwise_bwd(const ShoalCompute *compute, const ShoalNchwcConv *conv,
                               const ShoalNchwcInput *x, const ShoalNchwcOutGradient *dy,
                               const float *w, float *dw, float *db, const ShoalNchwcGradient *dx);

#endif
