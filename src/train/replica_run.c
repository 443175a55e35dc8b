/* SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <sodium.h>
#include <string.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/memory.h"
#include "train/replica_internal.h"

/* The execution of rounds. */

ShoalStatus shoal_replica_result_init(const ShoalReplica *replica, ShoalResult *result,
                                      ShoalError *err) {
    size_t most = 0;
    for (int i = 0; i < replica->n_nets; i++) {
        size_t count = 0;
        for (int o = 0; o < shoal_net_outputs(replica->nets[i].net); o++)
            count += shoal_net_output(replica->nets[i].net, o)->count;
        most = count > most ? count : most;
    }
    *result = (ShoalResult){.output_capacity = most};
    result->outputs = shoal_calloc(most, sizeof *result->outputs);
    return result->outputs ? SHOAL_OK : shoal_error_memory(err, "a result", most * sizeof(float));
}

void shoal_replica_result_close(ShoalResult *result) {
    shoal_free(result->outputs);
    *result = (ShoalResult){0};
}

static void take_outputs(const ShoalNet *net, ShoalResult *result) {
    result->output_count = 0;
    for (int i = 0; i < shoal_net_outputs(net); i++) {
        const ShoalBlob *blob = shoal_net_output(net, i);
        float *to = result->outputs + result->output_count;
        size_t most = shoal_net_output_most(net, i);
        if (result->output_count + most > result->output_capacity)
            return;
        memcpy(to, blob->data, blob->count * sizeof(float));
        for (size_t k = blob->count; k < most; k++)
            to[k] = NAN; /* a Filter let less through */
        result->output_count += most;
    }
}

/* ---- computing ---- */

void shoal_replica_cancel(ShoalReplica *replica, bool cancel) {
    atomic_store(&replica->cancel, cancel);
}

void shoal_replica_note_progress(ShoalReplica *replica) {
    atomic_fetch_add_explicit(&replica->progress, 1, memory_order_relaxed);
}

unsigned long shoal_replica_progress(const ShoalReplica *replica) {
    return atomic_load_explicit(&replica->progress, memory_order_relaxed);
}

ShoalClusterStage shoal_replica_stage(const ShoalReplica *replica) {
    return (ShoalClusterStage)atomic_load_explicit(&replica->stage, memory_order_relaxed);
}

static void enter(ShoalReplica *replica, ShoalClusterStage stage) {
    atomic_store_explicit(&replica->stage, (int)stage, memory_order_relaxed);
}

static ShoalStatus cancelled(const ShoalReplica *replica, ShoalError *err) {
    return atomic_load(&replica->cancel)
               ? shoal_error_set(err, SHOAL_ERR_STOPPED, "the computation was cancelled")
               : SHOAL_OK;
}

void shoal_replica_set_duty(ShoalReplica *replica, float duty) {
    shoal_pacer_set_duty(&replica->pacer, duty);
}

void shoal_replica_unit_done(void *context) {
    ShoalReplica *replica = context;
    shoal_replica_note_progress(replica);
    shoal_pacer_step(&replica->pacer, &replica->cancel, &replica->progress);
}

/* With `buckets`, gradients leave as soon as they are complete. */
static ShoalStatus compute_pass(ShoalReplica *replica, ShoalSlot *slot, ShoalBuckets *buckets,
                                ShoalResult *result, ShoalError *err) {
    const ShoalRound *round = &slot->round;
    ShoalReplicaNet *net = &replica->nets[round->net];
    if (round->count == 0)
        return SHOAL_OK;
    bool train = round->kind == SHOAL_STEP_TRAIN;
    shoal_pacer_begin(&replica->pacer, round->count, train);
    ShoalStatus status =
        shoal_net_set_share(net->net, round->count, round->first_sample, round->places, err);
    if (status)
        return status;
    shoal_slot_bind(slot);
    status = shoal_net_forward(net->net, &replica->compute, &result->loss, err);
    if (status)
        return status;
    take_outputs(net->net, result);
    if (train)
        shoal_net_backward(net->net, &replica->compute, (float)round->count / (float)round->batch,
                           buckets ? shoal_buckets_ready : NULL, buckets);
    shoal_pacer_end(&replica->pacer, &replica->cancel, &replica->progress);
    return cancelled(replica, err);
}

