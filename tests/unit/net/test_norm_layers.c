/* SPDX-License-Identifier: Apache-2.0 */
/* BatchNorm, Scale, LRN, Eltwise, Concat and TanH: shapes, refusals, and values worked out by hand.
 * Gradients are in tests/grad/, whole nets in tests/golden/. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>

#include "layer_checks.h"

#define BN(settings)                                                                               \
    "name: 'b' type: 'BatchNorm' bottom: 'x' top: 'y' batch_norm_param { " settings " }"
#define SCALE(settings) "name: 's' type: 'Scale' bottom: 'x' top: 'y' scale_param { " settings " }"
#define SCALE2(settings)                                                                           \
    "name: 's' type: 'Scale' bottom: 'x' bottom: 'z' top: 'y' scale_param { " settings " }"
#define LRN(settings) "name: 'n' type: 'LRN' bottom: 'x' top: 'y' lrn_param { " settings " }"
#define ELTWISE(settings)                                                                          \
    "name: 'e' type: 'Eltwise' bottom: 'x' bottom: 'z' top: 'y' eltwise_param { " settings " }"
#define CONCAT(settings)                                                                           \
    "name: 'c' type: 'Concat' bottom: 'x' bottom: 'z' top: 'y' concat_param { " settings " }"

/* ---- BatchNorm ---- */

/* Channel 0 holds 1, 3, 1, 3 (mean 2, variance 1), channel 1 holds 10, 10, 40, 20 (20, 150). */
static const float VALUES[8] = {1, 3, 10, 10, 1, 3, 40, 20};

static void test_batch_norm_moves_its_statistics(void **state) {
    (void)state;
    const Shape bottom = SHAPE(2, 2, 2);
    Harness h;
    harness_open(&h, BN("moving_average_fraction: 0.5 eps: 0"), 1, &bottom);
    assert_int_equal(h.layer.n_params, 3);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(h.layer.params[i]->blob.axes, 1);
        assert_int_equal(h.layer.params[i]->blob.count, i < 2 ? 2 : 1);
        assert_true(h.layer.params[i]->lr_mult == 0 && h.layer.params[i]->statistic);
    }
    float *means = h.layer.params[0]->blob.data, *variances = h.layer.params[1]->blob.data;
    float *weight = h.layer.params[2]->blob.data;
    harness_set(h.bottoms[0]->data, 8, VALUES);
    harness_forward(&h);
    const float spread = sqrtf(150);
    const float expected[8] = {-1, 1, -10 / spread, -10 / spread, -1, 1, 20 / spread, 0};
    harness_assert_near(h.tops[0]->data, expected, 8, 1e-6);
    harness_assert_near(means, (const float[]){2, 20}, 2, 0);
    harness_assert_near(variances, (const float[]){4.0f / 3, 200}, 2, 1e-4);
    assert_true(weight[0] == 1);
    harness_forward(&h);
    harness_assert_near(means, (const float[]){3, 30}, 2, 0);
    harness_assert_near(variances, (const float[]){2, 300}, 2, 1e-4);
    assert_true(weight[0] == 1.5f);
    harness_close(&h);
}

static void test_batch_norm_of_one_value(void **state) {
    (void)state;
    const Shape bottom = SHAPE(1, 3);
    Harness h;
    harness_open(&h, BN(""), 1, &bottom);
    harness_set(h.bottoms[0]->data, 3, (const float[]){5, -7, 1e30f});
    harness_forward(&h);
    harness_assert_near(h.tops[0]->data, (const float[]){0, 0, 0}, 3, 0);
    harness_assert_near(h.layer.params[1]->blob.data, (const float[]){0, 0, 0}, 3, 0);
    harness_close(&h);
}

