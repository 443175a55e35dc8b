/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/memory.h"
#include "cpu/clusters.h"
#include "shoal/shoal.h"
#include "train/director.h"
#include "train/engine.h"
#include "train/link.h"

enum { DEFAULT_JOIN_MS = 10000, RING_MS = 60000, RETRY_MS = 200 };

typedef struct Worker {
    const ShoalWorkerOptions *options;
    ShoalReplicaOptions engine;
    ShoalLink *link;
    ShoalRing *ring;
    ShoalJob job;
    ShoalReplica *replica;
    ShoalResult result;
    uint64_t idle_since_ns;
} Worker;

static void note(const Worker *worker, const char *text) {
    ShoalEvent event = {.kind = SHOAL_EVENT_NOTE, .text = text};
    if (worker->options->on_event)
        worker->options->on_event(worker->options->context, &event);
}

/* ---- joining ---- */

/* The coordinator may come up a moment later than its workers: tries until the deadline. */
static ShoalStatus connect_patiently(const ShoalAddress *address, uint64_t deadline, int *fd,
                                     ShoalError *err) {
    for (;;) {
        ShoalError attempt = {0};
        if (!shoal_socket_connect(address, -1, deadline, fd, &attempt))
            return SHOAL_OK;
        if (shoal_clock_ms() + RETRY_MS >= deadline)
            return shoal_error_set(err, attempt.status, "%s; is the coordinator running there?",
                                   attempt.text);
        shoal_clock_sleep_ms(RETRY_MS);
    }
}

/* The ring listens at the address that the coordinator sees, on any free port. */
static ShoalStatus open_ring(Worker *worker, int fd, uint16_t *port, ShoalError *err) {
    ShoalAddress local, any;
    char host[SHOAL_ADDRESS_TEXT], where[SHOAL_ADDRESS_TEXT];
    ShoalStatus status = shoal_socket_local(fd, &local, err);
    if (status)
        return status;
    shoal_address_format_host(&local, host);
    status = shoal_address_from_host(host, 0, &any, err);
    if (status)
        return status;
    shoal_address_format(&any, where);
    return shoal_ring_create(where, &worker->ring, port, err);
}

static ShoalStatus greet(Worker *worker, ShoalChannel *channel, uint64_t deadline,
                         ShoalJoined *joined, ShoalError *err) {
    char name[64] = "";
    ShoalAuthKey key;
    uint16_t port;
    ShoalStatus status = shoal_auth_token_key(worker->options->token, &key, err);
    if (!status)
        status = open_ring(worker, shoal_channel_fd(channel), &port, err);
    if (status)
        return status;
    if (gethostname(name, sizeof name - 1))
        name[0] = '\0';
    ShoalJoinRequest request = {.ring_port = port,
                                .name = name,
                                .cores = shoal_cpu_fast_cores(),
                                .threads = worker->engine.threads,
                                .cpu = shoal_cpu_level_name(worker->engine.level)};
    status = shoal_handshake_join(channel, &key, &request, deadline, joined, err);
    shoal_auth_forget(&key, sizeof key);
    return status;
}

static ShoalStatus join(Worker *worker, ShoalError *err) {
    const ShoalWorkerOptions *options = worker->options;
    uint64_t deadline =
        shoal_clock_ms() +
        (uint64_t)(options->join_timeout_ms > 0 ? options->join_timeout_ms : DEFAULT_JOIN_MS);
    ShoalAddress address;
    ShoalChannel *channel;
    ShoalJoined joined;
    int fd;
    ShoalStatus status = shoal_address_parse(options->join, &address, err);
    if (!status)
        status = connect_patiently(&address, deadline, &fd, err);
    if (status)
        return status;
    status = shoal_channel_create(fd, SHOAL_MESSAGE_LIMIT_MEMBER, &channel, err);
    if (status) {
        close(fd);
        return status;
    }
    status = greet(worker, channel, deadline, &joined, err);
    if (!status)
        status = shoal_link_create(channel, &joined, options->stop, &worker->link, err);
    shoal_auth_forget(&joined.key, sizeof joined.key);
    if (status) {
        shoal_channel_destroy(channel);
        return status;
    }
    char text[160];
    snprintf(text, sizeof text, "Joined the coordinator at %s as worker %u.", options->join,
             joined.worker_id);
    note(worker, text);
    return SHOAL_OK;
}

/* ---- orders ---- */

static ShoalStatus build(Worker *worker, const ShoalOrder *order, ShoalError *err) {
    if (worker->replica)
        return shoal_error_set(err, SHOAL_ERR_PROTOCOL, "the coordinator sent a second job");
    ShoalStatus status = shoal_job_unpack(order->bytes, order->size, &worker->job, err);
    if (status)
        return status;
    /* Room for the largest equal share. */
    ShoalReplicaOptions options = worker->engine;
    options.slots = shoal_link_slots(worker->link);
    status = shoal_net_model_batch(&worker->job.nets[0].model, CAFFE__PHASE__TRAIN,
                                   worker->job.nets[0].state, &options.capacity, err);
    options.capacity = (options.capacity + worker->job.workers - 1) / worker->job.workers;
    if (!status)
        status = shoal_replica_create(&worker->job, &options, &worker->replica, err);
    if (!status)
        status = shoal_replica_result_init(worker->replica, &worker->result, err);
    return status ? status : shoal_link_attach(worker->link, worker->replica, err);
}

