/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/clock.h"
#include "train/pacer.h"

/* Pauses can be longer than they should be on a busy machine, never shorter: only that is judged.
 */

static atomic_bool cancel;
static atomic_ulong progress;

static void work_ms(unsigned ms) {
    uint64_t until = shoal_clock_ns() + ms * 1000000ull;
    while (shoal_clock_ns() < until)
        ;
}

static uint64_t pass(ShoalPacer *pacer, int count, bool train, int pieces) {
    uint64_t start = shoal_clock_ns();
    shoal_pacer_begin(pacer, count, train);
    for (int i = 0; i < pieces; i++) {
        work_ms(2);
        shoal_pacer_step(pacer, &cancel, &progress);
    }
    shoal_pacer_end(pacer, &cancel, &progress);
    return shoal_clock_ns() - start;
}

static void test_full(void **state) {
    (void)state;
    ShoalPacer pacer;
    shoal_pacer_init(&pacer, 0);
    atomic_store(&progress, 0);
    pass(&pacer, 1, true, 5);
    assert_int_equal(atomic_load(&progress), 0); /* no pause at all */
}

static void test_duty(void **state) {
    (void)state;
    ShoalPacer pacer;
    shoal_pacer_init(&pacer, 0);
    shoal_pacer_set_duty(&pacer, 0.25f);
    /* 20 ms of work, three times as much of pauses; up to one pause may still be owed. */
    assert_true(pass(&pacer, 4, true, 10) >= 70 * 1000000ull);
    assert_true(atomic_load(&progress) > 0);
    shoal_pacer_set_duty(&pacer, -5); /* the least there is, and not forever */
    atomic_store(&cancel, true);
    pass(&pacer, 4, true, 10);
    atomic_store(&cancel, false);
    shoal_pacer_set_duty(&pacer, 7);
    atomic_store(&progress, 0);
    pass(&pacer, 4, true, 5);
    assert_int_equal(atomic_load(&progress), 0);
}

/* Whether it is known yet how long an image takes, or not. */
static void test_pace(void **state) {
    (void)state;
    ShoalPacer pacer;
    shoal_pacer_init(&pacer, 100);
    for (int i = 0; i < 3; i++)
        assert_true(pass(&pacer, 6, true, 3) >= 60 * 1000000ull);
    assert_true(pass(&pacer, 6, false, 1) >= 20 * 1000000ull);
    assert_true(pacer.image_ns > 0.9e6); /* 2 ms of work for 6 images, a third of them each */
    pass(&pacer, 0, true, 0);
}

/* Pauses fall between the pieces, not behind them all. */
static void test_spread(void **state) {
    (void)state;
    ShoalPacer pacer;
    shoal_pacer_init(&pacer, 0);
    shoal_pacer_set_duty(&pacer, 0.2f);
    shoal_pacer_begin(&pacer, 1, true);
    for (int i = 0; i < 3; i++) {
        atomic_store(&progress, 0);
        work_ms(2);
        shoal_pacer_step(&pacer, &cancel, &progress);
        assert_true(atomic_load(&progress) > 0);
    }
    shoal_pacer_end(&pacer, &cancel, &progress);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_full),
        cmocka_unit_test(test_duty),
        cmocka_unit_test(test_pace),
        cmocka_unit_test(test_spread),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
