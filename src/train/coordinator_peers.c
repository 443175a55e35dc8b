/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "base/memory.h"
#include "train/coordinator_internal.h"

/* ---- peers ---- */

ShoalPeer *shoal_coordinator_peer(const ShoalCoordinator *c, uint64_t id) {
    for (int i = 0; i < c->n_peers; i++)
        if (c->peers[i]->id == id)
            return c->peers[i];
    return NULL;
}

void shoal_coordinator_add_peer(ShoalCoordinator *c, int fd) {
    int strangers = 0;
    for (int i = 0; i < c->n_peers; i++)
        strangers += !c->peers[i]->member;
    ShoalPeer *peer = strangers < SHOAL_COORDINATOR_STRANGERS && c->n_peers < c->peers_size
                          ? shoal_calloc(1, sizeof *peer)
                          : NULL;
    if (!peer || shoal_channel_create(fd, SHOAL_MESSAGE_LIMIT_STRANGER, &peer->channel, NULL)) {
        shoal_free(peer);
        close(fd);
        return;
    }
    peer->id = c->next_id++;
    peer->deadline_ms = shoal_clock_ms() + SHOAL_COORDINATOR_GREETING_MS;
    c->peers[c->n_peers++] = peer;
}

void shoal_coordinator_remove_peer(ShoalCoordinator *c, int i) {
    shoal_channel_destroy(c->peers[i]->channel);
    shoal_free(c->peers[i]);
    c->peers[i] = c->peers[--c->n_peers];
}

void shoal_coordinator_lose(ShoalCoordinator *c, ShoalPeer *peer, const char *reason) {
    if (peer->broken)
        return;
    peer->broken = true;
    if (peer->member)
        shoal_cluster_leave(c->cluster, shoal_clock_ms(), peer->id, reason);
    else
        shoal_log(SHOAL_LOG_INFO, "connection from %s: %s", shoal_channel_peer(peer->channel),
                  reason);
}

ShoalStatus shoal_coordinator_queue(ShoalPeer *peer, ShoalMessageType type,
                                    const ProtobufCMessage *message) {
    return peer->broken ? SHOAL_OK : shoal_message_queue(peer->channel, type, message, NULL);
}

/* ---- strangers become members ---- */

static ShoalStatus send_job(ShoalCoordinator *c, ShoalPeer *peer) {
    ShoalStatus status = SHOAL_OK;
    for (size_t at = 0; at < c->job_size && !status;) {
        Shoal__Chunk chunk;
        at =
            shoal_chunk_cut(SHOAL__CHUNK_KIND__CHUNK_JOB, 0, c->job_bytes, c->job_size, at, &chunk);
        status = shoal_coordinator_queue(peer, SHOAL_MESSAGE_CHUNK, &chunk.base);
    }
    return status;
}

static void welcome(ShoalCoordinator *c, ShoalPeer *peer, const ShoalClusterInfo *info) {
    size_t members;
    shoal_cluster_members(c->cluster, &members);
    peer->member = true;
    shoal_channel_set_limit(peer->channel, SHOAL_MESSAGE_LIMIT_MEMBER);
    if ((int)members < c->n_workers) {
        Shoal__Welcome message = SHOAL__WELCOME__INIT;
        message.worker_id = (uint32_t)members;
        message.heartbeat_ms = SHOAL_COORDINATOR_HEARTBEAT_MS;
        message.window = SHOAL_COORDINATOR_WINDOW;
        if (shoal_coordinator_queue(peer, SHOAL_MESSAGE_WELCOME, &message.base) ||
            send_job(c, peer))
            shoal_coordinator_lose(c, peer, "out of memory");
        if (c->options->listen) {
            char text[256];
            snprintf(text, sizeof text, "Worker %zu of %d joined: %s (%s, pid %lld)", members + 1,
                     c->n_workers, shoal_channel_peer(peer->channel), info->name,
                     (long long)info->pid);
            ShoalEvent event = {.kind = SHOAL_EVENT_NOTE, .text = text};
            shoal_director_emit(c->director, &event);
        }
    }
    shoal_cluster_join(c->cluster, shoal_clock_ms(), peer->id, info); /* refuses one too many */
}

static void greet(ShoalCoordinator *c, ShoalPeer *peer, const ShoalFrame *frame) {
    bool joined;
    ShoalClusterInfo info;
    ShoalError err = {0};
    if (shoal_handshake_answer(&peer->greeting, peer->channel, &c->key, frame, &joined, &info,
                               &err)) {
        shoal_coordinator_lose(c, peer, err.text);
        return;
    }
    if (joined)
        welcome(c, peer, &info);
}

/* ---- what members say ---- */

static void append(ShoalCoordinator *c, ShoalPeer *peer, ShoalBuffer *buffer,
                   const Shoal__Chunk *chunk) {
    if (chunk->offset == 0)
        buffer->used = 0;
    if (chunk->offset != buffer->used) {
        shoal_coordinator_lose(c, peer, "sent a snapshot out of order");
        return;
    }
    if (shoal_buffer_append(buffer, chunk->content.data, chunk->content.len, "a snapshot", NULL))
        shoal_coordinator_lose(c, peer, "no memory for its snapshot");
}

static bool is_in_flight(const ShoalCoordinator *c, uint64_t round) {
    return round < shoal_cluster_issued(c->cluster) && round >= shoal_cluster_completed(c->cluster);
}

