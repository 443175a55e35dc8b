/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <float.h>
#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "base/rng.h"
#include "cluster/balance.h"

enum { MOST = 16 };

/* A cluster whose workers take fixed + n * per_sample, give or take. */
typedef struct Model {
    ShoalBalance *balance;
    int n, batch, lag; /* plans made ahead of the reports */
    uint64_t keys[MOST];
    double fixed[MOST], per_sample[MOST], noise;
    int capacities[MOST], counts[MOST], queue[8][MOST];
    int iteration;
    ShoalRng rng;
} Model;

static void model_members(Model *model, int n) {
    ShoalError err = {0};
    model->n = n;
    assert_int_equal(shoal_balance_members(model->balance, n, model->keys, &err), SHOAL_OK);
}

static Model model_of(int n, int batch, double noise) {
    Model model = {.batch = batch, .noise = noise};
    ShoalError err = {0};
    assert_int_equal(shoal_balance_create(NULL, &model.balance, &err), SHOAL_OK);
    shoal_rng_init(&model.rng, 1, SHOAL_RNG_TEST, (uint32_t)batch);
    for (int r = 0; r < MOST; r++) {
        model.keys[r] = 100 + (uint64_t)r;
        model.per_sample[r] = 0.01;
        model.capacities[r] = 1 << 20;
    }
    model_members(&model, n);
    return model;
}

static void model_close(Model *model) {
    shoal_balance_destroy(model->balance);
}

static double model_time(const Model *model, int r, int n) {
    return n ? model->fixed[r] + n * model->per_sample[r] : 0;
}

static void model_plan(Model *model) {
    ShoalError err = {0};
    int planned = -1, sum = 0;
    assert_int_equal(shoal_balance_plan(model->balance, model->batch, model->capacities,
                                        model->counts, &planned, &err),
                     SHOAL_OK);
    for (int r = 0; r < model->n; r++) {
        assert_in_range(model->counts[r], 0, model->capacities[r]);
        sum += model->counts[r];
    }
    assert_int_equal(sum, planned);
}

/* One iteration; returns how long it takes. */
static double model_step(Model *model) {
    model_plan(model);
    int *done = model->queue[model->iteration % (model->lag + 1)];
    int *next = model->queue[(model->iteration + model->lag) % (model->lag + 1)];
    memcpy(next, model->counts, sizeof model->counts);
    double longest = 0;
    for (int r = 0; r < model->n && model->iteration >= model->lag; r++) {
        /* Sum of four: about normal. */
        double away = 0;
        for (int i = 0; i < 4; i++)
            away += shoal_rng_unit(&model->rng) - 0.5;
        double seconds = model_time(model, r, done[r]) * (1 + model->noise * away * sqrt(3));
        longest = fmax(longest, seconds);
        shoal_balance_report(model->balance, r, done[r], seconds);
    }
    model->iteration++;
    return longest;
}

/* Samples per second with these counts, as a part of what the speeds add up to. */
static double efficiency(const Model *model) {
    double longest = 0, ideal = 0;
    for (int r = 0; r < model->n; r++) {
        longest = fmax(longest, model_time(model, r, model->counts[r]));
        ideal += 1 / model->per_sample[r];
    }
    return model->batch / longest / ideal;
}

static void expect_counts(const Model *model, const int *expected) {
    for (int r = 0; r < model->n; r++)
        assert_int_equal(model->counts[r], expected[r]);
}

static void unknown_workers_share_equally(void **state) {
    (void)state;
    Model model = model_of(7, 64, 0);
    model_plan(&model);
    expect_counts(&model, (int[]){10, 9, 9, 9, 9, 9, 9});
    model.batch = 3;
    model_plan(&model);
    expect_counts(&model, (int[]){1, 1, 1, 0, 0, 0, 0});
    model.batch = 0;
    model_plan(&model);
    expect_counts(&model, (int[]){0, 0, 0, 0, 0, 0, 0});
    assert_true(shoal_balance_speed(model.balance, 0) == 0);
    assert_int_equal(shoal_balance_changes(model.balance), 0);
    model_close(&model);
}

