/* SPDX-License-Identifier: Apache-2.0 */
#include "data/image.h"

#include <string.h>

#include "base/error.h"
#include "base/file.h"
#include "base/memory.h"
#include "data/image_codecs.h"

/* No image has more pixels than this for a byte of its file: deflate writes 1032 bytes for one, of
 * 8 pixels each. Small ones may. */
enum { PIXELS_PER_BYTE = 8192, PIXELS_SMALL = 1 << 20, SIDE_MAX = 1 << 16 };

/* ---- memory ---- */

ShoalImageDecoder *shoal_image_decoder_create(void) {
    return shoal_calloc(1, sizeof(ShoalImageDecoder));
}

void shoal_image_decoder_destroy(ShoalImageDecoder *decoder) {
    if (!decoder)
        return;
    shoal_image_jpeg_close(decoder);
    shoal_free(decoder->buffers[0].bytes);
    shoal_free(decoder->buffers[1].bytes);
    shoal_free(decoder->scratch.bytes);
    shoal_free(decoder);
}

void *shoal_image_buffer(ShoalImageBuffer *buffer, size_t size, ShoalError *err) {
    if (size > buffer->size) {
        uint8_t *larger = shoal_calloc(size, 1);
        if (!larger) {
            shoal_error_memory(err, "an image", size);
            return NULL;
        }
        shoal_free(buffer->bytes);
        *buffer = (ShoalImageBuffer){larger, size};
    }
    return buffer->bytes;
}

static bool holds(const ShoalImageBuffer *buffer, const uint8_t *at) {
    return at && buffer->bytes && (uintptr_t)at - (uintptr_t)buffer->bytes < buffer->size;
}

uint8_t *shoal_image_room(ShoalImageDecoder *decoder, const uint8_t *busy, int channels, int height,
                          int width, ShoalError *err) {
    ShoalImageBuffer *buffer = &decoder->buffers[holds(&decoder->buffers[0], busy) ? 1 : 0];
    return shoal_image_buffer(buffer, (size_t)channels * (size_t)height * (size_t)width, err);
}

ShoalStatus shoal_image_check_size(uint64_t height, uint64_t width, size_t size, ShoalError *err) {
    if (height < 1 || width < 1 || height > SHOAL_IMAGE_PIXELS_MAX ||
        width > SHOAL_IMAGE_PIXELS_MAX || height * width > SHOAL_IMAGE_PIXELS_MAX)
        return shoal_error_set(
            err, SHOAL_ERR_DATA, "an image of %llu x %llu pixels; expected 1 to %zu pixels",
            (unsigned long long)height, (unsigned long long)width, SHOAL_IMAGE_PIXELS_MAX);
    uint64_t pixels = height * width;
    if (pixels > PIXELS_SMALL && pixels / PIXELS_PER_BYTE > size)
        return shoal_error_set(err, SHOAL_ERR_DATA,
                               "an image of %llu x %llu pixels in %zu bytes: it is damaged or cut "
                               "short; replace or remove it",
                               (unsigned long long)height, (unsigned long long)width, size);
    return SHOAL_OK;
}

/* ---- orientation ---- */

static unsigned tiff_number(const uint8_t *p, int bytes, bool little) {
    unsigned value = 0;
    for (int i = 0; i < bytes; i++)
        value = value << 8 | p[little ? bytes - 1 - i : i];
    return value;
}

/* TIFF 6.0, section 2; the tag is EXIF's Orientation. */
int shoal_image_orientation(const uint8_t *tiff, size_t size) {
    enum { HEAD = 8, ENTRY = 12, ORIENTATION = 0x0112 };
    if (size < HEAD || tiff[0] != tiff[1] || (tiff[0] != 'I' && tiff[0] != 'M'))
        return 1;
    bool little = tiff[0] == 'I';
    size_t at = tiff_number(tiff + 4, 4, little);
    if (tiff_number(tiff + 2, 2, little) != 42 || at > size - 2)
        return 1;
    unsigned entries = tiff_number(tiff + at, 2, little);
    at += 2;
    for (unsigned i = 0; i < entries && size - at >= ENTRY; i++, at += ENTRY) {
        if (tiff_number(tiff + at, 2, little) != ORIENTATION)
            continue;
        unsigned value = tiff_number(tiff + at + 8, 2, little);
        return value >= 1 && value <= 8 ? (int)value : 1;
    }
    return 1;
}

/* Where row 0, column 0 of the picture is, by orientation: at the right, at the bottom, and are its
 * rows columns of the file? */
static const struct {
    bool right, bottom, swap;
} TURNS[9] = {{0},       {0, 0, 0}, {1, 0, 0}, {1, 1, 0}, {0, 1, 0},
              {0, 0, 1}, {0, 1, 1}, {1, 1, 1}, {1, 0, 1}};

