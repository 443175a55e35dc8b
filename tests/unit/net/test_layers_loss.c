/* SPDX-License-Identifier: Apache-2.0 */
/* Losses, Accuracy and Softmax against Caffe's; InfogainLoss from a file; label smoothing; what
 * must not be cut into shares; bad inputs. test_layers.c has more about SoftmaxWithLoss and
 * Accuracy. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/error.h"
#include "caffe/model.h"
#include "caffe_values.h"

#define VALUES(...) ((const double[]){__VA_ARGS__})
#define COUNT(array) (sizeof(array) / sizeof *(array))

static const CaffeCase CASES[] = {
    {"name: 'l' type: 'ContrastiveLoss' bottom: 'x' bottom: 'z' bottom: 's' top: 'y' "
     "contrastive_loss_param {  }",
     "vvs",
     1,
     {SHAPE(6, 4), SHAPE(6, 4), SHAPE(6)},
     VALUES(-0.82783209, 1.0812501, 0.040624999, 1.0250001, -0.040624999, 1.0250001)},
    {"name: 'l' type: 'ContrastiveLoss' bottom: 'x' bottom: 'z' bottom: 's' top: 'y' "
     "contrastive_loss_param { margin: 2.5 }",
     "vvs",
     1,
     {SHAPE(6, 4, 1, 1), SHAPE(6, 4, 1, 1), SHAPE(6)},
     VALUES(-0.90295729, 1.1793728, 0.059190317, 1.3262006, -0.059190317, 1.3262006)},
    {"name: 'l' type: 'ContrastiveLoss' bottom: 'x' bottom: 'z' bottom: 's' top: 'y' "
     "contrastive_loss_param { margin: 5 legacy_version: true }",
     "vvs",
     1,
     {SHAPE(6, 4), SHAPE(6, 4), SHAPE(6)},
     VALUES(-1.0943654, 1.4293752, 0.12884115, 1.9625002, -0.12884115, 1.9625002)},
    {"name: 'l' type: 'EuclideanLoss' bottom: 'x' bottom: 't' top: 'y'",
     "vv",
     1,
     {SHAPE(4, 3, 2), SHAPE(4, 6)},
     VALUES(-2.277495, 2.9746873, -0.071386727, 2.9437501, 0.071386727, 2.9437501)},
    {"name: 'l' type: 'HingeLoss' bottom: 'x' bottom: 't' top: 'y'",
     "va",
     1,
     {SHAPE(5, 3), SHAPE(5)},
     VALUES(-1.8834373, 2.4599998, 0.0062500001, 1.4)},
    {"name: 'l' type: 'HingeLoss' bottom: 'x' bottom: 't' top: 'y' hinge_loss_param { norm: L2 }",
     "va",
     1,
     {SHAPE(5, 3, 1), SHAPE(5)},
     VALUES(-2.4607187, 3.214, 0.090000002, 2.46)},
    {"name: 'l' type: 'InfogainLoss' bottom: 'x' bottom: 't' bottom: 'h' top: 'y'",
     "vah",
     1,
     {SHAPE(5, 3), SHAPE(5), SHAPE(3, 3)},
     VALUES(-0.18461707, 0.2411325, -0.022430318, 0.33556295)},
    {"name: 'l' type: 'InfogainLoss' bottom: 'x' bottom: 't' bottom: 'h' top: 'y' loss_param { "
     "normalization: FULL }",
     "vah",
     1,
     {SHAPE(2, 3, 2), SHAPE(2, 2), SHAPE(1, 1, 3, 3)},
     VALUES(-0.51796555, 0.67652643, 0.010696971, 0.48466157)},
    {"name: 'l' type: 'InfogainLoss' bottom: 'x' bottom: 't' bottom: 'h' top: 'y' top: 'p' "
     "loss_weight: 1 loss_weight: 0 loss_param { normalization: NONE } infogain_loss_param { axis: "
     "-1 }",
     "vah",
     1,
     {SHAPE(2, 2, 3), SHAPE(2, 2), SHAPE(9)},
     VALUES(-1.1755956, 1.5354718, -0.049916703, 3.9999999, -0.20376533, 1.5637642)},
    {"name: 'l' type: 'InfogainLoss' bottom: 'x' bottom: 't' bottom: 'h' top: 'y' loss_param { "
     "ignore_label: 1 }",
     "vah",
     1,
     {SHAPE(4, 3), SHAPE(4), SHAPE(3, 3)},
     VALUES(0.50020662, 0.6533311, -0.11767797, 0.66831699)},
    {"name: 'l' type: 'InfogainLoss' bottom: 'x' bottom: 't' bottom: 'h' top: 'y' loss_param { "
     "ignore_label: 1 normalization: BATCH_SIZE }",
     "vah",
     1,
     {SHAPE(2, 3, 2), SHAPE(2, 2), SHAPE(3, 3)},
     VALUES(0.29515625, 0.38551021, 0.016380484, 0.61970789)},
    {"name: 'l' type: 'MultinomialLogisticLoss' bottom: 'x' bottom: 't' top: 'y'",
     "pa",
     1,
     {SHAPE(5, 3), SHAPE(5)},
     VALUES(-0.73843592, 0.96448773, 0.44186199, 1.9097223)},
    {"name: 'l' type: 'MultinomialLogisticLoss' bottom: 'x' bottom: 't' top: 'y'",
     "va",
     1,
     {SHAPE(5, 3, 1, 1), SHAPE(5, 1)},
     VALUES(-14.346746, 18.738607, -6.875e+18, 2e+19)},
    {"name: 'l' type: 'SigmoidCrossEntropyLoss' bottom: 'x' bottom: 't' top: 'y'",
     "vt",
     1,
     {SHAPE(4, 3, 2), SHAPE(4, 6)},
     VALUES(-3.2520977, 4.2476377, -0.23618623, 0.78013979)},
    {"name: 'l' type: 'SigmoidCrossEntropyLoss' bottom: 'x' bottom: 't' top: 'y' loss_param { "
     "normalization: FULL }",
     "vt",
     1,
     {SHAPE(4, 3, 2), SHAPE(4, 3, 2)},
     VALUES(-0.54201628, 0.70793962, -0.039364373, 0.1300233)},
    {"name: 'l' type: 'SigmoidCrossEntropyLoss' bottom: 'x' bottom: 't' top: 'y' loss_param { "
     "normalization: NONE }",
     "vt",
     1,
     {SHAPE(4, 3, 2), SHAPE(4, 3, 2)},
     VALUES(-13.008391, 16.990551, -0.94474492, 3.1205592)},
    {"name: 'l' type: 'SigmoidCrossEntropyLoss' bottom: 'x' bottom: 't' top: 'y' loss_param { "
     "normalization: VALID ignore_label: 7 }",
     "vu",
     1,
     {SHAPE(4, 3, 2), SHAPE(4, 3, 2)},
     VALUES(-0.58793456, 0.76791453, -0.034190847, 0.25677463)},
    {"name: 'l' type: 'SigmoidCrossEntropyLoss' bottom: 'x' bottom: 't' top: 'y' loss_param { "
     "normalize: true ignore_label: 7 }",
     "vu",
     1,
     {SHAPE(4, 3, 2), SHAPE(4, 3, 2)},
     VALUES(-0.58793456, 0.76791453, -0.034190847, 0.25677463)},
    {"name: 'l' type: 'SigmoidCrossEntropyLoss' bottom: 'x' bottom: 't' top: 'y' loss_param { "
     "ignore_label: 0 }",
     "vt",
     1,
     {SHAPE(4, 3, 2), SHAPE(4, 3, 2)},
     VALUES(-0.36721436, 0.47962692, 0.013962507, 0.15410291)},
    {"name: 'l' type: 'SoftmaxWithLoss' bottom: 'x' bottom: 't' top: 'y'",
     "va",
     1,
     {SHAPE(5, 3), SHAPE(5)},
     VALUES(-0.72691231, 0.94943649, 0.042832785, 0.585987)},
    {"name: 'l' type: 'SoftmaxWithLoss' bottom: 'x' bottom: 't' top: 'y' loss_param { "
     "ignore_label: 1 }",
     "va",
     1,
     {SHAPE(2, 3, 2, 2), SHAPE(2, 1, 2, 2)},
     VALUES(-1.2873937, 1.6814938, -0.1946806, 0.80598268)},
    {"name: 'l' type: 'SoftmaxWithLoss' bottom: 'x' bottom: 't' top: 'y' loss_param { "
     "normalization: FULL ignore_label: 1 }",
     "va",
     1,
     {SHAPE(2, 3, 2, 2), SHAPE(2, 2, 2)},
     VALUES(-0.80462104, 1.0509336, -0.12167537, 0.50373917)},
    {"name: 'l' type: 'SoftmaxWithLoss' bottom: 'x' bottom: 't' top: 'y' loss_param { "
     "normalization: BATCH_SIZE ignore_label: 0 }",
     "va",
     1,
     {SHAPE(2, 3, 2, 2), SHAPE(2, 2, 2)},
     VALUES(-3.0468111, 3.9795084, 0.11171514, 2.1198453)},
    {"name: 'l' type: 'SoftmaxWithLoss' bottom: 'x' bottom: 't' top: 'y' loss_param { "
     "normalization: NONE }",
     "va",
     1,
     {SHAPE(2, 3, 2, 2), SHAPE(2, 2, 2)},
     VALUES(-8.8521506, 11.561993, -0.76283741, 5.9095844)},
    {"name: 'l' type: 'SoftmaxWithLoss' bottom: 'x' bottom: 't' top: 'y' loss_param { normalize: "
     "false }",
     "va",
     1,
     {SHAPE(2, 3, 2, 2), SHAPE(2, 2, 2)},
     VALUES(-4.4260753, 5.7809963, -0.3814187, 2.9547922)},
    {"name: 'l' type: 'SoftmaxWithLoss' bottom: 'x' bottom: 't' top: 'y' loss_param { normalize: "
     "false normalization: FULL }",
     "va",
     1,
     {SHAPE(2, 3, 2, 2), SHAPE(2, 2, 2)},
     VALUES(-1.1065188, 1.4452491, -0.095354676, 0.73869805)},
    {"name: 'l' type: 'SoftmaxWithLoss' bottom: 'x' bottom: 't' top: 'y' softmax_param { axis: -1 "
     "}",
     "va",
     1,
     {SHAPE(2, 2, 3), SHAPE(2, 2)},
     VALUES(-0.8512996, 1.1119015, 0.07188541, 0.66776677)},
    {"name: 'l' type: 'SoftmaxWithLoss' bottom: 'x' bottom: 't' top: 'y' softmax_param { axis: 0 }",
     "va",
     1,
     {SHAPE(3, 6), SHAPE(3, 2)},
     VALUES(-1.0347652, 1.3515301, 0.00041712431, 0.68896642)},
    {"name: 'l' type: 'Accuracy' bottom: 'x' bottom: 't' top: 'y'",
     "qa",
     1,
     {SHAPE(12, 3), SHAPE(12)},
     VALUES(-0.25520834, 0.33333334)},
    {"name: 'l' type: 'Accuracy' bottom: 'x' bottom: 't' top: 'y' accuracy_param { top_k: 2 }",
     "qa",
     1,
     {SHAPE(12, 4), SHAPE(12)},
     VALUES(-0.25520834, 0.33333334)},
    {"name: 'l' type: 'Accuracy' bottom: 'x' bottom: 't' top: 'y' top: 'k' accuracy_param { top_k: "
     "3 ignore_label: 1 }",
     "qa",
     1,
     {SHAPE(4, 5, 3), SHAPE(4, 3)},
     VALUES(-0.3828125, 0.5, -0.109375, 1)},
    {"name: 'l' type: 'Accuracy' bottom: 'x' bottom: 't' top: 'y' top: 'k' accuracy_param { axis: "
     "-1 }",
     "qa",
     1,
     {SHAPE(4, 3, 5), SHAPE(4, 3)},
     VALUES(-0.12760417, 0.16666667, 0.4453125, 0.5)},
    {"name: 'l' type: 'Softmax' bottom: 'x' top: 'y'",
     "v",
     1,
     {SHAPE(2, 3, 2)},
     VALUES(-0.10720027, 4, 0.15158929, 1.9786954)},
    {"name: 'l' type: 'Softmax' bottom: 'x' top: 'y' softmax_param { axis: 0 }",
     "v",
     1,
     {SHAPE(3, 4)},
     VALUES(-0.3355383, 4.0000002, 0.34177242, 1.9217004)},
    {"name: 'l' type: 'Softmax' bottom: 'x' top: 'y' softmax_param { axis: -2 }",
     "v",
     1,
     {SHAPE(2, 3, 2)},
     VALUES(-0.10720027, 4, 0.15158929, 1.9786954)},
};

static void test_caffe_values(void **state) {
    (void)state;
    for (size_t i = 0; i < COUNT(CASES); i++)
        caffe_check(&CASES[i]);
}

#define TWO(type, more) "name: 'l' type: '" type "' bottom: 'x' bottom: 't' top: 'y' " more
#define PAIRS "name: 'l' type: 'ContrastiveLoss' bottom: 'x' bottom: 'z' bottom: 's' top: 'y'"
#define GAIN3 "name: 'l' type: 'InfogainLoss' bottom: 'x' bottom: 't' bottom: 'h' top: 'y' "
#define FILE_OF_MATRIX "infogain_loss_param { source: 'matrix' } "

/* ---- InfogainLoss with a file ---- */

