/* SPDX-License-Identifier: Apache-2.0 */
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/memory.h"
#include "collective/wire.h"
#include "train/probe_bulk.h"

enum {
    STRANGERS = 16,       /* connections that have not proved themselves, at a time */
    GREETING_MS = 5000,   /* for them to do so */
    GUEST_MS = 120000,    /* for a guest in all, the wait for its turn included */
    TURN_MS = 15000,      /* for a guest whose turn it is */
    REMEMBER_MS = 180000, /* who was here so long ago is not told to others any more */
    MESSAGES = 2000,      /* of a guest, but for data */
    DIRECTIONS = 8,       /* measurements of a guest, each of bounded length */
    STACK_BYTES = 256 << 10,
    ACCEPT_MS = 200
};

typedef struct Seen {
    char host[SHOAL_ADDRESS_TEXT];
    uint16_t port;
    uint64_t at_ms;
} Seen;

struct ShoalProbeServer {
    ShoalProbeGuestHandler *on_guest;
    void *context;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    int wake_fd; /* readable: all threads end */
    bool closing;
    bool turn; /* somebody measures, or it is held */
    int threads, guests, strangers;
    Seen seen[SHOAL_PROBE_PEERS_MOST];
    int n_seen;
    bool listening;
    int listen_fd;
    ShoalAuthKey key;
};

typedef struct Guest {
    ShoalProbeServer *server;
    ShoalChannel *channel; /* NULL: it has yet to prove itself */
    int fd;
    char host[SHOAL_ADDRESS_TEXT];
    uint16_t port; /* of its own server; 0: none */
    uint64_t deadline_ms;
    bool turn;
    int messages, directions;
    double up_mbit, down_mbit;
} Guest;

/* ---- turns ---- */

static bool take_turn(ShoalProbeServer *server, uint64_t deadline_ms) {
    const struct timespec at = {.tv_sec = (time_t)(deadline_ms / 1000),
                                .tv_nsec = (long)(deadline_ms % 1000) * 1000000};
    pthread_mutex_lock(&server->lock);
    int late = 0;
    while (server->turn && !server->closing && !late)
        late = deadline_ms == UINT64_MAX
                   ? pthread_cond_wait(&server->changed, &server->lock)
                   : pthread_cond_timedwait(&server->changed, &server->lock, &at);
    bool taken = !server->turn && !server->closing;
    if (taken)
        server->turn = true;
    pthread_mutex_unlock(&server->lock);
    return taken;
}

static void give_turn(ShoalProbeServer *server) {
    pthread_mutex_lock(&server->lock);
    server->turn = false;
    pthread_cond_broadcast(&server->changed);
    pthread_mutex_unlock(&server->lock);
}

void shoal_probe_server_hold(ShoalProbeServer *server) {
    (void)take_turn(server, UINT64_MAX);
}

void shoal_probe_server_release(ShoalProbeServer *server) {
    give_turn(server);
}

/* ---- who is examined ---- */

static void remember(ShoalProbeServer *server, const Guest *guest) {
    if (!guest->port || !guest->host[0])
        return;
    pthread_mutex_lock(&server->lock);
    int at = 0, oldest = 0;
    while (at < server->n_seen &&
           (server->seen[at].port != guest->port || strcmp(server->seen[at].host, guest->host)))
        at++;
    for (int i = 0; i < server->n_seen; i++)
        oldest = server->seen[i].at_ms < server->seen[oldest].at_ms ? i : oldest;
    if (at == SHOAL_PROBE_PEERS_MOST)
        at = oldest;
    else if (at == server->n_seen)
        server->n_seen++;
    server->seen[at].port = guest->port;
    server->seen[at].at_ms = shoal_clock_ms();
    snprintf(server->seen[at].host, sizeof server->seen[at].host, "%s", guest->host);
    pthread_mutex_unlock(&server->lock);
}

static size_t add_peer(unsigned char *at, const Seen *seen) {
    size_t length = strlen(seen->host);
    at[0] = (unsigned char)length;
    memcpy(at + 1, seen->host, length);
    shoal_wire_put16(at + 1 + length, seen->port);
    return length + 3;
}

/* All others, in the order of their coming, from the one after the asker on: so every device
 * measures to another one. */
