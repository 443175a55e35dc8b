/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "cluster/coordinator.h"

/* Times in ms; connection of worker i is 100 + i. */
#define TIMEOUT 1000

static const ShoalClusterConfig BASE = {
    .expected = 3, .window = 2, .heartbeat_timeout_ms = TIMEOUT};

static ShoalCluster *create(const ShoalClusterConfig *config) {
    ShoalCluster *cluster = NULL;
    ShoalError err = {0};
    assert_int_equal(shoal_cluster_create(config, &cluster, &err), SHOAL_OK);
    return cluster;
}

static void join(ShoalCluster *cluster, uint64_t now, unsigned i) {
    ShoalClusterInfo info = {.address = "127.0.0.1", .ring_port = (uint16_t)(4000 + i)};
    snprintf(info.name, sizeof(info.name), "phone-%u", i);
    info.pid = 70 + i;
    shoal_cluster_join(cluster, now, 100 + i, &info);
}

static ShoalClusterAction expect(ShoalCluster *cluster, ShoalClusterActionKind kind) {
    ShoalClusterAction action;
    assert_true(shoal_cluster_next_action(cluster, &action));
    assert_int_equal(action.kind, kind);
    return action;
}

static void expect_nothing(ShoalCluster *cluster) {
    ShoalClusterAction action;
    assert_false(shoal_cluster_next_action(cluster, &action));
}

static void expect_round(ShoalCluster *cluster, ShoalClusterActionKind kind, uint64_t round) {
    assert_int_equal(expect(cluster, kind).round, round);
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
    shoal_cluster_tick(cluster, 1 << 20);
    shoal_cluster_add_round(cluster);
    shoal_cluster_finish(cluster);
    expect_nothing(cluster);
}

/* A cluster of three at time 10, running, with `rounds` rounds added and two of them issued. */
static ShoalCluster *running(const ShoalClusterConfig *config, unsigned rounds) {
    ShoalCluster *cluster = create(config);
    for (unsigned i = 0; i < 3; i++)
        join(cluster, i, i);
    assert_int_equal(expect(cluster, SHOAL_CLUSTER_FORM).generation, 1);
    for (unsigned i = 0; i < 3; i++)
        shoal_cluster_ready(cluster, 10, 100 + i, 1);
    expect(cluster, SHOAL_CLUSTER_START);
    for (unsigned i = 0; i < rounds; i++)
        assert_int_equal(shoal_cluster_add_round(cluster), i);
    for (unsigned i = 0; i < rounds && i < 2; i++)
        expect_round(cluster, SHOAL_CLUSTER_ISSUE, i);
    expect_nothing(cluster);
    return cluster;
}

static void test_whole_run(void **state) {
    (void)state;
    ShoalCluster *cluster = running(&BASE, 3);
    size_t n;
    const ShoalClusterMember *members = shoal_cluster_members(cluster, &n);
    assert_int_equal(n, 3);
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(members[i].connection, 100 + i);
        assert_int_equal(members[i].worker_id, i);
        assert_int_equal(members[i].info.ring_port, 4000 + i);
        assert_int_equal(shoal_cluster_rank(cluster, 100 + i), i);
    }
    assert_int_equal(shoal_cluster_room(cluster), 0);
    shoal_cluster_done(cluster, 20, 102, 1, 0);
    shoal_cluster_done(cluster, 20, 102, 1, 1); /* ahead of the others */
    shoal_cluster_done(cluster, 20, 100, 1, 0);
    expect_nothing(cluster);
    shoal_cluster_done(cluster, 20, 101, 1, 0);
    expect_round(cluster, SHOAL_CLUSTER_COMPLETE, 0);
    expect_round(cluster, SHOAL_CLUSTER_ISSUE, 2);
    shoal_cluster_finish(cluster);
    assert_int_equal(shoal_cluster_phase(cluster), SHOAL_CLUSTER_DRAINING);
    for (unsigned i = 0; i < 3; i++) {
        if (i < 2)
            shoal_cluster_done(cluster, 30, 100 + i, 1, 1);
        shoal_cluster_done(cluster, 30, 100 + i, 1, 2);
    }
    expect_round(cluster, SHOAL_CLUSTER_COMPLETE, 1);
    expect_round(cluster, SHOAL_CLUSTER_COMPLETE, 2);
    expect(cluster, SHOAL_CLUSTER_FINISHED);
    expect_nothing(cluster);
    shoal_cluster_leave(cluster, 40, 100, "connection closed"); /* as it should, now */
    expect_nothing(cluster);
    assert_int_equal(shoal_cluster_phase(cluster), SHOAL_CLUSTER_DONE);
    shoal_cluster_destroy(cluster);
    shoal_cluster_destroy(NULL);
}

