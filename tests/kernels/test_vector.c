/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/check.h"

/* Long enough to be shared out among threads. */
enum { LONG = 50021 };

static const size_t lengths[] = {0, 1, 2, 7, 8, 15, 16, 17, 31, 33, 63, 64, 65, 257, LONG};
enum { LENGTHS = sizeof lengths / sizeof *lengths };

/* For every length, level and number of threads: `compute`, `n` and arrays a, b, y (y with a
 * content) in scope. */
#define FOR_ALL(n)                                                                                 \
    for (size_t length_ = 0; length_ < LENGTHS; length_++)                                         \
        for (size_t n = lengths[length_], once_ = 1; once_; once_ = 0)                             \
            FOR_LEVELS(level)                                                                      \
    for (unsigned threads = 0; threads <= MOST_THREADS; threads++)

typedef struct Vectors {
    ShoalCompute compute;
    Array a, b, y, before; /* before: a copy of y */
} Vectors;

static Vectors vectors_open(ShoalCpuLevel level, unsigned threads, size_t n) {
    Vectors v = {
        check_compute(level, threads, 0), array_random(n), array_random(n), array_random(n), {0}};
    v.before = array_copy(&v.y);
    return v;
}

static void vectors_close(Vectors *v) {
    check_compute_close(&v->compute);
    array_close(&v->a);
    array_close(&v->b);
    array_close(&v->y);
    array_close(&v->before);
}

/* Equal to the bit (0 and -0 differ); float arithmetic of the test itself is not contracted. */
static void assert_float(float got, float expected) {
    assert_memory_equal(&got, &expected, sizeof got);
}

static void relu(void **state) {
    (void)state;
    FOR_ALL(n) {
        float slope = threads % 2 ? 0.25f : 0;
        Vectors v = vectors_open(level, threads, n);
        shoal_relu_fwd(&v.compute, n, slope, v.a.data, v.y.data);
        for (size_t i = 0; i < n; i++)
            assert_float(v.y.data[i], v.a.data[i] > 0 ? v.a.data[i] : slope * v.a.data[i]);
        shoal_relu_bwd(&v.compute, n, slope, v.a.data, v.b.data, v.y.data);
        for (size_t i = 0; i < n; i++)
            assert_float(v.y.data[i], v.a.data[i] > 0 ? v.b.data[i] : v.b.data[i] * slope);
        memcpy(v.y.data, v.b.data, n * sizeof *v.y.data); /* in place */
        shoal_relu_bwd(&v.compute, n, slope, v.a.data, v.y.data, v.y.data);
        for (size_t i = 0; i < n; i++)
            assert_float(v.y.data[i], v.a.data[i] > 0 ? v.b.data[i] : v.b.data[i] * slope);
        memcpy(v.y.data, v.a.data, n * sizeof *v.y.data);
        shoal_relu_fwd(&v.compute, n, slope, v.y.data, v.y.data);
        for (size_t i = 0; i < n; i++)
            assert_float(v.y.data[i], v.a.data[i] > 0 ? v.a.data[i] : slope * v.a.data[i]);
        vectors_close(&v);
    }
}

static void relu_of_nan_and_zero(void **state) {
    (void)state;
    FOR_LEVELS(level) {
        ShoalCompute c = check_compute(level, 0, 0);
        float x[40], y[40];
        for (int i = 0; i < 40; i++)
            x[i] = i % 3 == 0 ? NAN : i % 3 == 1 ? 0.0f : INFINITY;
        shoal_relu_fwd(&c, 40, 0, x, y);
        for (int i = 0; i < 40; i++)
            assert_true(i % 3 == 0 ? isnan(y[i]) : y[i] == x[i]);
        check_compute_close(&c);
    }
}

