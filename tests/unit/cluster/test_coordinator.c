/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "cluster/coordinator.h"
#include "cluster/failures.h"

/* Times in ms; connection of worker i is 100 + i. */
#define TIMEOUT 1000
#define HOUR 3600000u

static const ShoalClusterConfig BASE = {.expected = 3,
                                        .min_workers = 1,
                                        .max_workers = 8,
                                        .window = 2,
                                        .heartbeat_timeout_ms = TIMEOUT};

/* --- harness ------------------------------------------------------------------------------- */

static ShoalCluster *create(const ShoalClusterConfig *config) {
    ShoalCluster *cluster = NULL;
    ShoalError err = {0};
    assert_int_equal(shoal_cluster_create(config, &cluster, &err), SHOAL_OK);
    return cluster;
}

static void join_with(ShoalCluster *cluster, uint64_t now, unsigned i, uint64_t generation) {
    ShoalClusterInfo info = {
        .address = "127.0.0.1", .ring_port = (uint16_t)(4000 + i), .generation = generation};
    snprintf(info.name, sizeof(info.name), "phone-%u", i);
    info.pid = 70 + i;
    shoal_cluster_join(cluster, now, 100 + i, &info);
}

static void join(ShoalCluster *cluster, uint64_t now, unsigned i) {
    join_with(cluster, now, i, 0);
}

static void prepared(ShoalCluster *cluster, uint64_t now, unsigned i) {
    shoal_cluster_prepared(cluster, now, 100 + i);
}

static void come(ShoalCluster *cluster, uint64_t now, unsigned i) {
    join(cluster, now, i);
    prepared(cluster, now, i);
}

/* Ready with a state of `updates` made in generation `made`; made 0: none held. */
static void ready(ShoalCluster *cluster, uint64_t now, unsigned i, uint64_t updates,
                  uint64_t made) {
    ShoalClusterVersion version = {.held = made > 0, .updates = updates, .generation = made};
    shoal_cluster_ready(cluster, now, 100 + i, shoal_cluster_generation(cluster), version);
}

static void done(ShoalCluster *cluster, uint64_t now, unsigned i, uint64_t round) {
    shoal_cluster_done(cluster, now, 100 + i, shoal_cluster_generation(cluster), round);
}

static void leave(ShoalCluster *cluster, uint64_t now, unsigned i) {
    shoal_cluster_leave(cluster, now, 100 + i, "connection closed");
}

static void aborted(ShoalCluster *cluster, uint64_t now, unsigned i, int suspect) {
    shoal_cluster_aborted(cluster, now, 100 + i, shoal_cluster_generation(cluster), suspect,
                          "it was\nclosed");
}

static ShoalClusterAction expect(ShoalCluster *cluster, ShoalClusterActionKind kind) {
    ShoalClusterAction action;
    assert_true(shoal_cluster_has_action(cluster));
    assert_true(shoal_cluster_next_action(cluster, &action));
    assert_int_equal(action.kind, kind);
    return action;
}

static void expect_nothing(ShoalCluster *cluster) {
    ShoalClusterAction action;
    assert_false(shoal_cluster_has_action(cluster));
    assert_false(shoal_cluster_next_action(cluster, &action));
}

static void expect_round(ShoalCluster *cluster, ShoalClusterActionKind kind, uint64_t round) {
    assert_int_equal(expect(cluster, kind).round, round);
}

static void expect_lost(ShoalCluster *cluster, unsigned i, const char *part) {
    ShoalClusterAction action = expect(cluster, SHOAL_CLUSTER_LOST);
    assert_int_equal(action.connection, 100 + i);
    if (!strstr(action.text, part))
        fail_msg("'%s' is not in '%s'", part, action.text);
}

static ShoalClusterAction expect_drop(ShoalCluster *cluster, unsigned i, ShoalStatus status) {
    ShoalClusterAction action = expect(cluster, SHOAL_CLUSTER_DROP);
    assert_int_equal(action.connection, 100 + i);
    assert_int_equal(action.status, status);
    return action;
}

/* FORM with just these workers, in this order. */
static void expect_form(ShoalCluster *cluster, uint64_t generation, unsigned n,
                        const unsigned *workers) {
    assert_int_equal(expect(cluster, SHOAL_CLUSTER_FORM).generation, generation);
    assert_int_equal(shoal_cluster_generation(cluster), generation);
    assert_int_equal(shoal_cluster_phase(cluster), SHOAL_CLUSTER_FORMING);
    size_t count;
    const ShoalClusterMember *members = shoal_cluster_members(cluster, &count);
    assert_int_equal(count, n);
    for (unsigned r = 0; r < n; r++) {
        assert_int_equal(members[r].connection, 100 + workers[r]);
        assert_int_equal(shoal_cluster_rank(cluster, members[r].connection), r);
        assert_false(members[r].needy);
    }
}

#define EXPECT_FORM(cluster, generation, ...)                                                      \
    expect_form(cluster, generation, sizeof((const unsigned[]){__VA_ARGS__}) / sizeof(unsigned),   \
                (const unsigned[]){__VA_ARGS__})

enum { PLAIN = 0, REWIND = 1, SEEK = 2, SEED = 4 };

static void expect_start(ShoalCluster *cluster, uint64_t round, uint64_t updates, uint64_t made,
                         unsigned how, unsigned needy) {
    ShoalClusterAction action = expect(cluster, SHOAL_CLUSTER_START);
    assert_int_equal(action.round, round);
    assert_true(action.version.held);
    assert_int_equal(action.version.updates, updates);
    assert_int_equal(action.version.generation, made);
    assert_int_equal(
        (action.rewind ? REWIND : 0) | (action.seek ? SEEK : 0) | (action.seed ? SEED : 0), how);
    size_t n;
    unsigned mask = 0;
    const ShoalClusterMember *members = shoal_cluster_members(cluster, &n);
    for (size_t r = 0; r < n; r++)
        if (members[r].needy)
            mask |= r < 32 ? 1u << r : 1u << 31;
    assert_int_equal(mask, needy);
    assert_int_equal(shoal_cluster_added(cluster), round);
    assert_int_equal(shoal_cluster_issued(cluster), round);
}

static void expect_fail(ShoalCluster *cluster, ShoalStatus status, const char *text) {
    ShoalClusterAction action = expect(cluster, SHOAL_CLUSTER_FAIL);
    assert_int_equal(action.status, status);
    assert_string_equal(action.text, text);
    expect_nothing(cluster);
    assert_int_equal(shoal_cluster_phase(cluster), SHOAL_CLUSTER_FAILED);
    assert_true(shoal_cluster_deadline_ms(cluster) == UINT64_MAX);
    /* Nothing comes after the end. */
    shoal_cluster_leave(cluster, 1 << 20, 101, "late");
    shoal_cluster_prepared(cluster, 1 << 20, 102);
    shoal_cluster_aborted(cluster, 1 << 20, 102, 1, 0, "late");
    shoal_cluster_fault(cluster, 1 << 20, 102, SHOAL_ERR_MODEL, "late");
    shoal_cluster_diverged(cluster, 1 << 20, 102, "late");
    shoal_cluster_tick(cluster, 1 << 20);
    shoal_cluster_add_round(cluster, 1, false);
    shoal_cluster_finish(cluster);
    expect_nothing(cluster);
}

/* Rounds of training of one pass: round `from` makes update `updates`, and so on. */
static void add_updates(ShoalCluster *cluster, uint64_t from, uint64_t updates, unsigned n) {
    for (unsigned i = 0; i < n; i++)
        assert_int_equal(shoal_cluster_add_round(cluster, updates + i, false), from + i);
}

/* Workers 0 .. n - 1 at time 10, in their first generation, seeded with nothing done. */
static ShoalCluster *started(const ShoalClusterConfig *config, unsigned n) {
    ShoalCluster *cluster = create(config);
    for (unsigned i = 0; i < n; i++)
        join(cluster, i < 9 ? i : 9, i);
    for (unsigned i = 0; i < n; i++)
        prepared(cluster, 9, i);
    expect(cluster, SHOAL_CLUSTER_FORM);
    for (unsigned i = 0; i < n; i++)
        ready(cluster, 10, i, 0, 0);
    assert_true(expect(cluster, SHOAL_CLUSTER_START).seed);
    expect_nothing(cluster);
    assert_int_equal(shoal_cluster_phase(cluster), SHOAL_CLUSTER_RUNNING);
    return cluster;
}

/* Likewise three workers, with updates 1 .. n planned and two rounds of them issued. */
static ShoalCluster *running(const ShoalClusterConfig *config, unsigned n) {
    ShoalCluster *cluster = started(config, 3);
    add_updates(cluster, 0, 1, n);
    for (unsigned i = 0; i < n && i < 2; i++)
        expect_round(cluster, SHOAL_CLUSTER_ISSUE, i);
    expect_nothing(cluster);
    return cluster;
}

/* Rounds from .. from + n - 1, as they have been issued, are done by workers 0 .. workers - 1. */
static void complete(ShoalCluster *cluster, uint64_t now, unsigned workers, uint64_t from,
                     unsigned n) {
    for (unsigned r = 0; r < n; r++) {
        for (unsigned i = 0; i < workers; i++)
            done(cluster, now, i, from + r);
        expect_round(cluster, SHOAL_CLUSTER_COMPLETE, from + r);
    }
}

/* --- the whole, and the beginning ----------------------------------------------------------- */

static void test_whole_run(void **state) {
    (void)state;
    ShoalCluster *cluster = create(&BASE);
    size_t n;
    shoal_cluster_members(cluster, &n);
    assert_int_equal(n, 0);
    for (unsigned i = 0; i < 3; i++)
        join(cluster, i, i);
    assert_int_equal(shoal_cluster_joined(cluster), 3);
    assert_int_equal(shoal_cluster_prepared_count(cluster), 0);
    prepared(cluster, 5, 2);
    prepared(cluster, 5, 0);
    expect_nothing(cluster);
    assert_int_equal(shoal_cluster_room(cluster), 0);
    prepared(cluster, 6, 1);
    EXPECT_FORM(cluster, 1, 0, 1, 2);
    const ShoalClusterMember *members = shoal_cluster_members(cluster, &n);
    assert_int_equal(members[2].worker_id, 2);
    assert_int_equal(members[2].info.ring_port, 4002);
    assert_string_equal(members[2].info.name, "phone-2");
    ready(cluster, 10, 1, 0, 0);
    ready(cluster, 10, 0, 0, 0);
    expect_nothing(cluster);
    ready(cluster, 10, 2, 0, 0);
    expect_start(cluster, 0, 0, 1, SEEK | SEED, 6);
    assert_int_equal(shoal_cluster_room(cluster), 2);
    add_updates(cluster, 0, 1, 3);
    assert_int_equal(shoal_cluster_room(cluster), 0);
    expect_round(cluster, SHOAL_CLUSTER_ISSUE, 0);
    expect_round(cluster, SHOAL_CLUSTER_ISSUE, 1);
    done(cluster, 20, 2, 0);
    done(cluster, 20, 2, 1); /* ahead of the others */
    done(cluster, 20, 0, 0);
    expect_nothing(cluster);
    done(cluster, 20, 1, 0);
    expect_round(cluster, SHOAL_CLUSTER_COMPLETE, 0);
    expect_round(cluster, SHOAL_CLUSTER_ISSUE, 2);
    shoal_cluster_finish(cluster);
    assert_int_equal(shoal_cluster_phase(cluster), SHOAL_CLUSTER_DRAINING);
    for (unsigned i = 0; i < 3; i++) {
        if (i < 2)
            done(cluster, 30, i, 1);
        done(cluster, 30, i, 2);
    }
    expect_round(cluster, SHOAL_CLUSTER_COMPLETE, 1);
    expect_round(cluster, SHOAL_CLUSTER_COMPLETE, 2);
    expect(cluster, SHOAL_CLUSTER_FINISHED);
    expect_nothing(cluster);
    leave(cluster, 40, 0); /* as it should, now */
    join(cluster, 40, 5);
    assert_true(expect_drop(cluster, 5, SHOAL_ERR_ARGUMENT).for_good);
    expect_nothing(cluster);
    assert_int_equal(shoal_cluster_phase(cluster), SHOAL_CLUSTER_DONE);
    shoal_cluster_destroy(cluster);
    shoal_cluster_destroy(NULL);
}