typedef struct NamedBytes {
    void *bytes;
    size_t size;
} NamedBytes;

static ShoalStatus give_bytes(void *context, const char *name, const void **bytes, size_t *size,
                              ShoalError *err) {
    const NamedBytes *named = context;
    assert_string_equal(name, "matrix");
    if (!named->bytes)
        return shoal_error_set(err, SHOAL_ERR_IO, "%s: no such file", name);
    *bytes = named->bytes;
    *size = named->size;
    return SHOAL_OK;
}

/* The matrix of 3 x 3 that the cases above have in bottom 2, as a file of floats or doubles. */
static NamedBytes matrix_file(bool doubles) {
    float values[9];
    double wide[9];
    caffe_fill(values, 9, 'h', 2);
    for (size_t i = 0; i < 9; i++)
        wide[i] = (double)values[i];
    Caffe__BlobProto blob = CAFFE__BLOB_PROTO__INIT;
    blob.n_data = doubles ? 0 : 9;
    blob.data = values;
    blob.n_double_data = doubles ? 9 : 0;
    blob.double_data = wide;
    NamedBytes named;
    ShoalError err = {0};
    assert_int_equal(shoal_caffe_pack(&blob.base, &named.bytes, &named.size, &err), SHOAL_OK);
    return named;
}

