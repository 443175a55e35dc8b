/* SPDX-License-Identifier: Apache-2.0 */
/* Operations with a value per channel, batch normalisation and local response normalisation, at
 * every level and with any number of threads, against double arithmetic. */
#include "kernels/check.h"

static const ShoalChannelShape shapes[] = {
    {1, 1, 1},   {3, 5, 1},   {2, 3, 7},     {1, 17, 64},
    {5, 2, 121}, {7, 13, 53}, {2, 3, 20000}, {0, 3, 4},
};
enum { SHAPES = sizeof shapes / sizeof *shapes };

#define FOR_SHAPES(shape)                                                                          \
    for (const ShoalChannelShape *shape = shapes; shape < shapes + SHAPES; shape++)                \
        FOR_LEVELS(level)                                                                          \
    for (unsigned threads = 0; threads <= MOST_THREADS; threads++)

static size_t count_of(const ShoalChannelShape *s) {
    return s->outer * s->channels * s->inner;
}

static size_t channel_of(const ShoalChannelShape *s, size_t i) {
    return i / s->inner % s->channels;
}

static void assert_float(float got, float expected) {
    assert_memory_equal(&got, &expected, sizeof got);
}

static bool near(double got, double expected, double tolerance) {
    return fabs(got - expected) <= tolerance;
}

static void moments(void **state) {
    (void)state;
    FOR_SHAPES(s) {
        ShoalCompute compute = check_compute(level, threads, 0);
        size_t n = count_of(s), c = s->channels;
        Array x = array_random(n), mean = array_random(c), variance = array_random(c);
        for (size_t i = 0; i < n; i++)
            x.data[i] += 100; /* the variance is about the mean: no cancellation */
        shoal_channel_moments(&compute, s, x.data, mean.data, variance.data);
        for (size_t k = 0; k < c; k++) {
            double m = 0, v = 0, terms = (double)(s->outer * s->inner);
            for (size_t i = 0; i < n; i++)
                m += channel_of(s, i) == k ? (double)x.data[i] / terms : 0;
            for (size_t i = 0; i < n; i++)
                v += channel_of(s, i) == k ? pow((double)x.data[i] - m, 2) / terms : 0;
            assert_true(near((double)mean.data[k], m, 1e-7 * m));
            assert_true(near((double)variance.data[k], v, 1e-7 * v));
        }
        array_close(&x);
        array_close(&mean);
        array_close(&variance);
        check_compute_close(&compute);
    }
}

static void affine_and_normalize(void **state) {
    (void)state;
    FOR_SHAPES(s) {
        ShoalCompute compute = check_compute(level, threads, 0);
        size_t n = count_of(s);
        Array x = array_random(n), y = array_blank(n);
        Array a = array_random(s->channels), b = array_random(s->channels);
        shoal_channel_affine(&compute, s, x.data, a.data, b.data, y.data);
        for (size_t i = 0; i < n; i++) {
            volatile float product = a.data[channel_of(s, i)] * x.data[i];
            assert_float(y.data[i], product + b.data[channel_of(s, i)]);
        }
        shoal_batch_norm_fwd(&compute, s, x.data, a.data, b.data, y.data);
        for (size_t i = 0; i < n; i++) {
            volatile float centered = x.data[i] - a.data[channel_of(s, i)];
            assert_float(y.data[i], centered * b.data[channel_of(s, i)]);
        }
        shoal_channel_affine(&compute, s, x.data, a.data, NULL, x.data); /* in place */
        shoal_channel_affine(&compute, s, x.data, b.data, NULL, y.data);
        for (size_t i = 0; i < n; i++)
            assert_true(y.data[i] == x.data[i] * b.data[channel_of(s, i)]);
        array_close(&x);
        array_close(&y);
        array_close(&a);
        array_close(&b);
        check_compute_close(&compute);
    }
}

