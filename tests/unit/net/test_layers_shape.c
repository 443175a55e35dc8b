/* SPDX-License-Identifier: Apache-2.0 */
/* Layers that move values about, cut and join them: shapes, refusals, values worked out by hand or
 * by plain loops, and which of them need a batch whole. Gradients are in tests/grad/. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdlib.h>

#include "built_net.h"
#include "layer_checks.h"

#define ONE(type, settings) "name: 'l' type: '" type "' bottom: 'x' top: 'y' " settings
#define TWO(type, settings) "name: 'l' type: '" type "' bottom: 'x' bottom: 'z' top: 'y' " settings
#define ARG_MAX(settings) ONE("ArgMax", "argmax_param { " settings " }")
#define RESHAPE(settings) ONE("Reshape", "reshape_param { " settings " }")
#define FLATTEN(settings) ONE("Flatten", "flatten_param { " settings " }")
#define REDUCE(settings) ONE("Reduction", "reduction_param { " settings " }")
#define CROP(settings) TWO("Crop", "crop_param { " settings " }")
#define CONCAT(settings) TWO("Concat", "concat_param { " settings " }")
#define SPP(settings) ONE("SPP", "spp_param { " settings " }")
#define IM2COL(settings) ONE("Im2col", "convolution_param { " settings " }")
#define DECONV(settings) ONE("Deconvolution", "convolution_param { " settings " }")
#define EMBED(settings) ONE("Embed", "embed_param { " settings " }")
#define INNER(settings) ONE("InnerProduct", "inner_product_param { num_output: 2 " settings " }")
#define SLICE(tops, settings)                                                                      \
    "name: 'l' type: 'Slice' bottom: 'x' " tops " slice_param { " settings " }"
#define STOCHASTIC(settings)                                                                       \
    ONE("Pooling", "pooling_param { pool: STOCHASTIC kernel_size: 2 stride: 2 " settings " }")

/* ---- shapes ---- */

static void test_shapes(void **state) {
    (void)state;
    static const ShapeCase cases[] = {
        {ARG_MAX(""), SHAPE(4, 5, 2), SHAPE(4, 1, 1)},
        {ARG_MAX("top_k: 3 out_max_val: true"), SHAPE(4, 5), SHAPE(4, 2, 3)},
        {ARG_MAX("top_k: 2"), SHAPE(4, 5, 2, 3, 2), SHAPE(4, 1, 2, 1, 1)},
        {ARG_MAX("top_k: 2 axis: -2 out_max_val: true"), SHAPE(4, 5, 2), SHAPE(4, 2, 2)},
        {RESHAPE("shape { dim: 0 dim: -1 }"), SHAPE(2, 3, 4), SHAPE(2, 12)},
        {RESHAPE("shape { dim: 0 dim: 0 dim: 2 dim: 2 }"), SHAPE(2, 3, 4), SHAPE(2, 3, 2, 2)},
        {RESHAPE("shape { }"), SHAPE(1, 1), SCALAR},
        {RESHAPE("shape { dim: 1 }"), SCALAR, SHAPE(1)},
        {RESHAPE("shape { dim: 2 dim: -1 } axis: 1 num_axes: 1"), SHAPE(2, 6, 5),
         SHAPE(2, 2, 3, 5)},
        {RESHAPE("shape { dim: 1 } axis: -1"), SHAPE(2, 3), SHAPE(2, 3, 1)},
        {RESHAPE("shape { dim: 1 } axis: 1 num_axes: 0"), SHAPE(2, 3), SHAPE(2, 1, 3)},
        {RESHAPE("shape { dim: [0, 2, -1] }"), SHAPE(0, 3, 4), SHAPE(0, 2, 6)},
        {RESHAPE("shape { dim: 12 dim: 2 }"), SHAPE(2, 3, 4), SHAPE(12, 2)},
        {FLATTEN(""), SHAPE(2, 3, 4), SHAPE(2, 12)},
        {FLATTEN("axis: 0"), SHAPE(2, 3, 4), SHAPE(24)},
        {FLATTEN("axis: -3 end_axis: -2"), SHAPE(2, 3, 4), SHAPE(6, 4)},
        {FLATTEN("axis: 1 end_axis: 1"), SHAPE(2, 3, 4), SHAPE(2, 3, 4)},
        {REDUCE(""), SHAPE(2, 3), SCALAR},
        {REDUCE("axis: -1"), SHAPE(2, 3, 4), SHAPE(2, 3)},
        {SPP("pyramid_height: 1"), SHAPE(2, 3, 5, 4), SHAPE(2, 3, 1, 1)},
        {SPP("pyramid_height: 3"), SHAPE(2, 3, 8, 9), SHAPE(2, 63)},
        {SPP("pyramid_height: 2 pool: AVE"), SHAPE(0, 3, 8, 9), SHAPE(0, 15)},
        {IM2COL("kernel_size: 3 stride: 2 pad: 1"), SHAPE(2, 3, 5, 6), SHAPE(2, 27, 3, 3)},
        {IM2COL("kernel_size: [1, 2] dilation: 2"), SHAPE(2, 3, 5, 6), SHAPE(2, 6, 5, 4)},
        {DECONV("num_output: 4 kernel_size: 4 stride: 2 pad: 1"), SHAPE(2, 3, 5, 6),
         SHAPE(2, 4, 10, 12)},
        {DECONV("num_output: 4 kernel_h: 2 kernel_w: 3 dilation: 2"), SHAPE(2, 3, 5, 6),
         SHAPE(2, 4, 7, 10)},
        {EMBED("num_output: 3 input_dim: 9"), SHAPE(2, 5), SHAPE(2, 5, 3)},
        {EMBED("num_output: 3 input_dim: 9"), SCALAR, SHAPE(3)},
        {INNER("axis: 0"), SHAPE(3, 4), SHAPE(2)},
        {INNER("axis: -1 transpose: true"), SHAPE(3, 4, 5), SHAPE(3, 4, 2)},
        {ONE("Concat", ""), SHAPE(3, 4), SHAPE(3, 4)},
        {STOCHASTIC(""), SHAPE(2, 3, 5, 4), SHAPE(2, 3, 3, 2)},
        {ONE("Pooling", "pooling_param { pool: STOCHASTIC global_pooling: true }"),
         SHAPE(2, 3, 5, 4), SHAPE(2, 3, 1, 1)},
    };
    CHECK_SHAPES(cases);
}

