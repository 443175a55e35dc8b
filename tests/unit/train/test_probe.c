/* SPDX-License-Identifier: Apache-2.0 */
#include "unit/train/handshake_ends.h"

#include "train/probe.h"

/* ---- frames ---- */

static bool unpack(const void *payload, size_t size, ShoalProbeMessage *message) {
    const ShoalFrame frame = {SHOAL_MESSAGE_PROBE, payload, size};
    return shoal_probe_unpack(&frame, message);
}

static void test_frames(void **state) {
    (void)state;
    unsigned char payload[SHOAL_PROBE_MESSAGE_BYTES], large[SHOAL_PROBE_DATA_BYTES + 2];
    ShoalProbeMessage message;
    shoal_probe_pack(SHOAL_PROBE_RESULT, 94000, UINT32_MAX, payload);
    assert_true(unpack(payload, sizeof payload, &message));
    assert_int_equal(message.kind, SHOAL_PROBE_RESULT);
    assert_int_equal(message.a, 94000);
    assert_int_equal(message.b, UINT32_MAX);
    assert_false(unpack(payload, 0, &message));
    assert_false(unpack(payload, 1, &message));
    assert_false(unpack(payload, sizeof payload - 1, &message));
    memset(large, 0, sizeof large);
    memcpy(large, payload, sizeof payload);
    assert_false(unpack(large, sizeof payload + 1, &message));
    for (int kind = 0; kind < 256; kind++) {
        payload[0] = (unsigned char)kind;
        assert_int_equal(unpack(payload, sizeof payload, &message), kind >= 1 && kind <= 9);
    }
    large[0] = SHOAL_PROBE_DATA;
    assert_false(unpack(large, 1, &message));
    assert_true(unpack(large, sizeof large - 1, &message));
    assert_false(unpack(large, sizeof large, &message));
    const ShoalFrame other = {SHOAL_MESSAGE_HEARTBEAT, payload, sizeof payload};
    assert_false(shoal_probe_unpack(&other, &message));
}

static int peers_in(const void *bytes, size_t size) {
    ShoalProbeMessage message = {.kind = SHOAL_PROBE_PEERS, .bytes = bytes, .size = size};
    ShoalAddress address;
    int n = 0;
    while (shoal_probe_next_peer(&message, &address))
        n++;
    return n;
}

/* Only numbers: a list must not make us ask a name server. */
static void test_peers(void **state) {
    (void)state;
    static const char GOOD[] = "\x08"
                               "10.0.0.1\x10\x27\x03::1\x01\x01";
    assert_int_equal(peers_in(GOOD, sizeof GOOD - 1), 2);
    for (size_t size = 0; size < sizeof GOOD - 1; size++)
        assert_int_equal(peers_in(GOOD, size), size >= 11);
    assert_int_equal(peers_in("\x08localhos\x10\x27", 11), 0);
    assert_int_equal(peers_in("\x08"
                              "10.0.0.1\0\0",
                              11),
                     0);
    assert_int_equal(peers_in("\x08"
                              "10.0\0.0.\x10\x27",
                              11),
                     0);
    assert_int_equal(peers_in("\xff", 1), 0);
}

static void test_meter(void **state) {
    (void)state;
    ShoalProbeMeter meter = {.warm_ns = 1000};
    assert_true(shoal_probe_meter_mbit(&meter) == 0);
    shoal_probe_meter_take(&meter, 5000, 100);
    assert_true(shoal_probe_meter_mbit(&meter) == 0); /* one piece has no duration */
    shoal_probe_meter_take(&meter, 5500, 100);
    assert_true(meter.gap_ns == 0);
    shoal_probe_meter_take(&meter, 6000, 100); /* warm */
    shoal_probe_meter_take(&meter, 7000, 125);
    shoal_probe_meter_take(&meter, 10000, 125);
    assert_int_equal(meter.gap_ns, 3000);
    assert_true(shoal_probe_meter_mbit(&meter) == 500); /* 250 bytes in 4000 ns */
}

/* ---- a server in this process ---- */

static ShoalProbeServer *server;
static ShoalAddress address;

static int open_server(void **state) {
    (void)state;
    ShoalAuthKey key = right_key();
    uint16_t port;
    ShoalError err = {0};
    assert_int_equal(shoal_address_parse("127.0.0.1:0", &address, &err), 0);
    assert_int_equal(shoal_probe_server_create(NULL, NULL, &server, &err), 0);
    assert_int_equal(shoal_probe_server_listen(server, &address, &key, &port, &err), 0);
    assert_int_equal(shoal_address_from_host("127.0.0.1", port, &address, &err), 0);
    return 0;
}

