/* SPDX-License-Identifier: Apache-2.0 */
#include "scratch.h"

#include <math.h>
#include <stdbool.h>

#include "caffe/model.h"
#include "data/dataset.h"
#include "data/feed.h"
#include "data/image.h"
#include "data/image_scale.h"

/* ---- what Caffe's Data layer gave, to the bit ---- */

static void read_net(const char *path, ShoalCaffeNet *net) {
    size_t size;
    unsigned char *text = read_file(path, &size);
    ShoalError err = {0};
    expect_ok(shoal_caffe_net_from_text((char *)text, size, path, net, &err), &err);
    shoal_free(text);
}

static void compare_batch(const ShoalFeed *feed, ShoalDataset *dataset, const char *name,
                          unsigned batch) {
    char path[128];
    snprintf(path, sizeof path, "08-transforms/raw/%s_data_b%u.f32", name, batch);
    size_t size;
    unsigned char *want = read_file(golden(path), &size);
    int axes, dims[SHOAL_FEED_AXES];
    shoal_feed_shape(feed, 0, &axes, dims);
    assert_int_equal(axes, 3);
    size_t count = (size_t)(dims[0] * dims[1] * dims[2]);
    assert_int_equal(count * 16 * sizeof(float), size);
    float *sample = shoal_calloc(count, sizeof *sample), label;
    ShoalDatumDecoder *decoder = shoal_datum_decoder_create();
    for (uint64_t i = 0; i < 16; i++) {
        uint64_t index = batch * 16 + i;
        float *tops[] = {sample, &label};
        ShoalError err = {0};
        ShoalRecord record;
        expect_ok(shoal_dataset_record(dataset, index, &record, &err), &err);
        expect_ok(shoal_feed_stage(feed, decoder, name, &record, index, index, tops, 2, &err),
                  &err);
        if (memcmp(sample, want + i * count * sizeof *sample, count * sizeof *sample) != 0)
            fail_msg("%s, record %u: other values than Caffe's", name, (unsigned)index);
    }
    shoal_datum_decoder_destroy(decoder);
    shoal_free(sample);
    shoal_free(want);
}

/* NAME.prototxt of the goldens: all of its batches. */
static void compare_case(const char *name, unsigned batches) {
    char path[128], source[256];
    snprintf(path, sizeof path, "08-transforms/%s.prototxt", name);
    ShoalCaffeNet net;
    read_net(golden(path), &net);
    Caffe__LayerParameter *layer = net.param->layer[0];
    char *own = layer->data_param->source;
    snprintf(source, sizeof source, "08-transforms/%s", own);
    layer->data_param->source = (char *)golden(source);
    Caffe__BlobProto *mean = NULL;
    if (layer->transform_param && layer->transform_param->mean_file) {
        size_t size;
        snprintf(source, sizeof source, "08-transforms/%s", layer->transform_param->mean_file);
        unsigned char *bytes = read_file(golden(source), &size);
        mean = caffe__blob_proto__unpack(NULL, size, bytes);
        assert_non_null(mean);
        shoal_free(bytes);
    }
    ShoalError err = {0};
    ShoalDataset *dataset = NULL;
    ShoalRecordShape shape;
    ShoalFeed *feed = NULL;
    ShoalFeedOptions options = {.seed = 1, .mean = mean};
    expect_ok(shoal_dataset_open_for(layer, &dataset, &err), &err);
    expect_ok(shoal_feed_describe(layer, dataset, &shape, &err), &err);
    expect_ok(shoal_feed_create(layer, &shape, &options, &feed, &err), &err);
    for (unsigned batch = 0; batch < batches; batch++)
        compare_batch(feed, dataset, name, batch);
    shoal_feed_destroy(feed);
    shoal_dataset_close(dataset);
    layer->data_param->source = own;
    if (mean)
        caffe__blob_proto__free_unpacked(mean, NULL);
    shoal_caffe_net_close(&net);
}

static void values_are_caffes(void **state) {
    (void)state;
    NEEDS_GOLDENS();
    static const struct {
        const char *name;
        unsigned batches;
    } CASES[] = {{"jpeg_plain", 1},
                 {"jpegmix_plain", 2},
                 {"jpegmix_crop32", 4},
                 {"jpegmix_crop33", 2},
                 {"jpegmix_mean1", 1},
                 {"raw_meanfile_crop27", 2},
                 {"png_encoded", 2},
                 {"gray_plain", 1},
                 {"gray_force_color", 1},
                 {"color_force_gray", 1},
                 {"decoded_lmdb", 1},
                 {"resized_lmdb", 1},
                 {"mnist", 1}};
    for (size_t i = 0; i < sizeof CASES / sizeof CASES[0]; i++)
        compare_case(CASES[i].name, CASES[i].batches);
}

