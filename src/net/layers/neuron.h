/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHOAL_NET_LAYERS_NEURON_H
#define SHOAL_NET_LAYERS_NEURON_H

#include "net/layers/layers.h"

/* Layers that take each value by itself: y = f(x), dx = dy * f'(x). In place or not: where backward
 * reads x, x is kept then. Work is split over the pool; the bits do not depend on how. */

typedef struct ShoalNeuron {
    void (*forward)(const void *state, size_t n, const float *x, float *y); /* y == x allowed */
    void (*backward)(const void *state, size_t n, const float *x, const float *y, const float *dy,
                     float *dx); /* dx == dy allowed */
    bool reads_x;                /* backward does; else x is NULL there */
} ShoalNeuron;

ShoalStatus shoal_neuron_reshape(ShoalLayer *layer, const ShoalNeuron *neuron, ShoalError *err);
void shoal_neuron_forward(ShoalLayer *layer, const ShoalNeuron *neuron,
                          const ShoalCompute *compute);
void shoal_neuron_backward(ShoalLayer *layer, const ShoalNeuron *neuron,
                           const ShoalCompute *compute);

/* The functions of a layer class, for a ShoalNeuron NAME_NEURON. */
#define SHOAL_NEURON_FUNCTIONS(name, neuron)                                                       \
    static ShoalStatus name##_reshape(ShoalLayer *layer, ShoalError *err) {                        \
        return shoal_neuron_reshape(layer, &(neuron), err);                                        \
    }                                                                                              \
    static ShoalStatus name##_forward(ShoalLayer *layer, const ShoalCompute *compute,              \
                                      ShoalError *err) {                                           \
        (void)err;                                                                                 \
        shoal_neuron_forward(layer, &(neuron), compute);                                           \
        return SHOAL_OK;                                                                           \
    }                                                                                              \
    static void name##_backward(ShoalLayer *layer, const ShoalCompute *compute) {                  \
        shoal_neuron_backward(layer, &(neuron), compute);                                          \
    }

#endif
