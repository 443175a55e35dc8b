/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "base/memory.h"
#include "train/coordinator_internal.h"
#include "train/probe.h"

/* ---- peers ---- */

ShoalPeer *shoal_coordinator_peer(const ShoalCoordinator *c, uint64_t id) {
    for (int i = 0; i < c->n_peers; i++)
        if (c->peers[i]->id == id)
            return c->peers[i];
    return NULL;
}

bool shoal_coordinator_grow_peers(ShoalCoordinator *c) {
    int size = c->peers_size ? 2 * c->peers_size : 64;
    ShoalPeer **peers = shoal_calloc((size_t)size, sizeof *peers);
    struct pollfd *polls = shoal_calloc((size_t)size + 1, sizeof *polls);
    if (!peers || !polls) {
        shoal_free(peers);
        shoal_free(polls);
        return false;
    }
    for (int i = 0; i < c->n_peers; i++)
        peers[i] = c->peers[i];
    shoal_free(c->peers);
    shoal_free(c->polls);
    c->peers = peers;
    c->polls = polls;
    c->peers_size = size;
    return true;
}

/* Whoever belongs here says so at once: when there are too many strangers, the one that has been
 * silent for longest makes room. */
static void make_room_for_stranger(ShoalCoordinator *c) {
    int strangers = 0;
    ShoalPeer *oldest = NULL;
    for (int i = 0; i < c->n_peers; i++) {
        ShoalPeer *peer = c->peers[i];
        if (peer->joined || peer->broken)
            continue;
        strangers++;
        if (!oldest || peer->id < oldest->id)
            oldest = peer;
    }
    if (strangers >= SHOAL_COORDINATOR_STRANGERS)
        shoal_coordinator_lose(c, oldest, "made room for others");
}

void shoal_coordinator_add_peer(ShoalCoordinator *c, int fd) {
    make_room_for_stranger(c);
    bool room = c->n_peers < c->peers_size || shoal_coordinator_grow_peers(c);
    ShoalPeer *peer = room ? shoal_calloc(1, sizeof *peer) : NULL;
    if (!peer || shoal_channel_create(fd, SHOAL_MESSAGE_LIMIT_STRANGER, &peer->channel, NULL)) {
        shoal_free(peer);
        close(fd);
        return;
    }
    peer->id = c->next_id++;
    peer->store = -1;
    peer->vitals.battery = -1;
    peer->duty = 1;
    peer->deadline_ms = shoal_clock_ms() + SHOAL_COORDINATOR_GREETING_MS;
    c->peers[c->n_peers++] = peer;
}

/* Does another worker use the same cache? Then it came back before the end of its old connection
 * was seen. */
static bool store_is_used(const ShoalCoordinator *c, const ShoalPeer *but) {
    for (int i = 0; i < c->n_peers; i++)
        if (c->peers[i] != but && c->peers[i]->store == but->store)
            return true;
    return false;
}

void shoal_coordinator_remove_peer(ShoalCoordinator *c, int i) {
    ShoalPeer *peer = c->peers[i];
    if (peer->store >= 0 && !store_is_used(c, peer))
        c->store_alive[peer->store] = 0;
    shoal_channel_destroy(peer->channel);
    shoal_free(peer);
    c->peers[i] = c->peers[--c->n_peers];
}

void shoal_coordinator_lose(ShoalCoordinator *c, ShoalPeer *peer, const char *reason) {
    if (peer->broken)
        return;
    peer->broken = true;
    if (peer->joined)
        shoal_cluster_leave(c->cluster, shoal_clock_ms(), peer->id, reason);
    else
        shoal_log(SHOAL_LOG_INFO, "connection from %s: %s", shoal_channel_peer(peer->channel),
                  reason);
}

ShoalStatus shoal_coordinator_queue(ShoalPeer *peer, ShoalMessageType type,
                                    const ProtobufCMessage *message) {
    return peer->broken ? SHOAL_OK : shoal_message_queue(peer->channel, type, message, NULL);
}

