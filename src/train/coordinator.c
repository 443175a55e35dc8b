/* SPDX-License-Identifier: Apache-2.0 */
#include "train/coordinator.h"

#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/memory.h"
#include "base/stop.h"
#include "train/coordinator_internal.h"
#include "train/engine.h"

enum {
    DEFAULT_HEARTBEAT_TIMEOUT = 10000,
    JOIN_MS = 60000,  /* for own workers */
    FORM_MS = 120000, /* for the ring: workers build their nets in this time */
    POLL_MS = 100,    /* at least so often the stop flag is looked at */
    GOODBYE_MS = 5000
};

/* Fills the window. Only while no action is waiting: a COMPLETE still needs its flight. */
static ShoalStatus plan_rounds(ShoalCoordinator *c) {
    while (!c->all_planned && shoal_cluster_room(c->cluster) > 0) {
        ShoalFlight *flight =
            &c->flights[shoal_cluster_added(c->cluster) % SHOAL_COORDINATOR_WINDOW];
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

static ShoalStatus advance(ShoalCoordinator *c) {
    ShoalClusterAction action;
    ShoalStatus status = SHOAL_OK;
    do {
        while (!status && shoal_cluster_next_action(c->cluster, &action))
            status = shoal_coordinator_carry_out(c, &action);
        if (!status)
            status = plan_rounds(c);
    } while (!status && shoal_cluster_has_action(c->cluster));
    return status;
}

/* ---- the loop ---- */

static void read_peer(ShoalCoordinator *c, ShoalPeer *peer) {
    while (!peer->broken && c->err->status == SHOAL_OK) {
        ShoalChannelEvent event;
        ShoalFrame frame;
        ShoalError err = {0};
        if (shoal_channel_receive(peer->channel, &event, &frame, &err)) {
            shoal_coordinator_lose(c, peer, err.text);
            return;
        }
        if (event == SHOAL_CHANNEL_CLOSED)
            shoal_coordinator_lose(c, peer, "connection closed");
        if (event != SHOAL_CHANNEL_FRAME)
            return;
        shoal_coordinator_take(c, peer, &frame);
        (void)advance(c); /* c->err holds what went wrong */
    }
}

static void write_peer(ShoalCoordinator *c, ShoalPeer *peer) {
    ShoalError err = {0};
    if (!peer->broken && shoal_channel_wants_write(peer->channel) &&
        shoal_channel_flush(peer->channel, &err))
        shoal_coordinator_lose(c, peer, err.text);
}

static void accept_all(ShoalCoordinator *c) {
    for (;;) {
        int fd;
        if (shoal_socket_accept(c->listen_fd, &fd, NULL, NULL) || fd < 0)
            return;
        shoal_coordinator_add_peer(c, fd);
    }
}

static int poll_timeout(const ShoalCoordinator *c) {
    int timeout = shoal_socket_timeout_ms(shoal_cluster_deadline_ms(c->cluster));
    return timeout < 0 || timeout > POLL_MS ? POLL_MS : timeout;
}

static void poll_once(ShoalCoordinator *c) {
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

static void sweep_peers(ShoalCoordinator *c) {
    uint64_t now = shoal_clock_ms();
    for (int i = c->n_peers - 1; i >= 0; i--) {
        ShoalPeer *peer = c->peers[i];
        write_peer(c, peer);
        if (!peer->member && now > peer->deadline_ms)
            shoal_coordinator_lose(c, peer, "did not say who it is in time");
        if (peer->broken)
            shoal_coordinator_remove_peer(c, i);
    }
}

static ShoalStatus check_children(ShoalCoordinator *c) {
    if (shoal_cluster_phase(c->cluster) != SHOAL_CLUSTER_WAITING)
        return SHOAL_OK; /* later the end of its connection tells, and more exactly */
    if (c->ended_how[0]) /* seen in the last turn: whatever it had said is read by now */
        return shoal_error_set(c->err, SHOAL_ERR_LOST,
                               "worker process %d ended before the training began: %s", c->ended,
                               c->ended_how);
    c->ended = shoal_children_ended(&c->children, c->ended_how, sizeof c->ended_how);
    return SHOAL_OK;
}

static ShoalStatus check_stop(ShoalCoordinator *c) {
    if (shoal_stop_asked(c->options->stop) != SHOAL_STOP_NOW)
        return SHOAL_OK;
    shoal_director_stop(c->director);
    ShoalClusterPhase phase = shoal_cluster_phase(c->cluster);
    return phase == SHOAL_CLUSTER_WAITING || phase == SHOAL_CLUSTER_FORMING
               ? shoal_error_set(c->err, SHOAL_ERR_STOPPED, "stopped on request")
               : SHOAL_OK;
}

static ShoalStatus run_loop(ShoalCoordinator *c) {
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
static void say_goodbye(ShoalCoordinator *c) {
    Shoal__Stop message = SHOAL__STOP__INIT;
    message.reason = c->err->status == SHOAL_OK ? (char *)"" : c->err->text;
    for (int i = 0; i < c->n_peers; i++)
        if (c->peers[i]->member)
            (void)shoal_coordinator_queue(c->peers[i], SHOAL_MESSAGE_STOP, &message.base);
    uint64_t deadline = shoal_clock_ms() + GOODBYE_MS;
    bool pending = true;
    while (pending && shoal_clock_ms() < deadline) {
        pending = false;
        for (int i = 0; i < c->n_peers; i++) {
            ShoalPeer *peer = c->peers[i];
            if (!peer->broken && shoal_channel_flush(peer->channel, NULL))
                peer->broken = true;
            pending = pending || (!peer->broken && shoal_channel_wants_write(peer->channel));
        }
        if (pending)
            shoal_clock_sleep_ms(2);
    }
}

/* ---- construction ---- */

static ShoalStatus open_port(ShoalCoordinator *c, char *join, size_t size) {
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

static ShoalStatus allocate(ShoalCoordinator *c) {
    size_t n = (size_t)c->n_workers;
    c->peers_size = c->n_workers + SHOAL_COORDINATOR_STRANGERS + 8;
    c->peers = shoal_calloc((size_t)c->peers_size, sizeof *c->peers);
    c->polls = shoal_calloc((size_t)c->peers_size + 1, sizeof *c->polls);
    c->tallies = shoal_calloc(n, sizeof *c->tallies);
    c->statuses = shoal_calloc(n, sizeof *c->statuses);
    if (!c->peers || !c->polls || !c->tallies || !c->statuses)
        return shoal_error_memory(c->err, "the coordinator", n * sizeof *c->tallies);
    size_t capacity = shoal_director_output_capacity(c->director);
    for (int i = 0; i < SHOAL_COORDINATOR_WINDOW; i++) {
        ShoalFlight *flight = &c->flights[i];
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

static ShoalStatus prepare(ShoalCoordinator *c) {
    ShoalDirectorOptions director = {.train = c->options, .n_ranks = c->n_workers};
    ShoalClusterConfig config = {.expected = (unsigned)c->n_workers,
                                 .window = SHOAL_COORDINATOR_WINDOW,
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

static void announce(const ShoalCoordinator *c, const char *join, const char *token) {
    char text[512];
    /* "Any address" is good for listening only. */
    bool any = !strncmp(join, "0.0.0.0:", 8) || !strncmp(join, "[::]:", 5);
    snprintf(text, sizeof text,
             "Waiting for %d worker%s at %s. On each machine:\n"
             "    SHOAL_TOKEN=%s shoal worker --join=%s%s",
             c->n_workers, c->n_workers == 1 ? "" : "s", join, c->options->token ? "..." : token,
             any ? "ADDRESS-OF-THIS-MACHINE" : "", any ? strrchr(join, ':') : join);
    ShoalEvent event = {.kind = SHOAL_EVENT_WAITING, .text = text};
    shoal_director_emit(c->director, &event);
}

static ShoalStatus start_workers(ShoalCoordinator *c, const char *join, const char *token) {
    if (c->options->listen) {
        announce(c, join, token);
        return SHOAL_OK;
    }
    int share = shoal_cpu_cores() / c->n_workers;
    int threads = c->options->engine.threads > 0 ? c->options->engine.threads
                  : share > 0                    ? share
                                                 : 1;
    return shoal_children_start(c->options->program, c->n_workers, join, token, threads,
                                &c->options->engine, &c->children, c->err);
}

static ShoalStatus run(ShoalCoordinator *c) {
    char join[SHOAL_ADDRESS_TEXT], made[SHOAL_AUTH_TOKEN_TEXT];
    const char *token = c->options->token;
    if (!token) {
        shoal_auth_token_generate(made);
        token = made;
    }
    shoal_auth_random(c->ring_secret, sizeof c->ring_secret);
    ShoalReplicaOptions engine = {0}; /* a wrong --cpu is told here, not by N workers */
    ShoalStatus status = shoal_engine_choose(&c->options->engine, 1, &engine, c->err);
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

static void close_coordinator(ShoalCoordinator *c) {
    while (c->n_peers)
        shoal_coordinator_remove_peer(c, 0);
    if (c->listen_fd >= 0)
        close(c->listen_fd);
    for (int i = 0; i < SHOAL_COORDINATOR_WINDOW; i++) {
        for (int r = 0; c->flights[i].results && r < c->n_workers; r++)
            shoal_replica_result_close(&c->flights[i].results[r]);
        shoal_free(c->flights[i].results);
        shoal_buffer_close(&c->flights[i].model);
        shoal_buffer_close(&c->flights[i].state);
        shoal_plan_close(&c->flights[i].plan);
    }
    shoal_cluster_destroy(c->cluster);
    shoal_director_destroy(c->director);
    shoal_free(c->peers);
    shoal_free(c->polls);
    shoal_free(c->tallies);
    shoal_free(c->statuses);
    shoal_free(c->job_bytes);
    shoal_auth_forget(&c->key, sizeof c->key);
    shoal_auth_forget(c->ring_secret, sizeof c->ring_secret);
}

ShoalStatus shoal_train_coordinator(ShoalJob *job, const ShoalTrainOptions *options,
                                    ShoalError *err) {
    ShoalCoordinator c = {.job = job,
                          .options = options,
                          .listen_fd = -1,
                          .n_workers = options->workers > 0 ? options->workers : 1,
                          .err = err};
    ShoalStatus status = run(&c);
    close_coordinator(&c);
    return status;
}
