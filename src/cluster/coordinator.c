/* SPDX-License-Identifier: Apache-2.0 */
#include "cluster/coordinator.h"

#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "base/memory.h"

/* What the coordinator knows of a member besides what the member said of itself. */
typedef struct State {
    uint64_t heard_ms;
    uint64_t done; /* rounds 0 .. done - 1 are done */
    bool ready;
} State;

struct ShoalCluster {
    ShoalClusterConfig config;
    ShoalClusterPhase phase;
    bool started;  /* an input with a time has come */
    bool closed;   /* finish was called */
    bool aborting; /* a ring broke; waiting for who is lost */
    uint64_t now_ms, started_ms, formed_ms, round_ms, abort_ms;
    uint64_t generation, added, issued, completed;
    unsigned n, next_worker_id;
    ShoalClusterMember *members; /* [expected], the first n in use */
    State *states;               /* [expected], likewise */
    ShoalClusterAction *queue;   /* [capacity], a ring */
    size_t capacity, head, count;
    bool has_last;           /* last is yet to be read */
    ShoalClusterAction last; /* FAIL or FINISHED: comes after the queue */
    char abort_text[SHOAL_CLUSTER_TEXT];
};

static bool is_over(const ShoalCluster *cluster) {
    return cluster->phase == SHOAL_CLUSTER_DONE || cluster->phase == SHOAL_CLUSTER_FAILED;
}

static bool is_running(const ShoalCluster *cluster) {
    return cluster->phase == SHOAL_CLUSTER_RUNNING || cluster->phase == SHOAL_CLUSTER_DRAINING;
}

/* Copies text of a peer for logs and terminals: no control characters, always ends. */
static void copy_text(char *out, size_t size, const char *text) {
    size_t i = 0;
    for (; text && text[i] && i + 1 < size; i++) {
        unsigned char c = (unsigned char)text[i];
        out[i] = c < 32 || c == 127 ? '?' : text[i];
    }
    out[i] = '\0';
}

/* --- actions ------------------------------------------------------------------------------- */

/* What has happened stays to be read, what was only planned does not. */
static void forget_plans(ShoalCluster *cluster) {
    size_t kept = 0;
    for (size_t i = 0; i < cluster->count; i++) {
        ShoalClusterAction *from = &cluster->queue[(cluster->head + i) % cluster->capacity];
        if (from->kind != SHOAL_CLUSTER_DROP && from->kind != SHOAL_CLUSTER_COMPLETE)
            continue;
        ShoalClusterAction *to = &cluster->queue[(cluster->head + kept++) % cluster->capacity];
        if (to != from)
            *to = *from;
    }
    cluster->count = kept;
}

static void fail(ShoalCluster *cluster, ShoalStatus status, const char *text) {
    if (is_over(cluster))
        return;
    forget_plans(cluster);
    cluster->phase = SHOAL_CLUSTER_FAILED;
    cluster->has_last = true;
    memset(&cluster->last, 0, sizeof(cluster->last));
    cluster->last.kind = SHOAL_CLUSTER_FAIL;
    cluster->last.generation = cluster->generation;
    cluster->last.status = status;
    copy_text(cluster->last.text, sizeof(cluster->last.text), text);
}

/* A new action at the end of the queue; NULL (and the run has failed) when it is full. */
static ShoalClusterAction *push(ShoalCluster *cluster, ShoalClusterActionKind kind) {
    if (cluster->count == cluster->capacity) {
        fail(cluster, SHOAL_ERR_ARGUMENT,
             "the actions of the cluster were not read after each input (an error in Shoal: please "
             "report it)");
        return NULL;
    }
    size_t at = (cluster->head + cluster->count++) % cluster->capacity;
    ShoalClusterAction *action = &cluster->queue[at];
    memset(action, 0, sizeof(*action));
    action->kind = kind;
    action->generation = cluster->generation;
    return action;
}

static void push_round(ShoalCluster *cluster, ShoalClusterActionKind kind, uint64_t round) {
    ShoalClusterAction *action = push(cluster, kind);
    if (action)
        action->round = round;
}

static void push_drop(ShoalCluster *cluster, uint64_t connection, ShoalStatus status,
                      const char *text) {
    ShoalClusterAction *action = push(cluster, SHOAL_CLUSTER_DROP);
    if (!action)
        return;
    action->connection = connection;
    action->status = status;
    copy_text(action->text, sizeof(action->text), text);
}

/* --- what follows from the state ------------------------------------------------------------ */

