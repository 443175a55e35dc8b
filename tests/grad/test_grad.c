/* SPDX-License-Identifier: Apache-2.0 */
/* The backward pass of every layer against numeric gradients (central differences), for every
 * bottom and weight that gets one; and proof that the comparison fails for a wrong backward pass.
 *
 * The objective is L = sum of r * top with random r, summed in double; backward gets r as the tops'
 * diffs. Per value: |analytic - numeric| <= 1e-3 * (largest gradient of the tensor), step 1e-2 as
 * Caffe's GradientChecker has it. Errors of the method stay far below that: what does not depend on
 * the value cancels to the bit in L(x+h) - L(x-h); of what does, each top is off by about 1e-7, so
 * the quotient by about 1e-7 * sqrt(tops) / 2e-2 < 1e-4 for the sizes here, where gradients are
 * about 1; the curvature term h^2/6 * L''' is below 1e-4 for softmax. Inputs of ReLU stay 0.05
 * away from its kink, inputs of MAX differ by more than 2 h. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cpu/cpu.h"
#include "net_harness.h"

#define STEP 1e-2f
#define THRESHOLD 1e-3
#define BEFORE 0.25f /* what weight diffs hold before backward, which is to add to it */

typedef enum InputKind { SMOOTH, OFF_ZERO, DISTINCT, APART } InputKind;

typedef struct GradCase {
    const char *text;
    Shape bottoms[3];
    int n_bottoms;
    InputKind inputs;
    int classes; /* bottom 1 holds labels below this */
    int ignored; /* every third label is this one; 0: none is */
    int graded;  /* tops that pass a gradient; 0: all */
} GradCase;

#define CONV(settings)                                                                             \
    "name: 'c' type: 'Convolution' bottom: 'x' top: 'y' convolution_param { " settings " }"
#define POOL(settings)                                                                             \
    "name: 'p' type: 'Pooling' bottom: 'x' top: 'y' pooling_param { " settings " }"
#define IP(settings)                                                                               \
    "name: 'i' type: 'InnerProduct' bottom: 'x' top: 'y' inner_product_param { " settings " }"
#define LOSS(settings)                                                                             \
    "name: 'l' type: 'SoftmaxWithLoss' bottom: 'x' bottom: 't' top: 'y' " settings

