/* SPDX-License-Identifier: Apache-2.0 */
/* A handshake and what follows it, through someone who sees and may change every byte. */
#include "unit/train/handshake_ends.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>

#include "collective/crc32c.h"
#include "shoal/shoal.h"

#define CAPTURE 8192
enum { TO_COORDINATOR, TO_WORKER };

/* A whole conversation through someone who sees and may change every byte. */
typedef struct Tapped {
    bool encrypt;
    int direction;  /* whose bytes to change; -1: none */
    size_t at;      /* the byte of that direction's stream */
    bool new_check; /* of the first frame, the plain one: with a sound checksum again */
    /* what came of it */
    Worker worker;
    Coordinator coordinator;
    bool coordinator_heard_all, coordinator_heard_wrong;
    unsigned char capture[2][CAPTURE]; /* as sent, before changes */
    size_t captured[2];
} Tapped;

static size_t first_frame(const Tapped *tapped, int direction) {
    if (tapped->captured[direction] < SHOAL_CHANNEL_HEADER_BYTES)
        return SIZE_MAX;
    return SHOAL_CHANNEL_HEADER_BYTES + shoal_wire_get32(tapped->capture[direction] + 8);
}

/* Passes on what has come; first frames as a whole. False: one side has closed. */
static bool pass(Tapped *tapped, int direction, int from, int to, size_t *passed) {
    unsigned char *bytes = tapped->capture[direction];
    size_t *n = &tapped->captured[direction];
    ssize_t got = recv(from, bytes + *n, CAPTURE - *n, 0);
    if (got <= 0)
        return got < 0 && (errno == EAGAIN || errno == EINTR);
    *n += (size_t)got;
    size_t first = first_frame(tapped, direction);
    if (*passed == 0 && *n < first)
        return true;
    unsigned char changed[CAPTURE];
    memcpy(changed, bytes, *n);
    if (direction == tapped->direction && tapped->at < *n) {
        changed[tapped->at] ^= (unsigned char)(1u << tapped->at % 8);
        if (tapped->new_check)
            shoal_wire_put32(changed + 12,
                             shoal_crc32c(shoal_crc32c(0, changed, 12), changed + 16, first - 16));
    }
    bool sent = send(to, changed + *passed, *n - *passed, MSG_NOSIGNAL) >= 0;
    *passed = *n;
    return sent;
}

/* The coordinator's part for the frames that are here now. False: it gives up. */
static bool coordinate(Tapped *tapped) {
    Coordinator *coordinator = &tapped->coordinator;
    for (;;) {
        ShoalChannelEvent event;
        ShoalFrame frame;
        if (shoal_channel_receive(coordinator->channel, &event, &frame, &coordinator->err) ||
            event == SHOAL_CHANNEL_CLOSED)
            return false;
        if (event == SHOAL_CHANNEL_NOTHING)
            return shoal_channel_flush(coordinator->channel, &coordinator->err) == SHOAL_OK;
        if (coordinator->joined) {
            bool same = frame.type == SHOAL_MESSAGE_PREPARED && frame.size == sizeof BEAT &&
                        !memcmp(frame.payload, BEAT, sizeof BEAT);
            tapped->coordinator_heard_wrong |= !same;
            tapped->coordinator_heard_all = same;
            continue;
        }
        if (answer(coordinator, &frame))
            return false;
        if (coordinator->joined) {
            Shoal__Welcome welcome = good_welcome();
            welcome.encrypt = tapped->encrypt;
            send_welcome(coordinator, &welcome);
            shoal_channel_bulk(coordinator->channel,
                               tapped->encrypt ? -1 : (int)SHOAL_MESSAGE_SAMPLES);
            say(coordinator->channel, SHOAL_MESSAGE_SAMPLES, RECORD, sizeof RECORD);
            say(coordinator->channel, SHOAL_MESSAGE_HEARTBEAT, BEAT, sizeof BEAT);
        }
    }
}

