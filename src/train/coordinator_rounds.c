/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/memory.h"
#include "train/coordinator_internal.h"

enum { ENDED_MS = 100 }; /* for a process whose connection is closed to be gone, too */

/* ---- generations ---- */

static ShoalStatus grow_members(ShoalCoordinator *c, int n) {
    if (n > c->members_size) {
        shoal_free(c->capacities);
        shoal_free(c->limits);
        shoal_free(c->stores);
        shoal_free(c->late);
        shoal_free(c->odd);
        c->members_size = n;
        c->capacities = shoal_calloc((size_t)n, sizeof *c->capacities);
        c->limits = shoal_calloc((size_t)n, sizeof *c->limits);
        c->stores = shoal_calloc((size_t)n, sizeof *c->stores);
        c->late = shoal_calloc((size_t)n, 1);
        c->odd = shoal_calloc((size_t)n, 1);
    }
    c->n_members = n;
    if (c->capacities && c->limits && c->stores && c->late && c->odd)
        return SHOAL_OK;
    c->members_size = c->n_members = 0;
    return shoal_error_memory(c->err, "the members", (size_t)n);
}

static ShoalStatus list_members(ShoalCoordinator *c) {
    size_t n;
    const ShoalClusterMember *members = shoal_cluster_members(c->cluster, &n);
    uint64_t *keys = shoal_calloc(n, sizeof *keys);
    ShoalStatus status = keys ? grow_members(c, (int)n) : shoal_error_memory(c->err, "members", n);
    for (size_t i = 0; i < n && !status; i++) {
        const ShoalPeer *peer = shoal_coordinator_peer(c, members[i].connection);
        keys[i] = members[i].worker_id;
        c->capacities[i] = c->limits[i] = peer ? peer->capacity : 1;
        c->stores[i] = peer ? peer->store : -1;
        c->late[i] = 0;
    }
    if (!status)
        status = shoal_balance_members(c->balance, (int)n, keys, c->err);
    shoal_free(keys);
    return status;
}

static ShoalStatus send_generation(ShoalCoordinator *c, uint64_t generation) {
    if (!c->first_generation)
        c->first_generation = generation;
    size_t n;
    const ShoalClusterMember *members = shoal_cluster_members(c->cluster, &n);
    unsigned char secret[SHOAL_AUTH_BYTES];
    shoal_auth_random(secret, sizeof secret);
    Shoal__Member *items = shoal_calloc(n, sizeof *items);
    Shoal__Member **pointers = shoal_calloc(n, sizeof *pointers);
    for (size_t i = 0; items && pointers && i < n; i++) {
        shoal__member__init(&items[i]);
        items[i].worker_id = members[i].worker_id;
        items[i].address = (char *)members[i].info.address;
        items[i].ring_port = members[i].info.ring_port;
        items[i].name = (char *)members[i].info.name;
        pointers[i] = &items[i];
    }
    Shoal__Generation message = SHOAL__GENERATION__INIT;
    message.generation = generation;
    message.n_members = n;
    message.members = pointers;
    message.ring_secret.data = secret;
    message.ring_secret.len = sizeof secret;
    for (size_t i = 0; i < n; i++) {
        ShoalPeer *peer = shoal_coordinator_peer(c, members[i].connection);
        message.rank = (uint32_t)i;
        if (peer && (!items || !pointers ||
                     shoal_coordinator_queue(peer, SHOAL_MESSAGE_GENERATION, &message.base)))
            shoal_coordinator_lose(c, peer, "out of memory");
    }
    shoal_free(items);
    shoal_free(pointers);
    shoal_auth_forget(secret, sizeof secret);
    return list_members(c);
}

/* What the run begins with, or has written last. */
static ShoalStatus send_seed(ShoalCoordinator *c, ShoalPeer *peer, uint64_t generation,
                             int *current_step) {
    const ShoalJob *job = c->job;
    ShoalSeed stored = {0}, given = {.weights = job->weights,
                                     .n_weights = job->n_weights,
                                     .state = job->state_file,
                                     .updates = job->state ? job->state->iter : 0,
                                     .current_step = job->state ? job->state->current_step : 0};
    ShoalStatus status =
        c->last_snapshot[0] ? shoal_seed_load(c->last_snapshot, &stored, c->err) : SHOAL_OK;
    const ShoalSeed *seed = c->last_snapshot[0] ? &stored : &given;
    void *bytes = NULL;
    size_t size;
    if (!status)
        status = shoal_seed_pack(seed, &bytes, &size, c->err);
    *current_step = seed->current_step;
    if (!status && shoal_coordinator_queue_chunks(peer, SHOAL__CHUNK_KIND__CHUNK_SEED, generation,
                                                  bytes, size))
        shoal_coordinator_lose(c, peer, "out of memory");
    shoal_free(bytes);
    shoal_seed_close(&stored);
    return status;
}

