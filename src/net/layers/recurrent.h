/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHOAL_NET_LAYERS_RECURRENT_H
#define SHOAL_NET_LAYERS_RECURRENT_H

#include "net/layers/layers.h"

/* What LSTM and RNN have in common. Caffe unrolls them into a net of small layers, one group for a
 * time step (RecurrentLayer); here they are layers of their own with the same weights, in the same
 * order, and the same numbers.
 *
 * Bottoms: x [T][N][...] of T steps of N sequences; cont [T][N], 0 where a sequence begins, else 1;
 * optionally x_static [N][...], the same for all steps; with expose_hidden the start states, each
 * [1][N][D]. Tops: [T][N][D]; with expose_hidden also the end states. D is num_output.
 *
 * The values that go into the nonlinearities of step t, G for each of the D units:
 *   gates[t] = x[t] Wx^T + b + x_static Ws^T + (cont[t] * h[t-1]) Wh^T
 * Weights: Wx [G*D][I], b [G*D], (Ws [G*D][S],) Wh [G*D][D].
 *
 * Without expose_hidden a forward pass begins where the one before has ended (cont tells where that
 * is not wanted); the first one, with zeros. This state is the layer's own memory, for the largest
 * N that setup sees. A reshape to fewer sequences keeps the first of its numbers; T cannot change.
 * As in Caffe, neither snapshots nor the layer of the TEST net have it. Nor has another worker: one
 * that takes over the net, or that has the next batch of a test. As in Caffe, too, no gradient goes
 * through start and end states: a bottom that is a start state gets 0. */

typedef struct ShoalRecurrent {
    size_t steps, streams, units; /* T, N, D */
    size_t gates;                 /* G */
    size_t inputs, statics;       /* I and S; S 0: no x_static */
    int states;                   /* blobs of hidden state: h, and c of LSTM */
    bool exposes;
    size_t capacity; /* N * D of `carried` */
    float *carried;  /* [states][capacity]; NULL when it is exposed */
} ShoalRecurrent;

/* The layer's state begins with a ShoalRecurrent. gates and states as above; declares the weights.
 * SHOAL_ERR_MODEL for bottoms that do not fit. */
ShoalStatus shoal_recurrent_setup(ShoalLayer *layer, size_t gates, int states, ShoalError *err);
/* Checks the bottoms again and sets the tops' shapes. */
ShoalStatus shoal_recurrent_reshape(ShoalLayer *layer, ShoalError *err);
void shoal_recurrent_close(ShoalLayer *layer);

/* The place of Wh among the weights; further ones follow it. */
static inline int shoal_recurrent_hidden_weights(const ShoalRecurrent *r) {
    return r->statics ? 3 : 2;
}
/* Values of one step: N * D. */
static inline size_t shoal_recurrent_size(const ShoalRecurrent *r) {
    return r->streams * r->units;
}
/* cont[t], for each of the N sequences. */
static inline const float *shoal_recurrent_cont(const ShoalLayer *layer, const ShoalRecurrent *r,
                                                size_t t) {
    return layer->bottoms[1]->data + t * r->streams;
}

/* Start state number i into start[N * D]; the end state is kept for the next pass and shown. */
void shoal_recurrent_begin(const ShoalLayer *layer, int i, float *start);
void shoal_recurrent_end(ShoalLayer *layer, int i, const float *end);

/* For all steps gates[T][N][G*D] = what does not depend on h. scratch [N][G*D]. */
void shoal_recurrent_inputs(const ShoalLayer *layer, const ShoalCompute *compute, float *gates,
                            float *scratch);
/* gates[N][G*D] += (cont[t] * h) Wh^T, h that of the step before. scratch [N][D]. */
void shoal_recurrent_add_hidden(const ShoalLayer *layer, const ShoalCompute *compute, size_t t,
                                const float *h, float *gates, float *scratch);
/* dh[N][D] = the gradient of step t's start h, from dgates[N][G*D]. */
void shoal_recurrent_hidden_back(const ShoalLayer *layer, const ShoalCompute *compute, size_t t,
                                 const float *dgates, float *dh);
/* The gradients of the weights Wx, b, Ws, Wh and of the bottoms. dgates[T][N][G*D], h[T][N][D] the
 * states that the steps started from; scratch [T][N][D], static_scratch [N][G*D]. */
void shoal_recurrent_back(const ShoalLayer *layer, const ShoalCompute *compute, const float *dgates,
                          const float *h, float *scratch, float *static_scratch);

/* The cell of an LSTM (Hochreiter and Schmidhuber 1997, with the forget gate of Gers et al. 2000;
 * Caffe: LSTMUnitLayer), for N sequences of D units. gates [N][4][D] holds what goes into i, f, o,
 * g and afterwards i, cont * f, o, g: sigmoids, and tanh for g. c = cont * f * c_prev + i * g, h =
 * o * tanh(c)                       c == c_prev allowed */
void shoal_lstm_unit_fwd(const ShoalCompute *compute, size_t streams, size_t units,
                         const float *cont, float *gates, const float *c_prev, float *c, float *h);
/* From gates as left by the above: dgates [N][4][D] and dc_prev [N][D], each NULL where not wanted;
 * dc_prev == dc allowed. For a cont that is neither 0 nor 1, f's gradient is Caffe's. */
void shoal_lstm_unit_bwd(const ShoalCompute *compute, size_t streams, size_t units,
                         const float *gates, const float *c_prev, const float *dc, const float *dh,
                         float *dgates, float *dc_prev);

#endif
