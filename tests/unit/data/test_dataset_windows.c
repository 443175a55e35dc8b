/* SPDX-License-Identifier: Apache-2.0 */
#include "scratch.h"

#include <math.h>
#include <stdbool.h>

#include "caffe/caffe.pb-c.h"
#include "data/dataset.h"
#include "data/feed.h"
#include "data/image.h"
#include "data/transform.h"
#include "data/windows.h"

typedef struct Layer {
    Caffe__LayerParameter layer;
    Caffe__WindowDataParameter windows;
    Caffe__TransformationParameter transform;
} Layer;

static void init_layer(Layer *l, const char *source, uint32_t crop) {
    caffe__layer_parameter__init(&l->layer);
    caffe__window_data_parameter__init(&l->windows);
    caffe__transformation_parameter__init(&l->transform);
    l->layer.type = (char *)"WindowData";
    l->layer.window_data_param = &l->windows;
    l->layer.transform_param = &l->transform;
    l->windows.source = (char *)source;
    l->windows.batch_size = 8;
    l->transform.crop_size = crop;
}

/* ---- the samples ---- */

enum { HEIGHT = 60, WIDTH = 80, MEAN_SIDE = 40 };

static uint64_t hash(const void *memory, size_t size) {
    const uint8_t *bytes = memory;
    uint64_t h = 0xcbf29ce484222325u; /* FNV-1a */
    for (size_t i = 0; i < size; i++)
        h = (h ^ bytes[i]) * 0x100000001b3u;
    return h;
}

static void fill(uint8_t *pixels, size_t n) {
    for (size_t i = 0; i < n; i++)
        pixels[i] = (uint8_t)((uint32_t)i * 2654435761u >> 13);
}

/* crop_size, context_pad, square, window, mirrored, and the hashes of the float32 sample with mean
 * values and with a mean image: by a transcription of window_data_layer.cpp's arithmetic over
 * cv::resize and cv::flip (OpenCV 4.6). */
static const struct {
    int crop, pad;
    int square;
    float corners[4];
    int mirrored;
    uint64_t hashes[2];
} CASES[] = {
    {24, 0, 0, {5, 6, 40, 33}, 0, {0x9d0580c6f3e6017e, 0x111e2c79933192b6}},
    {24, 0, 0, {5, 6, 40, 33}, 1, {0x7b8db647dee48962, 0x4c356915d00127b7}},
    {24, 4, 0, {5, 6, 40, 33}, 0, {0xe193e4f338d78741, 0xe7e538381a3bf078}},
    {24, 4, 0, {0, 0, 30, 20}, 0, {0x34dbb6874f0a813d, 0xec7253907fb56b4c}},
    {24, 4, 0, {0, 0, 30, 20}, 1, {0xfc2d4036c1450119, 0x55ce2d1b444aead9}},
    {24, 4, 0, {60, 40, 79, 59}, 1, {0x1f000b6cec3f454f, 0xcc784d3a4965146c}},
    {24, 0, 1, {10, 2, 70, 20}, 0, {0x5e0cf498f09154e4, 0x22d8bfda2f7f3d5e}},
    {24, 0, 1, {0, 2, 70, 20}, 1, {0x3a745951726683fa, 0x72a33617c814f434}},
    {24, 4, 1, {30, 10, 33, 50}, 0, {0x850d0063b364e045, 0xdfacb4878bac7451}},
    {31, 3, 0, {0, 0, 79, 59}, 0, {0xc3a833159692e004, 0xc6d6b07b2b207d70}},
    {24, 11, 0, {30, 30, 31, 31}, 1, {0xe85c6fa94449e570, 0xf8f118b1f8eaf2ee}},
    {24, 4, 0, {79, 0, 79, 59}, 0, {0x997130830c9fdf4d, 0x9ce643c1097c08a6}},
    {24, 0, 0, {79, 59, 79, 59}, 0, {0x887049d4db8e0525, 0x72d8cf9aea0acc3c}},
};

