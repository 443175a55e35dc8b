/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/memory.h"
#include "base/rng.h"
#include "collective/channel.h"
#include "collective/crc32c.h"
#include "collective/wire.h"

#define LIMIT 4096

/* A channel and the raw other end of its socket. */
static void open_raw(ShoalChannel **channel, int *raw) {
    int fds[2];
    ShoalError err = {0};
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds), 0);
    assert_int_equal(shoal_channel_create(fds[0], LIMIT, channel, &err), 0);
    *raw = fds[1];
}

static void open_pair(ShoalChannel **a, ShoalChannel **b) {
    int raw;
    ShoalError err = {0};
    open_raw(a, &raw);
    assert_int_equal(shoal_channel_create(raw, LIMIT, b, &err), 0);
}

static ShoalChannelEvent receive(ShoalChannel *channel, ShoalFrame *frame) {
    ShoalChannelEvent event = SHOAL_CHANNEL_NOTHING;
    ShoalError err = {0};
    assert_int_equal(shoal_channel_receive(channel, &event, frame, &err), 0);
    return event;
}

static void queue(ShoalChannel *channel, uint16_t type, const void *bytes, size_t size) {
    ShoalError err = {0};
    assert_int_equal(shoal_channel_queue(channel, type, bytes, size, &err), 0);
}

static void flush(ShoalChannel *channel) {
    ShoalError err = {0};
    assert_int_equal(shoal_channel_flush(channel, &err), 0);
}

static void test_frames_arrive_whole_and_in_order(void **state) {
    (void)state;
    ShoalChannel *a, *b;
    ShoalFrame frame = {0};
    open_pair(&a, &b);
    assert_int_equal(receive(b, &frame), SHOAL_CHANNEL_NOTHING);
    assert_false(shoal_channel_wants_write(a));
    queue(a, 7, "hello", 5);
    queue(a, 8, NULL, 0);
    queue(a, 65535, "x", 1);
    assert_int_equal(shoal_channel_pending(a), 3 * SHOAL_CHANNEL_HEADER_BYTES + 6);
    assert_int_equal(receive(b, &frame), SHOAL_CHANNEL_NOTHING);
    flush(a);
    assert_false(shoal_channel_wants_write(a));
    assert_int_equal(receive(b, &frame), SHOAL_CHANNEL_FRAME);
    assert_int_equal(frame.type, 7);
    assert_int_equal(frame.size, 5);
    assert_memory_equal(frame.payload, "hello", 5);
    assert_int_equal(receive(b, &frame), SHOAL_CHANNEL_FRAME);
    assert_int_equal(frame.type, 8);
    assert_int_equal(frame.size, 0);
    assert_non_null(frame.payload);
    assert_int_equal(receive(b, &frame), SHOAL_CHANNEL_FRAME);
    assert_int_equal(frame.type, 65535);
    assert_int_equal(receive(b, &frame), SHOAL_CHANNEL_NOTHING);
    assert_int_equal(shoal_channel_bytes_sent(a), shoal_channel_bytes_received(b));
    shoal_channel_destroy(a);
    assert_int_equal(receive(b, &frame), SHOAL_CHANNEL_CLOSED);
    shoal_channel_destroy(b);
    shoal_channel_destroy(NULL);
}

/* The bytes of one frame, as a channel writes them. */
static size_t frame_bytes(uint16_t type, const void *payload, size_t size, unsigned char *out) {
    ShoalChannel *channel;
    int raw;
    open_raw(&channel, &raw);
    queue(channel, type, payload, size);
    flush(channel);
    ssize_t n = recv(raw, out, SHOAL_CHANNEL_HEADER_BYTES + LIMIT, 0);
    assert_int_equal(n, SHOAL_CHANNEL_HEADER_BYTES + size);
    shoal_channel_destroy(channel);
    close(raw);
    return (size_t)n;
}

/* Byte for byte what the header says: the wire format is a promise to other versions. */
static void test_wire_format(void **state) {
    (void)state;
    unsigned char bytes[SHOAL_CHANNEL_HEADER_BYTES + LIMIT];
    size_t n = frame_bytes(0x0102, "abc", 3, bytes);
    const unsigned char start[12] = {'S', 'H', 'O', 'L', 2, 1, 0, 0, 3, 0, 0, 0};
    assert_int_equal(n, 19);
    assert_memory_equal(bytes, start, sizeof(start));
    assert_memory_equal(bytes + 16, "abc", 3);
    assert_int_equal(shoal_wire_get32(bytes + 12),
                     shoal_crc32c(shoal_crc32c(0, bytes, 12), "abc", 3));
}

