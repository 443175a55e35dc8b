/* SPDX-License-Identifier: Apache-2.0 */
#include "net/layers/recurrent.h"

#include <math.h>
#include <string.h>

/* RNN: h[t] = tanh(gates[t]) with one gate (recurrent.h), the top o[t] = tanh(h[t] Wo^T + bo).
 * Weights after those of recurrent.h: Wo [D][D], bo [D]. States and outputs are kept for backward,
 * so that it needs no top. */

static ShoalStatus rnn_setup(ShoalLayer *layer, ShoalError *err) {
    const Caffe__RecurrentParameter *param = layer->param->recurrent_param;
    const ShoalRecurrent *r = layer->state;
    ShoalStatus status = shoal_recurrent_setup(layer, 1, 1, err);
    if (status)
        return status;
    int units = (int)r->units;
    status = shoal_layer_declare(layer, 2, (int[]){units, units}, param->weight_filler, err);
    return status ? status : shoal_layer_declare(layer, 1, &units, param->bias_filler, err);
}

static ShoalStatus rnn_reshape(ShoalLayer *layer, ShoalError *err) {
    const ShoalRecurrent *r = layer->state;
    ShoalStatus status = shoal_recurrent_reshape(layer, err);
    size_t size = shoal_recurrent_size(r);
    layer->saved_bytes = (2 * r->steps + 1) * size * sizeof(float);
    layer->scratch_bytes = (2 * r->steps + 2) * size * sizeof(float);
    return status;
}

/* Saved: h [T + 1][N][D], from the start state on, and o [T][N][D]. */
static float *saved_outputs(const ShoalLayer *layer) {
    const ShoalRecurrent *r = layer->state;
    return (float *)layer->saved + (r->steps + 1) * shoal_recurrent_size(r);
}

static void squash(size_t n, float *x) {
    for (size_t i = 0; i < n; i++)
        x[i] = tanhf(x[i]);
}

static ShoalStatus rnn_forward(ShoalLayer *layer, const ShoalCompute *compute, ShoalError *err) {
    (void)err;
    const ShoalRecurrent *r = layer->state;
    size_t size = shoal_recurrent_size(r), rows = r->steps * r->streams, units = r->units;
    float *h = layer->saved, *o = saved_outputs(layer);
    ShoalParam **out = layer->params + shoal_recurrent_hidden_weights(r) + 1;
    shoal_recurrent_begin(layer, 0, h);
    shoal_recurrent_inputs(layer, compute, h + size, layer->scratch);
    for (size_t t = 0; t < r->steps; t++, h += size) {
        shoal_recurrent_add_hidden(layer, compute, t, h, h + size, layer->scratch);
        squash(size, h + size);
    }
    shoal_recurrent_end(layer, 0, h);
    h = layer->saved;
    shoal_gemm(compute, false, true, rows, units, units, 1, h + size, units, out[0]->blob.data,
               units, 0, o, units);
    shoal_bias_add(compute, rows, units, out[1]->blob.data, o);
    squash(rows * units, o);
    memcpy(layer->tops[0]->data, o, rows * units * sizeof *o);
    return SHOAL_OK;
}

/* The gradients of Wo, bo and, into dh, of the h[t] as the output alone reads them; d [T][N][D] is
 * scratch. */
static void output_back(const ShoalLayer *layer, const ShoalCompute *compute, float *d, float *dh) {
    const ShoalRecurrent *r = layer->state;
    size_t rows = r->steps * r->streams, units = r->units;
    const float *o = saved_outputs(layer), *dy = layer->tops[0]->diff;
    const float *h = (const float *)layer->saved + shoal_recurrent_size(r);
    ShoalParam **out = layer->params + shoal_recurrent_hidden_weights(r) + 1;
    for (size_t i = 0; i < rows * units; i++)
        d[i] = dy[i] * (1 - o[i] * o[i]);
    if (out[0]->learns)
        shoal_gemm(compute, true, false, units, units, rows, 1, d, units, h, units, 1,
                   out[0]->blob.diff, units);
    if (out[1]->learns)
        shoal_bias_grad(compute, rows, units, d, out[1]->blob.diff);
    shoal_gemm(compute, false, false, rows, units, units, 1, d, units, out[0]->blob.data, units, 0,
               dh, units);
}

static void rnn_backward(ShoalLayer *layer, const ShoalCompute *compute) {
    const ShoalRecurrent *r = layer->state;
    size_t size = shoal_recurrent_size(r);
    const float *h = layer->saved;
    float *d = layer->scratch, *others = d + r->steps * size;
    float *later = others + r->steps * size; /* what step t + 1 gives for h[t] */
    output_back(layer, compute, others, d);
    memset(later, 0, size * sizeof *later);
    for (size_t t = r->steps; t-- > 0;) {
        const float *now = h + (t + 1) * size;
        float *at = d + t * size;
        for (size_t i = 0; i < size; i++)
            at[i] = (at[i] + later[i]) * (1 - now[i] * now[i]);
        if (t > 0)
            shoal_recurrent_hidden_back(layer, compute, t, at, later);
    }
    shoal_recurrent_back(layer, compute, d, h, others, later + size);
}

const ShoalLayerClass shoal_layer_rnn_class = {
    .type = "RNN",
    .flags = SHOAL_LAYER_BWD_NO_TOP,
    .min_bottoms = 2,
    .max_bottoms = 4,
    .min_tops = 1,
    .max_tops = 2,
    .state_bytes = sizeof(ShoalRecurrent),
    .setup = rnn_setup,
    .reshape = rnn_reshape,
    .forward = rnn_forward,
    .backward = rnn_backward,
    .close = shoal_recurrent_close,
    .no_gradient_bottoms = 1u << 1,
};
