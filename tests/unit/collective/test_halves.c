/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "base/rng.h"
#include "collective/halves.h"

/* One of the two formats. */
typedef struct Format {
    int exponent_bits, fraction_bits;
    bool clamps;
    void (*encode)(const float *, float *, uint16_t *, size_t);
    void (*decode)(const uint16_t *, float *, size_t);
    void (*decode_add)(const uint16_t *, float *, size_t);
} Format;

static const Format FP16 = {
    5, 10, true, shoal_fp16_encode, shoal_fp16_decode, shoal_fp16_decode_add};
static const Format BF16 = {
    8, 7, false, shoal_bf16_encode, shoal_bf16_decode, shoal_bf16_decode_add};

/* --- slow and exact -------------------------------------------------------------------------- */

/* What IEEE 754 says that these bits mean. */
static double meaning(const Format *format, unsigned half) {
    int bias = (1 << (format->exponent_bits - 1)) - 1;
    unsigned fraction = half & ((1u << format->fraction_bits) - 1);
    int exponent = (int)(half >> format->fraction_bits) & ((1 << format->exponent_bits) - 1);
    double sign = half & 0x8000 ? -1 : 1;
    if (exponent == (1 << format->exponent_bits) - 1)
        return fraction ? NAN : sign * INFINITY;
    if (exponent == 0)
        return sign * ldexp(fraction, 1 - bias - format->fraction_bits);
    return sign *
           ldexp(fraction + (1u << format->fraction_bits), exponent - bias - format->fraction_bits);
}

static unsigned largest(const Format *format) {
    return (((1u << format->exponent_bits) - 1) << format->fraction_bits) - 1;
}

/* The half that is nearest to a value >= 0, ties to the even one. Halves of one sign are in the
 * order of their bits. */
static unsigned nearest(const Format *format, double value) {
    unsigned low = 0, high = largest(format);
    if (value >= meaning(format, high)) {
        double last_step = meaning(format, high) - meaning(format, high - 1);
        bool beyond = value >= meaning(format, high) + last_step / 2;
        return beyond && !format->clamps ? high + 1 : high;
    }
    while (high - low > 1) {
        unsigned middle = (low + high) / 2;
        *(meaning(format, middle) <= value ? &low : &high) = middle;
    }
    double under = value - meaning(format, low), over = meaning(format, high) - value;
    if (under != over)
        return under < over ? low : high;
    return low % 2 == 0 ? low : high;
}

static unsigned encode_one(const Format *format, float value) {
    uint16_t half;
    format->encode(&value, NULL, &half, 1);
    return half;
}

static void check_one(const Format *format, float value) {
    unsigned expected = nearest(format, fabs((double)value)) | (signbit(value) ? 0x8000u : 0);
    if (encode_one(format, value) != expected)
        fail_msg("%a: %04x, expected %04x", (double)value, encode_one(format, value), expected);
}

/* --- tests ----------------------------------------------------------------------------------- */

static void check_all_halves(const Format *format) {
    static uint16_t halves[65536], again[65536];
    static float values[65536], sums[65536];
    for (unsigned i = 0; i < 65536; i++) {
        halves[i] = (uint16_t)i;
        sums[i] = 1.0f;
    }
    format->decode(halves, values, 65536);
    format->decode_add(halves, sums, 65536);
    format->encode(values, NULL, again, 65536);
    for (unsigned i = 0; i < 65536; i++) {
        double expected = meaning(format, i);
        if (isnan(expected)) {
            assert_true(isnan(values[i]) && isnan(sums[i]));
            assert_true(isnan(meaning(format, again[i])));
            continue;
        }
        assert_true((double)values[i] == expected && !signbit(values[i]) == !signbit(expected));
        assert_true(sums[i] == 1.0f + values[i]);
        if (isinf(expected) && format->clamps)
            assert_int_equal(again[i], largest(format) | (i & 0x8000));
        else
            assert_int_equal(again[i], i);
    }
}

static void test_all_halves(void **state) {
    (void)state;
    check_all_halves(&FP16);
    check_all_halves(&BF16);
}

/* Between every two neighbours: the middle, and the floats beside it. */
static void check_ties(const Format *format) {
    for (unsigned i = 0; i < largest(format); i++) {
        double low = meaning(format, i), high = meaning(format, i + 1);
        float middle = (float)((low + high) / 2);
        check_one(format, middle);
        check_one(format, -middle);
        check_one(format, nextafterf(middle, 0));
        check_one(format, nextafterf(middle, INFINITY));
        check_one(format, nextafterf((float)low, INFINITY));
        check_one(format, nextafterf((float)high, 0));
    }
}

static void test_ties(void **state) {
    (void)state;
    check_ties(&FP16);
    check_ties(&BF16);
}

