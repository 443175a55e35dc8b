/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "cluster/coordinator.h"
#include "cluster/worker.h"

/* The coordinator's core and 1 .. 6 worker cores over simulated connections, step by step from one
 * seed: random delays, rounds, computing times and one fault. What must hold is checked at every
 * step. Replay: SHOAL_SIM_SEED=N unit_cluster_simulator; more seeds: SHOAL_SIM_SEEDS=N. */

#define DEFAULT_SEEDS 6000
#define MAX_WORKERS 6
#define MAX_ROUNDS 24
#define QUEUE 256
#define HEARTBEAT_MS 40
#define TIMEOUT_MS 200
#define MAX_DELAY_MS 30
#define END_MS 6000 /* long after every run must have ended */

typedef enum Fault {
    FAULT_NONE,
    FAULT_CRASH,  /* closes its connections, says nothing */
    FAULT_FREEZE, /* says nothing, connections stay open */
    FAULT_RING,   /* loses its ring, lives on */
    FAULT_LIE,    /* sends an illegal message */
    FAULT_SAYS,   /* sends Failure */
    FAULT_LATE,   /* one worker more than expected */
    N_FAULTS
} Fault;

typedef enum Kind {
    JOIN,
    READY,
    DONE,
    ABORTED,
    HEARTBEAT,
    FAILURE,
    CLOSED,
    GENERATION,
    ROUND,
    STOP
} Kind;

typedef struct Message {
    Kind kind;
    uint64_t at_ms, generation, round;
    unsigned rank;
} Message;

/* One direction of a connection: delays vary, the order stays. */
typedef struct Pipe {
    Message messages[QUEUE];
    unsigned head, count;
    uint64_t last_ms;
} Pipe;

typedef struct Node {
    ShoalWorker core;
    Pipe up, down;
    bool joined, alive, frozen, closed; /* closed: by the coordinator */
    uint64_t join_ms, heartbeat_ms;
    bool connecting, working;
    uint64_t generation, round; /* of the work at hand */
    uint64_t ready_ms;          /* when its own part of the work at hand is over */
    uint64_t ring_lost_ms;      /* 0: it is not */
    uint64_t finished;          /* rounds 0 .. finished - 1 are really done */
    uint64_t runs;              /* RUN actions seen */
    unsigned rank;
    int worker_id; /* -1: not admitted */
} Node;

typedef struct Sim {
    ShoalRng rng;
    uint64_t seed, now_ms;
    ShoalCluster *cluster;
    unsigned n, expected, rounds, window;
    bool eager; /* adds all rounds at once, not only as many as there is room for */
    Node nodes[MAX_WORKERS + 1];
    Fault fault;
    unsigned victim;
    uint64_t fault_ms;
    bool fault_done;
    bool fault_early; /* it hit before the cluster had formed */
    unsigned forms, starts;
    uint64_t issued, completed;
    bool failed, finished;
    uint64_t end_ms;
    ShoalClusterAction last;
    const char *broken; /* the rule that was broken, or NULL */
} Sim;

static void check(Sim *sim, bool holds, const char *rule) {
    if (!holds && !sim->broken)
        sim->broken = rule;
}

static uint64_t below(Sim *sim, uint32_t bound) {
    return shoal_rng_below(&sim->rng, bound);
}

/* Most messages are quick, some are late. */
static uint64_t delay(Sim *sim) {
    return below(sim, 8) ? below(sim, 3) : below(sim, MAX_DELAY_MS);
}

static void post(Sim *sim, Pipe *pipe, Message message) {
    check(sim, pipe->count < QUEUE, "queues stay bounded");
    if (pipe->count == QUEUE)
        return;
    uint64_t at = sim->now_ms + 1 + delay(sim);
    message.at_ms = pipe->last_ms > at ? pipe->last_ms : at;
    pipe->last_ms = message.at_ms;
    pipe->messages[(pipe->head + pipe->count++) % QUEUE] = message;
}

static bool take(const Sim *sim, Pipe *pipe, Message *message) {
    if (pipe->count == 0 || pipe->messages[pipe->head].at_ms > sim->now_ms)
        return false;
    *message = pipe->messages[pipe->head];
    pipe->head = (pipe->head + 1) % QUEUE;
    pipe->count--;
    return true;
}

static bool acts(const Node *node) {
    return node->joined && node->alive && !node->frozen && !node->closed;
}

static void say(Sim *sim, Node *node, Kind kind, uint64_t generation, uint64_t round) {
    post(sim, &node->up, (Message){.kind = kind, .generation = generation, .round = round});
}

/* --- coordinator ----------------------------------------------------------------------------- */

