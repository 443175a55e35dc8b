/* SPDX-License-Identifier: Apache-2.0 */
#include "cluster/worker.h"

#include <string.h>

#include "base/error.h"

static void push(ShoalWorker *worker, ShoalWorkerActionKind kind, uint64_t round) {
    /* At most a REPORT that nobody has read yet, and CONNECT, READY, START: a RUN, and so the next
     * REPORT, comes only when the queue is empty. */
    const unsigned capacity = sizeof(worker->queue) / sizeof(worker->queue[0]);
    if (worker->count == capacity)
        return;
    worker->queue[(worker->head + worker->count++) % capacity] =
        (ShoalWorkerAction){.kind = kind, .generation = worker->generation, .round = round};
}

/* What was to be done for the membership before is void; a result that is there still counts. */
static void forget_all_but_reports(ShoalWorker *worker) {
    const unsigned capacity = sizeof(worker->queue) / sizeof(worker->queue[0]);
    unsigned kept = 0;
    for (unsigned i = 0; i < worker->count; i++) {
        ShoalWorkerAction action = worker->queue[(worker->head + i) % capacity];
        if (action.kind == SHOAL_WORKER_REPORT)
            worker->queue[(worker->head + kept++) % capacity] = action;
    }
    worker->count = kept;
}

/* Of a membership that is over for this worker: what comes for it was under way. */
static bool is_stale(const ShoalWorker *worker, uint64_t generation) {
    return generation < worker->generation ||
           (generation == worker->generation && worker->phase == SHOAL_WORKER_ABORTED);
}

void shoal_worker_init(ShoalWorker *worker, unsigned window) {
    memset(worker, 0, sizeof(*worker));
    if (window < 1)
        window = 1;
    if (window > SHOAL_CLUSTER_MAX_WINDOW)
        window = SHOAL_CLUSTER_MAX_WINDOW;
    worker->window = window;
    worker->phase = SHOAL_WORKER_IDLE;
}

ShoalStatus shoal_worker_generation(ShoalWorker *worker, uint64_t generation, unsigned rank,
                                    unsigned size, ShoalError *err) {
    if (worker->phase == SHOAL_WORKER_STOPPED)
        return shoal_error_set(err, SHOAL_ERR_PROTOCOL,
                               "the coordinator announced generation %llu after it had said stop",
                               (unsigned long long)generation);
    if (generation <= worker->generation)
        return shoal_error_set(err, SHOAL_ERR_PROTOCOL,
                               "the coordinator announced generation %llu, but generation %llu had "
                               "come before; expected a greater number",
                               (unsigned long long)generation,
                               (unsigned long long)worker->generation);
    if (size < 1 || size > SHOAL_CLUSTER_MAX_WORKERS || rank >= size)
        return shoal_error_set(err, SHOAL_ERR_PROTOCOL,
                               "the coordinator gave this worker rank %u of %u; expected a rank "
                               "below the size, and a size of 1 to %d",
                               rank, size, SHOAL_CLUSTER_MAX_WORKERS);
    forget_all_but_reports(worker);
    worker->generation = generation;
    worker->rank = rank;
    worker->size = size;
    worker->running = false;
    worker->next_round = worker->run_round = 0;
    worker->phase = SHOAL_WORKER_CONNECTING;
    push(worker, SHOAL_WORKER_CONNECT, 0);
    return SHOAL_OK;
}

ShoalStatus shoal_worker_start(ShoalWorker *worker, uint64_t generation, uint64_t first_round,
                               bool *accepted, ShoalError *err) {
    unsigned long long g = generation;
    if (is_stale(worker, generation)) {
        *accepted = false;
        return SHOAL_OK;
    }
    if (generation > worker->generation)
        return shoal_error_set(err, SHOAL_ERR_PROTOCOL,
                               "the coordinator started generation %llu, which was never announced "
                               "(the present one is %llu)",
                               g, (unsigned long long)worker->generation);
    if (worker->phase != SHOAL_WORKER_READY_TO_START)
        return shoal_error_set(err, SHOAL_ERR_PROTOCOL,
                               "the coordinator started generation %llu %s", g,
                               worker->phase == SHOAL_WORKER_RUNNING   ? "twice"
                               : worker->phase == SHOAL_WORKER_STOPPED ? "after it had said stop"
                                                                       : "before it was ready");
    if (first_round == UINT64_MAX)
        return shoal_error_set(err, SHOAL_ERR_PROTOCOL,
                               "generation %llu begins with round %llu, which is no round number",
                               g, (unsigned long long)first_round);
    worker->phase = SHOAL_WORKER_RUNNING;
    worker->next_round = worker->run_round = first_round;
    push(worker, SHOAL_WORKER_START, first_round);
    *accepted = true;
    return SHOAL_OK;
}