static void check_refused(ShoalClusterConfig config) {
    ShoalCluster *cluster = NULL;
    ShoalError err = {0};
    assert_int_equal(shoal_cluster_create(&config, &cluster, &err), SHOAL_ERR_ARGUMENT);
    assert_true(err.text[0] != '\0');
    assert_null(cluster);
}

static void test_config_is_checked(void **state) {
    (void)state;
    ShoalClusterConfig config = BASE;
    config.expected = config.min_workers = 0;
    check_refused(config);
    config = BASE;
    config.expected = config.max_workers = SHOAL_CLUSTER_MAX_WORKERS + 1;
    check_refused(config);
    config = BASE;
    config.min_workers = 0;
    check_refused(config);
    config.min_workers = 4;
    check_refused(config);
    config = BASE;
    config.max_workers = 2;
    check_refused(config);
    config.max_workers = SHOAL_CLUSTER_MAX_WORKERS + 1;
    check_refused(config);
    config = BASE;
    config.window = 0;
    check_refused(config);
    config.window = SHOAL_CLUSTER_MAX_WINDOW + 1;
    check_refused(config);
    config = BASE;
    config.heartbeat_timeout_ms = 0;
    check_refused(config);
}

static void test_versions_compare(void **state) {
    (void)state;
    const ShoalClusterVersion order[] = {{false, 9, 9}, {true, 0, 5}, {true, 0, 6},
                                         {true, 3, 1},  {true, 3, 2}, {true, UINT64_MAX, 0}};
    const int n = sizeof(order) / sizeof(order[0]);
    for (int i = 0; i < n; i++)
        for (int j = 0; j < n; j++) {
            int sign = shoal_cluster_version_compare(order[i], order[j]);
            assert_int_equal((sign > 0) - (sign < 0), (i > j) - (i < j));
        }
    assert_int_equal(shoal_cluster_version_compare((ShoalClusterVersion){false, 1, 2}, order[0]),
                     0);
}

static void test_join_timeout(void **state) {
    (void)state;
    ShoalClusterConfig config = BASE;
    config.join_timeout_ms = 500;
    ShoalCluster *cluster = create(&config);
    shoal_cluster_tick(cluster, 1000);
    come(cluster, 1010, 0);
    join(cluster, 1010, 1); /* does not count before it is prepared */
    assert_int_equal(shoal_cluster_deadline_ms(cluster), 1500);
    shoal_cluster_tick(cluster, 1499);
    expect_nothing(cluster);
    shoal_cluster_tick(cluster, 1500);
    expect_fail(cluster, SHOAL_ERR_NETWORK,
                "1 of 3 workers were ready to begin within 500 ms; start the others, or ask for "
                "fewer");
    join(cluster, 1600, 5);
    assert_true(expect_drop(cluster, 5, SHOAL_ERR_ARGUMENT).for_good);
    shoal_cluster_destroy(cluster);
}

static void test_settling(void **state) {
    (void)state;
    ShoalClusterConfig config = BASE;
    config.settle_ms = 100;
    config.join_timeout_ms = 400;
    config.min_workers = 2;
    ShoalCluster *cluster = create(&config);
    come(cluster, 0, 0);
    shoal_cluster_tick(cluster, 150); /* one is too few */
    come(cluster, 200, 1);
    assert_int_equal(shoal_cluster_deadline_ms(cluster), 300);
    join(cluster, 290, 2); /* someone comes: wait on */
    shoal_cluster_tick(cluster, 300);
    expect_nothing(cluster);
    assert_int_equal(shoal_cluster_deadline_ms(cluster), 390);
    shoal_cluster_tick(cluster, 390);
    EXPECT_FORM(cluster, 1, 0, 1);
    shoal_cluster_destroy(cluster);

    /* Where they come one by one for ever, the time for joining ends it. */
    cluster = create(&config);
    come(cluster, 0, 0);
    come(cluster, 350, 1);
    shoal_cluster_tick(cluster, 399);
    expect_nothing(cluster);
    shoal_cluster_tick(cluster, 400);
    EXPECT_FORM(cluster, 1, 0, 1);
    shoal_cluster_destroy(cluster);
}

static void test_who_may_join(void **state) {
    (void)state;
    ShoalClusterConfig config = BASE;
    config.max_workers = 4;
    ShoalCluster *cluster = running(&config, 1);
    join(cluster, 20, 3);
    expect_nothing(cluster);
    join(cluster, 20, 4);
    ShoalClusterAction drop = expect_drop(cluster, 4, SHOAL_ERR_LOST);
    assert_false(drop.for_good);
    assert_non_null(strstr(drop.text, "no more workers"));
    leave(cluster, 21, 3); /* was never a member: nobody cares */
    expect_nothing(cluster);
    join(cluster, 22, 5);
    expect_nothing(cluster);
    join(cluster, 23, 5); /* twice over one connection */
    expect_drop(cluster, 5, SHOAL_ERR_PROTOCOL);
    expect_nothing(cluster);
    join_with(cluster, 24, 6, UINT64_MAX - 1);
    expect_drop(cluster, 6, SHOAL_ERR_ARGUMENT);
    prepared(cluster, 25, 6); /* unknown by now */
    expect_nothing(cluster);
    assert_int_equal(shoal_cluster_joined(cluster), 3);
    shoal_cluster_destroy(cluster);
}

static void test_generations_grow(void **state) {
    (void)state;
    ShoalClusterConfig config = BASE;
    config.first_generation = 50;
    config.expected = 1;
    ShoalCluster *cluster = create(&config);
    come(cluster, 0, 0);
    EXPECT_FORM(cluster, 50, 0);
    join_with(cluster, 1, 1, 70); /* of an earlier run */
    prepared(cluster, 1, 1);
    leave(cluster, 2, 0);
    expect_lost(cluster, 0,
                "worker 0 (phone-0 at 127.0.0.1, pid 70) was lost while the ring was "
                "being formed: connection closed");
    EXPECT_FORM(cluster, 71, 1);
    shoal_cluster_destroy(cluster);
}

/* --- losses -------------------------------------------------------------------------------- */

static void test_a_loss_forms_anew(void **state) {
    (void)state;
    ShoalCluster *cluster = running(&BASE, 3);
    come(cluster, 15, 3); /* a candidate, let in by the way */
    join(cluster, 15, 4); /* not prepared */
    shoal_cluster_leave(cluster, 20, 999, "a stranger");
    expect_nothing(cluster);
    leave(cluster, 20, 1);
    expect_lost(cluster, 1,
                "worker 1 (phone-1 at 127.0.0.1, pid 71) was lost in round 0: "
                "connection closed");
    EXPECT_FORM(cluster, 2, 0, 2, 3);
    expect_nothing(cluster);
    leave(cluster, 21, 1); /* known no more */
    expect_nothing(cluster);
    assert_int_equal(shoal_cluster_room(cluster), 0);
    leave(cluster, 22, 0); /* once more, while the ring is being formed */
    expect_lost(cluster, 0, "while the ring was being formed");
    EXPECT_FORM(cluster, 3, 2, 3);
    assert_int_equal(shoal_cluster_joined(cluster), 3);
    shoal_cluster_destroy(cluster);
}

static void test_pause_and_go_on(void **state) {
    (void)state;
    ShoalClusterConfig config = BASE;
    config.min_workers = 2;
    ShoalCluster *cluster = running(&config, 3);
    leave(cluster, 20, 0);
    expect_lost(cluster, 0, "connection closed");
    EXPECT_FORM(cluster, 2, 1, 2);
    leave(cluster, 21, 2);
    expect_lost(cluster, 2, "connection closed");
    ShoalClusterAction pause = expect(cluster, SHOAL_CLUSTER_PAUSE);
    assert_string_equal(pause.text, "1 worker is left, which is fewer than 2: the training waits "
                                    "for others to come");
    assert_int_equal(shoal_cluster_phase(cluster), SHOAL_CLUSTER_WAITING);
    /* Who was lost stays in the list. */
    assert_int_equal(shoal_cluster_rank(cluster, 102), 1);
    /* What was under way comes late, and does not matter. */
    ready(cluster, 22, 1, 0, 1);
    done(cluster, 22, 1, 7);
    aborted(cluster, 22, 1, 0);
    join(cluster, 30, 5);
    leave(cluster, 31, 5); /* was no member */
    expect_nothing(cluster);
    /* No waiting for `expected` the second time, nor for ever the same ones. */
    join(cluster, 32, 6);
    leave(cluster, 33, 1);
    expect_lost(cluster, 1, "while the cluster waited for workers");
    prepared(cluster, 34, 6);
    expect_nothing(cluster);
    come(cluster, 35, 7);
    EXPECT_FORM(cluster, 3, 6, 7);
    shoal_cluster_destroy(cluster);
}

static void test_waiting_forgives(void **state) {
    (void)state;
    ShoalCluster *cluster = create(&BASE);
    come(cluster, 100, 0);
    come(cluster, 100, 1);
    leave(cluster, 200, 0);
    shoal_cluster_tick(cluster, 100 + TIMEOUT);
    expect_drop(cluster, 1, SHOAL_ERR_LOST);
    expect_nothing(cluster);
    assert_int_equal(shoal_cluster_prepared_count(cluster), 0);
    for (unsigned i = 4; i < 7; i++)
        come(cluster, 1400, i);
    EXPECT_FORM(cluster, 1, 4, 5, 6);
    shoal_cluster_destroy(cluster);
}

static void test_faults(void **state) {
    (void)state;
    ShoalCluster *cluster = running(&BASE, 1);
    shoal_cluster_fault(cluster, 20, 102, SHOAL_ERR_DATA, "bad\nrecord\x1b[2J");
    ShoalClusterAction drop = expect_drop(cluster, 2, SHOAL_ERR_DATA);
    assert_string_equal(drop.text, "bad?record?[2J");
    expect_lost(cluster, 2,
                "worker 2 (phone-2 at 127.0.0.1, pid 72) failed in round 0: "
                "bad?record?[2J");
    EXPECT_FORM(cluster, 2, 0, 1);
    join(cluster, 21, 3);
    shoal_cluster_fault(cluster, 22, 103, SHOAL_ERR_MODEL,
                        "too large for it"); /* no more than it */
    expect_drop(cluster, 3, SHOAL_ERR_MODEL);
    expect_nothing(cluster);
    shoal_cluster_destroy(cluster);

    /* Nobody could prepare itself for such a job. */
    cluster = create(&BASE);
    join(cluster, 0, 0);
    join(cluster, 0, 1);
    shoal_cluster_fault(cluster, 1, 100, SHOAL_ERR_MEMORY, "out of memory");
    expect_drop(cluster, 0, SHOAL_ERR_MEMORY);
    expect_nothing(cluster);
    shoal_cluster_fault(cluster, 1, 101, SHOAL_ERR_MODEL, "no such layer");
    expect_drop(cluster, 1, SHOAL_ERR_MODEL);
    expect_fail(cluster, SHOAL_ERR_MODEL,
                "worker 1 (phone-1 at 127.0.0.1, pid 71) cannot do this job: no such layer");
    shoal_cluster_destroy(cluster);

    cluster = create(&BASE);
    come(cluster, 0, 0);
    shoal_cluster_fault(cluster, 1, 100, (ShoalStatus)-99, "?"); /* no status of ours */
    expect_drop(cluster, 0, SHOAL_ERR_PROTOCOL);
    come(cluster, 0, 1);
    shoal_cluster_fault(cluster, 1, 101, SHOAL_ERR_MODEL, "later"); /* it could do the job */
    expect_drop(cluster, 1, SHOAL_ERR_MODEL);
    expect_nothing(cluster);
    shoal_cluster_destroy(cluster);
}

