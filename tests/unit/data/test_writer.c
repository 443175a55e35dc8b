/* SPDX-License-Identifier: Apache-2.0 */
#include "scratch.h"

#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "data/dataset.h"
#include "data/writer.h"

static ShoalDatasetWriter *create_ok(const char *path) {
    ShoalError err = {0};
    ShoalDatasetWriter *writer = NULL;
    expect_ok(shoal_dataset_writer_create(path, &writer, &err), &err);
    return writer;
}

static ShoalStatus put(ShoalDatasetWriter *writer, const char *key, const char *value,
                       ShoalError *err) {
    return shoal_dataset_writer_put(writer, key, strlen(key), value, strlen(value), err);
}

static void expect_records(const char *path, const char *const *values, uint64_t count) {
    ShoalError err = {0};
    ShoalDataset *dataset;
    expect_ok(shoal_dataset_open(path, &dataset, &err), &err);
    assert_int_equal(shoal_dataset_count(dataset), count);
    for (uint64_t i = 0; i < count; i++) {
        ShoalRecord record;
        expect_ok(shoal_dataset_record(dataset, i, &record, &err), &err);
        assert_int_equal(record.size, strlen(values[i]));
        assert_memory_equal(record.bytes, values[i], record.size);
    }
    shoal_dataset_close(dataset);
}

static void records_come_out_in_key_order(void **state) {
    (void)state;
    ShoalError err = {0};
    ShoalDatasetWriter *writer = create_ok(scratch("db"));
    expect_ok(put(writer, "b", "two", &err), &err);
    expect_ok(put(writer, "d", "four", &err), &err);
    expect_ok(shoal_dataset_writer_commit(writer, &err), &err);
    expect_ok(put(writer, "c", "three", &err), &err);
    expect_ok(put(writer, "a", "one", &err), &err);
    expect_ok(put(writer, "dd", "five", &err), &err);
    expect_ok(shoal_dataset_writer_close(writer, &err), &err);
    const char *values[] = {"one", "two", "three", "four", "five"};
    expect_records(scratch("db"), values, 5);
    assert_false(exists(scratch("db.tmp")));
    assert_false(exists(scratch("db/lock.mdb")));
}

static void nothing_has_the_name_before_close(void **state) {
    (void)state;
    ShoalError err = {0};
    ShoalDatasetWriter *writer = create_ok(scratch("db"));
    expect_ok(put(writer, "a", "one", &err), &err);
    expect_ok(shoal_dataset_writer_commit(writer, &err), &err);
    assert_false(exists(scratch("db")));
    shoal_dataset_writer_discard(writer);
    assert_false(exists(scratch("db")));
    assert_false(exists(scratch("db.tmp")));
    shoal_dataset_writer_discard(NULL);
}

static void what_exists_is_never_replaced(void **state) {
    (void)state;
    ShoalError err = {0};
    ShoalDatasetWriter *writer = NULL;
    assert_int_equal(mkdir(scratch("db"), 0755), 0);
    expect_error(shoal_dataset_writer_create(scratch("db"), &writer, &err), &err, SHOAL_ERR_IO,
                 "exists already");
    shoal_error_clear(&err);
    expect_error(shoal_dataset_writer_create(scratch("db///"), &writer, &err), &err, SHOAL_ERR_IO,
                 "exists already");
    assert_null(writer);
    assert_int_equal(rmdir(scratch("db")), 0);
    /* Also when it comes while the records are written. */
    shoal_error_clear(&err);
    writer = create_ok(scratch("db"));
    expect_ok(put(writer, "a", "one", &err), &err);
    write_file(scratch("db"), "precious", 8);
    expect_error(shoal_dataset_writer_close(writer, &err), &err, SHOAL_ERR_IO, "exists already");
    size_t size;
    unsigned char *bytes = read_file(scratch("db"), &size);
    assert_memory_equal(bytes, "precious", 8);
    shoal_free(bytes);
    assert_false(exists(scratch("db.tmp")));
}

