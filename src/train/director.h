/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHOAL_TRAIN_DIRECTOR_H
#define SHOAL_TRAIN_DIRECTOR_H

#include "shoal/shoal.h"
#include "train/replica.h"
#include "train/stream.h"

/* The director of a run: turns the solver's schedule into rounds for one or more replicas, brings
 * their samples, and turns their results into events and files. A single process and a coordinator
 * differ only in how rounds and results travel.
 *
 * Two threads may use a director: one calls next and uses the streams, the other complete. */

typedef struct ShoalDirector ShoalDirector;

/* A round for all replicas: rank r does samples first[r] .. first[r] + count[r] - 1. */
typedef struct ShoalPlan {
    ShoalRound round; /* first_sample and count are those of the whole */
    bool last_of_step;
    int n_ranks;
    uint64_t *first; /* [n_ranks] */
    int *count;      /* [n_ranks] */
    int test_batch;  /* TEST: number of the first batch of this round; rank r does test_batch + r */
    int test_iter;   /* TEST: batches of the whole test */
    bool starts_test;
} ShoalPlan;

typedef struct ShoalDirectorOptions {
    const ShoalTrainOptions *train; /* for events and stop; kept by pointer */
    int n_ranks;
} ShoalDirectorOptions;

/* Opens the datasets of all nets, fills job->datasets, and checks that the nets can be built. The
 * job must outlive the director. */
ShoalStatus shoal_director_create(ShoalJob *job, const ShoalDirectorOptions *options,
                                  ShoalDirector **out, ShoalError *err);
void shoal_director_destroy(ShoalDirector *director);

/* Storage of a plan for n_ranks. */
ShoalStatus shoal_plan_init(ShoalPlan *plan, int n_ranks, ShoalError *err);
void shoal_plan_close(ShoalPlan *plan);

/* The next round; *more false when there is none. */
ShoalStatus shoal_director_next(ShoalDirector *director, ShoalPlan *plan, bool *more,
                                ShoalError *err);

/* Ctrl-C and the like; safe from any thread. */
void shoal_director_stop(ShoalDirector *director);

/* The datasets of a net; for the thread that calls next. */
ShoalStreams *shoal_director_streams(ShoalDirector *director, int net);

/* A complete round, in order of rounds: results[r] of rank r. Emits events. SHOAL_ERR_DATA when
 * replicas have diverged (names the rank). workers (may be NULL) are shown with iterations. */
ShoalStatus shoal_director_complete(ShoalDirector *director, const ShoalPlan *plan,
                                    const ShoalResult *results, const ShoalWorkerStatus *workers,
                                    ShoalError *err);

/* "PREFIX_iter_N.caffemodel" into name[0..size). */
ShoalStatus shoal_director_model_name(const ShoalJob *job, int iter, char *name, size_t size,
                                      ShoalError *err);

/* Writes a snapshot's two files, weights first, each whole or not at all; emits events. */
ShoalStatus shoal_director_write_snapshot(ShoalDirector *director, int iter, const void *model,
                                          size_t model_size, const void *state, size_t state_size,
                                          ShoalError *err);

/* First and last event. */
void shoal_director_begin(ShoalDirector *director);
void shoal_director_end(ShoalDirector *director);
bool shoal_director_stopped(const ShoalDirector *director);
void shoal_director_emit(const ShoalDirector *director, ShoalEvent *event);

/* Most output values of any net: what a ShoalResult must hold. */
size_t shoal_director_output_capacity(const ShoalDirector *director);

#endif
