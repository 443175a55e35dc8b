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

static void secure_pair(ShoalChannel *a, ShoalChannel *b) {
    ShoalAuthKey keys[2];
    memset(&keys[0], 1, sizeof(keys[0]));
    memset(&keys[1], 2, sizeof(keys[1]));
    shoal_channel_secure(a, &keys[0], &keys[1]);
    shoal_channel_secure(b, &keys[1], &keys[0]);
}

/* Frames of all sizes, both ways at once, over a socket that often takes only a part. */
static void random_traffic(bool secured) {
    ShoalChannel *ends[2];
    ShoalRng sizes[2], checks[2];
    unsigned got[2] = {0, 0}, queued[2] = {0, 0};
    const unsigned frames = 300;
    static unsigned char payload[100000];
    open_pair(&ends[0], &ends[1]);
    if (secured) {
        secure_pair(ends[0], ends[1]);
        shoal_channel_bulk(ends[0], 5);
        shoal_channel_bulk(ends[1], 5);
    }
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
            queue(ends[e], (uint16_t)(queued[e] % 9), payload, size);
        }
        flush(ends[e]);
        ShoalFrame frame = {0};
        while (receive(ends[e], &frame) == SHOAL_CHANNEL_FRAME) {
            size_t size = shoal_rng_below(&checks[e], 2) ? shoal_rng_below(&checks[e], 30)
                                                         : shoal_rng_below(&checks[e], 100000);
            assert_int_equal(frame.type, got[e] % 9);
            assert_int_equal(frame.size, size);
            for (size_t i = 0; i < size; i++)
                assert_int_equal(frame.payload[i], got[e] & 255);
            got[e]++;
        }
    }
    shoal_channel_destroy(ends[0]);
    shoal_channel_destroy(ends[1]);
}

static void test_random_traffic(void **state) {
    (void)state;
    random_traffic(false);
    random_traffic(true);
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
        assert_int_equal(frame.type, 2);
        assert_int_equal(frame.size, 5);
        assert_memory_equal(frame.payload, "after", 5);
        assert_int_equal(receive(a, &frame), SHOAL_CHANNEL_FRAME);
        assert_int_equal(frame.type, 3);
        assert_memory_equal(frame.payload, "back", 4);
    }
    shoal_channel_destroy(a);
    shoal_channel_destroy(b);
}

/* A frame of a secured channel, as it goes over the wire; the channel goes on. */
static size_t tapped(ShoalChannel *sender, int tap, uint16_t type, const void *payload, size_t size,
                     unsigned char *out) {
    queue(sender, type, payload, size);
    flush(sender);
    ssize_t n = recv(tap, out, SHOAL_CHANNEL_HEADER_BYTES + LIMIT, 0);
    assert_true(n >= SHOAL_CHANNEL_HEADER_BYTES);
    return (size_t)n;
}

/* Someone in the middle of a secured connection from one channel to another. */
typedef struct Middle {
    ShoalChannel *sender, *receiver;
    int tap, inject;
} Middle;

static void open_middle(Middle *middle) {
    open_raw(&middle->sender, &middle->tap);
    open_raw(&middle->receiver, &middle->inject);
    secure_pair(middle->sender, middle->receiver);
}

static void close_middle(Middle *middle) {
    shoal_channel_destroy(middle->sender);
    shoal_channel_destroy(middle->receiver);
    close(middle->tap);
    if (middle->inject >= 0)
        close(middle->inject);
}

static void inject(const Middle *middle, const void *bytes, size_t n) {
    assert_int_equal(send(middle->inject, bytes, n, 0), n);
}

static ShoalStatus received_status(const Middle *middle) {
    ShoalFrame frame = {0};
    ShoalChannelEvent event = SHOAL_CHANNEL_NOTHING;
    ShoalError err = {0};
    return shoal_channel_receive(middle->receiver, &event, &frame, &err);
}

static void assert_refused(const Middle *middle) {
    assert_int_equal(received_status(middle), SHOAL_ERR_PROTOCOL);
}

