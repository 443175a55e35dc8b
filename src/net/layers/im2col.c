/* SPDX-License-Identifier: Apache-2.0 */
#include "net/layers/layers.h"

#include <string.h>

/* Im2col: every window of a 2-D convolution as a column: [N][C * kernel_h * kernel_w][OH][OW]. Out
 * of range the bottom reads as 0. */

static ShoalStatus im2col_setup(ShoalLayer *layer, ShoalError *err) {
    ShoalStatus status = shoal_convolution_check(layer, err);
    return status ? status
                  : shoal_convolution_window(layer, layer->param->convolution_param, layer->state,
                                             err);
}

static ShoalStatus im2col_reshape(ShoalLayer *layer, ShoalError *err) {
    ShoalConvShape *shape = layer->state;
    const ShoalBlob *bottom = layer->bottoms[0];
    shape->batch = bottom->shape[0];
    shape->channels = bottom->shape[1];
    shape->height = bottom->shape[2];
    shape->width = bottom->shape[3];
    ShoalStatus status = shoal_convolution_out(layer, shape, err);
    if (status)
        return status;
    int64_t rows = (int64_t)shape->channels * shape->kernel_h * shape->kernel_w;
    int top[4] = {shape->batch, rows > INT32_MAX ? INT32_MAX : (int)rows, shape->out_height,
                  shape->out_width};
    return shoal_layer_shape_top(layer, 0, 4, top, err);
}

/* One row of a column matrix: to the column (or, `back`, added from it to the image). */
static void move_row(const ShoalConvShape *shape, int y, int x_shift, float *image, float *column,
                     bool back) {
    for (int j = 0; j < shape->out_width; j++) {
        int x = j * shape->stride_w - shape->pad_w + x_shift;
        bool inside = y >= 0 && y < shape->height && x >= 0 && x < shape->width;
        size_t at = inside ? (size_t)y * (size_t)shape->width + (size_t)x : 0;
        if (back && inside)
            image[at] += column[j];
        else if (!back)
            column[j] = inside ? image[at] : 0;
    }
}

static void move(const ShoalConvShape *shape, float *images, float *columns, bool back) {
    size_t plane = (size_t)shape->height * (size_t)shape->width;
    for (int c = 0; c < shape->batch * shape->channels; c++)
        for (int u = 0; u < shape->kernel_h; u++)
            for (int v = 0; v < shape->kernel_w; v++)
                for (int i = 0; i < shape->out_height; i++) {
                    int y = i * shape->stride_h - shape->pad_h + u * shape->dilation_h;
                    move_row(shape, y, v * shape->dilation_w, images + (size_t)c * plane, columns,
                             back);
                    columns += shape->out_width;
                }
}

static ShoalStatus im2col_forward(ShoalLayer *layer, const ShoalCompute *compute, ShoalError *err) {
    (void)compute;
    (void)err;
    move(layer->state, layer->bottoms[0]->data, layer->tops[0]->data, false);
    return SHOAL_OK;
}

static void im2col_backward(ShoalLayer *layer, const ShoalCompute *compute) {
    (void)compute;
    const ShoalBlob *bottom = layer->bottoms[0];
    if (!layer->propagate[0])
        return;
    memset(bottom->diff, 0, bottom->count * sizeof(float));
    move(layer->state, bottom->diff, layer->tops[0]->diff, true);
}

const ShoalLayerClass shoal_layer_im2col_class = {
    .type = "Im2col",
    .flags = SHOAL_LAYER_BWD_NO_BOTTOM | SHOAL_LAYER_BWD_NO_TOP,
    .min_bottoms = 1,
    .max_bottoms = 1,
    .min_tops = 1,
    .max_tops = 1,
    .state_bytes = sizeof(ShoalConvShape),
    .setup = im2col_setup,
    .reshape = im2col_reshape,
    .forward = im2col_forward,
    .backward = im2col_backward,
};
