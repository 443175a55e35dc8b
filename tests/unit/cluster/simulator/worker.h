/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHOAL_TESTS_SIMULATOR_WORKER_H
#define SHOAL_TESTS_SIMULATOR_WORKER_H

#include "unit/cluster/simulator/world.h"

/* The simulated workers, and the ring between them. */

/* --- the ring -------------------------------------------------------------------------------- */

static void notice(Sim *sim, Node *node, int suspect) {
    if (node->ring == NONE || node->ring_lost_ms)
        return;
    node->ring_lost_ms = sim->now_ms + 1 + delay(sim);
    node->suspect = suspect;
    node->attentive = below(sim, 2) == 0;
}

/* Its connections are closed; the neighbours see that. */
static void leave_ring(Sim *sim, Node *node) {
    if (node->ring == NONE)
        return;
    Ring *ring = &sim->rings[node->ring];
    ring->left[node->rank] = true;
    const unsigned steps[] = {1, ring->n - 1};
    for (unsigned i = 0; i < 2 && ring->n > 1; i++) {
        unsigned rank = (node->rank + steps[i]) % ring->n;
        Node *other = &sim->nodes[ring->node[rank]];
        if (other->ring == node->ring && other->rank == rank)
            notice(sim, other, (int)node->rank);
    }
    if (node->dirty)
        node->replica.held = false;
    node->ring = NONE;
    node->work = IDLE;
    node->has_run = node->dirty = false;
    node->ring_lost_ms = 0;
}

static bool is_cut(const Sim *sim, unsigned a, unsigned b) {
    return sim->cut_until[a][b] > sim->now_ms;
}

static unsigned index_of(const Sim *sim, const Node *node) {
    return (unsigned)(node - sim->nodes);
}

/* A neighbour that cannot be reached is noticed after a while. */
static void notice_cuts(Sim *sim, Node *node) {
    Ring *ring = &sim->rings[node->ring];
    if (ring->n < 2 || sim->now_ms < node->began_ms + CUT_MS || node->ring_lost_ms)
        return;
    const unsigned steps[] = {1, ring->n - 1};
    for (unsigned i = 0; i < 2; i++) {
        unsigned rank = (node->rank + steps[i]) % ring->n;
        if (is_cut(sim, index_of(sim, node), ring->node[rank]))
            notice(sim, node, (int)rank);
    }
}

static void connect_ring(Sim *sim, Node *node) {
    Ring *ring = &sim->rings[node->ring];
    const unsigned steps[] = {1, ring->n - 1};
    bool connected = true;
    for (unsigned i = 0; i < 2 && ring->n > 1; i++) {
        unsigned rank = (node->rank + steps[i]) % ring->n;
        const Node *other = &sim->nodes[ring->node[rank]];
        bool there = ring->joined[rank] && !ring->left[rank] &&
                     (ring->up[rank] || other->frozen_until <= sim->now_ms) &&
                     !is_cut(sim, index_of(sim, node), ring->node[rank]);
        if (!there && connected && sim->now_ms >= node->began_ms + CONNECT_MS)
            notice(sim, node, (int)rank);
        if (ring->left[rank])
            notice(sim, node, (int)rank);
        connected = connected && there;
    }
    if (!connected || sim->now_ms < node->until_ms)
        return;
    ring->up[node->rank] = true;
    node->work = IDLE;
    shoal_worker_connected(&node->core, ring->generation);
}

static void post_operation(Sim *sim, Node *node, Work work, uint64_t given) {
    Ring *ring = &sim->rings[node->ring];
    unsigned operation = ring->posted[node->rank]++;
    check(sim, operation == ring->finished[node->rank], "one operation at a time");
    ring->given[node->rank][operation % 2] = given;
    node->work = work;
    node->began_ms = sim->now_ms;
    node->finish_ms = 0;
    node->lucky = below(sim, 2) == 0;
}

/* Is the operation at hand over for this rank? When all have given their part, each ends at a time
 * of its own, and some may even when another is gone by then. */
