/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_UNIT_DEVICE_FAKE_ROOT_H
#define TESTS_UNIT_DEVICE_FAKE_ROOT_H

/* A folder that looks like a machine's "/". */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <ftw.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char root[64];

static int make_root(void **state) {
    (void)state;
    const char *folder = getenv("TMPDIR");
    snprintf(root, sizeof root, "%.40s/shoal-root-XXXXXX", folder ? folder : "/tmp");
    return mkdtemp(root) ? 0 : -1;
}

static int remove_entry(const char *path, const struct stat *info, int type, struct FTW *where) {
    (void)info;
    (void)type;
    (void)where;
    return remove(path);
}

static int remove_root(void **state) {
    (void)state;
    return nftw(root, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
}

/* ROOT/NAME in path, and all the folders it is in. */
static void make_way(const char *name, char path[256]) {
    snprintf(path, 256, "%s/%s", root, name);
    for (char *slash = path + strlen(root) + 1; (slash = strchr(slash, '/')); slash++) {
        *slash = '\0';
        assert_true(!mkdir(path, 0700) || errno == EEXIST);
        *slash = '/';
    }
}

static inline void put_bytes(const char *name, const void *bytes, size_t size) {
    char path[256];
    make_way(name, path);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, size, file), size);
    assert_int_equal(fclose(file), 0);
}

static inline void put(const char *name, const char *text) {
    put_bytes(name, text, strlen(text));
}

static inline void put_link(const char *name, const char *target) {
    char path[256];
    make_way(name, path);
    assert_int_equal(symlink(target, path), 0);
}

static inline void put_program(const char *name, const char *script) {
    char path[256];
    make_way(name, path);
    put(name, script);
    assert_int_equal(chmod(path, 0700), 0);
}

#define ROOT_TEST(name) cmocka_unit_test_setup_teardown(name, make_root, remove_root)

#endif
