/* SPDX-License-Identifier: Apache-2.0 */
#include "scratch.h"

#include "data/image.h"

/* FNV-1a, 64 bits. */
static uint64_t hash(const uint8_t *bytes, size_t size) {
    uint64_t h = 0xcbf29ce484222325u;
    for (size_t i = 0; i < size; i++)
        h = (h ^ bytes[i]) * 0x100000001b3u;
    return h;
}

static unsigned char *read_corpus(const char *name, size_t *size) {
    char path[512];
    snprintf(path, sizeof path, "%s/tests/fuzz/corpus/image/%s", SHOAL_SOURCE, name);
    return read_file(path, size);
}

/* What cv::imdecode (OpenCV 4.6) makes of the fuzzer's corpus, with IMREAD_UNCHANGED, IMREAD_COLOR
 * and IMREAD_GRAYSCALE: channels, height, width, and the hash of the pixels. Not there: 16 bits. */
typedef struct Pixels {
    int channels, height, width;
    uint64_t hash;
} Pixels;

static const struct {
    const char *name;
    Pixels modes[3];
} IMAGES[] = {
    {"jpeg_420",
     {{3, 13, 19, 0xa95ddc2e1fc0e2cd},
      {3, 13, 19, 0xa95ddc2e1fc0e2cd},
      {1, 13, 19, 0xad3de4bbcfbaf570}}},
    {"jpeg_422",
     {{3, 13, 19, 0xd19d2ffe5cf3b2ca},
      {3, 13, 19, 0xd19d2ffe5cf3b2ca},
      {1, 13, 19, 0xf81b64d647ac6835}}},
    {"jpeg_444",
     {{3, 13, 19, 0x02e56b867c9081dd},
      {3, 13, 19, 0x02e56b867c9081dd},
      {1, 13, 19, 0x31b790520e049475}}},
    {"jpeg_progressive",
     {{3, 13, 19, 0xa95ddc2e1fc0e2cd},
      {3, 13, 19, 0xa95ddc2e1fc0e2cd},
      {1, 13, 19, 0xad3de4bbcfbaf570}}},
    {"jpeg_grey",
     {{1, 13, 19, 0xddc64eddec4b255f},
      {3, 13, 19, 0xfbf7d783d3cb2547},
      {1, 13, 19, 0xddc64eddec4b255f}}},
    {"jpeg_cmyk",
     {{3, 13, 19, 0xcb07228c52ec13de},
      {3, 13, 19, 0xcb07228c52ec13de},
      {1, 13, 19, 0x79d3cc5d503fc3c1}}},
    {"jpeg_exif2",
     {{3, 13, 19, 0xa95ddc2e1fc0e2cd},
      {3, 13, 19, 0x1f6e2d5d4e419411},
      {1, 13, 19, 0xd3dd4bbbb08022bc}}},
    {"jpeg_exif3",
     {{3, 13, 19, 0xa95ddc2e1fc0e2cd},
      {3, 13, 19, 0x83ef873e06f17ddd},
      {1, 13, 19, 0xa1d40dc14145cfcc}}},
    {"jpeg_exif4",
     {{3, 13, 19, 0xa95ddc2e1fc0e2cd},
      {3, 13, 19, 0x9e56663f0cc98f39},
      {1, 13, 19, 0x234e35dec5ee8b00}}},
    {"jpeg_exif5",
     {{3, 13, 19, 0xa95ddc2e1fc0e2cd},
      {3, 19, 13, 0x9a2bd1d435d56929},
      {1, 19, 13, 0x56f0fd6580722d64}}},
    {"jpeg_exif6",
     {{3, 13, 19, 0xa95ddc2e1fc0e2cd},
      {3, 19, 13, 0x8b07e24202f64ca5},
      {1, 19, 13, 0x03e39dd2b5739334}}},
    {"jpeg_exif7",
     {{3, 13, 19, 0xa95ddc2e1fc0e2cd},
      {3, 19, 13, 0x9c9124eb3408ba99},
      {1, 19, 13, 0x012de9ad8919b460}}},
    {"jpeg_exif8",
     {{3, 13, 19, 0xa95ddc2e1fc0e2cd},
      {3, 19, 13, 0x51303da26e6db36d},
      {1, 19, 13, 0x10a88c5717a0ce98}}},
    {"png_colour",
     {{3, 13, 19, 0xd93fdf2a3dba0be2},
      {3, 13, 19, 0xd93fdf2a3dba0be2},
      {1, 13, 19, 0xaed05272e0b20857}}},
    {"png_grey",
     {{1, 13, 19, 0x47e8574c8b1cb726},
      {3, 13, 19, 0x0fc89174801cba78},
      {1, 13, 19, 0x47e8574c8b1cb726}}},
    {"png_palette",
     {{3, 13, 19, 0x5b198831df16ae20},
      {3, 13, 19, 0x5b198831df16ae20},
      {1, 13, 19, 0x414c0e91c24a0abb}}},
    {"png_bits",
     {{1, 13, 19, 0x3b3aeec3bda911b9},
      {3, 13, 19, 0x8ca61a572e90c9f5},
      {1, 13, 19, 0x3b3aeec3bda911b9}}},
    {"png_grey_alpha",
     {{4, 13, 19, 0x65623d858c132283},
      {3, 13, 19, 0x0fc89174801cba78},
      {1, 13, 19, 0x47e8574c8b1cb726}}},
    {"png_alpha",
     {{4, 13, 19, 0x1428534df339212f},
      {3, 13, 19, 0x2e2c43e11fc49929},
      {1, 13, 19, 0x003355ee2017cc25}}},
    {"png_palette_alpha",
     {{4, 13, 19, 0x047fd367bfe04506},
      {3, 13, 19, 0x5b198831df16ae20},
      {1, 13, 19, 0x414c0e91c24a0abb}}},
    {"png_key",
     {{4, 13, 19, 0x59a143e72a08e410},
      {3, 13, 19, 0xd93fdf2a3dba0be2},
      {1, 13, 19, 0xaed05272e0b20857}}},
    {"png_exif6",
     {{3, 13, 19, 0xd93fdf2a3dba0be2},
      {3, 19, 13, 0x465b62543da3c552},
      {1, 19, 13, 0x41c887f18a398bff}}},
    {"png_16", {{0}, {3, 13, 19, 0x961eed1aad299812}, {1, 13, 19, 0x2fad57ad4da02a6f}}},
    {"png_interlaced",
     {{3, 13, 19, 0xd93fdf2a3dba0be2},
      {3, 13, 19, 0xd93fdf2a3dba0be2},
      {1, 13, 19, 0xaed05272e0b20857}}},
    {"png_gamma",
     {{3, 13, 19, 0xd93fdf2a3dba0be2},
      {3, 13, 19, 0xd93fdf2a3dba0be2},
      {1, 13, 19, 0xa127cb2ea5bf14a3}}},
    {"jpeg_extra_bytes",
     {{3, 13, 19, 0x02e56b867c9081dd},
      {3, 13, 19, 0x02e56b867c9081dd},
      {1, 13, 19, 0x31b790520e049475}}},
};