static const GradCase CASES[] = {
    {CONV("num_output: 3 kernel_size: 3"), {SHAPE(2, 2, 5, 6)}, 1, SMOOTH, 0, 0, 0},
    {CONV("num_output: 4 kernel_size: 3 pad: 1 stride: 2"),
     {SHAPE(2, 3, 6, 7)},
     1,
     SMOOTH,
     0,
     0,
     0},
    {CONV("num_output: 2 kernel_h: 3 kernel_w: 2 pad_h: 0 pad_w: 2 stride_h: 1 stride_w: 3"),
     {SHAPE(2, 1, 5, 8)},
     1,
     SMOOTH,
     0,
     0,
     0},
    {CONV("num_output: 3 kernel_size: 3 dilation: 2 pad: 2"),
     {SHAPE(1, 2, 6, 5)},
     1,
     SMOOTH,
     0,
     0,
     0},
    {CONV(
         "num_output: 2 kernel_size: 2 kernel_size: 3 dilation: 3 dilation: 1 stride: 2 stride: 1"),
     {SHAPE(1, 2, 7, 5)},
     1,
     SMOOTH,
     0,
     0,
     0},
    {CONV("num_output: 6 kernel_size: 3 group: 2 pad: 1"), {SHAPE(2, 4, 4, 5)}, 1, SMOOTH, 0, 0, 0},
    {CONV("num_output: 4 kernel_size: 3 group: 4 bias_term: false"),
     {SHAPE(2, 4, 5, 5)},
     1,
     SMOOTH,
     0,
     0,
     0},
    {CONV("num_output: 5 kernel_size: 1"), {SHAPE(3, 3, 3, 4)}, 1, SMOOTH, 0, 0, 0},
    {CONV("num_output: 3 kernel_size: 5 pad: 2"), {SHAPE(2, 2, 4, 3)}, 1, SMOOTH, 0, 0, 0},
    {CONV("num_output: 19 kernel_size: 3 pad: 1"), {SHAPE(1, 17, 4, 4)}, 1, SMOOTH, 0, 0, 0},
    {CONV("num_output: 2 kernel_size: 2") " param { lr_mult: 0 } param { lr_mult: 1 }",
     {SHAPE(2, 2, 3, 4)},
     1,
     SMOOTH,
     0,
     0,
     0},
    {CONV("num_output: 2 kernel_size: 2") " param { lr_mult: 1 } param { lr_mult: 0 }",
     {SHAPE(2, 2, 3, 4)},
     1,
     SMOOTH,
     0,
     0,
     0},
    {"name: 'c' type: 'Convolution' bottom: 'x' bottom: 'z' top: 'y' top: 'w' "
     "convolution_param { num_output: 3 kernel_size: 2 stride: 2 }",
     {SHAPE(2, 2, 4, 5), SHAPE(2, 2, 4, 5)},
     2,
     SMOOTH,
     0,
     0,
     0},
    {POOL("kernel_size: 2 stride: 2"), {SHAPE(2, 2, 5, 6)}, 1, DISTINCT, 0, 0, 0},
    {POOL("kernel_size: 3 stride: 2 pad: 1"), {SHAPE(1, 2, 6, 7)}, 1, DISTINCT, 0, 0, 0},
    {POOL("kernel_h: 2 kernel_w: 3 stride: 1 round_mode: FLOOR"),
     {SHAPE(2, 1, 4, 5)},
     1,
     DISTINCT,
     0,
     0,
     0},
    {POOL("global_pooling: true"), {SHAPE(2, 3, 3, 4)}, 1, DISTINCT, 0, 0, 0},
    {"name: 'p' type: 'Pooling' bottom: 'x' top: 'y' top: 'mask' "
     "pooling_param { kernel_size: 3 stride: 2 }",
     {SHAPE(2, 2, 5, 5)},
     1,
     DISTINCT,
     0,
     0,
     1},
    {POOL("pool: AVE kernel_size: 2 stride: 2"), {SHAPE(2, 2, 5, 6)}, 1, SMOOTH, 0, 0, 0},
    {POOL("pool: AVE kernel_size: 3 stride: 2 pad: 1"), {SHAPE(2, 2, 6, 7)}, 1, SMOOTH, 0, 0, 0},
    {POOL("pool: AVE kernel_h: 4 kernel_w: 2 stride_h: 3 stride_w: 1 pad_h: 2 pad_w: 1"),
     {SHAPE(1, 2, 7, 4)},
     1,
     SMOOTH,
     0,
     0,
     0},
    {POOL("pool: AVE global_pooling: true"), {SHAPE(2, 3, 4, 3)}, 1, SMOOTH, 0, 0, 0},
    {IP("num_output: 5"), {SHAPE(4, 3, 2, 2)}, 1, SMOOTH, 0, 0, 0},
    {IP("num_output: 4 transpose: true"), {SHAPE(3, 7)}, 1, SMOOTH, 0, 0, 0},
    {IP("num_output: 3 bias_term: false"), {SHAPE(5, 6)}, 1, SMOOTH, 0, 0, 0},
    {IP("num_output: 3 axis: 2"), {SHAPE(2, 3, 2, 3)}, 1, SMOOTH, 0, 0, 0},
    {IP("num_output: 2 axis: -1 transpose: true"), {SHAPE(2, 3, 5)}, 1, SMOOTH, 0, 0, 0},
    {IP("num_output: 6 axis: 0"), {SHAPE(2, 5)}, 1, SMOOTH, 0, 0, 0},
    {IP("num_output: 3") " param { lr_mult: 0 }", {SHAPE(4, 5)}, 1, SMOOTH, 0, 0, 0},
    {"name: 'r' type: 'ReLU' bottom: 'x' top: 'y'", {SHAPE(3, 4, 3)}, 1, OFF_ZERO, 0, 0, 0},
    {"name: 'r' type: 'ReLU' bottom: 'x' top: 'x'", {SHAPE(3, 4, 3)}, 1, OFF_ZERO, 0, 0, 0},
    {"name: 'r' type: 'ReLU' bottom: 'x' top: 'y' relu_param { negative_slope: 0.1 }",
     {SHAPE(37)},
     1,
     OFF_ZERO,
     0,
     0,
     0},
    {"name: 'r' type: 'ReLU' bottom: 'x' top: 'x' relu_param { negative_slope: 0.3 }",
     {SHAPE(2, 19)},
     1,
     OFF_ZERO,
     0,
     0,
     0},
    {"name: 'r' type: 'ReLU' bottom: 'x' top: 'x' relu_param { negative_slope: -0.5 }",
     {SHAPE(2, 19)},
     1,
     OFF_ZERO,
     0,
     0,
     0},
    {"name: 'd' type: 'Dropout' bottom: 'x' top: 'y'", {SHAPE(4, 9)}, 1, SMOOTH, 0, 0, 0},
    {"name: 'd' type: 'Dropout' bottom: 'x' top: 'x' dropout_param { dropout_ratio: 0.3 }",
     {SHAPE(4, 3, 3)},
     1,
     SMOOTH,
     0,
     0,
     0},
    {"name: 's' type: 'Softmax' bottom: 'x' top: 'y'", {SHAPE(3, 5)}, 1, SMOOTH, 0, 0, 0},
    {"name: 's' type: 'Softmax' bottom: 'x' top: 'x'", {SHAPE(2, 4, 3)}, 1, SMOOTH, 0, 0, 0},
    {"name: 's' type: 'Softmax' bottom: 'x' top: 'y' softmax_param { axis: -1 }",
     {SHAPE(2, 3, 4)},
     1,
     SMOOTH,
     0,
     0,
     0},
    {"name: 's' type: 'Softmax' bottom: 'x' top: 'y' softmax_param { axis: 0 }",
     {SHAPE(4, 3)},
     1,
     SMOOTH,
     0,
     0,
     0},
    {LOSS(""), {SHAPE(5, 4), SHAPE(5)}, 2, SMOOTH, 4, 0, 0},
    {LOSS("top: 'p'"), {SHAPE(5, 4), SHAPE(5)}, 2, SMOOTH, 4, 0, 1},
    {LOSS(""), {SHAPE(2, 3, 2, 2), SHAPE(2, 2, 2)}, 2, SMOOTH, 3, 0, 0},
    {LOSS("softmax_param { axis: 2 }"), {SHAPE(2, 3, 4), SHAPE(2, 3)}, 2, SMOOTH, 4, 0, 0},
    {LOSS("loss_param { ignore_label: 2 }"), {SHAPE(6, 4), SHAPE(6)}, 2, SMOOTH, 4, 2, 0},
    {LOSS("loss_param { ignore_label: 255 normalization: FULL }"),
     {SHAPE(6, 4), SHAPE(6, 1)},
     2,
     SMOOTH,
     4,
     255,
     0},
    {LOSS("loss_param { normalization: BATCH_SIZE }"),
     {SHAPE(2, 3, 2), SHAPE(2, 2)},
     2,
     SMOOTH,
     3,
     0,
     0},
    {LOSS("loss_param { normalization: NONE }"), {SHAPE(4, 3), SHAPE(4)}, 2, SMOOTH, 3, 0, 0},
    {LOSS("loss_param { normalize: false ignore_label: -1 }"),
     {SHAPE(2, 3, 3), SHAPE(2, 3)},
     2,
     SMOOTH,
     3,
     -1,
     0},
    {LOSS("loss_param { normalize: true }"), {SHAPE(2, 3, 3), SHAPE(2, 3)}, 2, SMOOTH, 3, 0, 0},
    {"name: 'b' type: 'BatchNorm' bottom: 'x' top: 'y' batch_norm_param {  }",
     {SHAPE(3, 2, 3, 4)},
     1,
     SMOOTH,
     0,
     0,
     0},
    {"name: 'b' type: 'BatchNorm' bottom: 'x' top: 'x' batch_norm_param { eps: 0.05 }",
     {SHAPE(4, 3, 2, 5)},
     1,
     SMOOTH,
     0,
     0,
     0},
    {"name: 'b' type: 'BatchNorm' bottom: 'x' top: 'y' batch_norm_param { use_global_stats: true }",
     {SHAPE(3, 2, 3, 4)},
     1,
     SMOOTH,
     0,
     0,
     0},
    {"name: 'b' type: 'BatchNorm' bottom: 'x' top: 'x' batch_norm_param { use_global_stats: true "
     "eps: 0.1 }",
     {SHAPE(5, 4)},
     1,
     SMOOTH,
     0,
     0,
     0},
    {"name: 'b' type: 'BatchNorm' bottom: 'x' top: 'y' batch_norm_param { moving_average_fraction: "
     "0.5 }",
     {SHAPE(6, 3)},
     1,
     SMOOTH,
     0,
     0,
     0},
    {"name: 's' type: 'Scale' bottom: 'x' top: 'y' scale_param {  } ",
     {SHAPE(3, 2, 3, 4)},
     1,
     SMOOTH,
     0,
     0,
     0},
    {"name: 's' type: 'Scale' bottom: 'x' top: 'x' scale_param { bias_term: true } ",
     {SHAPE(3, 2, 3, 4)},
     1,
     SMOOTH,
     0,
     0,
     0},
    {"name: 's' type: 'Scale' bottom: 'x' top: 'y' scale_param { bias_term: true axis: 2 num_axes: "
     "2 } ",
     {SHAPE(2, 3, 4, 2)},
     1,
     SMOOTH,
     0,
     0,
     0},
    {"name: 's' type: 'Scale' bottom: 'x' top: 'y' scale_param { bias_term: true axis: 0 num_axes: "
     "-1 } ",
     {SHAPE(3, 4)},
     1,
     SMOOTH,
     0,
     0,
     0},
    {"name: 's' type: 'Scale' bottom: 'x' top: 'x' scale_param { bias_term: true num_axes: 0 } ",
     {SHAPE(3, 2, 4)},
     1,
     SMOOTH,
     0,
     0,
     0},
    {"name: 's' type: 'Scale' bottom: 'x' top: 'y' scale_param { bias_term: true } param { "
     "lr_mult: 0 } param { lr_mult: 1 }",
     {SHAPE(3, 2, 3)},
     1,
     SMOOTH,
     0,
     0,
     0},
    {"name: 's' type: 'Scale' bottom: 'x' top: 'x' scale_param { bias_term: true } param { "
     "lr_mult: 1 } param { lr_mult: 0 }",
     {SHAPE(3, 2, 3)},
     1,
     SMOOTH,
     0,
     0,
     0},
    {"name: 's' type: 'Scale' bottom: 'x' bottom: 'z' top: 'y' scale_param { axis: 0 } ",
     {SHAPE(3, 2, 2, 3), SHAPE(3, 2)},
     2,
     SMOOTH,
     0,
     0,
     0},
    {"name: 's' type: 'Scale' bottom: 'x' bottom: 'z' top: 'x' scale_param { axis: 1 bias_term: "
     "true } ",
     {SHAPE(2, 3, 4), SHAPE(3)},
     2,
     SMOOTH,
     0,
     0,
     0},
    {"name: 's' type: 'Scale' bottom: 'x' bottom: 'z' top: 'y' scale_param { axis: -1 } ",
     {SHAPE(3, 2, 4), SHAPE(4)},
     2,
     SMOOTH,
     0,
     0,
     0},
    {"name: 'e' type: 'Eltwise' bottom: 'x' bottom: 'z' top: 'y' eltwise_param {  }",
     {SHAPE(3, 2, 4), SHAPE(3, 2, 4)},
     2,
     SMOOTH,
     0,
     0,
     0},
    {"name: 'e' type: 'Eltwise' bottom: 'x' bottom: 'z' bottom: 'w' top: 'y' eltwise_param { "
     "coeff: 1 coeff: -0.5 coeff: 2 }",
     {SHAPE(3, 7), SHAPE(3, 7), SHAPE(3, 7)},
     3,
     SMOOTH,
     0,
     0,
     0},
    {"name: 'e' type: 'Eltwise' bottom: 'x' bottom: 'z' bottom: 'w' top: 'y' eltwise_param {  }",
     {SHAPE(3, 7), SHAPE(3, 7), SHAPE(3, 7)},
     3,
     SMOOTH,
     0,
     0,
     0},
    {"name: 'e' type: 'Eltwise' bottom: 'x' bottom: 'z' top: 'y' eltwise_param { operation: PROD }",
     {SHAPE(3, 2, 4), SHAPE(3, 2, 4)},
     2,
     SMOOTH,
     0,
     0,
     0},
    {"name: 'e' type: 'Eltwise' bottom: 'x' bottom: 'z' bottom: 'w' top: 'y' eltwise_param { "
     "operation: PROD }",
     {SHAPE(3, 7), SHAPE(3, 7), SHAPE(3, 7)},
     3,
     SMOOTH,
     0,
     0,
     0},
    {"name: 'e' type: 'Eltwise' bottom: 'x' bottom: 'z' bottom: 'w' top: 'y' eltwise_param { "
     "operation: PROD stable_prod_grad: false }",
     {SHAPE(3, 7), SHAPE(3, 7), SHAPE(3, 7)},
     3,
     OFF_ZERO,
     0,
     0,
     0},
    {"name: 'e' type: 'Eltwise' bottom: 'x' bottom: 'z' top: 'y' eltwise_param { operation: MAX }",
     {SHAPE(4, 9), SHAPE(4, 9)},
     2,
     APART,
     0,
     0,
     0},
    {"name: 'e' type: 'Eltwise' bottom: 'x' bottom: 'z' bottom: 'w' top: 'y' eltwise_param { "
     "operation: MAX }",
     {SHAPE(4, 9), SHAPE(4, 9), SHAPE(4, 9)},
     3,
     APART,
     0,
     0,
     0},
    {"name: 'n' type: 'LRN' bottom: 'x' top: 'y' lrn_param { alpha: 0.8 k: 1.5 }",
     {SHAPE(2, 7, 3, 2)},
     1,
     SMOOTH,
     0,
     0,
     0},
    {"name: 'n' type: 'LRN' bottom: 'x' top: 'y' lrn_param { local_size: 3 alpha: 0.9 beta: 0.5 }",
     {SHAPE(2, 4, 2, 3)},
     1,
     SMOOTH,
     0,
     0,
     0},
    {"name: 'n' type: 'LRN' bottom: 'x' top: 'y' lrn_param { local_size: 9 alpha: 0.7 beta: 1.3 k: "
     "2 }",
     {SHAPE(2, 5, 2, 3)},
     1,
     SMOOTH,
     0,
     0,
     0},
    {"name: 'n' type: 'LRN' bottom: 'x' top: 'y' lrn_param { local_size: 1 alpha: 0.7 }",
     {SHAPE(1, 3, 4, 4)},
     1,
     SMOOTH,
     0,
     0,
     0},
    {"name: 'n' type: 'LRN' bottom: 'x' top: 'y' lrn_param { norm_region: WITHIN_CHANNEL "
     "local_size: 3 alpha: 2 }",
     {SHAPE(2, 2, 5, 4)},
     1,
     SMOOTH,
     0,
     0,
     0},
    {"name: 'n' type: 'LRN' bottom: 'x' top: 'y' lrn_param { norm_region: WITHIN_CHANNEL "
     "local_size: 7 alpha: 3 beta: 0.6 }",
     {SHAPE(2, 1, 3, 5)},
     1,
     SMOOTH,
     0,
     0,
     0},
    {"name: 'c' type: 'Concat' bottom: 'x' bottom: 'z' bottom: 'w' top: 'y' concat_param {  }",
     {SHAPE(2, 3, 4), SHAPE(2, 1, 4), SHAPE(2, 2, 4)},
     3,
     SMOOTH,
     0,
     0,
     0},
    {"name: 'c' type: 'Concat' bottom: 'x' bottom: 'z' top: 'y' concat_param { axis: -1 }",
     {SHAPE(2, 3, 1), SHAPE(2, 3, 4)},
     2,
     SMOOTH,
     0,
     0,
     0},
    {"name: 'c' type: 'Concat' bottom: 'x' bottom: 'z' top: 'y' concat_param { concat_dim: 0 }",
     {SHAPE(2, 3), SHAPE(1, 3)},
     2,
     SMOOTH,
     0,
     0,
     0},
    {"name: 'c' type: 'Concat' bottom: 'x' top: 'y' concat_param {  }",
     {SHAPE(2, 3)},
     1,
     SMOOTH,
     0,
     0,
     0},
    {"name: 'f' type: 'Flatten' bottom: 'x' top: 'y'", {SHAPE(2, 3, 2)}, 1, SMOOTH, 0, 0, 0},
    {"name: 't' type: 'TanH' bottom: 'x' top: 'y'", {SHAPE(3, 5)}, 1, SMOOTH, 0, 0, 0},
    {"name: 't' type: 'TanH' bottom: 'x' top: 'x'", {SHAPE(3, 5)}, 1, SMOOTH, 0, 0, 0},
    {"name: 'k' type: 'Split' bottom: 'x' top: 'a'", {SHAPE(3, 4)}, 1, SMOOTH, 0, 0, 0},
    {"name: 'k' type: 'Split' bottom: 'x' top: 'a' top: 'b'", {SHAPE(3, 4)}, 1, SMOOTH, 0, 0, 0},
    {"name: 'k' type: 'Split' bottom: 'x' top: 'a' top: 'b' top: 'c' top: 'd'",
     {SHAPE(3, 4)},
     1,
     SMOOTH,
     0,
     0,
     0},
};

