/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "base/cgroup.h"

static char root[] = "cgroup-test-XXXXXX", membership[64];

static void put(const char *name, const char *text) {
    char path[256];
    snprintf(path, sizeof path, "%s/%s", root, name);
    for (char *slash = strchr(path, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        mkdir(path, 0700);
        *slash = '/';
    }
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
}

static int make_root(void **state) {
    (void)state;
    strcpy(root, "cgroup-test-XXXXXX");
    if (!mkdtemp(root))
        return 1;
    snprintf(membership, sizeof membership, "%s/membership", root);
    return 0;
}

static int remove_root(void **state) {
    (void)state;
    char command[128];
    snprintf(command, sizeof command, "rm -r '%s'", root);
    return system(command);
}

static bool memory(unsigned long long *limit, unsigned long long *left) {
    *limit = *left = 1;
    return shoal_cgroup_memory(membership, root, limit, left);
}

static void smallest_limit_counts(void **state) {
    (void)state;
    unsigned long long limit, left;
    put("membership", "0::/a/b\n");
    put("a/b/memory.max", "max\n");
    put("a/b/memory.current", "500\n");
    assert_false(memory(&limit, &left));
    put("a/memory.max", "1000\n");
    put("a/memory.current", "900\n");
    assert_true(memory(&limit, &left));
    assert_int_equal(limit, 1000);
    assert_int_equal(left, 100);
    put("a/memory.stat", "anon 1\ninactive_file 50\nactive_file 600\n");
    assert_true(memory(&limit, &left));
    assert_int_equal(left, 150);
    /* The smallest limit and the least that is left may be of two groups. */
    put("memory.max", "5000\n");
    put("memory.current", "4990\n");
    assert_true(memory(&limit, &left));
    assert_int_equal(limit, 1000);
    assert_int_equal(left, 10);
    put("memory.current", "6000\n");
    assert_true(memory(&limit, &left));
    assert_int_equal(left, 0);
}

static void version_1(void **state) {
    (void)state;
    unsigned long long limit, left;
    put("membership", "12:cpu,cpuacct:/x\n3:memory:/outside\n1:name=systemd:/y\n");
    assert_false(memory(&limit, &left));
    put("memory/memory.limit_in_bytes", "9223372036854771712\n");
    put("memory/memory.usage_in_bytes", "700\n");
    assert_false(memory(&limit, &left));
    put("memory/memory.limit_in_bytes", "4096\n");
    assert_true(memory(&limit, &left));
    assert_int_equal(limit, 4096);
    assert_int_equal(left, 3396);
}

static void nothing_to_read(void **state) {
    (void)state;
    unsigned long long limit, left;
    assert_false(memory(&limit, &left));
    put("membership", "garbage\n0:\n:::\n0::\n\n");
    assert_false(memory(&limit, &left));
    assert_int_equal(limit, 1);
    assert_int_equal(left, 1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(smallest_limit_counts, make_root, remove_root),
        cmocka_unit_test_setup_teardown(version_1, make_root, remove_root),
        cmocka_unit_test_setup_teardown(nothing_to_read, make_root, remove_root),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