static void test_a_diverged_replica_is_dropped(void **state) {
    (void)state;
    ShoalCluster *cluster = running(&BASE, 1);
    shoal_cluster_diverged(cluster, 20, 101, "its weights differ");
    assert_true(expect_drop(cluster, 1, SHOAL_ERR_DATA).forget);
    expect_lost(cluster, 1, "was dropped in round 0: its weights differ");
    EXPECT_FORM(cluster, 2, 0, 2);
    shoal_cluster_diverged(cluster, 21, 101, "again");
    expect_nothing(cluster);
    shoal_cluster_destroy(cluster);
}

/* --- where a generation begins -------------------------------------------------------------- */

/* Rounds 0 and 1 are issued; worker 2 leaves. Survivors hold what they say; then START. */
static ShoalCluster *after_loss(uint64_t updates0, uint64_t made0, uint64_t updates1,
                                uint64_t made1) {
    ShoalCluster *cluster = running(&BASE, 3);
    leave(cluster, 20, 2);
    expect_lost(cluster, 2, "");
    EXPECT_FORM(cluster, 2, 0, 1);
    ready(cluster, 21, 0, updates0, made0);
    ready(cluster, 21, 1, updates1, made1);
    return cluster;
}

static void test_nothing_done_is_done_anew(void **state) {
    (void)state;
    ShoalCluster *cluster = after_loss(0, 1, 0, 1);
    expect_start(cluster, 0, 0, 1, REWIND, 0);
    add_updates(cluster, 0, 1, 1);
    expect_round(cluster, SHOAL_CLUSTER_ISSUE, 0);
    shoal_cluster_destroy(cluster);
}

/* Update 1 was made by both, and only the word of it was missing. */
static void test_what_is_done_is_complete(void **state) {
    (void)state;
    ShoalCluster *cluster = after_loss(1, 1, 1, 1);
    expect_start(cluster, 1, 1, 1, REWIND, 0);
    expect_round(cluster, SHOAL_CLUSTER_COMPLETE, 0);
    expect_nothing(cluster);
    assert_int_equal(shoal_cluster_completed(cluster), 1);
    assert_int_equal(shoal_cluster_room(cluster), 2);
    shoal_cluster_destroy(cluster);
}

/* Only one holds it: it is complete when the other shows that it has got it. */
static void test_needy_members(void **state) {
    (void)state;
    ShoalCluster *cluster = after_loss(1, 1, 2, 1);
    expect_start(cluster, 2, 2, 1, REWIND, 1);
    expect_nothing(cluster);
    assert_int_equal(shoal_cluster_completed(cluster), 0);
    assert_int_equal(shoal_cluster_room(cluster), 2); /* those behind the state do not count */
    add_updates(cluster, 2, 3, 2);
    expect_round(cluster, SHOAL_CLUSTER_ISSUE, 2);
    expect_round(cluster, SHOAL_CLUSTER_ISSUE, 3);
    done(cluster, 30, 1, 2);
    expect_nothing(cluster);
    done(cluster, 30, 0, 2);
    for (uint64_t r = 0; r < 3; r++)
        expect_round(cluster, SHOAL_CLUSTER_COMPLETE, r);
    expect_nothing(cluster);
    shoal_cluster_destroy(cluster);
}

/* The one who holds the newest state is lost before the other has got it. */
static void test_double_fault(void **state) {
    (void)state;
    ShoalCluster *cluster = after_loss(1, 1, 2, 1);
    expect_start(cluster, 2, 2, 1, REWIND, 1);
    add_updates(cluster, 2, 3, 1);
    expect_round(cluster, SHOAL_CLUSTER_ISSUE, 2);
    leave(cluster, 30, 1);
    expect_lost(cluster, 1, "");
    EXPECT_FORM(cluster, 3, 0);
    ready(cluster, 31, 0, 1, 1); /* still has its own */
    expect_start(cluster, 1, 1, 1, REWIND, 0);
    expect_round(cluster, SHOAL_CLUSTER_COMPLETE, 0);
    shoal_cluster_destroy(cluster);

    cluster = after_loss(1, 1, 2, 1);
    expect_start(cluster, 2, 2, 1, REWIND, 1);
    leave(cluster, 30, 1);
    expect_lost(cluster, 1, "");
    EXPECT_FORM(cluster, 3, 0);
    ready(cluster, 31, 0, 0, 0); /* was overwritten in part */
    expect_start(cluster, 0, 0, 3, SEEK | SEED, 0);
    expect_nothing(cluster);
    shoal_cluster_destroy(cluster);
}

/* Of states with as many updates the one that was made later counts. */
static void test_later_generations_win(void **state) {
    (void)state;
    ShoalCluster *cluster = after_loss(0, 1, 1, 1);
    expect_start(cluster, 1, 1, 1, REWIND, 1);
    leave(cluster, 30, 1); /* takes update 1 with it */
    expect_lost(cluster, 1, "");
    EXPECT_FORM(cluster, 3, 0);
    ready(cluster, 31, 0, 0, 1);
    expect_start(cluster, 0, 0, 1, REWIND, 0);
    add_updates(cluster, 0, 1, 2);
    expect_round(cluster, SHOAL_CLUSTER_ISSUE, 0);
    expect_round(cluster, SHOAL_CLUSTER_ISSUE, 1);
    done(cluster, 32, 0, 0);
    expect_round(cluster, SHOAL_CLUSTER_COMPLETE, 0);
    come(cluster, 33, 5); /* worker 1 again, with its update 1 */
    done(cluster, 34, 0, 1);
    expect_round(cluster, SHOAL_CLUSTER_COMPLETE, 1);
    EXPECT_FORM(cluster, 4, 0, 5);
    ready(cluster, 35, 5, 2, 1);
    ready(cluster, 35, 0, 2, 3);
    expect_start(cluster, 2, 2, 3, PLAIN, 2);
    shoal_cluster_destroy(cluster);
}

/* Rounds 0 .. 4 complete; then all that is left are workers with older states. */
static ShoalCluster *five_updates_in(const ShoalClusterConfig *config) {
    ShoalCluster *cluster = running(config, 2);
    complete(cluster, 15, 3, 0, 2);
    for (unsigned r = 2; r < 5; r++) {
        add_updates(cluster, r, r + 1, 1);
        expect_round(cluster, SHOAL_CLUSTER_ISSUE, r);
        complete(cluster, 16, 3, r, 1);
    }
    for (unsigned i = 0; i < 3; i++) {
        leave(cluster, 20, i);
        expect_lost(cluster, i, "before round 5");
        expect(cluster, i < 2 ? SHOAL_CLUSTER_FORM : SHOAL_CLUSTER_PAUSE);
        if (i < 2)
            for (unsigned j = i + 1; j < 3; j++) {
                ready(cluster, 20, j, 5, 1);
            }
        if (i < 2)
            expect(cluster, SHOAL_CLUSTER_START);
    }
    expect_nothing(cluster);
    return cluster;
}

static void test_going_back(void **state) {
    (void)state;
    ShoalCluster *cluster = five_updates_in(&BASE);
    come(cluster, 30, 5);
    EXPECT_FORM(cluster, 4, 5);
    ready(cluster, 31, 5, 3, 1); /* the best there is */
    expect_start(cluster, 5, 3, 1, SEEK, 0);
    /* That is where the training is now: a newer one from before is not on its way. */
    add_updates(cluster, 5, 4, 1);
    expect_round(cluster, SHOAL_CLUSTER_ISSUE, 5);
    leave(cluster, 32, 5);
    expect_lost(cluster, 5, "");
    expect(cluster, SHOAL_CLUSTER_PAUSE);
    come(cluster, 33, 6);
    come(cluster, 33, 7);
    EXPECT_FORM(cluster, 5, 6);
    leave(cluster, 33, 6);
    expect_lost(cluster, 6, "");
    EXPECT_FORM(cluster, 6, 7);
    ready(cluster, 34, 7, 5, 1);
    expect_start(cluster, 5, 5, 1, SEEK, 0);
    shoal_cluster_destroy(cluster);
}

static void test_seeding_again(void **state) {
    (void)state;
    ShoalCluster *cluster = five_updates_in(&BASE);
    shoal_cluster_seedable(cluster, 4); /* a snapshot */
    come(cluster, 30, 5);
    come(cluster, 30, 6);
    EXPECT_FORM(cluster, 4, 5);
    leave(cluster, 30, 5);
    expect_lost(cluster, 5, "");
    EXPECT_FORM(cluster, 5, 6);
    ready(cluster, 31, 6, 3, 1); /* older than the snapshot */
    expect_start(cluster, 5, 4, 5, SEEK | SEED, 0);
    leave(cluster, 32, 6);
    expect_lost(cluster, 6, "");
    expect(cluster, SHOAL_CLUSTER_PAUSE);
    come(cluster, 33, 7);
    EXPECT_FORM(cluster, 6, 7);
    ready(cluster, 34, 7, 4, 5); /* what had been seeded */
    expect_start(cluster, 5, 4, 5, PLAIN, 0);
    shoal_cluster_destroy(cluster);
}

/* The coordinator was started again, and the workers are those of before. */
static void test_adopting(void **state) {
    (void)state;
    ShoalClusterConfig config = BASE;
    config.adopt = true;
    config.seed_updates = 10;
    ShoalCluster *cluster = create(&config);
    for (unsigned i = 0; i < 3; i++)
        join_with(cluster, 0, i, 7);
    for (unsigned i = 0; i < 3; i++)
        prepared(cluster, 0, i);
    EXPECT_FORM(cluster, 8, 0, 1, 2);
    ready(cluster, 1, 0, 25, 6);
    ready(cluster, 1, 1, 26, 7);
    ready(cluster, 1, 2, 26, 5);
    expect_start(cluster, 0, 26, 7, SEEK, 5);
    /* Another with a newer state comes late. */
    add_updates(cluster, 0, 27, 1);
    expect_round(cluster, SHOAL_CLUSTER_ISSUE, 0);
    join_with(cluster, 2, 3, 7);
    prepared(cluster, 2, 3);
    complete(cluster, 3, 3, 0, 1);
    EXPECT_FORM(cluster, 9, 0, 1, 2, 3);
    for (unsigned i = 0; i < 3; i++)
        ready(cluster, 4, i, 27, 8);
    ready(cluster, 4, 3, 40, 7);
    expect_start(cluster, 1, 40, 7, SEEK, 7);
    shoal_cluster_destroy(cluster);

    /* Nothing as good as the snapshot. */
    config.expected = 1;
    cluster = create(&config);
    come(cluster, 0, 0);
    EXPECT_FORM(cluster, 1, 0);
    leave(cluster, 0, 0);
    expect_lost(cluster, 0, "");
    expect(cluster, SHOAL_CLUSTER_PAUSE);
    join_with(cluster, 0, 1, 7);
    prepared(cluster, 0, 1);
    EXPECT_FORM(cluster, 8, 1);
    ready(cluster, 1, 1, 9, 7);
    expect_start(cluster, 0, 10, 8, SEEK | SEED, 0);
    shoal_cluster_destroy(cluster);

    /* Unless whatever they hold is to be gone on from. */
    config.adopt_any = true;
    cluster = create(&config);
    join_with(cluster, 0, 1, 7);
    prepared(cluster, 0, 1);
    EXPECT_FORM(cluster, 8, 1);
    ready(cluster, 1, 1, 9, 7);
    expect_start(cluster, 0, 9, 7, SEEK, 0);
    shoal_cluster_destroy(cluster);
}