static ShoalStatus check_round(const ShoalWorker *worker, uint64_t generation, uint64_t round,
                               ShoalError *err) {
    unsigned long long r = round, g = generation;
    if (generation > worker->generation)
        return shoal_error_set(err, SHOAL_ERR_PROTOCOL,
                               "round %llu is of generation %llu, which was never announced "
                               "(the present one is %llu)",
                               r, g, (unsigned long long)worker->generation);
    if (worker->phase != SHOAL_WORKER_RUNNING)
        return shoal_error_set(err, SHOAL_ERR_PROTOCOL,
                               "round %llu came before its generation was started, or after stop",
                               r);
    if (round == UINT64_MAX)
        return shoal_error_set(err, SHOAL_ERR_PROTOCOL, "round %llu is no round number", r);
    if (round != worker->next_round)
        return shoal_error_set(err, SHOAL_ERR_PROTOCOL, "round %llu came; expected round %llu", r,
                               (unsigned long long)worker->next_round);
    if (worker->next_round - worker->run_round >= worker->window)
        return shoal_error_set(err, SHOAL_ERR_PROTOCOL,
                               "round %llu came while %u rounds are waiting, which is the most "
                               "that was agreed",
                               r, worker->window);
    return SHOAL_OK;
}

ShoalStatus shoal_worker_round(ShoalWorker *worker, uint64_t generation, uint64_t round,
                               bool *accepted, ShoalError *err) {
    if (is_stale(worker, generation)) {
        *accepted = false;
        return SHOAL_OK;
    }
    ShoalStatus status = check_round(worker, generation, round, err);
    if (status)
        return status;
    worker->next_round = round + 1;
    *accepted = true;
    return SHOAL_OK;
}

void shoal_worker_stop(ShoalWorker *worker) {
    if (worker->phase == SHOAL_WORKER_STOPPED)
        return;
    forget_all_but_reports(worker);
    worker->phase = SHOAL_WORKER_STOPPED;
    worker->running = false;
    push(worker, SHOAL_WORKER_STOP, 0);
}

void shoal_worker_connected(ShoalWorker *worker, uint64_t generation) {
    if (generation != worker->generation || worker->phase != SHOAL_WORKER_CONNECTING)
        return;
    worker->phase = SHOAL_WORKER_READY_TO_START;
    push(worker, SHOAL_WORKER_READY, 0);
}

void shoal_worker_done(ShoalWorker *worker, uint64_t generation, uint64_t round) {
    if (generation != worker->generation || worker->phase != SHOAL_WORKER_RUNNING ||
        !worker->running || round != worker->run_round)
        return;
    worker->running = false;
    worker->run_round++;
    push(worker, SHOAL_WORKER_REPORT, round);
}

void shoal_worker_ring_lost(ShoalWorker *worker, uint64_t generation) {
    if (!shoal_worker_is_current(worker, generation))
        return;
    forget_all_but_reports(worker);
    worker->phase = SHOAL_WORKER_ABORTED;
    worker->running = false;
    push(worker, SHOAL_WORKER_ABORT, 0);
}

bool shoal_worker_next_action(ShoalWorker *worker, ShoalWorkerAction *action) {
    const unsigned capacity = sizeof(worker->queue) / sizeof(worker->queue[0]);
    if (worker->count > 0) {
        *action = worker->queue[worker->head];
        worker->head = (worker->head + 1) % capacity;
        worker->count--;
        return true;
    }
    if (worker->phase != SHOAL_WORKER_RUNNING || worker->running ||
        worker->run_round == worker->next_round)
        return false;
    worker->running = true;
    *action = (ShoalWorkerAction){
        .kind = SHOAL_WORKER_RUN, .generation = worker->generation, .round = worker->run_round};
    return true;
}

bool shoal_worker_is_current(const ShoalWorker *worker, uint64_t generation) {
    return generation == worker->generation &&
           (worker->phase == SHOAL_WORKER_CONNECTING ||
            worker->phase == SHOAL_WORKER_READY_TO_START || worker->phase == SHOAL_WORKER_RUNNING);
}
