/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "base/memory.h"
#include "base/pool.h"

enum { MOST = 1000, MOST_THREADS = 8 };

typedef struct Loop {
    atomic_int times[MOST];
    unsigned threads;
    atomic_bool wrong_thread;
    atomic_int inside[MOST_THREADS]; /* tasks that run under one thread's number right now */
} Loop;

static void count(void *context, size_t index, unsigned thread) {
    Loop *loop = context;
    if (thread >= loop->threads || atomic_fetch_add(&loop->inside[thread], 1) != 0)
        atomic_store(&loop->wrong_thread, true);
    atomic_fetch_add(&loop->times[index], 1);
    if (thread < loop->threads)
        atomic_fetch_sub(&loop->inside[thread], 1);
}

static void run_loops(ShoalPool *pool, unsigned threads) {
    static const size_t sizes[] = {0, 1, 2, 3, 7, 8, 9, 64, 999, 1000};
    for (int again = 0; again < 20; again++)
        for (size_t s = 0; s < sizeof sizes / sizeof sizes[0]; s++) {
            static Loop loop;
            loop = (Loop){.threads = threads};
            shoal_pool_run(pool, sizes[s], count, &loop);
            for (size_t i = 0; i < MOST; i++)
                assert_int_equal(atomic_load(&loop.times[i]), i < sizes[s] ? 1 : 0);
            assert_false(atomic_load(&loop.wrong_thread));
        }
}

static void every_index_runs_once(void **state) {
    (void)state;
    for (unsigned threads = 1; threads <= MOST_THREADS; threads++) {
        ShoalPool *pool = shoal_pool_create(threads);
        assert_non_null(pool);
        assert_int_equal(shoal_pool_threads(pool), threads);
        run_loops(pool, threads);
        shoal_pool_destroy(pool);
    }
}

/* Awake, asleep, and in between: every way to find a loop and its end. */
static void every_spin_works(void **state) {
    (void)state;
    static const unsigned spins_ns[] = {0, 1, 500, 2000, 1000000};
    for (unsigned threads = 2; threads <= MOST_THREADS; threads += 3) {
        ShoalPool *pool = shoal_pool_create(threads);
        for (size_t s = 0; s < sizeof spins_ns / sizeof spins_ns[0]; s++) {
            shoal_pool_set_spin(pool, spins_ns[s]);
            run_loops(pool, threads);
        }
        shoal_pool_destroy(pool);
    }
}

typedef struct Meeting {
    atomic_uint arrived;
    unsigned expected;
} Meeting;

static void meet(void *context, size_t index, unsigned thread) {
    Meeting *meeting = context;
    (void)index;
    (void)thread;
    atomic_fetch_add(&meeting->arrived, 1);
    while (atomic_load(&meeting->arrived) < meeting->expected)
        sched_yield();
}

/* Tasks that wait for each other end only if each has a thread. */
static void all_threads_take_part(void **state) {
    (void)state;
    for (unsigned spin_ns = 0; spin_ns <= 20000; spin_ns += 20000) {
        ShoalPool *pool = shoal_pool_create(4);
        shoal_pool_set_spin(pool, spin_ns);
        for (int again = 0; again < 200; again++) {
            Meeting meeting = {.expected = 4};
            shoal_pool_run(pool, 4, meet, &meeting);
            assert_int_equal(atomic_load(&meeting.arrived), 4);
        }
        shoal_pool_destroy(pool);
    }
}

static void no_pool_runs_in_order_in_the_caller(void **state) {
    (void)state;
    assert_int_equal(shoal_pool_threads(NULL), 1);
    run_loops(NULL, 1);
    shoal_pool_destroy(NULL);
}

/* Plain writes of the tasks: visible to the caller afterwards (the thread sanitizer looks too). */
static void add_square(void *context, size_t index, unsigned thread) {
    (void)thread;
    ((uint64_t *)context)[index] += index * index;
}

static void effects_are_visible(void **state) {
    (void)state;
    ShoalPool *pool = shoal_pool_create(4);
    static uint64_t values[MOST];
    for (uint64_t round = 1; round <= 100; round++) {
        shoal_pool_run(pool, MOST, add_square, values);
        for (uint64_t i = 0; i < MOST; i++)
            assert_true(values[i] == round * i * i);
    }
    shoal_pool_destroy(pool);
}

static void running_allocates_nothing(void **state) {
    (void)state;
    ShoalPool *pool = shoal_pool_create(3);
    uint64_t before = shoal_memory_allocations();
    run_loops(pool, 3);
    assert_int_equal(shoal_memory_allocations(), before);
    shoal_pool_destroy(pool);
}

static void zero_threads_are_one(void **state) {
    (void)state;
    ShoalPool *pool = shoal_pool_create(0);
    assert_int_equal(shoal_pool_threads(pool), 1);
    run_loops(pool, 1);
    shoal_pool_destroy(pool);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_index_runs_once),
        cmocka_unit_test(every_spin_works),
        cmocka_unit_test(all_threads_take_part),
        cmocka_unit_test(no_pool_runs_in_order_in_the_caller),
        cmocka_unit_test(effects_are_visible),
        cmocka_unit_test(running_allocates_nothing),
        cmocka_unit_test(zero_threads_are_one),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
