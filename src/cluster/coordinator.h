/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHOAL_CLUSTER_COORDINATOR_H
#define SHOAL_CLUSTER_COORDINATOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shoal/status.h"

/* Membership and rounds, as a pure state machine: no socket, no clock, no thread. The caller feeds
 * it what happened and when (milliseconds of any clock that does not go back), then reads actions
 * until there are none and carries them out.
 *
 *                 enough prepared                 all ready
 *     WAITING -----------------------> FORMING -----------------> RUNNING --finish--> DRAINING -->
 * DONE ^                             ^  |  ^                      |  |                | |   fewer
 * than min_workers    |  |  +--- a member lost ----+--+----------------+
 *        +-----------------------------+--+  +--- someone prepared, and all issued rounds complete
 *
 * A worker joins, prepares itself (builds its replica), and then is a candidate: whoever is
 * prepared when a generation is formed is a member of it. A generation is one membership with one
 * ring; its members keep their order (rank) as long as it lasts. It ends when a member is lost, or,
 * to let candidates in, between two rounds.
 *
 * A round is one unit of work that every member does: a part of a training iteration, a test, a
 * snapshot. Rounds are numbered; every member does them in order. Each has the number of updates
 * that are done after it, so the core knows which state follows which round.
 *
 * States. A replica's state has a version: how many updates, and the generation that made the last
 * of them. When a generation is up, its members say which version they hold; the newest counts, and
 * those who hold another one are needy: they get it from the others while these go on. Rounds that
 * are behind that version are complete, whoever of their doers is lost; those after it are planned
 * and done anew. So an update is neither lost nor made twice as long as one who holds it lives.
 * When nobody holds a state that can be gone on from, one member is seeded with what the caller has
 * (a snapshot, or the beginning).
 *
 * Where a generation begins, in this order:
 *   1. Nobody holds a state, or the newest is older than what can be seeded and than where the run
 *      is: seed. The version of the seed is (seed_updates, this generation): no other state has it.
 *   2. The first START, or a state that no planned round leads to (older than what is complete; or
 *      newer than all that was issued, by a worker that comes from elsewhere), or the newest state
 *      is inside of an iteration of several rounds of which a part is complete: seek. An iteration
 *      whose rounds are not all done leaves nothing behind, so it is done anew from its beginning.
 *   3. Else the run goes on behind the round that made the state, and forgets what was planned
 *      beyond: rewind, or nothing at all to be done. */

#define SHOAL_CLUSTER_TEXT 512 /* bytes of a reason, with its '\0' */
#define SHOAL_CLUSTER_MAX_WORKERS 4096
#define SHOAL_CLUSTER_MAX_WINDOW 64

typedef enum ShoalClusterPhase {
    SHOAL_CLUSTER_WAITING, /* for workers: at the begin, and whenever too few are left */
    SHOAL_CLUSTER_FORMING,
    SHOAL_CLUSTER_RUNNING,
    SHOAL_CLUSTER_DRAINING, /* no more rounds will be added */
    SHOAL_CLUSTER_DONE,
    SHOAL_CLUSTER_FAILED
} ShoalClusterPhase;

/* A replica's version; see Version in cluster/messages.proto. */
typedef struct ShoalClusterVersion {
    bool held;
    uint64_t updates, generation;
} ShoalClusterVersion;

/* Negative, 0, positive as a is older than, the same as, newer than b; not held is oldest. */
int shoal_cluster_version_compare(ShoalClusterVersion a, ShoalClusterVersion b);