static void check_global(const char *text, Caffe__Phase phase, float weight,
                         const float *expected) {
    const Shape bottom = SHAPE(2, 2, 2);
    Harness h;
    harness_init(&h, text, NULL, 1, &bottom);
    h.context.phase = phase;
    assert_int_equal(harness_setup(&h), SHOAL_OK);
    harness_allocate(&h);
    const float means[2] = {4, 40}, variances[2] = {8, 50};
    harness_set(h.layer.params[0]->blob.data, 2, means);
    harness_set(h.layer.params[1]->blob.data, 2, variances);
    h.layer.params[2]->blob.data[0] = weight;
    harness_set(h.bottoms[0]->data, 8, VALUES);
    harness_forward(&h);
    harness_assert_near(h.tops[0]->data, expected, 8, 1e-5);
    harness_assert_near(h.layer.params[0]->blob.data, means, 2, 0);
    assert_false(h.layer.params[0]->statistic);
    harness_close(&h);
}

static void test_batch_norm_with_global_statistics(void **state) {
    (void)state;
    /* mean 2 and 20, variance + eps 5 and 26 */
    const float a = sqrtf(5), b = sqrtf(26);
    const float expected[8] = {-1 / a, 1 / a, -10 / b, -10 / b, -1 / a, 1 / a, 20 / b, 0};
    check_global(BN("eps: 1"), CAFFE__PHASE__TEST, 2, expected);
    check_global(BN("eps: 1 use_global_stats: true"), CAFFE__PHASE__TRAIN, 2, expected);
    /* Without weight the statistics are 0. */
    check_global(BN("eps: 1"), CAFFE__PHASE__TEST, 0, VALUES);
}

static void test_batch_norm_ignores_the_phase_when_told(void **state) {
    (void)state;
    const Shape bottom = SHAPE(2, 2, 2);
    Harness h;
    harness_init(&h, BN("use_global_stats: false"), NULL, 1, &bottom);
    h.context.phase = CAFFE__PHASE__TEST;
    assert_int_equal(harness_setup(&h), SHOAL_OK);
    assert_true(h.layer.params[0]->statistic);
    harness_close(&h);
}

/* As Caffe, which stores them in the caffemodel. */
static void test_batch_norm_writes_its_multipliers(void **state) {
    (void)state;
    const Shape bottom = SHAPE(2, 2, 2);
    static const char *const texts[] = {BN(""), BN("") " param { lr_mult: 0 decay_mult: 0 }"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        Harness h;
        harness_open(&h, texts[i], 1, &bottom);
        assert_int_equal(h.param->n_param, 3);
        for (int j = 0; j < 3; j++)
            assert_true(h.param->param[j]->has_lr_mult && h.param->param[j]->lr_mult == 0);
        assert_int_equal(h.param->param[0]->has_decay_mult, i);
        assert_false(h.param->param[2]->has_decay_mult);
        harness_close(&h);
    }
}

static void test_batch_norm_refuses(void **state) {
    (void)state;
    static const Refusal cases[] = {
        {BN(""), 1, {SHAPE(5)}, SHOAL_ERR_MODEL, "2 axes or more"},
        {BN(""), 1, {SHAPE(5, 0, 3)}, SHOAL_ERR_MODEL, "channels on axis 1"},
        {BN("eps: -1"), 1, {SHAPE(5, 2)}, SHOAL_ERR_MODEL, "eps is -1"},
        {BN("moving_average_fraction: nan"), 1, {SHAPE(5, 2)}, SHOAL_ERR_MODEL, "fraction is"},
        {BN("use_weight_bias: true"), 1, {SHAPE(5, 2)}, SHOAL_ERR_UNSUPPORTED, "a Scale layer"},
        {BN("bias_term: true"), 1, {SHAPE(5, 2)}, SHOAL_ERR_UNSUPPORTED, "a Scale layer"},
        {BN("") " param { lr_mult: 0 } param { lr_mult: 2 }",
         1,
         {SHAPE(5, 2)},
         SHOAL_ERR_MODEL,
         "param 1 has lr_mult 2"},
        {BN("") " param { decay_mult: 0 }", 1, {SHAPE(5, 2)}, SHOAL_ERR_MODEL, "lr_mult 1"},
    };
    CHECK_REFUSALS(cases);
}

