/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHOAL_TRAIN_ENGINE_H
#define SHOAL_TRAIN_ENGINE_H

#include "shoal/shoal.h"
#include "train/replica.h"

/* How a replica computes, from what the user asked for: sets level, plan, no_winograd, no_recompute
 * and threads (`threads` when 0 is asked for, and when that is 0, too, as many as
 * shoal_cores_choose finds best). SHOAL_ERR_ARGUMENT names the option and its values.
 */
ShoalStatus shoal_engine_choose(const ShoalEngineOptions *asked, int threads,
                                ShoalReplicaOptions *options, ShoalError *err);

#endif
