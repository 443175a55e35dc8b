/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <string.h>

#include "base/memory.h"
#include "train/coordinator_internal.h"

/* What people are shown of the workers. */

void shoal_coordinator_emit(ShoalCoordinator *c, ShoalEventKind kind, const char *text) {
    size_t n;
    (void)shoal_cluster_members(c->cluster, &n);
    ShoalEvent event = {.kind = kind,
                        .text = text,
                        .generation = shoal_coordinator_generation(c),
                        .n_workers = (int)n};
    if (kind == SHOAL_EVENT_JOINED)
        event.n_workers = (int)shoal_cluster_prepared_count(c->cluster) + 1;
    if (kind == SHOAL_EVENT_LOST || kind == SHOAL_EVENT_RESTING)
        event.n_workers = (int)shoal_cluster_prepared_count(c->cluster);
    shoal_director_emit(c->director, &event);
}

/* Tests are not part of the split that is shown with iterations. */
void shoal_coordinator_tally(ShoalCoordinator *c, ShoalPeer *peer, const ShoalFlight *flight,
                             int rank) {
    (void)c;
    const ShoalResult *result = &flight->results[rank];
    if (flight->plan.round.kind != SHOAL_STEP_TRAIN)
        return;
    peer->tally.samples += flight->plan.count[rank];
    peer->tally.compute_ns += (double)result->compute_ns;
    peer->tally.communication_ns += (double)result->communication_ns;
    peer->tally.exposed_ns += (double)result->exposed_ns;
    peer->tally.waiting_ns += (double)result->waiting_ns;
    peer->tally.bytes_sent += (double)result->bytes_sent;
}

static void fill_worker(const ShoalPeer *peer, int share, ShoalWorkerStatus *status) {
    const ShoalTally *tally = &peer->tally;
    double ns = tally->compute_ns + tally->exposed_ns + tally->waiting_ns;
    *status = (ShoalWorkerStatus){.name = peer->name,
                                  .share = share,
                                  .images_per_s = ns > 0 ? tally->samples / (ns * 1e-9) : 0,
                                  .compute = ns > 0 ? tally->compute_ns / ns : 0,
                                  .communication = ns > 0 ? tally->exposed_ns / ns : 0,
                                  .waiting = ns > 0 ? tally->waiting_ns / ns : 0,
                                  .temperature = (double)peer->vitals.temperature,
                                  .battery_temperature = (double)peer->vitals.battery_temperature,
                                  .clock = (double)peer->vitals.clock,
                                  .duty = (double)peer->duty,
                                  .remark = peer->remark,
                                  .battery = peer->vitals.battery,
                                  .charging = peer->vitals.charging};
}

static bool has_room(ShoalCoordinator *c, size_t n) {
    if ((int)n <= c->statuses_size)
        return true;
    ShoalWorkerStatus *statuses = shoal_calloc(n, sizeof *statuses);
    if (!statuses)
        return false;
    shoal_free(c->statuses);
    c->statuses = statuses;
    c->statuses_size = (int)n;
    return true;
}

void shoal_coordinator_note_work(ShoalCoordinator *c, const ShoalPeer *peer) {
    int kept = 0;
    for (int i = 0; i < c->n_resters; i++)
        if (strcmp(c->resters[i].name, peer->name) != 0)
            c->resters[kept++] = c->resters[i];
    c->n_resters = kept;
}

void shoal_coordinator_note_rest(ShoalCoordinator *c, const ShoalPeer *peer, const char *reason) {
    shoal_coordinator_note_work(c, peer);
    if (c->n_resters == SHOAL_COORDINATOR_RESTERS)
        memmove(c->resters, c->resters + 1, (size_t)--c->n_resters * sizeof *c->resters);
    ShoalRester *rester = &c->resters[c->n_resters++];
    snprintf(rester->name, sizeof rester->name, "%s", peer->name);
    snprintf(rester->reason, sizeof rester->reason, "%s", reason);
}

static int list_resting(ShoalCoordinator *c) {
    for (int i = 0; i < c->n_resters; i++)
        c->resting[i] =
            (ShoalRestingStatus){.name = c->resters[i].name, .reason = c->resters[i].reason};
    return c->n_resters;
}

const ShoalClusterStatus *shoal_coordinator_status(ShoalCoordinator *c, const ShoalFlight *flight) {
    size_t n;
    const ShoalClusterMember *members = shoal_cluster_members(c->cluster, &n);
    if (flight->plan.round.kind == SHOAL_STEP_TRAIN && flight->plan.round.update)
        c->tally_rounds++;
    if (!has_room(c, n))
        return NULL;
    ShoalTally sum = {0};
    int shown = 0;
    for (size_t i = 0; i < n; i++) {
        const ShoalPeer *peer = shoal_coordinator_peer(c, members[i].connection);
        if (!peer)
            continue;
        int rank = shoal_coordinator_flight_rank(flight, peer->id);
        int share = rank < 0 ? 0 : flight->plan.count[rank] * c->job->solver->iter_size;
        fill_worker(peer, share, &c->statuses[shown++]);
        sum.communication_ns += peer->tally.communication_ns;
        sum.exposed_ns += peer->tally.exposed_ns;
        sum.bytes_sent += peer->tally.bytes_sent;
        sum.sent_bytes += peer->tally.sent_bytes;
        sum.sent_records += peer->tally.sent_records;
        sum.held_records += peer->tally.held_records;
    }
    double rounds = c->tally_rounds > 0 ? c->tally_rounds : 1, each = shown ? rounds * shown : 1;
    double records = sum.sent_records + sum.held_records, before = c->status.cached;
    c->status = (ShoalClusterStatus){.workers = c->statuses,
                                     .n_workers = shown,
                                     .resting = c->resting,
                                     .n_resting = list_resting(c),
                                     .generation = shoal_coordinator_generation(c),
                                     .communication_ms = sum.communication_ns * 1e-6 / each,
                                     .exposed_ms = sum.exposed_ns * 1e-6 / each,
                                     .samples_mb = sum.sent_bytes * 1e-6 / rounds,
                                     .reduced_mb = sum.bytes_sent * 1e-6 / each,
                                     /* Rounds are sent ahead: there may be none. */
                                     .cached = records > 0 ? sum.held_records / records : before};
    return &c->status;
}

void shoal_coordinator_reset_tallies(ShoalCoordinator *c) {
    for (int i = 0; i < c->n_peers; i++)
        c->peers[i]->tally = (ShoalTally){0};
    c->tally_rounds = 0;
}