static void pixels_are_opencvs(void **state) {
    (void)state;
    ShoalImageDecoder *decoder = shoal_image_decoder_create();
    for (size_t i = 0; i < sizeof IMAGES / sizeof IMAGES[0]; i++) {
        size_t size;
        unsigned char *bytes = read_corpus(IMAGES[i].name, &size);
        for (int mode = 0; mode < 3; mode++) {
            const Pixels *want = &IMAGES[i].modes[mode];
            ShoalError err = {0};
            ShoalImage image = {0};
            ShoalStatus status =
                shoal_image_decode(decoder, bytes, size, (ShoalImageMode)mode, &image, &err);
            if (!want->channels) {
                expect_error(status, &err, SHOAL_ERR_DATA, "16 bits per channel");
                continue;
            }
            if (status)
                fail_msg("%s: %s", IMAGES[i].name, err.text);
            size_t count = (size_t)image.channels * (size_t)image.height * (size_t)image.width;
            if (image.channels != want->channels || image.height != want->height ||
                image.width != want->width || hash(image.pixels, count) != want->hash)
                fail_msg("%s, mode %d: other pixels than OpenCV's", IMAGES[i].name, mode);
        }
        shoal_free(bytes);
    }
    shoal_image_decoder_destroy(decoder);
}

static void bad_images_are_refused(void **state) {
    (void)state;
    static const struct {
        const char *name;
        ShoalStatus status;
        const char *part;
    } BAD[] = {{"cut_jpeg", SHOAL_ERR_DATA, "Premature end of JPEG"},
               {"no_frame", SHOAL_ERR_DATA, "without a frame header"},
               {"empty", SHOAL_ERR_DATA, "an empty file"},
               {"gif", SHOAL_ERR_UNSUPPORTED, "a GIF image; expected a JPEG or PNG"},
               {"webp", SHOAL_ERR_UNSUPPORTED, "a WebP image"},
               {"bmp", SHOAL_ERR_UNSUPPORTED, "a BMP image"},
               {"cut_png", SHOAL_ERR_DATA, "cut short"},
               {"crc_png", SHOAL_ERR_DATA, "a damaged PNG"},
               {"huge_png", SHOAL_ERR_DATA, "60000 x 60000 pixels; expected"},
               {"bomb_png", SHOAL_ERR_DATA, "8000 x 8000 pixels in 69 bytes"},
               {"huge_jpeg", SHOAL_ERR_DATA, "65500 x 65500 pixels; expected"}};
    ShoalImageDecoder *decoder = shoal_image_decoder_create();
    for (size_t i = 0; i < sizeof BAD / sizeof BAD[0]; i++) {
        size_t size;
        unsigned char *bytes = read_corpus(BAD[i].name, &size);
        ShoalError err = {0};
        ShoalImage image = {.channels = 99};
        uint64_t before = shoal_memory_allocations();
        ShoalStatus status =
            shoal_image_decode(decoder, bytes, size, SHOAL_IMAGE_COLOR, &image, &err);
        expect_error(status, &err, BAD[i].status, BAD[i].part);
        assert_int_equal(image.channels, 99);
        if (strstr(BAD[i].name, "huge") || strstr(BAD[i].name, "bomb"))
            assert_int_equal(shoal_memory_allocations(), before);
        shoal_free(bytes);
    }
    shoal_image_decoder_destroy(decoder);
}