static void init_with_file(Harness *h, const char *text, const Shape *bottoms, NamedBytes *named) {
    harness_init(h, text, NULL, 2, bottoms);
    h->context.named_file = give_bytes;
    h->context.source_context = named;
}

static float infogain_loss(const char *text, int n_bottoms, NamedBytes *named) {
    const Shape bottoms[3] = {SHAPE(5, 3), SHAPE(5), SHAPE(3, 3)};
    Harness h;
    if (n_bottoms == 2)
        init_with_file(&h, text, bottoms, named);
    else
        harness_init(&h, text, NULL, n_bottoms, bottoms);
    assert_int_equal(harness_setup(&h), SHOAL_OK);
    harness_allocate(&h);
    for (int i = 0; i < n_bottoms; i++)
        caffe_fill(h.bottoms[i]->data, h.bottoms[i]->count, "vah"[i], i);
    harness_forward(&h);
    float loss = h.tops[0]->data[0];
    harness_close(&h);
    return loss;
}

static void test_infogain_file(void **state) {
    (void)state;
    float expected = infogain_loss(GAIN3, 3, NULL);
    for (int doubles = 0; doubles < 2; doubles++) {
        NamedBytes named = matrix_file(doubles);
        assert_true(infogain_loss(TWO("InfogainLoss", FILE_OF_MATRIX), 2, &named) == expected);
        shoal_free(named.bytes);
    }
}

