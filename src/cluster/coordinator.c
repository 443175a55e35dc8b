/* SPDX-License-Identifier: Apache-2.0 */
#include "cluster/coordinator.h"

#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "base/memory.h"
#include "cluster/state.h"

bool shoal_cluster_is_over(const ShoalCluster *cluster) {
    return cluster->phase == SHOAL_CLUSTER_DONE || cluster->phase == SHOAL_CLUSTER_FAILED;
}

bool shoal_cluster_is_running(const ShoalCluster *cluster) {
    return cluster->phase == SHOAL_CLUSTER_RUNNING || cluster->phase == SHOAL_CLUSTER_DRAINING;
}

bool shoal_cluster_is_active(const ShoalCluster *cluster) {
    return cluster->phase == SHOAL_CLUSTER_FORMING || shoal_cluster_is_running(cluster);
}

uint64_t shoal_cluster_after(uint64_t from_ms, uint64_t timeout_ms) {
    return timeout_ms == 0 || from_ms > UINT64_MAX - timeout_ms ? UINT64_MAX : from_ms + timeout_ms;
}

void shoal_cluster_copy_text(char *out, size_t size, const char *text) {
    size_t i = 0;
    for (; text && text[i] && i + 1 < size; i++) {
        unsigned char c = (unsigned char)text[i];
        out[i] = c < 32 || c == 127 ? '?' : text[i];
    }
    out[i] = '\0';
}

/* --- life ---------------------------------------------------------------------------------- */

static ShoalStatus check_config(const ShoalClusterConfig *config, ShoalError *err) {
    if (config->expected < 1 || config->expected > SHOAL_CLUSTER_MAX_WORKERS)
        return shoal_error_set(err, SHOAL_ERR_ARGUMENT, "%u workers; expected 1 to %d",
                               config->expected, SHOAL_CLUSTER_MAX_WORKERS);
    if (config->min_workers < 1 || config->min_workers > config->expected)
        return shoal_error_set(err, SHOAL_ERR_ARGUMENT,
                               "no fewer than %u workers; expected 1 to %u, as many as are "
                               "waited for",
                               config->min_workers, config->expected);
    if (config->max_workers < config->expected || config->max_workers > SHOAL_CLUSTER_MAX_WORKERS)
        return shoal_error_set(err, SHOAL_ERR_ARGUMENT,
                               "no more than %u workers; expected %u, as many as are waited for, "
                               "to %d",
                               config->max_workers, config->expected, SHOAL_CLUSTER_MAX_WORKERS);
    if (config->window < 1 || config->window > SHOAL_CLUSTER_MAX_WINDOW)
        return shoal_error_set(err, SHOAL_ERR_ARGUMENT, "a window of %u rounds; expected 1 to %d",
                               config->window, SHOAL_CLUSTER_MAX_WINDOW);
    if (config->heartbeat_timeout_ms == 0)
        return shoal_error_set(err, SHOAL_ERR_ARGUMENT,
                               "a heartbeat timeout of 0 ms; expected more");
    return SHOAL_OK;
}

ShoalStatus shoal_cluster_create(const ShoalClusterConfig *config, ShoalCluster **out,
                                 ShoalError *err) {
    ShoalStatus status = check_config(config, err);
    if (status)
        return status;
    ShoalCluster *cluster = shoal_calloc(1, sizeof(*cluster));
    if (!cluster)
        return shoal_error_memory(err, "the cluster", sizeof(*cluster));
    size_t n = config->max_workers;
    cluster->config = *config;
    cluster->base = config->seed_updates;
    /* One tick can lose and drop every worker; twice that, for callers that read a little late. */
    cluster->queue_limit = 4 * n + 4u * SHOAL_CLUSTER_MAX_WINDOW;
    cluster->queue_capacity = 2u * config->window + 16u;
    cluster->workers = shoal_calloc(n, sizeof(cluster->workers[0]));
    cluster->infos = shoal_calloc(n, sizeof(cluster->infos[0]));
    cluster->members = shoal_calloc(n, sizeof(cluster->members[0]));
    cluster->order = shoal_calloc(n, sizeof(cluster->order[0]));
    cluster->queue = shoal_calloc(cluster->queue_capacity, sizeof(cluster->queue[0]));
    if (!cluster->workers || !cluster->infos || !cluster->members || !cluster->order ||
        !cluster->queue || !shoal_cluster_plan_reserve(cluster, 2u * config->window)) {
        shoal_cluster_destroy(cluster);
        return shoal_error_memory(err, "the cluster's members", n * 512ull);
    }
    *out = cluster;
    return SHOAL_OK;
}

