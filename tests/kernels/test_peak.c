/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "kernels/peak.h"

/* Every level does, and counts, work in proportion to the rounds and to the threads. */
static void work_is_counted(void **state) {
    (void)state;
    ShoalPool *pool = shoal_pool_create(3);
    for (int level = 0; level < SHOAL_CPU_LEVELS; level++) {
        ShoalCompute one = {.kernels = shoal_kernels_for((ShoalCpuLevel)level)};
        if (!one.kernels)
            continue;
        ShoalCompute three = one;
        three.pool = pool;
        double few = shoal_kernels_peak(&one, 4 * 99), many = shoal_kernels_peak(&one, 4 * 999);
        assert_true(few > 0);
        assert_true(many == 10 * few);
        assert_true(shoal_kernels_peak(&three, 4 * 99) == 3 * few);
    }
    shoal_pool_destroy(pool);
}

/* The chains are meant to end at 1: neither overflow nor denormal numbers may slow them down. */
static void chains_converge(void **state) {
    (void)state;
    double operations = 0;
    float sum = shoal_peak_c(1000, &operations);
    assert_true(sum > 11.99f && sum < 12.01f);
    assert_true(operations == 24);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(work_is_counted),
        cmocka_unit_test(chains_converge),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