/* Every cut and every flipped byte: an answer, whatever it is, and then a good image still works.
 */
static void damaged_images_are_survived(void **state) {
    (void)state;
    static const char *const NAMES[] = {"jpeg_progressive", "jpeg_exif6", "png_palette_alpha",
                                        "png_interlaced"};
    ShoalImageDecoder *decoder = shoal_image_decoder_create();
    for (size_t i = 0; i < sizeof NAMES / sizeof NAMES[0]; i++) {
        size_t size;
        unsigned char *bytes = read_corpus(NAMES[i], &size);
        ShoalImage image;
        for (size_t cut = 0; cut < size; cut++) {
            unsigned char *copy = malloc(cut ? cut : 1);
            memcpy(copy, bytes, cut);
            ShoalError err = {0};
            shoal_image_decode(decoder, copy, cut, SHOAL_IMAGE_COLOR, &image, &err);
            free(copy);
            err = (ShoalError){0};
            bytes[cut] ^= 0x5a;
            shoal_image_decode(decoder, bytes, size, SHOAL_IMAGE_AS_IS, &image, &err);
            bytes[cut] ^= 0x5a;
        }
        ShoalError err = {0};
        expect_ok(shoal_image_decode(decoder, bytes, size, SHOAL_IMAGE_GRAY, &image, &err), &err);
        shoal_free(bytes);
    }
    shoal_image_decoder_destroy(decoder);
}

static void fill(uint8_t *pixels, size_t n) {
    for (size_t i = 0; i < n; i++)
        pixels[i] = (uint8_t)(i * 2654435761u >> 13);
}

static void a_png_comes_back(void **state) {
    (void)state;
    uint8_t pixels[9 * 7 * 4];
    fill(pixels, sizeof pixels);
    ShoalImageDecoder *decoder = shoal_image_decoder_create();
    for (int channels = 1; channels <= 4; channels++) {
        ShoalError err = {0};
        ShoalImage image = {channels, 9, 7, pixels}, back;
        void *bytes;
        size_t size;
        ShoalStatus status = shoal_image_encode_png(&image, &bytes, &size, &err);
        if (channels == 2) {
            expect_error(status, &err, SHOAL_ERR_ARGUMENT, "2 channels");
            continue;
        }
        expect_ok(status, &err);
        expect_ok(shoal_image_decode(decoder, bytes, size, SHOAL_IMAGE_AS_IS, &back, &err), &err);
        assert_int_equal(back.channels, channels);
        assert_int_equal(back.height, 9);
        assert_int_equal(back.width, 7);
        assert_memory_equal(back.pixels, pixels, (size_t)channels * 9 * 7);
        shoal_free(bytes);
    }
    shoal_image_decoder_destroy(decoder);
}

/* A smooth picture: quality 95 keeps it nearly as it was. */
static void a_jpeg_comes_back_nearly(void **state) {
    (void)state;
    enum { H = 40, W = 56 };
    uint8_t pixels[H * W * 3];
    for (int y = 0; y < H; y++)
        for (int x = 0; x < W; x++)
            for (int c = 0; c < 3; c++)
                pixels[(y * W + x) * 3 + c] = (uint8_t)(40 + 2 * y + x + 30 * c);
    ShoalImageDecoder *decoder = shoal_image_decoder_create();
    ShoalError err = {0};
    ShoalImage image = {3, H, W, pixels}, back;
    void *bytes;
    size_t size;
    expect_ok(shoal_image_encode_jpeg(&image, 95, &bytes, &size, &err), &err);
    expect_ok(shoal_image_decode(decoder, bytes, size, SHOAL_IMAGE_COLOR, &back, &err), &err);
    for (int i = 0; i < H * W * 3; i++)
        assert_in_range(back.pixels[i] + 8 - pixels[i], 0, 16);
    /* Decoded smaller: never below what is asked for. */
    static const struct {
        int height, width, to_height, to_width;
    } SIZES[] = {{41, 10, H, W},   {21, 5, H, W}, {20, 28, 20, 28},
                 {10, 10, 10, 14}, {5, 7, 5, 7},  {1, 1, 5, 7}};
    for (size_t i = 0; i < sizeof SIZES / sizeof SIZES[0]; i++) {
        expect_ok(shoal_image_decode_smaller(decoder, bytes, size, SHOAL_IMAGE_COLOR,
                                             SIZES[i].height, SIZES[i].width, &back, &err),
                  &err);
        assert_int_equal(back.height, SIZES[i].to_height);
        assert_int_equal(back.width, SIZES[i].to_width);
    }
    shoal_free(bytes);
    expect_error(shoal_image_encode_jpeg(&image, 0, &bytes, &size, &err), &err, SHOAL_ERR_ARGUMENT,
                 "quality 0");
    shoal_image_decoder_destroy(decoder);
}