static int step_of(ShoalCoordinator *c, const ShoalClusterAction *action) {
    size_t n;
    const ShoalClusterMember *members = shoal_cluster_members(c->cluster, &n);
    for (size_t i = 0; i < n; i++) {
        const ShoalPeer *peer = shoal_coordinator_peer(c, members[i].connection);
        if (peer && !shoal_cluster_version_compare(members[i].version, action->version))
            return (int)peer->info.current_step;
    }
    return 0;
}

/* A few who need the state have nothing to do while it comes; when they are most, all wait. */
static void let_wait(ShoalCoordinator *c, const ShoalClusterAction *action,
                     const ShoalClusterMember *members, size_t n, size_t n_needy) {
    c->any_late = !action->seed && n_needy > 0 && n_needy * 2 <= n;
    c->late_updates = action->version.updates;
    for (size_t i = 0; i < n && (int)i < c->n_members; i++)
        c->late[i] = c->any_late && members[i].needy;
}

static void send_start(ShoalCoordinator *c, const ShoalClusterAction *action, int current_step) {
    size_t n, n_needy = 0;
    const ShoalClusterMember *members = shoal_cluster_members(c->cluster, &n);
    Shoal__Version version = SHOAL__VERSION__INIT;
    version.held = action->version.held;
    version.updates = action->version.updates;
    version.generation = action->version.generation;
    Shoal__Start message = SHOAL__START__INIT;
    message.generation = action->generation;
    message.round = action->round;
    message.version = &version;
    message.current_step = (uint32_t)current_step;
    message.seeded = action->seed;
    uint32_t *needy = shoal_calloc(n, sizeof *needy);
    for (size_t i = 0; needy && i < n; i++)
        if (members[i].needy)
            needy[n_needy++] = (uint32_t)i;
    message.needy = needy;
    message.n_needy = n_needy;
    let_wait(c, action, members, n, n_needy);
    for (size_t i = 0; i < n; i++) {
        ShoalPeer *peer = shoal_coordinator_peer(c, members[i].connection);
        if (peer && (!needy || shoal_coordinator_queue(peer, SHOAL_MESSAGE_START, &message.base)))
            shoal_coordinator_lose(c, peer, "out of memory");
    }
    shoal_free(needy);
}

/* Where the director stood when it planned the round to go on with; NULL: it stands there still, or
 * was never there. An iteration of several rounds begins with its first one. */
static const ShoalCursor *find_cursor(const ShoalCoordinator *c, const ShoalClusterAction *action) {
    if (action->rewind)
        return &c->flights[action->round % SHOAL_COORDINATOR_FLIGHTS].plan.before;
    for (int i = 0; action->seek && !action->seed && i < SHOAL_COORDINATOR_FLIGHTS; i++) {
        const ShoalPlan *plan = &c->flights[i].plan;
        if (plan->n_ranks && plan->round.kind == SHOAL_STEP_TRAIN && plan->round.clear &&
            (uint64_t)plan->round.iter == action->version.updates)
            return &plan->before;
    }
    return NULL;
}

/* The planner is brought to where the state is, then everybody is told. */
static ShoalStatus start(ShoalCoordinator *c, const ShoalClusterAction *action) {
    int current_step = 0;
    ShoalStatus status = SHOAL_OK;
    size_t n;
    const ShoalClusterMember *members = shoal_cluster_members(c->cluster, &n);
    ShoalPeer *first = n ? shoal_coordinator_peer(c, members[0].connection) : NULL;
    if (action->seed && first)
        status = send_seed(c, first, action->generation, &current_step);
    else
        current_step = step_of(c, action);
    if (status)
        return status;
    bool stands = action->seed && !c->begun; /* where the director stands already */
    const ShoalCursor *back = find_cursor(c, action);
    if (back || !action->seek)
        shoal_director_rewind(c->director, back);
    else if (!stands)
        shoal_director_seek(c->director, (int)action->version.updates, current_step);
    c->all_planned = false;
    send_start(c, action, current_step);
    if (!c->begun)
        shoal_director_begin(c->director, c->n_members);
    shoal_coordinator_emit(c, SHOAL_EVENT_GENERATION, NULL);
    c->begun = true;
    return SHOAL_OK;
}

/* ---- rounds ---- */