static void sums_and_products(void **state) {
    (void)state;
    FOR_ALL(n) {
        Vectors v = vectors_open(level, threads, n);
        shoal_vec_axpy(&v.compute, n, 0.7f, v.a.data, v.y.data);
        for (size_t i = 0; i < n; i++) {
            volatile float product = 0.7f * v.a.data[i];
            assert_float(v.y.data[i], v.before.data[i] + product);
        }
        shoal_vec_add(&v.compute, n, v.a.data, v.b.data, v.y.data);
        for (size_t i = 0; i < n; i++)
            assert_float(v.y.data[i], v.a.data[i] + v.b.data[i]);
        shoal_vec_mul(&v.compute, n, v.a.data, v.b.data, v.y.data);
        for (size_t i = 0; i < n; i++)
            assert_float(v.y.data[i], v.a.data[i] * v.b.data[i]);
        shoal_vec_add(&v.compute, n, v.y.data, v.y.data, v.y.data); /* all the same array */
        shoal_vec_scale(&v.compute, n, -3, v.y.data);
        for (size_t i = 0; i < n; i++) {
            volatile float twice = 2 * (v.a.data[i] * v.b.data[i]);
            assert_float(v.y.data[i], -3 * twice);
        }
        vectors_close(&v);
    }
}

/* The same bits for any level: those of the reference, which are near the exact sum. */
static void long_sums(void **state) {
    (void)state;
    for (size_t l = 0; l < LENGTHS; l++) {
        Array x = array_random(lengths[l]);
        double sum = 0, sumsq = 0, asum = 0;
        for (size_t i = 0; i < x.count; i++) {
            double value = (double)x.data[i];
            sum += value;
            sumsq += value * value;
            asum += fabs(value);
        }
        assert_true(fabs(shoal_vec_sum(x.count, x.data) - sum) <= 1e-13 * asum);
        assert_true(fabs(shoal_vec_sumsq(x.count, x.data) - sumsq) <= 1e-13 * sumsq);
        assert_true(fabs(shoal_vec_asum(x.count, x.data) - asum) <= 1e-13 * asum);
        array_close(&x);
    }
}

static void bias(void **state) {
    (void)state;
    static const size_t sizes[][2] = {{1, 1}, {3, 17}, {64, 10}, {17, 131}, {211, 500}, {0, 5}};
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
        size_t rows = sizes[s][0], cols = sizes[s][1];
        FOR_LEVELS(level)
        for (unsigned threads = 0; threads <= MOST_THREADS; threads++) {
            Vectors v = vectors_open(level, threads, rows * cols);
            Array b = array_random(cols), before = array_copy(&b);
            shoal_bias_add(&v.compute, rows, cols, b.data, v.y.data);
            for (size_t i = 0; i < rows * cols; i++)
                assert_float(v.y.data[i], v.before.data[i] + b.data[i % cols]);
            shoal_bias_grad(&v.compute, rows, cols, v.a.data, b.data);
            for (size_t c = 0; c < cols; c++) {
                double sum = 0;
                for (size_t r = 0; r < rows; r++)
                    sum += (double)v.a.data[r * cols + c];
                assert_float(b.data[c], (float)((double)before.data[c] + sum));
            }
            vectors_close(&v);
            array_close(&b);
            array_close(&before);
        }
    }
}

static float sign_of(float w) {
    return w > 0 ? 1 : w < 0 ? -1 : 0;
}

/* The rule step by step, each value rounded to float before the next. */
static void expect_sgd(const ShoalSgdRule *rule, float g, float *h, float *w) {
    volatile float t = g * rule->scale;
    if (rule->decay != 0) {
        volatile float term = rule->decay * (rule->l1 ? sign_of(*w) : *w);
        t = t + term;
    }
    volatile float kept = rule->momentum * *h, step = rule->rate * t;
    *h = kept + step;
    volatile float over = 1 + rule->momentum, change = *h;
    if (rule->nesterov) {
        over = over * *h;
        change = over - kept;
    }
    *w = *w - change;
}