static uint64_t sample_that(bool mirrors) {
    uint64_t sample = 0;
    while (shoal_transform_mirrors(7, sample) != mirrors)
        sample++;
    return sample;
}

static void samples_are_caffes(void **state) {
    (void)state;
    static uint8_t pixels[HEIGHT * WIDTH * 3], mean_bytes[3 * MEAN_SIDE * MEAN_SIDE];
    static float mean_values[3 * MEAN_SIDE * MEAN_SIDE], out[3 * 31 * 31];
    float means[] = {104, 117, 123};
    fill(pixels, sizeof pixels);
    fill(mean_bytes, sizeof mean_bytes);
    Caffe__BlobProto mean = CAFFE__BLOB_PROTO__INIT;
    mean.num = 1;
    mean.channels = 3;
    mean.height = mean.width = MEAN_SIDE;
    mean.has_num = mean.has_channels = mean.has_height = mean.has_width = 1;
    mean.data = mean_values;
    mean.n_data = 3 * MEAN_SIDE * MEAN_SIDE;
    for (size_t i = 0; i < mean.n_data; i++)
        mean_values[i] = (float)mean_bytes[i] / 4;
    ShoalImage image = {3, HEIGHT, WIDTH, pixels};
    ShoalImageDecoder *decoder = shoal_image_decoder_create();
    for (size_t i = 0; i < 2 * sizeof CASES / sizeof CASES[0]; i++) {
        bool with_file = i % 2;
        Layer l;
        init_layer(&l, "w", (uint32_t)CASES[i / 2].crop);
        l.windows.context_pad = (uint32_t)CASES[i / 2].pad;
        l.windows.crop_mode = (char *)(CASES[i / 2].square ? "square" : "warp");
        l.windows.scale = 0.5f;
        l.transform.scale = 77; /* not Caffe's either */
        l.transform.mirror = 1;
        if (with_file) {
            l.transform.mean_file = (char *)"m";
        } else {
            l.transform.mean_value = means;
            l.transform.n_mean_value = 3;
        }
        ShoalError err = {0};
        ShoalWindows *windows = NULL;
        expect_ok(shoal_windows_create(&l.layer, 7, with_file ? &mean : NULL, &windows, &err),
                  &err);
        expect_ok(shoal_windows_apply(windows, decoder, &image, CASES[i / 2].corners,
                                      sample_that(CASES[i / 2].mirrored), out, &err),
                  &err);
        size_t size = (size_t)(3 * CASES[i / 2].crop * CASES[i / 2].crop) * sizeof *out;
        if (hash(out, size) != CASES[i / 2].hashes[with_file])
            fail_msg("case %zu: another sample than Caffe's", i);
        shoal_windows_destroy(windows);
    }
    shoal_image_decoder_destroy(decoder);
}

static void windows_outside_are_refused(void **state) {
    (void)state;
    static uint8_t pixels[HEIGHT * WIDTH * 3];
    static float out[3 * 8 * 8];
    static const float BAD[][4] = {{0, 0, 80, 10}, {0, 0, 10, 60},      {-1, 0, 5, 5},
                                   {5, 5, 4, 9},   {5, 5, 9, 4},        {0, 0, 3e30f, 5},
                                   {0, 0, 5, NAN}, {200, 200, 220, 220}};
    ShoalImage image = {3, HEIGHT, WIDTH, pixels};
    ShoalImageDecoder *decoder = shoal_image_decoder_create();
    for (uint32_t pad = 0; pad < 4; pad += 3) {
        Layer l;
        init_layer(&l, "w", 8);
        l.windows.context_pad = pad;
        ShoalError err = {0};
        ShoalWindows *windows = NULL;
        expect_ok(shoal_windows_create(&l.layer, 7, NULL, &windows, &err), &err);
        for (size_t i = pad ? 3 : 0; i < sizeof BAD / sizeof BAD[0]; i++) {
            err = (ShoalError){0};
            expect_error(shoal_windows_apply(windows, decoder, &image, BAD[i], 0, out, &err), &err,
                         SHOAL_ERR_DATA, "of an image of 60 x 80 pixels");
        }
        shoal_windows_destroy(windows);
    }
    shoal_image_decoder_destroy(decoder);
}