static void places_that_cannot_be_are_errors(void **state) {
    (void)state;
    ShoalError err = {0};
    ShoalDatasetWriter *writer = NULL;
    expect_error(shoal_dataset_writer_create(scratch("no/such/db"), &writer, &err), &err,
                 SHOAL_ERR_IO, "cannot create the folder: No such file");
    write_file(scratch("file.tmp"), "x", 1);
    shoal_error_clear(&err);
    expect_error(shoal_dataset_writer_create(scratch("file"), &writer, &err), &err, SHOAL_ERR_IO,
                 "cannot open the folder");
    assert_null(writer);
}

static void a_second_writer_waits_its_turn(void **state) {
    (void)state;
    ShoalError err = {0};
    ShoalDatasetWriter *first = create_ok(scratch("db")), *second = NULL;
    expect_error(shoal_dataset_writer_create(scratch("db"), &second, &err), &err, SHOAL_ERR_IO,
                 "another process is writing");
    shoal_error_clear(&err);
    expect_ok(put(first, "a", "one", &err), &err); /* and the first one is not disturbed */
    expect_ok(shoal_dataset_writer_close(first, &err), &err);
    const char *values[] = {"one"};
    expect_records(scratch("db"), values, 1);
}

static void what_a_killed_writer_left_is_taken_over(void **state) {
    (void)state;
    ShoalError err = {0};
    pid_t child = fork();
    if (child == 0) {
        ShoalDatasetWriter *writer;
        if (!shoal_dataset_writer_create(scratch("db"), &writer, &err) &&
            !put(writer, "z", "stale", &err) && !shoal_dataset_writer_commit(writer, &err))
            raise(SIGKILL);
        _exit(1);
    }
    int how;
    assert_int_equal(waitpid(child, &how, 0), child);
    assert_true(WIFSIGNALED(how));
    assert_true(exists(scratch("db.tmp/data.mdb")));
    ShoalDatasetWriter *writer = create_ok(scratch("db"));
    expect_ok(put(writer, "a", "one", &err), &err);
    expect_ok(shoal_dataset_writer_close(writer, &err), &err);
    const char *values[] = {"one"};
    expect_records(scratch("db"), values, 1);
}

static void the_same_key_twice_is_an_error(void **state) {
    (void)state;
    for (int committed = 0; committed < 2; committed++) {
        ShoalError err = {0};
        ShoalDatasetWriter *writer = create_ok(scratch("db"));
        expect_ok(put(writer, "a", "one", &err), &err);
        expect_ok(put(writer, "b", "two", &err), &err);
        if (committed)
            expect_ok(shoal_dataset_writer_commit(writer, &err), &err);
        expect_ok(put(writer, "a", "again", &err), &err);
        expect_error(shoal_dataset_writer_commit(writer, &err), &err, SHOAL_ERR_DATA, "same key");
        shoal_error_clear(&err);
        expect_error(put(writer, "c", "late", &err), &err, SHOAL_ERR_IO, "earlier error");
        shoal_error_clear(&err);
        expect_error(shoal_dataset_writer_close(writer, &err), &err, SHOAL_ERR_IO, "earlier error");
        assert_false(exists(scratch("db")));
        assert_false(exists(scratch("db.tmp")));
    }
}

static void keys_have_1_to_511_bytes(void **state) {
    (void)state;
    char key[513];
    memset(key, 'k', sizeof key);
    static const size_t WRONG[] = {0, 512};
    for (int i = 0; i < 2; i++) {
        ShoalError err = {0};
        ShoalDatasetWriter *writer = create_ok(scratch("db"));
        expect_error(shoal_dataset_writer_put(writer, key, WRONG[i], "v", 1, &err), &err,
                     SHOAL_ERR_ARGUMENT, "1 to 511");
        shoal_dataset_writer_discard(writer);
    }
    ShoalError err = {0};
    ShoalDatasetWriter *writer = create_ok(scratch("db"));
    expect_ok(shoal_dataset_writer_put(writer, key, 511, "v", 1, &err), &err);
    expect_ok(shoal_dataset_writer_close(writer, &err), &err);
}

