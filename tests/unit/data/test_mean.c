/* SPDX-License-Identifier: Apache-2.0 */
#include "scratch.h"

#include "caffe/caffe.pb-c.h"
#include "data/writer.h"
#include "shoal/tools.h"

static void same_file_as_caffes_tool(void **state) {
    (void)state;
    NEEDS_GOLDENS();
    ShoalMean mean;
    ShoalError err = {0};
    expect_ok(shoal_compute_mean(golden("data/color256_lmdb"), scratch("mean"), NULL, &mean, &err),
              &err);
    size_t size, expected_size;
    unsigned char *bytes = read_file(scratch("mean"), &size);
    unsigned char *expected = read_file(golden("data/color256_mean.binaryproto"), &expected_size);
    assert_int_equal(size, expected_size);
    assert_memory_equal(bytes, expected, size);
    shoal_free(bytes);
    shoal_free(expected);
    assert_int_equal(mean.records, 256);
    assert_int_equal(mean.channels, 3);
    shoal_mean_close(&mean);
    /* Encoded images are decoded: the same images as PNG. */
    expect_ok(shoal_compute_mean(golden("data/png32_encoded_lmdb"), NULL, NULL, &mean, &err), &err);
    assert_int_equal(mean.records, 32);
    assert_int_equal(mean.channels, 3);
    shoal_mean_close(&mean);
}

/* Records of 2 x 1 x width: floats when they are given, else bytes. */
static void put(ShoalDatasetWriter *writer, const char *key, int width, const float *floats,
                const uint8_t *bytes) {
    Caffe__Datum datum;
    caffe__datum__init(&datum);
    datum.has_channels = datum.has_height = datum.has_width = 1;
    datum.channels = 2;
    datum.height = 1;
    datum.width = width;
    datum.float_data = (float *)floats;
    datum.n_float_data = floats ? 2 * (size_t)width : 0;
    datum.has_data = bytes != NULL;
    datum.data.data = (uint8_t *)bytes;
    datum.data.len = bytes ? 2 * (size_t)width : 0;
    unsigned char value[128];
    ShoalError err = {0};
    size_t size = caffe__datum__pack(&datum, value);
    expect_ok(shoal_dataset_writer_put(writer, key, strlen(key), value, size, &err), &err);
}

static void make_dataset(int last_width) {
    remove_tree(scratch("db"));
    ShoalDatasetWriter *writer;
    ShoalError err = {0};
    expect_ok(shoal_dataset_writer_create(scratch("db"), &writer, &err), &err);
    put(writer, "0", 2, NULL, (const uint8_t[]){0, 255, 10, 20});
    put(writer, "1", 2, (const float[]){1.5f, -2.5f, 0, 4}, NULL);
    put(writer, "2", last_width, NULL, (const uint8_t[]){6, 7, 8, 9, 1, 1});
    expect_ok(shoal_dataset_writer_close(writer, &err), &err);
}

static void bytes_and_floats(void **state) {
    (void)state;
    make_dataset(2);
    ShoalMean mean;
    ShoalError err = {0};
    expect_ok(shoal_compute_mean(scratch("db"), scratch("new"), NULL, &mean, &err), &err);
    assert_int_equal(mean.records, 3);
    assert_int_equal(mean.channels, 2);
    assert_true(mean.values[0] == (7.5f / 3 + 259.5f / 3) / 2);
    assert_true(mean.values[1] == (18.0f / 3 + 33.0f / 3) / 2);
    shoal_mean_close(&mean);
    size_t size;
    unsigned char *bytes = read_file(scratch("new"), &size);
    Caffe__BlobProto *blob = caffe__blob_proto__unpack(NULL, size, bytes);
    shoal_free(bytes);
    assert_non_null(blob);
    assert_int_equal(blob->num, 1);
    assert_int_equal(blob->channels, 2);
    assert_int_equal(blob->height, 1);
    assert_int_equal(blob->width, 2);
    assert_int_equal(blob->n_data, 4);
    assert_true(blob->data[0] == 7.5f / 3 && blob->data[1] == 259.5f / 3);
    assert_true(blob->data[2] == 18.0f / 3 && blob->data[3] == 33.0f / 3);
    caffe__blob_proto__free_unpacked(blob, NULL);
}

static void wrong_datasets(void **state) {
    (void)state;
    make_dataset(3);
    ShoalMean mean = {0};
    ShoalError err = {0};
    expect_error(shoal_compute_mean(scratch("db"), scratch("mean2"), NULL, &mean, &err), &err,
                 SHOAL_ERR_DATA, "2 x 1 x 3; the first is 2 x 1 x 2");
    assert_false(exists(scratch("mean2")));
    shoal_error_clear(&err);
    expect_error(shoal_compute_mean(scratch("none"), NULL, NULL, &mean, &err), &err, SHOAL_ERR_IO,
                 "none");
    make_dataset(2);
    shoal_error_clear(&err);
    expect_error(shoal_compute_mean(scratch("db"), scratch("no/mean"), NULL, &mean, &err), &err,
                 SHOAL_ERR_IO, "no/mean");
    assert_null(mean.values);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(same_file_as_caffes_tool),
        cmocka_unit_test(bytes_and_floats),
        cmocka_unit_test(wrong_datasets),
    };
    return cmocka_run_group_tests(tests, scratch_setup, scratch_teardown);
}
