/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>

#include "unit/cluster/simulator/coordinator.h"
#include "unit/cluster/simulator/worker.h"

/* The coordinator's core and up to eight worker cores, stepped by the millisecond from one seed,
 * over a model of what they run on: control connections with random delays, a ring whose operations
 * end at another time on every rank, replicas whose states are sums of all that went into them, a
 * planner that goes forward, back and elsewhere, and snapshots. Faults of every kind strike for a
 * while; then all is healed, and the run has to end. What must hold is checked whenever something
 * changes.
 *
 * SHOAL_SIM_SEED=N replays one schedule, SHOAL_SIM_TRACE=1 tells what happens in it,
 * SHOAL_SIM_SEEDS=N runs so many, SHOAL_TEST_BRIEF=1 few. */

#define DEFAULT_SEEDS 4000
#define BRIEF_SEEDS 400
/* Within which a run ends when nothing strikes any more: all are back, and then every round. */
#define CALM_MS 1500
#define ROUND_MS 60

/* --- faults ---------------------------------------------------------------------------------- */

static void crash(Sim *sim, Node *node) {
    hang_up(sim, node, false);
    leave_ring(sim, node);
    node->replica = (Replica){0};
    node->built = node->building = false;
    node->heard_generation = 0;
    node->frozen_until = node->hung_until = 0;
    node->connect_ms = sim->now_ms + 10 + below(sim, 300);
}

/* Illegal in every phase. */
static void lie(Sim *sim, Node *node) {
    Message message = {
        .kind = DONE, .generation = node->core.generation, .round = 100000 + below(sim, 1000)};
    switch (below(sim, 5)) {
    case 0:
        break;
    case 1:
        message.generation += 100000;
        break;
    case 2:
        message.kind = READY;
        message.generation += 100000;
        break;
    case 3:
        message.kind = JOIN;
        break;
    default:
        message.kind = ABORTED;
        message.generation += 1000000;
        message.rank = 1;
        break;
    }
    say(sim, node, message);
}

static void strike_node(Sim *sim, Fault fault, Node *node) {
    uint64_t now = sim->now_ms;
    Node *other = &sim->nodes[below(sim, sim->n)];
    unsigned a = index_of(sim, node), b = index_of(sim, other);
    switch (fault) {
    case FAULT_CRASH:
        crash(sim, node);
        break;
    case FAULT_RESET:
        lose_coordinator(sim, node, false);
        break;
    case FAULT_HALF_OPEN:
        lose_coordinator(sim, node, true);
        break;
    case FAULT_FREEZE:
        node->frozen_until = now + 20 + below(sim, 600);
        break;
    case FAULT_HANG:
        node->hung_until = now + 100 + below(sim, 1000);
        break;
    case FAULT_SLOW:
        node->slow_until = now + 100 + below(sim, 600);
        break;
    case FAULT_LINK:
        node->link_until = now + 20 + below(sim, 600);
        break;
    case FAULT_CUT:
        sim->cut_until[a][b] = sim->cut_until[b][a] = now + 20 + below(sim, 600);
        break;
    case FAULT_RING:
        notice(sim, node, NONE);
        break;
    case FAULT_LIE:
        lie(sim, node);
        break;
    case FAULT_SAYS:
        say(sim, node, (Message){.kind = FAILURE});
        crash(sim, node);
        break;
    default:
        if (node->replica.held && !node->dirty) {
            node->replica.bits ^= 1;
            node->replica.pure ^= 1;
            node->replica.tainted = true;
        }
        break;
    }
}

static void strike(Sim *sim) {
    if (sim->now_ms < sim->strike_ms || sim->now_ms >= sim->calm_ms || sim->finished)
        return;
    sim->strike_ms = sim->now_ms + 1 + below(sim, 2 * sim->strike_every);
    Fault fault = (Fault)below(sim, N_FAULTS);
    /* These two end everything else, so they are rare. */
    if ((fault == FAULT_COORDINATOR || fault == FAULT_SLEEP || fault == FAULT_DIVERGE) &&
        below(sim, 3) > 0)
        fault = FAULT_CRASH;
    unsigned victim = (unsigned)below(sim, sim->n);
    if (fault == FAULT_COORDINATOR) {
        if (!sim->cluster)
            return;
        TRACE(sim, "* coordinator");
        kill_coordinator(sim);
    } else if (fault == FAULT_SLEEP) {
        TRACE(sim, "* sleep");
        sim->asleep_until = sim->now_ms + 50 + below(sim, 900);
    } else {
        Node *node = &sim->nodes[victim];
        if (!node->up || node->frozen_until > sim->now_ms)
            return;
        TRACE(sim, "* %s of node %u", FAULT_NAMES[fault], victim);
        strike_node(sim, fault, node);
    }
    sim->n_faults[fault]++;
}

