/* SPDX-License-Identifier: Apache-2.0 */
#include "net/layers/layers.h"

/* InnerProduct: y[m][n] = sum over k of x[m][k] * w[n][k] + bias[n]; k runs over the axes from
 * `axis` on. weights [N][K], with transpose [K][N]; bias [N]. */

typedef struct InnerProductState {
    int axis, outputs;
    size_t rows, inputs; /* M and K */
    bool bias, transpose;
} InnerProductState;

static ShoalStatus inner_product_setup(ShoalLayer *layer, ShoalError *err) {
    InnerProductState *state = layer->state;
    const Caffe__InnerProductParameter *param = layer->param->inner_product_param;
    const ShoalBlob *bottom = layer->bottoms[0];
    if (!param)
        return shoal_layer_fail(layer, SHOAL_ERR_MODEL, err,
                                "no inner_product_param; expected one with num_output");
    ShoalStatus status =
        shoal_layer_int(layer, "num_output", param->num_output, 1, &state->outputs, err);
    if (status == SHOAL_OK)
        status = shoal_layer_axis(layer, param->axis, &state->axis, err);
    if (status != SHOAL_OK)
        return status;
    state->inputs = shoal_blob_count(bottom, state->axis, bottom->axes);
    if (state->inputs == 0 || state->inputs > INT32_MAX) {
        char text[128];
        return shoal_layer_fail(layer, SHOAL_ERR_MODEL, err,
                                "bottom '%s' is %s: %zu values from axis %d on; expected 1 to %d",
                                bottom->name, shoal_blob_shape_text(bottom, text, sizeof text),
                                state->inputs, state->axis, INT32_MAX);
    }
    state->bias = param->bias_term;
    state->transpose = param->transpose;
    int inputs = (int)state->inputs, outputs = state->outputs;
    int weights[2] = {state->transpose ? inputs : outputs, state->transpose ? outputs : inputs};
    status = shoal_layer_declare(layer, 2, weights, param->weight_filler, err);
    if (status == SHOAL_OK && state->bias)
        status = shoal_layer_declare(layer, 1, &outputs, param->bias_filler, err);
    return status;
}

static ShoalStatus inner_product_reshape(ShoalLayer *layer, ShoalError *err) {
    InnerProductState *state = layer->state;
    const ShoalBlob *bottom = layer->bottoms[0];
    if (bottom->axes <= state->axis ||
        shoal_blob_count(bottom, state->axis, bottom->axes) != state->inputs) {
        char text[128];
        return shoal_layer_fail(layer, SHOAL_ERR_MODEL, err,
                                "bottom '%s' became %s; expected %zu values from axis %d on, as "
                                "the weights have",
                                bottom->name, shoal_blob_shape_text(bottom, text, sizeof text),
                                state->inputs, state->axis);
    }
    int shape[SHOAL_MAX_AXES];
    for (int i = 0; i < state->axis; i++)
        shape[i] = bottom->shape[i];
    shape[state->axis] = state->outputs;
    state->rows = shoal_blob_count(bottom, 0, state->axis);
    layer->whole_batch = state->axis == 0;
    layer->workspace_bytes = shoal_gemm_workspace_bytes((unsigned)layer->context->threads);
    return shoal_layer_shape_top(layer, 0, state->axis + 1, shape, err);
}

static ShoalStatus inner_product_forward(ShoalLayer *layer, const ShoalCompute *compute,
                                         ShoalError *err) {
    (void)err;
    const InnerProductState *state = layer->state;
    size_t m = state->rows, n = (size_t)state->outputs, k = state->inputs;
    float *y = layer->tops[0]->data;
    shoal_gemm(compute, false, !state->transpose, m, n, k, 1, layer->bottoms[0]->data, k,
               layer->params[0]->blob.data, state->transpose ? n : k, 0, y, n);
    if (state->bias)
        shoal_bias_add(compute, m, n, layer->params[1]->blob.data, y);
    return SHOAL_OK;
}

static void inner_product_backward(ShoalLayer *layer, const ShoalCompute *compute) {
    const InnerProductState *state = layer->state;
    size_t m = state->rows, n = (size_t)state->outputs, k = state->inputs;
    const float *x = layer->bottoms[0]->data, *dy = layer->tops[0]->diff;
    const ShoalParam *weights = layer->params[0];
    if (weights->learns && state->transpose)
        shoal_gemm(compute, true, false, k, n, m, 1, x, k, dy, n, 1, weights->blob.diff, n);
    else if (weights->learns)
        shoal_gemm(compute, true, false, n, k, m, 1, dy, n, x, k, 1, weights->blob.diff, k);
    if (state->bias && layer->params[1]->learns)
        shoal_bias_grad(compute, m, n, dy, layer->params[1]->blob.diff);
    if (layer->propagate[0])
        shoal_gemm(compute, false, state->transpose, m, k, n, 1, dy, n, weights->blob.data,
                   state->transpose ? n : k, 0, layer->bottoms[0]->diff, k);
}

const ShoalLayerClass shoal_layer_inner_product_class = {
    .type = "InnerProduct",
    .flags = SHOAL_LAYER_BWD_NO_TOP,
    .min_bottoms = 1,
    .max_bottoms = 1,
    .min_tops = 1,
    .max_tops = 1,
    .state_bytes = sizeof(InnerProductState),
    .setup = inner_product_setup,
    .reshape = inner_product_reshape,
    .forward = inner_product_forward,
    .backward = inner_product_backward,
};
