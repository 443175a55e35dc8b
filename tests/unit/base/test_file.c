/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"
#include "base/file.h"
#include "base/memory.h"

static char folder[64], path[128], beside[160];

static int make_folder(void **state) {
    (void)state;
    snprintf(folder, sizeof folder, "/tmp/shoal-file-XXXXXX");
    if (!mkdtemp(folder))
        return -1;
    snprintf(path, sizeof path, "%s/file", folder);
    snprintf(beside, sizeof beside, "%s.tmp", path);
    return 0;
}

static int remove_folder(void **state) {
    (void)state;
    unlink(path);
    unlink(beside);
    rmdir(beside);
    rmdir(path);
    return rmdir(folder);
}

static void assert_holds(const char *expected) {
    ShoalError err = {0};
    unsigned char *bytes;
    size_t size;
    assert_int_equal(shoal_file_read(path, &bytes, &size, &err), SHOAL_OK);
    assert_int_equal(size, strlen(expected));
    assert_string_equal((char *)bytes, expected); /* a '\0' follows */
    shoal_free(bytes);
}

static void write_reads_back(void **state) {
    (void)state;
    ShoalError err = {0};
    assert_int_equal(shoal_file_replace(path, "one", 3, &err), SHOAL_OK);
    assert_holds("one");
    assert_int_equal(shoal_file_replace(path, "another", 7, &err), SHOAL_OK);
    assert_holds("another");
    assert_int_equal(shoal_file_replace(path, "", 0, &err), SHOAL_OK);
    assert_holds("");
    assert_int_not_equal(access(beside, F_OK), 0);
}

static void numbers_are_read(void **state) {
    (void)state;
    ShoalError err = {0};
    long long number = 5;
    assert_false(shoal_file_number(path, &number));
    shoal_file_replace(path, "max\n", 4, &err);
    assert_false(shoal_file_number(path, &number));
    assert_int_equal(number, 5);
    shoal_file_replace(path, "1950000\n", 8, &err);
    assert_true(shoal_file_number(path, &number));
    assert_int_equal(number, 1950000);
}

static void full_disk_keeps_the_old_file(void **state) {
    (void)state;
    ShoalError err = {0};
    assert_int_equal(shoal_file_replace(path, "precious", 8, &err), SHOAL_OK);
    static char large[10000];
    memset(large, 'x', sizeof large);
    struct rlimit old, small = {100, 100};
    getrlimit(RLIMIT_FSIZE, &old);
    small.rlim_max = old.rlim_max;
    void (*handler)(int) = signal(SIGXFSZ, SIG_IGN);
    setrlimit(RLIMIT_FSIZE, &small);
    ShoalStatus status = shoal_file_replace(path, large, sizeof large, &err);
    setrlimit(RLIMIT_FSIZE, &old);
    signal(SIGXFSZ, handler);
    assert_int_equal(status, SHOAL_ERR_IO);
    char expected[512];
    snprintf(expected, sizeof expected,
             "%s: cannot write 10000 bytes: File too large; an older file of that name is "
             "unchanged",
             path);
    assert_string_equal(err.text, expected);
    assert_holds("precious");
    assert_int_not_equal(access(beside, F_OK), 0);
}

static void failed_rename_leaves_nothing_beside(void **state) {
    (void)state;
    ShoalError err = {0};
    assert_int_equal(mkdir(path, 0755), 0); /* a folder of that name: the rename must fail */
    assert_int_equal(shoal_file_replace(path, "x", 1, &err), SHOAL_ERR_IO);
    assert_int_not_equal(access(beside, F_OK), 0);
    assert_int_equal(access(path, F_OK), 0);
}

static void blocked_temporary_keeps_the_old_file(void **state) {
    (void)state;
    ShoalError err = {0};
    assert_int_equal(shoal_file_replace(path, "old", 3, &err), SHOAL_OK);
    assert_int_equal(mkdir(beside, 0755), 0);
    assert_int_equal(shoal_file_replace(path, "new", 3, &err), SHOAL_ERR_IO);
    assert_holds("old");
}

static void left_over_temporary_is_no_obstacle(void **state) {
    (void)state;
    ShoalError err = {0};
    FILE *file = fopen(beside, "w");
    assert_non_null(file);
    fputs("half of a file that a crash left, longer than the new one", file);
    fclose(file);
    assert_int_equal(shoal_file_replace(path, "whole", 5, &err), SHOAL_OK);
    assert_holds("whole");
}

static void missing_folder_is_an_error(void **state) {
    (void)state;
    ShoalError err = {0};
    assert_int_equal(shoal_file_replace("/nonexistent/folder/file", "x", 1, &err), SHOAL_ERR_IO);
    assert_string_equal(err.text, "/nonexistent/folder/file.tmp: cannot create: No such file or "
                                  "directory; does the folder exist?");
    char *long_path = calloc(1, 5001);
    memset(long_path, 'p', 5000);
    shoal_error_clear(&err);
    assert_int_equal(shoal_file_replace(long_path, "x", 1, &err), SHOAL_ERR_IO);
    assert_non_null(strstr(err.text, "path too long"));
    free(long_path);
}

static void only_regular_files_are_read(void **state) {
    (void)state;
    unsigned char *bytes = NULL;
    size_t size = 7;
    assert_int_equal(mkfifo(path, 0600), 0);
    const char *const none[] = {folder, "/dev/null", path};
    for (size_t i = 0; i < 3; i++) {
        ShoalError err = {0};
        assert_int_equal(shoal_file_read(none[i], &bytes, &size, &err), SHOAL_ERR_IO);
        assert_non_null(strstr(err.text, ": not a regular file; give the name of a file"));
    }
    ShoalError err = {0};
    assert_int_equal(shoal_file_read("/nonexistent", &bytes, &size, &err), SHOAL_ERR_IO);
    assert_string_equal(err.text, "/nonexistent: cannot open: No such file or directory");
    assert_null(bytes);
    assert_int_equal(size, 7);
}

#define IN_FOLDER(test) cmocka_unit_test_setup_teardown(test, make_folder, remove_folder)

int main(void) {
    const struct CMUnitTest tests[] = {
        IN_FOLDER(write_reads_back),
        IN_FOLDER(numbers_are_read),
        IN_FOLDER(full_disk_keeps_the_old_file),
        IN_FOLDER(failed_rename_leaves_nothing_beside),
        IN_FOLDER(blocked_temporary_keeps_the_old_file),
        IN_FOLDER(left_over_temporary_is_no_obstacle),
        cmocka_unit_test(missing_folder_is_an_error),
        IN_FOLDER(only_regular_files_are_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
