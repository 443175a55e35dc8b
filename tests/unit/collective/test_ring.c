/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <unistd.h>

#include "collective/crc32c.h"
#include "collective/wire.h"
#include "unit/collective/ring_cluster.h"

/* Life, sums one at a time, failures, strangers. See also test_ring_ops.c and test_ring_faults.c.
 */

static void test_sums(void **state) {
    (void)state;
    const unsigned sizes[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 17};
    const size_t counts[] = {0, 1, 2, 3, 5, 16, 17, 1000, 70001};
    for (size_t s = 0; s < sizeof(sizes) / sizeof(sizes[0]); s++) {
        Cluster cluster;
        open_cluster(&cluster, sizes[s]);
        connect_all(&cluster);
        for (size_t c = 0; c < sizeof(counts) / sizeof(counts[0]); c++)
            check_whole_sums(&cluster, counts[c]);
        if (sizes[s] == 3 || sizes[s] == 8)
            check_whole_sums(&cluster, 1000000);
        close_cluster(&cluster);
    }
}

/* Numbers of very different size, where the order of adding shows. */
static void test_same_bits_everywhere(void **state) {
    (void)state;
    const size_t count = 30011;
    const unsigned sizes[] = {2, 3, 4, 7};
    for (size_t s = 0; s < sizeof(sizes) / sizeof(sizes[0]); s++) {
        Cluster cluster;
        open_cluster(&cluster, sizes[s]);
        connect_all(&cluster);
        give_values(&cluster, count, 1);
        for (unsigned r = 0; r < cluster.size; r++) {
            ShoalRng rng;
            shoal_rng_init(&rng, 42, SHOAL_RNG_TEST, r);
            shoal_rng_fill_gaussian(&rng, 0, 1, count, cluster.ranks[r].values);
            for (size_t i = 0; i < count; i++)
                cluster.ranks[r].values[i] *= (float)(1u << (i * (r + 3)) % 24);
        }
        start(&cluster, reduce_rank, 0);
        join(&cluster, 0);
        for (unsigned r = 0; r < cluster.size; r++) {
            assert_int_equal(cluster.ranks[r].status, SHOAL_OK);
            assert_memory_equal(cluster.ranks[r].values, cluster.ranks[0].values,
                                count * sizeof(float));
        }
        close_cluster(&cluster);
    }
}

static void test_many_calls_and_stats(void **state) {
    (void)state;
    Cluster cluster;
    open_cluster(&cluster, 3);
    connect_all(&cluster);
    give_values(&cluster, 1000, 50); /* zeros stay zeros */
    start(&cluster, reduce_rank, 0);
    join(&cluster, 0);
    for (unsigned r = 0; r < 3; r++) {
        assert_int_equal(cluster.ranks[r].status, SHOAL_OK);
        ShoalCollectiveStats stats = shoal_collective_stats(collective_of(&cluster.ranks[r]));
        assert_int_equal(stats.calls, 50);
        /* 2 (size - 1) / size of the data, up to the rounding of chunks, and 4 headers. */
        assert_true(stats.bytes_sent >= 50 * (4 * 333 * 4));
        assert_true(stats.bytes_sent <= 50 * (4 * (334 * 4 + 64)));
        assert_true(stats.bytes_received >= 50 * (4 * 333 * 4));
        assert_true(stats.busy_ns > 0 && stats.waited_ns > 0);
    }
    close_cluster(&cluster);
}

static void check_all_failed(Cluster *cluster, unsigned first) {
    for (unsigned r = first; r < cluster->size; r++) {
        assert_int_equal(cluster->ranks[r].status, SHOAL_ERR_LOST);
        /* Closed, not silent: that is no evidence against anybody. */
        assert_int_equal(shoal_ring_suspect(cluster->ranks[r].ring), -1);
        assert_non_null(strstr(cluster->ranks[r].err.text, "rank"));
        /* And stays so. */
        assert_int_equal(shoal_collective_allreduce(collective_of(&cluster->ranks[r]),
                                                    cluster->ranks[r].values, 1, NULL),
                         SHOAL_ERR_LOST);
    }
}

