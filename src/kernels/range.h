/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHOAL_KERNELS_RANGE_H
#define SHOAL_KERNELS_RANGE_H

#include "kernels/kernels.h"

/* Loops over the threads of a ShoalCompute, for operations that are made of pieces. */

/* Elements below which waking the other threads costs more than it brings, and the share that a
 * thread takes at a time. */
enum { SHOAL_RANGE_CHUNK = 16384 };

typedef void ShoalRangeBody(const void *context, size_t begin, size_t end);

typedef struct ShoalRange {
    ShoalRangeBody *body;
    const void *context;
    size_t count, step;
} ShoalRange;

static inline void shoal_range_task(void *context, size_t index, unsigned thread) {
    const ShoalRange *range = context;
    size_t begin = index * range->step, left = range->count - begin;
    (void)thread;
    range->body(range->context, begin, begin + (left < range->step ? left : range->step));
}

/* body over [0, count), in parts of at least SHOAL_RANGE_CHUNK elements where an item has item_size
 * of them. */
static inline void run_range(const ShoalCompute *compute, size_t count, size_t item_size,
                             ShoalRangeBody *body, const void *context) {
    size_t step =
        item_size >= SHOAL_RANGE_CHUNK ? 1 : SHOAL_RANGE_CHUNK / (item_size ? item_size : 1);
    ShoalRange range = {body, context, count, step};
    if (count <= step || shoal_pool_threads(compute->pool) == 1) {
        if (count > 0)
            body(context, 0, count);
        return;
    }
    shoal_pool_run(compute->pool, (count - 1) / step + 1, shoal_range_task, &range);
}

#endif