static void expect_refused(Layer *l, const char *part) {
    ShoalError err = {0};
    ShoalWindows *windows = NULL;
    expect_error(shoal_windows_create(&l->layer, 7, NULL, &windows, &err), &err, SHOAL_ERR_MODEL,
                 part);
}

static void wrong_layers_are_refused(void **state) {
    (void)state;
    Layer l;
    init_layer(&l, "w", 0);
    expect_refused(&l, "crop_size 0");
    init_layer(&l, "w", 10);
    l.windows.context_pad = 5;
    expect_refused(&l, "context_pad 5 leaves nothing");
    init_layer(&l, "w", 10);
    l.windows.crop_mode = (char *)"round";
    expect_refused(&l, "crop_mode \"round\"");
    init_layer(&l, "w", 10);
    l.windows.scale = INFINITY;
    expect_refused(&l, "finite");
}

/* ---- the dataset ---- */

static const char GOOD[] = "# 0\n"
                           "a.png\n"
                           "3\n60\n80\n"
                           "3\n"
                           "5 0.9 1 2 30 40\n"
                           "5 0.3 0 0 9 9\n"
                           "6 0.5 4 4 50 50\n"
                           "# 1\nb.png\n3 60 80\n2\n"
                           "2 0.1 10 10 20 20\n"
                           "1 1 0 0 79 59\n";

static void make_image(const char *name) {
    static uint8_t pixels[HEIGHT * WIDTH * 3];
    fill(pixels, sizeof pixels);
    ShoalImage image = {3, HEIGHT, WIDTH, pixels};
    ShoalError err = {0};
    void *bytes;
    size_t size;
    expect_ok(shoal_image_encode_png(&image, &bytes, &size, &err), &err);
    write_file(scratch(name), bytes, size);
    shoal_free(bytes);
}

static ShoalDataset *open_windows(Layer *l, const char *text, ShoalError *err) {
    static char root[512];
    snprintf(root, sizeof root, "%s/", scratch_folder);
    write_file(scratch("windows.txt"), text, strlen(text));
    init_layer(l, scratch("windows.txt"), 16);
    l->windows.root_folder = root;
    ShoalDataset *dataset = NULL;
    shoal_dataset_open_for(&l->layer, &dataset, err);
    return dataset;
}

static void records_become_samples(void **state) {
    (void)state;
    make_image("a.png");
    make_image("b.png");
    Layer l;
    ShoalError err = {0};
    ShoalDataset *dataset = open_windows(&l, GOOD, &err);
    expect_ok(err.status, &err);
    assert_int_equal(shoal_dataset_count(dataset), 5);
    ShoalRecordShape shape;
    expect_ok(shoal_feed_describe(&l.layer, dataset, &shape, &err), &err);
    ShoalFeed *feed = NULL;
    ShoalFeedOptions options = {.train = true, .seed = 3};
    expect_ok(shoal_feed_create(&l.layer, &shape, &options, &feed, &err), &err);
    int axes, dims[SHOAL_FEED_AXES];
    shoal_feed_shape(feed, 0, &axes, dims);
    assert_int_equal(axes, 3);
    assert_int_equal(dims[0], 3);
    assert_int_equal(dims[2], 16);
    static const float LABELS[] = {5, 6, 1, 0, 0}; /* foreground, then background */
    static float sample[3 * 16 * 16];
    ShoalDatumDecoder *decoder = shoal_datum_decoder_create();
    for (uint64_t i = 0; i < 5; i++) {
        ShoalRecord record;
        float label = -1, *tops[] = {sample, &label};
        expect_ok(shoal_dataset_record(dataset, i, &record, &err), &err);
        expect_ok(shoal_feed_stage(feed, decoder, "w", &record, i, 9, tops, 2, &err), &err);
        assert_true(label == LABELS[i]);
    }
    shoal_datum_decoder_destroy(decoder);
    shoal_feed_destroy(feed);
    shoal_dataset_close(dataset);
}

