/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHOAL_TESTS_SIMULATOR_COORDINATOR_H
#define SHOAL_TESTS_SIMULATOR_COORDINATOR_H

#include "unit/cluster/simulator/world.h"

/* The simulated coordinator: a planner, snapshots, and the driver of the core, which checks all
 * that the core says. */

static bool next_step(Sim *sim, Step *step) {
    for (;;) {
        Place *place = &sim->place;
        uint64_t k = place->iteration;
        unsigned at = place->step++;
        *step = (Step){.iteration = k};
        if (at == 0) {
            step->kind = STEP_SNAPSHOT;
            if (k > 0 &&
                (k % sim->snapshot_every == 0 || (k == sim->updates && sim->last_snapshot)))
                return true;
        } else if (at == 1) {
            step->kind = STEP_TEST;
            if (k % sim->test_every == 0)
                return true;
        } else {
            if (k == sim->updates)
                return false;
            step->kind = STEP_TRAIN;
            step->pass = at - 2;
            step->last = step->pass + 1 == sim->passes;
            if (step->last)
                *place = (Place){.iteration = k + 1};
            return true;
        }
    }
}

static void add_rounds(Sim *sim) {
    while (sim->cluster && !sim->failed && !sim->finished &&
           shoal_cluster_phase(sim->cluster) == SHOAL_CLUSTER_RUNNING &&
           (shoal_cluster_room(sim->cluster) > 0 ||
            (sim->eager && sim->added < sim->completed + 20))) {
        Step step;
        Place before = sim->place;
        if (!next_step(sim, &step)) {
            sim->place = before;
            TRACE(sim, "finish");
            shoal_cluster_finish(sim->cluster);
            return;
        }
        sim->plans[sim->added % ROUNDS] = (Plan){.before = before, .step = step};
        uint64_t updates = step.iteration + (step.kind == STEP_TRAIN && step.last);
        uint64_t number = shoal_cluster_add_round(sim->cluster, updates, step.kind != STEP_TRAIN);
        check(sim, number == sim->added++, "rounds are numbered on");
    }
}

static void send_to_members(Sim *sim, Message message) {
    size_t n;
    const ShoalClusterMember *members = shoal_cluster_members(sim->cluster, &n);
    for (size_t r = 0; r < n; r++) {
        Conn *conn = find_conn(sim, members[r].connection);
        message.rank = (int)r;
        if (conn && conn->far)
            post(sim, conn, false, message);
    }
}

static void on_form(Sim *sim, const ShoalClusterAction *action) {
    size_t n;
    const ShoalClusterMember *members = shoal_cluster_members(sim->cluster, &n);
    TRACE(sim, "FORM generation %llu of %zu", (unsigned long long)action->generation, n);
    check(sim, action->generation > sim->last_generation, "generations only grow");
    check(sim, n >= sim->config.min_workers && n <= MAX_MEMBERS, "never fewer than the floor");
    check(sim, sim->n_rings < MAX_RINGS, "generations stay few");
    if (sim->broken)
        return;
    sim->last_generation = action->generation;
    Ring *ring = &sim->rings[sim->n_rings++];
    *ring = (Ring){.generation = action->generation, .n = (unsigned)n};
    for (size_t r = 0; r < n; r++) {
        Conn *conn = find_conn(sim, members[r].connection);
        check(sim, conn && conn->far, "members are connected");
        ring->node[r] = conn ? conn->node : 0;
    }
    send_to_members(
        sim,
        (Message){.kind = GENERATION, .generation = action->generation, .round = sim->n_rings - 1});
}

/* What the members really hold, without those of an earlier run where these do not count. */
static uint64_t newest_held(Sim *sim) {
    size_t n;
    const ShoalClusterMember *members = shoal_cluster_members(sim->cluster, &n);
    uint64_t newest = 0;
    for (size_t r = 0; r < n; r++)
        if (members[r].version.held && members[r].version.updates > newest)
            newest = members[r].version.updates;
    return newest;
}