/* Rank 0 never takes part and goes away while the others are in the middle of it. */
static void test_lost_peer_ends_allreduce_everywhere(void **state) {
    (void)state;
    const unsigned sizes[] = {2, 3, 7};
    for (size_t s = 0; s < sizeof(sizes) / sizeof(sizes[0]); s++) {
        Cluster cluster;
        open_cluster(&cluster, sizes[s]);
        connect_all(&cluster);
        give_values(&cluster, 2000000, 1);
        start(&cluster, reduce_rank, 1);
        shoal_clock_sleep_ms(30); /* lets them get into it; right or not, the result is the same */
        shoal_ring_disconnect(cluster.ranks[0].ring);
        join(&cluster, 1);
        check_all_failed(&cluster, 1);
        close_cluster(&cluster);
    }
}

/* The next generation, without the rank that is gone, comes up on the same listening sockets. */
static void test_survivors_form_a_new_generation(void **state) {
    (void)state;
    Cluster cluster;
    open_cluster(&cluster, 4);
    connect_all(&cluster);
    give_values(&cluster, 100000, 1);
    start(&cluster, reduce_rank, 0);
    join(&cluster, 0);
    shoal_ring_destroy(cluster.ranks[3].ring);
    cluster.ranks[3].ring = NULL;
    free(cluster.ranks[3].values);
    cluster.size = 3;
    start(&cluster, reduce_rank, 0);
    join(&cluster, 0);
    check_all_failed(&cluster, 0);
    cluster.generation = 4;
    memset(cluster.key.bytes, 9, sizeof(cluster.key.bytes));
    connect_all(&cluster);
    check_whole_sums(&cluster, 4711);
    close_cluster(&cluster);
}

static void test_abort(void **state) {
    (void)state;
    Cluster cluster;
    open_cluster(&cluster, 3);
    connect_all(&cluster);
    give_values(&cluster, 2000000, 1);
    start(&cluster, reduce_rank, 1); /* rank 0 is frozen: its connections stay open */
    shoal_clock_sleep_ms(20);
    for (unsigned r = 1; r < 3; r++)
        shoal_collective_abort(collective_of(&cluster.ranks[r]), cluster.generation + 1);
    join(&cluster, 1);
    bool stopped = false;
    for (unsigned r = 1; r < 3; r++) {
        /* One may see its neighbour close before its own signal. */
        ShoalStatus status = cluster.ranks[r].status;
        assert_true(status == SHOAL_ERR_STOPPED || status == SHOAL_ERR_LOST);
        stopped = stopped || status == SHOAL_ERR_STOPPED;
    }
    assert_true(stopped);
    close_cluster(&cluster);
}

/* Abort names a generation: older ones stay stopped, later ones are not touched. */
static void test_abort_by_generation(void **state) {
    (void)state;
    Cluster cluster;
    open_cluster(&cluster, 2);
    for (unsigned r = 0; r < 2; r++) {
        shoal_collective_abort(collective_of(&cluster.ranks[r]), cluster.generation);
        shoal_collective_abort(collective_of(&cluster.ranks[r]), 1);
    }
    cluster.generation--;
    run_all(&cluster, connect_rank);
    for (unsigned r = 0; r < 2; r++)
        assert_int_equal(cluster.ranks[r].status, SHOAL_ERR_STOPPED);
    cluster.generation++;
    connect_all(&cluster);
    check_whole_sums(&cluster, 1000);
    for (unsigned r = 0; r < 2; r++) /* while nothing is under way */
        shoal_collective_abort(collective_of(&cluster.ranks[r]), cluster.generation + 1);
    run_all(&cluster, reduce_rank);
    for (unsigned r = 0; r < 2; r++)
        assert_int_equal(cluster.ranks[r].status, SHOAL_ERR_STOPPED);
    cluster.generation++;
    connect_all(&cluster);
    check_whole_sums(&cluster, 1000);
    shoal_collective_abort(collective_of(&cluster.ranks[0]), UINT64_MAX);
    cluster.generation++;
    connect_rank(&cluster.ranks[0]);
    assert_int_equal(cluster.ranks[0].status, SHOAL_ERR_STOPPED);
    close_cluster(&cluster);
}