void shoal_cluster_destroy(ShoalCluster *cluster) {
    if (!cluster)
        return;
    shoal_failures_close(&cluster->failures);
    shoal_failures_close(&cluster->obstacles);
    shoal_free(cluster->plans);
    shoal_free(cluster->queue);
    shoal_free(cluster->order);
    shoal_free(cluster->members);
    shoal_free(cluster->infos);
    shoal_free(cluster->workers);
    shoal_free(cluster);
}

/* --- what follows from the state ------------------------------------------------------------ */

static void finish_when_drained(ShoalCluster *cluster) {
    if (cluster->closed && cluster->completed == cluster->added)
        shoal_cluster_end(cluster);
}

static void advance(ShoalCluster *cluster) {
    shoal_cluster_sweep(cluster);
    if (shoal_cluster_is_over(cluster))
        return;
    if (cluster->broken)
        shoal_cluster_regroup(cluster);
    if (cluster->phase == SHOAL_CLUSTER_WAITING && shoal_cluster_may_begin(cluster))
        shoal_cluster_form(cluster);
    if (cluster->phase == SHOAL_CLUSTER_FORMING && !cluster->waiting_for_blame &&
        cluster->n_ready == cluster->n_members)
        shoal_cluster_start(cluster);
    if (shoal_cluster_is_running(cluster)) {
        shoal_cluster_complete_rounds(cluster);
        shoal_cluster_issue_rounds(cluster);
        if (!cluster->waiting_for_blame && cluster->issued == cluster->completed &&
            shoal_cluster_holds_for_candidates(cluster))
            shoal_cluster_form(cluster);
    }
    if (!shoal_cluster_is_over(cluster))
        finish_when_drained(cluster);
}

/* --- time ---------------------------------------------------------------------------------- */

/* The caller was asleep, not the workers: whatever runs out while nobody looks begins anew. */
static void forgive_silence(ShoalCluster *cluster, uint64_t now_ms) {
    uint64_t gap = now_ms - cluster->now_ms;
    for (unsigned i = 0; i < cluster->n_workers; i++)
        cluster->workers[i].heard_ms = cluster->workers[i].progress_ms = now_ms;
    cluster->formed_ms = cluster->aborted_ms = now_ms;
    cluster->first_ms += gap;
    cluster->come_ms += gap;
}

static void note_time(ShoalCluster *cluster, uint64_t now_ms) {
    uint64_t timeout_ms = cluster->config.heartbeat_timeout_ms;
    if (!cluster->clocked) {
        cluster->clocked = true;
        cluster->now_ms = cluster->first_ms = cluster->come_ms = now_ms;
    }
    if (now_ms <= cluster->now_ms)
        return;
    if (now_ms - cluster->now_ms > timeout_ms / 2 &&
        now_ms > shoal_cluster_after(shoal_cluster_deadline_ms(cluster), timeout_ms / 4 + 1))
        forgive_silence(cluster, now_ms);
    cluster->now_ms = now_ms;
}

static ShoalClusterWorker *find_worker(ShoalCluster *cluster, uint64_t connection) {
    for (unsigned i = 0; i < cluster->n_workers; i++)
        if (cluster->workers[i].connection == connection)
            return &cluster->workers[i];
    return NULL;
}

/* The worker of a connection, with the time of this sign of life noted; NULL: none, or over. */
static ShoalClusterWorker *note_life(ShoalCluster *cluster, uint64_t now_ms, uint64_t connection) {
    note_time(cluster, now_ms);
    ShoalClusterWorker *worker =
        shoal_cluster_is_over(cluster) ? NULL : find_worker(cluster, connection);
    if (worker)
        worker->heard_ms = cluster->now_ms;
    return worker;
}