static void test_config_is_checked(void **state) {
    (void)state;
    const ShoalClusterConfig bad[] = {
        {.expected = 0, .window = 1, .heartbeat_timeout_ms = 1},
        {.expected = SHOAL_CLUSTER_MAX_WORKERS + 1, .window = 1, .heartbeat_timeout_ms = 1},
        {.expected = 1, .window = 0, .heartbeat_timeout_ms = 1},
        {.expected = 1, .window = SHOAL_CLUSTER_MAX_WINDOW + 1, .heartbeat_timeout_ms = 1},
        {.expected = 1, .window = 1, .heartbeat_timeout_ms = 0}};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        ShoalCluster *cluster = NULL;
        ShoalError err = {0};
        assert_int_equal(shoal_cluster_create(&bad[i], &cluster, &err), SHOAL_ERR_ARGUMENT);
        assert_null(cluster);
    }
}

static void test_losses_name_the_worker(void **state) {
    (void)state;
    ShoalCluster *cluster = running(&BASE, 3);
    shoal_cluster_leave(cluster, 20, 999, "a stranger");
    expect_nothing(cluster);
    shoal_cluster_leave(cluster, 20, 101, "connection closed");
    expect_fail(cluster, SHOAL_ERR_LOST,
                "worker 1 (phone-1 at 127.0.0.1, pid 71) was lost in round 0: connection closed");
    shoal_cluster_destroy(cluster);

    cluster = running(&BASE, 0);
    shoal_cluster_fault(cluster, 20, 102, SHOAL_ERR_DATA, "bad\nrecord\x1b[2J");
    expect(cluster, SHOAL_CLUSTER_DROP);
    expect_fail(cluster, SHOAL_ERR_DATA,
                "worker 2 (phone-2 at 127.0.0.1, pid 72) failed before round 0: bad?record?[2J");
    shoal_cluster_destroy(cluster);

    cluster = create(&BASE);
    for (unsigned i = 0; i < 3; i++)
        join(cluster, 0, i);
    expect(cluster, SHOAL_CLUSTER_FORM);
    shoal_cluster_leave(cluster, 1, 100, "connection closed");
    expect_fail(cluster, SHOAL_ERR_LOST,
                "worker 0 (phone-0 at 127.0.0.1, pid 70) was lost while the ring was being formed: "
                "connection closed");
    shoal_cluster_destroy(cluster);
}

/* Plans that were not yet read are void once the run has failed; facts are not. */
static void test_fail_overtakes_plans(void **state) {
    (void)state;
    ShoalCluster *cluster = running(&BASE, 3);
    for (unsigned i = 0; i < 3; i++)
        shoal_cluster_done(cluster, 20, 100 + i, 1, 0); /* COMPLETE 0, ISSUE 2 */
    shoal_cluster_leave(cluster, 20, 100, "connection closed");
    expect_round(cluster, SHOAL_CLUSTER_COMPLETE, 0);
    expect_fail(cluster, SHOAL_ERR_LOST,
                "worker 0 (phone-0 at 127.0.0.1, pid 70) was lost in round 1: connection closed");
    shoal_cluster_destroy(cluster);
}

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
    assert_int_equal(expect(cluster, SHOAL_CLUSTER_DROP).connection, 101);
    expect_fail(cluster, SHOAL_ERR_LOST,
                "worker 1 (phone-1 at 127.0.0.1, pid 71) was lost in round 0: no sign of life for "
                "1000 ms");
    shoal_cluster_destroy(cluster);
}

static void test_waiting_forgives(void **state) {
    (void)state;
    ShoalClusterConfig config = BASE;
    config.join_timeout_ms = 5000;
    ShoalCluster *cluster = create(&config);
    join(cluster, 100, 0);
    join(cluster, 100, 1);
    shoal_cluster_leave(cluster, 200, 100, "connection closed");
    shoal_cluster_tick(cluster, 100 + TIMEOUT);
    assert_int_equal(expect(cluster, SHOAL_CLUSTER_DROP).connection, 101);
    expect_nothing(cluster);
    join(cluster, 1200, 2);
    join(cluster, 1200, 2); /* twice over one connection */
    assert_int_equal(expect(cluster, SHOAL_CLUSTER_DROP).connection, 102);
    shoal_cluster_ready(cluster, 1300, 102, 1);
    join(cluster, 1300, 3);
    shoal_cluster_ready(cluster, 1300, 103, 0);
    assert_int_equal(expect(cluster, SHOAL_CLUSTER_DROP).connection, 103);
    expect_nothing(cluster);
    for (unsigned i = 4; i < 7; i++)
        join(cluster, 1400, i);
    expect(cluster, SHOAL_CLUSTER_FORM);
    size_t n;
    assert_int_equal(shoal_cluster_members(cluster, &n)[0].worker_id, 4);
    assert_int_equal(n, 3);
    join(cluster, 1500, 9);
    ShoalClusterAction action = expect(cluster, SHOAL_CLUSTER_DROP);
    assert_int_equal(action.connection, 109);
    assert_non_null(strstr(action.text, "the cluster is complete"));
    expect_nothing(cluster);
    shoal_cluster_destroy(cluster);
}