static void assert_weights(const char *text, const Shape *bottom, const Shape *weights,
                           const Shape *bias) {
    Harness h;
    harness_open(&h, text, 1, bottom);
    assert_int_equal(h.layer.n_params, bias ? 2 : 1);
    assert_shape(&h.layer.params[0]->blob, weights, text);
    if (bias)
        assert_shape(&h.layer.params[1]->blob, bias, text);
    harness_close(&h);
}

static void test_weights(void **state) {
    (void)state;
    const Shape image = SHAPE(2, 6, 3, 3), words = SHAPE(4, 2), rows = SHAPE(4, 5);
    const Shape deconv = SHAPE(6, 2, 3, 2), embed = SHAPE(9, 3), inner = SHAPE(5, 2);
    const Shape four = SHAPE(4), three = SHAPE(3);
    assert_weights(DECONV("num_output: 4 group: 2 kernel_h: 3 kernel_w: 2"), &image, &deconv,
                   &four);
    assert_weights(DECONV("num_output: 4 group: 2 kernel_h: 3 kernel_w: 2 bias_term: false"),
                   &image, &deconv, NULL);
    assert_weights(EMBED("num_output: 3 input_dim: 9"), &words, &embed, &three);
    assert_weights(EMBED("num_output: 3 input_dim: 9 bias_term: false"), &words, &embed, NULL);
    assert_weights(INNER("transpose: true bias_term: false"), &rows, &inner, NULL);
}

/* ---- refusals ---- */