static ShoalStatus tell_peers(const Guest *guest, ShoalError *err) {
    static const size_t ENTRY = SHOAL_ADDRESS_TEXT + 3;
    unsigned char *payload = shoal_calloc(1 + SHOAL_PROBE_PEERS_MOST * ENTRY, 1);
    if (!payload)
        return shoal_error_memory(err, "a list of devices", SHOAL_PROBE_PEERS_MOST * ENTRY);
    ShoalProbeServer *server = guest->server;
    size_t used = 1;
    payload[0] = SHOAL_PROBE_PEERS;
    pthread_mutex_lock(&server->lock);
    int self = -1, n = server->n_seen;
    uint64_t now = shoal_clock_ms();
    for (int i = 0; i < n; i++)
        if (server->seen[i].port == guest->port && !strcmp(server->seen[i].host, guest->host))
            self = i;
    for (int i = 1; i <= n; i++) {
        int at = (self + i + n) % n;
        if (at != self && now - server->seen[at].at_ms < REMEMBER_MS &&
            used + ENTRY <= SHOAL_PROBE_DATA_BYTES)
            used += add_peer(payload + used, &server->seen[at]);
    }
    pthread_mutex_unlock(&server->lock);
    ShoalStatus status = shoal_channel_send(guest->channel, SHOAL_MESSAGE_PROBE, payload, used,
                                            server->wake_fd, shoal_clock_ms() + GREETING_MS, err);
    shoal_free(payload);
    return status;
}

/* ---- what guests ask for ---- */

static ShoalStatus say(const Guest *guest, ShoalProbeKind kind, uint32_t a, uint32_t b,
                       ShoalError *err) {
    return shoal_probe_say(guest->channel, guest->server->wake_fd, kind, a, b,
                           shoal_clock_ms() + GREETING_MS, err);
}

static ShoalStatus wrong(const Guest *guest, ShoalError *err) {
    return shoal_error_set(err, SHOAL_ERR_PROTOCOL, "%s does not keep to the link test",
                           shoal_channel_peer(guest->channel));
}

static ShoalStatus give_guest_its_turn(Guest *guest, ShoalError *err) {
    if (guest->turn)
        return wrong(guest, err);
    if (!take_turn(guest->server, guest->deadline_ms))
        return shoal_error_set(err, SHOAL_ERR_LOST, "its turn did not come");
    guest->turn = true;
    guest->deadline_ms = shoal_clock_ms() + TURN_MS;
    return say(guest, SHOAL_PROBE_TURN, 0, 0, err);
}

static uint32_t bounded(double value) {
    return value >= UINT32_MAX ? UINT32_MAX : value > 0 ? (uint32_t)value : 0;
}

static ShoalStatus take_data(Guest *guest, unsigned ms, ShoalError *err) {
    ShoalProbeMeter meter;
    uint32_t loss;
    ShoalStatus status =
        shoal_probe_receive(guest->channel, guest->server->wake_fd, ms, &meter, &loss, err);
    if (status)
        return status;
    guest->up_mbit = shoal_probe_meter_mbit(&meter);
    return say(guest, SHOAL_PROBE_RESULT, bounded(1e3 * guest->up_mbit),
               bounded((double)meter.gap_ns * 1e-3), err);
}

static ShoalStatus answer(Guest *guest, const ShoalProbeMessage *message, ShoalError *err) {
    int fd = guest->server->wake_fd;
    bool bulk = message->kind == SHOAL_PROBE_UP || message->kind == SHOAL_PROBE_DOWN;
    if (++guest->messages > MESSAGES || (bulk && ++guest->directions > DIRECTIONS) ||
        (bulk && (!guest->turn || message->a < 1 || message->a > SHOAL_PROBE_MOST_MS)))
        return wrong(guest, err);
    switch (message->kind) {
    case SHOAL_PROBE_PEERS:
        return tell_peers(guest, err);
    case SHOAL_PROBE_TURN:
        return give_guest_its_turn(guest, err);
    case SHOAL_PROBE_PING:
        return say(guest, SHOAL_PROBE_PING, message->a, message->b, err);
    case SHOAL_PROBE_UP:
        return take_data(guest, message->a, err);
    case SHOAL_PROBE_DOWN: {
        uint64_t before = shoal_channel_bytes_sent(guest->channel);
        ShoalStatus status = shoal_probe_send(guest->channel, fd, message->a, err);
        guest->down_mbit =
            (double)(shoal_channel_bytes_sent(guest->channel) - before) * 8e-3 / (double)message->a;
        return status;
    }
    default:
        return wrong(guest, err);
    }
}

