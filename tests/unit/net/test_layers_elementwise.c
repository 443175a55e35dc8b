/* SPDX-License-Identifier: Apache-2.0 */
/* Layers that take each value by itself, and other simple ones: values by formulas in double, what
 * backward does at borders, the same bits on any number of threads, shapes, refusals. Gradients are
 * in tests/grad/. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdlib.h>

#include "base/pool.h"
#include "net/filler.h"
#include "layer_checks.h"

#define NEURON(type, settings) "name: 'n' type: '" type "' bottom: 'x' top: 'y' " settings
#define IN_PLACE(type, settings) "name: 'n' type: '" type "' bottom: 'x' top: 'x' " settings
#define TWO(type, settings) "name: 'n' type: '" type "' bottom: 'x' bottom: 'z' top: 'y' " settings

/* ---- y = f(x) ---- */

static double bnll(double x) {
    return log1p(exp(x));
}

static double clip(double x) {
    return fmin(fmax(x, -0.25), 1.5);
}

static double elu(double x) {
    return x > 0 ? x : expm1(x);
}

static double elu_half(double x) {
    return x > 0 ? x : 0.5 * expm1(x);
}

static double exp_of_two(double x) {
    return pow(2, -0.5 + 0.7 * x);
}

static double exp_shifted(double x) {
    return exp(0.25 - x);
}

static double log_of_three(double x) {
    return log(0.5 * x + 4) / log(3);
}

static double identity(double x) {
    return x;
}

static double cube(double x) {
    return pow(1 - 0.5 * x, 3);
}

static double square(double x) {
    return (2 * x + 1) * (2 * x + 1);
}

static double root(double x) {
    return pow(0.25 * x + 2, 0.37);
}

static double one(double x) {
    (void)x;
    return 1;
}

static double nine(double x) {
    (void)x;
    return 9;
}

static double sigmoid(double x) {
    return 1 / (1 + exp(-x));
}

static double swish(double x) {
    return x * sigmoid(x);
}

static double swish_strong(double x) {
    return x * sigmoid(1.75 * x);
}

static double above_half(double x) {
    return x > 0.5;
}

static double above_zero(double x) {
    return x > 0;
}

static double quarter_below(double x) {
    return x > 0 ? x : 0.25 * x;
}

static double tenth_below(double x) {
    return x > 0 ? x : 0.125 * x;
}

static const struct {
    const char *type, *settings;
    double (*f)(double x);
} FORMULAS[] = {
    {"AbsVal", "", fabs},
    {"BNLL", "", bnll},
    {"Clip", "clip_param { min: -0.25 max: 1.5 }", clip},
    {"ELU", "", elu},
    {"ELU", "elu_param { alpha: 0.5 }", elu_half},
    {"Exp", "", exp},
    {"Exp", "exp_param { base: 2 scale: 0.7 shift: -0.5 }", exp_of_two},
    {"Exp", "exp_param { scale: -1 shift: 0.25 }", exp_shifted},
    {"Log", "log_param { base: 3 scale: 0.5 shift: 4 }", log_of_three},
    {"Power", "", identity},
    {"Power", "power_param { power: 3 scale: -0.5 shift: 1 }", cube},
    {"Power", "power_param { power: 2 scale: 2 shift: 1 }", square},
    {"Power", "power_param { power: 0.37 scale: 0.25 shift: 2 }", root},
    {"Power", "power_param { power: 0 }", one},
    {"Power", "power_param { power: 2 scale: 0 shift: -3 }", nine},
    {"PReLU", "", quarter_below},
    {"PReLU", "prelu_param { channel_shared: true filler { value: 0.125 } }", tenth_below},
    {"Sigmoid", "", sigmoid},
    {"Swish", "", swish},
    {"Swish", "swish_param { beta: 1.75 }", swish_strong},
    {"TanH", "", tanh},
    {"Threshold", "", above_zero},
    {"Threshold", "threshold_param { threshold: 0.5 }", above_half},
};
enum { N_FORMULAS = sizeof FORMULAS / sizeof FORMULAS[0] };

/* -5 to 5 in steps of 1/8: 0, the borders of Clip and of Threshold are among them. */
enum { VALUES = 81 };

static void fill_weights(Harness *h) {
    for (int i = 0; i < h->layer.n_params; i++) {
        ShoalRng rng;
        shoal_rng_init(&rng, 1, SHOAL_RNG_TEST, 0);
        const ShoalParam *param = h->layer.params[i];
        ShoalError err = {0};
        if (param->filler)
            assert_int_equal(
                shoal_filler_fill(param->filler, &rng, &h->layer.params[i]->blob, &err), SHOAL_OK);
    }
}

