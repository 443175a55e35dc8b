/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_UNIT_DATA_SCRATCH_H
#define TESTS_UNIT_DATA_SCRATCH_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka wants the four above first. */
#include <cmocka.h>

#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"
#include "base/file.h"
#include "base/memory.h"

/* Small helpers of the tests of src/data: a folder of their own, files, golden data. */

static char scratch_folder[64];

static int remove_one(const char *path, const struct stat *info, int kind, struct FTW *where) {
    (void)info;
    (void)kind;
    (void)where;
    return remove(path);
}

static inline void remove_tree(const char *path) {
    nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static inline int scratch_setup(void **state) {
    (void)state;
    strcpy(scratch_folder, "/tmp/shoal-test-XXXXXX");
    return mkdtemp(scratch_folder) ? 0 : -1;
}

static inline int scratch_teardown(void **state) {
    (void)state;
    remove_tree(scratch_folder);
    return 0;
}

/* "FOLDER/name" in one of four rotating buffers. */
static inline const char *scratch(const char *name) {
    static char paths[4][512];
    static unsigned next;
    char *path = paths[next++ % 4];
    snprintf(path, sizeof paths[0], "%s/%s", scratch_folder, name);
    return path;
}

static inline const char *golden(const char *name) {
    static char paths[4][512];
    static unsigned next;
    char *path = paths[next++ % 4];
    snprintf(path, sizeof paths[0], "%s/caffe-goldens/%s", SHOAL_SHARED, name);
    return path;
}

#define NEEDS_GOLDENS()                                                                            \
    do {                                                                                           \
        if (access(golden("README.md"), R_OK))                                                     \
            skip();                                                                                \
    } while (0)

static inline bool exists(const char *path) {
    struct stat info;
    return !lstat(path, &info);
}

static inline void write_file(const char *path, const void *bytes, size_t size) {
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, size, file), size);
    assert_int_equal(fclose(file), 0);
}

/* The caller frees with shoal_free. */
static inline unsigned char *read_file(const char *path, size_t *size) {
    unsigned char *bytes;
    ShoalError err = {0};
    ShoalStatus status = shoal_file_read(path, &bytes, size, &err);
    if (status)
        fail_msg("%s", err.text);
    return bytes;
}

/* Checks the code and that the message holds a text. */
static inline void expect_error(ShoalStatus status, const ShoalError *err, ShoalStatus expected,
                                const char *part) {
    if (status != expected || err->status != expected)
        fail_msg("status %d (\"%s\"), expected %d", status, err->text, expected);
    if (!strstr(err->text, part))
        fail_msg("message \"%s\" lacks \"%s\"", err->text, part);
}

static inline void expect_ok(ShoalStatus status, const ShoalError *err) {
    if (status)
        fail_msg("status %d: %s", status, err->text);
}

#endif
