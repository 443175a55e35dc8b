/* SPDX-License-Identifier: Apache-2.0 */
#include "cluster/state.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>

#define SUSPICION_MS 60000u /* a neighbour's suspicion is remembered for so long */
#define NOBODY UINT_MAX

static const ShoalClusterInfo *info_of(const ShoalCluster *cluster,
                                       const ShoalClusterWorker *worker) {
    return &cluster->infos[worker - cluster->workers];
}

void shoal_cluster_describe(const ShoalCluster *cluster, const ShoalClusterWorker *worker,
                            char *text) {
    const ShoalClusterInfo *info = info_of(cluster, worker);
    snprintf(text, SHOAL_CLUSTER_WHO, "worker %u (%s%s%s, pid %lld)", worker->worker_id, info->name,
             info->name[0] ? " at " : "", info->address, (long long)info->pid);
}

/* --- losses -------------------------------------------------------------------------------- */

static void describe_progress(const ShoalCluster *cluster, char *text, size_t size) {
    if (cluster->phase == SHOAL_CLUSTER_WAITING)
        snprintf(text, size, "while the cluster waited for workers");
    else if (cluster->phase == SHOAL_CLUSTER_FORMING)
        snprintf(text, size, "while the ring was being formed");
    else if (cluster->completed < cluster->issued)
        snprintf(text, size, "in round %llu", (unsigned long long)cluster->completed);
    else
        snprintf(text, size, "before round %llu", (unsigned long long)cluster->completed);
}

static void push_lost(ShoalCluster *cluster, const ShoalClusterWorker *worker, bool rests,
                      const char *verb, const char *reason) {
    char who[SHOAL_CLUSTER_WHO], when[64], text[1024];
    shoal_cluster_describe(cluster, worker, who);
    describe_progress(cluster, when, sizeof(when));
    snprintf(text, sizeof(text), "%s %s %s: %s", who, verb, when, reason ? reason : "");
    ShoalClusterAction *action = shoal_cluster_push(cluster, SHOAL_CLUSTER_LOST);
    if (!action)
        return;
    action->connection = worker->connection;
    action->worker_id = worker->worker_id;
    action->rests = rests;
    shoal_cluster_copy_text(action->text, sizeof(action->text), text);
}

static void remove_worker(ShoalCluster *cluster, ShoalClusterWorker *worker, bool rests,
                          const char *verb, const char *reason) {
    worker->gone = true;
    cluster->n_gone++;
    cluster->n_prepared -= worker->prepared;
    if (worker->member_of > 0)
        push_lost(cluster, worker, rests, verb, reason);
    if (worker->rank >= 0 && shoal_cluster_is_active(cluster))
        cluster->broken = true;
}

void shoal_cluster_let_rest(ShoalCluster *cluster, ShoalClusterWorker *worker, const char *reason) {
    if (!worker->gone && !shoal_cluster_is_over(cluster))
        remove_worker(cluster, worker, true, "rests", reason);
}

void shoal_cluster_lose(ShoalCluster *cluster, ShoalClusterWorker *worker, const char *verb,
                        const char *reason) {
    if (worker->gone || shoal_cluster_is_over(cluster))
        return;
    const ShoalClusterInfo *info = info_of(cluster, worker);
    if (cluster->config.max_failures > 0 &&
        !shoal_failures_note(&cluster->failures, shoal_failures_identity(info->name, info->address),
                             cluster->now_ms))
        shoal_cluster_fail(cluster, SHOAL_ERR_MEMORY, "out of memory for the log of failures");
    remove_worker(cluster, worker, false, verb, reason);
}

void shoal_cluster_lose_and_drop(ShoalCluster *cluster, ShoalClusterWorker *worker,
                                 ShoalStatus status, const char *verb, const char *reason) {
    shoal_cluster_push_drop(cluster, worker->connection, status, false, false, reason);
    shoal_cluster_lose(cluster, worker, verb, reason);
}

