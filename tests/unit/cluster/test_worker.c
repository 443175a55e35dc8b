/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "base/rng.h"
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

static void send_generation(ShoalWorker *worker, uint64_t generation) {
    ShoalError err = {0};
    assert_int_equal(shoal_worker_generation(worker, generation, 1, 3, &err), SHOAL_OK);
}

static bool send_start(ShoalWorker *worker, uint64_t generation, uint64_t round) {
    bool accepted = false;
    ShoalError err = {0};
    assert_int_equal(shoal_worker_start(worker, generation, round, &accepted, &err), SHOAL_OK);
    return accepted;
}

static bool send_round(ShoalWorker *worker, uint64_t generation, uint64_t round) {
    bool accepted = false;
    ShoalError err = {0};
    assert_int_equal(shoal_worker_round(worker, generation, round, &accepted, &err), SHOAL_OK);
    return accepted;
}

/* Illegal messages change nothing and say what is wrong. */
static void refuse_generation(ShoalWorker *worker, uint64_t generation, unsigned rank,
                              unsigned size) {
    ShoalError err = {0};
    ShoalWorker before = *worker;
    assert_int_equal(shoal_worker_generation(worker, generation, rank, size, &err),
                     SHOAL_ERR_PROTOCOL);
    assert_true(err.text[0] != '\0');
    assert_memory_equal(&before, worker, sizeof(before));
}

