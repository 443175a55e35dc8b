/* SPDX-License-Identifier: Apache-2.0 */
/* Single layers: shapes, refusals, and values worked out by hand. Gradients are in tests/grad/. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <float.h>
#include <limits.h>
#include <math.h>
#include <stdlib.h>

#include "layer_checks.h"

#define CONV(settings)                                                                             \
    "name: 'c1' type: 'Convolution' bottom: 'x' top: 'y' convolution_param { " settings " }"
#define POOL(settings)                                                                             \
    "name: 'p1' type: 'Pooling' bottom: 'x' top: 'y' pooling_param { " settings " }"
#define IP(settings)                                                                               \
    "name: 'ip' type: 'InnerProduct' bottom: 'x' top: 'y' inner_product_param { " settings " }"
#define LOSS(settings)                                                                             \
    "name: 'loss' type: 'SoftmaxWithLoss' bottom: 'x' bottom: 'label' top: 'y' " settings
#define ACCURACY(settings)                                                                         \
    "name: 'acc' type: 'Accuracy' bottom: 'x' bottom: 'label' top: 'y' " settings

static void test_table(void **state) {
    (void)state;
    size_t n = 0;
    for (const ShoalLayerClass *class; (class = shoal_layer_class_at(n)); n++) {
        assert_ptr_equal(shoal_layer_class_find(class->type), class);
        assert_non_null(class->reshape);
        bool refused = !strcmp(class->type, "Python");
        assert_true(class->backward || class->flags & SHOAL_LAYER_NO_BACKWARD || refused);
    }
    assert_int_equal(n, 61);
    assert_null(shoal_layer_class_at(SIZE_MAX));
    assert_null(shoal_layer_class_find("convolution"));
    assert_null(shoal_layer_class_find(""));
    assert_null(shoal_layer_class_find(NULL));
}

/* ---- Convolution ---- */

static void test_convolution_shapes(void **state) {
    (void)state;
    static const ShapeCase cases[] = {
        {CONV("num_output: 20 kernel_size: 5"), SHAPE(64, 1, 28, 28), SHAPE(64, 20, 24, 24)},
        {CONV("num_output: 96 kernel_size: 11 stride: 4"), SHAPE(2, 3, 227, 227),
         SHAPE(2, 96, 55, 55)},
        {CONV("num_output: 2 kernel_size: 3 stride: 2"), SHAPE(1, 1, 6, 7), SHAPE(1, 2, 2, 3)},
        {CONV("num_output: 2 kernel_size: 3 pad: 1"), SHAPE(1, 1, 6, 7), SHAPE(1, 2, 6, 7)},
        {CONV("num_output: 2 kernel_size: 3 dilation: 2"), SHAPE(1, 1, 6, 7), SHAPE(1, 2, 2, 3)},
        {CONV("num_output: 2 kernel_size: [3, 1] stride: [1, 2] pad: [0, 1] dilation: [2, 5]"),
         SHAPE(1, 1, 6, 7), SHAPE(1, 2, 2, 5)},
        {CONV("num_output: 2 kernel_h: 2 kernel_w: 3 stride_h: 2 stride_w: 1 pad_w: 1"),
         SHAPE(1, 1, 6, 7), SHAPE(1, 2, 3, 7)},
        {CONV("num_output: 2 kernel_size: 1 axis: -3 force_nd_im2col: true"), SHAPE(0, 1, 6, 7),
         SHAPE(0, 2, 6, 7)},
    };
    CHECK_SHAPES(cases);
}

static void test_convolution_weights(void **state) {
    (void)state;
    const Shape bottom = SHAPE(2, 6, 5, 5), weights = SHAPE(9, 2, 3, 2), bias = SHAPE(9);
    Harness h;
    harness_open(&h, CONV("num_output: 9 group: 3 kernel_h: 3 kernel_w: 2"), 1, &bottom);
    assert_int_equal(h.layer.n_params, 2);
    assert_shape(&h.layer.params[0]->blob, &weights, "group");
    assert_shape(&h.layer.params[1]->blob, &bias, "group");
    harness_close(&h);
    harness_open(&h, CONV("num_output: 9 kernel_size: 1 bias_term: false"), 1, &bottom);
    assert_int_equal(h.layer.n_params, 1);
    harness_close(&h);
}