void shoal_cluster_break_rules(ShoalCluster *cluster, ShoalClusterWorker *worker,
                               const char *reason) {
    shoal_cluster_lose_and_drop(cluster, worker, SHOAL_ERR_PROTOCOL, "broke the protocol", reason);
}

void shoal_cluster_sweep(ShoalCluster *cluster) {
    if (cluster->n_gone == 0)
        return;
    unsigned kept = 0;
    for (unsigned i = 0; i < cluster->n_workers; i++) {
        if (cluster->workers[i].gone)
            continue;
        if (kept != i) {
            cluster->workers[kept] = cluster->workers[i];
            cluster->infos[kept] = cluster->infos[i];
        }
        kept++;
    }
    cluster->n_workers = kept;
    cluster->n_gone = 0;
}

/* Only where the caller gave an input before it had read all that came of the one before. */
static void forget_unread(ShoalCluster *cluster) {
    if (shoal_cluster_forget_plans(cluster))
        cluster->astray = true;
}

static void pause_run(ShoalCluster *cluster) {
    char text[160];
    forget_unread(cluster);
    cluster->phase = SHOAL_CLUSTER_WAITING;
    snprintf(text, sizeof(text),
             "%u worker%s left, which is fewer than %u: the training waits for others to come",
             cluster->n_prepared, cluster->n_prepared == 1 ? " is" : "s are",
             cluster->config.min_workers);
    shoal_cluster_push_text(cluster, SHOAL_CLUSTER_PAUSE, text);
}

void shoal_cluster_regroup(ShoalCluster *cluster) {
    cluster->broken = cluster->waiting_for_blame = false;
    if (cluster->n_prepared >= cluster->config.min_workers)
        shoal_cluster_form(cluster);
    else
        pause_run(cluster);
}

/* --- forming ------------------------------------------------------------------------------- */

/* order[rank] = index of the worker; NOBODY where it is lost. */
static void map_ranks(ShoalCluster *cluster) {
    for (unsigned r = 0; r < cluster->n_members; r++)
        cluster->order[r] = NOBODY;
    for (unsigned i = 0; i < cluster->n_workers; i++)
        if (cluster->workers[i].rank >= 0 && !cluster->workers[i].gone)
            cluster->order[cluster->workers[i].rank] = i;
}

/* Who was a member before comes first, in the old order. */
static unsigned line_up(ShoalCluster *cluster) {
    unsigned n = 0;
    map_ranks(cluster);
    for (unsigned r = 0; r < cluster->n_members; r++)
        if (cluster->order[r] != NOBODY)
            cluster->order[n++] = cluster->order[r];
    for (unsigned i = 0; i < cluster->n_workers; i++)
        if (cluster->workers[i].prepared && cluster->workers[i].rank < 0)
            cluster->order[n++] = i;
    return n;
}

static bool is_suspected(const ShoalClusterWorker *worker, uint64_t at_ms) {
    return worker->suspected_by > 0 && at_ms - worker->suspected_ms <= SUSPICION_MS;
}

static bool at_odds(const ShoalCluster *cluster, unsigned i, unsigned j) {
    const ShoalClusterWorker *a = &cluster->workers[i], *b = &cluster->workers[j];
    return (is_suspected(a, cluster->now_ms) && a->suspected_by == b->worker_id + 1) ||
           (is_suspected(b, cluster->now_ms) && b->suspected_by == a->worker_id + 1);
}

/* Two that lost each other get someone between them: ..a b c d.. becomes ..a c b d... Several such
 * pairs may come back together by that, hence the second pass; what is left then is left to the
 * rule that a worker goes that is suspected twice. */
static void separate(ShoalCluster *cluster, unsigned n) {
    bool moved = n >= 4;
    for (int pass = 0; pass < 2 && moved; pass++) {
        moved = false;
        for (unsigned i = 0; i < n; i++) {
            unsigned j = (i + 1) % n, k = (i + 2) % n;
            if (!at_odds(cluster, cluster->order[i], cluster->order[j]))
                continue;
            unsigned swapped = cluster->order[j];
            cluster->order[j] = cluster->order[k];
            cluster->order[k] = swapped;
            moved = true;
        }
    }
}

