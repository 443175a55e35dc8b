/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHOAL_NET_PLAN_H
#define SHOAL_NET_PLAN_H

#include "shoal/status.h"
#include <stddef.h>

/* Places buffers with known lifetimes in one block of memory, so that two that live at the same
 * time never overlap: greedy by size (Pisarchyk and Lee: "Efficient memory management for deep
 * neural net inference", 2020, section 5.2). */

typedef struct ShoalPlanItem {
    size_t bytes;
    int first, last; /* lives in the steps first..last, both included; last < first: never */
    size_t offset;   /* out: multiple of SHOAL_ALIGN */
} ShoalPlanItem;

/* Fills the offsets; *total gets the size of the block. SHOAL_ERR_MEMORY (also when the sum of the
 * sizes overflows). */
ShoalStatus shoal_plan_place(ShoalPlanItem *items, size_t count, size_t *total, ShoalError *err);

#endif