static void equal_speeds_stay_equal(void **state) {
    (void)state;
    Model model = model_of(7, 64, 0);
    for (int i = 0; i < 50; i++)
        model_step(&model);
    expect_counts(&model, (int[]){10, 9, 9, 9, 9, 9, 9});
    assert_int_equal(shoal_balance_changes(model.balance), 0);
    assert_true(fabs(shoal_balance_speed(model.balance, 3) - 100) < 1e-6);
    model_close(&model);
}

static void shares_follow_speeds(void **state) {
    (void)state;
    Model model = model_of(4, 110, 0);
    model.per_sample[1] = 0.02;
    model.per_sample[2] = 0.03;
    for (int i = 0; i < 3; i++)
        model_step(&model);
    expect_counts(&model, (int[]){39, 19, 13, 39});
    assert_int_equal(shoal_balance_changes(model.balance), 1);
    for (int i = 0; i < 50; i++)
        model_step(&model);
    assert_int_equal(shoal_balance_changes(model.balance), 1);
    model_close(&model);
}

/* Whole samples allow 64 / (9 * 7.33) = 97.0 % and 512 / (70 * 7.33) = 99.7 %. */
static void a_worker_at_a_third_costs_little(void **state) {
    (void)state;
    const int batches[] = {64, 256, 512, 4096};
    const double least[] = {0.9696, 0.969, 0.99, 0.998};
    for (int b = 0; b < 4; b++) {
        Model model = model_of(8, batches[b], 0);
        model.per_sample[5] = 0.03;
        for (int i = 0; i < 3; i++)
            model_step(&model);
        if (efficiency(&model) < least[b])
            fail_msg("batch %d: %.4f", batches[b], efficiency(&model));
        model_close(&model);
    }
}

/* The same with noise and with four rounds in flight: the aim of the whole is 90 %. */
static void a_worker_at_a_third_costs_little_in_noise(void **state) {
    (void)state;
    const double noises[] = {0.02, 0.05, 0.1}, least[] = {0.96, 0.91, 0.86};
    for (int k = 0; k < 3; k++) {
        Model model = model_of(8, 512, noises[k]);
        model.lag = 4;
        model.per_sample[5] = 0.03;
        for (int i = 0; i < 20; i++)
            model_step(&model);
        double mean = 0;
        for (int i = 0; i < 500; i++) {
            model_step(&model);
            assert_true(efficiency(&model) > least[k]);
            mean += efficiency(&model) / 500;
        }
        assert_true(mean > 0.94);
        assert_true(shoal_balance_changes(model.balance) <= 5);
        model_close(&model);
    }
}

static void noise_moves_nothing(void **state) {
    (void)state;
    const double noises[] = {0.05, 0.1};
    const int sizes[] = {2, 8, MOST};
    for (int k = 0; k < 2; k++)
        for (int s = 0; s < 3; s++) {
            Model model = model_of(sizes[s], 512, noises[k]);
            for (int i = 0; i < 3000; i++)
                model_step(&model);
            if (shoal_balance_changes(model.balance))
                fail_msg("%d workers, noise %.2f: %d changes", sizes[s], noises[k],
                         (int)shoal_balance_changes(model.balance));
            model_close(&model);
        }
}

/* Iterations until the throughput is 90 % of what is possible, after worker 2 becomes slower (or
 * faster) by a factor. */
static int followed_after(double factor, double noise, int lag) {
    Model model = model_of(8, 512, noise);
    model.lag = lag;
    for (int i = 0; i < 100; i++)
        model_step(&model);
    model.per_sample[2] *= factor;
    int steps = 0;
    do
        model_step(&model);
    while (++steps < 100 && efficiency(&model) < 0.9);
    for (int i = 0; i < 100; i++)
        model_step(&model);
    /* And it stays there. */
    if (efficiency(&model) < 0.9 || shoal_balance_changes(model.balance) > 4)
        fail_msg("factor %g, noise %g: %.3f, %d changes", factor, noise, efficiency(&model),
                 (int)shoal_balance_changes(model.balance));
    model_close(&model);
    return steps;
}

