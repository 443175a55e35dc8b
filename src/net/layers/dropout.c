/* SPDX-License-Identifier: Apache-2.0 */
#include "net/layers/layers.h"

#include <string.h>

/* Dropout: in training, y = x * mask / (1 - ratio), where each mask is 0 with probability ratio;
 * in testing, y = x. In place or not. Sample number s of the run draws its mask at position
 * s * (values per sample) of the layer's random stream: the same one whatever share it is in. */

typedef struct DropoutState {
    float scale;
    uint64_t threshold; /* of 2^32: a draw below it drops the value */
} DropoutState;

typedef struct MaskTask {
    const ShoalLayer *layer;
    ShoalSampleRange range;
    const float *x;
    float *y;
} MaskTask;

static bool is_training(const ShoalLayer *layer) {
    return layer->context->phase == CAFFE__PHASE__TRAIN;
}

static ShoalStatus dropout_setup(ShoalLayer *layer, ShoalError *err) {
    DropoutState *state = layer->state;
    const Caffe__DropoutParameter *param = layer->param->dropout_param;
    double ratio = param ? (double)param->dropout_ratio : 0.5;
    if (!(ratio >= 0 && ratio < 1))
        return shoal_layer_fail(layer, SHOAL_ERR_MODEL, err,
                                "dropout_ratio is %g; expected at least 0 and less than 1", ratio);
    state->scale = (float)(1 / (1 - ratio));
    state->threshold = (uint64_t)(ratio * 0x1p32);
    return SHOAL_OK;
}

static ShoalStatus dropout_reshape(ShoalLayer *layer, ShoalError *err) {
    layer->saved_bytes = is_training(layer) ? layer->bottoms[0]->count : 0;
    return shoal_layer_shape_top_like(layer, 0, layer->bottoms[0], err);
}

static void drop_sample(void *context, size_t index, unsigned thread) {
    (void)thread;
    const MaskTask *task = context;
    const DropoutState *state = task->layer->state;
    size_t size = task->range.size, begin = index * size;
    uint8_t *mask = (uint8_t *)task->layer->saved + begin;
    const float *x = task->x + begin;
    float *y = task->y + begin;
    ShoalRng rng;
    shoal_rng_init(&rng, task->layer->context->seed, SHOAL_RNG_DROPOUT,
                   (uint32_t)task->layer->number);
    shoal_rng_seek(&rng, shoal_layer_sample_number(&task->range, index) * size);
    for (size_t i = 0; i < size; i++)
        mask[i] = shoal_rng_u32(&rng) >= state->threshold;
    for (size_t i = 0; i < size; i++)
        y[i] = x[i] * (mask[i] ? state->scale : 0.0f);
}

static ShoalStatus dropout_forward(ShoalLayer *layer, const ShoalCompute *compute,
                                   ShoalError *err) {
    (void)err;
    const ShoalBlob *x = layer->bottoms[0];
    float *y = layer->tops[0]->data;
    if (!is_training(layer)) {
        if (y != x->data)
            memcpy(y, x->data, x->count * sizeof(float));
        return SHOAL_OK;
    }
    MaskTask task = {layer, shoal_layer_sample_range(layer, x->count, true), x->data, y};
    shoal_pool_run(compute->pool, task.range.samples, drop_sample, &task);
    return SHOAL_OK;
}

static void mask_sample(void *context, size_t index, unsigned thread) {
    (void)thread;
    const MaskTask *task = context;
    const DropoutState *state = task->layer->state;
    const uint8_t *mask = task->layer->saved;
    for (size_t i = index * task->range.size; i < (index + 1) * task->range.size; i++)
        task->y[i] = task->x[i] * (mask[i] ? state->scale : 0.0f);
}

static void dropout_backward(ShoalLayer *layer, const ShoalCompute *compute) {
    if (!layer->propagate[0])
        return;
    size_t n = layer->bottoms[0]->count;
    const float *dy = layer->tops[0]->diff;
    float *dx = layer->bottoms[0]->diff;
    if (!is_training(layer)) {
        if (dx != dy)
            memcpy(dx, dy, n * sizeof(float));
        return;
    }
    MaskTask task = {layer, shoal_layer_sample_range(layer, n, true), dy, dx};
    shoal_pool_run(compute->pool, task.range.samples, mask_sample, &task);
}

const ShoalLayerClass shoal_layer_dropout_class = {
    .type = "Dropout",
    .flags = SHOAL_LAYER_IN_PLACE | SHOAL_LAYER_BWD_NO_BOTTOM | SHOAL_LAYER_BWD_NO_TOP,
    .min_bottoms = 1,
    .max_bottoms = 1,
    .min_tops = 1,
    .max_tops = 1,
    .state_bytes = sizeof(DropoutState),
    .setup = dropout_setup,
    .reshape = dropout_reshape,
    .forward = dropout_forward,
    .backward = dropout_backward,
};
