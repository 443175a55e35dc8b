/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHOAL_TRAIN_COORDINATOR_INTERNAL_H
#define SHOAL_TRAIN_COORDINATOR_INTERNAL_H

#include <poll.h>

#include "cluster/balance.h"
#include "cluster/holdings.h"
#include "discovery/discovery.h"
#include "train/children.h"
#include "train/chunk.h"
#include "train/coordinator.h"
#include "train/handshake.h"
#include "train/probe.h"
#include "device/vitals.h"

/* What the coordinator's files share: coordinator.c (life and loop), coordinator_peers.c (who
 * connects, and what workers say), coordinator_rounds.c (what the core wants done),
 * coordinator_samples.c (rounds and their samples on their way to the workers),
 * coordinator_status.c (what is shown of them). */

enum {
    SHOAL_COORDINATOR_WINDOW = 4, /* rounds ahead of the workers: their samples are there in time */
    /* More than the window: rounds before the state that a generation began with are complete only
     * when everybody has that state. */
    SHOAL_COORDINATOR_FLIGHTS = 4 * SHOAL_COORDINATOR_WINDOW,
    SHOAL_COORDINATOR_GREETING_MS = 10000, /* for a stranger to prove itself */
    SHOAL_COORDINATOR_STRANGERS = 256,     /* most at a time */
    SHOAL_COORDINATOR_RESTERS = 64         /* that are shown; of more, the oldest are forgotten */
};

/* What a worker did since the last displayed iteration. */
typedef struct ShoalTally {
    double samples, compute_ns, communication_ns, exposed_ns, waiting_ns, bytes_sent;
    double sent_bytes, sent_records, held_records; /* of samples, to it */
} ShoalTally;

typedef struct ShoalPeer {
    uint64_t id; /* the core's name for the connection */
    ShoalChannel *channel;
    ShoalGreeting greeting;
    bool joined, broken;
    bool more;            /* it may have said more than was read in its turn */
    uint64_t deadline_ms; /* for the greeting */
    ShoalJoinInfo info;   /* since it has joined */
    char name[96];        /* for people */
    int capacity;         /* samples of a training batch at once */
    int store;            /* number of its cache in holdings, or -1 */
    ShoalVitals vitals;
    float duty; /* part of the time that it lets itself compute */
    char remark[160];
    ShoalTally tally;
} ShoalPeer;

/* A worker that has left to rest and is not back yet. */
typedef struct ShoalRester {
    char name[96], reason[160];
} ShoalRester;

/* A round between its plan and its completion. */
typedef struct ShoalFlight {
    ShoalPlan plan;
    uint64_t generation;      /* in which it was issued */
    uint64_t *connections;    /* by rank */
    ShoalResult *results;     /* by rank */
    int size;                 /* of both */
    ShoalBuffer model, state; /* SNAPSHOT: on its way in */
} ShoalFlight;

typedef struct ShoalCoordinator {
    ShoalJob *job;
    const ShoalTrainOptions *options;
    ShoalDirector *director;
    ShoalCluster *cluster;
    ShoalAuthKey key;
    uint64_t session;
    bool adopt;                /* workers' states of an earlier run count */
    uint64_t first_generation; /* the number of the first one; 0: none yet */
    ShoalWireFormat format;
    int listen_fd;
    ShoalProbeServer *probes;        /* for those who only measure the link */
    ShoalAnnouncement *announcement; /* NULL: nobody is told of this run */
    ShoalPeer **peers;
    int n_peers, peers_size;
    uint64_t next_id;
    uint32_t n_welcomed;
    struct pollfd *polls;
    unsigned heartbeat_ms, silence_ms;
    uint64_t next_heartbeat_ms;

    ShoalFlight flights[SHOAL_COORDINATOR_FLIGHTS];
    bool all_planned, over, begun;
    /* of the present generation, by rank */
    ShoalBalance *balance;
    bool balances; /* it hears of speeds; without, shares are equal */
    int n_members, members_size;
    int *capacities, *stores, *limits; /* limits: capacities of those who are not late */
    unsigned char *late;
    bool any_late;
    uint64_t late_updates; /* they have nothing to do in the iteration that begins with so many */
    unsigned char *odd;    /* scratch for comparing replicas */

    ShoalHoldings *holdings;
    unsigned char (*store_ids)[SHOAL_HANDSHAKE_ID_BYTES];
    unsigned char *store_alive;
    int n_stores, stores_size;

    ShoalWorkerStatus *statuses;
    int statuses_size;
    ShoalRester resters[SHOAL_COORDINATOR_RESTERS];
    ShoalRestingStatus resting[SHOAL_COORDINATOR_RESTERS];
    int n_resters;
    ShoalClusterStatus status;
    double tally_rounds; /* iterations since the last displayed one */
    uint64_t lost_ns;    /* when the first worker was lost since the last complete round; 0: none */

    char last_snapshot[4096]; /* .solverstate that this run has written */
    void *job_bytes;
    size_t job_size;
    unsigned char job_id[SHOAL_HANDSHAKE_ID_BYTES];
    uint64_t failed_peer; /* who blamed the job last, + 1; 0: nobody */
    char failure[SHOAL_CLUSTER_TEXT];
    ShoalChildren children;
    int ended;          /* an own worker that is gone before the training began, */
    char ended_how[32]; /* and how; empty: none */
    ShoalError *err;
} ShoalCoordinator;