enum { N_CASES = sizeof CASES / sizeof CASES[0] };

/* ---- the checker ---- */

typedef struct Check {
    const GradCase *what;
    Harness h;
    float *inputs[HARNESS_BLOBS];  /* the bottoms' values: an in-place layer overwrites them */
    float *factors[HARNESS_BLOBS]; /* r, per top */
    char report[256];              /* the first wrong value; empty when all are right */
} Check;

static int graded_tops(const Check *check) {
    return check->what->graded ? check->what->graded : check->h.layer.n_tops;
}

static void shuffle(ShoalRng *rng, size_t n, float *values) {
    for (size_t i = n; i > 1; i--) {
        size_t j = shoal_rng_below(rng, (uint32_t)i);
        float other = values[i - 1];
        values[i - 1] = values[j];
        values[j] = other;
    }
}

static void draw_input(ShoalRng *rng, InputKind kind, int bottom, size_t n, float *values) {
    shoal_rng_fill_uniform(rng, -1, 1, n, values);
    for (size_t i = 0; i < n; i++) {
        if (kind == OFF_ZERO)
            values[i] += values[i] < 0 ? -0.05f : 0.05f;
        if (kind == DISTINCT)
            values[i] = ((float)i - (float)n / 2) * 0.05f;
        if (kind == APART) /* at one place: at least 0.05 from other bottoms' */
            values[i] = roundf(values[i] / 0.15f) * 0.15f + 0.05f * (float)bottom;
    }
    if (kind == DISTINCT)
        shuffle(rng, n, values);
}