static void test_phase_timeouts(void **state) {
    (void)state;
    ShoalClusterConfig config = BASE;
    config.heartbeat_timeout_ms = 1 << 20;
    config.join_timeout_ms = 50;
    config.form_timeout_ms = 60;
    config.round_timeout_ms = 70;
    ShoalCluster *cluster = create(&config);
    shoal_cluster_tick(cluster, 1000);
    join(cluster, 1010, 0);
    assert_int_equal(shoal_cluster_deadline_ms(cluster), 1050);
    shoal_cluster_tick(cluster, 1050);
    expect_fail(cluster, SHOAL_ERR_NETWORK,
                "1 of 3 workers joined within 50 ms; start the others, or ask for fewer");
    shoal_cluster_destroy(cluster);

    cluster = create(&config);
    for (unsigned i = 0; i < 3; i++)
        join(cluster, 0, i);
    expect(cluster, SHOAL_CLUSTER_FORM);
    shoal_cluster_ready(cluster, 5, 100, 1);
    shoal_cluster_tick(cluster, 60);
    assert_int_equal(expect(cluster, SHOAL_CLUSTER_DROP).connection, 101);
    expect_fail(cluster, SHOAL_ERR_LOST,
                "worker 1 (phone-1 at 127.0.0.1, pid 71) took too long while the ring was being "
                "formed: not ready after 60 ms");
    shoal_cluster_destroy(cluster);

    cluster = running(&config, 2);
    shoal_cluster_done(cluster, 20, 100, 1, 0);
    shoal_cluster_done(cluster, 20, 101, 1, 0);
    shoal_cluster_tick(cluster, 79);
    expect_nothing(cluster);
    shoal_cluster_tick(cluster, 80);
    assert_int_equal(expect(cluster, SHOAL_CLUSTER_DROP).connection, 102);
    expect_fail(cluster, SHOAL_ERR_LOST,
                "worker 2 (phone-2 at 127.0.0.1, pid 72) took too long in round 0: not done after "
                "70 ms");
    shoal_cluster_destroy(cluster);
}

/* Each of these from worker 1 ends the run with a text that says what was wrong. */
static void check_illegal(uint64_t generation, uint64_t round, const char *part) {
    ShoalCluster *cluster = running(&BASE, 3);
    shoal_cluster_done(cluster, 20, 101, 1, 0);
    shoal_cluster_done(cluster, 20, 101, generation, round);
    ShoalClusterAction drop = expect(cluster, SHOAL_CLUSTER_DROP);
    assert_int_equal(drop.connection, 101);
    assert_int_equal(drop.status, SHOAL_ERR_PROTOCOL);
    ShoalClusterAction action = expect(cluster, SHOAL_CLUSTER_FAIL);
    assert_int_equal(action.status, SHOAL_ERR_PROTOCOL);
    assert_non_null(strstr(action.text, "worker 1 "));
    assert_non_null(strstr(action.text, part));
    shoal_cluster_destroy(cluster);
}

static void test_illegal_messages(void **state) {
    (void)state;
    check_illegal(1, 0, "reported round 0; expected round 1");
    check_illegal(1, 2, "reported round 2; expected round 1 (2 rounds");
    check_illegal(1, UINT64_MAX, "reported round 18446744073709551615");
    check_illegal(2, 1, "generation 2, which was never announced");
    ShoalCluster *cluster = running(&BASE, 1);
    shoal_cluster_done(cluster, 20, 101, 0, 0); /* an older generation: ignored */
    shoal_cluster_ready(cluster, 20, 101, 0);
    shoal_cluster_aborted(cluster, 20, 101, 0, -1, "");
    shoal_cluster_done(cluster, 20, 999, 7, 7); /* a stranger: ignored */
    expect_nothing(cluster);
    shoal_cluster_ready(cluster, 20, 102, 1);
    expect(cluster, SHOAL_CLUSTER_DROP);
    expect_fail(cluster, SHOAL_ERR_PROTOCOL,
                "worker 2 (phone-2 at 127.0.0.1, pid 72) broke the protocol in round 0: said twice "
                "that it is ready");
    shoal_cluster_destroy(cluster);

    cluster = running(&BASE, 1);
    shoal_cluster_done(cluster, 20, 100, 1, 0);
    shoal_cluster_done(cluster, 20, 100, 1, 1); /* not issued */
    expect(cluster, SHOAL_CLUSTER_DROP);
    expect(cluster, SHOAL_CLUSTER_FAIL);
    shoal_cluster_destroy(cluster);
}

