/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHOAL_DATA_IMAGE_H
#define SHOAL_DATA_IMAGE_H

#include <stddef.h>
#include <stdint.h>

#include "data/resize.h"
#include "shoal/status.h"

/* JPEG and PNG images to pixels, the same as Caffe gets from OpenCV (cv::imdecode, cv::resize with
 * INTER_LINEAR), bit by bit where the libjpeg is libjpeg-turbo, and back. */

/* Pixels, row by row, channels together: [height][width][channels]; 1 channel (grey), 3 (B, G, R)
 * or 4 (B, G, R, A). */
typedef struct ShoalImage {
    int channels, height, width; /* each at least 1 */
    const uint8_t *pixels;
} ShoalImage;

typedef enum ShoalImageMode {
    SHOAL_IMAGE_AS_IS, /* as the file has it: grey, colour or colour with alpha; never turned.
                          cv::IMREAD_UNCHANGED: records that a Data layer decodes */
    SHOAL_IMAGE_COLOR, /* 3 channels, turned as the EXIF orientation says. cv::IMREAD_COLOR */
    SHOAL_IMAGE_GRAY   /* 1 channel, turned as well. cv::IMREAD_GRAYSCALE */
} ShoalImageMode;

/* Larger images are refused before memory is taken for their pixels. */
#define SHOAL_IMAGE_PIXELS_MAX ((size_t)1 << 26)

/* And larger files, before they are read. */
#define SHOAL_IMAGE_BYTES_MAX ((size_t)1 << 28)

/* The memory that images are decoded and resized in; reused. One thread at a time. */
typedef struct ShoalImageDecoder ShoalImageDecoder;

/* NULL when memory is short. */
ShoalImageDecoder *shoal_image_decoder_create(void);
/* NULL is fine. */
void shoal_image_decoder_destroy(ShoalImageDecoder *decoder);

/* Decodes a whole JPEG or PNG file in memory. out->pixels belong to the decoder, and are valid
 * until its next call or its end. Messages do not say which image: the caller's part
 * (shoal_error_prefix). Errors: SHOAL_ERR_DATA (damaged, cut short, too large, 16 bits a channel
 * AS_IS), SHOAL_ERR_UNSUPPORTED (another format; names it), SHOAL_ERR_MEMORY. */
ShoalStatus shoal_image_decode(ShoalImageDecoder *decoder, const void *bytes, size_t size,
                               ShoalImageMode mode, ShoalImage *out, ShoalError *err);

/* The same, quicker: where the image is a JPEG of at least twice (4, 8 times) height x width, it is
 * decoded at a half (quarter, eighth) of its size, though not below height x width. Other pixels
 * than those of shoal_image_decode and a resize. */
ShoalStatus shoal_image_decode_smaller(ShoalImageDecoder *decoder, const void *bytes, size_t size,
                                       ShoalImageMode mode, int height, int width, ShoalImage *out,
                                       ShoalError *err);

/* Bilinear to height x width, as cv::resize. The image may be the decoder's own, and may be *out.
 * Errors: SHOAL_ERR_DATA (a size below 1 or too large), SHOAL_ERR_MEMORY. */
ShoalStatus shoal_image_resize(ShoalImageDecoder *decoder, const ShoalImage *image, int height,
                               int width, ShoalImage *out, ShoalError *err);

/* A rectangle of an image. */
typedef struct ShoalImagePart {
    int top, left, height, width; /* inside the image */
} ShoalImagePart;

/* The same for a part of the image, and other ways than bilinear (data/resize.h). */
ShoalStatus shoal_image_resize_part(ShoalImageDecoder *decoder, const ShoalImage *image,
                                    const ShoalImagePart *part, ShoalInterpolation how, int height,
                                    int width, ShoalImage *out, ShoalError *err);

/* Of a JPEG: the size that it will have when it is decoded. Errors: SHOAL_ERR_DATA,
 * SHOAL_ERR_UNSUPPORTED (no JPEG). */
ShoalStatus shoal_image_size(const void *bytes, size_t size, ShoalImageMode mode, int *height,
                             int *width, ShoalError *err);

/* What Caffe's ReadImageToCVMat does with a file: reads, decodes, and resizes when height and width
 * are not 0. Messages begin with the path. Errors: as above, and SHOAL_ERR_IO. */
ShoalStatus shoal_image_load(ShoalImageDecoder *decoder, const char *path, ShoalImageMode mode,
                             int height, int width, ShoalImage *out, ShoalError *err);

/* Puts the pixels into out[channels][height][width], the order of a Datum. */
void shoal_image_planes(const ShoalImage *image, uint8_t *out);

/* The other way: planes to an image in the decoder's memory. SHOAL_ERR_MEMORY. */
ShoalStatus shoal_image_from_planes(ShoalImageDecoder *decoder, const uint8_t *planes, int channels,
                                    int height, int width, ShoalImage *out, ShoalError *err);

/* A file's bytes. *bytes is shoal_calloc storage of the caller. Errors: SHOAL_ERR_IO,
 * SHOAL_ERR_DATA (empty, or larger than a message may be), SHOAL_ERR_MEMORY; messages begin with
 * the path. */
ShoalStatus shoal_image_read_file(const char *path, void **bytes, size_t *size, ShoalError *err);

/* A JPEG as OpenCV writes it (95 is its quality; 4:2:0) or a PNG, lossless, of an image with 1, 3
 * or (PNG) 4 channels. *bytes is shoal_calloc storage of the caller. Errors: SHOAL_ERR_ARGUMENT
 * (another number of channels, a quality outside 1..100), SHOAL_ERR_DATA (too large),
 * SHOAL_ERR_MEMORY. */
ShoalStatus shoal_image_encode_jpeg(const ShoalImage *image, int quality, void **bytes,
                                    size_t *size, ShoalError *err);
ShoalStatus shoal_image_encode_png(const ShoalImage *image, void **bytes, size_t *size,
                                   ShoalError *err);

#endif