static void draw_labels(ShoalRng *rng, const GradCase *what, size_t n, float *values) {
    for (size_t i = 0; i < n; i++) {
        values[i] = (float)shoal_rng_below(rng, (uint32_t)what->classes);
        if (what->ignored && i % 3 == 1)
            values[i] = (float)what->ignored;
    }
}

static void check_draw(Check *check) {
    ShoalLayer *layer = &check->h.layer;
    ShoalRng rng;
    shoal_rng_init(&rng, 20, SHOAL_RNG_TEST, (uint32_t)(check->what - CASES));
    for (int i = 0; i < layer->n_bottoms; i++) {
        size_t n = layer->bottoms[i]->count;
        check->inputs[i] = harness_floats(n);
        if (i == 1 && check->what->classes)
            draw_labels(&rng, check->what, n, check->inputs[i]);
        else
            draw_input(&rng, check->what->inputs, i, n, check->inputs[i]);
    }
    for (int i = 0; i < layer->n_params; i++) {
        ShoalBlob *blob = &layer->params[i]->blob;
        /* What does not learn may be a variance. */
        bool learns = layer->params[i]->learns;
        shoal_rng_fill_uniform(&rng, learns ? -1 : 0.5f, learns ? 1 : 1.5f, blob->count,
                               blob->data);
    }
    for (int i = 0; i < graded_tops(check); i++) {
        check->factors[i] = harness_floats(layer->tops[i]->count);
        shoal_rng_fill_uniform(&rng, 0.5f, 2, layer->tops[i]->count, check->factors[i]);
        for (size_t j = 1; j < layer->tops[i]->count; j += 2)
            check->factors[i][j] *= -1;
    }
}

