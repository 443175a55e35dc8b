/* SPDX-License-Identifier: Apache-2.0 */
#include "net/plan.h"

#include <stdbool.h>
#include <stdlib.h>

#include "base/error.h"
#include "base/memory.h"

static bool is_used(const ShoalPlanItem *item) {
    return item->bytes && item->last >= item->first;
}

/* Largest first; equal sizes in their old order, so that a plan is the same everywhere. */
static int by_size(const void *a, const void *b) {
    const ShoalPlanItem *x = *(ShoalPlanItem *const *)a, *y = *(ShoalPlanItem *const *)b;
    if (x->bytes != y->bytes)
        return x->bytes < y->bytes ? 1 : -1;
    return x < y ? -1 : 1;
}

/* The lowest offset with a gap of `item->bytes` among the placed ones that live with it.
 * placed[] is sorted by offset. */
static size_t lowest_gap(const ShoalPlanItem *item, ShoalPlanItem *const *placed, size_t n) {
    size_t offset = 0;
    for (size_t i = 0; i < n; i++) {
        const ShoalPlanItem *other = placed[i];
        if (other->last < item->first || other->first > item->last)
            continue;
        if (other->offset >= offset + item->bytes)
            break;
        size_t end = shoal_align_up(other->offset + other->bytes);
        if (end > offset)
            offset = end;
    }
    return offset;
}

static void insert_by_offset(ShoalPlanItem **placed, size_t n, ShoalPlanItem *item) {
    while (n > 0 && placed[n - 1]->offset > item->offset) {
        placed[n] = placed[n - 1];
        n--;
    }
    placed[n] = item;
}

ShoalStatus shoal_plan_place(ShoalPlanItem *items, size_t count, size_t *total, ShoalError *err) {
    ShoalPlanItem **order = shoal_calloc(2 * count + 1, sizeof *order);
    if (!order)
        return shoal_error_memory(err, "the memory plan", 2 * count * sizeof *order);
    ShoalPlanItem **placed = order + count;
    size_t n = 0, sum = 0, end = 0;
    for (size_t i = 0; i < count; i++) {
        items[i].offset = 0;
        if (!is_used(&items[i]))
            continue;
        order[n++] = &items[i];
        if (!shoal_size_add(sum, items[i].bytes, &sum) || !shoal_size_add(sum, SHOAL_ALIGN, &sum)) {
            shoal_free(order);
            return shoal_error_set(err, SHOAL_ERR_MEMORY, "the net needs more memory than exists");
        }
    }
    qsort(order, n, sizeof *order, by_size);
    for (size_t i = 0; i < n; i++) {
        order[i]->offset = lowest_gap(order[i], placed, i);
        insert_by_offset(placed, i, order[i]);
        size_t item_end = shoal_align_up(order[i]->offset + order[i]->bytes);
        if (item_end > end)
            end = item_end;
    }
    shoal_free(order);
    *total = end;
    return SHOAL_OK;
}
