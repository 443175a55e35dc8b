/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHOAL_TRAIN_REPLICA_H
#define SHOAL_TRAIN_REPLICA_H

#include "cluster/coordinator.h"
#include "collective/collective.h"
#include "cpu/cpu.h"
#include "data/dataset.h"
#include "solver/schedule.h"
#include "solver/solver.h"
#include "caffe/model.h"
#include "train/chunk.h"
#include "train/job.h"

/* A replica: the nets of a job, their weights, the optimizer, and the memory they run in. A single
 * process has one; so has every worker. Rounds are executed on it one after the other by one
 * thread, while another thread stages the samples of the next ones into slots. */

/* One pass over this replica's part of a batch; see Round in cluster/messages.proto. */
typedef struct ShoalRound {
    ShoalStepKind kind;
    uint64_t number;
    int iter;
    float rate;
    int current_step;
    int net;                /* number in ShoalJob.nets */
    uint64_t first_sample;  /* of the whole batch */
    int count;              /* samples of this replica's part; 0: nothing to compute */
    const uint32_t *places; /* [count] which ones of the batch; NULL: 0, 1, ... */
    int batch;              /* samples of the whole batch */
    bool clear, update;     /* first, last pass of an iteration */
    bool display;
} ShoalRound;

typedef struct ShoalReplica ShoalReplica;

/* A round with its samples, transformed and ready. */
typedef struct ShoalSlot ShoalSlot;

/* What a round gave. Owned by the caller; arrays are made by shoal_replica_result_init. */
typedef struct ShoalResult {
    float loss;          /* mean over this replica's samples */
    float *outputs;      /* all output blobs of the net, one after the other */
    size_t output_count; /* values in outputs for this round */
    size_t output_capacity;
    bool present; /* of a coordinator: the worker has reported */
    uint64_t compute_ns;
    uint64_t communication_ns; /* sums and copies were under way */
    uint64_t exposed_ns;       /* of that: the computation stood still */
    uint64_t waiting_ns;       /* of a worker: for a round and its samples */
    uint64_t bytes_sent;       /* to other workers */
    double clipped_norm;
    unsigned char hash[16]; /* of weights and history; valid when hashed */
    bool hashed;
} ShoalResult;

typedef enum ShoalReplicaPlan {
    SHOAL_REPLICA_AUTO,  /* layers are fused where it pays */
    SHOAL_REPLICA_FUSED, /* wherever it is possible */
    SHOAL_REPLICA_PLAIN  /* every layer by itself */
} ShoalReplicaPlan;

typedef struct ShoalReplicaOptions {
    int capacity;   /* largest share of a training batch, samples; 0: whole batch */
    size_t reserve; /* bytes of memory to leave to others */
    int *fitting;   /* set with SHOAL_ERR_MEMORY: the largest capacity for which there is memory; 0:
                       none, or it is not known; may be NULL */
    int slots;      /* that will be made: their memory is asked for, too; 0: 1 */
    int threads;
    ShoalCpuLevel level;
    ShoalReplicaPlan plan;
    bool no_winograd, no_recompute;
    int pace;          /* compute no more than so many images a second; 0: any number */
    bool residual;     /* gradients travel with 16 bits: keep what that leaves out */
    bool no_solver;    /* gradients, but no updates */
    bool writes_files; /* ShoalNetOptions */
    bool phase_test;   /* net 0 is built in phase TEST, without gradients or solver */
} ShoalReplicaOptions;

/* ShoalSourceShape and ShoalNamedFile with a ShoalJob as context. */
ShoalStatus shoal_replica_source_shape(void *job, const Caffe__LayerParameter *layer, int top,
                                       int *axes, int *dims, ShoalError *err);
ShoalStatus shoal_replica_named_file(void *job, const char *name, const void **bytes, size_t *size,
                                     ShoalError *err);

/* Builds nets, weights (fillers, then job->weights) and state. The job must outlive it. On machines
 * with slow and fast cores the calling thread is kept on the fast ones until the replica is
 * destroyed, which the same thread must do.
 * SHOAL_ERR_MODEL and so on, with the place in the file where it is known. */
ShoalStatus shoal_replica_create(const ShoalJob *job, const ShoalReplicaOptions *options,
                                 ShoalReplica **out, ShoalError *err);
void shoal_replica_destroy(ShoalReplica *replica);

/* For a thread that the replica's own has started, and that computes nothing: all cores may run it.
 */
void shoal_replica_release_thread(const ShoalReplica *replica);