static void test_refusals(void **state) {
    (void)state;
    static const Refusal cases[] = {
        {ARG_MAX("top_k: 0"), 1, {SHAPE(2, 3)}, SHOAL_ERR_MODEL, "top_k is 0"},
        {ARG_MAX("top_k: 4"), 1, {SHAPE(2, 3)}, SHOAL_ERR_MODEL, "top_k is 4; expected 1 to"},
        {ARG_MAX("top_k: 3 axis: 0"), 1, {SHAPE(2, 3)}, SHOAL_ERR_MODEL, "values, 2"},
        {ARG_MAX("axis: 2"), 1, {SHAPE(2, 3)}, SHOAL_ERR_MODEL, "axis 2 is out of range"},
        {ARG_MAX(""), 1, {SCALAR}, SHOAL_ERR_MODEL, "is a scalar"},
        {TWO("BatchReindex", ""), 2, {SHAPE(2, 3), SHAPE(2, 1)}, SHOAL_ERR_MODEL, "'z' 2"},
        {TWO("BatchReindex", ""), 2, {SCALAR, SHAPE(2)}, SHOAL_ERR_MODEL, "'x' has 0 axes"},
        {CONCAT("axis: 1 concat_dim: 1"), 2, {SHAPE(2, 3), SHAPE(2, 3)}, SHOAL_ERR_MODEL, "one of"},
        {CONCAT("axis: 2"), 2, {SHAPE(2, 3), SHAPE(2, 3)}, SHOAL_ERR_MODEL, "axis 2"},
        {CONCAT("concat_dim: 4294967295"), 2, {SHAPE(2, 3), SHAPE(2, 3)}, SHOAL_ERR_MODEL, "dim"},
        {CONCAT(""), 2, {SHAPE(2, 3), SHAPE(3, 3)}, SHOAL_ERR_MODEL, "differ on axis 1 only"},
        {CONCAT(""), 2, {SHAPE(2, 3), SHAPE(2, 3, 1)}, SHOAL_ERR_MODEL, "2x3x1"},
        {CONCAT(""), 2, {SHAPE(2, 3), SHAPE(2)}, SHOAL_ERR_MODEL, "'z' is 2 (2)"},
        {CROP("axis: 4"), 2, {SHAPE(1, 1, 4, 4), SHAPE(1, 1, 2, 2)}, SHOAL_ERR_MODEL, "axis 4"},
        {CROP("offset: [1, 1, 1]"),
         2,
         {SHAPE(1, 1, 4, 4), SHAPE(1, 1, 2, 2)},
         SHOAL_ERR_MODEL,
         "3 offsets for 2 axes"},
        {CROP("offset: [1, 3]"),
         2,
         {SHAPE(1, 1, 4, 4), SHAPE(1, 1, 2, 2)},
         SHOAL_ERR_MODEL,
         "cannot be cut"},
        {CROP("offset: 4294967295"),
         2,
         {SHAPE(1, 1, 4, 4), SHAPE(1, 1, 2, 2)},
         SHOAL_ERR_MODEL,
         "offset is 4294967295"},
        {CROP(""), 2, {SHAPE(1, 1, 4, 4), SHAPE(1, 1, 2)}, SHOAL_ERR_MODEL, "1x1x2"},
        {CROP(""), 2, {SHAPE(1, 1, 4, 4), SHAPE(1, 1, 5, 4)}, SHOAL_ERR_MODEL, "1x1x5x4"},
        {TWO("Filter", "top: 'w'"), 2, {SHAPE(2, 3), SHAPE(2)}, SHOAL_ERR_MODEL, "2 tops"},
        {TWO("Filter", ""), 2, {SHAPE(2, 3), SHAPE(2, 2)}, SHOAL_ERR_MODEL, "selector 'z'"},
        {TWO("Filter", ""), 2, {SHAPE(2, 3), SHAPE(3)}, SHOAL_ERR_MODEL, "selector 'z'"},
        {TWO("Filter", ""), 2, {SCALAR, SHAPE(1)}, SHOAL_ERR_MODEL, "selector 'z'"},
        {FLATTEN("axis: 2 end_axis: 1"), 1, {SHAPE(2, 3, 4)}, SHOAL_ERR_MODEL, "end_axis"},
        {FLATTEN("axis: 3"), 1, {SHAPE(2, 3, 4)}, SHOAL_ERR_MODEL, "axis 3"},
        {ONE("Reshape", ""), 1, {SHAPE(2, 3)}, SHOAL_ERR_MODEL, "no reshape_param"},
        {RESHAPE("shape { dim: [-1, -1] }"), 1, {SHAPE(2, 3)}, SHOAL_ERR_MODEL, "one at most"},
        {RESHAPE("shape { dim: 5 }"), 1, {SHAPE(2, 3)}, SHOAL_ERR_MODEL, "as many values"},
        {RESHAPE("shape { dim: [4, -1] }"), 1, {SHAPE(2, 3)}, SHOAL_ERR_MODEL, "as many values"},
        {RESHAPE("shape { dim: [0, 0, 0] }"), 1, {SHAPE(2, 3)}, SHOAL_ERR_MODEL, "cannot take"},
        {RESHAPE("shape { dim: [0, 5, -1] }"), 1, {SHAPE(0, 3, 4)}, SHOAL_ERR_MODEL, "cannot take"},
        {RESHAPE("shape { dim: -2 }"), 1, {SHAPE(2, 3)}, SHOAL_ERR_MODEL, "cannot take"},
        {RESHAPE("shape { dim: [65536, 65536, 65536, 65536] }"),
         1,
         {SHAPE(2, 3)},
         SHOAL_ERR_MODEL,
         "cannot take"},
        {RESHAPE("shape { dim: 6 } axis: 3"), 1, {SHAPE(2, 3)}, SHOAL_ERR_MODEL, "axis 3"},
        {RESHAPE("shape { dim: 6 } axis: 1 num_axes: 2"),
         1,
         {SHAPE(2, 3)},
         SHOAL_ERR_MODEL,
         "num_axes 2"},
        {RESHAPE("shape { dim: 6 } num_axes: -2"), 1, {SHAPE(2, 3)}, SHOAL_ERR_MODEL, "-2"},
        {REDUCE(""), 1, {SCALAR}, SHOAL_ERR_MODEL, "scalar"},
        {REDUCE("axis: 2"), 1, {SHAPE(2, 3)}, SHOAL_ERR_MODEL, "axis 2"},
        {SLICE("top: 'a' top: 'b'", ""), 1, {SHAPE(2, 3)}, SHOAL_ERR_MODEL, "size 3"},
        {SLICE("top: 'a' top: 'b'", "slice_point: [1, 2]"),
         1,
         {SHAPE(2, 3)},
         SHOAL_ERR_MODEL,
         "2 slice_point values for 2 tops; expected 1"},
        {SLICE("top: 'a' top: 'b' top: 'c'", "slice_point: [2, 1]"),
         1,
         {SHAPE(2, 3)},
         SHOAL_ERR_MODEL,
         "ascending"},
        {SLICE("top: 'a' top: 'b'", "slice_point: 3"), 1, {SHAPE(2, 3)}, SHOAL_ERR_MODEL, "cut"},
        {SLICE("top: 'a' top: 'b'", "slice_point: 0"), 1, {SHAPE(2, 3)}, SHOAL_ERR_MODEL, "cut"},
        {SLICE("top: 'a'", "axis: 1 slice_dim: 1"), 1, {SHAPE(2, 3)}, SHOAL_ERR_MODEL, "slice_dim"},
        {ONE("SPP", ""), 1, {SHAPE(1, 1, 4, 4)}, SHOAL_ERR_MODEL, "pyramid_height"},
        {SPP("pyramid_height: 0"), 1, {SHAPE(1, 1, 4, 4)}, SHOAL_ERR_MODEL, "pyramid_height"},
        {SPP("pyramid_height: 99"), 1, {SHAPE(1, 1, 4, 4)}, SHOAL_ERR_MODEL, "1 to 16"},
        {SPP("pyramid_height: 2 pool: STOCHASTIC"),
         1,
         {SHAPE(1, 1, 4, 4)},
         SHOAL_ERR_UNSUPPORTED,
         "STOCHASTIC"},
        {SPP("pyramid_height: 4"), 1, {SHAPE(1, 1, 4, 4)}, SHOAL_ERR_MODEL, "too small"},
        {SPP("pyramid_height: 1"), 1, {SHAPE(1, 1, 4)}, SHOAL_ERR_MODEL, "4 axes"},
        {SPP("pyramid_height: 1"), 1, {SHAPE(1, 1, 0, 4)}, SHOAL_ERR_MODEL, "too small"},
        {IM2COL("kernel_size: 3"), 1, {SHAPE(1, 1, 4, 4, 4)}, SHOAL_ERR_UNSUPPORTED, "2-D"},
        {IM2COL("kernel_size: 5"), 1, {SHAPE(1, 1, 4, 4)}, SHOAL_ERR_MODEL, "larger"},
        {IM2COL(""), 1, {SHAPE(1, 1, 4, 4)}, SHOAL_ERR_MODEL, "kernel"},
        {DECONV("kernel_size: 2"), 1, {SHAPE(1, 1, 4, 4)}, SHOAL_ERR_MODEL, "num_output is 0"},
        {DECONV("num_output: 2 kernel_size: 2"), 1, {SHAPE(1, 1, 4)}, SHOAL_ERR_UNSUPPORTED, "2-D"},
        {DECONV("num_output: 2 kernel_size: [2, 2, 2]"),
         1,
         {SHAPE(1, 1, 4, 4)},
         SHOAL_ERR_MODEL,
         "3 values for kernel; expected 1 or 2: only 2-D"},
        {DECONV("num_output: 3 group: 2 kernel_size: 2"),
         1,
         {SHAPE(1, 2, 4, 4)},
         SHOAL_ERR_MODEL,
         "group is 2"},
        {DECONV("num_output: 2 kernel_size: 1 pad: 2"),
         1,
         {SHAPE(1, 2, 4, 4)},
         SHOAL_ERR_MODEL,
         "height would be 0"},
        {DECONV("num_output: 2 kernel_size: 1 stride: 2147483647"),
         1,
         {SHAPE(1, 2, 4, 4)},
         SHOAL_ERR_MODEL,
         "height would be"},
        {EMBED("num_output: 2"), 1, {SHAPE(2)}, SHOAL_ERR_MODEL, "input_dim is 0"},
        {EMBED("input_dim: 2"), 1, {SHAPE(2)}, SHOAL_ERR_MODEL, "num_output is 0"},
        {ONE("Embed", ""), 1, {SHAPE(2)}, SHOAL_ERR_MODEL, "no embed_param"},
        {STOCHASTIC("pad: 1"), 1, {SHAPE(1, 1, 4, 4)}, SHOAL_ERR_MODEL, "pad 0 only"},
        {STOCHASTIC("") " top: 'w'", 1, {SHAPE(1, 1, 4, 4)}, SHOAL_ERR_MODEL, "mask"},
        {"name: 'l' type: 'MemoryData' top: 'x' top: 'y'", 0, {SCALAR}, SHOAL_ERR_MODEL, "param"},
        {"name: 'l' type: 'MemoryData' top: 'x' top: 'y' memory_data_param { batch_size: 2 "
         "channels: 3 height: 4 }",
         0,
         {SCALAR},
         SHOAL_ERR_MODEL,
         "width is 0"},
        {ONE("BatchNorm", ""), 1, {SHAPE(4)}, SHOAL_ERR_MODEL, "2 axes or more"},
    };
    CHECK_REFUSALS(cases);
}

