/* SPDX-License-Identifier: Apache-2.0 */
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/calibrate.h"

#define ASSERT_BEST(expected, ...)                                                                 \
    assert_int_equal(shoal_calibrate_best((const double[]){__VA_ARGS__},                           \
                                          sizeof((double[]){__VA_ARGS__}) / sizeof(double)),       \
                     expected)

static void test_every_cluster_helps(void **state) {
    (void)state;
    ASSERT_BEST(3, 60, 90, 100);
    ASSERT_BEST(2, 60, 90);
    ASSERT_BEST(1, 60);
}

static void test_slow_cores_make_all_slower(void **state) {
    (void)state;
    ASSERT_BEST(1, 60, 50, 40);
    ASSERT_BEST(2, 60, 90, 70);
    ASSERT_BEST(3, 60, 50, 90); /* the second alone is of no use, but both are */
}

static void test_equal_and_noisy(void **state) {
    (void)state;
    ASSERT_BEST(1, 100, 100, 100);
    ASSERT_BEST(1, 98, 100, 99); /* within what one measurement differs from the next */
    ASSERT_BEST(2, 96, 99, 100);
    ASSERT_BEST(3, 90, 96.9, 100);
}

static void test_nonsense(void **state) {
    (void)state;
    ASSERT_BEST(1, 0, 0);
    ASSERT_BEST(2, 0, 5);
}

/* A topology of this process's own cores, one cluster each, at most two. */
static bool take_two_cores(ShoalCpuTopology *topology) {
    cpu_set_t own;
    memset(topology, 0, sizeof *topology);
    if (sched_getaffinity(0, sizeof own, &own))
        return false;
    for (int core = 0; core < CPU_SETSIZE && topology->count < 2; core++)
        if (CPU_ISSET(core, &own))
            CPU_SET(core, &topology->clusters[topology->count++].cores);
    return topology->count == 2;
}

/* A clock by which every look takes 30 ms, so what is measured is how often one looks. */
static uint64_t fake_now_ns(void) {
    static uint64_t now;
    return now += 30000000;
}

static void test_measures_and_leaves_the_affinity(void **state) {
    (void)state;
    ShoalCpuTopology topology;
    ShoalCalibration found = {.count = -1};
    cpu_set_t before, after;
    if (!take_two_cores(&topology))
        skip();
    sched_getaffinity(0, sizeof before, &before);
    assert_true(shoal_calibrate(&topology, SHOAL_CPU_C, fake_now_ns, &found));
    sched_getaffinity(0, sizeof after, &after);
    assert_true(CPU_EQUAL(&before, &after));
    assert_int_equal(found.count, 2);
    for (int i = 0; i < 2; i++) {
        assert_true(found.own[i] > 0);
        assert_true(found.own[i] == found.together[1]); /* by this clock */
    }
    assert_int_equal(found.used, 1);
    ShoalCpuChoice choice;
    shoal_calibrate_choice(&topology, &found, &choice);
    assert_int_equal(choice.threads, 1);
    assert_true(choice.pin);
    assert_true(CPU_EQUAL(&choice.cores, &topology.clusters[0].cores));
    found.used = 2;
    shoal_calibrate_choice(&topology, &found, &choice);
    assert_int_equal(choice.threads, 2);
    assert_false(choice.pin);
}

static void test_cores_that_are_not_there(void **state) {
    (void)state;
    ShoalCpuTopology topology;
    ShoalCalibration found = {.count = -1};
    cpu_set_t before, after;
    if (!take_two_cores(&topology))
        skip();
    CPU_ZERO(&topology.clusters[1].cores);
    CPU_SET(CPU_SETSIZE - 1, &topology.clusters[1].cores);
    sched_getaffinity(0, sizeof before, &before);
    assert_false(shoal_calibrate(&topology, SHOAL_CPU_C, fake_now_ns, &found));
    sched_getaffinity(0, sizeof after, &after);
    assert_true(CPU_EQUAL(&before, &after));
    assert_int_equal(found.count, -1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_cluster_helps),
        cmocka_unit_test(test_slow_cores_make_all_slower),
        cmocka_unit_test(test_equal_and_noisy),
        cmocka_unit_test(test_nonsense),
        cmocka_unit_test(test_measures_and_leaves_the_affinity),
        cmocka_unit_test(test_cores_that_are_not_there),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