/* The neighbours of a dead worker speak first; the dead one is named all the same. */
static void test_broken_ring_waits_for_the_culprit(void **state) {
    (void)state;
    ShoalCluster *cluster = running(&BASE, 1);
    shoal_cluster_aborted(cluster, 20, 102, 1, 1, "it was closed");
    shoal_cluster_aborted(cluster, 21, 100, 1, 2, "it was closed");
    shoal_cluster_add_round(cluster);
    expect_nothing(cluster);
    shoal_cluster_leave(cluster, 30, 101, "connection closed");
    expect_fail(cluster, SHOAL_ERR_LOST,
                "worker 1 (phone-1 at 127.0.0.1, pid 71) was lost in round 0: connection closed");
    shoal_cluster_destroy(cluster);

    cluster = running(&BASE, 3);
    shoal_cluster_aborted(cluster, 20, 102, 1, 1, "it was\nclosed");
    assert_int_equal(shoal_cluster_deadline_ms(cluster), 10 + TIMEOUT);
    for (unsigned i = 0; i < 3; i++)
        shoal_cluster_heard(cluster, 20 + 2 * TIMEOUT - 1, 100 + i);
    shoal_cluster_tick(cluster, 20 + 2 * TIMEOUT - 1);
    expect_nothing(cluster);
    shoal_cluster_tick(cluster, 20 + 2 * TIMEOUT);
    expect_fail(cluster, SHOAL_ERR_LOST,
                "worker 2 (phone-2 at 127.0.0.1, pid 72) lost its ring connection with worker 1 "
                "(phone-1 at 127.0.0.1, pid 71), though no worker is gone: it was?closed");
    shoal_cluster_destroy(cluster);
}

static void test_rounds_before_workers_and_empty_runs(void **state) {
    (void)state;
    ShoalCluster *cluster = create(&BASE);
    assert_int_equal(shoal_cluster_room(cluster), 2);
    assert_int_equal(shoal_cluster_add_round(cluster), 0);
    assert_int_equal(shoal_cluster_room(cluster), 1);
    shoal_cluster_finish(cluster);
    assert_int_equal(shoal_cluster_room(cluster), 0);
    expect_nothing(cluster);
    for (unsigned i = 0; i < 3; i++)
        join(cluster, 0, i);
    for (unsigned i = 0; i < 3; i++)
        shoal_cluster_ready(cluster, 1, 100 + i, 1);
    expect(cluster, SHOAL_CLUSTER_FORM);
    expect(cluster, SHOAL_CLUSTER_START);
    expect_round(cluster, SHOAL_CLUSTER_ISSUE, 0);
    assert_int_equal(shoal_cluster_phase(cluster), SHOAL_CLUSTER_DRAINING);
    shoal_cluster_destroy(cluster);

    cluster = create(&BASE);
    shoal_cluster_finish(cluster);
    expect(cluster, SHOAL_CLUSTER_FINISHED);
    join(cluster, 0, 0);
    assert_non_null(strstr(expect(cluster, SHOAL_CLUSTER_DROP).text, "finished"));
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
    assert_true(drops >= 3 && drops < 1000);
    assert_int_equal(action.kind, SHOAL_CLUSTER_FAIL);
    expect_nothing(cluster);
    shoal_cluster_destroy(cluster);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_whole_run),
        cmocka_unit_test(test_config_is_checked),
        cmocka_unit_test(test_losses_name_the_worker),
        cmocka_unit_test(test_fail_overtakes_plans),
        cmocka_unit_test(test_heartbeats),
        cmocka_unit_test(test_waiting_forgives),
        cmocka_unit_test(test_phase_timeouts),
        cmocka_unit_test(test_illegal_messages),
        cmocka_unit_test(test_broken_ring_waits_for_the_culprit),
        cmocka_unit_test(test_rounds_before_workers_and_empty_runs),
        cmocka_unit_test(test_unread_actions_fail_cleanly),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
