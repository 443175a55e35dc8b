/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/memory.h"
#include "base/stop.h"
#include "base/system.h"
#include "cpu/clusters.h"
#include "device/charge.h"
#include "discovery/discovery.h"
#include "shoal/shoal.h"
#include "train/director.h"
#include "train/engine.h"
#include "train/link.h"

enum {
    DEFAULT_JOIN_MS = 10000,
    DEFAULT_REJOIN_MS = 600000,
    DEFAULT_CACHE = 256 << 20,
    HANDSHAKE_MS = 10000,
    RING_MS = 5000, /* less than the coordinator waits: it is told who is missing */
    RETRY_MS = 200,
    RESERVE_PART = 16, /* of the machine's memory that is left to others: Android ends programs
                          where little is free */
    CACHE_PART = 8,    /* of the free memory for samples, unless the user says how much */
    LOOK_MS = 1000,    /* how often one that rests looks whether it may go on */
    DISCOVER_MS = 3000,
    FOUND_MAX = 8,
    EACH_MS = 2500 /* for each that was found: some may not be what they say */
};

/* What outlives a connection: whoever loses the coordinator comes back with all of it. */
typedef struct Worker {
    const ShoalWorkerOptions *options;
    ShoalReplicaOptions engine;
    char name[64];
    ShoalCache *cache;
    ShoalRing *ring;
    char ring_host[SHOAL_ADDRESS_TEXT];
    uint16_t ring_port;
    ShoalJob job;
    unsigned char job_id[SHOAL_HANDSHAKE_ID_BYTES];
    ShoalReplica *replica; /* NULL: no job yet */
    ShoalSlot **slots;
    int n_slots, capacity;
    ShoalResult result;
    uint64_t generation; /* the highest heard of */
    uint64_t session;    /* of the run that the replica's state is of */
    bool joined_once;
    ShoalCare care;       /* the link's thread uses it while there is a link */
    ShoalAddress address; /* of the coordinator, in the last attempt to join it */

    /* of the present connection */
    ShoalLink *link;
    ShoalJoined joined;
    uint64_t idle_since_ns;
} Worker;

static void note(const Worker *worker, const char *text) {
    ShoalEvent event = {.kind = SHOAL_EVENT_NOTE, .text = text};
    if (worker->options->on_event)
        worker->options->on_event(worker->options->context, &event);
}

static bool is_stopped(const Worker *worker) {
    return shoal_stop_asked(worker->options->stop) == SHOAL_STOP_NOW;
}

/* ---- replica ---- */

static void drop_replica(Worker *worker) {
    for (int i = 0; worker->slots && i < worker->n_slots; i++)
        shoal_slot_destroy(worker->slots[i]);
    shoal_free(worker->slots);
    worker->slots = NULL;
    worker->n_slots = 0;
    shoal_replica_result_close(&worker->result);
    shoal_replica_destroy(worker->replica);
    worker->replica = NULL;
    shoal_job_close(&worker->job);
}

/* Room for twice an equal share, so that a fast worker can take over from a slow one, or for as
 * much as fits into memory: what is more comes in several rounds. */
static ShoalStatus create_replica(Worker *worker, ShoalError *err) {
    ShoalReplicaOptions options = worker->engine;
    const ShoalJob *job = &worker->job;
    int batch;
    options.slots = worker->n_slots;
    options.pace = worker->options->pace;
    options.residual = worker->joined.wire_format != SHOAL_WIRE_FP32;
    ShoalStatus status = shoal_net_model_batch(&job->nets[0].model, CAFFE__PHASE__TRAIN,
                                               job->nets[0].state, &batch, err);
    if (status)
        return status;
    int share = (batch + job->workers - 1) / job->workers;
    int wanted = job->unit ? job->unit : 2 * share, fitting;
    int capacity = wanted < batch ? wanted : batch;
    unsigned long long total, available;
    shoal_memory_system(&total, &available);
    options.reserve = total / RESERVE_PART;
    options.fitting = &fitting;
    for (;;) {
        ShoalError attempt = {0};
        options.capacity = capacity;
        fitting = 0;
        status = shoal_replica_create(job, &options, &worker->replica, &attempt);
        if (status != SHOAL_ERR_MEMORY || capacity == 1 || job->unit) {
            worker->capacity = capacity;
            return status ? shoal_error_set(err, status, "%s", attempt.text) : SHOAL_OK;
        }
        capacity = fitting > 0 && fitting < capacity ? fitting : capacity / 2;
    }
}

