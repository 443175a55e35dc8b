/* SPDX-License-Identifier: Apache-2.0 */
/* LSTM, RNN and LSTMUnit against Caffe's, pass after pass; the state between passes; bad inputs. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "caffe_values.h"

#define VALUES(...) ((const double[]){__VA_ARGS__})

static const CaffeCase CASES[] = {
    {"name: 'r' type: 'LSTM' bottom: 'x' bottom: 'c' top: 'y' recurrent_param { num_output: 3 }",
     "vc",
     3,
     {SHAPE(3, 2, 2), SHAPE(3, 2)},
     VALUES(-0.23017121, 1.737446, -0.026426561, 1.583063, -0.056503638, 1.2181445, 0.29581255,
            0.91620904, -0.071835618, 0.41674014, 0.049517617, 1.6981281, 0.12498655, 1.4350144,
            -0.15284635, 1.0316756, 0.38868709, 1.0851844, -0.038118233, 0.23262447, 0.007194889,
            1.654209, 0.12242607, 1.27121, -0.44372132, 1.8290187, -0.10765612, 0.41023067,
            0.012128704, 0.2600174)},
    {"name: 'r' type: 'LSTM' bottom: 'x' bottom: 'c' top: 'y' recurrent_param { num_output: 3 }",
     "vf",
     2,
     {SHAPE(3, 3, 2), SHAPE(3, 3)},
     VALUES(-0.52038432, 2.6686352, 0.58120394, 2.1664493, -0.21890881, 1.5145388, 0.17040534,
            1.1576606, 0.018010726, 0.24952182, -0.57457732, 3.0423425, 0.65888301, 2.1680595,
            -0.16705296, 1.4216299, 0.30938522, 1.3004718, 0.052909357, 0.50815528)},
    {"name: 'r' type: 'LSTM' bottom: 'x' bottom: 'c' top: 'y' recurrent_param { num_output: 2 }",
     "vc",
     1,
     {SHAPE(1, 3, 2, 2), SHAPE(1, 3)},
     VALUES(0.11495419, 0.58768385, 0.052923876, 0.42954458, 0.082742191, 0.46847363, -0.11549146,
            0.20268996, 0, 0)},
    {"name: 'r' type: 'LSTM' bottom: 'x' bottom: 'c' top: 'y' bottom: 's' recurrent_param { "
     "num_output: 3 }",
     "vcv",
     2,
     {SHAPE(4, 2, 2), SHAPE(4, 2), SHAPE(2, 2, 2)},
     VALUES(-1.2052572, 3.3886217, -0.064219398, 1.6987939, -0.26113481, 1.1502834, 0.16192367,
            1.5491744, 0.068331474, 0.88077121, -0.06243281, 3.3300316, 0.027829521, 0.52174157,
            -0.50013716, 3.7878602, -0.032936943, 1.3147702, -0.45874905, 1.5797559, -0.068760951,
            1.7433399, 0.14280856, 0.78445389, -0.21686757, 3.6596508, 0.14243683, 0.497456)},
    {"name: 'r' type: 'LSTM' bottom: 'x' bottom: 'c' top: 'y' bottom: 'h' bottom: 'k' top: 'e' "
     "top: 'f' recurrent_param { num_output: 3 expose_hidden: true }",
     "vchh",
     2,
     {SHAPE(3, 2, 2), SHAPE(3, 2), SHAPE(1, 2, 3), SHAPE(1, 2, 3)},
     VALUES(-0.23017121, 1.737446, -0.031663459, 0.59338898, -0.043267611, 1.0113379, -0.026426561,
            1.583063, -0.056503638, 1.2181445, 0.29581255, 0.91620904, -0.071835618, 0.41674014,
            0.049517617, 1.6981281, 0.010712418, 0.51916831, 0.028108789, 0.88709205, 0.12498655,
            1.4350144, -0.15284635, 1.0316756, 0.38868709, 1.0851844, -0.038118233, 0.23262447)},
    {"name: 'r' type: 'LSTM' bottom: 'x' bottom: 'c' top: 'y' bottom: 's' bottom: 'h' bottom: 'k' "
     "top: 'e' top: 'f' recurrent_param { num_output: 3 expose_hidden: true }",
     "vcvhh",
     1,
     {SHAPE(3, 2, 2), SHAPE(3, 2), SHAPE(2, 4), SHAPE(1, 2, 3), SHAPE(1, 2, 3)},
     VALUES(-0.7641462, 2.3071024, -0.23846837, 0.55128437, -0.35853495, 0.97960857, -0.13540787,
            1.4093072, -0.19836111, 1.118112, 0.22197788, 1.3560167, 0.22372359, 0.83965846,
            -0.16099078, 3.1479653, 0.016356367, 0.47246249)},
    {"name: 'r' type: 'RNN' bottom: 'x' bottom: 'c' top: 'y' recurrent_param { num_output: 3 }",
     "vc",
     3,
     {SHAPE(3, 2, 2), SHAPE(3, 2)},
     VALUES(-2.1805462, 7.8430941, 0.36688678, 1.8360504, -0.029237021, 1.0741069, 0.048376316,
            1.4667789, 0.4455871, 1.4768655, 2.3016594, 5.7862506, -0.86419624, 1.0579147,
            -1.3288761, 8.6906922, 0.4069671, 1.6546639, 0.14548671, 0.87073879, 0.074446713,
            1.1535278, -0.31012046, 1.2763652, 2.8151279, 4.9423453, -0.68933937, 0.88241449,
            -0.9732557, 8.4803276, 0.33176617, 1.9138183, 0.10890817, 1.2677127, 0.13332969,
            0.92037154, -0.49555517, 1.0635818, 1.6952218, 6.9347939, -0.38431301, 0.5147053)},
    {"name: 'r' type: 'RNN' bottom: 'x' bottom: 'c' top: 'y' bottom: 's' recurrent_param { "
     "num_output: 3 }",
     "vfv",
     2,
     {SHAPE(4, 2, 2), SHAPE(4, 2), SHAPE(2, 2, 2)},
     VALUES(5.9195172, 16.539661, -0.48843729, 4.1033363, 3.6562689, 5.6674695, 0.3273937,
            2.3512837, 1.7245624, 2.6650467, -1.9535718, 9.1539652, 0.039171171, 3.2485755,
            0.37440246, 2.7854497, 0.22865252, 1.6929486, 5.9247597, 16.723736, -0.55839256,
            4.5314183, 3.0348968, 5.2603695, 0.042206404, 2.801783, 1.0456548, 1.6211739,
            -1.6702253, 7.6481189, -0.010481194, 3.3265394, 0.53861001, 2.2030963, 0.036031819,
            1.5158239)},
    {"name: 'r' type: 'RNN' bottom: 'x' bottom: 'c' top: 'y' bottom: 'h' top: 'e' recurrent_param "
     "{ num_output: 3 expose_hidden: true }",
     "vch",
     2,
     {SHAPE(3, 2, 2), SHAPE(3, 2), SHAPE(1, 2, 3)},
     VALUES(-2.1805462, 7.8430941, -0.033946085, 2.8190739, 0.36688678, 1.8360504, -0.029237021,
            1.0741069, 0.048376316, 1.4667789, 0.4455871, 1.4768655, 2.3016594, 5.7862506,
            -0.86419624, 1.0579147, -1.3288761, 8.6906922, 0.17319345, 3.0863613, 0.4069671,
            1.6546639, 0.14548671, 0.87073879, 0.074446713, 1.1535278, -0.31012046, 1.2763652,
            2.8151279, 4.9423453, -0.68933937, 0.88241449)},
    {"name: 'r' type: 'RNN' bottom: 'x' bottom: 'c' top: 'y' bottom: 's' bottom: 'h' top: 'e' "
     "recurrent_param { num_output: 3 expose_hidden: true }",
     "vcvh",
     1,
     {SHAPE(3, 2, 2), SHAPE(3, 2), SHAPE(2, 4), SHAPE(1, 2, 3)},
     VALUES(4.6082456, 12.190482, 0.43943299, 2.9340513, -0.54284462, 4.9870842, 3.5878307,
            6.1943342, -0.11072076, 3.3134848, 0.031972445, 2.3306351, -1.4322892, 9.081764,
            1.79355, 6.0139633, 0.45031417, 1.8163945, -0.045479945, 0.43405394)},
    {"name: 'u' type: 'LSTMUnit' bottom: 'c' bottom: 'g' bottom: 'n' top: 'y' top: 'h'",
     "vvf",
     1,
     {SHAPE(1, 4, 3), SHAPE(1, 4, 12), SHAPE(1, 4)},
     VALUES(0.21065091, 2.3084972, 0.096941568, 1.1370385, -0.10888141, 1.5186092, -0.18756342,
            2.7067398)},
};

static void test_caffe_values(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++)
        caffe_check(&CASES[i]);
}

#define LSTM(blobs, more)                                                                          \
    "name: 'r' type: 'LSTM' bottom: 'x' bottom: 'c' top: 'y' " blobs                               \
    " recurrent_param { num_output: 3 " more " }"
#define RNN(blobs, more)                                                                           \
    "name: 'r' type: 'RNN' bottom: 'x' bottom: 'c' top: 'y' " blobs                                \
    " recurrent_param { num_output: 3 " more " }"
#define UNIT "name: 'u' type: 'LSTMUnit' bottom: 'c' bottom: 'g' bottom: 'n' top: 'y' top: 'h'"

/* The weights as a caffemodel has them. */
static void test_weights(void **state) {
    (void)state;
    static const struct {
        const char *text;
        int n_bottoms, n_params;
        Shape params[6];
    } CASES_OF_WEIGHTS[] = {
        {LSTM("", ""), 2, 3, {SHAPE(12, 10), SHAPE(12), SHAPE(12, 3)}},
        {LSTM("bottom: 's'", ""), 3, 4, {SHAPE(12, 10), SHAPE(12), SHAPE(12, 4), SHAPE(12, 3)}},
        {RNN("", ""), 2, 5, {SHAPE(3, 10), SHAPE(3), SHAPE(3, 3), SHAPE(3, 3), SHAPE(3)}},
        {RNN("bottom: 's'", ""),
         3,
         6,
         {SHAPE(3, 10), SHAPE(3), SHAPE(3, 4), SHAPE(3, 3), SHAPE(3, 3), SHAPE(3)}},
    };
    const Shape bottoms[3] = {SHAPE(4, 2, 5, 2), SHAPE(4, 2), SHAPE(2, 4)};
    for (size_t i = 0; i < sizeof CASES_OF_WEIGHTS / sizeof *CASES_OF_WEIGHTS; i++) {
        Harness h;
        harness_open(&h, CASES_OF_WEIGHTS[i].text, CASES_OF_WEIGHTS[i].n_bottoms, bottoms);
        assert_true(h.layer.whole_batch);
        assert_int_equal(h.layer.n_params, CASES_OF_WEIGHTS[i].n_params);
        for (int k = 0; k < h.layer.n_params; k++) {
            const ShoalBlob *blob = &h.layer.params[k]->blob;
            const Shape *expected = &CASES_OF_WEIGHTS[i].params[k];
            assert_int_equal(blob->axes, expected->axes);
            assert_memory_equal(blob->shape, expected->dims, (size_t)expected->axes * sizeof(int));
        }
        harness_close(&h);
    }
}

