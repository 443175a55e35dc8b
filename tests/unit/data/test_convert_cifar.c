/* SPDX-License-Identifier: Apache-2.0 */
#include "scratch.h"

#include "data/dataset.h"
#include "data/datum.h"
#include "shoal/tools.h"

enum { RECORD = 3073 };

static const char *const FILES[] = {"data_batch_1.bin", "data_batch_2.bin", "data_batch_3.bin",
                                    "data_batch_4.bin", "data_batch_5.bin", "test_batch.bin"};

/* File f has count records; pixel p of record r is f * 40 + r * 7 + p, its label f + r. */
static void make_files(int count) {
    static unsigned char bytes[4 * RECORD];
    for (int f = 0; f < 6; f++) {
        for (int r = 0; r < count; r++) {
            bytes[r * RECORD] = (unsigned char)(f + r);
            for (int p = 0; p < RECORD - 1; p++)
                bytes[r * RECORD + 1 + p] = (unsigned char)(f * 40 + r * 7 + p);
        }
        write_file(scratch(FILES[f]), bytes, (size_t)count * RECORD);
    }
}

static ShoalStatus convert(ShoalError *err) {
    remove_tree(scratch("cifar10_train_lmdb"));
    remove_tree(scratch("cifar10_test_lmdb"));
    return shoal_convert_cifar(scratch_folder, scratch_folder, NULL, err);
}

static void expect_record(ShoalDataset *dataset, uint64_t number, int f, int r) {
    ShoalRecord record;
    ShoalDatum datum;
    ShoalError err = {0};
    ShoalDatumDecoder *decoder = shoal_datum_decoder_create();
    expect_ok(shoal_dataset_record(dataset, number, &record, &err), &err);
    expect_ok(shoal_datum_parse(decoder, record.bytes, record.size, "db", number, &datum, &err),
              &err);
    assert_int_equal(datum.channels, 3);
    assert_int_equal(datum.height, 32);
    assert_int_equal(datum.width, 32);
    assert_int_equal(datum.label, f + r);
    for (int p = 0; p < RECORD - 1; p++)
        assert_int_equal(datum.bytes[p], (unsigned char)(f * 40 + r * 7 + p));
    shoal_datum_decoder_destroy(decoder);
}

static void all_files_in_their_places(void **state) {
    (void)state;
    make_files(3);
    ShoalError err = {0};
    ShoalDataset *dataset;
    expect_ok(convert(&err), &err);
    expect_ok(shoal_dataset_open(scratch("cifar10_train_lmdb"), &dataset, &err), &err);
    assert_int_equal(shoal_dataset_count(dataset), 15);
    for (int i = 0; i < 15; i++)
        expect_record(dataset, (uint64_t)i, i / 3, i % 3);
    shoal_dataset_close(dataset);
    expect_ok(shoal_dataset_open(scratch("cifar10_test_lmdb"), &dataset, &err), &err);
    assert_int_equal(shoal_dataset_count(dataset), 3);
    for (int i = 0; i < 3; i++)
        expect_record(dataset, (uint64_t)i, 5, i);
    shoal_dataset_close(dataset);
}

static void expect_refused(ShoalStatus status, const char *part) {
    ShoalError err = {0};
    expect_error(convert(&err), &err, status, part);
    assert_false(exists(scratch("cifar10_train_lmdb")));
    assert_false(exists(scratch("cifar10_train_lmdb.tmp")));
    assert_false(exists(scratch("cifar10_test_lmdb")));
    assert_false(exists(scratch("cifar10_test_lmdb.tmp")));
}

static void wrong_files_leave_nothing(void **state) {
    (void)state;
    make_files(2);
    for (int f = 0; f < 6; f += 5) {
        write_file(scratch(FILES[f]), "0123456789", 10);
        expect_refused(SHOAL_ERR_DATA, "10 bytes; expected 1 to 10000 records of 3073");
        write_file(scratch(FILES[f]), "", 0);
        expect_refused(SHOAL_ERR_DATA, FILES[f]);
        unlink(scratch(FILES[f]));
        expect_refused(SHOAL_ERR_IO, FILES[f]);
        make_files(2);
    }
    assert_int_equal(truncate(scratch(FILES[1]), (off_t)RECORD * 10001), 0);
    expect_refused(SHOAL_ERR_DATA, FILES[1]);
}

static void datasets_that_are_there(void **state) {
    (void)state;
    make_files(1);
    ShoalError err = {0};
    expect_ok(convert(&err), &err);
    remove_tree(scratch("cifar10_train_lmdb"));
    expect_error(shoal_convert_cifar(scratch_folder, scratch_folder, NULL, &err), &err,
                 SHOAL_ERR_IO, "cifar10_test_lmdb: exists already");
    assert_false(exists(scratch("cifar10_train_lmdb")));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_files_in_their_places),
        cmocka_unit_test(wrong_files_leave_nothing),
        cmocka_unit_test(datasets_that_are_there),
    };
    return cmocka_run_group_tests(tests, scratch_setup, scratch_teardown);
}