static void test_frame_in_single_bytes(void **state) {
    (void)state;
    unsigned char bytes[SHOAL_CHANNEL_HEADER_BYTES + LIMIT];
    size_t n = frame_bytes(3, "slowly", 6, bytes);
    ShoalChannel *channel;
    ShoalFrame frame = {0};
    int raw;
    open_raw(&channel, &raw);
    for (size_t i = 0; i < n; i++) {
        assert_int_equal(receive(channel, &frame), SHOAL_CHANNEL_NOTHING);
        assert_int_equal(send(raw, bytes + i, 1, 0), 1);
    }
    assert_int_equal(receive(channel, &frame), SHOAL_CHANNEL_FRAME);
    assert_memory_equal(frame.payload, "slowly", 6);
    shoal_channel_destroy(channel);
    close(raw);
}

/* Every single bit that is changed on the way is noticed, or leaves the frame incomplete (a longer
 * length); and cutting the frame anywhere is a lost connection. */
static void check_damage(const unsigned char *bytes, size_t n, size_t at, unsigned bit) {
    unsigned char damaged[256];
    memcpy(damaged, bytes, n);
    damaged[at] ^= (unsigned char)(1u << bit);
    ShoalChannel *channel;
    ShoalFrame frame = {0};
    ShoalChannelEvent event = SHOAL_CHANNEL_NOTHING;
    ShoalError err = {0};
    int raw;
    open_raw(&channel, &raw);
    assert_int_equal(send(raw, damaged, n, 0), n);
    close(raw);
    ShoalStatus status = shoal_channel_receive(channel, &event, &frame, &err);
    bool longer = at >= 8 && at < 12 && status == SHOAL_ERR_LOST;
    assert_true(status == SHOAL_ERR_PROTOCOL || longer);
    assert_true(err.text[0] != '\0');
    shoal_channel_destroy(channel);
}

static void test_damage_is_noticed(void **state) {
    (void)state;
    unsigned char bytes[SHOAL_CHANNEL_HEADER_BYTES + LIMIT];
    size_t n = frame_bytes(3, "payload", 7, bytes);
    for (size_t at = 0; at < n; at++)
        for (unsigned bit = 0; bit < 8; bit++)
            check_damage(bytes, n, at, bit);
    for (size_t cut = 1; cut < n; cut++) {
        ShoalChannel *channel;
        ShoalFrame frame = {0};
        ShoalChannelEvent event;
        ShoalError err = {0};
        int raw;
        open_raw(&channel, &raw);
        assert_int_equal(send(raw, bytes, cut, 0), cut);
        close(raw);
        assert_int_equal(shoal_channel_receive(channel, &event, &frame, &err), SHOAL_ERR_LOST);
        shoal_channel_destroy(channel);
    }
}

static void test_garbage(void **state) {
    (void)state;
    const char *const garbage[] = {"GET / HTTP/1.1\r\n\r\n", "x", "SHOX", "SHOLgarbagegarbage"};
    for (size_t i = 0; i < sizeof(garbage) / sizeof(garbage[0]); i++) {
        ShoalChannel *channel;
        ShoalFrame frame = {0};
        ShoalChannelEvent event;
        ShoalError err = {0};
        int raw;
        open_raw(&channel, &raw);
        size_t n = strlen(garbage[i]);
        assert_int_equal(send(raw, garbage[i], n, 0), n);
        assert_int_equal(shoal_channel_receive(channel, &event, &frame, &err), SHOAL_ERR_PROTOCOL);
        shoal_channel_destroy(channel);
        close(raw);
    }
}