/* sum of dy * x (or of dy) and of the absolute values over a channel. */
static void expect_sum(const ShoalChannelShape *s, size_t channel, const float *x, const float *dy,
                       double *sum, double *magnitude) {
    *sum = *magnitude = 0;
    for (size_t i = 0; i < count_of(s); i++) {
        double term = (double)dy[i] * (x ? (double)x[i] : 1);
        if (channel_of(s, i) == channel) {
            *sum += term;
            *magnitude += fabs(term);
        }
    }
}

static void sums(void **state) {
    (void)state;
    FOR_SHAPES(s) {
        ShoalCompute compute = check_compute(level, threads, 0);
        Array x = array_random(count_of(s)), dy = array_random(count_of(s));
        for (int with_x = 0; with_x < 2; with_x++) {
            Array sum = array_random(s->channels), before = array_copy(&sum);
            const float *factor = with_x ? x.data : NULL;
            shoal_channel_sums(&compute, s, factor, dy.data, sum.data);
            for (size_t k = 0; k < s->channels; k++) {
                double expected, magnitude;
                expect_sum(s, k, factor, dy.data, &expected, &magnitude);
                expected += (double)before.data[k];
                assert_true(near((double)sum.data[k], expected, 1e-7 * (1 + magnitude)));
            }
            array_close(&sum);
            array_close(&before);
        }
        array_close(&x);
        array_close(&dy);
        check_compute_close(&compute);
    }
}

static void batch_norm_bwd(void **state) {
    (void)state;
    FOR_SHAPES(s) {
        ShoalCompute compute = check_compute(level, threads, 0);
        size_t n = count_of(s);
        Array y = array_random(n), dy = array_random(n), dx = array_copy(&dy);
        Array inverse = array_random(s->channels);
        shoal_batch_norm_bwd(&compute, s, y.data, dx.data, inverse.data, dx.data);
        double terms = (double)(s->outer * s->inner), mean = 0, dot = 0, unused;
        for (size_t k = 0; k < s->channels; k++) {
            expect_sum(s, k, NULL, dy.data, &mean, &unused);
            expect_sum(s, k, y.data, dy.data, &dot, &unused);
            for (size_t i = 0; i < n; i++) {
                double expected =
                    ((double)dy.data[i] - mean / terms - (double)y.data[i] * dot / terms) *
                    (double)inverse.data[k];
                if (channel_of(s, i) == k)
                    assert_true(near((double)dx.data[i], expected, 1e-6));
            }
        }
        array_close(&y);
        array_close(&dy);
        array_close(&dx);
        array_close(&inverse);
        check_compute_close(&compute);
    }
}

/* ---- local response normalisation ---- */

static const ShoalLrnShape windows[] = {
    {.batch = 2, .channels = 7, .height = 5, .width = 3, .size = 5, .beta = 0.75f, .k = 1},
    {.batch = 1, .channels = 3, .height = 31, .width = 33, .size = 3, .beta = 0.5f, .k = 2},
    {.batch = 3, .channels = 4, .height = 2, .width = 9, .size = 11, .beta = 1.3f, .k = 1.5f},
    {.batch = 2, .channels = 8, .height = 23, .width = 27, .size = 5, .beta = 0.75f, .k = 2},
    {.batch = 1, .channels = 1, .height = 1, .width = 1, .size = 1, .beta = 0.75f, .k = 1},
    {.batch = 2,
     .channels = 3,
     .height = 6,
     .width = 5,
     .size = 3,
     .within = true,
     .beta = 0.75f,
     .k = 1},
    {.batch = 1,
     .channels = 2,
     .height = 3,
     .width = 2,
     .size = 7,
     .within = true,
     .beta = 0.5f,
     .k = 1},
    {.batch = 4,
     .channels = 3,
     .height = 26,
     .width = 31,
     .size = 5,
     .within = true,
     .beta = 0.6f,
     .k = 1},
};

static size_t axis_distance(size_t a, size_t b) {
    return a > b ? a - b : b - a;
}