static void serve(Guest *guest) {
    ShoalError err = {0};
    shoal_channel_set_limit(guest->channel, 1 + SHOAL_PROBE_DATA_BYTES + SHOAL_AUTH_SEAL_BYTES);
    guest->deadline_ms = shoal_clock_ms() + GUEST_MS;
    remember(guest->server, guest);
    ShoalStatus status = say(guest, SHOAL_PROBE_WELCOME, 0, 0, &err);
    while (!status) {
        ShoalFrame frame;
        ShoalProbeMessage message;
        status = shoal_channel_wait(guest->channel, guest->server->wake_fd, guest->deadline_ms,
                                    &frame, &err);
        if (!status && shoal_clock_ms() > guest->deadline_ms)
            status = SHOAL_ERR_LOST;
        if (!status)
            status = shoal_probe_unpack(&frame, &message) ? answer(guest, &message, &err)
                                                          : wrong(guest, &err);
    }
    if (guest->turn)
        give_turn(guest->server);
}

/* ---- strangers ---- */

static void describe(Guest *guest, const ShoalJoinInfo *info) {
    snprintf(guest->host, sizeof guest->host, "%s", info->info.address);
    guest->port = info->probe_port;
}

/* Whether it may come in. */
static bool enter(ShoalProbeServer *server) {
    pthread_mutex_lock(&server->lock);
    bool room = !server->closing && server->guests < SHOAL_PROBE_GUESTS;
    server->guests += room;
    pthread_mutex_unlock(&server->lock);
    return room;
}

static bool greet(Guest *guest) {
    ShoalProbeServer *server = guest->server;
    ShoalGreeting greeting = {0};
    ShoalJoinInfo info;
    ShoalFrame frame;
    bool joined = false;
    uint64_t deadline = shoal_clock_ms() + GREETING_MS;
    if (shoal_channel_create(guest->fd, SHOAL_MESSAGE_LIMIT_STRANGER, &guest->channel, NULL)) {
        close(guest->fd);
        return false;
    }
    while (!joined) {
        if (shoal_channel_wait(guest->channel, server->wake_fd, deadline, &frame, NULL) ||
            shoal_handshake_answer(&greeting, guest->channel, &server->key, &frame, &joined, &info,
                                   NULL) ||
            shoal_channel_flush(guest->channel, NULL))
            return false;
    }
    if (!info.probe)
        shoal_handshake_refuse(guest->channel, "nothing is trained here: this is `shoal doctor`",
                               true, false);
    describe(guest, &info);
    return info.probe;
}

static void leave(ShoalProbeServer *server, int *count) {
    pthread_mutex_lock(&server->lock);
    (*count)--;
    pthread_mutex_unlock(&server->lock);
}

static void refuse_for_now(ShoalChannel *channel) {
    shoal_handshake_refuse(channel, "others are measuring their links; come back soon", false,
                           false);
}

/* The last thing that a thread does with the server is to say that it has ended. */
static void end_thread(ShoalProbeServer *server) {
    pthread_mutex_lock(&server->lock);
    server->threads--;
    pthread_cond_broadcast(&server->changed);
    pthread_mutex_unlock(&server->lock);
}

static void *run_guest(void *argument) {
    Guest *guest = argument;
    ShoalProbeServer *server = guest->server;
    bool inside = guest->channel != NULL;
    if (!inside) {
        bool known = greet(guest);
        leave(server, &server->strangers);
        inside = known && enter(server);
        if (known && !inside)
            refuse_for_now(guest->channel);
    }
    if (inside) {
        serve(guest);
        if (server->on_guest)
            server->on_guest(server->context, guest->host, guest->up_mbit, guest->down_mbit);
        leave(server, &server->guests);
    }
    shoal_channel_destroy(guest->channel);
    shoal_free(guest);
    end_thread(server);
    return NULL;
}

static bool start_thread(ShoalProbeServer *server, void *(*run)(void *), void *argument) {
    pthread_attr_t attributes;
    pthread_t thread;
    if (pthread_attr_init(&attributes))
        return false;
    pthread_mutex_lock(&server->lock);
    server->threads++;
    pthread_mutex_unlock(&server->lock);
    (void)pthread_attr_setstacksize(&attributes, STACK_BYTES);
    bool started = !pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED) &&
                   !pthread_create(&thread, &attributes, run, argument);
    pthread_attr_destroy(&attributes);
    if (!started)
        end_thread(server);
    return started;
}

/* channel NULL: fd is a stranger's. Takes either. */
static bool start_guest(ShoalProbeServer *server, ShoalChannel *channel, int fd,
                        const ShoalJoinInfo *info) {
    Guest *guest = shoal_calloc(1, sizeof *guest);
    if (!guest)
        return false;
    *guest = (Guest){.server = server, .channel = channel, .fd = fd};
    if (info)
        describe(guest, info);
    if (start_thread(server, run_guest, guest))
        return true;
    shoal_free(guest);
    return false;
}