static Node *node_of_member(Sim *sim, unsigned rank) {
    size_t n;
    const ShoalClusterMember *members = shoal_cluster_members(sim->cluster, &n);
    return rank < n ? &sim->nodes[members[rank].connection] : NULL;
}

static void send_generation(Sim *sim, uint64_t generation) {
    size_t n;
    shoal_cluster_members(sim->cluster, &n);
    check(sim, n == sim->expected, "a generation has all members");
    for (unsigned r = 0; r < n; r++)
        post(sim, &node_of_member(sim, r)->down,
             (Message){.kind = GENERATION, .generation = generation, .rank = r});
}

static void send_to_members(Sim *sim, Kind kind, uint64_t generation, uint64_t round) {
    size_t n;
    shoal_cluster_members(sim->cluster, &n);
    for (unsigned r = 0; r < n; r++)
        post(sim, &node_of_member(sim, r)->down,
             (Message){.kind = kind, .generation = generation, .round = round});
}

static void on_complete(Sim *sim, uint64_t round) {
    check(sim, round == sim->completed++, "rounds complete in order, once");
    check(sim, round < sim->issued, "a complete round was issued");
    for (unsigned r = 0; r < sim->expected; r++) {
        const Node *node = node_of_member(sim, r);
        check(sim, node && node->finished > round, "no round completes without all members");
    }
}

static void on_action(Sim *sim, const ShoalClusterAction *action) {
    check(sim, !(sim->failed || sim->finished) || action->kind == SHOAL_CLUSTER_DROP,
          "after the end there are only drops");
    switch (action->kind) {
    case SHOAL_CLUSTER_FORM:
        check(sim, sim->forms++ == 0 && action->generation == 1, "one generation");
        send_generation(sim, action->generation);
        break;
    case SHOAL_CLUSTER_START:
        check(sim, sim->starts++ == 0 && sim->forms == 1, "one start, after the forming");
        break;
    case SHOAL_CLUSTER_ISSUE:
        check(sim, sim->starts == 1, "rounds are issued to a ring that is up");
        check(sim, action->round == sim->issued++, "rounds are issued in order, once");
        check(sim, sim->issued - sim->completed <= sim->window, "no issue beyond the window");
        send_to_members(sim, ROUND, action->generation, action->round);
        break;
    case SHOAL_CLUSTER_COMPLETE:
        on_complete(sim, action->round);
        break;
    case SHOAL_CLUSTER_DROP:
        sim->nodes[action->connection].closed = true;
        break;
    case SHOAL_CLUSTER_FAIL:
    case SHOAL_CLUSTER_FINISHED:
        sim->failed = action->kind == SHOAL_CLUSTER_FAIL;
        sim->finished = !sim->failed;
        sim->last = *action;
        sim->end_ms = sim->now_ms;
        send_to_members(sim, STOP, 0, 0);
        break;
    }
}

static void read_actions(Sim *sim) {
    ShoalClusterAction action;
    while (shoal_cluster_next_action(sim->cluster, &action))
        on_action(sim, &action);
    uint64_t added = shoal_cluster_added(sim->cluster);
    while ((sim->eager || shoal_cluster_room(sim->cluster) > 0) && added < sim->rounds)
        added = shoal_cluster_add_round(sim->cluster) + 1;
    if (added == sim->rounds)
        shoal_cluster_finish(sim->cluster);
    while (shoal_cluster_next_action(sim->cluster, &action))
        on_action(sim, &action);
}

static void join(Sim *sim, unsigned i) {
    size_t before, after;
    ShoalClusterInfo info = {.address = "10.0.0.1", .ring_port = 1, .pid = (int64_t)i};
    shoal_cluster_members(sim->cluster, &before);
    shoal_cluster_join(sim->cluster, sim->now_ms, i, &info);
    const ShoalClusterMember *members = shoal_cluster_members(sim->cluster, &after);
    if (after > before)
        sim->nodes[i].worker_id = (int)members[after - 1].worker_id;
}

static void on_message(Sim *sim, unsigned i, const Message *message) {
    ShoalCluster *cluster = sim->cluster;
    switch (message->kind) {
    case JOIN:
        join(sim, i);
        break;
    case READY:
        shoal_cluster_ready(cluster, sim->now_ms, i, message->generation);
        break;
    case DONE:
        shoal_cluster_done(cluster, sim->now_ms, i, message->generation, message->round);
        break;
    case ABORTED:
        shoal_cluster_aborted(cluster, sim->now_ms, i, message->generation, -1, "ring");
        break;
    case FAILURE:
        shoal_cluster_fault(cluster, sim->now_ms, i, SHOAL_ERR_DATA, "no memory card");
        break;
    case CLOSED:
        shoal_cluster_leave(cluster, sim->now_ms, i, "connection closed");
        break;
    default:
        shoal_cluster_heard(cluster, sim->now_ms, i);
        break;
    }
    read_actions(sim);
}