static ShoalStatus create_slots(Worker *worker, ShoalError *err) {
    worker->slots = shoal_calloc((size_t)worker->n_slots, sizeof(ShoalSlot *));
    for (int i = 0; worker->slots && i < worker->n_slots; i++) {
        worker->slots[i] = shoal_slot_create(worker->replica);
        if (!worker->slots[i])
            return shoal_error_set(err, SHOAL_ERR_MEMORY,
                                   "out of memory: no room for the samples of %d batches; use a "
                                   "smaller batch_size or more workers",
                                   worker->n_slots);
    }
    return worker->slots ? SHOAL_OK : shoal_error_memory(err, "the samples", sizeof(ShoalSlot *));
}

static ShoalStatus announce_replica(Worker *worker, ShoalError *err) {
    uint64_t room =
        worker->cache ? shoal_cache_limit(worker->cache) - shoal_cache_used(worker->cache) : 0;
    shoal_link_attach(worker->link, worker->replica, &worker->job, worker->slots);
    return shoal_link_post_prepared(worker->link, worker->capacity, room, err);
}

/* Samples of other trainings make room. The link does not use the cache before the replica is
 * announced. */
static void forget_other_datasets(Worker *worker) {
    ShoalFingerprint found;
    size_t n = 0;
    while (worker->cache && shoal_cache_dataset(worker->cache, n, &found))
        n++;
    while (n-- > 0 && shoal_cache_dataset(worker->cache, n, &found)) {
        bool wanted = false;
        for (int d = 0; d < worker->job.n_datasets; d++)
            wanted = wanted || !memcmp(&worker->job.datasets[d].fingerprint, &found, sizeof found);
        if (!wanted)
            shoal_cache_forget(worker->cache, &found);
    }
}

static ShoalStatus build(Worker *worker, const ShoalOrder *order, ShoalError *err) {
    if (worker->replica)
        return shoal_error_set(err, SHOAL_ERR_PROTOCOL, "the coordinator sent a second job");
    ShoalStatus status = shoal_job_unpack(order->bytes, order->size, &worker->job, err);
    if (status)
        return status;
    worker->n_slots = shoal_link_slots(worker->link);
    memcpy(worker->job_id, worker->joined.job_id, sizeof worker->job_id);
    status = create_replica(worker, err);
    if (!status)
        status = shoal_replica_result_init(worker->replica, &worker->result, err);
    if (!status)
        status = create_slots(worker, err);
    if (!status)
        forget_other_datasets(worker);
    if (!status)
        status = announce_replica(worker, err);
    if (status)
        drop_replica(worker);
    return status;
}

/* ---- joining ---- */

/* The ring listens at the address that the coordinator sees, on any free port. */
static ShoalStatus open_ring(Worker *worker, int fd, ShoalError *err) {
    ShoalAddress local, any;
    char host[SHOAL_ADDRESS_TEXT], where[SHOAL_ADDRESS_TEXT];
    ShoalStatus status = shoal_socket_local(fd, &local, err);
    if (status)
        return status;
    shoal_address_format_host(&local, host);
    if (worker->ring && !strcmp(host, worker->ring_host))
        return SHOAL_OK;
    shoal_ring_destroy(worker->ring);
    worker->ring = NULL;
    snprintf(worker->ring_host, sizeof worker->ring_host, "%s", host);
    status = shoal_address_from_host(host, 0, &any, err);
    if (status)
        return status;
    shoal_address_format(&any, where);
    return shoal_ring_create(where, &worker->ring, &worker->ring_port, err);
}