/* ---- coordinator.c ---- */

/* The present generation as people count, from 1; 0: none yet. */
uint64_t shoal_coordinator_generation(const ShoalCoordinator *c);

/* Makes the job's bytes and its name. Before anyone has joined, and when the job's seed changes. */
ShoalStatus shoal_coordinator_pack_job(ShoalCoordinator *c);

/* ---- coordinator_status.c ---- */

/* The peer leaves to rest, for this reason; it is (back) at work. */
void shoal_coordinator_note_rest(ShoalCoordinator *c, const ShoalPeer *peer, const char *reason);
void shoal_coordinator_note_work(ShoalCoordinator *c, const ShoalPeer *peer);

/* ---- coordinator_peers.c ---- */

ShoalPeer *shoal_coordinator_peer(const ShoalCoordinator *c, uint64_t id);

/* Room for more connections, at the begin for the first ones. False: memory is short. */
bool shoal_coordinator_grow_peers(ShoalCoordinator *c);

/* A new connection; closed at once when there are too many. */
void shoal_coordinator_add_peer(ShoalCoordinator *c, int fd);
void shoal_coordinator_remove_peer(ShoalCoordinator *c, int i);

/* The connection is of no more use; the core hears of it when it had joined. */
void shoal_coordinator_lose(ShoalCoordinator *c, ShoalPeer *peer, const char *reason);

/* Queues a message for a peer, unless it is lost. */
ShoalStatus shoal_coordinator_queue(ShoalPeer *peer, ShoalMessageType type,
                                    const ProtobufCMessage *message);
/* Queues bytes in Chunks. */
ShoalStatus shoal_coordinator_queue_chunks(ShoalPeer *peer, Shoal__ChunkKind kind, uint64_t id,
                                           const void *bytes, size_t size);

/* One frame of a peer: greets strangers, tells the core what workers say. */
void shoal_coordinator_take(ShoalCoordinator *c, ShoalPeer *peer, const ShoalFrame *frame);

/* The flight of a round that is issued and not complete; NULL: there is none. */
ShoalFlight *shoal_coordinator_flight(ShoalCoordinator *c, uint64_t round);
/* The rank that a connection has in a flight, or -1. */
int shoal_coordinator_flight_rank(const ShoalFlight *flight, uint64_t connection);

/* ---- coordinator_rounds.c ---- */

/* Does what the core wants; errors are in c->err, too. */
ShoalStatus shoal_coordinator_carry_out(ShoalCoordinator *c, const ShoalClusterAction *action);

/* Plans rounds as far as the core has room for them. */
ShoalStatus shoal_coordinator_plan(ShoalCoordinator *c);

/* ---- coordinator_samples.c ---- */

/* Sends a round and its samples to one rank. Errors are the dataset's. */
ShoalStatus shoal_coordinator_send_round(ShoalCoordinator *c, ShoalPeer *peer,
                                         const ShoalFlight *flight, uint64_t number, int rank);
/* Sends samples of a round again. */
void shoal_coordinator_take_fetch(ShoalCoordinator *c, ShoalPeer *peer, const ShoalFrame *frame);
/* What a worker's cache holds. */
void shoal_coordinator_take_holdings(ShoalCoordinator *c, ShoalPeer *peer, const ShoalFrame *frame);
/* The number of a worker's cache, -1 for none. */
int shoal_coordinator_store(ShoalCoordinator *c, const ShoalJoinInfo *info);

/* ---- coordinator_status.c ---- */

/* Adds what a worker reported to its tally. */
void shoal_coordinator_tally(ShoalCoordinator *c, ShoalPeer *peer, const ShoalFlight *flight,
                             int rank);
/* What is shown with an iteration; and forgets the tallies after a displayed one. */
const ShoalClusterStatus *shoal_coordinator_status(ShoalCoordinator *c, const ShoalFlight *flight);
void shoal_coordinator_reset_tallies(ShoalCoordinator *c);
/* Events about who is in. text NULL: made from the name. */
void shoal_coordinator_emit(ShoalCoordinator *c, ShoalEventKind kind, const char *text);

#endif