/* Who did not ask for the states of an earlier run does not get them, not even later. */
static void test_not_adopting(void **state) {
    (void)state;
    ShoalClusterConfig config = BASE;
    config.expected = 2;
    ShoalCluster *cluster = create(&config);
    join_with(cluster, 0, 0, 7);
    join_with(cluster, 0, 1, 7);
    prepared(cluster, 0, 0);
    prepared(cluster, 0, 1);
    EXPECT_FORM(cluster, 8, 0, 1);
    ready(cluster, 1, 0, 26, 7);
    ready(cluster, 1, 1, 26, 7);
    expect_start(cluster, 0, 0, 8, SEEK | SEED, 2);
    leave(cluster, 2, 0); /* before worker 1 has got the seed */
    expect_lost(cluster, 0, "");
    EXPECT_FORM(cluster, 9, 1);
    ready(cluster, 3, 1, 26, 7);
    expect_start(cluster, 0, 0, 9, SEEK | SEED, 0);
    add_updates(cluster, 0, 1, 1);
    expect_round(cluster, SHOAL_CLUSTER_ISSUE, 0);
    leave(cluster, 4, 1);
    expect_lost(cluster, 1, "");
    expect(cluster, SHOAL_CLUSTER_PAUSE);
    /* As many updates as we have made, but made before. */
    join_with(cluster, 5, 3, 7);
    prepared(cluster, 5, 3);
    EXPECT_FORM(cluster, 10, 3);
    ready(cluster, 5, 3, 1, 7);
    expect_start(cluster, 0, 0, 10, SEEK | SEED, 0);
    leave(cluster, 5, 3);
    expect_lost(cluster, 3, "");
    expect(cluster, SHOAL_CLUSTER_PAUSE);
    /* One that has heard of numbers like ours elsewhere cannot hold more than was ever made. */
    join_with(cluster, 5, 2, 30);
    prepared(cluster, 5, 2);
    EXPECT_FORM(cluster, 31, 2);
    ready(cluster, 6, 2, 26, 30);
    expect_start(cluster, 0, 0, 31, SEEK | SEED, 0);
    shoal_cluster_destroy(cluster);
}

static void test_impossible_versions(void **state) {
    (void)state;
    ShoalCluster *cluster = create(&BASE);
    for (unsigned i = 0; i < 3; i++)
        come(cluster, 0, i);
    expect(cluster, SHOAL_CLUSTER_FORM);
    ready(cluster, 1, 1, 5, 1); /* made in a generation that has not begun */
    assert_true(expect_drop(cluster, 1, SHOAL_ERR_PROTOCOL).forget);
    expect_lost(cluster, 1, "broke the protocol");
    EXPECT_FORM(cluster, 2, 0, 2);
    shoal_cluster_destroy(cluster);
}

/* --- parts of iterations, and rounds alone --------------------------------------------------- */

/* Three passes: what the first two have summed up is lost with any member. */
static void test_parts_are_done_anew(void **state) {
    (void)state;
    ShoalCluster *cluster = started(&BASE, 3);
    shoal_cluster_add_round(cluster, 0, false);
    shoal_cluster_add_round(cluster, 0, false);
    expect_round(cluster, SHOAL_CLUSTER_ISSUE, 0);
    expect_round(cluster, SHOAL_CLUSTER_ISSUE, 1);
    leave(cluster, 20, 2); /* before the first is complete: back to it */
    expect_lost(cluster, 2, "");
    EXPECT_FORM(cluster, 2, 0, 1);
    ready(cluster, 21, 0, 0, 1);
    ready(cluster, 21, 1, 0, 1);
    expect_start(cluster, 0, 0, 1, REWIND, 0);
    for (unsigned i = 0; i < 2; i++)
        shoal_cluster_add_round(cluster, 0, false);
    expect_round(cluster, SHOAL_CLUSTER_ISSUE, 0);
    expect_round(cluster, SHOAL_CLUSTER_ISSUE, 1);
    complete(cluster, 22, 2, 0, 1);
    come(cluster, 23, 3); /* lets them end the iteration */
    assert_int_equal(shoal_cluster_room(cluster), 1);
    complete(cluster, 24, 2, 1, 1);
    expect_nothing(cluster);
    assert_int_equal(shoal_cluster_room(cluster), 1);
    leave(cluster, 25, 1); /* after a part is complete: to the beginning of the iteration */
    expect_lost(cluster, 1, "");
    EXPECT_FORM(cluster, 3, 0, 3);
    ready(cluster, 26, 0, 0, 1);
    ready(cluster, 26, 3, 0, 0);
    expect_start(cluster, 2, 0, 1, SEEK, 2);
    shoal_cluster_add_round(cluster, 0, false);
    expect_round(cluster, SHOAL_CLUSTER_ISSUE, 2);
    come(cluster, 26, 5);
    leave(cluster, 26, 5);
    aborted(cluster, 26, 0, -1); /* and again, with nothing of the new iteration complete */
    aborted(cluster, 26, 3, -1);
    EXPECT_FORM(cluster, 4, 0, 3);
    ready(cluster, 26, 0, 0, 1);
    ready(cluster, 26, 3, 0, 1);
    expect_start(cluster, 2, 0, 1, REWIND, 0);
    for (unsigned i = 0; i < 3; i++)
        shoal_cluster_add_round(cluster, i == 2, false);
    expect_round(cluster, SHOAL_CLUSTER_ISSUE, 2);
    expect_round(cluster, SHOAL_CLUSTER_ISSUE, 3);
    for (uint64_t r = 2; r < 5; r++) {
        done(cluster, 27, 0, r);
        done(cluster, 27, 3, r);
        expect_round(cluster, SHOAL_CLUSTER_COMPLETE, r);
        if (r == 2)
            expect_round(cluster, SHOAL_CLUSTER_ISSUE, 4);
    }
    leave(cluster, 28, 3); /* between two iterations: nothing is lost */
    expect_lost(cluster, 3, "");
    EXPECT_FORM(cluster, 5, 0);
    ready(cluster, 29, 0, 1, 4);
    expect_start(cluster, 5, 1, 4, PLAIN, 0);
    shoal_cluster_destroy(cluster);
}

static void test_candidates_wait_for_the_iteration(void **state) {
    (void)state;
    ShoalCluster *cluster = started(&BASE, 3);
    for (unsigned i = 0; i < 3; i++)
        shoal_cluster_add_round(cluster, i == 2, false);
    shoal_cluster_add_round(cluster, 1, false); /* of the next iteration */
    expect_round(cluster, SHOAL_CLUSTER_ISSUE, 0);
    expect_round(cluster, SHOAL_CLUSTER_ISSUE, 1);
    complete(cluster, 20, 3, 0, 1);
    expect_round(cluster, SHOAL_CLUSTER_ISSUE, 2);
    come(cluster, 21, 3);
    complete(cluster, 22, 3, 1, 1);
    expect_nothing(cluster);
    complete(cluster, 23, 3, 2, 1);
    EXPECT_FORM(cluster, 2, 0, 1, 2, 3);
    for (unsigned i = 0; i < 4; i++)
        ready(cluster, 24, i, i < 3, i < 3);
    expect_start(cluster, 3, 1, 1, REWIND, 8);
    shoal_cluster_destroy(cluster);
}

static void test_rounds_alone(void **state) {
    (void)state;
    ShoalCluster *cluster = started(&BASE, 3);
    add_updates(cluster, 0, 1, 1);
    assert_int_equal(shoal_cluster_add_round(cluster, 1, true), 1);
    assert_int_equal(shoal_cluster_room(cluster), 0); /* it waits; so would another */
    add_updates(cluster, 2, 2, 1);
    expect_round(cluster, SHOAL_CLUSTER_ISSUE, 0);
    expect_nothing(cluster);
    complete(cluster, 20, 3, 0, 1);
    expect_round(cluster, SHOAL_CLUSTER_ISSUE, 1);
    expect_nothing(cluster);
    leave(cluster, 21, 0); /* it is done again, by who is left */
    expect_lost(cluster, 0, "in round 1");
    EXPECT_FORM(cluster, 2, 1, 2);
    ready(cluster, 22, 1, 1, 1);
    ready(cluster, 22, 2, 1, 1);
    expect_start(cluster, 1, 1, 1, REWIND, 0);
    shoal_cluster_add_round(cluster, 1, true);
    expect_round(cluster, SHOAL_CLUSTER_ISSUE, 1);
    assert_int_equal(shoal_cluster_room(cluster), 1);
    add_updates(cluster, 2, 2, 1); /* what moves the state waits for it */
    expect_nothing(cluster);
    assert_int_equal(shoal_cluster_room(cluster), 0);
    done(cluster, 23, 1, 1);
    done(cluster, 23, 2, 1);
    expect_round(cluster, SHOAL_CLUSTER_COMPLETE, 1);
    expect_round(cluster, SHOAL_CLUSTER_ISSUE, 2);
    done(cluster, 24, 1, 2);
    done(cluster, 24, 2, 2);
    expect_round(cluster, SHOAL_CLUSTER_COMPLETE, 2);
    assert_int_equal(shoal_cluster_room(cluster), 2);
    /* Two of them go together; and they do not make their iteration a part. */
    shoal_cluster_add_round(cluster, 2, true);
    shoal_cluster_add_round(cluster, 2, true);
    expect_round(cluster, SHOAL_CLUSTER_ISSUE, 3);
    expect_round(cluster, SHOAL_CLUSTER_ISSUE, 4);
    expect_nothing(cluster);
    come(cluster, 25, 3);
    for (uint64_t r = 3; r < 5; r++) {
        done(cluster, 26, 1, r);
        done(cluster, 26, 2, r);
        expect_round(cluster, SHOAL_CLUSTER_COMPLETE, r);
    }
    EXPECT_FORM(cluster, 3, 1, 2, 3);
    shoal_cluster_destroy(cluster);
}

/* When the state is behind rounds that are not complete yet, a round alone need not wait for them:
 * the needy could not show otherwise that they have got it. */
static void test_alone_behind_a_start(void **state) {
    (void)state;
    ShoalCluster *cluster = after_loss(1, 1, 2, 1);
    expect_start(cluster, 2, 2, 1, REWIND, 1);
    shoal_cluster_add_round(cluster, 2, true);
    expect_round(cluster, SHOAL_CLUSTER_ISSUE, 2);
    assert_int_equal(shoal_cluster_room(cluster), 1);
    done(cluster, 30, 1, 2);
    done(cluster, 30, 0, 2);
    for (uint64_t r = 0; r < 3; r++)
        expect_round(cluster, SHOAL_CLUSTER_COMPLETE, r);
    assert_int_equal(shoal_cluster_room(cluster), 2);
    shoal_cluster_destroy(cluster);
}