/* convert_imageset's resize, of Caffe: the same images, and ImageData's new_height, new_width. */
static void resized_files_are_caffes(void **state) {
    (void)state;
    NEEDS_GOLDENS();
    Caffe__LayerParameter layer = CAFFE__LAYER_PARAMETER__INIT;
    Caffe__ImageDataParameter images = CAFFE__IMAGE_DATA_PARAMETER__INIT;
    layer.type = (char *)"ImageData";
    layer.image_data_param = &images;
    char root[512], list[512];
    snprintf(root, sizeof root, "%s/", golden("data/jpegmix"));
    snprintf(list, sizeof list, "%s", golden("data/jpegmix_list.txt"));
    images.source = list;
    images.root_folder = root;
    images.new_height = 24;
    images.new_width = 28;
    ShoalError err = {0};
    ShoalDataset *dataset = NULL;
    ShoalRecordShape shape;
    ShoalFeed *feed = NULL;
    ShoalFeedOptions options = {.seed = 1};
    expect_ok(shoal_dataset_open_for(&layer, &dataset, &err), &err);
    assert_int_equal(shoal_dataset_count(dataset), 64);
    expect_ok(shoal_feed_describe(&layer, dataset, &shape, &err), &err);
    expect_ok(shoal_feed_create(&layer, &shape, &options, &feed, &err), &err);
    compare_batch(feed, dataset, "resized_lmdb", 0);
    shoal_feed_destroy(feed);
    shoal_dataset_close(dataset);
}

/* ---- Intel Caffe's resizes ---- */

typedef struct Params {
    Caffe__TransformationParameter transform;
    Caffe__RandomResizeParameter random;
    Caffe__RandomAspectRatioParameter aspect;
    Caffe__ResizeParameter resize;
} Params;

static void init_params(Params *p) {
    caffe__transformation_parameter__init(&p->transform);
    caffe__random_resize_parameter__init(&p->random);
    caffe__random_aspect_ratio_parameter__init(&p->aspect);
    caffe__resize_parameter__init(&p->resize);
    p->transform.crop_size = 32;
}

static ShoalImageSteps plan(Params *p, int height, int width, uint64_t sample) {
    ShoalImageScale scale;
    ShoalError err = {0};
    ShoalImageSteps steps;
    expect_ok(shoal_image_scale_init(&scale, &p->transform, 11, &err), &err);
    shoal_image_scale_plan(&scale, height, width, sample, &steps);
    return steps;
}

static void the_shorter_side_is_drawn(void **state) {
    (void)state;
    Params p;
    init_params(&p);
    p.transform.random_resize_param = &p.random;
    p.random.min_size = 40;
    p.random.max_size = 43;
    unsigned seen[4] = {0};
    for (uint64_t n = 0; n < 200; n++) {
        ShoalImageSteps steps = plan(&p, 100, 150, n);
        assert_int_equal(steps.n, 1);
        assert_in_range(steps.steps[0].height, 40, 43);
        assert_int_equal(steps.steps[0].width, (int)(1.5f * (float)steps.steps[0].height));
        assert_int_equal(steps.steps[0].part.width, 150);
        seen[steps.steps[0].height - 40]++;
        ShoalImageSteps again = plan(&p, 100, 150, n);
        assert_memory_equal(&steps, &again, sizeof steps);
    }
    for (int i = 0; i < 4; i++)
        assert_in_range(seen[i], 20, 90);
    p.random.min_size = p.random.max_size = 256;
    ShoalImageSteps steps = plan(&p, 500, 375, 0);
    assert_int_equal(steps.steps[0].width, 256);
    assert_int_equal(steps.steps[0].height, 341);
    p.random.min_size = p.random.max_size = 0;
    steps = plan(&p, 50, 50, 0);
    assert_int_equal(steps.steps[0].height, 50);
}