static void test_convolution_refusals(void **state) {
    (void)state;
#define IMAGE                                                                                      \
    { SHAPE(2, 4, 5, 6) }
    static const Refusal cases[] = {
        {"name: 'c1' type: 'Convolution' top: 'y'", 1, IMAGE, SHOAL_ERR_MODEL, "convolution_param"},
        {CONV("kernel_size: 3"), 1, IMAGE, SHOAL_ERR_MODEL, "num_output is 0"},
        {CONV("num_output: 4294967295 kernel_size: 3"), 1, IMAGE, SHOAL_ERR_MODEL,
         "num_output is 4294967295"},
        {CONV("num_output: 2147483647 kernel_size: 3"), 1, IMAGE, SHOAL_ERR_MODEL, ""},
        {CONV("num_output: 4"), 1, IMAGE, SHOAL_ERR_MODEL, "0 values for kernel"},
        {CONV("num_output: 4 kernel_size: 0"), 1, IMAGE, SHOAL_ERR_MODEL, "kernel_h is 0"},
        {CONV("num_output: 4 kernel_size: [1, 0]"), 1, IMAGE, SHOAL_ERR_MODEL, "kernel_w is 0"},
        {CONV("num_output: 4 kernel_size: [1, 2, 3]"), 1, IMAGE, SHOAL_ERR_MODEL, "3 values"},
        {CONV("num_output: 4 kernel_size: 3 kernel_h: 3 kernel_w: 3"), 1, IMAGE, SHOAL_ERR_MODEL,
         "kernel"},
        {CONV("num_output: 4 kernel_h: 3"), 1, IMAGE, SHOAL_ERR_MODEL, "kernel_w not"},
        {CONV("num_output: 4 kernel_size: 3 stride: 0"), 1, IMAGE, SHOAL_ERR_MODEL,
         "stride_h is 0"},
        {CONV("num_output: 4 kernel_size: 3 stride_h: 1 stride_w: 0"), 1, IMAGE, SHOAL_ERR_MODEL,
         "stride_w is 0"},
        {CONV("num_output: 4 kernel_size: 3 stride_h: 1"), 1, IMAGE, SHOAL_ERR_MODEL,
         "stride_w not"},
        {CONV("num_output: 4 kernel_size: 3 dilation: 0"), 1, IMAGE, SHOAL_ERR_MODEL,
         "dilation_h is 0"},
        {CONV("num_output: 4 kernel_size: 3 dilation: 2147483647"), 1, IMAGE, SHOAL_ERR_MODEL,
         "larger than the input's height 5"},
        {CONV("num_output: 4 kernel_size: 3 pad: 2147483647"), 1, IMAGE, SHOAL_ERR_MODEL,
         "height would be"},
        {CONV("num_output: 4 kernel_size: 3 pad: 4294967295"), 1, IMAGE, SHOAL_ERR_MODEL,
         "pad_h is 4294967295"},
        {CONV("num_output: 4 kernel_size: 3 pad: 1000000"), 1, IMAGE, SHOAL_ERR_MODEL, ""},
        {CONV("num_output: 4 kernel_size: 6"), 1, IMAGE, SHOAL_ERR_MODEL,
         "height 6 (6 when dilated by 1) is larger than the input's height 5"},
        {CONV("num_output: 4 kernel_size: [1, 4] dilation: [1, 3]"), 1, IMAGE, SHOAL_ERR_MODEL,
         "larger than the input's width 6"},
        {CONV("num_output: 4 kernel_size: 3 group: 0"), 1, IMAGE, SHOAL_ERR_MODEL, "group is 0"},
        {CONV("num_output: 4 kernel_size: 3 group: 3"), 1, IMAGE, SHOAL_ERR_MODEL, "group is 3"},
        {CONV("num_output: 6 kernel_size: 3 group: 3"), 1, IMAGE, SHOAL_ERR_MODEL,
         "both the 4 channels"},
        {CONV("num_output: 3 kernel_size: 3 group: 2"), 1, IMAGE, SHOAL_ERR_MODEL, "num_output 3"},
        {CONV("num_output: 4 kernel_size: 3 weight_filler { type: 'xavie' }"), 1, IMAGE,
         SHOAL_ERR_MODEL, "filler type 'xavie' is unknown"},
        {CONV("num_output: 4 kernel_size: 3 bias_filler { sparse: 3 }"), 1, IMAGE, SHOAL_ERR_MODEL,
         "filler 'constant' has sparse 3"},
        {CONV("num_output: 4 kernel_size: 3 axis: 4"), 1, IMAGE, SHOAL_ERR_MODEL,
         "axis 4 is out of range: bottom 'x' is 2x4x5x6 (240); expected -4 to 3"},
        {CONV("num_output: 4 kernel_size: 3 axis: 2"), 1, IMAGE, SHOAL_ERR_UNSUPPORTED, "2-D"},
        {CONV("num_output: 4 kernel_size: 3"),
         1,
         {SHAPE(2, 3, 4, 5, 6)},
         SHOAL_ERR_UNSUPPORTED,
         "2-D"},
        {CONV("num_output: 4 kernel_size: 3"), 1, {SHAPE(2, 3)}, SHOAL_ERR_UNSUPPORTED, "2-D"},
        {CONV("num_output: 4 kernel_size: 3"), 1, {SCALAR}, SHOAL_ERR_MODEL, "is a scalar"},
        {CONV("num_output: 4 kernel_size: 3"),
         1,
         {SHAPE(2, 0, 5, 5)},
         SHOAL_ERR_MODEL,
         "at least one channel"},
        {CONV("num_output: 4 kernel_size: 3"),
         2,
         {SHAPE(2, 1, 5, 5), SHAPE(2, 1, 5, 5)},
         SHOAL_ERR_MODEL,
         "2 bottoms and 1 tops"},
        {"name: 'c1' type: 'Convolution' bottom: 'x' bottom: 'z' top: 'y' top: 'w' "
         "convolution_param { num_output: 4 kernel_size: 3 }",
         2,
         {SHAPE(2, 1, 5, 5), SHAPE(2, 1, 5, 4)},
         SHOAL_ERR_MODEL,
         "of one shape"},
    };
#undef IMAGE
    CHECK_REFUSALS(cases);
}

