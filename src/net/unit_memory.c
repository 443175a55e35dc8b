/* SPDX-License-Identifier: Apache-2.0 */
#include "net/plan.h"
#include "net/units.h"

/* What units on blocked tensors need of the memory plan, and when. */

static size_t value_bytes(const ShoalNet *net, const ShoalValue *value) {
    const ShoalNchwcDims *dims = &value->dims;
    return (size_t)dims->batch * shoal_nchwc_padded(dims->channels, net->lanes) *
           (size_t)dims->height * (size_t)dims->width * sizeof(float);
}

/* From the last value to the first: an alias is that of a later one. */
static void assign_gradient(ShoalNet *net, ShoalValue *value,
                            int (*add_item)(ShoalNet *net, size_t bytes)) {
    if (value->readers == 0)
        return;
    value->grad_item = value->alias >= 0 ? net->values[value->alias].grad_item
                                         : add_item(net, value_bytes(net, value));
    if (value->norm)
        value->raw_item =
            value->alias >= 0 ? add_item(net, value_bytes(net, value)) : value->grad_item;
}

void shoal_units_assign_items(ShoalNet *net, int (*add_item)(ShoalNet *net, size_t bytes)) {
    for (int i = 0; i < net->n_values; i++) {
        ShoalValue *value = &net->values[i];
        value->data_item = value->storage == i ? add_item(net, value_bytes(net, value))
                                               : net->values[value->storage].data_item;
        value->again_item = value->dropped ? add_item(net, value_bytes(net, value)) : -1;
    }
    for (int i = net->n_values - 1; i >= 0; i--)
        assign_gradient(net, &net->values[i], add_item);
    for (int u = 0; u < net->n_units; u++)
        if (net->units[u].kind == SHOAL_UNIT_POOL && net->units[u].max)
            net->units[u].place_item =
                add_item(net, value_bytes(net, &net->values[net->units[u].output]) / sizeof(float));
}

/* Where a value's raw numbers are in backward. */
static int backward_item(const ShoalValue *value) {
    return value->dropped ? value->again_item : value->data_item;
}

static int plain_data(const ShoalUnit *unit) {
    return unit->plain ? shoal_net_blob_of(unit->plain)->data_item : -1;
}

static int plain_diff(const ShoalUnit *unit) {
    return unit->plain ? shoal_net_blob_of(unit->plain)->diff_item : -1;
}

/* What the last reader of a value reads to finish its gradient. */
static void touch_finish(const ShoalNet *net, const ShoalValue *value, int step,
                         ShoalUnitTouch *touch) {
    const ShoalUnit *producer = &net->units[value->producer];
    if (value->relu || value->rectified || value->norm)
        touch(net, backward_item(value), step);
    for (int i = 0; producer->kind == SHOAL_UNIT_SUM && i < 2; i++) {
        const ShoalValue *input = &net->values[producer->input[i]];
        if (input->alias == producer->output && input->norm)
            touch(net, backward_item(input), step);
    }
}

static void touch_backward(const ShoalNet *net, int number, int step, ShoalUnitTouch *touch) {
    const ShoalUnit *unit = &net->units[number];
    if (unit->output >= 0) {
        const ShoalValue *output = &net->values[unit->output];
        touch(net, output->grad_item, step);
        touch(net, output->raw_item, step);
        if (output->norm)
            touch(net, backward_item(output), step);
    }
    if (unit->kind == SHOAL_UNIT_CONV)
        touch(net, plain_data(unit), step);
    else
        touch(net, plain_diff(unit), step);
    touch(net, unit->place_item, step);
    for (int i = 0; i < unit->inputs; i++) {
        const ShoalValue *input = &net->values[unit->input[i]];
        if (unit->kind == SHOAL_UNIT_CONV)
            touch(net, backward_item(input), step);
        if (!unit->wants[i])
            continue;
        touch(net, input->grad_item, step);
        if (input->last_unit == number)
            touch_finish(net, input, step, touch);
    }
}

void shoal_unit_touch(const ShoalNet *net, int number, ShoalUnitTouch *touch) {
    const ShoalUnit *unit = &net->units[number];
    for (int i = 0; i < unit->inputs; i++)
        touch(net, net->values[unit->input[i]].data_item, number);
    if (unit->output >= 0)
        touch(net, net->values[unit->output].data_item, number);
    touch(net, plain_data(unit), number);
    touch(net, unit->place_item, number);
    if (net->backward && unit->needs_backward)
        touch_backward(net, number, 2 * net->n_units - 1 - number, touch);
}

/* From the last value to the first: to make one again may need those before it. */
void shoal_units_plan_again(ShoalNet *net, ShoalUnitTouch *touch) {
    for (int i = net->n_values - 1; i >= 0; i--) {
        const ShoalValue *value = &net->values[i];
        if (!value->dropped || net->items[value->again_item].last < 0)
            continue;
        int step = net->items[value->again_item].first;
        const ShoalUnit *producer = &net->units[value->producer];
        for (int j = 0; j < producer->inputs; j++)
            touch(net, backward_item(&net->values[producer->input[j]]), step);
        /* Sorted by step; of the same step, what comes first in the net first. */
        int at = net->n_again++;
        int before = 2 * net->n_units - 1 - step;
        for (; at > 0 && net->again[at - 1].before <= before; at--)
            net->again[at] = net->again[at - 1];
        net->again[at] = (ShoalAgain){before, i};
    }
}