/* Nothing is broken any more. */
static void heal(Sim *sim) {
    TRACE(sim, "* calm");
    memset(sim->cut_until, 0, sizeof(sim->cut_until));
    sim->asleep_until = 0;
    for (unsigned i = 0; i < sim->n; i++) {
        Node *node = &sim->nodes[i];
        node->frozen_until = node->hung_until = node->slow_until = node->link_until = 0;
    }
}

/* --- one run --------------------------------------------------------------------------------- */

static void choose(Sim *sim) {
    ShoalClusterConfig *config = &sim->config;
    config->expected = 1 + (unsigned)below(sim, 6);
    sim->n = config->expected + (unsigned)below(sim, 3);
    config->min_workers = 1 + (unsigned)below(sim, config->expected);
    config->max_workers = MAX_MEMBERS;
    config->window = 1 + (unsigned)below(sim, 4);
    config->max_failures = below(sim, 2) ? 0 : 1000;
    config->heartbeat_timeout_ms = TIMEOUT_MS;
    config->stall_timeout_ms = below(sim, 2) ? 0 : 400;
    config->settle_ms = below(sim, 2) ? 0 : 50 + below(sim, 100);
    config->adopt_any = below(sim, 4) == 0;
    config->join_hold_ms = below(sim, 2) ? 0 : below(sim, 100);
    config->form_timeout_ms = below(sim, 4) ? 600 : 0;
    sim->updates = below(sim, MAX_UPDATES + 1);
    sim->passes = below(sim, 2) ? 1 : 1 + (unsigned)below(sim, 3);
    sim->test_every = 1 + (unsigned)below(sim, 10);
    sim->snapshot_every = 1 + (unsigned)below(sim, 12);
    sim->eager = below(sim, 4) == 0;
    sim->last_snapshot = below(sim, 2) == 0;
    sim->strike_every = 20 + (unsigned)below(sim, 200);
    sim->strike_ms = below(sim, 200);
    sim->calm_ms = 300 + below(sim, 1200);
}

static void start(Sim *sim, uint64_t seed, Sabotage sabotage) {
    for (unsigned i = 0; i < MAX_CONNS; i++)
        sim->conns[i].used = false;
    memset(sim->registry, 0, sizeof(sim->registry));
    memset(sim->nodes, 0, sizeof(sim->nodes));
    memset(sim->cut_until, 0, sizeof(sim->cut_until));
    memset(sim->n_faults, 0, sizeof(sim->n_faults));
    shoal_rng_init(&sim->rng, seed, SHOAL_RNG_TEST, 99);
    sim->seed = seed;
    sim->sabotage = sabotage;
    sim->now_ms = sim->last_generation = sim->asleep_until = sim->beat_ms = sim->end_ms = 0;
    sim->next_conn = 1;
    sim->n_rings = 0;
    sim->failed = sim->finished = false;
    sim->rewinds = sim->seeks = sim->seeds = sim->syncs = sim->kept = 0;
    sim->broken = NULL;
    sim->config = (ShoalClusterConfig){0};
    choose(sim);
    fill_truth(sim);
    sim->disk = (Replica){.held = true, .pure = sim->truth[0], .bits = 1};
    create_coordinator(sim, below(sim, 2) == 0);
    for (unsigned i = 0; i < sim->n; i++) {
        Node *node = &sim->nodes[i];
        node->up = true;
        node->conn = node->ring = NONE;
        node->connect_ms = below(sim, i < sim->config.expected ? 80 : 600);
    }
}

static void judge(Sim *sim) {
    check(sim, !sim->failed, "every fault is survived");
    check(sim, sim->finished, "every run ends");
    check(sim, sim->committed == sim->updates, "all updates complete");
    check(sim, !sim->last_snapshot || sim->disk.updates == sim->updates,
          "the last snapshot is of the end");
    check(sim, sim->disk.tainted || sim->disk.pure == sim->truth[sim->disk.updates],
          "the result is that of an undisturbed run");
}

