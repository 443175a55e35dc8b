/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHOAL_CLUSTER_STATE_H
#define SHOAL_CLUSTER_STATE_H

#include "cluster/coordinator.h"
#include "cluster/failures.h"

/* What the files of the coordinator's core share; nobody else includes this.
 *
 *     coordinator.c   inputs, time, views: note what happened, then shoal_cluster_advance
 *     membership.c    who is in: losses, forming, blame for a broken ring
 *     rounds.c        where a generation begins; what is issued and complete
 *     actions.c       the queue of actions, and the end of the run */

/* A worker that has joined. */
typedef struct ShoalClusterWorker {
    uint64_t connection;
    uint64_t heard_ms;
    uint64_t progress_ms;         /* when it last got on, or got something to do */
    uint64_t progress, got_on_ms; /* its own count, and when that last changed */
    uint64_t member_of;           /* the newest generation that it is or was a member of; 0: none */
    uint64_t next;                /* the round that it reports next */
    uint64_t done;                /* the state that it holds has rounds 0 .. done - 1 behind it */
    uint64_t suspected_ms;        /* when a neighbour last suspected it */
    unsigned suspected_by;        /* worker_id + 1 of that one; 0: nobody ever did */
    unsigned worker_id;
    int rank;   /* in the generation `member_of` while that is the newest, else -1 */
    int blames; /* rank of whom it blames for its broken ring, or -1 */
    ShoalClusterStage stage;
    bool prepared;
    bool proven;         /* it has done a round */
    bool ready, aborted; /* in the present generation */
    bool gone;           /* is taken out of the list at the end of the input */
} ShoalClusterWorker;

/* A round from `completed` on. */
typedef struct ShoalClusterPlan {
    uint64_t updates; /* done after it */
    bool alone;
    bool part; /* neither alone nor making an update: nothing but the rest of its iteration can
                  follow, since no version tells of it */
} ShoalClusterPlan;

struct ShoalCluster {
    ShoalClusterConfig config;
    ShoalClusterPhase phase;
    bool clocked; /* an input with a time has come */
    bool closed;  /* finish was called */
    uint64_t now_ms;
    uint64_t first_ms; /* of the first input; moves on while the caller is asleep */
    uint64_t come_ms;  /* when someone last joined or was prepared */

    ShoalClusterWorker
        *workers;            /* [max_workers], the first n_workers in use, in order of joining */
    ShoalClusterInfo *infos; /* [max_workers], likewise */
    unsigned n_workers, n_gone, n_prepared, next_worker_id;
    ShoalFailures failures;
    ShoalFailures obstacles; /* who was lost because a generation did not come up, or stood still */
    unsigned stalls;         /* how often all waited for each other since the last complete round */

    uint64_t generation;         /* the newest; 0: none */
    uint64_t first_generation;   /* the first one that was formed here; 0: none */
    uint64_t heard_generation;   /* the highest that any worker has heard of */
    ShoalClusterMember *members; /* [max_workers], of the newest generation */
    unsigned *order;             /* [max_workers] scratch: workers by rank */
    unsigned n_members, n_ready, n_aborted;
    bool broken;            /* a member was lost: form anew at the end of the input */
    bool waiting_for_blame; /* a ring broke */
    bool remade;            /* a ring was made anew for no loss, at remade_ms */
    int first_blaming;      /* rank of the first that blames another for it; -1: none does */
    uint64_t formed_ms, aborted_ms, remade_ms;
    uint64_t candidate_ms; /* since when there are candidates */
    char abort_text[SHOAL_CLUSTER_TEXT];

    bool started; /* there was a START */
    bool astray;  /* the caller has not seen the last START: where its plans are is unknown */
    uint64_t start_round; /* of the last one */
    uint64_t added, issued, completed;
    uint64_t base;    /* updates after the last complete round, or of the last START since then */
    uint64_t reached; /* the most updates that any state made here can have */
    bool part_issued, part_completed; /* the last such round since START is a part */
    unsigned n_behind;                /* members that have not done round `completed` */
    ShoalClusterPlan *plans;          /* [plan_capacity], a ring; round r at r % plan_capacity */
    size_t plan_capacity;

    ShoalClusterAction *queue; /* [queue_capacity], a ring */
    size_t queue_capacity, queue_limit, head, count;
    bool has_last;           /* last is yet to be read */
    ShoalClusterAction last; /* FAIL or FINISHED: comes after the queue */
};