static void test_many_rounds_at_once(void **state) {
    (void)state;
    ShoalCluster *cluster = started(&BASE, 3);
    add_updates(cluster, 0, 1, 1000);
    for (uint64_t r = 0; r < 1000; r++) {
        if (r < 2)
            expect_round(cluster, SHOAL_CLUSTER_ISSUE, r);
        else {
            complete(cluster, 20, 3, r - 2, 1);
            expect_round(cluster, SHOAL_CLUSTER_ISSUE, r);
        }
    }
    expect_nothing(cluster);
    shoal_cluster_destroy(cluster);
}

/* --- candidates ---------------------------------------------------------------------------- */

static void test_candidates_are_held(void **state) {
    (void)state;
    ShoalClusterConfig config = BASE;
    config.join_hold_ms = 100;
    ShoalCluster *cluster = running(&config, 2);
    join(cluster, 20, 3);
    complete(cluster, 25, 3, 0, 1);
    prepared(cluster, 30, 3);
    assert_int_equal(shoal_cluster_deadline_ms(cluster), 130);
    assert_int_equal(shoal_cluster_room(cluster), 1);
    add_updates(cluster, 2, 3, 1);
    expect_round(cluster, SHOAL_CLUSTER_ISSUE, 2);
    come(cluster, 90, 4); /* in time */
    shoal_cluster_tick(cluster, 130);
    expect_nothing(cluster);
    assert_true(shoal_cluster_deadline_ms(cluster) > 130);
    assert_int_equal(shoal_cluster_room(cluster), 0); /* for what is issued to be complete */
    add_updates(cluster, 3, 4, 1);
    expect_nothing(cluster);
    complete(cluster, 140, 3, 1, 1);
    expect_nothing(cluster);
    complete(cluster, 150, 3, 2, 1);
    EXPECT_FORM(cluster, 2, 0, 1, 2, 3, 4);
    for (unsigned i = 0; i < 5; i++)
        ready(cluster, 160, i, i < 3 ? 3 : 0, i < 3);
    expect_start(cluster, 3, 3, 1, REWIND, 24);
    shoal_cluster_destroy(cluster);
}

static void test_candidates_at_once_when_idle(void **state) {
    (void)state;
    ShoalCluster *cluster = running(&BASE, 1);
    complete(cluster, 20, 3, 0, 1);
    join(cluster, 21, 3);
    expect_nothing(cluster);
    prepared(cluster, 22, 3);
    EXPECT_FORM(cluster, 2, 0, 1, 2, 3);
    come(cluster, 23, 4); /* while it forms: not before one round of it is done */
    for (unsigned i = 0; i < 4; i++)
        ready(cluster, 24, i, i < 3, i < 3);
    expect_start(cluster, 1, 1, 1, PLAIN, 8);
    expect_nothing(cluster);
    assert_int_equal(shoal_cluster_room(cluster), 2);
    add_updates(cluster, 1, 2, 1);
    expect_round(cluster, SHOAL_CLUSTER_ISSUE, 1);
    leave(cluster, 25, 4); /* gone before it was let in */
    expect_nothing(cluster);
    complete(cluster, 26, 4, 1, 1);
    expect_nothing(cluster);
    come(cluster, 27, 5);
    EXPECT_FORM(cluster, 3, 0, 1, 2, 3, 5);
    shoal_cluster_destroy(cluster);
}

static void test_no_candidates_at_the_end(void **state) {
    (void)state;
    ShoalCluster *cluster = running(&BASE, 2);
    complete(cluster, 20, 3, 0, 1);
    shoal_cluster_finish(cluster);
    come(cluster, 21, 3);
    complete(cluster, 22, 3, 1, 1);
    expect(cluster, SHOAL_CLUSTER_FINISHED);
    expect_nothing(cluster);
    shoal_cluster_destroy(cluster);
}

/* --- the end ------------------------------------------------------------------------------- */

static void test_finish_is_taken_back(void **state) {
    (void)state;
    ShoalCluster *cluster = running(&BASE, 2);
    shoal_cluster_finish(cluster);
    assert_int_equal(shoal_cluster_add_round(cluster, 9, false), 2); /* no further ones */
    assert_int_equal(shoal_cluster_added(cluster), 2);
    leave(cluster, 20, 2);
    expect_lost(cluster, 2, "");
    EXPECT_FORM(cluster, 2, 0, 1);
    ready(cluster, 21, 0, 1, 1);
    ready(cluster, 21, 1, 1, 1);
    expect_start(cluster, 1, 1, 1, REWIND, 0);
    expect_round(cluster, SHOAL_CLUSTER_COMPLETE, 0);
    assert_int_equal(shoal_cluster_phase(cluster), SHOAL_CLUSTER_RUNNING);
    add_updates(cluster, 1, 2, 1);
    expect_round(cluster, SHOAL_CLUSTER_ISSUE, 1);
    shoal_cluster_finish(cluster);
    complete(cluster, 22, 2, 1, 1);
    expect(cluster, SHOAL_CLUSTER_FINISHED);
    shoal_cluster_destroy(cluster);
}

/* All was done, and by one who is left: the others need not get it any more. */
static void test_needy_at_the_end(void **state) {
    (void)state;
    for (int early = 0; early < 2; early++) {
        ShoalCluster *cluster = running(&BASE, 2);
        if (early)
            shoal_cluster_finish(cluster);
        leave(cluster, 20, 2);
        expect_lost(cluster, 2, "");
        EXPECT_FORM(cluster, 2, 0, 1);
        ready(cluster, 21, 0, 2, 1);
        ready(cluster, 21, 1, 1, 1);
        expect_start(cluster, 2, 2, 1, PLAIN, 2);
        if (!early) {
            expect_nothing(cluster);
            shoal_cluster_finish(cluster);
        }
        expect_round(cluster, SHOAL_CLUSTER_COMPLETE, 0);
        expect_round(cluster, SHOAL_CLUSTER_COMPLETE, 1);
        expect(cluster, SHOAL_CLUSTER_FINISHED);
        expect_nothing(cluster);
        shoal_cluster_destroy(cluster);
    }
}

static void test_empty_runs_and_early_rounds(void **state) {
    (void)state;
    ShoalCluster *cluster = create(&BASE);
    assert_int_equal(shoal_cluster_room(cluster), 0);
    shoal_cluster_finish(cluster);
    expect(cluster, SHOAL_CLUSTER_FINISHED);
    join(cluster, 0, 0);
    assert_non_null(strstr(expect_drop(cluster, 0, SHOAL_ERR_ARGUMENT).text, "finished"));
    shoal_cluster_destroy(cluster);

    /* Rounds before the first START are forgotten by it. */
    cluster = create(&BASE);
    add_updates(cluster, 0, 1, 2);
    shoal_cluster_finish(cluster);
    expect_nothing(cluster);
    for (unsigned i = 0; i < 3; i++)
        come(cluster, 0, i);
    expect(cluster, SHOAL_CLUSTER_FORM);
    for (unsigned i = 0; i < 3; i++)
        ready(cluster, 1, i, 0, 0);
    expect_start(cluster, 0, 0, 1, SEEK | SEED, 6);
    assert_int_equal(shoal_cluster_phase(cluster), SHOAL_CLUSTER_RUNNING);
    shoal_cluster_finish(cluster);
    expect(cluster, SHOAL_CLUSTER_FINISHED);
    shoal_cluster_destroy(cluster);
}

/* --- time ---------------------------------------------------------------------------------- */

static void test_heartbeats(void **state) {
    (void)state;
    ShoalCluster *cluster = running(&BASE, 1);
    assert_int_equal(shoal_cluster_deadline_ms(cluster), 10 + TIMEOUT);
    shoal_cluster_heard(cluster, 500, 100);
    shoal_cluster_heard(cluster, 500, 101);
    shoal_cluster_tick(cluster, 10 + TIMEOUT - 1);
    expect_nothing(cluster);
    shoal_cluster_heard(cluster, 400, 102); /* time does not go back: counts as now */
    shoal_cluster_tick(cluster, 500 + TIMEOUT - 1);
    expect_nothing(cluster);
    shoal_cluster_heard(cluster, 500 + TIMEOUT - 1, 100);
    shoal_cluster_tick(cluster, 500 + TIMEOUT);
    expect_drop(cluster, 1, SHOAL_ERR_LOST);
    expect_lost(cluster, 1,
                "worker 1 (phone-1 at 127.0.0.1, pid 71) was lost in round 0: no sign "
                "of life for 1000 ms");
    EXPECT_FORM(cluster, 2, 0, 2);
    shoal_cluster_destroy(cluster);
}

/* A laptop whose lid was closed must not think that all the others have died. */
static void test_the_caller_was_asleep(void **state) {
    (void)state;
    ShoalCluster *cluster = running(&BASE, 1);
    shoal_cluster_heard(cluster, 900, 100);
    /* The deadline was 1010: a little late is late. */
    shoal_cluster_tick(cluster, 1010 + TIMEOUT + 1);
    expect_nothing(cluster);
    assert_int_equal(shoal_cluster_deadline_ms(cluster), 1011 + 2 * TIMEOUT);
    for (unsigned i = 0; i < 2; i++)
        shoal_cluster_heard(cluster, 3000, 100 + i);
    shoal_cluster_tick(cluster, 3011);
    expect_drop(cluster, 2, SHOAL_ERR_LOST); /* and this one has really gone */
    shoal_cluster_destroy(cluster);

    cluster = running(&BASE, 1);
    shoal_cluster_tick(cluster, 1010 + TIMEOUT / 4);
    for (unsigned i = 0; i < 3; i++)
        expect_drop(cluster, i, SHOAL_ERR_LOST), expect_lost(cluster, i, "");
    expect(cluster, SHOAL_CLUSTER_PAUSE);
    expect_nothing(cluster);
    shoal_cluster_destroy(cluster);

    /* Time for joining does not run in sleep, either. */
    ShoalClusterConfig config = BASE;
    config.join_timeout_ms = 5000;
    cluster = create(&config);
    come(cluster, 0, 0);
    shoal_cluster_tick(cluster, 100000);
    expect_nothing(cluster);
    shoal_cluster_destroy(cluster);
}

static ShoalCluster *forming(unsigned n) {
    ShoalClusterConfig config = BASE;
    config.expected = n;
    config.heartbeat_timeout_ms = 100000;
    config.form_timeout_ms = 60;
    ShoalCluster *cluster = create(&config);
    for (unsigned i = 0; i < n; i++)
        come(cluster, 0, i);
    expect(cluster, SHOAL_CLUSTER_FORM);
    return cluster;
}

