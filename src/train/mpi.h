/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHOAL_TRAIN_MPI_H
#define SHOAL_TRAIN_MPI_H

#include "shoal/shoal.h"
#include "train/job.h"

/* Trains a job as one process of an MPI job. All ranks call it, each with the job as it has loaded
 * it; NULL: it could not, and err says why. Rank 0 tells the events and writes the files.
 *
 * What one process finds wrong ends all of them (MPI_Abort, exit code 1), once it is written to
 * stderr: this call does not return then. When the run is stopped on request, SHOAL_ERR_STOPPED
 * comes from rank 0, and SHOAL_OK from the others.
 * SHOAL_ERR_UNSUPPORTED: this build, or this process, has no MPI. */
ShoalStatus shoal_train_mpi(ShoalJob *job, const ShoalTrainOptions *options, ShoalError *err);

#endif
