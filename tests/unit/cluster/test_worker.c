/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "cluster/worker.h"

static void expect(ShoalWorker *worker, ShoalWorkerActionKind kind, uint64_t generation,
                   uint64_t round) {
    ShoalWorkerAction action;
    assert_true(shoal_worker_next_action(worker, &action));
    assert_int_equal(action.kind, kind);
    assert_int_equal(action.generation, generation);
    assert_int_equal(action.round, round);
}

static void expect_nothing(ShoalWorker *worker) {
    ShoalWorkerAction action;
    assert_false(shoal_worker_next_action(worker, &action));
}

static bool send_round(ShoalWorker *worker, uint64_t generation, uint64_t round) {
    bool accepted = false;
    ShoalError err = {0};
    assert_int_equal(shoal_worker_round(worker, generation, round, &accepted, &err), SHOAL_OK);
    return accepted;
}

static void refuse_round(ShoalWorker *worker, uint64_t generation, uint64_t round) {
    bool accepted = true;
    ShoalError err = {0};
    ShoalWorker before = *worker;
    assert_int_equal(shoal_worker_round(worker, generation, round, &accepted, &err),
                     SHOAL_ERR_PROTOCOL);
    assert_true(err.text[0] != '\0');
    assert_memory_equal(&before, worker, sizeof(before));
}

static void refuse_generation(ShoalWorker *worker, uint64_t generation, unsigned rank,
                              unsigned size) {
    ShoalError err = {0};
    ShoalWorker before = *worker;
    assert_int_equal(shoal_worker_generation(worker, generation, rank, size, &err),
                     SHOAL_ERR_PROTOCOL);
    assert_memory_equal(&before, worker, sizeof(before));
}

static void start(ShoalWorker *worker, unsigned window, uint64_t generation) {
    ShoalError err = {0};
    shoal_worker_init(worker, window);
    assert_int_equal(shoal_worker_generation(worker, generation, 1, 3, &err), SHOAL_OK);
    expect(worker, SHOAL_WORKER_CONNECT, generation, 0);
    shoal_worker_connected(worker, generation);
    expect(worker, SHOAL_WORKER_READY, generation, 0);
    expect_nothing(worker);
}

static void test_life(void **state) {
    (void)state;
    ShoalWorker worker;
    start(&worker, 2, 1);
    assert_true(send_round(&worker, 1, 0));
    assert_true(send_round(&worker, 1, 1));
    expect(&worker, SHOAL_WORKER_RUN, 1, 0);
    expect_nothing(&worker);
    shoal_worker_done(&worker, 1, 1); /* not that one */
    shoal_worker_done(&worker, 1, 0);
    shoal_worker_done(&worker, 1, 0);
    expect(&worker, SHOAL_WORKER_REPORT, 1, 0);
    expect(&worker, SHOAL_WORKER_RUN, 1, 1);
    assert_true(send_round(&worker, 1, 2));
    shoal_worker_done(&worker, 1, 1);
    shoal_worker_stop(&worker);
    shoal_worker_stop(&worker);
    expect(&worker, SHOAL_WORKER_REPORT, 1, 1);
    expect(&worker, SHOAL_WORKER_STOP, 1, 0);
    expect_nothing(&worker);
    refuse_round(&worker, 1, 3);
    refuse_generation(&worker, 2, 0, 1);
    assert_false(shoal_worker_is_current(&worker, 1));
}

static void test_illegal_messages(void **state) {
    (void)state;
    ShoalWorker worker;
    shoal_worker_init(&worker, 2);
    refuse_round(&worker, 0, 0); /* before any generation */
    refuse_round(&worker, 1, 0);
    refuse_generation(&worker, 0, 0, 1);
    refuse_generation(&worker, 1, 3, 3);
    refuse_generation(&worker, 1, 0, 0);
    refuse_generation(&worker, 1, 0, SHOAL_CLUSTER_MAX_WORKERS + 1);
    ShoalError err = {0};
    assert_int_equal(shoal_worker_generation(&worker, 5, 0, 1, &err), SHOAL_OK);
    refuse_round(&worker, 5, 0); /* before ready */
    refuse_generation(&worker, 5, 0, 1);
    refuse_generation(&worker, 4, 0, 1);
    start(&worker, 2, 5);
    refuse_round(&worker, 5, UINT64_MAX);
    refuse_round(&worker, 6, 0);
    assert_true(send_round(&worker, 5, 10)); /* a generation may start anywhere */
    refuse_round(&worker, 5, 10);
    refuse_round(&worker, 5, 12);
    refuse_round(&worker, 5, 9);
    assert_true(send_round(&worker, 5, 11));
    refuse_round(&worker, 5, 12); /* beyond the window */
}

static void test_regrouping(void **state) {
    (void)state;
    ShoalWorker worker;
    ShoalError err = {0};
    start(&worker, 4, 1);
    assert_true(send_round(&worker, 1, 0));
    assert_true(send_round(&worker, 1, 1));
    expect(&worker, SHOAL_WORKER_RUN, 1, 0);
    shoal_worker_ring_lost(&worker, 1);
    shoal_worker_ring_lost(&worker, 1);
    expect(&worker, SHOAL_WORKER_ABORT, 1, 0);
    expect_nothing(&worker);
    assert_false(shoal_worker_is_current(&worker, 1));
    assert_false(send_round(&worker, 1, 2)); /* was under way: forgotten */
    shoal_worker_done(&worker, 1, 0);
    expect_nothing(&worker);
    assert_int_equal(shoal_worker_generation(&worker, 2, 0, 2, &err), SHOAL_OK);
    assert_false(send_round(&worker, 1, 3));
    shoal_worker_connected(&worker, 1); /* stale */
    shoal_worker_ring_lost(&worker, 1); /* stale */
    expect(&worker, SHOAL_WORKER_CONNECT, 2, 0);
    expect_nothing(&worker);
    shoal_worker_connected(&worker, 2);
    expect(&worker, SHOAL_WORKER_READY, 2, 0);
    assert_true(send_round(&worker, 2, 0)); /* the round that was cut off comes again */
    expect(&worker, SHOAL_WORKER_RUN, 2, 0);
}

/* A new generation may come at any moment, even before anything was read. */
static void test_generation_overtakes(void **state) {
    (void)state;
    ShoalWorker worker;
    ShoalError err = {0};
    start(&worker, 4, 1);
    assert_true(send_round(&worker, 1, 0));
    expect(&worker, SHOAL_WORKER_RUN, 1, 0);
    shoal_worker_done(&worker, 1, 0);
    assert_int_equal(shoal_worker_generation(&worker, 2, 0, 2, &err), SHOAL_OK);
    assert_int_equal(shoal_worker_generation(&worker, 7, 0, 2, &err), SHOAL_OK);
    expect(&worker, SHOAL_WORKER_REPORT, 1, 0); /* done is done */
    expect(&worker, SHOAL_WORKER_CONNECT, 7, 0);
    expect_nothing(&worker);
}

static void test_window_is_clamped(void **state) {
    (void)state;
    ShoalWorker worker;
    shoal_worker_init(&worker, 0);
    assert_int_equal(worker.window, 1);
    shoal_worker_init(&worker, 1u << 31);
    assert_int_equal(worker.window, SHOAL_CLUSTER_MAX_WINDOW);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_life),
        cmocka_unit_test(test_illegal_messages),
        cmocka_unit_test(test_regrouping),
        cmocka_unit_test(test_generation_overtakes),
        cmocka_unit_test(test_window_is_clamped),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