ShoalStatus shoal_coordinator_queue_chunks(ShoalPeer *peer, Shoal__ChunkKind kind, uint64_t id,
                                           const void *bytes, size_t size) {
    ShoalStatus status = SHOAL_OK;
    for (size_t at = 0; at < size && !status;) {
        Shoal__Chunk chunk;
        at = shoal_chunk_cut(kind, id, bytes, size, at, &chunk);
        status = shoal_coordinator_queue(peer, SHOAL_MESSAGE_CHUNK, &chunk.base);
    }
    return status;
}

/* ---- strangers become workers ---- */

/* A run that goes on with what workers hold goes on with their random numbers, too. */
static ShoalStatus adopt_seed(ShoalCoordinator *c, const ShoalJoinInfo *info) {
    if (shoal_cluster_generation(c->cluster) > 0 || info->seed == c->job->seed)
        return SHOAL_OK;
    c->job->seed = info->seed;
    shoal_director_reseed(c->director);
    return shoal_coordinator_pack_job(c);
}

static ShoalStatus welcome(ShoalCoordinator *c, ShoalPeer *peer) {
    const ShoalJoinInfo *info = &peer->info;
    Shoal__Welcome message = SHOAL__WELCOME__INIT;
    message.has_job =
        info->has_job_id && !memcmp(info->job_id, c->job_id, SHOAL_HANDSHAKE_ID_BYTES);
    message.keep_state =
        message.has_job && info->version.held && (c->adopt || info->session == c->session);
    if (message.keep_state && adopt_seed(c, info))
        return c->err->status;
    message.worker_id = c->n_welcomed++;
    message.session = c->session;
    message.heartbeat_ms = c->heartbeat_ms;
    message.silence_ms = c->silence_ms;
    message.window = SHOAL_COORDINATOR_WINDOW;
    message.job_id.data = c->job_id;
    message.job_id.len = SHOAL_HANDSHAKE_ID_BYTES;
    message.encrypt = c->options->encrypt;
    message.wire_format = (uint32_t)c->format;
    ShoalStatus status = shoal_coordinator_queue(peer, SHOAL_MESSAGE_WELCOME, &message.base);
    if (!status && !message.has_job)
        status = shoal_coordinator_queue_chunks(peer, SHOAL__CHUNK_KIND__CHUNK_JOB, 0, c->job_bytes,
                                                c->job_size);
    return status;
}

static void admit(ShoalCoordinator *c, ShoalPeer *peer) {
    shoal_channel_set_limit(peer->channel, SHOAL_MESSAGE_LIMIT_MEMBER);
    /* Refuses one too many, and those that fail all the time; they get no welcome. */
    unsigned before = shoal_cluster_joined(c->cluster);
    shoal_cluster_join(c->cluster, shoal_clock_ms(), peer->id, &peer->info.info);
    if (shoal_cluster_joined(c->cluster) == before) {
        peer->joined = true; /* until the core's DROP is carried out */
        return;
    }
    if (welcome(c, peer)) {
        shoal_coordinator_lose(c, peer, "out of memory");
        return;
    }
    if (!c->options->encrypt)
        shoal_channel_bulk(peer->channel, SHOAL_MESSAGE_SAMPLES);
    peer->joined = true;
    peer->store = shoal_coordinator_store(c, &peer->info);
    snprintf(peer->name, sizeof peer->name, "%s #%lld",
             peer->info.info.name[0] ? peer->info.info.name : peer->info.info.address,
             (long long)peer->info.info.pid);
    shoal_coordinator_note_work(c, peer);
}

static void greet(ShoalCoordinator *c, ShoalPeer *peer, const ShoalFrame *frame) {
    bool joined;
    ShoalError err = {0};
    if (shoal_handshake_answer(&peer->greeting, peer->channel, &c->key, frame, &joined, &peer->info,
                               &err)) {
        shoal_coordinator_lose(c, peer, err.text);
        return;
    }
    if (joined && peer->info.probe) {
        /* No worker: the core never hears of it. */
        shoal_probe_server_adopt(c->probes, peer->channel, &peer->info);
        peer->channel = NULL;
        peer->broken = true;
    } else if (joined) {
        admit(c, peer);
    }
}

/* ---- what workers say ---- */

static void nonsense(ShoalCoordinator *c, ShoalPeer *peer) {
    shoal_coordinator_lose(c, peer, "sent something that is no message");
}