typedef struct ShoalClusterConfig {
    unsigned expected;    /* begin when so many are prepared, 1 .. SHOAL_CLUSTER_MAX_WORKERS */
    unsigned min_workers; /* pause below, 1 .. expected */
    unsigned max_workers; /* refuse beyond, expected .. SHOAL_CLUSTER_MAX_WORKERS */
    unsigned window; /* rounds issued beyond the last complete one, or beyond START's round while
                        those before that one are not complete; 1 .. SHOAL_CLUSTER_MAX_WINDOW. So up
                        to twice as many may be incomplete */
    unsigned max_failures;         /* of one worker within an hour; more: quarantine; 0: any */
    uint64_t heartbeat_timeout_ms; /* silence after which a worker is lost; > 0 */
    uint64_t stall_timeout_ms;     /* a member that computes without progress is lost; 0: never */
    uint64_t join_timeout_ms; /* for `expected` to be prepared, from the first input; 0: for ever */
    uint64_t settle_ms; /* begin with min_workers when no one has come for so long, or when the time
                           for joining is over; 0: only with `expected` */
    uint64_t join_hold_ms;    /* candidates wait so long for others before a running generation is
                                 ended for them */
    uint64_t form_timeout_ms; /* for a member to be ready, from FORM; 0: for ever */
    bool adopt;            /* go on from states of an earlier run; else only those count that were
                              made since the first generation of this one */
    bool adopt_any;        /* with adopt: even when what the caller can seed with is newer */
    uint64_t seed_updates; /* version of what the caller can seed with, now */
    uint64_t first_generation; /* number of the first generation; 0 counts as 1. Joining workers
                                  that have heard of higher ones raise it. But one that comes later
                                  may hold states of an earlier run: for versions to be unique this
                                  must be above all of its generations (milliseconds since 1970,
                                  say: no run forms a thousand generations a second) */
} ShoalClusterConfig;

/* What a worker said of itself when it joined (already authenticated). */
typedef struct ShoalClusterInfo {
    char address[64];   /* numeric, without port: where the other workers reach it */
    uint16_t ring_port; /* where it listens for the ring */
    char name[64];      /* for people; control characters are replaced */
    int64_t pid;
    uint64_t generation; /* the highest that it has heard of; 0: none */
} ShoalClusterInfo;

/* What a worker is at (Stage in messages.proto). */
typedef enum ShoalClusterStage {
    SHOAL_CLUSTER_IDLE,
    SHOAL_CLUSTER_COMPUTING,
    SHOAL_CLUSTER_REDUCING
} ShoalClusterStage;

typedef struct ShoalClusterMember {
    uint64_t connection; /* the caller's name for it */
    unsigned worker_id;  /* running number by joining, from 0; never used twice */
    ShoalClusterInfo info;
    ShoalClusterVersion version; /* that it said it holds, since it is ready */
    bool needy;                  /* since START: gets its state from the others */
} ShoalClusterMember;

typedef enum ShoalClusterActionKind {
    SHOAL_CLUSTER_FORM,     /* tell every member: generation, members in the order of ranks */
    SHOAL_CLUSTER_START,    /* all members are ready: bring the plans to `round` and `version` (see
                               below), then tell every member; nothing is issued before */
    SHOAL_CLUSTER_ISSUE,    /* send round `round` to every member */
    SHOAL_CLUSTER_COMPLETE, /* round `round` is done by every member, or all members hold a state
                               that it is in: results of lost members may be missing. A member that
                               is needy shows that it has got its state by the first round that it
                               does; until then rounds before START's are not complete */
    SHOAL_CLUSTER_LOST,  /* for people: a worker (`connection`, `worker_id`) is no member any more,
                            and why (`text`) */
    SHOAL_CLUSTER_PAUSE, /* for people: fewer than min_workers are left; `text` */
    SHOAL_CLUSTER_DROP,  /* tell `connection` the reason `text` (and for_good, forget) and close it;
                            no leave() follows */
    SHOAL_CLUSTER_FAIL,  /* the run is over: status and text; the last but for DROPs */
    SHOAL_CLUSTER_FINISHED /* all rounds complete: tell all to stop; the last but for DROPs */
} ShoalClusterActionKind;