static const char *run(Sim *sim, uint64_t seed, Sabotage sabotage) {
    start(sim, seed, sabotage);
    TRACE(sim, "%u nodes, %u expected, floor %u, window %u, %llu updates of %u passes", sim->n,
          sim->config.expected, sim->config.min_workers, sim->config.window,
          (unsigned long long)sim->updates, sim->passes);
    uint64_t limit = sim->calm_ms + CALM_MS + (sim->updates + 1) * (sim->passes + 2) * ROUND_MS;
    uint64_t end = limit;
    for (; sim->now_ms < end && !sim->broken; sim->now_ms++) {
        if (sim->now_ms == sim->calm_ms)
            heal(sim);
        strike(sim);
        step_coordinator(sim);
        for (unsigned i = 0; i < sim->n && !sim->broken; i++)
            step_node(sim, &sim->nodes[i]);
        /* A little beyond the end, for messages that are under way. */
        if ((sim->failed || sim->finished) && end == limit)
            end = sim->now_ms + 100;
    }
    if (!sim->broken)
        judge(sim);
    shoal_cluster_destroy(sim->cluster);
    sim->cluster = NULL;
    return sim->broken;
}

static Sim sim;

static uint64_t number_from(const char *name, uint64_t otherwise) {
    const char *text = getenv(name);
    return text ? strtoull(text, NULL, 10) : otherwise;
}

static uint64_t number_of_seeds(void) {
    uint64_t n = getenv("SHOAL_TEST_BRIEF") ? BRIEF_SEEDS : DEFAULT_SEEDS;
    return number_from("SHOAL_SIM_SEEDS", getenv("SHOAL_SIM_SEED") ? 1 : n);
}

static void test_seeds(void **state) {
    (void)state;
    uint64_t first = number_from("SHOAL_SIM_SEED", 0), n = number_of_seeds();
    unsigned rewinds = 0, seeks = 0, seeds = 0, syncs = 0, kept = 0, faults[N_FAULTS] = {0};
    uint64_t longest = 0;
    for (uint64_t seed = first; seed < first + n; seed++) {
        const char *broken = run(&sim, seed, SABOTAGE_NONE);
        if (broken) {
            print_message("SHOAL_SIM_SEED=%llu: broken at %llu ms: %s\n", (unsigned long long)seed,
                          (unsigned long long)sim.now_ms, broken);
            fail();
        }
        rewinds += sim.rewinds;
        seeks += sim.seeks;
        seeds += sim.seeds;
        syncs += sim.syncs;
        kept += sim.kept;
        for (int i = 0; i < N_FAULTS; i++)
            faults[i] += sim.n_faults[i];
        if (sim.end_ms > sim.calm_ms && sim.end_ms - sim.calm_ms > longest)
            longest = sim.end_ms - sim.calm_ms;
    }
    print_message(
        "%llu schedules: %u starts with a rewind, %u with a seek, %u with a seed, %u with "
        "needy members, %u behind incomplete rounds; at most %llu ms in peace\n",
        (unsigned long long)n, rewinds, seeks, seeds, syncs, kept, (unsigned long long)longest);
    if (n < BRIEF_SEEDS)
        return;
    /* The schedules must really have reached all this, else they test nothing. */
    assert_true(rewinds > n / 4 && seeks > n && seeds >= n && syncs > n && kept > n / 20);
    for (int i = 0; i < N_FAULTS; i++)
        assert_true(faults[i] > n / 50);
}

/* A simulator that finds nothing wrong with these could find nothing wrong with anything. */
static void test_sabotage_is_found(void **state) {
    (void)state;
    if (getenv("SHOAL_SIM_SEED"))
        return; /* one schedule is being looked at */
    for (int sabotage = 1; sabotage < N_SABOTAGES; sabotage++) {
        unsigned found = 0;
        for (uint64_t seed = 0; seed < 100; seed++)
            found += run(&sim, seed, (Sabotage)sabotage) != NULL;
        print_message("sabotage %d is found in %u of 100 schedules\n", sabotage, found);
        assert_true(found > 0);
    }
}

int main(void) {
    sim.trace = getenv("SHOAL_SIM_TRACE") != NULL;
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_seeds),
                                       cmocka_unit_test(test_sabotage_is_found)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