static void take_prepared(ShoalCoordinator *c, ShoalPeer *peer, const ShoalFrame *frame) {
    Shoal__Prepared *prepared =
        (Shoal__Prepared *)shoal_message_unpack(&shoal__prepared__descriptor, frame);
    if (!prepared || prepared->capacity < 1 || prepared->capacity > INT32_MAX || peer->capacity) {
        nonsense(c, peer);
    } else {
        peer->capacity = (int)prepared->capacity;
        char text[256];
        snprintf(text, sizeof text, "%s (%s, pid %lld)", shoal_channel_peer(peer->channel),
                 peer->info.info.name, (long long)peer->info.info.pid);
        if (peer->store >= 0)
            (void)shoal_holdings_budget(c->holdings, peer->store, prepared->cache_bytes, NULL);
        if (c->options->listen)
            shoal_coordinator_emit(c, SHOAL_EVENT_JOINED, text);
        shoal_cluster_prepared(c->cluster, shoal_clock_ms(), peer->id);
    }
    if (prepared)
        shoal__prepared__free_unpacked(prepared, NULL);
}

static void append(ShoalCoordinator *c, ShoalPeer *peer, ShoalBuffer *buffer,
                   const Shoal__Chunk *chunk) {
    if (chunk->offset == 0)
        buffer->used = 0;
    if (chunk->offset != buffer->used ||
        chunk->content.len > shoal_director_snapshot_limit(c->director) - buffer->used) {
        shoal_coordinator_lose(c, peer, "sent a snapshot out of order, or too large");
        return;
    }
    if (shoal_buffer_append(buffer, chunk->content.data, chunk->content.len, "a snapshot", NULL))
        shoal_coordinator_lose(c, peer, "no memory for its snapshot");
}

ShoalFlight *shoal_coordinator_flight(ShoalCoordinator *c, uint64_t round) {
    bool there =
        round < shoal_cluster_issued(c->cluster) && round >= shoal_cluster_completed(c->cluster);
    return there ? &c->flights[round % SHOAL_COORDINATOR_FLIGHTS] : NULL;
}

int shoal_coordinator_flight_rank(const ShoalFlight *flight, uint64_t connection) {
    for (int r = 0; r < flight->plan.n_ranks; r++)
        if (flight->connections[r] == connection)
            return r;
    return -1;
}

/* A snapshot that was asked for in an earlier generation comes again from someone else. */
static void take_chunk(ShoalCoordinator *c, ShoalPeer *peer, const ShoalFrame *frame) {
    Shoal__Chunk *chunk = (Shoal__Chunk *)shoal_message_unpack(&shoal__chunk__descriptor, frame);
    ShoalFlight *flight = chunk ? shoal_coordinator_flight(c, chunk->id) : NULL;
    bool asked = flight && flight->plan.round.kind == SHOAL_STEP_SNAPSHOT &&
                 shoal_coordinator_flight_rank(flight, peer->id) == 0;
    bool known = chunk && (chunk->kind == SHOAL__CHUNK_KIND__CHUNK_WEIGHTS ||
                           chunk->kind == SHOAL__CHUNK_KIND__CHUNK_STATE);
    if (asked && chunk->kind == SHOAL__CHUNK_KIND__CHUNK_WEIGHTS)
        append(c, peer, &flight->model, chunk);
    else if (asked && chunk->kind == SHOAL__CHUNK_KIND__CHUNK_STATE)
        append(c, peer, &flight->state, chunk);
    else if (!known || shoal_coordinator_generation(c) < 2)
        shoal_coordinator_lose(c, peer, "sent data that nobody asked for");
    if (chunk)
        shoal__chunk__free_unpacked(chunk, NULL);
}

static bool store_result(ShoalFlight *flight, int rank, const Shoal__Report *report) {
    ShoalResult *result = &flight->results[rank];
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
    result->exposed_ns = report->exposed_ns;
    result->waiting_ns = report->waiting_ns;
    result->bytes_sent = report->bytes_sent;
    result->present = true;
    return true;
}

