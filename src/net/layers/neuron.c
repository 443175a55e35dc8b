/* SPDX-License-Identifier: Apache-2.0 */
#include "net/layers/neuron.h"

#include <string.h>

enum { CHUNK = 4096 };

typedef struct Pass {
    const ShoalNeuron *neuron;
    const void *state;
    size_t count;
    const float *x, *y, *dy;
    float *out;
} Pass;

static size_t chunk_size(const Pass *pass, size_t index) {
    size_t left = pass->count - index * CHUNK;
    return left < CHUNK ? left : CHUNK;
}

static void forward_chunk(void *context, size_t index, unsigned thread) {
    const Pass *pass = context;
    size_t at = index * CHUNK;
    (void)thread;
    pass->neuron->forward(pass->state, chunk_size(pass, index), pass->x + at, pass->out + at);
}

static void backward_chunk(void *context, size_t index, unsigned thread) {
    const Pass *pass = context;
    size_t at = index * CHUNK;
    (void)thread;
    pass->neuron->backward(pass->state, chunk_size(pass, index), pass->x ? pass->x + at : NULL,
                           pass->y + at, pass->dy + at, pass->out + at);
}

static bool keeps_x(const ShoalLayer *layer, const ShoalNeuron *neuron) {
    return neuron->reads_x && layer->tops[0] == layer->bottoms[0];
}

ShoalStatus shoal_neuron_reshape(ShoalLayer *layer, const ShoalNeuron *neuron, ShoalError *err) {
    layer->saved_bytes = keeps_x(layer, neuron) ? layer->bottoms[0]->count * sizeof(float) : 0;
    return shoal_layer_shape_top_like(layer, 0, layer->bottoms[0], err);
}

void shoal_neuron_forward(ShoalLayer *layer, const ShoalNeuron *neuron,
                          const ShoalCompute *compute) {
    const ShoalBlob *bottom = layer->bottoms[0];
    if (keeps_x(layer, neuron) && layer->needs_backward)
        memcpy(layer->saved, bottom->data, bottom->count * sizeof(float));
    Pass pass = {.neuron = neuron,
                 .state = layer->state,
                 .count = bottom->count,
                 .x = bottom->data,
                 .out = layer->tops[0]->data};
    shoal_pool_run(compute->pool, (pass.count + CHUNK - 1) / CHUNK, forward_chunk, &pass);
}

void shoal_neuron_backward(ShoalLayer *layer, const ShoalNeuron *neuron,
                           const ShoalCompute *compute) {
    const ShoalBlob *bottom = layer->bottoms[0], *top = layer->tops[0];
    if (!layer->propagate[0])
        return;
    const float *x = keeps_x(layer, neuron) ? layer->saved : bottom->data;
    Pass pass = {.neuron = neuron,
                 .state = layer->state,
                 .count = bottom->count,
                 .x = neuron->reads_x ? x : NULL,
                 .y = top->data,
                 .dy = top->diff,
                 .out = bottom->diff};
    shoal_pool_run(compute->pool, (pass.count + CHUNK - 1) / CHUNK, backward_chunk, &pass);
}