static void a_throttling_worker_is_followed(void **state) {
    (void)state;
    const double factors[] = {1.3, 1.5, 2, 3, 10, 0.5, 0.2}, noises[] = {0, 0.03, 0.1};
    for (int f = 0; f < 7; f++)
        for (int k = 0; k < 3; k++)
            for (int lag = 0; lag < 5; lag += 4) {
                int steps = followed_after(factors[f], noises[k], lag);
                if (steps > 10 + lag)
                    fail_msg("factor %g, noise %g, lag %d: %d iterations", factors[f], noises[k],
                             lag, steps);
            }
}

/* Slower by 2 % each iteration down to a third, as heat does it. */
static void a_slow_drift_is_followed(void **state) {
    (void)state;
    Model model = model_of(8, 512, 0.03);
    for (int i = 0; i < 50; i++)
        model_step(&model);
    double least = 1;
    for (int i = 0; i < 55; i++) {
        model.per_sample[0] *= 1.02;
        model_step(&model);
        least = fmin(least, efficiency(&model));
    }
    for (int i = 0; i < 15; i++)
        model_step(&model);
    assert_true(least > 0.75);
    assert_true(efficiency(&model) > 0.92);
    model_close(&model);
}

static void a_single_hiccup_moves_nothing(void **state) {
    (void)state;
    Model model = model_of(8, 512, 0.03);
    for (int i = 0; i < 20; i++)
        model_step(&model);
    for (int i = 0; i < 200; i++) {
        model_step(&model);
        if (i % 10 == 0)
            shoal_balance_report(model.balance, i / 10 % 8, model.counts[0], i % 20 ? 50 : 0.001);
    }
    assert_int_equal(shoal_balance_changes(model.balance), 0);
    model_close(&model);
}

/* Every second iteration is three times as slow: shares do not swing with it. */
static void an_unsteady_worker_does_not_shake_the_shares(void **state) {
    (void)state;
    Model model = model_of(2, 300, 0);
    for (int i = 0; i < 500; i++) {
        model_step(&model);
        model.per_sample[1] = i % 2 ? 0.01 : 0.03;
        assert_in_range(model.counts[1], 75, 150);
    }
    assert_true(shoal_balance_changes(model.balance) <= 2);
    model_close(&model);
}

/* A worker with a fixed cost: shares settle where times are equal, which is not where the first
 * reports seem to say. */
static void a_fixed_cost_is_learnt_from_changes(void **state) {
    (void)state;
    for (int lag = 0; lag < 5; lag += 4)
        for (int noisy = 0; noisy < 2; noisy++) {
            Model model = model_of(2, 100, noisy ? 0.03 : 0);
            model.lag = lag;
            model.fixed[1] = 0.5; /* 50 samples: 1.0 s against 0.5 s */
            for (int i = 0; i < 60; i++)
                model_step(&model);
            double a = model_time(&model, 0, model.counts[0]);
            double b = model_time(&model, 1, model.counts[1]);
            if (fmax(a, b) > 0.82) /* best: 75 and 25, 0.75 s */
                fail_msg("lag %d: %d and %d samples", lag, model.counts[0], model.counts[1]);
            assert_true(shoal_balance_changes(model.balance) <= 6);
            model_close(&model);
        }
}

/* Two sizes of batches: of the small one a worker with a fixed cost should do nothing (0.2 s), of
 * the large one a quarter (0.75 s). Samples per second alone do not tell that. */
static void a_fixed_cost_counts_more_in_small_batches(void **state) {
    (void)state;
    for (int noisy = 0; noisy < 2; noisy++) {
        Model model = model_of(2, 100, noisy ? 0.03 : 0);
        model.fixed[1] = 0.5;
        for (int i = 0; i < 100; i++) {
            model.batch = i % 2 ? 20 : 100;
            double seconds = model_step(&model);
            if (i >= 60)
                assert_true(seconds < (i % 2 ? 0.25 : 0.9));
        }
        model_close(&model);
    }
}