static void hash_weights(const ShoalReplica *replica, ShoalResult *result) {
    ShoalNetParams params = shoal_net_params(replica->nets[0].net);
    size_t count;
    const float *history = shoal_solver_history(replica->solver, &count);
    crypto_generichash_state state;
    crypto_generichash_init(&state, NULL, 0, sizeof result->hash);
    crypto_generichash_update(&state, (const unsigned char *)params.data,
                              params.data_count * sizeof(float));
    crypto_generichash_update(&state, (const unsigned char *)history, count * sizeof(float));
    crypto_generichash_final(&state, result->hash, sizeof result->hash);
    result->hashed = true;
}

/* ---- sums over the workers ---- */

/* The statistics that forward passes of a net have moved: their sum over the replicas, weighted
 * with the samples that each has seen, is put on its way. Sent along in the padding, the weights
 * add up as well. */
static bool has_moved(const ShoalReplica *replica, int net, const ShoalCollective *collective) {
    bool moves = shoal_net_params(replica->nets[net].net).moves_statistics;
    return collective && collective->size > 1 && moves &&
           shoal_net_params(replica->nets[0].net).statistic_count > 0;
}

static ShoalStatus send_statistics(const ShoalReplica *replica, float samples,
                                   ShoalCollective *collective, uint64_t *ticket, ShoalError *err) {
    ShoalNetParams params = shoal_net_params(replica->nets[0].net);
    size_t last = params.statistic_count - 1;
    float *values = params.data + params.data_count - params.statistic_count;
    for (size_t i = 0; i < last; i++)
        values[i] = samples > 0 ? values[i] * samples : 0;
    values[last] = samples;
    return shoal_collective_submit_exact(collective, values, params.statistic_count, ticket, err);
}

/* The average: equal on all replicas. */
static void take_statistics(const ShoalReplica *replica) {
    ShoalNetParams params = shoal_net_params(replica->nets[0].net);
    size_t last = params.statistic_count - 1;
    float *values = params.data + params.data_count - params.statistic_count;
    for (size_t i = 0; i < last; i++)
        values[i] /= values[last];
    values[last] = 0;
}

/* The replica's place in the history has not changed, but its statistics have. */
static ShoalStatus finish_test(ShoalReplica *replica, const ShoalRound *round,
                               ShoalCollective *collective, ShoalResult *result, ShoalError *err) {
    if (!has_moved(replica, round->net, collective))
        return SHOAL_OK;
    enter(replica, SHOAL_CLUSTER_REDUCING);
    uint64_t ticket, start = shoal_clock_ns();
    ShoalStatus status = send_statistics(replica, (float)round->count, collective, &ticket, err);
    if (!status)
        status = shoal_collective_wait(collective, ticket, err);
    if (status)
        return status;
    take_statistics(replica);
    shoal_replica_commit(replica, replica->version, replica->current_step);
    result->exposed_ns += shoal_clock_ns() - start;
    return SHOAL_OK;
}

/* Everything that an update needs from the others. */
static ShoalStatus finish_sums(ShoalReplica *replica, ShoalCollective *collective,
                               ShoalResult *result, ShoalError *err) {
    if (!collective)
        return SHOAL_OK;
    enter(replica, SHOAL_CLUSTER_REDUCING);
    uint64_t start = shoal_clock_ns();
    bool moved = has_moved(replica, 0, collective);
    ShoalStatus status = shoal_buckets_finish(&replica->buckets, err);
    uint64_t ticket = replica->buckets.ticket;
    if (!status && moved)
        status = send_statistics(replica, replica->iteration_samples, collective, &ticket, err);
    if (!status)
        status = shoal_collective_wait(collective, ticket, err);
    if (!status && moved)
        take_statistics(replica);
    replica->syncing = false; /* waited for as well: nobody reads the weights any more */
    result->exposed_ns += shoal_clock_ns() - start;
    return status;
}

static ShoalStatus finish_iteration(ShoalReplica *replica, const ShoalRound *round,
                                    ShoalCollective *collective, uint64_t generation,
                                    ShoalResult *result, ShoalError *err) {
    ShoalStatus status = finish_sums(replica, collective, result, err);
    if (status)
        return status;
    uint64_t reduced = shoal_clock_ns();
    shoal_solver_update(replica->solver, &replica->compute, round->iter, round->rate,
                        &result->clipped_norm);
    shoal_replica_commit(replica,
                         (ShoalClusterVersion){.held = true,
                                               .updates = (uint64_t)round->iter + 1,
                                               .generation = generation},
                         round->current_step);
    int interval = replica->job->hash_interval;
    if (collective && interval > 0 && round->iter % interval == 0)
        hash_weights(replica, result);
    result->compute_ns += shoal_clock_ns() - reduced;
    return SHOAL_OK;
}