/* ---- Scale ---- */

static void test_scale_of_nothing_set_is_the_identity(void **state) {
    (void)state;
    const Shape bottom = SHAPE(2, 2, 2);
    Harness h;
    harness_init(&h, "name: 's' type: 'Scale' bottom: 'x' top: 'y'", NULL, 1, &bottom);
    assert_int_equal(harness_setup(&h), SHOAL_OK);
    assert_int_equal(h.layer.n_params, 1);
    const Caffe__FillerParameter *filler = h.layer.params[0]->filler;
    assert_string_equal(filler->type, "constant");
    assert_true(filler->value == 1);
    harness_close(&h);
}

static void test_scale_spreads_its_factor(void **state) {
    (void)state;
    const Shape bottom = SHAPE(2, 2, 2);
    Harness h;
    harness_open(&h, SCALE("bias_term: true"), 1, &bottom);
    assert_null(h.layer.params[1]->filler);
    harness_set(h.layer.params[0]->blob.data, 2, (const float[]){2, -1});
    harness_set(h.layer.params[1]->blob.data, 2, (const float[]){0.5f, 3});
    harness_set(h.bottoms[0]->data, 8, VALUES);
    harness_forward(&h);
    const float expected[8] = {2.5f, 6.5f, -7, -7, 2.5f, 6.5f, -37, -17};
    harness_assert_near(h.tops[0]->data, expected, 8, 0);
    harness_close(&h);
}

static void test_scale_by_another_bottom(void **state) {
    (void)state;
    const Shape bottoms[2] = {SHAPE(2, 2, 2), SHAPE(2)};
    Harness h;
    harness_open(&h, SCALE2("axis: 0"), 2, bottoms);
    assert_int_equal(h.layer.n_params, 0);
    harness_set(h.bottoms[0]->data, 8, VALUES);
    harness_set(h.bottoms[1]->data, 2, (const float[]){2, -1});
    harness_forward(&h);
    const float expected[8] = {2, 6, 20, 20, -1, -3, -40, -20};
    harness_assert_near(h.tops[0]->data, expected, 8, 0);
    harness_close(&h);
}

static void test_scale_weights(void **state) {
    (void)state;
    static const struct {
        const char *text;
        Shape weights;
    } cases[] = {
        {SCALE(""), SHAPE(3)},
        {SCALE("num_axes: 2"), SHAPE(3, 4)},
        {SCALE("axis: -2 num_axes: -1"), SHAPE(4, 5)},
        {SCALE("axis: 0 num_axes: -1"), SHAPE(2, 3, 4, 5)},
        {SCALE("num_axes: 0"), SCALAR},
    };
    const Shape bottom = SHAPE(2, 3, 4, 5);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        Harness h;
        harness_open(&h, cases[i].text, 1, &bottom);
        assert_shape(&h.layer.params[0]->blob, &cases[i].weights, cases[i].text);
        harness_close(&h);
    }
}

static void test_scale_refuses(void **state) {
    (void)state;
    static const Refusal cases[] = {
        {SCALE("axis: 3"), 1, {SHAPE(5, 2, 3)}, SHOAL_ERR_MODEL, "axis 3 is out of range"},
        {SCALE("num_axes: 3"), 1, {SHAPE(5, 2, 3)}, SHOAL_ERR_MODEL, "num_axes is 3"},
        {SCALE("num_axes: -2"), 1, {SHAPE(5, 2, 3)}, SHOAL_ERR_MODEL, "num_axes is -2"},
        {SCALE("filler { type: 'nothing' }"), 1, {SHAPE(5, 2)}, SHOAL_ERR_MODEL, "nothing"},
        {SCALE2(""), 2, {SHAPE(5, 2, 3), SHAPE(3)}, SHOAL_ERR_MODEL, "sizes from axis 1"},
        {SCALE2(""), 2, {SHAPE(5, 2), SHAPE(2, 3)}, SHOAL_ERR_MODEL, "sizes from axis 1"},
    };
    CHECK_REFUSALS(cases);
}