static void enlist(ShoalCluster *cluster, unsigned n) {
    for (unsigned r = 0; r < n; r++) {
        ShoalClusterWorker *worker = &cluster->workers[cluster->order[r]];
        worker->rank = (int)r;
        worker->member_of = cluster->generation;
        worker->ready = worker->aborted = false;
        worker->blames = -1;
        cluster->members[r] = (ShoalClusterMember){.connection = worker->connection,
                                                   .worker_id = worker->worker_id,
                                                   .info = *info_of(cluster, worker)};
    }
    cluster->n_members = n;
    cluster->n_ready = cluster->n_aborted = 0;
}

static uint64_t next_generation(const ShoalCluster *cluster) {
    uint64_t next = cluster->generation + 1;
    if (next < cluster->config.first_generation)
        next = cluster->config.first_generation;
    return next > cluster->heard_generation ? next : cluster->heard_generation + 1;
}

void shoal_cluster_form(ShoalCluster *cluster) {
    shoal_cluster_sweep(cluster);
    forget_unread(cluster);
    cluster->phase = SHOAL_CLUSTER_FORMING;
    cluster->waiting_for_blame = false;
    cluster->formed_ms = cluster->now_ms;
    cluster->generation = next_generation(cluster);
    if (cluster->first_generation == 0)
        cluster->first_generation = cluster->generation;
    unsigned n = line_up(cluster);
    separate(cluster, n);
    enlist(cluster, n);
    shoal_cluster_push(cluster, SHOAL_CLUSTER_FORM);
}

bool shoal_cluster_may_begin(const ShoalCluster *cluster) {
    const ShoalClusterConfig *config = &cluster->config;
    if (cluster->n_prepared >= config->expected)
        return true;
    if (cluster->n_prepared < config->min_workers)
        return false;
    if (cluster->first_generation > 0)
        return true;
    return config->settle_ms > 0 &&
           (cluster->now_ms >= shoal_cluster_after(cluster->come_ms, config->settle_ms) ||
            cluster->now_ms >= shoal_cluster_after(cluster->first_ms, config->join_timeout_ms));
}

/* --- blame --------------------------------------------------------------------------------- */

/* When a ring breaks at one place its members give up one after the other, and each blames the
 * neighbour that gave up before it, or that it lost. So whoever stands at the end of a chain of
 * blame is suspect; two who blame each other have lost their connection. */

void shoal_cluster_note_abort(ShoalCluster *cluster, ShoalClusterWorker *worker, int suspect_rank,
                              const char *text) {
    if (worker->aborted)
        return;
    worker->aborted = true;
    if (suspect_rank >= 0 && (unsigned)suspect_rank < cluster->n_members &&
        suspect_rank != worker->rank)
        worker->blames = suspect_rank;
    cluster->n_aborted++;
    if (!cluster->waiting_for_blame) {
        cluster->waiting_for_blame = true;
        cluster->aborted_ms = cluster->now_ms;
        cluster->first_blaming = -1;
        shoal_cluster_copy_text(cluster->abort_text, sizeof(cluster->abort_text), text);
    }
    if (cluster->first_blaming < 0 && worker->blames >= 0)
        cluster->first_blaming = worker->rank;
}

/* When all have said that their ring broke, all live, and there is no one to wait for. But a ring
 * that breaks again and again is not made anew without any pause. */
uint64_t shoal_cluster_blame_deadline(const ShoalCluster *cluster) {
    uint64_t timeout_ms = cluster->config.heartbeat_timeout_ms;
    if (cluster->n_aborted < cluster->n_members)
        return shoal_cluster_after(cluster->aborted_ms, timeout_ms);
    return cluster->remade ? shoal_cluster_after(cluster->remade_ms, timeout_ms)
                           : cluster->aborted_ms;
}