static void sgd(void **state) {
    (void)state;
    static const ShoalSgdRule rules[] = {
        {1, 0.01f, 0.9f, 0.0005f, false, false},   {0.37f, 0.013f, 0.9f, 0, false, false},
        {1.0f / 3, 0.1f, 0, 0.0004f, true, false}, {1, 0.01f, 0.9f, 0.0005f, false, true},
        {0.5f, 0.02f, 0.7f, 0, false, true},       {0.5f, 0.02f, 0.8f, 0.01f, true, true}};
    for (size_t r = 0; r < sizeof rules / sizeof *rules; r++)
        FOR_ALL(n) {
            Vectors v = vectors_open(level, threads, n);
            Array h = array_random(n), old = array_copy(&h);
            if (n > 1)
                v.y.data[1] = v.before.data[1] = 0;
            shoal_update_sgd(&v.compute, &rules[r], n, v.a.data, h.data, v.y.data);
            for (size_t i = 0; i < n; i++) {
                expect_sgd(&rules[r], v.a.data[i], &old.data[i], &v.before.data[i]);
                assert_float(h.data[i], old.data[i]);
                assert_float(v.y.data[i], v.before.data[i]);
            }
            vectors_close(&v);
            array_close(&h);
            array_close(&old);
        }
}

/* As kernels.h writes it, each value rounded to float before the next. */
static float expect_adaptive(const ShoalAdaptiveRule *rule, float g, float *v, float *u, float *w) {
    volatile float t = g * rule->scale, old1 = rule->decay1, old2 = rule->decay2, s;
    volatile float new1 = 1 - old1, new2 = 1 - old2, a, b;
    if (rule->decay != 0) {
        volatile float term = rule->decay * (rule->l1 ? sign_of(*w) : *w);
        t = t + term;
    }
    volatile float square = t * t, kept = *v, kept2 = u ? *u : 0;
    bool adam = rule->kind == SHOAL_UPDATE_ADAM;
    if (rule->kind == SHOAL_UPDATE_ADAGRAD) {
        *v = square + kept;
    } else {
        a = new1 * (adam ? t : square);
        b = old1 * kept;
        *v = a + b;
    }
    if (adam) {
        a = new2 * square;
        b = old2 * kept2;
        *u = a + b;
    }
    if (rule->kind == SHOAL_UPDATE_ADADELTA) {
        a = kept2 + rule->delta;
        b = *v + rule->delta;
        a = a / b;
        a = sqrtf(a);
        s = t * a;
        square = s * s;
        a = new1 * square;
        b = old1 * kept2;
        *u = a + b;
    } else {
        a = sqrtf(adam ? *u : *v);
        a = a + rule->delta;
        s = (adam ? *v : t) / a;
    }
    s = s * rule->rate;
    *w = *w - s;
    return s;
}

static void check_adaptive(const ShoalAdaptiveRule *rule, Vectors *v, size_t n, bool in_place) {
    bool two = rule->kind >= SHOAL_UPDATE_ADADELTA;
    Array h = array_random(n), u = array_random(n), step = array_random(n);
    for (size_t i = 0; i < n; i++) { /* sums of squares */
        h.data[i] = fabsf(h.data[i]);
        u.data[i] = fabsf(u.data[i]);
    }
    if (n > 1)
        v->y.data[1] = v->before.data[1] = 0;
    Array old = array_copy(&h), old2 = array_copy(&u), g = array_copy(&v->a);
    float *out = in_place ? v->a.data : step.data;
    shoal_update_adaptive(&v->compute, rule, n, v->a.data, h.data, two ? u.data : NULL, v->y.data,
                          out);
    for (size_t i = 0; i < n; i++) {
        float s = expect_adaptive(rule, g.data[i], &old.data[i], two ? &old2.data[i] : NULL,
                                  &v->before.data[i]);
        assert_float(h.data[i], old.data[i]);
        assert_float(u.data[i], old2.data[i]);
        assert_float(v->y.data[i], v->before.data[i]);
        assert_float(out[i], s);
    }
    Array *all[] = {&h, &u, &step, &old, &old2, &g};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        array_close(all[i]);
}

static void adaptive(void **state) {
    (void)state;
    for (int kind = SHOAL_UPDATE_ADAGRAD; kind <= SHOAL_UPDATE_ADAM; kind++)
        for (int variant = 0; variant < 3; variant++)
            FOR_ALL(n) {
                const ShoalAdaptiveRule rule = {.kind = (ShoalAdaptiveKind)kind,
                                                .scale = variant ? 1.0f / 3 : 1,
                                                .rate = 0.013f,
                                                .decay = variant ? 0.0005f : 0,
                                                .decay1 = 0.9f,
                                                .decay2 = 0.98f,
                                                .delta = 1e-6f,
                                                .l1 = variant == 2};
                Vectors v = vectors_open(level, threads, n);
                check_adaptive(&rule, &v, n, variant == 1);
                vectors_close(&v);
            }
}