static ShoalStatus turn(ShoalImageDecoder *decoder, int orientation, ShoalImage *image,
                        ShoalError *err) {
    if (orientation <= 1)
        return SHOAL_OK;
    bool right = TURNS[orientation].right, bottom = TURNS[orientation].bottom,
         swap = TURNS[orientation].swap;
    int height = swap ? image->width : image->height, width = swap ? image->height : image->width;
    size_t channels = (size_t)image->channels;
    uint8_t *out = shoal_image_room(decoder, image->pixels, image->channels, height, width, err);
    if (!out)
        return SHOAL_ERR_MEMORY;
    uint8_t *to = out;
    for (int y = 0; y < height; y++)
        for (int x = 0; x < width; x++, to += channels) {
            int row = swap ? x : y, column = swap ? y : x;
            row = bottom ? image->height - 1 - row : row;
            column = right ? image->width - 1 - column : column;
            memcpy(to,
                   image->pixels + ((size_t)row * (size_t)image->width + (size_t)column) * channels,
                   channels);
        }
    *image = (ShoalImage){image->channels, height, width, out};
    return SHOAL_OK;
}

/* ---- decoding ---- */

/* What else it may be, for the message. */
static const char *format_name(const uint8_t *bytes, size_t size) {
    static const struct {
        const char *magic;
        size_t n, at;
        const char *name;
    } FORMATS[] = {
        {"BM", 2, 0, "a BMP image"},          {"GIF8", 4, 0, "a GIF image"},
        {"WEBP", 4, 8, "a WebP image"},       {"II*\0", 4, 0, "a TIFF image"},
        {"MM\0*", 4, 0, "a TIFF image"},      {"ftypavif", 8, 4, "an AVIF image"},
        {"ftypheic", 8, 4, "a HEIC image"},   {"\0\0\0\x0cjP", 6, 0, "a JPEG 2000 image"},
        {"<?xml", 5, 0, "an XML text"},       {"<svg", 4, 0, "an SVG image"},
        {"<html", 5, 0, "a web page"},        {"<!DOCTYPE", 9, 0, "a web page"},
        {"P5", 2, 0, "a PNM image"},          {"P6", 2, 0, "a PNM image"},
        {"\xff\x0a", 2, 0, "a JPEG XL image"}};
    for (size_t i = 0; i < sizeof FORMATS / sizeof FORMATS[0]; i++)
        if (size >= FORMATS[i].at + FORMATS[i].n &&
            !memcmp(bytes + FORMATS[i].at, FORMATS[i].magic, FORMATS[i].n))
            return FORMATS[i].name;
    return "no image of a known format";
}

static ShoalStatus unknown_format(const uint8_t *bytes, size_t size, ShoalError *err) {
    if (!size)
        return shoal_error_set(err, SHOAL_ERR_DATA, "an empty file; expected a JPEG or PNG image");
    return shoal_error_set(err, SHOAL_ERR_UNSUPPORTED,
                           "%s; expected a JPEG or PNG image: convert it",
                           format_name(bytes, size));
}

/* The largest part (1/8, 1/4, 1/2) of a JPEG that is still as large as what is wanted. */
static int choose_part(const ShoalImageHead *head, int height, int width) {
    int part = 8;
    while (part > 1 && (head->height / part < height || head->width / part < width))
        part /= 2;
    return part;
}

ShoalStatus shoal_image_size(const void *bytes, size_t size, ShoalImageMode mode, int *height,
                             int *width, ShoalError *err) {
    if (!shoal_image_is_jpeg(bytes, size))
        return shoal_error_set(err, SHOAL_ERR_UNSUPPORTED, "no JPEG");
    ShoalImageHead head;
    ShoalStatus status = shoal_image_jpeg_head(bytes, size, &head, err);
    if (status)
        return status;
    bool swap = mode != SHOAL_IMAGE_AS_IS && TURNS[head.orientation].swap;
    *height = swap ? head.width : head.height;
    *width = swap ? head.height : head.width;
    return SHOAL_OK;
}

static ShoalStatus decode(ShoalImageDecoder *decoder, const uint8_t *bytes, size_t size,
                          ShoalImageMode mode, int height, int width, ShoalImage *out,
                          ShoalError *err) {
    ShoalImageHead head = {.orientation = 1};
    ShoalStatus status;
    if (shoal_image_is_jpeg(bytes, size)) {
        status = shoal_image_jpeg_head(bytes, size, &head, err);
        bool swap = mode != SHOAL_IMAGE_AS_IS && TURNS[head.orientation].swap;
        int part =
            height && width ? choose_part(&head, swap ? width : height, swap ? height : width) : 1;
        if (!status)
            status = shoal_image_jpeg_decode(decoder, bytes, size, &head, mode, part, out, err);
    } else if (shoal_image_is_png(bytes, size)) {
        status = shoal_image_png_decode(decoder, bytes, size, mode, &head.orientation, out, err);
    } else {
        status = unknown_format(bytes, size, err);
    }
    if (!status && mode != SHOAL_IMAGE_AS_IS)
        status = turn(decoder, head.orientation, out, err);
    return status;
}

ShoalStatus shoal_image_decode(ShoalImageDecoder *decoder, const void *bytes, size_t size,
                               ShoalImageMode mode, ShoalImage *out, ShoalError *err) {
    return decode(decoder, bytes, size, mode, 0, 0, out, err);
}