typedef struct ShoalClusterAction {
    ShoalClusterActionKind kind;
    uint64_t generation;         /* FORM, START, ISSUE, COMPLETE */
    uint64_t round;              /* START, ISSUE, COMPLETE */
    ShoalClusterVersion version; /* START: what members hold before `round` */
    bool rewind; /* START: rounds from `round` on had been added; they are forgotten. The caller's
                    planner goes back to where it was before it planned `round` */
    bool seek;   /* START: the planner goes to the beginning of iteration version.updates, wherever
                    it was; with seek, rewind is false */
    bool seed;   /* START: nobody holds a state: member 0 is to be seeded; all others are needy */
    uint64_t connection; /* DROP, LOST */
    unsigned worker_id;  /* LOST */
    bool rests;          /* LOST: it left to rest, and will come back */
    bool for_good;       /* DROP: coming back is of no use */
    bool forget;         /* DROP: its state is wrong and must not be offered again */
    ShoalStatus status;  /* DROP, FAIL */
    char text[SHOAL_CLUSTER_TEXT];
} ShoalClusterAction;

typedef struct ShoalCluster ShoalCluster;

/* SHOAL_ERR_ARGUMENT for a config out of range, SHOAL_ERR_MEMORY. */
ShoalStatus shoal_cluster_create(const ShoalClusterConfig *config, ShoalCluster **cluster,
                                 ShoalError *err);
void shoal_cluster_destroy(ShoalCluster *cluster);

/* Inputs. Read all actions after each one. (Where an input comes between two actions, as diverged()
 * does after a COMPLETE, plans that it makes void are not given any more.) After DONE or FAILED
 * they change nothing, but that join is refused. Connections that are not (or no longer) known are
 * ignored. `now_ms` that is smaller than an earlier one counts as that earlier one. Every input
 * with a connection is a sign of life. */

/* An authenticated worker. DROP when it is one too many, in quarantine, or comes too late. */
void shoal_cluster_join(ShoalCluster *cluster, uint64_t now_ms, uint64_t connection,
                        const ShoalClusterInfo *info);

/* It has built its replica: a candidate from now on. */
void shoal_cluster_prepared(ShoalCluster *cluster, uint64_t now_ms, uint64_t connection);

/* The connection is gone; `reason` for people ("connection closed"). A member's loss ends the
 * generation; the others go on in a new one at once. */
void shoal_cluster_leave(ShoalCluster *cluster, uint64_t now_ms, uint64_t connection,
                         const char *reason);

/* The worker leaves by its own will and will come back (message Leave): as shoal_cluster_leave, but
 * not counted as a failure. */
void shoal_cluster_rest(ShoalCluster *cluster, uint64_t now_ms, uint64_t connection,
                        const char *reason);

/* The worker itself says that it cannot go on (message Failure): lost, and dropped. When it could
 * not even prepare itself because of the job (SHOAL_ERR_MODEL, _PARSE, _DATA, _ARGUMENT) and no
 * generation was ever formed: FAIL, since the others cannot either. */
void shoal_cluster_fault(ShoalCluster *cluster, uint64_t now_ms, uint64_t connection,
                         ShoalStatus status, const char *text);

/* The worker lives but its ring broke (message Aborted). When a worker dies its neighbours' words
 * often overtake the end of its own connection, so blame waits up to heartbeat_timeout_ms for a
 * worker that is really gone. After that a new generation is formed of the same workers, in an
 * order in which the two that lost each other are no neighbours (where there are four or more);
 * when the same worker is suspected by another again within a minute, it is lost. */
void shoal_cluster_aborted(ShoalCluster *cluster, uint64_t now_ms, uint64_t connection,
                           uint64_t generation, int suspect_rank, const char *text);

/* A sign of life: call it for whatever arrives from the connection. */
void shoal_cluster_heard(ShoalCluster *cluster, uint64_t now_ms, uint64_t connection);

/* What it is at; progress grows with every piece of work. A member that computes in a running round
 * without progress for stall_timeout_ms is lost; when all of them wait for each other for that
 * time, their ring is made anew. */