/* ---- values ---- */

typedef struct ValueCase {
    const char *text;
    int n_bottoms;
    Shape bottoms[3];
    float inputs[3][12];
    float tops[3][20];
} ValueCase;

static void test_values(void **state) {
    (void)state;
    static const ValueCase cases[] = {
        /* On equal values the later place comes first. */
        {ARG_MAX("top_k: 3"), 1, {SHAPE(2, 4)}, {{1, 5, 5, 2, 3, -1, 3, 3}}, {{2, 1, 3, 3, 2, 0}}},
        {ARG_MAX("top_k: 2 out_max_val: true"), 1, {SHAPE(1, 4)}, {{1, 5, 7, 2}}, {{2, 1, 7, 5}}},
        {ARG_MAX("axis: 1 top_k: 2"), 1, {SHAPE(1, 3, 2)}, {{1, 9, 2, 8, 3, 7}}, {{2, 0, 1, 1}}},
        {ARG_MAX("axis: 1 out_max_val: true"), 1, {SHAPE(1, 3, 2)}, {{1, 9, 2, 8, 3, 7}}, {{3, 9}}},
        {TWO("BatchReindex", ""),
         2,
         {SHAPE(3, 2), SHAPE(4)},
         {{1, 2, 3, 4, 5, 6}, {2, 0, 2.9f, 1}},
         {{5, 6, 1, 2, 5, 6, 3, 4}}},
        {CONCAT(""), 2, {SHAPE(2, 2), SHAPE(2, 1)}, {{1, 2, 3, 4}, {5, 6}}, {{1, 2, 5, 3, 4, 6}}},
        {CONCAT("concat_dim: 0"),
         2,
         {SHAPE(1, 2), SHAPE(2, 2)},
         {{1, 2}, {3, 4, 5, 6}},
         {{1, 2, 3, 4, 5, 6}}},
        {SLICE("top: 'a' top: 'b'", "slice_point: 1"),
         1,
         {SHAPE(2, 3)},
         {{1, 2, 3, 4, 5, 6}},
         {{1, 4}, {2, 3, 5, 6}}},
        {SLICE("top: 'a' top: 'b'", "slice_dim: 0"),
         1,
         {SHAPE(2, 3)},
         {{1, 2, 3, 4, 5, 6}},
         {{1, 2, 3}, {4, 5, 6}}},
        {CROP("axis: 1 offset: [0, 1]"),
         2,
         {SHAPE(2, 2, 3), SHAPE(2, 1, 2)},
         {{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}},
         {{2, 3, 8, 9}}},
        {CROP("axis: 0 offset: 1"),
         2,
         {SHAPE(2, 3), SHAPE(1, 2, 7)},
         {{1, 2, 3, 4, 5, 6}},
         {{5, 6}}},
        {TWO("Filter", ""),
         2,
         {SHAPE(3, 2), SHAPE(3)},
         {{1, 2, 3, 4, 5, 6}, {0, -2, .5f}},
         {{3, 4, 5, 6}}},
        {REDUCE("coeff: 2"), 1, {SHAPE(2, 2)}, {{1, -2, 3, 4}}, {{12}}},
        {REDUCE("axis: 1 operation: ASUM"), 1, {SHAPE(2, 2)}, {{1, -2, 3, 4}}, {{3, 7}}},
        {REDUCE("axis: 1 operation: SUMSQ"), 1, {SHAPE(2, 2)}, {{1, -2, 3, 4}}, {{5, 25}}},
        {REDUCE("axis: 1 operation: MEAN coeff: 3"),
         1,
         {SHAPE(2, 2)},
         {{1, -2, 3, 4}},
         {{-1.5f, 10.5f}}},
        {SPP("pyramid_height: 2"),
         1,
         {SHAPE(1, 1, 3, 4)},
         {{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}},
         {{12, 2, 4, 10, 12}}},
        /* Windows of 2x2 with one row of padding: it counts. */
        {SPP("pyramid_height: 2 pool: AVE"),
         1,
         {SHAPE(1, 1, 3, 4)},
         {{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}},
         {{6.5f, .75f, 1.75f, 7.5f, 9.5f}}},
        {IM2COL("kernel_size: 2"),
         1,
         {SHAPE(1, 1, 2, 3)},
         {{1, 2, 3, 4, 5, 6}},
         {{1, 2, 2, 3, 4, 5, 5, 6}}},
        {IM2COL("kernel_size: [1, 2] stride: [1, 2] pad: [0, 1]"),
         1,
         {SHAPE(1, 1, 2, 2)},
         {{1, 2, 3, 4}},
         {{0, 2, 0, 4, 1, 0, 3, 0}}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        Harness h;
        harness_open(&h, cases[i].text, cases[i].n_bottoms, cases[i].bottoms);
        for (int b = 0; b < cases[i].n_bottoms; b++)
            for (size_t k = 0; k < h.bottoms[b]->count && k < 12; k++)
                h.bottoms[b]->data[k] = cases[i].inputs[b][k];
        harness_forward(&h);
        for (int t = 0; t < h.layer.n_tops; t++)
            for (size_t k = 0; k < h.tops[t]->count; k++)
                if (fabsf(h.tops[t]->data[k] - cases[i].tops[t][k]) > 1e-6f)
                    fail_msg("%s: top %d [%zu] is %g; expected %g", cases[i].text, t, k,
                             (double)h.tops[t]->data[k], (double)cases[i].tops[t][k]);
        harness_close(&h);
    }
}

static void test_numbers_that_name_nothing(void **state) {
    (void)state;
    static const float wrong[] = {-1, 3, NAN, INFINITY, 1e20f};
    const Shape bottoms[] = {SHAPE(3, 2), SHAPE(4)};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        Harness h;
        harness_open(&h, TWO("BatchReindex", ""), 2, bottoms);
        h.bottoms[1]->data[2] = wrong[i];
        assert_int_equal(h.layer.class->forward(&h.layer, &h.compute, &h.err), SHOAL_ERR_DATA);
        assert_non_null(strstr(h.err.text, "number 2 of 'z'"));
        harness_close(&h);
        harness_open(&h, EMBED("num_output: 2 input_dim: 3"), 1, &bottoms[1]);
        h.bottoms[0]->data[2] = wrong[i];
        assert_int_equal(h.layer.class->forward(&h.layer, &h.compute, &h.err), SHOAL_ERR_DATA);
        assert_non_null(strstr(h.err.text, "number 2 of 'x'"));
        harness_close(&h);
    }
}

