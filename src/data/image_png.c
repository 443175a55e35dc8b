/* SPDX-License-Identifier: Apache-2.0 */
#include <png.h>
#include <setjmp.h>
#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "base/memory.h"
#include "data/image_codecs.h"

enum { SIGNATURE_BYTES = 8, CHUNK_BYTES_MAX = 1 << 20 };

/* One file that is read or written, and what libpng's callbacks need. */
typedef struct Png {
    png_structp png;
    png_infop info;
    const uint8_t *bytes; /* reading */
    size_t size, at;
    uint8_t *out; /* writing: at bytes of room size */
    char message[128];
    bool out_of_memory;
} Png;

bool shoal_image_is_png(const uint8_t *bytes, size_t size) {
    return size >= SIGNATURE_BYTES && !png_sig_cmp(bytes, 0, SIGNATURE_BYTES);
}

static void fail(png_structp png, png_const_charp message) {
    Png *file = png_get_error_ptr(png);
    snprintf(file->message, sizeof file->message, "%s", message);
    longjmp(png_jmpbuf(png), 1);
}

static void ignore(png_structp png, png_const_charp message) {
    (void)png;
    (void)message;
}

static ShoalStatus damaged(const Png *file, ShoalError *err) {
    if (file->out_of_memory)
        return shoal_error_memory(err, "a PNG", file->size);
    return shoal_error_set(err, SHOAL_ERR_DATA, "a damaged PNG (%s); replace or remove the image",
                           file->message);
}

/* ---- reading ---- */

static void read_bytes(png_structp png, png_bytep to, size_t n) {
    Png *file = png_get_io_ptr(png);
    if (n > file->size - file->at)
        png_error(png, "it is cut short");
    memcpy(to, file->bytes + file->at, n);
    file->at += n;
}

static bool open_reader(Png *file) {
    file->png = png_create_read_struct(PNG_LIBPNG_VER_STRING, file, fail, ignore);
    file->info = file->png ? png_create_info_struct(file->png) : NULL;
    if (!file->info)
        return false;
    png_set_read_fn(file->png, file, read_bytes);
    png_set_chunk_malloc_max(file->png, CHUNK_BYTES_MAX);
    return true;
}

static bool read_head(Png *file) {
    if (setjmp(png_jmpbuf(file->png)))
        return false;
    png_read_info(file->png, file->info);
    return true;
}

/* The channels of the file as cv::IMREAD_UNCHANGED has them (imgcodecs/src/grfmt_png.cpp): a grey
 * one with a transparent shade stays grey. */
static int own_channels(const Png *file) {
    int type = png_get_color_type(file->png, file->info), shades = 0;
    if (type & PNG_COLOR_MASK_ALPHA)
        return 4;
    if (!(type & PNG_COLOR_MASK_COLOR))
        return 1;
    png_get_tRNS(file->png, file->info, NULL, &shades, NULL);
    return shades > 0 ? 4 : 3;
}

/* libpng's steps on the way from the file's pixels to those wanted. */
static bool prepare(Png *file, int channels, int *passes) {
    if (setjmp(png_jmpbuf(file->png)))
        return false;
    png_structp png = file->png;
    int type = png_get_color_type(png, file->info);
    bool coloured = type & PNG_COLOR_MASK_COLOR;
    if (png_get_bit_depth(png, file->info) == 16)
        png_set_strip_16(png);
    if (channels < 4)
        png_set_strip_alpha(png);
    else
        png_set_tRNS_to_alpha(png);
    if (type == PNG_COLOR_TYPE_PALETTE)
        png_set_palette_to_rgb(png);
    if (!coloured && png_get_bit_depth(png, file->info) < 8)
        png_set_expand_gray_1_2_4_to_8(png);
    if (coloured && channels > 1)
        png_set_bgr(png);
    else if (channels > 1)
        png_set_gray_to_rgb(png);
    else
        png_set_rgb_to_gray(png, PNG_ERROR_ACTION_NONE, 0.299, 0.587);
    *passes = png_set_interlace_handling(png);
    png_read_update_info(png, file->info);
    return true;
}

static bool read_rows(Png *file, uint8_t *pixels, size_t row, int height, int passes) {
    if (setjmp(png_jmpbuf(file->png)))
        return false;
    for (int pass = 0; pass < passes; pass++)
        for (int y = 0; y < height; y++)
            png_read_row(file->png, pixels + (size_t)y * row, NULL);
    png_read_end(file->png, file->info);
    return true;
}

static int read_orientation(const Png *file) {
    png_bytep exif = NULL;
    png_uint_32 size = 0;
    if (!png_get_eXIf_1(file->png, file->info, &size, &exif) || !exif)
        return 1;
    return shoal_image_orientation(exif, size);
}

