/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHOAL_TRAIN_DUMMY_H
#define SHOAL_TRAIN_DUMMY_H

#include "net/net.h"
#include "train/job.h"

/* Random samples in place of a dataset, for `shoal time`. */

enum { SHOAL_DUMMY_TEXT = 256 };

/* A job of one net whose Data layers no dataset feeds. Their images have the shape `shape`
 * ("CxHxW"; NULL: 3 x crop_size x crop_size, else that of mean_file); text gets what was taken.
 * Nothing but the model and, where its shape is needed, mean_file is opened. Errors as
 * shoal_job_load_net; SHOAL_ERR_MODEL where the shape is unknown. */
ShoalStatus shoal_dummy_load(const char *model, const char *shape, ShoalJob *out,
                             char text[SHOAL_DUMMY_TEXT], ShoalError *err);

/* Fills the tops of the net's sources, which must be bound: labels (what a loss or an accuracy
 * compares with) with numbers of [0, classes), all others with normal numbers of mean 0 and
 * deviation 1. */
void shoal_dummy_fill(ShoalNet *net, uint64_t seed);

/* Gives all layers of a net that bring data, in all phases, another batch. */
ShoalStatus shoal_dummy_set_batch(ShoalJob *job, int batch, ShoalError *err);

#endif