static void step_coordinator(Sim *sim) {
    /* Connections are read in any order, and sometimes not at all for a while. */
    unsigned first = (unsigned)below(sim, sim->n);
    for (unsigned k = 0; k < sim->n; k++) {
        unsigned i = (first + k) % sim->n;
        Message message;
        while (!sim->nodes[i].closed && take(sim, &sim->nodes[i].up, &message))
            on_message(sim, i, &message);
    }
    uint64_t deadline = shoal_cluster_deadline_ms(sim->cluster);
    /* Early ticks do no harm. */
    if (deadline <= sim->now_ms || below(sim, 16) == 0)
        shoal_cluster_tick(sim->cluster, sim->now_ms);
    read_actions(sim);
    check(sim, shoal_cluster_deadline_ms(sim->cluster) > sim->now_ms, "a tick moves its deadline");
}

/* --- workers --------------------------------------------------------------------------------- */

static void lose_ring(Sim *sim, Node *node) {
    if (node->generation && !node->ring_lost_ms)
        node->ring_lost_ms = sim->now_ms + 1 + delay(sim);
}

/* Closing runs round the ring. */
static void lose_neighbours(Sim *sim, const Node *node) {
    if (!node->generation || sim->expected < 2)
        return;
    lose_ring(sim, node_of_member(sim, (node->rank + 1) % sim->expected));
    lose_ring(sim, node_of_member(sim, (node->rank + sim->expected - 1) % sim->expected));
}

static void hear(Sim *sim, Node *node, const Message *message) {
    ShoalError err = {0};
    bool accepted;
    ShoalStatus status = SHOAL_OK;
    if (message->kind == GENERATION) {
        status = shoal_worker_generation(&node->core, message->generation, message->rank,
                                         sim->expected, &err);
        node->rank = message->rank;
    } else if (message->kind == ROUND) {
        status =
            shoal_worker_round(&node->core, message->generation, message->round, &accepted, &err);
    } else {
        shoal_worker_stop(&node->core);
    }
    check(sim, status == SHOAL_OK, "the coordinator keeps the protocol");
}

static void do_action(Sim *sim, Node *node, const ShoalWorkerAction *action) {
    switch (action->kind) {
    case SHOAL_WORKER_CONNECT:
        node->connecting = true;
        node->generation = action->generation;
        node->ready_ms = sim->now_ms + below(sim, 20);
        break;
    case SHOAL_WORKER_READY:
        say(sim, node, READY, action->generation, 0);
        break;
    case SHOAL_WORKER_RUN:
        check(sim, !node->working && action->round == node->runs++, "rounds run in order, once");
        node->working = true;
        node->round = action->round;
        node->ready_ms = sim->now_ms + below(sim, 15);
        break;
    case SHOAL_WORKER_REPORT:
        say(sim, node, DONE, action->generation, action->round);
        break;
    case SHOAL_WORKER_ABORT:
        node->connecting = node->working = false;
        say(sim, node, ABORTED, action->generation, 0);
        break;
    case SHOAL_WORKER_STOP:
        node->connecting = node->working = false;
        break;
    }
}

/* Has every other member come as far as this one wants to go? */
static bool ring_agrees(Sim *sim, const Node *node) {
    for (unsigned r = 0; r < sim->expected; r++) {
        const Node *other = node_of_member(sim, r);
        bool there = node->connecting ? other->generation == node->generation
                                      : other->finished > node->round ||
                                            (other->working && other->round == node->round &&
                                             other->ready_ms <= sim->now_ms);
        if (!other->alive || (other->frozen && !(other->finished > node->round)) || !there)
            return false;
    }
    return true;
}

static void work(Sim *sim, Node *node) {
    if (node->ring_lost_ms && node->ring_lost_ms <= sim->now_ms &&
        node->connecting + node->working) {
        shoal_worker_ring_lost(&node->core, node->generation);
        node->connecting = node->working = false;
        lose_neighbours(sim, node);
        return;
    }
    if (!(node->connecting || node->working) || node->ready_ms > sim->now_ms ||
        !ring_agrees(sim, node))
        return;
    if (node->connecting) {
        node->connecting = false;
        shoal_worker_connected(&node->core, node->generation);
    } else {
        node->working = false;
        node->finished = node->round + 1;
        shoal_worker_done(&node->core, node->generation, node->round);
    }
}

