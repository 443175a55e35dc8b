/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "base/error.h"
#include "base/memory.h"
#include "train/replica_internal.h"

/* What a replica holds besides a running round: its version, and how the state of that version gets
 * in: from files, or from other replicas. */

ShoalStatus shoal_replica_state_init(ShoalReplica *replica, bool residual, ShoalError *err) {
    ShoalNetParams params = shoal_net_params(replica->nets[0].net);
    replica->statistics = shoal_calloc(params.statistic_count, sizeof(float));
    if (!replica->statistics)
        return shoal_error_memory(err, "the statistics", params.statistic_count * sizeof(float));
    if (residual) {
        replica->residual = shoal_calloc(params.gradient_count, sizeof(float));
        if (!replica->residual)
            return shoal_error_memory(err, "the rounded part of the gradients",
                                      params.gradient_count * sizeof(float));
    }
    return shoal_buckets_init(&replica->buckets, &params, replica->residual, err);
}

void shoal_replica_state_close(ShoalReplica *replica) {
    shoal_buckets_close(&replica->buckets);
    shoal_free(replica->residual);
    shoal_free(replica->statistics);
    shoal_free(replica->staging);
}

ShoalClusterVersion shoal_replica_version(const ShoalReplica *replica) {
    return replica->version;
}

int shoal_replica_current_step(const ShoalReplica *replica) {
    return replica->current_step;
}

void shoal_replica_forget(ShoalReplica *replica) {
    replica->version = (ShoalClusterVersion){0};
}

static float *statistics_of(const ShoalNetParams *params) {
    return params->data + params->data_count - params->statistic_count;
}

void shoal_replica_commit(ShoalReplica *replica, ShoalClusterVersion version, int current_step) {
    ShoalNetParams params = shoal_net_params(replica->nets[0].net);
    memcpy(replica->statistics, statistics_of(&params), params.statistic_count * sizeof(float));
    replica->version = version;
    replica->current_step = current_step;
}

/* What 16 bits left out of a round that is done anew belongs to nothing any more. */
void shoal_replica_rollback(ShoalReplica *replica) {
    ShoalNetParams params = shoal_net_params(replica->nets[0].net);
    memcpy(statistics_of(&params), replica->statistics, params.statistic_count * sizeof(float));
    if (replica->residual)
        memset(replica->residual, 0, params.gradient_count * sizeof(float));
    shoal_free(replica->staging);
    replica->staging = NULL;
    replica->needy = replica->syncing = false;
}

/* ---- from files ---- */

ShoalStatus shoal_replica_load(ShoalReplica *replica, const ShoalJobFile *weights, int n_weights,
                               ShoalError *err) {
    for (int i = 0; i < replica->n_nets; i++) {
        ShoalStatus status = shoal_net_init_weights(replica->nets[i].net, err);
        if (status)
            return status;
    }
    ShoalNet **nets = shoal_calloc((size_t)replica->n_nets, sizeof(ShoalNet *));
    if (!nets)
        return shoal_error_memory(err, "the nets", sizeof(ShoalNet *));
    for (int i = 0; i < replica->n_nets; i++)
        nets[i] = replica->nets[i].net;
    ShoalStatus status = shoal_job_load_weights(weights, n_weights, nets, replica->n_nets, err);
    shoal_free(nets);
    return status;
}

static ShoalStatus load_state(ShoalReplica *replica, const ShoalJobFile *file, ShoalError *err) {
    Caffe__SolverState *state;
    ShoalStatus status =
        shoal_caffe_unpack(&caffe__solver_state__descriptor, file->bytes, file->size, file->name,
                           (ProtobufCMessage **)&state, err);
    if (status)
        return status;
    status = shoal_solver_load_state(replica->solver, state, err);
    caffe__solver_state__free_unpacked(state, NULL);
    if (status)
        shoal_error_prefix(err, "%s", file->name);
    return status;
}

ShoalStatus shoal_replica_seed(ShoalReplica *replica, const ShoalJobFile *weights, int n_weights,
                               const ShoalJobFile *state, ShoalClusterVersion version,
                               int current_step, ShoalError *err) {
    size_t count;
    float *history = shoal_solver_history(replica->solver, &count);
    shoal_replica_forget(replica);
    memset(history, 0, count * sizeof(float));
    ShoalStatus status = shoal_replica_load(replica, weights, n_weights, err);
    if (!status && state)
        status = load_state(replica, state, err);
    if (!status)
        shoal_replica_commit(replica, version, current_step);
    return status;
}

/* ---- from other replicas ---- */

enum { PIECES = 3 };

/* Weights, statistics and history. Whoever gives a state goes on computing, which moves the
 * statistics but nothing else before the next update: so those are sent from the copy. */
static void pieces_of(ShoalReplica *replica, ShoalPiece pieces[PIECES]) {
    ShoalNetParams params = shoal_net_params(replica->nets[0].net);
    size_t history_count, fixed = params.data_count - params.statistic_count;
    float *history = shoal_solver_history(replica->solver, &history_count);
    float *staging = replica->staging;
    pieces[0] = (ShoalPiece){staging ? staging : params.data, fixed * sizeof(float)};
    pieces[1] = (ShoalPiece){staging ? staging + fixed : replica->statistics,
                             params.statistic_count * sizeof(float)};
    pieces[2] = (ShoalPiece){staging ? staging + params.data_count : history,
                             history_count * sizeof(float)};
}

/* An older state is kept until the newer one is complete: the only one who has that may be lost on
 * the way. */
static void stage_state(ShoalReplica *replica) {
    size_t history_count;
    (void)shoal_solver_history(replica->solver, &history_count);
    size_t count = shoal_net_params(replica->nets[0].net).data_count + history_count;
    if (replica->version.held)
        replica->staging = shoal_calloc(count, sizeof(float));
    if (!replica->staging) /* no state, or no memory for another */
        shoal_replica_forget(replica);
}

ShoalStatus shoal_replica_begin(ShoalReplica *replica, ShoalCollective *collective,
                                const unsigned char *needy, ShoalClusterVersion version,
                                int current_step, ShoalError *err) {
    bool any = false;
    for (unsigned r = 0; r < collective->size; r++)
        any = any || needy[r];
    replica->needy = needy[collective->rank];
    replica->syncing = any;
    replica->sync_version = version;
    replica->sync_step = current_step;
    if (!any)
        return SHOAL_OK;
    if (replica->needy)
        stage_state(replica);
    ShoalPiece pieces[PIECES];
    pieces_of(replica, pieces);
    return shoal_collective_relay(collective, pieces, PIECES, needy, &replica->sync_ticket, err);
}

static void unstage_state(ShoalReplica *replica) {
    ShoalPiece from[PIECES], to[PIECES];
    pieces_of(replica, from);
    float *staging = replica->staging;
    replica->staging = NULL;
    pieces_of(replica, to);
    for (int i = 0; staging && i < PIECES; i++)
        memcpy(to[i].bytes, from[i].bytes, to[i].size);
    shoal_free(staging);
}

ShoalStatus shoal_replica_end_sync(ShoalReplica *replica, ShoalCollective *collective,
                                   ShoalError *err) {
    if (!replica->needy)
        return SHOAL_OK;
    ShoalStatus status = shoal_collective_wait(collective, replica->sync_ticket, err);
    if (status)
        return status;
    unstage_state(replica);
    ShoalNetParams params = shoal_net_params(replica->nets[0].net);
    memcpy(statistics_of(&params), replica->statistics, params.statistic_count * sizeof(float));
    replica->version = replica->sync_version;
    replica->current_step = replica->sync_step;
    replica->needy = false;
    return SHOAL_OK;
}
