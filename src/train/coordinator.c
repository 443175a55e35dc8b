/* SPDX-License-Identifier: Apache-2.0 */
#include "train/coordinator.h"

#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/memory.h"
#include "base/stop.h"
#include "train/coordinator_internal.h"
#include "train/engine.h"
#include "train/invite.h"

enum {
    DEFAULT_HEARTBEAT_TIMEOUT = 1000,
    /* The end of an own worker shows in its connection; a machine that has too much to do for a
     * moment must not change what is computed. */
    DEFAULT_OWN_HEARTBEAT_TIMEOUT = 10000,
    DEFAULT_STALL_TIMEOUT = 30000,
    BEATS = 4,           /* heartbeats of a worker within the timeout */
    LEAST_BEAT_MS = 50,  /* but not more often than this */
    SILENCE_MS = 10000,  /* of the coordinator, at least: it may have a large file to write */
    JOIN_MS = 60000,     /* for own workers */
    JOIN_HOLD_MS = 200,  /* one who joins waits so long for others */
    SETTLE_MS = 3000,    /* nobody else comes back after the coordinator was started again */
    FORM_MS = 10000,     /* for the ring of a generation */
    POLL_MS = 100,       /* at least so often the stop flag is looked at */
    FRAMES_AT_ONCE = 32, /* of one peer: one that floods must not keep the others unheard */
    GOODBYE_MS = 5000
};

static ShoalStatus advance(ShoalCoordinator *c) {
    ShoalClusterAction action;
    ShoalStatus status = SHOAL_OK;
    do {
        while (!status && shoal_cluster_next_action(c->cluster, &action))
            status = shoal_coordinator_carry_out(c, &action);
        if (!status)
            status = shoal_coordinator_plan(c); /* only now: a COMPLETE still needs its flight */
    } while (!status && shoal_cluster_has_action(c->cluster));
    return status;
}

/* ---- the loop ---- */

