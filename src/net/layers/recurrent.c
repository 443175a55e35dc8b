/* SPDX-License-Identifier: Apache-2.0 */
#include "net/layers/recurrent.h"

#include <limits.h>
#include <string.h>

#include "base/memory.h"

static int first_start(const ShoalRecurrent *r) {
    return r->statics ? 3 : 2;
}

static ShoalStatus misshaped(const ShoalLayer *layer, int bottom, const char *expected,
                             ShoalError *err) {
    char text[128];
    const ShoalBlob *blob = layer->bottoms[bottom];
    return shoal_layer_fail(layer, SHOAL_ERR_MODEL, err, "bottom '%s' is %s; expected %s",
                            blob->name, shoal_blob_shape_text(blob, text, sizeof text), expected);
}

static ShoalStatus check_numbers(const ShoalLayer *layer, const ShoalRecurrent *r, bool *has_static,
                                 ShoalError *err) {
    int hidden = r->exposes ? r->states : 0, extra = layer->n_bottoms - 2 - hidden;
    if (extra < 0 || extra > 1)
        return shoal_layer_fail(
            layer, SHOAL_ERR_MODEL, err, "%d bottoms; expected x, cont, perhaps a static input%s",
            layer->n_bottoms, hidden ? ", and the start states, as expose_hidden is set" : "");
    if (layer->n_tops != 1 + hidden)
        return shoal_layer_fail(layer, SHOAL_ERR_MODEL, err, "%d tops; expected %d%s",
                                layer->n_tops, 1 + hidden,
                                hidden ? ", as expose_hidden is set" : "");
    *has_static = extra > 0;
    return SHOAL_OK;
}

/* Values per place of a bottom, after its first `axes` axes. */
static size_t width_of(const ShoalBlob *blob, int axes) {
    return blob->axes > axes ? shoal_blob_count(blob, axes, blob->axes) : 0;
}

static ShoalStatus declare_weights(ShoalLayer *layer, const ShoalRecurrent *r, ShoalError *err) {
    const Caffe__RecurrentParameter *param = layer->param->recurrent_param;
    int rows = (int)(r->gates * r->units);
    const Caffe__FillerParameter *filler = param->weight_filler;
    ShoalStatus status = shoal_layer_declare(layer, 2, (int[]){rows, (int)r->inputs}, filler, err);
    if (!status)
        status = shoal_layer_declare(layer, 1, &rows, param->bias_filler, err);
    if (!status && r->statics)
        status = shoal_layer_declare(layer, 2, (int[]){rows, (int)r->statics}, filler, err);
    if (!status)
        status = shoal_layer_declare(layer, 2, (int[]){rows, (int)r->units}, filler, err);
    return status;
}

ShoalStatus shoal_recurrent_setup(ShoalLayer *layer, size_t gates, int states, ShoalError *err) {
    ShoalRecurrent *r = layer->state;
    const Caffe__RecurrentParameter *param = layer->param->recurrent_param;
    int units;
    if (!param)
        return shoal_layer_fail(layer, SHOAL_ERR_MODEL, err,
                                "no recurrent_param; expected one with num_output");
    ShoalStatus status = shoal_layer_int(layer, "num_output", param->num_output, 1, &units, err);
    if (status)
        return status;
    if ((size_t)units > INT_MAX / gates)
        return shoal_layer_fail(layer, SHOAL_ERR_MODEL, err, "num_output is %d; expected 1 to %zu",
                                units, INT_MAX / gates);
    r->exposes = param->expose_hidden;
    r->states = states;
    r->gates = gates;
    r->units = (size_t)units;
    bool has_static = false;
    status = check_numbers(layer, r, &has_static, err);
    if (status)
        return status;
    const ShoalBlob *x = layer->bottoms[0];
    r->inputs = width_of(x, 2);
    if (!r->inputs || !x->count)
        return misshaped(layer, 0, "steps x sequences x values, none of them 0", err);
    r->steps = (size_t)x->shape[0];
    r->statics = has_static ? width_of(layer->bottoms[2], 1) : 0;
    if (has_static && !r->statics)
        return misshaped(layer, 2, "sequences x values", err);
    r->capacity = (size_t)x->shape[1] * r->units;
    if (!r->exposes && !(r->carried = shoal_calloc((size_t)states * r->capacity, sizeof(float))))
        return shoal_layer_fail(layer, SHOAL_ERR_MEMORY, err, "out of memory for its state");
    return declare_weights(layer, r, err);
}

