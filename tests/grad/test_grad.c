/* SPDX-License-Identifier: Apache-2.0 */
/* The gradients of the layers of common nets; and that no layer of the table is without a case. */
#include "grad/grad.h"

#include <dirent.h>

#include "base/file.h"

#define CONV(settings)                                                                             \
    "name: 'c' type: 'Convolution' bottom: 'x' top: 'y' convolution_param { " settings " }"
#define POOL(settings)                                                                             \
    "name: 'p' type: 'Pooling' bottom: 'x' top: 'y' pooling_param { " settings " }"
#define IP(settings)                                                                               \
    "name: 'i' type: 'InnerProduct' bottom: 'x' top: 'y' inner_product_param { " settings " }"
#define LOSS(settings)                                                                             \
    "name: 'l' type: 'SoftmaxWithLoss' bottom: 'x' bottom: 't' top: 'y' " settings

static const GradCase CASES[] = {
    {CONV("num_output: 3 kernel_size: 3"), {SHAPE(2, 2, 5, 6)}, .n_bottoms = 1},
    {CONV("num_output: 4 kernel_size: 3 pad: 1 stride: 2"), {SHAPE(2, 3, 6, 7)}, .n_bottoms = 1},
    {CONV("num_output: 2 kernel_h: 3 kernel_w: 2 pad_h: 0 pad_w: 2 stride_h: 1 stride_w: 3"),
     {SHAPE(2, 1, 5, 8)},
     .n_bottoms = 1},
    {CONV("num_output: 3 kernel_size: 3 dilation: 2 pad: 2"), {SHAPE(1, 2, 6, 5)}, .n_bottoms = 1},
    {CONV(
         "num_output: 2 kernel_size: 2 kernel_size: 3 dilation: 3 dilation: 1 stride: 2 stride: 1"),
     {SHAPE(1, 2, 7, 5)},
     .n_bottoms = 1},
    {CONV("num_output: 6 kernel_size: 3 group: 2 pad: 1"), {SHAPE(2, 4, 4, 5)}, .n_bottoms = 1},
    {CONV("num_output: 4 kernel_size: 3 group: 4 bias_term: false"),
     {SHAPE(2, 4, 5, 5)},
     .n_bottoms = 1},
    {CONV("num_output: 5 kernel_size: 1"), {SHAPE(3, 3, 3, 4)}, .n_bottoms = 1},
    {CONV("num_output: 3 kernel_size: 5 pad: 2"), {SHAPE(2, 2, 4, 3)}, .n_bottoms = 1},
    {CONV("num_output: 19 kernel_size: 3 pad: 1"), {SHAPE(1, 17, 4, 4)}, .n_bottoms = 1},
    {CONV("num_output: 2 kernel_size: 2") " param { lr_mult: 0 } param { lr_mult: 1 }",
     {SHAPE(2, 2, 3, 4)},
     .n_bottoms = 1},
    {CONV("num_output: 2 kernel_size: 2") " param { lr_mult: 1 } param { lr_mult: 0 }",
     {SHAPE(2, 2, 3, 4)},
     .n_bottoms = 1},
    {"name: 'c' type: 'Convolution' bottom: 'x' bottom: 'z' top: 'y' top: 'w' "
     "convolution_param { num_output: 3 kernel_size: 2 stride: 2 }",
     {SHAPE(2, 2, 4, 5), SHAPE(2, 2, 4, 5)},
     .n_bottoms = 2},
    {POOL("kernel_size: 2 stride: 2"), {SHAPE(2, 2, 5, 6)}, .n_bottoms = 1, .inputs = DISTINCT},
    {POOL("kernel_size: 3 stride: 2 pad: 1"),
     {SHAPE(1, 2, 6, 7)},
     .n_bottoms = 1,
     .inputs = DISTINCT},
    {POOL("kernel_h: 2 kernel_w: 3 stride: 1 round_mode: FLOOR"),
     {SHAPE(2, 1, 4, 5)},
     .n_bottoms = 1,
     .inputs = DISTINCT},
    {POOL("global_pooling: true"), {SHAPE(2, 3, 3, 4)}, .n_bottoms = 1, .inputs = DISTINCT},
    {"name: 'p' type: 'Pooling' bottom: 'x' top: 'y' top: 'mask' "
     "pooling_param { kernel_size: 3 stride: 2 }",
     {SHAPE(2, 2, 5, 5)},
     .n_bottoms = 1,
     .inputs = DISTINCT,
     .graded = 1},
    {POOL("pool: AVE kernel_size: 2 stride: 2"), {SHAPE(2, 2, 5, 6)}, .n_bottoms = 1},
    {POOL("pool: AVE kernel_size: 3 stride: 2 pad: 1"), {SHAPE(2, 2, 6, 7)}, .n_bottoms = 1},
    {POOL("pool: AVE kernel_h: 4 kernel_w: 2 stride_h: 3 stride_w: 1 pad_h: 2 pad_w: 1"),
     {SHAPE(1, 2, 7, 4)},
     .n_bottoms = 1},
    {POOL("pool: AVE global_pooling: true"), {SHAPE(2, 3, 4, 3)}, .n_bottoms = 1},
    {IP("num_output: 5"), {SHAPE(4, 3, 2, 2)}, .n_bottoms = 1},
    {IP("num_output: 4 transpose: true"), {SHAPE(3, 7)}, .n_bottoms = 1},
    {IP("num_output: 3 bias_term: false"), {SHAPE(5, 6)}, .n_bottoms = 1},
    {IP("num_output: 3 axis: 2"), {SHAPE(2, 3, 2, 3)}, .n_bottoms = 1},
    {IP("num_output: 2 axis: -1 transpose: true"), {SHAPE(2, 3, 5)}, .n_bottoms = 1},
    {IP("num_output: 6 axis: 0"), {SHAPE(2, 5)}, .n_bottoms = 1},
    {IP("num_output: 3") " param { lr_mult: 0 }", {SHAPE(4, 5)}, .n_bottoms = 1},
    {"name: 'r' type: 'ReLU' bottom: 'x' top: 'y'",
     {SHAPE(3, 4, 3)},
     .n_bottoms = 1,
     .inputs = OFF_ZERO},
    {"name: 'r' type: 'ReLU' bottom: 'x' top: 'x'",
     {SHAPE(3, 4, 3)},
     .n_bottoms = 1,
     .inputs = OFF_ZERO},
    {"name: 'r' type: 'ReLU' bottom: 'x' top: 'y' relu_param { negative_slope: 0.1 }",
     {SHAPE(37)},
     .n_bottoms = 1,
     .inputs = OFF_ZERO},
    {"name: 'r' type: 'ReLU' bottom: 'x' top: 'x' relu_param { negative_slope: 0.3 }",
     {SHAPE(2, 19)},
     .n_bottoms = 1,
     .inputs = OFF_ZERO},
    {"name: 'r' type: 'ReLU' bottom: 'x' top: 'x' relu_param { negative_slope: -0.5 }",
     {SHAPE(2, 19)},
     .n_bottoms = 1,
     .inputs = OFF_ZERO},
    {"name: 'd' type: 'Dropout' bottom: 'x' top: 'y'", {SHAPE(4, 9)}, .n_bottoms = 1},
    {"name: 'd' type: 'Dropout' bottom: 'x' top: 'x' dropout_param { dropout_ratio: 0.3 }",
     {SHAPE(4, 3, 3)},
     .n_bottoms = 1},
    {"name: 's' type: 'Softmax' bottom: 'x' top: 'y'", {SHAPE(3, 5)}, .n_bottoms = 1},
    {"name: 's' type: 'Softmax' bottom: 'x' top: 'x'", {SHAPE(2, 4, 3)}, .n_bottoms = 1},
    {"name: 's' type: 'Softmax' bottom: 'x' top: 'y' softmax_param { axis: -1 }",
     {SHAPE(2, 3, 4)},
     .n_bottoms = 1},
    {"name: 's' type: 'Softmax' bottom: 'x' top: 'y' softmax_param { axis: 0 }",
     {SHAPE(4, 3)},
     .n_bottoms = 1},
    {LOSS(""), {SHAPE(5, 4), SHAPE(5)}, .n_bottoms = 2, .classes = 4},
    {LOSS("top: 'p'"), {SHAPE(5, 4), SHAPE(5)}, .n_bottoms = 2, .classes = 4, .graded = 1},
    {LOSS(""), {SHAPE(2, 3, 2, 2), SHAPE(2, 2, 2)}, .n_bottoms = 2, .classes = 3},
    {LOSS("softmax_param { axis: 2 }"),
     {SHAPE(2, 3, 4), SHAPE(2, 3)},
     .n_bottoms = 2,
     .classes = 4},
    {LOSS("loss_param { ignore_label: 2 }"),
     {SHAPE(6, 4), SHAPE(6)},
     .n_bottoms = 2,
     .classes = 4,
     .ignored = 2},
    {LOSS("loss_param { ignore_label: 255 normalization: FULL }"),
     {SHAPE(6, 4), SHAPE(6, 1)},
     .n_bottoms = 2,
     .classes = 4,
     .ignored = 255},
    {LOSS("loss_param { normalization: BATCH_SIZE }"),
     {SHAPE(2, 3, 2), SHAPE(2, 2)},
     .n_bottoms = 2,
     .classes = 3},
    {LOSS("loss_param { normalization: NONE }"),
     {SHAPE(4, 3), SHAPE(4)},
     .n_bottoms = 2,
     .classes = 3},
    {LOSS("loss_param { normalize: false ignore_label: -1 }"),
     {SHAPE(2, 3, 3), SHAPE(2, 3)},
     .n_bottoms = 2,
     .classes = 3,
     .ignored = -1},
    {LOSS("loss_param { normalize: true }"),
     {SHAPE(2, 3, 3), SHAPE(2, 3)},
     .n_bottoms = 2,
     .classes = 3},
    {"name: 'b' type: 'BatchNorm' bottom: 'x' top: 'y' batch_norm_param {  }",
     {SHAPE(3, 2, 3, 4)},
     .n_bottoms = 1},
    {"name: 'b' type: 'BatchNorm' bottom: 'x' top: 'x' batch_norm_param { eps: 0.05 }",
     {SHAPE(4, 3, 2, 5)},
     .n_bottoms = 1},
    {"name: 'b' type: 'BatchNorm' bottom: 'x' top: 'y' batch_norm_param { use_global_stats: true }",
     {SHAPE(3, 2, 3, 4)},
     .n_bottoms = 1},
    {"name: 'b' type: 'BatchNorm' bottom: 'x' top: 'x' batch_norm_param { use_global_stats: true "
     "eps: 0.1 }",
     {SHAPE(5, 4)},
     .n_bottoms = 1},
    {"name: 'b' type: 'BatchNorm' bottom: 'x' top: 'y' batch_norm_param { moving_average_fraction: "
     "0.5 }",
     {SHAPE(6, 3)},
     .n_bottoms = 1},
    {"name: 's' type: 'Scale' bottom: 'x' top: 'y' scale_param {  } ",
     {SHAPE(3, 2, 3, 4)},
     .n_bottoms = 1},
    {"name: 's' type: 'Scale' bottom: 'x' top: 'x' scale_param { bias_term: true } ",
     {SHAPE(3, 2, 3, 4)},
     .n_bottoms = 1},
    {"name: 's' type: 'Scale' bottom: 'x' top: 'y' scale_param { bias_term: true axis: 2 num_axes: "
     "2 } ",
     {SHAPE(2, 3, 4, 2)},
     .n_bottoms = 1},
    {"name: 's' type: 'Scale' bottom: 'x' top: 'y' scale_param { bias_term: true axis: 0 num_axes: "
     "-1 } ",
     {SHAPE(3, 4)},
     .n_bottoms = 1},
    {"name: 's' type: 'Scale' bottom: 'x' top: 'x' scale_param { bias_term: true num_axes: 0 } ",
     {SHAPE(3, 2, 4)},
     .n_bottoms = 1},
    {"name: 's' type: 'Scale' bottom: 'x' top: 'y' scale_param { bias_term: true } param { "
     "lr_mult: 0 } param { lr_mult: 1 }",
     {SHAPE(3, 2, 3)},
     .n_bottoms = 1},
    {"name: 's' type: 'Scale' bottom: 'x' top: 'x' scale_param { bias_term: true } param { "
     "lr_mult: 1 } param { lr_mult: 0 }",
     {SHAPE(3, 2, 3)},
     .n_bottoms = 1},
    {"name: 's' type: 'Scale' bottom: 'x' bottom: 'z' top: 'y' scale_param { axis: 0 } ",
     {SHAPE(3, 2, 2, 3), SHAPE(3, 2)},
     .n_bottoms = 2},
    {"name: 's' type: 'Scale' bottom: 'x' bottom: 'z' top: 'x' scale_param { axis: 1 bias_term: "
     "true } ",
     {SHAPE(2, 3, 4), SHAPE(3)},
     .n_bottoms = 2},
    {"name: 's' type: 'Scale' bottom: 'x' bottom: 'z' top: 'y' scale_param { axis: -1 } ",
     {SHAPE(3, 2, 4), SHAPE(4)},
     .n_bottoms = 2},
    {"name: 'e' type: 'Eltwise' bottom: 'x' bottom: 'z' top: 'y' eltwise_param {  }",
     {SHAPE(3, 2, 4), SHAPE(3, 2, 4)},
     .n_bottoms = 2},
    {"name: 'e' type: 'Eltwise' bottom: 'x' bottom: 'z' bottom: 'w' top: 'y' eltwise_param { "
     "coeff: 1 coeff: -0.5 coeff: 2 }",
     {SHAPE(3, 7), SHAPE(3, 7), SHAPE(3, 7)},
     .n_bottoms = 3},
    {"name: 'e' type: 'Eltwise' bottom: 'x' bottom: 'z' bottom: 'w' top: 'y' eltwise_param {  }",
     {SHAPE(3, 7), SHAPE(3, 7), SHAPE(3, 7)},
     .n_bottoms = 3},
    {"name: 'e' type: 'Eltwise' bottom: 'x' bottom: 'z' top: 'y' eltwise_param { operation: PROD }",
     {SHAPE(3, 2, 4), SHAPE(3, 2, 4)},
     .n_bottoms = 2},
    {"name: 'e' type: 'Eltwise' bottom: 'x' bottom: 'z' bottom: 'w' top: 'y' eltwise_param { "
     "operation: PROD }",
     {SHAPE(3, 7), SHAPE(3, 7), SHAPE(3, 7)},
     .n_bottoms = 3},
    {"name: 'e' type: 'Eltwise' bottom: 'x' bottom: 'z' bottom: 'w' top: 'y' eltwise_param { "
     "operation: PROD stable_prod_grad: false }",
     {SHAPE(3, 7), SHAPE(3, 7), SHAPE(3, 7)},
     .n_bottoms = 3,
     .inputs = OFF_ZERO},
    {"name: 'e' type: 'Eltwise' bottom: 'x' bottom: 'z' top: 'y' eltwise_param { operation: MAX }",
     {SHAPE(4, 9), SHAPE(4, 9)},
     .n_bottoms = 2,
     .inputs = APART},
    {"name: 'e' type: 'Eltwise' bottom: 'x' bottom: 'z' bottom: 'w' top: 'y' eltwise_param { "
     "operation: MAX }",
     {SHAPE(4, 9), SHAPE(4, 9), SHAPE(4, 9)},
     .n_bottoms = 3,
     .inputs = APART},
    {"name: 'n' type: 'LRN' bottom: 'x' top: 'y' lrn_param { alpha: 0.8 k: 1.5 }",
     {SHAPE(2, 7, 3, 2)},
     .n_bottoms = 1},
    {"name: 'n' type: 'LRN' bottom: 'x' top: 'y' lrn_param { local_size: 3 alpha: 0.9 beta: 0.5 }",
     {SHAPE(2, 4, 2, 3)},
     .n_bottoms = 1},
    {"name: 'n' type: 'LRN' bottom: 'x' top: 'y' lrn_param { local_size: 9 alpha: 0.7 beta: 1.3 k: "
     "2 }",
     {SHAPE(2, 5, 2, 3)},
     .n_bottoms = 1},
    {"name: 'n' type: 'LRN' bottom: 'x' top: 'y' lrn_param { local_size: 1 alpha: 0.7 }",
     {SHAPE(1, 3, 4, 4)},
     .n_bottoms = 1},
    {"name: 'n' type: 'LRN' bottom: 'x' top: 'y' lrn_param { norm_region: WITHIN_CHANNEL "
     "local_size: 3 alpha: 2 }",
     {SHAPE(2, 2, 5, 4)},
     .n_bottoms = 1},
    {"name: 'n' type: 'LRN' bottom: 'x' top: 'y' lrn_param { norm_region: WITHIN_CHANNEL "
     "local_size: 7 alpha: 3 beta: 0.6 }",
     {SHAPE(2, 1, 3, 5)},
     .n_bottoms = 1},
    {"name: 'c' type: 'Concat' bottom: 'x' bottom: 'z' bottom: 'w' top: 'y' concat_param {  }",
     {SHAPE(2, 3, 4), SHAPE(2, 1, 4), SHAPE(2, 2, 4)},
     .n_bottoms = 3},
    {"name: 'c' type: 'Concat' bottom: 'x' bottom: 'z' top: 'y' concat_param { axis: -1 }",
     {SHAPE(2, 3, 1), SHAPE(2, 3, 4)},
     .n_bottoms = 2},
    {"name: 'c' type: 'Concat' bottom: 'x' bottom: 'z' top: 'y' concat_param { concat_dim: 0 }",
     {SHAPE(2, 3), SHAPE(1, 3)},
     .n_bottoms = 2},
    {"name: 'c' type: 'Concat' bottom: 'x' top: 'y' concat_param {  }",
     {SHAPE(2, 3)},
     .n_bottoms = 1},
    {"name: 'f' type: 'Flatten' bottom: 'x' top: 'y'", {SHAPE(2, 3, 2)}, .n_bottoms = 1},
    {"name: 't' type: 'TanH' bottom: 'x' top: 'y'", {SHAPE(3, 5)}, .n_bottoms = 1},
    {"name: 't' type: 'TanH' bottom: 'x' top: 'x'", {SHAPE(3, 5)}, .n_bottoms = 1},
    {"name: 'k' type: 'Split' bottom: 'x' top: 'a'", {SHAPE(3, 4)}, .n_bottoms = 1},
    {"name: 'k' type: 'Split' bottom: 'x' top: 'a' top: 'b'", {SHAPE(3, 4)}, .n_bottoms = 1},
    {"name: 'k' type: 'Split' bottom: 'x' top: 'a' top: 'b' top: 'c' top: 'd'",
     {SHAPE(3, 4)},
     .n_bottoms = 1},
};

