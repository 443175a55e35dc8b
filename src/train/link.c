/* SPDX-License-Identifier: Apache-2.0 */
#include "train/link.h"

#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/memory.h"
#include "base/stop.h"
#include "base/system.h"
#include "device/vitals.h"
#include "shoal/shoal.h"
#include "train/link_internal.h"

enum {
    GOODBYE_MS = 3000,
    STOP_POLL_MS = 500,
    VITALS_MS = 1000,
    CHARGE_SLACK = 3,       /* percent */
    BACKLOG_BYTES = 4 << 20 /* on its way to the coordinator; a snapshot is much larger */
};

static void signal_fd(int fd) {
    uint64_t one = 1;
    ssize_t n = write(fd, &one, sizeof one);
    (void)n; /* a full counter is readable, too */
}

ShoalStatus shoal_link_malformed(ShoalError *err) {
    return shoal_error_set(err, SHOAL_ERR_PROTOCOL,
                           "the coordinator sent a message that makes no sense");
}

/* ---- the main thread's side: posts ---- */

static ShoalStatus post(ShoalLink *link, ShoalMessageType type, const ProtobufCMessage *message,
                        uint64_t generation, uint64_t round, ShoalError *err) {
    size_t size = protobuf_c_message_get_packed_size(message);
    ShoalPost *item = shoal_calloc(1, sizeof *item + size);
    if (!item)
        return shoal_error_memory(err, "a message", size);
    item->type = type;
    item->generation = generation;
    item->round = round;
    item->size = protobuf_c_message_pack(message, item->payload);
    pthread_mutex_lock(&link->lock);
    if (link->last_post)
        link->last_post->next = item;
    else
        link->first_post = item;
    link->last_post = item;
    link->posted_bytes += item->size;
    pthread_mutex_unlock(&link->lock);
    signal_fd(link->post_fd);
    return SHOAL_OK;
}

ShoalStatus shoal_link_post_prepared(ShoalLink *link, int capacity, uint64_t cache_bytes,
                                     ShoalError *err) {
    Shoal__Prepared message = SHOAL__PREPARED__INIT;
    message.capacity = (uint32_t)capacity;
    message.cache_bytes = cache_bytes;
    return post(link, SHOAL_MESSAGE_PREPARED, &message.base, 0, 0, err);
}

ShoalStatus shoal_link_post_ready(ShoalLink *link, uint64_t generation, ShoalClusterVersion version,
                                  int current_step, ShoalError *err) {
    Shoal__Ready message = SHOAL__READY__INIT;
    Shoal__Version held = SHOAL__VERSION__INIT;
    held.held = version.held;
    held.updates = version.updates;
    held.generation = version.generation;
    message.generation = generation;
    message.version = &held;
    message.current_step = (uint32_t)current_step;
    return post(link, SHOAL_MESSAGE_READY, &message.base, generation, 0, err);
}

ShoalStatus shoal_link_post_report(ShoalLink *link, const Shoal__Report *report, ShoalError *err) {
    return post(link, SHOAL_MESSAGE_REPORT, &report->base, report->generation, report->round, err);
}

ShoalStatus shoal_link_post_chunk(ShoalLink *link, const Shoal__Chunk *chunk, ShoalError *err) {
    pthread_mutex_lock(&link->lock);
    while (link->posted_bytes > BACKLOG_BYTES && !link->over)
        pthread_cond_wait(&link->changed, &link->lock);
    bool over = link->over;
    pthread_mutex_unlock(&link->lock);
    return over ? shoal_error_set(err, SHOAL_ERR_LOST, "the connection to the coordinator ended")
                : post(link, SHOAL_MESSAGE_CHUNK, &chunk->base, 0, 0, err);
}

void shoal_link_post_aborted(ShoalLink *link, uint64_t generation, int suspect_rank,
                             const char *text) {
    Shoal__Aborted message = SHOAL__ABORTED__INIT;
    message.generation = generation;
    message.suspect_rank = suspect_rank;
    message.text = (char *)text;
    (void)post(link, SHOAL_MESSAGE_ABORTED, &message.base, generation, 0, NULL);
}

void shoal_link_post_failure(ShoalLink *link, const ShoalError *failure) {
    Shoal__Failure message = SHOAL__FAILURE__INIT;
    message.status = failure->status;
    message.text = (char *)failure->text;
    (void)post(link, SHOAL_MESSAGE_FAILURE, &message.base, 0, 0, NULL);
}

/* ---- orders and slots ---- */