static void test_laggards(void **state) {
    (void)state;
    ShoalCluster *cluster = forming(3);
    ready(cluster, 5, 0, 0, 0);
    ready(cluster, 5, 2, 0, 0);
    assert_int_equal(shoal_cluster_deadline_ms(cluster), 60);
    shoal_cluster_tick(cluster, 59);
    expect_nothing(cluster);
    shoal_cluster_tick(cluster, 60);
    expect_drop(cluster, 1, SHOAL_ERR_LOST);
    expect_lost(cluster, 1,
                "worker 1 (phone-1 at 127.0.0.1, pid 71) took too long while the ring "
                "was being formed: not ready after 60 ms");
    EXPECT_FORM(cluster, 2, 0, 2);
    shoal_cluster_destroy(cluster);

    /* 1 hangs, which keeps 0 and 2 from being ready. So does 5, and keeps 4 and 6. */
    cluster = forming(8);
    ready(cluster, 5, 3, 0, 0);
    ready(cluster, 5, 7, 0, 0);
    shoal_cluster_tick(cluster, 60);
    for (unsigned i = 1; i < 8; i += 4) {
        expect_drop(cluster, i, SHOAL_ERR_LOST);
        expect_lost(cluster, i, "not ready");
    }
    EXPECT_FORM(cluster, 2, 0, 2, 3, 4, 6, 7);
    shoal_cluster_destroy(cluster);

    /* Where nobody is ready it cannot be told, and it comes to an end all the same. */
    cluster = forming(3);
    for (unsigned i = 2; i < 3; i--) {
        shoal_cluster_tick(cluster, 60 * (3 - i));
        expect_drop(cluster, i, SHOAL_ERR_LOST);
        expect_lost(cluster, i, "not ready");
        expect(cluster, i > 0 ? SHOAL_CLUSTER_FORM : SHOAL_CLUSTER_PAUSE);
    }
    shoal_cluster_destroy(cluster);
}

static void progress(ShoalCluster *cluster, uint64_t now, unsigned i, ShoalClusterStage stage,
                     uint64_t value) {
    shoal_cluster_progress(cluster, now, 100 + i, stage, value);
}

static void test_stalls(void **state) {
    (void)state;
    ShoalClusterConfig config = BASE;
    config.heartbeat_timeout_ms = 100000;
    config.stall_timeout_ms = 300;
    ShoalCluster *cluster = started(&config, 3);
    shoal_cluster_tick(cluster, 1000); /* nothing to do: nothing is missed */
    add_updates(cluster, 0, 1, 1);
    expect_round(cluster, SHOAL_CLUSTER_ISSUE, 0);
    assert_int_equal(shoal_cluster_deadline_ms(cluster), 1300);
    progress(cluster, 1100, 0, SHOAL_CLUSTER_REDUCING, 1);
    progress(cluster, 1100, 1, SHOAL_CLUSTER_COMPUTING, 1);
    progress(cluster, 1100, 2, SHOAL_CLUSTER_COMPUTING, 1);
    progress(cluster, 1250, 1, SHOAL_CLUSTER_COMPUTING, 2);
    progress(cluster, 1250, 2, SHOAL_CLUSTER_COMPUTING, 1); /* says the same again */
    assert_int_equal(shoal_cluster_deadline_ms(cluster), 1400);
    shoal_cluster_tick(cluster, 1400);
    expect_drop(cluster, 2, SHOAL_ERR_LOST);
    expect_lost(cluster, 2,
                "worker 2 (phone-2 at 127.0.0.1, pid 72) was lost in round 0: it "
                "computes, but for 300 ms it has not got on");
    EXPECT_FORM(cluster, 2, 0, 1);
    shoal_cluster_destroy(cluster);

    /* A round that is done is progress, whatever else is said. */
    cluster = started(&config, 3);
    add_updates(cluster, 0, 1, 2);
    expect_round(cluster, SHOAL_CLUSTER_ISSUE, 0);
    expect_round(cluster, SHOAL_CLUSTER_ISSUE, 1);
    for (unsigned i = 0; i < 3; i++)
        progress(cluster, 20, i, SHOAL_CLUSTER_COMPUTING, 1);
    for (unsigned i = 0; i < 3; i++)
        done(cluster, 200, i, 0);
    expect_round(cluster, SHOAL_CLUSTER_COMPLETE, 0);
    assert_int_equal(shoal_cluster_deadline_ms(cluster), 500);
    shoal_cluster_destroy(cluster);

    /* Who waits for one that computes has patience; who has done all has nothing to do. */
    cluster = started(&config, 3);
    add_updates(cluster, 0, 1, 1);
    expect_round(cluster, SHOAL_CLUSTER_ISSUE, 0);
    done(cluster, 20, 0, 0);
    progress(cluster, 20, 0, SHOAL_CLUSTER_COMPUTING, 1);
    progress(cluster, 20, 1, SHOAL_CLUSTER_REDUCING, 1);
    for (uint64_t now = 100; now < 2000; now += 100) {
        progress(cluster, now, 2, SHOAL_CLUSTER_COMPUTING, now);
        shoal_cluster_tick(cluster, now);
    }
    expect_nothing(cluster);
    /* When all wait, it is the ring. */
    progress(cluster, 2000, 2, SHOAL_CLUSTER_REDUCING, 2000);
    assert_int_equal(shoal_cluster_deadline_ms(cluster), 2300);
    shoal_cluster_tick(cluster, 2299);
    expect_nothing(cluster);
    shoal_cluster_tick(cluster, 2300);
    EXPECT_FORM(cluster, 2, 0, 1, 2);
    /* When that does not help, they do without one that has never done a round; it has to wait
     * before it may come back. */
    for (unsigned i = 0; i < 3; i++)
        ready(cluster, 2310, i, 0, i == 0 ? 1 : 0);
    while (shoal_cluster_has_action(cluster)) {
        ShoalClusterAction action;
        shoal_cluster_next_action(cluster, &action);
    }
    add_updates(cluster, shoal_cluster_added(cluster), 1, 1);
    expect(cluster, SHOAL_CLUSTER_ISSUE);
    for (unsigned i = 0; i < 3; i++)
        progress(cluster, 2320, i, SHOAL_CLUSTER_REDUCING, 3000);
    shoal_cluster_tick(cluster, shoal_cluster_deadline_ms(cluster));
    expect_drop(cluster, 2, SHOAL_ERR_LOST);
    expect_lost(cluster, 2, "all have waited for 300 ms");
    EXPECT_FORM(cluster, 3, 0, 1);
    shoal_cluster_destroy(cluster);

    /* Who is alone has nobody else to blame. */
    config.expected = config.min_workers = 1;
    cluster = started(&config, 1);
    add_updates(cluster, 0, 1, 1);
    expect_round(cluster, SHOAL_CLUSTER_ISSUE, 0);
    shoal_cluster_tick(cluster, shoal_cluster_deadline_ms(cluster));
    expect_drop(cluster, 0, SHOAL_ERR_LOST);
    expect_lost(cluster, 0, "all have waited for 300 ms");
    shoal_cluster_destroy(cluster);
}

/* Heartbeats alone are no life: who gets on with nothing after FORM is the one that is missing. */
static void test_stuck_in_forming(void **state) {
    (void)state;
    ShoalClusterConfig config = BASE;
    config.heartbeat_timeout_ms = 100000;
    config.form_timeout_ms = 60;
    ShoalCluster *cluster = create(&config);
    for (unsigned i = 0; i < 3; i++)
        join(cluster, 5, i);
    for (unsigned i = 0; i < 3; i++)
        progress(cluster, 6, i, SHOAL_CLUSTER_IDLE, 1);
    for (unsigned i = 0; i < 3; i++)
        prepared(cluster, 9, i);
    EXPECT_FORM(cluster, 1, 0, 1, 2);
    progress(cluster, 20, 0, SHOAL_CLUSTER_IDLE, 1);
    progress(cluster, 20, 1, SHOAL_CLUSTER_IDLE, 2);
    progress(cluster, 20, 2, SHOAL_CLUSTER_IDLE, 2);
    shoal_cluster_tick(cluster, 9 + config.form_timeout_ms);
    expect_drop(cluster, 0, SHOAL_ERR_LOST);
    expect_lost(cluster, 0, "took too long while the ring was being formed");
    EXPECT_FORM(cluster, 2, 1, 2);
    shoal_cluster_destroy(cluster);
}

/* --- broken rings -------------------------------------------------------------------------- */

/* The neighbours of a dead worker speak first; the dead one is named all the same. */
static void test_blame_waits_for_the_culprit(void **state) {
    (void)state;
    ShoalCluster *cluster = running(&BASE, 3);
    aborted(cluster, 20, 2, 1);
    aborted(cluster, 21, 0, 2);
    assert_int_equal(shoal_cluster_room(cluster), 0);
    expect_nothing(cluster);
    leave(cluster, 30, 1);
    expect_lost(cluster, 1,
                "worker 1 (phone-1 at 127.0.0.1, pid 71) was lost in round 0: "
                "connection closed");
    EXPECT_FORM(cluster, 2, 0, 2);
    shoal_cluster_destroy(cluster);

    /* It froze: nothing is said, and it was heard of before the ring broke. */
    cluster = running(&BASE, 3);
    aborted(cluster, 20, 2, 1);
    assert_int_equal(shoal_cluster_deadline_ms(cluster), 10 + TIMEOUT);
    shoal_cluster_heard(cluster, 900, 100);
    shoal_cluster_heard(cluster, 900, 102);
    shoal_cluster_tick(cluster, 10 + TIMEOUT);
    expect_drop(cluster, 1, SHOAL_ERR_LOST);
    expect_lost(cluster, 1, "no sign of life");
    EXPECT_FORM(cluster, 2, 0, 2);
    shoal_cluster_destroy(cluster);
}

static ShoalCluster *ring_of(unsigned n) {
    ShoalClusterConfig config = BASE;
    config.expected = n;
    ShoalCluster *cluster = started(&config, n);
    add_updates(cluster, 0, 1, 1);
    expect_round(cluster, SHOAL_CLUSTER_ISSUE, 0);
    return cluster;
}

/* Ready with the seed of generation 1. */
static void all_ready(ShoalCluster *cluster, uint64_t now) {
    size_t n;
    shoal_cluster_members(cluster, &n);
    for (unsigned i = 0; i < n; i++)
        ready(cluster, now, i, 0, 1);
    expect(cluster, SHOAL_CLUSTER_START);
    add_updates(cluster, shoal_cluster_added(cluster), 1, 1);
    expect(cluster, SHOAL_CLUSTER_ISSUE);
    expect_nothing(cluster);
}

static void all_heard(ShoalCluster *cluster, uint64_t now, unsigned n) {
    for (unsigned i = 0; i < n; i++)
        shoal_cluster_heard(cluster, now, 100 + i);
}

static void test_two_that_lost_each_other(void **state) {
    (void)state;
    ShoalCluster *cluster = ring_of(5);
    aborted(cluster, 20, 0, 1); /* blames one that gave up before it */
    aborted(cluster, 20, 1, 2);
    aborted(cluster, 21, 2, 1);
    all_heard(cluster, 500, 5);
    shoal_cluster_tick(cluster, 20 + TIMEOUT - 1);
    expect_nothing(cluster);
    assert_int_equal(shoal_cluster_deadline_ms(cluster), 20 + TIMEOUT);
    shoal_cluster_tick(cluster, 20 + TIMEOUT);
    EXPECT_FORM(cluster, 2, 0, 1, 3, 2, 4);
    all_ready(cluster, 1030);
    /* They stay apart also when others come between and go. */
    all_heard(cluster, 1500, 5);
    leave(cluster, 1600, 3);
    expect_lost(cluster, 3, "");
    EXPECT_FORM(cluster, 3, 0, 1, 4, 2);
    shoal_cluster_destroy(cluster);
}