static ShoalStatus grow_flight(ShoalCoordinator *c, ShoalFlight *flight, int n) {
    if (n <= flight->size)
        return SHOAL_OK;
    size_t capacity = shoal_director_output_capacity(c->director);
    ShoalResult *results = shoal_calloc((size_t)n, sizeof *results);
    uint64_t *connections = shoal_calloc((size_t)n, sizeof *connections);
    bool whole = results && connections;
    for (int r = 0; whole && r < n; r++) {
        results[r].outputs = shoal_calloc(capacity, sizeof(float));
        results[r].output_capacity = capacity;
        whole = results[r].outputs != NULL;
    }
    for (int r = 0; r < flight->size; r++)
        shoal_replica_result_close(&flight->results[r]);
    shoal_free(flight->results);
    shoal_free(flight->connections);
    flight->results = results;
    flight->connections = connections;
    flight->size = whole ? n : 0;
    return whole ? SHOAL_OK : shoal_error_memory(c->err, "results", (size_t)n * capacity);
}

/* Those who are late have nothing to do in the first iteration. */
static void set_limits(ShoalCoordinator *c) {
    for (int r = 0; r < c->n_members; r++)
        c->limits[r] = c->any_late && c->late[r] ? 0 : c->capacities[r];
}

ShoalStatus shoal_coordinator_plan(ShoalCoordinator *c) {
    while (!c->all_planned && shoal_cluster_room(c->cluster) > 0 &&
           shoal_cluster_added(c->cluster) <
               shoal_cluster_completed(c->cluster) + SHOAL_COORDINATOR_FLIGHTS) {
        ShoalFlight *flight =
            &c->flights[shoal_cluster_added(c->cluster) % SHOAL_COORDINATOR_FLIGHTS];
        set_limits(c);
        const ShoalCrew crew = {.n = c->n_members,
                                .capacities = c->limits,
                                .stores = c->stores,
                                .balance = c->balance,
                                .holdings = c->holdings};
        bool more;
        ShoalStatus status = shoal_director_next(c->director, &crew, &flight->plan, &more, c->err);
        if (!status && more)
            status = grow_flight(c, flight, flight->plan.n_ranks);
        if (status)
            return status;
        if (flight->plan.updates > c->late_updates)
            c->any_late = false;
        if (more) {
            shoal_cluster_add_round(c->cluster, flight->plan.updates,
                                    flight->plan.round.kind != SHOAL_STEP_TRAIN);
        } else {
            shoal_cluster_finish(c->cluster);
            c->all_planned = true;
        }
    }
    return SHOAL_OK;
}

static ShoalStatus issue_round(ShoalCoordinator *c, uint64_t generation, uint64_t number) {
    ShoalFlight *flight = &c->flights[number % SHOAL_COORDINATOR_FLIGHTS];
    size_t n;
    const ShoalClusterMember *members = shoal_cluster_members(c->cluster, &n);
    flight->generation = generation;
    flight->model.used = flight->state.used = 0;
    for (int r = 0; r < flight->plan.n_ranks; r++) {
        flight->results[r].present = false;
        flight->connections[r] = (size_t)r < n ? members[r].connection : UINT64_MAX;
    }
    for (int r = 0; r < flight->plan.n_ranks; r++) {
        ShoalPeer *peer = shoal_coordinator_peer(c, flight->connections[r]);
        ShoalStatus status =
            peer ? shoal_coordinator_send_round(c, peer, flight, number, r) : SHOAL_OK;
        if (status)
            return status;
    }
    return SHOAL_OK;
}

static ShoalStatus store_snapshot(ShoalCoordinator *c, ShoalFlight *flight) {
    int iter = flight->plan.round.iter;
    ShoalBuffer *model = &flight->model, *state = &flight->state;
    if (!model->used || !state->used)
        return shoal_error_set(c->err, SHOAL_ERR_PROTOCOL,
                               "rank 0 did not send the snapshot of iteration %d", iter);
    ShoalStatus status = shoal_director_write_snapshot(c->director, iter, model->bytes, model->used,
                                                       state->bytes, state->used, c->err);
    if (!status)
        status = shoal_director_state_name(c->job, iter, c->last_snapshot, sizeof c->last_snapshot,
                                           c->err);
    if (!status)
        shoal_cluster_seedable(c->cluster, (uint64_t)iter);
    shoal_buffer_close(model);
    shoal_buffer_close(state);
    return status;
}

/* Replicas that hold other bits than most are shut out. */
static void compare_replicas(ShoalCoordinator *c, const ShoalFlight *flight) {
    if (flight->plan.n_ranks > c->members_size ||
        !shoal_director_diverged(&flight->plan, flight->results, c->odd))
        return;
    for (int r = 0; r < flight->plan.n_ranks; r++) {
        if (!c->odd[r])
            continue;
        char text[160];
        snprintf(text, sizeof text,
                 "holds other weights than the rest after iteration %d; its memory or processor "
                 "may be faulty",
                 flight->plan.round.iter);
        shoal_cluster_diverged(c->cluster, shoal_clock_ms(), flight->connections[r], text);
    }
}

