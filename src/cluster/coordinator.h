/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHOAL_CLUSTER_COORDINATOR_H
#define SHOAL_CLUSTER_COORDINATOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shoal/status.h"

/* Membership and rounds, as a pure state machine: no socket, no clock, no thread, no allocation
 * after create. The caller feeds it what happened and when (milliseconds of any clock that does not
 * go back), then reads actions until there are none and carries them out.
 *
 *     WAITING --expected workers--> FORMING --all ready--> RUNNING --finish--> DRAINING --> DONE
 *        |                             |                      |                   |
 *        +---- join timeout -----------+------ a worker lost, late or illegal ----+-------> FAILED
 *
 * A generation is one membership with one ring; its members keep their order (rank) as long as it
 * lasts. A round is one unit of work that every member does: a training iteration, a test, a
 * snapshot. Rounds are numbered from 0; every member does them in order.
 *
 * In this version there is one generation, and a member that is lost ends the run (FAIL). */

#define SHOAL_CLUSTER_TEXT 512 /* bytes of a reason, with its '\0' */
#define SHOAL_CLUSTER_MAX_WORKERS 1024
#define SHOAL_CLUSTER_MAX_WINDOW 64

typedef enum ShoalClusterPhase {
    SHOAL_CLUSTER_WAITING,
    SHOAL_CLUSTER_FORMING,
    SHOAL_CLUSTER_RUNNING,
    SHOAL_CLUSTER_DRAINING,
    SHOAL_CLUSTER_DONE,
    SHOAL_CLUSTER_FAILED
} ShoalClusterPhase;

typedef struct ShoalClusterConfig {
    unsigned expected; /* workers to wait for, 1 .. SHOAL_CLUSTER_MAX_WORKERS */
    unsigned window; /* rounds issued beyond the last complete one, 1 .. SHOAL_CLUSTER_MAX_WINDOW */
    uint64_t heartbeat_timeout_ms; /* silence after which a worker is lost; > 0 */
    uint64_t join_timeout_ms;      /* for all to join, from the first tick or join; 0: for ever */
    uint64_t form_timeout_ms;      /* for all to be ready, from FORM; 0: for ever */
    uint64_t round_timeout_ms;     /* for a round, once it is the oldest issued; 0: for ever */
} ShoalClusterConfig;

/* What a worker said of itself when it joined (already authenticated). */
typedef struct ShoalClusterInfo {
    char address[64];   /* numeric, without port: where the other workers reach it */
    uint16_t ring_port; /* where it listens for the ring */
    char name[64];      /* for people; control characters are replaced */
    int64_t pid;
} ShoalClusterInfo;

typedef struct ShoalClusterMember {
    uint64_t connection; /* the caller's name for it */
    unsigned worker_id;  /* running number by joining, from 0; never used twice */
    ShoalClusterInfo info;
} ShoalClusterMember;

typedef enum ShoalClusterActionKind {
    SHOAL_CLUSTER_FORM,     /* tell every member: generation, members in the order of ranks */
    SHOAL_CLUSTER_START,    /* all members have their ring; nothing to do but to report it */
    SHOAL_CLUSTER_ISSUE,    /* send round `round` to every member */
    SHOAL_CLUSTER_COMPLETE, /* every member has done round `round` */
    SHOAL_CLUSTER_DROP, /* tell `connection` the reason `text` and close it; no leave() follows */
    SHOAL_CLUSTER_FAIL, /* the run is over: status and text; the last but for DROPs */
    SHOAL_CLUSTER_FINISHED /* all rounds complete: tell all to stop; the last but for DROPs */
} ShoalClusterActionKind;

typedef struct ShoalClusterAction {
    ShoalClusterActionKind kind;
    uint64_t generation; /* FORM, START, ISSUE, COMPLETE */
    uint64_t round;      /* ISSUE, COMPLETE */
    uint64_t connection; /* DROP */
    ShoalStatus status;  /* DROP, FAIL */
    char text[SHOAL_CLUSTER_TEXT];
} ShoalClusterAction;

typedef struct ShoalCluster ShoalCluster;

/* SHOAL_ERR_ARGUMENT for a config out of range, SHOAL_ERR_MEMORY. */
ShoalStatus shoal_cluster_create(const ShoalClusterConfig *config, ShoalCluster **cluster,
                                 ShoalError *err);
