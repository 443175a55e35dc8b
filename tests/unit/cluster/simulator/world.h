/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHOAL_TESTS_SIMULATOR_WORLD_H
#define SHOAL_TESTS_SIMULATOR_WORLD_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "base/rng.h"
#include "cluster/coordinator.h"
#include "cluster/worker.h"

/* What the simulator consists of: see test_simulator.c. */

#define MAX_NODES 8
#define MAX_MEMBERS 24 /* a node can be there again before its old connection is given up */
#define MAX_CONNS 64
#define MAX_RINGS 512
#define MAX_UPDATES 40
#define ROUNDS 256 /* remembered of the planner */
#define PIPE 256
#define REGISTRY 4096
#define NONE (-1)

#define HEARTBEAT_MS 40
#define TIMEOUT_MS 200
#define SILENCE_MS 300 /* after which a worker gives its coordinator up */
#define MAX_DELAY_MS 30
#define CUT_MS 60 /* after which a rank notices that a neighbour cannot be reached */
#define CONNECT_MS 250

/* Wrong drivers: the simulator has to find each of them out. */
typedef enum Sabotage {
    SABOTAGE_NONE,
    SABOTAGE_NO_NEEDY,    /* nobody is told that it is needy */
    SABOTAGE_NO_REWIND,   /* the planner goes on where it was */
    SABOTAGE_NO_SEEK,     /* likewise */
    SABOTAGE_KEEP_SUM,    /* workers do not clear what they summed up in an iteration cut off */
    SABOTAGE_EARLY,       /* workers count an update when it is begun */
    SABOTAGE_OLD_RESULTS, /* workers apply the sum of an operation that broke */
    N_SABOTAGES
} Sabotage;

typedef enum Fault {
    FAULT_CRASH,       /* the process ends; comes back empty */
    FAULT_RESET,       /* the control connection ends; comes back with its state */
    FAULT_HALF_OPEN,   /* it opens a new connection, and nobody closes the old one */
    FAULT_FREEZE,      /* SIGSTOP for a while */
    FAULT_HANG,        /* answers, but does nothing for a while */
    FAULT_SLOW,        /* computes ten times longer for a while */
    FAULT_LINK,        /* control messages do not get through for a while */
    FAULT_CUT,         /* two workers cannot reach each other for a while */
    FAULT_RING,        /* its ring breaks for no reason */
    FAULT_LIE,         /* sends an illegal message */
    FAULT_SAYS,        /* sends Failure, and comes back empty */
    FAULT_DIVERGE,     /* a bit of its state flips */
    FAULT_COORDINATOR, /* the coordinator ends, and is started again */
    FAULT_SLEEP,       /* the coordinator sleeps for a while */
    N_FAULTS
} Fault;

static const char *const FAULT_NAMES[] = {"crash", "reset",   "half-open",   "freeze", "hang",
                                          "slow",  "link",    "cut",         "ring",   "lie",
                                          "says",  "diverge", "coordinator", "sleep"};

typedef enum StepKind { STEP_TRAIN, STEP_TEST, STEP_SNAPSHOT } StepKind;

typedef struct Step {
    StepKind kind;
    uint64_t iteration;
    unsigned pass;
    bool last; /* pass of its iteration: makes the update */
} Step;

/* bits: as in reality, they depend on who took part in which generation. pure: on the samples
 * alone, so it must be TRUE[updates] whatever happened. */
typedef struct Replica {
    bool held, tainted; /* tainted: a bit has flipped, here or where it came from */
    uint64_t updates, generation, pure, bits;
} Replica;

typedef enum Kind {
    JOIN,
    PREPARED,
    READY,
    DONE,
    ABORTED,
    HEARTBEAT,
    FAILURE,
    CLOSED,
    WELCOME,
    GENERATION,
    START,
    ROUND,
    DROP,
    STOP
} Kind;

typedef struct Message {
    Kind kind;
    uint64_t at_ms, generation, round;
    int rank; /* or who is suspected */
    unsigned needy;
    bool seed, forget, for_good;
    ShoalClusterStage stage;
    uint64_t progress;
    Step step;
    Replica replica; /* READY and DONE: what it holds; START: the state that counts */
} Message;

/* One direction of a connection: delays vary, the order stays. */
typedef struct Pipe {
    Message messages[PIPE];
    unsigned head, count;
    uint64_t last_ms;
} Pipe;

typedef struct Conn {
    bool used;
    uint64_t name;
    unsigned node;
    bool near, far; /* open at the worker's end, at the coordinator's */
    bool joined;
    Pipe up, down;
} Conn;