/* peer->more: there may be frames left that poll() does not tell of. */
static void read_peer(ShoalCoordinator *c, ShoalPeer *peer) {
    peer->more = false;
    for (int i = 0; !peer->broken && c->err->status == SHOAL_OK; i++) {
        if (i == FRAMES_AT_ONCE) {
            peer->more = true;
            return;
        }
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
    for (int i = 0; i < c->n_peers; i++)
        if (c->peers[i]->more)
            return 0;
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
    if (poll(c->polls, (nfds_t)n + 1, poll_timeout(c)) < 0)
        return;
    for (int i = 0; i < n; i++)
        if (c->peers[i]->more || c->polls[i + 1].revents & (POLLIN | POLLHUP | POLLERR))
            read_peer(c, c->peers[i]);
    if (c->polls[0].revents & POLLIN)
        accept_all(c);
}

/* A worker that hears nothing for long looks for another connection. */
static void keep_heartbeat(ShoalCoordinator *c) {
    uint64_t now = shoal_clock_ms();
    if (now < c->next_heartbeat_ms)
        return;
    c->next_heartbeat_ms = now + c->silence_ms / BEATS;
    for (int i = 0; i < c->n_peers; i++)
        if (c->peers[i]->joined && !c->peers[i]->broken)
            (void)shoal_channel_queue(c->peers[i]->channel, SHOAL_MESSAGE_HEARTBEAT, NULL, 0, NULL);
}

static void sweep_peers(ShoalCoordinator *c) {
    uint64_t now = shoal_clock_ms();
    keep_heartbeat(c);
    for (int i = c->n_peers - 1; i >= 0; i--) {
        ShoalPeer *peer = c->peers[i];
        write_peer(c, peer);
        if (!peer->joined && now > peer->deadline_ms)
            shoal_coordinator_lose(c, peer, "did not say who it is in time");
        if (peer->broken)
            shoal_coordinator_remove_peer(c, i);
    }
}

static int count_living(ShoalCoordinator *c) {
    char how[32];
    int ended = shoal_children_ended(&c->children, how, sizeof how);
    if (ended >= 0) {
        c->ended = ended;
        snprintf(c->ended_how, sizeof c->ended_how, "%s", how);
    }
    int n = 0;
    for (int i = 0; i < c->children.count; i++)
        n += c->children.pids[i] != 0;
    return n;
}

/* Own workers do not come back: without enough of them nothing goes on. While a generation runs,
 * the end of a connection tells, and more exactly. */
static ShoalStatus check_children(ShoalCoordinator *c) {
    bool waiting = shoal_cluster_phase(c->cluster) == SHOAL_CLUSTER_WAITING;
    if (!c->children.count || !waiting)
        return SHOAL_OK;
    bool seen = c->ended_how[0]; /* in the last turn: whatever it had said is read by now */
    int living = count_living(c);
    if (!c->begun && seen)
        return shoal_error_set(c->err, SHOAL_ERR_LOST,
                               "worker process %d ended before the training began: %s", c->ended,
                               c->ended_how);
    int least = c->options->min_workers > 0 ? c->options->min_workers : 1;
    if (c->begun && living < least)
        return shoal_error_set(c->err, SHOAL_ERR_LOST,
                               "only %d of %d workers are left (the last one ended with %s); %s%s",
                               living, c->children.count, c->ended_how[0] ? c->ended_how : "?",
                               c->last_snapshot[0] ? "go on with --resume="
                                                   : "no snapshot was written before",
                               c->last_snapshot);
    return SHOAL_OK;
}

static ShoalStatus check_stop(ShoalCoordinator *c) {
    if (shoal_stop_asked(c->options->stop) != SHOAL_STOP_NOW)
        return SHOAL_OK;
    shoal_director_stop(c->director);
    /* Where nothing runs, there is nothing to write a snapshot of. */
    ShoalClusterPhase phase = shoal_cluster_phase(c->cluster);
    return phase == SHOAL_CLUSTER_WAITING || (!c->begun && phase == SHOAL_CLUSTER_FORMING)
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
            status = advance(c); /* tells of losses before they may end the run */
        if (!status)
            status = check_children(c);
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
        if (c->peers[i]->joined)
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

/* *listen: where, with the port that the system has chosen if there was none. */
static ShoalStatus open_port(ShoalCoordinator *c, ShoalAddress *listen) {
    const char *where = c->options->listen ? c->options->listen : "127.0.0.1:0";
    ShoalStatus status = shoal_address_parse(where, listen, c->err);
    if (!status)
        status = shoal_socket_listen(listen, &c->listen_fd, c->err);
    return status ? status : shoal_socket_local(c->listen_fd, listen, c->err);
}

uint64_t shoal_coordinator_generation(const ShoalCoordinator *c) {
    return c->first_generation ? shoal_cluster_generation(c->cluster) - c->first_generation + 1 : 0;
}

ShoalStatus shoal_coordinator_pack_job(ShoalCoordinator *c) {
    shoal_free(c->job_bytes);
    c->job_bytes = NULL;
    ShoalStatus status = shoal_job_pack(c->job, &c->job_bytes, &c->job_size, c->err);
    return status ? status : shoal_job_id(c->job, c->job_id, c->err);
}

static ShoalStatus make_cluster(ShoalCoordinator *c) {
    const ShoalTrainOptions *options = c->options;
    unsigned expected = options->workers > 0 ? (unsigned)options->workers : 1;
    uint64_t timeout = options->heartbeat_timeout_ms > 0 ? (uint64_t)options->heartbeat_timeout_ms
                       : options->listen                 ? DEFAULT_HEARTBEAT_TIMEOUT
                                                         : DEFAULT_OWN_HEARTBEAT_TIMEOUT;
    uint64_t stall =
        options->stall_timeout_ms > 0 ? (uint64_t)options->stall_timeout_ms : DEFAULT_STALL_TIMEOUT;
    uint64_t beat = (timeout < stall ? timeout : stall) / BEATS;
    c->heartbeat_ms = (unsigned)(beat > LEAST_BEAT_MS ? beat : LEAST_BEAT_MS);
    c->silence_ms = (unsigned)(5 * timeout > SILENCE_MS ? 5 * timeout : SILENCE_MS);
    const ShoalClusterConfig config = {
        .expected = expected,
        .min_workers = options->min_workers > 0 ? (unsigned)options->min_workers : 1,
        .max_workers = SHOAL_CLUSTER_MAX_WORKERS,
        .window = SHOAL_COORDINATOR_WINDOW,
        .max_failures = (unsigned)options->max_failures_per_hour,
        .heartbeat_timeout_ms = timeout,
        .stall_timeout_ms = stall,
        .join_timeout_ms = options->listen ? 0 : JOIN_MS,
        .settle_ms = c->adopt ? SETTLE_MS : 0,
        .join_hold_ms = JOIN_HOLD_MS,
        .form_timeout_ms = timeout > FORM_MS ? timeout : FORM_MS,
        .adopt = c->adopt,
        .adopt_any = c->adopt && !c->options->snapshot,
        /* States of the earlier run may come in late: no number of theirs must be one of ours. */
        .first_generation = c->adopt ? (uint64_t)time(NULL) * 1000 : 1,
        .seed_updates = c->job->state ? (uint64_t)c->job->state->iter : 0};
    return shoal_cluster_create(&config, &c->cluster, c->err);
}

static ShoalStatus make_holdings(ShoalCoordinator *c) {
    int n = c->job->n_datasets;
    uint64_t *counts = shoal_calloc((size_t)n, sizeof *counts);
    if (!counts)
        return shoal_error_memory(c->err, "the datasets", sizeof *counts);
    for (int i = 0; i < n; i++)
        counts[i] = c->job->datasets[i].records;
    ShoalStatus status = n ? shoal_holdings_create(n, counts, &c->holdings, c->err) : SHOAL_OK;
    shoal_free(counts);
    return status;
}

static ShoalStatus choose_wire(ShoalCoordinator *c) {
    static const char *const NAMES[] = {"fp32", "fp16", "bf16"};
    const char *name = c->options->wire ? c->options->wire : NAMES[0];
    for (int i = 0; i < 3; i++)
        if (!strcmp(name, NAMES[i])) {
            c->format = (ShoalWireFormat)i;
            return SHOAL_OK;
        }
    return shoal_error_set(c->err, SHOAL_ERR_ARGUMENT,
                           "wire is '%s'; there are fp32, fp16 and bf16", name);
}

static ShoalStatus choose_balance(ShoalCoordinator *c) {
    const char *balance = c->options->balance;
    c->balances = balance ? !strcmp(balance, "on") : c->options->listen != NULL;
    if (balance && strcmp(balance, "on") && strcmp(balance, "off"))
        return shoal_error_set(c->err, SHOAL_ERR_ARGUMENT, "balance is '%s'; there are on and off",
                               balance);
    return shoal_balance_create(NULL, &c->balance, c->err);
}

static ShoalStatus check_announce(ShoalCoordinator *c) {
    const char *announce = c->options->announce;
    if (!announce || !strcmp(announce, "on") || !strcmp(announce, "off"))
        return SHOAL_OK;
    return shoal_error_set(c->err, SHOAL_ERR_ARGUMENT, "announce is '%s'; there are on and off",
                           announce);
}

static ShoalStatus prepare(ShoalCoordinator *c) {
    ShoalDirectorOptions director = {.train = c->options,
                                     .check_files = true,
                                     .n_ranks = c->options->workers > 0 ? c->options->workers : 1};
    ShoalStatus status = shoal_shuffle_find(c->options->shuffle, &director.shuffle, c->err);
    if (!status)
        status = choose_wire(c);
    if (!status)
        status = check_announce(c);
    if (!status)
        status = shoal_director_create(c->job, &director, &c->director, c->err);
    if (!status && !shoal_coordinator_grow_peers(c))
        status = shoal_error_memory(c->err, "the connections", sizeof *c->peers);
    if (!status)
        status = shoal_coordinator_pack_job(c);
    if (!status)
        status = make_holdings(c);
    if (!status)
        status = shoal_probe_server_create(NULL, NULL, &c->probes, c->err);
    if (!status)
        status = choose_balance(c);
    return status ? status : make_cluster(c);
}

/* Tells people how others join, one line for each way to reach this machine. */
static void invite(const ShoalCoordinator *c, const ShoalAddress *listen, const char *token) {
    ShoalAddress addresses[SHOAL_INVITE_ADDRESSES];
    char text[2048], where[SHOAL_ADDRESS_TEXT], command[512];
    int workers = c->options->workers > 0 ? c->options->workers : 1;
    int n = shoal_invite_addresses(listen, addresses);
    shoal_address_format(listen, where);
    int used = snprintf(text, sizeof text, "Waiting for %d worker%s at %s. On each %s:", workers,
                        workers == 1 ? "" : "s", where, n > 1 ? "machine one of" : "machine");
    for (int i = 0; i < n && used > 0 && (size_t)used < sizeof text; i++) {
        shoal_invite_command(&addresses[i], c->options->token ? "..." : token, command,
                             sizeof command);
        used += snprintf(text + used, sizeof text - (size_t)used, "\n    %s", command);
    }
    ShoalEvent event = {.kind = SHOAL_EVENT_WAITING, .text = text};
    shoal_invite_command(&addresses[0], token, command, sizeof command);
    if (!c->options->token && !shoal_invite_is_local(&addresses[0]))
        event.command = command;
    shoal_director_emit(c->director, &event);
}

/* A network on which nobody can be told anything must not keep the run from going on. */
static void announce(ShoalCoordinator *c, const ShoalAddress *listen) {
    const char *asked = c->options->announce;
    if (asked ? !strcmp(asked, "off") : shoal_invite_is_local(listen))
        return;
    ShoalError err = {0};
    if (shoal_announce_begin(NULL, listen, &c->announcement, &err)) {
        char text[sizeof err.text + 100];
        snprintf(text, sizeof text, "Workers cannot find this run by --discover: %s", err.text);
        ShoalEvent event = {.kind = SHOAL_EVENT_NOTE, .text = text};
        shoal_director_emit(c->director, &event);
    }
}

static ShoalStatus start_workers(ShoalCoordinator *c, const ShoalAddress *listen,
                                 const char *token) {
    if (c->options->listen) {
        invite(c, listen, token);
        announce(c, listen);
        return SHOAL_OK;
    }
    char join[SHOAL_ADDRESS_TEXT];
    shoal_address_format(listen, join);
    int workers = c->options->workers > 0 ? c->options->workers : 1;
    int share = shoal_cpu_cores() / workers;
    int threads = c->options->engine.threads > 0 ? c->options->engine.threads
                  : share > 0                    ? share
                                                 : 1;
    return shoal_children_start(c->options->program, workers, join, token, threads,
                                &c->options->engine, &c->children, c->err);
}

static ShoalStatus run(ShoalCoordinator *c) {
    ShoalAddress listen;
    char made[SHOAL_AUTH_TOKEN_TEXT];
    const char *token = c->options->token;
    if (!token) {
        shoal_auth_token_generate(made);
        token = made;
    }
    shoal_auth_random(&c->session, sizeof c->session);
    ShoalReplicaOptions engine = {0}; /* a wrong --cpu is told here, not by N workers */
    ShoalStatus status = shoal_engine_choose(&c->options->engine, 1, &engine, c->err);
    if (!status)
        status = shoal_auth_token_key(token, &c->key, c->err);
    if (!status)
        status = prepare(c);
    if (!status)
        status = open_port(c, &listen);
    if (!status)
        status = start_workers(c, &listen, token);
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

static void close_flight(ShoalFlight *flight) {
    for (int r = 0; r < flight->size; r++)
        shoal_replica_result_close(&flight->results[r]);
    shoal_free(flight->results);
    shoal_free(flight->connections);
    shoal_buffer_close(&flight->model);
    shoal_buffer_close(&flight->state);
    shoal_plan_close(&flight->plan);
}

static void close_coordinator(ShoalCoordinator *c) {
    shoal_announce_end(c->announcement);
    shoal_probe_server_destroy(c->probes);
    while (c->n_peers)
        shoal_coordinator_remove_peer(c, 0);
    if (c->listen_fd >= 0)
        close(c->listen_fd);
    for (int i = 0; i < SHOAL_COORDINATOR_FLIGHTS; i++)
        close_flight(&c->flights[i]);
    shoal_cluster_destroy(c->cluster);
    shoal_balance_destroy(c->balance);
    shoal_holdings_destroy(c->holdings);
    shoal_director_destroy(c->director);
    void *const blocks[] = {c->peers,       c->polls,    c->capacities, c->limits,
                            c->stores,      c->late,     c->odd,        c->store_ids,
                            c->store_alive, c->statuses, c->job_bytes};
    for (size_t i = 0; i < sizeof blocks / sizeof blocks[0]; i++)
        shoal_free(blocks[i]);
    shoal_auth_forget(&c->key, sizeof c->key);
}

ShoalStatus shoal_train_coordinator(ShoalJob *job, const ShoalTrainOptions *options,
                                    ShoalError *err) {
    ShoalCoordinator c = {.job = job,
                          .options = options,
                          .adopt = options->resume && options->listen,
                          .listen_fd = -1,
                          .err = err};
    ShoalStatus status = run(&c);
    close_coordinator(&c);
    return status;
}