static void fill_all(Harness *h, float cont) {
    for (int i = 0; i < h->layer.n_params; i++)
        caffe_fill(h->layer.params[i]->blob.data, h->layer.params[i]->blob.count, 'v', i);
    caffe_fill(h->bottoms[0]->data, h->bottoms[0]->count, 'v', 9);
    for (size_t i = 0; i < h->bottoms[1]->count; i++)
        h->bottoms[1]->data[i] = cont;
}

/* Two passes of two steps are one pass of four, when the sequences go on. */
static void state_goes_on(const char *text) {
    const Shape whole[2] = {SHAPE(4, 2, 3), SHAPE(4, 2)}, half[2] = {SHAPE(2, 2, 3), SHAPE(2, 2)};
    Harness long_one, short_one;
    harness_open(&long_one, text, 2, whole);
    harness_open(&short_one, text, 2, half);
    fill_all(&long_one, 1);
    harness_forward(&long_one);
    for (size_t pass = 0; pass < 2; pass++) {
        fill_all(&short_one, 1);
        harness_set(short_one.bottoms[0]->data, 12, long_one.bottoms[0]->data + 12 * pass);
        harness_forward(&short_one);
        harness_assert_near(short_one.tops[0]->data, long_one.tops[0]->data + 12 * pass, 12, 1e-6);
    }
    harness_close(&long_one);
    harness_close(&short_one);
}

