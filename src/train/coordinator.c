/* SPDX-License-Identifier: Apache-2.0 */
#include "train/coordinator.h"

#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "base/memory.h"
#include "train/children.h"
#include "train/handshake.h"

enum {
    WINDOW = 4,         /* rounds ahead of the workers: their samples are there in time */
    HEARTBEAT_MS = 500, /* of the workers */
    DEFAULT_HEARTBEAT_TIMEOUT = 10000,
    GREETING_MS = 10000, /* for a stranger to prove itself */
    JOIN_MS = 60000,     /* for own workers */
    FORM_MS = 120000,    /* for the ring: workers build their nets in this time */
    STRANGERS_MAX = 64,
    POLL_MS = 100, /* at least so often the stop flag is looked at */
    GOODBYE_MS = 5000
};

typedef struct Peer {
    uint64_t id; /* the core's name for the connection */
    ShoalChannel *channel;
    ShoalGreeting greeting;
    bool member, broken;
    uint64_t deadline_ms; /* for the greeting */
} Peer;

/* A round between its plan and its completion. */
typedef struct Flight {
    ShoalPlan plan;
    ShoalResult *results; /* by rank */
} Flight;

/* What a worker did since the last displayed iteration. */
typedef struct Tally {
    double samples, compute_ns, communication_ns, waiting_ns;
    char name[96];
} Tally;

typedef struct Buffer {
    unsigned char *bytes;
    size_t used, size;
} Buffer;

typedef struct Coordinator {
    ShoalJob *job;
    const ShoalTrainOptions *options;
    ShoalDirector *director;
    ShoalCluster *cluster;
    ShoalAuthKey key;
    unsigned char ring_secret[SHOAL_AUTH_BYTES];
    int listen_fd;
    Peer **peers;
    int n_peers, peers_size;
    uint64_t next_id;
    struct pollfd *polls;
    int n_workers;
    Flight flights[WINDOW];
    bool all_planned, over;
    Tally *tallies;
    ShoalWorkerStatus *statuses;
    Buffer model, state; /* a snapshot on its way in */
    char last_snapshot[512];
    void *job_bytes;
    size_t job_size;
    ShoalChildren children;
    ShoalError *err;
} Coordinator;

/* ---- peers ---- */

static Peer *peer_by_id(const Coordinator *c, uint64_t id) {
    for (int i = 0; i < c->n_peers; i++)
        if (c->peers[i]->id == id)
            return c->peers[i];
    return NULL;
}

static void add_peer(Coordinator *c, int fd) {
    int strangers = 0;
    for (int i = 0; i < c->n_peers; i++)
        strangers += !c->peers[i]->member;
    Peer *peer = strangers < STRANGERS_MAX && c->n_peers < c->peers_size
                     ? shoal_calloc(1, sizeof *peer)
                     : NULL;
    if (!peer || shoal_channel_create(fd, SHOAL_MESSAGE_LIMIT_STRANGER, &peer->channel, NULL)) {
        shoal_free(peer);
        close(fd);
        return;
    }
    peer->id = c->next_id++;
    peer->deadline_ms = shoal_clock_ms() + GREETING_MS;
    c->peers[c->n_peers++] = peer;
}

static void remove_peer(Coordinator *c, int i) {
    shoal_channel_destroy(c->peers[i]->channel);
    shoal_free(c->peers[i]);
    c->peers[i] = c->peers[--c->n_peers];
}

/* The connection is of no more use; the core hears of it when it was a member. */
static void lose_peer(Coordinator *c, Peer *peer, const char *reason) {
    if (peer->broken)
        return;
    peer->broken = true;
    if (peer->member)
        shoal_cluster_leave(c->cluster, shoal_clock_ms(), peer->id, reason);
    else
        shoal_log(SHOAL_LOG_INFO, "connection from %s: %s", shoal_channel_peer(peer->channel),
                  reason);
}

static ShoalStatus queue(Peer *peer, ShoalMessageType type, const ProtobufCMessage *message) {
    return peer->broken ? SHOAL_OK : shoal_message_queue(peer->channel, type, message, NULL);
}