static void describe(const Worker *worker, ShoalJoinRequest *request) {
    *request = (ShoalJoinRequest){.ring_port = worker->ring_port,
                                  .name = worker->name,
                                  .cores = shoal_cpu_fast_cores(),
                                  .threads = worker->engine.threads,
                                  .cpu = shoal_cpu_level_name(worker->engine.level),
                                  .generation = worker->generation};
    if (worker->cache) {
        request->cache_id = shoal_cache_id(worker->cache);
        request->cache_bytes = shoal_cache_limit(worker->cache) - shoal_cache_used(worker->cache);
    }
    if (!worker->replica)
        return;
    ShoalClusterVersion version = shoal_replica_version(worker->replica);
    request->job_id = worker->job_id;
    request->seed = worker->job.seed;
    request->session = worker->session;
    request->held = version.held;
    request->updates = version.updates;
    request->version_generation = version.generation;
    request->current_step = (unsigned)shoal_replica_current_step(worker->replica);
}

static ShoalStatus greet(Worker *worker, ShoalChannel *channel, uint64_t deadline,
                         ShoalError *err) {
    ShoalAuthKey key;
    ShoalJoinRequest request;
    ShoalStatus status = shoal_auth_token_key(worker->options->token, &key, err);
    if (!status)
        status = open_ring(worker, shoal_channel_fd(channel), err);
    if (status)
        return status;
    describe(worker, &request);
    status = shoal_handshake_join(channel, &key, &request, deadline, &worker->joined, err);
    shoal_auth_forget(&key, sizeof key);
    if (worker->joined.forget && worker->replica)
        shoal_replica_forget(worker->replica);
    return status;
}

static ShoalStatus start_link(Worker *worker, ShoalChannel *channel, ShoalError *err) {
    const ShoalLinkOptions options = {.channel = channel,
                                      .joined = &worker->joined,
                                      .stop = worker->options->stop,
                                      .ring = shoal_ring_collective(worker->ring),
                                      .cache = worker->cache,
                                      .care = &worker->care,
                                      .charge_limit = worker->options->care.charge_limit};
    ShoalStatus status = shoal_link_create(&options, &worker->link, err);
    shoal_auth_forget(&worker->joined.key, sizeof worker->joined.key);
    if (status)
        return status;
    bool fits = worker->replica && worker->joined.has_job &&
                worker->n_slots == shoal_link_slots(worker->link);
    if (worker->replica && !fits)
        drop_replica(worker);
    if (fits && !worker->joined.keep_state)
        shoal_replica_forget(worker->replica);
    worker->session = worker->joined.session;
    return fits ? announce_replica(worker, err) : SHOAL_OK;
}

/* The handshake has more time than the connection: where somebody answers, it is worth waiting. */
static ShoalStatus join_at(Worker *worker, uint64_t deadline, uint64_t handshake_ms,
                           ShoalError *err) {
    ShoalChannel *channel;
    int fd;
    ShoalStatus status = shoal_socket_connect(&worker->address, -1, deadline, &fd, err);
    if (status)
        return status;
    status = shoal_channel_create(fd, SHOAL_MESSAGE_LIMIT_MEMBER, &channel, err);
    if (status) {
        close(fd);
        return status;
    }
    status = greet(worker, channel, shoal_clock_ms() + handshake_ms, err);
    if (!status)
        status = start_link(worker, channel, err);
    if (status && !worker->link)
        shoal_channel_destroy(channel);
    return status;
}

/* Looks for coordinators and tries each that answers: anyone may answer, but only one that knows
 * the token will do. So no failure here is final before the deadline. */
static ShoalStatus join_found(Worker *worker, uint64_t deadline, ShoalError *err) {
    ShoalAddress found[FOUND_MAX];
    int n = 0;
    uint64_t until = shoal_clock_ms() + DISCOVER_MS;
    ShoalStatus status = shoal_discover(until < deadline ? until : deadline, worker->options->stop,
                                        found, FOUND_MAX, &n, err);
    if (!status && n == 0)
        return shoal_error_set(err, SHOAL_ERR_NETWORK,
                               "no coordinator answers on this network; give its address with "
                               "--join=ADDR:PORT");
    for (int i = 0; i < n; i++) {
        *err = (ShoalError){0};
        worker->address = found[i];
        uint64_t each = shoal_clock_ms() + EACH_MS;
        if (!join_at(worker, each < deadline ? each : deadline, EACH_MS, err))
            return SHOAL_OK;
        err->status = SHOAL_ERR_LOST;
        status = SHOAL_ERR_LOST;
    }
    return status;
}