static void test_convolution_values(void **state) {
    (void)state;
    const Shape bottoms[2] = {SHAPE(1, 1, 3, 3), SHAPE(1, 1, 3, 3)};
    Harness h;
    harness_open(&h,
                 "name: 'c1' type: 'Convolution' bottom: 'x' bottom: 'z' top: 'y' top: 'w' "
                 "convolution_param { num_output: 2 kernel_size: 2 }",
                 2, bottoms);
    harness_set(h.bottoms[0]->data, 9, (float[]){1, 2, 3, 4, 5, 6, 7, 8, 9});
    harness_set(h.bottoms[1]->data, 9, (float[]){0, 0, 0, 0, 1, 0, 0, 0, 0});
    harness_set(h.layer.params[0]->blob.data, 8, (float[]){1, 0, 0, 1, 1, 2, 3, 4});
    harness_set(h.layer.params[1]->blob.data, 2, (float[]){10, -1});
    harness_forward(&h);
    harness_assert_near(h.tops[0]->data, (float[]){16, 18, 22, 24, 36, 46, 66, 76}, 8, 1e-5);
    harness_assert_near(h.tops[1]->data, (float[]){11, 10, 10, 11, 3, 2, 1, 0}, 8, 1e-5);
    harness_close(&h);
}

/* ---- Pooling ---- */

static void test_pooling_shapes(void **state) {
    (void)state;
    static const ShapeCase cases[] = {
        {POOL("kernel_size: 2 stride: 2"), SHAPE(2, 3, 24, 24), SHAPE(2, 3, 12, 12)},
        {POOL("kernel_size: 2 stride: 2"), SHAPE(2, 3, 5, 6), SHAPE(2, 3, 3, 3)},
        {POOL("kernel_size: 2 stride: 2 round_mode: FLOOR"), SHAPE(2, 3, 5, 6), SHAPE(2, 3, 2, 3)},
        {POOL("kernel_size: 2 stride: 2 ceil_mode: false"), SHAPE(2, 3, 5, 6), SHAPE(2, 3, 2, 3)},
        {POOL("kernel_size: 2 stride: 2 ceil_mode: true"), SHAPE(2, 3, 5, 6), SHAPE(2, 3, 3, 3)},
        {POOL("kernel_size: 3 stride: 2"), SHAPE(1, 1, 55, 54), SHAPE(1, 1, 27, 27)},
        {POOL("kernel_size: 3 stride: 2 pad: 1"), SHAPE(1, 1, 112, 113), SHAPE(1, 1, 57, 57)},
        /* The window at 4 - 1 begins in the last column; one at 6 - 1 would be outside: dropped. */
        {POOL("kernel_size: 2 stride: 3 pad: 1"), SHAPE(1, 1, 4, 5), SHAPE(1, 1, 2, 2)},
        {POOL("kernel_size: 1 stride: 1"), SHAPE(1, 1, 4, 5), SHAPE(1, 1, 4, 5)},
        /* A pad on one axis only: the other one is clipped too. */
        {POOL("kernel_h: 1 kernel_w: 3 stride_h: 2 stride_w: 2 pad_h: 0 pad_w: 1"),
         SHAPE(1, 1, 4, 4), SHAPE(1, 1, 2, 3)},
        {POOL("global_pooling: true pool: AVE"), SHAPE(2, 5, 7, 3), SHAPE(2, 5, 1, 1)},
        /* Caffe rounds up below 0 too: one window, as long as it sticks out by less than a stride.
         */
        {POOL("kernel_size: 3 stride: 2"), SHAPE(1, 1, 2, 3), SHAPE(1, 1, 1, 1)},
        {POOL("kernel_size: 2"), SHAPE(0, 3, 4, 4), SHAPE(0, 3, 3, 3)},
        /* What real Caffe gives for odd sizes (reference data 06-pooling). */
        {POOL("kernel_size: 2 stride: 2 pad: 1"), SHAPE(8, 6, 31, 31), SHAPE(8, 6, 16, 16)},
        {POOL("kernel_size: 3 stride: 3 pad: 2"), SHAPE(8, 6, 31, 31), SHAPE(8, 6, 11, 11)},
        {POOL("kernel_size: 4 stride: 3 pad: 1"), SHAPE(8, 6, 30, 29), SHAPE(8, 6, 11, 10)},
        {POOL("kernel_h: 3 kernel_w: 2 stride_h: 3 stride_w: 2 pad_h: 1 pad_w: 0"),
         SHAPE(8, 6, 30, 29), SHAPE(8, 6, 11, 15)},
        {POOL("kernel_h: 2 kernel_w: 5 stride_h: 1 stride_w: 4 pad_h: 0 pad_w: 2"),
         SHAPE(8, 6, 30, 29), SHAPE(8, 6, 29, 8)},
        {POOL("kernel_size: 2 stride: 4"), SHAPE(8, 6, 30, 29), SHAPE(8, 6, 8, 8)},
        {POOL("kernel_size: 3 stride: 4 pad: 1 round_mode: FLOOR"), SHAPE(8, 6, 30, 29),
         SHAPE(8, 6, 8, 8)},
    };
    CHECK_SHAPES(cases);
}