static void parts_have_the_drawn_area(void **state) {
    (void)state;
    Params p;
    init_params(&p);
    p.transform.random_aspect_ratio_param = &p.aspect;
    p.aspect.min_area_ratio = 0.08f;
    p.aspect.aspect_ratio_change = 0.75f;
    unsigned tall = 0, small = 0;
    for (uint64_t n = 0; n < 1000; n++) {
        ShoalImageSteps steps = plan(&p, 375, 500, n);
        const ShoalImagePart *part = &steps.steps[0].part;
        assert_int_equal(steps.n, 1);
        assert_in_range(part->top, 0, 375 - part->height);
        assert_in_range(part->left, 0, 500 - part->width);
        if (part->height == 375 && part->width == 500) { /* no attempt has fitted */
            assert_int_equal(steps.steps[0].height, 32);
            assert_int_equal(steps.steps[0].width, 42);
            continue;
        }
        assert_int_equal(steps.steps[0].height, 32);
        assert_int_equal(steps.steps[0].width, 32);
        double area = (double)part->height * part->width / (375 * 500),
               aspect = (double)part->height / part->width;
        assert_true(area > 0.07 && area <= 1);
        assert_true(aspect > 0.55 && aspect < 1.81); /* 0.75 squared, and less than a pixel */
        tall += aspect > 1;
        small += area < 0.3;
    }
    assert_in_range(tall, 350, 650);
    assert_in_range(small, 200, 500);
    p.aspect.max_attempt = 0;
    ShoalImageSteps steps = plan(&p, 10, 20, 0);
    assert_int_equal(steps.steps[0].height, 32);
    assert_int_equal(steps.steps[0].width, 64);
}

static void a_resize_comes_last(void **state) {
    (void)state;
    Params p;
    init_params(&p);
    p.transform.random_resize_param = &p.random;
    p.transform.resize_param = &p.resize;
    p.random.min_size = p.random.max_size = 40;
    p.resize.height = 64;
    p.resize.width = 48;
    ShoalImageSteps steps = plan(&p, 100, 150, 0);
    assert_int_equal(steps.n, 2);
    assert_int_equal(steps.steps[1].part.width, 60);
    assert_int_equal(steps.steps[1].height, 64);
    assert_int_equal(steps.steps[1].width, 48);
    p.resize.resize_mode = CAFFE__RESIZE_PARAMETER__RESIZE_MODE__FIT_SMALL_SIZE;
    steps = plan(&p, 100, 150, 0);
    assert_int_equal(steps.steps[1].height, 64);
    assert_int_equal(steps.steps[1].width, 96);
    Caffe__ResizeParameter__InterpMode modes[] = {CAFFE__RESIZE_PARAMETER__INTERP_MODE__CUBIC,
                                                  CAFFE__RESIZE_PARAMETER__INTERP_MODE__NEAREST};
    p.resize.interp_mode = modes;
    p.resize.n_interp_mode = 2;
    unsigned cubic = 0;
    for (uint64_t n = 0; n < 100; n++) {
        steps = plan(&p, 100, 150, n);
        assert_int_not_equal(steps.steps[1].how, SHOAL_RESIZE_LINEAR);
        cubic += steps.steps[1].how == SHOAL_RESIZE_CUBIC;
    }
    assert_in_range(cubic, 25, 75);
}

static void expect_refused(Params *p, ShoalStatus status, const char *part) {
    ShoalImageScale scale;
    ShoalError err = {0};
    expect_error(shoal_image_scale_init(&scale, &p->transform, 11, &err), &err, status, part);
}

static void senseless_resizes_are_refused(void **state) {
    (void)state;
    Params p;
    init_params(&p);
    p.transform.resize_param = &p.resize;
    expect_refused(&p, SHOAL_ERR_MODEL, "resize_param: height 0 and width 0");
    p.resize.height = p.resize.width = 8;
    p.resize.resize_mode = CAFFE__RESIZE_PARAMETER__RESIZE_MODE__FIT_LARGE_SIZE_AND_PAD;
    expect_refused(&p, SHOAL_ERR_UNSUPPORTED, "FIT_LARGE_SIZE_AND_PAD");
    Caffe__ResizeParameter__InterpMode area = CAFFE__RESIZE_PARAMETER__INTERP_MODE__AREA;
    p.resize.interp_mode = &area;
    p.resize.n_interp_mode = 1;
    expect_refused(&p, SHOAL_ERR_UNSUPPORTED, "interp_mode AREA");
    init_params(&p);
    p.transform.random_aspect_ratio_param = &p.aspect;
    p.transform.crop_size = 0;
    expect_refused(&p, SHOAL_ERR_MODEL, "crop_size 0");
    p.transform.crop_size = 8;
    p.aspect.aspect_ratio_change = 0;
    expect_refused(&p, SHOAL_ERR_MODEL, "aspect_ratio_change 0");
    p.aspect.aspect_ratio_change = NAN;
    expect_refused(&p, SHOAL_ERR_MODEL, "aspect_ratio_change");
    init_params(&p);
    p.transform.random_resize_param = &p.random;
    p.random.min_size = 9;
    p.random.max_size = 8;
    expect_refused(&p, SHOAL_ERR_MODEL, "min_size 9, max_size 8");
}