static int close_server(void **state) {
    (void)state;
    shoal_probe_server_destroy(server);
    return 0;
}

static ShoalStatus open_prober(ShoalProber *prober, uint16_t port) {
    ShoalAuthKey key = right_key();
    ShoalError err = {0};
    return shoal_prober_open(prober, &address, &key, port, -1, shoal_clock_ms() + PATIENCE_MS,
                             &err);
}

static void test_measure(void **state) {
    (void)state;
    ShoalProber prober;
    ShoalProbeResult result;
    ShoalError err = {0};
    assert_int_equal(open_prober(&prober, 0), 0);
    assert_int_equal(
        shoal_prober_measure(&prober, 100, shoal_clock_ms() + PATIENCE_MS, &result, &err), 0);
    assert_true(result.up_mbit > 0 && result.down_mbit > 0);
    assert_true(result.latency_us > 0 && result.latency_p99_us >= result.latency_us);
    shoal_prober_close(&prober);
}

static void test_wrong_token(void **state) {
    (void)state;
    ShoalProber prober;
    ShoalAuthKey key = token_key("the token of another cluster");
    ShoalError err = {0};
    assert_int_equal(
        shoal_prober_open(&prober, &address, &key, 0, -1, shoal_clock_ms() + PATIENCE_MS, &err),
        SHOAL_ERR_AUTH);
}

/* A worker that comes to a link test is told so, and for good. */
static void test_worker_is_refused(void **state) {
    (void)state;
    int fd;
    ShoalError err = {0};
    Worker worker;
    assert_int_equal(shoal_socket_connect(&address, -1, shoal_clock_ms() + PATIENCE_MS, &fd, &err),
                     0);
    start_worker(&worker, fd, right_key());
    work(&worker);
    assert_int_equal(worker.status, SHOAL_ERR_ARGUMENT);
    assert_non_null(strstr(worker.err.text, "nothing is trained here"));
}

/* The next one in the order of their coming, all round; never the asker. */
static void test_neighbours(void **state) {
    (void)state;
    ShoalProber probers[3];
    ShoalError err = {0};
    for (int i = 0; i < 3; i++)
        assert_int_equal(open_prober(&probers[i], (uint16_t)(1000 + i)), 0);
    for (int i = 0; i < 3; i++) {
        ShoalAddress peers[4];
        int n;
        assert_int_equal(shoal_prober_peers(&probers[i], peers, 4, &n, &err), 0);
        assert_int_equal(n, 2);
        assert_int_equal(shoal_address_port(&peers[0]), 1000 + (i + 1) % 3);
        assert_int_equal(shoal_address_port(&peers[1]), 1000 + (i + 2) % 3);
    }
    for (int i = 0; i < 3; i++)
        shoal_prober_close(&probers[i]);
}

static void test_too_many(void **state) {
    (void)state;
    ShoalProber probers[SHOAL_PROBE_GUESTS], more;
    for (int i = 0; i < SHOAL_PROBE_GUESTS; i++)
        assert_int_equal(open_prober(&probers[i], 0), 0);
    assert_int_equal(open_prober(&more, 0), SHOAL_ERR_LOST);
    shoal_prober_close(&probers[0]);
    uint64_t end = shoal_clock_ms() + PATIENCE_MS;
    ShoalStatus status;
    while ((status = open_prober(&more, 0)) && shoal_clock_ms() < end)
        shoal_clock_sleep_ms(5);
    assert_int_equal(status, 0);
    shoal_prober_close(&more);
    for (int i = 1; i < SHOAL_PROBE_GUESTS; i++)
        shoal_prober_close(&probers[i]);
}

/* What the server says next, or that it hangs up. */
static bool hangs_up(ShoalProber *prober) {
    ShoalFrame frame;
    ShoalStatus status;
    while (!(status = next_frame(prober->channel, &frame)))
        ;
    return status == SHOAL_ERR_LOST;
}

