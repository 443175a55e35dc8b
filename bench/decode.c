/* SPDX-License-Identifier: Apache-2.0 */
/* Images per second of one core: what a feed takes to make a sample of a record. The images are
 * made here: noise over a smooth picture, so that the files are as large as those of photographs.
 *
 *   bench_decode [SECONDS]     for each line; 1 by default */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/memory.h"
#include "base/rng.h"
#include "data/datum.h"
#include "data/feed.h"

typedef struct Record {
    int height, width;
    unsigned char *bytes;
    size_t size, image_size;
} Record;

static void fail(const ShoalError *err) {
    fprintf(stderr, "bench_decode: %s\n", err->text);
    exit(1);
}

/* Noise of 8-pixel and 1-pixel grain. */
static uint8_t *make_pixels(int height, int width) {
    uint8_t *pixels = shoal_calloc((size_t)height * (size_t)width, 3);
    ShoalRng rng;
    shoal_rng_init(&rng, 1, SHOAL_RNG_TEST, 0);
    for (int y = 0; y < height; y++)
        for (int x = 0; x < width; x++)
            for (int c = 0; c < 3; c++) {
                uint32_t coarse = (uint32_t)(y / 8 * 977 + x / 8 * 613 + c * 131) * 2654435761u;
                pixels[((size_t)y * (size_t)width + (size_t)x) * 3 + (size_t)c] =
                    (uint8_t)(60 + (coarse >> 25) + shoal_rng_below(&rng, 24));
            }
    return pixels;
}

static Record make_record(int height, int width, int quality) {
    uint8_t *pixels = make_pixels(height, width);
    ShoalImage image = {3, height, width, pixels};
    ShoalError err = {0};
    Caffe__Datum datum = CAFFE__DATUM__INIT;
    void *file;
    size_t size;
    if (shoal_image_encode_jpeg(&image, quality, &file, &size, &err))
        fail(&err);
    datum.has_data = datum.has_encoded = datum.encoded = 1;
    datum.data = (ProtobufCBinaryData){size, file};
    Record record = {height, width, NULL, caffe__datum__get_packed_size(&datum), size};
    record.bytes = shoal_calloc(record.size, 1);
    caffe__datum__pack(&datum, record.bytes);
    shoal_free(file);
    shoal_free(pixels);
    return record;
}

static void time_feed(const char *what, const Record *record, Caffe__TransformationParameter *param,
                      bool fast, double seconds) {
    Caffe__LayerParameter layer = CAFFE__LAYER_PARAMETER__INIT;
    layer.type = (char *)"Data";
    layer.transform_param = param;
    ShoalRecordShape shape = {1, {{3, {3, record->height, record->width}}}};
    ShoalFeedOptions options = {.train = true, .seed = 1, .fast_decode = fast};
    ShoalFeed *feed = NULL;
    ShoalError err = {0};
    if (shoal_feed_create(&layer, &shape, &options, &feed, &err))
        fail(&err);
    int axes, dims[SHOAL_FEED_AXES];
    shoal_feed_shape(feed, 0, &axes, dims);
    float *sample = shoal_calloc((size_t)(dims[0] * dims[1] * dims[2]), sizeof *sample), label;
    float *tops[] = {sample, &label};
    ShoalDatumDecoder *decoder = shoal_datum_decoder_create();
    ShoalRecord bytes = {record->bytes, record->size};
    uint64_t start = 0, done = 0, n = 0;
    for (; n < 5 || done - start < (uint64_t)(seconds * 1e9); n++) {
        if (n == 4)
            start = shoal_clock_ns();
        if (shoal_feed_stage(feed, decoder, "bench", &bytes, 0, n, tops, 2, &err))
            fail(&err);
        done = shoal_clock_ns();
    }
    printf("%4d x %-4d %5.1f kB  %-34s %-6s %8.0f images/s\n", record->height, record->width,
           (double)record->image_size / 1000, what, fast ? "fast" : "exact",
           (double)(n - 4) / ((double)(done - start) / 1e9));
    shoal_datum_decoder_destroy(decoder);
    shoal_feed_destroy(feed);
    shoal_free(sample);
}

int main(int argc, char **argv) {
    double seconds = argc > 1 ? atof(argv[1]) : 1;
    static const int SIZES[][2] = {{375, 500}, {256, 256}};
    for (int i = 0; i < 2; i++) {
        Record record = make_record(SIZES[i][0], SIZES[i][1], 90);
        float means[] = {104, 117, 123};
        Caffe__TransformationParameter param = CAFFE__TRANSFORMATION_PARAMETER__INIT;
        Caffe__RandomResizeParameter resize = CAFFE__RANDOM_RESIZE_PARAMETER__INIT;
        Caffe__RandomAspectRatioParameter aspect = CAFFE__RANDOM_ASPECT_RATIO_PARAMETER__INIT;
        param.mirror = 1;
        param.crop_size = 224;
        param.mean_value = means;
        param.n_mean_value = 3;
        time_feed("crop 224", &record, &param, false, seconds);
        resize.min_size = resize.max_size = 256;
        param.random_resize_param = &resize;
        for (int fast = 0; fast < 2; fast++)
            time_feed("shorter side 256, crop 224", &record, &param, fast, seconds);
        param.random_resize_param = NULL;
        aspect.min_area_ratio = 0.08f;
        aspect.aspect_ratio_change = 0.75f;
        param.random_aspect_ratio_param = &aspect;
        for (int fast = 0; fast < 2; fast++)
            time_feed("random part to 224", &record, &param, fast, seconds);
        param.crop_size = 112;
        for (int fast = 0; fast < 2; fast++)
            time_feed("random part to 112", &record, &param, fast, seconds);
        shoal_free(record.bytes);
    }
    return 0;
}