static void restore_inputs(Check *check) {
    ShoalLayer *layer = &check->h.layer;
    for (int i = 0; i < layer->n_bottoms; i++)
        harness_set(layer->bottoms[i]->data, layer->bottoms[i]->count, check->inputs[i]);
}

static double objective(Check *check) {
    restore_inputs(check);
    harness_forward(&check->h);
    double sum = 0;
    for (int i = 0; i < graded_tops(check); i++) {
        const ShoalBlob *top = check->h.layer.tops[i];
        for (size_t j = 0; j < top->count; j++)
            sum += (double)check->factors[i][j] * (double)top->data[j];
    }
    return sum;
}

/* Forward and backward; diffs of bottoms hold garbage before, those of weights BEFORE. */
static void run_backward(Check *check) {
    ShoalLayer *layer = &check->h.layer;
    restore_inputs(check);
    harness_forward(&check->h);
    for (int i = 0; i < layer->n_bottoms; i++)
        for (size_t j = 0; layer->propagate[i] && j < layer->bottoms[i]->count; j++)
            layer->bottoms[i]->diff[j] = NAN;
    for (int i = 0; i < layer->n_params; i++)
        for (size_t j = 0; layer->params[i]->learns && j < layer->params[i]->blob.count; j++)
            layer->params[i]->blob.diff[j] = BEFORE;
    for (int i = 0; i < graded_tops(check); i++)
        harness_set(layer->tops[i]->diff, layer->tops[i]->count, check->factors[i]);
    harness_backward(&check->h);
}

