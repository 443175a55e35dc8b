/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHOAL_TRAIN_COORDINATOR_H
#define SHOAL_TRAIN_COORDINATOR_H

#include "train/director.h"

/* A run with workers: opens the control port, starts local workers or waits for others, and drives
 * them. One thread, one poll() loop. */
ShoalStatus shoal_train_coordinator(ShoalJob *job, const ShoalTrainOptions *options,
                                    ShoalError *err);

#endif
