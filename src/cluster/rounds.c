/* SPDX-License-Identifier: Apache-2.0 */
#include "cluster/state.h"

#include <stdio.h>

#include "base/memory.h"

/* --- plans --------------------------------------------------------------------------------- */

static ShoalClusterPlan *plan_at(const ShoalCluster *cluster, uint64_t round) {
    return &cluster->plans[round % cluster->plan_capacity];
}

bool shoal_cluster_plan_reserve(ShoalCluster *cluster, uint64_t rounds) {
    if (rounds <= cluster->plan_capacity)
        return true;
    size_t capacity = cluster->plan_capacity ? cluster->plan_capacity * 2 : 64;
    while (capacity < rounds)
        capacity *= 2;
    ShoalClusterPlan *plans = shoal_calloc(capacity, sizeof(*plans));
    if (!plans)
        return false;
    for (uint64_t r = cluster->completed; r < cluster->added; r++)
        plans[r % capacity] = *plan_at(cluster, r);
    shoal_free(cluster->plans);
    cluster->plans = plans;
    cluster->plan_capacity = capacity;
    return true;
}

/* Updates that are done before a round, completed .. added. */
static uint64_t updates_before(const ShoalCluster *cluster, uint64_t round) {
    return round == cluster->completed ? cluster->base : plan_at(cluster, round - 1)->updates;
}

void shoal_cluster_plan_add(ShoalCluster *cluster, uint64_t updates, bool alone) {
    if (!shoal_cluster_plan_reserve(cluster, cluster->added - cluster->completed + 1)) {
        shoal_cluster_fail(cluster, SHOAL_ERR_MEMORY, "out of memory for the rounds to come");
        return;
    }
    uint64_t before = updates_before(cluster, cluster->added);
    if (updates < before)
        updates = before;
    *plan_at(cluster, cluster->added++) =
        (ShoalClusterPlan){.updates = updates, .alone = alone, .part = !alone && updates == before};
}

/* --- where a generation begins -------------------------------------------------------------- */

int shoal_cluster_version_compare(ShoalClusterVersion a, ShoalClusterVersion b) {
    if (!a.held || !b.held)
        return (int)a.held - (int)b.held;
    if (a.updates != b.updates)
        return a.updates < b.updates ? -1 : 1;
    return (a.generation > b.generation) - (a.generation < b.generation);
}

/* Without `adopt` only states that were made here are gone on from: those of an earlier run are
 * older than the first generation, or have more updates than any state can have by now. */
bool shoal_cluster_version_counts(const ShoalCluster *cluster, ShoalClusterVersion version) {
    return version.held && (cluster->config.adopt ||
                            (cluster->started && version.generation >= cluster->first_generation &&
                             version.updates <= cluster->reached));
}

typedef struct Beginning {
    ShoalClusterVersion version;
    uint64_t round;
    bool seek, seed;
} Beginning;

static ShoalClusterVersion newest_version(const ShoalCluster *cluster) {
    ShoalClusterVersion newest = {0};
    for (unsigned r = 0; r < cluster->n_members; r++)
        if (shoal_cluster_version_compare(cluster->members[r].version, newest) > 0)
            newest = cluster->members[r].version;
    return newest;
}

/* The round that follows a state with so many updates; false when it follows none of the rounds
 * that are planned. A part of an iteration that is complete would have to be done anew, too. */
static bool find_round(const ShoalCluster *cluster, uint64_t updates, uint64_t *round) {
    if (updates == cluster->base) {
        *round = cluster->completed;
        return !cluster->part_completed;
    }
    uint64_t before = cluster->base;
    for (uint64_t r = cluster->completed; r < cluster->issued; r++) {
        uint64_t behind = plan_at(cluster, r)->updates;
        if (behind != before && behind == updates) {
            *round = r + 1;
            return true;
        }
        before = behind;
    }
    return false;
}

static Beginning find_beginning(const ShoalCluster *cluster) {
    Beginning begin = {.version = newest_version(cluster), .round = cluster->completed};
    uint64_t seed = cluster->config.seed_updates, updates = begin.version.updates;
    bool adopts_any = !cluster->started && cluster->config.adopt && cluster->config.adopt_any;
    begin.seed = !begin.version.held || (updates < seed && updates < cluster->base && !adopts_any);
    if (begin.seed) {
        begin.version =
            (ShoalClusterVersion){.held = true, .updates = seed, .generation = cluster->generation};
        begin.seek = true;
    } else {
        begin.seek =
            !cluster->started || cluster->astray || !find_round(cluster, updates, &begin.round);
    }
    return begin;
}

/* A needy member is only known to hold the state when it reports a round that follows; until then
 * the rounds before are not complete: the state could still be lost. */
