/* SPDX-License-Identifier: Apache-2.0 */
#include "net/layers/layers.h"

#include <string.h>

/* Embed: for each number of the bottom the row of the weights that it names, plus a bias: an
 * InnerProduct of one-hot vectors. weights [input_dim][num_output], bias [num_output]. */

typedef struct EmbedState {
    int outputs, rows;
    bool bias;
} EmbedState;

static ShoalStatus embed_setup(ShoalLayer *layer, ShoalError *err) {
    EmbedState *state = layer->state;
    const Caffe__EmbedParameter *param = layer->param->embed_param;
    if (!param)
        return shoal_layer_fail(layer, SHOAL_ERR_MODEL, err,
                                "no embed_param; expected one with num_output and input_dim");
    ShoalStatus status =
        shoal_layer_int(layer, "num_output", param->num_output, 1, &state->outputs, err);
    if (!status)
        status = shoal_layer_int(layer, "input_dim", param->input_dim, 1, &state->rows, err);
    if (status)
        return status;
    state->bias = param->bias_term;
    int shape[2] = {state->rows, state->outputs};
    status = shoal_layer_declare(layer, 2, shape, param->weight_filler, err);
    if (!status && state->bias)
        status = shoal_layer_declare(layer, 1, &state->outputs, param->bias_filler, err);
    return status;
}

static ShoalStatus embed_reshape(ShoalLayer *layer, ShoalError *err) {
    const EmbedState *state = layer->state;
    const ShoalBlob *bottom = layer->bottoms[0];
    int shape[SHOAL_MAX_AXES + 1];
    memcpy(shape, bottom->shape, sizeof bottom->shape);
    shape[bottom->axes] = state->outputs;
    return shoal_layer_shape_top(layer, 0, bottom->axes + 1, shape, err);
}

static ShoalStatus embed_forward(ShoalLayer *layer, const ShoalCompute *compute, ShoalError *err) {
    const EmbedState *state = layer->state;
    const ShoalBlob *bottom = layer->bottoms[0];
    size_t outputs = (size_t)state->outputs;
    float *y = layer->tops[0]->data;
    for (size_t i = 0; i < bottom->count; i++) {
        float value = bottom->data[i];
        if (!(value >= 0 && value < (float)state->rows))
            return shoal_layer_fail(layer, SHOAL_ERR_DATA, err,
                                    "number %zu of '%s' is %g; expected 0 to %d (input_dim - 1)", i,
                                    bottom->name, (double)value, state->rows - 1);
        memcpy(y + i * outputs, layer->params[0]->blob.data + (size_t)value * outputs,
               outputs * sizeof *y);
    }
    if (state->bias)
        shoal_bias_add(compute, bottom->count, outputs, layer->params[1]->blob.data, y);
    return SHOAL_OK;
}

static void embed_backward(ShoalLayer *layer, const ShoalCompute *compute) {
    const EmbedState *state = layer->state;
    const ShoalBlob *bottom = layer->bottoms[0];
    size_t outputs = (size_t)state->outputs;
    const float *dy = layer->tops[0]->diff;
    const ShoalParam *weights = layer->params[0];
    for (size_t i = 0; i < bottom->count && weights->learns; i++) {
        float *row = weights->blob.diff + (size_t)bottom->data[i] * outputs;
        shoal_vec_add(compute, outputs, row, dy + i * outputs, row);
    }
    if (state->bias && layer->params[1]->learns)
        shoal_bias_grad(compute, bottom->count, outputs, dy, layer->params[1]->blob.diff);
}

const ShoalLayerClass shoal_layer_embed_class = {
    .type = "Embed",
    .flags = SHOAL_LAYER_BWD_NO_TOP,
    .min_bottoms = 1,
    .max_bottoms = 1,
    .min_tops = 1,
    .max_tops = 1,
    .state_bytes = sizeof(EmbedState),
    .setup = embed_setup,
    .reshape = embed_reshape,
    .forward = embed_forward,
    .backward = embed_backward,
    .no_gradient_bottoms = 1,
};