static void take_chunk(ShoalCoordinator *c, ShoalPeer *peer, const ShoalFrame *frame) {
    Shoal__Chunk *chunk = shoal__chunk__unpack(NULL, frame->size, frame->payload);
    ShoalFlight *flight = chunk && is_in_flight(c, chunk->id)
                              ? &c->flights[chunk->id % SHOAL_COORDINATOR_WINDOW]
                              : NULL;
    bool asked = flight && flight->plan.round.kind == SHOAL_STEP_SNAPSHOT &&
                 shoal_cluster_rank(c->cluster, peer->id) == 0;
    if (asked && chunk->kind == SHOAL__CHUNK_KIND__CHUNK_WEIGHTS)
        append(c, peer, &flight->model, chunk);
    else if (asked && chunk->kind == SHOAL__CHUNK_KIND__CHUNK_STATE)
        append(c, peer, &flight->state, chunk);
    else
        shoal_coordinator_lose(c, peer, "sent data that nobody asked for");
    if (chunk)
        shoal__chunk__free_unpacked(chunk, NULL);
}

static bool store_result(ShoalCoordinator *c, int rank, const Shoal__Report *report) {
    ShoalResult *result = &c->flights[report->round % SHOAL_COORDINATOR_WINDOW].results[rank];
    if (report->n_outputs > result->output_capacity ||
        (report->weights_hash.len && report->weights_hash.len != sizeof result->hash))
        return false;
    result->loss = report->loss;
    result->output_count = report->n_outputs;
    if (report->n_outputs)
        memcpy(result->outputs, report->outputs, report->n_outputs * sizeof(float));
    result->clipped_norm = report->clipped_norm;
    result->hashed = report->weights_hash.len > 0;
    if (result->hashed)
        memcpy(result->hash, report->weights_hash.data, sizeof result->hash);
    result->compute_ns = report->compute_ns;
    result->communication_ns = report->communication_ns;
    result->waiting_ns = report->waiting_ns;
    return true;
}

static void take_report(ShoalCoordinator *c, ShoalPeer *peer, const ShoalFrame *frame) {
    Shoal__Report *report = shoal__report__unpack(NULL, frame->size, frame->payload);
    int rank = shoal_cluster_rank(c->cluster, peer->id);
    bool in_flight = report && rank >= 0 && is_in_flight(c, report->round);
    if (!in_flight || !store_result(c, rank, report))
        shoal_coordinator_lose(c, peer, "sent a report that makes no sense");
    else
        shoal_cluster_done(c->cluster, shoal_clock_ms(), peer->id, report->generation,
                           report->round);
    if (report)
        shoal__report__free_unpacked(report, NULL);
}

static void take_ready(ShoalCoordinator *c, ShoalPeer *peer, const ShoalFrame *frame) {
    Shoal__Ready *ready = shoal__ready__unpack(NULL, frame->size, frame->payload);
    if (!ready) {
        shoal_coordinator_lose(c, peer, "sent something that is no message");
        return;
    }
    shoal_cluster_ready(c->cluster, shoal_clock_ms(), peer->id, ready->generation);
    shoal__ready__free_unpacked(ready, NULL);
}

static void take_aborted(ShoalCoordinator *c, ShoalPeer *peer, const ShoalFrame *frame) {
    Shoal__Aborted *aborted = shoal__aborted__unpack(NULL, frame->size, frame->payload);
    if (!aborted) {
        shoal_coordinator_lose(c, peer, "sent something that is no message");
        return;
    }
    shoal_cluster_aborted(c->cluster, shoal_clock_ms(), peer->id, aborted->generation,
                          aborted->suspect_rank, aborted->text);
    shoal__aborted__free_unpacked(aborted, NULL);
}

/* Nobody can do a job that is wrong in itself, and own workers are not started a second time: then
 * waiting for other workers is in vain. */
static bool ends_the_wait(const ShoalCoordinator *c, ShoalStatus status) {
    bool wrong_job = status == SHOAL_ERR_MODEL || status == SHOAL_ERR_PARSE ||
                     status == SHOAL_ERR_DATA || status == SHOAL_ERR_ARGUMENT;
    return shoal_cluster_phase(c->cluster) == SHOAL_CLUSTER_WAITING && status < 0 &&
           (wrong_job || c->children.count > 0);
}

static void take_failure(ShoalCoordinator *c, ShoalPeer *peer, const ShoalFrame *frame) {
    Shoal__Failure *failure = shoal__failure__unpack(NULL, frame->size, frame->payload);
    if (!failure) {
        shoal_coordinator_lose(c, peer, "sent something that is no message");
        return;
    }
    ShoalStatus status = (ShoalStatus)failure->status;
    if (ends_the_wait(c, status))
        shoal_error_set(c->err, status, "a worker failed while it prepared the training: %s",
                        failure->text);
    shoal_cluster_fault(c->cluster, shoal_clock_ms(), peer->id, status, failure->text);
    shoal__failure__free_unpacked(failure, NULL);
}

void shoal_coordinator_take(ShoalCoordinator *c, ShoalPeer *peer, const ShoalFrame *frame) {
    if (!peer->member) {
        greet(c, peer, frame);
        return;
    }
    shoal_cluster_heard(c->cluster, shoal_clock_ms(), peer->id);
    switch (frame->type) {
    case SHOAL_MESSAGE_HEARTBEAT:
        break;
    case SHOAL_MESSAGE_READY:
        take_ready(c, peer, frame);
        break;
    case SHOAL_MESSAGE_REPORT:
        take_report(c, peer, frame);
        break;
    case SHOAL_MESSAGE_CHUNK:
        take_chunk(c, peer, frame);
        break;
    case SHOAL_MESSAGE_ABORTED:
        take_aborted(c, peer, frame);
        break;
    case SHOAL_MESSAGE_FAILURE:
        take_failure(c, peer, frame);
        break;
    default:
        shoal_coordinator_lose(c, peer, "sent a message of an unknown kind");
    }
}