static void capacities_are_kept(void **state) {
    (void)state;
    Model model = model_of(4, 100, 0);
    const int capacities[] = {5, 1000, 10, 0};
    memcpy(model.capacities, capacities, sizeof capacities);
    model_plan(&model);
    expect_counts(&model, (int[]){5, 85, 10, 0});
    model.capacities[1] = 50;
    model_plan(&model); /* 65 in all */
    expect_counts(&model, (int[]){5, 50, 10, 0});
    memset(model.capacities, 0, sizeof model.capacities);
    model_plan(&model);
    expect_counts(&model, (int[]){0, 0, 0, 0});
    for (int r = 0; r < 4; r++)
        model.capacities[r] = INT_MAX;
    model.batch = INT_MAX;
    model_plan(&model);
    expect_counts(&model, (int[]){INT_MAX / 4 + 1, INT_MAX / 4 + 1, INT_MAX / 4 + 1, INT_MAX / 4});
    model_close(&model);
}

/* A batch that is done in two parts, as capacities want it: both plans stay. */
static void parts_of_a_batch_keep_their_plans(void **state) {
    (void)state;
    Model model = model_of(4, 100, 0.05);
    int first[MOST] = {0}, second[MOST] = {0};
    model.per_sample[0] = 0.03;
    for (int i = 0; i < 400; i++) {
        model.batch = i % 2 ? 40 : 100;
        model_step(&model);
        int *before = i % 2 ? second : first;
        if (i >= 40)
            assert_memory_equal(before, model.counts, sizeof first);
        memcpy(before, model.counts, sizeof first);
    }
    assert_true(first[0] < 15 && second[0] < 6);
    model_close(&model);
}

static void members_come_and_go(void **state) {
    (void)state;
    Model model = model_of(4, 120, 0);
    model.per_sample[0] = 0.02;
    for (int i = 0; i < 10; i++)
        model_step(&model);
    expect_counts(&model, (int[]){17, 35, 34, 34});
    /* The second leaves; who is slow stays so, under another rank. */
    const double slow = model.per_sample[0];
    model.keys[0] = 103;
    model.keys[1] = 102;
    model.keys[2] = 100;
    model.per_sample[0] = 0.01;
    model.per_sample[2] = slow;
    model_members(&model, 3);
    model_plan(&model);
    expect_counts(&model, (int[]){48, 48, 24});
    assert_true(fabs(shoal_balance_speed(model.balance, 2) - 50) < 1e-6);
    /* A new one, and one that was here: both like the median. */
    model.keys[3] = 200;
    model.keys[4] = 101;
    model_members(&model, 5);
    model_plan(&model);
    expect_counts(&model, (int[]){27, 27, 13, 27, 26});
    assert_true(shoal_balance_speed(model.balance, 3) == 0);
    assert_true(shoal_balance_speed(model.balance, 4) == 0);
    model_close(&model);
}

static void a_new_generation_moves_nothing_for_noise(void **state) {
    (void)state;
    Model model = model_of(8, 512, 0.05);
    for (int g = 0; g < 20; g++) {
        for (int i = 0; i < 30; i++)
            model_step(&model);
        model_members(&model, g % 2 ? 8 : 7);
        model_plan(&model);
        for (int r = 0; r < model.n; r++)
            assert_in_range(model.counts[r], 512 / model.n, 512 / model.n + 1);
    }
    model_close(&model);
}

/* So slow that it gets nothing; then it is well again, and is found out. */
static void a_worker_without_samples_is_tried_again(void **state) {
    (void)state;
    Model model = model_of(8, 64, 0.02);
    model.per_sample[4] = 1;
    for (int i = 0; i < 20; i++)
        model_step(&model);
    assert_int_equal(model.counts[4], 0);
    int tried = 0;
    for (int i = 0; i < 2000; i++) {
        model_step(&model);
        tried += model.counts[4] > 0;
    }
    assert_true(tried > 0 && tried < 200); /* now and then */
    model.per_sample[4] = 0.01;
    for (int i = 0; i < 3000; i++)
        model_step(&model);
    assert_in_range(model.counts[4], 6, 10);
    model_close(&model);
}

