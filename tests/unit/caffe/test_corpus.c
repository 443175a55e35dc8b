/* SPDX-License-Identifier: Apache-2.0 */

/* The fuzzers' corpora through the fuzzers' own functions, which abort when a promise is broken. */
#define LLVMFuzzerTestOneInput fuzz_text
#include "../../../fuzz/fuzz_text.c"
#undef LLVMFuzzerTestOneInput
#define LLVMFuzzerTestOneInput fuzz_net_bytes
#include "../../../fuzz/fuzz_net_bytes.c"
#undef LLVMFuzzerTestOneInput

#include "helpers.h"

static void replay(const char *folder, int (*target)(const uint8_t *data, size_t size)) {
    char pattern[512];
    glob_t found;
    snprintf(pattern, sizeof pattern, "%s/tests/fuzz/corpus/%s/*", SHOAL_SOURCE, folder);
    assert_int_equal(glob(pattern, 0, NULL, &found), 0);
    for (size_t i = 0; i < found.gl_pathc; i++) {
        ShoalError err = {0};
        unsigned char *bytes;
        size_t size;
        if (shoal_file_read(found.gl_pathv[i], &bytes, &size, &err))
            fail_msg("%s", err.text);
        /* In storage of exactly that size, for the sanitizer. */
        uint8_t *exact = malloc(size ? size : 1);
        memcpy(exact, bytes, size);
        assert_int_equal(target(exact, size), 0);
        free(exact);
        shoal_free(bytes);
    }
    print_message("%zu files\n", found.gl_pathc);
    globfree(&found);
}

static void test_text(void **state) {
    (void)state;
    replay("text", fuzz_text);
}

static void test_net_bytes(void **state) {
    (void)state;
    replay("net", fuzz_net_bytes);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_text),
        cmocka_unit_test(test_net_bytes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
