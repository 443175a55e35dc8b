/* SPDX-License-Identifier: Apache-2.0 */
#include "train/link.h"

#include <poll.h>
#include <pthread.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/memory.h"
#include "base/stop.h"
#include "cluster/worker.h"
#include "shoal/shoal.h"
#include "train/chunk.h"
#include "train/pipe.h"

enum { EXTRA_ITEMS = 2, GOODBYE_MS = 3000 };

/* Something to send, in the order of posting. */
typedef struct Post {
    struct Post *next;
    ShoalMessageType type;
    uint64_t generation, round;
    size_t size;
    unsigned char payload[];
} Post;

/* The memory behind an order. */
typedef struct Item {
    ShoalOrderKind kind;
    ShoalSlot *slot;
    uint64_t generation, round;
} Item;

struct ShoalLink {
    ShoalChannel *channel;
    volatile sig_atomic_t *stop;
    unsigned heartbeat_ms;
    uint64_t next_heartbeat_ms;
    ShoalWorker core;

    pthread_t thread;
    bool started;
    ShoalPipe *pipe;
    Item *items;
    int n_items, n_slots;
    int *staged, n_staged; /* rounds that wait for the core's word, in order */

    ShoalBuffer job;  /* packed, as far as it has come */
    ShoalAuthKey key; /* of the token */
    ShoalRingConfig config;
    ShoalAddress *members;

    int over_fd, post_fd; /* eventfds */
    pthread_mutex_t lock; /* of what follows */
    Post *first, *last;
    bool closing;
};

static void signal_fd(int fd) {
    uint64_t one = 1;
    ssize_t n = write(fd, &one, sizeof one);
    (void)n; /* a full counter is readable, too */
}

/* ---- the main thread's side ---- */

static ShoalStatus post(ShoalLink *link, ShoalMessageType type, const ProtobufCMessage *message,
                        uint64_t generation, uint64_t round, ShoalError *err) {
    size_t size = protobuf_c_message_get_packed_size(message);
    Post *item = shoal_calloc(1, sizeof *item + size);
    if (!item)
        return shoal_error_memory(err, "a message", size);
    item->type = type;
    item->generation = generation;
    item->round = round;
    item->size = protobuf_c_message_pack(message, item->payload);
    pthread_mutex_lock(&link->lock);
    if (link->last)
        link->last->next = item;
    else
        link->first = item;
    link->last = item;
    pthread_mutex_unlock(&link->lock);
    signal_fd(link->post_fd);
    return SHOAL_OK;
}

ShoalStatus shoal_link_post_ready(ShoalLink *link, uint64_t generation, ShoalError *err) {
    Shoal__Ready message = SHOAL__READY__INIT;
    message.generation = generation;
    return post(link, SHOAL_MESSAGE_READY, &message.base, generation, 0, err);
}

ShoalStatus shoal_link_post_report(ShoalLink *link, const Shoal__Report *report, ShoalError *err) {
    return post(link, SHOAL_MESSAGE_REPORT, &report->base, report->generation, report->round, err);
}