static void form(ShoalCluster *cluster) {
    cluster->phase = SHOAL_CLUSTER_FORMING;
    cluster->generation++;
    cluster->formed_ms = cluster->now_ms;
    for (unsigned i = 0; i < cluster->n; i++)
        cluster->states[i].ready = false;
    push(cluster, SHOAL_CLUSTER_FORM);
}

static void start_when_ready(ShoalCluster *cluster) {
    for (unsigned i = 0; i < cluster->n; i++)
        if (!cluster->states[i].ready)
            return;
    cluster->phase = cluster->closed ? SHOAL_CLUSTER_DRAINING : SHOAL_CLUSTER_RUNNING;
    push(cluster, SHOAL_CLUSTER_START);
}

static uint64_t done_by_all(const ShoalCluster *cluster) {
    uint64_t least = cluster->issued;
    for (unsigned i = 0; i < cluster->n; i++)
        if (cluster->states[i].done < least)
            least = cluster->states[i].done;
    return least;
}

static void complete_rounds(ShoalCluster *cluster) {
    uint64_t done = done_by_all(cluster);
    while (cluster->completed < done && !is_over(cluster)) {
        push_round(cluster, SHOAL_CLUSTER_COMPLETE, cluster->completed++);
        cluster->round_ms = cluster->now_ms;
    }
}

static void issue_rounds(ShoalCluster *cluster) {
    while (!cluster->aborting && !is_over(cluster) && cluster->issued < cluster->added &&
           cluster->issued - cluster->completed < cluster->config.window) {
        if (cluster->issued == cluster->completed)
            cluster->round_ms = cluster->now_ms;
        push_round(cluster, SHOAL_CLUSTER_ISSUE, cluster->issued++);
    }
}

static void finish_when_drained(ShoalCluster *cluster) {
    bool idle = cluster->phase == SHOAL_CLUSTER_WAITING || is_running(cluster);
    if (!cluster->closed || !idle || cluster->completed < cluster->added)
        return;
    cluster->phase = SHOAL_CLUSTER_DONE;
    cluster->has_last = true;
    memset(&cluster->last, 0, sizeof(cluster->last));
    cluster->last.kind = SHOAL_CLUSTER_FINISHED;
    cluster->last.generation = cluster->generation;
}

static void advance(ShoalCluster *cluster) {
    if (cluster->phase == SHOAL_CLUSTER_WAITING && cluster->n == cluster->config.expected)
        form(cluster);
    if (cluster->phase == SHOAL_CLUSTER_FORMING)
        start_when_ready(cluster);
    if (is_running(cluster)) {
        complete_rounds(cluster);
        issue_rounds(cluster);
    }
    finish_when_drained(cluster);
}

/* --- members ------------------------------------------------------------------------------- */

static void note_time(ShoalCluster *cluster, uint64_t now_ms) {
    if (now_ms > cluster->now_ms)
        cluster->now_ms = now_ms;
    if (!cluster->started) {
        cluster->started = true;
        cluster->started_ms = cluster->now_ms;
    }
}

/* The rank of a connection, with the time of this sign of life noted; -1: not a member, or over. */
static int note_life(ShoalCluster *cluster, uint64_t now_ms, uint64_t connection) {
    note_time(cluster, now_ms);
    int rank = is_over(cluster) ? -1 : shoal_cluster_rank(cluster, connection);
    if (rank >= 0)
        cluster->states[rank].heard_ms = cluster->now_ms;
    return rank;
}

static void forget_member(ShoalCluster *cluster, int rank) {
    size_t after = cluster->n - (unsigned)rank - 1;
    memmove(cluster->members + rank, cluster->members + rank + 1,
            after * sizeof(cluster->members[0]));
    memmove(cluster->states + rank, cluster->states + rank + 1, after * sizeof(cluster->states[0]));
    cluster->n--;
}

/* "worker 2 (phone-3 at 192.0.2.7, pid 77)" */
static void describe(const ShoalClusterMember *member, char *text, size_t size) {
    snprintf(text, size, "worker %u (%s%s%s, pid %lld)", member->worker_id, member->info.name,
             member->info.name[0] ? " at " : "", member->info.address, (long long)member->info.pid);
}

static void describe_progress(const ShoalCluster *cluster, char *text, size_t size) {
    if (cluster->phase == SHOAL_CLUSTER_FORMING)
        snprintf(text, size, "while the ring was being formed");
    else if (cluster->completed < cluster->issued)
        snprintf(text, size, "in round %llu", (unsigned long long)cluster->completed);
    else
        snprintf(text, size, "before round %llu", (unsigned long long)cluster->completed);
}

/* Takes a member out, for `reason`: forgotten while WAITING, else the end of the run. `verb` as in
 * "worker 2 (...) VERB in round 5: REASON". */