static void drop_silent(ShoalCluster *cluster) {
    char reason[96];
    uint64_t timeout_ms = cluster->config.heartbeat_timeout_ms;
    snprintf(reason, sizeof(reason), "no sign of life for %llu ms", (unsigned long long)timeout_ms);
    for (unsigned i = 0; i < cluster->n_workers; i++)
        if (cluster->now_ms >= shoal_cluster_after(cluster->workers[i].heard_ms, timeout_ms))
            shoal_cluster_lose_and_drop(cluster, &cluster->workers[i], SHOAL_ERR_LOST, "was lost",
                                        reason);
}

static void fail_join(ShoalCluster *cluster) {
    char text[160];
    snprintf(text, sizeof(text),
             "%u of %u workers were ready to begin within %llu ms; start the others, or ask for "
             "fewer",
             cluster->n_prepared, cluster->config.expected,
             (unsigned long long)cluster->config.join_timeout_ms);
    shoal_cluster_fail(cluster, SHOAL_ERR_NETWORK, text);
}

static uint64_t sooner(uint64_t a, uint64_t b) {
    return a < b ? a : b;
}

static uint64_t join_deadline(const ShoalCluster *cluster) {
    return shoal_cluster_after(cluster->first_ms, cluster->config.join_timeout_ms);
}

/* When the present phase comes to something by itself. */
static uint64_t phase_deadline(const ShoalCluster *cluster) {
    const ShoalClusterConfig *config = &cluster->config;
    if (cluster->phase == SHOAL_CLUSTER_WAITING) {
        if (!cluster->clocked || cluster->first_generation > 0)
            return UINT64_MAX;
        bool enough = cluster->n_prepared >= config->min_workers;
        uint64_t settled = shoal_cluster_after(cluster->come_ms, config->settle_ms);
        return enough ? sooner(settled, join_deadline(cluster)) : join_deadline(cluster);
    }
    /* While the blame for a broken ring is open, nobody is slow: all wait. */
    if (shoal_cluster_is_active(cluster) && cluster->waiting_for_blame)
        return shoal_cluster_blame_deadline(cluster);
    if (cluster->phase == SHOAL_CLUSTER_FORMING)
        return shoal_cluster_after(cluster->formed_ms, config->form_timeout_ms);
    return sooner(shoal_cluster_stall_deadline(cluster), shoal_cluster_hold_deadline(cluster));
}

/* What is due now besides losses. */
static void act_on_time(ShoalCluster *cluster) {
    if (cluster->phase == SHOAL_CLUSTER_WAITING) {
        if (cluster->now_ms >= phase_deadline(cluster) && !shoal_cluster_may_begin(cluster))
            fail_join(cluster);
    } else if (cluster->waiting_for_blame) {
        if (cluster->now_ms >= shoal_cluster_blame_deadline(cluster))
            shoal_cluster_settle_blame(cluster);
    } else if (cluster->phase == SHOAL_CLUSTER_FORMING) {
        if (cluster->now_ms >= phase_deadline(cluster))
            shoal_cluster_lose_laggards(cluster);
    } else if (cluster->now_ms >= shoal_cluster_stall_deadline(cluster)) {
        shoal_cluster_end_stall(cluster);
    }
}

void shoal_cluster_tick(ShoalCluster *cluster, uint64_t now_ms) {
    note_time(cluster, now_ms);
    if (shoal_cluster_is_over(cluster))
        return;
    drop_silent(cluster);
    /* After a loss there is a new generation anyway. */
    if (!cluster->broken && !shoal_cluster_is_over(cluster))
        act_on_time(cluster);
    advance(cluster);
}

uint64_t shoal_cluster_deadline_ms(const ShoalCluster *cluster) {
    if (shoal_cluster_is_over(cluster))
        return UINT64_MAX;
    uint64_t heard_ms = UINT64_MAX;
    for (unsigned i = 0; i < cluster->n_workers; i++)
        heard_ms = sooner(heard_ms, cluster->workers[i].heard_ms);
    return sooner(phase_deadline(cluster),
                  shoal_cluster_after(heard_ms, cluster->config.heartbeat_timeout_ms));
}

/* --- who comes and goes --------------------------------------------------------------------- */

static void refuse(ShoalCluster *cluster, uint64_t connection, bool for_good, const char *text) {
    shoal_cluster_push_drop(cluster, connection, for_good ? SHOAL_ERR_ARGUMENT : SHOAL_ERR_LOST,
                            for_good, false, text);
}