static void check_formula(size_t number, const char *text) {
    const Shape bottom = SHAPE(3, 3, 9);
    Harness h;
    harness_open(&h, text, 1, &bottom);
    fill_weights(&h);
    assert_false(h.layer.whole_batch);
    for (int i = 0; i < VALUES; i++)
        h.bottoms[0]->data[i] = 0.125f * (float)(i - 40);
    harness_forward(&h);
    assert_true(shoal_blob_same_shape(h.tops[0], h.bottoms[0]));
    for (int i = 0; i < VALUES; i++) {
        double expected = FORMULAS[number].f(0.125 * (i - 40));
        double found = (double)h.tops[0]->data[i];
        if (!(fabs(found - expected) <= 4e-7 * fmax(fabs(expected), 1)))
            fail_msg("%s: of %g comes %.9g; expected %.9g", text, 0.125 * (i - 40), found,
                     expected);
    }
    harness_close(&h);
}

static void test_values(void **state) {
    (void)state;
    for (size_t i = 0; i < N_FORMULAS; i++) {
        char text[256];
        for (int in_place = 0; in_place < 2; in_place++) {
            snprintf(text, sizeof text, "name: 'n' type: '%s' bottom: 'x' top: '%s' %s",
                     FORMULAS[i].type, in_place ? "x" : "y", FORMULAS[i].settings);
            check_formula(i, text);
        }
    }
}

/* Forward and backward of n values x, all of dy 2, into y and dx. */
static void run(const char *text, int n, const float *x, float *y, float *dx) {
    const Shape bottom = {1, {n}};
    Harness h;
    harness_open(&h, text, 1, &bottom);
    harness_set(h.bottoms[0]->data, (size_t)n, x);
    harness_forward(&h);
    harness_set(y, (size_t)n, h.tops[0]->data);
    for (int i = 0; i < n; i++)
        h.tops[0]->diff[i] = 2;
    harness_backward(&h);
    harness_set(dx, (size_t)n, h.bottoms[0]->diff);
    harness_close(&h);
}

static const struct {
    const char *type, *settings;
    float x[3], y[3], dx[3];
} BORDERS[] = {
    {"AbsVal", "", {0, -0.0f, 1}, {0, 0, 1}, {0, 0, 2}},
    /* Caffe takes the slope of BNLL at 50 at most; e^-200 is 0 as a float. */
    {"BNLL", "", {100, 1e30f, -200}, {100, 1e30f, 0}, {2, 2, 0}},
    {"Clip", "clip_param { min: -1 max: 1 }", {-1, 1, 1.5f}, {-1, 1, 1}, {2, 2, 0}},
    {"ELU", "", {0, -200, 200}, {0, -1, 200}, {2, 0, 2}},
    {"ELU", "elu_param { alpha: -2 }", {-200, 200, 0}, {2, 200, 0}, {0, 2, -4}},
    {"Power", "power_param { power: 0 }", {0, -3, 5}, {1, 1, 1}, {0, 0, 0}},
    {"Power", "power_param { scale: 0 shift: 4 power: 0.5 }", {0, -3, 5}, {2, 2, 2}, {0, 0, 0}},
    {"Power", "power_param { power: 2 }", {0, -3, 5}, {0, 9, 25}, {0, -12, 20}},
    {"Power", "power_param { power: 3 }", {0, -1, 2}, {0, -1, 8}, {0, 6, 24}},
    {"Sigmoid", "", {0, -200, 200}, {0.5f, 0, 1}, {0.5f, 0, 0}},
    {"Swish", "", {0, -200, 200}, {0, 0, 200}, {1, 0, 2}},
    {"TanH", "", {0, -200, 200}, {0, -1, 1}, {2, 0, 0}},
};

static void test_borders(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof BORDERS / sizeof BORDERS[0]; i++)
        for (int in_place = 0; in_place < 2; in_place++) {
            char text[256];
            float y[3], dx[3];
            snprintf(text, sizeof text, "name: 'n' type: '%s' bottom: 'x' top: '%s' %s",
                     BORDERS[i].type, in_place ? "x" : "y", BORDERS[i].settings);
            run(text, 3, BORDERS[i].x, y, dx);
            for (int j = 0; j < 3; j++)
                if (y[j] != BORDERS[i].y[j] || dx[j] != BORDERS[i].dx[j])
                    fail_msg("%s: of %g comes %g with the gradient %g; expected %g and %g", text,
                             (double)BORDERS[i].x[j], (double)y[j], (double)dx[j],
                             (double)BORDERS[i].y[j], (double)BORDERS[i].dx[j]);
        }
}

