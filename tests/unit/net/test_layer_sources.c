/* SPDX-License-Identifier: Apache-2.0 */
/* Layers without bottoms (Data, Input, DummyData), and what layers draw by chance: a sample gets
 * the same numbers whatever share of the batch it is in. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <limits.h>
#include <math.h>
#include <stdlib.h>

#include "base/error.h"
#include "net_harness.h"

#define DATA(settings)                                                                             \
    "name: 'mnist' type: 'Data' top: 'data' top: 'label' data_param { " settings " }"
#define INPUT(settings) "name: 'in' type: 'Input' top: 'a' top: 'b' input_param { " settings " }"
#define DUMMY(settings)                                                                            \
    "name: 'dummy' type: 'DummyData' top: 'a' top: 'b' dummy_data_param { " settings " }"
#define DROPOUT(settings) "name: 'd' type: 'Dropout' bottom: 'x' top: 'y' " settings

typedef struct Refusal {
    const char *text;
    ShoalStatus status;
    const char *says;
} Refusal;

static void assert_dims(const ShoalBlob *blob, int axes, const int *dims) {
    assert_int_equal(blob->axes, axes);
    for (int i = 0; i < axes; i++)
        assert_int_equal(blob->shape[i], dims[i]);
}

#define ASSERT_DIMS(blob, ...)                                                                     \
    assert_dims(blob, sizeof((int[]){__VA_ARGS__}) / sizeof(int), (int[]){__VA_ARGS__})

typedef struct Records {
    int dims[3];
    ShoalStatus status;
} Records;

static ShoalStatus records_shape(void *context, const Caffe__LayerParameter *layer, int top,
                                 int *axes, int *dims, ShoalError *err) {
    const Records *records = context;
    if (records->status != SHOAL_OK)
        return shoal_error_set(err, records->status, "cannot open %s", layer->data_param->source);
    *axes = top == 0 ? 3 : 0;
    if (top == 0)
        memcpy(dims, records->dims, sizeof records->dims);
    return SHOAL_OK;
}

/* A source layer in a net whose global batch is `full`, with a share of `now`. */
static void init_source(Harness *h, const char *text, Records *records, int full, int now) {
    harness_init(h, text, NULL, 0, NULL);
    h->context.batch_full = full;
    h->context.batch_now = now;
    h->context.source_shape = records ? records_shape : NULL;
    h->context.source_context = records;
}

static void open_source(Harness *h, const char *text, int full, int now) {
    init_source(h, text, NULL, full, now);
    if (harness_setup(h) != SHOAL_OK)
        fail_msg("%s: %s", text, h->err.text);
    harness_allocate(h);
}

static void check_refusals(const Refusal *cases, size_t n, const Records *records) {
    for (size_t i = 0; i < n; i++) {
        Harness h;
        Records copy = *records;
        init_source(&h, cases[i].text, &copy, 8, 8);
        ShoalStatus status = harness_setup(&h);
        if (status != cases[i].status || strncmp(h.err.text, "layer '", 7) ||
            !strstr(h.err.text, cases[i].says))
            fail_msg("%s: status %d, \"%s\"; expected %d, \"layer '...%s...\"", cases[i].text,
                     (int)status, h.err.text, (int)cases[i].status, cases[i].says);
        harness_close(&h);
    }
}

#define CHECK_REFUSALS(cases, records)                                                             \
    check_refusals(cases, sizeof cases / sizeof cases[0], records)

/* ---- Data ---- */

static void test_data_shapes(void **state) {
    (void)state;
    Records records = {{1, 28, 27}, SHOAL_OK};
    Harness h;
    init_source(&h, DATA("source: 's' batch_size: 64 backend: LMDB"), &records, 64, 64);
    assert_int_equal(harness_setup(&h), SHOAL_OK);
    ASSERT_DIMS(h.tops[0], 64, 1, 28, 27);
    ASSERT_DIMS(h.tops[1], 64);
    h.context.batch_now = 5;
    assert_int_equal(h.layer.class->reshape(&h.layer, &h.err), SHOAL_OK);
    ASSERT_DIMS(h.tops[0], 5, 1, 28, 27);
    ASSERT_DIMS(h.tops[1], 5);
    harness_close(&h);
    init_source(&h, "name: 'd' type: 'Data' top: 'data' data_param { batch_size: 2 backend: LMDB }",
                &records, 2, 2);
    assert_int_equal(harness_setup(&h), SHOAL_OK);
    harness_close(&h);
}