static void test_pooling_refusals(void **state) {
    (void)state;
#define IMAGE                                                                                      \
    { SHAPE(2, 3, 4, 6) }
    static const Refusal cases[] = {
        {"name: 'p1' type: 'Pooling' top: 'y'", 1, IMAGE, SHOAL_ERR_MODEL, "pooling_param"},
        {POOL(""), 1, IMAGE, SHOAL_ERR_MODEL, "kernel_size"},
        {POOL("kernel_size: 0"), 1, IMAGE, SHOAL_ERR_MODEL, "kernel_h is 0"},
        {POOL("kernel_h: 2"), 1, IMAGE, SHOAL_ERR_MODEL, "kernel_h and kernel_w"},
        {POOL("kernel_size: 2 kernel_h: 2 kernel_w: 2"), 1, IMAGE, SHOAL_ERR_MODEL, "not both"},
        {POOL("kernel_size: 2 stride: 0"), 1, IMAGE, SHOAL_ERR_MODEL, "stride_h is 0"},
        {POOL("kernel_size: 2 stride_h: 1 stride_w: 0"), 1, IMAGE, SHOAL_ERR_MODEL,
         "stride_w is 0"},
        {POOL("kernel_size: 2 stride_h: 1"), 1, IMAGE, SHOAL_ERR_MODEL, "stride_h and stride_w"},
        {POOL("kernel_size: 2 stride: 1 stride_h: 1 stride_w: 1"), 1, IMAGE, SHOAL_ERR_MODEL,
         "not both"},
        {POOL("kernel_size: 3 pad_w: 1"), 1, IMAGE, SHOAL_ERR_MODEL, "pad_h and pad_w"},
        {POOL("kernel_size: 3 pad: 1 pad_h: 1 pad_w: 1"), 1, IMAGE, SHOAL_ERR_MODEL, "not both"},
        {POOL("kernel_size: 2 pad: 2"), 1, IMAGE, SHOAL_ERR_MODEL, "less than the kernel 2x2"},
        {POOL("kernel_size: 4294967295"), 1, IMAGE, SHOAL_ERR_MODEL, "4294967295"},
        {POOL("kernel_size: 2147483647 pad: 2147483646"), 1, IMAGE, SHOAL_ERR_MODEL, ""},
        {POOL("kernel_size: 7 round_mode: FLOOR"), 1, IMAGE, SHOAL_ERR_MODEL, "does not fit"},
        {POOL("kernel_size: 5 stride: 2 round_mode: FLOOR"), 1, IMAGE, SHOAL_ERR_MODEL,
         "height 5 does not fit"},
        {POOL("kernel_size: 6"), 1, IMAGE, SHOAL_ERR_MODEL, "height 6 does not fit"},
        {POOL("kernel_size: 2 stride: 3 pad: 0 global_pooling: true"), 1, IMAGE, SHOAL_ERR_MODEL,
         "global_pooling"},
        {POOL("stride: 3 global_pooling: true"), 1, IMAGE, SHOAL_ERR_MODEL, "global_pooling"},
        {POOL("pad: 1 global_pooling: true"), 1, IMAGE, SHOAL_ERR_MODEL, "global_pooling"},
        {POOL("kernel_size: 1 stride: 2"), 1, IMAGE, SHOAL_ERR_MODEL, "nothing to pool"},
        {"name: 'p1' type: 'Pooling' top: 'y' top: 'z' pooling_param { pool: AVE kernel_size: 2 }",
         1, IMAGE, SHOAL_ERR_MODEL, "2 tops"},
        {POOL("kernel_size: 2"), 1, {SHAPE(2, 3, 4)}, SHOAL_ERR_MODEL, "4 axes"},
        {POOL("kernel_size: 2"), 1, {SCALAR}, SHOAL_ERR_MODEL, "4 axes"},
        {POOL("global_pooling: true"), 1, {SHAPE(2, 3, 0, 4)}, SHOAL_ERR_MODEL, "does not fit"},
    };
#undef IMAGE
    CHECK_REFUSALS(cases);
}

static void test_pooling_max_values(void **state) {
    (void)state;
    const Shape bottom = SHAPE(1, 1, 3, 3);
    Harness h;
    harness_open(&h,
                 "name: 'p1' type: 'Pooling' bottom: 'x' top: 'y' top: 'mask' "
                 "pooling_param { kernel_size: 2 stride: 2 }",
                 1, &bottom);
    /* Ties: the first one, row by row. A window of NaN only: -FLT_MAX, and a gradient for nobody.
     */
    harness_set(h.bottoms[0]->data, 9, (float[]){5, 5, -2, 5, 1, -1, 3, 4, NAN});
    harness_forward(&h);
    harness_assert_near(h.tops[0]->data, (float[]){5, -1, 4, -FLT_MAX}, 4, 0);
    harness_assert_near(h.tops[1]->data, (float[]){0, 5, 7, -1}, 4, 0);
    harness_set(h.tops[0]->diff, 4, (float[]){1, 2, 3, 4});
    harness_backward(&h);
    harness_assert_near(h.bottoms[0]->diff, (float[]){1, 0, 0, 0, 0, 2, 0, 3, 0}, 9, 0);
    harness_close(&h);
}