static void tell_recovery(ShoalCoordinator *c) {
    if (!c->lost_ns)
        return;
    size_t n;
    (void)shoal_cluster_members(c->cluster, &n);
    ShoalEvent event = {.kind = SHOAL_EVENT_RECOVERED,
                        .generation = shoal_coordinator_generation(c),
                        .n_workers = (int)n,
                        .recovery_s = (double)(shoal_clock_ns() - c->lost_ns) * 1e-9};
    shoal_director_emit(c->director, &event);
    c->lost_ns = 0;
}

static ShoalStatus complete_round(ShoalCoordinator *c, uint64_t number) {
    ShoalFlight *flight = &c->flights[number % SHOAL_COORDINATOR_FLIGHTS];
    const ShoalPlan *plan = &flight->plan;
    if (flight->generation == shoal_cluster_generation(c->cluster))
        tell_recovery(c);
    if (plan->round.kind == SHOAL_STEP_SNAPSHOT)
        return store_snapshot(c, flight);
    const ShoalClusterStatus *shown = shoal_coordinator_status(c, flight);
    ShoalStatus status = shoal_director_complete(c->director, plan, flight->results, shown, c->err);
    if (plan->round.kind == SHOAL_STEP_TRAIN && plan->round.update && plan->round.display)
        shoal_coordinator_reset_tallies(c);
    if (!status)
        compare_replicas(c, flight);
    return status;
}

/* ---- the rest ---- */

static void drop(ShoalCoordinator *c, const ShoalClusterAction *action) {
    ShoalPeer *peer = shoal_coordinator_peer(c, action->connection);
    if (!peer)
        return;
    if (!peer->broken) {
        (void)shoal_handshake_refuse(peer->channel, action->text, action->for_good, action->forget);
        (void)shoal_channel_flush(peer->channel, NULL);
    }
    peer->broken = true;
}

/* How an own worker ended, where one has: "signal 9" says more than "connection closed". */
static void find_ended(ShoalCoordinator *c, char *text, size_t size) {
    char how[32];
    uint64_t deadline = shoal_clock_ms() + ENDED_MS;
    int number = -1;
    while (c->children.count && number < 0 && shoal_clock_ms() < deadline) {
        number = shoal_children_ended(&c->children, how, sizeof how);
        if (number < 0)
            shoal_clock_sleep_ms(2);
    }
    if (number >= 0)
        snprintf(text, size, " (its process ended with %s)", how);
}

/* The core speaks of rounds; people know iterations. */
static void describe_time(ShoalCoordinator *c, char *text, size_t size) {
    uint64_t oldest = shoal_cluster_completed(c->cluster);
    text[0] = '\0';
    if (oldest < shoal_cluster_added(c->cluster) && shoal_cluster_generation(c->cluster) > 0)
        snprintf(text, size,
                 "iteration %d: ", c->flights[oldest % SHOAL_COORDINATOR_FLIGHTS].plan.round.iter);
}

static void lost(ShoalCoordinator *c, const ShoalClusterAction *action) {
    char when[48], text[SHOAL_CLUSTER_TEXT + 64];
    describe_time(c, when, sizeof when);
    snprintf(text, sizeof text, "%s%s", when, action->text);
    if (!c->lost_ns)
        c->lost_ns = shoal_clock_ns();
    shoal_coordinator_emit(c, action->rests ? SHOAL_EVENT_RESTING : SHOAL_EVENT_LOST, text);
}

static ShoalStatus fail(ShoalCoordinator *c, const ShoalClusterAction *action) {
    char when[48], how[64] = "";
    if (action->status == SHOAL_ERR_LOST)
        find_ended(c, how, sizeof how);
    describe_time(c, when, sizeof when);
    return shoal_error_set(c->err, action->status, "%s%s%s; %s%s", when, action->text, how,
                           c->last_snapshot[0] ? "go on with --resume="
                                               : "no snapshot was written before",
                           c->last_snapshot);
}

ShoalStatus shoal_coordinator_carry_out(ShoalCoordinator *c, const ShoalClusterAction *action) {
    switch (action->kind) {
    case SHOAL_CLUSTER_FORM:
        return send_generation(c, action->generation);
    case SHOAL_CLUSTER_START:
        return start(c, action);
    case SHOAL_CLUSTER_ISSUE:
        return issue_round(c, action->generation, action->round);
    case SHOAL_CLUSTER_COMPLETE:
        return complete_round(c, action->round);
    case SHOAL_CLUSTER_DROP:
        drop(c, action);
        return SHOAL_OK;
    case SHOAL_CLUSTER_LOST:
        lost(c, action);
        return SHOAL_OK;
    case SHOAL_CLUSTER_PAUSE:
        shoal_coordinator_emit(c, SHOAL_EVENT_PAUSED, action->text);
        return SHOAL_OK;
    case SHOAL_CLUSTER_FINISHED:
        c->over = true;
        return SHOAL_OK;
    default:
        return fail(c, action);
    }
}