static void on_start(Sim *sim, const ShoalClusterAction *action) {
    size_t n;
    const ShoalClusterMember *members = shoal_cluster_members(sim->cluster, &n);
    Ring *ring = &sim->rings[sim->n_rings - 1];
    uint64_t updates = action->version.updates;
    TRACE(sim, "START generation %llu round %llu version %llu/%llu%s%s%s",
          (unsigned long long)action->generation, (unsigned long long)action->round,
          (unsigned long long)updates, (unsigned long long)action->version.generation,
          action->rewind ? " rewind" : "", action->seek ? " seek" : "",
          action->seed ? " seed" : "");
    check(sim, action->generation == ring->generation, "the newest generation starts");
    uint64_t newest = newest_held(sim), floor = sim->committed;
    check(sim, updates >= (newest < floor ? newest : floor),
          "no update is lost that a member holds");
    check(sim, !action->seed || updates == sim->disk.updates, "seeded with what there is");
    check(sim, sim->config.adopt || action->version.generation > sim->life_generation,
          "states of an earlier run do not count without being asked for");
    check(sim, action->round >= sim->completed && action->round <= sim->added,
          "a start is not behind what is complete");
    sim->rewinds += action->rewind;
    sim->seeks += action->seek;
    sim->seeds += action->seed;
    sim->kept += !action->seek && action->round > sim->completed;
    if (action->seek && sim->sabotage != SABOTAGE_NO_SEEK)
        sim->place = (Place){.iteration = updates};
    if (action->rewind && sim->sabotage != SABOTAGE_NO_REWIND)
        sim->place = sim->plans[action->round % ROUNDS].before;
    if (action->seek)
        sim->committed = updates;
    if (sim->sabotage != SABOTAGE_NO_REWIND && sim->sabotage != SABOTAGE_NO_SEEK)
        check(sim, sim->place.iteration == updates && sim->place.step <= 2,
              "the plan goes on behind the state");
    check(sim, action->rewind == (!action->seek && action->round < sim->added),
          "what is forgotten is planned anew");
    sim->added = action->round;
    Message message = {.kind = START,
                       .generation = action->generation,
                       .round = action->round,
                       .seed = action->seed};
    if (action->seed)
        message.replica = sim->disk;
    message.replica.held = true;
    message.replica.updates = updates;
    message.replica.generation = action->version.generation;
    for (size_t r = 0; r < n; r++)
        if (members[r].needy && sim->sabotage != SABOTAGE_NO_NEEDY)
            message.needy |= 1u << r;
    ring->needy = message.needy;
    sim->syncs += message.needy != 0;
    check(sim, !(message.needy & 1) || !action->seed, "who is seeded is not needy");
    check(sim, message.needy != (1u << n) - 1u, "someone holds the state");
    send_to_members(sim, message);
}

/* Who differs from most is told to forget; when there is no majority, nothing is known. */
static void compare_results(Sim *sim, const Plan *plan) {
    size_t n;
    const ShoalClusterMember *members = shoal_cluster_members(sim->cluster, &n);
    uint64_t odd[MAX_MEMBERS];
    unsigned n_odd = 0, n_even = 0;
    uint64_t even = 0;
    if (plan->generation != sim->last_generation)
        return;
    for (size_t r = 0; r < n; r++) {
        unsigned same = 0;
        for (size_t s = 0; s < n; s++)
            same += plan->result[r].held && plan->result[s].held &&
                    plan->result[r].bits == plan->result[s].bits;
        if (same > n_even) {
            n_even = same;
            even = plan->result[r].bits;
        }
    }
    for (size_t r = 0; r < n; r++)
        if (plan->result[r].held && plan->result[r].bits != even)
            odd[n_odd++] = members[r].connection;
    bool tainted = false;
    for (size_t r = 0; r < n; r++)
        tainted |= plan->result[r].tainted;
    check(sim, n_odd == 0 || tainted, "replicas are identical after a round");
    for (unsigned i = 0; i < n_odd; i++) {
        Conn *conn = find_conn(sim, odd[i]);
        if (conn && conn->far)
            shoal_cluster_diverged(sim->cluster, sim->now_ms, odd[i], "its state differs");
    }
}

/* Whoever is still in the ring holds what is complete. Only at the end of the run, when no round
 * follows, a needy member may be passed over. */
static void check_held(Sim *sim, uint64_t updates) {
    ShoalClusterPhase phase = shoal_cluster_phase(sim->cluster);
    if (phase == SHOAL_CLUSTER_FORMING || phase == SHOAL_CLUSTER_DONE)
        return;
    const Ring *ring = &sim->rings[sim->n_rings - 1];
    for (unsigned r = 0; r < ring->n; r++) {
        const Node *node = &sim->nodes[ring->node[r]];
        if (node->ring == (int)sim->n_rings - 1)
            check(sim, node->replica.held && node->replica.updates >= updates,
                  "what is complete is held by every member");
    }
}