/* patience_ms: nothing moves for so long: whoever waits, waits in vain (a length was changed). */
static void converse(Tapped *tapped, int patience_ms) {
    int near_worker[2], near_coordinator[2];
    size_t passed[2] = {0, 0};
    bool open = true;
    new_pair(near_worker);
    new_pair(near_coordinator);
    open_coordinator(&tapped->coordinator, near_coordinator[0]);
    start_worker(&tapped->worker, near_worker[0], right_key());
    tapped->worker.talk = true;
    run_worker(&tapped->worker);
    while (open) {
        struct pollfd ready[3] = {{.fd = near_worker[1], .events = POLLIN},
                                  {.fd = near_coordinator[1], .events = POLLIN},
                                  {.fd = near_coordinator[0], .events = POLLIN}};
        open = poll(ready, 3, patience_ms) > 0;
        if (open && ready[1].revents)
            open = pass(tapped, TO_WORKER, near_coordinator[1], near_worker[1], &passed[TO_WORKER]);
        if (open && ready[0].revents)
            open = pass(tapped, TO_COORDINATOR, near_worker[1], near_coordinator[1],
                        &passed[TO_COORDINATOR]);
        if (open && ready[2].revents)
            open = coordinate(tapped);
    }
    close(near_coordinator[1]);
    while (coordinate(tapped)) /* what had come before the end */
        ;
    shoal_channel_destroy(tapped->coordinator.channel);
    close(near_worker[1]);
    pthread_join(tapped->worker.thread, NULL);
}

static bool shows(const Tapped *tapped, const void *text, size_t size) {
    return memmem(tapped->capture[0], tapped->captured[0], text, size) ||
           memmem(tapped->capture[1], tapped->captured[1], text, size);
}

/* Nothing after the challenge can be read, but for samples unless they are encrypted, too. */
static void test_what_can_be_overheard(void **state) {
    (void)state;
    for (int encrypt = 0; encrypt < 2; encrypt++) {
        Tapped *tapped = calloc(1, sizeof *tapped);
        tapped->encrypt = encrypt;
        tapped->direction = -1;
        converse(tapped, PATIENCE_MS);
        assert_int_equal(tapped->worker.status, 0);
        assert_true(tapped->worker.heard_all && tapped->coordinator_heard_all);
        assert_int_equal(tapped->worker.joined.encrypt, encrypt);
        assert_true(shows(tapped, shoal_version(), strlen(shoal_version()))); /* of the Hello */
        assert_false(shows(tapped, NAME, strlen(NAME)));
        assert_false(shows(tapped, "neon", 4));
        assert_false(shows(tapped, JOB, 16));
        assert_false(shows(tapped, CACHE, 16));
        assert_false(shows(tapped, BEAT, 8));
        assert_int_equal(shows(tapped, RECORD, sizeof RECORD), !encrypt);
        free(tapped);
    }
}

static size_t conversation(size_t captured[2], size_t first[2], size_t version[2]) {
    Tapped *tapped = calloc(1, sizeof *tapped);
    tapped->direction = -1;
    converse(tapped, PATIENCE_MS);
    for (int d = 0; d < 2; d++) {
        captured[d] = tapped->captured[d];
        first[d] = first_frame(tapped, d);
    }
    /* With its tag and its length, in the Hello. */
    const char *at = memmem(tapped->capture[0], first[0], shoal_version(), strlen(shoal_version()));
    assert_non_null(at);
    version[0] = (size_t)(at - (const char *)tapped->capture[0]) - 2;
    version[1] = version[0] + 2 + strlen(shoal_version());
    free(tapped);
    return captured[0] + captured[1];
}

/* One bit of the byte is another: no side believes anything that was not said, and who got the
 * changed bytes ends the connection. */
static void check_changed_byte(int direction, size_t at, bool new_check) {
    Tapped *tapped = calloc(1, sizeof *tapped);
    tapped->direction = direction;
    tapped->at = at;
    tapped->new_check = new_check;
    converse(tapped, 300);
    assert_false(tapped->worker.heard_wrong);
    assert_false(tapped->coordinator_heard_wrong);
    if (direction == TO_WORKER)
        assert_false(!tapped->worker.status && tapped->worker.heard_all);
    else
        assert_false(tapped->coordinator.joined && tapped->coordinator_heard_all);
    if (new_check) {
        assert_false(tapped->coordinator.joined);
        assert_int_not_equal(tapped->worker.status, 0);
    }
    free(tapped);
}

static void test_every_changed_byte_is_noticed(void **state) {
    (void)state;
    size_t captured[2], first[2], version[2];
    assert_true(conversation(captured, first, version) > 400);
    for (int direction = 0; direction < 2; direction++)
        for (size_t at = 0; at < captured[direction]; at++)
            check_changed_byte(direction, at, false);
}

