/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHOAL_DATA_IMAGE_CODECS_H
#define SHOAL_DATA_IMAGE_CODECS_H

#include <stdbool.h>

#include "data/image.h"
#include "data/resize.h"

/* What image.c and the formats (image_jpeg.c, image_png.c) share. */

/* Memory that grows to what was needed most. */
typedef struct ShoalImageBuffer {
    uint8_t *bytes;
    size_t size;
} ShoalImageBuffer;

/* One holds an image while the next is made of it in the other. */
struct ShoalImageDecoder {
    ShoalImageBuffer buffers[2], scratch;
    void *jpeg; /* a tjhandle */
};

/* The head of a file, before anything is decoded. */
typedef struct ShoalImageHead {
    int height, width;
    int components;  /* of a JPEG: 1, 3 or 4 */
    int orientation; /* as EXIF counts: 1 (upright) to 8 */
} ShoalImageHead;

/* At least `size` bytes, or NULL and an error. What was in it is lost when it grows. */
void *shoal_image_buffer(ShoalImageBuffer *buffer, size_t size, ShoalError *err);
/* Room for pixels where those of `busy` (may be NULL) are not. */
uint8_t *shoal_image_room(ShoalImageDecoder *decoder, const uint8_t *busy, int channels, int height,
                          int width, ShoalError *err);

/* The orientation that EXIF data (a TIFF header and what follows) names; 1 when it does not. */
int shoal_image_orientation(const uint8_t *tiff, size_t size);
/* Fits an image of height x width into memory, and into what `size` bytes can hold? */
ShoalStatus shoal_image_check_size(uint64_t height, uint64_t width, size_t size, ShoalError *err);

bool shoal_image_is_jpeg(const uint8_t *bytes, size_t size);
bool shoal_image_is_png(const uint8_t *bytes, size_t size);

ShoalStatus shoal_image_jpeg_head(const uint8_t *bytes, size_t size, ShoalImageHead *out,
                                  ShoalError *err);
/* part: decodes at 1/part of the size (1, 2, 4, 8), rounded up. Not turned. */
ShoalStatus shoal_image_jpeg_decode(ShoalImageDecoder *decoder, const uint8_t *bytes, size_t size,
                                    const ShoalImageHead *head, ShoalImageMode mode, int part,
                                    ShoalImage *out, ShoalError *err);
void shoal_image_jpeg_close(ShoalImageDecoder *decoder);

/* orientation: of the file, as OpenCV reads it. Not turned. */
ShoalStatus shoal_image_png_decode(ShoalImageDecoder *decoder, const uint8_t *bytes, size_t size,
                                   ShoalImageMode mode, int *orientation, ShoalImage *out,
                                   ShoalError *err);

#endif