static ShoalClusterWorker *blamed_by(ShoalCluster *cluster, const ShoalClusterWorker *worker) {
    unsigned i = worker->blames < 0 ? NOBODY : cluster->order[worker->blames];
    return i == NOBODY ? NULL : &cluster->workers[i];
}

/* *suspect NULL: nobody knows. */
static void find_suspect(ShoalCluster *cluster, ShoalClusterWorker **by,
                         ShoalClusterWorker **suspect) {
    *by = *suspect = NULL;
    if (cluster->first_blaming < 0)
        return;
    map_ranks(cluster);
    *by = &cluster->workers[cluster->order[cluster->first_blaming]];
    *suspect = blamed_by(cluster, *by);
    for (unsigned i = 0; *suspect && i < cluster->n_members; i++) {
        ShoalClusterWorker *next = blamed_by(cluster, *suspect);
        if (!next || next == *by)
            return;
        *by = *suspect;
        *suspect = next;
    }
}

static void suspect_worker(const ShoalCluster *cluster, ShoalClusterWorker *worker,
                           const ShoalClusterWorker *by) {
    worker->suspected_ms = cluster->aborted_ms;
    worker->suspected_by = by->worker_id + 1;
}

static void lose_suspect(ShoalCluster *cluster, ShoalClusterWorker *worker) {
    char reason[SHOAL_CLUSTER_TEXT];
    snprintf(reason, sizeof(reason),
             "neighbours in the ring lost their connection to it twice within a minute (%.256s)",
             cluster->abort_text);
    shoal_cluster_lose_obstacle(cluster, worker, "was lost", reason);
}

/* Of two that lost each other again, the one that has not done a round yet, since the other may
 * hold the newest state; else the one that someone else has lost before; when it is the same pair
 * again, the one that came later. */
static ShoalClusterWorker *choose_suspect(const ShoalCluster *cluster, ShoalClusterWorker *a,
                                          ShoalClusterWorker *b) {
    bool again_a = is_suspected(a, cluster->aborted_ms);
    bool again_b = is_suspected(b, cluster->aborted_ms);
    if ((again_a || again_b) && a->proven != b->proven)
        return a->proven ? b : a;
    if (!again_a || !again_b)
        return again_a ? a : again_b ? b : NULL;
    bool other_a = a->suspected_by != b->worker_id + 1;
    bool other_b = b->suspected_by != a->worker_id + 1;
    if (other_a != other_b)
        return other_a ? a : b;
    return a->worker_id > b->worker_id ? a : b;
}

void shoal_cluster_settle_blame(ShoalCluster *cluster) {
    ShoalClusterWorker *by, *suspect, *lost = NULL;
    find_suspect(cluster, &by, &suspect);
    cluster->waiting_for_blame = false;
    cluster->remade = true;
    cluster->remade_ms = cluster->now_ms;
    if (suspect) {
        bool mutual = blamed_by(cluster, suspect) == by;
        if (mutual)
            lost = choose_suspect(cluster, suspect, by);
        else if (is_suspected(suspect, cluster->aborted_ms))
            lost = suspect->proven && !by->proven ? by : suspect;
        suspect_worker(cluster, suspect, by);
        if (mutual)
            suspect_worker(cluster, by, suspect);
    }
    if (lost)
        lose_suspect(cluster, lost); /* and then regroup */
    else
        shoal_cluster_form(cluster);
}

/* --- laggards ------------------------------------------------------------------------------ */

/* A member that hangs keeps both its neighbours from being ready, so it is one whose neighbours
 * both are not. */
static bool hangs(const ShoalCluster *cluster, unsigned rank) {
    unsigned n = cluster->n_members;
    const unsigned ranks[] = {rank, (rank + 1) % n, (rank + n - 1) % n};
    for (int i = 0; i < 3; i++)
        if (cluster->workers[cluster->order[ranks[i]]].ready)
            return false;
    return true;
}

