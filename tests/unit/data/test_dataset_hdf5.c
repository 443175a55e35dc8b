/* SPDX-License-Identifier: Apache-2.0 */
#include "scratch.h"

#include "caffe/caffe.pb-c.h"
#include "caffe/hdf5.h"
#include "data/dataset.h"
#include "data/feed.h"

typedef struct Layer {
    Caffe__LayerParameter layer;
    Caffe__HDF5DataParameter hdf5;
    char *tops[2];
    char list[512];
} Layer;

/* A layer whose list has a line for each file. */
static void init_layer(Layer *l, const char *const *files, int n) {
    char text[8192] = "";
    for (int i = 0; i < n; i++)
        snprintf(text + strlen(text), sizeof text - strlen(text), "%s%s", scratch(files[i]),
                 i % 2 ? "  \n\n" : "\n");
    caffe__layer_parameter__init(&l->layer);
    caffe__hdf5_data_parameter__init(&l->hdf5);
    snprintf(l->list, sizeof l->list, "%s", scratch("list.txt"));
    write_file(l->list, text, strlen(text));
    l->tops[0] = (char *)"data";
    l->tops[1] = (char *)"label";
    l->layer.type = (char *)"HDF5Data";
    l->layer.top = l->tops;
    l->layer.n_top = 2;
    l->layer.hdf5_data_param = &l->hdf5;
    l->hdf5.source = l->list;
}

static float value_of(uint64_t record, int at) {
    return (float)record + (float)at / 128;
}

/* Rows first.. of shape [2][width], labels with them. */
static void make_file(const char *name, uint64_t first, int rows, int width) {
    ShoalError err = {0};
    ShoalHdf5Writer *writer;
    ShoalStatus status = shoal_hdf5_writer_create(scratch(name), &writer, &err);
    if (status == SHOAL_ERR_UNSUPPORTED)
        skip();
    expect_ok(status, &err);
    float *values = shoal_calloc((size_t)rows * 2 * (size_t)width, sizeof *values);
    for (int i = 0; i < rows * 2 * width; i++)
        values[i] = value_of(first + (uint64_t)(i / (2 * width)), i % (2 * width));
    expect_ok(shoal_hdf5_writer_append(writer, "data", 3, (int[]){rows, 2, width}, values, &err),
              &err);
    for (int i = 0; i < rows; i++)
        values[i] = (float)(first + (uint64_t)i) / 2;
    expect_ok(shoal_hdf5_writer_append(writer, "label", 1, (int[]){rows}, values, &err), &err);
    shoal_free(values);
    shoal_hdf5_writer_close(writer);
}

static ShoalDataset *open_ok(Layer *l) {
    ShoalError err = {0};
    ShoalDataset *dataset = NULL;
    expect_ok(shoal_dataset_open_for(&l->layer, &dataset, &err), &err);
    return dataset;
}

static void check_record(ShoalDataset *dataset, uint64_t index, int width) {
    ShoalError err = {0};
    ShoalRecord record;
    expect_ok(shoal_dataset_record(dataset, index, &record, &err), &err);
    assert_int_equal(record.size, (size_t)(2 * width + 1) * sizeof(float));
    const float *values = record.bytes;
    for (int i = 0; i < 2 * width; i++)
        assert_float_equal(values[i], value_of(index, i), 0);
    assert_float_equal(values[2 * width], (float)index / 2, 0);
}

static void rows_of_all_files_are_records(void **state) {
    (void)state;
    const char *files[] = {"a.h5", "b.h5", "c.h5"};
    make_file("a.h5", 0, 3, 4);
    make_file("b.h5", 3, 7, 4);
    make_file("c.h5", 10, 1, 4);
    Layer l;
    init_layer(&l, files, 3);
    ShoalDataset *dataset = open_ok(&l);
    assert_int_equal(shoal_dataset_count(dataset), 11);
    for (uint64_t i = 0; i < 22; i++)
        check_record(dataset, i % 11, 4);
    for (uint64_t i = 0; i < 22; i++)
        check_record(dataset, i * 7 % 11, 4);
    ShoalRecordShape shape;
    ShoalError err = {0};
    expect_ok(shoal_feed_describe(&l.layer, dataset, &shape, &err), &err);
    assert_int_equal(shape.n, 2);
    assert_int_equal(shape.tops[0].axes, 2);
    assert_int_equal(shape.tops[0].dims[0], 2);
    assert_int_equal(shape.tops[0].dims[1], 4);
    assert_int_equal(shape.tops[1].axes, 0);
    shoal_dataset_close(dataset);
}

