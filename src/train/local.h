/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHOAL_TRAIN_LOCAL_H
#define SHOAL_TRAIN_LOCAL_H

#include "train/director.h"

/* A whole run in one process: one replica, and a thread that stages samples ahead of it. */
ShoalStatus shoal_train_local(ShoalJob *job, const ShoalTrainOptions *options, ShoalError *err);

#endif