static void test_any_floats(void **state) {
    (void)state;
    ShoalRng rng;
    shoal_rng_init(&rng, 11, SHOAL_RNG_TEST, 0);
    for (int i = 0; i < 300000; i++) {
        uint32_t bits = shoal_rng_u32(&rng);
        float value;
        if (i % 2) /* more of them where fp16 is */
            bits = (bits & 0x87ffffff) | 0x30000000;
        memcpy(&value, &bits, sizeof(value));
        if (isnan(value)) {
            assert_true(isnan(meaning(&FP16, encode_one(&FP16, value))));
            assert_true(isnan(meaning(&BF16, encode_one(&BF16, value))));
        } else {
            check_one(&FP16, value);
            check_one(&BF16, value);
        }
    }
}

static void test_edges(void **state) {
    (void)state;
    const float edges[] = {0,       65504, 65519.996f, 65520, 65536,   1e30f,
                           3.4e38f, 1e-8f, 1e-45f,     1,     6.1e-5f, INFINITY};
    for (size_t i = 0; i < sizeof(edges) / sizeof(edges[0]); i++) {
        check_one(&FP16, edges[i]);
        check_one(&FP16, -edges[i]);
        check_one(&BF16, edges[i]);
        check_one(&BF16, -edges[i]);
    }
    assert_int_equal(encode_one(&FP16, 1e30f), 0x7bff);
    assert_int_equal(encode_one(&FP16, -INFINITY), 0xfbff);
    assert_int_equal(encode_one(&BF16, INFINITY), 0x7f80);
    assert_int_equal(encode_one(&BF16, 3.4028235e38f), 0x7f80);
}

/* Vectors and their tails alike; nothing is written behind the end. */
static void test_lengths(void **state) {
    (void)state;
    const Format *formats[] = {&FP16, &BF16};
    float values[70], residual[70], back[70];
    uint16_t halves[70], fed[70];
    for (size_t n = 0; n < 68; n++) {
        for (int f = 0; f < 2; f++) {
            for (size_t i = 0; i < 70; i++) {
                values[i] = 0.001f * (float)(i * i) - 1.7f;
                residual[i] = back[i] = 0;
                halves[i] = fed[i] = 0x5555;
            }
            formats[f]->encode(values, NULL, halves, n);
            formats[f]->encode(values, residual, fed, n);
            formats[f]->decode(halves, back, n);
            for (size_t i = 0; i < n; i++) {
                assert_int_equal(halves[i], encode_one(formats[f], values[i]));
                assert_int_equal(fed[i], halves[i]);
                assert_true(back[i] == (float)meaning(formats[f], halves[i]));
                assert_true(residual[i] == values[i] - back[i]);
            }
            assert_true(halves[n] == 0x5555 && fed[n] == 0x5555 && back[n] == 0);
        }
    }
}

/* What is lost comes back: the sum of what is sent follows the sum of what was given. */
static void test_feedback(void **state) {
    (void)state;
    const Format *formats[] = {&FP16, &BF16};
    for (int f = 0; f < 2; f++) {
        const float value = 0.10001f;
        float residual = 0, decoded;
        double with = 0, without = 0;
        for (int i = 0; i < 1000; i++) {
            uint16_t half;
            formats[f]->encode(&value, &residual, &half, 1);
            with += meaning(formats[f], half);
            formats[f]->encode(&value, NULL, &half, 1);
            formats[f]->decode(&half, &decoded, 1);
            without += (double)decoded;
        }
        double step = 0.1 / (f == 0 ? 1024 : 128);
        assert_true(fabs(with - 1000 * (double)value) < step);
        assert_true(fabs(without - 1000 * (double)value) > 10 * step);
    }
}

/* A residual is never poisoned for good. */
static void test_residual_stays_finite(void **state) {
    (void)state;
    const float bad[] = {INFINITY, -INFINITY, NAN, 3.4028235e38f};
    const Format *formats[] = {&FP16, &BF16};
    for (int f = 0; f < 2; f++) {
        for (int i = 0; i < 4; i++) {
            float residual = 0.25f;
            uint16_t half;
            formats[f]->encode(&bad[i], &residual, &half, 1);
            assert_true(isfinite(residual));
            if (isnan(bad[i]))
                assert_true(isnan(meaning(formats[f], half)));
        }
    }
    /* What fp16 cannot hold is kept for later. */
    float large = 70000, residual = 0;
    uint16_t half;
    shoal_fp16_encode(&large, &residual, &half, 1);
    assert_int_equal(half, 0x7bff);
    assert_true(residual == 70000 - 65504);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_all_halves),
        cmocka_unit_test(test_ties),
        cmocka_unit_test(test_any_floats),
        cmocka_unit_test(test_edges),
        cmocka_unit_test(test_lengths),
        cmocka_unit_test(test_feedback),
        cmocka_unit_test(test_residual_stays_finite),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
