/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "base/error.h"
#include "base/memory.h"

static void storage_is_zeroed_and_aligned(void **state) {
    (void)state;
    for (size_t n = 0; n < 300; n += 7) {
        unsigned char *bytes = shoal_calloc(n, 1);
        assert_non_null(bytes);
        assert_int_equal((uintptr_t)bytes % SHOAL_ALIGN, 0);
        for (size_t i = 0; i < n; i++)
            assert_int_equal(bytes[i], 0);
        memset(bytes, 0xff, n); /* for the next one to find */
        shoal_free(bytes);
    }
    shoal_free(NULL);
}

static void impossible_sizes_are_refused(void **state) {
    (void)state;
    uint64_t before = shoal_memory_allocations();
    assert_null(shoal_calloc(SIZE_MAX, 1));
    assert_null(shoal_calloc(SIZE_MAX, SIZE_MAX));
    assert_null(shoal_calloc(SIZE_MAX / 2 + 2, 2)); /* wraps to 2 */
    assert_null(shoal_calloc(1, SIZE_MAX / 2 + 1));
    /* Much more than there is; a generous system would promise it. */
    assert_null(shoal_calloc((size_t)1 << 20, (size_t)1 << 26));
    assert_int_equal(shoal_memory_allocations(), before);
}

static void sizes_do_not_wrap(void **state) {
    (void)state;
    size_t out = 5;
    assert_true(shoal_size_mul(1000, 1000, &out));
    assert_int_equal(out, 1000000);
    assert_true(shoal_size_mul(SIZE_MAX, 1, &out));
    assert_true(out == SIZE_MAX);
    assert_false(shoal_size_mul(SIZE_MAX / 2 + 1, 2, &out));
    assert_true(out == SIZE_MAX);
    assert_true(shoal_size_add(1, 2, &out));
    assert_int_equal(out, 3);
    assert_true(shoal_size_add(SIZE_MAX, 0, &out));
    out = 4;
    assert_false(shoal_size_add(SIZE_MAX, 1, &out));
    assert_int_equal(out, 4);
}

static void allocations_are_counted(void **state) {
    (void)state;
    uint64_t before = shoal_memory_allocations();
    void *a = shoal_calloc(1, 1);
    char *b = shoal_strdup("text");
    assert_int_equal(shoal_memory_allocations(), before + 2);
    assert_string_equal(b, "text");
    assert_null(shoal_strdup(NULL));
    shoal_free(a);
    shoal_free(b);
    assert_int_equal(shoal_memory_allocations(), before + 2);
}

static void arena_gives_what_it_has(void **state) {
    (void)state;
    ShoalArena arena;
    assert_true(shoal_arena_init(&arena, 3 * SHOAL_ALIGN));
    unsigned char *a = shoal_arena_take(&arena, 1), *b = shoal_arena_take(&arena, SHOAL_ALIGN + 1);
    assert_ptr_equal(b, a + SHOAL_ALIGN);
    assert_null(shoal_arena_take(&arena, 1)); /* the rest is less than aligned */
    assert_null(shoal_arena_take(&arena, SIZE_MAX));
    shoal_arena_close(&arena);
    assert_true(shoal_arena_init(&arena, 0));
    assert_null(shoal_arena_take(&arena, 1));
    shoal_arena_close(&arena);
    assert_false(shoal_arena_init(&arena, SIZE_MAX));
    assert_null(shoal_arena_take(&arena, 1));
    shoal_arena_close(&arena);
}

static void first_error_is_kept(void **state) {
    (void)state;
    ShoalError err = {0};
    assert_int_equal(shoal_error_set(&err, SHOAL_ERR_IO, "%s %d", "first", 1), SHOAL_ERR_IO);
    assert_int_equal(shoal_error_set(&err, SHOAL_ERR_DATA, "second"), SHOAL_ERR_IO);
    assert_string_equal(err.text, "first 1");
    shoal_error_prefix(&err, "net.prototxt:%d", 7);
    assert_string_equal(err.text, "net.prototxt:7: first 1");
    shoal_error_clear(&err);
    assert_int_equal(err.status, SHOAL_OK);
    shoal_error_prefix(&err, "nothing");
    assert_string_equal(err.text, "");
    assert_int_equal(shoal_error_set(NULL, SHOAL_ERR_LOST, "dropped"), SHOAL_ERR_LOST);
    assert_int_equal(shoal_error_memory(&err, "a thing", 12), SHOAL_ERR_MEMORY);
    assert_string_equal(err.text, "out of memory: could not allocate 12 bytes for a thing");
}

static void long_messages_are_cut(void **state) {
    (void)state;
    ShoalError err = {0};
    char text[3000];
    memset(text, 'a', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    shoal_error_set(&err, SHOAL_ERR_IO, "%s", text);
    assert_int_equal(strlen(err.text), sizeof err.text - 1);
    shoal_error_prefix(&err, "%s", text);
    assert_int_equal(strlen(err.text), sizeof err.text - 1);
}

static void every_status_has_a_text(void **state) {
    (void)state;
    for (int status = SHOAL_ERR_UNSUPPORTED; status <= SHOAL_OK; status++)
        assert_string_not_equal(shoal_status_text((ShoalStatus)status), "unknown status");
    assert_string_equal(shoal_status_text((ShoalStatus)-1000), "unknown status");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(storage_is_zeroed_and_aligned),
        cmocka_unit_test(impossible_sizes_are_refused),
        cmocka_unit_test(sizes_do_not_wrap),
        cmocka_unit_test(allocations_are_counted),
        cmocka_unit_test(arena_gives_what_it_has),
        cmocka_unit_test(first_error_is_kept),
        cmocka_unit_test(long_messages_are_cut),
        cmocka_unit_test(every_status_has_a_text),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
