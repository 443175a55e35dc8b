/* SPDX-License-Identifier: Apache-2.0 */
#include "net/layers/layers.h"

#include <string.h>

/* Eltwise: the sum (each bottom times its coefficient), product or maximum of bottoms of one shape.
 * Of equal values the later of the first two bottoms wins, then the earlier one, as in Caffe. What
 * backward needs of the bottoms' values it keeps itself, so that a sum, the common case, keeps
 * nothing: for a product each bottom's factor dy/dx, for a maximum the winner. */

typedef enum EltwiseOp { SUM, PROD, MAX } EltwiseOp;

typedef struct EltwiseState {
    EltwiseOp op;
    bool stable; /* a product's factor is the product of the others, not the result divided */
} EltwiseState;

static float coefficient(const ShoalLayer *layer, int bottom) {
    const Caffe__EltwiseParameter *param = layer->param->eltwise_param;
    return param && param->n_coeff ? param->coeff[bottom] : 1;
}

static ShoalStatus eltwise_setup(ShoalLayer *layer, ShoalError *err) {
    EltwiseState *state = layer->state;
    const Caffe__EltwiseParameter *param = layer->param->eltwise_param;
    state->stable = !param || param->stable_prod_grad;
    if (!param)
        return SHOAL_OK;
    switch (param->operation) {
    case CAFFE__ELTWISE_PARAMETER__ELTWISE_OP__SUM:
        state->op = SUM;
        break;
    case CAFFE__ELTWISE_PARAMETER__ELTWISE_OP__PROD:
        state->op = PROD;
        break;
    case CAFFE__ELTWISE_PARAMETER__ELTWISE_OP__MAX:
        state->op = MAX;
        break;
    default:
        return shoal_layer_fail(layer, SHOAL_ERR_MODEL, err,
                                "operation is the unknown number %d; expected SUM, PROD or MAX",
                                (int)param->operation);
    }
    if (param->n_coeff && state->op == PROD)
        return shoal_layer_fail(layer, SHOAL_ERR_MODEL, err,
                                "eltwise_param has coeff and operation PROD; expected coeff with "
                                "SUM only");
    if (param->n_coeff && param->n_coeff != (size_t)layer->n_bottoms)
        return shoal_layer_fail(layer, SHOAL_ERR_MODEL, err,
                                "eltwise_param has %zu values of coeff for %d bottoms; expected "
                                "none or one for each",
                                param->n_coeff, layer->n_bottoms);
    return SHOAL_OK;
}

static ShoalStatus eltwise_reshape(ShoalLayer *layer, ShoalError *err) {
    const EltwiseState *state = layer->state;
    const ShoalBlob *first = layer->bottoms[0];
    for (int i = 1; i < layer->n_bottoms; i++) {
        const ShoalBlob *other = layer->bottoms[i];
        char a[128], b[128];
        if (!shoal_blob_same_shape(first, other))
            return shoal_layer_fail(layer, SHOAL_ERR_MODEL, err,
                                    "bottom '%s' is %s, but bottom '%s' is %s; expected one shape",
                                    first->name, shoal_blob_shape_text(first, a, sizeof a),
                                    other->name, shoal_blob_shape_text(other, b, sizeof b));
    }
    layer->saved_bytes = state->op == SUM ? 0
                         : state->op == MAX
                             ? first->count * sizeof(int32_t)
                             : first->count * (size_t)layer->n_bottoms * sizeof(float);
    return shoal_layer_shape_top_like(layer, 0, first, err);
}

static void sum_forward(const ShoalLayer *layer, const ShoalCompute *compute) {
    size_t n = layer->tops[0]->count;
    float *y = layer->tops[0]->data;
    int next = 0;
    if (coefficient(layer, 0) == 1 && coefficient(layer, 1) == 1) {
        shoal_vec_add(compute, n, layer->bottoms[0]->data, layer->bottoms[1]->data, y);
        next = 2;
    } else {
        memset(y, 0, n * sizeof *y);
    }
    for (int i = next; i < layer->n_bottoms; i++)
        shoal_vec_axpy(compute, n, coefficient(layer, i), layer->bottoms[i]->data, y);
}