static void place_members(ShoalCluster *cluster, const Beginning *begin) {
    for (unsigned r = 0; r < cluster->n_members; r++) {
        ShoalClusterMember *member = &cluster->members[r];
        member->needy = begin->seed
                            ? r > 0
                            : shoal_cluster_version_compare(member->version, begin->version) != 0;
    }
    for (unsigned i = 0; i < cluster->n_workers; i++) {
        ShoalClusterWorker *worker = &cluster->workers[i];
        if (worker->rank < 0)
            continue;
        worker->next = begin->round;
        worker->done = cluster->members[worker->rank].needy ? cluster->completed : begin->round;
        worker->progress_ms = cluster->now_ms;
    }
}

static void count_behind(ShoalCluster *cluster) {
    cluster->n_behind = 0;
    for (unsigned i = 0; i < cluster->n_workers; i++)
        if (cluster->workers[i].rank >= 0 && cluster->workers[i].done <= cluster->completed)
            cluster->n_behind++;
}

void shoal_cluster_start(ShoalCluster *cluster) {
    Beginning begin = find_beginning(cluster);
    bool forgets = begin.round < cluster->added;
    ShoalClusterAction *action = shoal_cluster_push(cluster, SHOAL_CLUSTER_START);
    if (!action)
        return;
    action->round = begin.round;
    action->version = begin.version;
    action->seek = begin.seek;
    action->seed = begin.seed;
    action->rewind = forgets && !begin.seek;
    cluster->added = cluster->issued = cluster->start_round = begin.round;
    cluster->part_issued = false;
    if (begin.seek) {
        cluster->base = begin.version.updates;
        cluster->part_completed = false;
    }
    if (cluster->reached < begin.version.updates)
        cluster->reached = begin.version.updates;
    if (forgets || begin.seek)
        cluster->closed = false;
    cluster->started = true;
    cluster->astray = false;
    cluster->phase = cluster->closed ? SHOAL_CLUSTER_DRAINING : SHOAL_CLUSTER_RUNNING;
    place_members(cluster, &begin);
    count_behind(cluster);
}

/* --- complete ------------------------------------------------------------------------------ */

void shoal_cluster_note_done(ShoalCluster *cluster, ShoalClusterWorker *worker) {
    if (worker->done <= cluster->completed)
        cluster->n_behind--;
    worker->next++;
    worker->proven = true;
    worker->done = worker->next;
    worker->progress_ms = cluster->now_ms;
}

/* When nothing follows, no member can show that it has got the state, and none needs it. */
static void excuse_needy(ShoalCluster *cluster) {
    if (!cluster->closed || cluster->added > cluster->start_round ||
        cluster->completed == cluster->issued)
        return;
    for (unsigned i = 0; i < cluster->n_workers; i++)
        if (cluster->workers[i].rank >= 0)
            cluster->workers[i].done = cluster->issued;
    cluster->n_behind = 0;
}

void shoal_cluster_complete_rounds(ShoalCluster *cluster) {
    excuse_needy(cluster);
    while (cluster->completed < cluster->issued && cluster->n_behind == 0) {
        const ShoalClusterPlan *plan = plan_at(cluster, cluster->completed);
        ShoalClusterAction *action = shoal_cluster_push(cluster, SHOAL_CLUSTER_COMPLETE);
        if (!action)
            return;
        action->round = cluster->completed;
        cluster->base = plan->updates;
        cluster->stalls = 0;
        cluster->part_completed = plan->part;
        cluster->completed++;
        count_behind(cluster);
    }
}

/* --- candidates ---------------------------------------------------------------------------- */

/* A generation does at least one round of its own before it is ended for others: however often
 * workers come, the training goes on. */
static bool has_candidates(const ShoalCluster *cluster) {
    return cluster->phase == SHOAL_CLUSTER_RUNNING && cluster->n_prepared > cluster->n_members &&
           cluster->completed > cluster->start_round;
}

static uint64_t hold_end(const ShoalCluster *cluster) {
    return cluster->candidate_ms > UINT64_MAX - cluster->config.join_hold_ms
               ? UINT64_MAX
               : cluster->candidate_ms + cluster->config.join_hold_ms;
}

static bool candidates_are_due(const ShoalCluster *cluster) {
    return has_candidates(cluster) && cluster->now_ms >= hold_end(cluster);
}

/* An iteration of several rounds is ended first: its first part would be lost. */
bool shoal_cluster_holds_for_candidates(const ShoalCluster *cluster) {
    return candidates_are_due(cluster) && !cluster->part_issued;
}

uint64_t shoal_cluster_hold_deadline(const ShoalCluster *cluster) {
    return has_candidates(cluster) && !candidates_are_due(cluster) ? hold_end(cluster) : UINT64_MAX;
}

/* --- issue --------------------------------------------------------------------------------- */

/* Rounds before this one need no more waiting: complete, or behind the state of the START. */
static uint64_t settled_round(const ShoalCluster *cluster) {
    return cluster->completed > cluster->start_round ? cluster->completed : cluster->start_round;
}

/* Rounds that are alone may follow each other, since none of them moves a state; between them and
 * others all must be complete. */