static void expect_file_refused(const char *text, NamedBytes *named, ShoalStatus expected,
                                const char *message) {
    const Shape bottoms[2] = {SHAPE(5, 3), SHAPE(5)};
    Harness h;
    init_with_file(&h, text, bottoms, named);
    if (!named)
        h.context.named_file = NULL;
    assert_int_equal(harness_setup(&h), expected);
    if (!strstr(h.err.text, message) || strncmp(h.err.text, "layer 'l'", 9) != 0)
        fail_msg("'%s' does not have '%s'", h.err.text, message);
    harness_close(&h);
}

static void test_bad_infogain_files(void **state) {
    (void)state;
    const char *text = TWO("InfogainLoss", FILE_OF_MATRIX);
    NamedBytes named = matrix_file(false), none = {NULL, 0}, empty = {named.bytes, 0};
    expect_file_refused(text, &none, SHOAL_ERR_IO, "matrix: no such file");
    expect_file_refused(text, NULL, SHOAL_ERR_UNSUPPORTED, "none can be read here");
    expect_file_refused(text, &empty, SHOAL_ERR_MODEL, "the matrix has 0 numbers; expected 3 x 3");
    expect_file_refused(TWO("InfogainLoss", ""), &named, SHOAL_ERR_MODEL, "no matrix; expected");
    for (size_t size = 1; size < named.size; size++) { /* cut anywhere */
        NamedBytes cut = {named.bytes, size};
        expect_file_refused(text, &cut, SHOAL_ERR_PARSE, "matrix");
    }
    shoal_free(named.bytes);
}