static void test_embed_is_a_row_and_the_bias(void **state) {
    (void)state;
    const Shape words = SHAPE(3);
    Harness h;
    harness_open(&h, EMBED("num_output: 2 input_dim: 4"), 1, &words);
    for (int i = 0; i < 8; i++)
        h.layer.params[0]->blob.data[i] = (float)i;
    harness_set(h.layer.params[1]->blob.data, 2, (float[]){10, 20});
    harness_set(h.bottoms[0]->data, 3, (float[]){3, 0, 1.5f});
    harness_forward(&h);
    harness_assert_near(h.tops[0]->data, (float[]){16, 27, 10, 21, 12, 23}, 6, 0);
    harness_close(&h);
}

/* y[n][g O/G + o][i s - p + u d][..] += x[n][g C/G + c][i][j] w[g C/G + c][o][u][v] */
typedef struct Deconv {
    const char *text;
    int n, c, h, w, out, group, kernel, stride, pad, dilation;
} Deconv;

static void deconvolve(const Deconv *d, const float *x, const float *w, const float *bias, int oh,
                       int ow, double *y) {
    int in = d->c / d->group, out = d->out / d->group;
    for (int k = 0; k < d->n * d->out * oh * ow; k++)
        y[k] = (double)bias[k / (oh * ow) % d->out];
    for (int k = 0; k < d->n * d->c * d->h * d->w; k++) {
        int j = k % d->w, i = k / d->w % d->h, c = k / d->w / d->h % d->c;
        int n = k / d->w / d->h / d->c;
        for (int m = 0; m < out * d->kernel * d->kernel; m++) {
            int v = m % d->kernel, u = m / d->kernel % d->kernel, o = m / d->kernel / d->kernel;
            int row = i * d->stride - d->pad + u * d->dilation;
            int column = j * d->stride - d->pad + v * d->dilation;
            if (row < 0 || row >= oh || column < 0 || column >= ow)
                continue;
            int plane = n * d->out + c / in * out + o;
            y[(plane * oh + row) * ow + column] +=
                (double)x[k] * (double)w[c * out * d->kernel * d->kernel + m];
        }
    }
}

static void test_deconvolution_values(void **state) {
    (void)state;
    static const Deconv cases[] = {
        {DECONV("num_output: 3 kernel_size: 3"), 2, 2, 3, 4, 3, 1, 3, 1, 0, 1},
        {DECONV("num_output: 2 kernel_size: 4 stride: 2 pad: 1"), 2, 3, 3, 3, 2, 1, 4, 2, 1, 1},
        {DECONV("num_output: 6 group: 2 kernel_size: 2 stride: 3"), 1, 4, 3, 2, 6, 2, 2, 3, 0, 1},
        {DECONV("num_output: 4 group: 4 kernel_size: 3 stride: 2 pad: 1 dilation: 2"), 2, 4, 4, 3,
         4, 4, 3, 2, 1, 2},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const Deconv *d = &cases[i];
        const Shape bottom = SHAPE(d->n, d->c, d->h, d->w);
        Harness h;
        ShoalRng rng;
        harness_open(&h, d->text, 1, &bottom);
        shoal_rng_init(&rng, 3, SHOAL_RNG_TEST, (uint32_t)i);
        ShoalBlob *x = h.bottoms[0], *w = &h.layer.params[0]->blob, *b = &h.layer.params[1]->blob;
        shoal_rng_fill_uniform(&rng, -1, 1, x->count, x->data);
        shoal_rng_fill_uniform(&rng, -1, 1, w->count, w->data);
        shoal_rng_fill_uniform(&rng, -1, 1, b->count, b->data);
        harness_forward(&h);
        const ShoalBlob *y = h.tops[0];
        double *expected = shoal_calloc(y->count, sizeof *expected);
        deconvolve(d, x->data, w->data, b->data, y->shape[2], y->shape[3], expected);
        for (size_t k = 0; k < y->count; k++)
            if (fabs((double)y->data[k] - expected[k]) > 1e-5)
                fail_msg("%s: [%zu] is %g; expected %g", d->text, k, (double)y->data[k],
                         expected[k]);
        shoal_free(expected);
        harness_close(&h);
    }
}