static bool in_window(const ShoalLrnShape *w, size_t i, size_t j) {
    size_t pixels = w->height * w->width, half = w->size / 2;
    if (!w->within)
        return i % pixels == j % pixels && axis_distance(i / pixels, j / pixels) <= half;
    return i / pixels == j / pixels &&
           axis_distance(i % pixels / w->width, j % pixels / w->width) <= half &&
           axis_distance(i % w->width, j % w->width) <= half;
}

/* One image, in double: y and dx. */
static void expect_lrn(const ShoalLrnShape *w, const float *x, const float *dy, double *s,
                       double *ratio, double *y, double *dx) {
    size_t n = w->channels * w->height * w->width;
    double alpha = (double)w->alpha, beta = (double)w->beta;
    for (size_t i = 0; i < n; i++) {
        s[i] = (double)w->k;
        for (size_t j = 0; j < n; j++)
            s[i] += in_window(w, i, j) ? alpha * (double)x[j] * (double)x[j] : 0;
        y[i] = (double)x[i] * pow(s[i], -beta);
        ratio[i] = (double)dy[i] * y[i] / s[i];
    }
    for (size_t i = 0; i < n; i++) {
        double sum = 0;
        for (size_t j = 0; j < n; j++)
            sum += in_window(w, i, j) ? ratio[j] : 0;
        dx[i] = (double)dy[i] * pow(s[i], -beta) - 2 * alpha * beta * (double)x[i] * sum;
    }
}

static void check_lrn(const ShoalLrnShape *w, const Array *x, const Array *dy, const Array *y,
                      const Array *dx) {
    size_t n = w->channels * w->height * w->width;
    double *expected = calloc(4 * n, sizeof *expected);
    assert_true(expected != NULL);
    /* The last image only: the rest goes the same way, and this takes n^2. */
    size_t at = (w->batch - 1) * n;
    expect_lrn(w, x->data + at, dy->data + at, expected, expected + n, expected + 2 * n,
               expected + 3 * n);
    for (size_t i = 0; i < n; i++) {
        assert_true(near((double)y->data[at + i], expected[2 * n + i], 2e-6));
        assert_true(near((double)dx->data[at + i], expected[3 * n + i], 2e-6));
    }
    free(expected);
}

static void lrn(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof windows / sizeof *windows; i++) {
        ShoalLrnShape w = windows[i];
        w.alpha = 0.3f;
        size_t n = w.batch * w.channels * w.height * w.width;
        Array x = array_random(n), dy = array_random(n);
        Array first_y = {0}, first_dx = {0};
        FOR_LEVELS(level)
        for (unsigned threads = 0; threads <= MOST_THREADS; threads++) {
            ShoalCompute compute = check_compute(level, threads, 0);
            Array s = array_blank(n), y = array_blank(n), dx = array_blank(n);
            Array scratch = array_blank(n);
            shoal_lrn_fwd(&compute, &w, x.data, s.data, y.data);
            shoal_lrn_bwd(&compute, &w, x.data, s.data, dy.data, scratch.data, dx.data);
            if (!first_y.block) {
                first_y = array_copy(&y);
                first_dx = array_copy(&dx);
                check_lrn(&w, &x, &dy, &y, &dx);
            }
            assert_memory_equal(y.data, first_y.data, n * sizeof(float));
            assert_memory_equal(dx.data, first_dx.data, n * sizeof(float));
            array_close(&s);
            array_close(&y);
            array_close(&dx);
            array_close(&scratch);
            check_compute_close(&compute);
        }
        array_close(&x);
        array_close(&dy);
        array_close(&first_y);
        array_close(&first_dx);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(moments), cmocka_unit_test(affine_and_normalize),
        cmocka_unit_test(sums),    cmocka_unit_test(batch_norm_bwd),
        cmocka_unit_test(lrn),
    };
    return cmocka_run_group_tests(tests, check_start, check_stop);
}