void shoal_cluster_destroy(ShoalCluster *cluster);

/* Inputs. Read all actions after each one (the queue holds what a single input can cause; one that
 * is left to overflow ends the run with FAIL). After DONE or FAILED they change nothing, but that
 * join is refused. Connections that are not (or no longer) members are ignored. `now_ms` that is
 * smaller than an earlier one counts as that earlier one. */

/* An authenticated worker. More than `expected`: DROP of that connection with the reason.
 * Also counts as a sign of life. */
void shoal_cluster_join(ShoalCluster *cluster, uint64_t now_ms, uint64_t connection,
                        const ShoalClusterInfo *info);

/* The connection is gone; `reason` for people ("connection closed"). While WAITING the worker is
 * forgotten, later the run fails with SHOAL_ERR_LOST and a text that names the worker. */
void shoal_cluster_leave(ShoalCluster *cluster, uint64_t now_ms, uint64_t connection,
                         const char *reason);

/* The worker itself says that it cannot go on (message Failure): FAIL with `status` (a negative
 * one; others count as SHOAL_ERR_PROTOCOL). */
void shoal_cluster_fault(ShoalCluster *cluster, uint64_t now_ms, uint64_t connection,
                         ShoalStatus status, const char *text);

/* The worker lives but its ring broke (message Aborted). When a worker dies its neighbours' words
 * often overtake the end of its own connection, so blame waits up to twice heartbeat_timeout_ms for
 * a worker that is really gone; only then the run fails with the text of the first who aborted. */
void shoal_cluster_aborted(ShoalCluster *cluster, uint64_t now_ms, uint64_t connection,
                           uint64_t generation, int suspect_rank, const char *text);

/* A sign of life: call it for whatever arrives from the connection. */
void shoal_cluster_heard(ShoalCluster *cluster, uint64_t now_ms, uint64_t connection);

/* The member has its ring for this generation. */
void shoal_cluster_ready(ShoalCluster *cluster, uint64_t now_ms, uint64_t connection,
                         uint64_t generation);

/* The member has done this round. Not issued, twice, out of order or of a generation to come:
 * DROP, and FAIL with SHOAL_ERR_PROTOCOL. An older generation is ignored. */
void shoal_cluster_done(ShoalCluster *cluster, uint64_t now_ms, uint64_t connection,
                        uint64_t generation, uint64_t round);

/* Time passes. Call it at shoal_cluster_deadline_ms at the latest; earlier does no harm. Feed it
 * what has already arrived first: a coordinator that was itself asleep must not blame the workers.
 */
void shoal_cluster_tick(ShoalCluster *cluster, uint64_t now_ms);

/* When the next tick is due; UINT64_MAX for never. */
uint64_t shoal_cluster_deadline_ms(const ShoalCluster *cluster);

/* There is one more round; its number. It is issued when its turn and the window allow. */
uint64_t shoal_cluster_add_round(ShoalCluster *cluster);

/* How many rounds could be added now such that each would be issued at once or as soon as a
 * generation runs: window - (added - complete); 0 after finish. */
unsigned shoal_cluster_room(const ShoalCluster *cluster);

/* No further rounds will be added. */
void shoal_cluster_finish(ShoalCluster *cluster);

/* The next action into *action; false when there is none. */
bool shoal_cluster_next_action(ShoalCluster *cluster, ShoalClusterAction *action);

bool shoal_cluster_has_action(const ShoalCluster *cluster);

ShoalClusterPhase shoal_cluster_phase(const ShoalCluster *cluster);
/* 0 until the first FORM, then from 1. */
uint64_t shoal_cluster_generation(const ShoalCluster *cluster);
/* Rounds added, issued and complete so far. */
uint64_t shoal_cluster_added(const ShoalCluster *cluster);
uint64_t shoal_cluster_issued(const ShoalCluster *cluster);
uint64_t shoal_cluster_completed(const ShoalCluster *cluster);
/* Members by rank (while WAITING: who has joined so far), valid until the next input. */
const ShoalClusterMember *shoal_cluster_members(const ShoalCluster *cluster, size_t *n);
/* The rank of a connection among them, or -1. */
int shoal_cluster_rank(const ShoalCluster *cluster, uint64_t connection);

#endif
