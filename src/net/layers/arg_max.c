/* SPDX-License-Identifier: Apache-2.0 */
#include "net/layers/layers.h"

#include <string.h>

/* ArgMax: the places of the top_k largest values of each sample, or along `axis`; on equal values
 * the later place comes first, as in Caffe. With out_max_val: the values themselves (with an axis),
 * or places and values, [N][2][top_k]. */

typedef struct ArgMaxState {
    bool has_axis, values;
    int axis, top_k, size; /* size: values that are compared */
    size_t inner;
} ArgMaxState;

static ShoalStatus arg_max_setup(ShoalLayer *layer, ShoalError *err) {
    ArgMaxState *state = layer->state;
    const Caffe__ArgMaxParameter *param = layer->param->argmax_param;
    state->has_axis = param && param->has_axis;
    state->values = param && param->out_max_val;
    ShoalStatus status =
        shoal_layer_int(layer, "top_k", param ? param->top_k : 1, 1, &state->top_k, err);
    if (!status && state->has_axis)
        status = shoal_layer_axis(layer, param->axis, &state->axis, err);
    return status;
}

static ShoalStatus arg_max_reshape(ShoalLayer *layer, ShoalError *err) {
    ArgMaxState *state = layer->state;
    const ShoalBlob *bottom = layer->bottoms[0];
    int shape[SHOAL_MAX_AXES], axes = bottom->axes;
    if (bottom->axes == 0)
        return shoal_layer_fail(layer, SHOAL_ERR_MODEL, err, "bottom '%s' is a scalar",
                                bottom->name);
    size_t rest = shoal_blob_count(bottom, 1, bottom->axes);
    state->size = state->has_axis ? bottom->shape[state->axis] : (int)rest;
    state->inner = state->has_axis ? shoal_blob_count(bottom, state->axis + 1, bottom->axes) : 1;
    if (state->top_k > state->size)
        return shoal_layer_fail(layer, SHOAL_ERR_MODEL, err,
                                "top_k is %d; expected 1 to the number of values, %d", state->top_k,
                                state->size);
    if (state->has_axis) {
        memcpy(shape, bottom->shape, sizeof shape);
        shape[state->axis] = state->top_k;
        layer->whole_batch = state->axis == 0;
    } else {
        axes = axes < 3 ? 3 : axes;
        for (int i = 0; i < axes; i++)
            shape[i] = 1;
        shape[0] = bottom->shape[0];
        shape[1] = state->values ? 2 : 1;
        shape[2] = state->top_k;
    }
    layer->scratch_bytes = (size_t)state->top_k * sizeof(int);
    return shoal_layer_shape_top(layer, 0, axes, shape, err);
}

static bool comes_before(const float *x, size_t inner, int a, int b) {
    float va = x[(size_t)a * inner], vb = x[(size_t)b * inner];
    return va > vb || (!(vb > va) && a > b);
}

/* The best places so far, in order: each new one is put in where it belongs. */
static void find_best(const ArgMaxState *state, const float *x, int *best) {
    int n = 0;
    for (int i = 0; i < state->size; i++) {
        int at = n;
        while (at > 0 && comes_before(x, state->inner, i, best[at - 1]))
            at--;
        if (at == state->top_k)
            continue;
        n += n < state->top_k;
        for (int j = n - 1; j > at; j--)
            best[j] = best[j - 1];
        best[at] = i;
    }
}

static ShoalStatus arg_max_forward(ShoalLayer *layer, const ShoalCompute *compute,
                                   ShoalError *err) {
    (void)compute;
    (void)err;
    const ArgMaxState *state = layer->state;
    const ShoalBlob *bottom = layer->bottoms[0];
    float *y = layer->tops[0]->data;
    size_t size = (size_t)state->size, k = (size_t)state->top_k;
    int *best = layer->scratch;
    for (size_t r = 0; size && r < bottom->count / size; r++) {
        size_t outer = r / state->inner, i = r % state->inner;
        const float *x = bottom->data + outer * size * state->inner + i;
        find_best(state, x, best);
        for (size_t j = 0; j < k; j++) {
            float place = (float)best[j], value = x[(size_t)best[j] * state->inner];
            if (state->has_axis) {
                y[(outer * k + j) * state->inner + i] = state->values ? value : place;
            } else if (state->values) {
                y[2 * r * k + j] = place;
                y[2 * r * k + k + j] = value;
            } else {
                y[r * k + j] = place;
            }
        }
    }
    return SHOAL_OK;
}

const ShoalLayerClass shoal_layer_arg_max_class = {
    .type = "ArgMax",
    .flags = SHOAL_LAYER_NO_BACKWARD | SHOAL_LAYER_BWD_NO_BOTTOM | SHOAL_LAYER_BWD_NO_TOP,
    .min_bottoms = 1,
    .max_bottoms = 1,
    .min_tops = 1,
    .max_tops = 1,
    .state_bytes = sizeof(ArgMaxState),
    .setup = arg_max_setup,
    .reshape = arg_max_reshape,
    .forward = arg_max_forward,
};