ShoalNet *shoal_replica_net(const ShoalReplica *replica, int net);
const ShoalCompute *shoal_replica_compute(const ShoalReplica *replica);
/* Bytes that all of it takes: weights, state, arena, workspace. */
size_t shoal_replica_bytes(const ShoalReplica *replica);

/* Slots: storage for the samples of one round. NULL when memory is short. */
ShoalSlot *shoal_slot_create(const ShoalReplica *replica);
void shoal_slot_destroy(ShoalSlot *slot);
ShoalRound *shoal_slot_round(ShoalSlot *slot);
/* Room for ShoalRound.places, for the largest share of any net. */
uint32_t *shoal_slot_places(ShoalSlot *slot);

/* Does the slot's round name a net that there is, and does that net have so many data layers (or
 * the round no samples)? For rounds that came over a wire. */
bool shoal_slot_fits(const ShoalSlot *slot, size_t n_sources);
/* How many records the slot's round needs for a source: its count, or none where no dataset feeds.
 */
size_t shoal_slot_records(const ShoalSlot *slot, int source);

/* Decodes and transforms the record of sample `index` (0 .. round.count - 1) of a source into the
 * slot, whose round must be set; number: of the record in its dataset, for messages. One thread per
 * slot. SHOAL_ERR_DATA names dataset and record. */
ShoalStatus shoal_slot_stage(ShoalSlot *slot, int source, int index, const ShoalRecord *record,
                             uint64_t number, ShoalError *err);

/* Points the tops of the net's sources to the slot's samples; shoal_replica_run does so by itself.
 */
void shoal_slot_bind(const ShoalSlot *slot);

ShoalStatus shoal_replica_result_init(const ShoalReplica *replica, ShoalResult *result,
                                      ShoalError *err);
void shoal_replica_result_close(ShoalResult *result);

/* Runs a staged round. collective NULL: alone. generation: goes into the version that an update
 * makes. Steady state allocates nothing. After a failure: shoal_replica_rollback. */
ShoalStatus shoal_replica_run(ShoalReplica *replica, ShoalSlot *slot, ShoalCollective *collective,
                              uint64_t generation, ShoalResult *result, ShoalError *err);

/* ---- what a cluster needs; see cluster/coordinator.h about versions ---- */

/* The version that this replica holds. A fresh one holds none: it must be seeded, or get a state
 * from others. */
ShoalClusterVersion shoal_replica_version(const ShoalReplica *replica);
int shoal_replica_current_step(const ShoalReplica *replica);
/* It holds none from now on. */
void shoal_replica_forget(ShoalReplica *replica);

/* Any thread: the running round, and all later ones, return SHOAL_ERR_STOPPED soon, until this is
 * taken back. */
void shoal_replica_cancel(ShoalReplica *replica, bool cancel);
/* Any thread: compute for no more than this part of the time (0 .. 1) from now on. */
void shoal_replica_set_duty(ShoalReplica *replica, float duty);
/* Any thread: what the replica is at. */
ShoalClusterStage shoal_replica_stage(const ShoalReplica *replica);
/* The replica's thread: has got on with something that is no round. */
void shoal_replica_note_progress(ShoalReplica *replica);
/* Any thread: grows with every piece of work. */
unsigned long shoal_replica_progress(const ShoalReplica *replica);

/* After a round that failed: back to the state of the version. */
void shoal_replica_rollback(ShoalReplica *replica);

/* The beginning of a run: fillers, then these weights and this state (NULL: none), as `version`. */
ShoalStatus shoal_replica_seed(ShoalReplica *replica, const ShoalJobFile *weights, int n_weights,
                               const ShoalJobFile *state, ShoalClusterVersion version,
                               int current_step, ShoalError *err);

/* A generation begins, in which needy [collective->size] replicas get the state from the others,
 * while these go on: starts the copy, if there is anyone to copy to. The replica's next rounds wait
 * for it as far as they must. */
ShoalStatus shoal_replica_begin(ShoalReplica *replica, ShoalCollective *collective,
                                const unsigned char *needy, ShoalClusterVersion version,
                                int current_step, ShoalError *err);

/* A snapshot: the bytes of Caffe's two files, first the weights to sink(model), then the state to
 * sink(state), piece by piece. model_name goes into the state as learned_net. */
ShoalStatus shoal_replica_snapshot(ShoalReplica *replica, int iter, int current_step,
                                   const char *model_name, ShoalCaffeSink *sink, void *model,
                                   void *state, ShoalError *err);
/* The same into two empty buffers, which the caller closes. */
ShoalStatus shoal_replica_snapshot_bytes(ShoalReplica *replica, int iter, int current_step,
                                         const char *model_name, ShoalBuffer *model,
                                         ShoalBuffer *state, ShoalError *err);

#endif