static void on_complete(Sim *sim, uint64_t round) {
    Plan *plan = &sim->plans[round % ROUNDS];
    TRACE(sim, "COMPLETE %llu", (unsigned long long)round);
    check(sim, round == sim->completed++, "rounds complete in order, once");
    check(sim, round < sim->added, "a complete round was added");
    if (plan->step.kind == STEP_TRAIN && plan->step.last) {
        check(sim, plan->step.iteration == sim->committed++, "updates complete in order, once");
        check_held(sim, sim->committed);
    }
    if (plan->step.kind == STEP_SNAPSHOT) {
        check(sim, plan->generation == sim->last_generation && plan->result[0].held,
              "a snapshot has been sent");
        if (plan->result[0].held) {
            sim->disk = plan->result[0];
            shoal_cluster_seedable(sim->cluster, sim->disk.updates);
        }
    }
    compare_results(sim, plan);
}

static void on_issue(Sim *sim, const ShoalClusterAction *action) {
    Plan *plan = &sim->plans[action->round % ROUNDS];
    check(sim, action->round < sim->added, "an issued round was added");
    plan->generation = action->generation;
    memset(plan->result, 0, sizeof(plan->result));
    if (plan->step.kind != STEP_TRAIN)
        check(sim, sim->rings[sim->n_rings - 1].generation == action->generation, "current");
    send_to_members(sim, (Message){.kind = ROUND,
                                   .generation = action->generation,
                                   .round = action->round,
                                   .step = plan->step});
}

static void close_far(Conn *conn) {
    conn->far = false;
    conn->up.count = 0;
    release(conn);
}

static void on_drop(Sim *sim, const ShoalClusterAction *action) {
    Conn *conn = find_conn(sim, action->connection);
    TRACE(sim, "DROP connection %llu: %s", (unsigned long long)action->connection, action->text);
    check(sim, conn && conn->far, "only open connections are dropped");
    if (!conn)
        return;
    post(sim, conn, false,
         (Message){.kind = DROP, .forget = action->forget, .for_good = action->for_good});
    close_far(conn);
}

static void on_end(Sim *sim, const ShoalClusterAction *action) {
    sim->failed = action->kind == SHOAL_CLUSTER_FAIL;
    sim->finished = !sim->failed;
    sim->end_ms = sim->now_ms;
    TRACE(sim, "%s %s", sim->failed ? "FAIL" : "FINISHED", action->text);
    for (unsigned i = 0; i < MAX_CONNS; i++)
        if (sim->conns[i].used && sim->conns[i].far)
            post(sim, &sim->conns[i], false, (Message){.kind = STOP});
}

static void on_action(Sim *sim, const ShoalClusterAction *action) {
    check(sim, !(sim->failed || sim->finished) || action->kind == SHOAL_CLUSTER_DROP,
          "after the end there are only drops");
    switch (action->kind) {
    case SHOAL_CLUSTER_FORM:
        on_form(sim, action);
        break;
    case SHOAL_CLUSTER_START:
        on_start(sim, action);
        break;
    case SHOAL_CLUSTER_ISSUE:
        on_issue(sim, action);
        break;
    case SHOAL_CLUSTER_COMPLETE:
        on_complete(sim, action->round);
        break;
    case SHOAL_CLUSTER_DROP:
        on_drop(sim, action);
        break;
    case SHOAL_CLUSTER_LOST:
    case SHOAL_CLUSTER_PAUSE:
        TRACE(sim, "%s", action->text);
        break;
    case SHOAL_CLUSTER_FAIL:
    case SHOAL_CLUSTER_FINISHED:
        on_end(sim, action);
        break;
    }
}

static void read_actions(Sim *sim) {
    ShoalClusterAction action;
    while (!sim->broken && shoal_cluster_has_action(sim->cluster)) {
        while (!sim->broken && shoal_cluster_next_action(sim->cluster, &action))
            on_action(sim, &action);
        add_rounds(sim);
    }
}

static void on_join(Sim *sim, Conn *conn, const Message *message) {
    ShoalClusterInfo info = {.address = "10.0.0.1",
                             .ring_port = (uint16_t)(1 + conn->node),
                             .generation = message->generation,
                             .pid = (int64_t)conn->node};
    snprintf(info.name, sizeof(info.name), "node-%u", conn->node);
    shoal_cluster_join(sim->cluster, sim->now_ms, conn->name, &info);
    conn->joined = true;
    post(sim, conn, false, (Message){.kind = WELCOME});
}

