/* SPDX-License-Identifier: Apache-2.0 */
#include "net/layers/layers.h"
#include "net/units.h"

/* Execution of the units on blocked tensors. */

static ShoalNchwcInput input_of(const ShoalValue *value) {
    const ShoalNorm *norm = value->norm;
    return (ShoalNchwcInput){value->data, norm ? norm->scale : NULL, norm ? norm->shift : NULL,
                             value->relu};
}

static size_t count_per_channel(const ShoalValue *value) {
    const ShoalNchwcDims *dims = &value->dims;
    return (size_t)dims->batch * (size_t)dims->height * (size_t)dims->width;
}

/* ---- forward ---- */

static const ShoalNchwcStats *wanted_stats(const ShoalValue *value, ShoalNchwcStats *stats) {
    if (!value->norm || !value->norm->batch_statistics)
        return NULL;
    *stats = (ShoalNchwcStats){value->norm->mean, value->norm->variance};
    return stats;
}

static void forward_conv(const ShoalNet *net, const ShoalUnit *unit, bool again,
                         const ShoalCompute *compute) {
    const ShoalLayer *layer = &net->layers[unit->layer];
    const ShoalValue *output = &net->values[unit->output];
    ShoalNchwcStats stats;
    ShoalNchwcInput input = {.x = unit->plain ? unit->plain->data : NULL};
    if (!unit->plain)
        input = input_of(&net->values[unit->input[0]]);
    shoal_nchwc_conv_fwd(compute, &unit->conv, &input, layer->params[0]->blob.data,
                         layer->n_params > 1 ? layer->params[1]->blob.data : NULL, output->data,
                         again ? NULL : wanted_stats(output, &stats));
}

static void forward_pool(const ShoalNet *net, const ShoalUnit *unit, const ShoalCompute *compute) {
    ShoalNchwcInput input = input_of(&net->values[unit->input[0]]);
    float *y = net->values[unit->output].data;
    if (unit->max)
        shoal_nchwc_pool_max_fwd(compute, &unit->pool, &input, y, unit->place);
    else
        shoal_nchwc_pool_ave_fwd(compute, &unit->pool, &input, y);
}

static void forward_sum(const ShoalNet *net, const ShoalUnit *unit, const ShoalCompute *compute) {
    const ShoalValue *output = &net->values[unit->output];
    ShoalNchwcInput a = input_of(&net->values[unit->input[0]]);
    ShoalNchwcInput b = input_of(&net->values[unit->input[1]]);
    shoal_nchwc_sum(compute, &output->dims, &a, &b, unit->relu, output->data);
}

static void forward_unblock(const ShoalNet *net, const ShoalUnit *unit,
                            const ShoalCompute *compute) {
    const ShoalValue *from = &net->values[unit->input[0]];
    ShoalNchwcInput input = input_of(from);
    shoal_nchwc_to_plain(compute, &from->dims, &input, unit->plain->data);
}

/* The function that the output is read through. */
static void forward_norm(const ShoalUnit *unit, const ShoalValue *output,
                         const ShoalCompute *compute) {
    ShoalNchwcStats stats;
    if (unit->kind != SHOAL_UNIT_CONV && wanted_stats(output, &stats))
        shoal_nchwc_stats(compute, &output->dims, output->data, &stats);
    shoal_norm_forward(output->norm);
}

/* Makes the raw numbers of a value that was dropped; its function is as forward left it. */
static void make_again(ShoalNet *net, ShoalValue *value, const ShoalCompute *compute) {
    const ShoalUnit *unit = &net->units[value->producer];
    value->data = value->again_data;
    if (unit->kind == SHOAL_UNIT_CONV)
        forward_conv(net, unit, true, compute);
    else
        forward_sum(net, unit, compute);
}