/* Without samples a slow worker is taken for faster with time, but not for more than the median;
 * and not at all where it had no room for any. */
static void who_rests_does_not_become_a_hero(void **state) {
    (void)state;
    for (int room = 0; room < 2; room++) {
        Model model = model_of(4, 120, 0);
        model.per_sample[2] = 0.03;
        for (int i = 0; i < 5; i++)
            model_step(&model);
        if (!room)
            model.capacities[2] = 0;
        model.batch = 3;
        for (int i = 0; i < 5000; i++)
            model_step(&model);
        assert_int_equal(model.counts[2], 0);
        double speed = shoal_balance_speed(model.balance, 2);
        assert_true(room ? speed > 90 && speed < 101 : fabs(speed - 100.0 / 3) < 0.01);
        model_close(&model);
    }
}

static void more_workers_than_samples(void **state) {
    (void)state;
    Model model = model_of(MOST, 10, 0.05);
    int first[MOST];
    for (int i = 0; i < 1000; i++) {
        model_step(&model);
        if (i == 0)
            memcpy(first, model.counts, sizeof first);
        assert_memory_equal(first, model.counts, sizeof first);
    }
    /* A slow one gives its sample to one that has none. */
    model.per_sample[3] = 0.05;
    for (int i = 0; i < 10; i++)
        model_step(&model);
    assert_int_equal(model.counts[3], 0);
    model_close(&model);
}

static void nonsense_is_ignored(void **state) {
    (void)state;
    Model model = model_of(2, 10, 0);
    const double seconds[] = {0, -1, NAN, INFINITY, -INFINITY};
    for (int i = 0; i < 5; i++)
        for (int k = 0; k < 5; k++)
            shoal_balance_report(model.balance, 0, 10, seconds[i]);
    for (int k = 0; k < 5; k++) {
        shoal_balance_report(model.balance, 0, 0, 1);
        shoal_balance_report(model.balance, 0, INT_MIN, 1);
        shoal_balance_report(model.balance, -1, 1, 1);
        shoal_balance_report(model.balance, 2, 1, 1);
        shoal_balance_report(model.balance, INT_MAX, 1, 1);
    }
    assert_true(shoal_balance_speed(model.balance, 0) == 0);
    assert_true(shoal_balance_speed(model.balance, -1) == 0);
    assert_true(shoal_balance_speed(model.balance, 2) == 0);
    ShoalError err = {0};
    int counts[2], planned, capacities[2] = {1, -1};
    assert_int_equal(shoal_balance_plan(model.balance, -1, (int[]){1, 1}, counts, &planned, &err),
                     SHOAL_ERR_ARGUMENT);
    err = (ShoalError){0};
    assert_int_equal(shoal_balance_plan(model.balance, 1, capacities, counts, &planned, &err),
                     SHOAL_ERR_ARGUMENT);
    err = (ShoalError){0};
    assert_int_equal(shoal_balance_members(model.balance, -1, NULL, &err), SHOAL_ERR_ARGUMENT);
    err = (ShoalError){0};
    assert_int_equal(shoal_balance_members(model.balance, 0, NULL, &err), SHOAL_OK);
    assert_int_equal(shoal_balance_plan(model.balance, 5, NULL, NULL, &planned, &err), SHOAL_OK);
    assert_int_equal(planned, 0);
    model_close(&model);
    shoal_balance_destroy(NULL);
}