/* Fewer sequences in the next pass: those that are left go on. */
static void state_survives_reshape(const char *text) {
    const Shape bottoms[2] = {SHAPE(2, 2, 3), SHAPE(2, 2)};
    const Shape fewer[2] = {SHAPE(2, 1, 3), SHAPE(2, 1)};
    Harness h, other;
    harness_open(&h, text, 2, bottoms);
    harness_open(&other, text, 2, fewer);
    for (int pass = 0; pass < 2; pass++) {
        fill_all(&h, 1);
        fill_all(&other, 1);
        for (int i = 0; i < 2 && pass; i++)
            assert_int_equal(shoal_blob_reshape(h.bottoms[i], fewer[i].axes, fewer[i].dims, &h.err),
                             SHOAL_OK);
        assert_int_equal(h.layer.class->reshape(&h.layer, &h.err), SHOAL_OK);
        for (size_t t = 0; t < 2 && !pass; t++) /* the first sequence of two */
            harness_set(other.bottoms[0]->data + 3 * t, 3, h.bottoms[0]->data + 6 * t);
        for (size_t t = 0; t < 2 && pass; t++)
            harness_set(other.bottoms[0]->data + 3 * t, 3, h.bottoms[0]->data + 3 * t);
        harness_forward(&h);
        harness_forward(&other);
    }
    assert_int_equal(h.tops[0]->count, 6);
    harness_assert_near(h.tops[0]->data, other.tops[0]->data, 6, 1e-6);
    harness_close(&h);
    harness_close(&other);
}