/* A second neighbour loses it within a minute. */
static void test_suspected_twice(void **state) {
    (void)state;
    ShoalCluster *cluster = ring_of(5);
    aborted(cluster, 20, 1, 2);
    all_heard(cluster, 500, 5);
    shoal_cluster_tick(cluster, 20 + TIMEOUT);
    EXPECT_FORM(cluster, 2, 0, 1, 3, 2, 4);
    all_ready(cluster, 1030);
    for (uint64_t now = 1500; now < 59900; now += 500)
        all_heard(cluster, now, 5);
    aborted(cluster, 59900, 4, 3); /* rank 3 is worker 2 */
    aborted(cluster, 59900, 2, 4);
    all_heard(cluster, 60400, 5);
    shoal_cluster_tick(cluster, 59900 + TIMEOUT - 1);
    expect_nothing(cluster);
    shoal_cluster_tick(cluster, 59900 + TIMEOUT);
    assert_non_null(strstr(expect_drop(cluster, 2, SHOAL_ERR_LOST).text, "it was?closed"));
    expect_lost(cluster, 2, "lost their connection to it twice within a minute");
    EXPECT_FORM(cluster, 3, 0, 1, 3, 4);
    shoal_cluster_destroy(cluster);

    /* After more than a minute it counts as the first time. */
    cluster = ring_of(5);
    aborted(cluster, 20, 1, 2);
    all_heard(cluster, 500, 5);
    shoal_cluster_tick(cluster, 20 + TIMEOUT);
    EXPECT_FORM(cluster, 2, 0, 1, 3, 2, 4);
    all_ready(cluster, 1030);
    for (uint64_t now = 1500; now < 61500; now += 500)
        all_heard(cluster, now, 5);
    for (unsigned i = 0; i < 5; i++)
        aborted(cluster, 61500, i, i == 4 ? 3 : -1);
    EXPECT_FORM(cluster, 3, 4, 1, 3, 2, 0);
    shoal_cluster_destroy(cluster);
}

/* When all have spoken all live, and there is nobody to wait for; but not again and again. */
static void test_all_aborted(void **state) {
    (void)state;
    ShoalCluster *cluster = ring_of(3);
    for (unsigned i = 0; i < 3; i++)
        aborted(cluster, 20, i, -1);
    EXPECT_FORM(cluster, 2, 0, 1, 2);
    for (unsigned i = 0; i < 3; i++)
        aborted(cluster, 30, i, (int)i); /* none but itself: nobody */
    expect_nothing(cluster);
    assert_int_equal(shoal_cluster_deadline_ms(cluster), 20 + TIMEOUT);
    shoal_cluster_tick(cluster, 20 + TIMEOUT);
    EXPECT_FORM(cluster, 3, 0, 1, 2);
    aborted(cluster, 1030, 0, 99); /* no such rank */
    aborted(cluster, 1030, 0, 1);  /* once is enough */
    all_heard(cluster, 1500, 3);
    shoal_cluster_tick(cluster, 1030 + TIMEOUT);
    EXPECT_FORM(cluster, 4, 0, 1, 2);
    shoal_cluster_destroy(cluster);
}

/* Three cannot be kept apart: when it happens again one of the two goes. */
static void test_too_few_to_be_kept_apart(void **state) {
    (void)state;
    ShoalCluster *cluster = ring_of(3);
    for (unsigned turn = 0; turn < 2; turn++) {
        uint64_t now = 20 + 2000 * turn;
        aborted(cluster, now, 0, 1);
        aborted(cluster, now, 1, 0);
        all_heard(cluster, now + 500, 3);
        shoal_cluster_tick(cluster, now + TIMEOUT);
        if (turn == 0) {
            EXPECT_FORM(cluster, 2, 0, 1, 2);
            all_ready(cluster, 1030);
            all_heard(cluster, 1900, 3);
        }
    }
    expect_drop(cluster, 1, SHOAL_ERR_LOST);
    expect_lost(cluster, 1, "twice within a minute");
    EXPECT_FORM(cluster, 3, 0, 2);
    shoal_cluster_destroy(cluster);
}

/* Says in each turn whom the three blame; the last one loses worker `lost`. */
static void check_blames(const int blames[][3], unsigned turns, unsigned lost) {
    ShoalCluster *cluster = ring_of(3);
    for (unsigned turn = 0; turn < turns; turn++) {
        uint64_t now = 20 + 2000 * turn;
        for (unsigned i = 0; i < 3; i++)
            aborted(cluster, now, i, blames[turn][i]);
        if (turn + 1 == turns)
            break;
        EXPECT_FORM(cluster, 2 + turn, 0, 1, 2);
        all_ready(cluster, now + 10);
        all_heard(cluster, now + 900, 3);
        all_heard(cluster, now + 1800, 3);
    }
    expect_drop(cluster, lost, SHOAL_ERR_LOST);
    expect_lost(cluster, lost, "twice within a minute");
    assert_int_equal(expect(cluster, SHOAL_CLUSTER_FORM).generation, 1 + turns);
    shoal_cluster_destroy(cluster);
}

static void test_who_lost_more_goes(void **state) {
    (void)state;
    /* 0 and 1 lost each other, and 1 and 2 before: 1 has lost two. */
    static const int TWO[][3] = {{-1, 2, 1}, {1, 0, -1}};
    check_blames(TWO, 2, 1);
    /* Both of the last two had been suspected, 1 by 0 as now, but 0 by 2. */
    static const int OTHER[][3] = {{1, -1, -1}, {-1, -1, 0}, {1, 0, -1}};
    check_blames(OTHER, 3, 0);
}

static void test_rounds_complete_while_blame_waits(void **state) {
    (void)state;
    ShoalCluster *cluster = running(&BASE, 3);
    for (unsigned i = 0; i < 3; i++)
        done(cluster, 20, i, 0);
    expect_round(cluster, SHOAL_CLUSTER_COMPLETE, 0);
    expect_round(cluster, SHOAL_CLUSTER_ISSUE, 2);
    done(cluster, 21, 1, 1);
    aborted(cluster, 22, 1, 2);
    done(cluster, 23, 0, 1);
    done(cluster, 23, 2, 1);
    expect_round(cluster, SHOAL_CLUSTER_COMPLETE, 1);
    add_updates(cluster, 3, 4, 1);
    expect_nothing(cluster); /* nothing new into a broken ring */
    shoal_cluster_destroy(cluster);
}

/* --- the protocol -------------------------------------------------------------------------- */

/* Each of these from worker 1 loses it, with a text that says what was wrong. */
static void check_illegal(uint64_t generation, uint64_t round, const char *part) {
    ShoalCluster *cluster = running(&BASE, 3);
    done(cluster, 20, 1, 0);
    shoal_cluster_done(cluster, 20, 101, generation, round);
    assert_false(expect_drop(cluster, 1, SHOAL_ERR_PROTOCOL).for_good);
    expect_lost(cluster, 1, part);
    EXPECT_FORM(cluster, 2, 0, 2);
    expect_nothing(cluster);
    shoal_cluster_destroy(cluster);
}

static void test_illegal_messages(void **state) {
    (void)state;
    check_illegal(1, 0, "broke the protocol in round 0: reported round 0; expected round 1");
    check_illegal(1, 2, "reported round 2; expected round 1 (2 rounds");
    check_illegal(1, UINT64_MAX, "reported round 18446744073709551615");
    check_illegal(2, 1, "generation 2, which was never announced");
    ShoalCluster *cluster = running(&BASE, 1);
    ShoalClusterVersion none = {0};
    shoal_cluster_done(cluster, 20, 101, 0, 0); /* an older generation: ignored */
    shoal_cluster_ready(cluster, 20, 101, 0, none);
    shoal_cluster_aborted(cluster, 20, 101, 0, -1, "");
    shoal_cluster_done(cluster, 20, 999, 7, 7); /* a stranger: ignored */
    shoal_cluster_prepared(cluster, 20, 999);
    shoal_cluster_diverged(cluster, 20, 999, "");
    expect_nothing(cluster);
    shoal_cluster_ready(cluster, 20, 102, 1, none);
    expect_drop(cluster, 2, SHOAL_ERR_PROTOCOL);
    expect_lost(cluster, 2, "said twice that it is ready");
    EXPECT_FORM(cluster, 2, 0, 1);
    shoal_cluster_destroy(cluster);

    cluster = running(&BASE, 1);
    done(cluster, 20, 2, 0);
    done(cluster, 20, 2, 1); /* its turn, but it was not issued */
    expect_drop(cluster, 2, SHOAL_ERR_PROTOCOL);
    expect_lost(cluster, 2, "reported round 1; expected round 1 (1 rounds");
    EXPECT_FORM(cluster, 2, 0, 1);
    done(cluster, 21, 0, 0); /* before START */
    expect_drop(cluster, 0, SHOAL_ERR_PROTOCOL);
    expect_lost(cluster, 0, "reported round 0");
    EXPECT_FORM(cluster, 3, 1);
    prepared(cluster, 22, 1);
    expect_drop(cluster, 1, SHOAL_ERR_PROTOCOL);
    expect_lost(cluster, 1, "said twice that it is prepared");
    expect(cluster, SHOAL_CLUSTER_PAUSE);
    /* Who is no member has nothing to say. */
    join(cluster, 23, 5);
    shoal_cluster_ready(cluster, 24, 105, 3, none);
    expect_drop(cluster, 5, SHOAL_ERR_PROTOCOL);
    expect_nothing(cluster);
    shoal_cluster_destroy(cluster);
}

/* --- quarantine ---------------------------------------------------------------------------- */

/* Joins over another connection each time, and is gone again. */
static void flap(ShoalCluster *cluster, uint64_t now, uint64_t connection, const char *name,
                 const char *address) {
    ShoalClusterInfo info = {0};
    snprintf(info.name, sizeof(info.name), "%s", name);
    snprintf(info.address, sizeof(info.address), "%s", address);
    shoal_cluster_join(cluster, now, connection, &info);
    shoal_cluster_leave(cluster, now, connection, "gone");
}

static void test_quarantine(void **state) {
    (void)state;
    ShoalClusterConfig config = BASE;
    config.max_failures = 2;
    ShoalCluster *cluster = create(&config);
    flap(cluster, 1000, 1, "x", "10.0.0.1");
    flap(cluster, 2000, 2, "x", "10.0.0.1");
    flap(cluster, 3000, 3, "y", "10.0.0.1");
    flap(cluster, 3500, 4, "x", "10.0.0.2");
    flap(cluster, 4000, 5, "x", "10.0.0.1"); /* the third time */
    expect_nothing(cluster);
    flap(cluster, 5000, 6, "x", "10.0.0.1");
    ShoalClusterAction drop = expect(cluster, SHOAL_CLUSTER_DROP);
    assert_int_equal(drop.connection, 6);
    assert_false(drop.for_good);
    assert_string_equal(drop.text, "in quarantine: it failed 3 times within an hour, and the most "
                                   "is 2; it may come back in 3596 s");
    flap(cluster, 5000, 7, "y", "10.0.0.1");
    flap(cluster, 5000, 8, "x", "10.0.0.2");
    expect_nothing(cluster);
    flap(cluster, 1000 + HOUR - 1, 9, "x", "10.0.0.1");
    expect(cluster, SHOAL_CLUSTER_DROP);
    flap(cluster, 1000 + HOUR, 10, "x", "10.0.0.1"); /* the first one is forgotten */
    expect_nothing(cluster);
    flap(cluster, 1000 + HOUR, 11, "x", "10.0.0.1");
    expect(cluster, SHOAL_CLUSTER_DROP);
    shoal_cluster_destroy(cluster);

    config.max_failures = 0; /* whatever it does */
    cluster = create(&config);
    for (unsigned i = 0; i < 1000; i++)
        flap(cluster, 1000, 1 + i, "x", "10.0.0.1");
    expect_nothing(cluster);
    shoal_cluster_destroy(cluster);
}