/* ---- pool STOCHASTIC ---- */

/* Windows 0 1 / 2 5, and nothing but 0. */
static const float WINDOWS[] = {0, 1, 0, 0, 2, 5, 0, 0};

static void test_stochastic_in_testing(void **state) {
    (void)state;
    const Shape bottom = SHAPE(1, 1, 2, 4);
    Harness h;
    harness_open(&h, STOCHASTIC(""), 1, &bottom);
    h.context.phase = CAFFE__PHASE__TEST;
    harness_set(h.bottoms[0]->data, 8, WINDOWS);
    harness_forward(&h);
    harness_assert_near(h.tops[0]->data, (float[]){30.0f / 8, 0}, 2, 1e-6);
    harness_close(&h);
}

/* Each value is drawn as often as it is large, and alone gets the gradient. */
static void test_stochastic_draws(void **state) {
    (void)state;
    enum { SAMPLES = 8000 };
    const Shape bottom = SHAPE(SAMPLES, 1, 2, 4);
    Harness h;
    harness_open(&h, STOCHASTIC(""), 1, &bottom);
    for (size_t n = 0; n < SAMPLES; n++)
        harness_set(h.bottoms[0]->data + 8 * n, 8, WINDOWS);
    harness_forward(&h);
    for (size_t k = 0; k < h.tops[0]->count; k++)
        h.tops[0]->diff[k] = (float)k;
    harness_backward(&h);
    int drawn[6] = {0};
    for (size_t n = 0; n < SAMPLES; n++) {
        float value = h.tops[0]->data[2 * n];
        assert_true(value == 1 || value == 2 || value == 5);
        drawn[(int)value]++;
        for (size_t k = 0; k < 4; k++) {
            size_t at = 8 * n + k / 2 * 4 + k % 2;
            float expected = h.bottoms[0]->data[at] == value ? (float)(2 * n) : 0;
            assert_true(h.bottoms[0]->diff[at] == expected);
        }
    }
    /* Five standard deviations of a binomial with p = 1/8, 2/8, 5/8. */
    assert_true(abs(drawn[1] - SAMPLES / 8) < 150);
    assert_true(abs(drawn[2] - SAMPLES / 4) < 195);
    assert_true(abs(drawn[5] - SAMPLES * 5 / 8) < 220);
    harness_close(&h);
}

/* Samples first .. first + now - 1 of a batch of 8, all of the same values. */
static void draw_stochastic(uint64_t first, int now, const uint32_t *places, float *out) {
    const Shape bottom = SHAPE(now, 3, 6, 6);
    Harness h;
    harness_init(&h, STOCHASTIC(""), NULL, 1, &bottom);
    h.context.batch_full = 8;
    assert_int_equal(harness_setup(&h), SHOAL_OK);
    harness_allocate(&h);
    h.context.first_sample = first;
    h.context.places = places;
    for (size_t k = 0; k < h.bottoms[0]->count; k++)
        h.bottoms[0]->data[k] = 1 + (float)(k % 108) / 100;
    harness_forward(&h);
    harness_set(out, h.tops[0]->count, h.tops[0]->data);
    harness_close(&h);
}

static void test_stochastic_follows_the_sample(void **state) {
    (void)state;
    float whole[8 * 27], part[8 * 27], next[8 * 27];
    const uint32_t places[] = {7, 2};
    draw_stochastic(800, 8, NULL, whole);
    draw_stochastic(800, 3, NULL, part);
    draw_stochastic(803, 5, NULL, part + 3 * 27);
    assert_memory_equal(whole, part, sizeof whole);
    draw_stochastic(800, 2, places, part);
    assert_memory_equal(whole + 7 * 27, part, 27 * sizeof *whole);
    assert_memory_equal(whole + 2 * 27, part + 27, 27 * sizeof *whole);
    draw_stochastic(808, 8, NULL, next);
    assert_true(memcmp(whole, next, sizeof whole) != 0);
    assert_true(memcmp(whole, whole + 27, 27 * sizeof *whole) != 0);
}

/* ---- shares of a batch ---- */

typedef struct WholeCase {
    const char *text;
    int n_bottoms;
    Shape bottoms[3];
    bool whole;
} WholeCase;