static void test_pooling_average_values(void **state) {
    (void)state;
    const Shape bottom = SHAPE(1, 1, 2, 2);
    Harness h;
    harness_open(&h, POOL("pool: AVE kernel_size: 3 stride: 2 pad: 1"), 1, &bottom);
    harness_set(h.bottoms[0]->data, 4, (float[]){1, 2, 3, 4});
    harness_forward(&h);
    /* Divided by the window clipped to size + pad: 9, 6, 6, 4 values. */
    harness_assert_near(h.tops[0]->data, (float[]){10 / 9.0f, 1, 7 / 6.0f, 1}, 4, 1e-6);
    harness_close(&h);
}

/* ---- InnerProduct, ReLU, Softmax, Split ---- */

static void test_inner_product_shapes(void **state) {
    (void)state;
    static const ShapeCase cases[] = {
        {IP("num_output: 500"), SHAPE(64, 50, 4, 4), SHAPE(64, 500)},
        {IP("num_output: 7 axis: 2"), SHAPE(2, 3, 4, 5), SHAPE(2, 3, 7)},
        {IP("num_output: 7 axis: -1"), SHAPE(2, 3, 4, 5), SHAPE(2, 3, 4, 7)},
        {IP("num_output: 7 axis: 0"), SHAPE(2, 3), SHAPE(7)},
    };
    CHECK_SHAPES(cases);
}

static void test_inner_product_refusals(void **state) {
    (void)state;
    static const Refusal cases[] = {
        {"name: 'ip' type: 'InnerProduct' top: 'y'",
         1,
         {SHAPE(2, 3)},
         SHOAL_ERR_MODEL,
         "inner_product_param"},
        {IP(""), 1, {SHAPE(2, 3)}, SHOAL_ERR_MODEL, "num_output is 0"},
        {IP("num_output: 3000000000"), 1, {SHAPE(2, 3)}, SHOAL_ERR_MODEL, "3000000000"},
        {IP("num_output: 1000000000"), 1, {SHAPE(2, 3)}, SHOAL_ERR_MODEL, ""},
        {IP("num_output: 3 axis: 2"), 1, {SHAPE(2, 3)}, SHOAL_ERR_MODEL, "axis 2 is out of range"},
        {IP("num_output: 3 axis: -3"), 1, {SHAPE(2, 3)}, SHOAL_ERR_MODEL, "axis -3"},
        {IP("num_output: 3"), 1, {SCALAR}, SHOAL_ERR_MODEL, "scalar"},
        {IP("num_output: 3"), 1, {SHAPE(2, 0, 3)}, SHOAL_ERR_MODEL, "0 values from axis 1"},
    };
    CHECK_REFUSALS(cases);
}

static void test_inner_product_values(void **state) {
    (void)state;
    const Shape bottom = SHAPE(2, 3), plain = SHAPE(2, 3), transposed = SHAPE(3, 2);
    Harness h;
    const float x[] = {1, 2, 3, -1, 0, 4}, y[] = {14 + 1, 4 - 1, 11 + 1, 3 - 1};
    harness_open(&h, IP("num_output: 2"), 1, &bottom);
    assert_shape(&h.layer.params[0]->blob, &plain, "weights");
    harness_set(h.bottoms[0]->data, 6, x);
    harness_set(h.layer.params[0]->blob.data, 6, (float[]){1, 2, 3, 1, 0, 1});
    harness_set(h.layer.params[1]->blob.data, 2, (float[]){1, -1});
    harness_forward(&h);
    harness_assert_near(h.tops[0]->data, y, 4, 1e-6);
    harness_close(&h);

    harness_open(&h, IP("num_output: 2 transpose: true"), 1, &bottom);
    assert_shape(&h.layer.params[0]->blob, &transposed, "weights");
    harness_set(h.bottoms[0]->data, 6, x);
    harness_set(h.layer.params[0]->blob.data, 6, (float[]){1, 1, 2, 0, 3, 1});
    harness_set(h.layer.params[1]->blob.data, 2, (float[]){1, -1});
    harness_forward(&h);
    harness_assert_near(h.tops[0]->data, y, 4, 1e-6);
    harness_close(&h);
}

static void test_inner_product_keeps_its_inputs(void **state) {
    (void)state;
    const Shape bottom = SHAPE(2, 3);
    Harness h;
    harness_open(&h, IP("num_output: 2"), 1, &bottom);
    assert_int_equal(shoal_blob_reshape(h.bottoms[0], 2, (int[]){1, 3}, &h.err), SHOAL_OK);
    assert_int_equal(h.layer.class->reshape(&h.layer, &h.err), SHOAL_OK);
    assert_int_equal(shoal_blob_reshape(h.bottoms[0], 2, (int[]){1, 2}, &h.err), SHOAL_OK);
    assert_int_equal(h.layer.class->reshape(&h.layer, &h.err), SHOAL_ERR_MODEL);
    harness_close(&h);
}

