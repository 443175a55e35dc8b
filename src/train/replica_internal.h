/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHOAL_TRAIN_REPLICA_INTERNAL_H
#define SHOAL_TRAIN_REPLICA_INTERNAL_H

#include "data/datum.h"
#include "data/feed.h"
#include "train/buckets.h"
#include "train/pacer.h"
#include "train/replica.h"

/* Shared by replica.c (construction, slots), replica_run.c (rounds) and replica_state.c (versions,
 * seeds, copies from other replicas). */

/* A layer of a net that is fed from outside. */
typedef struct ShoalReplicaSource {
    ShoalLayer *layer;
    const ShoalJobDataset *dataset; /* NULL: not fed */
    ShoalFeed *feed;                /* NULL: not fed */
    size_t *offsets;                /* of each top in a slot, bytes */
    size_t *sample_floats;          /* of each top, one sample */
    int capacity;                   /* samples of the largest share */
} ShoalReplicaSource;

typedef struct ShoalReplicaNet {
    ShoalNet *net;
    ShoalReplicaSource *sources;
    int n_sources;
    size_t slot_bytes;
} ShoalReplicaNet;

struct ShoalReplica {
    const ShoalJob *job;
    ShoalReplicaNet *nets;
    int n_nets;
    ShoalSolver *solver;
    ShoalCompute compute;
    ShoalPool *pool;
    void *arena;
    size_t arena_bytes, slot_bytes;
    bool pinned;             /* the thread that made it is kept on the fast cores */
    float iteration_samples; /* computed here since the iteration began */
    atomic_bool cancel;
    atomic_ulong progress;
    atomic_int stage; /* ShoalClusterStage */
    ShoalPacer pacer;
    ShoalBuckets buckets;
    float *residual; /* [gradient_count] what 16 bits on the wire left out; NULL: 32 bits */

    ShoalClusterVersion version;
    int current_step;
    float *statistics; /* [statistic_count] as of the version: rounds that are given up move them */
    float *staging; /* [state values] what comes in while an older state is still worth something;
                       NULL: none */
    bool needy, syncing; /* the state is on its way to this replica, to any */
    uint64_t sync_ticket;
    ShoalClusterVersion sync_version; /* that all hold afterwards */
    int sync_step;
};

struct ShoalSlot {
    const ShoalReplica *replica;
    ShoalRound round;
    unsigned char *memory;
    uint32_t *places; /* room for those of the largest share of any net */
    ShoalDatumDecoder *decoder;
};

/* ---- replica_run.c ---- */

/* ShoalCompute.unit_done of a replica: progress, and a pause where one is due. */
void shoal_replica_unit_done(void *replica);

/* ---- replica_state.c ---- */

/* Storage for what follows; after the weights and the solver are there. */
ShoalStatus shoal_replica_state_init(ShoalReplica *replica, bool residual, ShoalError *err);
void shoal_replica_state_close(ShoalReplica *replica);

/* Fillers, then the job's (or a seed's) files. */
ShoalStatus shoal_replica_load(ShoalReplica *replica, const ShoalJobFile *weights, int n_weights,
                               ShoalError *err);

/* The version that an update, or the end of a sync, has made. */
void shoal_replica_commit(ShoalReplica *replica, ShoalClusterVersion version, int current_step);

/* Waits for the state, where it is on its way to this replica. */
ShoalStatus shoal_replica_end_sync(ShoalReplica *replica, ShoalCollective *collective,
                                   ShoalError *err);

#endif