static bool operation_ends(Sim *sim, Node *node) {
    Ring *ring = &sim->rings[node->ring];
    unsigned operation = ring->finished[node->rank];
    bool undisturbed = true;
    for (unsigned r = 0; r < ring->n; r++) {
        const Node *other = &sim->nodes[ring->node[r]];
        if (ring->posted[r] <= operation)
            return false;
        bool there = !ring->left[r] && other->frozen_until <= sim->now_ms &&
                     !is_cut(sim, ring->node[r], ring->node[(r + 1) % ring->n]);
        if (r != node->rank && ring->finished[r] <= operation && !there)
            undisturbed = false;
    }
    if (node->finish_ms == 0)
        node->finish_ms = sim->now_ms + (below(sim, 4) ? below(sim, 4) : below(sim, 25)) +
                          (node->work == SYNCING ? below(sim, 60) : 0);
    return sim->now_ms >= node->finish_ms && (undisturbed || node->lucky);
}

/* --- workers --------------------------------------------------------------------------------- */

static Step *step_of(Node *node, uint64_t round) {
    return &node->steps[round % SHOAL_CLUSTER_MAX_WINDOW];
}

static void finish_round(Sim *sim, Node *node) {
    const Ring *ring = &sim->rings[node->ring];
    check_replica(sim, &node->replica);
    node->reported = node->replica;
    node->work = IDLE;
    node->has_run = false;
    node->progress++;
    shoal_worker_done(&node->core, ring->generation, node->run);
}

static void apply_update(Sim *sim, Node *node, unsigned operation) {
    const Ring *ring = &sim->rings[node->ring];
    uint64_t sum = 0;
    for (unsigned r = 0; r < ring->n; r++)
        sum += ring->given[r][operation % 2];
    Replica *replica = &node->replica;
    replica->pure = mix(replica->pure, sum);
    replica->bits = mix(mix(replica->bits, sum), ring->generation);
    replica->updates++;
    replica->generation = ring->generation;
    node->sum = 0;
}

/* What those that hold the state began with; by now they may have gone on. */
static void copy_state(Sim *sim, Node *node) {
    node->replica = sim->rings[node->ring].start;
    node->dirty = false;
    check_replica(sim, &node->replica);
}

static void end_operation(Sim *sim, Node *node) {
    Ring *ring = &sim->rings[node->ring];
    unsigned operation = ring->finished[node->rank]++;
    node->progress++;
    if (node->work == SYNCING) {
        node->work = IDLE;
        if (ring->needy >> node->rank & 1)
            copy_state(sim, node);
        return;
    }
    apply_update(sim, node, operation);
    finish_round(sim, node);
}

static void begin_round(Sim *sim, Node *node) {
    const Step *step = step_of(node, node->run);
    check(sim, node->replica.held && node->replica.updates == step->iteration,
          "a round is done with the state before it");
    node->work = COMPUTING;
    node->began_ms = sim->now_ms;
    node->until_ms = sim->now_ms + below(sim, 12) * (node->slow_until > sim->now_ms ? 10 : 1);
    node->progress++;
}

static void end_compute(Sim *sim, Node *node) {
    const Step *step = step_of(node, node->run);
    const Ring *ring = &sim->rings[node->ring];
    if (step->kind != STEP_TRAIN) {
        finish_round(sim, node);
        return;
    }
    if (step->pass == 0 && sim->sabotage != SABOTAGE_KEEP_SUM)
        node->sum = 0;
    node->sum += share(step->iteration, step->pass, ring->generation, node->rank, ring->n);
    if (step->last)
        post_operation(sim, node, REDUCING, node->sum);
    else
        finish_round(sim, node);
}

static void break_ring(Sim *sim, Node *node) {
    Ring *ring = &sim->rings[node->ring];
    uint64_t generation = ring->generation;
    int suspect = node->suspect;
    bool reducing = node->work == REDUCING;
    if (reducing && sim->sabotage == SABOTAGE_OLD_RESULTS)
        apply_update(sim, node, ring->finished[node->rank]);
    if (reducing && sim->sabotage == SABOTAGE_EARLY) {
        node->replica.updates++;
        node->replica.generation = generation;
    }
    leave_ring(sim, node);
    node->suspect = suspect;
    shoal_worker_ring_lost(&node->core, generation);
}