static void lose(ShoalCluster *cluster, int rank, ShoalStatus status, const char *verb,
                 const char *reason) {
    if (cluster->phase == SHOAL_CLUSTER_WAITING) {
        forget_member(cluster, rank);
        return;
    }
    char who[256], when[64], text[1024];
    describe(&cluster->members[rank], who, sizeof(who));
    describe_progress(cluster, when, sizeof(when));
    snprintf(text, sizeof(text), "%s %s %s: %s", who, verb, when, reason);
    fail(cluster, status, text);
}

static void lose_and_drop(ShoalCluster *cluster, int rank, ShoalStatus status, const char *verb,
                          const char *reason) {
    push_drop(cluster, cluster->members[rank].connection, status, reason);
    lose(cluster, rank, status, verb, reason);
}

static void break_rules(ShoalCluster *cluster, int rank, const char *reason) {
    lose_and_drop(cluster, rank, SHOAL_ERR_PROTOCOL, "broke the protocol", reason);
}

/* --- inputs -------------------------------------------------------------------------------- */

static ShoalStatus check_config(const ShoalClusterConfig *config, ShoalError *err) {
    if (config->expected < 1 || config->expected > SHOAL_CLUSTER_MAX_WORKERS)
        return shoal_error_set(err, SHOAL_ERR_ARGUMENT, "%u workers; expected 1 to %d",
                               config->expected, SHOAL_CLUSTER_MAX_WORKERS);
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
    cluster->config = *config;
    /* One tick can drop every member; one join or ready can fill the window. */
    cluster->capacity = config->expected + 2u * config->window + 16u;
    cluster->members = shoal_calloc(config->expected, sizeof(cluster->members[0]));
    cluster->states = shoal_calloc(config->expected, sizeof(cluster->states[0]));
    cluster->queue = shoal_calloc(cluster->capacity, sizeof(cluster->queue[0]));
    if (!cluster->members || !cluster->states || !cluster->queue) {
        shoal_cluster_destroy(cluster);
        return shoal_error_memory(err, "the cluster's members", cluster->capacity * 1024ull);
    }
    *out = cluster;
    return SHOAL_OK;
}

void shoal_cluster_destroy(ShoalCluster *cluster) {
    if (!cluster)
        return;
    shoal_free(cluster->queue);
    shoal_free(cluster->states);
    shoal_free(cluster->members);
    shoal_free(cluster);
}

/* Why a joining worker cannot be taken; NULL when it can. */
static const char *reason_to_refuse(const ShoalCluster *cluster) {
    if (cluster->phase == SHOAL_CLUSTER_DONE)
        return "the training is finished";
    if (cluster->phase == SHOAL_CLUSTER_FAILED)
        return "the training has failed";
    if (cluster->phase != SHOAL_CLUSTER_WAITING)
        return "the cluster is complete: as many workers have joined as the coordinator waits for "
               "(joining later is not in this version)";
    return NULL;
}

static void admit(ShoalCluster *cluster, uint64_t connection, const ShoalClusterInfo *info) {
    ShoalClusterMember *member = &cluster->members[cluster->n];
    memset(member, 0, sizeof(*member));
    member->connection = connection;
    member->worker_id = cluster->next_worker_id++;
    member->info.ring_port = info->ring_port;
    member->info.pid = info->pid;
    copy_text(member->info.address, sizeof(member->info.address), info->address);
    copy_text(member->info.name, sizeof(member->info.name), info->name);
    cluster->states[cluster->n] = (State){.heard_ms = cluster->now_ms};
    cluster->n++;
}

void shoal_cluster_join(ShoalCluster *cluster, uint64_t now_ms, uint64_t connection,
                        const ShoalClusterInfo *info) {
    int rank = note_life(cluster, now_ms, connection);
    const char *refusal = reason_to_refuse(cluster);
    if (rank >= 0)
        break_rules(cluster, rank, "joined twice over one connection");
    else if (refusal)
        push_drop(cluster, connection, SHOAL_ERR_UNSUPPORTED, refusal);
    else
        admit(cluster, connection, info);
    advance(cluster);
}

void shoal_cluster_leave(ShoalCluster *cluster, uint64_t now_ms, uint64_t connection,
                         const char *reason) {
    int rank = note_life(cluster, now_ms, connection);
    if (rank < 0)
        return;
    lose(cluster, rank, SHOAL_ERR_LOST, "was lost", reason);
    advance(cluster);
}

