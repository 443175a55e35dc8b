/* SPDX-License-Identifier: Apache-2.0 */
#include "net/layers/recurrent.h"

#include <string.h>

/* LSTM: recurrent.h with the four gates of an LSTM's cell; the top is h. States and gates are kept
 * for backward, so that it needs no top. */

static ShoalStatus lstm_setup(ShoalLayer *layer, ShoalError *err) {
    return shoal_recurrent_setup(layer, 4, 2, err);
}

static ShoalStatus lstm_reshape(ShoalLayer *layer, ShoalError *err) {
    const ShoalRecurrent *r = layer->state;
    ShoalStatus status = shoal_recurrent_reshape(layer, err);
    size_t size = shoal_recurrent_size(r);
    layer->saved_bytes = (6 * r->steps + 2) * size * sizeof(float);
    layer->scratch_bytes = (5 * r->steps + 6) * size * sizeof(float);
    return status;
}

/* Saved: h and c [T + 1][N][D], from the start states on, and the gates [T][N][4][D]. */
typedef struct Saved {
    float *h, *c, *gates;
} Saved;

static Saved saved_of(const ShoalLayer *layer) {
    const ShoalRecurrent *r = layer->state;
    size_t all = (r->steps + 1) * shoal_recurrent_size(r);
    float *h = layer->saved;
    return (Saved){h, h + all, h + 2 * all};
}

static ShoalStatus lstm_forward(ShoalLayer *layer, const ShoalCompute *compute, ShoalError *err) {
    (void)err;
    const ShoalRecurrent *r = layer->state;
    size_t size = shoal_recurrent_size(r);
    Saved at = saved_of(layer);
    shoal_recurrent_begin(layer, 0, at.h);
    shoal_recurrent_begin(layer, 1, at.c);
    shoal_recurrent_inputs(layer, compute, at.gates, layer->scratch);
    for (size_t t = 0; t < r->steps; t++) {
        shoal_recurrent_add_hidden(layer, compute, t, at.h, at.gates, layer->scratch);
        shoal_lstm_unit_fwd(compute, r->streams, r->units, shoal_recurrent_cont(layer, r, t),
                            at.gates, at.c, at.c + size, at.h + size);
        at = (Saved){at.h + size, at.c + size, at.gates + 4 * size};
    }
    shoal_recurrent_end(layer, 0, at.h);
    shoal_recurrent_end(layer, 1, at.c);
    memcpy(layer->tops[0]->data, saved_of(layer).h + size, r->steps * size * sizeof(float));
    return SHOAL_OK;
}

static void lstm_backward(ShoalLayer *layer, const ShoalCompute *compute) {
    const ShoalRecurrent *r = layer->state;
    size_t size = shoal_recurrent_size(r);
    Saved at = saved_of(layer);
    float *dgates = layer->scratch, *others = dgates + 4 * r->steps * size;
    float *dh = others + r->steps * size, *dc = dh + size;
    memset(dh, 0, 2 * size * sizeof *dh); /* and dc: no gradient from beyond the last step */
    for (size_t t = r->steps; t-- > 0;) {
        float *now = dgates + 4 * t * size;
        shoal_vec_add(compute, size, layer->tops[0]->diff + t * size, dh, dh);
        shoal_lstm_unit_bwd(compute, r->streams, r->units, at.gates + 4 * t * size, at.c + t * size,
                            dc, dh, now, dc);
        if (t > 0)
            shoal_recurrent_hidden_back(layer, compute, t, now, dh);
    }
    shoal_recurrent_back(layer, compute, dgates, at.h, others, dc + size);
}

const ShoalLayerClass shoal_layer_lstm_class = {
    .type = "LSTM",
    .flags = SHOAL_LAYER_BWD_NO_TOP,
    .min_bottoms = 2,
    .max_bottoms = 5,
    .min_tops = 1,
    .max_tops = 3,
    .state_bytes = sizeof(ShoalRecurrent),
    .setup = lstm_setup,
    .reshape = lstm_reshape,
    .forward = lstm_forward,
    .backward = lstm_backward,
    .close = shoal_recurrent_close,
    .no_gradient_bottoms = 1u << 1,
};