static void work(Sim *sim, Node *node) {
    if (node->ring == NONE || node->hung_until > sim->now_ms)
        return;
    bool in_ring = node->work == CONNECTING || node->work == SYNCING || node->work == REDUCING;
    if (in_ring)
        notice_cuts(sim, node);
    if (node->ring_lost_ms && node->ring_lost_ms <= sim->now_ms && (in_ring || node->attentive)) {
        break_ring(sim, node);
        return;
    }
    if (node->work == CONNECTING)
        connect_ring(sim, node);
    else if (in_ring && operation_ends(sim, node))
        end_operation(sim, node);
    else if (node->work == COMPUTING && node->until_ms <= sim->now_ms)
        end_compute(sim, node);
    if (node->ring != NONE && node->work == IDLE && node->has_run)
        begin_round(sim, node);
}

static void enter_ring(Sim *sim, Node *node) {
    Ring *ring = &sim->rings[node->ring];
    ring->joined[node->rank] = true;
    node->work = CONNECTING;
    node->began_ms = sim->now_ms;
    node->until_ms = sim->now_ms + below(sim, 20);
}

/* The generation is under way: who is needy gets the state, the others give it. */
static void enter_generation(Sim *sim, Node *node) {
    Ring *ring = &sim->rings[node->ring];
    bool needy = ring->needy >> node->rank & 1;
    if (sim->sabotage != SABOTAGE_KEEP_SUM)
        node->sum = 0;
    if (!needy && !node->replica.tainted) {
        check(sim,
              node->replica.held && node->replica.updates == ring->start.updates &&
                  node->replica.generation == ring->start.generation,
              "who is not needy holds the state");
        ring->start = node->replica;
    } else if (!needy && !ring->start.pure) {
        ring->start = node->replica;
    }
    if (needy) {
        node->dirty = below(sim, 2) == 0;
        if (node->dirty)
            node->replica.held = false;
    }
    if (ring->needy)
        post_operation(sim, node, SYNCING, 0);
}

static void do_action(Sim *sim, Node *node, const ShoalWorkerAction *action) {
    switch (action->kind) {
    case SHOAL_WORKER_CONNECT:
        enter_ring(sim, node);
        break;
    case SHOAL_WORKER_READY:
        say(sim, node,
            (Message){.kind = READY, .generation = action->generation, .replica = node->replica});
        break;
    case SHOAL_WORKER_START:
        enter_generation(sim, node);
        break;
    case SHOAL_WORKER_RUN:
        check(sim, !node->has_run, "one round at a time");
        node->has_run = true;
        node->run = action->round;
        break;
    case SHOAL_WORKER_REPORT:
        say(sim, node,
            (Message){.kind = DONE,
                      .generation = action->generation,
                      .round = action->round,
                      .replica = node->reported});
        break;
    case SHOAL_WORKER_ABORT:
        say(sim, node,
            (Message){.kind = ABORTED, .generation = action->generation, .rank = node->suspect});
        break;
    case SHOAL_WORKER_STOP:
        leave_ring(sim, node);
        break;
    }
}

static void do_actions(Sim *sim, Node *node) {
    ShoalWorkerAction action;
    while (!sim->broken && shoal_worker_next_action(&node->core, &action))
        do_action(sim, node, &action);
}

/* Its coordinator is gone, or wants it no more. */
static void lose_coordinator(Sim *sim, Node *node, bool quiet) {
    hang_up(sim, node, quiet);
    leave_ring(sim, node);
    node->building = false;
    node->connect_ms = sim->now_ms + 5 + below(sim, 60);
}

static void hear_generation(Sim *sim, Node *node, const Message *message, ShoalError *err) {
    const Ring *ring = &sim->rings[message->round];
    ShoalStatus status = shoal_worker_generation(&node->core, message->generation,
                                                 (unsigned)message->rank, ring->n, err);
    check(sim, status == SHOAL_OK, "the coordinator keeps the protocol");
    leave_ring(sim, node);
    node->ring = (int)message->round;
    node->rank = (unsigned)message->rank;
    if (node->heard_generation < message->generation)
        node->heard_generation = message->generation;
}

