/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHOAL_DATA_WINDOWS_H
#define SHOAL_DATA_WINDOWS_H

#include <stdint.h>

#include "caffe/caffe.pb-c.h"
#include "data/image.h"

/* Samples of a WindowData layer (R-CNN: Girshick et al. 2014), as Caffe's window_data_layer.cpp: a
 * window of an image is widened by what becomes context_pad pixels on each side (crop_mode square:
 * made square before), cut off where the image ends, resized so that all of it would be crop_size x
 * crop_size, and put at its place. What lies outside of the image is 0.
 *
 *   out[c][h + top][w + left] = (pixel[c][h][w] - mean) * scale
 *
 * The mean is that of mean_file in the middle, or mean_value. scale is window_data_param's, not
 * transform_param's, as in Caffe. The mirror is drawn as data/transform.h does. */
typedef struct ShoalWindows ShoalWindows;

enum { SHOAL_WINDOW_NUMBERS = 4 }; /* x1, y1, x2, y2: the corners, both inside */

/* layer: not kept. mean: the message in transform_param.mean_file, or NULL; copied. Errors:
 * SHOAL_ERR_MODEL, SHOAL_ERR_DATA (the mean), SHOAL_ERR_ARGUMENT (a mean_file that is not read),
 * SHOAL_ERR_MEMORY. */
ShoalStatus shoal_windows_create(const Caffe__LayerParameter *layer, uint64_t seed,
                                 const Caffe__BlobProto *mean, ShoalWindows **out, ShoalError *err);
/* NULL is fine. */
void shoal_windows_destroy(ShoalWindows *windows);

/* {3, crop_size, crop_size} */
void shoal_windows_shape(const ShoalWindows *windows, int dims[3]);

/* A window of an image (3 channels; in the decoder's memory) into out. Thread-safe for different
 * decoders. SHOAL_ERR_DATA (corners that make no window of the image), SHOAL_ERR_MEMORY. */
ShoalStatus shoal_windows_apply(const ShoalWindows *windows, ShoalImageDecoder *decoder,
                                const ShoalImage *image, const float corners[SHOAL_WINDOW_NUMBERS],
                                uint64_t sample, float *out, ShoalError *err);

#endif
