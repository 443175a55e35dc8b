/* SPDX-License-Identifier: Apache-2.0 */
#include "net/layers/layers.h"

#include <limits.h>

/* Deconvolution: 2-D, the transpose of a Convolution: its forward pass is the other's gradient for
 * the data and the other way round. weights [C][num_output / group][kernel_h][kernel_w], C channels
 * of the bottom; bias [num_output]. The output has stride * (size - 1) + dilated kernel - 2 pad. */

typedef struct DeconvolutionState {
    ShoalConvShape shape; /* of the convolution from the top to the bottom */
    bool bias;
} DeconvolutionState;

static ShoalStatus deconvolution_setup(ShoalLayer *layer, ShoalError *err) {
    DeconvolutionState *state = layer->state;
    ShoalConvShape *shape = &state->shape;
    const Caffe__ConvolutionParameter *param = layer->param->convolution_param;
    ShoalStatus status = shoal_convolution_check(layer, err);
    if (!status)
        status = shoal_convolution_window(layer, param, shape, err);
    if (!status)
        status = shoal_layer_int(layer, "num_output", param->num_output, 1, &shape->channels, err);
    if (!status)
        status = shoal_layer_int(layer, "group", param->group, 1, &shape->group, err);
    if (status)
        return status;
    shape->outputs = layer->bottoms[0]->shape[1];
    if (shape->channels % shape->group || shape->outputs % shape->group)
        return shoal_layer_fail(layer, SHOAL_ERR_MODEL, err,
                                "group is %d; expected a number that divides both the %d channels "
                                "of '%s' and num_output %d",
                                shape->group, shape->outputs, layer->bottoms[0]->name,
                                shape->channels);
    state->bias = param->bias_term;
    int weights[4] = {shape->outputs, shape->channels / shape->group, shape->kernel_h,
                      shape->kernel_w};
    status = shoal_layer_declare(layer, 4, weights, param->weight_filler, err);
    if (!status && state->bias)
        status = shoal_layer_declare(layer, 1, &shape->channels, param->bias_filler, err);
    return status;
}

static ShoalStatus out_size(const ShoalLayer *layer, const char *axis, int size, int kernel,
                            int stride, int pad, int dilation, int *out, ShoalError *err) {
    int64_t extent = (int64_t)dilation * (kernel - 1) + 1;
    int64_t n = (int64_t)stride * (size - 1) + extent - 2 * (int64_t)pad;
    if (size < 1 || n < 1 || n > INT_MAX)
        return shoal_layer_fail(layer, SHOAL_ERR_MODEL, err,
                                "the output's %s would be %lld; expected 1 to %d", axis,
                                (long long)n, INT_MAX);
    *out = (int)n;
    return SHOAL_OK;
}

static ShoalStatus deconvolution_reshape(ShoalLayer *layer, ShoalError *err) {
    ShoalConvShape *shape = &((DeconvolutionState *)layer->state)->shape;
    const ShoalBlob *first = layer->bottoms[0];
    if (first->axes != 4 || first->shape[1] != shape->outputs)
        return shoal_layer_fail(layer, SHOAL_ERR_MODEL, err,
                                "bottom '%s' has changed; its %d channels may not", first->name,
                                shape->outputs);
    shape->batch = first->shape[0];
    shape->out_height = first->shape[2];
    shape->out_width = first->shape[3];
    ShoalStatus status =
        out_size(layer, "height", shape->out_height, shape->kernel_h, shape->stride_h, shape->pad_h,
                 shape->dilation_h, &shape->height, err);
    if (!status)
        status = out_size(layer, "width", shape->out_width, shape->kernel_w, shape->stride_w,
                          shape->pad_w, shape->dilation_w, &shape->width, err);
    int top[4] = {shape->batch, shape->channels, shape->height, shape->width};
    for (int i = 0; i < layer->n_tops && !status; i++) {
        if (!shoal_blob_same_shape(first, layer->bottoms[i]))
            return shoal_layer_fail(layer, SHOAL_ERR_MODEL, err,
                                    "bottoms '%s' and '%s' differ in shape", first->name,
                                    layer->bottoms[i]->name);
        status = shoal_layer_shape_top(layer, i, 4, top, err);
    }
    layer->workspace_bytes = shoal_conv_workspace_bytes(shape, (unsigned)layer->context->threads);
    return status;
}

static ShoalStatus deconvolution_forward(ShoalLayer *layer, const ShoalCompute *compute,
                                         ShoalError *err) {
    (void)err;
    const DeconvolutionState *state = layer->state;
    const ShoalConvShape *shape = &state->shape;
    size_t plane = (size_t)shape->height * (size_t)shape->width;
    for (int i = 0; i < layer->n_bottoms; i++) {
        float *y = layer->tops[i]->data;
        shoal_conv_bwd_data(compute, shape, layer->bottoms[i]->data, layer->params[0]->blob.data,
                            y);
        for (size_t p = 0; state->bias && p < (size_t)shape->batch * (size_t)shape->channels; p++) {
            float bias = layer->params[1]->blob.data[p % (size_t)shape->channels];
            for (size_t k = p * plane; k < (p + 1) * plane; k++)
                y[k] += bias;
        }
    }
    return SHOAL_OK;
}

static void deconvolution_backward(ShoalLayer *layer, const ShoalCompute *compute) {
    const DeconvolutionState *state = layer->state;
    const ShoalConvShape *shape = &state->shape;
    const ShoalChannelShape planes = {(size_t)shape->batch, (size_t)shape->channels,
                                      (size_t)shape->height * (size_t)shape->width};
    const ShoalParam *weights = layer->params[0];
    for (int i = 0; i < layer->n_tops; i++) {
        const float *dy = layer->tops[i]->diff;
        if (weights->learns)
            shoal_conv_bwd_weights(compute, shape, dy, layer->bottoms[i]->data, weights->blob.diff,
                                   NULL);
        if (state->bias && layer->params[1]->learns)
            shoal_channel_sums(compute, &planes, NULL, dy, layer->params[1]->blob.diff);
        if (layer->propagate[i])
            shoal_conv_fwd(compute, shape, dy, weights->blob.data, NULL, layer->bottoms[i]->diff);
    }
}

const ShoalLayerClass shoal_layer_deconvolution_class = {
    .type = "Deconvolution",
    .flags = SHOAL_LAYER_BWD_NO_TOP,
    .min_bottoms = 1,
    .max_bottoms = -1,
    .min_tops = 1,
    .max_tops = -1,
    .state_bytes = sizeof(DeconvolutionState),
    .setup = deconvolution_setup,
    .reshape = deconvolution_reshape,
    .forward = deconvolution_forward,
    .backward = deconvolution_backward,
};