/* What the workers of a generation have between them. */
typedef struct Ring {
    uint64_t generation;
    unsigned n;
    unsigned node[MAX_MEMBERS];
    bool joined[MAX_MEMBERS], up[MAX_MEMBERS], left[MAX_MEMBERS];
    unsigned posted[MAX_MEMBERS], finished[MAX_MEMBERS]; /* operations */
    uint64_t given[MAX_MEMBERS][2];                      /* to operation i: [i % 2] */
    unsigned needy;
    Replica start;
} Ring;

typedef enum Work { IDLE, CONNECTING, SYNCING, COMPUTING, REDUCING } Work;

typedef struct Node {
    ShoalWorker core;
    bool up, built, for_good;
    uint64_t frozen_until, hung_until, slow_until, link_until;
    uint64_t connect_ms, built_ms, heartbeat_ms, heard_ms;
    int conn;
    bool building;
    uint64_t heard_generation, progress;
    Replica replica;
    uint64_t sum; /* of the present iteration, so far */

    int ring;
    unsigned rank;
    Work work;
    uint64_t began_ms, until_ms, finish_ms;
    bool lucky; /* the operation at hand ends well though others are gone */
    bool dirty; /* needy, and the old state is overwritten in part */
    bool has_run;
    uint64_t run;
    Step steps[SHOAL_CLUSTER_MAX_WINDOW];
    uint64_t ring_lost_ms; /* when it notices that its ring is broken; 0: it is not */
    int suspect;
    bool attentive; /* notices that also while it computes */
    Replica reported;
} Node;

typedef struct Place {
    uint64_t iteration;
    unsigned step; /* 0 snapshot, 1 test, 2.. passes */
} Place;

typedef struct Plan {
    Place before;
    Step step;
    uint64_t generation;
    unsigned reports;
    Replica result[MAX_MEMBERS];
} Plan;

typedef struct Entry {
    bool used;
    uint64_t updates, generation, bits;
} Entry;

typedef struct Sim {
    ShoalRng rng;
    uint64_t seed, now_ms;
    bool trace;
    Sabotage sabotage;
    unsigned n, passes, test_every, snapshot_every;
    uint64_t updates;
    bool eager, last_snapshot;
    ShoalClusterConfig config;
    uint64_t truth[MAX_UPDATES + 1];

    ShoalCluster *cluster; /* NULL: the coordinator is down */
    uint64_t restart_ms, asleep_until, beat_ms, last_generation;
    uint64_t life_generation; /* what was the last one when this coordinator began */
    Place place;
    Plan plans[ROUNDS];
    uint64_t added, completed, committed;
    Replica disk; /* the newest snapshot */
    bool failed, finished;
    uint64_t end_ms;

    Node nodes[MAX_NODES];
    Conn conns[MAX_CONNS];
    uint64_t next_conn;
    Ring rings[MAX_RINGS];
    unsigned n_rings;
    uint64_t cut_until[MAX_NODES][MAX_NODES];
    Entry registry[REGISTRY];

    uint64_t strike_ms, calm_ms;
    unsigned strike_every;
    unsigned n_faults[N_FAULTS];
    unsigned rewinds, seeks, seeds, syncs, kept; /* what has been reached */
    const char *broken;                          /* the rule that was broken, or NULL */
} Sim;

static void check(Sim *sim, bool holds, const char *rule) {
    if (holds || sim->broken)
        return;
    sim->broken = rule;
    if (sim->trace)
        print_message("%6llu BROKEN: %s\n", (unsigned long long)sim->now_ms, rule);
}

#define TRACE(sim, ...)                                                                            \
    do {                                                                                           \
        if ((sim)->trace) {                                                                        \
            print_message("%6llu ", (unsigned long long)(sim)->now_ms);                            \
            print_message(__VA_ARGS__);                                                            \
            print_message("\n");                                                                   \
        }                                                                                          \
    } while (0)

static uint64_t below(Sim *sim, uint32_t bound) {
    return shoal_rng_below(&sim->rng, bound);
}

/* Most messages are quick, some are late. */
static uint64_t delay(Sim *sim) {
    return below(sim, 8) ? below(sim, 3) : below(sim, MAX_DELAY_MS);
}

static uint64_t mix(uint64_t a, uint64_t b) {
    uint64_t x = (a ^ (b + 0x9e3779b97f4a7c15u + (a << 6) + (a >> 2))) * 0xff51afd7ed558ccdu;
    return (x ^ (x >> 33)) * 0xc4ceb9fe1a85ec53u + b;
}

/* --- replicas -------------------------------------------------------------------------------- */

/* What a pass adds up to over all ranks, however it is shared out. */
static uint64_t gradient(uint64_t iteration, unsigned pass) {
    return mix(mix(77, iteration), pass);
}