/* ---- rounds ---- */

static ShoalStatus run_round(ShoalReplica *replica, ShoalSlot *slot, ShoalCollective *collective,
                             uint64_t generation, ShoalResult *result, ShoalError *err) {
    const ShoalRound *round = &slot->round;
    bool train = round->kind == SHOAL_STEP_TRAIN;
    ShoalBuckets *buckets = train && round->update && collective ? &replica->buckets : NULL;
    if (train && round->clear) {
        shoal_solver_clear_gradients(replica->solver);
        replica->iteration_samples = 0;
    }
    if (buckets)
        shoal_buckets_begin(buckets, collective);
    uint64_t start = shoal_clock_ns();
    ShoalStatus status = compute_pass(replica, slot, buckets, result, err);
    result->compute_ns += shoal_clock_ns() - start;
    replica->iteration_samples += train ? (float)round->count : 0;
    if (!status && train && round->update)
        status = finish_iteration(replica, round, collective, generation, result, err);
    else if (!status && !train)
        status = finish_test(replica, round, collective, result, err);
    return status;
}

ShoalStatus shoal_replica_run(ShoalReplica *replica, ShoalSlot *slot, ShoalCollective *collective,
                              uint64_t generation, ShoalResult *result, ShoalError *err) {
    ShoalCollectiveStats before = {0}, after = {0};
    if (collective)
        before = shoal_collective_stats(collective);
    result->loss = 0;
    result->output_count = 0;
    result->compute_ns = result->exposed_ns = 0;
    result->clipped_norm = 0;
    result->hashed = false;
    uint64_t start = shoal_clock_ns();
    enter(replica, SHOAL_CLUSTER_REDUCING);
    ShoalStatus status = collective ? shoal_replica_end_sync(replica, collective, err) : SHOAL_OK;
    result->exposed_ns += shoal_clock_ns() - start;
    enter(replica, SHOAL_CLUSTER_COMPUTING);
    if (!status)
        status = run_round(replica, slot, collective, generation, result, err);
    enter(replica, SHOAL_CLUSTER_IDLE);
    if (collective)
        after = shoal_collective_stats(collective);
    uint64_t busy_ns = after.busy_ns - before.busy_ns;
    result->communication_ns = busy_ns > result->exposed_ns ? busy_ns : result->exposed_ns;
    result->bytes_sent = after.bytes_sent - before.bytes_sent;
    return status;
}

/* ---- snapshots ---- */

static ShoalStatus net_proto(ShoalReplica *replica, Caffe__NetParameter **proto, ShoalError *err) {
    bool with_diff = replica->job->solver->snapshot_diff;
    if (with_diff)
        shoal_solver_expose_update(replica->solver);
    return shoal_net_to_proto(replica->nets[0].net, with_diff, proto, err);
}

ShoalStatus shoal_replica_snapshot(ShoalReplica *replica, int iter, int current_step,
                                   const char *model_name, ShoalCaffeSink *sink, void *model,
                                   void *state, ShoalError *err) {
    Caffe__NetParameter *net;
    ShoalStatus status = net_proto(replica, &net, err);
    if (status)
        return status;
    status = shoal_caffe_stream(&net->base, sink, model, err);
    shoal_net_proto_free(net);
    Caffe__SolverState *proto;
    if (!status)
        status =
            shoal_solver_to_proto(replica->solver, iter, current_step, model_name, &proto, err);
    if (status)
        return status;
    status = shoal_caffe_stream(&proto->base, sink, state, err);
    shoal_solver_proto_free(proto);
    return status;
}

static ShoalStatus keep_piece(void *context, const void *bytes, size_t size, size_t total,
                              ShoalError *err) {
    (void)total;
    return shoal_buffer_append(context, bytes, size, "a snapshot", err);
}

ShoalStatus shoal_replica_snapshot_bytes(ShoalReplica *replica, int iter, int current_step,
                                         const char *model_name, ShoalBuffer *model,
                                         ShoalBuffer *state, ShoalError *err) {
    ShoalStatus status = shoal_replica_snapshot(replica, iter, current_step, model_name, keep_piece,
                                                model, state, err);
    if (status) {
        shoal_buffer_close(model);
        shoal_buffer_close(state);
    }
    return status;
}