static bool refuse_quarantined(ShoalCluster *cluster, uint64_t connection, const char *name,
                               const char *address) {
    char text[256];
    unsigned most = cluster->config.max_failures;
    uint64_t wait_ms = shoal_failures_pause(
        &cluster->obstacles, shoal_failures_identity(name, address), cluster->now_ms);
    if (wait_ms > 0) {
        snprintf(text, sizeof(text),
                 "the others could not form a ring with it, or waited for it in vain; it may come "
                 "back in %llu s",
                 (unsigned long long)((wait_ms + 999) / 1000));
        refuse(cluster, connection, false, text);
        return true;
    }
    unsigned count =
        shoal_failures_count(&cluster->failures, shoal_failures_identity(name, address),
                             cluster->now_ms, most, &wait_ms);
    if (most == 0 || count <= most)
        return false;
    snprintf(text, sizeof(text),
             "in quarantine: it failed %u times within an hour, and the most is %u; it may come "
             "back in %llu s",
             count, most, (unsigned long long)((wait_ms + 999) / 1000));
    refuse(cluster, connection, false, text);
    return true;
}

static void clean_info(ShoalClusterInfo *out, const ShoalClusterInfo *info) {
    memset(out, 0, sizeof(*out));
    out->ring_port = info->ring_port;
    out->pid = info->pid;
    out->generation = info->generation;
    shoal_cluster_copy_text(out->address, sizeof(out->address), info->address);
    shoal_cluster_copy_text(out->name, sizeof(out->name), info->name);
}

/* Refuses who cannot be taken; else false. */
static bool refuse_join(ShoalCluster *cluster, uint64_t connection, const ShoalClusterInfo *info) {
    if (cluster->phase == SHOAL_CLUSTER_DONE)
        refuse(cluster, connection, true, "the training is finished");
    else if (cluster->phase == SHOAL_CLUSTER_FAILED)
        refuse(cluster, connection, true, "the training has failed");
    else if (info->generation > UINT64_MAX / 2)
        refuse(cluster, connection, true, "it speaks of a generation that cannot be");
    else if (cluster->n_workers == cluster->config.max_workers)
        refuse(cluster, connection, false,
               "the cluster is complete: no more workers are taken at present");
    else
        return refuse_quarantined(cluster, connection, info->name, info->address);
    return true;
}

static void admit(ShoalCluster *cluster, uint64_t connection, const ShoalClusterInfo *info) {
    unsigned i = cluster->n_workers++;
    cluster->infos[i] = *info;
    cluster->workers[i] = (ShoalClusterWorker){.connection = connection,
                                               .worker_id = cluster->next_worker_id++,
                                               .heard_ms = cluster->now_ms,
                                               .progress_ms = cluster->now_ms,
                                               .rank = -1,
                                               .blames = -1};
    if (cluster->heard_generation < info->generation)
        cluster->heard_generation = info->generation;
    cluster->come_ms = cluster->now_ms;
}

void shoal_cluster_join(ShoalCluster *cluster, uint64_t now_ms, uint64_t connection,
                        const ShoalClusterInfo *info) {
    ShoalClusterInfo clean;
    ShoalClusterWorker *worker = note_life(cluster, now_ms, connection);
    clean_info(&clean, info);
    if (worker)
        shoal_cluster_break_rules(cluster, worker, "joined twice over one connection");
    else if (!refuse_join(cluster, connection, &clean))
        admit(cluster, connection, &clean);
    advance(cluster);
}

void shoal_cluster_prepared(ShoalCluster *cluster, uint64_t now_ms, uint64_t connection) {
    ShoalClusterWorker *worker = note_life(cluster, now_ms, connection);
    if (!worker)
        return;
    if (worker->prepared) {
        shoal_cluster_break_rules(cluster, worker, "said twice that it is prepared");
    } else {
        /* Who waits longest is the first one that is not a member. */
        if (!shoal_cluster_is_active(cluster) || cluster->n_prepared == cluster->n_members)
            cluster->candidate_ms = cluster->now_ms;
        worker->prepared = true;
        cluster->n_prepared++;
        cluster->come_ms = cluster->now_ms;
    }
    advance(cluster);
}

void shoal_cluster_leave(ShoalCluster *cluster, uint64_t now_ms, uint64_t connection,
                         const char *reason) {
    ShoalClusterWorker *worker = note_life(cluster, now_ms, connection);
    if (!worker)
        return;
    shoal_cluster_lose(cluster, worker, "was lost", reason);
    advance(cluster);
}