static void test_what_needs_the_batch_whole(void **state) {
    (void)state;
    static const WholeCase cases[] = {
        {ARG_MAX(""), 1, {SHAPE(4, 3)}, false},
        {ARG_MAX("axis: 1"), 1, {SHAPE(4, 3)}, false},
        {ARG_MAX("axis: 0"), 1, {SHAPE(4, 3)}, true},
        {TWO("BatchReindex", ""), 2, {SHAPE(4, 3), SHAPE(4)}, true},
        {CONCAT(""), 2, {SHAPE(4, 3), SHAPE(4, 3)}, false},
        {CONCAT("axis: 0"), 2, {SHAPE(4, 3), SHAPE(4, 3)}, true},
        {ONE("Concat", "concat_param { axis: 0 }"), 1, {SHAPE(4, 3)}, false},
        {CROP("axis: 1"), 2, {SHAPE(4, 3), SHAPE(4, 2)}, false},
        {CROP("axis: 0"), 2, {SHAPE(4, 3), SHAPE(4, 2)}, false},
        {CROP("axis: 0"), 2, {SHAPE(4, 3), SHAPE(2, 2)}, true},
        {TWO("Filter", ""), 2, {SHAPE(4, 3), SHAPE(4)}, true},
        {FLATTEN(""), 1, {SHAPE(4, 3, 2)}, false},
        {FLATTEN("axis: 0 end_axis: 0"), 1, {SHAPE(4, 3, 2)}, false},
        {FLATTEN("axis: 0"), 1, {SHAPE(4, 3, 2)}, true},
        {INNER(""), 1, {SHAPE(4, 3)}, false},
        {INNER("axis: 0"), 1, {SHAPE(4, 3)}, true},
        {REDUCE("axis: 1"), 1, {SHAPE(4, 3)}, false},
        {REDUCE(""), 1, {SHAPE(4, 3)}, true},
        {REDUCE(""), 1, {SHAPE(7, 3)}, false},
        {REDUCE("") " loss_weight: 1", 1, {SHAPE(4, 3)}, false},
        {RESHAPE("shape { dim: [0, -1] }"), 1, {SHAPE(4, 3, 2)}, false},
        {RESHAPE("shape { dim: [4, 6] }"), 1, {SHAPE(4, 3, 2)}, false},
        {RESHAPE("shape { dim: [-1, 6] }"), 1, {SHAPE(4, 3, 2)}, false},
        {RESHAPE("shape { dim: [-1, 3] }"), 1, {SHAPE(4, 3, 2)}, true},
        {RESHAPE("shape { dim: 1 } num_axes: 0"), 1, {SHAPE(4, 3, 2)}, true},
        {SLICE("top: 'a' top: 'b'", "axis: 0"), 1, {SHAPE(4, 2)}, true},
        {SLICE("top: 'a' top: 'b'", ""), 1, {SHAPE(4, 2)}, false},
        {SLICE("top: 'a'", "axis: 0"), 1, {SHAPE(4, 2)}, false},
        {ONE("Softmax", "softmax_param { axis: 0 }"), 1, {SHAPE(4, 2)}, true},
        {ONE("Softmax", ""), 1, {SHAPE(4, 2)}, false},
        {SPP("pyramid_height: 2"), 1, {SHAPE(4, 2, 4, 4)}, false},
        {EMBED("num_output: 2 input_dim: 3"), 1, {SHAPE(4)}, false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        Harness h;
        harness_init(&h, cases[i].text, NULL, cases[i].n_bottoms, cases[i].bottoms);
        h.context.batch_full = h.context.batch_now = 4;
        if (h.param->n_loss_weight)
            h.loss_weights[0] = 1;
        if (harness_setup(&h) != SHOAL_OK)
            fail_msg("%s: %s", cases[i].text, h.err.text);
        if (h.layer.whole_batch != cases[i].whole)
            fail_msg("%s: needs the batch %s", cases[i].text,
                     cases[i].whole ? "in parts" : "whole");
        harness_close(&h);
    }
}

/* A size that is the global batch stands for the share. */
static void test_reshape_of_a_share(void **state) {
    (void)state;
    const Shape bottom = SHAPE(2, 6), top = SHAPE(2, 3, 2);
    Harness h;
    harness_init(&h, RESHAPE("shape { dim: [8, 3, 2] }"), NULL, 1, &bottom);
    h.context.batch_full = 8;
    assert_int_equal(harness_setup(&h), SHOAL_OK);
    assert_shape(h.tops[0], &top, "a share");
    assert_false(h.layer.whole_batch);
    harness_close(&h);
}

/* A loss that is a sum over the batch: shares' values, averaged by size, are the batch's. What is
 * no part of the batch is the same on every worker and must not grow. */
static void test_reduction_of_a_share(void **state) {
    (void)state;
    const struct {
        int rows;
        float sum;
    } cases[] = {{2, 4 * 6}, {5, 15}};
    for (size_t i = 0; i < 2; i++) {
        const Shape bottom = SHAPE(cases[i].rows, 3);
        Harness h;
        harness_init(&h, REDUCE(""), NULL, 1, &bottom);
        h.context.batch_full = 8;
        h.context.batch_now = 2;
        h.loss_weights[0] = 1;
        assert_int_equal(harness_setup(&h), SHOAL_OK);
        harness_allocate(&h);
        for (size_t k = 0; k < h.bottoms[0]->count; k++)
            h.bottoms[0]->data[k] = 1;
        harness_forward(&h);
        assert_true(h.tops[0]->data[0] == cases[i].sum);
        assert_false(h.layer.whole_batch);
        harness_close(&h);
    }
}

/* ---- sources ---- */

static int batch_of(const char *text) {
    ShoalCaffeNet model;
    int batch = 0;
    ShoalError err = {0};
    built_net_parse(text, &model);
    assert_int_equal(shoal_net_model_batch(&model, CAFFE__PHASE__TRAIN, NULL, &batch, &err),
                     SHOAL_OK);
    shoal_caffe_net_close(&model);
    return batch;
}

static void test_batch_of_sources(void **state) {
    (void)state;
    assert_int_equal(batch_of("layer { name: 'd' type: 'ImageData' top: 'x' top: 'l' "
                              "image_data_param { source: 'l' batch_size: 5 } }"),
                     5);
    assert_int_equal(batch_of("layer { name: 'd' type: 'HDF5Data' top: 'x' hdf5_data_param { "
                              "source: 'l' batch_size: 6 } }"),
                     6);
    assert_int_equal(batch_of("layer { name: 'd' type: 'WindowData' top: 'x' top: 'l' "
                              "window_data_param { source: 'l' batch_size: 7 } }"),
                     7);
    assert_int_equal(batch_of("layer { name: 'd' type: 'MemoryData' top: 'x' top: 'l' "
                              "memory_data_param { batch_size: 9 channels: 1 height: 1 width: 1 "
                              "} }"),
                     9);
    /* A constant before the data is not what an iteration is made of. */
    assert_int_equal(batch_of("layer { name: 'c' type: 'DummyData' top: 'c' dummy_data_param { "
                              "shape { dim: 1 dim: 3 } } } "
                              "layer { name: 'd' type: 'Data' top: 'x' data_param { source: 'l' "
                              "batch_size: 8 backend: LMDB } }"),
                     8);
}

static ShoalStatus one_value(void *context, const Caffe__LayerParameter *layer, int top, int *axes,
                             int *dims, ShoalError *err) {
    (void)context, (void)layer, (void)top, (void)err;
    *axes = 1;
    dims[0] = 1;
    return SHOAL_OK;
}

#define DATA(name, batch)                                                                          \
    "layer { name: '" name "' type: 'Data' top: '" name "' data_param { source: 'l' "              \
    "batch_size: " batch " backend: LMDB } }\n"

static void test_data_layers_of_two_batches(void **state) {
    (void)state;
    const ShoalNetOptions options = {.phase = CAFFE__PHASE__TRAIN, .source_shape = one_value};
    BuiltNet b;
    built_net_open_with(&b, DATA("a", "8") DATA("b", "8"), &options);
    assert_int_equal(built_net_unit(&b), 0);
    built_net_close(&b);
    ShoalCaffeNet model;
    ShoalNet *net = NULL;
    ShoalError err = {0};
    built_net_parse(DATA("a", "8") DATA("b", "16"), &model);
    assert_int_equal(shoal_net_create(&model, &options, &net, &err), SHOAL_ERR_UNSUPPORTED);
    assert_string_equal(err.text, "net:2:1: layer 'b' has batch_size 16, but the data layer before "
                                  "it has 8; expected one batch_size for all data layers of a "
                                  "phase");
    shoal_caffe_net_close(&model);
}

/* ---- how batches may be cut ---- */

#define NORM(name, settings)                                                                       \
    "layer { name: '" name "' type: 'BatchNorm' bottom: 'x' top: '" name "' "                      \
    "batch_norm_param { " settings " } } "
#define X "layer { name: 'x' type: 'Input' top: 'x' input_param { shape { dim: 12 dim: 4 } } } "

static void refused_unit(const char *text, const char *message) {
    BuiltNet b;
    int unit;
    built_net_open(&b, text, false);
    assert_int_equal(shoal_net_unit(b.net, &unit, &b.err), SHOAL_ERR_MODEL);
    assert_string_equal(b.err.text, message);
    built_net_close(&b);
}

static void test_units(void **state) {
    (void)state;
    static const struct {
        const char *text;
        int unit;
    } cases[] = {
        {X NORM("n", ""), 0},
        {X NORM("n", "stats_batch_size: 4"), 4},
        {X NORM("n", "stats_batch_size: 12"), 0},
        {X NORM("n", "stats_batch_size: 32"), 0},
        {"bn_stats_batch_size: 3 " X NORM("n", "stats_batch_size: 5") NORM("m", ""), 3},
        {X NORM("n", "use_global_stats: true stats_batch_size: 5"), 0},
        {X NORM("n", "use_global_stats: true") NORM("m", "stats_batch_size: 6"), 6},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        BuiltNet b;
        built_net_open(&b, cases[i].text, false);
        if (built_net_unit(&b) != cases[i].unit)
            fail_msg("case %zu: %d", i, built_net_unit(&b));
        built_net_close(&b);
    }
    refused_unit(X NORM("n", "stats_batch_size: 5"),
                 "layer 'n' takes statistics over 5 samples, and "
                 "the batch has 12; expected a multiple");
    refused_unit(X NORM("n", "stats_batch_size: 4") NORM("m", ""),
                 "layer 'n' takes statistics over 4 samples, layer 'm' over 12; expected one "
                 "stats_batch_size for all");
    refused_unit(X NORM("n", "stats_batch_size: 4") "layer { name: 's' type: 'Softmax' bottom: 'x' "
                                                    "top: 's' softmax_param { axis: 0 } }",
                 "layer 's' has to have its batch of 12 whole, so no stats_batch_size can cut it "
                 "into parts of 4");
}

#define MEMORY(name, batch)                                                                        \
    "layer { name: '" name "' type: 'MemoryData' top: '" name "' top: '" name "_l' "               \
    "memory_data_param { batch_size: " batch " channels: 2 height: 3 width: 4 } } "

static void test_memory_data(void **state) {
    (void)state;
    const Shape data = SHAPE(6, 2, 3, 4), label = SHAPE(6), share = SHAPE(2, 2, 3, 4);
    BuiltNet b;
    built_net_open(&b, MEMORY("m", "6"), false);
    assert_int_equal(shoal_net_sources(b.net), 1);
    assert_shape(shoal_net_blob(b.net, "m"), &data, "data");
    assert_shape(shoal_net_blob(b.net, "m_l"), &label, "labels");
    assert_int_equal(built_net_unit(&b), 0);
    assert_int_equal(shoal_net_set_share(b.net, 2, 0, NULL, &b.err), SHOAL_OK);
    assert_shape(shoal_net_blob(b.net, "m"), &share, "a share");
    built_net_close(&b);
    /* Two batches cannot be shared out alike. */
    built_net_open(&b, MEMORY("m", "6") MEMORY("o", "4"), false);
    assert_int_equal(built_net_unit(&b), 6);
    built_net_close(&b);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_shapes),
        cmocka_unit_test(test_weights),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_values),
        cmocka_unit_test(test_numbers_that_name_nothing),
        cmocka_unit_test(test_embed_is_a_row_and_the_bias),
        cmocka_unit_test(test_deconvolution_values),
        cmocka_unit_test(test_stochastic_in_testing),
        cmocka_unit_test(test_stochastic_draws),
        cmocka_unit_test(test_stochastic_follows_the_sample),
        cmocka_unit_test(test_what_needs_the_batch_whole),
        cmocka_unit_test(test_reshape_of_a_share),
        cmocka_unit_test(test_reduction_of_a_share),
        cmocka_unit_test(test_batch_of_sources),
        cmocka_unit_test(test_data_layers_of_two_batches),
        cmocka_unit_test(test_units),
        cmocka_unit_test(test_memory_data),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