static bool goes_with_the_last(const ShoalCluster *cluster) {
    return plan_at(cluster, cluster->issued)->alone == plan_at(cluster, cluster->issued - 1)->alone;
}

static bool may_issue(const ShoalCluster *cluster) {
    uint64_t settled = settled_round(cluster);
    if (cluster->waiting_for_blame || cluster->issued == cluster->added ||
        cluster->issued - settled >= cluster->config.window ||
        shoal_cluster_holds_for_candidates(cluster))
        return false;
    return cluster->issued == settled || goes_with_the_last(cluster);
}

static void issue(ShoalCluster *cluster) {
    const ShoalClusterPlan *plan = plan_at(cluster, cluster->issued);
    ShoalClusterAction *action = shoal_cluster_push(cluster, SHOAL_CLUSTER_ISSUE);
    if (!action)
        return;
    action->round = cluster->issued;
    for (unsigned i = 0; i < cluster->n_workers; i++)
        if (cluster->workers[i].rank >= 0 && cluster->workers[i].next == cluster->issued)
            cluster->workers[i].progress_ms = cluster->now_ms; /* it had nothing to do before */
    cluster->part_issued = plan->part;
    if (cluster->reached < plan->updates)
        cluster->reached = plan->updates;
    cluster->issued++;
}

void shoal_cluster_issue_rounds(ShoalCluster *cluster) {
    while (!shoal_cluster_is_over(cluster) && may_issue(cluster))
        issue(cluster);
}

unsigned shoal_cluster_room(const ShoalCluster *cluster) {
    if (cluster->phase != SHOAL_CLUSTER_RUNNING || cluster->waiting_for_blame ||
        cluster->added > cluster->issued || shoal_cluster_holds_for_candidates(cluster))
        return 0;
    unsigned room = cluster->config.window - (unsigned)(cluster->issued - settled_round(cluster));
    /* The next one may be the last that is issued before candidates are let in. */
    return room > 1 && candidates_are_due(cluster) ? 1 : room;
}

/* --- stalls -------------------------------------------------------------------------------- */

static bool has_work(const ShoalCluster *cluster, const ShoalClusterWorker *worker) {
    return worker->rank >= 0 && !worker->gone && worker->next < cluster->issued;
}

/* Who computes must get on by itself. When nobody does, all wait for one another, and the last that
 * got on tells since when. */
uint64_t shoal_cluster_stall_deadline(const ShoalCluster *cluster) {
    uint64_t timeout_ms = cluster->config.stall_timeout_ms;
    if (timeout_ms == 0 || !shoal_cluster_is_running(cluster) || cluster->waiting_for_blame ||
        cluster->issued == cluster->completed)
        return UINT64_MAX;
    uint64_t first = UINT64_MAX, last = 0;
    for (unsigned i = 0; i < cluster->n_workers; i++) {
        const ShoalClusterWorker *worker = &cluster->workers[i];
        if (!has_work(cluster, worker))
            continue;
        uint64_t at = shoal_cluster_after(worker->progress_ms, timeout_ms);
        if (worker->stage == SHOAL_CLUSTER_COMPUTING && at < first)
            first = at;
        if (at > last)
            last = at;
    }
    return first != UINT64_MAX ? first : last > 0 ? last : UINT64_MAX;
}

void shoal_cluster_end_stall(ShoalCluster *cluster) {
    char reason[96];
    snprintf(reason, sizeof(reason), "it computes, but for %llu ms it has not got on",
             (unsigned long long)cluster->config.stall_timeout_ms);
    bool found = false;
    for (unsigned i = 0; i < cluster->n_workers; i++) {
        ShoalClusterWorker *worker = &cluster->workers[i];
        if (!has_work(cluster, worker) || worker->stage != SHOAL_CLUSTER_COMPUTING)
            continue;
        uint64_t end = shoal_cluster_after(worker->progress_ms, cluster->config.stall_timeout_ms);
        if (cluster->now_ms < end)
            continue;
        shoal_cluster_lose_and_drop(cluster, worker, SHOAL_ERR_LOST, "was lost", reason);
        found = true;
    }
    if (found)
        return;
    /* All wait for each other. A new ring may help, once; after that the others do without one that
     * has never done anything, or else the last. Who is alone waits for itself. */
    ShoalClusterWorker *worker = NULL;
    bool hopeless = cluster->n_members == 1 || cluster->stalls > 0;
    if (hopeless)
        worker = shoal_cluster_last_unproven(cluster);
    for (unsigned i = 0; hopeless && i < cluster->n_workers && !worker; i++)
        if (!cluster->workers[i].gone && cluster->workers[i].rank + 1 == (int)cluster->n_members)
            worker = &cluster->workers[i];
    cluster->stalls++;
    snprintf(reason, sizeof(reason), "all have waited for %llu ms",
             (unsigned long long)cluster->config.stall_timeout_ms);
    if (worker)
        shoal_cluster_lose_obstacle(cluster, worker, "was lost", reason);
    else
        shoal_cluster_form(cluster);
}