ShoalStatus shoal_unit_forward(ShoalNet *net, int number, const ShoalCompute *compute,
                               ShoalError *err) {
    const ShoalUnit *unit = &net->units[number];
    net->next_again = 0;
    if (unit->output >= 0)
        net->values[unit->output].data = net->values[unit->output].forward_data;
    switch (unit->kind) {
    case SHOAL_UNIT_LAYER:
        return shoal_layer_run_forward(net, unit->layer, compute, err);
    case SHOAL_UNIT_CONV:
        forward_conv(net, unit, false, compute);
        break;
    case SHOAL_UNIT_POOL:
        forward_pool(net, unit, compute);
        break;
    case SHOAL_UNIT_SUM:
        forward_sum(net, unit, compute);
        break;
    case SHOAL_UNIT_VIEW:
        break;
    case SHOAL_UNIT_BLOCK:
        shoal_nchwc_from_plain(compute, &net->values[unit->output].dims, unit->plain->data,
                               net->values[unit->output].data);
        break;
    case SHOAL_UNIT_UNBLOCK:
        forward_unblock(net, unit, compute);
        break;
    }
    if (unit->output >= 0 && net->values[unit->output].norm)
        forward_norm(unit, &net->values[unit->output], compute);
    return SHOAL_OK;
}

/* ---- backward ---- */

static void add_term(ShoalNchwcGradient *to, const ShoalValue *value) {
    if (!value->norm)
        return;
    to->sum_g = to->sum_g ? to->sum_g : value->norm->sum_g;
    to->term[to->terms].z = value->data;
    to->term[to->terms].center = value->norm->center;
    to->term[to->terms++].sum = value->norm->sum_gz;
}

/* What the last reader does: the mask of the value's ReLU, the sums of its norm, and those of the
 * inputs of a sum that have this gradient too. */
static void add_finish(const ShoalNet *net, const ShoalValue *value, ShoalNchwcGradient *to) {
    const ShoalUnit *producer = &net->units[value->producer];
    to->finish = true;
    if (value->relu || value->rectified)
        to->mask = value->data;
    if (value->relu && value->norm) {
        to->mask_scale = value->norm->scale;
        to->mask_shift = value->norm->shift;
    }
    add_term(to, value);
    for (int i = 0; producer->kind == SHOAL_UNIT_SUM && i < 2; i++) {
        const ShoalValue *input = &net->values[producer->input[i]];
        if (input->alias == producer->output && input->readers == 1)
            add_term(to, input);
    }
}

/* Where reader (unit, input) puts its gradient. */
static ShoalNchwcGradient gradient_for(const ShoalNet *net, int number, int input) {
    const ShoalValue *value = &net->values[net->units[number].input[input]];
    ShoalNchwcGradient to = {.g = value->grad};
    to.accumulate = value->first_unit != number || value->first_input != input;
    if (value->last_unit == number && value->last_input == input)
        add_finish(net, value, &to);
    return to;
}

/* sum_g is made once per finish; the second input of a sum finds it with the first. */
static const double *sum_g_of(const ShoalNet *net, const ShoalValue *value) {
    if (value->alias < 0 || value->readers != 1)
        return value->norm->sum_g;
    const ShoalUnit *sum = &net->units[net->values[value->alias].producer];
    for (int i = 0; i < 2; i++) {
        const ShoalValue *input = &net->values[sum->input[i]];
        if (input->norm && input->alias == value->alias && input->readers == 1)
            return input->norm->sum_g;
    }
    return value->norm->sum_g;
}

/* The gradient of the raw numbers, as the value's gradient and what the norm makes of it; adds the
 * norm's own gradients. */
static ShoalNchwcOutGradient raw_gradient_of(const ShoalNet *net, const ShoalValue *value) {
    ShoalNorm *norm = value->norm;
    ShoalNchwcOutGradient dy = {.g = value->grad, .room = value->raw};
    if (!norm)
        return dy;
    shoal_norm_backward(norm, sum_g_of(net, value), count_per_channel(value));
    dy.a = norm->a;
    if (norm->batch_statistics) {
        dy.z = value->data;
        dy.b = norm->b;
        dy.c0 = norm->c0;
    }
    return dy;
}

/* The same, made. */
static const float *raw_gradient(const ShoalNet *net, const ShoalValue *value,
                                 const ShoalCompute *compute) {
    ShoalNchwcOutGradient dy = raw_gradient_of(net, value);
    if (!dy.a)
        return dy.g;
    shoal_nchwc_affine(compute, &value->dims, dy.g, dy.z, dy.a, dy.b, dy.c0, dy.room);
    return dy.room;
}

