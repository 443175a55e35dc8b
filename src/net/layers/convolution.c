/* SPDX-License-Identifier: Apache-2.0 */
#include "net/layers/layers.h"

#include <limits.h>
#include <stdio.h>

/* Convolution: 2-D, over axis 1 of [N][C][H][W]; every bottom i gives top i with the same weights.
 * weights [num_output][C / group][kernel_h][kernel_w], bias [num_output].
 * The output size is rounded down: (size + 2 pad - dilated kernel) / stride + 1. */

typedef struct ConvState {
    ShoalConvShape shape;
    bool bias;
} ConvState;

/* A setting that is given as a list (none, once, or for both axes) or as NAME_h and NAME_w. */
typedef struct PairSetting {
    const char *name;
    size_t n;
    const uint32_t *values;
    bool has_h, has_w;
    uint32_t h, w;
    bool required;
    uint32_t fallback;
    int min;
} PairSetting;

static ShoalStatus read_pair(const ShoalLayer *layer, const PairSetting *pair, int *h, int *w,
                             ShoalError *err) {
    uint32_t value_h = pair->fallback, value_w = pair->fallback;
    if (pair->has_h || pair->has_w) {
        if (pair->n || !pair->has_h || !pair->has_w)
            return shoal_layer_fail(
                layer, SHOAL_ERR_MODEL, err,
                "convolution_param gives %zu values for its %s list and %s_h %s, %s_w %s; expected "
                "the list alone, or both of the pair",
                pair->n, pair->name, pair->name, pair->has_h ? "too" : "not", pair->name,
                pair->has_w ? "too" : "not");
        value_h = pair->h;
        value_w = pair->w;
    } else if (pair->n > 2 || (pair->required && pair->n == 0)) {
        return shoal_layer_fail(
            layer, SHOAL_ERR_MODEL, err,
            "convolution_param has %zu values for %s; expected %s1 or 2: only 2-D "
            "convolution is supported",
            pair->n, pair->name, pair->required ? "" : "0, ");
    } else if (pair->n) {
        value_h = pair->values[0];
        value_w = pair->values[pair->n - 1];
    }
    char field[32];
    snprintf(field, sizeof field, "%s_h", pair->name);
    ShoalStatus status = shoal_layer_int(layer, field, value_h, pair->min, h, err);
    snprintf(field, sizeof field, "%s_w", pair->name);
    if (status == SHOAL_OK)
        status = shoal_layer_int(layer, field, value_w, pair->min, w, err);
    return status;
}

ShoalStatus shoal_convolution_window(const ShoalLayer *layer,
                                     const Caffe__ConvolutionParameter *param,
                                     ShoalConvShape *shape, ShoalError *err) {
    const PairSetting kernel = {.name = "kernel",
                                .n = param->n_kernel_size,
                                .values = param->kernel_size,
                                .has_h = param->has_kernel_h,
                                .has_w = param->has_kernel_w,
                                .h = param->kernel_h,
                                .w = param->kernel_w,
                                .required = true,
                                .min = 1};
    const PairSetting stride = {.name = "stride",
                                .n = param->n_stride,
                                .values = param->stride,
                                .has_h = param->has_stride_h,
                                .has_w = param->has_stride_w,
                                .h = param->stride_h,
                                .w = param->stride_w,
                                .fallback = 1,
                                .min = 1};
    /* Caffe lets pad_h stand alone: its pad_w defaults to 0. */
    const PairSetting pad = {.name = "pad",
                             .n = param->n_pad,
                             .values = param->pad,
                             .has_h = param->has_pad_h || param->has_pad_w,
                             .has_w = param->has_pad_h || param->has_pad_w,
                             .h = param->has_pad_h ? param->pad_h : 0,
                             .w = param->has_pad_w ? param->pad_w : 0};
    const PairSetting dilation = {.name = "dilation",
                                  .n = param->n_dilation,
                                  .values = param->dilation,
                                  .fallback = 1,
                                  .min = 1};
    ShoalStatus status = read_pair(layer, &kernel, &shape->kernel_h, &shape->kernel_w, err);
    if (status == SHOAL_OK)
        status = read_pair(layer, &stride, &shape->stride_h, &shape->stride_w, err);
    if (status == SHOAL_OK)
        status = read_pair(layer, &pad, &shape->pad_h, &shape->pad_w, err);
    if (status == SHOAL_OK)
        status = read_pair(layer, &dilation, &shape->dilation_h, &shape->dilation_w, err);
    return status;
}