static void hear_start(Sim *sim, Node *node, const Message *message, ShoalError *err) {
    bool accepted = false;
    check(sim,
          shoal_worker_start(&node->core, message->generation, message->round, &accepted, err) ==
              SHOAL_OK,
          "the coordinator keeps the protocol");
    if (!accepted)
        return;
    Ring *ring = &sim->rings[node->ring];
    ring->start.updates = message->replica.updates;
    ring->start.generation = message->replica.generation;
    ring->start.held = true;
    if (message->seed && node->rank == 0) {
        node->replica = message->replica;
        check_replica(sim, &node->replica);
    }
}

static void hear_round(Sim *sim, Node *node, const Message *message, ShoalError *err) {
    bool accepted = false;
    check(sim,
          shoal_worker_round(&node->core, message->generation, message->round, &accepted, err) ==
              SHOAL_OK,
          "the coordinator keeps the protocol");
    if (accepted)
        *step_of(node, message->round) = message->step;
}

/* false: the connection is gone. */
static bool hear(Sim *sim, Node *node, const Message *message) {
    ShoalError err = {0};
    node->heard_ms = sim->now_ms;
    switch (message->kind) {
    case WELCOME:
        node->building = true;
        node->built_ms = sim->now_ms + (node->built ? 0 : below(sim, below(sim, 4) ? 20 : 400));
        break;
    case GENERATION:
        hear_generation(sim, node, message, &err);
        break;
    case START:
        hear_start(sim, node, message, &err);
        break;
    case ROUND:
        hear_round(sim, node, message, &err);
        break;
    case STOP:
        shoal_worker_stop(&node->core);
        node->for_good = true;
        break;
    case DROP:
        if (message->forget)
            node->replica.held = false;
        node->for_good = message->for_good;
        lose_coordinator(sim, node, true);
        return false;
    case CLOSED:
        lose_coordinator(sim, node, true);
        return false;
    default:
        break;
    }
    do_actions(sim, node);
    return true;
}

static void try_connect(Sim *sim, Node *node) {
    if (node->conn != NONE || node->for_good || node->connect_ms > sim->now_ms || !sim->cluster ||
        node->link_until > sim->now_ms || node->hung_until > sim->now_ms ||
        sim->asleep_until > sim->now_ms)
        return;
    node->conn = open_conn(sim, index_of(sim, node));
    shoal_worker_init(&node->core, sim->config.window);
    node->heard_ms = sim->now_ms;
    node->heartbeat_ms = sim->now_ms;
    say(sim, node, (Message){.kind = JOIN, .generation = node->heard_generation});
}

static ShoalClusterStage stage_of(const Node *node) {
    return node->work == COMPUTING ? SHOAL_CLUSTER_COMPUTING
           : node->work == IDLE    ? SHOAL_CLUSTER_IDLE
                                   : SHOAL_CLUSTER_REDUCING;
}

static void keep_contact(Sim *sim, Node *node) {
    if (node->heartbeat_ms <= sim->now_ms) {
        say(sim, node,
            (Message){.kind = HEARTBEAT, .stage = stage_of(node), .progress = node->progress});
        node->heartbeat_ms = sim->now_ms + HEARTBEAT_MS;
    }
    if (node->building && node->built_ms <= sim->now_ms) {
        node->building = false;
        node->built = true;
        say(sim, node, (Message){.kind = PREPARED});
    }
    if (sim->now_ms >= node->heard_ms + SILENCE_MS)
        lose_coordinator(sim, node, false);
}

static void step_node(Sim *sim, Node *node) {
    if (!node->up || node->frozen_until > sim->now_ms)
        return;
    try_connect(sim, node);
    if (node->conn == NONE)
        return;
    Message message;
    while (!sim->broken && node->conn != NONE &&
           take(sim, &sim->conns[node->conn], false, &message))
        if (!hear(sim, node, &message))
            return;
    keep_contact(sim, node);
    if (node->conn == NONE)
        return;
    work(sim, node);
    do_actions(sim, node);
}

#endif