/* ---- any number of threads ---- */

static const char *const THREADED[] = {
    IN_PLACE("AbsVal", ""),
    IN_PLACE("BNLL", ""),
    IN_PLACE("ELU", "elu_param { alpha: -1 }"),
    NEURON("Exp", ""),
    NEURON("Power", "power_param { power: 2 }"),
    IN_PLACE("PReLU", ""),
    NEURON("PReLU", "prelu_param { channel_shared: true }"),
    IN_PLACE("Sigmoid", ""),
    NEURON("Swish", ""),
    NEURON("TanH", ""),
    NEURON("MVN", ""),
    IN_PLACE("Dropout", ""),
    IN_PLACE("Bias", ""),
};

/* The bits of top, bottom diff and weight diff after a pass, all in one. */
static float *pass(const char *text, ShoalPool *pool, size_t *n) {
    const Shape bottom = SHAPE(7, 5, 13, 29);
    Harness h;
    harness_open(&h, text, 1, &bottom);
    h.compute.pool = pool;
    fill_weights(&h);
    ShoalRng rng;
    shoal_rng_init(&rng, 3, SHOAL_RNG_TEST, 1);
    size_t count = h.bottoms[0]->count,
           weights = h.layer.n_params ? h.layer.params[0]->blob.count : 0;
    shoal_rng_fill_uniform(&rng, -2, 2, count, h.bottoms[0]->data);
    harness_forward(&h);
    *n = 2 * count + weights;
    float *bits = harness_floats(*n);
    harness_set(bits, count, h.tops[0]->data);
    shoal_rng_fill_uniform(&rng, -2, 2, count, h.tops[0]->diff);
    harness_backward(&h);
    harness_set(bits + count, count, h.bottoms[0]->diff);
    if (weights)
        harness_set(bits + 2 * count, weights, h.layer.params[0]->blob.diff);
    harness_close(&h);
    return bits;
}

static void test_same_bits_on_any_number_of_threads(void **state) {
    (void)state;
    ShoalPool *pool = shoal_pool_create(3);
    assert_non_null(pool);
    for (size_t i = 0; i < sizeof THREADED / sizeof THREADED[0]; i++) {
        size_t n, m;
        float *alone = pass(THREADED[i], NULL, &n), *together = pass(THREADED[i], pool, &m);
        assert_int_equal(n, m);
        if (memcmp(alone, together, n * sizeof *alone))
            fail_msg("%s: other bits on three threads", THREADED[i]);
        shoal_free(alone);
        shoal_free(together);
    }
    shoal_pool_destroy(pool);
}

/* ---- the others ---- */

static void mvn_in_double(bool across, bool variance, double eps, const float *x, double *y) {
    int rows = across ? 2 : 6, size = across ? 12 : 4;
    for (int r = 0; r < rows; r++) {
        double sum = 0, squares = 0;
        for (int i = r * size; i < (r + 1) * size; i++)
            sum += (double)x[i];
        for (int i = r * size; i < (r + 1) * size; i++) {
            y[i] = (double)x[i] - sum / size;
            squares += y[i] * y[i];
        }
        for (int i = r * size; i < (r + 1) * size && variance; i++)
            y[i] /= sqrt(squares / size) + eps;
    }
}

static void test_mvn(void **state) {
    (void)state;
    for (int mode = 0; mode < 4; mode++) {
        const Shape bottom = SHAPE(2, 3, 2, 2);
        char text[256];
        snprintf(text, sizeof text,
                 NEURON("MVN", "mvn_param { across_channels: %s normalize_variance: %s eps: 0.5 }"),
                 mode & 1 ? "true" : "false", mode & 2 ? "true" : "false");
        Harness h;
        harness_open(&h, text, 1, &bottom);
        ShoalRng rng;
        shoal_rng_init(&rng, 3, SHOAL_RNG_TEST, 1);
        shoal_rng_fill_uniform(&rng, -1, 3, 24, h.bottoms[0]->data);
        double y[24];
        float expected[24];
        mvn_in_double(mode & 1, mode & 2, 0.5, h.bottoms[0]->data, y);
        for (int i = 0; i < 24; i++)
            expected[i] = (float)y[i];
        harness_forward(&h);
        harness_assert_near(h.tops[0]->data, expected, 24, 1e-6);
        harness_close(&h);
    }
}