/* One attempt. */
static ShoalStatus join(Worker *worker, uint64_t deadline, ShoalError *err) {
    if (!worker->options->join)
        return join_found(worker, deadline, err);
    ShoalStatus status = shoal_address_parse(worker->options->join, &worker->address, err);
    return status ? status : join_at(worker, deadline, HANDSHAKE_MS, err);
}

static bool may_try_again(ShoalStatus status) {
    return status == SHOAL_ERR_NETWORK || status == SHOAL_ERR_LOST;
}

/* The coordinator may come up a moment later than its workers, or come back: tries until the
 * deadline. */
static ShoalStatus join_patiently(Worker *worker, uint64_t patience_ms, ShoalError *err) {
    uint64_t deadline = shoal_clock_ms() + patience_ms;
    for (unsigned pause = RETRY_MS;; pause = pause < 5 * RETRY_MS ? pause + RETRY_MS : pause) {
        ShoalError attempt = {0};
        ShoalStatus status = join(worker, deadline, &attempt);
        if (!status) {
            char text[200], where[SHOAL_ADDRESS_TEXT];
            shoal_address_format(&worker->address, where);
            snprintf(text, sizeof text, "Joined the coordinator at %s as worker %u%s.",
                     worker->options->join ? worker->options->join : where,
                     worker->joined.worker_id, worker->joined_once ? ", again" : "");
            worker->joined_once = true;
            note(worker, text);
            return SHOAL_OK;
        }
        if (is_stopped(worker))
            return shoal_error_set(err, SHOAL_ERR_STOPPED, "stopped on request");
        if (!may_try_again(status))
            return shoal_error_set(err, status, "%s", attempt.text);
        if (shoal_clock_ms() + pause >= deadline)
            return shoal_error_set(
                err, status, "%s%s", attempt.text,
                status == SHOAL_ERR_NETWORK ? "; is the coordinator running there?" : "");
        shoal_clock_sleep_ms(pause);
    }
}

/* ---- orders ---- */

static ShoalStatus connect_ring(Worker *worker, const ShoalOrder *order, ShoalError *err) {
    if (!worker->replica)
        return shoal_error_set(err, SHOAL_ERR_PROTOCOL, "the coordinator sent no job");
    shoal_replica_cancel(worker->replica, false);
    shoal_replica_note_progress(worker->replica); /* so that it is not taken for stuck */
    ShoalStatus status =
        shoal_ring_connect(worker->ring, &order->config, shoal_clock_ms() + RING_MS, err);
    if (!status)
        status = shoal_link_post_ready(worker->link, order->generation,
                                       shoal_replica_version(worker->replica),
                                       shoal_replica_current_step(worker->replica), err);
    worker->idle_since_ns = shoal_clock_ns();
    return status;
}

static ShoalStatus sow(Worker *worker, const ShoalOrder *order, ShoalError *err) {
    ShoalSeed seed;
    ShoalStatus status = shoal_seed_unpack(order->bytes, order->size, &seed, err);
    if (status)
        return status;
    status = shoal_replica_seed(worker->replica, seed.weights, seed.n_weights,
                                seed.state.bytes ? &seed.state : NULL, order->version,
                                order->current_step, err);
    shoal_seed_close(&seed);
    return status;
}

static ShoalStatus begin(Worker *worker, const ShoalOrder *order, ShoalError *err) {
    ShoalStatus status = order->bytes ? sow(worker, order, err) : SHOAL_OK;
    return status ? status
                  : shoal_replica_begin(worker->replica, shoal_ring_collective(worker->ring),
                                        order->needy, order->version, order->current_step, err);
}

/* One of the two files on its way to the coordinator. */
typedef struct Sending {
    Worker *worker;
    Shoal__ChunkKind kind;
    uint64_t round;
    size_t sent;
} Sending;

