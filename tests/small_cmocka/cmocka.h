/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHOAL_TESTS_SMALL_CMOCKA_H
#define SHOAL_TESTS_SMALL_CMOCKA_H

/* The part of cmocka's interface that the tests of the kernels use, for builds where cmocka is not
 * to be had (preset arm64). A failed assertion prints its place and leaves the test; the group goes
 * on with the next one and main() returns how many failed. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

typedef int CMFixtureFunction(void **state);
struct CMUnitTest {
    const char *name;
    void (*test)(void **state);
};
#define cmocka_unit_test(test)                                                                     \
    { #test, test }

static jmp_buf small_cmocka_failed;

/* Does not return. */
__attribute__((format(printf, 3, 4), noreturn)) static inline void
small_cmocka_fail(const char *file, int line, const char *format, ...) {
    va_list values;
    fprintf(stderr, "%s:%d: ", file, line);
    va_start(values, format);
    vfprintf(stderr, format, values);
    va_end(values);
    fputc('\n', stderr);
    longjmp(small_cmocka_failed, 1);
}

#define fail_msg(...) small_cmocka_fail(__FILE__, __LINE__, __VA_ARGS__)
#define assert_true(condition)                                                                     \
    do {                                                                                           \
        if (!(condition))                                                                          \
            fail_msg("not so: %s", #condition);                                                    \
    } while (0)
#define assert_false(condition) assert_true(!(condition))
#define assert_null(pointer) assert_true((pointer) == NULL)
#define assert_non_null(pointer) assert_true((pointer) != NULL)
#define assert_int_equal(a, b)                                                                     \
    do {                                                                                           \
        long long small_a = (long long)(a), small_b = (long long)(b);                              \
        if (small_a != small_b)                                                                    \
            fail_msg("%s is %lld, %s is %lld", #a, small_a, #b, small_b);                          \
    } while (0)
#define assert_int_not_equal(a, b) assert_true((long long)(a) != (long long)(b))
#define assert_string_equal(a, b) assert_true(strcmp(a, b) == 0)
#define assert_memory_equal(a, b, size) assert_true(memcmp(a, b, size) == 0)

static inline int small_cmocka_run(const struct CMUnitTest *tests, size_t count,
                                   CMFixtureFunction *setup, CMFixtureFunction *teardown) {
    void *state = NULL;
    volatile int failed = 0;
    if (setup && setup(&state) != 0)
        return 1;
    for (volatile size_t i = 0; i < count; i++) {
        const int bad = setjmp(small_cmocka_failed);
        if (bad == 0)
            tests[i].test(&state);
        failed += bad;
        fprintf(stderr, "%s %s\n", bad ? "FAILED" : "passed", tests[i].name);
    }
    if (teardown && teardown(&state) != 0)
        failed++;
    return failed;
}
#define cmocka_run_group_tests(tests, setup, teardown)                                             \
    small_cmocka_run(tests, sizeof(tests) / sizeof *(tests), setup, teardown)

#endif
