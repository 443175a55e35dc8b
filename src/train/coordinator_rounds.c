/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/memory.h"
#include "train/coordinator_internal.h"

enum { ENDED_MS = 100 }; /* for a process whose connection is closed to be gone, too */

static void name_workers(ShoalCoordinator *c) {
    size_t n;
    const ShoalClusterMember *members = shoal_cluster_members(c->cluster, &n);
    for (size_t i = 0; i < n && (int)i < c->n_workers; i++) {
        snprintf(c->tallies[i].name, sizeof c->tallies[i].name, "%s #%lld", members[i].info.address,
                 (long long)members[i].info.pid);
        c->statuses[i].name = c->tallies[i].name;
    }
}

static void send_generation(ShoalCoordinator *c, uint64_t generation) {
    size_t n;
    const ShoalClusterMember *members = shoal_cluster_members(c->cluster, &n);
    Shoal__Member *items = shoal_calloc(n, sizeof *items);
    Shoal__Member **pointers = shoal_calloc(n, sizeof *pointers);
    for (size_t i = 0; items && pointers && i < n; i++) {
        shoal__member__init(&items[i]);
        items[i].worker_id = members[i].worker_id;
        items[i].address = (char *)members[i].info.address;
        items[i].ring_port = members[i].info.ring_port;
        items[i].name = (char *)members[i].info.name;
        pointers[i] = &items[i];
    }
    name_workers(c);
    for (size_t i = 0; i < n; i++) {
        ShoalPeer *peer = shoal_coordinator_peer(c, members[i].connection);
        Shoal__Generation message = SHOAL__GENERATION__INIT;
        message.generation = generation;
        message.rank = (uint32_t)i;
        message.n_members = n;
        message.members = pointers;
        message.ring_secret.data = c->ring_secret;
        message.ring_secret.len = sizeof c->ring_secret;
        if (peer && (!items || !pointers ||
                     shoal_coordinator_queue(peer, SHOAL_MESSAGE_GENERATION, &message.base)))
            shoal_coordinator_lose(c, peer, "out of memory");
    }
    shoal_free(items);
    shoal_free(pointers);
}

/* The samples of one rank for one data layer. */
static ShoalStatus collect_records(ShoalCoordinator *c, const ShoalPlan *plan, int rank, int source,
                                   ProtobufCBinaryData *records, Shoal__Batch *batch,
                                   ShoalError *err) {
    ShoalStreams *streams = shoal_director_streams(c->director, plan->round.net);
    shoal__batch__init(batch);
    batch->records = records;
    batch->first_record =
        shoal_streams_number(streams, source, plan->first[rank], &batch->dataset_size);
    for (int i = 0; i < plan->count[rank]; i++) {
        ShoalRecord record;
        ShoalStatus status =
            shoal_streams_record(streams, source, plan->first[rank] + (uint64_t)i, &record, err);
        if (status)
            return status;
        if (!record.bytes)
            return SHOAL_OK;
        records[batch->n_records].data = (unsigned char *)record.bytes;
        records[batch->n_records++].len = record.size;
    }
    return SHOAL_OK;
}

static void fill_round(const ShoalPlan *plan, uint64_t generation, uint64_t number, int rank,
                       Shoal__Round *message) {
    shoal__round__init(message);
    message->generation = generation;
    message->number = number;
    message->kind = (Shoal__RoundKind)plan->round.kind;
    message->iteration = (uint32_t)plan->round.iter;
    message->rate = plan->round.rate;
    message->current_step = (uint32_t)plan->round.current_step;
    message->net = (uint32_t)plan->round.net;
    message->first_sample = plan->first[rank];
    message->count = (uint32_t)plan->count[rank];
    message->batch = (uint32_t)plan->round.batch;
    message->clear = plan->round.clear;
    message->update = plan->round.update;
}

