/* SPDX-License-Identifier: Apache-2.0 */
#include "scratch.h"

#include "data/sampler.h"

static ShoalSampler sampler_of(uint64_t count, ShoalShuffle shuffle, uint64_t seed,
                               uint64_t batch) {
    ShoalSampler sampler;
    shoal_sampler_init(&sampler, count, shuffle, seed, batch);
    return sampler;
}

static void order_is_that_of_the_records_again_and_again(void **state) {
    (void)state;
    ShoalSampler sampler = sampler_of(7, SHOAL_SHUFFLE_NONE, 3, 4);
    for (uint64_t n = 0; n < 50; n++) {
        assert_int_equal(shoal_sampler_record(&sampler, n), n % 7);
        assert_int_equal(shoal_sampler_epoch(&sampler, n), n / 7);
    }
}

static void far_samples_do_not_overflow(void **state) {
    (void)state;
    ShoalSampler sampler = sampler_of(60000, SHOAL_SHUFFLE_NONE, 1, 1);
    assert_int_equal(shoal_sampler_record(&sampler, UINT64_MAX), UINT64_MAX % 60000);
    for (int shuffle = SHOAL_SHUFFLE_NONE; shuffle <= SHOAL_SHUFFLE_SHARD; shuffle++) {
        sampler = sampler_of(0, (ShoalShuffle)shuffle, 1, 0);
        assert_int_equal(shoal_sampler_record(&sampler, 5), 0);
        const uint64_t counts[] = {
            1, 2, UINT32_MAX, UINT64_C(1) << 32, (UINT64_C(1) << 62) + 1, UINT64_MAX};
        const uint64_t batches[] = {1, 64, UINT32_MAX, UINT64_C(1) << 32, UINT64_MAX};
        for (size_t c = 0; c < sizeof counts / sizeof *counts; c++)
            for (size_t b = 0; b < sizeof batches / sizeof *batches; b++) {
                sampler = sampler_of(counts[c], (ShoalShuffle)shuffle, UINT64_MAX, batches[b]);
                for (int bit = 0; bit < 64; bit++) {
                    uint64_t n = UINT64_C(1) << bit;
                    assert_true(shoal_sampler_record(&sampler, n) < counts[c]);
                    assert_true(shoal_sampler_record(&sampler, n - 1) < counts[c]);
                    assert_true(shoal_sampler_record(&sampler, UINT64_MAX - n) < counts[c]);
                }
                assert_true(shoal_sampler_epoch(&sampler, UINT64_MAX) <= UINT64_MAX / counts[c]);
            }
    }
}

/* How often each record comes up among the samples first, first + step, ... */
static unsigned *uses(const ShoalSampler *sampler, uint64_t first, uint64_t step, uint64_t n) {
    unsigned *used = shoal_calloc(sampler->count, sizeof *used);
    assert_non_null(used);
    for (uint64_t i = 0; i < n; i++) {
        uint64_t record = shoal_sampler_record(sampler, first + i * step);
        assert_true(record < sampler->count);
        used[record]++;
    }
    return used;
}

static void global_epochs_have_each_record_once(void **state) {
    (void)state;
    const uint64_t large[] = {255, 256, 257, 1000, 1023, 1024, 1025, 4096, 4097, 60000, 65537};
    for (uint64_t c = 1; c < 130 + sizeof large / sizeof *large; c++) {
        uint64_t count = c < 130 ? c : large[c - 130];
        ShoalSampler sampler = sampler_of(count, SHOAL_SHUFFLE_GLOBAL, c, 64);
        const uint64_t epochs[] = {0, 1, 2, 77, UINT32_MAX, UINT64_C(1) << 33};
        for (int e = 0; e < 6; e++) {
            unsigned *used = uses(&sampler, epochs[e] * count, 1, count);
            for (uint64_t r = 0; r < count; r++)
                assert_int_equal(used[r], 1);
            shoal_free(used);
            assert_int_equal(shoal_sampler_epoch(&sampler, epochs[e] * count), epochs[e]);
            assert_int_equal(shoal_sampler_epoch(&sampler, (epochs[e] + 1) * count - 1), epochs[e]);
        }
    }
}