/* The limit holds before a byte of payload has come, and can be raised. */
static void test_limit(void **state) {
    (void)state;
    ShoalChannel *a, *b;
    ShoalFrame frame = {0};
    ShoalChannelEvent event;
    ShoalError err = {0};
    static unsigned char large[LIMIT + 1];
    open_pair(&a, &b);
    queue(a, 1, large, LIMIT);
    flush(a);
    assert_int_equal(receive(b, &frame), SHOAL_CHANNEL_FRAME);
    assert_int_equal(frame.size, LIMIT);
    shoal_channel_set_limit(b, LIMIT + 1);
    queue(a, 1, large, LIMIT + 1);
    flush(a);
    assert_int_equal(receive(b, &frame), SHOAL_CHANNEL_FRAME);
    assert_int_equal(frame.size, LIMIT + 1);
    shoal_channel_set_limit(b, LIMIT);
    unsigned char header[SHOAL_CHANNEL_HEADER_BYTES] = {'S', 'H', 'O', 'L', 1, 0, 0, 0, 1, 16};
    assert_int_equal(send(shoal_channel_fd(a), header, sizeof(header), 0), sizeof(header));
    assert_int_equal(shoal_channel_receive(b, &event, &frame, &err), SHOAL_ERR_PROTOCOL);
    assert_non_null(strstr(err.text, "4097 bytes; expected at most 4096"));
    shoal_channel_destroy(a);
    shoal_channel_destroy(b);
}

/* A length field alone reserves nothing. */
static void test_memory_follows_what_came(void **state) {
    (void)state;
    ShoalChannel *channel;
    ShoalFrame frame = {0};
    int raw;
    unsigned char header[SHOAL_CHANNEL_HEADER_BYTES] = {'S', 'H', 'O', 'L', 1, 0, 0, 0, 0, 0, 0, 4};
    open_raw(&channel, &raw);
    shoal_channel_set_limit(channel, 64u << 20);
    uint64_t before = shoal_memory_allocations();
    assert_int_equal(send(raw, header, sizeof(header), 0), sizeof(header));
    for (int i = 0; i < 1000; i++) {
        assert_int_equal(send(raw, "x", 1, 0), 1);
        assert_int_equal(receive(channel, &frame), SHOAL_CHANNEL_NOTHING);
    }
    assert_int_equal(shoal_memory_allocations(), before);
    shoal_channel_destroy(channel);
    close(raw);
}

/* Frames of all sizes, both ways at once, over a socket that often takes only a part. */
static void test_random_traffic(void **state) {
    (void)state;
    ShoalChannel *ends[2];
    ShoalRng sizes[2], checks[2];
    unsigned got[2] = {0, 0}, queued[2] = {0, 0};
    const unsigned frames = 300;
    static unsigned char payload[100000];
    open_pair(&ends[0], &ends[1]);
    for (unsigned e = 0; e < 2; e++) {
        shoal_channel_set_limit(ends[e], sizeof(payload));
        shoal_rng_init(&sizes[e], 11, SHOAL_RNG_TEST, e);
        shoal_rng_init(&checks[e], 11, SHOAL_RNG_TEST, 1 - e);
    }
    for (unsigned turn = 0; got[0] < frames || got[1] < frames; turn++) {
        unsigned e = turn & 1;
        for (unsigned i = 0; i < 3 && queued[e] < frames; i++, queued[e]++) {
            size_t size = shoal_rng_below(&sizes[e], 2) ? shoal_rng_below(&sizes[e], 30)
                                                        : shoal_rng_below(&sizes[e], 100000);
            memset(payload, (int)(queued[e] & 255), size);
            queue(ends[e], (uint16_t)queued[e], payload, size);
        }
        flush(ends[e]);
        ShoalFrame frame = {0};
        while (receive(ends[e], &frame) == SHOAL_CHANNEL_FRAME) {
            size_t size = shoal_rng_below(&checks[e], 2) ? shoal_rng_below(&checks[e], 30)
                                                         : shoal_rng_below(&checks[e], 100000);
            assert_int_equal(frame.type, got[e]);
            assert_int_equal(frame.size, size);
            for (size_t i = 0; i < size; i++)
                assert_int_equal(frame.payload[i], got[e] & 255);
            got[e]++;
        }
    }
    shoal_channel_destroy(ends[0]);
    shoal_channel_destroy(ends[1]);
}

static void secure_pair(ShoalChannel *a, ShoalChannel *b) {
    ShoalAuthKey keys[2];
    memset(&keys[0], 1, sizeof(keys[0]));
    memset(&keys[1], 2, sizeof(keys[1]));
    shoal_channel_secure(a, &keys[0], &keys[1]);
    shoal_channel_secure(b, &keys[1], &keys[0]);
}

