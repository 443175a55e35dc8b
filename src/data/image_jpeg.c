/* SPDX-License-Identifier: Apache-2.0 */
#include <limits.h>
#include <string.h>
#include <turbojpeg.h>

#include "base/error.h"
#include "base/memory.h"
#include "data/image_codecs.h"

/* Markers of a JPEG file (ITU-T T.81, table B.1). */
enum { SOI = 0xD8, EOI = 0xD9, SOS = 0xDA, TEM = 0x01, RST0 = 0xD0, APP1 = 0xE1 };

bool shoal_image_is_jpeg(const uint8_t *bytes, size_t size) {
    return size >= 3 && bytes[0] == 0xFF && bytes[1] == SOI && bytes[2] == 0xFF;
}

static unsigned u16(const uint8_t *p) {
    return (unsigned)p[0] << 8 | p[1];
}

/* SOF0 to SOF15 without DHT, JPG and DAC. */
static bool is_frame(unsigned marker) {
    return marker >= 0xC0 && marker <= 0xCF && marker != 0xC4 && marker != 0xC8 && marker != 0xCC;
}

/* The next marker's segment from *at on: its marker, and where its contents are; 0 at the end. */
static unsigned next_segment(const uint8_t *bytes, size_t size, size_t *at,
                             const uint8_t **contents, size_t *length) {
    size_t i = *at;
    unsigned marker = 0;
    for (;;) {
        while (i < size && bytes[i] != 0xFF)
            i++;
        while (i < size && bytes[i] == 0xFF)
            i++;
        if (i >= size)
            return 0;
        marker = bytes[i++];
        if (marker != 0 && marker != TEM && (marker < RST0 || marker > SOI))
            break; /* those have no contents */
    }
    if (marker == EOI || marker == SOS || size - i < 2)
        return 0;
    size_t all = u16(bytes + i);
    if (all < 2 || all > size - i)
        return 0;
    *contents = bytes + i + 2;
    *length = all - 2;
    *at = i + all;
    return marker;
}

ShoalStatus shoal_image_jpeg_head(const uint8_t *bytes, size_t size, ShoalImageHead *out,
                                  ShoalError *err) {
    *out = (ShoalImageHead){.orientation = 1};
    size_t at = 2, length = 0;
    const uint8_t *p = NULL;
    bool exif_seen = false;
    for (unsigned marker; (marker = next_segment(bytes, size, &at, &p, &length)) != 0;) {
        if (marker == APP1 && !exif_seen) { /* OpenCV looks at the first one only */
            exif_seen = true;
            if (length > 6)
                out->orientation = shoal_image_orientation(p + 6, length - 6);
        }
        if (!is_frame(marker) || length < 6)
            continue;
        *out = (ShoalImageHead){(int)u16(p + 1), (int)u16(p + 3), p[5], out->orientation};
        if (p[0] != 8)
            return shoal_error_set(err, SHOAL_ERR_UNSUPPORTED,
                                   "a JPEG with %d bits per sample; expected 8", p[0]);
        if (out->components != 1 && out->components != 3 && out->components != 4)
            return shoal_error_set(err, SHOAL_ERR_DATA,
                                   "a JPEG with %d components; expected 1, 3 or 4",
                                   out->components);
        return shoal_image_check_size((uint64_t)out->height, (uint64_t)out->width, size, err);
    }
    return shoal_error_set(err, SHOAL_ERR_DATA,
                           "a JPEG without a frame header: it is damaged or cut short; replace or "
                           "remove the image");
}

/* ---- pixels ---- */

/* "extraneous bytes before marker": some cameras write them, and all pixels are there. */
static bool is_harmless(const char *message) {
    return strstr(message, "extraneous bytes") != NULL;
}

/* Inks C, M, Y, K (stored inverted, as Adobe does) to B, G, R or to grey, as OpenCV does
 * (imgcodecs/src/utils.cpp). */
static void convert_inks(const uint8_t *in, size_t n, int channels, uint8_t *out) {
    for (size_t i = 0; i < n; i++, in += 4) {
        int k = in[3], rgb[3];
        for (int c = 0; c < 3; c++)
            rgb[c] = k - ((255 - in[c]) * k >> 8);
        if (channels == 1) {
            *out++ = (uint8_t)((rgb[2] * 1868 + rgb[1] * 9617 + rgb[0] * 4899 + (1 << 13)) >> 14);
            continue;
        }
        *out++ = (uint8_t)rgb[2];
        *out++ = (uint8_t)rgb[1];
        *out++ = (uint8_t)rgb[0];
    }
}