static ShoalStatus read_outputs(const ShoalLayer *layer, const Caffe__ConvolutionParameter *param,
                                ShoalConvShape *shape, ShoalError *err) {
    ShoalStatus status =
        shoal_layer_int(layer, "num_output", param->num_output, 1, &shape->outputs, err);
    if (status == SHOAL_OK)
        status = shoal_layer_int(layer, "group", param->group, 1, &shape->group, err);
    if (status != SHOAL_OK)
        return status;
    if (shape->channels % shape->group || shape->outputs % shape->group)
        return shoal_layer_fail(layer, SHOAL_ERR_MODEL, err,
                                "group is %d; expected a number that divides both the %d channels "
                                "of '%s' and num_output %d",
                                shape->group, shape->channels, layer->bottoms[0]->name,
                                shape->outputs);
    return SHOAL_OK;
}

ShoalStatus shoal_convolution_check(const ShoalLayer *layer, ShoalError *err) {
    const Caffe__ConvolutionParameter *param = layer->param->convolution_param;
    int axis = 0;
    if (!param)
        return shoal_layer_fail(layer, SHOAL_ERR_MODEL, err,
                                "no convolution_param; expected one with num_output and "
                                "kernel_size");
    ShoalStatus status = shoal_layer_axis(layer, param->axis, &axis, err);
    if (status != SHOAL_OK)
        return status;
    const ShoalBlob *bottom = layer->bottoms[0];
    char text[128];
    if (bottom->axes != 4 || axis != 1)
        return shoal_layer_fail(layer, SHOAL_ERR_UNSUPPORTED, err,
                                "bottom '%s' is %s and the channel axis is %d; only 2-D "
                                "convolution is supported: 4 axes, channels on axis 1",
                                bottom->name, shoal_blob_shape_text(bottom, text, sizeof text),
                                axis);
    if (bottom->shape[1] < 1)
        return shoal_layer_fail(layer, SHOAL_ERR_MODEL, err,
                                "bottom '%s' is %s; expected at least one channel", bottom->name,
                                shoal_blob_shape_text(bottom, text, sizeof text));
    if (layer->n_bottoms != layer->n_tops)
        return shoal_layer_fail(layer, SHOAL_ERR_MODEL, err,
                                "%d bottoms and %d tops; expected as many tops as bottoms",
                                layer->n_bottoms, layer->n_tops);
    return SHOAL_OK;
}

static ShoalStatus conv_setup(ShoalLayer *layer, ShoalError *err) {
    ConvState *state = layer->state;
    ShoalConvShape *shape = &state->shape;
    const Caffe__ConvolutionParameter *param = layer->param->convolution_param;
    ShoalStatus status = shoal_convolution_check(layer, err);
    if (status != SHOAL_OK)
        return status;
    shape->channels = layer->bottoms[0]->shape[1];
    status = shoal_convolution_window(layer, param, shape, err);
    if (status == SHOAL_OK)
        status = read_outputs(layer, param, shape, err);
    if (status != SHOAL_OK)
        return status;
    state->bias = param->bias_term;
    int weights[4] = {shape->outputs, shape->channels / shape->group, shape->kernel_h,
                      shape->kernel_w};
    status = shoal_layer_declare(layer, 4, weights, param->weight_filler, err);
    if (status == SHOAL_OK && state->bias)
        status = shoal_layer_declare(layer, 1, weights, param->bias_filler, err);
    return status;
}

static ShoalStatus out_size(const ShoalLayer *layer, const char *axis, int size, int kernel,
                            int stride, int pad, int dilation, int *out, ShoalError *err) {
    int64_t extent = (int64_t)dilation * (kernel - 1) + 1, padded = size + 2 * (int64_t)pad;
    if (extent > padded)
        return shoal_layer_fail(layer, SHOAL_ERR_MODEL, err,
                                "the kernel's %s %d (%lld when dilated by %d) is larger than the "
                                "input's %s %d with pad %d (%lld in all); expected a kernel that "
                                "fits",
                                axis, kernel, (long long)extent, dilation, axis, size, pad,
                                (long long)padded);
    int64_t n = (padded - extent) / stride + 1;
    if (n > INT_MAX)
        return shoal_layer_fail(layer, SHOAL_ERR_MODEL, err,
                                "the output's %s would be %lld; expected at most %d", axis,
                                (long long)n, INT_MAX);
    *out = (int)n;
    return SHOAL_OK;
}

ShoalStatus shoal_convolution_out(const ShoalLayer *layer, ShoalConvShape *shape, ShoalError *err) {
    ShoalStatus status = out_size(layer, "height", shape->height, shape->kernel_h, shape->stride_h,
                                  shape->pad_h, shape->dilation_h, &shape->out_height, err);
    return status ? status
                  : out_size(layer, "width", shape->width, shape->kernel_w, shape->stride_w,
                             shape->pad_w, shape->dilation_w, &shape->out_width, err);
}