/* ---- strangers become members ---- */

static ShoalStatus send_job(Coordinator *c, Peer *peer) {
    for (size_t at = 0; at < c->job_size;) {
        size_t n = c->job_size - at;
        if (n > SHOAL_MESSAGE_CHUNK_BYTES)
            n = SHOAL_MESSAGE_CHUNK_BYTES;
        Shoal__Chunk chunk = SHOAL__CHUNK__INIT;
        chunk.kind = SHOAL__CHUNK_KIND__CHUNK_JOB;
        chunk.offset = at;
        chunk.total = c->job_size;
        chunk.content.data = (unsigned char *)c->job_bytes + at;
        chunk.content.len = n;
        ShoalStatus status = queue(peer, SHOAL_MESSAGE_CHUNK, &chunk.base);
        if (status)
            return status;
        at += n;
    }
    return SHOAL_OK;
}

static void welcome(Coordinator *c, Peer *peer, const ShoalClusterInfo *info) {
    size_t members;
    shoal_cluster_members(c->cluster, &members);
    peer->member = true;
    shoal_channel_set_limit(peer->channel, SHOAL_MESSAGE_LIMIT_MEMBER);
    if ((int)members < c->n_workers) {
        Shoal__Welcome message = SHOAL__WELCOME__INIT;
        message.worker_id = (uint32_t)members;
        message.heartbeat_ms = HEARTBEAT_MS;
        message.window = WINDOW;
        if (queue(peer, SHOAL_MESSAGE_WELCOME, &message.base) || send_job(c, peer))
            lose_peer(c, peer, "out of memory");
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

static void greet(Coordinator *c, Peer *peer, const ShoalFrame *frame) {
    bool joined;
    ShoalClusterInfo info;
    ShoalError err = {0};
    if (shoal_handshake_answer(&peer->greeting, peer->channel, &c->key, frame, &joined, &info,
                               &err)) {
        lose_peer(c, peer, err.text);
        return;
    }
    if (joined)
        welcome(c, peer, &info);
}

/* ---- what members say ---- */

static void append(Coordinator *c, Peer *peer, Buffer *buffer, const Shoal__Chunk *chunk) {
    size_t n = chunk->content.len;
    if (chunk->offset == 0)
        buffer->used = 0;
    if (chunk->offset != buffer->used) {
        lose_peer(c, peer, "sent a snapshot out of order");
        return;
    }
    if (n > buffer->size - buffer->used) {
        size_t size = 2 * buffer->size + n;
        unsigned char *bigger = shoal_calloc(size, 1);
        if (!bigger) {
            lose_peer(c, peer, "no memory for its snapshot");
            return;
        }
        if (buffer->used)
            memcpy(bigger, buffer->bytes, buffer->used);
        shoal_free(buffer->bytes);
        buffer->bytes = bigger;
        buffer->size = size;
    }
    if (n)
        memcpy(buffer->bytes + buffer->used, chunk->content.data, n);
    buffer->used += n;
}

static void take_chunk(Coordinator *c, Peer *peer, const ShoalFrame *frame) {
    Shoal__Chunk *chunk = shoal__chunk__unpack(NULL, frame->size, frame->payload);
    bool asked = shoal_cluster_rank(c->cluster, peer->id) == 0;
    if (chunk && asked && chunk->kind == SHOAL__CHUNK_KIND__CHUNK_WEIGHTS)
        append(c, peer, &c->model, chunk);
    else if (chunk && asked && chunk->kind == SHOAL__CHUNK_KIND__CHUNK_STATE)
        append(c, peer, &c->state, chunk);
    else
        lose_peer(c, peer, "sent data that nobody asked for");
    if (chunk)
        shoal__chunk__free_unpacked(chunk, NULL);
}

static bool store_result(Coordinator *c, int rank, const Shoal__Report *report) {
    ShoalResult *result = &c->flights[report->round % WINDOW].results[rank];
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
    Tally *tally = &c->tallies[rank];
    tally->samples += c->flights[report->round % WINDOW].plan.count[rank];
    tally->compute_ns += (double)report->compute_ns;
    tally->communication_ns += (double)report->communication_ns;
    tally->waiting_ns += (double)report->waiting_ns;
    return true;
}

static void take_report(Coordinator *c, Peer *peer, const ShoalFrame *frame) {
    Shoal__Report *report = shoal__report__unpack(NULL, frame->size, frame->payload);
    int rank = shoal_cluster_rank(c->cluster, peer->id);
    bool in_flight = report && rank >= 0 && report->round < shoal_cluster_issued(c->cluster) &&
                     report->round >= shoal_cluster_completed(c->cluster);
    if (!in_flight || !store_result(c, rank, report))
        lose_peer(c, peer, "sent a report that makes no sense");
    else
        shoal_cluster_done(c->cluster, shoal_clock_ms(), peer->id, report->generation,
                           report->round);
    if (report)
        shoal__report__free_unpacked(report, NULL);
}

static void take_ready(Coordinator *c, Peer *peer, const ShoalFrame *frame) {
    Shoal__Ready *ready = shoal__ready__unpack(NULL, frame->size, frame->payload);
    if (!ready) {
        lose_peer(c, peer, "sent something that is no message");
        return;
    }
    shoal_cluster_ready(c->cluster, shoal_clock_ms(), peer->id, ready->generation);
    shoal__ready__free_unpacked(ready, NULL);
}

static void take_aborted(Coordinator *c, Peer *peer, const ShoalFrame *frame) {
    Shoal__Aborted *aborted = shoal__aborted__unpack(NULL, frame->size, frame->payload);
    if (!aborted) {
        lose_peer(c, peer, "sent something that is no message");
        return;
    }
    shoal_cluster_aborted(c->cluster, shoal_clock_ms(), peer->id, aborted->generation,
                          aborted->suspect_rank, aborted->text);
    shoal__aborted__free_unpacked(aborted, NULL);
}

static void take_failure(Coordinator *c, Peer *peer, const ShoalFrame *frame) {
    Shoal__Failure *failure = shoal__failure__unpack(NULL, frame->size, frame->payload);
    if (!failure) {
        lose_peer(c, peer, "sent something that is no message");
        return;
    }
    shoal_cluster_fault(c->cluster, shoal_clock_ms(), peer->id, (ShoalStatus)failure->status,
                        failure->text);
    shoal__failure__free_unpacked(failure, NULL);
}

static void take_frame(Coordinator *c, Peer *peer, const ShoalFrame *frame) {
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
        lose_peer(c, peer, "sent a message of an unknown kind");
    }
}

/* ---- what the core wants done ---- */

static void name_workers(Coordinator *c) {
    size_t n;
    const ShoalClusterMember *members = shoal_cluster_members(c->cluster, &n);
    for (size_t i = 0; i < n && (int)i < c->n_workers; i++) {
        snprintf(c->tallies[i].name, sizeof c->tallies[i].name, "%s #%lld", members[i].info.address,
                 (long long)members[i].info.pid);
        c->statuses[i].name = c->tallies[i].name;
    }
}

static void send_generation(Coordinator *c, uint64_t generation) {
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
        Peer *peer = peer_by_id(c, members[i].connection);
        Shoal__Generation message = SHOAL__GENERATION__INIT;
        message.generation = generation;
        message.rank = (uint32_t)i;
        message.n_members = n;
        message.members = pointers;
        message.ring_secret.data = c->ring_secret;
        message.ring_secret.len = sizeof c->ring_secret;
        if (peer && (!items || !pointers || queue(peer, SHOAL_MESSAGE_GENERATION, &message.base)))
            lose_peer(c, peer, "out of memory");
    }
    shoal_free(items);
    shoal_free(pointers);
}

