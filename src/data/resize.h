/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHOAL_DATA_RESIZE_H
#define SHOAL_DATA_RESIZE_H

#include <stddef.h>
#include <stdint.h>

/* Bytes of images to another size, bit by bit as cv::resize does it on x86-64 (OpenCV 4.6; its
 * arithmetic for 8-bit images: imgproc/src/resize.cpp):
 *   LINEAR   weights are multiples of 2^-11; rows are summed exactly, columns with two roundings.
 *            To exactly half of both sizes it is the mean of 2 x 2 pixels
 *   CUBIC    weights likewise (a = -0.75); columns in float, but for the last of the row (its
 * number of values modulo 8), which are summed exactly NEAREST  the pixel at floor(i * scale) */
typedef enum ShoalInterpolation {
    SHOAL_RESIZE_LINEAR,
    SHOAL_RESIZE_CUBIC,
    SHOAL_RESIZE_NEAREST
} ShoalInterpolation;

/* A rectangle of an image: [height][width][channels], rows `stride` bytes apart. */
typedef struct ShoalPixels {
    const uint8_t *at;
    size_t stride;
    int channels, height, width; /* each at least 1 */
} ShoalPixels;

/* Bytes of scratch memory for an output of this width. */
size_t shoal_resize_scratch(int channels, int width);

/* in to out[height][width][channels]; scratch: int-aligned, shoal_resize_scratch bytes. No
 * aliasing. Sizes from 1 to 2^26 values a row. */
void shoal_resize_u8(const ShoalPixels *in, ShoalInterpolation how, int height, int width,
                     void *scratch, uint8_t *out);

#endif