static ShoalStatus check_bottoms(const ShoalLayer *layer, const ShoalRecurrent *r,
                                 ShoalError *err) {
    const ShoalBlob *x = layer->bottoms[0], *cont = layer->bottoms[1];
    if (x->axes < 3 || (size_t)x->shape[0] != r->steps || width_of(x, 2) != r->inputs)
        return misshaped(layer, 0, "as many steps and values as at first", err);
    if (!r->exposes && (size_t)x->shape[1] * r->units > r->capacity)
        return misshaped(layer, 0, "no more sequences than at first", err);
    if (cont->axes != 2 || cont->shape[0] != x->shape[0] || cont->shape[1] != x->shape[1])
        return misshaped(layer, 1, "steps x sequences, as the first bottom has them", err);
    const ShoalBlob *fixed = r->statics ? layer->bottoms[2] : NULL;
    if (fixed &&
        (fixed->axes < 2 || fixed->shape[0] != x->shape[1] || width_of(fixed, 1) != r->statics))
        return misshaped(layer, 2, "sequences (as the first bottom has) x values (as at first)",
                         err);
    for (int i = first_start(r); i < layer->n_bottoms; i++) {
        const ShoalBlob *start = layer->bottoms[i];
        if (start->axes != 3 || start->shape[0] != 1 || start->shape[1] != x->shape[1] ||
            (size_t)start->shape[2] != r->units)
            return misshaped(layer, i, "1 x sequences x num_output", err);
    }
    return SHOAL_OK;
}

ShoalStatus shoal_recurrent_reshape(ShoalLayer *layer, ShoalError *err) {
    ShoalRecurrent *r = layer->state;
    ShoalStatus status = check_bottoms(layer, r, err);
    if (status)
        return status;
    int shape[3] = {(int)r->steps, layer->bottoms[0]->shape[1], (int)r->units};
    r->streams = (size_t)shape[1];
    layer->whole_batch = true; /* axis 0 is time */
    layer->workspace_bytes = shoal_gemm_workspace_bytes((unsigned)layer->context->threads);
    for (int i = 0; i < layer->n_tops && !status; i++) {
        status = shoal_layer_shape_top(layer, i, 3, shape, err);
        shape[0] = 1; /* end states */
    }
    return status;
}

void shoal_recurrent_close(ShoalLayer *layer) {
    shoal_free(((ShoalRecurrent *)layer->state)->carried);
}

void shoal_recurrent_begin(const ShoalLayer *layer, int i, float *start) {
    const ShoalRecurrent *r = layer->state;
    const float *from = r->exposes ? layer->bottoms[first_start(r) + i]->data
                                   : r->carried + (size_t)i * r->capacity;
    memcpy(start, from, shoal_recurrent_size(r) * sizeof *start);
}

void shoal_recurrent_end(ShoalLayer *layer, int i, const float *end) {
    const ShoalRecurrent *r = layer->state;
    float *to = r->exposes ? layer->tops[1 + i]->data : r->carried + (size_t)i * r->capacity;
    memcpy(to, end, shoal_recurrent_size(r) * sizeof *end);
}

void shoal_recurrent_inputs(const ShoalLayer *layer, const ShoalCompute *compute, float *gates,
                            float *scratch) {
    const ShoalRecurrent *r = layer->state;
    size_t rows = r->steps * r->streams, width = r->gates * r->units;
    shoal_gemm(compute, false, true, rows, width, r->inputs, 1, layer->bottoms[0]->data, r->inputs,
               layer->params[0]->blob.data, r->inputs, 0, gates, width);
    shoal_bias_add(compute, rows, width, layer->params[1]->blob.data, gates);
    if (!r->statics)
        return;
    shoal_gemm(compute, false, true, r->streams, width, r->statics, 1, layer->bottoms[2]->data,
               r->statics, layer->params[2]->blob.data, r->statics, 0, scratch, width);
    for (size_t t = 0, step = r->streams * width; t < r->steps; t++)
        shoal_vec_add(compute, step, gates + t * step, scratch, gates + t * step);
}

