/* SPDX-License-Identifier: Apache-2.0 */

/* The fuzzer's corpus through the fuzzer's own function, which aborts when a promise is broken. */
#define LLVMFuzzerTestOneInput fuzz_state
#include "../../../fuzz/fuzz_state.c"
#undef LLVMFuzzerTestOneInput

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "fuzz_replay.h"

static void test_state(void **state) {
    (void)state;
    fuzz_replay("state", fuzz_state);
    shoal_net_destroy(net);
    caffe__solver_parameter__free_unpacked(param, NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_state)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