ShoalStatus shoal_link_post_chunks(ShoalLink *link, Shoal__ChunkKind kind, uint64_t round,
                                   const void *bytes, size_t size, ShoalError *err) {
    ShoalStatus status = SHOAL_OK;
    for (size_t at = 0; at < size && !status;) {
        Shoal__Chunk chunk;
        at = shoal_chunk_cut(kind, round, bytes, size, at, &chunk);
        status = post(link, SHOAL_MESSAGE_CHUNK, &chunk.base, 0, 0, err);
    }
    return status;
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

int shoal_link_slots(const ShoalLink *link) {
    return link->n_items;
}

ShoalStatus shoal_link_attach(ShoalLink *link, const ShoalReplica *replica, ShoalError *err) {
    for (int i = 0; i < link->n_items; i++) {
        link->items[i].slot = shoal_slot_create(replica);
        if (!link->items[i].slot)
            return shoal_error_set(err, SHOAL_ERR_MEMORY,
                                   "out of memory: no room for the samples of %d batches; use a "
                                   "smaller batch_size or more workers",
                                   link->n_items);
    }
    return SHOAL_OK;
}

ShoalStatus shoal_link_next(ShoalLink *link, ShoalOrder *order, bool *more, ShoalError *err) {
    int number = shoal_pipe_pop(link->pipe);
    *more = number >= 0;
    if (number < 0)
        return shoal_pipe_error(link->pipe, err);
    const Item *item = &link->items[number];
    *order = (ShoalOrder){.kind = item->kind,
                          .item = number,
                          .bytes = link->job.bytes,
                          .size = link->job.used,
                          .config = &link->config,
                          .slot = item->slot,
                          .generation = item->generation,
                          .round = item->round};
    return SHOAL_OK;
}

void shoal_link_finish(ShoalLink *link, const ShoalOrder *order) {
    shoal_pipe_recycle(link->pipe, order->item);
}

/* ---- the link thread's side: what comes in ---- */

static ShoalStatus malformed(ShoalError *err) {
    return shoal_error_set(err, SHOAL_ERR_PROTOCOL,
                           "the coordinator sent a message that makes no sense");
}

static ShoalStatus give_order(ShoalLink *link, ShoalOrderKind kind, uint64_t generation,
                              ShoalError *err) {
    int number = shoal_pipe_take(link->pipe, false);
    if (number < 0)
        return malformed(err);
    link->items[number].kind = kind;
    link->items[number].generation = generation;
    shoal_pipe_push(link->pipe, number);
    return SHOAL_OK;
}

static ShoalStatus append_job(ShoalLink *link, const Shoal__Chunk *chunk, ShoalError *err) {
    size_t n = chunk->content.len;
    if (chunk->kind != SHOAL__CHUNK_KIND__CHUNK_JOB || chunk->offset != link->job.used ||
        chunk->total < link->job.used + n || n == 0)
        return malformed(err);
    ShoalStatus status = shoal_buffer_append(&link->job, chunk->content.data, n, "the job", err);
    if (status)
        return status;
    return link->job.used == chunk->total ? give_order(link, SHOAL_ORDER_JOB, 0, err) : SHOAL_OK;
}

static ShoalStatus take_chunk(ShoalLink *link, const ShoalFrame *frame, ShoalError *err) {
    Shoal__Chunk *chunk = shoal__chunk__unpack(NULL, frame->size, frame->payload);
    if (!chunk)
        return malformed(err);
    ShoalStatus status = append_job(link, chunk, err);
    shoal__chunk__free_unpacked(chunk, NULL);
    return status;
}

/* The secret travels unencrypted: with the token's key in it, listening in is not enough to join
 * the ring. */
static void make_ring_key(ShoalLink *link, const Shoal__Generation *message) {
    static const unsigned char NOTHING[SHOAL_AUTH_BYTES];
    ShoalAuthKey mixed;
    shoal_auth_session_key(&link->key, SHOAL_AUTH_COORDINATOR, message->ring_secret.data, NOTHING,
                           &mixed);
    shoal_auth_ring_key(mixed.bytes, message->generation, &link->config.key);
    shoal_auth_forget(&mixed, sizeof mixed);
}

static ShoalStatus store_members(ShoalLink *link, const Shoal__Generation *message,
                                 ShoalError *err) {
    ShoalAddress *members = shoal_calloc(message->n_members, sizeof *members);
    if (!members)
        return shoal_error_memory(err, "the members", message->n_members * sizeof *members);
    for (size_t i = 0; i < message->n_members; i++) {
        const Shoal__Member *member = message->members[i];
        if (member->ring_port < 1 || member->ring_port > UINT16_MAX ||
            shoal_address_from_host(member->address, (uint16_t)member->ring_port, &members[i],
                                    NULL)) {
            shoal_free(members);
            return malformed(err);
        }
    }
    shoal_free(link->members);
    link->members = members;
    link->config = (ShoalRingConfig){.generation = message->generation,
                                     .rank = message->rank,
                                     .size = (unsigned)message->n_members,
                                     .members = members,
                                     .wake_fd = link->over_fd};
    make_ring_key(link, message);
    return SHOAL_OK;
}

static ShoalStatus take_generation(ShoalLink *link, const ShoalFrame *frame, ShoalError *err) {
    Shoal__Generation *message = shoal__generation__unpack(NULL, frame->size, frame->payload);
    if (!message)
        return malformed(err);
    ShoalStatus status = SHOAL_OK;
    if (message->n_members < 1 || message->n_members > SHOAL_RING_MAX_SIZE ||
        message->ring_secret.len != SHOAL_AUTH_BYTES)
        status = malformed(err);
    if (!status)
        status = shoal_worker_generation(&link->core, message->generation, message->rank,
                                         (unsigned)message->n_members, err);
    if (!status)
        status = store_members(link, message, err);
    shoal__generation__free_unpacked(message, NULL);
    return status;
}

static bool fill_round(const Shoal__Round *message, ShoalRound *round) {
    if (message->iteration > INT32_MAX || message->current_step > INT32_MAX ||
        message->count > message->batch || message->batch > INT32_MAX ||
        message->kind > SHOAL__ROUND_KIND__ROUND_LOSS)
        return false;
    *round = (ShoalRound){.kind = (ShoalStepKind)message->kind,
                          .number = message->number,
                          .iter = (int)message->iteration,
                          .rate = message->rate,
                          .current_step = (int)message->current_step,
                          .net = (int)message->net,
                          .first_sample = message->first_sample,
                          .count = (int)message->count,
                          .batch = (int)message->batch,
                          .clear = message->clear,
                          .update = message->update};
    return true;
}

static ShoalStatus stage_round(ShoalLink *link, const Shoal__Round *message, ShoalError *err) {
    int number = shoal_pipe_take(link->pipe, false);
    Item *item = number < 0 ? NULL : &link->items[number];
    if (!item || !item->slot || !fill_round(message, shoal_slot_round(item->slot)) ||
        !shoal_slot_fits(item->slot, message->n_batches))
        return malformed(err);
    for (size_t s = 0; s < message->n_batches; s++) {
        uint64_t size = message->batches[s]->dataset_size;
        if (message->batches[s]->n_records != shoal_slot_records(item->slot, (int)s) || !size)
            return malformed(err);
        for (size_t i = 0; i < message->batches[s]->n_records; i++) {
            const ProtobufCBinaryData *bytes = &message->batches[s]->records[i];
            ShoalRecord record = {bytes->data, bytes->len};
            ShoalStatus status =
                shoal_slot_stage(item->slot, (int)s, (int)i, &record,
                                 (message->batches[s]->first_record + i) % size, err);
            if (status)
                return status;
        }
    }
    item->kind = SHOAL_ORDER_RUN;
    item->generation = message->generation;
    item->round = message->number;
    link->staged[link->n_staged++] = number;
    return SHOAL_OK;
}

static ShoalStatus take_round(ShoalLink *link, const ShoalFrame *frame, ShoalError *err) {
    Shoal__Round *message = shoal__round__unpack(NULL, frame->size, frame->payload);
    if (!message)
        return malformed(err);
    bool accepted;
    ShoalStatus status =
        shoal_worker_round(&link->core, message->generation, message->number, &accepted, err);
    if (!status && accepted)
        status = stage_round(link, message, err);
    shoal__round__free_unpacked(message, NULL);
    return status;
}

static ShoalStatus take_stop(ShoalLink *link, const ShoalFrame *frame, ShoalError *err) {
    Shoal__Stop *message = shoal__stop__unpack(NULL, frame->size, frame->payload);
    ShoalStatus status = SHOAL_OK;
    if (message && message->reason[0])
        status = shoal_error_set(err, SHOAL_ERR_LOST, "the coordinator ended the run: %s",
                                 message->reason);
    if (message)
        shoal__stop__free_unpacked(message, NULL);
    shoal_worker_stop(&link->core);
    return status;
}

static ShoalStatus take_refuse(const ShoalFrame *frame, ShoalError *err) {
    Shoal__Refuse *message = shoal__refuse__unpack(NULL, frame->size, frame->payload);
    ShoalStatus status = shoal_error_set(err, SHOAL_ERR_LOST, "the coordinator refuses: %s",
                                         message ? message->reason : "no reason given");
    if (message)
        shoal__refuse__free_unpacked(message, NULL);
    return status;
}

static ShoalStatus take_frame(ShoalLink *link, const ShoalFrame *frame, ShoalError *err) {
    switch (frame->type) {
    case SHOAL_MESSAGE_CHUNK:
        return take_chunk(link, frame, err);
    case SHOAL_MESSAGE_GENERATION:
        return take_generation(link, frame, err);
    case SHOAL_MESSAGE_ROUND:
        return take_round(link, frame, err);
    case SHOAL_MESSAGE_STOP:
        return take_stop(link, frame, err);
    case SHOAL_MESSAGE_REFUSE:
        return take_refuse(frame, err);
    case SHOAL_MESSAGE_HEARTBEAT:
        return SHOAL_OK;
    default:
        return malformed(err);
    }
}

/* ---- the link thread's side: what goes out ---- */

static void run_staged(ShoalLink *link) {
    if (!link->n_staged)
        return;
    int number = link->staged[0];
    memmove(link->staged, link->staged + 1, (size_t)--link->n_staged * sizeof *link->staged);
    shoal_pipe_push(link->pipe, number);
}

/* Carries out what the core says; *over when it is the end. */
static ShoalStatus pump(ShoalLink *link, bool *over, ShoalError *err) {
    ShoalWorkerAction action;
    ShoalStatus status = SHOAL_OK;
    while (!status && shoal_worker_next_action(&link->core, &action)) {
        if (action.kind == SHOAL_WORKER_CONNECT)
            status = give_order(link, SHOAL_ORDER_CONNECT, action.generation, err);
        else if (action.kind == SHOAL_WORKER_RUN)
            run_staged(link);
        else if (action.kind == SHOAL_WORKER_STOP)
            *over = true;
    }
    return status;
}

static void note_post(ShoalLink *link, const Post *item) {
    if (item->type == SHOAL_MESSAGE_READY)
        shoal_worker_connected(&link->core, item->generation);
    if (item->type == SHOAL_MESSAGE_REPORT)
        shoal_worker_done(&link->core, item->generation, item->round);
    if (item->type == SHOAL_MESSAGE_ABORTED)
        shoal_worker_ring_lost(&link->core, item->generation);
}

static ShoalStatus send_posts(ShoalLink *link, ShoalError *err) {
    pthread_mutex_lock(&link->lock);
    Post *item = link->first;
    link->first = link->last = NULL;
    pthread_mutex_unlock(&link->lock);
    ShoalStatus status = SHOAL_OK;
    while (item) {
        Post *next = item->next;
        if (!status) {
            note_post(link, item);
            status = shoal_channel_queue(link->channel, (uint16_t)item->type, item->payload,
                                         item->size, err);
        }
        shoal_free(item);
        item = next;
    }
    return status;
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
        status = take_frame(link, &frame, err);
        if (!status)
            status = pump(link, over, err);
        if (status || *over)
            return status;
    }
}