/* Of a batch of 8 with a fraction of 0.25 the last two are foreground; all windows are drawn. */
static void a_batch_has_its_fraction(void **state) {
    (void)state;
    Layer l;
    ShoalError err = {0};
    ShoalDataset *dataset = open_windows(&l, GOOD, &err);
    expect_ok(err.status, &err);
    unsigned seen[5] = {0}, differ = 0;
    for (uint64_t n = 0; n < 800; n++) {
        uint64_t index = 99, again = 98, other = 97;
        assert_true(shoal_dataset_pick(dataset, 5, n, &index));
        assert_true(shoal_dataset_pick(dataset, 5, n, &again));
        assert_true(shoal_dataset_pick(dataset, 6, n, &other));
        assert_int_equal(index, again);
        differ += index != other;
        assert_in_range(index, 0, 4);
        assert_int_equal(index < 3, n % 8 >= 6);
        seen[index]++;
    }
    for (int i = 0; i < 5; i++)
        assert_in_range(seen[i], i < 3 ? 40 : 240, i < 3 ? 95 : 360);
    assert_true(differ > 100);
    shoal_dataset_close(dataset);
}

static void wrong_files_are_refused(void **state) {
    (void)state;
    static const struct {
        const char *text, *part;
    } BAD[] = {{"", "0 foreground and 0 background"},
               {"a.png 3", "line 1 of "},
               {"# 1\na.png 3 60 80 0", "image # 1; expected # 0"},
               {"# 0\na.png 3 60", "the end of the file; expected channels"},
               {"# 0\na.png 3 60 80 1\n1 0.9 0 0 5", "the end of the file; expected y2"},
               {"# 0\na.png 3 60 80 1\n1 nan 0 0 5 5", "expected the overlap"},
               {"# 0\na.png 3 60 80 1\n1 0.9 0 0 5 5.5", "\"5.5\"; expected y2"},
               {"# 0\na.png 3 60 80 1\n0 0.9 0 0 5 5", "foreground has a class above 0"},
               {"# 0\na.png 3 60 80 1\n1 0.9 0 0 5 5", "1 foreground and 0 background"},
               {"# 0\na.png 3 60 80 9999999999", "expected the number of windows"}};
    for (size_t i = 0; i < sizeof BAD / sizeof BAD[0]; i++) {
        Layer l;
        ShoalError err = {0};
        assert_null(open_windows(&l, BAD[i].text, &err));
        expect_error(err.status, &err, SHOAL_ERR_DATA, BAD[i].part);
    }
}

static void missing_images_are_named(void **state) {
    (void)state;
    Layer l;
    ShoalError err = {0};
    ShoalDataset *dataset =
        open_windows(&l, "# 0\nnone.png 3 60 80 2\n1 0.9 0 0 5 5\n1 0 0 0 5 5", &err);
    expect_ok(err.status, &err);
    ShoalRecord record;
    expect_error(shoal_dataset_record(dataset, 1, &record, &err), &err, SHOAL_ERR_IO,
                 "record 1 (image # 0 of ");
    shoal_dataset_close(dataset);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(samples_are_caffes),       cmocka_unit_test(windows_outside_are_refused),
        cmocka_unit_test(wrong_layers_are_refused), cmocka_unit_test(records_become_samples),
        cmocka_unit_test(a_batch_has_its_fraction), cmocka_unit_test(wrong_files_are_refused),
        cmocka_unit_test(missing_images_are_named),
    };
    return cmocka_run_group_tests(tests, scratch_setup, scratch_teardown);
}