static void free_order(ShoalLink *link, ShoalLinkOrder *order) {
    if (order->slot >= 0)
        link->slots[order->slot].used = false;
    shoal_free(order->memory[0]);
    shoal_free(order->memory[1]);
    shoal_free(order);
}

ShoalStatus shoal_link_order(ShoalLink *link, const ShoalOrder *order, int slot, void *memory,
                             void *more_memory, ShoalError *err) {
    ShoalLinkOrder *item = shoal_calloc(1, sizeof *item);
    if (!item) {
        shoal_free(memory);
        shoal_free(more_memory);
        return shoal_error_memory(err, "an order", sizeof *item);
    }
    item->order = *order;
    item->slot = slot;
    item->memory[0] = memory;
    item->memory[1] = more_memory;
    pthread_mutex_lock(&link->lock);
    if (link->last_order)
        link->last_order->next = item;
    else
        link->first_order = item;
    link->last_order = item;
    pthread_cond_signal(&link->changed);
    pthread_mutex_unlock(&link->lock);
    return SHOAL_OK;
}

int shoal_link_take_slot(ShoalLink *link) {
    int found = -1;
    pthread_mutex_lock(&link->lock);
    for (int i = 0; i < link->n_slots && found < 0; i++)
        if (!link->slots[i].used && link->slots[i].slot)
            found = i;
    if (found >= 0)
        link->slots[found].used = true;
    pthread_mutex_unlock(&link->lock);
    return found;
}

void shoal_link_free_slot(ShoalLink *link, int slot) {
    ShoalLinkSlot *item = &link->slots[slot];
    if (item->message)
        shoal__round__free_unpacked(item->message, NULL);
    item->message = NULL;
    pthread_mutex_lock(&link->lock);
    item->used = false;
    pthread_mutex_unlock(&link->lock);
}

int shoal_link_slots(const ShoalLink *link) {
    return link->n_slots;
}

void shoal_link_attach(ShoalLink *link, ShoalReplica *replica, const ShoalJob *job,
                       ShoalSlot *const *slots) {
    pthread_mutex_lock(&link->lock);
    for (int i = 0; i < link->n_slots; i++)
        link->slots[i].slot = slots[i];
    link->replica = replica;
    link->job_of_replica = job;
    pthread_mutex_unlock(&link->lock);
}

ShoalStatus shoal_link_next(ShoalLink *link, ShoalOrder **order, bool *more, ShoalError *err) {
    pthread_mutex_lock(&link->lock);
    while (!link->first_order && !link->over)
        pthread_cond_wait(&link->changed, &link->lock);
    ShoalLinkOrder *item = link->over ? NULL : link->first_order;
    if (item) {
        link->first_order = item->next;
        if (!item->next)
            link->last_order = NULL;
    }
    ShoalError failure = link->error;
    pthread_mutex_unlock(&link->lock);
    *more = item != NULL;
    *order = item ? &item->order : NULL;
    return item || !failure.status ? SHOAL_OK
                                   : shoal_error_set(err, failure.status, "%s", failure.text);
}

bool shoal_link_is_current(ShoalLink *link, const ShoalOrder *order) {
    pthread_mutex_lock(&link->lock);
    bool current =
        !link->over && (order->kind == SHOAL_ORDER_JOB || order->generation == link->generation);
    pthread_mutex_unlock(&link->lock);
    return current;
}

void shoal_link_finish(ShoalLink *link, ShoalOrder *order) {
    pthread_mutex_lock(&link->lock);
    free_order(link, (ShoalLinkOrder *)(void *)order);
    pthread_mutex_unlock(&link->lock);
}

bool shoal_link_is_final(const ShoalLink *link) {
    return link->final;
}

bool shoal_link_forgets(const ShoalLink *link) {
    return link->forget;
}

bool shoal_link_rests(const ShoalLink *link) {
    return link->rests;
}

uint64_t shoal_link_generation(ShoalLink *link) {
    pthread_mutex_lock(&link->lock);
    uint64_t generation = link->generation;
    pthread_mutex_unlock(&link->lock);
    return generation;
}

/* ---- the link thread's side ---- */

static ShoalStatus run_staged(ShoalLink *link, uint64_t generation, uint64_t round,
                              ShoalError *err) {
    if (!link->n_staged)
        return shoal_link_malformed(err);
    int slot = link->staged[0];
    memmove(link->staged, link->staged + 1, (size_t)--link->n_staged * sizeof *link->staged);
    const ShoalOrder order = {.kind = SHOAL_ORDER_RUN,
                              .generation = generation,
                              .round = round,
                              .slot = link->slots[slot].slot};
    return shoal_link_order(link, &order, slot, NULL, NULL, err);
}