static void planes_go_both_ways(void **state) {
    (void)state;
    uint8_t pixels[5 * 6 * 4], planes[5 * 6 * 4];
    fill(pixels, sizeof pixels);
    ShoalImageDecoder *decoder = shoal_image_decoder_create();
    for (int channels = 1; channels <= 4; channels++) {
        ShoalError err = {0};
        ShoalImage image = {channels, 5, 6, pixels}, back;
        shoal_image_planes(&image, planes);
        for (int i = 0; i < 30; i++)
            for (int c = 0; c < channels; c++)
                assert_int_equal(planes[c * 30 + i], pixels[i * channels + c]);
        expect_ok(shoal_image_from_planes(decoder, planes, channels, 5, 6, &back, &err), &err);
        assert_memory_equal(back.pixels, pixels, 30 * (size_t)channels);
    }
    shoal_image_decoder_destroy(decoder);
}

static void a_file_is_loaded_and_resized(void **state) {
    (void)state;
    ShoalImageDecoder *decoder = shoal_image_decoder_create();
    ShoalError err = {0};
    ShoalImage image;
    size_t size;
    unsigned char *bytes = read_corpus("jpeg_422", &size);
    write_file(scratch("a b.jpg"), bytes, size);
    write_file(scratch("empty"), "", 0);
    write_file(scratch("text"), "hello", 5);
    expect_ok(shoal_image_load(decoder, scratch("a b.jpg"), SHOAL_IMAGE_GRAY, 7, 9, &image, &err),
              &err);
    assert_int_equal(image.channels, 1);
    assert_int_equal(image.height, 7);
    assert_int_equal(image.width, 9);
    expect_ok(shoal_image_load(decoder, scratch("a b.jpg"), SHOAL_IMAGE_COLOR, 0, 0, &image, &err),
              &err);
    assert_int_equal(image.height, 13);
    static const struct {
        const char *name;
        ShoalStatus status;
        const char *part;
    } BAD[] = {{"absent", SHOAL_ERR_IO, "absent: "},
               {"empty", SHOAL_ERR_DATA, "empty: the file is empty"},
               {"text", SHOAL_ERR_UNSUPPORTED, "text: no image of a known format"}};
    for (size_t i = 0; i < 3; i++) {
        err = (ShoalError){0};
        expect_error(
            shoal_image_load(decoder, scratch(BAD[i].name), SHOAL_IMAGE_COLOR, 0, 0, &image, &err),
            &err, BAD[i].status, BAD[i].part);
    }
    shoal_free(bytes);
    shoal_image_decoder_destroy(decoder);
}

static void steady_state_allocates_nothing(void **state) {
    (void)state;
    ShoalImageDecoder *decoder = shoal_image_decoder_create();
    ShoalError err = {0};
    ShoalImage image;
    size_t size;
    unsigned char *bytes = read_corpus("jpeg_exif6", &size);
    uint64_t before = 0;
    for (int i = 0; i < 4; i++) {
        expect_ok(shoal_image_decode(decoder, bytes, size, SHOAL_IMAGE_COLOR, &image, &err), &err);
        expect_ok(shoal_image_resize(decoder, &image, 30, 20, &image, &err), &err);
        if (i == 1)
            before = shoal_memory_allocations();
    }
    assert_int_equal(shoal_memory_allocations(), before);
    shoal_free(bytes);
    shoal_image_decoder_destroy(decoder);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pixels_are_opencvs),
        cmocka_unit_test(bad_images_are_refused),
        cmocka_unit_test(damaged_images_are_survived),
        cmocka_unit_test(a_png_comes_back),
        cmocka_unit_test(a_jpeg_comes_back_nearly),
        cmocka_unit_test(planes_go_both_ways),
        cmocka_unit_test(a_file_is_loaded_and_resized),
        cmocka_unit_test(steady_state_allocates_nothing),
    };
    return cmocka_run_group_tests(tests, scratch_setup, scratch_teardown);
}
