/* SPDX-License-Identifier: Apache-2.0 */
#include "net/layers/layers.h"

#include <limits.h>
#include <string.h>

/* Tile: the bottom repeated `tiles` times along `axis`. */

typedef struct TileState {
    int axis, tiles;
    size_t outer, size; /* the bottom is [outer][size], the top [outer][tiles][size] */
} TileState;

static ShoalStatus tile_setup(ShoalLayer *layer, ShoalError *err) {
    TileState *state = layer->state;
    const Caffe__TileParameter *param = layer->param->tile_param;
    if (!param || !param->has_tiles || param->tiles < 1)
        return shoal_layer_fail(layer, SHOAL_ERR_MODEL, err,
                                "tile_param.tiles is %d; expected 1 or more",
                                param ? param->tiles : 0);
    state->tiles = param->tiles;
    return shoal_layer_axis(layer, param->axis, &state->axis, err);
}

static ShoalStatus tile_reshape(ShoalLayer *layer, ShoalError *err) {
    TileState *state = layer->state;
    const ShoalBlob *bottom = layer->bottoms[0];
    int shape[SHOAL_MAX_AXES];
    memcpy(shape, bottom->shape, sizeof shape);
    int64_t size = (int64_t)shape[state->axis] * state->tiles;
    shape[state->axis] = size > INT_MAX ? INT_MAX : (int)size; /* too large for a blob either way */
    state->outer = shoal_blob_count(bottom, 0, state->axis);
    state->size = shoal_blob_count(bottom, state->axis, bottom->axes);
    layer->whole_batch = state->axis == 0 && state->tiles > 1;
    return shoal_layer_shape_top(layer, 0, bottom->axes, shape, err);
}

static ShoalStatus tile_forward(ShoalLayer *layer, const ShoalCompute *compute, ShoalError *err) {
    (void)compute;
    (void)err;
    const TileState *state = layer->state;
    const float *x = layer->bottoms[0]->data;
    float *y = layer->tops[0]->data;
    for (size_t n = 0; n < state->outer; n++, x += state->size)
        for (int t = 0; t < state->tiles; t++, y += state->size)
            memcpy(y, x, state->size * sizeof *y);
    return SHOAL_OK;
}

static void tile_backward(ShoalLayer *layer, const ShoalCompute *compute) {
    (void)compute;
    const TileState *state = layer->state;
    const float *dy = layer->tops[0]->diff;
    float *dx = layer->bottoms[0]->diff;
    if (!layer->propagate[0])
        return;
    for (size_t n = 0; n < state->outer; n++, dx += state->size)
        for (int t = 0; t < state->tiles; t++, dy += state->size)
            for (size_t i = 0; i < state->size; i++)
                dx[i] = t ? dx[i] + dy[i] : dy[i];
}

const ShoalLayerClass shoal_layer_tile_class = {
    .type = "Tile",
    .flags = SHOAL_LAYER_BWD_NO_BOTTOM | SHOAL_LAYER_BWD_NO_TOP,
    .min_bottoms = 1,
    .max_bottoms = 1,
    .min_tops = 1,
    .max_tops = 1,
    .state_bytes = sizeof(TileState),
    .setup = tile_setup,
    .reshape = tile_reshape,
    .forward = tile_forward,
    .backward = tile_backward,
};