static ShoalStatus connect_ring(Worker *worker, const ShoalOrder *order, ShoalError *err) {
    if (!worker->replica)
        return shoal_error_set(err, SHOAL_ERR_PROTOCOL, "the coordinator sent no job");
    ShoalStatus status =
        shoal_ring_connect(worker->ring, order->config, shoal_clock_ms() + RING_MS, err);
    if (!status)
        status = shoal_replica_sync(worker->replica, shoal_ring_collective(worker->ring), err);
    if (!status)
        status = shoal_link_post_ready(worker->link, order->generation, err);
    worker->idle_since_ns = shoal_clock_ns();
    return status;
}

static ShoalStatus send_snapshot(Worker *worker, const ShoalOrder *order, const ShoalRound *round,
                                 ShoalError *err) {
    if (shoal_ring_collective(worker->ring)->rank != 0)
        return SHOAL_OK;
    char name[4096];
    void *model, *state;
    size_t model_size, state_size;
    ShoalStatus status =
        shoal_director_model_name(&worker->job, round->iter, name, sizeof name, err);
    if (!status)
        status = shoal_replica_snapshot(worker->replica, round->iter, round->current_step, name,
                                        &model, &model_size, &state, &state_size, err);
    if (status)
        return status;
    status = shoal_link_post_chunks(worker->link, SHOAL__CHUNK_KIND__CHUNK_WEIGHTS, order->round,
                                    model, model_size, err);
    if (!status)
        status = shoal_link_post_chunks(worker->link, SHOAL__CHUNK_KIND__CHUNK_STATE, order->round,
                                        state, state_size, err);
    shoal_free(model);
    shoal_free(state);
    return status;
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
        status = shoal_replica_run(worker->replica, order->slot,
                                   shoal_ring_collective(worker->ring), &worker->result, err);
    }
    if (!status)
        status = report(worker, order, waiting_ns, err);
    worker->idle_since_ns = shoal_clock_ns();
    return status;
}

/* A ring that broke is the coordinator's to judge; anything else ends this worker. */
static bool ring_broke(const Worker *worker, const ShoalOrder *order, const ShoalError *err) {
    if (order->kind == SHOAL_ORDER_JOB ||
        (err->status != SHOAL_ERR_LOST && err->status != SHOAL_ERR_NETWORK &&
         err->status != SHOAL_ERR_STOPPED))
        return false;
    shoal_link_post_aborted(worker->link, order->generation, shoal_ring_suspect(worker->ring),
                            err->text);
    return true;
}

static ShoalStatus follow_orders(Worker *worker, ShoalError *err) {
    for (;;) {
        ShoalOrder order;
        bool more;
        ShoalStatus status = shoal_link_next(worker->link, &order, &more, err);
        if (status || !more)
            return status;
        ShoalError failure = {0};
        if (order.kind == SHOAL_ORDER_JOB)
            status = build(worker, &order, &failure);
        else if (order.kind == SHOAL_ORDER_CONNECT)
            status = connect_ring(worker, &order, &failure);
        else
            status = run_round(worker, &order, &failure);
        shoal_link_finish(worker->link, &order);
        if (status && !ring_broke(worker, &order, &failure)) {
            shoal_link_post_failure(worker->link, &failure);
            return shoal_error_set(err, failure.status, "%s", failure.text);
        }
    }
}

static ShoalStatus check_options(const ShoalWorkerOptions *options, ShoalError *err) {
    if (!options->join || !options->token)
        return shoal_error_set(err, SHOAL_ERR_ARGUMENT,
                               "give the coordinator's address and the cluster's token");
    if (options->engine.threads < 0 || options->engine.threads > 1024)
        return shoal_error_set(err, SHOAL_ERR_ARGUMENT, "threads is %d; 1 to 1024 work",
                               options->engine.threads);
    return SHOAL_OK;
}

ShoalStatus shoal_worker(const ShoalWorkerOptions *options, ShoalError *error) {
    Worker worker = {.options = options};
    ShoalStatus status = check_options(options, error);
    if (!status)
        status = shoal_auth_init(error);
    if (!status)
        status = shoal_engine_choose(&options->engine, shoal_cpu_fast_cores(), &worker.engine, error);
    if (!status)
        status = join(&worker, error);
    if (!status)
        status = follow_orders(&worker, error);
    if (!status)
        note(&worker, "The training is complete.");
    shoal_link_destroy(worker.link);
    shoal_ring_destroy(worker.ring);
    shoal_replica_result_close(&worker.result);
    shoal_replica_destroy(worker.replica);
    shoal_job_close(&worker.job);
    return status;
}