ShoalStatus shoal_image_decode_smaller(ShoalImageDecoder *decoder, const void *bytes, size_t size,
                                       ShoalImageMode mode, int height, int width, ShoalImage *out,
                                       ShoalError *err) {
    return decode(decoder, bytes, size, mode, height, width, out, err);
}

/* ---- what is done with pixels ---- */

ShoalStatus shoal_image_resize_part(ShoalImageDecoder *decoder, const ShoalImage *image,
                                    const ShoalImagePart *part, ShoalInterpolation how, int height,
                                    int width, ShoalImage *out, ShoalError *err) {
    if (height < 1 || width < 1 || (uint64_t)height * (uint64_t)width > SHOAL_IMAGE_PIXELS_MAX)
        return shoal_error_set(err, SHOAL_ERR_DATA,
                               "an image resized to %d x %d pixels; expected 1 to %zu pixels",
                               height, width, SHOAL_IMAGE_PIXELS_MAX);
    size_t row = (size_t)image->width * (size_t)image->channels;
    ShoalPixels in = {image->pixels + (size_t)part->top * row +
                          (size_t)part->left * (size_t)image->channels,
                      row, image->channels, part->height, part->width};
    void *scratch =
        shoal_image_buffer(&decoder->scratch, shoal_resize_scratch(image->channels, width), err);
    uint8_t *pixels =
        scratch ? shoal_image_room(decoder, image->pixels, image->channels, height, width, err)
                : NULL;
    if (!pixels)
        return SHOAL_ERR_MEMORY;
    shoal_resize_u8(&in, how, height, width, scratch, pixels);
    *out = (ShoalImage){image->channels, height, width, pixels};
    return SHOAL_OK;
}

ShoalStatus shoal_image_resize(ShoalImageDecoder *decoder, const ShoalImage *image, int height,
                               int width, ShoalImage *out, ShoalError *err) {
    ShoalImagePart all = {0, 0, image->height, image->width};
    return shoal_image_resize_part(decoder, image, &all, SHOAL_RESIZE_LINEAR, height, width, out,
                                   err);
}

void shoal_image_planes(const ShoalImage *image, uint8_t *out) {
    size_t n = (size_t)image->height * (size_t)image->width, channels = (size_t)image->channels;
    const uint8_t *restrict in = image->pixels;
    if (channels == 1) {
        memcpy(out, in, n);
    } else if (channels == 3) {
        uint8_t *restrict b = out, *restrict g = out + n, *restrict r = out + 2 * n;
        for (size_t i = 0; i < n; i++) {
            b[i] = in[3 * i];
            g[i] = in[3 * i + 1];
            r[i] = in[3 * i + 2];
        }
    } else {
        for (size_t i = 0; i < n; i++)
            for (size_t c = 0; c < channels; c++)
                out[c * n + i] = in[i * channels + c];
    }
}

ShoalStatus shoal_image_from_planes(ShoalImageDecoder *decoder, const uint8_t *planes, int channels,
                                    int height, int width, ShoalImage *out, ShoalError *err) {
    size_t n = (size_t)height * (size_t)width, step = (size_t)channels;
    uint8_t *pixels = shoal_image_room(decoder, NULL, channels, height, width, err);
    if (!pixels)
        return SHOAL_ERR_MEMORY;
    for (size_t c = 0; c < step; c++)
        for (size_t i = 0; i < n; i++)
            pixels[i * step + c] = planes[c * n + i];
    *out = (ShoalImage){channels, height, width, pixels};
    return SHOAL_OK;
}

/* ---- files ---- */

ShoalStatus shoal_image_read_file(const char *path, void **bytes, size_t *size, ShoalError *err) {
    unsigned char *found = NULL;
    size_t n = 0;
    ShoalStatus status = shoal_file_read(path, &found, &n, err);
    if (status)
        return status;
    if (n == 0)
        status = shoal_error_set(err, SHOAL_ERR_DATA,
                                 "%s: the file is empty; expected a JPEG or PNG image", path);
    else if (n > SHOAL_IMAGE_BYTES_MAX)
        status =
            shoal_error_set(err, SHOAL_ERR_DATA, "%s: %zu bytes; expected an image of at most %zu",
                            path, n, SHOAL_IMAGE_BYTES_MAX);
    if (status) {
        shoal_free(found);
        return status;
    }
    *bytes = found;
    *size = n;
    return SHOAL_OK;
}

ShoalStatus shoal_image_load(ShoalImageDecoder *decoder, const char *path, ShoalImageMode mode,
                             int height, int width, ShoalImage *out, ShoalError *err) {
    void *bytes = NULL;
    size_t size = 0;
    ShoalStatus status = shoal_image_read_file(path, &bytes, &size, err);
    if (status)
        return status;
    ShoalImage image;
    status = shoal_image_decode(decoder, bytes, size, mode, &image, err);
    if (!status && height && width)
        status = shoal_image_resize(decoder, &image, height, width, &image, err);
    shoal_free(bytes);
    if (status)
        shoal_error_prefix(err, "%s", path);
    else
        *out = image;
    return status;
}