static ShoalStatus send_piece(void *context, const void *bytes, size_t size, size_t total,
                              ShoalError *err) {
    Sending *sending = context;
    Shoal__Chunk chunk = SHOAL__CHUNK__INIT;
    chunk.kind = sending->kind;
    chunk.id = sending->round;
    chunk.offset = sending->sent;
    chunk.total = total;
    chunk.content.data = (uint8_t *)bytes;
    chunk.content.len = size;
    sending->sent += size;
    shoal_replica_note_progress(sending->worker->replica);
    return shoal_link_post_chunk(sending->worker->link, &chunk, err);
}

static ShoalStatus send_snapshot(Worker *worker, const ShoalOrder *order, const ShoalRound *round,
                                 ShoalError *err) {
    if (shoal_ring_collective(worker->ring)->rank != 0)
        return SHOAL_OK;
    char name[4096];
    ShoalStatus status =
        shoal_director_model_name(&worker->job, round->iter, name, sizeof name, err);
    if (status)
        return status;
    Sending model = {worker, SHOAL__CHUNK_KIND__CHUNK_WEIGHTS, order->round, 0};
    Sending state = {worker, SHOAL__CHUNK_KIND__CHUNK_STATE, order->round, 0};
    return shoal_replica_snapshot(worker->replica, round->iter, round->current_step, name,
                                  send_piece, &model, &state, err);
}

static ShoalStatus report(Worker *worker, const ShoalOrder *order, uint64_t waiting_ns,
                          ShoalError *err) {
    ShoalResult *result = &worker->result;
    Shoal__Report message = SHOAL__REPORT__INIT;
    message.generation = order->generation;
    message.round = order->round;
    message.loss = result->loss;
    message.n_outputs = result->output_count;
    message.outputs = result->outputs;
    message.compute_ns = result->compute_ns;
    message.communication_ns = result->communication_ns;
    message.exposed_ns = result->exposed_ns;
    message.bytes_sent = result->bytes_sent;
    message.waiting_ns = waiting_ns;
    message.clipped_norm = result->clipped_norm;
    if (result->hashed) {
        message.weights_hash.data = result->hash;
        message.weights_hash.len = sizeof result->hash;
    }
    return shoal_link_post_report(worker->link, &message, err);
}

static ShoalStatus run_round(Worker *worker, const ShoalOrder *order, ShoalError *err) {
    uint64_t waiting_ns = shoal_clock_ns() - worker->idle_since_ns;
    const ShoalRound *round = shoal_slot_round(order->slot);
    ShoalStatus status;
    if (round->kind == SHOAL_STEP_SNAPSHOT) {
        worker->result.output_count = 0;
        worker->result.hashed = false;
        status = send_snapshot(worker, order, round, err);
    } else {
        status =
            shoal_replica_run(worker->replica, order->slot, shoal_ring_collective(worker->ring),
                              order->generation, &worker->result, err);
    }
    if (!status)
        status = report(worker, order, waiting_ns, err);
    worker->idle_since_ns = shoal_clock_ns();
    return status;
}

/* Given up because the membership changed, or a ring that broke, which is the coordinator's to
 * judge. Anything else ends this worker. Bytes that arrived damaged are a broken ring, too. */
static bool ring_broke(Worker *worker, const ShoalOrder *order, const ShoalError *err) {
    int suspect = shoal_ring_suspect(worker->ring);
    shoal_ring_disconnect(worker->ring); /* so that nothing touches the replica any more */
    if (worker->replica)
        shoal_replica_rollback(worker->replica);
    if (order->kind == SHOAL_ORDER_JOB)
        return false;
    if (!shoal_link_is_current(worker->link, order))
        return true;
    if (err->status != SHOAL_ERR_LOST && err->status != SHOAL_ERR_NETWORK &&
        err->status != SHOAL_ERR_STOPPED && err->status != SHOAL_ERR_PROTOCOL)
        return false;
    shoal_link_post_aborted(worker->link, order->generation, suspect, err->text);
    return true;
}