void shoal_cluster_fault(ShoalCluster *cluster, uint64_t now_ms, uint64_t connection,
                         ShoalStatus status, const char *text) {
    int rank = note_life(cluster, now_ms, connection);
    if (rank < 0)
        return;
    if (status >= 0 || status < SHOAL_ERR_UNSUPPORTED)
        status = SHOAL_ERR_PROTOCOL;
    char reason[SHOAL_CLUSTER_TEXT];
    copy_text(reason, sizeof(reason), text);
    lose_and_drop(cluster, rank, status, "failed", reason);
    advance(cluster);
}

/* Is a message for `generation` to be looked at? Older ones are late, later ones are lies. */
static bool is_current(ShoalCluster *cluster, int rank, uint64_t generation) {
    if (cluster->phase != SHOAL_CLUSTER_WAITING && generation == cluster->generation)
        return true;
    if (generation >= cluster->generation) {
        char reason[128];
        snprintf(reason, sizeof(reason), "spoke of generation %llu, which was never announced",
                 (unsigned long long)generation);
        break_rules(cluster, rank, reason);
    }
    return false;
}

void shoal_cluster_aborted(ShoalCluster *cluster, uint64_t now_ms, uint64_t connection,
                           uint64_t generation, int suspect_rank, const char *text) {
    int rank = note_life(cluster, now_ms, connection);
    if (rank < 0 || !is_current(cluster, rank, generation) || cluster->aborting)
        return;
    char who[256], suspect[300] = "";
    describe(&cluster->members[rank], who, sizeof(who));
    if (suspect_rank >= 0 && (unsigned)suspect_rank < cluster->n) {
        char peer[256];
        describe(&cluster->members[suspect_rank], peer, sizeof(peer));
        snprintf(suspect, sizeof(suspect), " with %s", peer);
    }
    cluster->aborting = true;
    cluster->abort_ms = cluster->now_ms;
    char all[1024];
    snprintf(all, sizeof(all), "%s lost its ring connection%s, though no worker is gone: %s", who,
             suspect, text ? text : "");
    copy_text(cluster->abort_text, sizeof(cluster->abort_text), all);
}

void shoal_cluster_heard(ShoalCluster *cluster, uint64_t now_ms, uint64_t connection) {
    note_life(cluster, now_ms, connection);
}

void shoal_cluster_ready(ShoalCluster *cluster, uint64_t now_ms, uint64_t connection,
                         uint64_t generation) {
    int rank = note_life(cluster, now_ms, connection);
    if (rank < 0 || !is_current(cluster, rank, generation))
        return;
    if (cluster->states[rank].ready)
        break_rules(cluster, rank, "said twice that it is ready");
    else
        cluster->states[rank].ready = true;
    advance(cluster);
}

void shoal_cluster_done(ShoalCluster *cluster, uint64_t now_ms, uint64_t connection,
                        uint64_t generation, uint64_t round) {
    int rank = note_life(cluster, now_ms, connection);
    if (rank < 0 || !is_current(cluster, rank, generation))
        return;
    State *state = &cluster->states[rank];
    if (round != state->done || round >= cluster->issued) {
        char reason[160];
        snprintf(reason, sizeof(reason),
                 "reported round %llu; expected round %llu (%llu rounds have been issued)",
                 (unsigned long long)round, (unsigned long long)state->done,
                 (unsigned long long)cluster->issued);
        break_rules(cluster, rank, reason);
    } else {
        state->done++;
    }
    advance(cluster);
}

/* --- time ---------------------------------------------------------------------------------- */

/* UINT64_MAX for no timeout. */
static uint64_t after(uint64_t from_ms, uint64_t timeout_ms) {
    return timeout_ms == 0 || from_ms > UINT64_MAX - timeout_ms ? UINT64_MAX : from_ms + timeout_ms;
}

/* A message may have been under way when its sender froze, hence twice. */
static uint64_t abort_deadline(const ShoalCluster *cluster) {
    return after(after(cluster->abort_ms, cluster->config.heartbeat_timeout_ms),
                 cluster->config.heartbeat_timeout_ms);
}

/* Backwards, because losing a member while WAITING moves those after it. */
static void drop_silent_members(ShoalCluster *cluster) {
    char reason[96];
    snprintf(reason, sizeof(reason), "no sign of life for %llu ms",
             (unsigned long long)cluster->config.heartbeat_timeout_ms);
    for (int i = (int)cluster->n - 1; i >= 0; i--)
        if (cluster->now_ms >=
            after(cluster->states[i].heard_ms, cluster->config.heartbeat_timeout_ms))
            lose_and_drop(cluster, i, SHOAL_ERR_LOST, "was lost", reason);
}