/* Softmax of one column, and its gradient, in double. */
static void expect_softmax(size_t classes, size_t inner, const float *x, const float *dy, double *y,
                           double *dx) {
    double sum = 0, dot = 0;
    for (size_t c = 0; c < classes; c++)
        sum += exp((double)x[c * inner]);
    for (size_t c = 0; c < classes; c++) {
        y[c] = exp((double)x[c * inner]) / sum;
        dot += y[c] * (double)dy[c * inner];
    }
    for (size_t c = 0; c < classes; c++)
        dx[c] = ((double)dy[c * inner] - dot) * y[c];
}

static void check_softmax(const Vectors *v, size_t outer, size_t classes, size_t inner,
                          const float *y, const float *dx) {
    double expected[1024], gradient[1024];
    for (size_t i = 0; i < outer * inner; i++) {
        size_t at = i / inner * classes * inner + i % inner;
        expect_softmax(classes, inner, v->a.data + at, v->b.data + at, expected, gradient);
        for (size_t c = 0; c < classes; c++) {
            assert_true(fabs((double)y[at + c * inner] - expected[c]) <= 4e-7 * expected[c]);
            assert_true(fabs((double)dx[at + c * inner] - gradient[c]) <= 2e-6 * expected[c]);
        }
    }
}

static void softmax(void **state) {
    (void)state;
    static const size_t sizes[][3] = {
        {1, 1, 1}, {64, 10, 1}, {3, 7, 5}, {2, 1000, 1}, {40, 21, 64}};
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
        size_t outer = sizes[s][0], classes = sizes[s][1], inner = sizes[s][2];
        FOR_LEVELS(level)
        for (unsigned threads = 0; threads <= MOST_THREADS; threads++) {
            Vectors v = vectors_open(level, threads, outer * classes * inner);
            Array dx = array_copy(&v.b), in_place = array_copy(&v.a);
            shoal_softmax_fwd(&v.compute, outer, classes, inner, v.a.data, v.y.data);
            shoal_softmax_bwd(&v.compute, outer, classes, inner, v.y.data, dx.data, dx.data);
            check_softmax(&v, outer, classes, inner, v.y.data, dx.data);
            shoal_softmax_fwd(&v.compute, outer, classes, inner, in_place.data, in_place.data);
            assert_memory_equal(in_place.data, v.y.data, v.y.count * sizeof(float));
            vectors_close(&v);
            array_close(&dx);
            array_close(&in_place);
        }
    }
}

/* The maximum is subtracted, so that large scores do not overflow. */
static void softmax_of_large_scores(void **state) {
    (void)state;
    ShoalCompute c = check_compute(SHOAL_CPU_C, 0, 0);
    const float x[3] = {1e30f, 1e30f, -1e30f};
    float y[3];
    shoal_softmax_fwd(&c, 1, 3, 1, x, y);
    assert_true(y[0] == 0.5f && y[1] == 0.5f && y[2] == 0);
    check_compute_close(&c);
}

static void unusable_levels_have_no_table(void **state) {
    (void)state;
    for (int level = 0; level < SHOAL_CPU_LEVELS; level++)
        assert_int_equal(shoal_kernels_for((ShoalCpuLevel)level) != NULL,
                         shoal_cpu_level_usable((ShoalCpuLevel)level) != 0);
    assert_null(shoal_kernels_for((ShoalCpuLevel)SHOAL_CPU_LEVELS));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(relu),
        cmocka_unit_test(relu_of_nan_and_zero),
        cmocka_unit_test(sums_and_products),
        cmocka_unit_test(long_sums),
        cmocka_unit_test(bias),
        cmocka_unit_test(sgd),
        cmocka_unit_test(adaptive),
        cmocka_unit_test(softmax),
        cmocka_unit_test(softmax_of_large_scores),
        cmocka_unit_test(unusable_levels_have_no_table),
    };
    return cmocka_run_group_tests(tests, check_start, check_stop);
}