static void a_place_goes_through_its_shard_again_and_again(void **state) {
    (void)state;
    const uint64_t cases[][2] = {{1, 1},   {10, 10},  {10, 3},     {50, 7},
                                 {64, 64}, {100, 99}, {1000, 256}, {5003, 64}};
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        uint64_t count = cases[c][0], batch = cases[c][1];
        ShoalSampler sampler = sampler_of(count, SHOAL_SHUFFLE_SHARD, 5, batch);
        for (uint64_t place = 0; place < batch; place++) {
            uint64_t begin = place * count / batch, end = (place + 1) * count / batch;
            for (uint64_t turn = 0; turn < 4; turn++) {
                uint64_t first = turn * (end - begin) * batch + place;
                unsigned *used = uses(&sampler, first, batch, end - begin);
                for (uint64_t r = 0; r < count; r++)
                    assert_int_equal(used[r], r >= begin && r < end);
                shoal_free(used);
            }
        }
    }
}

/* shoal_sampler_epoch against counting. */
static void an_epoch_of_shards_ends_when_all_records_are_used(void **state) {
    (void)state;
    const uint64_t cases[][2] = {{10, 10}, {10, 3}, {17, 5}, {23, 22}};
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        uint64_t count = cases[c][0];
        ShoalSampler sampler = sampler_of(count, SHOAL_SHUFFLE_SHARD, 1, cases[c][1]);
        unsigned used[32] = {0};
        for (uint64_t n = 0; n < 20 * count; n++) {
            unsigned least = used[0];
            for (uint64_t r = 1; r < count; r++)
                least = used[r] < least ? used[r] : least;
            assert_int_equal(shoal_sampler_epoch(&sampler, n), least);
            used[shoal_sampler_record(&sampler, n)]++;
        }
    }
}

static void more_places_than_records_is_global(void **state) {
    (void)state;
    ShoalSampler shard = sampler_of(10, SHOAL_SHUFFLE_SHARD, 9, 11);
    ShoalSampler global = sampler_of(10, SHOAL_SHUFFLE_GLOBAL, 9, 11);
    for (uint64_t n = 0; n < 100; n++)
        assert_int_equal(shoal_sampler_record(&shard, n), shoal_sampler_record(&global, n));
}

/* How many of n samples are the same record in both; two random orders of `count` records agree in
 * n / count. */
static int agreements(const ShoalSampler *a, uint64_t first_a, const ShoalSampler *b,
                      uint64_t first_b, int n) {
    int same = 0;
    for (int i = 0; i < n; i++)
        same += shoal_sampler_record(a, first_a + (uint64_t)i) ==
                shoal_sampler_record(b, first_b + (uint64_t)i);
    return same;
}

static void epochs_seeds_and_shards_differ(void **state) {
    (void)state;
    ShoalSampler one = sampler_of(1000, SHOAL_SHUFFLE_GLOBAL, 1, 10);
    ShoalSampler two = sampler_of(1000, SHOAL_SHUFFLE_GLOBAL, 2, 10);
    ShoalSampler none = sampler_of(1000, SHOAL_SHUFFLE_NONE, 1, 10);
    ShoalSampler shard = sampler_of(1000, SHOAL_SHUFFLE_SHARD, 1, 10);
    for (uint64_t epoch = 0; epoch < 20; epoch++) {
        assert_true(agreements(&one, epoch * 1000, &one, (epoch + 1) * 1000, 1000) < 12);
        assert_true(agreements(&one, epoch * 1000, &two, epoch * 1000, 1000) < 12);
        assert_true(agreements(&one, epoch * 1000, &none, epoch * 1000, 1000) < 12);
        /* Within a shard of 100: 10 on average. */
        assert_true(agreements(&shard, epoch * 1000, &shard, (epoch + 1) * 1000, 1000) < 35);
    }
    int same = 0;
    for (uint64_t i = 0; i < 100; i++)
        same +=
            shoal_sampler_record(&shard, i * 10) + 100 == shoal_sampler_record(&shard, i * 10 + 1);
    assert_true(same < 12);
}