static void lose_laggard(ShoalCluster *cluster, ShoalClusterWorker *worker) {
    char reason[96];
    snprintf(reason, sizeof(reason), "%s after %llu ms",
             worker->ready ? "no ring with it" : "not ready",
             (unsigned long long)cluster->config.form_timeout_ms);
    shoal_cluster_lose_obstacle(cluster, worker, "took too long", reason);
}

void shoal_cluster_lose_obstacle(ShoalCluster *cluster, ShoalClusterWorker *worker,
                                 const char *verb, const char *reason) {
    const ShoalClusterInfo *info = &cluster->infos[worker - cluster->workers];
    (void)shoal_failures_note(&cluster->obstacles,
                              shoal_failures_identity(info->name, info->address), cluster->now_ms);
    shoal_cluster_lose_and_drop(cluster, worker, SHOAL_ERR_LOST, verb, reason);
}

ShoalClusterWorker *shoal_cluster_last_unproven(ShoalCluster *cluster) {
    ShoalClusterWorker *last = NULL;
    bool any_proven = false;
    for (unsigned i = 0; i < cluster->n_workers; i++) {
        ShoalClusterWorker *worker = &cluster->workers[i];
        if (worker->rank < 0 || worker->gone)
            continue;
        any_proven = any_proven || worker->proven;
        if (!worker->proven && (!last || worker->worker_id > last->worker_id))
            last = worker;
    }
    return any_proven ? last : NULL;
}

/* It says that its ring is up, but neither of its neighbours does. */
static bool claims(const ShoalCluster *cluster, unsigned rank) {
    unsigned n = cluster->n_members;
    return n > 2 && cluster->workers[cluster->order[rank]].ready &&
           !cluster->workers[cluster->order[(rank + 1) % n]].ready &&
           !cluster->workers[cluster->order[(rank + n - 1) % n]].ready;
}

/* Where it cannot be told who hangs, one goes that has never done anything, whatever it says; else
 * who alone says that its ring is up; else the one that came last. Each time there is one less, so
 * this comes to an end, and who was innocent may come back. */
static ShoalClusterWorker *choose_laggard(ShoalCluster *cluster) {
    ShoalClusterWorker *claimer = NULL, *last = NULL,
                       *unproven = shoal_cluster_last_unproven(cluster);
    for (unsigned r = 0; r < cluster->n_members; r++) {
        ShoalClusterWorker *worker = &cluster->workers[cluster->order[r]];
        ShoalClusterWorker **best = claims(cluster, r) ? &claimer : worker->ready ? NULL : &last;
        if (best && (!*best || worker->worker_id > (*best)->worker_id))
            *best = worker;
    }
    return unproven ? unproven : claimer ? claimer : last;
}

/* It has not got on with anything since the generation was formed, whatever it says. */
static bool is_stuck(const ShoalCluster *cluster, unsigned rank) {
    return cluster->workers[cluster->order[rank]].got_on_ms < cluster->formed_ms;
}

void shoal_cluster_lose_laggards(ShoalCluster *cluster) {
    unsigned n_stuck = 0, n_hang = 0, n = cluster->n_members;
    map_ranks(cluster);
    for (unsigned r = 0; r < n; r++)
        n_stuck += is_stuck(cluster, r);
    if (n_stuck > 0 && n_stuck < n) {
        for (unsigned r = 0; r < n; r++)
            if (is_stuck(cluster, r))
                lose_laggard(cluster, &cluster->workers[cluster->order[r]]);
        return;
    }
    for (unsigned r = 0; r < n; r++)
        n_hang += hangs(cluster, r);
    if (n_hang == 0 || n_hang == n) {
        ShoalClusterWorker *worker = choose_laggard(cluster);
        if (worker)
            lose_laggard(cluster, worker);
        return;
    }
    for (unsigned r = 0; r < n; r++)
        if (hangs(cluster, r))
            lose_laggard(cluster, &cluster->workers[cluster->order[r]]);
}
