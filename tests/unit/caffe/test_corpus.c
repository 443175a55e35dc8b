/* SPDX-License-Identifier: Apache-2.0 */

/* The fuzzers' corpora through the fuzzers' own functions, which abort when a promise is broken. */
#define LLVMFuzzerTestOneInput fuzz_text
#include "../../../fuzz/fuzz_text.c"
#undef LLVMFuzzerTestOneInput
#define LLVMFuzzerTestOneInput fuzz_net_bytes
#include "../../../fuzz/fuzz_net_bytes.c"
#undef LLVMFuzzerTestOneInput

#include "helpers.h"

#include "fuzz_replay.h"

static void test_text(void **state) {
    (void)state;
    fuzz_replay("text", fuzz_text);
}

static void test_net_bytes(void **state) {
    (void)state;
    fuzz_replay("net", fuzz_net_bytes);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_text),
        cmocka_unit_test(test_net_bytes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