/* Rows beyond one block, rows of more than a block, and more files than are open at a time. */
static void blocks_and_files_take_turns(void **state) {
    (void)state;
    enum { FILES = 40 };
    static char names[FILES][16];
    const char *files[FILES];
    make_file("long.h5", 0, 9000, 3);
    make_file("wide.h5", 0, 5, 20000);
    Layer l;
    init_layer(&l, (const char *[]){"long.h5"}, 1);
    ShoalDataset *dataset = open_ok(&l);
    for (uint64_t i = 0; i < 2000; i++)
        check_record(dataset, i * 7919 % 9000, 3);
    for (uint64_t i = 0; i < 9000; i++)
        check_record(dataset, i, 3);
    shoal_dataset_close(dataset);
    init_layer(&l, (const char *[]){"wide.h5"}, 1);
    dataset = open_ok(&l);
    for (uint64_t i = 0; i < 10; i++)
        check_record(dataset, i * 3 % 5, 20000);
    shoal_dataset_close(dataset);
    for (int i = 0; i < FILES; i++) {
        snprintf(names[i], sizeof names[i], "%d.h5", i);
        files[i] = names[i];
        make_file(names[i], (uint64_t)i * 2, 2, 1);
    }
    init_layer(&l, files, FILES);
    dataset = open_ok(&l);
    for (uint64_t i = 0; i < 400; i++)
        check_record(dataset, i * 37 % 80, 1);
    shoal_dataset_close(dataset);
}

static void open_fails(Layer *l, ShoalStatus expected, const char *part) {
    ShoalError err = {0};
    ShoalDataset *dataset = NULL;
    ShoalStatus status = shoal_dataset_open_for(&l->layer, &dataset, &err);
    expect_error(status, &err, expected, part);
}

static void wrong_lists_and_files_are_told(void **state) {
    (void)state;
    Layer l;
    make_file("a.h5", 0, 3, 4);
    make_file("other.h5", 0, 3, 5);
    init_layer(&l, NULL, 0);
    open_fails(&l, SHOAL_ERR_DATA, "list.txt: 0 names of HDF5 files in it");
    init_layer(&l, (const char *[]){"a.h5", "missing.h5"}, 2);
    open_fails(&l, SHOAL_ERR_IO, "missing.h5: cannot open");
    init_layer(&l, (const char *[]){"a.h5", "list.txt"}, 2);
    open_fails(&l, SHOAL_ERR_DATA, "list.txt: not an HDF5 file");
    init_layer(&l, (const char *[]){"a.h5", "other.h5"}, 2);
    open_fails(&l, SHOAL_ERR_DATA, "the rows of dataset 'data' have another shape than those of");
    init_layer(&l, (const char *[]){"a.h5"}, 1);
    l.tops[1] = (char *)"labels";
    open_fails(&l, SHOAL_ERR_DATA, "no dataset 'labels' in it");
    init_layer(&l, (const char *[]){"a.h5"}, 1);
    l.layer.n_top = 0;
    open_fails(&l, SHOAL_ERR_MODEL, "HDF5Data with 0 tops");
    write_file(l.list, "a\0b", 3);
    l.layer.n_top = 1;
    open_fails(&l, SHOAL_ERR_DATA, "not a text file");
}

/* A file that is not open at the moment may be replaced. */
static void changed_files_are_told(void **state) {
    (void)state;
    make_file("a.h5", 0, 3, 4);
    make_file("b.h5", 3, 3, 4);
    Layer l;
    init_layer(&l, (const char *[]){"a.h5", "b.h5"}, 2);
    ShoalDataset *dataset = open_ok(&l);
    check_record(dataset, 0, 4);
    make_file("b.h5", 3, 2, 4);
    ShoalError err = {0};
    ShoalRecord record;
    ShoalStatus status = shoal_dataset_record(dataset, 4, &record, &err);
    expect_error(status, &err, SHOAL_ERR_DATA, "b.h5: has changed since the run began");
    check_record(dataset, 1, 4);
    shoal_dataset_close(dataset);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_of_all_files_are_records),
        cmocka_unit_test(blocks_and_files_take_turns),
        cmocka_unit_test(wrong_lists_and_files_are_told),
        cmocka_unit_test(changed_files_are_told),
    };
    return cmocka_run_group_tests(tests, scratch_setup, scratch_teardown);
}
