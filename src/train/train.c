/* SPDX-License-Identifier: Apache-2.0 */
#include "shoal/shoal.h"

#include "base/error.h"
#include "collective/auth.h"
#include "train/coordinator.h"
#include "train/job.h"
#include "train/local.h"

enum { DEFAULT_HASH_INTERVAL = 100, MAX_WORKERS = 1024, MAX_THREADS = 1024 };

static ShoalStatus check_options(const ShoalTrainOptions *options, ShoalError *err) {
    if (!options->solver)
        return shoal_error_set(err, SHOAL_ERR_ARGUMENT, "no solver is given");
    if (options->snapshot && options->weights)
        return shoal_error_set(err, SHOAL_ERR_ARGUMENT,
                               "give a snapshot to go on from or weights to start from, not both");
    if (options->resume && !options->snapshot)
        return shoal_error_set(err, SHOAL_ERR_ARGUMENT, "there is no snapshot to resume");
    if (options->workers < 0 || options->workers > MAX_WORKERS)
        return shoal_error_set(err, SHOAL_ERR_ARGUMENT, "workers is %d; 1 to %d work",
                               options->workers, MAX_WORKERS);
    if (options->engine.threads < 0 || options->engine.threads > MAX_THREADS)
        return shoal_error_set(err, SHOAL_ERR_ARGUMENT, "threads is %d; 1 to %d work",
                               options->engine.threads, MAX_THREADS);
    return SHOAL_OK;
}

ShoalStatus shoal_train(const ShoalTrainOptions *options, ShoalError *error) {
    ShoalStatus status = check_options(options, error);
    if (!status)
        status = shoal_auth_init(error);
    if (status)
        return status;
    bool cluster = options->workers > 0 || options->listen;
    ShoalJobOptions job_options = {.solver = options->solver,
                                   .weights = options->weights,
                                   .snapshot = options->snapshot,
                                   .workers = options->workers > 0 ? options->workers : 1,
                                   .hash_interval = options->hash_interval > 0
                                                        ? options->hash_interval
                                                        : DEFAULT_HASH_INTERVAL};
    ShoalJob job;
    status = shoal_job_load(&job_options, &job, error);
    if (status)
        return status;
    status = cluster ? shoal_train_coordinator(&job, options, error)
                     : shoal_train_local(&job, options, error);
    shoal_job_close(&job);
    return status;
}