/* The product of the bottoms but for number `without` (-1: of all), in order. */
static void multiply(const ShoalLayer *layer, const ShoalCompute *compute, int without, float *y) {
    size_t n = layer->tops[0]->count;
    const float *product = NULL;
    for (int i = 0; i < layer->n_bottoms; i++) {
        const float *x = layer->bottoms[i]->data;
        if (i == without)
            continue;
        if (product)
            shoal_vec_mul(compute, n, product, x, y);
        product = product ? y : x;
    }
    if (product != y)
        memcpy(y, product, n * sizeof *y);
}

static void prod_forward(const ShoalLayer *layer, const ShoalCompute *compute) {
    const EltwiseState *state = layer->state;
    size_t n = layer->tops[0]->count;
    const float *y = layer->tops[0]->data;
    multiply(layer, compute, -1, layer->tops[0]->data);
    for (int i = 0; i < layer->n_bottoms && layer->needs_backward; i++) {
        float *factor = (float *)layer->saved + (size_t)i * n;
        const float *x = layer->bottoms[i]->data;
        if (state->stable)
            multiply(layer, compute, i, factor);
        for (size_t at = 0; at < n && !state->stable; at++)
            factor[at] = y[at] / x[at];
    }
}

static void max_forward(const ShoalLayer *layer) {
    size_t n = layer->tops[0]->count;
    float *y = layer->tops[0]->data;
    int32_t *winner = layer->saved;
    const float *a = layer->bottoms[0]->data, *b = layer->bottoms[1]->data;
    for (size_t at = 0; at < n; at++) {
        winner[at] = a[at] > b[at] ? 0 : 1;
        y[at] = a[at] > b[at] ? a[at] : b[at];
    }
    for (int i = 2; i < layer->n_bottoms; i++) {
        const float *x = layer->bottoms[i]->data;
        for (size_t at = 0; at < n; at++) {
            winner[at] = x[at] > y[at] ? i : winner[at];
            y[at] = x[at] > y[at] ? x[at] : y[at];
        }
    }
}

static ShoalStatus eltwise_forward(ShoalLayer *layer, const ShoalCompute *compute,
                                   ShoalError *err) {
    (void)err;
    const EltwiseState *state = layer->state;
    if (state->op == SUM)
        sum_forward(layer, compute);
    else if (state->op == PROD)
        prod_forward(layer, compute);
    else
        max_forward(layer);
    return SHOAL_OK;
}

static void sum_backward(const ShoalCompute *compute, float coeff, size_t n, const float *dy,
                         float *dx) {
    if (coeff == 1) {
        memcpy(dx, dy, n * sizeof *dx);
    } else {
        memset(dx, 0, n * sizeof *dx);
        shoal_vec_axpy(compute, n, coeff, dy, dx);
    }
}

static void eltwise_backward(ShoalLayer *layer, const ShoalCompute *compute) {
    const EltwiseState *state = layer->state;
    size_t n = layer->tops[0]->count;
    const float *dy = layer->tops[0]->diff, *factors = layer->saved;
    const int32_t *winner = layer->saved;
    for (int i = 0; i < layer->n_bottoms; i++) {
        float *dx = layer->bottoms[i]->diff;
        if (!layer->propagate[i])
            continue;
        if (state->op == SUM)
            sum_backward(compute, coefficient(layer, i), n, dy, dx);
        else if (state->op == PROD)
            shoal_vec_mul(compute, n, factors + (size_t)i * n, dy, dx);
        else
            for (size_t at = 0; at < n; at++)
                dx[at] = winner[at] == i ? dy[at] : 0;
    }
}

const ShoalLayerClass shoal_layer_eltwise_class = {
    .type = "Eltwise",
    .flags = SHOAL_LAYER_BWD_NO_BOTTOM | SHOAL_LAYER_BWD_NO_TOP,
    .min_bottoms = 2,
    .max_bottoms = -1,
    .min_tops = 1,
    .max_tops = 1,
    .state_bytes = sizeof(EltwiseState),
    .setup = eltwise_setup,
    .reshape = eltwise_reshape,
    .forward = eltwise_forward,
    .backward = eltwise_backward,
};