/* A weight as large as the batch cannot follow when the share changes. */
static void test_scale_of_another_share(void **state) {
    (void)state;
    const Shape bottom = SHAPE(4, 2);
    Harness h;
    harness_open(&h, SCALE("axis: 0"), 1, &bottom);
    assert_int_equal(shoal_blob_reshape(h.bottoms[0], 2, (const int[]){3, 2}, &h.err), SHOAL_OK);
    assert_int_equal(h.layer.class->reshape(&h.layer, &h.err), SHOAL_ERR_MODEL);
    assert_non_null(strstr(h.err.text, "in every share of the batch"));
    harness_close(&h);
}

/* ---- LRN ---- */

static void check_lrn(const char *text, const Shape *bottom, const float *x, const double *sums,
                      double factor, double beta, double k) {
    Harness h;
    harness_open(&h, text, 1, bottom);
    size_t n = h.bottoms[0]->count;
    harness_set(h.bottoms[0]->data, n, x);
    harness_forward(&h);
    for (size_t i = 0; i < n; i++) {
        float expected = (float)((double)x[i] * pow(k + factor * sums[i], -beta));
        harness_assert_near(h.tops[0]->data + i, &expected, 1, 1e-6 * fabs((double)expected));
    }
    harness_close(&h);
}

static void test_lrn_values(void **state) {
    (void)state;
    static const float x[4] = {1, 2, -3, 4};
    const Shape channels = SHAPE(1, 4, 1, 1), pixels = SHAPE(1, 1, 2, 2);
    static const double three[4] = {5, 14, 29, 25}, all[4] = {30, 30, 30, 30};
    check_lrn(LRN("local_size: 3 alpha: 0.6"), &channels, x, three, 0.2, 0.75, 1);
    check_lrn(LRN("local_size: 3 alpha: 0.6 beta: 0.5 k: 2"), &channels, x, three, 0.2, 0.5, 2);
    check_lrn(LRN("local_size: 7 alpha: 7 beta: 0.9 k: 3"), &channels, x, all, 1, 0.9, 3);
    /* WITHIN_CHANNEL: alpha by the whole window, padding too; k is not looked at. */
    check_lrn(LRN("norm_region: WITHIN_CHANNEL local_size: 3 alpha: 0.9 k: 7"), &pixels, x, all,
              0.1, 0.75, 1);
}

static void test_lrn_refuses(void **state) {
    (void)state;
    static const Refusal cases[] = {
        {LRN(""), 1, {SHAPE(2, 3, 4)}, SHOAL_ERR_MODEL, "expected 4 axes"},
        {LRN("local_size: 4"), 1, {SHAPE(2, 3, 4, 4)}, SHOAL_ERR_MODEL, "expected an odd number"},
        {LRN("local_size: 0"), 1, {SHAPE(2, 3, 4, 4)}, SHOAL_ERR_MODEL, "local_size is 0"},
        {LRN("beta: inf"), 1, {SHAPE(2, 3, 4, 4)}, SHOAL_ERR_MODEL, "finite"},
    };
    CHECK_REFUSALS(cases);
}

/* ---- Eltwise ---- */

static void check_eltwise(const char *text, const float *expected) {
    const Shape bottoms[3] = {SHAPE(4), SHAPE(4), SHAPE(4)};
    Harness h;
    harness_open(&h, text, strstr(text, "'w'") ? 3 : 2, bottoms);
    harness_set(h.bottoms[0]->data, 4, (const float[]){1, 2, -3, 5});
    harness_set(h.bottoms[1]->data, 4, (const float[]){4, 2, -5, 0});
    if (h.layer.n_bottoms > 2)
        harness_set(h.bottoms[2]->data, 4, (const float[]){4, 2, 7, 1});
    harness_forward(&h);
    harness_assert_near(h.tops[0]->data, expected, 4, 0);
    for (int i = 0; i < 4; i++)
        h.tops[0]->diff[i] = 1;
    harness_backward(&h);
    harness_close(&h);
}