/* How fast it is: what its next shares follow. */
static void note_speed(ShoalCoordinator *c, const ShoalPeer *peer, const ShoalFlight *flight,
                       int rank) {
    int member = shoal_cluster_rank(c->cluster, peer->id);
    if (c->balances && member >= 0 && member < c->n_members &&
        flight->plan.round.kind == SHOAL_STEP_TRAIN)
        shoal_balance_report(c->balance, member, flight->plan.count[rank],
                             (double)flight->results[rank].compute_ns * 1e-9);
}

/* A report of a generation that is over may still count: its round may prove complete. */
static bool take_result(ShoalCoordinator *c, ShoalPeer *peer, const Shoal__Report *report) {
    ShoalFlight *flight = shoal_coordinator_flight(c, report->round);
    int rank = flight ? shoal_coordinator_flight_rank(flight, peer->id) : -1;
    if (!flight || flight->generation != report->generation || rank < 0)
        return report->generation < shoal_cluster_generation(c->cluster);
    if (flight->results[rank].present)
        return false;
    if (!store_result(flight, rank, report))
        return false;
    shoal_coordinator_tally(c, peer, flight, rank);
    note_speed(c, peer, flight, rank);
    return true;
}

static void take_report(ShoalCoordinator *c, ShoalPeer *peer, const ShoalFrame *frame) {
    Shoal__Report *report =
        (Shoal__Report *)shoal_message_unpack(&shoal__report__descriptor, frame);
    if (!report || !take_result(c, peer, report))
        shoal_coordinator_lose(c, peer, "sent a report that makes no sense");
    else
        shoal_cluster_done(c->cluster, shoal_clock_ms(), peer->id, report->generation,
                           report->round);
    if (report)
        shoal__report__free_unpacked(report, NULL);
}

static void take_ready(ShoalCoordinator *c, ShoalPeer *peer, const ShoalFrame *frame) {
    Shoal__Ready *ready = (Shoal__Ready *)shoal_message_unpack(&shoal__ready__descriptor, frame);
    if (!ready || !ready->version || ready->version->updates > INT32_MAX ||
        ready->current_step > INT32_MAX) {
        nonsense(c, peer);
    } else {
        ShoalClusterVersion version = {.held = ready->version->held,
                                       .updates = ready->version->updates,
                                       .generation = ready->version->generation};
        peer->info.current_step = ready->current_step;
        shoal_cluster_ready(c->cluster, shoal_clock_ms(), peer->id, ready->generation, version);
    }
    if (ready)
        shoal__ready__free_unpacked(ready, NULL);
}

static void take_aborted(ShoalCoordinator *c, ShoalPeer *peer, const ShoalFrame *frame) {
    Shoal__Aborted *aborted =
        (Shoal__Aborted *)shoal_message_unpack(&shoal__aborted__descriptor, frame);
    if (!aborted) {
        nonsense(c, peer);
        return;
    }
    shoal_cluster_aborted(c->cluster, shoal_clock_ms(), peer->id, aborted->generation,
                          aborted->suspect_rank, aborted->text);
    shoal__aborted__free_unpacked(aborted, NULL);
}

static void take_heartbeat(ShoalCoordinator *c, ShoalPeer *peer, const ShoalFrame *frame) {
    Shoal__Heartbeat *beat =
        (Shoal__Heartbeat *)shoal_message_unpack(&shoal__heartbeat__descriptor, frame);
    if (!beat || beat->stage > SHOAL__STAGE__STAGE_REDUCING) {
        nonsense(c, peer);
    } else {
        peer->vitals = (ShoalVitals){.temperature = beat->temperature,
                                     .battery_temperature = beat->battery_temperature,
                                     .clock = beat->clock,
                                     .battery = beat->battery,
                                     .charging = beat->charging};
        shoal_message_text(beat->remark, peer->remark, sizeof peer->remark);
        peer->duty = beat->duty > 0 && beat->duty < 1 ? beat->duty : 1;
        shoal_cluster_progress(c->cluster, shoal_clock_ms(), peer->id,
                               (ShoalClusterStage)beat->stage, beat->progress);
    }
    if (beat)
        shoal__heartbeat__free_unpacked(beat, NULL);
}