/* ---- label smoothing ---- */

/* Cross entropy with the target of Szegedy et al. 2016, (1 - e) onehot + e / K, by its definition;
 * over the labels that are not `ignored`. */
static double smoothed_loss(size_t samples, size_t classes, const float *x, const float *labels,
                            double e, float ignored) {
    double loss = 0;
    size_t counted = 0;
    for (size_t n = 0; n < samples; n++, x += classes) {
        double all = 0;
        for (size_t c = 0; c < classes; c++)
            all += exp((double)x[c]);
        for (size_t c = 0; c < classes && labels[n] != ignored; c++) {
            double target = e / (double)classes + (labels[n] == (float)c ? 1 - e : 0);
            loss -= target * log(exp((double)x[c]) / all);
        }
        counted += labels[n] != ignored;
    }
    return loss / (double)counted;
}

static void check_smoothing(const char *text, double e, float ignored) {
    const Shape bottoms[2] = {SHAPE(5, 3), SHAPE(5)};
    Harness h;
    harness_open(&h, text, 2, bottoms);
    caffe_fill(h.bottoms[0]->data, 15, 'v', 0);
    caffe_fill(h.bottoms[1]->data, 5, 'a', 1);
    harness_forward(&h);
    float loss = (float)smoothed_loss(5, 3, h.bottoms[0]->data, h.bottoms[1]->data, e, ignored);
    harness_assert_near(h.tops[0]->data, &loss, 1, 1e-6);
    harness_close(&h);
}

static void test_label_smoothing(void **state) {
    (void)state;
    check_smoothing(TWO("SoftmaxWithLoss", "loss_param { label_smoothing: 0 }"), 0, -1);
    check_smoothing(TWO("SoftmaxWithLoss", "loss_param { label_smoothing: 0.1 }"), 0.1, -1);
    check_smoothing(TWO("SoftmaxWithLoss", "loss_param { label_smoothing: 0.5 ignore_label: 2 }"),
                    0.5, 2);
}

/* ---- shares ---- */

/* Which layers cannot have a part of a batch. */
static void test_whole_batch(void **state) {
    (void)state;
    static const struct {
        const char *text;
        bool whole;
        Shape scores, labels;
    } WHOLE[] = {
        {TWO("SoftmaxWithLoss", ""), false, SHAPE(3, 4), SHAPE(3)},
        {TWO("SoftmaxWithLoss", "loss_param { ignore_label: 1 }"), true, SHAPE(3, 4), SHAPE(3)},
        {TWO("SoftmaxWithLoss", "loss_param { ignore_label: 1 normalization: FULL }"), false,
         SHAPE(3, 4), SHAPE(3)},
        {TWO("SoftmaxWithLoss", "loss_param { ignore_label: 1 normalize: false }"), false,
         SHAPE(3, 4), SHAPE(3)},
        {TWO("SoftmaxWithLoss", "softmax_param { axis: 0 }"), true, SHAPE(4, 4), SHAPE(4)},
        {TWO("SigmoidCrossEntropyLoss", "loss_param { ignore_label: 1 }"), false, SHAPE(3, 4),
         SHAPE(3, 4)},
        {TWO("SigmoidCrossEntropyLoss", "loss_param { ignore_label: 1 normalization: VALID }"),
         true, SHAPE(3, 4), SHAPE(3, 4)},
        {TWO("EuclideanLoss", ""), false, SHAPE(3, 4), SHAPE(3, 4)},
        {TWO("HingeLoss", ""), false, SHAPE(3, 4), SHAPE(3)},
        {TWO("MultinomialLogisticLoss", ""), false, SHAPE(3, 4), SHAPE(3)},
        {TWO("Accuracy", ""), false, SHAPE(3, 4), SHAPE(3)},
        {TWO("Accuracy", "top: 'k'"), true, SHAPE(3, 4), SHAPE(3)},
        {TWO("Accuracy", "accuracy_param { ignore_label: 1 }"), true, SHAPE(3, 4), SHAPE(3)},
    };
    for (size_t i = 0; i < COUNT(WHOLE); i++) {
        const Shape bottoms[2] = {WHOLE[i].scores, WHOLE[i].labels};
        Harness h;
        harness_open(&h, WHOLE[i].text, 2, bottoms);
        if (h.layer.whole_batch != WHOLE[i].whole)
            fail_msg("%s: whole_batch is %d", WHOLE[i].text, h.layer.whole_batch);
        harness_close(&h);
    }
}