static ShoalStatus check_same_bottoms(const ShoalLayer *layer, ShoalError *err) {
    const ConvState *state = layer->state;
    const ShoalBlob *first = layer->bottoms[0];
    char have[128], want[128];
    if (first->axes != 4 || first->shape[1] != state->shape.channels)
        return shoal_layer_fail(
            layer, SHOAL_ERR_MODEL, err, "bottom '%s' became %s; its %d channels may not change",
            first->name, shoal_blob_shape_text(first, have, sizeof have), state->shape.channels);
    for (int i = 1; i < layer->n_bottoms; i++)
        if (!shoal_blob_same_shape(first, layer->bottoms[i]))
            return shoal_layer_fail(
                layer, SHOAL_ERR_MODEL, err,
                "bottom '%s' is %s, but '%s' is %s; expected bottoms of one shape",
                layer->bottoms[i]->name,
                shoal_blob_shape_text(layer->bottoms[i], have, sizeof have), first->name,
                shoal_blob_shape_text(first, want, sizeof want));
    return SHOAL_OK;
}

static ShoalStatus conv_reshape(ShoalLayer *layer, ShoalError *err) {
    ShoalConvShape *shape = &((ConvState *)layer->state)->shape;
    ShoalStatus status = check_same_bottoms(layer, err);
    if (status != SHOAL_OK)
        return status;
    shape->batch = layer->bottoms[0]->shape[0];
    shape->height = layer->bottoms[0]->shape[2];
    shape->width = layer->bottoms[0]->shape[3];
    status = shoal_convolution_out(layer, shape, err);
    if (status != SHOAL_OK)
        return status;
    int top[4] = {shape->batch, shape->outputs, shape->out_height, shape->out_width};
    for (int i = 0; i < layer->n_tops; i++) {
        status = shoal_layer_shape_top(layer, i, 4, top, err);
        if (status != SHOAL_OK)
            return status;
    }
    layer->workspace_bytes = shoal_conv_workspace_bytes(shape, (unsigned)layer->context->threads);
    return SHOAL_OK;
}

static ShoalStatus conv_forward(ShoalLayer *layer, const ShoalCompute *compute, ShoalError *err) {
    (void)err;
    const ConvState *state = layer->state;
    const float *bias = state->bias ? layer->params[1]->blob.data : NULL;
    for (int i = 0; i < layer->n_bottoms; i++)
        shoal_conv_fwd(compute, &state->shape, layer->bottoms[i]->data, layer->params[0]->blob.data,
                       bias, layer->tops[i]->data);
    return SHOAL_OK;
}

/* The bias learns while the weights are frozen. */
static void bias_gradient(const ShoalConvShape *shape, const float *dy, float *db) {
    size_t plane = (size_t)shape->out_height * (size_t)shape->out_width;
    for (int o = 0; o < shape->outputs; o++) {
        double sum = 0;
        for (int n = 0; n < shape->batch; n++)
            sum +=
                shoal_vec_sum(plane, dy + ((size_t)n * (size_t)shape->outputs + (size_t)o) * plane);
        db[o] += (float)sum;
    }
}

static void conv_backward(ShoalLayer *layer, const ShoalCompute *compute) {
    const ConvState *state = layer->state;
    const ShoalParam *weights = layer->params[0];
    float *db = state->bias && layer->params[1]->learns ? layer->params[1]->blob.diff : NULL;
    for (int i = 0; i < layer->n_tops; i++) {
        const float *x = layer->bottoms[i]->data, *dy = layer->tops[i]->diff;
        if (weights->learns)
            shoal_conv_bwd_weights(compute, &state->shape, x, dy, weights->blob.diff, db);
        else if (db)
            bias_gradient(&state->shape, dy, db);
        if (layer->propagate[i])
            shoal_conv_bwd_data(compute, &state->shape, dy, weights->blob.data,
                                layer->bottoms[i]->diff);
    }
}

const ShoalConvShape *shoal_convolution_shape(const ShoalLayer *layer) {
    return &((const ConvState *)layer->state)->shape;
}

const ShoalLayerClass shoal_layer_convolution_class = {
    .type = "Convolution",
    .flags = SHOAL_LAYER_BWD_NO_TOP,
    .min_bottoms = 1,
    .max_bottoms = -1,
    .min_tops = 1,
    .max_tops = -1,
    .state_bytes = sizeof(ConvState),
    .setup = conv_setup,
    .reshape = conv_reshape,
    .forward = conv_forward,
    .backward = conv_backward,
};
