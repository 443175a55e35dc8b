/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHOAL_TRAIN_DIRECTOR_H
#define SHOAL_TRAIN_DIRECTOR_H

#include "cluster/balance.h"
#include "cluster/holdings.h"
#include "shoal/shoal.h"
#include "train/replica.h"
#include "train/stream.h"

/* The director of a run: turns the solver's schedule into rounds for one or more replicas, brings
 * their samples, and turns their results into events and files. A single process and a coordinator
 * differ only in how rounds and results travel.
 *
 * Two threads may use a director: one calls next and uses the streams, the other complete. */

typedef struct ShoalDirector ShoalDirector;

/* Where a director stands in the schedule: what it needs to plan the next round. A plain value. */
typedef struct ShoalCursor {
    ShoalSchedule schedule;
    ShoalStep step;
    int pass, passes;        /* of the step: sub-batches of an iteration (iter_size), or 1 */
    int at;                  /* of the pass: samples (TEST: batches) that are planned */
    uint64_t train_position; /* number of the first sample of the present pass */
} ShoalCursor;

/* Who works, and how a batch is shared out among them. A single process: n = 1, the rest NULL. */
typedef struct ShoalCrew {
    int n;
    const int
        *capacities;   /* [n] samples of a training batch at once; 0: has to wait for its state */
    const int *stores; /* [n] the number of each one's cache in holdings, or -1 */
    ShoalBalance *balance;         /* shares by speed */
    const ShoalHoldings *holdings; /* who has which records already */
} ShoalCrew;

/* A round for all replicas. Rank r computes the samples at places[first[r]] .. of the batch that
 * begins with sample base[r]: count[r] of them. */
typedef struct ShoalPlan {
    ShoalRound round;   /* count: samples of all ranks together; places: NULL */
    ShoalCursor before; /* the director, when it was to plan this */
    bool last_of_step, first_of_pass, last_of_pass;
    uint64_t updates; /* done after this round */
    int n_ranks;
    uint64_t *base;     /* [n_ranks] */
    int *first, *count; /* [n_ranks] */
    uint32_t *places;   /* [round.batch]; of TEST: 0, 1, ... */
    int test_batch; /* TEST: number of the first batch of this round; rank r does test_batch + r */
    int test_iter;  /* TEST: batches of the whole test */
    bool starts_test;
    int ranks_size, places_size;
} ShoalPlan;

typedef struct ShoalDirectorOptions {
    const ShoalTrainOptions *train; /* for events and stop; kept by pointer */
    int n_ranks;                    /* as expected; may differ round by round */
    ShoalShuffle shuffle;
    bool check_files; /* weights and state are for others: do they fit the nets? */
} ShoalDirectorOptions;

/* "none" (also NULL), "global", "shard". SHOAL_ERR_ARGUMENT. */
ShoalStatus shoal_shuffle_find(const char *name, ShoalShuffle *shuffle, ShoalError *err);

/* Opens the datasets of all nets, fills job->datasets, and checks that the nets can be built. The
 * job must outlive the director. */
ShoalStatus shoal_director_create(ShoalJob *job, const ShoalDirectorOptions *options,
                                  ShoalDirector **out, ShoalError *err);
void shoal_director_destroy(ShoalDirector *director);

void shoal_plan_close(ShoalPlan *plan);

/* The next round for a crew; *more false when there is none. plan: all zero, or used before (its
 * memory is used again, and grows when it must). */
ShoalStatus shoal_director_next(ShoalDirector *director, const ShoalCrew *crew, ShoalPlan *plan,
                                bool *more, ShoalError *err);

/* Goes back to where it stood when it was to plan a round (NULL: stays), and from there, if that is
 * inside an iteration, to the begin of the iteration: its gradients are gone. */
void shoal_director_rewind(ShoalDirector *director, const ShoalCursor *cursor);

/* Goes to the begin of an iteration, wherever it stood, as if the run had never stopped. */
void shoal_director_seek(ShoalDirector *director, int iter, int current_step);

/* The job's seed has changed: so does the order of samples, where it depends on that. */
void shoal_director_reseed(ShoalDirector *director);

/* Ctrl-C and the like; safe from any thread. */
void shoal_director_stop(ShoalDirector *director);

/* The datasets of a net; for the thread that calls next. */
ShoalStreams *shoal_director_streams(ShoalDirector *director, int net);

/* Compares the hashes of a round's results: odd[n_ranks] tells who differs from most (from rank 0's
 * side where it is a draw). False: all agree, or there are none. */
bool shoal_director_diverged(const ShoalPlan *plan, const ShoalResult *results, unsigned char *odd);

/* A complete round, in order of rounds: results[r] of rank r; those that are not `present` are left
 * out of the means. Emits events. cluster (may be NULL) is shown with iterations. */
ShoalStatus shoal_director_complete(ShoalDirector *director, const ShoalPlan *plan,
                                    const ShoalResult *results, const ShoalClusterStatus *cluster,
                                    ShoalError *err);

/* "PREFIX_iter_N.caffemodel", respectively ".solverstate", into name[0..size); with a further ".h5"
 * where the solver wants HDF5. */
ShoalStatus shoal_director_model_name(const ShoalJob *job, int iter, char *name, size_t size,
                                      ShoalError *err);
ShoalStatus shoal_director_state_name(const ShoalJob *job, int iter, char *name, size_t size,
                                      ShoalError *err);

/* Writes a snapshot's two files, weights first, each whole or not at all; emits events. model and
 * state: the bytes of the messages, whatever the files are to be. */
ShoalStatus shoal_director_write_snapshot(ShoalDirector *director, int iter, const void *model,
                                          size_t model_size, const void *state, size_t state_size,
                                          ShoalError *err);

/* First and last event. */
void shoal_director_begin(ShoalDirector *director, int workers);
void shoal_director_end(ShoalDirector *director);
bool shoal_director_stopped(const ShoalDirector *director);
void shoal_director_emit(const ShoalDirector *director, ShoalEvent *event);

/* Most bytes that either file of a snapshot can have. */
size_t shoal_director_snapshot_limit(const ShoalDirector *director);

/* Most output values of any net: what a ShoalResult must hold. */
size_t shoal_director_output_capacity(const ShoalDirector *director);

#endif