static uint64_t share(uint64_t iteration, unsigned pass, uint64_t generation, unsigned rank,
                      unsigned n) {
    uint64_t rest = gradient(iteration, pass), mine = 0;
    for (unsigned r = 0; r < n; r++) {
        mine = r + 1 < n ? mix(mix(rest, generation), r) : rest;
        if (r == rank)
            return mine;
        rest -= mine;
    }
    return mine;
}

static void fill_truth(Sim *sim) {
    sim->truth[0] = 1;
    for (uint64_t k = 0; k < MAX_UPDATES; k++) {
        uint64_t sum = 0;
        for (unsigned p = 0; p < sim->passes; p++)
            sum += gradient(k, p);
        sim->truth[k + 1] = mix(sim->truth[k], sum);
    }
}

/* Equal versions are equal to the bit. */
static void check_version(Sim *sim, const Replica *replica) {
    size_t at = (size_t)(mix(replica->updates, replica->generation) % REGISTRY);
    for (size_t i = 0; i < REGISTRY; i++, at = (at + 1) % REGISTRY) {
        Entry *entry = &sim->registry[at];
        if (!entry->used) {
            *entry = (Entry){true, replica->updates, replica->generation, replica->bits};
            return;
        }
        if (entry->updates == replica->updates && entry->generation == replica->generation) {
            check(sim, entry->bits == replica->bits, "equal versions are equal to the bit");
            return;
        }
    }
}

static void check_replica(Sim *sim, const Replica *replica) {
    if (!replica->held || replica->tainted)
        return;
    check(sim, replica->updates <= MAX_UPDATES, "no update beyond the end");
    if (replica->updates <= MAX_UPDATES)
        check(sim, replica->pure == sim->truth[replica->updates],
              "a state is the sum of all its samples, once");
    check_version(sim, replica);
}

static ShoalClusterVersion version_of(const Replica *replica) {
    if (!replica->held)
        return (ShoalClusterVersion){0};
    return (ShoalClusterVersion){true, replica->updates, replica->generation};
}

/* --- connections ----------------------------------------------------------------------------- */

static void post(Sim *sim, Conn *conn, bool up, Message message) {
    Pipe *pipe = up ? &conn->up : &conn->down;
    check(sim, pipe->count < PIPE, "queues stay bounded");
    if (pipe->count == PIPE)
        return;
    uint64_t at = sim->now_ms + 1 + delay(sim);
    message.at_ms = pipe->last_ms > at ? pipe->last_ms : at;
    pipe->last_ms = message.at_ms;
    pipe->messages[(pipe->head + pipe->count++) % PIPE] = message;
}

/* While the link is down nothing arrives; TCP sends it again later. */
static bool take(const Sim *sim, const Conn *conn, bool up, Message *message) {
    Pipe *pipe = (Pipe *)(up ? &conn->up : &conn->down);
    if (pipe->count == 0 || pipe->messages[pipe->head].at_ms > sim->now_ms ||
        sim->nodes[conn->node].link_until > sim->now_ms)
        return false;
    *message = pipe->messages[pipe->head];
    pipe->head = (pipe->head + 1) % PIPE;
    pipe->count--;
    return true;
}

static Conn *find_conn(Sim *sim, uint64_t name) {
    for (unsigned i = 0; i < MAX_CONNS; i++)
        if (sim->conns[i].used && sim->conns[i].name == name)
            return &sim->conns[i];
    return NULL;
}

static void release(Conn *conn) {
    if (!conn->near && !conn->far)
        conn->used = false;
}

static int open_conn(Sim *sim, unsigned node) {
    for (int i = 0; i < MAX_CONNS; i++) {
        Conn *conn = &sim->conns[i];
        if (conn->used)
            continue;
        conn->used = conn->near = conn->far = true;
        conn->joined = false;
        conn->name = sim->next_conn++;
        conn->node = node;
        conn->up.head = conn->up.count = conn->down.head = conn->down.count = 0;
        conn->up.last_ms = conn->down.last_ms = 0;
        return i;
    }
    check(sim, false, "connections stay few");
    return NONE;
}

static void say(Sim *sim, Node *node, Message message) {
    if (node->conn != NONE)
        post(sim, &sim->conns[node->conn], true, message);
}

/* The worker's end. quiet: nobody tells the coordinator. */
static void hang_up(Sim *sim, Node *node, bool quiet) {
    if (node->conn == NONE)
        return;
    Conn *conn = &sim->conns[node->conn];
    if (!quiet && conn->far)
        post(sim, conn, true, (Message){.kind = CLOSED});
    conn->near = false;
    node->conn = NONE;
    release(conn);
}

#endif
