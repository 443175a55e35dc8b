/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_UNIT_COLLECTIVE_RING_CLUSTER_H
#define TESTS_UNIT_COLLECTIVE_RING_CLUSTER_H

#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/rng.h"
#include "collective/ring.h"

/* Rings whose ranks are threads of a test. Include it after cmocka.h. */

#define MAX_RANKS 20

typedef struct Rank {
    struct Cluster *cluster;
    unsigned rank;
    ShoalRing *ring;
    pthread_t thread;
    ShoalStatus status;
    ShoalError err;
    float *values; /* [count] and a guard */
    size_t count;
    unsigned calls; /* what reduce_rank is to do */
    void *context;  /* the test's */
} Rank;

typedef struct Cluster {
    unsigned size;
    uint64_t generation;
    ShoalAuthKey key;
    ShoalWireFormat format;
    bool encrypt;
    ShoalAddress members[MAX_RANKS];
    Rank ranks[MAX_RANKS];
} Cluster;

static inline void open_cluster(Cluster *cluster, unsigned size) {
    memset(cluster, 0, sizeof(*cluster));
    cluster->size = size;
    cluster->generation = 3;
    memset(cluster->key.bytes, 7, sizeof(cluster->key.bytes));
    for (unsigned r = 0; r < size; r++) {
        Rank *rank = &cluster->ranks[r];
        uint16_t port = 0;
        rank->cluster = cluster;
        rank->rank = r;
        assert_int_equal(shoal_ring_create("127.0.0.1:0", &rank->ring, &port, &rank->err), 0);
        assert_int_equal(
            shoal_address_from_host("127.0.0.1", port, &cluster->members[r], &rank->err), 0);
    }
}

static inline void close_cluster(Cluster *cluster) {
    for (unsigned r = 0; r < cluster->size; r++) {
        shoal_ring_destroy(cluster->ranks[r].ring);
        free(cluster->ranks[r].values);
    }
}

static inline ShoalCollective *collective_of(const Rank *rank) {
    return shoal_ring_collective(rank->ring);
}

static inline ShoalRingConfig config_of(const Rank *rank) {
    const Cluster *cluster = rank->cluster;
    return (ShoalRingConfig){.generation = cluster->generation,
                             .rank = rank->rank,
                             .size = cluster->size,
                             .members = cluster->members,
                             .key = cluster->key,
                             .format = cluster->format,
                             .encrypt = cluster->encrypt};
}

static inline void *connect_rank(void *argument) {
    Rank *rank = argument;
    ShoalRingConfig config = config_of(rank);
    memset(&rank->err, 0, sizeof(rank->err));
    rank->status = shoal_ring_connect(rank->ring, &config, shoal_clock_ms() + 60000, &rank->err);
    return NULL;
}

static inline void *reduce_rank(void *argument) {
    Rank *rank = argument;
    rank->status = SHOAL_OK;
    memset(&rank->err, 0, sizeof(rank->err));
    for (unsigned i = 0; i < rank->calls && !rank->status; i++)
        rank->status =
            shoal_collective_allreduce(collective_of(rank), rank->values, rank->count, &rank->err);
    return NULL;
}

static inline void start(Cluster *cluster, void *(*run)(void *), unsigned first) {
    for (unsigned r = first; r < cluster->size; r++)
        assert_int_equal(pthread_create(&cluster->ranks[r].thread, NULL, run, &cluster->ranks[r]),
                         0);
}

static inline void join(Cluster *cluster, unsigned first) {
    for (unsigned r = first; r < cluster->size; r++)
        pthread_join(cluster->ranks[r].thread, NULL);
}

static inline void run_all(Cluster *cluster, void *(*run)(void *)) {
    start(cluster, run, 0);
    join(cluster, 0);
}

static inline void check_all_well(const Cluster *cluster) {
    for (unsigned r = 0; r < cluster->size; r++) {
        if (cluster->ranks[r].status)
            print_message("rank %u: %s\n", r, cluster->ranks[r].err.text);
        assert_int_equal(cluster->ranks[r].status, SHOAL_OK);
    }
}

static inline void connect_all(Cluster *cluster) {
    run_all(cluster, connect_rank);
    check_all_well(cluster);
}

static inline void give_values(Cluster *cluster, size_t count, unsigned calls) {
    for (unsigned r = 0; r < cluster->size; r++) {
        Rank *rank = &cluster->ranks[r];
        free(rank->values);
        rank->values = calloc(count + 1, sizeof(float));
        assert_non_null(rank->values);
        rank->count = count;
        rank->calls = calls;
    }
}

/* Small whole numbers add up exactly in any order. */
static inline float whole(unsigned rank, size_t i) {
    return (float)((i * 7 + rank * 13) % 101) - 50.0f;
}

/* Are these the sums over `size` ranks of whole(r, first), whole(r, first + 1), ...? The first that
 * is not; count: all are. They repeat after 101. */
static inline size_t find_wrong_sum(const float *values, size_t count, unsigned size,
                                    size_t first) {
    float sums[101] = {0};
    for (unsigned r = 0; r < size; r++)
        for (size_t i = 0; i < 101; i++)
            sums[i] += whole(r, i);
    size_t i = 0;
    while (i < count && values[i] == sums[(first + i) % 101])
        i++;
    return i;
}

static inline void check_whole_sums(Cluster *cluster, size_t count) {
    give_values(cluster, count, 1);
    for (unsigned r = 0; r < cluster->size; r++) {
        for (size_t i = 0; i < count; i++)
            cluster->ranks[r].values[i] = whole(r, i);
        cluster->ranks[r].values[count] = 12345.0f; /* guard */
    }
    run_all(cluster, reduce_rank);
    check_all_well(cluster);
    for (unsigned r = 0; r < cluster->size; r++) {
        assert_true(cluster->ranks[r].values[count] == 12345.0f);
        size_t wrong = find_wrong_sum(cluster->ranks[r].values, count, cluster->size, 0);
        if (wrong < count)
            fail_msg("rank %u of %u: value %zu of %zu is %g", r, cluster->size, wrong, count,
                     (double)cluster->ranks[r].values[wrong]);
    }
}

#endif
