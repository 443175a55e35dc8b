/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHOAL_TRAIN_PROGRESS_H
#define SHOAL_TRAIN_PROGRESS_H

#include "train/director.h"

/* The results side of a director: averages what the ranks report, smooths the loss, measures speed,
 * and emits events. One thread. */
typedef struct ShoalProgress ShoalProgress;

/* NULL when memory is short. job and options are kept by pointer. */
ShoalProgress *shoal_progress_create(const ShoalJob *job, const ShoalTrainOptions *options,
                                     int n_ranks);
void shoal_progress_destroy(ShoalProgress *progress);

/* Takes note of a net's outputs; nets in the order of the job. */
ShoalStatus shoal_progress_add_net(ShoalProgress *progress, const ShoalNet *net, ShoalError *err);
size_t shoal_progress_output_capacity(const ShoalProgress *progress);

void shoal_progress_begin(ShoalProgress *progress, int iter, int batch, int workers);
ShoalStatus shoal_progress_round(ShoalProgress *progress, const ShoalPlan *plan,
                                 const ShoalResult *results, const ShoalClusterStatus *cluster,
                                 ShoalError *err);
/* Fills in max_iter, seconds and the like, and calls the handler. */
void shoal_progress_emit(const ShoalProgress *progress, ShoalEvent *event);

#endif