/* ---- samples of resized images ---- */

enum { HEIGHT = 96, WIDTH = 128, CROP = 24 };

static size_t make_record(unsigned char *out, bool encoded) {
    static uint8_t pixels[HEIGHT * WIDTH * 3], planes[HEIGHT * WIDTH * 3];
    for (int y = 0; y < HEIGHT; y++)
        for (int x = 0; x < WIDTH; x++)
            for (int c = 0; c < 3; c++)
                pixels[(y * WIDTH + x) * 3 + c] = (uint8_t)(y + x / 2 + 20 * c);
    ShoalImage image = {3, HEIGHT, WIDTH, pixels};
    Caffe__Datum datum = CAFFE__DATUM__INIT;
    void *bytes = NULL;
    datum.has_data = datum.has_label = datum.has_encoded = 1;
    datum.label = 6;
    datum.encoded = encoded;
    if (encoded) {
        ShoalError err = {0};
        expect_ok(shoal_image_encode_jpeg(&image, 95, &bytes, &datum.data.len, &err), &err);
        datum.data.data = bytes;
    } else {
        shoal_image_planes(&image, planes);
        datum.data = (ProtobufCBinaryData){sizeof planes, planes};
        datum.has_channels = datum.has_height = datum.has_width = 1;
        datum.channels = 3;
        datum.height = HEIGHT;
        datum.width = WIDTH;
    }
    size_t size = caffe__datum__pack(&datum, out);
    shoal_free(bytes);
    return size;
}

/* A JPEG, the same decoded smaller, and raw: nearly the same samples, as the picture is smooth. */
static void ways_agree(void **state) {
    (void)state;
    static unsigned char packed[2 * HEIGHT * WIDTH * 3];
    static float out[3][3 * CROP * CROP];
    Params p;
    init_params(&p);
    p.transform.crop_size = CROP;
    p.transform.mirror = 1;
    p.transform.random_aspect_ratio_param = &p.aspect;
    Caffe__LayerParameter layer = CAFFE__LAYER_PARAMETER__INIT;
    layer.type = (char *)"Data";
    layer.transform_param = &p.transform;
    ShoalRecordShape shape = {1, {{3, {3, HEIGHT, WIDTH}}}};
    ShoalDatumDecoder *decoder = shoal_datum_decoder_create();
    unsigned differ = 0;
    for (uint64_t sample = 0; sample < 40; sample++) {
        for (int way = 0; way < 3; way++) {
            ShoalError err = {0};
            ShoalFeed *feed = NULL;
            ShoalFeedOptions options = {.train = true, .seed = 5, .fast_decode = way == 1};
            expect_ok(shoal_feed_create(&layer, &shape, &options, &feed, &err), &err);
            int axes, dims[SHOAL_FEED_AXES];
            shoal_feed_shape(feed, 0, &axes, dims);
            assert_int_equal(dims[1], CROP);
            ShoalRecord record = {packed, make_record(packed, way != 2)};
            float label, *tops[] = {out[way], &label};
            expect_ok(shoal_feed_stage(feed, decoder, "d", &record, 0, sample, tops, 2, &err),
                      &err);
            assert_true(label == 6);
            shoal_feed_destroy(feed);
        }
        for (int i = 0; i < 3 * CROP * CROP; i++) {
            assert_true(fabsf(out[0][i] - out[1][i]) <= 6);
            assert_true(fabsf(out[0][i] - out[2][i]) <= 6);
            differ += out[0][i] != out[1][i];
        }
    }
    assert_true(differ > 0); /* or nothing was decoded smaller */
    shoal_datum_decoder_destroy(decoder);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_are_caffes),
        cmocka_unit_test(resized_files_are_caffes),
        cmocka_unit_test(the_shorter_side_is_drawn),
        cmocka_unit_test(parts_have_the_drawn_area),
        cmocka_unit_test(a_resize_comes_last),
        cmocka_unit_test(senseless_resizes_are_refused),
        cmocka_unit_test(ways_agree),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