/* Chi-square of `bins` counts against n / bins each. Its mean is bins - 1, its variance twice that;
 * six deviations are never seen but by a fault. */
static void expect_even(const unsigned *counts, int bins, double n) {
    double sum = 0, expected = n / bins;
    for (int i = 0; i < bins; i++)
        sum += (counts[i] - expected) * (counts[i] - expected) / expected;
    double mean = bins - 1, away = (sum - mean) * (sum - mean) / (2 * mean);
    if (away > 36)
        fail_msg("chi-square %.1f in %d bins", sum, bins);
}

/* Over many epochs every position has every record equally often, and the second record of an epoch
 * is any but the first. Counts on both sides of powers of two. */
static void orders_are_even(void **state) {
    (void)state;
    const int counts[] = {2, 3, 4, 5, 7, 8, 13, 16, 17, 31};
    for (size_t c = 0; c < sizeof counts / sizeof *counts; c++) {
        int count = counts[c], epochs = 20000;
        ShoalSampler sampler = sampler_of((uint64_t)count, SHOAL_SHUFFLE_GLOBAL, 11, 1);
        unsigned at[31 * 31] = {0}, steps[31] = {0};
        for (int e = 0; e < epochs; e++) {
            uint64_t before = 0;
            for (int i = 0; i < count; i++) {
                uint64_t record =
                    shoal_sampler_record(&sampler, (uint64_t)e * (uint64_t)count + (uint64_t)i);
                at[i * count + (int)record]++;
                if (i == 1)
                    steps[(record + (uint64_t)count - before) % (uint64_t)count]++;
                before = record;
            }
        }
        for (int i = 0; i < count; i++)
            expect_even(at + i * count, count, epochs);
        assert_int_equal(steps[0], 0);
        if (count > 2)
            expect_even(steps + 1, count - 1, epochs);
    }
}

/* A large epoch: where the records of each hundredth of the dataset come. */
static void a_large_order_is_even(void **state) {
    (void)state;
    ShoalSampler sampler = sampler_of(100000, SHOAL_SHUFFLE_GLOBAL, 4, 1);
    unsigned *cells = shoal_calloc(100 * 100, sizeof *cells);
    assert_non_null(cells);
    for (uint64_t i = 0; i < 100000; i++)
        cells[i / 1000 * 100 + shoal_sampler_record(&sampler, i) / 1000]++;
    for (int row = 0; row < 100; row++)
        expect_even(cells + (ptrdiff_t)row * 100, 100, 1000);
    shoal_free(cells);
}

/* The order is a promise: a resumed run, or one of another version, goes on with it. */
static void the_order_stays_what_it_is(void **state) {
    (void)state;
    const uint64_t global[] = {370, 548, 755, 188, 39, 591, 723, 778},
                   shard[] = {534, 652, 795, 930, 80, 212, 280, 389};
    ShoalSampler g = sampler_of(1000, SHOAL_SHUFFLE_GLOBAL, 42, 8);
    ShoalSampler s = sampler_of(1000, SHOAL_SHUFFLE_SHARD, 42, 8);
    for (uint64_t i = 0; i < 8; i++) {
        assert_int_equal(shoal_sampler_record(&g, 1996 + i), global[i]);
        assert_int_equal(shoal_sampler_record(&s, 1996 + i), shard[i]);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(order_is_that_of_the_records_again_and_again),
        cmocka_unit_test(far_samples_do_not_overflow),
        cmocka_unit_test(global_epochs_have_each_record_once),
        cmocka_unit_test(a_place_goes_through_its_shard_again_and_again),
        cmocka_unit_test(an_epoch_of_shards_ends_when_all_records_are_used),
        cmocka_unit_test(more_places_than_records_is_global),
        cmocka_unit_test(epochs_seeds_and_shards_differ),
        cmocka_unit_test(orders_are_even),
        cmocka_unit_test(a_large_order_is_even),
        cmocka_unit_test(the_order_stays_what_it_is),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