static void test_data_refusals(void **state) {
    (void)state;
    static const Refusal cases[] = {
        {"name: 'd' type: 'Data' top: 'x'", SHOAL_ERR_MODEL, "no data_param"},
        {DATA("batch_size: 0 backend: LMDB"), SHOAL_ERR_MODEL, "batch_size is 0"},
        {DATA("backend: LMDB"), SHOAL_ERR_MODEL, "batch_size is 0"},
        {DATA("batch_size: 4294967295 backend: LMDB"), SHOAL_ERR_MODEL, "4294967295"},
        {DATA("batch_size: 8 backend: LEVELDB"), SHOAL_ERR_UNSUPPORTED, "backend LEVELDB;"},
        {DATA("batch_size: 8"), SHOAL_ERR_UNSUPPORTED, "Caffe's default when none is given"},
    };
    const Refusal good = {DATA("source: 'gone' batch_size: 8 backend: LMDB"), SHOAL_ERR_IO,
                          "cannot open gone"};
    CHECK_REFUSALS(cases, (&(Records){{1, 2, 3}, SHOAL_OK}));
    check_refusals(&good, 1, &(Records){{1, 2, 3}, SHOAL_ERR_IO});
    const Refusal empty = {good.text, SHOAL_ERR_DATA, "samples have size 0 on axis 1"};
    check_refusals(&empty, 1, &(Records){{1, 0, 3}, SHOAL_OK});
    const Refusal huge = {good.text, SHOAL_ERR_MODEL, "top 'data'"};
    check_refusals(&huge, 1, &(Records){{INT_MAX, INT_MAX, INT_MAX}, SHOAL_OK});

    Harness h;
    init_source(&h, good.text, NULL, 8, 8);
    assert_int_equal(harness_setup(&h), SHOAL_ERR_UNSUPPORTED);
    harness_close(&h);
}

/* ---- Input ---- */

static void test_input_shapes(void **state) {
    (void)state;
    Harness h;
    open_source(&h, INPUT("shape { dim: 8 dim: 3 } shape { dim: 7 dim: 0 }"), 8, 3);
    ASSERT_DIMS(h.tops[0], 3, 3);
    ASSERT_DIMS(h.tops[1], 7, 0);
    harness_close(&h);
    open_source(&h, INPUT("shape { dim: [8, 1, 2, 2] }"), 8, 8);
    ASSERT_DIMS(h.tops[0], 8, 1, 2, 2);
    ASSERT_DIMS(h.tops[1], 8, 1, 2, 2);
    harness_close(&h);
    open_source(&h, INPUT("shape { }"), 8, 3);
    assert_int_equal(h.tops[0]->axes, 0);
    harness_close(&h);
}

static void test_input_refusals(void **state) {
    (void)state;
    static const Refusal cases[] = {
        {"name: 'in' type: 'Input' top: 'a'", SHOAL_ERR_MODEL, "no shape"},
        {INPUT(""), SHOAL_ERR_MODEL, "no shape"},
        {INPUT("shape { dim: 1 } shape { dim: 1 } shape { dim: 1 }"), SHOAL_ERR_MODEL,
         "3 shapes for 2 tops; expected 1 or 2"},
        {INPUT("shape { dim: -1 }"), SHOAL_ERR_MODEL, "dim 0 of a shape is -1"},
        {INPUT("shape { dim: 1 dim: 2147483648 }"), SHOAL_ERR_MODEL, "2147483648"},
        {INPUT("shape { dim: 65536 dim: 65536 }"), SHOAL_ERR_MODEL, "top 'a'"},
        {INPUT("shape { dim: [1, 1, 1, 1, 1, 1, 1, 1, 1] }"), SHOAL_ERR_MODEL, "9 axes"},
    };
    CHECK_REFUSALS(cases, (&(Records){{1, 1, 1}, SHOAL_OK}));
}

