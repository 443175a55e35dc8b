/* SPDX-License-Identifier: Apache-2.0 */
#include "net/layers/layers.h"

#include <math.h>

/* Reduction: the axes from `axis` on become one number: coeff * SUM, ASUM (of absolute values),
 * SUMSQ (of squares) or MEAN. As a loss over the whole batch a sum of a share is made to stand for
 * the batch. */

typedef struct ReductionState {
    int axis;
    bool sums_batch; /* axis 0 is the batch and goes */
    size_t rows, size;
} ReductionState;

static Caffe__ReductionParameter__ReductionOp operation_of(const ShoalLayer *layer) {
    const Caffe__ReductionParameter *param = layer->param->reduction_param;
    return param ? param->operation : CAFFE__REDUCTION_PARAMETER__REDUCTION_OP__SUM;
}

static ShoalStatus reduction_setup(ShoalLayer *layer, ShoalError *err) {
    ReductionState *state = layer->state;
    const Caffe__ReductionParameter *param = layer->param->reduction_param;
    int operation = (int)operation_of(layer);
    if (operation < CAFFE__REDUCTION_PARAMETER__REDUCTION_OP__SUM ||
        operation > CAFFE__REDUCTION_PARAMETER__REDUCTION_OP__MEAN)
        return shoal_layer_fail(layer, SHOAL_ERR_MODEL, err,
                                "operation is the unknown %d; expected SUM, ASUM, SUMSQ or MEAN",
                                operation);
    return shoal_layer_axis(layer, param ? param->axis : 0, &state->axis, err);
}

static ShoalStatus reduction_reshape(ShoalLayer *layer, ShoalError *err) {
    ReductionState *state = layer->state;
    const ShoalBlob *bottom = layer->bottoms[0];
    state->rows = shoal_blob_count(bottom, 0, state->axis);
    state->size = shoal_blob_count(bottom, state->axis, bottom->axes);
    state->sums_batch = state->axis == 0 && bottom->shape[0] == layer->context->batch_now;
    layer->whole_batch = state->sums_batch && layer->loss_weights[0] == 0;
    return shoal_layer_shape_top(layer, 0, state->axis, bottom->shape, err);
}

static float factor_of(const ShoalLayer *layer) {
    const ReductionState *state = layer->state;
    const Caffe__ReductionParameter *param = layer->param->reduction_param;
    float coeff = param ? param->coeff : 1;
    if (operation_of(layer) == CAFFE__REDUCTION_PARAMETER__REDUCTION_OP__MEAN)
        return coeff / (float)state->size;
    return state->sums_batch && !layer->whole_batch ? coeff * shoal_layer_sum_scale(layer) : coeff;
}

static ShoalStatus reduction_forward(ShoalLayer *layer, const ShoalCompute *compute,
                                     ShoalError *err) {
    (void)compute;
    (void)err;
    const ReductionState *state = layer->state;
    const float *x = layer->bottoms[0]->data;
    float factor = factor_of(layer);
    for (size_t r = 0; r < state->rows; r++, x += state->size) {
        double sum;
        switch (operation_of(layer)) {
        case CAFFE__REDUCTION_PARAMETER__REDUCTION_OP__ASUM:
            sum = shoal_vec_asum(state->size, x);
            break;
        case CAFFE__REDUCTION_PARAMETER__REDUCTION_OP__SUMSQ:
            sum = shoal_vec_sumsq(state->size, x);
            break;
        default:
            sum = shoal_vec_sum(state->size, x);
        }
        layer->tops[0]->data[r] = (float)sum * factor;
    }
    return SHOAL_OK;
}

static void reduction_backward(ShoalLayer *layer, const ShoalCompute *compute) {
    (void)compute;
    const ReductionState *state = layer->state;
    const float *x = layer->bottoms[0]->data;
    float *dx = layer->bottoms[0]->diff, factor = factor_of(layer);
    for (size_t i = 0; i < state->rows * state->size && layer->propagate[0]; i++) {
        float dy = layer->tops[0]->diff[i / state->size] * factor;
        switch (operation_of(layer)) {
        case CAFFE__REDUCTION_PARAMETER__REDUCTION_OP__ASUM:
            dx[i] = dy * (float)((x[i] > 0) - (x[i] < 0));
            break;
        case CAFFE__REDUCTION_PARAMETER__REDUCTION_OP__SUMSQ:
            dx[i] = 2 * dy * x[i];
            break;
        default:
            dx[i] = dy;
        }
    }
}

const ShoalLayerClass shoal_layer_reduction_class = {
    .type = "Reduction",
    .flags = SHOAL_LAYER_BWD_NO_TOP,
    .min_bottoms = 1,
    .max_bottoms = 1,
    .min_tops = 1,
    .max_tops = 1,
    .state_bytes = sizeof(ReductionState),
    .setup = reduction_setup,
    .reshape = reduction_reshape,
    .forward = reduction_forward,
    .backward = reduction_backward,
};