static void test_relu(void **state) {
    (void)state;
    const Shape bottom = SHAPE(5);
    const float x[] = {-2, -0.0f, 0, 3, -FLT_MAX};
    Harness h;
    harness_open(&h, "name: 'r' type: 'ReLU' bottom: 'x' top: 'x'", 1, &bottom);
    harness_set(h.bottoms[0]->data, 5, x);
    harness_forward(&h);
    harness_assert_near(h.bottoms[0]->data, (float[]){0, 0, 0, 3, 0}, 5, 0);
    harness_set(h.bottoms[0]->diff, 5, (float[]){1, 2, 3, 4, 5});
    harness_backward(&h);
    harness_assert_near(h.bottoms[0]->diff, (float[]){0, 0, 0, 4, 0}, 5, 0);
    harness_close(&h);

    harness_open(&h,
                 "name: 'r' type: 'ReLU' bottom: 'x' top: 'y' relu_param { negative_slope: 0.5 }",
                 1, &bottom);
    harness_set(h.bottoms[0]->data, 4, x);
    harness_forward(&h);
    harness_assert_near(h.tops[0]->data, (float[]){-1, 0, 0, 3}, 4, 0);
    harness_close(&h);

    static const Refusal cases[] = {
        {"name: 'r' type: 'ReLU' top: 'y' relu_param { negative_slope: nan }",
         1,
         {SHAPE(2)},
         SHOAL_ERR_MODEL,
         "negative_slope"},
    };
    CHECK_REFUSALS(cases);
}

static void test_softmax(void **state) {
    (void)state;
    const Shape bottom = SHAPE(1, 2, 2);
    Harness h;
    harness_open(&h, "name: 's' type: 'Softmax' bottom: 'x' top: 'y'", 1, &bottom);
    /* Classes lie 2 apart: {0, log 3} and {1000, 1000}. */
    harness_set(h.bottoms[0]->data, 4, (float[]){0, 1000, logf(3), 1000});
    harness_forward(&h);
    harness_assert_near(h.tops[0]->data, (float[]){0.25f, 0.5f, 0.75f, 0.5f}, 4, 1e-6);
    harness_close(&h);

    static const Refusal cases[] = {
        {"name: 's' type: 'Softmax' bottom: 'x' top: 'y'",
         1,
         {SHAPE(2)},
         SHOAL_ERR_MODEL,
         "axis 1"},
        {"name: 's' type: 'Softmax' top: 'y' softmax_param { axis: -2147483648 }",
         1,
         {SHAPE(2)},
         SHOAL_ERR_MODEL,
         "axis -2147483648"},
    };
    CHECK_REFUSALS(cases);
}

static void test_split_skips_tops_without_gradient(void **state) {
    (void)state;
    const Shape bottom = SHAPE(2);
    Harness h;
    harness_open(&h, "name: 's' type: 'Split' bottom: 'x' top: 'a' top: 'b' top: 'c'", 1, &bottom);
    for (int i = 0; i < 3; i++) {
        assert_ptr_equal(h.tops[i]->data, h.bottoms[0]->data);
        harness_set(h.tops[i]->diff, 2, (float[]){(float)i + 1, 10});
    }
    harness_backward(&h);
    harness_assert_near(h.bottoms[0]->diff, (float[]){6, 30}, 2, 0);
    float *diffs[3] = {h.tops[0]->diff, h.tops[1]->diff, h.tops[2]->diff};
    h.tops[0]->diff = NULL;
    harness_backward(&h);
    harness_assert_near(h.bottoms[0]->diff, (float[]){5, 20}, 2, 0);
    h.tops[2]->diff = NULL;
    harness_backward(&h);
    harness_assert_near(h.bottoms[0]->diff, (float[]){2, 10}, 2, 0);
    h.tops[1]->diff = NULL;
    harness_backward(&h);
    harness_assert_near(h.bottoms[0]->diff, (float[]){0, 0}, 2, 0);
    for (int i = 0; i < 3; i++)
        h.tops[i]->diff = diffs[i];
    harness_close(&h);
}

/* ---- SoftmaxWithLoss and Accuracy ---- */

/* Two samples with probabilities {1/4, 3/4}, labels as given: the loss. */
static float small_loss(const char *text, float label0, float label1, float *diff) {
    const Shape bottoms[2] = {SHAPE(2, 2), SHAPE(2)};
    Harness h;
    harness_open(&h, text, 2, bottoms);
    h.context.batch_full = 6;
    harness_set(h.bottoms[0]->data, 4, (float[]){0, logf(3), 0, logf(3)});
    harness_set(h.bottoms[1]->data, 2, (float[]){label0, label1});
    harness_forward(&h);
    h.tops[0]->diff[0] = 2;
    harness_backward(&h);
    float loss = h.tops[0]->data[0];
    if (diff)
        harness_set(diff, 4, h.bottoms[0]->diff);
    if (h.layer.n_tops > 1)
        harness_assert_near(h.tops[1]->data, (float[]){0.25f, 0.75f, 0.25f, 0.75f}, 4, 1e-6);
    harness_close(&h);
    return loss;
}

