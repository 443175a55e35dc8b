/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHOAL_TRAIN_LINK_H
#define SHOAL_TRAIN_LINK_H

#include <signal.h>

#include "collective/ring.h"
#include "train/handshake.h"
#include "train/replica.h"

/* A worker's connection to its coordinator, with a thread of its own: it takes messages in, stages
 * samples into slots ahead of need, keeps the heartbeat, and sends what the worker has to say,
 * while the worker's main thread computes.
 *
 *     socket -> [link thread: job, generation, rounds] -> orders -> [main thread]
 *     socket <- [link thread] <- posts: ready, reports, snapshots <- [main thread] */

typedef struct ShoalLink ShoalLink;

typedef enum ShoalOrderKind {
    SHOAL_ORDER_JOB,     /* bytes, size: build the replica, then shoal_link_attach */
    SHOAL_ORDER_CONNECT, /* config: join the ring, then post ready */
    SHOAL_ORDER_RUN      /* slot: run the round, then post its report */
} ShoalOrderKind;

typedef struct ShoalOrder {
    ShoalOrderKind kind;
    int item; /* for shoal_link_finish */
    const unsigned char *bytes;
    size_t size;
    const ShoalRingConfig *config;
    ShoalSlot *slot;
    uint64_t generation, round;
} ShoalOrder;

/* Takes over the channel (after the handshake) and starts the thread. stop may be NULL. */
ShoalStatus shoal_link_create(ShoalChannel *channel, const ShoalJoined *joined,
                              volatile sig_atomic_t *stop, ShoalLink **out, ShoalError *err);

/* Ends the thread; sends what was posted before. NULL is fine. */
void shoal_link_destroy(ShoalLink *link);

/* How many slots shoal_link_attach makes. */
int shoal_link_slots(const ShoalLink *link);

/* Gives the link slots of the replica to stage into. Call it before the first CONNECT is answered.
 */
ShoalStatus shoal_link_attach(ShoalLink *link, const ShoalReplica *replica, ShoalError *err);

/* Waits for the next order. *more false: the run is over, as it should be. An error: the
 * coordinator is lost or ended the run (SHOAL_ERR_LOST), asked to stop (SHOAL_ERR_STOPPED)... */
ShoalStatus shoal_link_next(ShoalLink *link, ShoalOrder *order, bool *more, ShoalError *err);
/* The order's memory may be used again. */
void shoal_link_finish(ShoalLink *link, const ShoalOrder *order);

/* Things to send. */
ShoalStatus shoal_link_post_ready(ShoalLink *link, uint64_t generation, ShoalError *err);
ShoalStatus shoal_link_post_report(ShoalLink *link, const Shoal__Report *report, ShoalError *err);
ShoalStatus shoal_link_post_chunks(ShoalLink *link, Shoal__ChunkKind kind, uint64_t round,
                                   const void *bytes, size_t size, ShoalError *err);
/* The ring broke, but this worker lives. */
void shoal_link_post_aborted(ShoalLink *link, uint64_t generation, int suspect_rank,
                             const char *text);
/* This worker cannot go on. */
void shoal_link_post_failure(ShoalLink *link, const ShoalError *failure);

#endif