/* ---- DummyData ---- */

static void test_dummy_shapes(void **state) {
    (void)state;
    Harness h;
    open_source(&h, DUMMY("shape { dim: 8 dim: 3 } shape { dim: 5 }"), 8, 2);
    ASSERT_DIMS(h.tops[0], 2, 3);
    ASSERT_DIMS(h.tops[1], 5);
    harness_forward(&h);
    for (size_t i = 0; i < 6; i++)
        assert_true(h.tops[0]->data[i] == 0);
    harness_close(&h);
    open_source(&h,
                DUMMY("num: 8 num: 6 channels: 1 height: 2 height: 3 width: 4 "
                      "data_filler { value: 2 } data_filler { value: 3 }"),
                8, 8);
    ASSERT_DIMS(h.tops[0], 8, 1, 2, 4);
    ASSERT_DIMS(h.tops[1], 6, 1, 3, 4);
    harness_forward(&h);
    assert_true(h.tops[0]->data[63] == 2 && h.tops[1]->data[71] == 3);
    harness_close(&h);
}

static void test_dummy_refusals(void **state) {
    (void)state;
    static const Refusal cases[] = {
        {"name: 'dummy' type: 'DummyData' top: 'a'", SHOAL_ERR_MODEL, "no dummy_data_param"},
        {DUMMY(""), SHOAL_ERR_MODEL, "0 shape for 2 tops; expected 1 or 2"},
        {DUMMY("shape { dim: 1 } shape { dim: 1 } shape { dim: 1 }"), SHOAL_ERR_MODEL, "3 shape"},
        {DUMMY("shape { dim: 1 } num: 2"), SHOAL_ERR_MODEL, "both shape and the old"},
        {DUMMY("num: 2 channels: 3 height: 4"), SHOAL_ERR_MODEL, "0 width"},
        {DUMMY("num: 2 channels: 3 height: [1, 2, 3] width: 1"), SHOAL_ERR_MODEL, "3 height"},
        {DUMMY("num: 4294967295 channels: 3 height: 4 width: 1"), SHOAL_ERR_MODEL, "num is 429"},
        {DUMMY("num: 65536 channels: 65536 height: 65536 width: 65536"), SHOAL_ERR_MODEL, "'a'"},
        {DUMMY("shape { dim: 0 }"), SHOAL_ERR_MODEL, "without values"},
        {DUMMY("shape { dim: -5 }"), SHOAL_ERR_MODEL, "-5"},
        {DUMMY("shape { dim: 1 } data_filler { type: 'x' }"), SHOAL_ERR_MODEL, "'x' is unknown"},
        {DUMMY("shape { dim: 1 } data_filler { } data_filler { } data_filler { }"), SHOAL_ERR_MODEL,
         "3 data_filler for 2 tops; expected 0, 1 or 2"},
    };
    CHECK_REFUSALS(cases, (&(Records){{1, 1, 1}, SHOAL_OK}));
}

/* The numbers of samples first .. first + now - 1 of a batch of 6 into out. */
static void draw_dummy(const char *text, uint64_t first, int now, float *out) {
    Harness h;
    open_source(&h, text, 6, now);
    h.context.first_sample = first;
    harness_forward(&h);
    harness_set(out, h.tops[0]->count, h.tops[0]->data);
    harness_close(&h);
}