/* Byte for byte what the header says. */
static void test_secure_wire_format(void **state) {
    (void)state;
    unsigned char bytes[SHOAL_CHANNEL_HEADER_BYTES + LIMIT], plain[32];
    const unsigned char header[16] = {'S', 'H', 'O', 'L', 2, 1, 1, 0, 23, 0, 0, 0, 0, 0, 0, 0};
    ShoalAuthKey key;
    Middle middle;
    memset(&key, 1, sizeof(key));
    open_middle(&middle);
    for (uint64_t number = 0; number < 3; number++) {
        size_t n = tapped(middle.sender, middle.tap, 0x0102, "payload", 7, bytes);
        assert_int_equal(n, 16 + 7 + 16);
        assert_memory_equal(bytes, header, 16);
        assert_true(shoal_auth_open(&key, number, header, 16, bytes + 16, 23, plain));
        assert_memory_equal(plain, "payload", 7);
    }
    shoal_channel_bulk(middle.sender, 0x0103);
    const unsigned char bulk[12] = {'S', 'H', 'O', 'L', 3, 1, 0, 0, 7, 0, 0, 0};
    size_t n = tapped(middle.sender, middle.tap, 0x0103, "payload", 7, bytes);
    assert_int_equal(n, 16 + 7);
    assert_memory_equal(bytes, bulk, 12);
    assert_memory_equal(bytes + 16, "payload", 7);
    assert_int_equal(shoal_wire_get32(bytes + 12), shoal_auth_tag(&key, 3, bulk, 12, "payload", 7));
    close_middle(&middle);
}

/* What goes over the wire shows nothing of the payload, and never twice the same. */
static void test_secure_hides_payload(void **state) {
    (void)state;
    unsigned char bytes[2][SHOAL_CHANNEL_HEADER_BYTES + LIMIT];
    static const char text[] = "the same words again and again";
    Middle middle;
    open_middle(&middle);
    for (int i = 0; i < 2; i++) {
        size_t n = tapped(middle.sender, middle.tap, 1, text, sizeof(text), bytes[i]);
        for (size_t part = 0; part + 4 <= sizeof(text); part++)
            assert_null(memmem(bytes[i], n, text + part, 4));
    }
    assert_memory_not_equal(bytes[0] + 16, bytes[1] + 16, sizeof(text));
    shoal_channel_bulk(middle.sender, 1);
    size_t n = tapped(middle.sender, middle.tap, 1, text, sizeof(text), bytes[0]);
    assert_non_null(memmem(bytes[0], n, text, sizeof(text)));
    close_middle(&middle);
}

/* Without the key: a sound plain frame, and an encrypted one of another connection. */
static void test_secure_refuses_forgery(void **state) {
    (void)state;
    unsigned char bytes[SHOAL_CHANNEL_HEADER_BYTES + LIMIT];
    Middle middle, other;
    ShoalAuthKey key;
    size_t n = frame_bytes(1, "forged", 6, bytes);
    open_middle(&middle);
    inject(&middle, bytes, n);
    assert_refused(&middle);
    close_middle(&middle);
    open_middle(&middle);
    open_middle(&other);
    memset(&key, 3, sizeof(key));
    shoal_channel_secure(other.sender, &key, &key);
    n = tapped(other.sender, other.tap, 1, "forged", 6, bytes);
    inject(&middle, bytes, n);
    assert_refused(&middle);
    close_middle(&middle);
    close_middle(&other);
}

/* Both kinds of frames: sealed, and bulk. */
static void test_secure_refuses_replay_reorder_and_gap(void **state) {
    (void)state;
    static const int orders[][3] = {{0, 0, -1}, {1, -1, -1}, {0, 2, -1}, {0, 1, 0}, {0, 1, 1}};
    for (unsigned test = 0; test < 2 * sizeof(orders) / sizeof(orders[0]); test++) {
        unsigned char bytes[3][SHOAL_CHANNEL_HEADER_BYTES + LIMIT];
        const int *order = orders[test / 2];
        size_t n[3];
        Middle middle;
        ShoalFrame frame = {0};
        open_middle(&middle);
        shoal_channel_bulk(middle.sender, test & 1 ? 7 : -1);
        shoal_channel_bulk(middle.receiver, test & 1 ? 7 : -1);
        for (int i = 0; i < 3; i++)
            n[i] = tapped(middle.sender, middle.tap, 7, "genuine", 7, bytes[i]);
        for (int i = 0; i < 3 && order[i] >= 0; i++) {
            inject(&middle, bytes[order[i]], n[order[i]]);
            if (order[i] != i) {
                assert_refused(&middle);
                break;
            }
            assert_int_equal(receive(middle.receiver, &frame), SHOAL_CHANNEL_FRAME);
            assert_memory_equal(frame.payload, "genuine", 7);
        }
        close_middle(&middle);
    }
}