/* Who leaves to rest goes as one that is lost, but it is told apart, and is no failure. */
static void test_rest(void **state) {
    (void)state;
    ShoalClusterConfig config = BASE;
    config.expected = 3;
    config.max_failures = 1;
    ShoalCluster *cluster = started(&config, 3);
    add_updates(cluster, 0, 1, 1);
    expect_round(cluster, SHOAL_CLUSTER_ISSUE, 0);
    shoal_cluster_rest(cluster, 20, 101, "battery 12 %");
    ShoalClusterAction action = expect(cluster, SHOAL_CLUSTER_LOST);
    assert_int_equal(action.connection, 101);
    assert_true(action.rests);
    assert_non_null(strstr(action.text, "rests in round 0: battery 12 %"));
    assert_int_equal(expect(cluster, SHOAL_CLUSTER_FORM).generation, 2);
    shoal_cluster_leave(cluster, 21, 102, "connection closed");
    assert_false(expect(cluster, SHOAL_CLUSTER_LOST).rests);
    shoal_cluster_rest(cluster, 22, 999, "a stranger");
    shoal_cluster_destroy(cluster);

    cluster = create(&config);
    for (unsigned i = 0; i < 100; i++) {
        ShoalClusterInfo info = {.name = "x", .address = "10.0.0.1"};
        shoal_cluster_join(cluster, 1000, 1 + i, &info);
        shoal_cluster_rest(cluster, 1000, 1 + i, "the screen is on");
    }
    expect_nothing(cluster);
    shoal_cluster_destroy(cluster);
}

/* Far more failures than are remembered: those that were last still count. */
static void test_the_log_of_failures_is_bounded(void **state) {
    (void)state;
    ShoalFailures failures = {0};
    uint64_t wait_ms;
    for (uint64_t i = 0; i < 3 * SHOAL_FAILURES_MAX; i++)
        assert_true(shoal_failures_note(&failures, i / 2, 1000 + i / 1000));
    assert_int_equal(failures.count, SHOAL_FAILURES_MAX);
    uint64_t last = (3 * SHOAL_FAILURES_MAX - 1) / 2;
    assert_int_equal(shoal_failures_count(&failures, last, 2000, 1, &wait_ms), 2);
    assert_int_equal(wait_ms, 1000 + 196 + HOUR - 2000);
    assert_int_equal(shoal_failures_count(&failures, last, 2000, 2, &wait_ms), 2);
    assert_int_equal(wait_ms, 0);
    assert_int_equal(shoal_failures_count(&failures, 0, 2000, 1, &wait_ms), 0);
    assert_int_equal(shoal_failures_count(&failures, last, 2000 + HOUR, 1, &wait_ms), 0);
    assert_true(shoal_failures_note(&failures, 7, 2000 + HOUR)); /* makes room */
    assert_int_equal(failures.count, 1);
    shoal_failures_close(&failures);
    assert_true(shoal_failures_identity("a", "b") != shoal_failures_identity("b", "a"));
    assert_true(shoal_failures_identity("a", "b") != shoal_failures_identity("", "ab"));
}

/* --- many workers, and the queue ------------------------------------------------------------- */

static void test_many_workers(void **state) {
    (void)state;
    const unsigned sizes[] = {138, SHOAL_CLUSTER_MAX_WORKERS};
    for (unsigned s = 0; s < 2; s++) {
        unsigned n = sizes[s];
        ShoalClusterConfig config = BASE;
        config.expected = config.max_workers = n;
        config.max_failures = 3;
        ShoalCluster *cluster = started(&config, n);
        add_updates(cluster, 0, 1, 2);
        expect_round(cluster, SHOAL_CLUSTER_ISSUE, 0);
        expect_round(cluster, SHOAL_CLUSTER_ISSUE, 1);
        complete(cluster, 20, n, 0, 2);
        /* All but twenty are heard of: those go in one step. */
        for (unsigned i = 0; i < n; i++)
            if (i % (n / 20) != 0 || i / (n / 20) >= 20)
                shoal_cluster_heard(cluster, 900, 100 + i);
        shoal_cluster_tick(cluster, 20 + TIMEOUT);
        for (unsigned i = 0; i < 20; i++) {
            expect_drop(cluster, i * (n / 20), SHOAL_ERR_LOST);
            expect_lost(cluster, i * (n / 20), "no sign of life");
        }
        assert_int_equal(expect(cluster, SHOAL_CLUSTER_FORM).generation, 2);
        expect_nothing(cluster);
        assert_int_equal(shoal_cluster_joined(cluster), n - 20);
        for (unsigned i = 0; i < 20; i++) /* and come back */
            come(cluster, 1100, n + i);
        size_t count;
        const ShoalClusterMember *members = shoal_cluster_members(cluster, &count);
        assert_int_equal(count, n - 20);
        for (size_t r = 0; r < count; r++)
            ready(cluster, 1110, (unsigned)(members[r].connection - 100), 2, 1);
        expect_start(cluster, 2, 2, 1, PLAIN, 0);
        add_updates(cluster, 2, 3, 1);
        expect_round(cluster, SHOAL_CLUSTER_ISSUE, 2);
        for (size_t r = 0; r < count; r++)
            done(cluster, 1120, (unsigned)(members[r].connection - 100), 2);
        expect_round(cluster, SHOAL_CLUSTER_COMPLETE, 2);
        assert_int_equal(expect(cluster, SHOAL_CLUSTER_FORM).generation, 3);
        members = shoal_cluster_members(cluster, &count);
        assert_int_equal(count, n);
        for (unsigned i = 0; i < 20; i++)
            assert_int_equal(members[n - 20 + i].connection, 100 + n + i);
        /* All at once. */
        shoal_cluster_tick(cluster, 1120 + TIMEOUT);
        for (unsigned i = 0; i < n; i++) {
            expect(cluster, SHOAL_CLUSTER_DROP);
            expect(cluster, SHOAL_CLUSTER_LOST);
        }
        expect(cluster, SHOAL_CLUSTER_PAUSE);
        expect_nothing(cluster);
        shoal_cluster_destroy(cluster);
    }
}

static void test_separating_many(void **state) {
    (void)state;
    ShoalCluster *cluster = ring_of(8);
    /* Every neighbour loses every neighbour: there is no order for that, and no harm. */
    for (unsigned i = 0; i < 8; i++)
        aborted(cluster, 20, i, (int)((i + 1) % 8));
    assert_int_equal(expect(cluster, SHOAL_CLUSTER_FORM).generation, 2);
    size_t n;
    const ShoalClusterMember *members = shoal_cluster_members(cluster, &n);
    assert_int_equal(n, 8);
    unsigned seen = 0;
    for (size_t r = 0; r < n; r++)
        seen |= 1u << (members[r].connection - 100);
    assert_int_equal(seen, 255);
    shoal_cluster_destroy(cluster);
}

/* An input before all actions were read: plans that it makes void are not given any more. */
static void test_plans_are_overtaken(void **state) {
    (void)state;
    ShoalCluster *cluster = running(&BASE, 3);
    for (unsigned i = 0; i < 3; i++)
        done(cluster, 20, i, 0); /* COMPLETE 0, ISSUE 2 */
    leave(cluster, 20, 0);
    expect_round(cluster, SHOAL_CLUSTER_COMPLETE, 0);
    expect_lost(cluster, 0, "in round 1");
    EXPECT_FORM(cluster, 2, 1, 2);
    ready(cluster, 21, 1, 1, 1);
    ready(cluster, 21, 2, 1, 1); /* START with a rewind, which nobody reads */
    leave(cluster, 22, 1);
    expect_lost(cluster, 1, "");
    EXPECT_FORM(cluster, 3, 2);
    ready(cluster, 23, 2, 1, 1);
    expect_start(cluster, 1, 1, 1, SEEK, 0); /* so the planner is told outright where to be */
    shoal_cluster_destroy(cluster);
}

/* A caller that never reads gets a clean end, not a broken queue. */
static void test_unread_actions_fail_cleanly(void **state) {
    (void)state;
    ShoalCluster *cluster = running(&BASE, 0);
    ShoalClusterAction action;
    for (unsigned i = 0; i < 1000; i++)
        join(cluster, 20, 10 + i);
    unsigned drops = 0;
    while (shoal_cluster_next_action(cluster, &action) && action.kind == SHOAL_CLUSTER_DROP)
        drops++;
    assert_true(drops >= 8 && drops < 1000);
    assert_int_equal(action.kind, SHOAL_CLUSTER_FAIL);
    expect_nothing(cluster);
    shoal_cluster_destroy(cluster);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_whole_run),
        cmocka_unit_test(test_config_is_checked),
        cmocka_unit_test(test_versions_compare),
        cmocka_unit_test(test_join_timeout),
        cmocka_unit_test(test_settling),
        cmocka_unit_test(test_who_may_join),
        cmocka_unit_test(test_generations_grow),
        cmocka_unit_test(test_a_loss_forms_anew),
        cmocka_unit_test(test_pause_and_go_on),
        cmocka_unit_test(test_waiting_forgives),
        cmocka_unit_test(test_faults),
        cmocka_unit_test(test_a_diverged_replica_is_dropped),
        cmocka_unit_test(test_nothing_done_is_done_anew),
        cmocka_unit_test(test_what_is_done_is_complete),
        cmocka_unit_test(test_needy_members),
        cmocka_unit_test(test_double_fault),
        cmocka_unit_test(test_later_generations_win),
        cmocka_unit_test(test_going_back),
        cmocka_unit_test(test_seeding_again),
        cmocka_unit_test(test_adopting),
        cmocka_unit_test(test_not_adopting),
        cmocka_unit_test(test_impossible_versions),
        cmocka_unit_test(test_parts_are_done_anew),
        cmocka_unit_test(test_candidates_wait_for_the_iteration),
        cmocka_unit_test(test_rounds_alone),
        cmocka_unit_test(test_alone_behind_a_start),
        cmocka_unit_test(test_many_rounds_at_once),
        cmocka_unit_test(test_candidates_are_held),
        cmocka_unit_test(test_candidates_at_once_when_idle),
        cmocka_unit_test(test_no_candidates_at_the_end),
        cmocka_unit_test(test_finish_is_taken_back),
        cmocka_unit_test(test_needy_at_the_end),
        cmocka_unit_test(test_empty_runs_and_early_rounds),
        cmocka_unit_test(test_heartbeats),
        cmocka_unit_test(test_the_caller_was_asleep),
        cmocka_unit_test(test_laggards),
        cmocka_unit_test(test_stalls),
        cmocka_unit_test(test_stuck_in_forming),
        cmocka_unit_test(test_blame_waits_for_the_culprit),
        cmocka_unit_test(test_two_that_lost_each_other),
        cmocka_unit_test(test_suspected_twice),
        cmocka_unit_test(test_all_aborted),
        cmocka_unit_test(test_too_few_to_be_kept_apart),
        cmocka_unit_test(test_who_lost_more_goes),
        cmocka_unit_test(test_rounds_complete_while_blame_waits),
        cmocka_unit_test(test_illegal_messages),
        cmocka_unit_test(test_quarantine),
        cmocka_unit_test(test_rest),
        cmocka_unit_test(test_the_log_of_failures_is_bounded),
        cmocka_unit_test(test_many_workers),
        cmocka_unit_test(test_separating_many),
        cmocka_unit_test(test_plans_are_overtaken),
        cmocka_unit_test(test_unread_actions_fail_cleanly),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