/* A share's loss (and gradient) of 2 of 6 samples: a mean needs no correction, a sum stands for
 * three times as much. */
static void test_shares(void **state) {
    (void)state;
    static const struct {
        const char *text, *kinds;
        double factor;
    } SHARES[] = {
        {TWO("EuclideanLoss", ""), "vv", 1},
        {TWO("SigmoidCrossEntropyLoss", ""), "vt", 1},
        {TWO("SigmoidCrossEntropyLoss", "loss_param { normalization: VALID }"), "vt", 1},
        {TWO("SigmoidCrossEntropyLoss", "loss_param { normalization: NONE }"), "vt", 3},
    };
    const Shape bottoms[2] = {SHAPE(2, 4), SHAPE(2, 4)};
    for (size_t i = 0; i < COUNT(SHARES); i++) {
        double sums[2];
        for (int part = 0; part < 2; part++) {
            Harness h;
            harness_open(&h, SHARES[i].text, 2, bottoms);
            h.context.batch_full = part ? 6 : 2;
            for (int k = 0; k < 2; k++)
                caffe_fill(h.bottoms[k]->data, 8, SHARES[i].kinds[k], k);
            harness_forward(&h);
            h.tops[0]->diff[0] = 1;
            harness_backward(&h);
            sums[part] = (double)h.tops[0]->data[0];
            for (size_t k = 0; k < 8; k++)
                sums[part] += fabs((double)h.bottoms[0]->diff[k]);
            harness_close(&h);
        }
        if (!(fabs(sums[1] - SHARES[i].factor * sums[0]) <= 1e-5))
            fail_msg("%s: %g of all, %g of a share", SHARES[i].text, sums[0], sums[1]);
    }
}

/* ---- bad inputs ---- */

static void test_refusals(void **state) {
    (void)state;
    static const struct {
        const char *text;
        int n_bottoms;
        Shape bottoms[3];
        const char *message;
    } BAD[] = {
        {PAIRS, 3, {SHAPE(4, 3), SHAPE(4, 2), SHAPE(4)}, "expected 'x' and 'z' as N x C"},
        {PAIRS, 3, {SHAPE(4, 3, 2, 1), SHAPE(4, 3, 2, 1), SHAPE(4)}, "as N x C"},
        {PAIRS, 3, {SHAPE(4, 3), SHAPE(4, 3), SHAPE(3)}, "'s' with N numbers"},
        {PAIRS, 3, {SCALAR, SCALAR, SCALAR}, "as N x C"},
        {TWO("EuclideanLoss", ""), 2, {SHAPE(4, 3), SHAPE(4, 2)}, "as many samples of as many"},
        {TWO("EuclideanLoss", ""), 2, {SHAPE(4, 3), SHAPE(3, 4)}, "as many samples of as many"},
        {TWO("EuclideanLoss", ""), 2, {SCALAR, SCALAR}, "as many samples of as many"},
        {TWO("HingeLoss", ""), 2, {SHAPE(4, 3), SHAPE(3)}, "3 labels; expected one for each"},
        {TWO("HingeLoss", ""), 2, {SHAPE(4, 0), SHAPE(4)}, "must have values"},
        {TWO("HingeLoss", ""), 2, {SCALAR, SCALAR}, "must have values"},
        {TWO("MultinomialLogisticLoss", ""), 2, {SHAPE(4, 3), SHAPE(4, 2)}, "8 labels; expected"},
        {TWO("SigmoidCrossEntropyLoss", ""), 2, {SHAPE(4, 3), SHAPE(4)}, "as many values"},
        {TWO("SigmoidCrossEntropyLoss", ""), 2, {SHAPE(4, 3), SHAPE(3, 4)}, "as many values"},
        {TWO("SigmoidCrossEntropyLoss", ""), 2, {SCALAR, SCALAR}, "as many values"},
        {GAIN3, 3, {SHAPE(4, 3), SHAPE(4), SHAPE(3, 2)}, "the matrix has 6 numbers"},
        {GAIN3, 3, {SHAPE(4, 3), SHAPE(3), SHAPE(3, 3)}, "expected 4 labels"},
        {GAIN3 "infogain_loss_param { axis: 2 }", 3, {SHAPE(4, 3), SHAPE(4), SHAPE(9)}, "axis 2"},
        {GAIN3 "loss_param { normalize: true }",
         3,
         {SHAPE(4, 3), SHAPE(4), SHAPE(3, 3)},
         "use normalization"},
        {TWO("SoftmaxWithLoss", "loss_param { label_smoothing: 1 }"),
         2,
         {SHAPE(4, 3), SHAPE(4)},
         "label_smoothing is 1; expected at least 0 and less"},
        {TWO("SoftmaxWithLoss", "loss_param { label_smoothing: -0.1 }"),
         2,
         {SHAPE(4, 3), SHAPE(4)},
         "label_smoothing is -0.1"},
        {TWO("SoftmaxWithLoss", "loss_param { label_smoothing: nan }"),
         2,
         {SHAPE(4, 3), SHAPE(4)},
         "label_smoothing is nan"},
    };
    for (size_t i = 0; i < COUNT(BAD); i++) {
        Harness h;
        harness_init(&h, BAD[i].text, NULL, BAD[i].n_bottoms, BAD[i].bottoms);
        assert_int_equal(harness_setup(&h), SHOAL_ERR_MODEL);
        if (!strstr(h.err.text, BAD[i].message))
            fail_msg("%s: '%s' does not have '%s'", BAD[i].text, h.err.text, BAD[i].message);
        harness_close(&h);
    }
}

