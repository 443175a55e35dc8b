/* SPDX-License-Identifier: Apache-2.0 */
/* The gradients of the layers that move values about. */
#include "grad/grad.h"

#define GRAD_ONE(kind, shape, what)                                                                \
    { .text = (what), .bottoms = {shape}, .n_bottoms = 1, .inputs = (kind) }
#define GRAD_TWO(kind, a, b, what)                                                                 \
    { .text = (what), .bottoms = {a, b}, .n_bottoms = 2, .inputs = (kind) }

#define INDICES 4 /* samples that BatchReindex and Embed choose from */

static bool draw_indices(ShoalRng *rng, int bottom, size_t n, float *values) {
    for (size_t i = 0; bottom == 1 && i < n; i++)
        values[i] = (float)shoal_rng_below(rng, INDICES);
    return bottom == 1;
}

static bool draw_words(ShoalRng *rng, int bottom, size_t n, float *values) {
    return draw_indices(rng, bottom + 1, n, values);
}

/* The last of two bottoms chooses. */
static bool draw_selector(ShoalRng *rng, int bottom, size_t n, float *values) {
    (void)rng;
    for (size_t i = 0; bottom == 1 && i < n; i++)
        values[i] = i % 2 ? 0 : 1;
    return bottom == 1;
}

#define DECONV(settings)                                                                           \
    "name: 'd' type: 'Deconvolution' bottom: 'x' top: 'y' convolution_param { " settings " }"
#define SLICE(tops, settings)                                                                      \
    "name: 's' type: 'Slice' bottom: 'x' " tops " slice_param { " settings " }"
#define RESHAPE(settings)                                                                          \
    "name: 'r' type: 'Reshape' bottom: 'x' top: 'y' reshape_param { " settings " }"
#define REDUCE(settings)                                                                           \
    "name: 'r' type: 'Reduction' bottom: 'x' top: 'y' reduction_param { " settings " }"
#define CROP(settings)                                                                             \
    "name: 'c' type: 'Crop' bottom: 'x' bottom: 'z' top: 'y' propagate_down: true "                \
    "propagate_down: false crop_param { " settings " }"
#define SPP(settings) "name: 's' type: 'SPP' bottom: 'x' top: 'y' spp_param { " settings " }"