static void backward_conv(const ShoalNet *net, int number, const ShoalCompute *compute) {
    const ShoalUnit *unit = &net->units[number];
    const ShoalLayer *layer = &net->layers[unit->layer];
    const ShoalValue *output = &net->values[unit->output];
    ShoalNchwcOutGradient dy = raw_gradient_of(net, output);
    if (!layer->needs_backward)
        return;
    bool learns = layer->params[0]->learns, passes = unit->inputs && unit->wants[0];
    bool bias = learns && layer->n_params > 1 && layer->params[1]->learns;
    ShoalNchwcInput input = {.x = unit->plain ? unit->plain->data : NULL};
    if (!unit->plain)
        input = input_of(&net->values[unit->input[0]]);
    ShoalNchwcGradient to = {0};
    if (passes)
        to = gradient_for(net, number, 0);
    shoal_nchwc_conv_bwd(compute, &unit->conv, &input, &dy, layer->params[0]->blob.data,
                         learns ? layer->params[0]->blob.diff : NULL,
                         bias ? layer->params[1]->blob.diff : NULL, passes ? &to : NULL);
}

static void backward_pool(const ShoalNet *net, int number, const ShoalCompute *compute) {
    const ShoalUnit *unit = &net->units[number];
    const float *dy = raw_gradient(net, &net->values[unit->output], compute);
    if (!unit->wants[0])
        return;
    ShoalNchwcGradient to = gradient_for(net, number, 0);
    if (unit->max)
        shoal_nchwc_pool_max_bwd(compute, &unit->pool, dy, unit->place, &to);
    else
        shoal_nchwc_pool_ave_bwd(compute, &unit->pool, dy, &to);
}

/* A sum, or a view: the gradient goes on as it is, unless it is there already. */
static void backward_copy(const ShoalNet *net, int number, const ShoalCompute *compute) {
    const ShoalUnit *unit = &net->units[number];
    const ShoalValue *output = &net->values[unit->output];
    const float *dy = raw_gradient(net, output, compute);
    for (int i = 0; i < unit->inputs; i++) {
        if (!unit->wants[i] || net->values[unit->input[i]].alias == unit->output)
            continue;
        ShoalNchwcGradient to = gradient_for(net, number, i);
        shoal_nchwc_grad(compute, &output->dims, dy, &to);
    }
}

static void backward_block(const ShoalNet *net, const ShoalUnit *unit,
                           const ShoalCompute *compute) {
    const ShoalValue *output = &net->values[unit->output];
    ShoalNchwcInput dy = {.x = raw_gradient(net, output, compute)};
    if (unit->plain->diff)
        shoal_nchwc_to_plain(compute, &output->dims, &dy, unit->plain->diff);
}

static void backward_unblock(const ShoalNet *net, int number, const ShoalCompute *compute) {
    const ShoalUnit *unit = &net->units[number];
    ShoalNchwcGradient to = gradient_for(net, number, 0);
    shoal_nchwc_grad_from_plain(compute, &net->values[unit->input[0]].dims, unit->plain->diff, &to);
}

void shoal_unit_backward(ShoalNet *net, int number, const ShoalCompute *compute) {
    const ShoalUnit *unit = &net->units[number];
    for (; net->next_again < net->n_again && net->again[net->next_again].before >= number;
         net->next_again++)
        make_again(net, &net->values[net->again[net->next_again].value], compute);
    if (!unit->needs_backward)
        return;
    switch (unit->kind) {
    case SHOAL_UNIT_LAYER:
        shoal_layer_run_backward(net, unit->layer, compute);
        break;
    case SHOAL_UNIT_CONV:
        backward_conv(net, number, compute);
        break;
    case SHOAL_UNIT_POOL:
        backward_pool(net, number, compute);
        break;
    case SHOAL_UNIT_SUM:
    case SHOAL_UNIT_VIEW:
        backward_copy(net, number, compute);
        break;
    case SHOAL_UNIT_BLOCK:
        backward_block(net, unit, compute);
        break;
    case SHOAL_UNIT_UNBLOCK:
        backward_unblock(net, number, compute);
        break;
    }
}