static void test_dummy_numbers_follow_the_sample(void **state) {
    (void)state;
    static const char *const fillers[] = {"type: 'uniform'", "type: 'gaussian'",
                                          "type: 'gaussian' sparse: 3", "type: 'xavier'",
                                          "type: 'positive_unitball'"};
    for (size_t i = 0; i < sizeof fillers / sizeof fillers[0]; i++) {
        char text[256];
        snprintf(text, sizeof text, DUMMY("shape { dim: [6, 7] } data_filler { %s }"), fillers[i]);
        float whole[42], next[42], part[42];
        draw_dummy(text, 6000, 6, whole);
        draw_dummy(text, 6000, 2, part);
        draw_dummy(text, 6002, 1, part + 14);
        draw_dummy(text, 6003, 3, part + 21);
        assert_memory_equal(whole, part, sizeof whole);
        for (int row = 1; row < 6; row++)
            assert_true(memcmp(whole, whole + 7 * row, 7 * sizeof *whole) != 0);
        for (int j = 0; i == 0 && j < 42; j++) /* nor do their numbers overlap */
            for (int k = 0; k < j; k++)
                assert_true(whole[j] != whole[k]);
        draw_dummy(text, 6006, 6, next);
        assert_true(memcmp(whole, next, sizeof whole) != 0);
    }
}

/* A top that is no part of the batch: the same on every worker, another one each iteration. */
static void test_dummy_outside_the_batch(void **state) {
    (void)state;
    const char *text = DUMMY("shape { dim: [4, 3] } data_filler { type: 'uniform' }");
    float one[12], other[12], next[12];
    draw_dummy(text, 12, 2, one);
    draw_dummy(text, 14, 4, other);
    draw_dummy(text, 18, 6, next);
    assert_memory_equal(one, other, sizeof one);
    assert_true(memcmp(one, next, sizeof one) != 0);
}

static void test_dummy_tops_differ(void **state) {
    (void)state;
    Harness h;
    open_source(&h, DUMMY("shape { dim: [6, 3] } data_filler { type: 'uniform' }"), 6, 6);
    harness_forward(&h);
    assert_true(memcmp(h.tops[0]->data, h.tops[1]->data, 18 * sizeof(float)) != 0);
    harness_close(&h);
}

/* ---- Dropout ---- */

enum { ROWS = 8, COLS = 125 };

/* Dropout of ones: rows first .. first + now - 1 of the run, into out. */
static void draw_dropout(const char *text, uint64_t seed, int number, uint64_t first, int now,
                         ShoalPool *pool, float *out) {
    const Shape bottom = SHAPE(now, COLS);
    Harness h;
    harness_open(&h, text, 1, &bottom);
    h.context.seed = seed;
    h.context.batch_full = ROWS;
    h.context.first_sample = first;
    h.layer.number = number;
    h.compute.pool = pool;
    for (int i = 0; i < now * COLS; i++)
        h.bottoms[0]->data[i] = 1;
    harness_forward(&h);
    harness_set(out, (size_t)now * COLS, h.tops[0]->data);
    /* Backward takes the same mask. */
    for (int i = 0; i < now * COLS; i++)
        h.tops[0]->diff[i] = 2;
    harness_backward(&h);
    for (int i = 0; i < now * COLS; i++)
        assert_true(h.bottoms[0]->diff[i] == 2 * out[i]);
    harness_close(&h);
}

static void test_dropout_follows_the_sample(void **state) {
    (void)state;
    static float whole[ROWS * COLS], part[ROWS * COLS], other[ROWS * COLS];
    const char *text = DROPOUT("");
    draw_dropout(text, 1, 3, 800, ROWS, NULL, whole);
    draw_dropout(text, 1, 3, 800, 3, NULL, part);
    draw_dropout(text, 1, 3, 803, 5, NULL, part + 3 * COLS);
    assert_memory_equal(whole, part, sizeof whole);
    ShoalPool *pool = shoal_pool_create(3);
    assert_non_null(pool);
    draw_dropout(text, 1, 3, 800, ROWS, pool, other);
    shoal_pool_destroy(pool);
    assert_memory_equal(whole, other, sizeof whole);
    draw_dropout(text, 1, 3, 808, ROWS, NULL, other);
    assert_true(memcmp(whole, other, sizeof whole) != 0);
    draw_dropout(text, 2, 3, 800, ROWS, NULL, other);
    assert_true(memcmp(whole, other, sizeof whole) != 0);
    draw_dropout(text, 1, 4, 800, ROWS, NULL, other);
    assert_true(memcmp(whole, other, sizeof whole) != 0);
}