static void step_worker(Sim *sim, Node *node) {
    if (!node->joined && node->join_ms <= sim->now_ms && node->alive) {
        node->joined = true;
        say(sim, node, JOIN, 0, 0);
    }
    if (!acts(node))
        return;
    if (node->heartbeat_ms <= sim->now_ms) {
        say(sim, node, HEARTBEAT, 0, 0);
        node->heartbeat_ms = sim->now_ms + HEARTBEAT_MS;
    }
    Message message;
    while (take(sim, &node->down, &message))
        hear(sim, node, &message);
    work(sim, node);
    ShoalWorkerAction action;
    while (shoal_worker_next_action(&node->core, &action))
        do_action(sim, node, &action);
}

/* --- the fault ------------------------------------------------------------------------------- */

/* Illegal in every phase: the only generation is 1, and no such round is ever issued. */
static void lie(Sim *sim, Node *node) {
    switch (below(sim, 4)) {
    case 0:
        say(sim, node, DONE, 1, MAX_ROUNDS + below(sim, 1000));
        break;
    case 1:
        say(sim, node, DONE, 2 + below(sim, 5), 0);
        break;
    case 2:
        say(sim, node, READY, 2 + below(sim, 5), 0);
        break;
    default:
        say(sim, node, JOIN, 0, 0);
        break;
    }
}

static void strike(Sim *sim) {
    Node *node = &sim->nodes[sim->victim];
    if (sim->fault_done || sim->now_ms < sim->fault_ms || !node->joined)
        return;
    /* A ring can break only once there is one. */
    if (sim->fault == FAULT_RING && !node->connecting && !node->working) {
        if (!sim->finished)
            return;
    }
    sim->fault_done = true;
    sim->fault_ms = sim->now_ms;
    sim->fault_early = sim->forms == 0;
    if (sim->fault == FAULT_CRASH) {
        node->alive = false;
        say(sim, node, CLOSED, 0, 0);
        lose_neighbours(sim, node);
    } else if (sim->fault == FAULT_FREEZE) {
        node->frozen = true;
    } else if (sim->fault == FAULT_RING) {
        node->ring_lost_ms = sim->now_ms;
    } else if (sim->fault == FAULT_LIE) {
        lie(sim, node);
    } else if (sim->fault == FAULT_SAYS) {
        say(sim, node, FAILURE, 0, 0);
    }
}

/* --- one run --------------------------------------------------------------------------------- */

static void start(Sim *sim, uint64_t seed) {
    memset(sim, 0, sizeof(*sim));
    sim->seed = seed;
    shoal_rng_init(&sim->rng, seed, SHOAL_RNG_TEST, 99);
    sim->fault = (Fault)below(sim, N_FAULTS);
    sim->expected = 1 + (unsigned)below(sim, MAX_WORKERS);
    sim->n = sim->expected + (sim->fault == FAULT_LATE);
    sim->rounds = (unsigned)below(sim, MAX_ROUNDS + 1);
    sim->window = 1 + (unsigned)below(sim, 4);
    sim->eager = below(sim, 2) == 0;
    sim->victim = (unsigned)below(sim, sim->expected);
    sim->fault_ms = below(sim, 400);
    ShoalClusterConfig config = {.expected = sim->expected,
                                 .window = sim->window,
                                 .heartbeat_timeout_ms = TIMEOUT_MS,
                                 .join_timeout_ms = 1000,
                                 .form_timeout_ms = 1500,
                                 .round_timeout_ms = 1500};
    ShoalError err = {0};
    assert_int_equal(shoal_cluster_create(&config, &sim->cluster, &err), SHOAL_OK);
    for (unsigned i = 0; i < sim->n; i++) {
        Node *node = &sim->nodes[i];
        shoal_worker_init(&node->core, sim->window);
        node->alive = true;
        node->worker_id = -1;
        node->join_ms = below(sim, 100);
    }
}

static bool names_victim(const Sim *sim) {
    char who[32];
    snprintf(who, sizeof(who), "worker %d (", sim->nodes[sim->victim].worker_id);
    return strncmp(sim->last.text, who, strlen(who)) == 0;
}

/* A member that was lost while the coordinator waited is forgotten; then somebody is missing. */
static bool missed_somebody(const Sim *sim) {
    return sim->failed && sim->last.status == SHOAL_ERR_NETWORK && sim->forms == 0 &&
           sim->fault_early;
}

static bool all_done(const Sim *sim) {
    return sim->finished && sim->completed == sim->rounds && sim->issued == sim->rounds;
}

