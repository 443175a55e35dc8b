/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>

#include "base/rng.h"

/* Numbers of one block, whose counter and key are set by hand: the counter is the block's number
 * (64 bits), then the stream's two words. */
static void draw_block(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4]) {
    ShoalRng rng = {.key = {key[0], key[1]},
                    .stream = {counter[2], counter[3]},
                    .block = (uint64_t)counter[1] << 32 | counter[0]};
    for (int i = 0; i < 4; i++)
        out[i] = shoal_rng_u32(&rng);
}

/* Philox4x32-10 in Random123's known-answer file (kat_vectors). */
static void known_answers(void **state) {
    (void)state;
    static const struct {
        uint32_t counter[4], key[2], expected[4];
    } vectors[] = {
        {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff},
         {0xffffffff, 0xffffffff},
         {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
         {0xa4093822, 0x299f31d0},
         {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
    };
    for (size_t v = 0; v < sizeof vectors / sizeof vectors[0]; v++) {
        uint32_t out[4];
        draw_block(vectors[v].counter, vectors[v].key, out);
        for (int i = 0; i < 4; i++)
            assert_int_equal(out[i], vectors[v].expected[i]);
    }
}

/* init puts the seed into the key, and use and index into the upper words of the counter. */
static void seed_use_and_index_have_their_places(void **state) {
    (void)state;
    const uint32_t counter[4] = {0, 0, 77, SHOAL_RNG_SHUFFLE};
    const uint32_t key[2] = {0x89abcdef, 0x01234567};
    uint32_t expected[4];
    draw_block(counter, key, expected);
    ShoalRng rng;
    shoal_rng_init(&rng, 0x0123456789abcdefull, SHOAL_RNG_SHUFFLE, 77);
    for (int i = 0; i < 4; i++)
        assert_int_equal(shoal_rng_u32(&rng), expected[i]);
}

static void seek_goes_to_any_number(void **state) {
    (void)state;
    uint32_t in_order[100];
    ShoalRng rng;
    shoal_rng_init(&rng, 5, SHOAL_RNG_TEST, 1);
    for (int i = 0; i < 100; i++)
        in_order[i] = shoal_rng_u32(&rng);
    for (int start = 99; start >= 0; start--) {
        shoal_rng_seek(&rng, (uint64_t)start);
        for (int i = start; i < 100; i++)
            assert_int_equal(shoal_rng_u32(&rng), in_order[i]);
    }
    /* Far out, where the block's number needs its upper word. */
    const uint32_t counter[4] = {3, 1, 1, SHOAL_RNG_TEST}, key[2] = {5, 0};
    uint32_t expected[4];
    draw_block(counter, key, expected);
    shoal_rng_seek(&rng, 4 * ((1ull << 32) + 3) + 2);
    assert_int_equal(shoal_rng_u32(&rng), expected[2]);
    assert_int_equal(shoal_rng_u32(&rng), expected[3]);
}

static void streams_differ(void **state) {
    (void)state;
    ShoalRng a, b, c, d;
    shoal_rng_init(&a, 1, SHOAL_RNG_DROPOUT, 0);
    shoal_rng_init(&b, 1, SHOAL_RNG_DROPOUT, 1);
    shoal_rng_init(&c, 1, SHOAL_RNG_DUMMY, 0);
    shoal_rng_init(&d, 2, SHOAL_RNG_DROPOUT, 0);
    uint32_t first = shoal_rng_u32(&a);
    assert_int_not_equal(first, shoal_rng_u32(&b));
    assert_int_not_equal(first, shoal_rng_u32(&c));
    assert_int_not_equal(first, shoal_rng_u32(&d));
}

static void below_is_in_range_and_even(void **state) {
    (void)state;
    ShoalRng rng;
    shoal_rng_init(&rng, 9, SHOAL_RNG_TEST, 0);
    static const uint32_t bounds[] = {1, 2, 3, 7, 1000, 0x80000001u, 0xffffffffu};
    for (size_t b = 0; b < sizeof bounds / sizeof bounds[0]; b++)
        for (int i = 0; i < 1000; i++)
            assert_true(shoal_rng_below(&rng, bounds[b]) < bounds[b]);
    int seen[7] = {0};
    for (int i = 0; i < 70000; i++)
        seen[shoal_rng_below(&rng, 7)]++;
    for (int i = 0; i < 7; i++)
        assert_in_range(seen[i], 9500, 10500); /* five standard deviations */
}

static void unit_is_below_one(void **state) {
    (void)state;
    ShoalRng rng = {.out = {0xffffffffu, 0, 0xffu, 0x100u}, .left = 4};
    assert_true(shoal_rng_unit(&rng) == 1 - 0x1p-24f);
    assert_true(shoal_rng_unit(&rng) == 0);
    assert_true(shoal_rng_unit(&rng) == 0);
    assert_true(shoal_rng_unit(&rng) == 0x1p-24f);
}

static void moments_are_as_asked(void **state) {
    (void)state;
    enum { N = 100001 };
    static float values[N];
    ShoalRng rng;
    for (int normal = 0; normal < 2; normal++) {
        shoal_rng_init(&rng, 3, SHOAL_RNG_TEST, (uint32_t)normal);
        if (normal)
            shoal_rng_fill_gaussian(&rng, 2, 0.5f, N, values);
        else
            shoal_rng_fill_uniform(&rng, -1, 3, N, values);
        double sum = 0, squares = 0;
        for (int i = 0; i < N; i++) {
            assert_true(isfinite(values[i]) && (normal || (values[i] >= -1 && values[i] < 3)));
            sum += (double)values[i];
            squares += (double)values[i] * (double)values[i];
        }
        double mean = sum / N, variance = squares / N - mean * mean;
        assert_true(fabs(mean - (normal ? 2 : 1)) < 0.02);
        assert_true(fabs(variance - (normal ? 0.25 : 16.0 / 12)) < 0.02);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(known_answers),
        cmocka_unit_test(seed_use_and_index_have_their_places),
        cmocka_unit_test(seek_goes_to_any_number),
        cmocka_unit_test(streams_differ),
        cmocka_unit_test(below_is_in_range_and_even),
        cmocka_unit_test(unit_is_below_one),
        cmocka_unit_test(moments_are_as_asked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