static void test_eltwise_values(void **state) {
    (void)state;
    check_eltwise("name: 'e' type: 'Eltwise' bottom: 'x' bottom: 'z' top: 'y'",
                  (const float[]){5, 4, -8, 5});
    check_eltwise(ELTWISE("coeff: 2 coeff: -1"), (const float[]){-2, 2, -1, 10});
    check_eltwise(ELTWISE("operation: PROD"), (const float[]){4, 4, 15, 0});
    check_eltwise(ELTWISE("operation: MAX") " bottom: 'w'", (const float[]){4, 2, 7, 5});
}

/* Who gets the gradient when the largest are equal: the second of the first two, then the first. */
static void test_eltwise_max_of_equals(void **state) {
    (void)state;
    const Shape bottoms[3] = {SHAPE(2), SHAPE(2), SHAPE(2)};
    Harness h;
    harness_open(&h, ELTWISE("operation: MAX") " bottom: 'w'", 3, bottoms);
    for (int i = 0; i < 3; i++)
        harness_set(h.bottoms[i]->data, 2, (const float[]){1, i == 1 ? 0 : 1});
    harness_set(h.tops[0]->diff, 2, (const float[]){3, 5});
    harness_forward(&h);
    harness_backward(&h);
    harness_assert_near(h.bottoms[0]->diff, (const float[]){0, 5}, 2, 0);
    harness_assert_near(h.bottoms[1]->diff, (const float[]){3, 0}, 2, 0);
    harness_assert_near(h.bottoms[2]->diff, (const float[]){0, 0}, 2, 0);
    harness_close(&h);
}

/* A factor of 0 has a gradient all the same: that of the others' product. */
static void test_eltwise_product_with_zero(void **state) {
    (void)state;
    const Shape bottoms[2] = {SHAPE(1), SHAPE(1)};
    Harness h;
    harness_open(&h, ELTWISE("operation: PROD"), 2, bottoms);
    h.bottoms[0]->data[0] = 0;
    h.bottoms[1]->data[0] = 4;
    h.tops[0]->diff[0] = 2;
    harness_forward(&h);
    harness_backward(&h);
    assert_true(h.bottoms[0]->diff[0] == 8 && h.bottoms[1]->diff[0] == 0);
    harness_close(&h);
}

static void test_eltwise_refuses(void **state) {
    (void)state;
    static const Refusal cases[] = {
        {ELTWISE(""), 2, {SHAPE(2, 3), SHAPE(3, 2)}, SHOAL_ERR_MODEL, "expected one shape"},
        {ELTWISE("coeff: 1"), 2, {SHAPE(2), SHAPE(2)}, SHOAL_ERR_MODEL, "1 values of coeff for 2"},
        {ELTWISE("coeff: 1 coeff: 2 operation: PROD"),
         2,
         {SHAPE(2), SHAPE(2)},
         SHOAL_ERR_MODEL,
         "SUM only"},
    };
    CHECK_REFUSALS(cases);
}

/* ---- Concat, TanH ---- */

static void test_concat_values(void **state) {
    (void)state;
    const Shape bottoms[2] = {SHAPE(2, 1, 2), SHAPE(2, 2, 2)}, top = SHAPE(2, 3, 2);
    Harness h;
    harness_open(&h, CONCAT(""), 2, bottoms);
    assert_shape(h.tops[0], &top, "concat");
    harness_set(h.bottoms[0]->data, 4, (const float[]){1, 2, 3, 4});
    harness_set(h.bottoms[1]->data, 8, VALUES);
    harness_forward(&h);
    const float expected[12] = {1, 2, 1, 3, 10, 10, 3, 4, 1, 3, 40, 20};
    harness_assert_near(h.tops[0]->data, expected, 12, 0);
    harness_close(&h);
}