/* Whether a test of gradients, here or in another file of this folder, has a case of the type. */
static bool has_case(const char *type) {
    char whole[64], of_macro[64], path[4096];
    snprintf(whole, sizeof whole, "type: '%s'", type);
    snprintf(of_macro, sizeof of_macro, "(\"%s\"", type);
    DIR *folder = opendir(SHOAL_SOURCE "/tests/grad");
    assert_non_null(folder);
    bool found = false;
    for (const struct dirent *entry; !found && (entry = readdir(folder));) {
        unsigned char *text = NULL;
        size_t size;
        ShoalError err = {0};
        snprintf(path, sizeof path, "%s/%s", SHOAL_SOURCE "/tests/grad", entry->d_name);
        if (strncmp(entry->d_name, "test_grad", 9) == 0 &&
            shoal_file_read(path, &text, &size, &err) == SHOAL_OK)
            found = strstr((const char *)text, whole) || strstr((const char *)text, of_macro);
        shoal_free(text);
    }
    closedir(folder);
    return found;
}

static void test_no_layer_is_left_out(void **state) {
    (void)state;
    const ShoalLayerClass *class;
    for (size_t n = 0; (class = shoal_layer_class_at(n)); n++)
        if (class->backward && !has_case(class->type))
            fail_msg("layer type %s has a backward pass, but no case in tests/grad", class->type);
}

GRAD_MAIN(CASES, cmocka_unit_test(test_no_layer_is_left_out))
