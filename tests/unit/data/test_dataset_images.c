/* SPDX-License-Identifier: Apache-2.0 */
#include "scratch.h"

#include "caffe/caffe.pb-c.h"
#include "data/dataset.h"
#include "data/feed.h"
#include "data/image.h"

typedef struct Layer {
    Caffe__LayerParameter layer;
    Caffe__ImageDataParameter images;
    Caffe__TransformationParameter transform;
    char root[128];
} Layer;

/* A list in the scratch folder, and a layer that reads it. */
static void init_layer(Layer *l, const char *list) {
    write_file(scratch("list.txt"), list, strlen(list));
    caffe__layer_parameter__init(&l->layer);
    caffe__image_data_parameter__init(&l->images);
    caffe__transformation_parameter__init(&l->transform);
    l->layer.type = (char *)"ImageData";
    l->layer.image_data_param = &l->images;
    l->layer.transform_param = &l->transform;
    l->images.source = (char *)scratch("list.txt");
    snprintf(l->root, sizeof l->root, "%s/", scratch_folder);
    l->images.root_folder = l->root;
}

static ShoalDataset *open_ok(Layer *l) {
    ShoalError err = {0};
    ShoalDataset *dataset = NULL;
    expect_ok(shoal_dataset_open_for(&l->layer, &dataset, &err), &err);
    return dataset;
}

/* A PNG of one colour. */
static void make_image(const char *name, int height, int width, const uint8_t colour[3]) {
    ShoalError err = {0};
    uint8_t *pixels = shoal_calloc((size_t)(height * width * 3), 1);
    for (int i = 0; i < height * width * 3; i++)
        pixels[i] = colour[i % 3];
    ShoalImage image = {3, height, width, pixels};
    void *bytes;
    size_t size;
    expect_ok(shoal_image_encode_png(&image, &bytes, &size, &err), &err);
    write_file(scratch(name), bytes, size);
    shoal_free(bytes);
    shoal_free(pixels);
}

static const uint8_t RED[] = {0, 0, 200}, BLUE[] = {100, 0, 0};

static void files_and_labels_are_found(void **state) {
    (void)state;
    make_image("red.png", 4, 6, RED);
    make_image("dark blue.png", 4, 6, BLUE);
    Layer l;
    init_layer(&l, "red.png 3\n\n  \ndark blue.png -7\r\nred.png 0");
    ShoalDataset *dataset = open_ok(&l);
    assert_int_equal(shoal_dataset_count(dataset), 3);
    static const int LABELS[] = {3, -7, 0};
    ShoalDatumDecoder *decoder = shoal_datum_decoder_create();
    for (uint64_t i = 0; i < 3; i++) {
        ShoalError err = {0};
        ShoalRecord record;
        ShoalDatum datum;
        expect_ok(shoal_dataset_record(dataset, i, &record, &err), &err);
        expect_ok(shoal_datum_parse(decoder, record.bytes, record.size, "d", i, &datum, &err),
                  &err);
        assert_int_equal(datum.label, LABELS[i]);
        assert_int_equal(datum.channels, 3);
        assert_int_equal(datum.height, 4);
        assert_int_equal(datum.bytes[0], i == 1 ? 100 : 0);
        assert_int_equal(datum.bytes[2 * 24], i == 1 ? 0 : 200);
    }
    shoal_datum_decoder_destroy(decoder);
    shoal_dataset_close(dataset);
}

static void stage(Layer *l, uint64_t index, float *sample, float *label, ShoalError *err) {
    ShoalDataset *dataset = open_ok(l);
    ShoalRecordShape shape;
    ShoalFeed *feed = NULL;
    ShoalFeedOptions options = {.seed = 3};
    ShoalRecord record;
    float *tops[] = {sample, label};
    ShoalDatumDecoder *decoder = shoal_datum_decoder_create();
    expect_ok(shoal_feed_describe(&l->layer, dataset, &shape, err), err);
    expect_ok(shoal_feed_create(&l->layer, &shape, &options, &feed, err), err);
    expect_ok(shoal_dataset_record(dataset, index, &record, err), err);
    shoal_feed_stage(feed, decoder, "list", &record, index, 0, tops, 2, err);
    shoal_datum_decoder_destroy(decoder);
    shoal_feed_destroy(feed);
    shoal_dataset_close(dataset);
}

static void images_are_resized(void **state) {
    (void)state;
    make_image("red.png", 4, 6, RED);
    make_image("blue.png", 9, 5, BLUE);
    Layer l;
    init_layer(&l, "red.png 3\nblue.png 4\n");
    l.images.new_height = 5;
    l.images.new_width = 2;
    float sample[3 * 5 * 2], label;
    ShoalError err = {0};
    stage(&l, 1, sample, &label, &err);
    expect_ok(err.status, &err);
    assert_true(label == 4);
    for (int i = 0; i < 30; i++)
        assert_true(sample[i] == (i < 10 ? 100.0f : 0.0f));
}