/* Hello and Challenge have checksums that anyone can make: the proofs cover what counts. */
static void test_every_changed_byte_with_a_new_checksum(void **state) {
    (void)state;
    size_t captured[2], first[2], version[2];
    conversation(captured, first, version);
    for (int direction = 0; direction < 2; direction++)
        for (size_t at = SHOAL_CHANNEL_HEADER_BYTES; at < first[direction]; at++) {
            bool harmless = direction == TO_COORDINATOR && at >= version[0] && at < version[1];
            if (!harmless)
                check_changed_byte(direction, at, true);
        }
}

/* What a real worker said, said again to another coordinator with the same token, in one piece and
 * byte by byte; and cut off anywhere. */
static void test_replayed_worker(void **state) {
    (void)state;
    Tapped *tapped = calloc(1, sizeof *tapped);
    tapped->direction = -1;
    converse(tapped, PATIENCE_MS);
    size_t n = tapped->captured[TO_COORDINATOR], first = first_frame(tapped, TO_COORDINATOR);
    for (size_t step = 1; step <= n; step += n - 1) {
        int fds[2];
        Coordinator coordinator;
        ShoalStatus status = SHOAL_OK;
        new_pair(fds);
        open_coordinator(&coordinator, fds[0]);
        for (size_t at = 0; at < n && !status; at += step) {
            ShoalFrame frame;
            ShoalChannelEvent event = SHOAL_CHANNEL_FRAME;
            (void)send(fds[1], tapped->capture[TO_COORDINATOR] + at, step, MSG_NOSIGNAL);
            while (!status && event == SHOAL_CHANNEL_FRAME) {
                status =
                    shoal_channel_receive(coordinator.channel, &event, &frame, &coordinator.err);
                if (!status && event == SHOAL_CHANNEL_FRAME)
                    status = answer(&coordinator, &frame);
            }
            if (step == 1 && at + 1 < first)
                assert_int_equal(coordinator.greeting.step, 0);
        }
        assert_int_equal(status, SHOAL_ERR_PROTOCOL);
        assert_int_equal(coordinator.greeting.step, 1);
        assert_false(coordinator.joined);
        shoal_channel_destroy(coordinator.channel);
        close(fds[1]);
    }
    free(tapped);
}

/* What a real coordinator said, to a worker that comes later. */
static void test_replayed_coordinator(void **state) {
    (void)state;
    Tapped *tapped = calloc(1, sizeof *tapped);
    tapped->direction = -1;
    converse(tapped, PATIENCE_MS);
    int fds[2];
    Worker worker;
    new_pair(fds);
    start_worker(&worker, fds[1], right_key());
    run_worker(&worker);
    (void)send(fds[0], tapped->capture[TO_WORKER], tapped->captured[TO_WORKER], MSG_NOSIGNAL);
    pthread_join(worker.thread, NULL);
    assert_int_equal(worker.status, SHOAL_ERR_AUTH);
    close(fds[0]);
    free(tapped);
}

/* A mirror: everyone hears their own words. */
static void test_reflection(void **state) {
    (void)state;
    int fds[2];
    Worker worker;
    unsigned char bytes[STRANGER];
    new_pair(fds);
    start_worker(&worker, fds[1], right_key());
    run_worker(&worker);
    struct pollfd ready = {.fd = fds[0], .events = POLLIN};
    assert_int_equal(poll(&ready, 1, PATIENCE_MS), 1);
    ssize_t n = recv(fds[0], bytes, sizeof bytes, 0);
    assert_true(n > 0);
    (void)send(fds[0], bytes, (size_t)n, MSG_NOSIGNAL);
    pthread_join(worker.thread, NULL);
    assert_int_equal(worker.status, SHOAL_ERR_PROTOCOL);
    close(fds[0]);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_can_be_overheard),
        cmocka_unit_test(test_every_changed_byte_is_noticed),
        cmocka_unit_test(test_every_changed_byte_with_a_new_checksum),
        cmocka_unit_test(test_replayed_worker),
        cmocka_unit_test(test_replayed_coordinator),
        cmocka_unit_test(test_reflection),
    };
    return cmocka_run_group_tests(tests, set_up, NULL);
}