/* Compares diff[0..n), less `before`, with the differences of L in values[0..n). */
static void compare(Check *check, const char *name, size_t n, float *values, const float *diff,
                    float before) {
    double *numeric = calloc(n, sizeof *numeric);
    assert_non_null(numeric);
    double largest = 0;
    for (size_t i = 0; i < n; i++) {
        float old = values[i];
        float high = old + STEP, low = old - STEP;
        values[i] = high;
        double above = objective(check);
        values[i] = low;
        double below = objective(check);
        values[i] = old;
        numeric[i] = (above - below) / ((double)high - (double)low);
        largest = fmax(largest, fabs(numeric[i]));
    }
    for (size_t i = 0; i < n; i++) {
        double analytic = (double)diff[i] - (double)before;
        if (!(fabs(analytic - numeric[i]) <= THRESHOLD * fmax(largest, 0.1)) && !check->report[0])
            snprintf(check->report, sizeof check->report, "%s [%zu]: backward %g, numeric %g", name,
                     i, analytic, numeric[i]);
    }
    free(numeric);
}

static float *copy_diff(const ShoalBlob *blob) {
    float *copy = harness_floats(blob->count);
    harness_set(copy, blob->count, blob->diff);
    return copy;
}

static void compare_all(Check *check) {
    ShoalLayer *layer = &check->h.layer;
    float *diffs[2 * HARNESS_BLOBS] = {NULL};
    run_backward(check);
    for (int i = 0; i < layer->n_bottoms; i++)
        diffs[i] = layer->propagate[i] ? copy_diff(layer->bottoms[i]) : NULL;
    for (int i = 0; i < layer->n_params; i++)
        diffs[HARNESS_BLOBS + i] =
            layer->params[i]->learns ? copy_diff(&layer->params[i]->blob) : NULL;
    char name[32];
    for (int i = 0; i < layer->n_bottoms; i++) {
        snprintf(name, sizeof name, "bottom %d", i);
        if (diffs[i])
            compare(check, name, layer->bottoms[i]->count, check->inputs[i], diffs[i], 0);
    }
    for (int i = 0; i < layer->n_params; i++) {
        ShoalBlob *blob = &layer->params[i]->blob;
        snprintf(name, sizeof name, "weights %d", i);
        if (diffs[HARNESS_BLOBS + i])
            compare(check, name, blob->count, blob->data, diffs[HARNESS_BLOBS + i], BEFORE);
    }
    for (int i = 0; i < 2 * HARNESS_BLOBS; i++)
        shoal_free(diffs[i]);
}