static void test_mvn_gives_four_axes(void **state) {
    (void)state;
    static const ShapeCase cases[] = {
        {NEURON("MVN", ""), SHAPE(3, 5), SHAPE(3, 5, 1, 1)},
        {NEURON("MVN", ""), SHAPE(3, 5, 2), SHAPE(3, 5, 2, 1)},
        {IN_PLACE("MVN", ""), SHAPE(3, 5, 2), SHAPE(3, 5, 2, 1)},
    };
    CHECK_SHAPES(cases);
}

static void test_prelu_by_channel(void **state) {
    (void)state;
    const Shape bottom = SHAPE(1, 2, 3), slopes = SHAPE(2), single = SCALAR;
    Harness h;
    harness_open(&h, IN_PLACE("PReLU", ""), 1, &bottom);
    assert_shape(&h.layer.params[0]->blob, &slopes, "slopes");
    harness_set(h.layer.params[0]->blob.data, 2, (const float[]){0.5f, -2});
    harness_set(h.bottoms[0]->data, 6, (const float[]){-2, 0, 4, -1, 3, -5});
    harness_forward(&h);
    harness_assert_near(h.tops[0]->data, (const float[]){-1, 0, 4, 2, 3, 10}, 6, 0);
    harness_set(h.tops[0]->diff, 6, (const float[]){1, 1, 1, 1, 1, 3});
    harness_backward(&h);
    harness_assert_near(h.bottoms[0]->diff, (const float[]){0.5f, 0.5f, 1, -2, 1, -6}, 6, 0);
    harness_assert_near(h.layer.params[0]->blob.diff, (const float[]){-2, -16}, 2, 0);
    harness_close(&h);
    harness_open(&h, NEURON("PReLU", "prelu_param { channel_shared: true }"), 1, &bottom);
    assert_shape(&h.layer.params[0]->blob, &single, "slope");
    harness_close(&h);
}