static ShoalStatus keep_heartbeat(ShoalLink *link, ShoalError *err) {
    uint64_t now = shoal_clock_ms();
    if (now < link->next_heartbeat_ms)
        return SHOAL_OK;
    link->next_heartbeat_ms = now + link->heartbeat_ms;
    return shoal_channel_queue(link->channel, SHOAL_MESSAGE_HEARTBEAT, NULL, 0, err);
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
        if (shoal_stop_asked(link->stop) == SHOAL_STOP_NOW)
            return shoal_error_set(err, SHOAL_ERR_STOPPED, "stopped on request");
        wait_for_work(link);
        status = send_posts(link, err);
        if (!status)
            status = keep_heartbeat(link, err);
        if (!status)
            status = pump(link, &over, err);
        if (!status)
            status = receive_all(link, &over, err);
        if (!status)
            status = shoal_channel_flush(link->channel, err);
    }
    return status;
}

/* What was posted last (why this worker fails) still has to leave. */
static void flush_rest(ShoalLink *link) {
    uint64_t deadline = shoal_clock_ms() + GOODBYE_MS;
    if (send_posts(link, NULL))
        return;
    while (shoal_channel_wants_write(link->channel) && shoal_clock_ms() < deadline) {
        if (shoal_channel_flush(link->channel, NULL))
            return;
        if (shoal_channel_wants_write(link->channel))
            shoal_clock_sleep_ms(2);
    }
}