/* y[n][d] = cont[n] * x[n][d] */
static void scale_streams(const ShoalRecurrent *r, const float *cont, const float *x, float *y) {
    for (size_t n = 0; n < r->streams; n++)
        for (size_t i = n * r->units; i < (n + 1) * r->units; i++)
            y[i] = cont[n] * x[i];
}

void shoal_recurrent_add_hidden(const ShoalLayer *layer, const ShoalCompute *compute, size_t t,
                                const float *h, float *gates, float *scratch) {
    const ShoalRecurrent *r = layer->state;
    size_t width = r->gates * r->units;
    const ShoalParam *weights = layer->params[shoal_recurrent_hidden_weights(r)];
    scale_streams(r, shoal_recurrent_cont(layer, r, t), h, scratch);
    shoal_gemm(compute, false, true, r->streams, width, r->units, 1, scratch, r->units,
               weights->blob.data, r->units, 1, gates, width);
}

void shoal_recurrent_hidden_back(const ShoalLayer *layer, const ShoalCompute *compute, size_t t,
                                 const float *dgates, float *dh) {
    const ShoalRecurrent *r = layer->state;
    size_t width = r->gates * r->units;
    const ShoalParam *weights = layer->params[shoal_recurrent_hidden_weights(r)];
    shoal_gemm(compute, false, false, r->streams, r->units, width, 1, dgates, width,
               weights->blob.data, r->units, 0, dh, r->units);
    scale_streams(r, shoal_recurrent_cont(layer, r, t), dh, dh);
}

/* dw[width][inputs] += dgates^T x, over `rows` rows. */
static void add_weight_gradient(const ShoalCompute *compute, ShoalParam *weights, size_t rows,
                                size_t width, size_t inputs, const float *dgates, const float *x) {
    if (weights->learns)
        shoal_gemm(compute, true, false, width, inputs, rows, 1, dgates, width, x, inputs, 1,
                   weights->blob.diff, inputs);
}

static void bottom_gradient(const ShoalLayer *layer, const ShoalCompute *compute, int bottom,
                            const ShoalParam *weights, size_t rows, size_t width, size_t inputs,
                            const float *dgates) {
    if (layer->propagate[bottom])
        shoal_gemm(compute, false, false, rows, inputs, width, 1, dgates, width, weights->blob.data,
                   inputs, 0, layer->bottoms[bottom]->diff, inputs);
}

static void static_back(const ShoalLayer *layer, const ShoalCompute *compute, const float *dgates,
                        float *sums) {
    const ShoalRecurrent *r = layer->state;
    size_t width = r->gates * r->units, step = r->streams * width;
    memcpy(sums, dgates, step * sizeof *sums);
    for (size_t t = 1; t < r->steps; t++)
        shoal_vec_add(compute, step, sums, dgates + t * step, sums);
    add_weight_gradient(compute, layer->params[2], r->streams, width, r->statics, sums,
                        layer->bottoms[2]->data);
    bottom_gradient(layer, compute, 2, layer->params[2], r->streams, width, r->statics, sums);
}

void shoal_recurrent_back(const ShoalLayer *layer, const ShoalCompute *compute, const float *dgates,
                          const float *h, float *scratch, float *static_scratch) {
    const ShoalRecurrent *r = layer->state;
    size_t rows = r->steps * r->streams, width = r->gates * r->units;
    size_t size = shoal_recurrent_size(r);
    for (size_t t = 0; t < r->steps; t++)
        scale_streams(r, shoal_recurrent_cont(layer, r, t), h + t * size, scratch + t * size);
    add_weight_gradient(compute, layer->params[shoal_recurrent_hidden_weights(r)], rows, width,
                        r->units, dgates, scratch);
    add_weight_gradient(compute, layer->params[0], rows, width, r->inputs, dgates,
                        layer->bottoms[0]->data);
    if (layer->params[1]->learns)
        shoal_bias_grad(compute, rows, width, dgates, layer->params[1]->blob.diff);
    bottom_gradient(layer, compute, 0, layer->params[0], rows, width, r->inputs, dgates);
    if (r->statics)
        static_back(layer, compute, dgates, static_scratch);
    for (int i = first_start(r); i < layer->n_bottoms; i++)
        if (layer->propagate[i])
            memset(layer->bottoms[i]->diff, 0, layer->bottoms[i]->count * sizeof(float));
}