static void test_bias(void **state) {
    (void)state;
    static const struct {
        const char *text;
        Shape bottoms[2], weight;
        int n_bottoms;
        float y[4]; /* of x = 0: the bias is 1, 2, ... */
        bool whole;
    } cases[] = {
        {NEURON("Bias", ""), {SHAPE(2, 2)}, SHAPE(2), 1, {1, 2, 1, 2}, false},
        {NEURON("Bias", "bias_param { axis: 0 }"), {SHAPE(2, 2)}, SHAPE(2), 1, {1, 1, 2, 2}, true},
        {NEURON("Bias", "bias_param { axis: -2 num_axes: -1 }"),
         {SHAPE(2, 2)},
         SHAPE(2, 2),
         1,
         {1, 2, 3, 4},
         true},
        {NEURON("Bias", "bias_param { num_axes: 0 }"),
         {SHAPE(2, 2)},
         SCALAR,
         1,
         {1, 1, 1, 1},
         false},
        {NEURON("Bias", "bias_param { axis: 0 num_axes: 0 }"),
         {SHAPE(2, 2)},
         SCALAR,
         1,
         {1, 1, 1, 1},
         false},
        {TWO("Bias", "bias_param { axis: 0 }"),
         {SHAPE(2, 2), SHAPE(2)},
         SCALAR,
         2,
         {1, 1, 2, 2},
         false},
        {TWO("Bias", ""), {SHAPE(2, 2), SCALAR}, SCALAR, 2, {1, 1, 1, 1}, false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        Harness h;
        harness_open(&h, cases[i].text, cases[i].n_bottoms, cases[i].bottoms);
        bool weight = cases[i].n_bottoms == 1;
        assert_int_equal(h.layer.n_params, weight ? 1 : 0);
        ShoalBlob *bias = weight ? &h.layer.params[0]->blob : h.bottoms[1];
        if (weight)
            assert_shape(bias, &cases[i].weight, cases[i].text);
        assert_int_equal(h.layer.whole_batch, cases[i].whole);
        for (size_t j = 0; j < bias->count; j++)
            bias->data[j] = (float)(j + 1);
        harness_forward(&h);
        harness_assert_near(h.tops[0]->data, cases[i].y, 4, 0);
        harness_close(&h);
    }
}

static void test_tile(void **state) {
    (void)state;
    const Shape bottom = SHAPE(2, 2), wide = SHAPE(2, 4), high = SHAPE(4, 2);
    Harness h;
    harness_open(&h, NEURON("Tile", "tile_param { tiles: 2 }"), 1, &bottom);
    assert_shape(h.tops[0], &wide, "top");
    assert_false(h.layer.whole_batch);
    harness_set(h.bottoms[0]->data, 4, (const float[]){1, 2, 3, 4});
    harness_forward(&h);
    harness_assert_near(h.tops[0]->data, (const float[]){1, 2, 1, 2, 3, 4, 3, 4}, 8, 0);
    harness_set(h.tops[0]->diff, 8, (const float[]){1, 2, 30, 40, 5, 6, 70, 80});
    harness_backward(&h);
    harness_assert_near(h.bottoms[0]->diff, (const float[]){31, 42, 75, 86}, 4, 0);
    harness_close(&h);
    harness_open(&h, NEURON("Tile", "tile_param { tiles: 2 axis: -2 }"), 1, &bottom);
    assert_shape(h.tops[0], &high, "top");
    assert_true(h.layer.whole_batch);
    harness_close(&h);
}

static void test_parameter(void **state) {
    (void)state;
    const Shape shape = SHAPE(2, 3);
    Harness h;
    harness_open(&h,
                 "name: 'w' type: 'Parameter' top: 'y' parameter_param { shape { dim: 2 dim: 3 } }",
                 0, NULL);
    assert_int_equal(h.layer.n_params, 1);
    assert_shape(&h.layer.params[0]->blob, &shape, "weight");
    assert_shape(h.tops[0], &shape, "top");
    const float values[6] = {1, 2, 3, 4, 5, 6};
    harness_set(h.layer.params[0]->blob.data, 6, values);
    harness_forward(&h);
    harness_assert_near(h.tops[0]->data, values, 6, 0);
    harness_set(h.tops[0]->diff, 6, values);
    harness_backward(&h);
    harness_backward(&h);
    harness_assert_near(h.layer.params[0]->blob.diff, (const float[]){2, 4, 6, 8, 10, 12}, 6, 0);
    harness_close(&h);
}

/* A factor or a bias along the batch as a weight is not that of a share. */
static void test_weights_along_the_batch(void **state) {
    (void)state;
    static const struct {
        const char *text;
        Shape bottoms[2];
        int n_bottoms;
        bool whole;
    } cases[] = {
        {NEURON("Scale", ""), {SHAPE(4, 2)}, 1, false},
        {NEURON("Scale", "scale_param { axis: 0 }"), {SHAPE(4, 2)}, 1, true},
        {NEURON("Scale", "scale_param { axis: -2 num_axes: -1 }"), {SHAPE(4, 2)}, 1, true},
        {NEURON("Scale", "scale_param { axis: 0 num_axes: 0 }"), {SHAPE(4, 2)}, 1, false},
        {TWO("Scale", "scale_param { axis: 0 }"), {SHAPE(4, 2), SHAPE(4)}, 2, false},
        {TWO("Scale", "scale_param { axis: 0 bias_term: true }"), {SHAPE(4, 2), SHAPE(4)}, 2, true},
        {TWO("Scale", "scale_param { axis: -2 bias_term: true }"),
         {SHAPE(4, 2), SHAPE(4, 2)},
         2,
         true},
        {TWO("Scale", "scale_param { axis: 0 bias_term: true }"), {SHAPE(4, 2), SCALAR}, 2, false},
        {TWO("Scale", "scale_param { bias_term: true }"), {SHAPE(4, 2), SHAPE(2)}, 2, false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        Harness h;
        harness_open(&h, cases[i].text, cases[i].n_bottoms, cases[i].bottoms);
        if (h.layer.whole_batch != cases[i].whole)
            fail_msg("%s: whole_batch is %d", cases[i].text, h.layer.whole_batch);
        harness_close(&h);
    }
}

/* In place, only what backward reads and the top cannot give is kept. */
static void test_what_is_kept(void **state) {
    (void)state;
    static const struct {
        const char *text;
        size_t bytes;
    } cases[] = {
        {IN_PLACE("ELU", ""), 0},     {IN_PLACE("ELU", "elu_param { alpha: -1 }"), 24},
        {IN_PLACE("Sigmoid", ""), 0}, {IN_PLACE("TanH", ""), 0},
        {IN_PLACE("Exp", ""), 0},     {IN_PLACE("AbsVal", ""), 24},
        {NEURON("AbsVal", ""), 0},    {IN_PLACE("PReLU", ""), 24},
        {NEURON("PReLU", ""), 0},     {IN_PLACE("Threshold", ""), 0},
        {IN_PLACE("Bias", ""), 0},
    };
    const Shape bottom = SHAPE(2, 3);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        Harness h;
        harness_open(&h, cases[i].text, 1, &bottom);
        if (h.layer.saved_bytes != cases[i].bytes)
            fail_msg("%s: keeps %zu bytes; expected %zu", cases[i].text, h.layer.saved_bytes,
                     cases[i].bytes);
        harness_close(&h);
    }
}

static void test_refusals(void **state) {
    (void)state;
    static const Refusal cases[] = {
        {NEURON("Clip", ""), 1, {SHAPE(2)}, SHOAL_ERR_MODEL, "no clip_param"},
        {NEURON("Clip", "clip_param { min: 2 max: 1 }"),
         1,
         {SHAPE(2)},
         SHOAL_ERR_MODEL,
         "min is 2 and max is 1"},
        {NEURON("Exp", "exp_param { base: 0 }"), 1, {SHAPE(2)}, SHOAL_ERR_MODEL, "base is 0"},
        {NEURON("Exp", "exp_param { base: inf }"), 1, {SHAPE(2)}, SHOAL_ERR_MODEL, "base is inf"},
        {NEURON("Log", "log_param { base: -2 }"), 1, {SHAPE(2)}, SHOAL_ERR_MODEL, "base is -2"},
        {NEURON("Log", "log_param { base: 1 }"), 1, {SHAPE(2)}, SHOAL_ERR_MODEL, "base is 1"},
        {NEURON("Tile", ""), 1, {SHAPE(2)}, SHOAL_ERR_MODEL, "tile_param.tiles is 0"},
        {NEURON("Tile", "tile_param { tiles: 0 }"),
         1,
         {SHAPE(2, 2)},
         SHOAL_ERR_MODEL,
         "tile_param.tiles is 0"},
        {NEURON("Tile", "tile_param { tiles: 2 axis: 2 }"),
         1,
         {SHAPE(2, 2)},
         SHOAL_ERR_MODEL,
         "axis"},
        {NEURON("Tile", "tile_param { tiles: 2147483647 }"),
         1,
         {SHAPE(2, 2)},
         SHOAL_ERR_MODEL,
         "top 'y'"},
        {NEURON("MVN", ""), 1, {SHAPE(4)}, SHOAL_ERR_MODEL, "1 axes; expected 2 to 4"},
        {NEURON("PReLU", ""), 1, {SHAPE(4)}, SHOAL_ERR_MODEL, "1 axes; expected 2 or more"},
        {NEURON("PReLU", "prelu_param { filler { type: 'odd' } }"),
         1,
         {SHAPE(4, 2)},
         SHOAL_ERR_MODEL,
         "odd"},
        {NEURON("Bias", "bias_param { num_axes: 3 }"),
         1,
         {SHAPE(2, 2)},
         SHOAL_ERR_MODEL,
         "num_axes is 3; expected -1 to 1"},
        {NEURON("Bias", "bias_param { num_axes: -2 }"),
         1,
         {SHAPE(2, 2)},
         SHOAL_ERR_MODEL,
         "num_axes is -2"},
        {NEURON("Bias", "bias_param { axis: 2 }"), 1, {SHAPE(2, 2)}, SHOAL_ERR_MODEL, "axis"},
        {TWO("Bias", ""), 2, {SHAPE(2, 2), SHAPE(3)}, SHOAL_ERR_MODEL, "sizes from axis 1 on"},
        {TWO("Bias", ""), 2, {SHAPE(2, 2), SHAPE(2, 2)}, SHOAL_ERR_MODEL, "sizes from axis 1 on"},
        {"name: 'w' type: 'Parameter' top: 'y'",
         0,
         {SCALAR},
         SHOAL_ERR_MODEL,
         "no parameter_param"},
        {"name: 'w' type: 'Parameter' top: 'y' parameter_param { shape { dim: -1 } }",
         0,
         {SCALAR},
         SHOAL_ERR_MODEL,
         "-1"},
    };
    CHECK_REFUSALS(cases);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_values),
        cmocka_unit_test(test_borders),
        cmocka_unit_test(test_same_bits_on_any_number_of_threads),
        cmocka_unit_test(test_mvn),
        cmocka_unit_test(test_mvn_gives_four_axes),
        cmocka_unit_test(test_prelu_by_channel),
        cmocka_unit_test(test_bias),
        cmocka_unit_test(test_tile),
        cmocka_unit_test(test_parameter),
        cmocka_unit_test(test_weights_along_the_batch),
        cmocka_unit_test(test_what_is_kept),
        cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
