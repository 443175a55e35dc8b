/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHOAL_TRAIN_JOB_H
#define SHOAL_TRAIN_JOB_H

#include <stddef.h>
#include <stdint.h>

#include "caffe/model.h"
#include "data/cache.h"
#include "data/feed.h"
#include "shoal/shoal.h"
#include "net/net.h"

/* Everything that defines a training: solver, nets, seed, start weights and state. The coordinator
 * (or a single process) loads it from files; a worker unpacks what the coordinator packed and opens
 * no file. */

typedef struct ShoalJobNet {
    ShoalCaffeNet model;
    Caffe__NetState *state; /* level and stages for include rules; may be NULL; owned */
} ShoalJobNet;

typedef struct ShoalJobFile {
    char *name;
    unsigned char *bytes;
    size_t size;
} ShoalJobFile;

/* A dataset that feeds layers of the nets. */
typedef struct ShoalJobDataset {
    char *name; /* shoal_dataset_name_for */
    ShoalRecordShape shape;
    uint64_t records;
    ShoalFingerprint fingerprint;
} ShoalJobDataset;

typedef struct ShoalJob {
    Caffe__SolverParameter *solver; /* without nets */
    ShoalJobNet *nets;              /* 0: train; then the test nets */
    int n_nets;
    ShoalJobDataset *datasets;
    int n_datasets;
    ShoalJobFile *weights;
    int n_weights;
    ShoalJobFile *files; /* that layers name: means, InfogainLoss matrices */
    int n_files;
    bool fast_decode;          /* ShoalFeedOptions */
    int unit;                  /* of the train net (shoal_net_unit); a director finds out */
    Caffe__SolverState *state; /* to go on from; NULL: start at iteration 0 */
    ShoalJobFile state_file;
    uint64_t seed;
    int workers, hash_interval;
} ShoalJob;

typedef struct ShoalJobOptions {
    const char *solver;     /* path */
    const char *weights;    /* caffemodels, separated by commas, or NULL */
    const char *snapshot;   /* solverstate or NULL; excludes weights */
    bool newest_snapshot;   /* in place of a name: the newest of the solver's snapshot_prefix */
    bool may_lack_snapshot; /* then it is no error that there is none */
    int workers, hash_interval;
    bool fast_decode;
    ShoalNetChoice choice; /* ShoalTrainOptions */
} ShoalJobOptions;

/* Loads a job. Errors name the file, line and column where there is one. */
ShoalStatus shoal_job_load(const ShoalJobOptions *options, ShoalJob *job, ShoalError *err);

/* A job of a single net, for `test` and `time`: no solver. weights may be NULL. */
ShoalStatus shoal_job_load_net(const char *model, const char *weights, const ShoalNetChoice *choice,
                               ShoalJob *job, ShoalError *err);
/* snapshot_format: HDF5. */
bool shoal_job_stores_hdf5(const ShoalJob *job);
/* Gives the n-th net level and stages, if any are chosen. */
ShoalStatus shoal_job_choose(ShoalJob *job, int n, const ShoalNetChoice *choice, ShoalError *err);
void shoal_job_close(ShoalJob *job);

/* Copies caffemodels, in their order, into nets. SHOAL_ERR_MODEL: a file does not fit, or holds
 * nothing for any of them. */
ShoalStatus shoal_job_load_weights(const ShoalJobFile *files, int n_files, ShoalNet *const *nets,
                                   int n_nets, ShoalError *err);

/* What a run begins with: the files of a snapshot, or those that the user gave. */
typedef struct ShoalSeed {
    ShoalJobFile *weights;
    int n_weights;
    ShoalJobFile state; /* bytes NULL: none */
    int updates, current_step;
} ShoalSeed;

/* Reads the two files of a snapshot; state: path of the .solverstate, which names the weights. */
ShoalStatus shoal_seed_load(const char *state, ShoalSeed *seed, ShoalError *err);
void shoal_seed_close(ShoalSeed *seed);

/* To and from the bytes of a Seed message. *bytes: shoal_calloc storage. */
ShoalStatus shoal_seed_pack(const ShoalSeed *seed, void **bytes, size_t *size, ShoalError *err);
ShoalStatus shoal_seed_unpack(const void *bytes, size_t size, ShoalSeed *out, ShoalError *err);

/* To and from the bytes of a Job message (cluster/messages.proto), without weights and state.
 * *bytes: shoal_calloc storage. */
ShoalStatus shoal_job_pack(const ShoalJob *job, void **bytes, size_t *size, ShoalError *err);
/* What a job is, 16 bytes: equal for two runs of the same files, whatever their seed and number of
 * workers. */
ShoalStatus shoal_job_id(const ShoalJob *job, unsigned char id[16], ShoalError *err);
ShoalStatus shoal_job_unpack(const void *bytes, size_t size, ShoalJob *job, ShoalError *err);

/* The file of that name among `files`; NULL if none. */
const ShoalJobFile *shoal_job_file(const ShoalJob *job, const char *name);
const ShoalJobDataset *shoal_job_dataset(const ShoalJob *job, const char *name);

/* Adds what a dataset's records look like; once per name. */
ShoalStatus shoal_job_add_dataset(ShoalJob *job, const char *name, const ShoalRecordShape *shape,
                                  ShoalError *err);
/* Its number in job->datasets; n_datasets when there is none (name NULL, too). */
int shoal_job_dataset_number(const ShoalJob *job, const char *name);
/* Adds how many records it has and what names them. */
void shoal_job_name_dataset(ShoalJob *job, const char *name, uint64_t records,
                            const ShoalFingerprint *fingerprint);

#endif
