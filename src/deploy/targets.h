/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHOAL_DEPLOY_TARGETS_H
#define SHOAL_DEPLOY_TARGETS_H

#include "deploy/probe.h"
#include "shoal/deploy.h"

typedef struct ShoalTargets {
    ShoalTarget *all;
    int n, capacity;
} ShoalTargets;

/* Who is meant by the options: asks adb which devices it has, reads files of hosts, and checks that
 * the programs are there. Each once, in the order in which they were named. */
ShoalStatus shoal_targets_find(const ShoalDeployOptions *options, ShoalTargets *targets,
                               ShoalError *err);
void shoal_targets_close(ShoalTargets *targets);

#endif
