/* SPDX-License-Identifier: Apache-2.0 */
#include "shoal/shoal.h"

#include <string.h>

#include "base/error.h"
#include "collective/auth.h"
#include "train/coordinator.h"
#include "train/job.h"
#include "train/local.h"
#include "train/mpi.h"

enum { DEFAULT_HASH_INTERVAL = 100, MAX_WORKERS = 4096, MAX_THREADS = 1024 };

static ShoalStatus check_options(const ShoalTrainOptions *options, ShoalError *err) {
    if (!options->solver)
        return shoal_error_set(err, SHOAL_ERR_ARGUMENT, "no solver is given");
    if (options->snapshot && options->weights)
        return shoal_error_set(err, SHOAL_ERR_ARGUMENT,
                               "give a snapshot to go on from or weights to start from, not both");
    if (options->resume && options->weights)
        return shoal_error_set(err, SHOAL_ERR_ARGUMENT,
                               "give --resume to go on or weights to start from, not both");
    if (options->collective && strcmp(options->collective, "ring") &&
        strcmp(options->collective, "mpi"))
        return shoal_error_set(err, SHOAL_ERR_ARGUMENT,
                               "collective is '%s'; there are ring and mpi", options->collective);
    if (options->min_workers > (options->workers > 0 ? options->workers : 1))
        return shoal_error_set(err, SHOAL_ERR_ARGUMENT,
                               "min_workers is %d, but the run begins with %d workers",
                               options->min_workers, options->workers > 0 ? options->workers : 1);
    if (options->workers < 0 || options->workers > MAX_WORKERS)
        return shoal_error_set(err, SHOAL_ERR_ARGUMENT, "workers is %d; 1 to %d work",
                               options->workers, MAX_WORKERS);
    if (options->engine.threads < 0 || options->engine.threads > MAX_THREADS)
        return shoal_error_set(err, SHOAL_ERR_ARGUMENT, "threads is %d; 1 to %d work",
                               options->engine.threads, MAX_THREADS);
    return SHOAL_OK;
}

static ShoalStatus load(const ShoalTrainOptions *options, ShoalJob *job, ShoalError *err) {
    ShoalStatus status = check_options(options, err);
    if (!status)
        status = shoal_auth_init(err);
    if (status)
        return status;
    ShoalJobOptions job_options = {.solver = options->solver,
                                   .weights = options->weights,
                                   .snapshot = options->snapshot,
                                   .newest_snapshot = options->resume && !options->snapshot,
                                   .may_lack_snapshot = options->listen != NULL,
                                   .fast_decode = options->fast_decode,
                                   .choice = options->choice,
                                   .workers = options->workers > 0 ? options->workers : 1,
                                   .hash_interval = options->hash_interval > 0
                                                        ? options->hash_interval
                                                        : DEFAULT_HASH_INTERVAL};
    return shoal_job_load(&job_options, job, err);
}

ShoalStatus shoal_train(const ShoalTrainOptions *options, ShoalError *error) {
    bool mpi = options->collective && !strcmp(options->collective, "mpi");
    ShoalJob job = {0};
    ShoalStatus status = load(options, &job, error);
    if (mpi) /* what went wrong is told by one of the processes alone */
        status = shoal_train_mpi(status ? NULL : &job, options, error);
    else if (!status && (options->workers > 0 || options->listen))
        status = shoal_train_coordinator(&job, options, error);
    else if (!status)
        status = shoal_train_local(&job, options, error);
    shoal_job_close(&job);
    return status;
}