/* Messages that are malformed, or not due, end the connection and nothing else. */
static void test_hostile(void **state) {
    (void)state;
    static const struct {
        unsigned char bytes[SHOAL_PROBE_MESSAGE_BYTES];
        size_t size;
        uint16_t type;
    } CASES[] = {
        {{0}, 0, SHOAL_MESSAGE_PROBE},
        {{0xff}, 9, SHOAL_MESSAGE_PROBE},
        {{SHOAL_PROBE_PING}, 3, SHOAL_MESSAGE_PROBE},
        {{SHOAL_PROBE_WELCOME}, 9, SHOAL_MESSAGE_PROBE},
        {{SHOAL_PROBE_RESULT}, 9, SHOAL_MESSAGE_PROBE},
        {{SHOAL_PROBE_DATA, 1}, 9, SHOAL_MESSAGE_PROBE},
        {{SHOAL_PROBE_UP, 100}, 9, SHOAL_MESSAGE_PROBE}, /* without its turn */
        {{SHOAL_PROBE_DOWN, 100}, 9, SHOAL_MESSAGE_PROBE},
        {{1}, 1, SHOAL_MESSAGE_REPORT},
    };
    for (size_t i = 0; i < sizeof CASES / sizeof CASES[0]; i++) {
        ShoalProber prober;
        assert_int_equal(open_prober(&prober, 0), 0);
        say(prober.channel, CASES[i].type, CASES[i].bytes, CASES[i].size);
        assert_true(hangs_up(&prober));
        shoal_prober_close(&prober);
    }
    test_measure(NULL);
}

static void take_turn(ShoalProber *prober) {
    unsigned char payload[SHOAL_PROBE_MESSAGE_BYTES];
    ShoalFrame frame;
    shoal_probe_pack(SHOAL_PROBE_TURN, 0, 0, payload);
    say(prober->channel, SHOAL_MESSAGE_PROBE, payload, sizeof payload);
    assert_int_equal(next_frame(prober->channel, &frame), 0);
}

/* In its turn, too; and who vanishes in it leaves it to the others. */
static void test_hostile_in_turn(void **state) {
    (void)state;
    static const uint32_t SPANS[] = {0, SHOAL_PROBE_MOST_MS + 1, UINT32_MAX};
    unsigned char payload[SHOAL_PROBE_MESSAGE_BYTES];
    ShoalProber prober;
    for (int i = 0; i < 6; i++) {
        assert_int_equal(open_prober(&prober, 0), 0);
        take_turn(&prober);
        shoal_probe_pack(i % 2 ? SHOAL_PROBE_UP : SHOAL_PROBE_DOWN, SPANS[i / 2], 0, payload);
        say(prober.channel, SHOAL_MESSAGE_PROBE, payload, sizeof payload);
        assert_true(hangs_up(&prober));
        shoal_prober_close(&prober);
    }
    assert_int_equal(open_prober(&prober, 0), 0);
    take_turn(&prober);
    shoal_probe_pack(SHOAL_PROBE_UP, 100, 0, payload);
    say(prober.channel, SHOAL_MESSAGE_PROBE, payload, sizeof payload);
    shoal_probe_pack(SHOAL_PROBE_PING, 0, 0, payload); /* instead of data */
    say(prober.channel, SHOAL_MESSAGE_PROBE, payload, sizeof payload);
    assert_true(hangs_up(&prober));
    shoal_prober_close(&prober);
    assert_int_equal(open_prober(&prober, 0), 0);
    take_turn(&prober);
    shoal_prober_close(&prober);
    test_measure(NULL);
}

/* Guests wait while the turn is held, and it all ends though one still waits. */
static void test_hold(void **state) {
    (void)state;
    ShoalProber prober;
    unsigned char payload[SHOAL_PROBE_MESSAGE_BYTES];
    shoal_probe_server_hold(server);
    assert_int_equal(open_prober(&prober, 0), 0);
    shoal_probe_pack(SHOAL_PROBE_TURN, 0, 0, payload);
    say(prober.channel, SHOAL_MESSAGE_PROBE, payload, sizeof payload);
    ShoalFrame frame;
    ShoalError err = {0};
    assert_int_not_equal(
        shoal_channel_wait(prober.channel, -1, shoal_clock_ms() + 50, &frame, &err), 0);
    shoal_probe_server_destroy(server);
    open_server(NULL);
    assert_true(hangs_up(&prober));
    shoal_prober_close(&prober);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, open_server, close_server)

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_frames),
        cmocka_unit_test(test_peers),
        cmocka_unit_test(test_meter),
        TEST(test_measure),
        TEST(test_wrong_token),
        TEST(test_worker_is_refused),
        TEST(test_neighbours),
        TEST(test_too_many),
        TEST(test_hostile),
        TEST(test_hostile_in_turn),
        TEST(test_hold),
    };
    return cmocka_run_group_tests(tests, set_up, NULL);
}