/* Carries out what the core says; CONNECT and START have been ordered with their messages. */
static ShoalStatus pump(ShoalLink *link, bool *over, ShoalError *err) {
    ShoalWorkerAction action;
    ShoalStatus status = SHOAL_OK;
    while (!status && shoal_worker_next_action(&link->core, &action)) {
        if (action.kind == SHOAL_WORKER_RUN)
            status = run_staged(link, action.generation, action.round, err);
        else if (action.kind == SHOAL_WORKER_STOP)
            *over = true;
    }
    return status;
}

static void note_post(ShoalLink *link, const ShoalPost *item) {
    if (item->type == SHOAL_MESSAGE_READY)
        shoal_worker_connected(&link->core, item->generation);
    if (item->type == SHOAL_MESSAGE_REPORT)
        shoal_worker_done(&link->core, item->generation, item->round);
    if (item->type == SHOAL_MESSAGE_ABORTED)
        shoal_worker_ring_lost(&link->core, item->generation);
}

/* The oldest post, while the connection has not too much to do; NULL: none. */
static ShoalPost *take_post(ShoalLink *link) {
    if (shoal_channel_pending(link->channel) > BACKLOG_BYTES)
        return NULL;
    pthread_mutex_lock(&link->lock);
    ShoalPost *item = link->first_post;
    if (item) {
        link->first_post = item->next;
        if (!item->next)
            link->last_post = NULL;
        link->posted_bytes -= item->size;
        pthread_cond_broadcast(&link->changed);
    }
    pthread_mutex_unlock(&link->lock);
    return item;
}

static ShoalStatus send_posts(ShoalLink *link, ShoalError *err) {
    ShoalStatus status = SHOAL_OK;
    for (ShoalPost *item; !status && (item = take_post(link));) {
        note_post(link, item);
        status = shoal_channel_queue(link->channel, (uint16_t)item->type, item->payload, item->size,
                                     err);
        shoal_free(item);
    }
    return status;
}

static bool has_posts(ShoalLink *link) {
    pthread_mutex_lock(&link->lock);
    bool any = link->first_post != NULL;
    pthread_mutex_unlock(&link->lock);
    return any;
}

static ShoalStatus receive_all(ShoalLink *link, bool *over, ShoalError *err) {
    for (;;) {
        ShoalChannelEvent event;
        ShoalFrame frame;
        ShoalStatus status = shoal_channel_receive(link->channel, &event, &frame, err);
        if (!status && event == SHOAL_CHANNEL_CLOSED)
            status = shoal_error_set(err, SHOAL_ERR_LOST, "it closed the connection");
        if (status) {
            shoal_error_prefix(err, "the coordinator at %s is lost",
                               shoal_channel_peer(link->channel));
            return status;
        }
        if (event == SHOAL_CHANNEL_NOTHING)
            return SHOAL_OK;
        link->heard_ms = shoal_clock_ms();
        status = shoal_link_take(link, &frame, err);
        if (!status)
            status = pump(link, over, err);
        if (status || *over)
            return status;
    }
}

static ShoalReplica *replica_of(ShoalLink *link) {
    pthread_mutex_lock(&link->lock);
    ShoalReplica *replica = link->replica;
    pthread_mutex_unlock(&link->lock);
    return replica;
}

static void say_leave(ShoalLink *link, const char *reason, bool stopped) {
    Shoal__Leave message = SHOAL__LEAVE__INIT;
    message.reason = (char *)reason;
    message.stopped = stopped;
    (void)shoal_message_queue(link->channel, SHOAL_MESSAGE_LEAVE, &message.base, NULL);
}

/* Looks how the device is, and does what is good for it: computes less, or leaves to rest. */
static ShoalStatus keep_well(ShoalLink *link, ShoalError *err) {
    uint64_t now = shoal_clock_ms();
    if (now < link->next_vitals_ms)
        return SHOAL_OK;
    link->next_vitals_ms = now + VITALS_MS;
    shoal_vitals_read(shoal_system_root(), &link->vitals);
    const ShoalCareAdvice *advice = shoal_care_observe(link->care, now, &link->vitals);
    ShoalReplica *replica = replica_of(link);
    if (replica)
        shoal_replica_set_duty(replica, advice->duty);
    if (!advice->rest)
        return SHOAL_OK;
    link->rests = true;
    say_leave(link, advice->text, false);
    return shoal_error_set(err, SHOAL_ERR_LOST, "resting: %s", advice->text);
}