static void on_report(Sim *sim, const Conn *conn, const Message *message) {
    int rank = shoal_cluster_rank(sim->cluster, conn->name);
    Plan *plan = &sim->plans[message->round % ROUNDS];
    if (rank >= 0 && plan->generation == message->generation)
        plan->result[rank] = message->replica;
    shoal_cluster_done(sim->cluster, sim->now_ms, conn->name, message->generation, message->round);
}

static void on_message(Sim *sim, Conn *conn, const Message *message) {
    ShoalCluster *cluster = sim->cluster;
    uint64_t now = sim->now_ms, name = conn->name;
    switch (message->kind) {
    case JOIN:
        on_join(sim, conn, message);
        break;
    case PREPARED:
        shoal_cluster_prepared(cluster, now, name);
        break;
    case READY:
        shoal_cluster_ready(cluster, now, name, message->generation, version_of(&message->replica));
        break;
    case DONE:
        on_report(sim, conn, message);
        break;
    case ABORTED:
        shoal_cluster_aborted(cluster, now, name, message->generation, message->rank, "ring");
        break;
    case FAILURE:
        shoal_cluster_fault(cluster, now, name, SHOAL_ERR_IO, "no memory card");
        break;
    case CLOSED:
        if (below(sim, 4)) /* some have said before that they need a rest */
            shoal_cluster_leave(cluster, now, name, "connection closed");
        else
            shoal_cluster_rest(cluster, now, name, "battery 12 %");
        close_far(conn);
        break;
    default:
        shoal_cluster_progress(cluster, now, name, message->stage, message->progress);
        break;
    }
    read_actions(sim);
}

static void create_coordinator(Sim *sim, bool adopt) {
    ShoalError err = {0};
    sim->config.adopt = adopt;
    sim->config.seed_updates = sim->disk.updates;
    /* As a clock would do: above all that there has ever been. */
    sim->config.first_generation = sim->last_generation + 1 + below(sim, 10);
    assert_int_equal(shoal_cluster_create(&sim->config, &sim->cluster, &err), SHOAL_OK);
    sim->place = (Place){.iteration = sim->disk.updates};
    sim->life_generation = sim->last_generation;
    sim->added = sim->completed = 0;
    sim->committed = sim->disk.updates;
    TRACE(sim, "coordinator starts%s, with a snapshot of %llu", adopt ? " and adopts" : "",
          (unsigned long long)sim->disk.updates);
}

static void kill_coordinator(Sim *sim) {
    shoal_cluster_destroy(sim->cluster);
    sim->cluster = NULL;
    sim->restart_ms = sim->now_ms + 20 + below(sim, 300);
    for (unsigned i = 0; i < MAX_CONNS; i++) {
        Conn *conn = &sim->conns[i];
        if (!conn->used || !conn->far)
            continue;
        post(sim, conn, false, (Message){.kind = CLOSED});
        close_far(conn);
    }
}

static void beat(Sim *sim) {
    if (sim->now_ms < sim->beat_ms)
        return;
    sim->beat_ms = sim->now_ms + HEARTBEAT_MS;
    for (unsigned i = 0; i < MAX_CONNS; i++)
        if (sim->conns[i].used && sim->conns[i].far && sim->conns[i].joined)
            post(sim, &sim->conns[i], false, (Message){.kind = HEARTBEAT});
}

static void step_coordinator(Sim *sim) {
    if (!sim->cluster && sim->now_ms >= sim->restart_ms)
        create_coordinator(sim, below(sim, 4) > 0);
    if (!sim->cluster || sim->asleep_until > sim->now_ms)
        return;
    /* Connections are read in any order. */
    unsigned first = (unsigned)below(sim, MAX_CONNS);
    for (unsigned k = 0; k < MAX_CONNS && !sim->broken; k++) {
        Conn *conn = &sim->conns[(first + k) % MAX_CONNS];
        Message message;
        while (conn->used && conn->far && !sim->broken && take(sim, conn, true, &message))
            on_message(sim, conn, &message);
    }
    uint64_t deadline = shoal_cluster_deadline_ms(sim->cluster);
    /* Early ticks do no harm. */
    if (deadline <= sim->now_ms || below(sim, 16) == 0)
        shoal_cluster_tick(sim->cluster, sim->now_ms);
    read_actions(sim);
    check(sim, shoal_cluster_deadline_ms(sim->cluster) > sim->now_ms, "a tick moves its deadline");
    beat(sim);
}

#endif