static ShoalStatus send_round(ShoalCoordinator *c, ShoalPeer *peer, const ShoalPlan *plan,
                              uint64_t generation, uint64_t number, int rank, ShoalError *err) {
    Shoal__Round message;
    fill_round(plan, generation, number, rank, &message);
    size_t count = (size_t)plan->count[rank];
    int sources = count ? shoal_director_streams(c->director, plan->round.net)->count : 0;
    ProtobufCBinaryData *records = shoal_calloc(count * (size_t)sources, sizeof *records);
    Shoal__Batch *batches = shoal_calloc((size_t)sources, sizeof *batches);
    Shoal__Batch **pointers = shoal_calloc((size_t)sources, sizeof *pointers);
    ShoalStatus status = records && batches && pointers
                             ? SHOAL_OK
                             : shoal_error_memory(err, "a round", count * sizeof *records);
    for (int s = 0; s < sources && !status; s++) {
        pointers[s] = &batches[s];
        status = collect_records(c, plan, rank, s, records + (size_t)s * count, &batches[s], err);
    }
    message.n_batches = (size_t)sources;
    message.batches = pointers;
    if (!status && shoal_coordinator_queue(peer, SHOAL_MESSAGE_ROUND, &message.base))
        status = shoal_error_memory(err, "a round", count);
    shoal_free(records);
    shoal_free(batches);
    shoal_free(pointers);
    return status;
}

static ShoalStatus issue_round(ShoalCoordinator *c, uint64_t generation, uint64_t number) {
    const ShoalPlan *plan = &c->flights[number % SHOAL_COORDINATOR_WINDOW].plan;
    size_t n;
    const ShoalClusterMember *members = shoal_cluster_members(c->cluster, &n);
    for (size_t r = 0; r < n; r++) {
        ShoalPeer *peer = shoal_coordinator_peer(c, members[r].connection);
        ShoalStatus status =
            peer ? send_round(c, peer, plan, generation, number, (int)r, c->err) : SHOAL_OK;
        if (status)
            return status;
    }
    return SHOAL_OK;
}

/* Tests are not part of the split that is shown with iterations. */
static void add_to_tallies(ShoalCoordinator *c, const ShoalFlight *flight) {
    for (int r = 0; r < c->n_workers; r++) {
        const ShoalResult *result = &flight->results[r];
        ShoalTally *tally = &c->tallies[r];
        tally->samples += flight->plan.count[r];
        tally->compute_ns += (double)result->compute_ns;
        tally->communication_ns += (double)result->communication_ns;
        tally->waiting_ns += (double)result->waiting_ns;
    }
}

static void update_statuses(ShoalCoordinator *c, const ShoalPlan *plan) {
    for (int r = 0; r < c->n_workers; r++) {
        const ShoalTally *tally = &c->tallies[r];
        double ns = tally->compute_ns + tally->communication_ns + tally->waiting_ns;
        ShoalWorkerStatus *status = &c->statuses[r];
        if (plan->round.kind == SHOAL_STEP_TRAIN)
            status->share = plan->count[r] * c->job->solver->iter_size;
        status->images_per_s = ns > 0 ? tally->samples / (ns * 1e-9) : 0;
        status->compute = ns > 0 ? tally->compute_ns / ns : 0;
        status->communication = ns > 0 ? tally->communication_ns / ns : 0;
        status->waiting = ns > 0 ? tally->waiting_ns / ns : 0;
    }
}

static void reset_tallies(ShoalCoordinator *c) {
    for (int r = 0; r < c->n_workers; r++) {
        ShoalTally *tally = &c->tallies[r];
        tally->samples = tally->compute_ns = tally->communication_ns = tally->waiting_ns = 0;
    }
}

static ShoalStatus store_snapshot(ShoalCoordinator *c, ShoalFlight *flight) {
    int iter = flight->plan.round.iter;
    ShoalBuffer *model = &flight->model, *state = &flight->state;
    if (!model->used || !state->used)
        return shoal_error_set(c->err, SHOAL_ERR_PROTOCOL,
                               "rank 0 did not send the snapshot of iteration %d", iter);
    ShoalStatus status = shoal_director_write_snapshot(c->director, iter, model->bytes, model->used,
                                                       state->bytes, state->used, c->err);
    if (!status)
        snprintf(c->last_snapshot, sizeof c->last_snapshot, "%s_iter_%d.solverstate",
                 c->job->solver->snapshot_prefix, iter);
    shoal_buffer_close(model);
    shoal_buffer_close(state);
    return status;
}

