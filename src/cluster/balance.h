/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHOAL_CLUSTER_BALANCE_H
#define SHOAL_CLUSTER_BALANCE_H

#include <stdbool.h>
#include <stdint.h>

#include "shoal/status.h"

/* Shares that follow measured speed: who is three times slower gets a third. Pure.
 *
 * A worker's time for a share is about fixed + samples * per_sample; both are estimated from what
 * it reports, with old reports counting less and less. A single wild report counts nothing; three
 * in a row are believed at once. A new plan replaces the old one only when it promises enough
 * (hysteresis), so that noise moves no samples. */

typedef struct ShoalBalance ShoalBalance;

typedef struct ShoalBalanceOptions {
    double gain;     /* a new plan must shorten the iteration by this part; 0: 0.05 */
    double memory;   /* reports that count, about; 0: 8 */
    int min_reports; /* before a worker's speed is believed; 0: 2 */
} ShoalBalanceOptions;

/* SHOAL_ERR_MEMORY. options NULL: all defaults. */
ShoalStatus shoal_balance_create(const ShoalBalanceOptions *options, ShoalBalance **balance,
                                 ShoalError *err);
void shoal_balance_destroy(ShoalBalance *balance);

/* A new generation: n members, keys[rank] names a worker for as long as it lives. What is known of
 * those who stay is kept; those who are new count as the median of the known ones. On failure all
 * stays as it was. SHOAL_ERR_MEMORY, SHOAL_ERR_ARGUMENT. */
ShoalStatus shoal_balance_members(ShoalBalance *balance, int n, const uint64_t *keys,
                                  ShoalError *err);

/* The member of this rank computed so many samples in so many seconds. Nonsense (negative, not
 * finite, no samples) is ignored. */
void shoal_balance_report(ShoalBalance *balance, int rank, int samples, double seconds);

/* The shares of a batch: counts[n], 0 <= counts[r] <= capacities[r], their sum is *planned =
 * min(batch, sum of capacities). The counts stay those of the last call for this batch (of the four
 * latest batches) unless members or capacities changed or a better plan promises at least `gain`,
 * beyond what may be noise. Equal speeds, or as good as equal in a new plan: counts differ by 1 at
 * most, lower ranks first, as far as capacities allow. A worker with no samples cannot be measured;
 * it is taken for faster and faster, until it is tried again or counts as the median.
 * SHOAL_ERR_ARGUMENT: a number below 0. */
ShoalStatus shoal_balance_plan(ShoalBalance *balance, int batch, const int *capacities, int *counts,
                               int *planned, ShoalError *err);

/* Samples per second of a member, as it is known; 0: not yet. */
double shoal_balance_speed(const ShoalBalance *balance, int rank);

/* How often a plan gave way to a better one since create; for people. */
uint64_t shoal_balance_changes(const ShoalBalance *balance);

#endif
