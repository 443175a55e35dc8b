/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_UNIT_TRAIN_HANDSHAKE_ENDS_H
#define TESTS_UNIT_TRAIN_HANDSHAKE_ENDS_H

/* Both ends of a handshake: a worker in a thread of its own, and a coordinator that the test steps.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>
#include <stdbool.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "collective/wire.h"
#include "train/handshake.h"

#define PATIENCE_MS 30000
#define STRANGER SHOAL_MESSAGE_LIMIT_STRANGER
#define N SHOAL_AUTH_BYTES

static const unsigned char JOB[16] = "the job's number", CACHE[16] = "the cache's name";
static const char NAME[] = "name-of-a-phone";
static const char RECORD[] = "record that may be seen";
static const char BEAT[] = "words that may not be seen";

static ShoalAuthKey token_key(const char *token) {
    ShoalAuthKey key;
    ShoalError err = {0};
    assert_int_equal(shoal_auth_token_key(token, &key, &err), 0);
    return key;
}

static ShoalAuthKey right_key(void) {
    return token_key("the cluster's own token");
}

static ShoalChannel *new_channel(int fd) {
    ShoalChannel *channel;
    ShoalError err = {0};
    assert_int_equal(shoal_channel_create(fd, STRANGER, &channel, &err), 0);
    return channel;
}

static void new_pair(int fds[2]) {
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds), 0);
}

static ShoalStatus next_frame(ShoalChannel *channel, ShoalFrame *frame) {
    ShoalError err = {0};
    return shoal_channel_wait(channel, -1, shoal_clock_ms() + PATIENCE_MS, frame, &err);
}

/* ---- a worker in a thread of its own ---- */

typedef struct Worker {
    pthread_t thread;
    ShoalChannel *channel;
    ShoalAuthKey key;
    ShoalJoinRequest request;
    bool talk; /* goes on after the Welcome: Prepared out; Samples and Heartbeat in */
    ShoalStatus status;
    ShoalJoined joined;
    ShoalError err;
    bool heard_all, heard_wrong;
} Worker;

static bool heard(Worker *worker, uint16_t type, const void *payload, size_t size) {
    ShoalFrame frame;
    if (next_frame(worker->channel, &frame))
        return false;
    bool same = frame.type == type && frame.size == size && !memcmp(frame.payload, payload, size);
    worker->heard_wrong |= !same;
    return same;
}

static void *work(void *argument) {
    Worker *worker = argument;
    worker->status =
        shoal_handshake_join(worker->channel, &worker->key, &worker->request,
                             shoal_clock_ms() + PATIENCE_MS, &worker->joined, &worker->err);
    if (!worker->status && worker->talk) {
        ShoalError err = {0};
        (void)shoal_channel_send(worker->channel, SHOAL_MESSAGE_PREPARED, BEAT, sizeof BEAT, -1,
                                 shoal_clock_ms() + PATIENCE_MS, &err);
        worker->heard_all = heard(worker, SHOAL_MESSAGE_SAMPLES, RECORD, sizeof RECORD) &&
                            heard(worker, SHOAL_MESSAGE_HEARTBEAT, BEAT, sizeof BEAT);
    }
    shoal_channel_destroy(worker->channel);
    return NULL;
}

static void start_worker(Worker *worker, int fd, ShoalAuthKey key) {
    *worker = (Worker){.channel = new_channel(fd),
                       .key = key,
                       .request = {.ring_port = 4711,
                                   .name = NAME,
                                   .cores = 8,
                                   .threads = 4,
                                   .cpu = "neon",
                                   .job_id = JOB,
                                   .held = true,
                                   .updates = 123,
                                   .version_generation = 7,
                                   .current_step = 2,
                                   .seed = 77,
                                   .session = UINT64_MAX - 1,
                                   .generation = 9,
                                   .cache_id = CACHE,
                                   .cache_bytes = UINT64_C(1) << 33}};
}

static void run_worker(Worker *worker) {
    assert_int_equal(pthread_create(&worker->thread, NULL, work, worker), 0);
}

/* ---- a coordinator ---- */

typedef struct Coordinator {
    ShoalChannel *channel;
    ShoalAuthKey key;
    ShoalGreeting greeting;
    bool joined;
    ShoalJoinInfo info;
    ShoalError err;
} Coordinator;

static void open_coordinator(Coordinator *coordinator, int fd) {
    *coordinator = (Coordinator){.channel = new_channel(fd), .key = right_key()};
}

static ShoalStatus answer(Coordinator *coordinator, const ShoalFrame *frame) {
    return shoal_handshake_answer(&coordinator->greeting, coordinator->channel, &coordinator->key,
                                  frame, &coordinator->joined, &coordinator->info,
                                  &coordinator->err);
}

static Shoal__Welcome good_welcome(void) {
    Shoal__Welcome welcome = SHOAL__WELCOME__INIT;
    welcome.worker_id = 3;
    welcome.session = UINT64_MAX;
    welcome.heartbeat_ms = 1000;
    welcome.silence_ms = 9000;
    welcome.window = 4;
    welcome.job_id = (ProtobufCBinaryData){16, (uint8_t *)JOB};
    welcome.has_job = true;
    welcome.keep_state = true;
    welcome.wire_format = SHOAL_WIRE_FP16;
    return welcome;
}

static void send_welcome(Coordinator *coordinator, const Shoal__Welcome *welcome) {
    ShoalError err = {0};
    assert_int_equal(
        shoal_message_queue(coordinator->channel, SHOAL_MESSAGE_WELCOME, &welcome->base, &err), 0);
    (void)shoal_channel_flush(coordinator->channel, &err);
}

static void say(ShoalChannel *channel, uint16_t type, const void *payload, size_t size) {
    ShoalError err = {0};
    assert_int_equal(shoal_channel_queue(channel, type, payload, size, &err), 0);
    (void)shoal_channel_flush(channel, &err);
}

static int set_up(void **state) {
    (void)state;
    ShoalError err = {0};
    return shoal_auth_init(&err);
}

#endif
