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
     VALUES(-0.25377697, 1.6994041, 0.078121545, 1.4886982, -0.0033899616, 1.2152227, 0.1655517,
            0.86912924, -0.073260656, 0.44662624, 0.010367677, 1.9176547, 0.1046301, 1.4594365,
            -0.14546847, 1.0219797, 0.39025449, 1.0125073, -0.060102769, 0.34026271, 0.069606833,
            1.8814887, 0.092547441, 1.2935815, -0.44865298, 1.7615421, 0.046483326, 0.71175608,
            0.0089342043, 0.18481678)},
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
     VALUES(-1.0635926, 3.3877884, 0.070504068, 1.3282359, -0.31784757, 1.2012652, 0.071101801,
            1.3389025, -0.012450425, 0.6713633, -0.060335689, 3.2649288, 0.038877279, 0.46887666,
            -0.77005857, 3.4865395, 0.036646094, 1.227622, -0.38584206, 1.6456812, -0.12965297,
            1.529788, 0.11698612, 0.76029927, -0.33620895, 3.6635828, 0.1753134, 0.61307739)},
    {"name: 'r' type: 'LSTM' bottom: 'x' bottom: 'c' top: 'y' bottom: 'h' bottom: 'k' top: 'e' "
     "top: 'f' recurrent_param { num_output: 3 expose_hidden: true }",
     "vchh",
     2,
     {SHAPE(3, 2, 2), SHAPE(3, 2), SHAPE(1, 2, 3), SHAPE(1, 2, 3)},
     VALUES(-0.52585774, 1.9456158, -0.046011811, 0.55534708, -0.065579501, 0.95315124, 0.041106089,
            1.5018435, 0.035132492, 1.2649061, 0.17604239, 0.8427432, -0.050799665, 0.97104556,
            -0.063824806, 2.0489835, -0.02401075, 0.43485551, -0.032471087, 0.73304211, 0.080598487,
            1.4436735, -0.12558031, 1.1831654, 0.29209883, 0.96826003, -0.005073524, 0.57085331)},
    {"name: 'r' type: 'LSTM' bottom: 'x' bottom: 'c' top: 'y' bottom: 's' bottom: 'h' bottom: 'k' "
     "top: 'e' top: 'f' recurrent_param { num_output: 3 expose_hidden: true }",
     "vcvhh",
     1,
     {SHAPE(3, 2, 2), SHAPE(3, 2), SHAPE(2, 4), SHAPE(1, 2, 3), SHAPE(1, 2, 3)},
     VALUES(-0.42732429, 2.5028091, -0.17044916, 0.70650003, -0.24778064, 1.2185855, -0.032345858,
            1.3210775, -0.32257629, 1.0042418, 0.021331933, 1.4271509, 0.1294706, 0.79728425,
            -0.26262972, 2.9163631, -0.060612024, 0.60674278)},
    {"name: 'r' type: 'RNN' bottom: 'x' bottom: 'c' top: 'y' recurrent_param { num_output: 3 }",
     "vc",
     3,
     {SHAPE(3, 2, 2), SHAPE(3, 2)},
     VALUES(-2.1727389, 7.8475248, 0.86627294, 2.0656364, 0.0049620641, 1.3313452, 0.021434098,
            0.74074911, 0.13095508, 1.2497372, 2.2453684, 5.7177422, -0.85863645, 1.0487524,
            -1.2169519, 8.9671126, 0.480554, 1.4977042, 0.14333764, 0.54304258, -0.067163027,
            1.1338434, -0.0098942126, 0.75599792, 1.1373269, 5.2737453, -0.50314034, 1.025633,
            -0.57105112, 7.9599153, 0.48429025, 1.640749, 0.1235603, 0.64877042, -0.38542222,
            1.8925126, 0.25592123, 0.92834825, -0.74339113, 5.3326142, -0.89960555, 1.1074868)},
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
     VALUES(-2.5760054, 8.0666183, -0.075032405, 2.7833632, 0.79802839, 1.9454198, 0.0034919593,
            1.4245468, 0.0052900463, 0.80867368, 0.11026156, 1.2843257, 2.2906332, 5.7684172,
            -0.93756951, 1.1463055, -1.4702664, 8.5043975, -0.16585911, 2.388227, 0.52243335,
            1.7115136, 0.18001035, 0.73448381, 0.020115168, 1.248241, -0.11785614, 0.45558472,
            1.8735331, 5.9012373, -0.66678047, 1.1852055)},
    {"name: 'r' type: 'RNN' bottom: 'x' bottom: 'c' top: 'y' bottom: 's' bottom: 'h' top: 'e' "
     "recurrent_param { num_output: 3 expose_hidden: true }",
     "vcvh",
     1,
     {SHAPE(3, 2, 2), SHAPE(3, 2), SHAPE(2, 4), SHAPE(1, 2, 3)},
     VALUES(4.7491807, 12.490998, 0.54071185, 3.3396663, 0.62776717, 3.9366153, 2.6826531,
            4.6126337, -0.032047064, 3.451243, 0.98255044, 2.2131632, -1.5335039, 6.2448778,
            -0.19471563, 3.3656344, 0.59508075, 1.8040188, 0.031893478, 0.60951331)},
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