/* What one side said is no word of the other side, sealed or bulk. */
static void test_secure_refuses_reflection(void **state) {
    (void)state;
    for (int bulk = 0; bulk < 2; bulk++) {
        unsigned char bytes[SHOAL_CHANNEL_HEADER_BYTES + LIMIT];
        ShoalFrame frame = {0};
        ShoalChannelEvent event;
        ShoalError err = {0};
        Middle middle;
        open_middle(&middle);
        shoal_channel_bulk(middle.sender, bulk ? 7 : -1);
        size_t n = tapped(middle.sender, middle.tap, 7, "mine", 4, bytes);
        assert_int_equal(send(middle.tap, bytes, n, 0), n);
        assert_int_equal(shoal_channel_receive(middle.sender, &event, &frame, &err),
                         SHOAL_ERR_PROTOCOL);
        close_middle(&middle);
    }
}

/* Only frames of the bulk type may come plain, and only once there is such a type. */
static void test_bulk(void **state) {
    (void)state;
    unsigned char bytes[SHOAL_CHANNEL_HEADER_BYTES + LIMIT];
    ShoalFrame frame = {0};
    Middle middle;
    for (int receivers = -1; receivers < 9; receivers++) {
        open_middle(&middle);
        shoal_channel_bulk(middle.sender, 7);
        shoal_channel_bulk(middle.receiver, receivers);
        size_t n = tapped(middle.sender, middle.tap, 6, "sealed", 6, bytes);
        inject(&middle, bytes, n);
        assert_int_equal(receive(middle.receiver, &frame), SHOAL_CHANNEL_FRAME);
        assert_memory_equal(frame.payload, "sealed", 6);
        n = tapped(middle.sender, middle.tap, 7, "bulk", 4, bytes);
        inject(&middle, bytes, n);
        if (receivers != 7) {
            assert_refused(&middle);
            close_middle(&middle);
            continue;
        }
        assert_int_equal(receive(middle.receiver, &frame), SHOAL_CHANNEL_FRAME);
        assert_int_equal(frame.size, 4);
        assert_memory_equal(frame.payload, "bulk", 4);
        shoal_channel_bulk(middle.sender, -1); /* an encrypted one of that type is never wrong */
        n = tapped(middle.sender, middle.tap, 7, "more", 4, bytes);
        inject(&middle, bytes, n);
        assert_int_equal(receive(middle.receiver, &frame), SHOAL_CHANNEL_FRAME);
        assert_memory_equal(frame.payload, "more", 4);
        close_middle(&middle);
    }
}

/* Every bit of a secured frame, and every place to cut it. */
static void check_secure_damage(bool bulk, size_t bit, size_t cut) {
    unsigned char bytes[SHOAL_CHANNEL_HEADER_BYTES + LIMIT];
    Middle middle;
    open_middle(&middle);
    shoal_channel_bulk(middle.sender, bulk ? 7 : -1);
    shoal_channel_bulk(middle.receiver, bulk ? 7 : -1);
    size_t n = tapped(middle.sender, middle.tap, 7, "payload", 7, bytes);
    bytes[bit / 8] ^= (unsigned char)(cut ? 0 : 1u << bit % 8);
    inject(&middle, bytes, cut ? cut : n);
    close(middle.inject);
    middle.inject = -1;
    ShoalStatus status = received_status(&middle);
    bool longer = bit / 8 >= 8 && bit / 8 < 12 && status == SHOAL_ERR_LOST;
    assert_true(status == (cut ? SHOAL_ERR_LOST : SHOAL_ERR_PROTOCOL) || (!cut && longer));
    close_middle(&middle);
}

static void test_secure_damage_is_noticed(void **state) {
    (void)state;
    for (int bulk = 0; bulk < 2; bulk++) {
        size_t n = SHOAL_CHANNEL_HEADER_BYTES + 7 + (bulk ? 0 : SHOAL_AUTH_SEAL_BYTES);
        for (size_t bit = 0; bit < 8 * n; bit++)
            check_secure_damage(bulk, bit, 0);
        for (size_t cut = 1; cut < n; cut++)
            check_secure_damage(bulk, 0, cut);
    }
}