/* What the coordinator's people should know of this device. */
static char *remark(ShoalLink *link) {
    const ShoalVitals *vitals = &link->vitals;
    int limit = link->charge_limit;
    if (link->care->advice.text[0])
        return link->care->advice.text;
    /* A little beyond is how a limit that works looks. */
    if (limit <= 0 || vitals->battery <= limit + CHARGE_SLACK || !vitals->charging)
        return (char *)"";
    snprintf(link->remark, sizeof link->remark,
             "the battery has %d %% and is still charged; it should have %d %% at most: use the "
             "phone's own setting, or pull its charger",
             vitals->battery, limit);
    return link->remark;
}

static ShoalStatus keep_heartbeat(ShoalLink *link, ShoalError *err) {
    uint64_t now = shoal_clock_ms();
    if (now >= link->heard_ms + link->silence_ms)
        return shoal_error_set(err, SHOAL_ERR_LOST,
                               "the coordinator at %s is lost: no word from it for %u ms",
                               shoal_channel_peer(link->channel), link->silence_ms);
    if (now < link->next_heartbeat_ms)
        return SHOAL_OK;
    link->next_heartbeat_ms = now + link->heartbeat_ms;
    Shoal__Heartbeat message = SHOAL__HEARTBEAT__INIT;
    message.temperature = link->vitals.temperature;
    message.clock = link->vitals.clock;
    message.battery = link->vitals.battery;
    message.charging = link->vitals.charging;
    message.battery_temperature = link->vitals.battery_temperature;
    message.duty = link->care->advice.duty;
    message.remark = remark(link);
    const ShoalReplica *replica = replica_of(link);
    if (replica) {
        message.stage = (Shoal__Stage)shoal_replica_stage(replica);
        message.progress = shoal_replica_progress(replica);
    }
    return shoal_message_queue(link->channel, SHOAL_MESSAGE_HEARTBEAT, &message.base, err);
}

static bool is_closing(ShoalLink *link) {
    pthread_mutex_lock(&link->lock);
    bool closing = link->closing;
    pthread_mutex_unlock(&link->lock);
    return closing;
}

static void wait_for_work(ShoalLink *link) {
    short out = shoal_channel_wants_write(link->channel) ? POLLOUT : 0;
    struct pollfd polls[] = {
        {.fd = shoal_channel_fd(link->channel), .events = (short)(POLLIN | out)},
        {.fd = link->post_fd, .events = POLLIN},
    };
    int timeout = shoal_socket_timeout_ms(link->next_heartbeat_ms);
    timeout = timeout < 0 || timeout > STOP_POLL_MS ? STOP_POLL_MS : timeout;
    if (!out && has_posts(link)) /* held back when there was too much to send */
        timeout = 0;
    if (poll(polls, 2, timeout) > 0 && polls[1].revents) {
        uint64_t count;
        ssize_t n = read(link->post_fd, &count, sizeof count);
        (void)n;
    }
}

static ShoalStatus serve(ShoalLink *link, ShoalError *err) {
    bool over = false;
    ShoalStatus status = SHOAL_OK;
    while (!status && !over && !is_closing(link)) {
        if (shoal_stop_asked(link->stop) == SHOAL_STOP_NOW) {
            say_leave(link, "it was stopped there", true);
            return shoal_error_set(err, SHOAL_ERR_STOPPED, "stopped on request");
        }
        wait_for_work(link);
        status = send_posts(link, err);
        if (!status)
            status = pump(link, &over, err);
        if (!status)
            status = receive_all(link, &over, err);
        if (!status)
            status = keep_well(link, err);
        if (!status)
            status = keep_heartbeat(link, err);
        if (!status)
            status = shoal_channel_flush(link->channel, err);
    }
    return status;
}

/* What was posted last (why this worker fails) still has to leave. */
static void flush_rest(ShoalLink *link) {
    uint64_t deadline = shoal_clock_ms() + GOODBYE_MS;
    while (shoal_clock_ms() < deadline) {
        if (send_posts(link, NULL) || shoal_channel_flush(link->channel, NULL))
            return;
        if (shoal_channel_wants_write(link->channel))
            shoal_clock_sleep_ms(2);
        else if (!has_posts(link))
            return;
    }
}