static bool blames_the_job(ShoalStatus status) {
    return status == SHOAL_ERR_MODEL || status == SHOAL_ERR_PARSE || status == SHOAL_ERR_DATA ||
           status == SHOAL_ERR_ARGUMENT || status == SHOAL_ERR_UNSUPPORTED;
}

/* What one worker cannot do another may. When two say the same of the job, or there is no other, it
 * is the job. Own workers are not started a second time. */
static bool ends_the_run(ShoalCoordinator *c, const ShoalPeer *peer, ShoalStatus status,
                         const char *text) {
    bool begun = shoal_cluster_generation(c->cluster) > 0;
    if (!begun && c->children.count > 0)
        return status < 0;
    if (!blames_the_job(status) || (begun && shoal_cluster_rank(c->cluster, peer->id) < 0))
        return false;
    bool again = c->failed_peer && c->failed_peer != peer->id + 1 && !strcmp(c->failure, text);
    c->failed_peer = peer->id + 1;
    snprintf(c->failure, sizeof c->failure, "%s", text);
    return again || shoal_cluster_joined(c->cluster) <= 1;
}

static void take_failure(ShoalCoordinator *c, ShoalPeer *peer, const ShoalFrame *frame) {
    Shoal__Failure *failure =
        (Shoal__Failure *)shoal_message_unpack(&shoal__failure__descriptor, frame);
    if (!failure) {
        nonsense(c, peer);
        return;
    }
    ShoalStatus status = (ShoalStatus)failure->status;
    char text[SHOAL_CLUSTER_TEXT];
    shoal_message_text(failure->text, text, sizeof text);
    shoal__failure__free_unpacked(failure, NULL);
    bool begun = shoal_cluster_generation(c->cluster) > 0;
    if (ends_the_run(c, peer, status, text))
        shoal_error_set(c->err, status,
                        begun ? "worker %s failed: %s"
                              : "%sa worker failed while "
                                "it prepared the "
                                "training: %s",
                        begun ? peer->name : "", text);
    /* One who fails is not believed to speak for all: the core would end the run for it. */
    shoal_cluster_fault(c->cluster, shoal_clock_ms(), peer->id,
                        blames_the_job(status) ? SHOAL_ERR_LOST : status, text);
}

static void take_leave(ShoalCoordinator *c, ShoalPeer *peer, const ShoalFrame *frame) {
    Shoal__Leave *leave = (Shoal__Leave *)shoal_message_unpack(&shoal__leave__descriptor, frame);
    if (!leave) {
        nonsense(c, peer);
        return;
    }
    char reason[160];
    shoal_message_text(leave->reason, reason, sizeof reason);
    bool stopped = leave->stopped;
    shoal__leave__free_unpacked(leave, NULL);
    if (stopped) {
        shoal_coordinator_lose(c, peer, reason);
        return;
    }
    shoal_coordinator_note_rest(c, peer, reason);
    peer->broken = true;
    shoal_cluster_rest(c->cluster, shoal_clock_ms(), peer->id, reason);
}

void shoal_coordinator_take(ShoalCoordinator *c, ShoalPeer *peer, const ShoalFrame *frame) {
    if (!peer->joined) {
        greet(c, peer, frame);
        return;
    }
    shoal_cluster_heard(c->cluster, shoal_clock_ms(), peer->id);
    switch (frame->type) {
    case SHOAL_MESSAGE_HEARTBEAT:
        take_heartbeat(c, peer, frame);
        break;
    case SHOAL_MESSAGE_PREPARED:
        take_prepared(c, peer, frame);
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
    case SHOAL_MESSAGE_HOLDINGS:
        shoal_coordinator_take_holdings(c, peer, frame);
        break;
    case SHOAL_MESSAGE_FETCH:
        shoal_coordinator_take_fetch(c, peer, frame);
        break;
    case SHOAL_MESSAGE_ABORTED:
        take_aborted(c, peer, frame);
        break;
    case SHOAL_MESSAGE_FAILURE:
        take_failure(c, peer, frame);
        break;
    case SHOAL_MESSAGE_LEAVE:
        take_leave(c, peer, frame);
        break;
    default:
        shoal_coordinator_lose(c, peer, "sent a message of an unknown kind");
    }
}