static ShoalStatus follow(Worker *worker, const ShoalOrder *order, ShoalError *err) {
    switch (order->kind) {
    case SHOAL_ORDER_JOB:
        return build(worker, order, err);
    case SHOAL_ORDER_CONNECT:
        return connect_ring(worker, order, err);
    case SHOAL_ORDER_START:
        return begin(worker, order, err);
    default:
        return run_round(worker, order, err);
    }
}

static ShoalStatus follow_orders(Worker *worker, ShoalError *err) {
    for (;;) {
        ShoalOrder *order;
        bool more;
        ShoalStatus status = shoal_link_next(worker->link, &order, &more, err);
        if (status || !more)
            return status;
        ShoalError failure = {0};
        if (shoal_link_is_current(worker->link, order))
            status = follow(worker, order, &failure);
        bool survives = !status || ring_broke(worker, order, &failure);
        shoal_link_finish(worker->link, order);
        if (!survives) {
            shoal_link_post_failure(worker->link, &failure);
            return shoal_error_set(err, failure.status, "%s", failure.text);
        }
    }
}

/* ---- resting ---- */

/* Waits while the device should not compute. SHOAL_ERR_STOPPED. */
static ShoalStatus rest(Worker *worker, ShoalError *err) {
    bool told = false;
    for (;;) {
        ShoalVitals vitals;
        char text[240];
        shoal_vitals_read(shoal_system_root(), &vitals);
        const ShoalCareAdvice *advice =
            shoal_care_observe(&worker->care, shoal_clock_ms(), &vitals);
        if (advice->rest && !told) {
            snprintf(text, sizeof text, "Resting: %s.", advice->text);
            note(worker, text);
        } else if (!advice->rest) {
            if (told)
                note(worker, "Rested; going on.");
            return SHOAL_OK;
        }
        told = true;
        for (int ms = 0; ms < LOOK_MS; ms += LOOK_MS / 10) {
            if (is_stopped(worker))
                return shoal_error_set(err, SHOAL_ERR_STOPPED, "stopped on request");
            shoal_clock_sleep_ms(LOOK_MS / 10);
        }
    }
}

/* Workers that a coordinator has started on its own machine are its user's affair. Elsewhere than
 * on ARM, processors are made to run hotter than a phone's, and look after themselves. */
static void init_care(Worker *worker) {
    const ShoalCareSettings *asked = &worker->options->care;
#ifdef __aarch64__
    const float unknown = 80;
#else
    const float unknown = -1;
#endif
    ShoalCareOptions options = {.max_temp = asked->max_temp,
                                .unknown_ceiling = unknown,
                                .max_battery_temp = asked->max_battery_temp,
                                .min_battery = asked->min_battery,
                                .rest_used = asked->rest_used,
                                .rest_unplugged = asked->rest_unplugged};
    if (getenv("SHOAL_OWN_WORKER"))
        options = (ShoalCareOptions){.max_temp = -1, .max_battery_temp = -1, .min_battery = -1};
    shoal_care_init(&worker->care, &options);
}

static void limit_charge(Worker *worker, ShoalCharge *charge) {
    int limit = worker->options->care.charge_limit;
    char text[400];
    if (limit <= 0)
        return;
    shoal_charge_find(shoal_system_root(), charge);
    if (shoal_charge_set(charge, limit))
        snprintf(text, sizeof text, "The battery is charged to %d %% at most (%s).", charge->limit,
                 charge->path);
    else if (!charge->path[0])
        snprintf(text, sizeof text,
                 "The battery's charge cannot be limited from here (the system shows no file for "
                 "it): use the phone's own setting, or a timer at its charger.");
    else
        snprintf(text, sizeof text,
                 "The battery's charge cannot be limited from here (%s: %s): use the phone's own "
                 "setting, or a timer at its charger.",
                 charge->path, strerror(errno));
    note(worker, text);
}

/* ---- from the first connection to the last ---- */