void shoal_probe_server_adopt(ShoalProbeServer *server, ShoalChannel *channel,
                              const ShoalJoinInfo *info) {
    bool inside = server && enter(server);
    if (inside && start_guest(server, channel, -1, info))
        return;
    if (inside)
        leave(server, &server->guests);
    refuse_for_now(channel);
    shoal_channel_destroy(channel);
}

static bool admit_stranger(ShoalProbeServer *server) {
    pthread_mutex_lock(&server->lock);
    bool room = server->strangers < STRANGERS;
    server->strangers += room;
    pthread_mutex_unlock(&server->lock);
    return room;
}

static void take_stranger(ShoalProbeServer *server, int fd) {
    if (!admit_stranger(server)) {
        close(fd);
    } else if (!start_guest(server, NULL, fd, NULL)) {
        leave(server, &server->strangers);
        close(fd);
    }
}

static void *accept_strangers(void *argument) {
    ShoalProbeServer *server = argument;
    for (;;) {
        struct pollfd items[] = {{.fd = server->listen_fd, .events = POLLIN},
                                 {.fd = server->wake_fd, .events = POLLIN}};
        (void)poll(items, 2, -1);
        if (items[1].revents)
            break;
        int fd;
        if (shoal_socket_accept(server->listen_fd, &fd, NULL, NULL))
            (void)poll(items + 1, 1, ACCEPT_MS); /* out of descriptors */
        else if (fd >= 0)
            take_stranger(server, fd);
    }
    end_thread(server);
    return NULL;
}

/* ---- life ---- */

static bool init_locks(ShoalProbeServer *server) {
    pthread_condattr_t attributes;
    if (pthread_condattr_init(&attributes))
        return false;
    bool good = !pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC) &&
                !pthread_cond_init(&server->changed, &attributes);
    pthread_condattr_destroy(&attributes);
    if (!good || !pthread_mutex_init(&server->lock, NULL))
        return good;
    pthread_cond_destroy(&server->changed);
    return false;
}

ShoalStatus shoal_probe_server_create(ShoalProbeGuestHandler *on_guest, void *context,
                                      ShoalProbeServer **out, ShoalError *err) {
    ShoalProbeServer *server = shoal_calloc(1, sizeof *server);
    if (!server)
        return shoal_error_memory(err, "a link test", sizeof *server);
    server->on_guest = on_guest;
    server->context = context;
    server->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (server->wake_fd < 0)
        goto err_free;
    if (!init_locks(server))
        goto err_close;
    *out = server;
    return SHOAL_OK;
err_close:
    close(server->wake_fd);
err_free:
    shoal_free(server);
    return shoal_error_set(err, SHOAL_ERR_MEMORY, "no means for a link test are left");
}

void shoal_probe_server_destroy(ShoalProbeServer *server) {
    if (!server)
        return;
    uint64_t one = 1;
    pthread_mutex_lock(&server->lock);
    server->closing = true;
    ssize_t n = write(server->wake_fd, &one, sizeof one);
    (void)n;
    pthread_cond_broadcast(&server->changed);
    while (server->threads > 0)
        pthread_cond_wait(&server->changed, &server->lock);
    pthread_mutex_unlock(&server->lock);
    if (server->listening)
        close(server->listen_fd);
    close(server->wake_fd);
    pthread_cond_destroy(&server->changed);
    pthread_mutex_destroy(&server->lock);
    shoal_auth_forget(&server->key, sizeof server->key);
    shoal_free(server);
}

ShoalStatus shoal_probe_server_listen(ShoalProbeServer *server, const ShoalAddress *address,
                                      const ShoalAuthKey *key, uint16_t *port, ShoalError *err) {
    ShoalAddress local;
    ShoalStatus status = shoal_socket_listen(address, &server->listen_fd, err);
    if (status)
        return status;
    server->key = *key;
    status = shoal_socket_local(server->listen_fd, &local, err);
    if (!status && !start_thread(server, accept_strangers, server))
        status = shoal_error_set(err, SHOAL_ERR_MEMORY, "no thread for a link test is left");
    if (status) {
        close(server->listen_fd);
        return status;
    }
    server->listening = true;
    *port = shoal_address_port(&local);
    return SHOAL_OK;
}

int shoal_probe_server_guests(ShoalProbeServer *server) {
    pthread_mutex_lock(&server->lock);
    int guests = server->guests + server->strangers;
    pthread_mutex_unlock(&server->lock);
    return guests;
}