static void fail_join(ShoalCluster *cluster) {
    char text[160];
    snprintf(text, sizeof(text),
             "%u of %u workers joined within %llu ms; start the others, or ask for fewer",
             cluster->n, cluster->config.expected,
             (unsigned long long)cluster->config.join_timeout_ms);
    fail(cluster, SHOAL_ERR_NETWORK, text);
}

static void fail_laggard(ShoalCluster *cluster, uint64_t timeout_ms) {
    bool forming = cluster->phase == SHOAL_CLUSTER_FORMING;
    char reason[96];
    snprintf(reason, sizeof(reason), "not %s after %llu ms", forming ? "ready" : "done",
             (unsigned long long)timeout_ms);
    for (unsigned i = 0; i < cluster->n; i++) {
        const State *state = &cluster->states[i];
        if (forming ? !state->ready : state->done <= cluster->completed) {
            lose_and_drop(cluster, (int)i, SHOAL_ERR_LOST, "took too long", reason);
            return;
        }
    }
}

/* The time at which the present phase fails by itself. While the blame for a broken ring is open,
 * nobody is slow: all wait. */
static uint64_t phase_deadline(const ShoalCluster *cluster) {
    if (cluster->aborting)
        return UINT64_MAX;
    if (cluster->phase == SHOAL_CLUSTER_WAITING && cluster->started)
        return after(cluster->started_ms, cluster->config.join_timeout_ms);
    if (cluster->phase == SHOAL_CLUSTER_FORMING)
        return after(cluster->formed_ms, cluster->config.form_timeout_ms);
    if (is_running(cluster) && cluster->completed < cluster->issued)
        return after(cluster->round_ms, cluster->config.round_timeout_ms);
    return UINT64_MAX;
}

void shoal_cluster_tick(ShoalCluster *cluster, uint64_t now_ms) {
    note_time(cluster, now_ms);
    if (is_over(cluster))
        return;
    drop_silent_members(cluster);
    if (!is_over(cluster) && cluster->aborting && cluster->now_ms >= abort_deadline(cluster))
        fail(cluster, SHOAL_ERR_LOST, cluster->abort_text);
    if (is_over(cluster) || cluster->now_ms < phase_deadline(cluster))
        return;
    if (cluster->phase == SHOAL_CLUSTER_WAITING)
        fail_join(cluster);
    else
        fail_laggard(cluster, cluster->phase == SHOAL_CLUSTER_FORMING
                                  ? cluster->config.form_timeout_ms
                                  : cluster->config.round_timeout_ms);
}

uint64_t shoal_cluster_deadline_ms(const ShoalCluster *cluster) {
    if (is_over(cluster))
        return UINT64_MAX;
    uint64_t first = phase_deadline(cluster);
    if (cluster->aborting && abort_deadline(cluster) < first)
        first = abort_deadline(cluster);
    for (unsigned i = 0; i < cluster->n; i++) {
        uint64_t silent = after(cluster->states[i].heard_ms, cluster->config.heartbeat_timeout_ms);
        if (silent < first)
            first = silent;
    }
    return first;
}

/* --- rounds and views ---------------------------------------------------------------------- */

uint64_t shoal_cluster_add_round(ShoalCluster *cluster) {
    uint64_t number = cluster->added;
    if (!cluster->closed) {
        cluster->added++;
        advance(cluster);
    }
    return number;
}

unsigned shoal_cluster_room(const ShoalCluster *cluster) {
    uint64_t open = cluster->added - cluster->completed;
    if (cluster->closed || is_over(cluster) || open >= cluster->config.window)
        return 0;
    return cluster->config.window - (unsigned)open;
}

void shoal_cluster_finish(ShoalCluster *cluster) {
    cluster->closed = true;
    if (cluster->phase == SHOAL_CLUSTER_RUNNING)
        cluster->phase = SHOAL_CLUSTER_DRAINING;
    advance(cluster);
}

bool shoal_cluster_next_action(ShoalCluster *cluster, ShoalClusterAction *action) {
    if (cluster->count > 0) {
        *action = cluster->queue[cluster->head];
        cluster->head = (cluster->head + 1) % cluster->capacity;
        cluster->count--;
        return true;
    }
    if (!cluster->has_last)
        return false;
    *action = cluster->last;
    cluster->has_last = false;
    return true;
}

bool shoal_cluster_has_action(const ShoalCluster *cluster) {
    return cluster->count > 0 || cluster->has_last;
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
    *n = cluster->n;
    return cluster->members;
}

int shoal_cluster_rank(const ShoalCluster *cluster, uint64_t connection) {
    for (unsigned i = 0; i < cluster->n; i++)
        if (cluster->members[i].connection == connection)
            return (int)i;
    return -1;
}