static void test_loss_normalization(void **state) {
    (void)state;
    const double wrong = log(4), right = log(4.0 / 3);
#define IGNORE(mode) LOSS("loss_param { ignore_label: 1 " mode " }")
    const struct {
        const char *text;
        float label0, label1;
        double loss;
    } cases[] = {
        {LOSS(""), 0, 1, (wrong + right) / 2},
        {LOSS("top: 'probabilities'"), 0, 1, (wrong + right) / 2},
        {IGNORE(""), 0, 1, wrong},
        {IGNORE("normalization: VALID"), 0, 1, wrong},
        {IGNORE("normalization: FULL"), 0, 1, wrong / 2},
        {IGNORE("normalization: BATCH_SIZE"), 0, 1, wrong / 2},
        {IGNORE("normalize: false"), 0, 1, wrong / 2},
        {IGNORE("normalize: true"), 0, 1, wrong},
        {IGNORE("normalize: false normalization: VALID"), 0, 1, wrong},
        /* A sum over 2 of 6 samples stands for three times as much. */
        {LOSS("loss_param { normalization: NONE }"), 0, 1, 3 * (wrong + right)},
        /* Never divided by less than 1. */
        {IGNORE(""), 1, 1, 0},
        /* Labels are cut to integers, as in Caffe. */
        {LOSS(""), 0.9f, 1.9f, (wrong + right) / 2},
        {LOSS(""), -0.9f, 1, (wrong + right) / 2},
    };
#undef IGNORE
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        float loss = small_loss(cases[i].text, cases[i].label0, cases[i].label1, NULL);
        if (!(fabs((double)loss - cases[i].loss) <= 1e-5))
            fail_msg("%s, labels %g %g: loss %g; expected %g", cases[i].text,
                     (double)cases[i].label0, (double)cases[i].label1, (double)loss, cases[i].loss);
    }
    float diff[4];
    small_loss(LOSS("loss_param { ignore_label: 1 }"), 0, 1, diff);
    harness_assert_near(diff, (float[]){-1.5f, 1.5f, 0, 0}, 4, 1e-5);
}

static void test_loss_floor(void **state) {
    (void)state;
    const Shape bottoms[2] = {SHAPE(1, 2), SHAPE(1)};
    Harness h;
    harness_open(&h, LOSS(""), 2, bottoms);
    harness_set(h.bottoms[0]->data, 2, (float[]){1000, 0});
    h.bottoms[1]->data[0] = 1;
    harness_forward(&h);
    float floor = (float)-log((double)FLT_MIN);
    harness_assert_near(h.tops[0]->data, &floor, 1, 1e-4);
    /* A diverged net shows. */
    h.bottoms[0]->data[0] = NAN;
    harness_forward(&h);
    assert_true(isnan(h.tops[0]->data[0]));
    harness_close(&h);
}

static void test_label_refusals(void **state) {
    (void)state;
    static const float labels[] = {10, -1, 1e30f, -1e30f, 2147483648.0f, INFINITY, NAN};
    static const char *const texts[] = {LOSS(""), ACCURACY(""),
                                        LOSS("loss_param { ignore_label: 255 }")};
    const Shape bottoms[2] = {SHAPE(3, 10), SHAPE(3)};
    for (size_t i = 0; i < sizeof labels / sizeof labels[0]; i++)
        for (size_t j = 0; j < sizeof texts / sizeof texts[0]; j++) {
            Harness h;
            harness_open(&h, texts[j], 2, bottoms);
            h.bottoms[1]->data[2] = labels[i];
            ShoalStatus status = h.layer.class->forward(&h.layer, &h.compute, &h.err);
            char found[64];
            snprintf(found, sizeof found, "label %g (number 2 of blob 'label')", (double)labels[i]);
            assert_int_equal(status, SHOAL_ERR_DATA);
            if (!strstr(h.err.text, found) || !strstr(h.err.text, "10 classes; expected 0 to 9") ||
                strncmp(h.err.text, "layer '", 7))
                fail_msg("message \"%s\"; expected \"...%s...\"", h.err.text, found);
            harness_close(&h);
        }
}

