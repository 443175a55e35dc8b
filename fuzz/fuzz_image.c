/* SPDX-License-Identifier: Apache-2.0 */
/* libFuzzer target: bytes as an image file, decoded in every way, resized, and as a window. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "data/image.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

/* Reads each pixel: the sanitizer sees those that are not there. */
static void look(const ShoalImage *image) {
    size_t n = (size_t)image->channels * (size_t)image->height * (size_t)image->width;
    uint8_t *copy = malloc(n);
    if (copy)
        memcpy(copy, image->pixels, n);
    free(copy);
}

static void use(ShoalImageDecoder *decoder, ShoalImage image) {
    ShoalError err = {0};
    look(&image);
    if (shoal_image_resize(decoder, &image, 5, 7, &image, &err))
        abort();
    ShoalImagePart part = {1, 2, 3, 4};
    if (shoal_image_resize_part(decoder, &image, &part, SHOAL_RESIZE_CUBIC, 6, 3, &image, &err))
        abort();
    look(&image);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size) {
    static ShoalImageDecoder *decoder;
    if (!decoder)
        decoder = shoal_image_decoder_create();
    int height, width;
    ShoalError no_jpeg = {0};
    /* Large ones only take time. */
    if (!decoder || (!shoal_image_size(bytes, size, SHOAL_IMAGE_AS_IS, &height, &width, &no_jpeg) &&
                     (int64_t)height * width > 1 << 18))
        return 0;
    for (int mode = 0; mode < 3; mode++) {
        ShoalError err = {0};
        ShoalImage image;
        if (!shoal_image_decode(decoder, bytes, size, (ShoalImageMode)mode, &image, &err))
            use(decoder, image);
        err = (ShoalError){0};
        if (!shoal_image_decode_smaller(decoder, bytes, size, (ShoalImageMode)mode, 4, 3, &image,
                                        &err))
            use(decoder, image);
    }
    return 0;
}