/* More than the first map and the batch limit: 90 records of 1 MB. */
static void the_map_grows(void **state) {
    (void)state;
    enum { COUNT = 90, SIZE = 1 << 20 };
    ShoalError err = {0};
    ShoalDatasetWriter *writer = create_ok(scratch("db"));
    unsigned char *value = shoal_calloc(SIZE, 1);
    for (int i = 0; i < COUNT; i++) {
        char key[16];
        int size = snprintf(key, sizeof key, "%08d", i);
        memset(value, i + 1, SIZE);
        expect_ok(shoal_dataset_writer_put(writer, key, (size_t)size, value, SIZE, &err), &err);
    }
    expect_ok(shoal_dataset_writer_close(writer, &err), &err);
    ShoalDataset *dataset;
    expect_ok(shoal_dataset_open(scratch("db"), &dataset, &err), &err);
    assert_int_equal(shoal_dataset_count(dataset), COUNT);
    for (uint64_t i = 0; i < COUNT; i++) {
        ShoalRecord record;
        expect_ok(shoal_dataset_record(dataset, i, &record, &err), &err);
        assert_int_equal(record.size, SIZE);
        memset(value, (int)i + 1, SIZE);
        assert_memory_equal(record.bytes, value, SIZE);
    }
    shoal_dataset_close(dataset);
    shoal_free(value);
}

/* A disk that is full after `limit` bytes: the limit on file sizes stands in for it. */
static void write_on_full_disk(const char *path, rlim_t limit) {
    struct rlimit before, small;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    small = before;
    small.rlim_cur = limit;
    ShoalError err = {0};
    ShoalDatasetWriter *writer = NULL;
    static char value[3000];
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    ShoalStatus status = shoal_dataset_writer_create(path, &writer, &err);
    for (int i = 0; i < 2500 && !status; i++) {
        char key[16];
        int size = snprintf(key, sizeof key, "%08d", i);
        status = shoal_dataset_writer_put(writer, key, (size_t)size, value, sizeof value, &err);
    }
    if (writer && status)
        shoal_dataset_writer_discard(writer);
    else if (writer)
        status = shoal_dataset_writer_close(writer, &err);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
    expect_error(status, &err, SHOAL_ERR_IO, "make room on the disk");
    expect_error(status, &err, SHOAL_ERR_IO, path);
}

static void a_full_disk_leaves_nothing_behind(void **state) {
    (void)state;
    signal(SIGXFSZ, SIG_IGN);
    /* In the head, in the first batch, in a later one, in the last one (made by close). */
    static const rlim_t LIMITS[] = {100, 10000, 4500000, 9000000};
    for (size_t i = 0; i < sizeof LIMITS / sizeof LIMITS[0]; i++) {
        write_on_full_disk(scratch("db"), LIMITS[i]);
        assert_false(exists(scratch("db")));
        assert_false(exists(scratch("db.tmp")));
    }
    signal(SIGXFSZ, SIG_DFL);
}

int main(void) {
#define TEST(f) cmocka_unit_test_setup_teardown(f, scratch_setup, scratch_teardown)
    const struct CMUnitTest tests[] = {
        TEST(records_come_out_in_key_order),
        TEST(nothing_has_the_name_before_close),
        TEST(what_exists_is_never_replaced),
        TEST(places_that_cannot_be_are_errors),
        TEST(a_second_writer_waits_its_turn),
        TEST(what_a_killed_writer_left_is_taken_over),
        TEST(the_same_key_twice_is_an_error),
        TEST(keys_have_1_to_511_bytes),
        TEST(the_map_grows),
        TEST(a_full_disk_leaves_nothing_behind),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