static void test_secure_frames(void **state) {
    (void)state;
    ShoalChannel *a, *b;
    ShoalFrame frame = {0};
    open_pair(&a, &b);
    queue(a, 1, "before", 6);
    flush(a);
    assert_int_equal(receive(b, &frame), SHOAL_CHANNEL_FRAME);
    secure_pair(a, b);
    for (int i = 0; i < 5; i++) {
        queue(a, 2, "after", 5);
        queue(b, 3, "back", 4);
        flush(a);
        flush(b);
        assert_int_equal(receive(b, &frame), SHOAL_CHANNEL_FRAME);
        assert_int_equal(receive(a, &frame), SHOAL_CHANNEL_FRAME);
    }
    shoal_channel_destroy(a);
    shoal_channel_destroy(b);
}

/* Without the key: a sound frame with a checksum, and a repeated frame, are refused. */
static void test_secure_refuses_forgery_and_replay(void **state) {
    (void)state;
    for (int replay = 0; replay < 2; replay++) {
        unsigned char bytes[SHOAL_CHANNEL_HEADER_BYTES + LIMIT];
        ShoalChannel *sender, *receiver;
        ShoalFrame frame = {0};
        ShoalChannelEvent event;
        ShoalError err = {0};
        int tap, inject;
        open_raw(&sender, &tap);
        open_raw(&receiver, &inject);
        secure_pair(sender, receiver);
        size_t n = frame_bytes(1, "forged", 6, bytes);
        if (replay) {
            queue(sender, 1, "genuine", 7);
            flush(sender);
            n = (size_t)recv(tap, bytes, sizeof(bytes), 0);
            assert_int_equal(send(inject, bytes, n, 0), n);
            assert_int_equal(receive(receiver, &frame), SHOAL_CHANNEL_FRAME);
        }
        assert_int_equal(send(inject, bytes, n, 0), n);
        assert_int_equal(shoal_channel_receive(receiver, &event, &frame, &err), SHOAL_ERR_PROTOCOL);
        shoal_channel_destroy(sender);
        shoal_channel_destroy(receiver);
        close(tap);
        close(inject);
    }
}

static void test_waiting_forms(void **state) {
    (void)state;
    ShoalChannel *a, *b;
    ShoalFrame frame = {0};
    ShoalError err = {0}, late = {0}, woken = {0}, gone = {0};
    int pipes[2];
    open_pair(&a, &b);
    assert_int_equal(shoal_channel_send(a, 4, "four", 4, -1, shoal_clock_ms() + 10000, &err), 0);
    assert_int_equal(shoal_channel_wait(b, -1, shoal_clock_ms() + 10000, &frame, &err), 0);
    assert_int_equal(frame.type, 4);
    assert_int_equal(shoal_channel_wait(b, -1, shoal_clock_ms() + 5, &frame, &late),
                     SHOAL_ERR_NETWORK);
    assert_int_equal(pipe(pipes), 0);
    assert_int_equal(write(pipes[1], "x", 1), 1);
    assert_int_equal(shoal_channel_wait(b, pipes[0], UINT64_MAX, &frame, &woken),
                     SHOAL_ERR_STOPPED);
    close(pipes[0]);
    close(pipes[1]);
    shoal_channel_destroy(a);
    assert_int_equal(shoal_channel_wait(b, -1, UINT64_MAX, &frame, &gone), SHOAL_ERR_LOST);
    shoal_channel_destroy(b);
}

/* Writing to a peer that is gone is an error, not a signal. */
static void test_no_sigpipe(void **state) {
    (void)state;
    ShoalChannel *a, *b;
    ShoalError err = {0};
    open_pair(&a, &b);
    shoal_channel_destroy(b);
    queue(a, 1, "x", 1);
    assert_int_equal(shoal_channel_flush(a, &err), SHOAL_ERR_LOST);
    shoal_channel_destroy(a);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_frames_arrive_whole_and_in_order),
        cmocka_unit_test(test_wire_format),
        cmocka_unit_test(test_frame_in_single_bytes),
        cmocka_unit_test(test_damage_is_noticed),
        cmocka_unit_test(test_garbage),
        cmocka_unit_test(test_limit),
        cmocka_unit_test(test_memory_follows_what_came),
        cmocka_unit_test(test_random_traffic),
        cmocka_unit_test(test_secure_frames),
        cmocka_unit_test(test_secure_refuses_forgery_and_replay),
        cmocka_unit_test(test_waiting_forms),
        cmocka_unit_test(test_no_sigpipe),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