static ShoalStatus complete_round(ShoalCoordinator *c, uint64_t number) {
    ShoalFlight *flight = &c->flights[number % SHOAL_COORDINATOR_WINDOW];
    const ShoalPlan *plan = &flight->plan;
    if (plan->round.kind == SHOAL_STEP_SNAPSHOT)
        return store_snapshot(c, flight);
    bool train = plan->round.kind == SHOAL_STEP_TRAIN;
    if (train)
        add_to_tallies(c, flight);
    update_statuses(c, plan);
    ShoalStatus status =
        shoal_director_complete(c->director, plan, flight->results, c->statuses, c->err);
    if (train && plan->round.update && plan->round.display)
        reset_tallies(c);
    return status;
}

static void drop(ShoalCoordinator *c, const ShoalClusterAction *action) {
    ShoalPeer *peer = shoal_coordinator_peer(c, action->connection);
    if (!peer)
        return;
    Shoal__Refuse message = SHOAL__REFUSE__INIT;
    message.reason = (char *)action->text;
    (void)shoal_coordinator_queue(peer, SHOAL_MESSAGE_REFUSE, &message.base);
    if (!peer->broken)
        (void)shoal_channel_flush(peer->channel, NULL);
    peer->broken = true;
}

/* How an own worker ended, where one has: "signal 9" says more than "connection closed". */
static void find_ended(ShoalCoordinator *c, char *text, size_t size) {
    char how[32];
    uint64_t deadline = shoal_clock_ms() + ENDED_MS;
    int number = -1;
    while (c->children.count && number < 0 && shoal_clock_ms() < deadline) {
        number = shoal_children_ended(&c->children, how, sizeof how);
        if (number < 0)
            shoal_clock_sleep_ms(2);
    }
    if (number >= 0)
        snprintf(text, size, " (its process ended with %s)", how);
}

/* The core speaks of rounds; people know iterations and snapshots. */
static ShoalStatus fail(ShoalCoordinator *c, const ShoalClusterAction *action) {
    char when[48] = "", how[64] = "";
    if (action->status == SHOAL_ERR_LOST)
        find_ended(c, how, sizeof how);
    uint64_t oldest = shoal_cluster_completed(c->cluster);
    if (oldest < shoal_cluster_added(c->cluster) && shoal_cluster_generation(c->cluster) > 0)
        snprintf(when, sizeof when,
                 "iteration %d: ", c->flights[oldest % SHOAL_COORDINATOR_WINDOW].plan.round.iter);
    return shoal_error_set(c->err, action->status, "%s%s%s; %s%s", when, action->text, how,
                           c->last_snapshot[0] ? "go on with --resume="
                                               : "no snapshot was written before",
                           c->last_snapshot);
}

ShoalStatus shoal_coordinator_carry_out(ShoalCoordinator *c, const ShoalClusterAction *action) {
    switch (action->kind) {
    case SHOAL_CLUSTER_FORM:
        send_generation(c, action->generation);
        return SHOAL_OK;
    case SHOAL_CLUSTER_START:
        shoal_director_begin(c->director);
        return SHOAL_OK;
    case SHOAL_CLUSTER_ISSUE:
        return issue_round(c, action->generation, action->round);
    case SHOAL_CLUSTER_COMPLETE:
        return complete_round(c, action->round);
    case SHOAL_CLUSTER_DROP:
        drop(c, action);
        return SHOAL_OK;
    case SHOAL_CLUSTER_FINISHED:
        c->over = true;
        return SHOAL_OK;
    default:
        return fail(c, action);
    }
}