/* A wish to stop ends the waiting for a ring that cannot come up, too. */
static void test_abort_while_connecting(void **state) {
    (void)state;
    Cluster cluster;
    open_cluster(&cluster, 3);
    start(&cluster, connect_rank, 1); /* rank 0 never comes */
    shoal_clock_sleep_ms(20);
    for (unsigned r = 1; r < 3; r++) {
        shoal_collective_abort(collective_of(&cluster.ranks[r]), cluster.generation);
        shoal_collective_abort(collective_of(&cluster.ranks[r]), cluster.generation + 1);
    }
    join(&cluster, 1);
    for (unsigned r = 1; r < 3; r++)
        assert_int_equal(cluster.ranks[r].status, SHOAL_ERR_STOPPED);
    close_cluster(&cluster);
}

static void test_missing_rank_is_named(void **state) {
    (void)state;
    Cluster cluster;
    open_cluster(&cluster, 2);
    ShoalRingConfig config = config_of(&cluster.ranks[0]);
    ShoalError err = {0};
    assert_int_equal(
        shoal_ring_connect(cluster.ranks[0].ring, &config, shoal_clock_ms() + 60, &err),
        SHOAL_ERR_NETWORK);
    assert_non_null(strstr(err.text, "rank 1 (127.0.0.1:"));
    assert_int_equal(shoal_ring_suspect(cluster.ranks[0].ring), 1);
    ShoalError again = {0};
    float value = 1;
    assert_int_equal(
        shoal_collective_allreduce(collective_of(&cluster.ranks[0]), &value, 1, &again),
        SHOAL_ERR_STOPPED);
    config.rank = 2;
    ShoalError bad = {0};
    assert_int_equal(shoal_ring_connect(cluster.ranks[0].ring, &config, UINT64_MAX, &bad),
                     SHOAL_ERR_ARGUMENT);
    close_cluster(&cluster);
}

/* Ranks that disagree about what they add must not add. */
static void test_mismatched_counts(void **state) {
    (void)state;
    for (unsigned size = 2; size <= 3; size++) {
        Cluster cluster;
        open_cluster(&cluster, size);
        connect_all(&cluster);
        give_values(&cluster, 1000, 1);
        cluster.ranks[0].count = 999;
        start(&cluster, reduce_rank, 0);
        join(&cluster, 0);
        unsigned named = 0;
        for (unsigned r = 0; r < size; r++) {
            assert_true(cluster.ranks[r].status == SHOAL_ERR_PROTOCOL ||
                        cluster.ranks[r].status == SHOAL_ERR_LOST);
            if (cluster.ranks[r].status == SHOAL_ERR_PROTOCOL) {
                named++;
                assert_non_null(strstr(cluster.ranks[r].err.text, "999"));
            }
        }
        assert_true(named >= 1);
        close_cluster(&cluster);
    }
}

/* --- strangers ------------------------------------------------------------------------------- */

static int dial(const ShoalAddress *address) {
    ShoalError err = {0};
    int fd = -1;
    assert_int_equal(shoal_socket_connect(address, -1, shoal_clock_ms() + 10000, &fd, &err), 0);
    return fd;
}

static unsigned open_descriptors(void) {
    unsigned n = 0;
    for (int fd = 0; fd < 1024; fd++)
        n += fcntl(fd, F_GETFD) >= 0;
    return n;
}

static bool closed_by_peer(int fd) {
    char byte;
    for (;;) {
        struct pollfd poller = {.fd = fd, .events = POLLIN};
        if (poll(&poller, 1, 20000) <= 0)
            return false;
        if (recv(fd, &byte, 1, 0) <= 0)
            return true;
    }
}