static void *link_main(void *argument) {
    ShoalLink *link = argument;
    ShoalError err = {0};
    ShoalStatus status = serve(link, &err);
    if (status == SHOAL_ERR_DATA || status == SHOAL_ERR_UNSUPPORTED || status == SHOAL_ERR_MEMORY ||
        status == SHOAL_ERR_PROTOCOL)
        shoal_link_post_failure(link, &err);
    flush_rest(link);
    signal_fd(link->over_fd);
    shoal_pipe_close(link->pipe, &err);
    return NULL;
}

/* ---- life ---- */

ShoalStatus shoal_link_create(ShoalChannel *channel, const ShoalJoined *joined,
                              volatile sig_atomic_t *stop, ShoalLink **out, ShoalError *err) {
    ShoalLink *link = shoal_calloc(1, sizeof *link);
    if (!link)
        return shoal_error_memory(err, "the connection", sizeof *link);
    link->channel = channel;
    link->stop = stop;
    link->heartbeat_ms = joined->heartbeat_ms;
    link->key = joined->key;
    shoal_worker_init(&link->core, joined->window);
    pthread_mutex_init(&link->lock, NULL);
    link->n_items = (int)joined->window + EXTRA_ITEMS;
    link->items = shoal_calloc((size_t)link->n_items, sizeof *link->items);
    link->staged = shoal_calloc((size_t)link->n_items, sizeof *link->staged);
    link->pipe = shoal_pipe_create(link->n_items);
    link->over_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    link->post_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (!link->items || !link->staged || !link->pipe || link->over_fd < 0 || link->post_fd < 0 ||
        pthread_create(&link->thread, NULL, link_main, link)) {
        shoal_link_destroy(link);
        return shoal_error_memory(err, "the connection", sizeof *link);
    }
    link->started = true;
    *out = link;
    return SHOAL_OK;
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
    for (Post *item = link->first, *next; item; item = next) {
        next = item->next;
        shoal_free(item);
    }
    for (int i = 0; link->items && i < link->n_items; i++)
        shoal_slot_destroy(link->items[i].slot);
    shoal_pipe_destroy(link->pipe);
    if (link->over_fd >= 0)
        close(link->over_fd);
    if (link->post_fd >= 0)
        close(link->post_fd);
    pthread_mutex_destroy(&link->lock);
    shoal_free(link->items);
    shoal_free(link->staged);
    shoal_buffer_close(&link->job);
    shoal_free(link->members);
    shoal_auth_forget(&link->key, sizeof link->key);
    shoal_auth_forget(&link->config.key, sizeof link->config.key);
    shoal_free(link);
}
