/* SPDX-License-Identifier: Apache-2.0 */
#include "same_records.h"

#include "data/dataset.h"
#include "data/datum.h"
#include "shoal/tools.h"

typedef struct Progress {
    unsigned calls;
    uint64_t done, total;
} Progress;

static void note_progress(void *context, uint64_t done, uint64_t total) {
    Progress *progress = context;
    progress->calls++;
    assert_true(done > progress->done);
    progress->done = done;
    progress->total = total;
}

/* The converted files have the records, key and value, of the LMDB that Caffe's tool made. */
static void compare_with_caffe(const char *kind, const char *caffe_db, unsigned count) {
    char images[64], labels[64];
    snprintf(images, sizeof images, "data/mnist-%s-images-idx3-ubyte", kind);
    snprintf(labels, sizeof labels, "data/mnist-%s-labels-idx1-ubyte", kind);
    ShoalError err = {0};
    Progress progress = {0};
    ShoalToolWatch watch = {.progress = note_progress, .context = &progress};
    expect_ok(shoal_convert_mnist(golden(images), golden(labels), scratch(kind), &watch, &err),
              &err);
    assert_int_equal(progress.done, count);
    assert_int_equal(progress.total, count);
    expect_same_records(scratch(kind), golden(caffe_db), count);
    Lmdb caffes = open_lmdb(golden(caffe_db));
    MDB_val key, value;
    unsigned seen = 0;
    while (!mdb_cursor_get(caffes.cursor, &key, &value, MDB_NEXT))
        seen++;
    assert_int_equal(seen, count);
    close_lmdb(&caffes);
}

static void same_records_as_caffes_tool(void **state) {
    (void)state;
    NEEDS_GOLDENS();
    compare_with_caffe("train", "data/mnist256_lmdb", 256);
    compare_with_caffe("test", "data/mnist100_test_lmdb", 100);
}

static void put_big_endian(unsigned char *p, uint32_t v) {
    for (int i = 0; i < 4; i++)
        p[i] = (unsigned char)(v >> (24 - 8 * i));
}

/* Files of `count` images of 2 x 3; the heads can be made to lie afterwards. */
static unsigned char images_file[16 + 6 * 2100], labels_file[8 + 2100];
static size_t images_size, labels_size;

static void make_idx(uint32_t count) {
    put_big_endian(images_file, 2051);
    put_big_endian(images_file + 4, count);
    put_big_endian(images_file + 8, 2);
    put_big_endian(images_file + 12, 3);
    put_big_endian(labels_file, 2049);
    put_big_endian(labels_file + 4, count);
    for (uint32_t i = 0; i < count; i++) {
        for (uint32_t p = 0; p < 6; p++)
            images_file[16 + 6 * i + p] = (unsigned char)(i * 6 + p);
        labels_file[8 + i] = (unsigned char)i;
    }
    images_size = 16 + 6 * count;
    labels_size = 8 + count;
}

static ShoalStatus convert(const ShoalToolWatch *watch, ShoalError *err) {
    write_file(scratch("images"), images_file, images_size);
    write_file(scratch("labels"), labels_file, labels_size);
    return shoal_convert_mnist(scratch("images"), scratch("labels"), scratch("db"), watch, err);
}

static void expect_refused(ShoalStatus expected, const char *part) {
    ShoalError err = {0};
    expect_error(convert(NULL, &err), &err, expected, part);
    assert_false(exists(scratch("db")));
    assert_false(exists(scratch("db.tmp")));
}