static void test_state(void **state) {
    (void)state;
    state_goes_on(LSTM("", ""));
    state_goes_on(RNN("", ""));
    state_survives_reshape(LSTM("", ""));
    state_survives_reshape(RNN("", ""));
}

static void no_gradient_to_starts(const char *text, int n_bottoms) {
    const Shape bottoms[4] = {SHAPE(2, 2, 3), SHAPE(2, 2), SHAPE(1, 2, 3), SHAPE(1, 2, 3)};
    Harness h;
    harness_open(&h, text, n_bottoms, bottoms);
    fill_all(&h, 1);
    harness_forward(&h);
    for (int i = 0; i < h.layer.n_tops; i++)
        caffe_fill(h.tops[i]->diff, h.tops[i]->count, 'v', i);
    for (int i = 2; i < n_bottoms; i++)
        caffe_fill(h.bottoms[i]->diff, h.bottoms[i]->count, 'v', i);
    harness_backward(&h);
    for (int i = 2; i < n_bottoms; i++)
        for (size_t k = 0; k < h.bottoms[i]->count; k++)
            assert_true(h.bottoms[i]->diff[k] == 0);
    harness_close(&h);
}

/* As in Caffe. */
static void test_exposed_states_get_no_gradient(void **state) {
    (void)state;
    no_gradient_to_starts(LSTM("bottom: 'h' bottom: 'k' top: 'e' top: 'f'", "expose_hidden: true"),
                          4);
    no_gradient_to_starts(RNN("bottom: 'h' top: 'e'", "expose_hidden: true"), 3);
}