/* Garbage, a silent guest, half a hello, closed at once: before and while the ring forms. */
static void test_strangers_change_nothing(void **state) {
    (void)state;
    Cluster cluster;
    unsigned open_before = open_descriptors();
    open_cluster(&cluster, 3);
    unsigned char garbage[500];
    ShoalRng rng;
    shoal_rng_init(&rng, 5, SHOAL_RNG_TEST, 0);
    for (size_t i = 0; i < sizeof(garbage); i++)
        garbage[i] = (unsigned char)shoal_rng_u32(&rng);
    int guests[90];
    const int n = sizeof(guests) / sizeof(guests[0]);
    for (int i = 0; i < n; i++) {
        guests[i] = dial(&cluster.members[i % 3]);
        size_t bytes = i % 4 == 0 ? sizeof(garbage) : i % 4 == 1 ? 0 : i % 4 == 2 ? 10 : 63;
        if (bytes > 0)
            assert_true(send(guests[i], garbage, bytes, MSG_NOSIGNAL) > 0);
        if (i % 8 == 7)
            shutdown(guests[i], SHUT_RDWR);
    }
    connect_all(&cluster);
    check_whole_sums(&cluster, 3333);
    for (int i = 0; i < n; i += 4)
        assert_true(closed_by_peer(guests[i]));
    for (int i = 0; i < n; i++)
        close(guests[i]);
    close_cluster(&cluster);
    assert_int_equal(open_descriptors(), open_before);
}

/* Says all the right numbers, but cannot prove the key: closed without a further byte. */
static void test_right_hello_wrong_proof(void **state) {
    (void)state;
    Cluster cluster;
    open_cluster(&cluster, 2);
    unsigned char hello[64] = {'S', 'H', 'R', 'H', 2}, reply[64], proof[32] = {0};
    shoal_wire_put64(hello + 8, cluster.generation);
    shoal_wire_put32(hello + 20, 1); /* from 0 to 1 */
    shoal_wire_put32(hello + 24, 2);
    shoal_wire_put32(hello + 28, shoal_crc32c(0, hello, 28));
    start(&cluster, connect_rank, 1);
    int fd = dial(&cluster.members[1]);
    assert_int_equal(send(fd, hello, sizeof(hello), MSG_NOSIGNAL), sizeof(hello));
    for (size_t have = 0; have < sizeof(reply);) {
        struct pollfd poller = {.fd = fd, .events = POLLIN};
        assert_true(poll(&poller, 1, 20000) > 0);
        ssize_t n = recv(fd, reply + have, sizeof(reply) - have, 0);
        assert_true(n > 0);
        have += (size_t)n;
    }
    assert_int_equal(send(fd, proof, sizeof(proof), MSG_NOSIGNAL), sizeof(proof));
    struct pollfd poller = {.fd = fd, .events = POLLIN};
    assert_true(poll(&poller, 1, 20000) > 0);
    assert_int_equal(recv(fd, reply, 1, 0), 0);
    close(fd);
    connect_rank(&cluster.ranks[0]);
    join(&cluster, 1);
    check_whole_sums(&cluster, 100);
    close_cluster(&cluster);
}

/* A rank with another key or of another generation never gets in; the right ones do. */
static void check_intruder(bool wrong_key, uint64_t generation, unsigned rank) {
    Cluster cluster;
    open_cluster(&cluster, 2);
    Rank intruder = {.cluster = &cluster, .rank = rank};
    uint16_t port = 0;
    assert_int_equal(shoal_ring_create("127.0.0.1:0", &intruder.ring, &port, &intruder.err), 0);
    ShoalRingConfig config = config_of(&intruder);
    config.generation = generation;
    if (wrong_key)
        config.key.bytes[0] ^= 1;
    start(&cluster, connect_rank, 1); /* rank 1 waits for rank 0 */
    ShoalStatus status =
        shoal_ring_connect(intruder.ring, &config, shoal_clock_ms() + 150, &intruder.err);
    assert_int_equal(status, SHOAL_ERR_NETWORK);
    connect_rank(&cluster.ranks[0]);
    join(&cluster, 1);
    for (unsigned r = 0; r < 2; r++)
        assert_int_equal(cluster.ranks[r].status, SHOAL_OK);
    check_whole_sums(&cluster, 100);
    shoal_ring_destroy(intruder.ring);
    close_cluster(&cluster);
}

