/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHOAL_KERNELS_CALIBRATE_H
#define SHOAL_KERNELS_CALIBRATE_H

#include <stdbool.h>
#include <stdint.h>

#include "cpu/clusters.h"
#include "cpu/cpu.h"

/* Which clusters of cores are worth computing on, found out by computing. What the system says of
 * its cores is not enough: a slow core that works on the last piece of a layer keeps all others
 * waiting, and all share one memory and one budget of power. */
typedef struct ShoalCalibration {
    int count;                           /* clusters, as in the topology: fastest first */
    double own[SHOAL_CPU_CLUSTERS];      /* GF/s (10^9 operations a second) of each by itself */
    double together[SHOAL_CPU_CLUSTERS]; /* [k]: of clusters 0 .. k at once */
    int used;                            /* clusters 0 .. used - 1 had better be computed on */
} ShoalCalibration;

/* The fewest of the fastest clusters that do at least 97 % of the best of together[0 .. count);
 * what is left to the others is cooler, and free for the system. count 1 or more. */
int shoal_calibrate_best(const double *together, int count);

/* Measures: a convolution at this level, for some 30 ms on each set of cores, and again in turn.
 * Takes about a quarter of a second for each cluster, with all cores that the topology has; the
 * calling thread's affinity is afterwards as before. now_ns: a clock. False (and nothing in *out)
 * when memory is short or the system refuses to let a thread be kept on a core. */
bool shoal_calibrate(const ShoalCpuTopology *topology, ShoalCpuLevel level,
                     uint64_t (*now_ns)(void), ShoalCalibration *out);

/* The cores of the clusters that are used. */
void shoal_calibrate_choice(const ShoalCpuTopology *topology, const ShoalCalibration *calibration,
                            ShoalCpuChoice *choice);

#endif