static void test_concat_refuses(void **state) {
    (void)state;
    static const Refusal cases[] = {
        {CONCAT("axis: 2"), 2, {SHAPE(2, 3), SHAPE(2, 3)}, SHOAL_ERR_MODEL, "axis 2 is out of"},
        {CONCAT("axis: 1 concat_dim: 1"), 2, {SHAPE(2), SHAPE(2)}, SHOAL_ERR_MODEL, "of the two"},
        {CONCAT("concat_dim: 4294967295"), 2, {SHAPE(2), SHAPE(2)}, SHOAL_ERR_MODEL, "concat_dim"},
        {CONCAT(""), 2, {SHAPE(2, 3), SHAPE(3, 3)}, SHOAL_ERR_MODEL, "differ on axis 1 only"},
        {CONCAT(""), 2, {SHAPE(2, 3), SHAPE(2)}, SHOAL_ERR_MODEL, "differ on axis 1 only"},
    };
    CHECK_REFUSALS(cases);
}

#define FLATTEN(settings)                                                                          \
    "name: 'f' type: 'Flatten' bottom: 'x' top: 'y' flatten_param { " settings " }"

static void test_flatten(void **state) {
    (void)state;
    static const ShapeCase cases[] = {
        {"name: 'f' type: 'Flatten' bottom: 'x' top: 'y'", SHAPE(2, 3, 4, 5), SHAPE(2, 60)},
        {FLATTEN("axis: 0"), SHAPE(2, 3, 4, 5), SHAPE(120)},
        {FLATTEN("axis: 1 end_axis: 2"), SHAPE(2, 3, 4, 5), SHAPE(2, 12, 5)},
        {FLATTEN("axis: -2"), SHAPE(2, 3, 4, 5), SHAPE(2, 3, 20)},
    };
    CHECK_SHAPES(cases);
    static const Refusal refusals[] = {
        {FLATTEN("axis: 2"), 1, {SHAPE(2, 3)}, SHOAL_ERR_MODEL, "axis 2 is out of range"},
        {FLATTEN("axis: 1 end_axis: 0"), 1, {SHAPE(2, 3)}, SHOAL_ERR_MODEL, "end_axis is axis 0"},
    };
    CHECK_REFUSALS(refusals);
}

static void test_tanh_values(void **state) {
    (void)state;
    const Shape bottom = SHAPE(3);
    Harness h;
    harness_open(&h, "name: 't' type: 'TanH' bottom: 'x' top: 'x'", 1, &bottom);
    harness_set(h.bottoms[0]->data, 3, (const float[]){-100, 0, 0.5f});
    harness_forward(&h);
    harness_assert_near(h.tops[0]->data, (const float[]){-1, 0, 0.46211716f}, 3, 1e-7);
    harness_close(&h);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_batch_norm_moves_its_statistics),
        cmocka_unit_test(test_batch_norm_of_one_value),
        cmocka_unit_test(test_batch_norm_with_global_statistics),
        cmocka_unit_test(test_batch_norm_ignores_the_phase_when_told),
        cmocka_unit_test(test_batch_norm_writes_its_multipliers),
        cmocka_unit_test(test_batch_norm_refuses),
        cmocka_unit_test(test_scale_of_nothing_set_is_the_identity),
        cmocka_unit_test(test_scale_spreads_its_factor),
        cmocka_unit_test(test_scale_by_another_bottom),
        cmocka_unit_test(test_scale_weights),
        cmocka_unit_test(test_scale_refuses),
        cmocka_unit_test(test_scale_of_another_share),
        cmocka_unit_test(test_lrn_values),
        cmocka_unit_test(test_lrn_refuses),
        cmocka_unit_test(test_eltwise_values),
        cmocka_unit_test(test_eltwise_max_of_equals),
        cmocka_unit_test(test_eltwise_product_with_zero),
        cmocka_unit_test(test_eltwise_refuses),
        cmocka_unit_test(test_concat_values),
        cmocka_unit_test(test_concat_refuses),
        cmocka_unit_test(test_flatten),
        cmocka_unit_test(test_tanh_values),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