static void test_intruders(void **state) {
    (void)state;
    check_intruder(true, 3, 0);  /* wrong key */
    check_intruder(false, 2, 0); /* of the generation before */
    check_intruder(false, 4, 0); /* of one to come */
    check_intruder(false, 3, 1); /* the right key, but it gives up before rank 0 is there */
}

/* A peer that answers in the right form, with the word of acceptance at its place but without a
 * proof, is not taken for the next rank. */
static void *answer_garbage(void *argument) {
    int listen_fd = *(int *)argument;
    char garbage[256];
    memset(garbage, 'x', sizeof(garbage));
    memcpy(garbage + 64, "SHOK", 4);
    for (int served = 0; served < 1;) {
        struct pollfd poller = {.fd = listen_fd, .events = POLLIN};
        int fd = -1;
        if (poll(&poller, 1, 10000) <= 0)
            break;
        if (shoal_socket_accept(listen_fd, &fd, NULL, NULL) || fd < 0)
            continue;
        send(fd, garbage, sizeof(garbage), MSG_NOSIGNAL);
        served++;
        closed_by_peer(fd);
        close(fd);
    }
    return NULL;
}

static void test_false_next_rank(void **state) {
    (void)state;
    Cluster cluster;
    open_cluster(&cluster, 2);
    ShoalError err = {0};
    ShoalAddress address;
    int listen_fd = -1;
    assert_int_equal(shoal_address_parse("127.0.0.1:0", &address, &err), 0);
    assert_int_equal(shoal_socket_listen(&address, &listen_fd, &err), 0);
    assert_int_equal(shoal_socket_local(listen_fd, &cluster.members[1], &err), 0);
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, answer_garbage, &listen_fd), 0);
    ShoalRingConfig config = config_of(&cluster.ranks[0]);
    assert_int_equal(
        shoal_ring_connect(cluster.ranks[0].ring, &config, shoal_clock_ms() + 400, &err),
        SHOAL_ERR_NETWORK);
    assert_null(strstr(err.text, "it has not connected")); /* that would be the previous rank */
    pthread_join(thread, NULL);
    close(listen_fd);
    close_cluster(&cluster);
}

static void test_port_in_use(void **state) {
    (void)state;
    ShoalRing *first = NULL, *second = NULL;
    ShoalError err = {0};
    uint16_t port = 0;
    assert_int_equal(shoal_ring_create("127.0.0.1:0", &first, &port, &err), 0);
    assert_true(port > 0);
    char text[32];
    snprintf(text, sizeof(text), "127.0.0.1:%u", port);
    assert_int_equal(shoal_ring_create(text, &second, &port, &err), SHOAL_ERR_NETWORK);
    assert_null(second);
    assert_non_null(strstr(err.text, text));
    assert_non_null(strstr(err.text, "another program uses this port"));
    shoal_ring_destroy(first);
    shoal_ring_destroy(NULL);
}

static int set_up(void **state) {
    (void)state;
    return shoal_auth_init(NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sums),
        cmocka_unit_test(test_same_bits_everywhere),
        cmocka_unit_test(test_many_calls_and_stats),
        cmocka_unit_test(test_lost_peer_ends_allreduce_everywhere),
        cmocka_unit_test(test_survivors_form_a_new_generation),
        cmocka_unit_test(test_abort),
        cmocka_unit_test(test_abort_by_generation),
        cmocka_unit_test(test_abort_while_connecting),
        cmocka_unit_test(test_missing_rank_is_named),
        cmocka_unit_test(test_mismatched_counts),
        cmocka_unit_test(test_strangers_change_nothing),
        cmocka_unit_test(test_right_hello_wrong_proof),
        cmocka_unit_test(test_intruders),
        cmocka_unit_test(test_false_next_rank),
        cmocka_unit_test(test_port_in_use),
    };
    return cmocka_run_group_tests(tests, set_up, NULL);
}