/* The first error of a case into report; empty when its gradients are right. */
static void check_case(const GradCase *what, const ShoalLayerClass *class,
                       const ShoalKernels *kernels, ShoalPool *pool, char report[256]) {
    Check *check = calloc(1, sizeof *check);
    assert_non_null(check);
    Harness *h = &check->h;
    check->what = what;
    harness_init(h, what->text, class, what->n_bottoms, what->bottoms);
    h->compute.kernels = kernels;
    h->compute.pool = pool;
    h->context.threads = (int)shoal_pool_threads(pool);
    h->context.batch_full *= 2; /* a share of half the batch */
    if (harness_setup(h) != SHOAL_OK)
        fail_msg("%s: %s", what->text, h->err.text);
    harness_allocate(h);
    check_draw(check);
    compare_all(check);
    memcpy(report, check->report, sizeof check->report);
    for (int i = 0; i < HARNESS_BLOBS; i++) {
        shoal_free(check->inputs[i]);
        shoal_free(check->factors[i]);
    }
    harness_close(h);
    free(check);
}

/* ---- the tests ---- */

static void check_all_cases(const ShoalKernels *kernels, ShoalPool *pool, const char *level) {
    for (size_t i = 0; i < N_CASES; i++) {
        char report[256];
        check_case(&CASES[i], NULL, kernels, pool, report);
        if (report[0])
            fail_msg("level %s: %s: %s", level, CASES[i].text, report);
    }
}

static void test_every_level(void **state) {
    (void)state;
    for (int level = 0; level < SHOAL_CPU_LEVELS; level++) {
        const ShoalKernels *kernels = shoal_cpu_level_usable((ShoalCpuLevel)level)
                                          ? shoal_kernels_for((ShoalCpuLevel)level)
                                          : NULL;
        if (kernels)
            check_all_cases(kernels, NULL, shoal_cpu_level_name((ShoalCpuLevel)level));
    }
}