static ShoalStatus decode(Png *file, ShoalImageDecoder *decoder, ShoalImageMode mode,
                          int *orientation, ShoalImage *out, ShoalError *err) {
    if (!open_reader(file))
        return shoal_error_memory(err, "a PNG decoder", 0);
    if (!read_head(file))
        return damaged(file, err);
    uint32_t height = png_get_image_height(file->png, file->info),
             width = png_get_image_width(file->png, file->info);
    ShoalStatus status = shoal_image_check_size(height, width, file->size, err);
    if (status)
        return status;
    if (mode == SHOAL_IMAGE_AS_IS && png_get_bit_depth(file->png, file->info) == 16)
        return shoal_error_set(err, SHOAL_ERR_DATA,
                               "a PNG of 16 bits per channel; a Data layer reads it with "
                               "force_color or force_gray only");
    int passes = 0, channels = mode == SHOAL_IMAGE_COLOR  ? 3
                               : mode == SHOAL_IMAGE_GRAY ? 1
                                                          : own_channels(file);
    if (!prepare(file, channels, &passes))
        return damaged(file, err);
    size_t row = (size_t)width * (size_t)channels;
    if (png_get_rowbytes(file->png, file->info) != row)
        return shoal_error_set(err, SHOAL_ERR_DATA, "a PNG whose rows have %zu bytes, expected %zu",
                               png_get_rowbytes(file->png, file->info), row);
    uint8_t *pixels = shoal_image_room(decoder, NULL, channels, (int)height, (int)width, err);
    if (!pixels)
        return SHOAL_ERR_MEMORY;
    if (!read_rows(file, pixels, row, (int)height, passes))
        return damaged(file, err);
    *orientation = read_orientation(file);
    *out = (ShoalImage){channels, (int)height, (int)width, pixels};
    return SHOAL_OK;
}

ShoalStatus shoal_image_png_decode(ShoalImageDecoder *decoder, const uint8_t *bytes, size_t size,
                                   ShoalImageMode mode, int *orientation, ShoalImage *out,
                                   ShoalError *err) {
    Png file = {.bytes = bytes, .size = size};
    ShoalStatus status = decode(&file, decoder, mode, orientation, out, err);
    png_destroy_read_struct(&file.png, &file.info, NULL);
    return status;
}

/* ---- writing ---- */

static void write_bytes(png_structp png, png_bytep from, size_t n) {
    Png *file = png_get_io_ptr(png);
    if (n > file->size - file->at) {
        size_t size = 2 * (file->size + n);
        uint8_t *larger = shoal_calloc(size, 1);
        if (!larger) {
            file->out_of_memory = true;
            png_error(png, "out of memory");
        }
        if (file->at)
            memcpy(larger, file->out, file->at);
        shoal_free(file->out);
        file->out = larger;
        file->size = size;
    }
    memcpy(file->out + file->at, from, n);
    file->at += n;
}

static void flush(png_structp png) {
    (void)png;
}

/* The settings are OpenCV's: quick ones, and the same bytes with the same zlib. */
static bool write_image(Png *file, const ShoalImage *image) {
    if (setjmp(png_jmpbuf(file->png)))
        return false;
    png_structp png = file->png;
    int channels = image->channels;
    png_set_write_fn(png, file, write_bytes, flush);
    png_set_filter(png, PNG_FILTER_TYPE_BASE, PNG_FILTER_SUB);
    png_set_compression_level(png, 1);
    png_set_compression_strategy(png, 3); /* runs of one byte */
    png_set_IHDR(png, file->info, (png_uint_32)image->width, (png_uint_32)image->height, 8,
                 channels == 1   ? PNG_COLOR_TYPE_GRAY
                 : channels == 3 ? PNG_COLOR_TYPE_RGB
                                 : PNG_COLOR_TYPE_RGB_ALPHA,
                 PNG_INTERLACE_NONE, PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
    png_write_info(png, file->info);
    png_set_bgr(png);
    size_t row = (size_t)image->width * (size_t)channels;
    for (int y = 0; y < image->height; y++)
        png_write_row(png, image->pixels + (size_t)y * row);
    png_write_end(png, file->info);
    return true;
}

ShoalStatus shoal_image_encode_png(const ShoalImage *image, void **bytes, size_t *size,
                                   ShoalError *err) {
    if (image->channels != 1 && image->channels != 3 && image->channels != 4)
        return shoal_error_set(err, SHOAL_ERR_ARGUMENT, "a PNG of %d channels; expected 1, 3 or 4",
                               image->channels);
    Png file = {0};
    file.png = png_create_write_struct(PNG_LIBPNG_VER_STRING, &file, fail, ignore);
    file.info = file.png ? png_create_info_struct(file.png) : NULL;
    ShoalStatus status = SHOAL_OK;
    if (!file.info)
        status = shoal_error_memory(err, "a PNG", 0);
    else if (!write_image(&file, image))
        status = file.out_of_memory ? shoal_error_memory(err, "a PNG", file.size)
                                    : shoal_error_set(err, SHOAL_ERR_DATA,
                                                      "a PNG cannot be written: %s", file.message);
    png_destroy_write_struct(&file.png, &file.info);
    if (status) {
        shoal_free(file.out);
        return status;
    }
    *bytes = file.out;
    *size = file.at;
    return SHOAL_OK;
}
