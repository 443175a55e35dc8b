/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <limits.h>
#include <math.h>
#include <stdlib.h>

#include "base/rng.h"
#include "cluster/shares.h"

static void check(int batch, int n, const double *weights, const int *expected) {
    int counts[8];
    assert_int_equal(shoal_cluster_shares(batch, n, weights, counts), SHOAL_OK);
    for (int i = 0; i < n; i++)
        assert_int_equal(counts[i], expected[i]);
}

static void test_equal(void **state) {
    (void)state;
    check(64, 4, NULL, (int[]){16, 16, 16, 16});
    check(64, 3, NULL, (int[]){22, 21, 21});
    check(64, 7, NULL, (int[]){10, 9, 9, 9, 9, 9, 9});
    check(2, 4, NULL, (int[]){1, 1, 0, 0});
    check(0, 2, NULL, (int[]){0, 0});
    check(INT_MAX, 1, NULL, (int[]){INT_MAX});
}

static void test_weighted(void **state) {
    (void)state;
    check(100, 3, (double[]){1, 1, 2}, (int[]){25, 25, 50});
    check(10, 3, (double[]){1, 1, 1}, (int[]){4, 3, 3}); /* tie: lower rank */
    check(10, 3, (double[]){1, 2, 3}, (int[]){2, 3, 5}); /* 1.67 3.33 5 */
    check(7, 3, (double[]){0, 5, 0}, (int[]){0, 7, 0});
    check(5, 4, (double[]){3, 0, 3, 3}, (int[]){2, 0, 2, 1});
    check(10, 2, (double[]){1e308, 1e308}, (int[]){5, 5});
    check(10, 2, (double[]){5e-324, 5e-324}, (int[]){5, 5});
    check(INT_MAX, 2, (double[]){0, 1}, (int[]){0, INT_MAX});
}

static void test_refused(void **state) {
    (void)state;
    int counts[2] = {-5, -5};
    assert_int_equal(shoal_cluster_shares(-1, 2, NULL, counts), SHOAL_ERR_ARGUMENT);
    assert_int_equal(shoal_cluster_shares(4, 0, NULL, counts), SHOAL_ERR_ARGUMENT);
    const double bad[][2] = {{0, 0}, {1, -1}, {NAN, 1}, {1, INFINITY}};
    for (int i = 0; i < 4; i++)
        assert_int_equal(shoal_cluster_shares(4, 2, bad[i], counts), SHOAL_ERR_ARGUMENT);
    assert_int_equal(counts[0], -5);
    assert_int_equal(counts[1], -5);
}

/* Sums to the batch; nobody is more than one sample from the exact share. */
static void test_random_weights(void **state) {
    (void)state;
    ShoalRng rng;
    shoal_rng_init(&rng, 1, SHOAL_RNG_TEST, 0);
    for (int round = 0; round < 3000; round++) {
        int n = 1 + (int)shoal_rng_below(&rng, 40), batch = (int)shoal_rng_below(&rng, 5000);
        double weights[40], sum = 0;
        int counts[40];
        long total = 0;
        for (int i = 0; i < n; i++) {
            weights[i] = shoal_rng_below(&rng, 4) ? shoal_rng_unit(&rng) + 0.001 : 1.0;
            sum += weights[i];
        }
        assert_int_equal(shoal_cluster_shares(batch, n, weights, counts), SHOAL_OK);
        for (int i = 0; i < n; i++) {
            assert_true(fabs(counts[i] - batch * weights[i] / sum) < 1 + 1e-6);
            total += counts[i];
        }
        assert_int_equal(total, batch);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_equal),
        cmocka_unit_test(test_weighted),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_random_weights),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