/* A part of about `ratio` is dropped (1000 draws: 5 deviations are 5 sqrt(r (1-r) / 1000)), the
 * rest scaled so that the mean stays. */
static void test_dropout_ratio(void **state) {
    (void)state;
    static const double ratios[] = {0, 0.1, 0.5, 0.875};
    for (size_t r = 0; r < sizeof ratios / sizeof ratios[0]; r++) {
        static float y[ROWS * COLS];
        char text[128];
        int dropped = 0;
        snprintf(text, sizeof text, DROPOUT("dropout_param { dropout_ratio: %g }"), ratios[r]);
        draw_dropout(text, 7, 3, 0, ROWS, NULL, y);
        float scale = (float)(1 / (1 - (double)(float)ratios[r]));
        for (int i = 0; i < ROWS * COLS; i++) {
            assert_true(y[i] == 0 || y[i] == scale);
            dropped += y[i] == 0;
        }
        double n = ROWS * COLS, bound = 5 * sqrt(ratios[r] * (1 - ratios[r]) / n);
        assert_true(fabs(dropped / n - ratios[r]) <= bound);
    }
}

static void test_dropout_in_testing(void **state) {
    (void)state;
    static const char *const texts[] = {DROPOUT(""),
                                        "name: 'd' type: 'Dropout' bottom: 'x' top: 'x'"};
    const Shape bottom = SHAPE(2, 3);
    const float x[] = {1, -2, 3, 4, 5, 6};
    for (size_t i = 0; i < 2; i++) {
        Harness h;
        harness_init(&h, texts[i], NULL, 1, &bottom);
        h.context.phase = CAFFE__PHASE__TEST;
        assert_int_equal(harness_setup(&h), SHOAL_OK);
        assert_int_equal(h.layer.saved_bytes, 0);
        harness_allocate(&h);
        harness_set(h.bottoms[0]->data, 6, x);
        harness_forward(&h);
        harness_assert_near(h.tops[0]->data, x, 6, 0);
        harness_set(h.tops[0]->diff, 6, x);
        harness_backward(&h);
        harness_assert_near(h.bottoms[0]->diff, x, 6, 0);
        harness_close(&h);
    }
}

static void test_dropout_refusals(void **state) {
    (void)state;
    static const char *const ratios[] = {"1", "1.5", "-0.1", "nan", "inf"};
    const Shape bottom = SHAPE(2, 3);
    for (size_t i = 0; i < sizeof ratios / sizeof ratios[0]; i++) {
        char text[128];
        Harness h;
        snprintf(text, sizeof text, DROPOUT("dropout_param { dropout_ratio: %s }"), ratios[i]);
        harness_init(&h, text, NULL, 1, &bottom);
        assert_int_equal(harness_setup(&h), SHOAL_ERR_MODEL);
        assert_non_null(strstr(h.err.text, "layer 'd': dropout_ratio is"));
        harness_close(&h);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_data_shapes),
        cmocka_unit_test(test_data_refusals),
        cmocka_unit_test(test_input_shapes),
        cmocka_unit_test(test_input_refusals),
        cmocka_unit_test(test_dummy_shapes),
        cmocka_unit_test(test_dummy_refusals),
        cmocka_unit_test(test_dummy_numbers_follow_the_sample),
        cmocka_unit_test(test_dummy_outside_the_batch),
        cmocka_unit_test(test_dummy_tops_differ),
        cmocka_unit_test(test_dropout_follows_the_sample),
        cmocka_unit_test(test_dropout_ratio),
        cmocka_unit_test(test_dropout_in_testing),
        cmocka_unit_test(test_dropout_refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