/* The limit is that of the payload, and holds as soon as the header is there. */
static void test_secure_limits(void **state) {
    (void)state;
    static unsigned char large[LIMIT], bytes[2 * LIMIT];
    ShoalFrame frame = {0};
    Middle middle;
    open_middle(&middle);
    queue(middle.sender, 1, large, LIMIT);
    flush(middle.sender);
    ssize_t n = recv(middle.tap, bytes, sizeof(bytes), 0);
    assert_int_equal(n, SHOAL_CHANNEL_HEADER_BYTES + LIMIT + SHOAL_AUTH_SEAL_BYTES);
    inject(&middle, bytes, (size_t)n);
    assert_int_equal(receive(middle.receiver, &frame), SHOAL_CHANNEL_FRAME);
    assert_int_equal(frame.size, LIMIT);
    close_middle(&middle);
    const struct {
        uint16_t flags;
        uint32_t length;
        ShoalStatus status;
    } cases[] = {
        {1, LIMIT + 16, SHOAL_OK},   {1, LIMIT + 17, SHOAL_ERR_PROTOCOL},
        {1, 16, SHOAL_OK},           {1, 15, SHOAL_ERR_PROTOCOL},
        {1, 0, SHOAL_ERR_PROTOCOL},  {1, UINT32_MAX, SHOAL_ERR_PROTOCOL},
        {0, LIMIT, SHOAL_OK},        {0, LIMIT + 1, SHOAL_ERR_PROTOCOL},
        {2, 16, SHOAL_ERR_PROTOCOL}, {3, 16, SHOAL_ERR_PROTOCOL},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        unsigned char header[SHOAL_CHANNEL_HEADER_BYTES] = {'S', 'H', 'O', 'L', 7};
        shoal_wire_put16(header + 6, cases[i].flags);
        shoal_wire_put32(header + 8, cases[i].length);
        open_middle(&middle);
        shoal_channel_bulk(middle.receiver, 7);
        inject(&middle, header, sizeof(header));
        assert_int_equal(received_status(&middle), cases[i].status);
        close_middle(&middle);
    }
}

static void test_secure_frame_in_single_bytes(void **state) {
    (void)state;
    unsigned char bytes[SHOAL_CHANNEL_HEADER_BYTES + LIMIT];
    ShoalFrame frame = {0};
    Middle middle;
    open_middle(&middle);
    for (int i = 0; i < 3; i++) {
        size_t n = tapped(middle.sender, middle.tap, 3, "slowly", 6, bytes);
        for (size_t at = 0; at < n; at++) {
            assert_int_equal(receive(middle.receiver, &frame), SHOAL_CHANNEL_NOTHING);
            inject(&middle, bytes + at, 1);
        }
        assert_int_equal(receive(middle.receiver, &frame), SHOAL_CHANNEL_FRAME);
        assert_int_equal(frame.size, 6);
        assert_memory_equal(frame.payload, "slowly", 6);
    }
    close_middle(&middle);
}

static void test_secure_frames_allocate_nothing(void **state) {
    (void)state;
    ShoalChannel *a, *b;
    ShoalFrame frame = {0};
    static unsigned char payload[1000];
    open_pair(&a, &b);
    secure_pair(a, b);
    uint64_t before = 0;
    for (int i = 0; i < 50; i++) {
        if (i == 10)
            before = shoal_memory_allocations();
        queue(a, 7, payload, sizeof(payload));
        queue(a, 7, payload, sizeof(payload));
        flush(a);
        assert_int_equal(receive(b, &frame), SHOAL_CHANNEL_FRAME);
        assert_int_equal(receive(b, &frame), SHOAL_CHANNEL_FRAME);
        assert_memory_equal(frame.payload, payload, sizeof(payload));
    }
    assert_int_equal(shoal_memory_allocations(), before);
    shoal_channel_destroy(a);
    shoal_channel_destroy(b);
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
        cmocka_unit_test(test_secure_wire_format),
        cmocka_unit_test(test_secure_hides_payload),
        cmocka_unit_test(test_secure_refuses_forgery),
        cmocka_unit_test(test_secure_refuses_replay_reorder_and_gap),
        cmocka_unit_test(test_secure_refuses_reflection),
        cmocka_unit_test(test_bulk),
        cmocka_unit_test(test_secure_damage_is_noticed),
        cmocka_unit_test(test_secure_limits),
        cmocka_unit_test(test_secure_frame_in_single_bytes),
        cmocka_unit_test(test_secure_frames_allocate_nothing),
        cmocka_unit_test(test_waiting_forms),
        cmocka_unit_test(test_no_sigpipe),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
