/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdbool.h>
#include <string.h>

#include "base/memory.h"
#include "base/rng.h"
#include "net/plan.h"

enum { MOST = 60, PLANS = 500, STEPS = 40 };

static bool lives(const ShoalPlanItem *item) {
    return item->bytes && item->last >= item->first;
}

static void make_items(ShoalRng *rng, ShoalPlanItem *items, size_t n) {
    for (size_t i = 0; i < n; i++) {
        items[i].first = (int)shoal_rng_below(rng, STEPS);
        items[i].last = items[i].first + (int)shoal_rng_below(rng, STEPS / 2) - 1;
        /* some equal, some empty, some of one byte more than a multiple of the alignment */
        static const size_t sizes[] = {0, 1, 64, 65, 4096, 4096, 100000};
        items[i].bytes = sizes[shoal_rng_below(rng, 7)];
        if (shoal_rng_below(rng, 2))
            items[i].bytes = shoal_rng_below(rng, 10000);
        items[i].offset = SIZE_MAX;
    }
}

static void check(const ShoalPlanItem *items, size_t n, size_t total) {
    size_t naive = 0, live[2 * STEPS] = {0};
    for (size_t i = 0; i < n; i++) {
        const ShoalPlanItem *a = &items[i];
        if (!lives(a))
            continue;
        naive += shoal_align_up(a->bytes);
        for (int step = a->first; step <= a->last; step++)
            live[step] += a->bytes;
        assert_int_equal(a->offset % SHOAL_ALIGN, 0);
        assert_true(a->offset + a->bytes <= total);
        for (size_t j = i + 1; j < n; j++) {
            const ShoalPlanItem *b = &items[j];
            bool together = lives(b) && a->first <= b->last && b->first <= a->last;
            bool overlap = a->offset < b->offset + b->bytes && b->offset < a->offset + a->bytes;
            if (together && overlap)
                fail_msg("items %zu and %zu overlap", i, j);
        }
    }
    assert_true(total <= naive);
    for (int step = 0; step < 2 * STEPS; step++)
        assert_true(total >= live[step]);
}

static void live_buffers_never_overlap(void **state) {
    (void)state;
    ShoalRng rng;
    shoal_rng_init(&rng, 2, SHOAL_RNG_TEST, 0);
    for (int p = 0; p < PLANS; p++) {
        ShoalPlanItem items[MOST], again[MOST];
        size_t n = shoal_rng_below(&rng, MOST + 1), total = 1, second = 2;
        make_items(&rng, items, n);
        memcpy(again, items, n * sizeof *items);
        ShoalError err = {0};
        assert_int_equal(shoal_plan_place(items, n, &total, &err), SHOAL_OK);
        check(items, n, total);
        assert_int_equal(shoal_plan_place(again, n, &second, &err), SHOAL_OK);
        assert_int_equal(total, second);
        for (size_t i = 0; i < n; i++)
            assert_true(items[i].offset == again[i].offset);
    }
}

static void memory_is_reused(void **state) {
    (void)state;
    /* A chain, as in a forward pass: each buffer lives with its neighbours only. */
    ShoalPlanItem items[20];
    for (int i = 0; i < 20; i++)
        items[i] = (ShoalPlanItem){.bytes = 1024, .first = i, .last = i + 1};
    ShoalError err = {0};
    size_t total;
    assert_int_equal(shoal_plan_place(items, 20, &total, &err), SHOAL_OK);
    assert_int_equal(total, 2048);
}

static void nothing_needs_nothing(void **state) {
    (void)state;
    ShoalError err = {0};
    size_t total = 5;
    assert_int_equal(shoal_plan_place(NULL, 0, &total, &err), SHOAL_OK);
    assert_int_equal(total, 0);
    ShoalPlanItem never = {.bytes = 100, .first = 3, .last = 2};
    assert_int_equal(shoal_plan_place(&never, 1, &total, &err), SHOAL_OK);
    assert_int_equal(total, 0);
}

static void sums_beyond_memory_are_refused(void **state) {
    (void)state;
    ShoalPlanItem items[] = {{.bytes = SIZE_MAX / 2, .first = 0, .last = 1},
                             {.bytes = SIZE_MAX / 2, .first = 0, .last = 1}};
    ShoalError err = {0};
    size_t total = 5;
    assert_int_equal(shoal_plan_place(items, 2, &total, &err), SHOAL_ERR_MEMORY);
    assert_int_equal(total, 5);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(live_buffers_never_overlap),
        cmocka_unit_test(memory_is_reused),
        cmocka_unit_test(nothing_needs_nothing),
        cmocka_unit_test(sums_beyond_memory_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