static void refuse_start(ShoalWorker *worker, uint64_t generation, uint64_t round) {
    bool accepted = true;
    ShoalError err = {0};
    ShoalWorker before = *worker;
    assert_int_equal(shoal_worker_start(worker, generation, round, &accepted, &err),
                     SHOAL_ERR_PROTOCOL);
    assert_true(err.text[0] != '\0');
    assert_memory_equal(&before, worker, sizeof(before));
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

/* Has its ring of `generation`, and waits for Start. */
static void make_ready(ShoalWorker *worker, uint64_t generation) {
    send_generation(worker, generation);
    expect(worker, SHOAL_WORKER_CONNECT, generation, 0);
    shoal_worker_connected(worker, generation);
    expect(worker, SHOAL_WORKER_READY, generation, 0);
    expect_nothing(worker);
}

static void start(ShoalWorker *worker, unsigned window, uint64_t generation, uint64_t round) {
    shoal_worker_init(worker, window);
    make_ready(worker, generation);
    assert_true(send_start(worker, generation, round));
    expect(worker, SHOAL_WORKER_START, generation, round);
    expect_nothing(worker);
}

static void test_life(void **state) {
    (void)state;
    ShoalWorker worker;
    start(&worker, 2, 1, 0);
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
    refuse_start(&worker, 1, 3);
    refuse_generation(&worker, 2, 0, 1);
    shoal_worker_ring_lost(&worker, 1);
    shoal_worker_connected(&worker, 1);
    expect_nothing(&worker);
    assert_false(shoal_worker_is_current(&worker, 1));
}

static void test_illegal_messages(void **state) {
    (void)state;
    ShoalWorker worker;
    shoal_worker_init(&worker, 2);
    refuse_round(&worker, 0, 0); /* before any generation */
    refuse_round(&worker, 1, 0);
    refuse_start(&worker, 0, 0);
    refuse_start(&worker, 1, 0);
    refuse_generation(&worker, 0, 0, 1);
    refuse_generation(&worker, 1, 3, 3);
    refuse_generation(&worker, 1, 0, 0);
    refuse_generation(&worker, 1, 0, SHOAL_CLUSTER_MAX_WORKERS + 1);
    ShoalError err = {0};
    assert_int_equal(shoal_worker_generation(&worker, 5, 0, 1, &err), SHOAL_OK);
    refuse_start(&worker, 5, 0); /* before the ring is up */
    refuse_round(&worker, 5, 0);
    refuse_generation(&worker, 5, 0, 1);
    refuse_generation(&worker, 4, 0, 1);
    expect(&worker, SHOAL_WORKER_CONNECT, 5, 0);
    shoal_worker_connected(&worker, 5);
    refuse_round(&worker, 5, 0); /* before Start */
    refuse_start(&worker, 6, 0);
    refuse_start(&worker, 5, UINT64_MAX);
    assert_true(send_start(&worker, 5, 10));
    refuse_start(&worker, 5, 10); /* twice */
    refuse_round(&worker, 5, 9);
    refuse_round(&worker, 5, 11); /* Start has said where it begins */
    refuse_round(&worker, 6, 10);
    assert_true(send_round(&worker, 5, 10));
    refuse_round(&worker, 5, 10);
    refuse_round(&worker, 5, 12);
    assert_true(send_round(&worker, 5, 11));
    refuse_round(&worker, 5, 12); /* beyond the window */
    start(&worker, 2, 5, UINT64_MAX - 1);
    assert_true(send_round(&worker, 5, UINT64_MAX - 1));
    refuse_round(&worker, 5, UINT64_MAX);
}

/* The ring breaks in each phase in which there is one, or one is being made. */
static void test_broken_rings(void **state) {
    (void)state;
    for (int phase = 0; phase < 4; phase++) {
        ShoalWorker worker;
        shoal_worker_init(&worker, 2);
        shoal_worker_ring_lost(&worker, 0); /* there is none */
        expect_nothing(&worker);
        send_generation(&worker, 3);
        if (phase > 0)
            expect(&worker, SHOAL_WORKER_CONNECT, 3, 0);
        if (phase > 1)
            shoal_worker_connected(&worker, 3);
        if (phase > 2)
            assert_true(send_start(&worker, 3, 7)); /* and nothing of all that was read */
        assert_true(shoal_worker_is_current(&worker, 3));
        assert_false(shoal_worker_is_current(&worker, 2));
        shoal_worker_ring_lost(&worker, 2); /* of an older one */
        assert_true(shoal_worker_is_current(&worker, 3));
        shoal_worker_ring_lost(&worker, 3);
        shoal_worker_ring_lost(&worker, 3);
        assert_false(shoal_worker_is_current(&worker, 3));
        expect(&worker, SHOAL_WORKER_ABORT, 3, 0);
        expect_nothing(&worker);
        shoal_worker_connected(&worker, 3); /* too late */
        expect_nothing(&worker);
        assert_false(send_start(&worker, 3, 7)); /* were under way: forgotten */
        assert_false(send_round(&worker, 3, 7));
        make_ready(&worker, 4);
    }
}

static void test_regrouping(void **state) {
    (void)state;
    ShoalWorker worker;
    start(&worker, 4, 1, 0);
    assert_true(send_round(&worker, 1, 0));
    assert_true(send_round(&worker, 1, 1));
    expect(&worker, SHOAL_WORKER_RUN, 1, 0);
    shoal_worker_ring_lost(&worker, 1);
    expect(&worker, SHOAL_WORKER_ABORT, 1, 0);
    assert_false(send_round(&worker, 1, 2));
    shoal_worker_done(&worker, 1, 0);
    expect_nothing(&worker);
    send_generation(&worker, 2);
    assert_false(send_round(&worker, 1, 3));
    assert_false(send_start(&worker, 1, 0));
    shoal_worker_connected(&worker, 1); /* stale */
    shoal_worker_ring_lost(&worker, 1); /* stale */
    expect(&worker, SHOAL_WORKER_CONNECT, 2, 0);
    expect_nothing(&worker);
    shoal_worker_connected(&worker, 2);
    expect(&worker, SHOAL_WORKER_READY, 2, 0);
    assert_true(send_start(&worker, 2, 0));
    expect(&worker, SHOAL_WORKER_START, 2, 0);
    assert_true(send_round(&worker, 2, 0)); /* the round that was cut off comes again */
    expect(&worker, SHOAL_WORKER_RUN, 2, 0);
    shoal_worker_done(&worker, 1, 0); /* the result of before: stale */
    expect_nothing(&worker);
}

/* A new generation may come at any moment, even before anything was read. */
static void test_generation_overtakes(void **state) {
    (void)state;
    ShoalWorker worker;
    start(&worker, 4, 1, 0);
    assert_true(send_round(&worker, 1, 0));
    expect(&worker, SHOAL_WORKER_RUN, 1, 0);
    shoal_worker_done(&worker, 1, 0);
    send_generation(&worker, 2);
    send_generation(&worker, 7);
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

typedef struct Walk {
    ShoalRng rng;
    ShoalWorker worker;
    bool running;
    uint64_t generation, round; /* of the last RUN */
    uint64_t started, next;     /* of the last START */
    unsigned runs;
} Walk;

/* Something that may be legal or not, near to what would be. */
static void any_input(Walk *walk) {
    ShoalWorker *worker = &walk->worker;
    ShoalError err = {0};
    bool accepted;
    uint64_t generation = worker->generation + (shoal_rng_below(&walk->rng, 8) == 0) -
                          (shoal_rng_below(&walk->rng, 8) == 0);
    switch (shoal_rng_below(&walk->rng, 24)) {
    case 0:
        shoal_worker_generation(worker, worker->generation + 1, 0, 2, &err);
        break;
    case 1:
        shoal_worker_ring_lost(worker, generation);
        break;
    case 2:
    case 3:
    case 4:
        shoal_worker_start(worker, generation, shoal_rng_below(&walk->rng, 5), &accepted, &err);
        break;
    case 5:
    case 6:
    case 7:
        shoal_worker_connected(worker, generation);
        break;
    case 8:
    case 9:
    case 10:
    case 11:
        shoal_worker_done(worker, walk->generation, walk->round);
        break;
    default:
        shoal_worker_round(worker, generation,
                           worker->next_round + (shoal_rng_below(&walk->rng, 8) == 0), &accepted,
                           &err);
        break;
    }
}

static void any_action(Walk *walk) {
    ShoalWorkerAction action;
    if (shoal_rng_below(&walk->rng, 3) == 0 || !shoal_worker_next_action(&walk->worker, &action))
        return;
    if (action.kind == SHOAL_WORKER_CONNECT || action.kind == SHOAL_WORKER_ABORT) {
        assert_int_equal(action.generation, walk->worker.generation);
        walk->running = false;
    } else if (action.kind == SHOAL_WORKER_START) {
        assert_true(action.generation > walk->started);
        walk->started = action.generation;
        walk->next = action.round;
    } else if (action.kind == SHOAL_WORKER_RUN) {
        assert_false(walk->running);
        assert_int_equal(action.generation, walk->started);
        assert_int_equal(action.round, walk->next++);
        walk->running = true;
        walk->generation = action.generation;
        walk->round = action.round;
        walk->runs++;
    } else if (action.kind == SHOAL_WORKER_REPORT) {
        assert_true(walk->running);
        assert_int_equal(action.generation, walk->generation);
        assert_int_equal(action.round, walk->round);
        walk->running = false;
    }
}

/* Any inputs in any order, with actions read or not: rounds run one at a time, in order, and only
 * behind the START of their generation. */
static void test_any_order(void **state) {
    (void)state;
    unsigned runs = 0;
    for (uint32_t seed = 0; seed < 300; seed++) {
        Walk walk = {0};
        shoal_rng_init(&walk.rng, seed, SHOAL_RNG_TEST, 7);
        shoal_worker_init(&walk.worker, 1 + shoal_rng_below(&walk.rng, 3));
        for (int step = 0; step < 500; step++) {
            any_input(&walk);
            any_action(&walk);
        }
        runs += walk.runs;
    }
    assert_true(runs > 1000); /* else it went nowhere */
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_life),
        cmocka_unit_test(test_illegal_messages),
        cmocka_unit_test(test_broken_rings),
        cmocka_unit_test(test_regrouping),
        cmocka_unit_test(test_generation_overtakes),
        cmocka_unit_test(test_window_is_clamped),
        cmocka_unit_test(test_any_order),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
