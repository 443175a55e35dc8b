/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHOAL_CLUSTER_WORKER_H
#define SHOAL_CLUSTER_WORKER_H

#include <stdbool.h>
#include <stdint.h>

#include "cluster/coordinator.h"
#include "shoal/status.h"

/* The worker's side of the rounds, as a pure state machine: which message is legal now and what to
 * do next. No I/O, no clock, no allocation. Not thread-safe: whoever owns the control connection
 * owns this, too. One of these lives as long as one connection.
 *
 *     IDLE --Generation--> CONNECTING --ring up--> READY --Start--> RUNNING --Stop--> STOPPED
 *                              ^   \                  |                |
 *                              |    +--- ring broke --+----------------+--> ABORTED
 *                              +-- Generation, from wherever --------------/
 *
 * Actions are read with shoal_worker_next_action; RUN comes when no round is being done and the
 * next one has arrived. */

typedef enum ShoalWorkerPhase {
    SHOAL_WORKER_IDLE,
    SHOAL_WORKER_CONNECTING,
    SHOAL_WORKER_READY_TO_START,
    SHOAL_WORKER_RUNNING,
    SHOAL_WORKER_ABORTED,
    SHOAL_WORKER_STOPPED
} ShoalWorkerPhase;

typedef enum ShoalWorkerActionKind {
    SHOAL_WORKER_CONNECT, /* leave the old ring, join that of `generation`; then connected() */
    SHOAL_WORKER_READY,   /* send Ready of `generation` */
    SHOAL_WORKER_START,   /* begin `generation`: who is needy gets the state, the others give it */
    SHOAL_WORKER_RUN,     /* do round `round`; then done() */
    SHOAL_WORKER_REPORT,  /* send Report of `round` */
    SHOAL_WORKER_ABORT,   /* send Aborted of `generation` */
    SHOAL_WORKER_STOP     /* leave the ring, end; the last action */
} ShoalWorkerActionKind;

typedef struct ShoalWorkerAction {
    ShoalWorkerActionKind kind;
    uint64_t generation;
    uint64_t round; /* START (the first one), RUN, REPORT */
} ShoalWorkerAction;

/* The caller's storage; look at it through the functions only. */
typedef struct ShoalWorker {
    ShoalWorkerPhase phase;
    unsigned window, rank, size;
    uint64_t generation;
    uint64_t next_round; /* the one that must arrive next; valid from Start on */
    uint64_t run_round;  /* the one that is being done, or is to be done next */
    bool running;
    unsigned head, count;
    ShoalWorkerAction queue[4];
} ShoalWorker;

/* window: most rounds that may be here and not done, 1 .. SHOAL_CLUSTER_MAX_WINDOW (others are
 * brought into that range). */
void shoal_worker_init(ShoalWorker *worker, unsigned window);

/* Messages from the coordinator. SHOAL_ERR_PROTOCOL: illegal now; the caller closes the connection
 * and nothing has changed.
 *
 * Generation: its number must be greater than the present one, 0 <= rank < size. Whatever was
 * running is to be given up: see shoal_worker_is_current. */
ShoalStatus shoal_worker_generation(ShoalWorker *worker, uint64_t generation, unsigned rank,
                                    unsigned size, ShoalError *err);

/* Start: of the present generation, once, after ready. first_round: the number that the next round
 * will have. *accepted false (and SHOAL_OK): of an older generation or after the ring broke. */
ShoalStatus shoal_worker_start(ShoalWorker *worker, uint64_t generation, uint64_t first_round,
                               bool *accepted, ShoalError *err);

/* Round: of the present generation, following the one before it, not beyond the window. *accepted
 * false (and SHOAL_OK): of an older generation or after the ring broke; forget it. */
ShoalStatus shoal_worker_round(ShoalWorker *worker, uint64_t generation, uint64_t round,
                               bool *accepted, ShoalError *err);

void shoal_worker_stop(ShoalWorker *worker);

/* What the worker itself did: the ring of `generation` is up; round is done; the ring broke. Of an
 * older generation, or after ABORTED or STOPPED: ignored (the result is stale). */
void shoal_worker_connected(ShoalWorker *worker, uint64_t generation);
void shoal_worker_done(ShoalWorker *worker, uint64_t generation, uint64_t round);
void shoal_worker_ring_lost(ShoalWorker *worker, uint64_t generation);

/* The next action into *action; false when there is none now. */
bool shoal_worker_next_action(ShoalWorker *worker, ShoalWorkerAction *action);

/* Is work for this generation still wanted? */
bool shoal_worker_is_current(const ShoalWorker *worker, uint64_t generation);

#endif