void shoal_cluster_rest(ShoalCluster *cluster, uint64_t now_ms, uint64_t connection,
                        const char *reason) {
    ShoalClusterWorker *worker = note_life(cluster, now_ms, connection);
    if (!worker)
        return;
    shoal_cluster_let_rest(cluster, worker, reason);
    advance(cluster);
}

/* Would every other worker fail in the same way? */
static bool is_of_the_job(ShoalStatus status) {
    return status == SHOAL_ERR_MODEL || status == SHOAL_ERR_PARSE || status == SHOAL_ERR_DATA ||
           status == SHOAL_ERR_ARGUMENT;
}

void shoal_cluster_fault(ShoalCluster *cluster, uint64_t now_ms, uint64_t connection,
                         ShoalStatus status, const char *text) {
    ShoalClusterWorker *worker = note_life(cluster, now_ms, connection);
    if (!worker)
        return;
    if (status >= 0 || status < SHOAL_ERR_UNSUPPORTED)
        status = SHOAL_ERR_PROTOCOL;
    char who[SHOAL_CLUSTER_WHO], reason[SHOAL_CLUSTER_TEXT], all[1024];
    shoal_cluster_copy_text(reason, sizeof(reason), text);
    shoal_cluster_describe(cluster, worker, who);
    bool fatal = !worker->prepared && cluster->first_generation == 0 && is_of_the_job(status);
    shoal_cluster_lose_and_drop(cluster, worker, status, "failed", reason);
    if (fatal) {
        snprintf(all, sizeof(all), "%s cannot do this job: %s", who, reason);
        shoal_cluster_fail(cluster, status, all);
    }
    advance(cluster);
}

void shoal_cluster_diverged(ShoalCluster *cluster, uint64_t now_ms, uint64_t connection,
                            const char *text) {
    note_time(cluster, now_ms);
    ShoalClusterWorker *worker =
        shoal_cluster_is_over(cluster) ? NULL : find_worker(cluster, connection);
    if (!worker)
        return;
    shoal_cluster_push_drop(cluster, connection, SHOAL_ERR_DATA, false, true, text);
    shoal_cluster_lose(cluster, worker, "was dropped", text);
    advance(cluster);
}

/* --- what members say ----------------------------------------------------------------------- */

/* Is a message for `generation` to be looked at? Older ones are late; what a worker was never told
 * of is a lie. */
static bool is_current(ShoalCluster *cluster, ShoalClusterWorker *worker, uint64_t generation) {
    if (generation <= worker->member_of)
        return generation == cluster->generation && shoal_cluster_is_active(cluster);
    /* Before it was a member: of an earlier connection, perhaps. */
    if (generation < cluster->generation)
        return false;
    char reason[128];
    snprintf(reason, sizeof(reason), "spoke of generation %llu, which was never announced to it",
             (unsigned long long)generation);
    shoal_cluster_break_rules(cluster, worker, reason);
    return false;
}

void shoal_cluster_aborted(ShoalCluster *cluster, uint64_t now_ms, uint64_t connection,
                           uint64_t generation, int suspect_rank, const char *text) {
    ShoalClusterWorker *worker = note_life(cluster, now_ms, connection);
    if (!worker)
        return;
    if (is_current(cluster, worker, generation)) {
        shoal_cluster_note_abort(cluster, worker, suspect_rank, text);
        if (cluster->now_ms >= shoal_cluster_blame_deadline(cluster))
            shoal_cluster_settle_blame(cluster);
    }
    advance(cluster);
}

void shoal_cluster_heard(ShoalCluster *cluster, uint64_t now_ms, uint64_t connection) {
    note_life(cluster, now_ms, connection);
}

void shoal_cluster_progress(ShoalCluster *cluster, uint64_t now_ms, uint64_t connection,
                            ShoalClusterStage stage, uint64_t progress) {
    ShoalClusterWorker *worker = note_life(cluster, now_ms, connection);
    if (!worker || (worker->stage == stage && worker->progress == progress))
        return;
    if (worker->progress != progress)
        worker->got_on_ms = cluster->now_ms;
    worker->stage = stage;
    worker->progress = progress;
    worker->progress_ms = cluster->now_ms;
}