static void grey_is_one_channel(void **state) {
    (void)state;
    make_image("red.png", 4, 6, RED);
    Layer l;
    init_layer(&l, "red.png 3\n");
    l.images.is_color = 0;
    float sample[4 * 6], label;
    ShoalError err = {0};
    stage(&l, 0, sample, &label, &err);
    expect_ok(err.status, &err);
    for (int i = 0; i < 24; i++)
        assert_true(sample[i] >= 59 && sample[i] <= 60); /* 0.299 * 200 */
}

static void other_sizes_are_refused(void **state) {
    (void)state;
    make_image("red.png", 4, 6, RED);
    make_image("blue.png", 9, 5, BLUE);
    Layer l;
    init_layer(&l, "red.png 3\nblue.png 4\n");
    float sample[3 * 4 * 6], label;
    ShoalError err = {0};
    stage(&l, 1, sample, &label, &err);
    expect_error(err.status, &err, SHOAL_ERR_DATA, "record 1 of list: 3 x 9 x 5");
}

static void one_new_size_is_refused(void **state) {
    (void)state;
    make_image("red.png", 4, 6, RED);
    Layer l;
    init_layer(&l, "red.png 3\n");
    l.images.new_height = 5;
    ShoalDataset *dataset = open_ok(&l);
    ShoalError err = {0};
    ShoalRecordShape shape;
    expect_error(shoal_feed_describe(&l.layer, dataset, &shape, &err), &err, SHOAL_ERR_MODEL,
                 "new_height 5, new_width 0; give both or none");
    shoal_dataset_close(dataset);
}

static void wrong_lists_are_refused(void **state) {
    (void)state;
    static const struct {
        const char *list, *part;
    } BAD[] = {{"", "no images in it"},
               {"\n \n", "no images in it"},
               {"a.png 1\nb.png\n", "line 2 of "},
               {"a.png one", "expected FILE LABEL"},
               {"a.png 1.5", "expected FILE LABEL"},
               {" 5", "expected FILE LABEL"},
               {"a.png 99999999999", "expected FILE LABEL"}};
    for (size_t i = 0; i < sizeof BAD / sizeof BAD[0]; i++) {
        Layer l;
        init_layer(&l, BAD[i].list);
        ShoalError err = {0};
        ShoalDataset *dataset = NULL;
        expect_error(shoal_dataset_open_for(&l.layer, &dataset, &err), &err, SHOAL_ERR_DATA,
                     BAD[i].part);
        assert_null(dataset);
    }
    Layer l;
    init_layer(&l, "a");
    write_file(scratch("list.txt"), "a\0b 1", 6);
    l.images.source = (char *)scratch("list.txt");
    ShoalError err = {0};
    ShoalDataset *dataset = NULL;
    expect_error(shoal_dataset_open_for(&l.layer, &dataset, &err), &err, SHOAL_ERR_DATA,
                 "not a text file");
    l.images.source = (char *)scratch("none.txt");
    err = (ShoalError){0};
    expect_error(shoal_dataset_open_for(&l.layer, &dataset, &err), &err, SHOAL_ERR_IO, "none.txt");
}

static void bad_files_name_list_and_line(void **state) {
    (void)state;
    write_file(scratch("empty.png"), "", 0);
    Layer l;
    init_layer(&l, "\nmissing.png 1\nempty.png 2\n. 3\n");
    ShoalDataset *dataset = open_ok(&l);
    static const struct {
        ShoalStatus status;
        const char *part, *file;
    } WANT[] = {{SHOAL_ERR_IO, "record 0 (line 2 of ", "missing.png: "},
                {SHOAL_ERR_DATA, "record 1 (line 3 of ", "empty.png: 0 bytes"},
                {SHOAL_ERR_IO, "record 2 (line 4 of ", "not a regular file"}};
    for (uint64_t i = 0; i < 3; i++) {
        ShoalError err = {0};
        ShoalRecord record;
        ShoalStatus status = shoal_dataset_record(dataset, i, &record, &err);
        expect_error(status, &err, WANT[i].status, WANT[i].part);
        expect_error(status, &err, WANT[i].status, WANT[i].file);
    }
    shoal_dataset_close(dataset);
}

static void steady_state_allocates_nothing(void **state) {
    (void)state;
    make_image("red.png", 4, 6, RED);
    Layer l;
    init_layer(&l, "red.png 3\nred.png 4\n");
    ShoalDataset *dataset = open_ok(&l);
    uint64_t before = 0;
    for (int i = 0; i < 6; i++) {
        ShoalError err = {0};
        ShoalRecord record;
        expect_ok(shoal_dataset_record(dataset, (uint64_t)i % 2, &record, &err), &err);
        if (i == 0)
            before = shoal_memory_allocations();
    }
    assert_int_equal(shoal_memory_allocations(), before);
    shoal_dataset_close(dataset);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(files_and_labels_are_found),
        cmocka_unit_test(images_are_resized),
        cmocka_unit_test(grey_is_one_channel),
        cmocka_unit_test(other_sizes_are_refused),
        cmocka_unit_test(one_new_size_is_refused),
        cmocka_unit_test(wrong_lists_are_refused),
        cmocka_unit_test(bad_files_name_list_and_line),
        cmocka_unit_test(steady_state_allocates_nothing),
    };
    return cmocka_run_group_tests(tests, scratch_setup, scratch_teardown);
}