/* The samples of one rank for one data layer. */
static ShoalStatus collect_records(Coordinator *c, const ShoalPlan *plan, int rank, int source,
                                   ProtobufCBinaryData *records, Shoal__Batch *batch,
                                   ShoalError *err) {
    ShoalStreams *streams = shoal_director_streams(c->director, plan->round.net);
    shoal__batch__init(batch);
    batch->records = records;
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

static ShoalStatus send_round(Coordinator *c, Peer *peer, const ShoalPlan *plan,
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
    if (!status && queue(peer, SHOAL_MESSAGE_ROUND, &message.base))
        status = shoal_error_memory(err, "a round", count);
    shoal_free(records);
    shoal_free(batches);
    shoal_free(pointers);
    return status;
}

static ShoalStatus issue_round(Coordinator *c, uint64_t generation, uint64_t number) {
    const ShoalPlan *plan = &c->flights[number % WINDOW].plan;
    size_t n;
    const ShoalClusterMember *members = shoal_cluster_members(c->cluster, &n);
    for (size_t r = 0; r < n; r++) {
        Peer *peer = peer_by_id(c, members[r].connection);
        ShoalStatus status =
            peer ? send_round(c, peer, plan, generation, number, (int)r, c->err) : SHOAL_OK;
        if (status)
            return status;
    }
    return SHOAL_OK;
}

static void update_statuses(Coordinator *c, const ShoalPlan *plan) {
    for (int r = 0; r < c->n_workers; r++) {
        const Tally *tally = &c->tallies[r];
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

static void reset_tallies(Coordinator *c) {
    for (int r = 0; r < c->n_workers; r++) {
        Tally *tally = &c->tallies[r];
        tally->samples = tally->compute_ns = tally->communication_ns = tally->waiting_ns = 0;
    }
}

static ShoalStatus store_snapshot(Coordinator *c, int iter) {
    if (!c->model.used || !c->state.used)
        return shoal_error_set(c->err, SHOAL_ERR_PROTOCOL,
                               "rank 0 did not send the snapshot of iteration %d", iter);
    ShoalStatus status = shoal_director_write_snapshot(
        c->director, iter, c->model.bytes, c->model.used, c->state.bytes, c->state.used, c->err);
    if (!status)
        snprintf(c->last_snapshot, sizeof c->last_snapshot, "%s_iter_%d.solverstate",
                 c->job->solver->snapshot_prefix, iter);
    c->model.used = c->state.used = 0;
    return status;
}

static ShoalStatus complete_round(Coordinator *c, uint64_t number) {
    Flight *flight = &c->flights[number % WINDOW];
    const ShoalPlan *plan = &flight->plan;
    if (plan->round.kind == SHOAL_STEP_SNAPSHOT)
        return store_snapshot(c, plan->round.iter);
    update_statuses(c, plan);
    ShoalStatus status =
        shoal_director_complete(c->director, plan, flight->results, c->statuses, c->err);
    /* Tests are not part of the split that is shown with iterations. */
    if (plan->round.kind != SHOAL_STEP_TRAIN || (plan->round.update && plan->round.display))
        reset_tallies(c);
    return status;
}

static void drop(Coordinator *c, const ShoalClusterAction *action) {
    Peer *peer = peer_by_id(c, action->connection);
    if (!peer)
        return;
    Shoal__Refuse message = SHOAL__REFUSE__INIT;
    message.reason = (char *)action->text;
    (void)queue(peer, SHOAL_MESSAGE_REFUSE, &message.base);
    if (!peer->broken)
        (void)shoal_channel_flush(peer->channel, NULL);
    peer->broken = true;
}

static ShoalStatus carry_out(Coordinator *c, const ShoalClusterAction *action) {
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
        return shoal_error_set(c->err, action->status, "%s; %s%s", action->text,
                               c->last_snapshot[0] ? "go on with --resume="
                                                   : "no snapshot was written before",
                               c->last_snapshot);
    }
}

/* Fills the window. Only while no action is waiting: a COMPLETE still needs its flight. */
static ShoalStatus plan_rounds(Coordinator *c) {
    while (!c->all_planned && shoal_cluster_room(c->cluster) > 0) {
        Flight *flight = &c->flights[shoal_cluster_added(c->cluster) % WINDOW];
        bool more;
        ShoalStatus status = shoal_director_next(c->director, &flight->plan, &more, c->err);
        if (status)
            return status;
        if (more) {
            shoal_cluster_add_round(c->cluster);
        } else {
            shoal_cluster_finish(c->cluster);
            c->all_planned = true;
        }
    }
    return SHOAL_OK;
}

static ShoalStatus advance(Coordinator *c) {
    ShoalClusterAction action;
    ShoalStatus status = SHOAL_OK;
    do {
        while (!status && shoal_cluster_next_action(c->cluster, &action))
            status = carry_out(c, &action);
        if (!status)
            status = plan_rounds(c);
    } while (!status && shoal_cluster_has_action(c->cluster));
    return status;
}

/* ---- the loop ---- */

static void read_peer(Coordinator *c, Peer *peer) {
    while (!peer->broken && c->err->status == SHOAL_OK) {
        ShoalChannelEvent event;
        ShoalFrame frame;
        ShoalError err = {0};
        if (shoal_channel_receive(peer->channel, &event, &frame, &err)) {
            lose_peer(c, peer, err.text);
            return;
        }
        if (event == SHOAL_CHANNEL_CLOSED)
            lose_peer(c, peer, "connection closed");
        if (event != SHOAL_CHANNEL_FRAME)
            return;
        take_frame(c, peer, &frame);
        (void)advance(c); /* c->err holds what went wrong */
    }
}

static void write_peer(Coordinator *c, Peer *peer) {
    ShoalError err = {0};
    if (!peer->broken && shoal_channel_wants_write(peer->channel) &&
        shoal_channel_flush(peer->channel, &err))
        lose_peer(c, peer, err.text);
}

static void accept_all(Coordinator *c) {
    for (;;) {
        int fd;
        if (shoal_socket_accept(c->listen_fd, &fd, NULL, NULL) || fd < 0)
            return;
        add_peer(c, fd);
    }
}

static int poll_timeout(const Coordinator *c) {
    int timeout = shoal_socket_timeout_ms(shoal_cluster_deadline_ms(c->cluster));
    return timeout < 0 || timeout > POLL_MS ? POLL_MS : timeout;
}

static void poll_once(Coordinator *c) {
    int n = c->n_peers;
    c->polls[0] = (struct pollfd){.fd = c->listen_fd, .events = POLLIN};
    for (int i = 0; i < n; i++) {
        short out = shoal_channel_wants_write(c->peers[i]->channel) ? POLLOUT : 0;
        c->polls[i + 1] = (struct pollfd){.fd = shoal_channel_fd(c->peers[i]->channel),
                                          .events = (short)(POLLIN | out)};
    }
    if (poll(c->polls, (nfds_t)n + 1, poll_timeout(c)) > 0) {
        for (int i = 0; i < n; i++)
            if (c->polls[i + 1].revents & (POLLIN | POLLHUP | POLLERR))
                read_peer(c, c->peers[i]);
        if (c->polls[0].revents & POLLIN)
            accept_all(c);
    }
}

static void sweep_peers(Coordinator *c) {
    uint64_t now = shoal_clock_ms();
    for (int i = c->n_peers - 1; i >= 0; i--) {
        Peer *peer = c->peers[i];
        write_peer(c, peer);
        if (!peer->member && now > peer->deadline_ms)
            lose_peer(c, peer, "did not say who it is in time");
        if (peer->broken)
            remove_peer(c, i);
    }
}

static ShoalStatus check_children(Coordinator *c) {
    char how[32];
    if (shoal_cluster_phase(c->cluster) != SHOAL_CLUSTER_WAITING)
        return SHOAL_OK; /* later the end of its connection tells, and more exactly */
    int number = shoal_children_ended(&c->children, how, sizeof how);
    return number < 0
               ? SHOAL_OK
               : shoal_error_set(c->err, SHOAL_ERR_LOST,
                                 "worker process %d ended before it joined: %s", number, how);
}

static ShoalStatus check_stop(Coordinator *c) {
    if (!c->options->stop || *c->options->stop != SHOAL_STOP_NOW)
        return SHOAL_OK;
    shoal_director_stop(c->director);
    ShoalClusterPhase phase = shoal_cluster_phase(c->cluster);
    return phase == SHOAL_CLUSTER_WAITING || phase == SHOAL_CLUSTER_FORMING
               ? shoal_error_set(c->err, SHOAL_ERR_STOPPED, "stopped on request")
               : SHOAL_OK;
}

static ShoalStatus run_loop(Coordinator *c) {
    ShoalStatus status = advance(c);
    while (!status && !c->over) {
        poll_once(c);
        shoal_cluster_tick(c->cluster, shoal_clock_ms());
        sweep_peers(c);
        status = check_stop(c);
        if (!status)
            status = check_children(c);
        if (!status)
            status = advance(c);
        if (!status)
            status = c->err->status;
    }
    return status;
}

/* Tells everybody that it is over and gives the words time to leave. */
static void say_goodbye(Coordinator *c) {
    Shoal__Stop message = SHOAL__STOP__INIT;
    message.reason = c->err->status == SHOAL_OK ? (char *)"" : c->err->text;
    for (int i = 0; i < c->n_peers; i++)
        if (c->peers[i]->member)
            (void)queue(c->peers[i], SHOAL_MESSAGE_STOP, &message.base);
    uint64_t deadline = shoal_clock_ms() + GOODBYE_MS;
    bool pending = true;
    while (pending && shoal_clock_ms() < deadline) {
        pending = false;
        for (int i = 0; i < c->n_peers; i++) {
            Peer *peer = c->peers[i];
            if (!peer->broken && shoal_channel_flush(peer->channel, NULL))
                peer->broken = true;
            pending = pending || (!peer->broken && shoal_channel_wants_write(peer->channel));
        }
        if (pending)
            shoal_clock_sleep_ms(2);
    }
}

/* ---- construction ---- */

static ShoalStatus open_port(Coordinator *c, char *join, size_t size) {
    const char *where = c->options->listen ? c->options->listen : "127.0.0.1:0";
    ShoalAddress address;
    ShoalStatus status = shoal_address_parse(where, &address, c->err);
    if (!status)
        status = shoal_socket_listen(&address, &c->listen_fd, c->err);
    if (!status)
        status = shoal_socket_local(c->listen_fd, &address, c->err);
    if (status)
        return status;
    char text[SHOAL_ADDRESS_TEXT];
    shoal_address_format(&address, text);
    snprintf(join, size, "%s", text);
    return SHOAL_OK;
}

static ShoalStatus allocate(Coordinator *c) {
    size_t n = (size_t)c->n_workers;
    c->peers_size = c->n_workers + STRANGERS_MAX + 8;
    c->peers = shoal_calloc((size_t)c->peers_size, sizeof *c->peers);
    c->polls = shoal_calloc((size_t)c->peers_size + 1, sizeof *c->polls);
    c->tallies = shoal_calloc(n, sizeof *c->tallies);
    c->statuses = shoal_calloc(n, sizeof *c->statuses);
    if (!c->peers || !c->polls || !c->tallies || !c->statuses)
        return shoal_error_memory(c->err, "the coordinator", n * sizeof *c->tallies);
    size_t capacity = shoal_director_output_capacity(c->director);
    for (int i = 0; i < WINDOW; i++) {
        Flight *flight = &c->flights[i];
        ShoalStatus status = shoal_plan_init(&flight->plan, c->n_workers, c->err);
        flight->results = shoal_calloc(n, sizeof *flight->results);
        for (size_t r = 0; !status && flight->results && r < n; r++) {
            flight->results[r].outputs = shoal_calloc(capacity, sizeof(float));
            flight->results[r].output_capacity = capacity;
            if (!flight->results[r].outputs)
                status = shoal_error_memory(c->err, "results", capacity);
        }
        if (status || !flight->results)
            return shoal_error_memory(c->err, "results", n * sizeof *flight->results);
    }
    return SHOAL_OK;
}

static ShoalStatus prepare(Coordinator *c) {
    ShoalDirectorOptions director = {.train = c->options, .n_ranks = c->n_workers};
    ShoalClusterConfig config = {.expected = (unsigned)c->n_workers,
                                 .window = WINDOW,
                                 .heartbeat_timeout_ms =
                                     c->options->heartbeat_timeout_ms > 0
                                         ? (uint64_t)c->options->heartbeat_timeout_ms
                                         : DEFAULT_HEARTBEAT_TIMEOUT,
                                 .join_timeout_ms = c->options->listen ? 0 : JOIN_MS,
                                 .form_timeout_ms = FORM_MS};
    ShoalStatus status = shoal_director_create(c->job, &director, &c->director, c->err);
    if (!status)
        status = shoal_job_pack(c->job, &c->job_bytes, &c->job_size, c->err);
    if (!status)
        status = shoal_cluster_create(&config, &c->cluster, c->err);
    return status ? status : allocate(c);
}

static void announce(const Coordinator *c, const char *join, const char *token) {
    char text[512];
    snprintf(text, sizeof text,
             "Waiting for %d worker%s at %s. On each machine:\n"
             "    SHOAL_TOKEN=%s shoal worker --join=%s",
             c->n_workers, c->n_workers == 1 ? "" : "s", join, c->options->token ? "..." : token,
             join);
    ShoalEvent event = {.kind = SHOAL_EVENT_WAITING, .text = text};
    shoal_director_emit(c->director, &event);
}

static ShoalStatus start_workers(Coordinator *c, const char *join, const char *token) {
    if (c->options->listen) {
        announce(c, join, token);
        return SHOAL_OK;
    }
    int share = shoal_cpu_cores() / c->n_workers;
    int threads = c->options->threads > 0 ? c->options->threads : share > 0 ? share : 1;
    return shoal_children_start(c->options->program, c->n_workers, join, token, threads,
                                c->options->cpu, &c->children, c->err);
}

static ShoalStatus run(Coordinator *c) {
    char join[SHOAL_ADDRESS_TEXT], made[SHOAL_AUTH_TOKEN_TEXT];
    const char *token = c->options->token;
    if (!token) {
        shoal_auth_token_generate(made);
        token = made;
    }
    shoal_auth_random(c->ring_secret, sizeof c->ring_secret);
    ShoalCpuLevel level; /* a wrong --cpu is told here, not by N workers */
    ShoalStatus status = shoal_cpu_level_choose(c->options->cpu, &level, c->err);
    if (!status)
        status = shoal_auth_token_key(token, &c->key, c->err);
    if (!status)
        status = prepare(c);
    if (!status)
        status = open_port(c, join, sizeof join);
    if (!status)
        status = start_workers(c, join, token);
    if (!status) {
        status = run_loop(c);
        say_goodbye(c);
    }
    shoal_children_finish(&c->children, status ? 500 : GOODBYE_MS);
    if (!status) {
        shoal_director_end(c->director);
        if (shoal_director_stopped(c->director))
            status = shoal_error_set(c->err, SHOAL_ERR_STOPPED, "stopped on request");
    }
    return status;
}

static void close_coordinator(Coordinator *c) {
    while (c->n_peers)
        remove_peer(c, 0);
    if (c->listen_fd >= 0)
        close(c->listen_fd);
    for (int i = 0; i < WINDOW; i++) {
        for (int r = 0; c->flights[i].results && r < c->n_workers; r++)
            shoal_replica_result_close(&c->flights[i].results[r]);
        shoal_free(c->flights[i].results);
        shoal_plan_close(&c->flights[i].plan);
    }
    shoal_cluster_destroy(c->cluster);
    shoal_director_destroy(c->director);
    shoal_free(c->peers);
    shoal_free(c->polls);
    shoal_free(c->tallies);
    shoal_free(c->statuses);
    shoal_free(c->model.bytes);
    shoal_free(c->state.bytes);
    shoal_free(c->job_bytes);
    shoal_auth_forget(&c->key, sizeof c->key);
    shoal_auth_forget(c->ring_secret, sizeof c->ring_secret);
}

ShoalStatus shoal_train_coordinator(ShoalJob *job, const ShoalTrainOptions *options,
                                    ShoalError *err) {
    Coordinator c = {.job = job,
                     .options = options,
                     .listen_fd = -1,
                     .n_workers = options->workers > 0 ? options->workers : 1,
                     .err = err};
    ShoalStatus status = run(&c);
    close_coordinator(&c);
    return status;
}