/* Or the fault was still under way. */
static bool ended_before_fault(const Sim *sim) {
    return !sim->fault_done || sim->end_ms <= sim->fault_ms + 2 * MAX_DELAY_MS;
}

static void judge_loss(Sim *sim, ShoalStatus status) {
    if (missed_somebody(sim) || (all_done(sim) && ended_before_fault(sim)))
        return;
    check(sim, sim->failed && sim->fault_done, "a loss ends the run, and only a loss does");
    check(sim, sim->last.status == status, "the status fits the loss");
    check(sim, names_victim(sim), "the right worker is named");
    check(sim, sim->end_ms <= sim->fault_ms + TIMEOUT_MS + 2 * MAX_DELAY_MS + 2,
          "a loss ends the run within the timeout");
}

static void judge_ring(Sim *sim) {
    if (all_done(sim))
        return;
    check(sim, sim->failed && sim->last.status == SHOAL_ERR_LOST, "a broken ring ends the run");
    check(sim, strstr(sim->last.text, "though no worker is gone") != NULL, "nobody is blamed");
    check(sim, sim->end_ms <= sim->fault_ms + 2 * TIMEOUT_MS + 2 * MAX_DELAY_MS + 4,
          "a broken ring ends the run in time");
}

static void judge(Sim *sim) {
    check(sim, sim->failed || sim->finished, "every run ends");
    switch (sim->fault) {
    case FAULT_NONE:
        check(sim, all_done(sim), "without a fault all rounds complete");
        break;
    case FAULT_LATE:
        check(sim, all_done(sim), "a late worker disturbs nobody");
        /* A run that ends at once can be over before anybody joins. */
        if (sim->forms > 0) {
            unsigned refused = 0;
            for (unsigned i = 0; i < sim->n; i++)
                refused += sim->nodes[i].closed;
            check(sim, refused <= 1, "at most one worker is too many");
        }
        break;
    case FAULT_LIE:
        judge_loss(sim, SHOAL_ERR_PROTOCOL);
        break;
    case FAULT_SAYS:
        judge_loss(sim, SHOAL_ERR_DATA);
        break;
    case FAULT_RING:
        judge_ring(sim);
        break;
    default:
        judge_loss(sim, SHOAL_ERR_LOST);
        break;
    }
}

static const char *run(Sim *sim, uint64_t seed) {
    start(sim, seed);
    /* A little beyond the end, for messages that are under way. */
    uint64_t end = END_MS;
    for (; sim->now_ms < end && !sim->broken; sim->now_ms++) {
        strike(sim);
        step_coordinator(sim);
        for (unsigned i = 0; i < sim->n; i++)
            step_worker(sim, &sim->nodes[i]);
        if ((sim->failed || sim->finished) && end == END_MS)
            end = sim->now_ms + 200 < END_MS ? sim->now_ms + 200 : END_MS;
    }
    judge(sim);
    shoal_cluster_destroy(sim->cluster);
    return sim->broken;
}

static uint64_t number_from(const char *name, uint64_t otherwise) {
    const char *text = getenv(name);
    return text ? strtoull(text, NULL, 10) : otherwise;
}

static void test_seeds(void **state) {
    (void)state;
    static Sim sim;
    uint64_t first = number_from("SHOAL_SIM_SEED", 0);
    uint64_t n = number_from("SHOAL_SIM_SEEDS", getenv("SHOAL_SIM_SEED") ? 1 : DEFAULT_SEEDS);
    unsigned ends[N_FAULTS][2] = {{0}};
    for (uint64_t seed = first; seed < first + n; seed++) {
        const char *broken = run(&sim, seed);
        if (broken) {
            print_message("SHOAL_SIM_SEED=%llu: broken at %llu ms: %s (fault %d of %u at %llu ms, "
                          "%u workers, %u rounds, window %u; end at %llu: %s)\n",
                          (unsigned long long)seed, (unsigned long long)sim.now_ms, broken,
                          (int)sim.fault, sim.victim, (unsigned long long)sim.fault_ms,
                          sim.expected, sim.rounds, sim.window, (unsigned long long)sim.end_ms,
                          sim.last.text);
            fail();
        }
        ends[sim.fault][sim.failed]++;
    }
    if (n < DEFAULT_SEEDS)
        return;
    /* The schedule must really have reached both kinds of end, else it tests nothing. */
    for (int fault = 0; fault < N_FAULTS; fault++) {
        bool harmless = fault == FAULT_NONE || fault == FAULT_LATE;
        assert_true(ends[fault][0] > 20);
        assert_true(harmless ? ends[fault][1] == 0 : ends[fault][1] > 100);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_seeds)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
