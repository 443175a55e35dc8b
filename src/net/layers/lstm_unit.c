/* SPDX-License-Identifier: Apache-2.0 */
#include "net/layers/recurrent.h"

#include <math.h>
#include <string.h>

/* LSTMUnit: one step of an LSTM's cell. Bottoms: c_prev [1][N][D], what goes into the gates
 * [1][N][4*D], cont [1][N]. Tops: c and h [1][N][D]. The gates are kept for backward. */

typedef struct UnitPass {
    size_t units;
    const float *cont, *c_prev, *dc, *dh;
    float *gates, *c, *h; /* forward's; backward reads gates only */
    float *dgates, *dc_prev;
} UnitPass;

static float sigmoid(float x) {
    return 0.5f * tanhf(0.5f * x) + 0.5f;
}

static void forward_stream(void *context, size_t n, unsigned thread) {
    const UnitPass *pass = context;
    size_t units = pass->units;
    float *i = pass->gates + n * 4 * units, *f = i + units, *o = f + units, *g = o + units;
    float cont = pass->cont[n];
    (void)thread;
    for (size_t d = 0; d < units; d++) {
        size_t at = n * units + d;
        i[d] = sigmoid(i[d]);
        f[d] = cont == 0 ? 0 : cont * sigmoid(f[d]);
        o[d] = sigmoid(o[d]);
        g[d] = tanhf(g[d]);
        float c = f[d] * pass->c_prev[at] + i[d] * g[d];
        pass->c[at] = c;
        pass->h[at] = o[d] * tanhf(c);
    }
}

void shoal_lstm_unit_fwd(const ShoalCompute *compute, size_t streams, size_t units,
                         const float *cont, float *gates, const float *c_prev, float *c, float *h) {
    UnitPass pass = {
        .units = units, .cont = cont, .c_prev = c_prev, .gates = gates, .c = c, .h = h};
    shoal_pool_run(compute->pool, streams, forward_stream, &pass);
}

static void backward_stream(void *context, size_t n, unsigned thread) {
    const UnitPass *pass = context;
    size_t units = pass->units, first = n * 4 * units;
    (void)thread;
    for (size_t d = 0; d < units; d++) {
        size_t at = n * units + d, k = first + d;
        float i = pass->gates[k], f = pass->gates[k + units];
        float o = pass->gates[k + 2 * units], g = pass->gates[k + 3 * units];
        float c_prev = pass->c_prev[at], squashed = tanhf(f * c_prev + i * g);
        float dh = pass->dh[at], dc = pass->dc[at] + dh * o * (1 - squashed * squashed);
        if (pass->dc_prev)
            pass->dc_prev[at] = dc * f;
        if (!pass->dgates)
            continue;
        pass->dgates[k] = dc * g * i * (1 - i);
        pass->dgates[k + units] = dc * c_prev * f * (1 - f);
        pass->dgates[k + 2 * units] = dh * squashed * o * (1 - o);
        pass->dgates[k + 3 * units] = dc * i * (1 - g * g);
    }
}

void shoal_lstm_unit_bwd(const ShoalCompute *compute, size_t streams, size_t units,
                         const float *gates, const float *c_prev, const float *dc, const float *dh,
                         float *dgates, float *dc_prev) {
    UnitPass pass = {.units = units,
                     .c_prev = c_prev,
                     .dc = dc,
                     .dh = dh,
                     .gates = (float *)gates,
                     .dgates = dgates,
                     .dc_prev = dc_prev};
    shoal_pool_run(compute->pool, streams, backward_stream, &pass);
}

static ShoalStatus lstm_unit_reshape(ShoalLayer *layer, ShoalError *err) {
    const ShoalBlob *c = layer->bottoms[0], *gates = layer->bottoms[1], *cont = layer->bottoms[2];
    bool fits = c->axes == 3 && gates->axes == 3 && cont->axes == 2 && c->shape[0] == 1 &&
                gates->shape[0] == 1 && cont->shape[0] == 1 && gates->shape[1] == c->shape[1] &&
                cont->shape[1] == c->shape[1] && (size_t)gates->shape[2] == 4 * (size_t)c->shape[2];
    if (!fits) {
        char a[128], b[128], d[128];
        return shoal_layer_fail(layer, SHOAL_ERR_MODEL, err,
                                "'%s' is %s, '%s' %s and '%s' %s; expected 1 x N x D, 1 x N x 4*D "
                                "and 1 x N",
                                c->name, shoal_blob_shape_text(c, a, sizeof a), gates->name,
                                shoal_blob_shape_text(gates, b, sizeof b), cont->name,
                                shoal_blob_shape_text(cont, d, sizeof d));
    }
    layer->whole_batch = true; /* the samples are on axis 1 */
    layer->saved_bytes = gates->count * sizeof(float);
    ShoalStatus status = shoal_layer_shape_top_like(layer, 0, c, err);
    return status ? status : shoal_layer_shape_top_like(layer, 1, c, err);
}

static ShoalStatus lstm_unit_forward(ShoalLayer *layer, const ShoalCompute *compute,
                                     ShoalError *err) {
    (void)err;
    const ShoalBlob *c = layer->bottoms[0], *gates = layer->bottoms[1];
    memcpy(layer->saved, gates->data, gates->count * sizeof(float));
    shoal_lstm_unit_fwd(compute, (size_t)c->shape[1], (size_t)c->shape[2], layer->bottoms[2]->data,
                        layer->saved, c->data, layer->tops[0]->data, layer->tops[1]->data);
    return SHOAL_OK;
}

static void lstm_unit_backward(ShoalLayer *layer, const ShoalCompute *compute) {
    const ShoalBlob *c = layer->bottoms[0], *gates = layer->bottoms[1];
    shoal_lstm_unit_bwd(compute, (size_t)c->shape[1], (size_t)c->shape[2], layer->saved, c->data,
                        layer->tops[0]->diff, layer->tops[1]->diff,
                        layer->propagate[1] ? gates->diff : NULL,
                        layer->propagate[0] ? c->diff : NULL);
}

const ShoalLayerClass shoal_layer_lstm_unit_class = {
    .type = "LSTMUnit",
    .flags = SHOAL_LAYER_BWD_NO_TOP,
    .min_bottoms = 3,
    .max_bottoms = 3,
    .min_tops = 2,
    .max_tops = 2,
    .reshape = lstm_unit_reshape,
    .forward = lstm_unit_forward,
    .backward = lstm_unit_backward,
    .no_gradient_bottoms = 1u << 2,
};