/* A state that was made in this generation, or later, cannot be. */
static void drop_impossible(ShoalCluster *cluster, ShoalClusterWorker *worker,
                            ShoalClusterVersion version) {
    char reason[160];
    snprintf(reason, sizeof(reason),
             "says that it holds a state of generation %llu, before generation %llu has begun",
             (unsigned long long)version.generation, (unsigned long long)cluster->generation);
    shoal_cluster_push_drop(cluster, worker->connection, SHOAL_ERR_PROTOCOL, false, true, reason);
    shoal_cluster_lose(cluster, worker, "broke the protocol", reason);
}

void shoal_cluster_ready(ShoalCluster *cluster, uint64_t now_ms, uint64_t connection,
                         uint64_t generation, ShoalClusterVersion version) {
    ShoalClusterWorker *worker = note_life(cluster, now_ms, connection);
    if (!worker)
        return;
    if (is_current(cluster, worker, generation)) {
        if (worker->ready) {
            shoal_cluster_break_rules(cluster, worker, "said twice that it is ready");
        } else if (version.held && version.generation >= generation) {
            drop_impossible(cluster, worker, version);
        } else {
            worker->ready = true;
            cluster->n_ready++;
            if (shoal_cluster_version_counts(cluster, version))
                cluster->members[worker->rank].version = version;
        }
    }
    advance(cluster);
}

void shoal_cluster_done(ShoalCluster *cluster, uint64_t now_ms, uint64_t connection,
                        uint64_t generation, uint64_t round) {
    ShoalClusterWorker *worker = note_life(cluster, now_ms, connection);
    if (!worker)
        return;
    if (is_current(cluster, worker, generation)) {
        if (!shoal_cluster_is_running(cluster) || round != worker->next ||
            round >= cluster->issued) {
            char reason[160];
            snprintf(reason, sizeof(reason),
                     "reported round %llu; expected round %llu (%llu rounds have been issued)",
                     (unsigned long long)round, (unsigned long long)worker->next,
                     (unsigned long long)cluster->issued);
            shoal_cluster_break_rules(cluster, worker, reason);
        } else {
            shoal_cluster_note_done(cluster, worker);
        }
    }
    advance(cluster);
}

/* --- rounds and views ---------------------------------------------------------------------- */

uint64_t shoal_cluster_add_round(ShoalCluster *cluster, uint64_t updates, bool alone) {
    uint64_t number = cluster->added;
    if (!cluster->closed && !shoal_cluster_is_over(cluster)) {
        shoal_cluster_plan_add(cluster, updates, alone);
        advance(cluster);
    }
    return number;
}

void shoal_cluster_finish(ShoalCluster *cluster) {
    cluster->closed = true;
    if (cluster->phase == SHOAL_CLUSTER_RUNNING)
        cluster->phase = SHOAL_CLUSTER_DRAINING;
    advance(cluster);
}

void shoal_cluster_seedable(ShoalCluster *cluster, uint64_t updates) {
    cluster->config.seed_updates = updates;
}

ShoalClusterPhase shoal_cluster_phase(const ShoalCluster *cluster) {
    return cluster->phase;
}

uint64_t shoal_cluster_generation(const ShoalCluster *cluster) {
    return cluster->generation;
}

uint64_t shoal_cluster_added(const ShoalCluster *cluster) {
    return cluster->added;
}

uint64_t shoal_cluster_issued(const ShoalCluster *cluster) {
    return cluster->issued;
}

uint64_t shoal_cluster_completed(const ShoalCluster *cluster) {
    return cluster->completed;
}

const ShoalClusterMember *shoal_cluster_members(const ShoalCluster *cluster, size_t *n) {
    *n = cluster->n_members;
    return cluster->members;
}

int shoal_cluster_rank(const ShoalCluster *cluster, uint64_t connection) {
    for (unsigned i = 0; i < cluster->n_members; i++)
        if (cluster->members[i].connection == connection)
            return (int)i;
    return -1;
}

unsigned shoal_cluster_joined(const ShoalCluster *cluster) {
    return cluster->n_workers - cluster->n_gone;
}

unsigned shoal_cluster_prepared_count(const ShoalCluster *cluster) {
    return cluster->n_prepared;
}