static void test_bad_labels(void **state) {
    (void)state;
    static const float LABELS[] = {3, -1, 1e30f, -1e30f, INFINITY, NAN};
    static const char *const TEXTS[] = {TWO("HingeLoss", ""), TWO("MultinomialLogisticLoss", ""),
                                        GAIN3, GAIN3 "loss_param { ignore_label: 7 }"};
    const Shape bottoms[3] = {SHAPE(2, 3), SHAPE(2), SHAPE(3, 3)};
    for (size_t i = 0; i < COUNT(TEXTS); i++)
        for (size_t k = 0; k < COUNT(LABELS); k++) {
            Harness h;
            harness_open(&h, TEXTS[i], i < 2 ? 2 : 3, bottoms);
            h.bottoms[1]->data[1] = LABELS[k];
            assert_int_equal(h.layer.class->forward(&h.layer, &h.compute, &h.err), SHOAL_ERR_DATA);
            assert_non_null(strstr(h.err.text, "(number 1 of blob 't') is out of range"));
            harness_close(&h);
        }
}

/* Values that no number is: the loss shows them, and nothing is read beside the blobs. */
static void test_hostile_values(void **state) {
    (void)state;
    static const float VALUE[] = {NAN, INFINITY, -INFINITY, 1e38f, -1e38f, 3e9f};
    static const char *const TEXTS[] = {
        PAIRS, TWO("EuclideanLoss", ""),
        TWO("SigmoidCrossEntropyLoss", "loss_param { ignore_label: 7 }")};
    const Shape bottoms[3] = {SHAPE(2, 3), SHAPE(2, 3), SHAPE(2)};
    for (size_t i = 0; i < COUNT(TEXTS); i++)
        for (size_t k = 0; k < 3 * COUNT(VALUE); k++) {
            Harness h;
            harness_open(&h, TEXTS[i], i == 0 ? 3 : 2, bottoms);
            h.bottoms[k % (size_t)h.layer.n_bottoms]->data[1] = VALUE[k / 3];
            harness_forward(&h);
            h.tops[0]->diff[0] = 1;
            harness_backward(&h);
            if (k < 2)
                assert_true(isnan(h.tops[0]->data[0]));
            harness_close(&h);
        }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_caffe_values),       cmocka_unit_test(test_infogain_file),
        cmocka_unit_test(test_bad_infogain_files), cmocka_unit_test(test_label_smoothing),
        cmocka_unit_test(test_whole_batch),        cmocka_unit_test(test_shares),
        cmocka_unit_test(test_refusals),           cmocka_unit_test(test_bad_labels),
        cmocka_unit_test(test_hostile_values),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