void shoal_cluster_progress(ShoalCluster *cluster, uint64_t now_ms, uint64_t connection,
                            ShoalClusterStage stage, uint64_t progress);

/* The member has its ring for this generation, and holds this version. One that was made in this
 * generation or a later one cannot be: it is dropped, and told to forget it. */
void shoal_cluster_ready(ShoalCluster *cluster, uint64_t now_ms, uint64_t connection,
                         uint64_t generation, ShoalClusterVersion version);

/* The member has done this round. Not issued, twice, out of order or of a generation to come: it
 * broke the protocol, is dropped and lost. An older generation is ignored. */
void shoal_cluster_done(ShoalCluster *cluster, uint64_t now_ms, uint64_t connection,
                        uint64_t generation, uint64_t round);

/* The caller compared the replicas' hashes after a round: this one holds something else than most.
 * It is dropped with `forget`, and lost. */
void shoal_cluster_diverged(ShoalCluster *cluster, uint64_t now_ms, uint64_t connection,
                            const char *text);

/* Time passes. Call it at shoal_cluster_deadline_ms at the latest; earlier does no harm. Feed it
 * what has already arrived first. When far more time has passed since the input before than was
 * left until the deadline then, the caller itself was asleep: silence counts from now on. */
void shoal_cluster_tick(ShoalCluster *cluster, uint64_t now_ms);

/* When the next tick is due; UINT64_MAX for never. */
uint64_t shoal_cluster_deadline_ms(const ShoalCluster *cluster);

/* There is one more round, after which `updates` updates are done; its number. It is issued when
 * its turn and the window allow. One that makes no update and is not alone is a part of an
 * iteration: candidates are let in, and a run goes on, only where an iteration begins. Rounds that
 * are `alone` (tests, snapshots) move no state: they follow each other freely, but are issued only
 * when all others before them are complete, and others only when they are: their results cannot be
 * had again once the weights have moved. What is added before the first START is forgotten by it.
 */
uint64_t shoal_cluster_add_round(ShoalCluster *cluster, uint64_t updates, bool alone);

/* How many rounds could be added now such that each would be issued at once: 0 unless RUNNING, and
 * when candidates wait for the issued rounds to complete. (A generation completes at least one
 * round of its own before it is ended for candidates.) */
unsigned shoal_cluster_room(const ShoalCluster *cluster);

/* No further rounds will be added. A rewind or seek takes that back: say it again. FINISHED comes
 * when all that was added is complete, in whatever phase. */
void shoal_cluster_finish(ShoalCluster *cluster);

/* From now on the caller can seed with this state (a snapshot was written). */
void shoal_cluster_seedable(ShoalCluster *cluster, uint64_t updates);

/* The next action into *action; false when there is none. */
bool shoal_cluster_next_action(ShoalCluster *cluster, ShoalClusterAction *action);

bool shoal_cluster_has_action(const ShoalCluster *cluster);

ShoalClusterPhase shoal_cluster_phase(const ShoalCluster *cluster);
/* 0 until the first FORM, then from first_generation on. */
uint64_t shoal_cluster_generation(const ShoalCluster *cluster);
/* Number of the next round to be added, issued, completed. */
uint64_t shoal_cluster_added(const ShoalCluster *cluster);
uint64_t shoal_cluster_issued(const ShoalCluster *cluster);
uint64_t shoal_cluster_completed(const ShoalCluster *cluster);
/* Members of the present generation by rank, valid until the next input. A member that is lost
 * stays in the list, until the next FORM; so results can be assigned. Before the first FORM: none.
 */
const ShoalClusterMember *shoal_cluster_members(const ShoalCluster *cluster, size_t *n);
/* The rank of a connection among them, or -1. */
int shoal_cluster_rank(const ShoalCluster *cluster, uint64_t connection);
/* Workers that have joined (members or not) and are not lost; those of them that are prepared. */
unsigned shoal_cluster_joined(const ShoalCluster *cluster);
unsigned shoal_cluster_prepared_count(const ShoalCluster *cluster);

#endif
