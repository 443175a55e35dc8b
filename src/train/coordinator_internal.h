/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHOAL_TRAIN_COORDINATOR_INTERNAL_H
#define SHOAL_TRAIN_COORDINATOR_INTERNAL_H

#include <poll.h>

#include "train/children.h"
#include "train/chunk.h"
#include "train/coordinator.h"
#include "train/handshake.h"

/* What the coordinator's files share: coordinator.c (life and loop), coordinator_peers.c (who
 * connects, and what members say), coordinator_rounds.c (what the core wants done). */

enum {
    SHOAL_COORDINATOR_WINDOW = 4, /* rounds ahead of the workers: their samples are there in time */
    SHOAL_COORDINATOR_HEARTBEAT_MS = 500,  /* of the workers */
    SHOAL_COORDINATOR_GREETING_MS = 10000, /* for a stranger to prove itself */
    SHOAL_COORDINATOR_STRANGERS = 64       /* most at a time */
};

typedef struct ShoalPeer {
    uint64_t id; /* the core's name for the connection */
    ShoalChannel *channel;
    ShoalGreeting greeting;
    bool member, broken;
    uint64_t deadline_ms; /* for the greeting */
} ShoalPeer;

/* What a worker did since the last displayed iteration. */
typedef struct ShoalTally {
    double samples, compute_ns, communication_ns, waiting_ns;
    char name[96];
} ShoalTally;

/* A round between its plan and its completion. */
typedef struct ShoalFlight {
    ShoalPlan plan;
    ShoalResult *results;     /* by rank */
    ShoalBuffer model, state; /* SNAPSHOT: on its way in; the next one may be, too */
} ShoalFlight;

typedef struct ShoalCoordinator {
    ShoalJob *job;
    const ShoalTrainOptions *options;
    ShoalDirector *director;
    ShoalCluster *cluster;
    ShoalAuthKey key;
    unsigned char ring_secret[SHOAL_AUTH_BYTES];
    int listen_fd;
    ShoalPeer **peers;
    int n_peers, peers_size;
    uint64_t next_id;
    struct pollfd *polls;
    int n_workers;
    ShoalFlight flights[SHOAL_COORDINATOR_WINDOW];
    bool all_planned, over;
    ShoalTally *tallies;
    ShoalWorkerStatus *statuses;
    char last_snapshot[512];
    void *job_bytes;
    size_t job_size;
    ShoalChildren children;
    int ended;          /* an own worker that is gone before the training began, */
    char ended_how[32]; /* and how; empty: none */
    ShoalError *err;
} ShoalCoordinator;

/* ---- coordinator_peers.c ---- */

ShoalPeer *shoal_coordinator_peer(const ShoalCoordinator *c, uint64_t id);

/* A new connection; closed at once when there are too many. */
void shoal_coordinator_add_peer(ShoalCoordinator *c, int fd);
void shoal_coordinator_remove_peer(ShoalCoordinator *c, int i);

/* The connection is of no more use; the core hears of it when it was a member. */
void shoal_coordinator_lose(ShoalCoordinator *c, ShoalPeer *peer, const char *reason);

/* Queues a message for a peer, unless it is lost. */
ShoalStatus shoal_coordinator_queue(ShoalPeer *peer, ShoalMessageType type,
                                    const ProtobufCMessage *message);

/* One frame of a peer: greets strangers, tells the core what members say. */
void shoal_coordinator_take(ShoalCoordinator *c, ShoalPeer *peer, const ShoalFrame *frame);

/* ---- coordinator_rounds.c ---- */

/* Does what the core wants; errors are in c->err, too. */
ShoalStatus shoal_coordinator_carry_out(ShoalCoordinator *c, const ShoalClusterAction *action);

#endif