/* What this worker's cache holds: the coordinator need not send that. */
static ShoalStatus send_holdings(ShoalLink *link, ShoalError *err) {
    ShoalFingerprint dataset;
    ShoalStatus status = SHOAL_OK;
    for (size_t i = 0; link->cache && !status && shoal_cache_dataset(link->cache, i, &dataset);
         i++) {
        Shoal__Holdings message = SHOAL__HOLDINGS__INIT;
        message.fingerprint.data = dataset.bytes;
        message.fingerprint.len = sizeof dataset.bytes;
        status = shoal_cache_list(link->cache, &dataset, &message.ranges, &message.n_ranges, err);
        if (status)
            return status;
        status = shoal_message_queue(link->channel, SHOAL_MESSAGE_HOLDINGS, &message.base, err);
        shoal_free(message.ranges);
    }
    return status;
}

static void *link_main(void *argument) {
    ShoalLink *link = argument;
    ShoalError err = {0};
    ShoalStatus status = send_holdings(link, &err);
    if (!status)
        status = serve(link, &err);
    if (status == SHOAL_ERR_DATA || status == SHOAL_ERR_UNSUPPORTED || status == SHOAL_ERR_MEMORY ||
        status == SHOAL_ERR_PROTOCOL)
        shoal_link_post_failure(link, &err);
    flush_rest(link);
    pthread_mutex_lock(&link->lock);
    link->over = true;
    link->error = err;
    uint64_t generation = link->generation;
    if (link->replica)
        shoal_replica_cancel(link->replica, true);
    pthread_cond_broadcast(&link->changed);
    pthread_mutex_unlock(&link->lock);
    shoal_collective_abort(link->ring, generation + 1);
    return NULL;
}

/* ---- life ---- */

static ShoalStatus open_link(ShoalLink *link, ShoalError *err) {
    link->slots = shoal_calloc((size_t)link->n_slots, sizeof *link->slots);
    link->open = shoal_calloc((size_t)link->n_slots, sizeof *link->open);
    link->staged = shoal_calloc((size_t)link->n_slots, sizeof *link->staged);
    link->post_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (!link->slots || !link->open || !link->staged || link->post_fd < 0 ||
        pthread_create(&link->thread, NULL, link_main, link))
        return shoal_error_memory(err, "the connection", sizeof *link);
    link->started = true;
    return SHOAL_OK;
}

ShoalStatus shoal_link_create(const ShoalLinkOptions *options, ShoalLink **out, ShoalError *err) {
    ShoalLink *link = shoal_calloc(1, sizeof *link);
    if (!link)
        return shoal_error_memory(err, "the connection", sizeof *link);
    const ShoalJoined *joined = options->joined;
    link->channel = options->channel;
    link->stop = options->stop;
    link->ring = options->ring;
    link->cache = options->cache;
    link->care = options->care;
    link->charge_limit = options->charge_limit;
    link->heartbeat_ms = joined->heartbeat_ms;
    link->silence_ms = joined->silence_ms;
    link->heard_ms = shoal_clock_ms();
    link->format = (ShoalWireFormat)joined->wire_format;
    link->encrypt = joined->encrypt;
    link->key = joined->key;
    link->post_fd = -1;
    /* One more than the window: of the generation before, a round may still be running. */
    link->n_slots = (int)joined->window + 1;
    shoal_worker_init(&link->core, joined->window);
    pthread_mutex_init(&link->lock, NULL);
    pthread_cond_init(&link->changed, NULL);
    ShoalStatus status = open_link(link, err);
    if (status)
        shoal_link_destroy(link);
    else
        *out = link;
    return status;
}

static void free_lists(ShoalLink *link) {
    for (ShoalPost *item = link->first_post, *next; item; item = next) {
        next = item->next;
        shoal_free(item);
    }
    for (ShoalLinkOrder *item = link->first_order, *next; item; item = next) {
        next = item->next;
        free_order(link, item);
    }
    for (int i = 0; link->slots && i < link->n_slots; i++)
        if (link->slots[i].message)
            shoal__round__free_unpacked(link->slots[i].message, NULL);
}

void shoal_link_destroy(ShoalLink *link) {
    if (!link)
        return;
    if (link->started) {
        pthread_mutex_lock(&link->lock);
        link->closing = true;
        pthread_mutex_unlock(&link->lock);
        signal_fd(link->post_fd);
        pthread_join(link->thread, NULL);
        shoal_channel_destroy(link->channel);
    }
    free_lists(link);
    if (link->post_fd >= 0)
        close(link->post_fd);
    pthread_cond_destroy(&link->changed);
    pthread_mutex_destroy(&link->lock);
    shoal_free(link->slots);
    shoal_free(link->open);
    shoal_free(link->staged);
    shoal_buffer_close(&link->job);
    shoal_buffer_close(&link->seed);
    shoal_auth_forget(&link->key, sizeof link->key);
    shoal_free(link);
}