/* Whatever is reported, the counts are counts. */
static void wild_reports_do_no_harm(void **state) {
    (void)state;
    ShoalRng rng;
    shoal_rng_init(&rng, 3, SHOAL_RNG_TEST, 0);
    const double seconds[] = {DBL_MIN, DBL_MAX, 1e-300, 1e300, 1e-9, 1, 1e9, 0.5};
    const int samples[] = {1, 2, 64, 100000, INT_MAX};
    for (int round = 0; round < 300; round++) {
        Model model = model_of(1 + (int)shoal_rng_below(&rng, MOST), 0, 0);
        for (int i = 0; i < 60; i++) {
            for (uint32_t k = shoal_rng_below(&rng, 8); k > 0; k--)
                shoal_balance_report(model.balance, (int)shoal_rng_below(&rng, (uint32_t)model.n),
                                     samples[shoal_rng_below(&rng, 5)],
                                     seconds[shoal_rng_below(&rng, 8)]);
            for (int r = 0; r < model.n; r++)
                if (shoal_rng_below(&rng, 20) == 0)
                    model.capacities[r] = (int)shoal_rng_below(&rng, 1 << (1 + i % 30));
            model.batch = samples[shoal_rng_below(&rng, 5)];
            model_plan(&model);
            double speed = shoal_balance_speed(model.balance, 0);
            assert_true(isfinite(speed) && speed >= 0);
        }
        model_close(&model);
    }
}

/* As good as trying all ways to share out. */
static void a_plan_is_the_best_there_is(void **state) {
    (void)state;
    ShoalRng rng;
    shoal_rng_init(&rng, 5, SHOAL_RNG_TEST, 0);
    for (int round = 0; round < 400; round++) {
        Model model = model_of(3, 1 + (int)shoal_rng_below(&rng, 30), 0);
        for (int r = 0; r < 3; r++) {
            model.per_sample[r] = 0.002 + shoal_rng_unit(&rng);
            model.capacities[r] = 10 + (int)shoal_rng_below(&rng, 20);
            for (int i = 0; i < 4; i++)
                shoal_balance_report(model.balance, r, 10, 10 * model.per_sample[r]);
        }
        model_plan(&model);
        double best = INFINITY, planned = 0;
        for (int a = 0; a <= model.batch && a <= model.capacities[0]; a++)
            for (int b = 0; a + b <= model.batch && b <= model.capacities[1]; b++) {
                int c = model.batch - a - b;
                if (c <= model.capacities[2])
                    best = fmin(best, fmax(fmax(model_time(&model, 0, a), model_time(&model, 1, b)),
                                           model_time(&model, 2, c)));
            }
        for (int r = 0; r < 3; r++)
            planned = fmax(planned, model_time(&model, r, model.counts[r]));
        /* Or equal shares, when they are less than 5 % worse, beyond doubt. */
        assert_true(planned <= best * 1.18 + 1e-9);
        int equal = 1;
        for (int r = 0; r < 3; r++)
            equal &= abs(model.counts[r] - model.batch / 3) <= 1;
        if (!equal)
            assert_true(planned <= best * (1 + 1e-9));
        model_close(&model);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(unknown_workers_share_equally),
        cmocka_unit_test(equal_speeds_stay_equal),
        cmocka_unit_test(shares_follow_speeds),
        cmocka_unit_test(a_worker_at_a_third_costs_little),
        cmocka_unit_test(a_worker_at_a_third_costs_little_in_noise),
        cmocka_unit_test(noise_moves_nothing),
        cmocka_unit_test(a_throttling_worker_is_followed),
        cmocka_unit_test(a_slow_drift_is_followed),
        cmocka_unit_test(a_single_hiccup_moves_nothing),
        cmocka_unit_test(an_unsteady_worker_does_not_shake_the_shares),
        cmocka_unit_test(a_fixed_cost_is_learnt_from_changes),
        cmocka_unit_test(a_fixed_cost_counts_more_in_small_batches),
        cmocka_unit_test(capacities_are_kept),
        cmocka_unit_test(who_rests_does_not_become_a_hero),
        cmocka_unit_test(parts_of_a_batch_keep_their_plans),
        cmocka_unit_test(members_come_and_go),
        cmocka_unit_test(a_new_generation_moves_nothing_for_noise),
        cmocka_unit_test(a_worker_without_samples_is_tried_again),
        cmocka_unit_test(more_workers_than_samples),
        cmocka_unit_test(nonsense_is_ignored),
        cmocka_unit_test(wild_reports_do_no_harm),
        cmocka_unit_test(a_plan_is_the_best_there_is),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