static void test_bad_inputs(void **state) {
    (void)state;
    static const struct {
        const char *text;
        int n_bottoms;
        Shape bottoms[5];
        const char *message;
    } BAD[] = {
        {"name: 'r' type: 'LSTM' bottom: 'x' bottom: 'c' top: 'y'",
         2,
         {SHAPE(2, 2, 3), SHAPE(2, 2)},
         "no recurrent_param"},
        {"name: 'r' type: 'RNN' bottom: 'x' bottom: 'c' top: 'y' recurrent_param { }",
         2,
         {SHAPE(2, 2, 3), SHAPE(2, 2)},
         "num_output is 0"},
        {"name: 'r' type: 'LSTM' bottom: 'x' bottom: 'c' top: 'y' recurrent_param { num_output: "
         "2000000000 }",
         2,
         {SHAPE(2, 2, 3), SHAPE(2, 2)},
         "num_output is 2000000000; expected 1 to 536870911"},
        {LSTM("", ""), 2, {SHAPE(2, 2), SHAPE(2, 2)}, "bottom 'x' is 2x2 (4); expected steps x"},
        {LSTM("", ""), 2, {SCALAR, SHAPE(2, 2)}, "expected steps x sequences x values"},
        {LSTM("", ""), 2, {SHAPE(0, 2, 2), SHAPE(0, 2)}, "none of them 0"},
        {LSTM("", ""), 2, {SHAPE(2, 2, 3), SHAPE(2, 3)}, "bottom 'c' is 2x3 (6); expected steps x"},
        {LSTM("", ""), 2, {SHAPE(2, 2, 3), SHAPE(4)}, "bottom 'c' is 4 (4); expected steps x"},
        {LSTM("bottom: 's'", ""),
         3,
         {SHAPE(2, 2, 3), SHAPE(2, 2), SHAPE(2)},
         "bottom 's' is 2 (2); expected sequences x values"},
        {LSTM("bottom: 's'", ""),
         3,
         {SHAPE(2, 2, 3), SHAPE(2, 2), SHAPE(3, 2)},
         "bottom 's' is 3x2 (6); expected sequences"},
        {LSTM("bottom: 's' bottom: 'u'", ""),
         4,
         {SHAPE(2, 2, 3), SHAPE(2, 2), SHAPE(2, 2), SHAPE(2, 2)},
         "4 bottoms; expected x, cont, perhaps a static input"},
        {LSTM("bottom: 'h' top: 'e' top: 'f'", "expose_hidden: true"),
         3,
         {SHAPE(2, 2, 3), SHAPE(2, 2), SHAPE(1, 2, 3)},
         "3 bottoms; expected x, cont, perhaps a static input, and the start states"},
        {LSTM("bottom: 'h' bottom: 'k' top: 'e'", "expose_hidden: true"),
         4,
         {SHAPE(2, 2, 3), SHAPE(2, 2), SHAPE(1, 2, 3), SHAPE(1, 2, 3)},
         "2 tops; expected 3, as expose_hidden is set"},
        {RNN("bottom: 'h' top: 'e'", "expose_hidden: true"),
         3,
         {SHAPE(2, 2, 3), SHAPE(2, 2), SHAPE(1, 2, 4)},
         "bottom 'h' is 1x2x4 (8); expected 1 x sequences x num_output"},
        {RNN("top: 'e'", ""), 2, {SHAPE(2, 2, 3), SHAPE(2, 2)}, "2 tops; expected 1"},
        {UNIT, 3, {SHAPE(1, 2, 3), SHAPE(1, 2, 3), SHAPE(1, 2)}, "expected 1 x N x D"},
        {UNIT, 3, {SHAPE(2, 2, 3), SHAPE(2, 2, 12), SHAPE(2, 2)}, "expected 1 x N x D"},
        {UNIT, 3, {SHAPE(1, 2, 3), SHAPE(1, 2, 12), SHAPE(2)}, "expected 1 x N x D"},
    };
    for (size_t i = 0; i < sizeof BAD / sizeof *BAD; i++) {
        Harness h;
        harness_init(&h, BAD[i].text, NULL, BAD[i].n_bottoms, BAD[i].bottoms);
        assert_int_equal(harness_setup(&h), SHOAL_ERR_MODEL);
        if (!strstr(h.err.text, BAD[i].message))
            fail_msg("%s: '%s' does not have '%s'", BAD[i].text, h.err.text, BAD[i].message);
        harness_close(&h);
    }
}

/* What fits at first and does not later. */
static void test_bad_reshapes(void **state) {
    (void)state;
    static const Shape LATER[] = {SHAPE(3, 2, 3), SHAPE(2, 2, 4), SHAPE(2, 3, 3), SHAPE(2, 2)};
    const Shape bottoms[2] = {SHAPE(2, 2, 3), SHAPE(2, 2)};
    for (size_t i = 0; i < sizeof LATER / sizeof *LATER; i++) {
        Harness h;
        harness_init(&h, LSTM("", ""), NULL, 2, bottoms);
        assert_int_equal(harness_setup(&h), SHOAL_OK);
        assert_int_equal(shoal_blob_reshape(h.bottoms[0], LATER[i].axes, LATER[i].dims, &h.err),
                         SHOAL_OK);
        assert_int_equal(h.layer.class->reshape(&h.layer, &h.err), SHOAL_ERR_MODEL);
        assert_non_null(strstr(h.err.text, "at first"));
        harness_close(&h);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_caffe_values), cmocka_unit_test(test_weights),
        cmocka_unit_test(test_state),        cmocka_unit_test(test_exposed_states_get_no_gradient),
        cmocka_unit_test(test_bad_inputs),   cmocka_unit_test(test_bad_reshapes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