static void test_loss_and_accuracy_refusals(void **state) {
    (void)state;
    static const Refusal cases[] = {
        {LOSS(""), 2, {SHAPE(3, 10), SHAPE(4)}, SHOAL_ERR_MODEL, "expected 3 labels"},
        {LOSS(""), 2, {SHAPE(3, 10, 2, 2), SHAPE(3)}, SHOAL_ERR_MODEL, "expected 12 labels"},
        {LOSS(""), 2, {SHAPE(3, 10), SHAPE(1, 3)}, SHOAL_ERR_MODEL, "same first axis"},
        {LOSS("softmax_param { axis: 0 }"),
         2,
         {SHAPE(10), SCALAR},
         SHOAL_ERR_MODEL,
         "same first axis"},
        {LOSS(""), 2, {SHAPE(3), SHAPE(3)}, SHOAL_ERR_MODEL, "axis 1 is out of range"},
        {LOSS("softmax_param { axis: 2 }"), 2, {SHAPE(3, 4), SHAPE(3)}, SHOAL_ERR_MODEL, "axis 2"},
        {LOSS(""), 2, {SCALAR, SCALAR}, SHOAL_ERR_MODEL, "scalar"},
        {ACCURACY(""), 2, {SHAPE(3, 10), SHAPE(4)}, SHOAL_ERR_MODEL, "expected 3 labels"},
        {ACCURACY("accuracy_param { axis: 5 }"),
         2,
         {SHAPE(3, 10), SHAPE(3)},
         SHOAL_ERR_MODEL,
         "axis 5"},
        {ACCURACY("accuracy_param { top_k: 11 }"),
         2,
         {SHAPE(3, 10), SHAPE(3)},
         SHOAL_ERR_MODEL,
         "top_k is 11"},
        {ACCURACY("accuracy_param { top_k: 4294967295 }"),
         2,
         {SHAPE(3, 10), SHAPE(3)},
         SHOAL_ERR_MODEL,
         "top_k is 4294967295"},
        {ACCURACY("accuracy_param { top_k: 0 }"),
         2,
         {SHAPE(3, 10), SHAPE(3)},
         SHOAL_ERR_MODEL,
         "top_k is 0"},
    };
    CHECK_REFUSALS(cases);
}

static void test_accuracy_values(void **state) {
    (void)state;
    const Shape bottoms[2] = {SHAPE(5, 3), SHAPE(5)};
    /* right; wrong; a tie of two; all tied; NaN in the true class. */
    const float scores[] = {3, 1, 2, 3, 1, 2, 5, 5, 1, 0, 0, 0, NAN, 1, 2};
    const float labels[] = {0, 1, 0, 2, 0};
    const struct {
        const char *text;
        float accuracy;
    } cases[] = {
        {ACCURACY(""), 0.2f},
        {ACCURACY("accuracy_param { top_k: 2 }"), 0.4f},
        {ACCURACY("accuracy_param { top_k: 3 }"), 0.8f},
        {ACCURACY("accuracy_param { ignore_label: 0 }"), 0},
        {ACCURACY("accuracy_param { ignore_label: 1 }"), 0.25f},
        {ACCURACY("top: 'classes' accuracy_param { top_k: 2 }"), 0.4f},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        Harness h;
        harness_open(&h, cases[i].text, 2, bottoms);
        harness_set(h.bottoms[0]->data, 15, scores);
        harness_set(h.bottoms[1]->data, 5, labels);
        harness_forward(&h);
        harness_assert_near(h.tops[0]->data, &cases[i].accuracy, 1, 1e-6);
        if (h.layer.n_tops > 1)
            harness_assert_near(h.tops[1]->data, (float[]){2 / 3.0f, 0, 0}, 3, 1e-6);
        harness_close(&h);
    }
}

static void test_accuracy_of_maps(void **state) {
    (void)state;
    const Shape bottoms[2] = {SHAPE(1, 2, 3), SHAPE(1, 3)};
    Harness h;
    harness_open(&h, ACCURACY(""), 2, bottoms);
    harness_set(h.bottoms[0]->data, 6, (float[]){1, 2, 3, 3, 1, 1});
    harness_set(h.bottoms[1]->data, 3, (float[]){1, 0, 1});
    harness_forward(&h);
    harness_assert_near(h.tops[0]->data, (float[]){2 / 3.0f}, 1, 1e-6);
    /* Nothing counts: 0, no division. */
    harness_close(&h);
    harness_open(&h, ACCURACY("accuracy_param { ignore_label: 0 }"), 2, bottoms);
    harness_forward(&h);
    harness_assert_near(h.tops[0]->data, (float[]){0}, 1, 0);
    harness_close(&h);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_table),
        cmocka_unit_test(test_convolution_shapes),
        cmocka_unit_test(test_convolution_weights),
        cmocka_unit_test(test_convolution_refusals),
        cmocka_unit_test(test_convolution_values),
        cmocka_unit_test(test_pooling_shapes),
        cmocka_unit_test(test_pooling_refusals),
        cmocka_unit_test(test_pooling_max_values),
        cmocka_unit_test(test_pooling_average_values),
        cmocka_unit_test(test_inner_product_shapes),
        cmocka_unit_test(test_inner_product_refusals),
        cmocka_unit_test(test_inner_product_values),
        cmocka_unit_test(test_inner_product_keeps_its_inputs),
        cmocka_unit_test(test_relu),
        cmocka_unit_test(test_softmax),
        cmocka_unit_test(test_split_skips_tops_without_gradient),
        cmocka_unit_test(test_loss_normalization),
        cmocka_unit_test(test_loss_floor),
        cmocka_unit_test(test_label_refusals),
        cmocka_unit_test(test_loss_and_accuracy_refusals),
        cmocka_unit_test(test_accuracy_values),
        cmocka_unit_test(test_accuracy_of_maps),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