/* From one connection to its end. *again: it broke, and coming back may help. */
static ShoalStatus serve(Worker *worker, bool *again, ShoalError *err) {
    ShoalStatus status = follow_orders(worker, err);
    uint64_t generation = shoal_link_generation(worker->link);
    if (generation > worker->generation)
        worker->generation = generation;
    *again = status == SHOAL_ERR_LOST && !shoal_link_is_final(worker->link) && !is_stopped(worker);
    bool rests = shoal_link_rests(worker->link);
    if (shoal_link_forgets(worker->link) && worker->replica)
        shoal_replica_forget(worker->replica);
    shoal_link_destroy(worker->link);
    worker->link = NULL;
    shoal_ring_disconnect(worker->ring);
    if (worker->replica)
        shoal_replica_rollback(worker->replica);
    *again = *again && (rests || worker->options->rejoin_timeout_ms >= 0);
    if (*again && !rests) {
        char text[sizeof err->text + 32];
        snprintf(text, sizeof text, "%s; trying to come back", err->text);
        note(worker, text);
    }
    return status;
}

static ShoalStatus work(Worker *worker, ShoalError *err) {
    const ShoalWorkerOptions *options = worker->options;
    int patience = options->join_timeout_ms > 0 ? options->join_timeout_ms : DEFAULT_JOIN_MS;
    for (;;) {
        ShoalError lost = {0};
        bool again;
        ShoalStatus status = rest(worker, err);
        if (!status)
            status = join_patiently(worker, (uint64_t)patience, err);
        if (status)
            return status;
        status = serve(worker, &again, &lost);
        if (!again)
            return status ? shoal_error_set(err, status, "%s", lost.text) : SHOAL_OK;
        patience = options->rejoin_timeout_ms > 0 ? options->rejoin_timeout_ms : DEFAULT_REJOIN_MS;
    }
}

static ShoalStatus check_options(const ShoalWorkerOptions *options, ShoalError *err) {
    const ShoalCareSettings *care = &options->care;
    if ((!options->join && !options->discover) || !options->token)
        return shoal_error_set(err, SHOAL_ERR_ARGUMENT,
                               "give the coordinator's address and the cluster's token");
    if (options->join && options->discover)
        return shoal_error_set(err, SHOAL_ERR_ARGUMENT,
                               "give the coordinator's address or discover, not both");
    if (care->min_battery > 100 || care->charge_limit < 0 || care->charge_limit > 100)
        return shoal_error_set(err, SHOAL_ERR_ARGUMENT,
                               "a battery's charge goes from 0 to 100 percent");
    if (options->engine.threads < 0 || options->engine.threads > 1024)
        return shoal_error_set(err, SHOAL_ERR_ARGUMENT, "threads is %d; 1 to 1024 work",
                               options->engine.threads);
    return SHOAL_OK;
}

static ShoalStatus open_cache(Worker *worker, ShoalError *err) {
    const ShoalWorkerOptions *options = worker->options;
    if (options->cache_bytes < 0)
        return SHOAL_OK;
    unsigned long long total, available;
    shoal_memory_system(&total, &available);
    uint64_t limit = DEFAULT_CACHE;
    if (options->cache_bytes > 0)
        limit = (uint64_t)options->cache_bytes;
    else if (!options->cache_dir && available && available / CACHE_PART < limit)
        limit = available / CACHE_PART;
    return shoal_cache_open(options->cache_dir, limit, &worker->cache, err);
}

ShoalStatus shoal_worker(const ShoalWorkerOptions *options, ShoalError *error) {
    Worker worker = {.options = options};
    ShoalStatus status = check_options(options, error);
    if (!status)
        status = shoal_auth_init(error);
    if (!status)
        status = shoal_engine_choose(&options->engine, 0, &worker.engine, error);
    if (!status)
        status = open_cache(&worker, error);
    if (options->name)
        snprintf(worker.name, sizeof worker.name, "%s", options->name);
    else if (gethostname(worker.name, sizeof worker.name - 1))
        worker.name[0] = '\0';
    init_care(&worker);
    ShoalCharge charge = {0};
    if (!status) {
        limit_charge(&worker, &charge);
        status = work(&worker, error);
        shoal_charge_restore(&charge);
    }
    if (!status)
        note(&worker, "The training is complete.");
    drop_replica(&worker);
    shoal_ring_destroy(worker.ring);
    shoal_cache_close(worker.cache);
    return status;
}