bool shoal_cluster_is_over(const ShoalCluster *cluster);
bool shoal_cluster_is_running(const ShoalCluster *cluster); /* RUNNING or DRAINING */
bool shoal_cluster_is_active(const ShoalCluster *cluster);  /* FORMING, RUNNING or DRAINING */

/* from_ms + timeout_ms; UINT64_MAX where the timeout is 0 (never). */
uint64_t shoal_cluster_after(uint64_t from_ms, uint64_t timeout_ms);

/* Copies text of a peer for logs and terminals: no control characters, always ends. */
void shoal_cluster_copy_text(char *out, size_t size, const char *text);

/* --- actions.c --- */

/* A new action at the end of the queue, with the present generation; NULL (and the run has failed)
 * when there is no room for it. */
ShoalClusterAction *shoal_cluster_push(ShoalCluster *cluster, ShoalClusterActionKind kind);
void shoal_cluster_push_text(ShoalCluster *cluster, ShoalClusterActionKind kind, const char *text);
void shoal_cluster_push_drop(ShoalCluster *cluster, uint64_t connection, ShoalStatus status,
                             bool for_good, bool forget, const char *text);
/* Takes FORM, START and ISSUE out of the queue: what has happened stays to be read, what was only
 * planned does not. true: there was a START. */
bool shoal_cluster_forget_plans(ShoalCluster *cluster);
void shoal_cluster_fail(ShoalCluster *cluster, ShoalStatus status, const char *text);
void shoal_cluster_end(ShoalCluster *cluster); /* FINISHED */

/* --- membership.c --- */

#define SHOAL_CLUSTER_WHO 256 /* bytes of shoal_cluster_describe */
/* "worker 2 (phone-3 at 192.0.2.7, pid 77)" */
void shoal_cluster_describe(const ShoalCluster *cluster, const ShoalClusterWorker *worker,
                            char *text);

/* Takes a worker out; `verb` as in "worker 2 (...) VERB in round 5: REASON". */
void shoal_cluster_lose(ShoalCluster *cluster, ShoalClusterWorker *worker, const char *verb,
                        const char *reason);
/* The same for one that wants it so, and is not to blame. */
void shoal_cluster_let_rest(ShoalCluster *cluster, ShoalClusterWorker *worker, const char *reason);
void shoal_cluster_lose_and_drop(ShoalCluster *cluster, ShoalClusterWorker *worker,
                                 ShoalStatus status, const char *verb, const char *reason);
void shoal_cluster_break_rules(ShoalCluster *cluster, ShoalClusterWorker *worker,
                               const char *reason);
/* The same for one that kept a generation from coming up or getting on: it has to stay away for a
 * while, longer each time. */
void shoal_cluster_lose_obstacle(ShoalCluster *cluster, ShoalClusterWorker *worker,
                                 const char *verb, const char *reason);
/* Of the members that have not done a round yet, the last that came; NULL: there is none, or no
 * other kind. */
ShoalClusterWorker *shoal_cluster_last_unproven(ShoalCluster *cluster);
void shoal_cluster_sweep(ShoalCluster *cluster);   /* takes those that are gone off the list */
void shoal_cluster_regroup(ShoalCluster *cluster); /* after a loss */
void shoal_cluster_form(ShoalCluster *cluster);
bool shoal_cluster_may_begin(const ShoalCluster *cluster);
void shoal_cluster_note_abort(ShoalCluster *cluster, ShoalClusterWorker *worker, int suspect_rank,
                              const char *text);
uint64_t shoal_cluster_blame_deadline(const ShoalCluster *cluster);
void shoal_cluster_settle_blame(ShoalCluster *cluster);
void shoal_cluster_lose_laggards(ShoalCluster *cluster);

/* --- rounds.c --- */

bool shoal_cluster_plan_reserve(ShoalCluster *cluster, uint64_t rounds);
bool shoal_cluster_version_counts(const ShoalCluster *cluster, ShoalClusterVersion version);
void shoal_cluster_start(ShoalCluster *cluster);
void shoal_cluster_note_done(ShoalCluster *cluster, ShoalClusterWorker *worker);
void shoal_cluster_complete_rounds(ShoalCluster *cluster);
void shoal_cluster_issue_rounds(ShoalCluster *cluster);
void shoal_cluster_plan_add(ShoalCluster *cluster, uint64_t updates, bool alone);
bool shoal_cluster_holds_for_candidates(const ShoalCluster *cluster);
uint64_t shoal_cluster_hold_deadline(const ShoalCluster *cluster);
uint64_t shoal_cluster_stall_deadline(const ShoalCluster *cluster);
void shoal_cluster_end_stall(ShoalCluster *cluster);

#endif