static void several_batches_and_all_labels(void **state) {
    (void)state;
    make_idx(2100);
    ShoalError err = {0};
    Progress progress = {0};
    ShoalToolWatch watch = {.progress = note_progress, .context = &progress};
    expect_ok(convert(&watch, &err), &err);
    assert_int_equal(progress.calls, 3);
    ShoalDataset *dataset;
    expect_ok(shoal_dataset_open(scratch("db"), &dataset, &err), &err);
    assert_int_equal(shoal_dataset_count(dataset), 2100);
    ShoalDatumDecoder *decoder = shoal_datum_decoder_create();
    for (uint64_t i = 0; i < 2100; i++) {
        ShoalRecord record;
        ShoalDatum datum;
        expect_ok(shoal_dataset_record(dataset, i, &record, &err), &err);
        expect_ok(shoal_datum_parse(decoder, record.bytes, record.size, "db", i, &datum, &err),
                  &err);
        assert_int_equal(datum.channels, 1);
        assert_int_equal(datum.height, 2);
        assert_int_equal(datum.width, 3);
        assert_int_equal(datum.label, (uint8_t)i);
        assert_memory_equal(datum.bytes, images_file + 16 + 6 * i, 6);
    }
    shoal_datum_decoder_destroy(decoder);
    shoal_dataset_close(dataset);
}

static void files_cut_short_are_refused(void **state) {
    (void)state;
    make_idx(5);
    for (size_t size = 0; size < 16 + 6 * 5; size++) {
        images_size = size;
        expect_refused(SHOAL_ERR_DATA, "images: ");
    }
    make_idx(5);
    for (size_t size = 0; size < 8 + 5; size++) {
        labels_size = size;
        expect_refused(SHOAL_ERR_DATA, "labels: ");
    }
    make_idx(5);
    images_size++; /* too long is wrong as well */
    expect_refused(SHOAL_ERR_DATA, "46 bytes in all");
}

static void heads_that_lie_are_refused(void **state) {
    (void)state;
    static const struct {
        size_t offset;
        uint32_t value;
        const char *part;
    } LIES[] = {
        {0, 2049, "swapped"},     {0, 0x1f8b0808, "gunzip"},         {4, 0, "no items"},
        {4, 6, "promises 6"},     {4, 0xffffffff, "promises"},       {8, 0, "not a possible size"},
        {12, 0, "possible size"}, {12, 0xffffffff, "possible size"},
    };
    for (size_t i = 0; i < sizeof LIES / sizeof LIES[0]; i++) {
        make_idx(5);
        put_big_endian(images_file + LIES[i].offset, LIES[i].value);
        expect_refused(SHOAL_ERR_DATA, LIES[i].part);
    }
    /* 2^32 rows of 2^32 columns, times the count, wrap round to a small number. */
    make_idx(5);
    put_big_endian(images_file + 8, 0x80000000);
    put_big_endian(images_file + 12, 0x80000000);
    expect_refused(SHOAL_ERR_DATA, "possible size");
    make_idx(5);
    put_big_endian(labels_file, 2051);
    expect_refused(SHOAL_ERR_DATA, "expected 2049");
    make_idx(5);
    put_big_endian(labels_file + 4, 4);
    labels_size--;
    expect_refused(SHOAL_ERR_DATA, "5 images and");
}

static void files_that_are_missing_or_there_already(void **state) {
    (void)state;
    ShoalError err = {0};
    make_idx(5);
    write_file(scratch("images"), images_file, images_size);
    expect_error(shoal_convert_mnist(scratch("none"), scratch("none"), scratch("db"), NULL, &err),
                 &err, SHOAL_ERR_IO, "none: cannot open");
    shoal_error_clear(&err);
    expect_error(shoal_convert_mnist(scratch("images"), scratch("none"), scratch("db"), NULL, &err),
                 &err, SHOAL_ERR_IO, "none: cannot open");
    shoal_error_clear(&err);
    assert_int_equal(mkdir(scratch("db"), 0755), 0);
    expect_error(convert(NULL, &err), &err, SHOAL_ERR_IO, "db: exists already");
}

int main(void) {
#define TEST(f) cmocka_unit_test_setup_teardown(f, scratch_setup, scratch_teardown)
    const struct CMUnitTest tests[] = {
        TEST(same_records_as_caffes_tool),
        TEST(several_batches_and_all_labels),
        TEST(files_cut_short_are_refused),
        TEST(heads_that_lie_are_refused),
        TEST(files_that_are_missing_or_there_already),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