static void test_several_threads(void **state) {
    (void)state;
    ShoalCpuLevel level;
    ShoalError err = {0};
    assert_int_equal(shoal_cpu_level_choose(NULL, &level, &err), SHOAL_OK);
    ShoalPool *pool = shoal_pool_create(3);
    assert_non_null(pool);
    check_all_cases(shoal_kernels_for(level), pool, shoal_cpu_level_name(level));
    shoal_pool_destroy(pool);
}

static void test_no_layer_is_left_out(void **state) {
    (void)state;
    const ShoalLayerClass *class;
    for (size_t n = 0; (class = shoal_layer_class_at(n)); n++) {
        bool found = !class->backward;
        char type[64];
        snprintf(type, sizeof type, "type: '%s'", class->type);
        for (size_t i = 0; i < N_CASES; i++)
            found = found || strstr(CASES[i].text, type);
        if (!found)
            fail_msg("layer type %s has a backward pass, but no case here", class->type);
    }
}

/* ---- backward passes that are broken on purpose ---- */

typedef enum Fault { SCALED, DROPPED, FLIPPED, FAULTS } Fault;

static const char *const FAULT_NAMES[FAULTS] = {"scaled by 1.01", "dropped", "flipped"};

static struct {
    const ShoalLayerClass *honest;
    Fault fault;
    int bottom, param; /* whose gradient; -1: not a bottom's, respectively not a weight's */
} saboteur;

static void break_gradient(float *diff, size_t n, float before) {
    size_t largest = 0;
    for (size_t i = 0; i < n; i++)
        if (fabsf(diff[i] - before) > fabsf(diff[largest] - before))
            largest = i;
    for (size_t i = 0; i < n; i++) {
        if (saboteur.fault == SCALED)
            diff[i] = before + 1.01f * (diff[i] - before);
        if (saboteur.fault == DROPPED)
            diff[i] = before;
    }
    if (saboteur.fault == FLIPPED)
        diff[largest] = before - (diff[largest] - before);
}

static void broken_backward(ShoalLayer *layer, const ShoalCompute *compute) {
    saboteur.honest->backward(layer, compute);
    if (saboteur.bottom >= 0) {
        ShoalBlob *blob = layer->bottoms[saboteur.bottom];
        break_gradient(blob->diff, blob->count, 0);
    }
    if (saboteur.param >= 0 && layer->params[saboteur.param]->learns) {
        ShoalBlob *blob = &layer->params[saboteur.param]->blob;
        break_gradient(blob->diff, blob->count, BEFORE);
    }
}

static void expect_found(const GradCase *what, const ShoalLayerClass *honest, Fault fault,
                         int bottom, int param) {
    ShoalLayerClass broken = *honest;
    broken.backward = broken_backward;
    saboteur.honest = honest;
    saboteur.fault = fault;
    saboteur.bottom = bottom;
    saboteur.param = param;
    char report[256];
    check_case(what, &broken, shoal_kernels_for(SHOAL_CPU_C), NULL, report);
    if (!report[0])
        fail_msg("%s: the gradient of %s %d is %s, and nobody noticed", what->text,
                 bottom >= 0 ? "bottom" : "weights", bottom >= 0 ? bottom : param,
                 FAULT_NAMES[fault]);
}

/* Every gradient of a case, broken in every way. */
static void break_case(const GradCase *what) {
    Harness *h = calloc(1, sizeof *h);
    assert_non_null(h);
    harness_open(h, what->text, what->n_bottoms, what->bottoms);
    const ShoalLayerClass *class = h->layer.class;
    for (Fault fault = 0; fault < FAULTS; fault++) {
        for (int i = 0; i < h->layer.n_bottoms; i++)
            if (h->layer.propagate[i])
                expect_found(what, class, fault, i, -1);
        for (int i = 0; i < h->layer.n_params; i++)
            if (h->layer.params[i]->learns)
                expect_found(what, class, fault, -1, i);
    }
    harness_close(h);
    free(h);
}

static void test_broken_backward_is_found(void **state) {
    (void)state;
    for (size_t i = 0; i < N_CASES; i++)
        break_case(&CASES[i]);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_level),
        cmocka_unit_test(test_several_threads),
        cmocka_unit_test(test_no_layer_is_left_out),
        cmocka_unit_test(test_broken_backward_is_found),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