ShoalStatus shoal_image_jpeg_decode(ShoalImageDecoder *decoder, const uint8_t *bytes, size_t size,
                                    const ShoalImageHead *head, ShoalImageMode mode, int part,
                                    ShoalImage *out, ShoalError *err) {
    if (!decoder->jpeg && !(decoder->jpeg = tjInitDecompress()))
        return shoal_error_memory(err, "a JPEG decoder", 0);
    bool inks = head->components == 4;
    bool grey = mode == SHOAL_IMAGE_GRAY || (mode == SHOAL_IMAGE_AS_IS && head->components == 1);
    int height = (head->height + part - 1) / part, width = (head->width + part - 1) / part;
    ShoalImage image = {grey ? 1 : 3, height, width, NULL};
    int decoded = inks ? 4 : image.channels;
    uint8_t *pixels = shoal_image_room(decoder, NULL, decoded, height, width, err);
    if (!pixels)
        return SHOAL_ERR_MEMORY;
    int format = inks ? TJPF_CMYK : grey ? TJPF_GRAY : TJPF_BGR;
    if (size > ULONG_MAX)
        return shoal_error_set(err, SHOAL_ERR_DATA, "a JPEG of %zu bytes: too large", size);
    if (tjDecompress2(decoder->jpeg, bytes, (unsigned long)size, pixels, width, 0, height, format,
                      TJFLAG_ACCURATEDCT | TJFLAG_LIMITSCANS)) {
        const char *message = tjGetErrorStr2(decoder->jpeg);
        if (tjGetErrorCode(decoder->jpeg) != TJERR_WARNING || !is_harmless(message))
            return shoal_error_set(err, SHOAL_ERR_DATA,
                                   "a damaged JPEG (%s); replace or remove the image", message);
    }
    image.pixels = pixels;
    if (inks) {
        uint8_t *colours = shoal_image_room(decoder, pixels, image.channels, height, width, err);
        if (!colours)
            return SHOAL_ERR_MEMORY;
        convert_inks(pixels, (size_t)height * (size_t)width, image.channels, colours);
        image.pixels = colours;
    }
    *out = image;
    return SHOAL_OK;
}

void shoal_image_jpeg_close(ShoalImageDecoder *decoder) {
    if (decoder->jpeg)
        tjDestroy(decoder->jpeg);
    decoder->jpeg = NULL;
}

/* ---- writing ---- */

ShoalStatus shoal_image_encode_jpeg(const ShoalImage *image, int quality, void **bytes,
                                    size_t *size, ShoalError *err) {
    bool grey = image->channels == 1;
    if ((!grey && image->channels != 3) || quality < 1 || quality > 100)
        return shoal_error_set(err, SHOAL_ERR_ARGUMENT,
                               "a JPEG of %d channels with quality %d; expected 1 or 3 channels "
                               "and a quality from 1 to 100",
                               image->channels, quality);
    int subsampling = grey ? TJSAMP_GRAY : TJSAMP_420;
    unsigned long most = tjBufSize(image->width, image->height, subsampling), used = most;
    if (most == (unsigned long)-1 || image->width > 65500 || image->height > 65500)
        return shoal_error_set(err, SHOAL_ERR_DATA, "a JPEG of %d x %d pixels: too large",
                               image->height, image->width);
    unsigned char *out = shoal_calloc(most, 1);
    tjhandle coder = out ? tjInitCompress() : NULL;
    ShoalStatus status = coder ? SHOAL_OK : shoal_error_memory(err, "a JPEG", most);
    if (!status && tjCompress2(coder, image->pixels, image->width, 0, image->height,
                               grey ? TJPF_GRAY : TJPF_BGR, &out, &used, subsampling, quality,
                               TJFLAG_ACCURATEDCT | TJFLAG_NOREALLOC))
        status = shoal_error_set(err, SHOAL_ERR_DATA, "a JPEG cannot be written: %s",
                                 tjGetErrorStr2(coder));
    if (coder)
        tjDestroy(coder);
    if (status) {
        shoal_free(out);
        return status;
    }
    *bytes = out;
    *size = used;
    return SHOAL_OK;
}