static const GradCase CASES[] = {
    GRAD_ONE(SMOOTH, SHAPE(2, 3, 3, 4), DECONV("num_output: 2 kernel_size: 3")),
    GRAD_ONE(SMOOTH, SHAPE(2, 4, 3, 2),
             DECONV("num_output: 6 group: 2 kernel_size: 3 stride: 2 pad: 1 bias_term: false")),
    GRAD_ONE(SMOOTH, SHAPE(1, 2, 4, 3),
             DECONV("num_output: 3 kernel_h: 2 kernel_w: 3 stride: 2 dilation: 2")),
    GRAD_ONE(SMOOTH, SHAPE(2, 4, 3, 3),
             DECONV("num_output: 4 group: 4 kernel_size: 4 stride: 2 pad: 1")),
    {.text = "name: 'd' type: 'Deconvolution' bottom: 'x' bottom: 'z' top: 'y' top: 'w' "
             "convolution_param { num_output: 2 kernel_size: 2 stride: 2 }",
     .bottoms = {SHAPE(2, 3, 2, 3), SHAPE(2, 3, 2, 3)},
     .n_bottoms = 2},
    GRAD_ONE(SMOOTH, SHAPE(2, 6, 2), SLICE("top: 'a' top: 'b' top: 'c'", "")),
    GRAD_ONE(SMOOTH, SHAPE(2, 3, 7),
             SLICE("top: 'a' top: 'b' top: 'c'", "axis: -1 slice_point: 1 slice_point: 5")),
    GRAD_ONE(SMOOTH, SHAPE(4, 3), SLICE("top: 'a' top: 'b'", "slice_dim: 0 slice_point: 3")),
    GRAD_ONE(SMOOTH, SHAPE(2, 3), SLICE("top: 'a'", "")),
    GRAD_ONE(SMOOTH, SHAPE(2, 3, 4), RESHAPE("shape { dim: 0 dim: -1 }")),
    GRAD_ONE(SMOOTH, SHAPE(2, 4, 3), RESHAPE("shape { dim: 2 dim: 2 } axis: 1 num_axes: 1")),
    GRAD_ONE(SMOOTH, SHAPE(2, 4, 3), RESHAPE("shape { dim: 1 } axis: -1 num_axes: 0")),
    GRAD_ONE(SMOOTH, SHAPE(3, 4), REDUCE("")),
    GRAD_ONE(SMOOTH, SHAPE(3, 4, 2), REDUCE("axis: 1 coeff: 0.5")),
    GRAD_ONE(OFF_ZERO, SHAPE(3, 4), REDUCE("operation: ASUM axis: -1 coeff: 2")),
    GRAD_ONE(SMOOTH, SHAPE(3, 4), REDUCE("operation: SUMSQ axis: 1")),
    GRAD_ONE(SMOOTH, SHAPE(3, 4, 2), REDUCE("operation: MEAN axis: 1 coeff: 3")),
    GRAD_TWO(SMOOTH, SHAPE(2, 3, 5, 6), SHAPE(2, 3, 3, 2), CROP("offset: 1 offset: 3")),
    GRAD_TWO(SMOOTH, SHAPE(2, 3, 5, 6), SHAPE(2, 2, 4, 4), CROP("axis: 1 offset: 1")),
    GRAD_TWO(SMOOTH, SHAPE(2, 3, 5), SHAPE(2, 3, 4), CROP("axis: -1")),
    {.text = "name: 'b' type: 'BatchReindex' bottom: 'x' bottom: 'i' top: 'y'",
     .bottoms = {SHAPE(INDICES, 3, 2), SHAPE(7)},
     .n_bottoms = 2,
     .draw = draw_indices},
    {.text = "name: 'f' type: 'Filter' bottom: 'x' bottom: 's' top: 'y' propagate_down: true "
             "propagate_down: false",
     .bottoms = {SHAPE(5, 3, 2), SHAPE(5, 1)},
     .n_bottoms = 2,
     .draw = draw_selector},
    {.text = "name: 'e' type: 'Embed' bottom: 'x' top: 'y' embed_param { num_output: 3 "
             "input_dim: 4 }",
     .bottoms = {SHAPE(5, 2)},
     .n_bottoms = 1,
     .draw = draw_words},
    {.text = "name: 'e' type: 'Embed' bottom: 'x' top: 'y' embed_param { num_output: 3 "
             "input_dim: 4 bias_term: false }",
     .bottoms = {SHAPE(6)},
     .n_bottoms = 1,
     .draw = draw_words},
    GRAD_ONE(SMOOTH, SHAPE(2, 2, 4, 5),
             "name: 'i' type: 'Im2col' bottom: 'x' top: 'y' convolution_param { kernel_size: 3 "
             "stride: 2 pad: 1 }"),
    GRAD_ONE(SMOOTH, SHAPE(1, 2, 5, 5),
             "name: 'i' type: 'Im2col' bottom: 'x' top: 'y' convolution_param { kernel_size: 2 "
             "dilation: 2 }"),
    GRAD_ONE(DISTINCT, SHAPE(2, 2, 6, 7), SPP("pyramid_height: 2")),
    GRAD_ONE(SMOOTH, SHAPE(2, 2, 6, 8), SPP("pyramid_height: 2 pool: AVE")),
    GRAD_ONE(DISTINCT, SHAPE(2, 3, 4, 5), SPP("pyramid_height: 1")),
    /* Which value is drawn does not change with small steps. */
    GRAD_ONE(POSITIVE, SHAPE(2, 2, 5, 5),
             "name: 'p' type: 'Pooling' bottom: 'x' top: 'y' pooling_param { pool: STOCHASTIC "
             "kernel_size: 1 stride: 2 }"),
};

GRAD_MAIN(CASES)
