/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHOAL_TRAIN_CORES_H
#define SHOAL_TRAIN_CORES_H

#include "cpu/clusters.h"
#include "cpu/cpu.h"
#include "kernels/calibrate.h"

/* The cores that this process computes on. threads 0: nobody has asked for a number; where there
 * are several clusters, and no affinity that somebody has set, those that a measurement finds best
 * (once in a process: it takes a moment), else those of shoal_cpu_choose_cores. Other numbers: as
 * shoal_cpu_choose_cores has it, but for the number that was found by measuring, which means the
 * same cores again. Any thread. */
void shoal_cores_choose(ShoalCpuLevel level, int threads, ShoalCpuChoice *choice);

/* What was measured for shoal_cores_choose(level, 0); false where there was no need to, or it could
 * not be done. */
bool shoal_cores_calibration(ShoalCpuLevel level, ShoalCalibration *calibration);

#endif
